//! The gateway at the size that it is made for: the real program, tens of thousands of sockets, one measurement at a
//! time. `SPILLGATE_FULL=1` runs the whole numbers; without it some are smaller, so that the suite ends in time.

#[allow(dead_code)] // the benches use the rest
mod crowd;
mod gateway;

use crowd::payload::numbered;
use crowd::{Crowd, Ending, Job, Report};
use gateway::{Gateway, Settings};
use libtest_mimic::{Arguments, Trial};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const CHANNEL: &str = "scale";
/// What one process of clients may hold.
const CROWD_MAX: u64 = 15_000;

/// One channel, everyone on it.
const FAN_OUT_SOCKETS: u64 = 10_000;
const FAN_OUT_PER_SECOND: u32 = 8;
const FAN_OUT_BYTES: usize = 512;
/// A silent connection's share of the gateway's resident memory.
const IDLE_SOCKETS: u64 = 15_000;
const IDLE_BYTES_MAX: u64 = 400;
const DESCRIPTORS_MAX: usize = 100;
/// Clients that come and go.
const ROUNDS: usize = 6;
const ROUND_UPDATES: u64 = 8;
/// Enough, with as many updates, to fill what the kernel holds for a client that stalls.
const ROUND_BYTES: usize = 4096;
/// What a scrape is measured against: sockets on one hot channel, and a hundred more with a hundred channels each.
const SCRAPE_LISTENERS: usize = 100;
const SCRAPE_CHANNELS_EACH: usize = 100;
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
const SCRAPE_MAX: Duration = Duration::from_millis(50);
/// Rounds without and with scrapes, in turn.
const SCRAPE_ROUNDS: usize = 6;
/// By how much the fan-out may seem longer beside scrapes: the machine's own noise.
const SCRAPE_NOISE: Duration = Duration::from_millis(20);
/// By how much memory may differ between the second round and the last.
const ROUND_NOISE_BYTES: u64 = 2 << 20;

/// What takes long in full.
struct Size {
    fan_out_seconds: u32,
    nofile: u64,
    table_sockets: u64,
    latecomers: u64,
    round_sockets: u64,
    scrape_sockets: u64,
    scrape_updates: u32,
}

static SIZE: LazyLock<Size> = LazyLock::new(|| {
    let full = Size {
        fan_out_seconds: 30,
        nofile: 20_000,
        table_sockets: 30_000,
        latecomers: 12_000,
        round_sockets: 12_000,
        scrape_sockets: 14_900,
        scrape_updates: 40,
    };
    let reduced = Size {
        fan_out_seconds: 10,
        nofile: 4_000,
        table_sockets: 6_000,
        latecomers: 2_400,
        round_sockets: 4_000,
        scrape_sockets: 3_000,
        scrape_updates: 8,
    };
    if std::env::var_os("SPILLGATE_FULL").is_some() { full } else { reduced }
});

