//! A group by descent. The program that leads it is a subreaper, so whatever it started stays below it while it lives.
//! After its end what is left is known by the session (setsid(2)) that the leader made, and by having been seen below it
//! before, or by having become a child of process 1 at the leader's end.

use super::super::reaper::Left;
use super::descent::{Identity, Stat, descendants, living, stat};
use super::held::{Held, all_ended};
use super::{Asking, KILLED_WITHIN, ROUNDS, unkillable};
use rustix::process::{Pid, Signal};
use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often the tree is looked at while its end is waited for and none of the known ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The leader, and what was seen below it.
#[derive(Debug)]
pub(super) struct Tree {
    leader: Identity,
    seen: Mutex<HashSet<Identity>>,
    /// What the leader has left behind.
    left: Left,
}

impl Tree {
    pub(super) fn of(leader: Pid, left: Left) -> Self {
        // One that has ended already has no descendants that could be told from others'.
        let start = stat(leader).map_or(0, |stat| stat.start);
        Self { leader: (leader.as_raw_nonzero().get(), start), seen: Mutex::default(), left }
    }

    fn seen(&self) -> MutexGuard<'_, HashSet<Identity>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every living member.
    fn identities(&self) -> io::Result<Vec<Identity>> {
        let living = living()?;
        let mut seen = self.seen();
        seen.extend(self.left.identities());
        // The leader's number can only name another session once no process of its own is left in it.
        let taken_over =
            living.iter().any(|(pid, stat)| *pid == self.leader.0 && stat.start != self.leader.1);
        let belongs = |pid: i32, stat: &Stat| {
            let identity = (pid, stat.start);
            identity == self.leader
                || seen.contains(&identity)
                || !taken_over && stat.session == self.leader.0 && stat.start >= self.leader.1
        };
        let roots: Vec<_> = living
            .iter()
            .filter(|(pid, stat)| belongs(*pid, stat))
            .map(|(pid, stat)| (*pid, stat.start))
            .collect();
        let below = descendants(&living, roots.iter().map(|(pid, _)| *pid));
        *seen = roots.into_iter().chain(below).collect();
        Ok(seen.iter().copied().collect())
    }

    fn held(&self) -> io::Result<Vec<(Identity, Held)>> {
        let mut all = Vec::new();
        for identity in self.identities()? {
            let Some(pid) = Pid::from_raw(identity.0) else { continue };
            if let Some(held) = Held::open(pid)?
                && stat(pid).is_ok_and(|stat| stat.start == identity.1)
            {
                all.push((identity, held));
            }
        }
        Ok(all)
    }

    pub(super) fn members(&self) -> io::Result<Vec<Pid>> {
        Ok(self.identities()?.into_iter().filter_map(|(pid, _)| Pid::from_raw(pid)).collect())
    }

    pub(super) async fn emptied(&self) -> io::Result<()> {
        loop {
            let held: Vec<_> = self.held()?.into_iter().map(|(_, held)| held).collect();
            if held.is_empty() {
                return Ok(());
            }
            // Looked at again in between, so that what detaches is seen before its parent ends.
            all_ended(&held, Instant::now() + LOOK_EVERY).await?;
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let mut done = HashSet::new();
        for _ in 0..ROUNDS {
            let mut fresh = false;
            let mut held = self.held()?;
            // The leader first: a shell that waits for a child would take the child's end for a reason to go on.
            held.sort_unstable_by_key(|(identity, _)| *identity != self.leader);
            for (identity, held) in held {
                if done.insert(identity) {
                    held.signal(signal);
                    fresh = true;
                }
            }
            if !fresh {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn ask_to_end(&self, asking: &Asking<'_>) -> io::Result<()> {
        self.signal(asking.signal)?;
        let deadline = Instant::now() + asking.grace;
        loop {
            let left: Vec<_> = self.held()?.into_iter().map(|(_, held)| held).collect();
            if left.is_empty() || !all_ended(&left, deadline).await? {
                return Ok(());
            }
        }
    }

    pub(super) async fn kill(&self) -> io::Result<()> {
        // Stopped first: no shell goes on with its list because a program that it waited for was killed before it.
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + KILLED_WITHIN;
        loop {
            let held: Vec<_> = self.held()?.into_iter().map(|(_, held)| held).collect();
            if held.is_empty() {
                return Ok(());
            }
            for one in &held {
                one.signal(Signal::KILL);
            }
            if !all_ended(&held, deadline).await? {
                return Err(unkillable(held.iter().filter(|held| !held.has_ended()).map(|held| held.pid)));
            }
        }
    }
}
