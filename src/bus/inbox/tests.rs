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
    sender.take_lost().iter().map(|(channel, update)| format!("{}:{}", channel.index, update.seq)).collect()
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
