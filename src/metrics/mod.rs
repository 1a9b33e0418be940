//! What is counted, and how a scrape sees it: each thread counts in plain integers of its own and publishes them
//! together at the end of a turn, so that a scrape costs the data plane nothing and sees one moment.

mod board;
mod counters;
mod window;

pub use board::{Board, HistogramBoard, latency_histogram};
pub use counters::{DropReason, EndReason, ShardCounters, SourceCounters};
pub use window::{Recorded, Window};
