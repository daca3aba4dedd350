//! Who may be told of another process's exit (attack A32).
//!
//! A process that is traced with PTRACE_O_TRACEEXIT does not end before its tracer has looked at it or has ended itself.
//! Two that trace each other so, directly or in a ring, never end, whatever kills them: their namespace, memory and ids
//! are lost until the machine starts again. Hence each request for it waits here (a seccomp filter that every process of
//! the sandbox has sees to that), and is refused to a process of which any thread is traced itself. So the request that
//! would close a ring is always refused: its maker is traced by the one before it in the ring.
//!
//! What was granted is not yet done, since the call goes on only after the answer, at whatever time its thread has the CPU.
//! So one request at a time is under way in the whole sandbox: the next is answered when the kernel shows that the thread of
//! the last has left the call, or has ended. Whom the last was to trace does not matter then, so that no number of a process
//! that is used again, or that an exec has moved, deceives.

use crate::sys::notify::{self, Waiting};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::Interest;

/// How long a request waits for the one before it before it is refused. A call takes microseconds, but its thread may have
/// to wait for the CPU.
const OTHERS_TURN: Duration = Duration::from_millis(200);
/// How often it is looked whether the other's call has ended: the kernel tells nobody.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A thread by its number and the time at which it began, since numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    id: u32,
    began: u64,
}

