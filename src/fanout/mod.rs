//! Room `fanout`.
