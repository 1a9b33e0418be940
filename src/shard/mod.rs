//! Room `shard`.
