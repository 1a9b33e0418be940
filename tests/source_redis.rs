//! The source against a real Redis: nothing that was promised to a subscriber is lost, however Redis behaves.

#[path = "common/redis.rs"]
mod redis_server;
#[path = "common/shard.rs"]
mod shard;

use redis::Commands;
use redis_server::RedisServer;
use shard::{Rig, carries, config, wait};
use spillgate::bus::{PublishError, Ticket, ToShard, ToSource};
use spillgate::ids::{ChannelRef, ConnId, ShardId, Slot};
use spillgate::source::Reached;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Each way of speaking to Redis.
const PROTOCOLS: [&str; 2] = ["/", "/?protocol=resp2"];

/// The channels that Redis has subscribers for, without the probes'.
fn channels(redis: &mut redis::Connection) -> Vec<String> {
    let mut channels: Vec<String> = redis::cmd("PUBSUB").arg("CHANNELS").query(redis).unwrap();
    channels.retain(|name| !name.starts_with("spillgate:probe:"));
    channels.sort();
    channels
}

fn publish(redis: &mut redis::Connection, channel: &str, payload: &str) -> u64 {
    redis.publish(channel, payload).unwrap()
}

fn client_publish(channel: &str, payload: &str) -> ToSource {
    let conn = ConnId { slot: Slot(3), generation: 1 };
    let ticket = Ticket { shard: ShardId(0), conn, id: None, channel: channel.into() };
    ToSource::Publish { ticket, payload: payload.into() }
}

fn outcome(message: &ToShard) -> Option<Result<(), PublishError>> {
    match message {
        ToShard::Published { outcome, .. } => Some(*outcome),
        _ => None,
    }
}

#[test]
fn channels_are_subscribed_on_demand_and_unsubscribed_a_little_after_the_last_client_left() {
    for protocol in PROTOCOLS {
        let server = RedisServer::start();
        let mut redis = server.connection();
        let mut rig = Rig::start(&config(Some(server.url(protocol))), 2);
        assert_eq!(channels(&mut redis), [""; 0]);

        rig.shards.iter().for_each(|shard| shard.want(1, "scores"));
        let [first, second] = [0, 1].map(|shard| rig.shards[shard].confirmed(1));
        assert_eq!(first, second);
        assert_eq!(channels(&mut redis), ["scores"]);
        publish(&mut redis, "scores", "1:0");
        for shard in &mut rig.shards {
            assert!(carries(&shard.update(1), "1:0"), "{protocol}");
        }

        rig.shards[0].leave(1, "scores");
        rig.shards[1].leave(1, "scores");
        rig.shards[1].demand(9, "scores", spillgate::ids::Faces::NONE.with(spillgate::ids::Face::Json), 1);
        let again = rig.shards[1].confirmed(9);
        assert_eq!((again.epoch, again.seq), (first.epoch, 1), "within the linger nothing was missed");

        rig.shards[1].leave(9, "scores");
        wait("the channel is unsubscribed", || channels(&mut redis).is_empty());
        rig.shards[0].want(2, "scores");
        assert_ne!(rig.shards[0].confirmed(2).epoch, first.epoch, "it was not listened to in between");
    }
}

#[test]
fn what_is_published_at_the_moment_of_the_confirmation_arrives_a_thousand_times_in_a_row() {
    for protocol in PROTOCOLS {
        let server = RedisServer::start();
        let mut redis = server.connection();
        let mut rig = Rig::start(&config(Some(server.url(protocol))), 1);
        let began = Instant::now();
        for i in 0..1000 {
            let name = format!("new-{i}");
            rig.shards[0].want(i, &name);
            let confirmed = rig.shards[0].confirmed(i);
            assert_eq!(publish(&mut redis, &name, &name), 1, "Redis knows us as a subscriber");
            let update = rig.shards[0].update(i);
            assert!(carries(&update, &name) && update.seq == confirmed.seq + 1);
        }
        println!("{protocol}: 1,000 subscriptions and updates one after the other: {:?}", began.elapsed());
    }
}

