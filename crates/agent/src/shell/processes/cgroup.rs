//! Groups of processes as cgroup2 directories. Only `cgroup.procs`, `cgroup.freeze` and `cgroup.kill` are used, which
//! need no controller, so the bare cgroup2 tree of a hybrid host serves as well.

use super::{Held, KILLED_WITHIN, all_ended};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::time::Instant;

/// How long a freeze may take before stopping goes on without: a process in an uninterruptible wait does not freeze, but
/// neither does it run.
const FROZEN_WITHIN: Duration = Duration::from_millis(500);

/// The groups of one session.
#[derive(Debug)]
pub(in crate::shell) struct Groups {
    base: OwnedFd,
    current: Option<Group>,
    /// Groups in which earlier commands left something.
    left: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    base: OwnedFd,
    name: String,
    dir: OwnedFd,
    procs: OwnedFd,
    /// Open from the start: what is to be killed is killed even if the agent runs out of descriptors.
    kill: OwnedFd,
}

impl Groups {
    pub(super) fn new(base: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { base: base.try_clone_to_owned()?, current: None, left: Vec::new() })
    }

    /// Makes a new group the current one. The last one stays while anything lives in it.
    pub(super) fn renew(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.left.extend(self.current.take());
        self.left.retain(|group| !group.remove());
        let group = Group::create(&self.base)?;
        Ok(self.current.insert(group).dir.as_fd())
    }

    pub(super) fn set_apart(&mut self, shell: Pid) -> io::Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        if current.members()?.iter().all(|pid| *pid == shell) {
            return Ok(());
        }
        self.renew()?;
        if let Some(current) = &self.current {
            write(&current.dir, c"cgroup.procs", shell.as_raw_nonzero().to_string().as_bytes())?;
        }
        Ok(())
    }

    pub(super) async fn stop(&mut self, shell_line: &[u8], grace: Duration) -> io::Result<()> {
        let Some(group) = self.current.take() else { return Ok(()) };
        // Known for as long as anything lives in it, whatever fails below.
        self.left.push(group);
        let Some(group) = self.left.last() else { return Ok(()) };
        if let Err(error) = group.ask_to_end(shell_line, grace).await {
            tracing::warn!(group = %group.name, %error, "a command is killed without having been asked to end");
        }
        let killed = group.kill().await;
        self.left.retain(|group| !group.remove());
        killed
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
        // Groups that still hold processes stay; whoever delegated the directory removes them with it.
        for group in self.left.iter().chain(&self.current) {
            group.remove();
        }
    }
}

impl Group {
    fn create(base: &OwnedFd) -> io::Result<Self> {
        // Unique below the base: the agent's pid tells apart several that share one (tests).
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("s{}-{serial}", rustix::process::getpid().as_raw_nonzero());
        mkdirat(base, name.as_str(), Mode::from_raw_mode(0o755))?;
        let dir = openat(base, name.as_str(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let procs = openat(&dir, c"cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let kill = openat(&dir, c"cgroup.kill", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { base: base.try_clone()?, name, dir, procs, kill })
    }

    fn members(&self) -> io::Result<Vec<Pid>> {
        let mut text = [0u8; 4096];
        let mut at = 0;
        let mut all = Vec::new();
        loop {
            let n = rustix::io::pread(&self.procs, &mut text, at)?;
            if n == 0 {
                break;
            }
            at += n as u64;
            all.extend_from_slice(&text[..n]);
        }
        // A process that is not visible in this pid namespace shows as 0 and cannot be signalled from here.
        Ok(all
            .split(|b| *b == b'\n')
            .filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok().and_then(Pid::from_raw))
            .collect())
    }

    /// Stops the shells, asks the programs to end and gives them the grace. A failure may leave all of them frozen:
    /// [`Group::kill`] ends them all the same.
    async fn ask_to_end(&self, shell_line: &[u8], grace: Duration) -> io::Result<()> {
        self.freeze(true).await?;
        let mut known = Vec::new();
        let mut programs = Vec::new();
        for pid in self.members()? {
            known.push(pid);
            let Some(held) = Held::open(pid)? else { continue };
            // While all are frozen: nobody sees another one's end before it has its own signal.
            if held.is_shell(shell_line) {
                held.signal(Signal::STOP);
            } else {
                held.signal(Signal::TERM);
                programs.push(held);
            }
        }
        self.freeze(false).await?;
        let deadline = Instant::now() + grace;
        while all_ended(&programs, deadline).await? {
            programs.clear();
            // What the programs started while they ended has the rest of the grace.
            for pid in self.members()? {
                let Some(held) = Held::open(pid)? else { continue };
                if !known.contains(&pid) && !held.is_shell(shell_line) {
                    known.push(pid);
                    programs.push(held);
                }
            }
            if programs.is_empty() {
                break;
            }
        }
        Ok(())
    }

    async fn freeze(&self, freeze: bool) -> io::Result<()> {
        let events = openat(&self.dir, c"cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let events = crate::sys::watch(events, Interest::PRIORITY)?;
        write(&self.dir, c"cgroup.freeze", if freeze { b"1" } else { b"0" })?;
        if !freeze {
            return Ok(());
        }
        let deadline = Instant::now() + FROZEN_WITHIN;
        loop {
            let mut text = [0u8; 256];
            let n = rustix::io::pread(events.get_ref(), &mut text, 0)?;
            if text[..n].windows(8).any(|w| w == b"frozen 1") {
                return Ok(());
            }
            match tokio::time::timeout_at(deadline, events.ready(Interest::PRIORITY)).await {
                Ok(ready) => ready?.clear_ready(),
                Err(_) => return Ok(()),
            }
        }
    }

    /// Kills all and waits until none is left.
    async fn kill(&self) -> io::Result<()> {
        let deadline = Instant::now() + KILLED_WITHIN;
        loop {
            rustix::io::write(&self.kill, b"1")?;
            let mut held = Vec::new();
            for pid in self.members()? {
                held.extend(Held::open(pid)?);
            }
            if held.is_empty() {
                return Ok(());
            }
            if !all_ended(&held, deadline).await? {
                tracing::warn!(group = %self.name, "killed processes do not end");
                return Ok(());
            }
        }
    }

    /// Removes the group if it is empty.
    fn remove(&self) -> bool {
        matches!(unlinkat(&self.base, self.name.as_str(), AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
    }
}

fn write(dir: impl AsFd, file: &std::ffi::CStr, text: &[u8]) -> io::Result<()> {
    let fd = openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, text)?;
    Ok(())
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
