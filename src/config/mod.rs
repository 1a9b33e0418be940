//! Settings: one checked [`Config`] out of defaults, a TOML file, the environment and flags.
//!
//! `settings` says what there is; `schema` reads it; `file`, `env` and `flags` are the layers that `layers` lays over
//! each other; `check` refuses what makes no sense; `print` writes it all down, and `reference` writes docs/configuration.md.

mod check;
mod env;
mod error;
mod file;
mod flags;
mod layers;
mod network;
mod pointer;
mod print;
mod reference;
mod schema;
mod secret;
mod settings;

pub use check::{ADDRESSES_MAX, Rule, Violation};
pub use env::{FILE_VARIABLE, service_links};
pub use error::{ADDRESS_EXPECTED, ConfigError, Mistake, Origin, Position, Problem};
pub use flags::Overrides;
pub use layers::load;
pub use network::{BadNetwork, Network};
pub use pointer::{BadPointer, Pointer};
pub use print::{print, summary};
pub use reference::reference;
pub use schema::{Kind, Schema, Section, Setting, schema};
pub use secret::mask;
pub use settings::{
    ChannelRule, Config, Critical, CriticalWhere, Drain, Heartbeat, Limits, Log, LogFormat, Policy, ProxyProtocol,
    Redis,
};

#[cfg(test)]
mod tests;
