//! What the host and its processes say about themselves.

mod held;
mod host;
mod metrics;
mod process;

pub use held::Held;
pub use host::Host;
pub use metrics::{Metrics, scrape};
pub use process::Process;
