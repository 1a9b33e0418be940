//! Scenarios by name or by file.

use super::Scenario;
use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;
use std::path::Path;

/// The scenarios that come with the program: file name and text.
const BUILTIN: &[(&str, &str)] = &[
    ("fanout.toml", include_str!("../../scenarios/fanout.toml")),
    ("idle.toml", include_str!("../../scenarios/idle.toml")),
    ("stalled.toml", include_str!("../../scenarios/stalled.toml")),
    ("stadium.toml", include_str!("../../scenarios/stadium.toml")),
    ("storm.toml", include_str!("../../scenarios/storm.toml")),
    ("keys.toml", include_str!("../../scenarios/keys.toml")),
    ("channels.toml", include_str!("../../scenarios/channels.toml")),
    ("scrapes.toml", include_str!("../../scenarios/scrapes.toml")),
    ("burst.toml", include_str!("../../scenarios/burst.toml")),
    ("spike.toml", include_str!("../../scenarios/spike.toml")),
    ("lines.toml", include_str!("../../scenarios/lines.toml")),
    ("soak.toml", include_str!("../../scenarios/soak.toml")),
    ("million.toml", include_str!("../../scenarios/million.toml")),
    ("two-million.toml", include_str!("../../scenarios/two-million.toml")),
];

/// The scenarios that come with the program.
///
/// # Errors
/// One of them is broken.
pub fn builtin() -> anyhow::Result<Vec<Scenario>> {
    BUILTIN.iter().map(|(file, text)| parse(file, text)).collect()
}

/// The scenario of a name, or in a file.
///
/// # Errors
/// There is none, or what it says makes no sense: which file, which line, and what to do.
pub fn load(name: &str) -> anyhow::Result<Scenario> {
    let path = Path::new(name);
    if path.extension().is_some() || path.components().count() > 1 {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the scenario {name}"))?;
        return parse(name, &text);
    }
    let file = format!("{name}.toml");
    let Some((file, text)) = BUILTIN.iter().find(|(builtin, _)| *builtin == file) else {
        let names: Vec<_> = BUILTIN.iter().map(|(file, _)| file.trim_end_matches(".toml")).collect();
        bail!("there is no scenario `{name}`; there are {}, or give the path of a .toml file", names.join(", "));
    };
    parse(file, text)
}

/// Anything from TOML.
///
/// # Errors
/// It is no TOML, or a field is unknown, missing or of another type: with file and line.
pub fn read_toml<T: DeserializeOwned>(file: &str, text: &str) -> anyhow::Result<T> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow!("{file}:{line}: {}", error.message())
    })
}

fn parse(file: &str, text: &str) -> anyhow::Result<Scenario> {
    let scenario: Scenario = read_toml(file, text)?;
    match scenario.mistake() {
        Some(mistake) => Err(anyhow!("{file}: {mistake}")),
        None => Ok(scenario),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_comes_with_the_program_makes_sense() {
        for (file, text) in BUILTIN {
            let scenario = parse(file, text).unwrap_or_else(|error| panic!("{error:#}"));
            assert_eq!(format!("{}.toml", scenario.name), *file);
        }
    }

    #[test]
    fn a_mistake_is_told_with_file_and_line() {
        let good = "name = \"x\"\nabout = \"x\"\nsockets = 1\nseconds = 1\n[publish]\nrate = 1\nbytes = 300\n";
        assert!(parse("x.toml", good).is_ok());
        for (text, expected) in [
            (good.replace("seconds", "secnods"), "x.toml:4: unknown field `secnods`"),
            (format!("{good}[expect]\np99_ms = 3\n"), "x.toml:9: unknown field `p99_ms`"),
            (good.replace("300", "\"300\""), "x.toml:7: invalid type: string \"300\""),
            (good.replace("300", "3"), "x.toml: publish.bytes = 3: set it to 128 to 1,048,576"),
            (format!("{good}[kinds]\nfast = 0.5\nstalled = 0.6\n"), "x.toml: kinds: "),
            (format!("{good}[kinds]\nlazy = 0.5\n"), "x.toml:9: unknown variant `lazy`"),
            (format!("{good}[[event]]\nat = 5\ndo = \"herd\"\n"), "x.toml: [[event]] at = 5: "),
        ] {
            let error = format!("{:#}", parse("x.toml", &text).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
