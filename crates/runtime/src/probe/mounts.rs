//! Mounts and control groups.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD};

use super::procfs::lines;
use super::{Cgroups, Mount};

/// Files of either version of cgroups that hold a limit.
const LIMITS: [&str; 10] = [
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.max",
    "cpu.weight",
    "cpuset.cpus",
    "memory.high",
    "memory.limit_in_bytes",
    "memory.max",
    "memory.swap.max",
    "pids.max",
];

/// Files with which limits or membership are changed.
const CONTROLS: [&str; 6] = [
    "cgroup.procs",
    "cgroup.subtree_control",
    "devices.allow",
    "notify_on_release",
    "release_agent",
    "tasks",
];

pub(super) fn mounts() -> Vec<Mount> {
    lines("/proc/self/mountinfo").iter().filter_map(|line| mount(line)).collect()
}

/// See proc_pid_mountinfo(5). Spaces in paths are written as `\040`, so fields are what spaces separate.
fn mount(line: &str) -> Option<Mount> {
    let (mount, system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, at, flags) = (mount.next()?, mount.next()?, mount.next()?);
    let mut system = system.split(' ');
    let (kind, _source, options) = (system.next()?, system.next()?, system.next()?);
    let list = |options: &str| {
        let mut options: Vec<String> = options.split(',').map(str::to_owned).collect();
        options.sort_unstable();
        options
    };
    Some(Mount {
        at: at.to_owned(),
        kind: kind.to_owned(),
        root: root.to_owned(),
        flags: list(flags),
        options: list(options),
        propagation: mount.map(str::to_owned).collect(),
    })
}

pub(super) fn cgroups(mounts: &[Mount]) -> Cgroups {
    let paths: BTreeMap<String, String> = lines("/proc/self/cgroup")
        .iter()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        })
        .collect();
    let mut limits = BTreeMap::new();
    let mut writable = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.kind.starts_with("cgroup")) {
        let dir = Path::new(&mount.at);
        for name in LIMITS {
            let path = dir.join(name);
            if let Ok(value) = fs::read_to_string(&path) {
                limits.insert(path.to_string_lossy().into_owned(), value.trim().to_owned());
            }
        }
        for name in LIMITS.iter().chain(&CONTROLS) {
            let path = dir.join(name);
            if rustix::fs::accessat(CWD, &path, Access::WRITE_OK, AtFlags::empty()).is_ok() {
                writable.push(path.to_string_lossy().into_owned());
            }
        }
    }
    writable.sort_unstable();
    Cgroups { paths, limits, writable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_understood() {
        let line =
            r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let mount = mount(line).unwrap();
        assert_eq!(
            (mount.at.as_str(), mount.kind.as_str(), mount.root.as_str()),
            (r"/mnt\0402", "ext3", "/mnt1")
        );
        assert_eq!(mount.flags, ["noatime", "rw"]);
        assert_eq!(mount.options, ["errors=continue", "rw"]);
        assert_eq!(mount.propagation, ["master:1", "shared:2"]);
        assert!(super::mount("broken").is_none());
    }
}
