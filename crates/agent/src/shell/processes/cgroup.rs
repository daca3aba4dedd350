//! A session's commands in cgroups: each command has one to itself.

use crate::spawn::group::Asking;
use crate::spawn::group::cgroup::CgroupDir;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, Signal};
use std::io;
use std::time::Duration;

/// The groups of one session.
#[derive(Debug)]
pub(in crate::shell) struct Groups {
    base: OwnedFd,
    current: Option<CgroupDir>,
    /// Groups in which earlier commands left something.
    left: Vec<CgroupDir>,
}

impl Groups {
    pub(super) fn new(base: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { base: base.try_clone_to_owned()?, current: None, left: Vec::new() })
    }

    /// Makes a new group the current one. The last one stays while anything lives in it.
    pub(super) fn renew(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.left.extend(self.current.take());
        self.left.retain(|group| !group.remove());
        let group = CgroupDir::create(self.base.as_fd())?;
        Ok(self.current.insert(group).fd())
    }

    pub(super) fn set_apart(&mut self, shell: Pid) -> io::Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        if current.members()?.iter().all(|pid| *pid == shell) {
            return Ok(());
        }
        self.renew()?;
        if let Some(current) = &self.current {
            current.adopt(shell)?;
        }
        Ok(())
    }

    pub(super) async fn stop(&mut self, shell_line: &[u8], grace: Duration) -> io::Result<()> {
        let Some(group) = self.current.take() else { return Ok(()) };
        // Known for as long as anything lives in it, whatever fails below.
        self.left.push(group);
        let Some(group) = self.left.last() else { return Ok(()) };
        let asking = Asking { signal: Signal::TERM, grace, stopped_line: Some(shell_line) };
        if let Err(error) = group.ask_to_end(&asking).await {
            tracing::warn!(group = %group.name(), %error, "a command is killed without having been asked to end");
        }
        let killed = group.kill().await;
        self.left.retain(|group| !group.remove());
        killed
    }

    pub(super) fn let_go(&mut self) -> io::Result<()> {
        let mut let_go = Ok(());
        for group in self.left.drain(..).chain(self.current.take()) {
            let_go = group.let_go().and(let_go);
        }
        let_go
    }

    /// How many processes live in them, the shell aside.
    pub(super) fn background(&self, shell: Pid) -> io::Result<usize> {
        let mut count = 0;
        for group in self.left.iter().chain(&self.current) {
            count += group.members()?.iter().filter(|pid| **pid != shell).count();
        }
        Ok(count)
    }

    pub(super) async fn kill_all(&mut self) -> io::Result<()> {
        self.left.extend(self.current.take());
        let mut killed = Ok(());
        for group in &self.left {
            killed = group.kill().await.and(killed);
        }
        self.left.retain(|group| !group.remove());
        killed
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // What `kill_all` or `let_go` have not emptied belonged to a task that panicked: it ends with it. Groups that still
        // hold processes stay; whoever delegated the directory removes them with it.
        for group in self.left.iter().chain(&self.current) {
            group.kill_now();
            group.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::{Exit, Identity, SpawnSpec, Spawner};

    #[tokio::test]
    async fn s06_a_stop_that_fails_halfway_still_kills_and_forgets_nothing() {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is mounted");
        let root = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1).zip(line.split(' ').nth(2)))
            .find_map(|(at, kind)| (kind == "cgroup2").then_some(at))
            .expect("this test needs a cgroup2 mount");
        let path = format!("{root}/sandcrab-groups-test-{}", std::process::id());
        std::fs::create_dir(&path).expect("this test needs root, to make a cgroup");
        let base = OwnedFd::from(std::fs::File::open(&path).expect("the cgroup exists"));
        let mut groups = Groups::new(base.as_fd()).expect("descriptors can be had");
        let spawner = Spawner::new(Identity::default());
        let sleep = spawner
            .spawn(&SpawnSpec {
                program: c"/bin/sleep",
                args: &[c"sleep".to_owned(), c"1000".to_owned()],
                env: &[],
                cwd: None,
                fds: &[],
                cgroup: Some(groups.renew().expect("a group can be made")),
                subreaper: false,
            })
            .expect("sleep starts");

        // The list of members cannot be had once the group is frozen.
        let (pipe, _other) = rustix::pipe::pipe().expect("a pipe");
        let current = groups.current.as_mut().expect("there is a current group");
        let procs = std::mem::replace(&mut current.procs, pipe);
        groups.stop(b"bash", Duration::from_secs(1)).await.expect_err("the stop says that it failed");
        let ended = tokio::time::timeout(Duration::from_secs(20), sleep.wait()).await;
        let ended = ended.expect("it is killed all the same").expect("it can be waited for");
        assert_eq!(ended, Exit::Signal(9));
        if let [group] = &mut groups.left[..] {
            group.procs = procs;
        }
        groups.kill_all().await.expect("what is left can be killed");
        assert!(groups.left.is_empty(), "and goes");
        drop(groups);
        std::fs::remove_dir(&path).expect("nothing is left in the cgroup");
    }
}
