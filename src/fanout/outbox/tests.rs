//! What an outbox promises, one promise a test. Sequences of operations are in `tests/outbox.rs`.

use super::*;
use crate::fanout::Update;
use crate::ids::Face;
use std::sync::Arc;

const LIMITS: OutboxLimits = OutboxLimits { slack: 2, messages_max: 4, bytes_max: 100, critical_max: 2 };
const ROOMY: OutboxLimits = OutboxLimits { slack: 100, messages_max: 100, bytes_max: 1 << 20, critical_max: 100 };

/// An update of channel `channel` and key `key` whose frame is `text`; a text in capitals is critical.
fn of(policy: Policy, channel: u32, key: u64, text: &str) -> Rc<Run> {
    let critical = text.starts_with(|first: char| first.is_ascii_uppercase());
    let frames = [Some(text.as_bytes().into()), None];
    let update = Update { seq: 0, received_us: 7 + key, key, critical, frames };
    Rc::new(Run::update(channel, policy, &Arc::new(update), Face::ALL[0]).unwrap())
}

fn update(key: u64, text: &str) -> Rc<Run> {
    of(Policy::Conflate, 1, key, text)
}

fn queued(conflated: u64, dropped: u64) -> Offer {
    Offer::Queued(Gone { conflated, dropped })
}

/// An outbox that took all of these.
fn holding(updates: &[Rc<Run>]) -> Outbox {
    let mut outbox = Outbox::default();
    for update in updates {
        assert_eq!(outbox.offer(Rc::clone(update), &ROOMY), queued(0, 0));
    }
    outbox
}

fn text(chunk: &Chunk) -> String {
    String::from_utf8(chunk.bytes().to_vec()).unwrap()
}

/// All that is owed, as it would be written.
fn written(mut outbox: Outbox) -> String {
    outbox.next(1 << 20).map_or(String::new(), |chunk| text(&chunk))
}

#[test]
fn slack_is_kept_whole_and_past_it_the_newest_of_each_key_in_the_place_of_the_oldest() {
    let mut outbox = Outbox::default();
    assert_eq!(outbox.offer(update(1, "a1 "), &LIMITS), queued(0, 0));
    assert_eq!(outbox.offer(update(1, "a2 "), &LIMITS), queued(0, 0));
    assert_eq!(outbox.offer(update(2, "b1 "), &LIMITS), queued(1, 0), "one more than slack");
    assert_eq!(outbox.offer(update(1, "a3 "), &LIMITS), queued(1, 0));
    assert_eq!((outbox.pending(), outbox.pending_bytes()), (2, 6));
    assert_eq!(outbox.next(3).as_ref().map(text), Some("a3 ".into()));
    assert_eq!(outbox.offer(update(2, "b2 "), &LIMITS), queued(1, 0), "it conflates until nothing waits");
    assert_eq!(outbox.next(3).as_ref().map(text), Some("b2 ".into()));
    assert_eq!(outbox.offer(update(2, "b3 "), &LIMITS), queued(0, 0));
    assert_eq!(outbox.offer(update(2, "b4 "), &LIMITS), queued(0, 0), "and then keeps slack again");
}

#[test]
fn a_neighbour_that_conflates_takes_nothing_from_channels_that_do_not() {
    let others = [Policy::DropOldest, Policy::DropNewest, Policy::Disconnect];
    let mut outbox = holding(&others.map(|policy| of(policy, 2, 0, "k")));
    assert_eq!(outbox.offer(update(0, "a"), &OutboxLimits { slack: 0, ..ROOMY }), queued(0, 0));
    assert_eq!(outbox.conflate(), Gone::default());
    assert_eq!(written(outbox), "kkka");
}

#[test]
fn where_there_is_no_room_each_policy_does_what_it_says() {
    let limits = OutboxLimits { messages_max: 3, ..ROOMY };
    let rows = [
        (Policy::DropOldest, queued(0, 1), "other own2 new "), // its own oldest, not the oldest of all
        (Policy::DropNewest, Offer::Dropped, "other own1 own2 "),
        (Policy::Disconnect, Offer::TooSlow(Gone::default()), "other own1 own2 "),
    ];
    for (policy, expected, left) in rows {
        let own = |key, text| of(policy, 2, key, text);
        let mut outbox = holding(&[of(Policy::DropNewest, 3, 0, "other "), own(1, "own1 "), own(2, "own2 ")]);
        assert_eq!(outbox.offer(own(3, "new "), &limits), expected, "{policy:?}");
        assert_eq!(written(outbox), left, "{policy:?}");
    }
}

