//! Words that may stand in few places or in none.

use super::code::{Source, words};

const LINES_MAX: usize = 500;
/// What nobody merges.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// What only the command line does: everybody else logs.
const PRINTING: [&str; 4] = ["println", "print", "eprintln", "eprint"];

/// `unsafe` outside of `sys`, and in it without an argument.
pub fn unsafe_faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        for at in words(&source.code, "unsafe") {
            if source.room() != "sys" {
                faults.push(source.fault(at, "unsafe outside of src/sys"));
            } else if !is_argued(source, at) {
                faults.push(source.fault(at, "unsafe without a `SAFETY:` comment above it"));
            }
        }
    }
    faults
}

/// Whether a comment with `SAFETY:` stands above the statement that holds the byte `at`.
fn is_argued(source: &Source, at: usize) -> bool {
    let above = source.text[..=at].lines().rev().zip(source.code[..=at].lines().rev());
    for (distance, (text, code)) in above.enumerate() {
        if text.contains("SAFETY:") {
            return true;
        }
        let ends_before = code.trim_end().ends_with([';', '{', '}']) || text.trim().is_empty();
        if distance > 0 && ends_before {
            return false;
        }
    }
    false
}

/// Macros that have no place here.
pub fn macro_faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        let prints = matches!(source.room(), "server" | "main");
        let banned = UNFINISHED.iter().chain(PRINTING.iter().filter(|_| !prints));
        for word in banned {
            let calls = words(&source.code, word).filter(|at| source.code[at + word.len()..].starts_with('!'));
            faults.extend(calls.map(|at| source.fault(at, &format!("{word}! has no place here"))));
        }
    }
    faults
}

/// Files that are too long.
pub fn length_faults(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().filter(|source| source.text.lines().count() > LINES_MAX);
    long.map(|source| source.fault(source.text.len(), &format!("more than {LINES_MAX} lines: split it"))).collect()
}

#[test]
fn unsafe_is_found_where_it_may_not_stand_or_is_not_argued_for() {
    for (path, text) in [
        ("shard/mod.rs", "// SAFETY: it holds.\nunsafe { f() }"),
        ("sys/ring.rs", "unsafe { f() }"),
        ("sys/ring.rs", "// SAFETY: for the other.\nunsafe { f() };\nlet a = unsafe { g() };"),
        ("sys/ring.rs", "// SAFETY: too far.\n\nunsafe { f() }"),
        ("sys/ring.rs", "// It is fine.\nunsafe { f() }"),
    ] {
        assert_eq!(unsafe_faults(&[Source::new(path, text)]).len(), 1, "{text}");
    }
    for (path, text) in [
        (
            "sys/ring.rs",
            "// SAFETY: the slot is ours until\n// its completion is reaped.\nlet a =\n    unsafe { f() };",
        ),
        ("sys/ring.rs", "a(b, // SAFETY: it holds.\n  unsafe { f() })"),
        ("lib.rs", "#![deny(unsafe_code)] // no unsafe"),
    ] {
        assert_eq!(unsafe_faults(&[Source::new(path, text)]), [""; 0], "{text}");
    }
}

#[test]
fn what_is_unfinished_or_prints_is_found() {
    let count = |path, text| macro_faults(&[Source::new(path, text)]).len();
    assert_eq!(count("wire/mod.rs", "todo!(); unimplemented!(); dbg!(a); println!(); eprint!()"), 5);
    assert_eq!(count("server/cli.rs", "println!(); eprintln!(); dbg!(a)"), 1);
    assert_eq!(count("wire/mod.rs", "// todo!\nlet todo = \"dbg!\"; my_println!(); writeln!(out)"), 0);
}

#[test]
fn a_long_file_is_found() {
    let lines = |count| length_faults(&[Source::new("wire/mod.rs", &"//\n".repeat(count))]).len();
    assert_eq!((lines(LINES_MAX), lines(LINES_MAX + 1)), (0, 1));
}