#[test]
fn a_channel_that_is_left_and_wanted_again_never_loses_what_follows_its_confirmation() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut config = config(Some(server.url("/")));
    config.redis.unsubscribe_after = Duration::ZERO; // so that every leaving is an UNSUBSCRIBE
    let mut rig = Rig::start(&config, 1);
    // Messages of the old subscription are on their way while the new one is asked for.
    let done = Arc::new(AtomicBool::new(false));
    let (mut others, noise_done) = (server.connection(), Arc::clone(&done));
    let noise = std::thread::spawn(move || {
        while !noise_done.load(Ordering::Relaxed) {
            publish(&mut others, "hot", "noise");
        }
    });
    for i in 0..1000 {
        rig.shards[0].want(i, "hot");
        rig.shards[0].confirmed(i);
        assert_eq!(publish(&mut redis, "hot", &format!("#{i}")), 1, "what is confirmed is subscribed");
        rig.shards[0].wait_for("the update", |message| match message {
            ToShard::Update { channel, update } => {
                (channel.index == i && carries(update, &format!("#{i}"))).then_some(())
            }
            _ => None,
        });
        rig.shards[0].leave(i, "hot");
        if i % 3 == 0 {
            std::thread::sleep(Duration::from_micros(u64::from(i) % 400)); // meet the UNSUBSCRIBE at all its stages
        }
        rig.shards[0].forget();
    }
    done.store(true, Ordering::Relaxed);
    noise.join().unwrap();
}

#[test]
fn a_hundred_thousand_updates_arrive_in_order_and_complete() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut config = config(Some(server.url("/")));
    config.limits.inbox_messages_max = 200_000;
    config.redis.probe_timeout = Duration::from_secs(3); // the crate's parser is slow without optimisation
    let mut rig = Rig::start(&config, 1);
    rig.shards[0].want(1, "c");
    rig.shards[0].confirmed(1);
    let began = Instant::now();
    let publisher = std::thread::spawn(move || {
        for batch in 0..100 {
            let mut pipeline = redis::pipe();
            (0..1000).for_each(|i| _ = pipeline.publish("c", (batch * 1000 + i).to_string()).ignore());
            pipeline.query::<()>(&mut redis).unwrap();
        }
    });
    for i in 0..100_000u64 {
        let update = rig.shards[0].update(1);
        assert!(update.seq == i + 1 && carries(&update, &i.to_string()), "at {i}: {}", update.seq);
    }
    publisher.join().unwrap();
    println!("100,000 updates: {:?}", began.elapsed());
    let counters = rig.wait_counted("all updates", |counters| counters.received == 100_000);
    assert_eq!((counters.offered, counters.conflated), (100_000, 0));
}

#[test]
fn whether_a_publish_went_out_is_not_known_where_it_was_sent_and_known_where_it_was_not() {
    let server = RedisServer::start();
    let mut config = config(Some(server.url("/")));
    config.redis.probe_interval = Duration::from_secs(1); // none is on its way before "sent" is
    let rig = Rig::start(&config, 1);
    let mut listener = server.connection();
    let mut listener = listener.as_pubsub();
    listener.subscribe("c").unwrap();
    assert_eq!(rig.source.publish_blocking("c", b"before".to_vec()), Ok(Reached::Gateways(1)));
    server.freeze();
    let publish = |payload: &'static str| {
        let source = rig.source.clone();
        std::thread::spawn(move || source.publish_blocking("c", payload.into()))
    };
    let sent = publish("sent");
    std::thread::sleep(Duration::from_millis(50));
    let waits = publish("waits behind it");
    assert_eq!(sent.join().unwrap(), Err(PublishError::Unknown));
    assert_eq!(waits.join().unwrap(), Err(PublishError::Unavailable));
    server.thaw();
    rig.wait_connected(true);
    assert_eq!(rig.source.publish_blocking("c", b"after".to_vec()), Ok(Reached::Gateways(1)));
    let heard = [(); 3].map(|()| listener.get_message().unwrap().get_payload::<String>().unwrap());
    assert_eq!(heard, ["before", "sent", "after"]);
}

