//! The control groups that this process is in, from its own up to the root: what limits them, and how much is used.
//!
//! Promise: both versions are told alike, doctor and metrics see the same groups, and what cannot be read is told and
//! never taken for "no limit".

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Control groups with what they limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cgroups {
    /// Those that count memory, our own first.
    pub memory: Vec<MemoryGroup>,
    /// Why a limit of memory may be missing in them.
    pub memory_unread: Option<String>,
    /// Limits of CPU time, that of our own group first.
    pub cpu: Vec<CpuLimit>,
    /// Why a limit may be missing in them.
    pub cpu_unread: Option<String>,
}

/// A control group that counts memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryGroup {
    /// Files with a limit, each with its bytes: past `memory.max` (version 1: `memory.limit_in_bytes`) processes are
    /// ended, past `memory.high` they are held up.
    pub limits: Vec<(String, u64)>,
    /// What counts against the limits, in bytes.
    pub used_bytes: Option<u64>,
    /// How much of it is in sockets, in bytes, where the kernel tells.
    pub socket_bytes: Option<u64>,
}

/// A limit of CPU time.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuLimit {
    /// The file that holds it.
    pub file: String,
    /// How many cores it comes to.
    pub cores: f64,
    /// What is written to the file to lift it.
    pub lifted_by: &'static str,
}

/// The control group that runs out of memory first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupUse {
    /// Memory that counts against the limit, in bytes.
    pub used_bytes: u64,
    /// The limit, in bytes, where there is one.
    pub max_bytes: Option<u64>,
    /// How much of it is in sockets, in bytes, where the kernel tells.
    pub socket_bytes: Option<u64>,
}

/// A memory limit of version 1 from here on is none: the kernel prints its largest number of pages.
const NONE_V1: u64 = 1 << 62;

/// The group with the least left below its limit, ours or one above it; without any limit our own; `None` where none
/// counts memory.
pub fn cgroup_use() -> Option<CgroupUse> {
    Cgroups::read(Path::new("/")).tightest()
}

impl Cgroups {
    /// Reads `proc` and `sys` below `root`: `/` for this host.
    pub fn read(root: &Path) -> Self {
        match Root(root).own_groups() {
            Ok(text) => Self::read_all(&Root(root), &text),
            Err(why) => Self::unread(&why),
        }
    }

    /// The same for what is in another group (`/system.slice/a.service`) of the same hierarchies; it need not be there.
    pub fn read_of(root: &Path, group: &str) -> Self {
        let there = |line: &str| {
            let mut parts = line.splitn(3, ':');
            Some(format!("{}:{}:{group}\n", parts.next()?, parts.next()?))
        };
        match Root(root).own_groups() {
            Ok(text) => Self::read_all(&Root(root), &text.lines().filter_map(there).collect::<String>()),
            Err(why) => Self::unread(&why),
        }
    }

    fn read_all(root: &Root, text: &str) -> Self {
        let mut found = Self::default();
        match Hierarchy::of(root, text, "memory") {
            Err(why) => found.memory_unread = Some(why),
            Ok(memory) => memory.iter().flat_map(Hierarchy::groups).for_each(|(is_v1, group)| {
                found.memory.extend(memory_group(root, is_v1, &group, &mut found.memory_unread));
            }),
        }
        match Hierarchy::of(root, text, "cpu") {
            Err(why) => found.cpu_unread = Some(why),
            Ok(cpu) => cpu.iter().flat_map(Hierarchy::groups).for_each(|(is_v1, group)| {
                found.cpu.extend(cpu_limit(root, is_v1, &group, &mut found.cpu_unread));
            }),
        }
        found
    }

    fn unread(why: &str) -> Self {
        Self { memory_unread: Some(why.to_owned()), cpu_unread: Some(why.to_owned()), ..Self::default() }
    }

