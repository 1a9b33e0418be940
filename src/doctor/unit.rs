//! The unit that is installed: a gateway under systemd has its limits, and not those of the shell that asks.

use super::host::{Limit, Root};
use super::unit_values::{Memory, cores, limit, memory, quota, words};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

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
    /// Values that are not understood, by setting.
    pub odd: BTreeMap<&'static str, String>,
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
    /// Groups that the gateway is in by name or number of `Group=` and `SupplementaryGroups=`.
    pub groups: BTreeSet<u64>,
    /// The configuration file that `ExecStart=` names.
    pub config: Option<PathBuf>,
    /// Its control group, below the root of them.
    pub group: String,
}

impl Unit {
    /// A setting with the file that makes it.
    pub fn said(&self, key: &str) -> String {
        format!("{key}= of {}", self.set_in.get(key).unwrap_or(&self.file))
    }

    /// What is said of a value that is not understood, if any of these settings has one.
    pub fn odd(&self, keys: &[&str]) -> Option<String> {
        let (key, value) = keys.iter().find_map(|key| self.odd.get_key_value(key))?;
        Some(format!("{} is {value:?}, which is not understood", self.said(key)))
    }

    fn take(&mut self, key: &str, value: &str, root: &Root, memory_total: Option<u64>) {
        match key {
            // What systemd does not understand of these it ignores: what was said before holds.
            "LimitNOFILE" => self.nofile = limit(value, false).or(self.nofile),
            "LimitMEMLOCK" => self.memlock = limit(value, true).or(self.memlock),
            "MemoryMax" => self.take_memory("MemoryMax", value, memory_total),
            "MemoryHigh" => self.take_memory("MemoryHigh", value, memory_total),
            "CPUQuota" => {
                let read = quota(value);
                self.note("CPUQuota", value, read.is_some());
                self.cpu = read.flatten();
            }
            "CPUAffinity" if value.is_empty() => {
                self.note("CPUAffinity", value, true);
                self.cores = None;
            }
            "CPUAffinity" => match cores(value) {
                Some(more) => self.cores.get_or_insert_default().extend(more),
                None => self.note("CPUAffinity", value, false),
            },
            "Group" | "SupplementaryGroups" => {
                if value.is_empty() {
                    self.groups.clear();
                }
                self.groups.extend(value.split_ascii_whitespace().filter_map(|name| group_id(root, name)));
            }
            "ExecStart" => self.config = config_of(value).or(self.config.take()).filter(|_| !value.is_empty()),
            _ => {}
        }
    }

    fn take_memory(&mut self, name: &'static str, value: &str, memory_total: Option<u64>) {
        let read = memory(value, memory_total);
        self.note(name, value, read.is_some());
        match read {
            Some(Memory::Bytes(bytes)) => _ = self.memory.insert(name, bytes),
            Some(Memory::Unlimited) | None => _ = self.memory.remove(name),
        }
    }

    fn note(&mut self, name: &'static str, value: &str, is_understood: bool) {
        match is_understood {
            true => _ = self.odd.remove(name),
            false => _ = self.odd.insert(name, value.to_owned()),
        }
    }
}

/// The configuration file that the installed unit names, where systemd runs the host below `root`.
pub fn unit_config(root: &Path) -> Option<PathBuf> {
    let root = Root::at(root);
    root.exists("run/systemd/system").then(|| read(&root, None)).flatten()?.config
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
        let before = (unit.nofile, unit.memlock);
        unit.take(&key, &value, root, memory_total);
        // A limit that is ignored has no file that says it.
        if !key.starts_with("Limit") || before != (unit.nofile, unit.memlock) {
            unit.set_in.insert(key.clone(), file);
        }
        if key == "Slice" && !value.is_empty() {
            slice = value;
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

/// The file behind `--config` in a command line.
fn config_of(command: &str) -> Option<PathBuf> {
    let words = words(command);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if let Some(file) = word.strip_prefix("--config=") {
            return Some(file.into());
        }
        if word == "--config" {
            return words.next().map(PathBuf::from);
        }
    }
    None
}

/// The number of a group, which may be a number already.
fn group_id(root: &Root, name: &str) -> Option<u64> {
    name.parse().ok().or_else(|| {
        let groups = root.quiet("etc/group")?;
        let mut fields = groups
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (fields.next()? == name).then_some(fields))?;
        fields.nth(1)?.parse().ok()
    })
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
        assert_eq!(slice_path("system.slice"), "system.slice");
        assert_eq!(slice_path("live-sport.slice"), "live.slice/live-sport.slice");
    }

    #[test]
    fn the_configuration_is_that_of_the_command() {
        let config = |command: &str| config_of(command).map(|path| path.display().to_string());
        assert_eq!(config("/usr/bin/spillgate serve --config /etc/a.toml"), Some("/etc/a.toml".into()));
        assert_eq!(
            config("-/usr/bin/spillgate serve '--config=/etc/a b.toml' --shards 2"),
            Some("/etc/a b.toml".into())
        );
        assert_eq!(config("/usr/bin/spillgate serve --config \"/etc/a b.toml\""), Some("/etc/a b.toml".into()));
        assert_eq!((config("/usr/bin/spillgate serve"), config("spillgate serve --config")), (None, None));
    }
}
