//! What the host and its processes say about themselves.

mod host;
mod metrics;
mod process;

pub use host::Host;
pub use metrics::{Metrics, scrape};
pub use process::Process;
