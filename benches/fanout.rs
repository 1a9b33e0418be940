//! Delivery, timed until it is drained: every SEND has completed and every client has read its update. The real shard
//! over the real ring, beside the floor of the same sends without a shard.
//!
//! `cargo bench --bench fanout`. The bench thread has a core to itself, the clients are a process on the other.

#[allow(dead_code)] // made for the scale tests
#[path = "../tests/crowd/mod.rs"]
mod crowd;
#[allow(dead_code)]
#[path = "../tests/gateway/mod.rs"]
mod gateway;

#[allow(dead_code)]
mod bare;
#[allow(dead_code)] // what only the turns without a kernel need
mod fed;

use bare::Bare;
use criterion::{Criterion, Throughput};
use crowd::payload::numbered;
use crowd::{Crowd, Job};
use fed::Fed;
use spillgate::wire::envelope;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const SOCKETS: u32 = 4000;
const BYTES: usize = 512;
const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;

fn main() -> ExitCode {
    if let Some(code) = crowd::join_if_asked() {
        return code;
    }
    let mut criterion = Criterion::default().configure_from_args();
    core_affinity::set_for_current(core_affinity::CoreId { id: SERVER_CORE });
    delivery(&mut criterion);
    criterion.final_summary();
    ExitCode::SUCCESS
}

/// One update to every socket; the next only when it has drained, so that no two are joined.
fn delivery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delivery");
    group.throughput(Throughput::Elements(u64::from(SOCKETS))).sample_size(20);
    group.measurement_time(Duration::from_secs(10));

    let (mut fed, address) = Fed::listen(SOCKETS).expect("a shard starts");
    let mut crowd = start_crowd(address);
    fed.accept(SOCKETS).expect("all are let in");
    let mut sent = 0;
    group.bench_function("shard", |bencher| {
        bencher.iter_custom(|updates| {
            drained(&mut crowd, &mut sent, updates, |n| fed.deliver(n, &numbered(n, BYTES)).expect("the ring works"))
        });
    });
    drop((fed, crowd));

    let mut bare = Bare::listen(SOCKETS).expect("a ring starts");
    let mut crowd = start_crowd(bare.address);
    bare.accept(SOCKETS).expect("all are let in");
    let mut sent = 0;
    group.bench_function("floor", |bencher| {
        bencher.iter_custom(|updates| {
            drained(&mut crowd, &mut sent, updates, |n| {
                bare.send(envelope::raw_update(&numbered(n, BYTES))).expect("the ring works");
            })
        });
    });
    group.finish();
}

fn start_crowd(server: std::net::SocketAddr) -> Crowd {
    Crowd::start(Job { core: Some(CLIENT_CORE), ..Job::new(server, "/raw/bench", u64::from(SOCKETS)) })
}

/// The time from the first of `updates` until the crowd has read the last.
fn drained(crowd: &mut Crowd, sent: &mut u64, updates: u64, mut deliver: impl FnMut(u64)) -> Duration {
    let first = *sent;
    *sent += updates;
    crowd.await_updates(*sent * u64::from(SOCKETS));
    let began = Instant::now();
    (first..*sent).for_each(&mut deliver);
    let report = crowd.hear();
    let took = began.elapsed();
    assert_eq!((report.updates_each, report.tally.torn), ((*sent, *sent), 0), "{report:?}");
    took
}