/// Answers requests for as long as the future runs.
pub(crate) async fn serve(listener: OwnedFd) -> io::Result<std::convert::Infallible> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let judge = Arc::new(Judge {
        listener: listener.try_clone()?,
        proc: openat(rustix::fs::CWD, "/proc", directory, Mode::empty())?,
        under_way: Mutex::default(),
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
    /// Who was last allowed to trace another, unless it is known that the call has ended.
    under_way: Mutex<Option<Thread>>,
}

impl Judge {
    fn answer_all(&self) -> io::Result<()> {
        let listener = self.listener.as_fd();
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(waiting) = notify::next(listener)? {
            let asker = match self.asker(&waiting) {
                Ok(asker) if self.has_ended(&under_way, asker) => Some(asker),
                _ => None,
            };
            // What was read is about the asker only if it has waited all the time.
            let asker = asker
                .filter(|_| self.is_untraced(&waiting))
                .filter(|_| notify::still_waits(listener, &waiting));
            if let Some(asker) = asker {
                *under_way = Some(asker);
            }
            notify::answer(listener, &waiting, asker.is_some())?;
        }
        Ok(())
    }

    fn asker(&self, waiting: &Waiting) -> io::Result<Thread> {
        Ok(Thread { id: waiting.thread, began: began(self.proc.as_fd(), waiting.thread)? })
    }

    /// Waits a while until the call that was granted last has ended: its thread asks again, is in another call, or is gone.
    fn has_ended(&self, last: &Option<Thread>, asker: Thread) -> bool {
        let Some(last) = *last else { return true };
        let begun = Instant::now();
        loop {
            let has_ended = last == asker
                || match began(self.proc.as_fd(), last.id) {
                    Ok(time) => time != last.began || self.is_in_another_call(last),
                    Err(error) => is_gone(&error),
                };
            if has_ended || begun.elapsed() > OTHERS_TURN {
                return has_ended;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// As /proc/ID/syscall says (proc_pid_syscall(5)): the number of the call in which the thread waits, -1 outside of one,
    /// `running` where it is not known.
    fn is_in_another_call(&self, thread: Thread) -> bool {
        let text = read(self.proc.as_fd(), &format!("{0}/task/{0}/syscall", thread.id)).unwrap_or_default();
        another_call(&text)
    }

    /// Whether no thread of the asker's process is traced. What cannot be read is taken for traced.
    fn is_untraced(&self, waiting: &Waiting) -> bool {
        self.threads(waiting).is_ok_and(|threads| threads.contains(&waiting.thread))
    }

    /// The threads of the asker's process, none of which is traced.
    fn threads(&self, waiting: &Waiting) -> io::Result<Vec<u32>> {
        // A number of any thread leads to its process.
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tasks = openat(&self.proc, format!("{}/task", waiting.thread), directory, Mode::empty())?;
        let mut threads = Vec::new();
        for entry in rustix::fs::Dir::read_from(&tasks)? {
            let entry = entry?;
            let Ok(Ok(id)) = entry.file_name().to_str().map(str::parse::<u32>) else { continue };
            match read(tasks.as_fd(), &format!("{id}/status")) {
                Ok(status) if tracer(&status) == Some(0) => threads.push(id),
                Ok(_) => return Err(Errno::PERM.into()),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(threads)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

fn another_call(syscall: &[u8]) -> bool {
    let number = syscall.split(|byte| *byte == b' ').next().and_then(|text| std::str::from_utf8(text).ok());
    number.and_then(|text| text.trim().parse::<i64>().ok()).is_some_and(|number| number != libc::SYS_ptrace)
}

/// The tracer in a thread's status (proc_pid_status(5)). The name in its first line may hold any bytes, but no line break.
fn tracer(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"TracerPid:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// When a thread began, as /proc/ID/stat says.
fn began(proc: BorrowedFd<'_>, id: u32) -> io::Result<u64> {
    let stat = read(proc, &format!("{id}/task/{id}/stat"))?;
    // The name in parentheses may hold anything, other parentheses and bytes that are no text among it.
    let fields = stat.iter().rposition(|byte| *byte == b')').map(|end| &stat[end + 1..]).unwrap_or_default();
    let time = fields.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).nth(19);
    let time = time.and_then(|field| std::str::from_utf8(field).ok()?.parse().ok());
    time.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn read(directory: BorrowedFd<'_>, path: &str) -> io::Result<Vec<u8>> {
    let file = openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    std::fs::File::from(file).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge() -> Judge {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let proc = openat(rustix::fs::CWD, "/proc", flags, Mode::empty()).unwrap();
        Judge { listener: proc.try_clone().unwrap(), proc, under_way: Mutex::default() }
    }

    #[test]
    fn a32_the_next_waits_until_the_last_has_left_its_call_whatever_its_name() {
        let judge = judge();
        let (ready, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        // A name that is no text, and looks like the end of one.
        let other = std::thread::spawn(move || {
            rustix::thread::set_name(c"\xff) 0 (\xfe").unwrap();
            ready.send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()).unwrap();
            let _ended = ended.recv();
        });
        let id = told.recv().unwrap();
        let last = Thread { id, began: began(judge.proc.as_fd(), id).unwrap() };
        let asker = Thread { id: 1, began: 0 };
        assert!(judge.has_ended(&Some(last), asker), "it waits in another call");
        assert!(
            judge.has_ended(&Some(Thread { began: last.began + 1, ..last }), asker),
            "another has its number"
        );
        assert!(judge.has_ended(&Some(last), last), "it asks again");
        assert!(judge.has_ended(&None, asker));
        drop(end);
        other.join().unwrap();
        assert!(judge.has_ended(&Some(last), asker), "it has ended");
        // One that has the CPU all the time may still be in its call.
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (ready, told) = std::sync::mpsc::channel();
            let stop = &stop;
            scope.spawn(move || {
                ready.send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()).unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let id = told.recv().unwrap();
            let busy = Thread { id, began: began(judge.proc.as_fd(), id).unwrap() };
            let has_ended = judge.has_ended(&Some(busy), asker);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(!has_ended);
        });
    }

    #[test]
    fn what_proc_says_is_understood() {
        let proc = judge().proc;
        let own = std::process::id();
        assert!(began(proc.as_fd(), own).is_ok_and(|time| time > 0));
        assert!(is_gone(&began(proc.as_fd(), u32::MAX).unwrap_err()));
        assert_eq!(read(proc.as_fd(), "self/status").ok().as_deref().map(tracer), Some(Some(0)));
        assert_eq!(tracer(b"Name:\tTracerPid: 7\nTracerPid:\t12\n"), Some(12));
        assert_eq!(tracer(b"Name:\t\xff\xfe\nTracerPid:\t12\n"), Some(12));
        assert_eq!(tracer(b"Name:\tx\n"), None);
        let calls =
            [(&b"running\n"[..], false), (b"", false), (b"-1 0x7f 0x7f\n", true), (b"61 0x1 0x2\n", true)];
        for (text, expected) in calls {
            assert_eq!(another_call(text), expected);
        }
        assert!(!another_call(format!("{} 0x4206 0x7\n", libc::SYS_ptrace).as_bytes()));
    }
}
