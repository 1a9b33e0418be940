//! The table's promises, one test each.

use super::*;
use proptest::prelude::*;

const LINGER_US: u64 = 5_000_000;

fn raw() -> Faces {
    Faces::NONE.with(Face::Raw)
}

fn table(embedded: bool) -> Table {
    Table::new(embedded, Duration::from_micros(LINGER_US), 100, &[])
}

fn up() -> Table {
    let mut table = table(false);
    table.restored();
    table
}

/// What shard `shard` wants of the channel `c`; the version goes by the faces.
fn demand(shard: u16, faces: Faces, version: u32) -> Demand {
    let channel = ChannelRef { index: 7, generation: u32::from(shard) };
    Demand { shard: ShardId(shard), channel, name: "c".into(), faces, sockets: 3, version }
}

/// Applies a demand; what is said for it, as `shard:version`, and whether the channel is new.
fn ask(table: &mut Table, demand: &Demand) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let new = table.demand(demand, 0, &mut words).is_some();
    (said(&words), new)
}

fn said(words: &[Word]) -> Vec<String> {
    let said = words.iter().map(|word| match word {
        Word::Confirmed(shard, confirmed) => format!("{}:v{}", shard.0, confirmed.version),
        Word::Notice(shard, confirmed) => format!("{}:n{}", shard.0, confirmed.version),
        Word::Update(shard, _, update) => format!("{}:#{}", shard.0, update.seq),
    });
    said.collect()
}

fn confirmed(words: &[Word]) -> Vec<Confirmed> {
    let confirmed = words.iter().filter_map(|word| match word {
        Word::Confirmed(_, confirmed) | Word::Notice(_, confirmed) => Some(*confirmed),
        Word::Update(..) => None,
    });
    confirmed.collect()
}

fn receive_while(table: &mut Table, payload: &[u8], subscribing: bool) -> (Received, Vec<Word>) {
    let mut words = Vec::new();
    let message = Message { channel: "c", payload, now_us: 1, ts_ms: 2, subscribing };
    (table.receive(&message, &mut words), words)
}

fn receive(table: &mut Table, payload: &[u8]) -> (Received, Vec<Word>) {
    receive_while(table, payload, false)
}

#[test]
fn a_demand_waits_for_redis_and_later_ones_are_answered_at_once() {
    let mut table = up();
    assert_eq!(ask(&mut table, &demand(0, raw(), 1)), (vec![], true));
    assert_eq!(ask(&mut table, &demand(1, raw(), 1)), (vec![], false), "asked for already");
    let mut words = Vec::new();
    table.confirm("c", &mut words);
    assert_eq!(said(&words), ["0:v1", "1:v1"]);
    assert_eq!(ask(&mut table, &demand(0, raw().with(Face::Json), 2)).0, ["0:v2"]);
    assert_eq!(ask(&mut table, &demand(0, raw().with(Face::Json), 2)).0, [""; 0], "only `sockets` changed");
    assert_eq!((table.channels_wanted(), table.channels_confirmed()), (1, 1));
}

#[test]
fn nobody_waits_for_an_embedded_engine_or_a_redis_that_is_away() {
    assert_eq!(ask(&mut table(true), &demand(0, raw(), 1)), (vec!["0:v1".into()], true));
    assert_eq!(ask(&mut table(false), &demand(0, raw(), 1)), (vec!["0:v1".into()], true));
    let mut table = up();
    assert_eq!(ask(&mut table, &demand(0, raw(), 1)).0, [""; 0]);
    let mut words = Vec::new();
    assert!(table.lost(&mut words).is_empty());
    assert_eq!(said(&words), ["0:v1"], "what waited is confirmed at the loss");
}

