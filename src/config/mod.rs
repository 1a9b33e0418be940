//! Settings: one checked [`Config`] out of defaults, a TOML file, the environment and flags.

mod settings;

pub use settings::{ChannelRule, Config, Drain, Heartbeat, Limits, Redis};