    fn tightest(&self) -> Option<CgroupUse> {
        let used = |group: &MemoryGroup| {
            let max_bytes = group.limits.iter().map(|(_, bytes)| *bytes).min();
            Some(CgroupUse { used_bytes: group.used_bytes?, max_bytes, socket_bytes: group.socket_bytes })
        };
        let all = || self.memory.iter().filter_map(used);
        let left = |group: &CgroupUse| group.max_bytes.map(|max| max.saturating_sub(group.used_bytes));
        all().filter(|group| group.max_bytes.is_some()).min_by_key(left).or_else(|| all().next())
    }
}

/// A tree of groups with a controller, and our place in it.
struct Hierarchy<'t> {
    is_v1: bool,
    mount: String,
    /// From the mount to our group, without slashes around it.
    path: &'t str,
}

impl<'t> Hierarchy<'t> {
    /// That of a controller; none where this kernel has no such controller.
    fn of(root: &Root, text: &'t str, controller: &str) -> Result<Option<Self>, String> {
        // `hierarchy:controllers:path`; version 2 is hierarchy 0, without controllers, and has what no other one has.
        let lines = || {
            text.lines().filter_map(|line| {
                let mut parts = line.splitn(3, ':');
                Some((parts.next()?, parts.next()?, parts.next()?))
            })
        };
        let v1 = lines().find(|(_, controllers, _)| controllers.split(',').any(|name| name == controller));
        let all = "sys/fs/cgroup";
        let (is_v1, path, mounts) = match (v1, lines().find(|(number, ..)| *number == "0")) {
            (Some((_, all_of_it, path)), _) => {
                (true, path, [format!("{all}/{all_of_it}"), format!("{all}/{controller}")])
            }
            (None, Some((_, _, path))) => (false, path, [all.to_owned(), format!("{all}/unified")]),
            (None, None) if lines().next().is_some() => return Ok(None),
            (None, None) => return Err(format!("/proc/self/cgroup says {:?}, which is not understood", text.trim())),
        };
        match mounts.into_iter().find(|mount| root.is_group(mount)) {
            // Above what a namespace shows there is nothing to be read: `/../a`.
            Some(mount) => {
                let path = if path.contains("/..") { "" } else { path.trim_matches('/') };
                Ok(Some(Self { is_v1, mount, path }))
            }
            None => Err(format!("/{all} does not show the control groups of {controller}")),
        }
    }

    /// Our group and all above it.
    fn groups(&self) -> impl Iterator<Item = (bool, String)> {
        upwards(&self.mount, self.path).map(|group| (self.is_v1, group))
    }
}

fn upwards<'a>(mount: &'a str, path: &'a str) -> impl Iterator<Item = String> + 'a {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let here = rest?;
        rest = if here.is_empty() { None } else { Some(here.rsplit_once('/').map_or("", |(above, _)| above)) };
        Some(if here.is_empty() { mount.to_owned() } else { format!("{mount}/{here}") })
    })
}

/// One group; none where it is not shown, or counts no memory.
fn memory_group(root: &Root, is_v1: bool, group: &str, unread: &mut Option<String>) -> Option<MemoryGroup> {
    let (used, limits, sockets): (_, &[_], _) = match is_v1 {
        true => ("memory.usage_in_bytes", &["memory.limit_in_bytes"], "memory.kmem.tcp.usage_in_bytes"),
        false => ("memory.current", &["memory.max", "memory.high"], "memory.stat"),
    };
    let mut found = MemoryGroup::default();
    let mut is_there = false;
    for name in limits {
        let file = format!("{group}/{name}");
        match root.text(&file).and_then(|text| text.map(|text| bytes(&file, &text)).transpose()) {
            Ok(None) => {}
            Ok(Some(limit)) => {
                is_there = true;
                found.limits.extend(limit.map(|limit| (format!("/{file}"), limit)));
            }
            Err(why) => *unread = Some(why),
        }
    }
    let text = |name: &str| root.text(&format!("{group}/{name}")).ok().flatten();
    found.used_bytes = text(used).and_then(|text| text.trim().parse().ok());
    found.socket_bytes = text(sockets).and_then(|text| match is_v1 {
        true => text.trim().parse().ok(),
        false => text.lines().find_map(|line| line.strip_prefix("sock ")?.trim().parse().ok()),
    });
    (is_there || found.used_bytes.is_some()).then_some(found)
}