#[test]
fn nothing_makes_room_by_dropping_what_a_rule_would_rather_close_for() {
    let mut outbox = holding(&[of(Policy::Disconnect, 2, 0, "d1 "), update(1, "a ")]);
    let limits = OutboxLimits { bytes_max: 5, ..ROOMY };
    assert_eq!(outbox.offer(update(2, "b "), &limits), queued(0, 1));
    assert_eq!(outbox.spill(1000), Gone { conflated: 0, dropped: 1 });
    let limits = OutboxLimits { bytes_max: 4, ..ROOMY };
    assert_eq!(outbox.offer(update(2, "c "), &limits), Offer::TooSlow(Gone::default()));
    let limits = OutboxLimits { messages_max: 1, ..ROOMY };
    assert_eq!(outbox.offer(of(Policy::DropOldest, 3, 0, "o "), &limits), Offer::TooSlow(Gone::default()));
    assert_eq!(written(outbox), "d1 ");
}

#[test]
fn no_number_of_keys_makes_the_newest_of_one_go() {
    for limits in [LIMITS, OutboxLimits { slack: 100, ..LIMITS }] {
        let mut outbox = Outbox::default();
        for key in 0..20 {
            assert_eq!(outbox.offer(update(key, "abcd "), &limits), queued(0, 0), "{key}");
        }
        assert_eq!(outbox.offer(update(7, "new "), &limits), queued(1, 0), "it conflates");
        assert_eq!(outbox.offer(of(Policy::DropOldest, 3, 0, "o"), &limits), queued(0, 0), "and takes nobody's place");
        assert_eq!((outbox.pending(), outbox.pending_bytes(), outbox.take_missed()), (21, 100, vec![]));
    }
}

#[test]
fn before_it_drops_for_want_of_bytes_a_channel_conflates_and_what_is_dropped_then_is_said_once() {
    let limits = OutboxLimits { bytes_max: 6, ..ROOMY };
    let mut outbox = holding(&[update(1, "a1 "), update(1, "a2 ")]);
    assert_eq!(outbox.offer(update(2, "b1 "), &limits), queued(1, 0));
    assert!(outbox.take_missed().is_empty());
    assert_eq!(outbox.offer(update(3, "c1 "), &limits), queued(0, 1));
    assert_eq!(outbox.offer(update(4, "d1 "), &limits), queued(0, 1));
    assert_eq!(outbox.take_missed(), [1]);
    assert!(outbox.take_missed().is_empty());
    for text in ["missed 4 ", "missed 5 "] {
        outbox.missed(Rc::new(Run::missed(1, text.into())));
        outbox.notice(Rc::new(Run::notice(1, b"epoch ".to_vec())));
    }
    assert_eq!(written(outbox), "c1 d1 missed 5 epoch ");
}

#[test]
fn a_newer_one_that_waits_makes_up_for_one_that_is_dropped() {
    let mut outbox = holding(&[update(1, "a1 "), update(1, "a2 "), of(Policy::DropOldest, 2, 0, "o ")]);
    assert_eq!(outbox.spill(1), Gone { conflated: 0, dropped: 1 });
    assert!(outbox.take_missed().is_empty());
    assert_eq!(outbox.spill(4), Gone { conflated: 0, dropped: 2 });
    assert_eq!(outbox.take_missed(), [1], "who drops its oldest has asked for it");
    assert_eq!(outbox.forget_channel(1), 0);
}

#[test]
fn critical_goes_before_its_pong_without_data() {
    let mut outbox = holding(&[update(1, "data "), update(1, "C1 "), update(1, "C2 "), update(1, "C3 ")]);
    outbox.control(Rc::new(Run::own(b"reply ".to_vec())));
    assert_eq!(outbox.waiting_critical(), (3, 3, 9));
    assert_eq!(text(&outbox.next_critical(12).unwrap()), "reply C1 C2 ");
    assert_eq!(text(&outbox.next_critical(12).unwrap()), "C3 ");
    assert!(outbox.next_critical(12).is_none());
    assert_eq!(written(outbox), "data ");
}

