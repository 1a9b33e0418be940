//! What is committed in `tuning/` is what the table of needs says, and every line of it belongs to a need.

use spillgate::doctor::{FIGURES, NEEDS, Plan, examine, limits_conf, readme_part, sysctl_conf};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- generated (make tuning) from here -->\n";
const END: &str = "<!-- to here -->\n";

fn tuning(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name)
}

fn committed(name: &str) -> String {
    fs::read_to_string(tuning(name)).unwrap()
}

/// Lines of the sysctl file that set something.
fn set() -> Vec<(String, String)> {
    let text = committed("99-spillgate.conf");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| line.split_once(" = ").map(|(name, value)| (name.into(), value.into())).unwrap()).collect()
}

#[test]
fn the_committed_files_are_what_make_tuning_writes() {
    let plan = Plan::of_the_guide();
    assert_eq!(committed("99-spillgate.conf"), sysctl_conf(&plan, None), "run `make tuning`");
    assert_eq!(committed("limits.conf"), limits_conf(), "run `make tuning`");
    let readme = committed("README.md");
    let (_, rest) = readme.split_once(BEGIN).expect("the README says where its generated part begins");
    let (part, _) = rest.split_once(END).expect("and where it ends");
    assert_eq!(part, readme_part(&plan), "run `make tuning`");
}

#[test]
fn every_line_of_the_sysctl_file_turns_a_known_need_green() {
    let mut fake = super::fake::Fake::fine();
    fake.plan = Plan { proxies: None, ..Plan::of_the_guide() };
    fake.edit("proc/self/status", "0-3", "0-7");
    let short: &[(&str, &str, &str)] = &[
        ("fs.file-max", "file_max", "100000"),
        ("net.ipv4.tcp_mem", "tcp_mem", "287898 383867 575796"),
        ("net.core.somaxconn", "somaxconn", "4096"),
        ("net.core.netdev_max_backlog", "netdev_backlog", "1000"),
        ("net.ipv4.ip_local_port_range", "port_range", "32768 60999"),
        ("net.ipv4.tcp_slow_start_after_idle", "slow_start_after_idle", "1"),
    ];
    fake.edit("proc/net/softnet_stat", "0000ffff 00000000", "0000ffff 00000009");
    let is_short = |fake: &super::fake::Fake, id: &str| {
        examine(&fake.plan, &fake.host()).short().any(|finding| finding.need.id == id)
    };
    for (name, value) in set() {
        let (_, id, before) =
            short.iter().find(|(known, ..)| *known == name).unwrap_or_else(|| panic!("{name} is no known check"));
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        fake.write(&path, before);
        assert!(is_short(&fake, id), "{name} = {before}");
        fake.write(&path, &value);
        assert!(!is_short(&fake, id), "{name} = {value}");
    }
    assert_eq!(set().len(), short.len());
}

#[test]
fn the_file_for_a_host_has_no_value_below_what_it_has() {
    let mut fake = super::fake::Fake::fine();
    fake.plan.sockets = 1;
    let lines = |fake: &super::fake::Fake| {
        let text = sysctl_conf(&fake.plan, Some(&fake.host()));
        let lines = text.lines().filter_map(|line| line.split_once(" = ")).filter(|(name, _)| !name.contains(' '));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let few = lines(&fake);
    assert_eq!(few["net.ipv4.tcp_mem"], "1500000 2000000 3000000");
    assert_eq!(few["net.ipv4.ip_local_port_range"], "10240 65535");
    fake.plan.sockets = 2_000_000;
    assert_eq!(lines(&fake)["net.ipv4.tcp_mem"], "2257470 3009961 4514940");
    fake.remove("proc/sys/net/ipv4/tcp_mem");
    assert!(!lines(&fake).contains_key("net.ipv4.tcp_mem"), "nobody knows what it has");
    let text = sysctl_conf(&fake.plan, Some(&fake.host()));
    assert!(text.contains("# net.ipv4.tcp_mem is left out") && text.contains("Generated for this host"), "{text}");
}

#[test]
fn every_need_and_figure_has_its_reason_and_its_source() {
    for need in NEEDS {
        for (what, text) in [
            ("what", need.what),
            ("needed", need.needed),
            ("why", need.why),
            ("source", need.source),
            ("undo", need.undo),
        ] {
            assert!(text.len() > 4, "{}: {what}", need.id);
            assert!(!text.ends_with('.') && !text.contains('\n'), "{}: {what} is one sentence of a table", need.id);
        }
    }
    assert!(FIGURES.iter().all(|figure| !figure.source.is_empty() && figure.value > 0));
}

#[test]
fn documents_that_are_named_as_sources_are_there_and_say_something_measured() {
    let sources = NEEDS.iter().map(|need| need.source).chain(FIGURES.iter().map(|figure| figure.source));
    let mut named = 0;
    for source in sources {
        for word in source.split([' ', '(', ')', ';', ',', ':']) {
            if word.starts_with("docs/") || word.starts_with("src/") || word.starts_with("tuning/") {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(word);
                assert!(path.exists(), "{word} of {source:?}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "{named}");
}