/// A limit in bytes, or none.
fn bytes(file: &str, text: &str) -> Result<Option<u64>, String> {
    match text.trim() {
        "max" => Ok(None),
        number => {
            let bytes: u64 = number.parse().map_err(|_| format!("/{file} says {number:?}, which is not understood"))?;
            Ok((bytes < NONE_V1).then_some(bytes))
        }
    }
}

fn cpu_limit(root: &Root, is_v1: bool, group: &str, unread: &mut Option<String>) -> Option<CpuLimit> {
    let (file, lifted_by) = match is_v1 {
        true => (format!("{group}/cpu.cfs_quota_us"), "-1"),
        false => (format!("{group}/cpu.max"), "max"),
    };
    let period = |text: String| match is_v1 {
        true => Ok(format!("{text} {}", root.text(&format!("{group}/cpu.cfs_period_us"))?.unwrap_or_default())),
        false => Ok(text),
    };
    let text = match root.text(&file).and_then(|text| text.map(period).transpose()) {
        Ok(text) => text?,
        Err(why) => {
            *unread = Some(why);
            return None;
        }
    };
    let mut words = text.split_ascii_whitespace();
    let (quota, period) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if quota == lifted_by {
        return None;
    }
    match (quota.parse::<f64>(), period.parse::<f64>()) {
        (Ok(quota), Ok(period)) if quota > 0.0 && period > 0.0 => {
            Some(CpuLimit { file: format!("/{file}"), cores: quota / period, lifted_by })
        }
        _ => {
            *unread = Some(format!("/{file} says {:?}, which is not understood", text.trim()));
            None
        }
    }
}

/// The place below which everything is read.
struct Root<'a>(&'a Path);

