//! More than a socket can take: a burst of updates from a real Redis, and a large update among small ones, to a thousand
//! sockets of the real program. Nobody is closed, everyone ends with the newest, and every update is accounted for.

#[path = "common/redis.rs"]
mod broker;
#[allow(dead_code)] // the benches use the rest
mod crowd;
#[allow(dead_code)]
mod gateway;

use broker::RedisServer;
use crowd::payload::numbered;
use crowd::{Crowd, Job, Report};
use gateway::{Gateway, Settings};
use libtest_mimic::{Arguments, Trial};
use redis::ConnectionLike;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

const CHANNEL: &str = "burst";
const SOCKETS: u64 = 1000;
/// The burst: so many updates within a second, so many in each command to Redis.
const UPDATES: u64 = 100_000;
const BATCH: usize = 1000;
const BYTES: usize = 64;
/// Threads of clients that come, subscribe, unsubscribe and go.
const GUESTS: usize = 3;
/// One large update among small ones.
const LARGE_BYTES: usize = 256 << 10;
/// What a slow reader takes twenty times a second.
const SLOW_BYTES: usize = 16 << 10;
/// What may stay of the memory that it took, beside noise of the allocator.
const MEMORY_NOISE_BYTES: u64 = 4 << 20;

fn main() -> ExitCode {
    if let Some(code) = crowd::join_if_asked() {
        return code;
    }
    // They keep both cores busy: one at a time.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let tests: [(&str, fn()); 3] = [
        ("a_burst_conflates_and_everyone_ends_with_the_last_update", || burst(0, 0)),
        ("a_burst_beside_stalled_sockets_and_clients_that_come_and_go", || burst(3, GUESTS)),
        ("a_large_update_among_small_ones_arrives_whole_and_its_memory_returns", large_among_small),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

/// A burst to sockets of which every `stalls_every`-th never reads, beside threads of guests.
fn burst(stalls_every: u64, guests: usize) {
    let redis = RedisServer::start();
    let mut variables = vec![("SPILLGATE_REDIS_URL", redis.url("/"))];
    if stalls_every > 0 {
        variables.push(("SPILLGATE_LIMITS_STALL_TIMEOUT", "0s".to_owned()));
    }
    let mut gateway = Gateway::start(&Settings { shards: 2, variables, ..Settings::default() });
    let job = Job::new(gateway.address, &format!("/raw/{CHANNEL}"), SOCKETS);
    let mut crowd = Crowd::gather(Job { stalls_every, ..job });

    let (over, visits, address) = (AtomicBool::new(false), AtomicU64::new(0), gateway.address);
    let scrapes = std::thread::scope(|scope| {
        let guests: Vec<_> = (0..guests)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        visit(address, &visits)
                    }
                })
            })
            .collect();
        let publisher = scope.spawn(|| publish(&mut redis.connection()));
        let mut scrapes = 0;
        while !publisher.is_finished() {
            account(&mut gateway);
            scrapes += 1;
        }
        let took = publisher.join().expect("it published");
        println!("{UPDATES} updates in {took:.2?}");
        let full = std::env::var_os("SPILLGATE_FULL").is_some(); // else on a debug build, beside whatever else
        assert!(!full || took < Duration::from_millis(1300), "it was no burst: {took:?}");
        over.store(true, Ordering::Relaxed);
        guests.into_iter().for_each(|guest| guest.join().expect("a guest got what it was owed"));
        scrapes
    });

    let began = Instant::now();
    let report = crowd.newest(UPDATES - 1);
    println!(
        "everyone had the last update {:.2?} later; {scrapes} scrapes, {} visits",
        began.elapsed(),
        visits.load(Ordering::Relaxed)
    );
    assert_eq!(report.newest_at_least, Some(UPDATES - 1), "{report:?}");
    assert_eq!((report.tally.open, report.tally.closes.len()), (SOCKETS, 0), "nobody is closed: {report:?}");
    assert_intact(&report);
    assert!(scrapes > 5 && (guests == 0 || visits.load(Ordering::Relaxed) > 5));

    let [pending] = gateway.metrics(["ws_outbox_messages"]);
    match stalls_every {
        0 => assert_eq!(gateway.metric_at_most("ws_outbox_messages", 0.0, Duration::from_secs(5)), 0.0),
        _ => assert!(pending > 0.0, "stalled sockets are owed the newest"),
    }
    let [due, conflated, upstream] = account(&mut gateway);
    println!("due {due}, conflated {conflated} of them; {upstream} more before the fan-out");
    drop(crowd);
    assert_eq!(gateway.metric_at_most("ws_connections_active", 0.0, Duration::from_secs(10)), 0.0);
    assert_eq!(gateway.metric("ws_outbox_messages"), 0.0);
    account(&mut gateway);
}

