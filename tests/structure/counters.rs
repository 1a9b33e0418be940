//! Every counter is moved by the room that owns it and shown by the admin interface; every reason is given by someone.

use super::code::{Source, bracketed, name, words};

const DECLARED_IN: &str = "metrics/counters.rs";

/// A set of counters, the room that moves it, and by what name the admin interface reads it.
const SETS: [(&str, &str, &[&str]); 2] =
    [("ShardCounters", "shard", &["all", "shard", "counters()"]), ("SourceCounters", "source", &["source"])];
const REASONS: [&str; 2] = ["DropReason", "EndReason"];

/// Counters and reasons that nobody moves or shows.
pub fn faults(sources: &[Source]) -> Vec<String> {
    let Some(declared) = sources.iter().find(|source| source.path == DECLARED_IN) else {
        return vec![format!("there is no src/{DECLARED_IN}")];
    };
    let code_of = |room: &str| -> String {
        sources.iter().filter(|source| source.room() == room).map(|source| source.product() + "\n").collect()
    };
    let shown = code_of("admin");
    let mut faults = Vec::new();
    for (set, room, names) in SETS {
        let code = code_of(room);
        for (at, counter) in entries(&declared.code, set) {
            if !moves(&code, set, counter) {
                faults.push(declared.fault(at, &format!("nothing in src/{room} moves {set}::{counter}")));
            }
            let is_shown = names.iter().any(|name| words(&shown, &format!("{name}.{counter}")).next().is_some());
            if !is_shown {
                faults.push(declared.fault(at, &format!("src/admin does not show {set}::{counter}")));
            }
        }
    }
    let given = code_of("shard") + &code_of("source");
    for set in REASONS {
        for (at, reason) in entries(&declared.code, set) {
            if words(&given, &format!("{set}::{reason}")).next().is_none() {
                faults.push(declared.fault(at, &format!("nobody gives {set}::{reason}")));
            }
        }
        if words(&shown, &format!("{set}::ALL")).next().is_none() {
            faults.push(declared.fault(0, &format!("src/admin does not show all of {set}")));
        }
    }
    faults
}

/// The names that a declaration lists, and where.
fn entries<'a>(code: &'a str, set: &str) -> Vec<(usize, &'a str)> {
    let open = words(code, set).find_map(|at| {
        let brace = at + set.len();
        code[brace..].starts_with(" {").then_some(brace + 1)
    });
    let Some(open) = open else { return Vec::new() };
    let body = bracketed(code, open);
    let (mut entries, mut at) = (Vec::new(), open);
    for entry in body.split_inclusive(['{', ',', '}']) {
        let start = at + (entry.len() - entry.trim_start().len());
        at += entry.len();
        let name = name(entry.trim_start());
        if !name.is_empty() {
            entries.push((start, name));
        }
    }
    entries
}

/// Whether a counter is assigned somewhere: alone, as a part of a tuple, or where its set is made.
fn moves(code: &str, set: &str, counter: &str) -> bool {
    let assigned = words(code, &format!("counters.{counter}")).any(|at| {
        let rest = &code[at + "counters.".len() + counter.len()..];
        is_assignment(rest) || rest.starts_with(',') && is_assignment(behind_tuple(rest))
    });
    let made = words(code, set).any(|at| {
        let rest = code[at + set.len()..].trim_start();
        rest.starts_with('{') && words(bracketed(rest, 0), counter).next().is_some()
    });
    // A reason is an index: it moves where the method that takes it is called.
    let by_method = match counter {
        "dropped" => "counters.drop_updates",
        "ended" => "counters.end",
        _ => return assigned || made,
    };
    assigned || made || words(code, by_method).next().is_some()
}

fn is_assignment(rest: &str) -> bool {
    let rest = rest.trim_start();
    let plain = rest.starts_with('=') && !rest.starts_with("==") && !rest.starts_with("=>");
    plain || rest.starts_with("+=") || rest.starts_with("-=")
}

/// What follows the parenthesis that closes around the start of `rest`.
fn behind_tuple(rest: &str) -> &str {
    let mut depth = 0;
    for (at, c) in rest.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return &rest[at + 1..],
            ')' => depth -= 1,
            ';' => break,
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &str = "
        reasons! { /// Why.
            DropReason { /// Full. \n OutboxFull = \"outbox_full\", } }
        reasons! { EndReason { /// Gone. \n Vanished = \"vanished\", } }
        counters! { ShardCounters {
            /// Sent.
            delivered,
            /// Dropped.
            dropped [DropReason],
        } }
        counters! { SourceCounters { /// Lost. \n lost, } }";
    const SHARD: &str =
        "self.counters.delivered += 1; self.counters.drop_updates(DropReason::OutboxFull, 1); EndReason::Vanished";
    const SOURCE: &str = "(self.counters.lost, self.at) = (1, 2);";
    const ADMIN: &str = "all.delivered; all.dropped[0]; source.lost; DropReason::ALL; EndReason::ALL";

    fn faults_with(shard: &str, source: &str, admin: &str) -> Vec<String> {
        faults(&[
            Source::new(DECLARED_IN, DECLARED),
            Source::new("shard/mod.rs", shard),
            Source::new("source/mod.rs", source),
            Source::new("admin/mod.rs", admin),
        ])
    }

    #[test]
    fn counters_that_move_and_are_shown_are_fine() {
        assert_eq!(faults_with(SHARD, SOURCE, ADMIN), [""; 0]);
        let made = "SourceCounters { lost: 1, ..Default::default() }";
        assert_eq!(faults_with(SHARD, made, ADMIN), [""; 0]);
    }

    #[test]
    fn every_entry_of_a_declaration_is_looked_at() {
        let code = Source::new(DECLARED_IN, DECLARED).code;
        let names = |set| entries(&code, set).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names("ShardCounters"), ["delivered", "dropped"]);
        assert_eq!(names("DropReason"), ["OutboxFull"]);
    }

    #[test]
    fn a_counter_that_is_read_written_in_words_or_moved_by_tests_alone_does_not_move() {
        let idle = [
            SHARD.replace("delivered += 1", "delivered == 1"),
            SHARD.replace("self.counters.delivered", "// self.counters.delivered"),
            format!(
                "{} #[cfg(test)] mod tests {{ fn f() {{ counters.delivered += 1 }} }}",
                SHARD.replace("delivered", "x")
            ),
        ];
        for shard in idle {
            assert!(
                faults_with(&shard, SOURCE, ADMIN).iter().any(|fault| fault.contains("moves ShardCounters::delivered")),
                "{shard}"
            );
        }
        let fault = faults_with(SHARD, "(f(self.counters.lost), 1) = 2;", ADMIN);
        assert!(fault[0].ends_with("nothing in src/source moves SourceCounters::lost"), "{fault:?}");
        let swapped = faults_with(&format!("{SHARD} {SOURCE}"), "", ADMIN);
        assert_eq!(swapped.len(), 1, "another room's counter of that name is not ours");
    }

    #[test]
    fn a_reason_that_nobody_gives_and_a_counter_that_nobody_shows_are_found() {
        assert_eq!(faults_with(&SHARD.replace("EndReason::Vanished", ""), SOURCE, ADMIN).len(), 1);
        assert_eq!(faults_with(SHARD, SOURCE, &ADMIN.replace("source.lost", "all.lost")).len(), 1);
        assert_eq!(faults_with(SHARD, SOURCE, &ADMIN.replace("EndReason::ALL", "")).len(), 1);
    }
}
