//! Room `server`.

pub mod demo_match;
mod demo_pitch;
mod demo_places;
