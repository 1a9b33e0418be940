use super::*;
use crate::ids::{Epoch, Faces};
use crate::sys::Mode;

fn channel(index: u32) -> ChannelRef {
    ChannelRef { index, generation: 0 }
}

fn update(seq: u64, bytes: usize) -> Arc<Update> {
    of(0, false, seq, bytes)
}

/// An update of a key, or a critical one.
fn of(key: u64, critical: bool, seq: u64, bytes: usize) -> Arc<Update> {
    Arc::new(Update { seq, received_us: 0, key, critical, frames: [Some(vec![0; bytes].into()), None] })
}

fn confirmed(index: u32, seq: u64) -> Confirmed {
    Confirmed { channel: channel(index), version: 1, faces: Faces::NONE, epoch: Epoch(1), seq }
}

fn pair(messages_max: usize, bytes_max: usize) -> (InboxSender, InboxReceiver, Doorbell) {
    let source = Doorbell::new(Mode::NonBlocking).unwrap();
    let limits = InboxLimits { messages_max, bytes_max, critical_max: 2 };
    let (sender, receiver) = inbox(limits, Doorbell::new(Mode::Blocking).unwrap(), source.clone());
    (sender, receiver, source)
}

/// What became of an offer, a replaced one by its seq.
fn said(offer: Offer) -> String {
    match offer {
        Offer::Queued => "queued".into(),
        Offer::Held => "held".into(),
        Offer::Conflated(older) => format!("instead of {}", older.seq),
    }
}

/// What was lost, as `channel:seq`.
fn lost(sender: &mut InboxSender) -> Vec<String> {
    sender.take_lost().iter().map(|(channel, seq)| format!("{}:{seq}", channel.index)).collect()
}

/// What arrives, as `channel:seq`, a confirmation with a `c` before it.
fn drain(receiver: &mut InboxReceiver) -> Vec<String> {
    let seen = std::iter::from_fn(|| receiver.try_recv()).map(|message| match message {
        ToShard::Update { channel, update } => format!("{}:{}", channel.index, update.seq),
        ToShard::Confirmed(c) => format!("c{}:{}", c.channel.index, c.seq),
        ToShard::Published { .. } => "answer".into(),
    });
    let seen = seen.collect();
    receiver.settle();
    seen
}

#[test]
fn a_full_inbox_keeps_the_newest_of_each_channel_in_the_order_of_waiting() {
    let (mut sender, mut receiver, source) = pair(2, 1 << 20);
    assert_eq!(said(sender.offer(channel(1), update(1, 10))), "queued");
    assert_eq!(said(sender.offer(channel(1), update(2, 10))), "queued");
    assert_eq!(said(sender.offer(channel(1), update(3, 10))), "held");
    assert_eq!(said(sender.offer(channel(2), update(7, 10))), "held");
    assert_eq!(said(sender.offer(channel(1), update(4, 10))), "instead of 3");
    sender.confirm(confirmed(2, 7));
    assert!(!sender.flush());
    source.asleep();
    assert_eq!(drain(&mut receiver), ["1:1", "1:2"]);
    source.take().expect("the source is woken once there is room");
    assert!(!sender.flush(), "three things wait, two fit");
    assert_eq!(drain(&mut receiver), ["c2:7", "1:4"]);
    assert!(sender.flush());
    assert_eq!(drain(&mut receiver), ["2:7"]);
    assert_eq!(sender.waiting(), 0);
}

#[test]
fn a_shard_is_woken_only_where_there_is_something_for_it() {
    let (bell, source) = (Doorbell::new(Mode::NonBlocking).unwrap(), Doorbell::new(Mode::NonBlocking).unwrap());
    let limits = InboxLimits { messages_max: 1, bytes_max: 1 << 20, critical_max: 2 };
    let (mut sender, mut receiver) = inbox(limits, bell.clone(), source);
    bell.asleep();
    sender.ring();
    assert!(bell.take().is_err(), "it is empty");
    assert_eq!(said(sender.offer(channel(1), update(1, 1))), "queued");
    assert_eq!(said(sender.offer(channel(1), update(2, 1))), "held");
    sender.ring();
    bell.take().unwrap();
    bell.asleep();
    assert!(!sender.flush());
    sender.ring();
    assert!(bell.take().is_err(), "what waits does not fit yet");
    drain(&mut receiver);
    assert!(sender.flush());
    sender.ring();
    bell.take().unwrap();
}