#[test]
fn after_a_loss_the_epoch_is_new_and_seq_never_steps_back() {
    let mut table = up();
    let mut words = Vec::new();
    ask(&mut table, &demand(0, raw(), 4));
    table.confirm("c", &mut words);
    assert_eq!(said(&receive(&mut table, b"x").1), ["0:#1"]);
    table.lost(&mut words);
    assert_eq!(words.len(), 1, "the loss itself is no news to those who were confirmed");
    table.restored();
    table.confirm("c", &mut words);
    let [before, after] = confirmed(&words)[..] else { panic!("{words:?}") };
    assert_eq!((after.version, after.seq), (4, 1));
    assert_ne!(before.epoch, after.epoch);
    assert_eq!(said(&receive(&mut table, b"y").1), ["0:#2"]);
}

#[test]
fn a_message_proves_a_subscription_only_while_one_is_under_way() {
    let mut table = up();
    ask(&mut table, &demand(0, raw(), 1));
    assert!(receive_while(&mut table, b"x", false).1.is_empty(), "the rest of an earlier subscription");
    assert_eq!(said(&receive_while(&mut table, b"x", true).1), ["0:v1", "0:#1"], "confirmed first, then given");
}

#[test]
fn a_channel_lingers_and_then_begins_anew() {
    let mut table = up();
    let mut words = Vec::new();
    ask(&mut table, &demand(0, raw(), 1));
    table.confirm("c", &mut words);
    ask(&mut table, &demand(0, Faces::NONE, 2));
    assert_eq!(receive(&mut table, b"unheard").0, Received::Given(0));
    assert_eq!(table.due_us(), Some(LINGER_US));
    assert!(table.expire(LINGER_US - 1).is_empty());
    assert_eq!(ask(&mut table, &demand(0, raw(), 3)), (vec!["0:v3".into()], false), "still subscribed");
    assert!(table.expire(LINGER_US).is_empty(), "wanted again");
    ask(&mut table, &demand(0, Faces::NONE, 4));
    assert_eq!(table.expire(LINGER_US), [Arc::<str>::from("c")]);
    assert_eq!(ask(&mut table, &demand(0, raw(), 5)), (vec![], true));
    table.confirm("c", &mut words);
    let [first, last] = confirmed(&words)[..] else { panic!("{words:?}") };
    assert!(last.epoch != first.epoch && last.seq == 0);
}

#[test]
fn only_faces_that_some_shard_wants_are_encoded_and_a_shard_that_left_gets_nothing() {
    let mut table = table(true);
    ask(&mut table, &demand(0, raw(), 1));
    ask(&mut table, &demand(1, raw(), 1));
    ask(&mut table, &demand(0, Faces::NONE, 2));
    let (received, words) = receive(&mut table, b"x");
    assert_eq!(received, Received::Given(3));
    let [Word::Update(ShardId(1), _, update)] = &words[..] else { panic!("{words:?}") };
    assert!(update.frames[Face::Raw.index()].is_some() && update.frames[Face::Json.index()].is_none());
}

#[test]
fn an_update_that_is_too_large_leaves_a_gap_that_shows() {
    let mut table = table(true);
    ask(&mut table, &demand(0, raw(), 1));
    assert_eq!(receive(&mut table, &[b'x'; 101]).0, Received::TooLarge);
    assert_eq!(said(&receive(&mut table, &[b'x'; 100]).1), ["0:#2"]);
}

#[test]
fn a_refused_channel_keeps_nobody_waiting() {
    let mut table = up();
    let mut words = Vec::new();
    ask(&mut table, &demand(0, raw(), 1));
    table.refuse("c", &mut words);
    assert_eq!(said(&words), ["0:v1"]);
    assert_eq!(ask(&mut table, &demand(1, raw(), 1)).0, ["1:v1"]);
}

#[derive(Clone, Debug)]
enum Op {
    Demand(u16, bool),
    Confirm,
    Lose,
    Restore,
    Expire,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3u16, any::<bool>()).prop_map(|(shard, wants)| Op::Demand(shard, wants)),
        2 => Just(Op::Confirm),
        1 => Just(Op::Lose),
        1 => Just(Op::Restore),
        1 => Just(Op::Expire),
    ]
}