fn main() -> ExitCode {
    if let Some(code) = crowd::join_if_asked() {
        return code;
    }
    if std::env::var_os("SPILLGATE_FULL").is_none() {
        println!("reduced sizes; SPILLGATE_FULL=1 runs the whole numbers");
    }
    // They measure: one at a time.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let tests: [(&str, fn()); 5] = [
        ("every_socket_gets_every_update_of_a_hot_channel", every_socket_gets_every_update_of_a_hot_channel),
        ("an_idle_socket_costs_next_to_nothing", an_idle_socket_costs_next_to_nothing),
        ("whoever_finds_no_slot_hurts_nobody_who_has_one", whoever_finds_no_slot_hurts_nobody_who_has_one),
        ("clients_that_vanish_leave_nothing_behind", clients_that_vanish_leave_nothing_behind),
        ("a_scrape_is_quick_and_delays_nobody", a_scrape_is_quick_and_delays_nobody),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            let began = Instant::now();
            test();
            println!("took {:.1?}", began.elapsed());
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn every_socket_gets_every_update_of_a_hot_channel() {
    let mut gateway = Gateway::start(&Settings { shards: 1, ..Settings::default() });
    let mut crowd = Crowd::gather(job(&gateway, FAN_OUT_SOCKETS));
    let updates = u64::from(FAN_OUT_PER_SECOND * SIZE.fan_out_seconds);
    let began = Instant::now();
    for n in 0..updates {
        let due = Duration::from_secs(n) / FAN_OUT_PER_SECOND;
        sleep(due.saturating_sub(began.elapsed()));
        assert_eq!(gateway.publish(CHANNEL, &numbered(n, FAN_OUT_BYTES)), FAN_OUT_SOCKETS);
    }
    let took = began.elapsed();
    let report = crowd.updates(updates * FAN_OUT_SOCKETS);
    println!("{updates} updates to {FAN_OUT_SOCKETS} sockets, published in {took:.1?}");
    assert_eq!(report.updates_each, (updates, updates), "{report:?}");
    assert_whole(&report);
    assert!(
        took < Duration::from_secs(u64::from(SIZE.fan_out_seconds)) * 11 / 10,
        "the publisher was held up: {took:?}"
    );
    assert_eq!(gateway.metric("ws_messages_dropped_total"), 0.0);
}

fn an_idle_socket_costs_next_to_nothing() {
    let mut gateway = Gateway::start(&Settings { shards: 1, ..Settings::default() });
    serves(&mut gateway, 500);
    assert_eq!(gateway.metric_at_most("ws_connections_active", 0.0, Duration::from_secs(10)), 0.0);
    let before = gateway.rss();
    let crowd = Crowd::gather(job(&gateway, IDLE_SOCKETS));
    let each = gateway.rss().saturating_sub(before) / IDLE_SOCKETS;
    println!("{each} bytes of resident memory for each of {IDLE_SOCKETS} idle sockets, {before} bytes before");
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes for each idle socket");
    assert!(gateway.descriptors() < DESCRIPTORS_MAX, "{} descriptors", gateway.descriptors());
    drop(crowd);
}

fn whoever_finds_no_slot_hurts_nobody_who_has_one() {
    let mut gateway = Gateway::start(&Settings { shards: 2, nofile: Some(SIZE.nofile), ..Settings::default() });
    let mut crowds = gather(&gateway, SIZE.table_sockets);
    let capacity = gateway.metric("ws_connections_max") as u64;
    assert!(SIZE.nofile < SIZE.table_sockets && SIZE.table_sockets < capacity, "{capacity} slots");

    let late = Job { at_once: SIZE.latecomers, patience_s: 5, ..job(&gateway, SIZE.latecomers) };
    let mut late = Crowd::start(late);
    let report = late.answered();
    println!("{} held, then {} more: {report:?}", SIZE.table_sockets, SIZE.latecomers);
    assert_eq!(SIZE.table_sockets + report.tally.open, capacity, "every slot is taken: {report:?}");
    assert!(report.tally.refused.keys().all(|status| *status == 503), "{report:?}");
    let (refused, waiting) = (report.tally.refused_all(), report.unanswered);
    assert_eq!(report.tally.open + refused + waiting, SIZE.latecomers, "nobody was cut off: {report:?}");

    assert_eq!(gateway.publish(CHANNEL, &numbered(1, FAN_OUT_BYTES)), capacity);
    for crowd in &mut crowds {
        let held = crowd.report().tally.open;
        let report = crowd.updates(held);
        assert_eq!((report.updates_each, report.tally.cut_off), ((1, 1), 0), "{report:?}");
        assert_whole(&report);
    }
    assert_eq!(crowds.iter_mut().map(|crowd| crowd.report().tally.open).sum::<u64>(), SIZE.table_sockets);
}

fn clients_that_vanish_leave_nothing_behind() {
    let mut gateway = Gateway::start(&Settings { shards: 1, purge_at_once: true, ..Settings::default() });
    let mut rss = Vec::new();
    for round in 0..ROUNDS {
        let mut crowd = Crowd::gather(Job { stalls_every: 3, ..job(&gateway, SIZE.round_sockets) });
        let readers = SIZE.round_sockets - SIZE.round_sockets.div_ceil(3);
        for n in 0..ROUND_UPDATES {
            assert_eq!(gateway.publish(CHANNEL, &numbered(n, ROUND_BYTES)), SIZE.round_sockets);
            // One after the other: what arrives together travels as one, and the kernel takes that from a fresh socket.
            let report = crowd.updates(readers * (n + 1));
            assert_eq!(report.updates_each, (n + 1, n + 1), "{report:?}");
            assert_whole(&report);
        }
        let owed = gateway.metric("ws_outbox_messages");
        assert!(owed > 0.0, "those who do not read are owed something");
        crowd.vanish(if round % 2 == 0 { Ending::Fin } else { Ending::Reset });
        let active = gateway.metric_at_most("ws_connections_active", 0.0, Duration::from_secs(20));
        assert_eq!(active, 0.0, "in round {round}");
        rss.push(gateway.rss());
    }
    let states = gateway.sockets_by_state();
    println!("sockets by state: {states:?}; resident after each round: {rss:?}");
    for state in ["ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1", "FIN-WAIT-2", "LAST-ACK", "CLOSING"] {
        assert_eq!(states.get(state), None, "{states:?}");
    }
    for gauge in ["ws_websockets_active", "ws_outbox_messages", "ws_outbox_bytes", "ws_partial_bytes"] {
        assert_eq!(gateway.metric(gauge), 0.0, "{gauge}");
    }
    assert!(rss[ROUNDS - 1] <= rss[1] + ROUND_NOISE_BYTES, "memory grows with those who vanish: {rss:?}");
    serves(&mut gateway, 100);
}

fn a_scrape_is_quick_and_delays_nobody() {
    let mut gateway = Gateway::start(&Settings { shards: 1, ..Settings::default() });
    let channels = SCRAPE_LISTENERS * SCRAPE_CHANNELS_EACH;
    let listeners: Vec<_> = (0..SCRAPE_LISTENERS).map(|number| listen(gateway.address, number)).collect();
    let mut crowd = Crowd::gather(job(&gateway, SIZE.scrape_sockets));
    assert_eq!(gateway.metric("ws_channels_confirmed"), channels as f64 + 1.0);
    let (mut alone, mut beside, mut scrapes) = (Vec::new(), Vec::new(), Vec::new());
    let mut n = 0;
    for round in 0..SCRAPE_ROUNDS {
        let scraped = round % 2 == 1;
        let rounds = if scraped { &mut beside } else { &mut alone };
        let (ended, admin) = (AtomicBool::new(false), gateway.admin);
        std::thread::scope(|scope| {
            let scraper = scope.spawn(|| if scraped { scrape_until(&ended, admin) } else { Vec::new() });
            let began = Instant::now();
            for update in 0..SIZE.scrape_updates {
                let due = Duration::from_secs(update.into()) / 4;
                sleep(due.saturating_sub(began.elapsed()));
                let published = Instant::now();
                gateway.publish(CHANNEL, &numbered(n, FAN_OUT_BYTES));
                n += 1;
                let report = crowd.updates(SIZE.scrape_sockets * n);
                rounds.push(published.elapsed());
                assert_eq!(report.updates_each, (n, n), "{report:?}");
            }
            ended.store(true, Ordering::Relaxed);
            scrapes.extend(scraper.join().expect("it panics where a scrape fails"));
        });
    }
    for took in [&mut alone, &mut beside, &mut scrapes] {
        took.sort_unstable();
    }
    let at = |took: &[Duration], percent: usize| took[(took.len() * percent).div_ceil(100).max(1) - 1];
    println!(
        "{} sockets, {channels} channels: {} scrapes, median {:.1?}, longest {:.1?}",
        SIZE.scrape_sockets,
        scrapes.len(),
        at(&scrapes, 50),
        at(&scrapes, 100),
    );
    for (what, took) in [("without", &alone), ("with", &beside)] {
        let (median, p99) = (at(took, 50), at(took, 99));
        println!("until everyone has an update, {what} scrapes: median {median:.1?}, p99 {p99:.1?}");
    }
    assert!(at(&scrapes, 50) < SCRAPE_MAX, "scrapes took {scrapes:?}");
    let (median, bound) = (at(&beside, 50), at(&alone, 50) * 11 / 10 + SCRAPE_NOISE);
    assert!(median < bound, "beside scrapes a fan-out took {median:?}");
    drop(listeners);
}

/// A client with a hundred channels of its own, when all of them are confirmed.
fn listen(gateway: SocketAddr, number: usize) -> TcpStream {
    let names: Vec<_> = (0..SCRAPE_CHANNELS_EACH).map(|channel| format!("c.{number}.{channel}")).collect();
    let mut stream = TcpStream::connect(gateway).expect("the gateway listens");
    let request = format!(
        "GET /ws?channels={} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        names.join(",")
    );
    stream.write_all(request.as_bytes()).expect("a fresh socket takes it whole");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is no zero");
    let (mut told, mut buffer) = (String::new(), [0; 16 << 10]);
    while told.matches("\"subscribed\"").count() < SCRAPE_CHANNELS_EACH {
        let read = stream.read(&mut buffer).expect("the gateway confirms every channel");
        assert!(read > 0, "it was closed: {told}");
        told.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    stream
}

/// Scrapes at a steady pace; how long each took.
fn scrape_until(ended: &AtomicBool, admin: SocketAddr) -> Vec<Duration> {
    let mut took = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        let mut stream = TcpStream::connect(admin).expect("the admin interface listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("it is taken whole");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("ws_connections_active"), "{answer}");
        took.push(began.elapsed());
        sleep(SCRAPE_EVERY.saturating_sub(began.elapsed()));
    }
    took
}

fn job(gateway: &Gateway, sockets: u64) -> Job {
    Job::new(gateway.address, &format!("/raw/{CHANNEL}"), sockets)
}

/// Crowds of `sockets` in all, each of which is let in.
fn gather(gateway: &Gateway, sockets: u64) -> Vec<Crowd> {
    let parts = sockets.div_ceil(CROWD_MAX);
    let mut crowds: Vec<_> = (0..parts).map(|_| Crowd::start(job(gateway, sockets / parts))).collect();
    for crowd in &mut crowds {
        let report = crowd.answered();
        assert_eq!(report.tally.open, sockets / parts, "everyone is let in: {report:?}");
    }
    crowds
}

/// Some clients come, get an update, and leave.
fn serves(gateway: &mut Gateway, sockets: u64) {
    let mut crowd = Crowd::gather(job(gateway, sockets));
    assert_eq!(gateway.publish(CHANNEL, &numbered(1, FAN_OUT_BYTES)), sockets);
    let report = crowd.updates(sockets);
    assert_eq!(report.updates_each, (1, 1), "{report:?}");
    assert_whole(&report);
}

fn assert_whole(report: &Report) {
    let tally = &report.tally;
    assert_eq!((tally.torn, tally.disordered, tally.missed), (0, 0, 0), "{report:?}");
}