#[test]
fn an_outbox_owns_its_places_and_what_nobody_shares() {
    let mut outbox = holding(&[update(1, &"x".repeat(1000)), update(1, "C1 ")]);
    assert_eq!(outbox.owned_bytes(), 2 * PLACE_BYTES);
    outbox.notice(Rc::new(Run::notice(1, vec![0; 10])));
    outbox.control(Rc::new(Run::own(vec![0; 100])));
    assert_eq!(outbox.owned_bytes(), 4 * PLACE_BYTES + 110);
    let _ = outbox.unsent(Chunk::whole(update(1, &"y".repeat(100))), 40, &ROOMY);
    assert_eq!(outbox.owned_bytes(), 5 * PLACE_BYTES + 170, "a copied rest");
    while outbox.next(1).is_some() {}
    assert_eq!(outbox.owned_bytes(), 0);
    let _ = outbox.unsent(Chunk::whole(update(1, &"z".repeat(COPY_MAX + 2))), 1, &ROOMY);
    assert_eq!(outbox.owned_bytes(), PLACE_BYTES, "a shared one");
}

#[test]
fn a_larger_update_of_a_key_makes_room_for_itself_and_one_of_any_size_is_taken() {
    let mut outbox = holding(&[update(1, "a "), update(2, "b ")]);
    assert_eq!(outbox.conflate(), Gone::default());
    let (large, huge) = ("x".repeat(98), "y".repeat(500));
    assert_eq!(outbox.offer(update(1, &large), &LIMITS), queued(1, 0), "100 bytes, as many as may wait");
    assert_eq!(outbox.offer(update(1, &huge), &LIMITS), queued(1, 1));
    assert_eq!((outbox.pending(), outbox.pending_bytes()), (1, 500));
    assert_eq!(outbox.offer(update(1, &large), &LIMITS), queued(1, 0));
    assert_eq!(written(outbox), large);
}

#[test]
fn control_goes_first_then_critical_then_data_after_what_was_started() {
    let mut outbox = holding(&[update(1, "d "), update(1, "CRITICAL ")]);
    outbox.notice(Rc::new(Run::notice(1, b"notice ".to_vec())));
    outbox.control(Rc::new(Run::own(b"control ".to_vec())));
    let chunk = outbox.next(1).unwrap();
    assert_eq!(outbox.unsent(chunk, 3, &ROOMY), Unsent::default());
    assert!(outbox.has_started());
    assert_eq!(written(outbox), "trol CRITICAL d notice ");
}

#[test]
fn critical_updates_are_never_displaced_and_one_too_many_closes() {
    let mut outbox = holding(&[update(1, "C1 "), update(1, "C2 ")]);
    assert_eq!(outbox.offer(update(1, "C3 "), &LIMITS), Offer::TooSlow(Gone::default()));
    assert_eq!(outbox.conflate(), Gone::default());
    assert_eq!(outbox.spill(1000), Gone::default());
    assert!(outbox.has_waiting());
    assert_eq!(written(outbox), "C1 C2 ");
}

#[test]
fn a_write_is_as_large_as_is_asked_for_and_larger_only_by_one_frame() {
    let mut outbox = holding(&[update(1, "12345"), update(1, "67890"), update(1, "a")]);
    let chunk = outbox.next(10).unwrap();
    assert_eq!((text(&chunk), chunk.run.updates), ("1234567890".into(), 2));
    let mut outbox = holding(&[update(1, "12345"), update(1, "67890")]);
    assert_eq!(text(&outbox.next(9).unwrap()), "12345");
    assert_eq!(text(&outbox.next(1).unwrap()), "67890");
    assert!(outbox.next(100).is_none());
}

#[test]
fn a_write_is_as_old_as_its_oldest_update() {
    let mut outbox = holding(&[update(1, "8"), update(2, "9")]);
    outbox.control(Rc::new(Run::own(b"reply".to_vec())));
    assert_eq!(outbox.next(100).unwrap().run.received_us, 8);
    let mut outbox = holding(&[update(2, "9")]);
    let _ = outbox.unsent(Chunk::whole(update(1, "8, started")), 5, &ROOMY);
    assert_eq!(outbox.next(100).unwrap().run.received_us, 8);
}