#[test]
fn bytes_bound_the_queue_but_any_update_fits_an_empty_one() {
    let (mut sender, mut receiver, _source) = pair(100, 1000);
    assert_eq!(said(sender.offer(channel(1), update(1, 5000))), "queued");
    assert_eq!(said(sender.offer(channel(1), update(2, 1))), "held");
    assert_eq!(drain(&mut receiver), ["1:1"]);
    assert!(sender.flush());
    assert_eq!(drain(&mut receiver), ["1:2"]);
}

#[test]
fn what_waits_is_never_overtaken_by_what_comes_later() {
    let (mut sender, mut receiver, _source) = pair(1, 1 << 20);
    assert_eq!(said(sender.offer(channel(1), update(1, 1))), "queued");
    assert_eq!(said(sender.offer(channel(1), update(2, 1))), "held");
    assert_eq!(drain(&mut receiver), ["1:1"]);
    assert_eq!(said(sender.offer(channel(1), update(3, 1))), "instead of 2", "there is room, but 2 waits");
    assert!(sender.flush());
    assert_eq!(drain(&mut receiver), ["1:3"]);
}

#[test]
fn a_full_inbox_keeps_the_newest_of_each_key_and_every_critical_update() {
    let (mut sender, mut receiver, _source) = pair(1, 1 << 20);
    assert_eq!(said(sender.offer(channel(1), update(1, 1))), "queued");
    assert_eq!(said(sender.offer(channel(1), of(7, false, 2, 1))), "held");
    assert_eq!(said(sender.offer(channel(1), of(8, false, 3, 1))), "held");
    assert_eq!(said(sender.offer(channel(1), of(7, true, 4, 1))), "held");
    assert_eq!(said(sender.offer(channel(1), of(7, false, 5, 1))), "instead of 2");
    assert_eq!(said(sender.offer(channel(1), of(7, true, 6, 1))), "held");
    let mut seen = drain(&mut receiver);
    while !sender.flush() {
        seen.extend(drain(&mut receiver));
    }
    seen.extend(drain(&mut receiver));
    assert_eq!(seen, ["1:1", "1:4", "1:6", "1:5", "1:3"]);
    assert!(lost(&mut sender).is_empty());
}

#[test]
fn what_waits_is_bounded_and_its_loss_is_told() {
    let (mut sender, mut receiver, _source) = pair(1, 10_000);
    assert_eq!(said(sender.offer(channel(1), update(1, 1))), "queued");
    for seq in 2..5 {
        assert_eq!(said(sender.offer(channel(1), of(0, true, seq, 1))), "held");
    }
    assert_eq!(lost(&mut sender), ["1:2"], "the oldest of more critical ones than may wait");
    assert_eq!(said(sender.offer(channel(2), update(5, 6000))), "held");
    assert_eq!(said(sender.offer(channel(3), update(6, 6000))), "held");
    assert_eq!(lost(&mut sender), ["2:5"], "what has waited for longest");
    assert_eq!(said(sender.offer(channel(3), update(7, 20_000))), "instead of 6");
    assert_eq!(lost(&mut sender), ["3:7",], "critical ones stay");
    let mut seen = drain(&mut receiver);
    while !sender.flush() {
        seen.extend(drain(&mut receiver));
    }
    seen.extend(drain(&mut receiver));
    assert_eq!((seen, sender.waiting()), (vec!["1:1".into(), "1:3".into(), "1:4".into()], 0));
}

/// Drains and flushes until nothing waits.
fn drain_all(sender: &mut InboxSender, receiver: &mut InboxReceiver) -> Vec<String> {
    let mut seen = drain(receiver);
    while !sender.flush() {
        seen.extend(drain(receiver));
    }
    seen.extend(drain(receiver));
    seen
}

#[test]
fn a_notice_goes_between_what_waited_before_it_and_what_came_later() {
    let (mut sender, mut receiver, _source) = pair(1, 1 << 20);
    assert_eq!(said(sender.offer(channel(1), of(7, false, 1, 1))), "queued");
    assert_eq!(said(sender.offer(channel(1), of(7, false, 2, 1))), "held");
    assert_eq!(said(sender.offer(channel(1), of(8, false, 3, 1))), "held");
    sender.notify(confirmed(1, 3));
    assert_eq!(said(sender.offer(channel(1), of(7, false, 4, 1))), "held", "not in the place of 2, before the notice");
    assert_eq!(said(sender.offer(channel(1), of(7, false, 5, 1))), "instead of 4");
    sender.confirm(confirmed(1, 5));
    assert_eq!(drain_all(&mut sender, &mut receiver), ["1:1", "c1:5", "1:2", "1:3", "c1:3", "1:5"]);
    assert!(sender.take_untold().is_empty());
    assert_eq!(said(sender.offer(channel(1), of(7, false, 6, 1))), "queued");
    sender.notify(confirmed(1, 6));
    assert_eq!(said(sender.offer(channel(1), of(7, false, 7, 1))), "held");
    assert_eq!(drain_all(&mut sender, &mut receiver), ["1:6", "c1:6", "1:7"], "it waits like everything else");
}

