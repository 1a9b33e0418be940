//! A shard over a simulated ring, a hundred thousand turns long. What loopback never shows shows here within seconds.
//!
//! `SPILLGATE_SIM_SEED=n cargo test --test shard_sim` repeats one seed; a failure prints the seed and the turn.

mod client;
mod proxy;
mod ring;
mod settings;
mod socket;
mod source;
mod stream;
mod world;

use ring::Seen;
use spillgate::metrics::{DropReason, EndReason};
use std::time::Instant;
use world::World;

/// Says what failed, so that it can be repeated.
struct Repeat {
    seed: u64,
    world: World,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, turn) = (self.seed, self.world.turns);
            eprintln!("it failed at turn {turn} of seed {seed}: {SEED}={seed} cargo test --test shard_sim");
        }
    }
}

/// Names the one seed to run.
const SEED: &str = "SPILLGATE_SIM_SEED";

fn seeds(fixed: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var(SEED) {
        Ok(seed) => vec![seed.parse().expect("SPILLGATE_SIM_SEED is a number")],
        Err(_) => fixed.collect(),
    }
}

fn is_repeated() -> bool {
    std::env::var_os(SEED).is_some()
}

fn world(seed: u64) -> Repeat {
    Repeat { seed, world: World::new(seed) }
}

#[test]
fn no_torn_frame_no_deaf_socket_no_leaked_slot_in_a_hundred_thousand_turns() {
    let began = Instant::now();
    let (mut turns, mut updates, mut all) = (0, 0, Vec::<(&str, u64)>::new());
    for seed in seeds(1..25) {
        let mut repeat = world(seed);
        repeat.world.live(5000);
        repeat.world.end();
        turns += repeat.world.turns;
        updates += repeat.world.updates;
        for (at, (name, count)) in counts(&mut repeat.world).into_iter().enumerate() {
            match all.get_mut(at) {
                Some((_, sum)) => *sum += count,
                None => all.push((name, count)),
            }
        }
    }
    let per_second = turns as f64 / began.elapsed().as_secs_f64();
    println!("{turns} turns, {per_second:.0} a second; {updates} updates read");
    all.iter().for_each(|(name, count)| println!("{count:>9} {name}"));
    if !is_repeated() {
        assert!(turns >= 100_000);
        let never: Vec<_> = all.iter().filter(|(_, count)| *count == 0).collect();
        assert!(never.is_empty(), "nothing was shown of {never:?}");
    }
}

#[test]
fn a_shard_that_leaves_in_mid_traffic_tells_everyone_and_comes_to_its_end() {
    let mut told = 0;
    for seed in seeds(100..110) {
        let mut repeat = world(seed);
        repeat.world.live(1000);
        told += repeat.world.leave();
        repeat.world.end();
    }
    assert!(told > 20 || is_repeated(), "{told} were there to be told");
}

#[test]
fn a_seed_does_the_same_again() {
    let run = |seed| {
        let mut repeat = world(seed);
        repeat.world.live(1000);
        (counts(&mut repeat.world), repeat.world.turns, repeat.world.counters().clone())
    };
    assert_eq!(run(7), run(7));
}

/// What must have happened for a run to have shown anything.
fn counts(world: &mut World) -> Vec<(&'static str, u64)> {
    let seen: Seen = world.seen();
    let source = world.source().counts.clone();
    let paces = world.paces;
    let shard = world.counters();
    vec![
        ("short sends", seen.short_sends),
        ("EAGAINs", seen.eagains),
        ("polls that ended", seen.ended_polls),
        ("polls armed again", shard.polls_rearmed),
        ("completions that overflowed", seen.overflows),
        ("slots used again", seen.reused_slots),
        ("times that the table was full", seen.full_tables),
        ("accepts that failed", seen.accept_errors),
        ("submits put off", seen.late_submits),
        ("shutdowns on a worker", seen.late_shutdowns),
        ("reads of a reset", seen.resets),
        ("requests that timed out", shard.ended[EndReason::RequestTimeout as usize]),
        ("PROXY headers refused", shard.ended[EndReason::ProxyHeader as usize]),
        ("health checks", shard.ended[EndReason::HealthCheck as usize]),
        ("pings that timed out", shard.ended[EndReason::PingTimeout as usize]),
        ("connections", shard.accepted),
        ("messages from clients", shard.received),
        ("updates published", source.published),
        ("updates conflated in the inbox", source.conflated),
        ("updates lost in front of the inbox", source.overrun),
        ("updates conflated", shard.conflated),
        ("updates dropped: no room", shard.dropped[DropReason::OutboxFull as usize]),
        ("updates dropped: closed", shard.dropped[DropReason::Closed as usize]),
        ("updates dropped: unsubscribed", shard.dropped[DropReason::Unsubscribed as usize]),
        ("updates dropped: nobody left", shard.dropped[DropReason::Left as usize]),
        ("updates spilled", shard.dropped[DropReason::ShardBudget as usize]),
        ("critical updates", source.critical),
        ("updates that came too soon for their rule", source.too_soon),
        ("updates that passed before their time", shard.released_early),
        ("times that a socket fell behind", paces.fell_behind),
        ("times that a socket caught up", paces.caught_up),
        ("windows exhausted", paces.windows_exhausted),
        ("pings cut", seen.cut_pings),
        ("slow consumers closed", shard.ended[EndReason::SlowConsumer as usize]),
        ("confirmations", source.confirmed),
        ("epochs begun", source.epochs),
    ]
}
