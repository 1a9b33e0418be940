//! Room `lifecycle`.
