//! The documents that are written from the code are what the code says; with UPDATE_DOCS=1 they become it. And what
//! documents and alerts name is there.

use spillgate::{admin, config};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn holds(path: &str, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(path), expected).unwrap();
    }
    assert!(
        read(path) == expected,
        "{path} is not what the code says; `UPDATE_DOCS=1 cargo test --test docs` writes it anew"
    );
}

/// The anchors that a renderer gives to the heads of a document.
fn anchors(text: &str) -> BTreeSet<String> {
    let heads = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    heads.map(|head| head.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// Every `](target)` of a document.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Names of our metrics in a text: words that begin with one of the prefixes.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| ["ws_", "process_", "spillgate_build"].iter().any(|prefix| word.starts_with(prefix))).collect()
}

#[test]
fn the_metrics_are_documented_as_they_are() {
    holds("docs/metrics.md", &admin::reference());
}

#[test]
fn the_settings_are_documented_as_they_are() {
    holds("docs/configuration.md", &config::reference());
}

#[test]
fn every_alert_is_on_metrics_that_exist_and_has_a_section_that_says_what_to_do() {
    let (alerts, known, operations) = (read("tuning/alerts.yml"), admin::reference(), read("docs/operations.md"));
    let known = metrics_in(&known);
    let suffixes = ["", "_bucket", "_count", "_sum"];
    let exists = |name: &str| suffixes.iter().any(|suffix| known.contains(name.strip_suffix(suffix).unwrap_or(name)));
    let rules: String =
        alerts.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let unknown: Vec<_> = metrics_in(&rules).into_iter().filter(|name| !exists(name)).collect();
    assert!(unknown.is_empty(), "alerts on metrics that there are not: {unknown:?}");
    let sections = anchors(&operations);
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        let anchor = name.to_lowercase();
        assert!(sections.contains(&anchor), "docs/operations.md has no section `{name}`");
        assert!(
            alerts.contains(&format!("{}/blob/main/docs/operations.md#{anchor}\n", env!("CARGO_PKG_REPOSITORY"))),
            "{name} has no runbook"
        );
    }
}

/// README.md, CHANGELOG.md, docs/*.md, tuning/*.md.
fn documents() -> Vec<String> {
    let mut documents = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for directory in ["docs", "tuning"] {
        let entries = fs::read_dir(root().join(directory)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        documents.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{directory}/{name}")));
    }
    documents
}

/// `a/b/../c` as `a/c`, in text only.
fn joined(directory: &Path, link: &str) -> String {
    let mut parts: Vec<&str> = directory.iter().map(|part| part.to_str().unwrap()).collect();
    for part in link.split('/') {
        if part == ".." {
            parts.pop();
        } else if part != "." {
            parts.push(part);
        }
    }
    parts.join("/")
}

#[test]
fn links_between_our_documents_lead_somewhere() {
    let mut found = 0;
    for path in documents() {
        let text = read(&path);
        let directory = root().join(&path).parent().unwrap().to_owned();
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(&path) } else { directory.join(file) };
            assert!(target.exists(), "{path}: {link}: there is no such file");
            let leads = anchor.is_empty() || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
            assert!(leads, "{path}: {link}: there is no such section");
            found += 1;
        }
        // `[name]` and `[text][name]` have their `[name]: address`, and no address is left without use.
        for line in text.lines().filter(|line| line.starts_with('[')) {
            let Some((name, address)) = line.split_once("]: ") else { continue };
            assert!(address.contains("://"), "{path}: {line}");
            assert!(text.matches(&format!("{name}]")).count() > 1, "{path}: nobody uses {name}]");
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn the_package_has_every_file_that_its_documents_link_to() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let asset = |asset: &toml::Value| (asset[0].as_str().unwrap().to_owned(), asset[1].as_str().unwrap().to_owned());
    // Source and place of each file below the package's directory of documents.
    let mut shipped = BTreeMap::new();
    for (source, place) in assets.iter().map(asset) {
        let Some(place) = place.strip_prefix("usr/share/doc/spillgate/") else { continue };
        let (directory, name) = source.rsplit_once('/').unwrap_or((".", &source));
        let Some((start, end)) = name.split_once('*') else {
            shipped.insert(source.clone(), format!("{place}{name}"));
            continue;
        };
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with(start) && name.ends_with(end) {
                shipped.insert(format!("{directory}/{name}"), format!("{place}{name}"));
            }
        }
    }
    let places: BTreeSet<_> = shipped.values().cloned().collect();
    for document in documents() {
        let place = Path::new(shipped.get(&document).unwrap_or_else(|| panic!("{document} is not in the package")));
        for link in links(&read(&document)).filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap();
            let target = joined(place.parent().unwrap(), file);
            assert!(places.contains(&target), "{document}: {link}: {target} is not in the package");
        }
    }
}
