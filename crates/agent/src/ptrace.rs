//! Who may be told of another process's exit (attack A32).
//!
//! A process that is traced with PTRACE_O_TRACEEXIT does not end before its tracer has looked at it or has ended itself.
//! Two that trace each other so, directly or in a ring, never end, whatever kills them: their namespace, memory and ids
//! are lost until the machine starts again. Hence each request for it waits here (a seccomp filter that every process of
//! the sandbox has sees to that), and is refused to a process of which any thread is traced itself. So the request that
//! would close a ring is always refused: its maker is traced by the one before it in the ring.
//!
//! What was granted is not yet done, since the call goes on only after the answer. So a thread's last grant counts, and
//! its target as traced, until it asks again, which shows that the call has ended, or ends itself.

use crate::sys::notify::{self, Waiting};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::Interest;

/// Grants that are kept before those of threads that have ended are looked for.
const GRANTS: usize = 64;

/// Which thread was last allowed to trace which. `asker` is the thread's number and the time at which it began, since
/// numbers are used again.
#[derive(Debug, Default)]
struct Grants {
    targets: HashMap<Thread, u32>,
    /// How many there may be before the ended ones are taken out.
    room: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Thread {
    id: u32,
    began: u64,
}

impl Grants {
    /// Whether a thread that is among `threads` is the target of a grant that may not have been carried out yet.
    fn concern(&self, threads: &[u32], lives: impl Fn(&Thread) -> bool) -> bool {
        self.targets.iter().any(|(asker, target)| threads.contains(target) && lives(asker))
    }

    fn add(&mut self, asker: Thread, target: u32, lives: impl Fn(&Thread) -> bool) {
        if self.targets.len() >= self.room.max(GRANTS) {
            self.targets.retain(|asker, _| lives(asker));
            self.room = 2 * self.targets.len();
        }
        self.targets.insert(asker, target);
    }
}

/// Answers requests for as long as the future runs.
pub(crate) async fn serve(listener: OwnedFd) -> io::Result<std::convert::Infallible> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let judge = Arc::new(Judge {
        listener: listener.try_clone()?,
        proc: openat(rustix::fs::CWD, "/proc", directory, Mode::empty())?,
        grants: Mutex::default(),
    });
    let listener = crate::sys::watch(listener, Interest::READABLE)?;
    loop {
        listener.readable().await?.clear_ready();
        let judge = Arc::clone(&judge);
        // A process may have thousands of threads to look at.
        tokio::task::spawn_blocking(move || judge.answer_all()).await.map_err(io::Error::other)??;
    }
}

struct Judge {
    listener: OwnedFd,
    proc: OwnedFd,
    grants: Mutex<Grants>,
}

impl Judge {
    fn answer_all(&self) -> io::Result<()> {
        let listener = self.listener.as_fd();
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(waiting) = notify::next(listener)? {
            let lives = |thread: &Thread| began(self.proc.as_fd(), thread.id) == Some(thread.began);
            let asker = self.untraced(&waiting).filter(|(_, threads)| !grants.concern(threads, lives));
            // What was read is about the asker only if it has waited all the time.
            let asker = asker.filter(|_| notify::still_waits(listener, &waiting));
            if let Some((asker, _)) = asker {
                grants.add(asker, waiting.arguments[1] as u32, lives);
            }
            notify::answer(listener, &waiting, asker.is_some())?;
        }
        Ok(())
    }

    /// Who asks, and all threads of its process; none if one of them is traced.
    fn untraced(&self, waiting: &Waiting) -> Option<(Thread, Vec<u32>)> {
        let asker = Thread { id: waiting.thread, began: began(self.proc.as_fd(), waiting.thread)? };
        // A number of any thread leads to its process.
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tasks = format!("{}/task", waiting.thread);
        let tasks = openat(&self.proc, tasks, directory, Mode::empty()).ok()?;
        let mut threads = Vec::new();
        for entry in rustix::fs::Dir::read_from(&tasks).ok()? {
            let entry = entry.ok()?;
            let Ok(Ok(id)) = entry.file_name().to_str().map(str::parse::<u32>) else { continue };
            match read(tasks.as_fd(), &format!("{id}/status")).as_deref().map(tracer) {
                Some(Some(0)) => threads.push(id),
                // It has ended.
                None => {}
                Some(_) => return None,
            }
        }
        threads.contains(&asker.id).then_some((asker, threads))
    }
}

/// The tracer in a thread's status (proc_pid_status(5)).
fn tracer(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok())
}

/// When a thread began, as /proc/ID/stat says; none if there is none.
fn began(proc: BorrowedFd<'_>, id: u32) -> Option<u64> {
    let stat = read(proc, &format!("{id}/task/{id}/stat"))?;
    // The name in parentheses may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn read(directory: BorrowedFd<'_>, path: &str) -> Option<String> {
    let file = openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    io::read_to_string(std::fs::File::from(file)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(id: u32) -> Thread {
        Thread { id, began: 1 }
    }

    #[test]
    fn a32_a_ring_of_any_length_is_refused_before_it_is_closed() {
        for length in 2..5 {
            let mut grants = Grants::default();
            // The only order in which none of them is traced when it asks.
            for asker in (1..length).rev() {
                assert!(!grants.concern(&[asker], |_| true), "{asker} of {length}");
                grants.add(thread(asker), asker + 1, |_| true);
            }
            assert!(grants.concern(&[length], |_| true), "the last of {length}");
            // The one before it has ended: nothing is left to be traced by.
            assert!(!grants.concern(&[length], |asker| asker.id != length - 1));
            // One thread of a process is as good as another.
            assert!(grants.concern(&[99, length], |_| true));
        }
    }

    #[test]
    fn a_thread_that_asks_again_has_done_what_it_asked_for() {
        let mut grants = Grants::default();
        grants.add(thread(1), 2, |_| true);
        grants.add(thread(1), 3, |_| true);
        assert!(!grants.concern(&[2], |_| true), "the kernel says whether it is traced");
        assert!(grants.concern(&[3], |_| true));
    }

    #[test]
    fn grants_of_ended_threads_take_no_room() {
        let mut grants = Grants::default();
        (0..100_000).for_each(|id| grants.add(thread(id), 1, |_| false));
        assert!(grants.targets.len() <= GRANTS, "{}", grants.targets.len());
    }

    #[test]
    fn what_proc_says_is_understood() {
        let proc = openat(rustix::fs::CWD, "/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let own = std::process::id();
        assert!(began(proc.as_fd(), own).is_some_and(|time| time > 0));
        assert_eq!(began(proc.as_fd(), u32::MAX), None);
        assert_eq!(read(proc.as_fd(), "self/status").as_deref().map(tracer), Some(Some(0)));
        assert_eq!(tracer("Name:\tTracerPid: 7\nTracerPid:\t12\n"), Some(12));
        assert_eq!(tracer("Name:\tx\n"), None);
    }
}
