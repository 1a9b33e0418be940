//! What each part costs, in time: the outbox, a turn's fan-out, encoding, the inbox, keys, the ring. The same work is
//! counted in instructions by `instructions`.
//!
//! `cargo bench --bench parts`

#[allow(dead_code)]
mod bare;
#[allow(dead_code)] // made for the scale tests
#[path = "../tests/crowd/mod.rs"]
mod crowd;
#[allow(dead_code)]
mod fed;
#[allow(dead_code)]
#[path = "../tests/gateway/mod.rs"]
mod gateway;
mod work;

/// As in the program: glibc's tidies up at times, which is no part of the work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use spillgate::wire::envelope;
use std::hint::black_box;
use std::time::{Duration, Instant};
use work::{CRITICAL, KEYED, Mail, RING_SOCKETS, SOCKETS, Slow, Torn, Turns, Wire};

criterion_group!(parts, outbox, turn, encoding, mail, key, ring);
criterion_main!(parts);

fn outbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox");
    for (name, slack) in [("conflate", 16), ("queue", usize::MAX)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| Slow::new(slack), Slow::offer_and_drain, BatchSize::SmallInput);
        });
    }
    group.bench_function("unsent", |bencher| {
        bencher.iter_batched(Torn::new, Torn::take_back, BatchSize::SmallInput);
    });
    group.finish();
}

/// A turn to every socket, until each has what it can take.
fn turn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements(u64::from(SOCKETS)));
    let (mut idle, mut stalled) = (Turns::idle(), Turns::stalled());
    group.bench_function("idle", |bencher| bencher.iter(|| idle.deliver()));
    group.bench_function("joined", |bencher| bencher.iter(|| idle.deliver_joined()));
    group.bench_function("stalled", |bencher| bencher.iter(|| stalled.conflate()));
    group.finish();
}

/// What the source pays once an update and face.
fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encoding");
    let (quote, prose) = (work::quote(1), work::prose());
    group.throughput(Throughput::Bytes(quote.len() as u64));
    group.bench_function("raw", |bencher| bencher.iter(|| envelope::raw_update(black_box(&quote))));
    group.bench_function("json", |bencher| bencher.iter(|| work::json_update(black_box(&quote))));
    group.bench_function("json_text", |bencher| bencher.iter(|| work::json_update(black_box(&prose))));
    group.finish();
}

/// What the source and a shard pay together once an update.
fn mail(criterion: &mut Criterion) {
    let mut mail = Mail::new();
    criterion.bench_function("inbox/round_trip", |bencher| bencher.iter(|| mail.pass()));
    criterion.bench_function("inbox/asleep", |bencher| bencher.iter(|| mail.wake()));
}

/// What the source pays once an update where the channel's rule asks for it.
fn key(criterion: &mut Criterion) {
    let payload = work::quote(1);
    for (name, rule) in [("key/hash", KEYED), ("key/critical", CRITICAL)] {
        let sorter = work::sorter(rule);
        criterion.bench_function(name, |bencher| bencher.iter(|| sorter.sort(black_box(&payload))));
    }
}

/// SENDs on the real ring, the kernel's part included; the clients read between them.
fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(u64::from(RING_SOCKETS)));
    let mut wire = Wire::new();
    group.bench_function("submit", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let began = Instant::now();
                wire.send();
                took += began.elapsed();
                wire.read();
            }
            took
        });
    });
    group.finish();
}