proptest! {
    #[test]
    fn every_demand_is_answered_in_the_end_and_what_nobody_wants_is_forgotten(
        ops in proptest::collection::vec(op(), 0..60),
    ) {
        let (mut table, mut words) = (table(false), Vec::new());
        let mut newest = [None; 3];
        for (step, op) in ops.into_iter().enumerate() {
            match op {
                Op::Demand(shard, wants) => {
                    let version = step as u32;
                    newest[usize::from(shard)] = wants.then_some(version);
                    let faces = if wants { raw() } else { Faces::NONE };
                    let _ = table.demand(&demand(shard, faces, version), 0, &mut words);
                }
                Op::Confirm => table.confirm("c", &mut words),
                Op::Lose => _ = table.lost(&mut words),
                Op::Restore => table.restored(),
                Op::Expire => _ = table.expire(LINGER_US),
            }
            prop_assert!(table.channels_confirmed() <= table.channels.len() as u64);
        }
        table.confirm("c", &mut words);
        for (shard, version) in newest.iter().enumerate() {
            let answers = words.iter().rev().find_map(|word| match word {
                Word::Confirmed(at, confirmed) if at.index() == shard => Some(confirmed.version),
                _ => None,
            });
            prop_assert!(version.is_none() || answers == *version, "shard {shard}: {version:?}, last answer {answers:?}");
        }
        (0..3).for_each(|shard| drop(table.demand(&demand(shard, Faces::NONE, 0), 0, &mut words)));
        table.expire(u64::MAX);
        prop_assert!(table.channels.is_empty() && table.lingering.is_empty() && table.places.is_empty());
        prop_assert_eq!(table.channels_confirmed(), 0);
    }
}

#[test]
fn a_channel_of_which_a_shard_missed_something_begins_a_new_epoch_for_all() {
    let mut table = up();
    ask(&mut table, &demand(0, raw(), 1));
    ask(&mut table, &demand(1, raw(), 1));
    let mut words = Vec::new();
    table.confirm("c", &mut words);
    let before = confirmed(&words)[0].epoch;
    words.clear();
    table.missed(ShardId(1), ChannelRef { index: 7, generation: 5 }, 10);
    table.begin_epochs(10, &mut words);
    assert!(words.is_empty(), "the shard has another channel there by now");
    table.missed(ShardId(1), ChannelRef { index: 7, generation: 1 }, 10);
    assert_eq!(table.due_us(), Some(10));
    ask(&mut table, &demand(1, raw(), 2));
    table.begin_epochs(10, &mut words);
    assert_eq!(said(&words), ["0:n1", "1:n2"]);
    assert!(confirmed(&words).iter().all(|confirmed| confirmed.epoch != before));
    assert_eq!(table.channels_confirmed(), 1);
}

#[test]
fn however_much_is_missed_a_channel_begins_one_epoch_a_second() {
    let mut table = table(true);
    ask(&mut table, &demand(1, raw(), 1));
    let (here, mut words) = (ChannelRef { index: 7, generation: 1 }, Vec::new());
    for ms in 0..2_500 {
        table.missed(ShardId(1), here, ms * 1000);
        table.missed(ShardId(1), here, ms * 1000);
        table.begin_epochs(ms * 1000, &mut words);
    }
    assert_eq!(said(&words), ["1:n1", "1:n1", "1:n1"]);
    assert_eq!(table.due_us(), Some(3_000_000), "what was missed since has yet to be told");
    table.begin_epochs(3_000_000, &mut words);
    assert_eq!((words.len(), table.due_us()), (4, None));
    table.missed(ShardId(1), here, 3_000_001);
    ask(&mut table, &demand(1, Faces::NONE, 2));
    table.expire(u64::MAX);
    table.begin_epochs(u64::MAX, &mut words);
    assert_eq!(words.len(), 4, "nobody is there to be told");
}