#[test]
fn one_notice_of_a_channel_waits_and_what_was_lost_behind_it_is_told_once_more() {
    let (mut sender, mut receiver, _source) = pair(1, 1 << 20);
    assert_eq!(said(sender.offer(channel(1), update(1, 1))), "queued");
    assert_eq!(said(sender.offer(channel(1), update(2, 1))), "held");
    sender.notify(confirmed(1, 2));
    assert_eq!(said(sender.offer(channel(1), update(3, 1))), "held");
    sender.notify(Confirmed { epoch: Epoch(9), ..confirmed(1, 3) });
    assert_eq!(sender.waiting(), 3);
    assert_eq!(drain_all(&mut sender, &mut receiver), ["1:1", "1:2", "c1:2", "1:3"]);
    assert_eq!(sender.take_untold(), [channel(1)]);
}

#[test]
fn a_notice_is_not_lost_with_what_was_before_it() {
    let (mut sender, mut receiver, _source) = pair(1, 10_000);
    assert_eq!(said(sender.offer(channel(1), update(1, 1))), "queued");
    assert_eq!(said(sender.offer(channel(1), update(2, 6000))), "held");
    sender.notify(confirmed(1, 2));
    assert_eq!(said(sender.offer(channel(2), update(7, 6000))), "held");
    assert_eq!(said(sender.offer(channel(3), update(8, 6000))), "held");
    assert_eq!(lost(&mut sender), ["1:2", "2:7"]);
    assert_eq!(said(sender.offer(channel(1), of(0, true, 3, 1))), "held");
    assert_eq!(said(sender.offer(channel(1), update(4, 1))), "held");
    assert_eq!(drain_all(&mut sender, &mut receiver), ["1:1", "1:3", "c1:2", "3:8", "1:4"]);
    assert_eq!(sender.waiting(), 0);
}

/// A full inbox that is offered a random many against what may be said of it: per channel and key in order, notices
/// behind what came before them and before what came later.
#[test]
fn whatever_waits_is_in_order_and_counted() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut sender, mut receiver, _source) = pair(rng.usize(1..4), rng.usize(500..4000));
        let (mut seq, mut ends, mut published) = (0, Vec::new(), 0);
        let (mut conflated, mut seen) = (0, Vec::new());
        for _ in 0..300 {
            let at = rng.u32(0..3);
            match rng.u8(..) {
                0..160 => {
                    seq += 1;
                    published += 1;
                    let offer = sender.offer(channel(at), of(rng.u64(0..4), false, seq, rng.usize(0..600)));
                    conflated += usize::from(matches!(offer, Offer::Conflated(_)));
                }
                160..180 => sender.notify(confirmed(at, seq)),
                180..220 => _ = sender.flush(),
                _ => seen.extend(std::iter::from_fn(|| receiver.try_recv())),
            }
            ends.extend(sender.take_lost());
            receiver.settle();
        }
        loop {
            let flushed = sender.flush();
            seen.extend(std::iter::from_fn(|| receiver.try_recv()));
            receiver.settle();
            if flushed {
                break;
            }
        }
        ends.extend(sender.take_lost());
        let (mut newest, mut noticed) = (std::collections::HashMap::new(), [0; 3]);
        let mut handed = 0;
        for message in seen {
            match message {
                ToShard::Update { channel, update } => {
                    handed += 1;
                    let before = newest.insert((channel, update.key), update.seq).unwrap_or(0);
                    assert!(update.seq > before, "seed {seed}: {} after {before}", update.seq);
                    assert!(
                        update.seq > noticed[channel.index as usize],
                        "seed {seed}: {} after its notice",
                        update.seq
                    );
                }
                ToShard::Confirmed(notice) => {
                    let index = notice.channel.index as usize;
                    noticed[index] = notice.seq;
                    let newer = newest.iter().find(|((of, _), seq)| *of == notice.channel && **seq > notice.seq);
                    assert!(newer.is_none(), "seed {seed}: {newer:?} before the notice of {}", notice.seq);
                }
                ToShard::Published { .. } => {}
            }
        }
        assert_eq!(published, handed + conflated + ends.len(), "seed {seed}");
        assert_eq!(sender.waiting(), 0);
    }
}
