//! What each part costs, in instructions under callgrind: the same at every run of one binary, whatever else the
//! machine does. `make bench-check` compares them with `instructions.toml`.
//!
//! The kernel's part is not counted. Nothing here has a second thread: callgrind would wait for it for ever.

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
#[allow(dead_code)] // what only the times need
mod work;

/// As in the program: glibc's tidies up at times, which is no part of the work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use gungraun::{library_benchmark, library_benchmark_group, main};
use spillgate::fanout::{Chunk, Outbox, Unsent};
use spillgate::wire::envelope;
use spillgate::wire::sort::Sorter;
use std::hint::black_box;
use work::{CRITICAL, KEYED, Mail, Slow, Torn, Turns, Wire};

main!(library_benchmark_groups = [outbox, turn, encoding, inbox, key, ring]);

library_benchmark_group!(name = outbox, benchmarks = [offers, unsent]);
library_benchmark_group!(name = turn, benchmarks = [deliver, deliver_joined, conflate]);
library_benchmark_group!(name = encoding, benchmarks = [raw, json]);
library_benchmark_group!(name = inbox, benchmarks = [awake, asleep]);
library_benchmark_group!(name = key, benchmarks = [sort]);
library_benchmark_group!(name = ring, benchmarks = [submit]);

#[library_benchmark(setup = Slow::new)]
#[bench::conflate(16)]
#[bench::queue(usize::MAX)]
fn offers(slow: Slow) -> (Slow, u64) {
    slow.offer_and_drain()
}

#[library_benchmark(setup = Torn::new)]
#[bench::half()]
fn unsent(torn: Torn) -> (Outbox, Unsent, Option<Chunk>) {
    torn.take_back()
}

#[library_benchmark(setup = Turns::idle)]
#[bench::idle()]
fn deliver(mut turns: Turns) -> Turns {
    turns.deliver();
    turns
}

#[library_benchmark(setup = Turns::idle)]
#[bench::idle()]
fn deliver_joined(mut turns: Turns) -> Turns {
    turns.deliver_joined();
    turns
}

#[library_benchmark(setup = Turns::stalled)]
#[bench::stalled()]
fn conflate(mut turns: Turns) -> Turns {
    turns.conflate();
    turns
}

#[library_benchmark(setup = encoded)]
#[bench::quote(work::quote(1))]
fn raw(payload: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    (envelope::raw_update(black_box(&payload)), payload)
}

#[library_benchmark(setup = encoded)]
#[bench::quote(work::quote(1))]
#[bench::text(work::prose())]
fn json(payload: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    (work::json_update(black_box(&payload)), payload)
}

/// A payload that was encoded before: what is done at a first time is done.
fn encoded(payload: Vec<u8>) -> Vec<u8> {
    for _ in 0..8 {
        black_box((envelope::raw_update(&payload), work::json_update(&payload)));
    }
    payload
}

#[library_benchmark(setup = Mail::new)]
#[bench::update()]
fn awake(mut mail: Mail) -> Mail {
    assert!(mail.pass().is_some());
    mail
}

#[library_benchmark(setup = Mail::new)]
#[bench::update()]
fn asleep(mut mail: Mail) -> Mail {
    assert!(mail.wake().is_some());
    mail
}

#[library_benchmark(setup = keyed)]
#[bench::hash(KEYED)]
#[bench::critical(CRITICAL)]
fn sort((sorter, payload): (Sorter, Vec<u8>)) -> (Sorter, Vec<u8>) {
    black_box(sorter.sort(black_box(&payload)));
    (sorter, payload)
}

fn keyed(rule: &str) -> (Sorter, Vec<u8>) {
    let (sorter, payload) = (work::sorter(rule), work::quote(1));
    for _ in 0..8 {
        black_box(sorter.sort(&payload)); // simd-json looks at the CPU once
    }
    (sorter, payload)
}

#[library_benchmark(setup = Wire::new)]
#[bench::send()]
fn submit(mut wire: Wire) -> Wire {
    wire.send();
    wire
}
