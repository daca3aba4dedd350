//! Whether the memory limit killed something: a killed command is a result that says so.

use rustix::fs::{Mode, OFlags};
use sandcrab_api::exec::Oom;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// How often the kernel had killed for want of memory when something began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kills(u64);

/// The cgroup whose memory limit holds for the sandbox, v1 or v2.
#[derive(Debug)]
pub(crate) struct MemoryCgroup {
    dir: OwnedFd,
    /// The file that counts kills: memory.events of v2, memory.oom_control of v1.
    events: Option<OwnedFd>,
}

impl MemoryCgroup {
    /// Takes the open directory of a memory cgroup.
    pub(crate) fn new(dir: OwnedFd) -> Self {
        let open =
            |name| rustix::fs::openat(&dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        let events = open("memory.events").or_else(|| open("memory.oom_control"));
        Self { dir, events }
    }

    fn read(&self, name: &str) -> Option<String> {
        let fd = rustix::fs::openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn number(&self, names: [&str; 2]) -> Option<u64> {
        names.iter().find_map(|name| self.read(name)?.trim().parse().ok())
    }

    /// How often the kernel has killed a process of the sandbox for want of memory. To be asked when something begins whose
    /// end may be such a kill.
    pub(crate) fn kills(&self) -> Kills {
        let mut text = [0; 512];
        let read = self.events.as_ref().and_then(|events| rustix::io::pread(events, &mut text, 0).ok());
        let text = std::str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        Kills(count.unwrap_or(0))
    }

    /// The sandbox's memory limit, if it has one.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.number(["memory.max", "memory.limit_in_bytes"])
    }

    /// The limit and the peak, if a process was killed since then.
    pub(crate) fn killed_since(&self, before: Kills) -> Option<Oom> {
        if self.kills().0 <= before.0 {
            return None;
        }
        let limit = self.limit()?;
        let peak = self.number(["memory.peak", "memory.max_usage_in_bytes"]).unwrap_or(limit);
        Some(Oom { limit, peak })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> (tempfile::TempDir, MemoryCgroup) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let fd = rustix::fs::open(dir.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        let cgroup = MemoryCgroup::new(fd);
        (dir, cgroup)
    }

    #[test]
    fn a_kill_is_one_of_what_ran_then_on_both_versions() {
        let v1 = [("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")];
        let v1_limit = [("memory.limit_in_bytes", "1048576\n"), ("memory.max_usage_in_bytes", "1048576\n")];
        let v2 = [
            ("memory.events", "low 0\noom 1\noom_kill 1\n"),
            ("memory.max", "4096\n"),
            ("memory.peak", "4000\n"),
        ];
        for (files, limit, peak) in [([v1[0], v1_limit[0], v1_limit[1]], 1048576, 1048576), (v2, 4096, 4000)]
        {
            let (dir, cgroup) = dir(&files);
            let before = cgroup.kills();
            assert_eq!(cgroup.killed_since(before), None, "a kill before it began is none of its");
            let (name, text) = files[0];
            std::fs::write(dir.path().join(name), text.replace("oom_kill 1", "oom_kill 2")).unwrap();
            assert_eq!(cgroup.killed_since(before), Some(Oom { limit, peak }));
            assert_eq!(cgroup.killed_since(cgroup.kills()), None, "nor one that nobody asked after");
        }
    }
}
