//! The whole gateway put together: command line, start, drain, demo.

pub mod cli;
pub mod demo_match;
mod demo_pitch;
mod demo_places;