#[test]
fn a_redis_that_was_killed_is_found_again_with_a_new_epoch() {
    let mut server = RedisServer::start();
    let mut rig = Rig::start(&config(Some(server.url("/"))), 1);
    rig.shards[0].want(1, "c");
    let before = rig.shards[0].confirmed(1);
    assert_eq!(publish(&mut server.connection(), "c", "before"), 1);
    assert_eq!(rig.shards[0].update(1).seq, 1);

    server.kill();
    println!("a closed connection is noticed after {:?}", rig.wait_connected(false));
    rig.shards[0].want(2, "new while away");
    rig.shards[0].confirmed(2); // nobody waits for a dead Redis
    rig.shards[0].send(client_publish("c", "in vain"));
    assert_eq!(rig.shards[0].wait_for("the outcome", outcome), Err(PublishError::Unavailable));
    assert_eq!(rig.source.publish_blocking("c", vec![]), Err(PublishError::Unavailable));

    server.restart();
    println!("a restart is noticed after {:?}", rig.wait_connected(true));
    let after = rig.shards[0].confirmed(1);
    assert!(after.epoch != before.epoch && after.version == before.version && after.seq == 1);
    rig.shards[0].confirmed(2);
    let mut redis = server.connection();
    for (index, channel) in [(1, "c"), (2, "new while away")] {
        assert_eq!(publish(&mut redis, channel, "after"), 1);
        assert!(carries(&rig.shards[0].update(index), "after"));
    }
    let counters = rig.wait_counted("all updates", |counters| counters.received == 3);
    assert_eq!((counters.lost, counters.publish_errors, counters.channels_confirmed), (1, 2, 2));
}

#[test]
fn a_redis_that_answers_no_more_is_noticed_though_its_connection_stays_open() {
    for protocol in PROTOCOLS {
        let server = RedisServer::start();
        let config = config(Some(server.url(protocol)));
        let mut rig = Rig::start(&config, 1);
        rig.shards[0].want(1, "c");
        let before = rig.shards[0].confirmed(1);
        server.freeze();
        let noticed = rig.wait_connected(false);
        println!("{protocol}: a frozen Redis is noticed after {noticed:?}");
        assert!(noticed < config.redis.probe_interval + config.redis.probe_timeout + Duration::from_millis(500));
        std::thread::sleep(Duration::from_millis(700)); // attempts to connect hang, too
        assert!(!rig.source.status().connected);
        server.thaw();
        rig.wait_connected(true);
        assert_ne!(rig.shards[0].confirmed(1).epoch, before.epoch);
        publish(&mut server.connection(), "c", "after");
        assert!(carries(&rig.shards[0].update(1), "after"));
    }
}

#[test]
fn a_shard_that_does_not_drain_holds_up_nobody_and_finds_the_newest_in_the_end() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut config = config(Some(server.url("/")));
    config.limits.inbox_messages_max = 16;
    let mut rig = Rig::start(&config, 2);
    rig.shards[0].want(1, "c");
    rig.shards[0].confirmed(1);
    rig.shards[1].want(1, "c");
    rig.shards[1].confirmed(1);
    let publisher = std::thread::spawn(move || {
        (0..20_000).for_each(|i| _ = publish(&mut redis, "c", &i.to_string()));
        redis
    });
    // Shard 1 reads on while shard 0 does not.
    wait("the last update at the shard that drains", || {
        let last = rig.shards[1].update(1);
        carries(&last, "19999")
    });
    let _redis = publisher.join().unwrap();
    assert!(rig.source.status().connected);
    rig.wait_counted("what shard 0 will not see", |counters| counters.conflated > 19_000);
    let mut last = None;
    wait("the last update at the shard that did not", || {
        last = Some(rig.shards[0].update(1));
        last.as_ref().is_some_and(|last| carries(last, "19999"))
    });
    assert_eq!(last.unwrap().seq, 20_000);
}

