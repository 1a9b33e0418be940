//! Limits of control groups: the tightest one on the way from the group of this process to the root, in both versions.

use super::host::{Root, on_host};

/// Limits of the groups that this process is in; none where there is no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cgroup {
    /// The file of the tightest memory limit, and the limit in bytes.
    pub memory: Option<(String, u64)>,
    /// The file of the tightest CPU limit, the limit in cores, and the text that lifts it.
    pub cpu: Option<(String, f64, &'static str)>,
}

/// A memory limit of version 1 above this is none: the kernel prints its largest one, rounded down to pages.
const NONE_V1: u64 = 1 << 62;

pub(super) fn read(root: &Root) -> Cgroup {
    let text = root.text("proc/self/cgroup").unwrap_or_default();
    let mut found = Cgroup::default();
    // `hierarchy:controllers:path`; version 2 is hierarchy 0, without controllers.
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let has = |controller: &str| controllers.split(',').any(|name| name == controller);
        if hierarchy == "0" {
            let mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
            for group in mounts.iter().flat_map(|mount| upwards(mount, path)) {
                memory(root, format!("{group}/memory.max"), &mut found);
                cpu_v2(root, format!("{group}/cpu.max"), &mut found);
            }
        }
        for controller in ["memory", "cpu"].into_iter().filter(|controller| has(controller)) {
            for group in upwards(&format!("sys/fs/cgroup/{controllers}"), path)
                .chain(upwards(&format!("sys/fs/cgroup/{controller}"), path))
            {
                match controller {
                    "memory" => memory(root, format!("{group}/memory.limit_in_bytes"), &mut found),
                    _ => cpu_v1(root, &group, &mut found),
                }
            }
        }
    }
    found
}

/// The group and all above it.
fn upwards<'a>(mount: &'a str, path: &'a str) -> impl Iterator<Item = String> + 'a {
    let mut rest = Some(path.trim_matches('/'));
    std::iter::from_fn(move || {
        let here = rest?;
        rest = if here.is_empty() { None } else { Some(here.rsplit_once('/').map_or("", |(above, _)| above)) };
        Some(if here.is_empty() { mount.to_owned() } else { format!("{mount}/{here}") })
    })
}

fn memory(root: &Root, file: String, found: &mut Cgroup) {
    let limit = root.text(&file).and_then(|text| text.trim().parse::<u64>().ok()).filter(|bytes| *bytes < NONE_V1);
    if let Some(bytes) = limit
        && found.memory.as_ref().is_none_or(|(_, least)| bytes < *least)
    {
        found.memory = Some((on_host(&file), bytes));
    }
}

fn cpu_v2(root: &Root, file: String, found: &mut Cgroup) {
    let Some(text) = root.text(&file) else { return };
    let mut words = text.split_ascii_whitespace().map(str::parse::<f64>);
    if let (Some(Ok(quota)), Some(Ok(period))) = (words.next(), words.next()) {
        limit_cpu(file, quota / period, "max", found);
    }
}

fn cpu_v1(root: &Root, group: &str, found: &mut Cgroup) {
    let file = format!("{group}/cpu.cfs_quota_us");
    let number = |file: &str| root.text(file).and_then(|text| text.trim().parse::<f64>().ok());
    if let (Some(quota), Some(period)) = (number(&file), number(&format!("{group}/cpu.cfs_period_us"))) {
        limit_cpu(file, quota / period, "-1", found);
    }
}

fn limit_cpu(file: String, cores: f64, lifted_by: &'static str, found: &mut Cgroup) {
    let tighter = found.cpu.as_ref().is_none_or(|(_, least, _)| cores < *least);
    if cores > 0.0 && tighter {
        found.cpu = Some((on_host(&file), cores, lifted_by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_followed_to_the_root() {
        assert_eq!(Vec::from_iter(upwards("m", "/a/b")), ["m/a/b", "m/a", "m"]);
        assert_eq!(Vec::from_iter(upwards("m", "/")), ["m"]);
    }
}
