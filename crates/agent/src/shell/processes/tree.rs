//! Groups of processes by descent, for agents without a delegated cgroup.
//!
//! The shell is a subreaper, so whatever a command started stays below it, however often it forked and detached. What
//! lived below the shell before a command began is set apart by (pid, start time).

use super::{Held, KILLED_WITHIN, all_ended, read_proc};
use rustix::process::{Pid, Signal};
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// Listings of the tree while stopping it: each one finds what was forked during the one before. Whoever still gains on
/// this many is a fork bomb, whose forks fail once the shell's limit on processes is reached.
const ROUNDS: usize = 200;

/// A process and when it started, in clock ticks since boot: together they name one process for good.
type Identity = (i32, u64);

/// The processes below one session's shell.
#[derive(Debug, Default)]
pub(in crate::shell) struct Tree {
    /// What earlier commands left behind.
    survivors: HashSet<Identity>,
}

impl Tree {
    /// A new shell starts with nothing below it: what lived below the last one belongs to the reaper above.
    pub(super) fn forget(&mut self) {
        self.survivors.clear();
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
            if held.is_shell(shell_line) { &mut shells } else { &mut programs }.push(held);
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
                if held.is_shell(shell_line) {
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
            if held.is_shell(shell_line) { &mut *shells } else { &mut *programs }.push(held);
        }
        Ok(fresh)
    }

    /// Kills all that is left below the shell, and last the shells: while they are stopped nothing is orphaned.
    async fn kill(&self, shell: i32, shells: Vec<Held>) -> io::Result<()> {
        let deadline = Instant::now() + KILLED_WITHIN;
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
                tracing::warn!(shell, "killed processes do not end");
                break;
            }
        }
        for one in &shells {
            one.signal(Signal::KILL);
        }
        all_ended(&shells, deadline).await?;
        Ok(())
    }

    pub(super) async fn kill_survivors(&mut self) -> io::Result<()> {
        let mut held = Vec::new();
        for (pid, start) in self.survivors.drain() {
            let Some(pid) = Pid::from_raw(pid) else { continue };
            let Some(one) = Held::open(pid)? else { continue };
            if stat(pid).is_ok_and(|stat| stat.start == start) {
                one.signal(Signal::KILL);
                held.push(one);
            }
        }
        all_ended(&held, Instant::now() + KILLED_WITHIN).await?;
        Ok(())
    }
}

struct Stat {
    state: u8,
    parent: i32,
    start: u64,
}

/// proc(5): after the name in parentheses, which may hold anything, fields 3 (state), 4 (parent) and 22 (start time).
fn stat(pid: Pid) -> io::Result<Stat> {
    let text = read_proc(pid, "stat")?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let rest = &text[text.iter().rposition(|b| *b == b')').ok_or_else(invalid)? + 1..];
    let rest = std::str::from_utf8(rest).map_err(|_| invalid())?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().and_then(|s| s.bytes().next()).ok_or_else(invalid)?;
    let parent = fields.next().and_then(|s| s.parse().ok()).ok_or_else(invalid)?;
    let start = fields.nth(17).and_then(|s| s.parse().ok()).ok_or_else(invalid)?;
    Ok(Stat { state, parent, start })
}

fn is_zombie(pid: Pid) -> bool {
    stat(pid).map_or(true, |stat| stat.state == b'Z')
}

/// Every living process below `root`.
fn below(root: i32) -> io::Result<Vec<Identity>> {
    let mut children: HashMap<i32, Vec<Identity>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // A process may end while /proc is read.
        if let Ok(stat) = stat(pid)
            && stat.state != b'Z'
        {
            children.entry(stat.parent).or_default().push((pid.as_raw_nonzero().get(), stat.start));
        }
    }
    let mut all = Vec::new();
    let mut todo = vec![root];
    while let Some(parent) = todo.pop() {
        for &(pid, start) in children.get(&parent).into_iter().flatten() {
            all.push((pid, start));
            todo.push(pid);
        }
    }
    Ok(all)
}