#[test]
fn what_was_not_written_waits_again_before_what_came_later_and_a_started_frame_is_finished() {
    let parts = vec![update(1, "one "), update(1, "two "), update(1, "three ")];
    let mut outbox = holding(&[update(1, "four ")]);
    let unsent = outbox.unsent(Chunk::whole(Rc::new(Run::joined(parts))), 6, &ROOMY);
    assert_eq!(unsent, Unsent { whole: 1, ..Unsent::default() });
    assert_eq!((outbox.pending(), outbox.pending_bytes()), (3, 13));
    assert_eq!(written(outbox), "o three four ");
}

#[test]
fn what_was_not_written_gives_way_to_what_is_newer_where_it_conflates() {
    let mut outbox = holding(&[update(2, "b1 "), update(1, "a2 ")]);
    assert_eq!(outbox.conflate(), Gone::default());
    let unsent = outbox.unsent(Chunk::whole(update(1, "a1 ")), 0, &ROOMY);
    assert_eq!(unsent.gone, Gone { conflated: 1, dropped: 0 });
    assert_eq!(written(outbox), "a2 b1 ", "in the place of the older one");
}

#[test]
fn what_was_not_written_and_is_more_than_slack_conflates_and_more_than_may_wait_goes() {
    let parts = |keys: u64| (0..4).map(|at| update(at % keys, "u")).collect();
    let mut outbox = Outbox::default();
    let unsent = outbox.unsent(Chunk::whole(Rc::new(Run::joined(parts(2)))), 0, &LIMITS);
    assert_eq!((unsent.gone, outbox.pending()), (Gone { conflated: 2, dropped: 0 }, 2));
    let mut outbox = Outbox::default();
    let limits = OutboxLimits { messages_max: 3, ..LIMITS };
    let whole = (0..4).map(|_| of(Policy::DropOldest, 1, 0, "u")).collect();
    let unsent = outbox.unsent(Chunk::whole(Rc::new(Run::joined(whole))), 0, &limits);
    assert_eq!((unsent.gone, outbox.pending()), (Gone { conflated: 0, dropped: 1 }, 3));
}

#[test]
fn a_ping_is_taken_back_with_what_it_rode_on_and_finished_where_all_before_it_went() {
    let with_ping = || Chunk::whole(Rc::new(Run::with_ping(&Chunk::whole(update(1, "data")), b"ping")));
    for (taken, expected) in [(0, "data"), (2, "ta"), (4, "ping"), (6, "ng")] {
        let mut outbox = Outbox::default();
        let unsent = outbox.unsent(with_ping(), taken, &ROOMY);
        assert_eq!(unsent, Unsent { unpinged: taken < 4, whole: u64::from(taken >= 4), gone: Gone::default() });
        assert_eq!(written(outbox), expected, "after {taken} bytes");
    }
}

#[test]
fn a_reply_does_not_overtake_the_updates_that_it_speaks_of() {
    let joined = || Run::joined(vec![update(1, "one "), update(1, "two ")]);
    let pinged = || Run::with_ping(&Chunk::whole(Rc::new(joined())), b"ping ");
    for (run, taken, expected) in [
        (joined(), 0, "one two reply "),
        (joined(), 4, "two reply "),
        (pinged(), 0, "one two ping reply "),
        (pinged(), 5, "wo ping reply "),
    ] {
        let mut outbox = Outbox::default();
        outbox.control(Rc::new(Run::own(b"reply ".to_vec())));
        let unsent = outbox.unsent(Chunk::whole(Rc::new(run)), taken, &ROOMY);
        assert!(!unsent.unpinged && unsent.gone == Gone::default());
        assert_eq!(outbox.pending() + unsent.whole, 2);
        assert_eq!(outbox.forget_channel(1), 0, "they are as good as written");
        assert_eq!(written(outbox), expected);
    }
}

#[test]
fn a_notice_that_was_taken_back_is_no_update() {
    let mut outbox = holding(&[update(0, "new ")]);
    assert_eq!(outbox.conflate(), Gone::default());
    let notice = Rc::new(Run::notice(1, b"epoch ".to_vec()));
    let unsent = outbox.unsent(Chunk::whole(notice), 0, &ROOMY);
    assert_eq!((unsent.gone, outbox.pending()), (Gone::default(), 1));
    assert_eq!(written(outbox), "epoch new ");
}