/// Publishes the burst evenly over a second, if Redis keeps up; how long it took.
fn publish(redis: &mut redis::Connection) -> Duration {
    let batches = (0..UPDATES).step_by(BATCH).map(|first| {
        let mut batch = redis::pipe();
        for n in first..first + BATCH as u64 {
            batch.publish(CHANNEL, numbered(n, BYTES)).ignore();
        }
        batch.get_packed_pipeline()
    });
    let batches: Vec<_> = batches.collect();
    let began = Instant::now();
    for (at, batch) in batches.iter().enumerate() {
        let due = Duration::from_secs(1) * at as u32 / batches.len() as u32;
        sleep(due.saturating_sub(began.elapsed()));
        redis.req_packed_commands(batch, 0, BATCH).expect("Redis takes a batch");
    }
    began.elapsed()
}

/// Every update that was due is delivered, conflated, dropped or pending, in one scrape. Answers how many were due,
/// how many conflated, and how many conflated at the source, before they were due to anybody.
fn account(gateway: &mut Gateway) -> [f64; 3] {
    let [due, delivered, conflated, dropped, pending, upstream] = gateway.metrics([
        "ws_messages_due_total",
        "ws_messages_delivered_total",
        "ws_messages_conflated_total",
        "ws_messages_dropped_total",
        "ws_outbox_messages",
        "ws_updates_conflated_total",
    ]);
    assert_eq!(due, delivered + conflated + dropped + pending, "{delivered} + {conflated} + {dropped} + {pending}");
    [due, conflated, upstream]
}

/// A guest comes, unsubscribes and subscribes again, reads a little, and goes: one in two without a word.
fn visit(address: std::net::SocketAddr, visits: &AtomicU64) {
    let number = visits.fetch_add(1, Ordering::Relaxed);
    let stream = TcpStream::connect(address).expect("the gateway listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket has timeouts");
    let (mut client, _) = tungstenite::client(format!("ws://{address}/ws?channels={CHANNEL}"), stream).expect("a 101");
    let mut seen = 0;
    for (id, command) in [(1, "unsubscribe"), (2, "subscribe")] {
        let command = serde_json::json!({ "id": id, command: CHANNEL });
        client.send(Message::text(command.to_string())).expect("it is open");
        while next(&mut client, &mut seen) != Some(id) {}
    }
    for _ in 0..number % 3 {
        let reply = serde_json::json!({ "id": 3, "subscribe": "another" });
        client.send(Message::text(reply.to_string())).expect("it is open");
        while next(&mut client, &mut seen) != Some(3) {}
    }
    if number.is_multiple_of(2) {
        client.close(None).expect("it is open");
    }
}

/// Reads a message: an update, which is newer than those before it, or a reply; the reply's id.
fn next(client: &mut WebSocket<TcpStream>, seen: &mut u64) -> Option<u64> {
    let text = match client.read().expect("nobody is closed") {
        Message::Text(text) => text,
        Message::Ping(_) => return None, // answered by the next read
        other => panic!("{other:?}"),
    };
    let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    if value.get("data").is_some() {
        let seq = value["seq"].as_u64().expect("every update has a seq");
        assert!(seq > *seen, "{seq} after {seen}");
        *seen = seq;
    }
    value["id"].as_u64()
}

fn large_among_small() {
    let mut gateway = Gateway::start(&Settings { shards: 1, purge_at_once: true, ..Settings::default() });
    let job = Job::new(gateway.address, &format!("/raw/{CHANNEL}"), SOCKETS);
    let mut crowd = Crowd::gather(Job { slow_every: 5, slow_bytes: SLOW_BYTES, ..job });
    let publish = |gateway: &mut Gateway, n: u64, bytes: usize| {
        assert_eq!(gateway.publish(CHANNEL, &numbered(n, bytes)), SOCKETS);
        sleep(Duration::from_millis(20));
    };
    (0..20).for_each(|n| publish(&mut gateway, n, 300));
    assert_eq!(crowd.newest(19).newest_at_least, Some(19));
    let before = gateway.rss();
    let mut most = before;
    for n in 20..80 {
        publish(&mut gateway, n, if n % 20 == 0 { LARGE_BYTES } else { 300 });
        most = most.max(gateway.rss());
    }
    let report = crowd.newest(79);
    assert_eq!(report.newest_at_least, Some(79), "{report:?}");
    assert_eq!((report.tally.open, report.tally.closes.len()), (SOCKETS, 0), "nobody is closed: {report:?}");
    assert_intact(&report);
    assert_eq!(gateway.metric_at_most("ws_outbox_messages", 0.0, Duration::from_secs(10)), 0.0);
    account(&mut gateway);
    let began = Instant::now();
    while gateway.rss() > before + MEMORY_NOISE_BYTES && began.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(100));
    }
    let after = gateway.rss();
    println!(
        "resident: {before} before, {most} at most, {after} after; {} of {} updates conflated",
        report.tally.missed,
        80 * SOCKETS
    );
    assert!(after <= before + MEMORY_NOISE_BYTES, "{before} before, {after} after");
}

fn assert_intact(report: &Report) {
    assert_eq!((report.tally.torn, report.tally.disordered), (0, 0), "{report:?}");
}
