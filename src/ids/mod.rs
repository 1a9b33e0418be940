//! The names by which the rooms call things: small, copyable, and never mixed up.
