//! Which processes belong to the running command, and how all of them end (contract S06, S07).
//!
//! With a delegated cgroup2 directory each shell lives in a group of its own; when a command left something behind, the
//! shell moves to a new group before the next one, so that a group holds exactly one command's processes. Without
//! delegation the tree of processes below the shell tells the same, with the shell as subreaper: weaker, since a process
//! can have started before one listing of the tree and its parent have ended before the next.
//!
//! Stopping a command never lets any of its shells go on with the list it was working through: shell and subshells are
//! stopped, only programs are asked to end (TERM) and given the grace, then everything is killed.

mod cgroup;
mod tree;

use crate::spawn::Identity;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{self, Read as _};
use std::time::Duration;
use tokio::io::Interest;
use tokio::time::Instant;

/// How long to wait for what was killed. Longer means that a process hangs in the kernel.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// The processes of one session.
#[derive(Debug)]
pub(super) enum Processes {
    Cgroup(cgroup::Groups),
    Tree(tree::Tree),
}

impl Processes {
    pub(super) fn new(identity: &Identity) -> io::Result<Self> {
        Ok(match &identity.cgroup {
            Some(dir) => Self::Cgroup(cgroup::Groups::new(dir.as_fd())?),
            None => Self::Tree(tree::Tree::default()),
        })
    }

    /// Whether shells must be their own subreaper for this to work.
    pub(super) fn needs_subreaper(&self) -> bool {
        matches!(self, Self::Tree(_))
    }

    /// A fresh group for a new shell.
    pub(super) fn for_new_shell(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        match self {
            Self::Cgroup(groups) => groups.renew().map(Some),
            Self::Tree(tree) => {
                tree.forget();
                Ok(None)
            }
        }
    }

    /// Sets apart what earlier commands left behind, before a command starts.
    pub(super) fn before_command(&mut self, shell: Pid) -> io::Result<()> {
        match self {
            Self::Cgroup(groups) => groups.set_apart(shell),
            Self::Tree(tree) => tree.set_apart(shell),
        }
    }

    /// Ends everything of the running command, the shell included. `shell_line` is the shell's command line, by which
    /// its forks are known.
    pub(super) async fn stop(&mut self, shell: Pid, shell_line: &[u8], grace: Duration) -> io::Result<()> {
        match self {
            Self::Cgroup(groups) => groups.stop(shell_line, grace).await,
            Self::Tree(tree) => tree.stop(shell, shell_line, grace).await,
        }
    }

    /// Ends everything that any command of the session left behind.
    pub(super) async fn stop_survivors(&mut self) -> io::Result<()> {
        match self {
            Self::Cgroup(groups) => groups.kill_all().await,
            Self::Tree(tree) => tree.kill_survivors().await,
        }
    }
}

/// A process held by its pidfd, so that its number cannot come to mean another.
struct Held {
    pid: Pid,
    fd: OwnedFd,
}

impl Held {
    /// None if it has ended.
    fn open(pid: Pid) -> io::Result<Option<Self>> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self { pid, fd })),
            // EINVAL: the number belongs to a thread that leads no group any more.
            Err(Errno::SRCH | Errno::INVAL) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn signal(&self, signal: Signal) {
        // What cannot be signalled has ended.
        let _ = pidfd_send_signal(&self.fd, signal);
    }

    /// Whether it is a shell of ours or a fork of one.
    fn is_shell(&self, shell_line: &[u8]) -> bool {
        // No further than it can be the same: a command line can be as long as the user likes.
        let mut line = Vec::with_capacity(shell_line.len() + 1);
        open_proc(self.pid, "cmdline")
            .and_then(|file| io::Read::take(file, shell_line.len() as u64 + 1).read_to_end(&mut line))
            .is_ok_and(|_| line == shell_line)
    }

    async fn ended(&self) -> io::Result<()> {
        let fd = crate::sys::watch(self.fd.as_fd(), Interest::READABLE)?;
        fd.readable().await?.retain_ready();
        Ok(())
    }
}

/// Waits until all have ended; false if the deadline passed first.
async fn all_ended(held: &[Held], deadline: Instant) -> io::Result<bool> {
    for one in held {
        match tokio::time::timeout_at(deadline, one.ended()).await {
            Ok(ended) => ended?,
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

fn open_proc(pid: Pid, file: &str) -> io::Result<std::fs::File> {
    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// A file of /proc/PID that is short by nature.
fn read_proc(pid: Pid, file: &str) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    open_proc(pid, file)?.read_to_end(&mut all)?;
    Ok(all)
}