#[test]
fn twenty_thousand_channels_are_subscribed_in_seconds_and_again_after_a_loss() {
    const CHANNELS: u32 = 20_000;
    let mut server = RedisServer::start();
    let mut config = config(Some(server.url("/")));
    config.redis.probe_timeout = Duration::from_secs(3);
    let mut rig = Rig::start(&config, 1);
    let began = Instant::now();
    (0..CHANNELS).for_each(|i| rig.shards[0].want(i, &format!("c{i}")));
    let all = |rig: &Rig| {
        wait("all are confirmed", || rig.source.status().counters.channels_confirmed == u64::from(CHANNELS))
    };
    all(&rig);
    println!("{CHANNELS} channels subscribed in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    rig.shards[0].forget();
    server.kill();
    rig.wait_connected(false);
    server.restart();
    rig.wait_connected(true);
    println!("and subscribed again in {:?}", all(&rig));
    let mut redis = server.connection();
    assert_eq!(channels(&mut redis).len(), CHANNELS as usize);
    (0..CHANNELS).for_each(|i| rig.shards[0].leave(i, &format!("c{i}")));
    wait("all are unsubscribed", || channels(&mut redis).is_empty());
}

#[test]
fn a_server_without_resp3_is_spoken_to_in_resp2() {
    let server = RedisServer::start_with(&["--rename-command", "HELLO", ""]);
    let mut rig = Rig::start(&config(Some(server.url("/"))), 1);
    rig.shards[0].want(1, "c");
    rig.shards[0].confirmed(1);
    assert_eq!(publish(&mut server.connection(), "c", "x"), 1);
    assert!(carries(&rig.shards[0].update(1), "x"));
}

#[test]
fn a_channel_that_redis_does_not_permit_holds_no_other_back() {
    for protocol in PROTOCOLS {
        let user = "app on >secret ~* resetchannels &ok:* &spillgate:probe:* +@all";
        let options: Vec<&str> = ["--user"].into_iter().chain(user.split(' ')).collect();
        let server = RedisServer::start_with(&options);
        let url = server.url(protocol).replace("redis://", "redis://app:secret@");
        let mut rig = Rig::start(&config(Some(url)), 1);
        (0..20).for_each(|i| rig.shards[0].want(i, &format!("{}:{i}", if i == 7 { "no" } else { "ok" })));
        (0..20).for_each(|i| _ = rig.shards[0].confirmed(i));
        let mut redis = server.connection();
        wait("the permitted ones are subscribed", || channels(&mut redis).len() == 19);
        assert_eq!(publish(&mut redis, "ok:19", "x"), 1);
        assert!(carries(&rig.shards[0].update(19), "x"));
        assert!(rig.source.status().connected, "{protocol}");
    }
}

#[test]
fn publishes_through_the_gateway_arrive_in_order_and_are_answered() {
    let server = RedisServer::start();
    let mut rig = Rig::start(&config(Some(server.url("/"))), 1);
    rig.shards[0].want(1, "c");
    rig.shards[0].confirmed(1);
    (0..500).for_each(|i| rig.shards[0].send(client_publish("c", &i.to_string())));
    for i in 0..500 {
        assert_eq!(rig.shards[0].wait_for("the outcome", outcome), Ok(()));
        assert!(carries(&rig.shards[0].update(1), &i.to_string()));
    }
    assert_eq!(rig.source.publish_blocking("c", b"api".to_vec()), Ok(Reached::Gateways(1)));
    assert!(carries(&rig.shards[0].update(1), "api"));
    let too_large = vec![b'x'; config(None).limits.update_bytes_max + 1];
    assert_eq!(rig.source.publish_blocking("c", too_large), Err(PublishError::TooLarge));
}

#[test]
fn a_shard_that_reads_no_answers_is_not_asked_for_more_and_loses_none() {
    const PUBLISHES: usize = 30_000;
    let server = RedisServer::start();
    let mut config = config(Some(server.url("/")));
    config.limits.inbox_messages_max = 16;
    let mut rig = Rig::start(&config, 1);
    (0..PUBLISHES).for_each(|_| rig.shards[0].send(client_publish("c", "x")));
    std::thread::sleep(Duration::from_millis(500));
    assert!(rig.source.status().connected);
    let busy = (0..PUBLISHES).filter(|_| rig.shards[0].wait_for("the outcome", outcome).is_err()).count();
    rig.wait_counted("as many errors as were answered", |counters| counters.publish_errors == busy as u64);
    rig.shards[0].want(1, "c");
    rig.shards[0].confirmed(1);
}

#[test]
fn the_place_of_a_dead_channel_gets_nothing_more() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut rig = Rig::start(&config(Some(server.url("/"))), 1);
    rig.shards[0].want(1, "c");
    rig.shards[0].confirmed(1);
    rig.shards[0].leave(1, "c");
    rig.shards[0].want(2, "c");
    rig.shards[0].confirmed(2);
    publish(&mut redis, "c", "x");
    rig.shards[0].wait_for("an update", |message| match message {
        ToShard::Update { channel, .. } => {
            assert_eq!(*channel, ChannelRef { index: 2, generation: 0 });
            Some(())
        }
        _ => None,
    });
}
