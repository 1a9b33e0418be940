//! The unit that is installed: a gateway under systemd has its limits, and not those of the shell that asks.

use super::host::{Limit, Root, core_list};
use std::collections::{BTreeMap, BTreeSet};

/// Where units lie, the first before the others (systemd.unit(5)).
const PLACES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
const NAME: &str = "spillgate.service";

/// What `spillgate.service` and its drop-ins give the gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unit {
    /// The file of the unit.
    pub file: String,
    /// By setting the file that has the last word on it: the unit's, or a drop-in's.
    pub set_in: BTreeMap<String, String>,
    /// RLIMIT_NOFILE, where it is set.
    pub nofile: Option<Limit>,
    /// RLIMIT_MEMLOCK in bytes, where it is set.
    pub memlock: Option<Limit>,
    /// Limits of memory in bytes, by the name of the setting.
    pub memory: BTreeMap<&'static str, u64>,
    /// `CPUQuota=`, in cores.
    pub cpu: Option<f64>,
    /// `CPUAffinity=`, where it is set.
    pub cores: Option<BTreeSet<usize>>,
    /// Its control group, below the root of them.
    pub group: String,
}

impl Unit {
    /// A setting with the file that makes it.
    pub fn said(&self, key: &str) -> String {
        format!("{key}= of {}", self.set_in.get(key).unwrap_or(&self.file))
    }
}

/// The unit, if systemd runs here and knows one.
pub(super) fn read(root: &Root, memory_total: Option<u64>) -> Option<Unit> {
    let (place, text) = PLACES.iter().find_map(|place| Some((place, root.quiet(&format!("{place}/{NAME}"))?)))?;
    if text.is_empty() {
        return None; // masked
    }
    let mut unit = Unit { file: format!("/{place}/{NAME}"), ..Unit::default() };
    let mut slice = "system.slice".to_owned();
    let texts = std::iter::once((unit.file.clone(), text)).chain(drop_ins(root));
    let all =
        texts.flat_map(|(file, text)| settings(&text).into_iter().map(move |(key, value)| (file.clone(), key, value)));
    for (file, key, value) in all {
        unit.set_in.insert(key.clone(), file);
        let memory = |name: &'static str, unit: &mut Unit| match size(&value, memory_total) {
            Some(bytes) if bytes < u64::MAX => _ = unit.memory.insert(name, bytes),
            _ => _ = unit.memory.remove(name),
        };
        match key.as_str() {
            "LimitNOFILE" => unit.nofile = limit(&value),
            "LimitMEMLOCK" => unit.memlock = limit(&value),
            "MemoryMax" => memory("MemoryMax", &mut unit),
            "MemoryHigh" => memory("MemoryHigh", &mut unit),
            "CPUQuota" => {
                unit.cpu = value.strip_suffix('%').and_then(|part| part.parse().ok()).map(|part: f64| part / 100.0)
            }
            "CPUAffinity" if value.is_empty() => unit.cores = None,
            "CPUAffinity" => unit.cores.get_or_insert_default().extend(core_list(&value.replace([' ', '\t'], ","))),
            "Slice" if !value.is_empty() => slice = value,
            _ => {}
        }
    }
    unit.cores = unit.cores.filter(|cores| !cores.is_empty());
    unit.group = format!("/{}/{NAME}", slice_path(&slice));
    Some(unit)
}

/// Texts of the drop-ins, in the order of their names; of two with one name the first place's, and the unit's own before
/// what is for all services.
fn drop_ins(root: &Root) -> Vec<(String, String)> {
    let mut files = BTreeMap::new();
    for directory in [format!("{NAME}.d"), "service.d".to_owned()] {
        for place in PLACES.map(|place| format!("{place}/{directory}")) {
            for name in root.quiet_names(&place).into_iter().filter(|name| name.ends_with(".conf")) {
                let path = format!("{place}/{name}");
                files.entry(name).or_insert(path);
            }
        }
    }
    files.values().filter_map(|path| Some((format!("/{path}"), root.quiet(path)?))).collect()
}

/// Keys and values below `[Service]`.
fn settings(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut is_service = false;
    let text = text.replace("\\\n", " ");
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if line.starts_with('[') {
            is_service = line == "[Service]";
        } else if let (true, Some((key, value))) = (is_service, line.split_once('=')) {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

/// `65536`, `1024:524288`, `64M`, `infinity`.
fn limit(value: &str) -> Option<Limit> {
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    Some(Limit { soft: size(soft, None)?, hard: size(hard, None)? })
}

/// A size in bytes, by 1024; or a part of all memory.
fn size(value: &str, memory_total: Option<u64>) -> Option<u64> {
    if value == "infinity" {
        return Some(u64::MAX);
    }
    if let Some(part) = value.strip_suffix('%') {
        return Some((memory_total? as f64 * part.parse::<f64>().ok()? / 100.0) as u64);
    }
    let power = value.chars().last().and_then(|unit| "KMGTPE".find(unit));
    let number = if power.is_some() { &value[..value.len() - 1] } else { value };
    number.trim().parse::<u64>().ok()?.checked_mul(1 << (10 * power.map_or(0, |power| power + 1)))
}

/// The groups of a slice: `a-b.slice` is in `a.slice`.
fn slice_path(slice: &str) -> String {
    let parts: Vec<_> = slice.trim_end_matches(".slice").split('-').collect();
    let names = (1..=parts.len()).map(|count| format!("{}.slice", parts[..count].join("-")));
    names.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_read_as_systemd_does() {
        let text = "[Unit]\nLimitNOFILE=1\n[Service]\n# LimitNOFILE=2\nLimitNOFILE=1024:4096\nExecStart=a \\\n  b=c\n";
        let found = settings(text);
        assert_eq!(found[0], ("LimitNOFILE".to_owned(), "1024:4096".to_owned()));
        assert_eq!(found.len(), 2);
        assert_eq!(limit("1024:4096"), Some(Limit { soft: 1024, hard: 4096 }));
        assert_eq!(limit("64M"), Some(Limit { soft: 64 << 20, hard: 64 << 20 }));
        assert_eq!(limit("infinity"), Some(Limit { soft: u64::MAX, hard: u64::MAX }));
        assert_eq!((limit(""), limit("many")), (None, None));
        assert_eq!((size("50%", Some(1000)), size("50%", None), size("2G", None)), (Some(500), None, Some(2 << 30)));
        assert_eq!(slice_path("system.slice"), "system.slice");
        assert_eq!(slice_path("live-sport.slice"), "live.slice/live-sport.slice");
    }
}
