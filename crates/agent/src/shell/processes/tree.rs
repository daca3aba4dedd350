//! Groups of processes by descent, for agents without a delegated cgroup.
//!
//! The shell is a subreaper, so whatever a command started stays below it, however often it forked and detached. What
//! lived below the shell before a command began is set apart by (pid, start time).

use crate::spawn::Left;
use crate::spawn::group::descent::{Identity, below, descendants, is_zombie, living, stat};
use crate::spawn::group::held::{Held, all_ended, read_proc};
use crate::spawn::group::{KILLED_WITHIN, ROUNDS, unkillable};
use rustix::process::{Pid, Signal};
use std::collections::HashSet;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// The processes below one session's shell.
#[derive(Debug, Default)]
pub(in crate::shell) struct Tree {
    /// What earlier commands left behind.
    survivors: HashSet<Identity>,
    /// What shells that have ended left behind.
    left: Vec<Left>,
}

impl Tree {
    /// A new shell starts with nothing below it: what lived below the last one is with what that left.
    pub(super) fn forget(&mut self) {
        self.survivors.clear();
    }

    /// A shell has ended, and left this.
    pub(super) fn ended(&mut self, left: Left) {
        self.left.retain(|left| !left.is_empty());
        self.left.push(left);
    }

    pub(super) fn set_apart(&mut self, shell: Pid) -> io::Result<()> {
        let shell_raw = shell.as_raw_nonzero().get();
        // The usual case, one small file: nothing below the shell.
        if read_proc(shell, &format!("task/{shell_raw}/children")).is_ok_and(|children| children.is_empty()) {
            self.survivors.clear();
            return Ok(());
        }
        self.survivors = below(shell_raw)?.into_iter().collect();
        Ok(())
    }

    pub(super) async fn stop(&mut self, shell: Pid, shell_line: &[u8], grace: Duration) -> io::Result<()> {
        let shell_raw = shell.as_raw_nonzero().get();
        let mut programs = Vec::new();
        let mut shells = Vec::new();
        let mut seen = HashSet::new();
        if let Some(held) = Held::open(shell)? {
            held.signal(Signal::STOP);
            // A shell that executed a program is that program now.
            if held.has_line(shell_line) { &mut shells } else { &mut programs }.push(held);
        }
        for _ in 0..ROUNDS {
            let fresh = self.stop_new(shell_raw, shell_line, &mut seen, &mut shells, &mut programs)?;
            if !fresh {
                break;
            }
        }
        for program in &programs {
            program.signal(Signal::TERM);
        }
        for program in &programs {
            program.signal(Signal::CONT);
        }
        let deadline = Instant::now() + grace;
        while all_ended(&programs, deadline).await? {
            let known = programs.len();
            for (pid, start) in below(shell_raw)? {
                if self.survivors.contains(&(pid, start)) || !seen.insert((pid, start)) {
                    continue;
                }
                let Some(held) = Pid::from_raw(pid).map(Held::open).transpose()?.flatten() else { continue };
                if held.has_line(shell_line) {
                    held.signal(Signal::STOP);
                    shells.push(held);
                } else {
                    programs.push(held);
                }
            }
            if programs.len() == known {
                break;
            }
        }
        // Also what is no longer below the shell, because the shell itself became a program and ended.
        for program in &programs {
            program.signal(Signal::KILL);
        }
        self.kill(shell_raw, shells).await
    }

    /// Stops what is below the shell and was not seen before; whether there was any.
    fn stop_new(
        &self,
        shell: i32,
        shell_line: &[u8],
        seen: &mut HashSet<Identity>,
        shells: &mut Vec<Held>,
        programs: &mut Vec<Held>,
    ) -> io::Result<bool> {
        let mut fresh = false;
        for (pid, start) in below(shell)? {
            if self.survivors.contains(&(pid, start)) || !seen.insert((pid, start)) {
                continue;
            }
            let Some(held) = Pid::from_raw(pid).map(Held::open).transpose()?.flatten() else { continue };
            held.signal(Signal::STOP);
            fresh = true;
            if held.has_line(shell_line) { &mut *shells } else { &mut *programs }.push(held);
        }
        Ok(fresh)
    }

    /// Kills all that is left below the shell, and last the shells: while they are stopped nothing is orphaned.
    async fn kill(&self, shell: i32, shells: Vec<Held>) -> io::Result<()> {
        let deadline = Instant::now() + KILLED_WITHIN;
        let mut left = Vec::new();
        loop {
            let mut held = Vec::new();
            for (pid, start) in below(shell)? {
                if !self.survivors.contains(&(pid, start))
                    && let Some(one) = Pid::from_raw(pid).map(Held::open).transpose()?.flatten()
                    && !is_zombie(one.pid)
                {
                    one.signal(Signal::KILL);
                    held.push(one);
                }
            }
            if held.is_empty() {
                break;
            }
            if !all_ended(&held, deadline).await? {
                left.extend(held.iter().filter(|one| !one.has_ended()).map(|one| one.pid));
                break;
            }
        }
        for one in &shells {
            one.signal(Signal::KILL);
        }
        all_ended(&shells, deadline).await?;
        left.extend(shells.iter().filter(|one| !one.has_ended()).map(|one| one.pid));
        if left.is_empty() { Ok(()) } else { Err(unkillable(left)) }
    }

    /// How many processes commands have left behind, the shell aside.
    pub(super) fn background(&self, shell: Pid) -> io::Result<usize> {
        let living = living()?;
        let mut all = self.survivors.clone();
        all.extend(self.left.iter().flat_map(Left::identities));
        all.retain(|(pid, start)| living.iter().any(|(other, stat)| (other, stat.start) == (pid, *start)));
        let roots: Vec<_> = all.iter().map(|(pid, _)| *pid).chain([shell.as_raw_nonzero().get()]).collect();
        all.extend(descendants(&living, roots));
        Ok(all.len())
    }

    pub(super) async fn kill_survivors(&mut self) -> io::Result<()> {
        let living = living()?;
        let mut all = std::mem::take(&mut self.survivors);
        let left: Vec<_> = self.left.drain(..).flat_map(|left| left.identities()).collect();
        let left = left
            .into_iter()
            .filter(|(pid, start)| living.iter().any(|(other, stat)| (other, stat.start) == (pid, *start)));
        all.extend(left);
        let below = descendants(&living, all.iter().map(|(pid, _)| *pid));
        all.extend(below);
        let mut held = Vec::new();
        for (pid, start) in all {
            let Some(pid) = Pid::from_raw(pid) else { continue };
            let Some(one) = Held::open(pid)? else { continue };
            if stat(pid).is_ok_and(|stat| stat.start == start) {
                one.signal(Signal::KILL);
                held.push(one);
            }
        }
        if all_ended(&held, Instant::now() + KILLED_WITHIN).await? {
            return Ok(());
        }
        Err(unkillable(held.iter().filter(|one| !one.has_ended()).map(|one| one.pid)))
    }
}
