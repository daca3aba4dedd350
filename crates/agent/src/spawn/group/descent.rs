//! The tree of processes as /proc shows it, for agents without a delegated cgroup.

use super::held::read_proc;
use rustix::process::Pid;
use std::collections::HashMap;
use std::io;

/// A process and when it started, in clock ticks since boot: together they name one process for good.
pub(crate) type Identity = (i32, u64);

/// What /proc/PID/stat says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) parent: i32,
    /// The session (setsid(2)) that it is in, by its leader.
    pub(crate) session: i32,
    pub(crate) start: u64,
}

/// proc(5): after the name in parentheses, which may hold anything, fields 3 (state), 4 (parent), 6 (session) and 22
/// (start time).
pub(crate) fn stat(pid: Pid) -> io::Result<Stat> {
    let text = read_proc(pid, "stat")?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let rest = &text[text.iter().rposition(|b| *b == b')').ok_or_else(invalid)? + 1..];
    let rest = std::str::from_utf8(rest).map_err(|_| invalid())?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().and_then(|s| s.bytes().next()).ok_or_else(invalid)?;
    let parent = fields.next().and_then(|s| s.parse().ok()).ok_or_else(invalid)?;
    let session = fields.nth(1).and_then(|s| s.parse().ok()).ok_or_else(invalid)?;
    let start = fields.nth(15).and_then(|s| s.parse().ok()).ok_or_else(invalid)?;
    Ok(Stat { state, parent, session, start })
}

pub(crate) fn is_zombie(pid: Pid) -> bool {
    stat(pid).map_or(true, |stat| stat.state == b'Z')
}

/// Every living process.
pub(crate) fn living() -> io::Result<Vec<(i32, Stat)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // A process may end while /proc is read.
        if let Ok(stat) = stat(pid)
            && stat.state != b'Z'
        {
            all.push((pid.as_raw_nonzero().get(), stat));
        }
    }
    Ok(all)
}

/// What of `living` descends from `roots`, without them.
pub(crate) fn descendants(living: &[(i32, Stat)], roots: impl IntoIterator<Item = i32>) -> Vec<Identity> {
    let mut children: HashMap<i32, Vec<Identity>> = HashMap::new();
    for (pid, stat) in living {
        children.entry(stat.parent).or_default().push((*pid, stat.start));
    }
    let mut all = Vec::new();
    let mut todo: Vec<i32> = roots.into_iter().collect();
    while let Some(parent) = todo.pop() {
        for (pid, start) in children.remove(&parent).into_iter().flatten() {
            all.push((pid, start));
            todo.push(pid);
        }
    }
    all
}

/// Every living process below `root`.
pub(crate) fn below(root: i32) -> io::Result<Vec<Identity>> {
    Ok(descendants(&living()?, [root]))
}