impl Root<'_> {
    /// The groups that we are in, as the kernel lists them.
    fn own_groups(&self) -> Result<String, String> {
        let path = "proc/self/cgroup";
        self.text(path)?.ok_or_else(|| format!("cannot read /{path}: it is not there"))
    }

    /// A file's text; none where there is no such file.
    fn text(&self, path: &str) -> Result<Option<String>, String> {
        match fs::read_to_string(self.0.join(path)) {
            Ok(text) if text.trim().is_empty() => Err(format!("cannot read /{path}: it is empty")),
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot read /{path}: {error}")),
        }
    }

    /// Whether a directory is a control group: each has a list of its processes.
    fn is_group(&self, path: &str) -> bool {
        self.0.join(path).join("cgroup.procs").exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made(tempfile::TempDir);

    impl Made {
        fn new(groups: &str, files: &[(&str, &str)]) -> Self {
            let made = Self(tempfile::tempdir().unwrap());
            made.write("proc/self/cgroup", groups);
            files.iter().for_each(|(path, text)| made.write(&format!("sys/fs/cgroup/{path}"), text));
            made
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self) -> Cgroups {
            Cgroups::read(self.0.path())
        }
    }

    fn used(used_bytes: u64, max_bytes: Option<u64>, socket_bytes: Option<u64>) -> Option<CgroupUse> {
        Some(CgroupUse { used_bytes, max_bytes, socket_bytes })
    }

    #[test]
    fn a_group_is_followed_to_the_root() {
        assert_eq!(Vec::from_iter(upwards("m", "a/b")), ["m/a/b", "m/a", "m"]);
        assert_eq!(Vec::from_iter(upwards("m", "")), ["m"]);
    }

    #[test]
    fn the_group_that_runs_out_first_is_the_one_that_counts() {
        let own = "system.slice/spillgate.service";
        let made = Made::new("0::/system.slice/spillgate.service\n", &[("cgroup.procs", "\n")]);
        let file = |path: &str, text: &str| made.write(&format!("sys/fs/cgroup/{path}"), text);
        assert_eq!(made.read(), Cgroups::default(), "groups without memory");
        file(&format!("{own}/memory.current"), "900\n");
        file(&format!("{own}/memory.max"), "max\n");
        file(&format!("{own}/memory.stat"), "anon 5\nsock 77\n");
        assert_eq!(made.read().tightest(), used(900, None, Some(77)), "no limit: its own use");
        file("system.slice/memory.max", "5000\n");
        file("system.slice/memory.current", "4000\n");
        assert_eq!(made.read().tightest(), used(4000, Some(5000), None), "that of an ancestor");
        file(&format!("{own}/memory.high"), "1000\n");
        assert_eq!(made.read().tightest(), used(900, Some(1000), Some(77)), "memory.high is a limit");
        file("system.slice/memory.current", "4950\n");
        assert_eq!(made.read().tightest(), used(4950, Some(5000), None), "its neighbours fill the slice");
        let other = Cgroups::read_of(made.0.path(), "/system.slice/not-started.service");
        assert_eq!(other.tightest(), used(4950, Some(5000), None), "a group that is not there yet is in its slice");
    }

    #[test]
    fn version_1_and_a_container_are_told_alike() {
        let made = Made::new("9:name=systemd:/\n4:cpu,memory:/a\n0::/\n", &[("memory/cgroup.procs", "1\n")]);
        let file = |path: &str, text: &str| made.write(&format!("sys/fs/cgroup/memory/{path}"), text);
        file("a/memory.usage_in_bytes", "500\n");
        file("a/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(made.read().tightest(), used(500, None, None));
        file("memory.usage_in_bytes", "800\n");
        file("memory.limit_in_bytes", "1000\n");
        assert_eq!(made.read().tightest(), used(800, Some(1000), None));
        let files = [("cgroup.procs", "1\n"), ("memory.current", "3\n"), ("memory.max", "9\n"), ("cpu.max", "max 9\n")];
        let container = Made::new("0::/docker/1234\n", &files);
        assert_eq!(container.read().tightest(), used(3, Some(9), None), "its own group is the root that it sees");
        container.write("proc/self/cgroup", "0::/../elsewhere\n");
        assert_eq!(container.read().tightest(), used(3, Some(9), None));
    }

    #[test]
    fn limits_of_cpu_time_are_cores() {
        let made = Made::new("0::/a\n", &[("cgroup.procs", "1\n"), ("a/cpu.max", "150000 100000\n")]);
        let file = "/sys/fs/cgroup/a/cpu.max".to_owned();
        assert_eq!(made.read().cpu, [CpuLimit { file, cores: 1.5, lifted_by: "max" }]);
        let v1 = [("cpu/cgroup.procs", "1\n"), ("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")];
        assert_eq!(Made::new("3:cpu:/\n", &v1).read().cpu, []);
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_no_limit() {
        let nothing = Made::new("0::/\n", &[]).read();
        assert!(
            nothing.memory_unread.is_some_and(|why| why.contains("/sys/fs/cgroup")) && nothing.cpu_unread.is_some()
        );
        let masked = Made::new("0::/\n", &[("cgroup.procs", "1\n"), ("memory.max", ""), ("cpu.max", "")]).read();
        assert_eq!(masked.memory_unread.as_deref(), Some("cannot read /sys/fs/cgroup/memory.max: it is empty"));
        assert!(masked.cpu_unread.is_some_and(|why| why.contains("cpu.max")));
        let odd = Made::new("0::/\n", &[("cgroup.procs", "1\n"), ("memory.max", "lots\n")]).read();
        assert!(odd.memory_unread.is_some_and(|why| why.contains("lots")));
        assert!(Made::new("", &[]).read().memory_unread.is_some());
    }
}
