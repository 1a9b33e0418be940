//! Spillgate: a WebSocket fan-out gateway. Redis Pub/Sub in, a million browsers out.
//!
//! Latest state for everyone, memory flat, nobody waits for the slowest. `docs/ARCHITECTURE.md` is the map.
//!
//! The rooms, in the order in which they may import (each only from the ones before it; a test holds it):
//! `ids → config → metrics → wire → fanout → lifecycle → sys → bus → source → shard → admin → doctor → server → main`.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod ids;

pub mod config;

pub mod metrics;

pub mod wire;

pub mod fanout;

pub mod lifecycle;

#[allow(unsafe_code)] // the one room that talks to the kernel
pub mod sys;

pub mod bus;

pub mod source;

pub mod shard;

pub mod admin;

pub mod doctor;

pub mod server;
