//! Programs that are stopped together with everything that they start.
//!
//! With a delegated cgroup2 directory each group is a directory of its own ([`cgroup`]): whatever its members start
//! belongs to it, however they fork and detach. Without delegation the tree of processes tells the same ([`tree`]), less
//! surely.

pub(crate) mod cgroup;
pub(crate) mod descent;
pub(crate) mod held;
#[cfg(test)]
mod tests;
mod tree;

use super::{Child, SpawnError, SpawnSpec, Spawner};
use cgroup::CgroupDir;
use held::Held;
use rustix::fd::AsFd;
use rustix::process::{Pid, Signal};
use std::io;
use std::time::Duration;
use tree::Tree;

/// How long to wait for what was killed. Longer means that a process hangs in the kernel.
pub(crate) const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// The error for processes that do not end within [`KILLED_WITHIN`], by name.
pub(crate) fn unkillable(pids: impl IntoIterator<Item = Pid>) -> io::Error {
    let mut names: Vec<_> = pids.into_iter().map(|pid| pid.as_raw_nonzero().to_string()).collect();
    let count = names.len();
    names.truncate(10);
    let more = if count > names.len() { ", ..." } else { "" };
    let message =
        format!("killed and not ended within {} s: {}{more}", KILLED_WITHIN.as_secs(), names.join(", "));
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// Listings of a tree while stopping it: each one finds what was forked during the one before. Whoever still gains on
/// this many is a fork bomb, whose forks fail once the limit on processes is reached.
pub(crate) const ROUNDS: usize = 200;

/// How members of a group are asked to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    /// What they are sent.
    pub(crate) signal: Signal,
    /// How long they have before they are killed.
    pub(crate) grace: Duration,
    /// Those with this command line are not asked but stopped until they are killed: shells that must not go on with
    /// their list.
    pub(crate) stopped_line: Option<&'a [u8]>,
}

impl Asking<'_> {
    fn stops(&self, held: &Held) -> bool {
        self.stopped_line.is_some_and(|line| held.has_line(line))
    }
}

/// A program and everything that it started.
#[derive(Debug)]
pub struct Group(Kind);

#[derive(Debug)]
enum Kind {
    Cgroup(CgroupDir),
    Tree(Tree),
}

impl Group {
    /// Starts a program in a group of its own. `cgroup` and `subreaper` of the spec are decided here. The child leads a
    /// session (setsid(2)) of its own; its end is [`Child::wait`], the group's end [`Group::emptied`].
    pub fn start(spawner: &Spawner, spec: &SpawnSpec<'_>) -> Result<(Self, Child), SpawnError> {
        match &spawner.identity().cgroup {
            Some(base) => {
                let dir = CgroupDir::create(base.as_fd()).map_err(|source| SpawnError::Agent {
                    program: spec.program.to_string_lossy().into_owned(),
                    what: "making a group of processes",
                    source,
                })?;
                let started = spawner.spawn(&SpawnSpec { cgroup: Some(dir.fd()), subreaper: false, ..*spec });
                // One that did not start leaves an empty directory, which goes with the value.
                let group = Self(Kind::Cgroup(dir));
                Ok((group, started?))
            }
            None => {
                let child = spawner.spawn(&SpawnSpec { cgroup: None, subreaper: true, ..*spec })?;
                Ok((Self(Kind::Tree(Tree::of(child.pid(), child.left()))), child))
            }
        }
    }

    /// What lives in it now.
    pub fn members(&self) -> io::Result<Vec<Pid>> {
        match &self.0 {
            Kind::Cgroup(dir) => dir.members(),
            Kind::Tree(tree) => tree.members(),
        }
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> io::Result<bool> {
        self.members().map(|members| members.is_empty())
    }

    /// Waits until nothing is left of it. Cancel-safe.
    pub async fn emptied(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Cgroup(dir) => dir.emptied().await,
            Kind::Tree(tree) => tree.emptied().await,
        }
    }

    /// Sends a signal to every member.
    pub async fn signal(&self, signal: Signal) -> io::Result<()> {
        match &self.0 {
            Kind::Cgroup(dir) => dir.signal(signal).await,
            Kind::Tree(tree) => tree.signal(signal),
        }
    }

    /// Sends `signal` to every member, gives them the grace to end and then kills what is left. When this returns
    /// nothing is left, but for what hangs in the kernel.
    ///
    /// Not cancel-safe: members may stay behind, asked or stopped.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> io::Result<()> {
        let asking = Asking { signal, grace, stopped_line: None };
        match &self.0 {
            Kind::Cgroup(dir) => {
                if signal != Signal::KILL
                    && let Err(error) = dir.ask_to_end(&asking).await
                {
                    tracing::warn!(group = dir.name(), %error, "processes are killed without having been asked to end");
                }
                dir.kill().await
            }
            Kind::Tree(tree) => {
                if signal != Signal::KILL {
                    tree.ask_to_end(&asking).await?;
                }
                tree.kill().await
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that still has members stays; whoever delegated the directory removes it.
        if let Kind::Cgroup(dir) = &self.0 {
            dir.remove();
        }
    }
}
