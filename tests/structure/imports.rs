//! The rooms import in one order, each only from those before it: no cycles, and pure rooms stay pure.

use super::code::{Source, bracketed, name, words};

/// The rooms in the order of `src/lib.rs`.
const ROOMS: [&str; 14] = [
    "ids",
    "config",
    "metrics",
    "wire",
    "fanout",
    "lifecycle",
    "sys",
    "bus",
    "source",
    "shard",
    "admin",
    "doctor",
    "server",
    "main",
];

/// Imports against the order, and rooms that are not in it.
pub fn faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.path != "lib.rs") {
        let Some(place) = place(source.room()) else {
            faults.push(source.fault(0, &format!("{:?} has no place in the order of rooms", source.room())));
            continue;
        };
        for (at, imported) in imports(source) {
            if self::place(imported).is_some_and(|imported| imported > place) {
                faults.push(source.fault(at, &format!("{} comes before {imported}, and imports it", source.room())));
            }
        }
    }
    faults
}

fn place(room: &str) -> Option<usize> {
    ROOMS.iter().position(|known| *known == room)
}

/// What the code names of the crate's root, and where: by `crate::`, and by as many `super::` as lead there.
fn imports(source: &Source) -> Vec<(usize, &str)> {
    let code = source.code.as_str();
    let by_crate = words(code, "crate").filter_map(|at| Some((at, code[at + 5..].strip_prefix("::")?)));
    let by_super = words(code, "super").filter_map(|at| {
        let (mut rest, mut supers) = (&code[at..], 0);
        while let Some(higher) = rest.strip_prefix("super::") {
            (rest, supers) = (higher, supers + 1);
        }
        (supers >= source.depth()).then_some((at, rest))
    });
    by_crate.chain(by_super).flat_map(|(at, rest)| heads(rest).into_iter().map(move |head| (at, head))).collect()
}

/// The first name of a path, or of each path of a group.
fn heads(path: &str) -> Vec<&str> {
    if !path.starts_with('{') {
        return vec![name(path)];
    }
    let group = bracketed(path, 0);
    let (mut heads, mut depth, mut fresh) = (Vec::new(), 0, false);
    for (at, c) in group.char_indices() {
        match c {
            '{' => (depth, fresh) = (depth + 1, depth == 0),
            '}' => depth -= 1,
            ',' => fresh = depth == 1,
            c if fresh && !c.is_whitespace() => {
                heads.push(name(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

#[test]
fn an_import_against_the_order_is_found_however_it_is_written() {
    for (path, text) in [
        ("wire/frame.rs", "use crate::shard::Conn;"),
        ("wire/frame.rs", "use crate::{config::Limits, sys::Ring};"),
        ("wire/frame.rs", "use crate::{config::{Limits, Config}, ids, bus};"),
        ("wire/frame.rs", "fn f() -> crate::fanout::Update {}"),
        ("wire/mod.rs", "use super::fanout;"),
        ("wire/frame/tests.rs", "use super::super::super::shard;"),
        ("ids/mod.rs", "use crate::config::Config;"),
        ("cellar/mod.rs", ""),
    ] {
        assert_eq!(faults(&[Source::new(path, text)]).len(), 1, "{path}: {text}");
    }
}

#[test]
fn an_import_along_the_order_and_one_in_words_are_fine() {
    for (path, text) in [
        ("wire/frame.rs", "use crate::config::Limits; use crate::{ids::Face, metrics}; use super::shard;"),
        ("wire/frame.rs", "// use crate::shard::Conn;\nconst WHY: &str = \"crate::shard\";"),
        ("wire/frame.rs", "use crate::wire::header; use crate::{wire::{sys, bus}};"),
        ("config/file.rs", "mod tests { use super::super::tests; }"),
        ("main.rs", "use crate::server;"),
        ("lib.rs", "pub mod server;"),
    ] {
        assert_eq!(faults(&[Source::new(path, text)]), [""; 0], "{path}: {text}");
    }
}
