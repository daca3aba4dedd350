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

use crate::spawn::{Identity, Left};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::process::Pid;
use std::io;
use std::time::Duration;

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

    /// A shell has ended, and left this behind.
    pub(super) fn ended(&mut self, left: Left) {
        // Groups hold it all the same.
        if let Self::Tree(tree) = self {
            tree.ended(left);
        }
    }

    /// Lets everything live on that any command of the session left behind. The shell has ended.
    pub(super) fn let_go(&mut self) -> io::Result<()> {
        match self {
            Self::Cgroup(groups) => groups.let_go(),
            Self::Tree(tree) => {
                tree.forget();
                Ok(())
            }
        }
    }

    /// How many processes the session has beside its shell.
    pub(super) fn background(&self, shell: Pid) -> io::Result<usize> {
        match self {
            Self::Cgroup(groups) => groups.background(shell),
            Self::Tree(tree) => tree.background(shell),
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
