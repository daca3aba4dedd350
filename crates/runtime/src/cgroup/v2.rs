//! Version 2: one tree (kernel: admin-guide/cgroup-v2). On a hybrid machine it has no controllers, but kill and freeze.

use super::{read_field, read_number, write};
use crate::driver::{DriverError, Result, Stats};
use crate::tree;
use rustix::event::{PollFd, PollFlags};
use sandcrab_api::sandbox::Limits;
use std::fs;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

const CPU_PERIOD_USEC: f64 = 100_000.0;
/// How long a dead process may take to leave its group. It is microseconds; a kernel that needs longer is in trouble.
const EMPTY_TIMEOUT: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };

/// Has `dir`, and the groups above it, give `wanted` controllers to its children. Returns those that it gives.
pub(super) fn enable(dir: &Path, wanted: &[&'static str]) -> io::Result<(PathBuf, Vec<&'static str>)> {
    let mut enabled = Vec::new();
    for controller in wanted.iter().copied() {
        let given = |dir: &Path| {
            let listed = fs::read_to_string(dir.join("cgroup.subtree_control"))?;
            Ok::<_, io::Error>(listed.split_whitespace().any(|name| name == controller))
        };
        let available = |dir: &Path| {
            let listed = fs::read_to_string(dir.join("cgroup.controllers"))?;
            Ok::<_, io::Error>(listed.split_whitespace().any(|name| name == controller))
        };
        for group in [dir.parent(), Some(dir)].into_iter().flatten() {
            if available(group)? && !given(group)? {
                fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
        }
        if given(dir)? {
            enabled.push(controller);
        }
    }
    Ok((dir.to_owned(), enabled))
}

pub(super) fn limit(controllers: &[&str], dir: &Path, limits: &Limits) -> Result<()> {
    let set = |controller: &str, file: &str, value: Option<String>| match value {
        Some(value) if controllers.contains(&controller) => write(&dir.join(file), &value),
        _ => Ok(()),
    };
    set("memory", "memory.max", limits.memory.map(|memory| memory.0.to_string()))?;
    set("memory", "memory.swap.max", limits.memory.map(|_| "0".into()))?;
    set("pids", "pids.max", limits.pids.map(|pids| pids.to_string()))?;
    let quota = limits.cpu.map(|cpu| (cpu * CPU_PERIOD_USEC).max(1000.0) as u64);
    set("cpu", "cpu.max", quota.map(|quota| format!("{quota} {CPU_PERIOD_USEC}")))
}

/// Gives the tree to its owner: the directory and the files with which processes are moved, frozen and killed. The
/// limits stay root's.
pub(super) fn delegate(dir: &Path, owner: u32) -> Result<()> {
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        let path = dir.join(file);
        std::os::unix::fs::chown(&path, Some(owner), Some(owner))
            .map_err(DriverError::io("delegate cgroup", path.display()))?;
    }
    Ok(())
}

pub(super) fn stats(controllers: &[&str], dir: &Path, stats: &mut Stats) {
    // Counted in every hierarchy of version 2, controllers or not.
    stats.cpu_usec = read_field(&dir.join("cpu.stat"), "usage_usec");
    if controllers.contains(&"memory") {
        stats.memory = read_number(&dir.join("memory.current"));
        stats.memory_peak = read_number(&dir.join("memory.peak"));
        stats.oom_kills = read_field(&dir.join("memory.events"), "oom_kill");
    }
    if controllers.contains(&"pids") {
        stats.pids = read_number(&dir.join("pids.current"));
    }
}

/// Removes a group and all below it, once the kernel says that nothing lives in it.
pub(super) fn remove(dir: &Path) -> Result<()> {
    fn error(path: &Path) -> impl FnOnce(io::Error) -> DriverError + use<> {
        DriverError::io("remove cgroup", path.display().to_string())
    }
    let mut events = match fs::File::open(dir.join("cgroup.events")) {
        Ok(events) => events,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(other) => return Err(error(dir)(other)),
    };
    loop {
        let mut text = String::new();
        events.rewind().and_then(|()| events.read_to_string(&mut text)).map_err(error(dir))?;
        if text.lines().any(|line| line == "populated 0") {
            break;
        }
        let mut poll = [PollFd::new(&events, PollFlags::PRI)];
        let changed = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&EMPTY_TIMEOUT)));
        if changed.map_err(|errno| error(dir)(errno.into()))? == 0 {
            return Err(error(dir)(io::ErrorKind::TimedOut.into()));
        }
    }
    tree::remove_of(dir, tree::Kind::Groups).map_err(error(dir))
}
