//! Room `server`.

pub mod cli;