#[test]
fn a_notice_that_comes_back_gives_way_to_a_newer_one_of_its_channel() {
    let notice = |channel, text: &str| Rc::new(Run::notice(channel, text.into()));
    let mut outbox = Outbox::default();
    outbox.notice(notice(1, "newer "));
    assert_eq!(outbox.unsent(Chunk::whole(notice(1, "older ")), 0, &ROOMY), Unsent::default());
    assert_eq!(outbox.unsent(Chunk::whole(notice(2, "other ")), 0, &ROOMY), Unsent::default());
    assert_eq!(written(outbox), "other newer ");
}

#[test]
fn bytes_may_be_filled_to_the_last() {
    for (size, offer) in [(60, queued(0, 0)), (61, Offer::Dropped)] {
        let mut outbox = holding(&[update(1, &"x".repeat(40))]);
        assert_eq!(outbox.offer(of(Policy::DropNewest, 2, 0, &"y".repeat(size)), &LIMITS), offer);
    }
}

#[test]
fn of_a_channels_notices_the_newest_waits_and_nothing_drops_it() {
    let mut outbox = holding(&[update(1, "a ")]);
    for text in ["first ", "second "] {
        outbox.notice(Rc::new(Run::notice(1, text.into())));
    }
    outbox.notice(Rc::new(Run::notice(2, b"other ".to_vec())));
    assert_eq!((outbox.pending(), outbox.spill(1000).dropped), (1, 1));
    assert_eq!(outbox.offer(of(Policy::DropNewest, 1, 0, "b "), &LIMITS), queued(0, 0), "notices take no room");
    assert_eq!(written(outbox), "second other b ");
}

#[test]
fn control_goes_by_itself_to_who_may_not_be_sent_data() {
    let mut outbox = holding(&[update(1, "data"), update(1, "CRITICAL")]);
    for text in ["one ", "two ", "three "] {
        outbox.control(Rc::new(Run::own(text.into())));
    }
    assert_eq!(outbox.control_len(), 3);
    assert_eq!(text(&outbox.next_control(8).unwrap()), "one two ");
    assert_eq!(text(&outbox.next_control(1).unwrap()), "three ");
    assert!(outbox.next_control(100).is_none());
    assert_eq!((outbox.control_len(), outbox.pending(), outbox.is_empty()), (0, 2, false));
}

#[test]
fn the_rest_of_a_small_frame_is_copied_and_that_of_a_large_one_shared() {
    for (size, shared) in [(COPY_MAX + 1, false), (COPY_MAX + 2, true)] {
        let run = update(1, &"x".repeat(size));
        let mut outbox = Outbox::default();
        let unsent = outbox.unsent(Chunk::whole(Rc::clone(&run)), 1, &ROOMY);
        assert_eq!(unsent, Unsent::default());
        assert_eq!(Rc::strong_count(&run) > 1, shared);
        assert_eq!((outbox.pending(), outbox.pending_bytes()), (1, size - 1));
        let chunk = outbox.next(1 << 20).unwrap();
        assert_eq!((chunk.bytes(), chunk.run.updates), (&run.bytes()[1..], 1));
    }
}

#[test]
fn what_went_adds_up() {
    let gone = |conflated, dropped| Gone { conflated, dropped };
    assert_eq!(gone(1, 20).and(gone(300, 4_000)), gone(301, 4_020));
}

#[test]
fn what_is_forgotten_is_counted_and_what_is_started_stays() {
    let mut outbox = holding(&[update(1, "a1 "), of(Policy::Conflate, 2, 0, "b1 "), update(1, "C1 ")]);
    outbox.missed = vec![1, 2];
    outbox.notice(Rc::new(Run::notice(1, b"notice ".to_vec())));
    let _ = outbox.unsent(Chunk::whole(update(1, "started ")), 2, &ROOMY);
    assert_eq!((outbox.forget_channel(1), outbox.pending(), outbox.missed.as_slice()), (2, 2, &[2][..]));
    assert_eq!((outbox.forget_data(), outbox.pending(), outbox.has_waiting()), (1, 1, false));
    assert_eq!(written(outbox), "arted ");
}
