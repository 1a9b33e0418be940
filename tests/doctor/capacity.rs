//! The worked example of docs/capacity.md has the numbers that the doctor says for the same case.

use super::fake::Fake;
use serde_json::Value;
use spillgate::doctor::{FIGURES, examine};
use std::fs;

/// As people write them: `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}

/// What is behind `before` in a text, up to the next thing that is no part of a number.
fn number_behind(text: &str, before: &str) -> String {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before:?} in {text:?}"));
    rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect::<String>().trim_end_matches(',').to_owned()
}

/// The finding of one need.
fn finding<'r>(report: &'r Value, id: &str) -> &'r Value {
    report["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id).unwrap()
}

#[test]
fn the_worked_example_has_the_numbers_of_the_doctor() {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/capacity.md")).unwrap();
    let (figures, example) = document.split_once("## Example: a million sockets").unwrap();

    // A gateway of the example on a host of 4 cores that is short of all of it, so that it is said how much is needed.
    let mut fake = Fake::fine();
    (fake.plan.sockets, fake.plan.stalled_share) = (500_000, 0.1);
    fake.set("limits.connections_per_shard_max = 130000");
    fake.write("proc/sys/fs/file-max", "1000");
    fake.write("proc/sys/net/ipv4/tcp_mem", "10\t20\t30");
    fake.write("proc/sys/net/ipv4/tcp_ehash_entries", "1024");
    fake.edit("proc/self/limits", "1048576", "4096");
    let host = fake.host();
    let report = examine(&fake.plan, &host).json();

    let mut all = 0;
    for part in report["memory"].as_array().unwrap() {
        let (what, times, each) = (&part["what"], part["times"].as_u64().unwrap(), part["each"].as_u64().unwrap());
        let bytes = part["bytes"].as_u64().unwrap();
        assert_eq!(bytes, times * each);
        all += bytes;
        let row = format!(
            "| {} | {} x {} B | {} |",
            what.as_str().unwrap(),
            thousands(times),
            thousands(each),
            thousands(bytes)
        );
        assert!(example.contains(&row), "{row}");
    }
    assert_eq!(all, fake.plan.memory(&host));
    assert!(example.contains(&format!("| **together** | | **{}: ", thousands(all))), "{}", thousands(all));

    let seen = |id: &str| finding(&report, id)["seen"].as_str().unwrap().to_owned();
    let tcp_mem = number_behind(&seen("tcp_mem"), "nobody stalled, ");
    let nofile = number_behind(&seen("nofile"), "needed: ");
    let file_max = number_behind(&seen("file_max"), "needed: ");
    let ehash = finding(&report, "ehash")["mends"].as_array().unwrap();
    let (_, ehash) = ehash[1]["line"].as_str().unwrap().split_once('=').unwrap();
    for said in [
        format!("above {tcp_mem} pages"),
        format!("`fs.file-max` of {file_max}"),
        format!("RLIMIT_NOFILE of {nofile}"),
        format!("`thash_entries={ehash}`"),
    ] {
        assert!(example.contains(&said), "{said}");
    }
    for figure in FIGURES.iter().filter(|figure| figure.source.contains("docs/capacity.md") && figure.unit == "bytes") {
        assert!(figures.contains(&thousands(figure.value)), "{}: {}", figure.what, figure.value);
    }
}

#[test]
fn memory_and_tcp_mem_reckon_with_the_same_pages() {
    for (sockets, share) in [(1_000_000, 0.0), (1_000_000, 0.2), (7, 1.0), (500_000, 0.1)] {
        let mut fake = Fake::fine();
        (fake.plan.sockets, fake.plan.stalled_share) = (sockets, share);
        let (stalled, idle) = fake.plan.tcp_pages();
        let memory = fake.plan.memory(&fake.host());
        assert!(memory > stalled.max(idle) * 4096 + sockets * (227 + 4085), "{sockets}, {share}: {memory}");
    }
}
