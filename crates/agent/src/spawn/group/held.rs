//! Single processes, held by their pidfds, and what /proc says of them.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{self, Read as _};
use tokio::io::Interest;
use tokio::time::Instant;

/// A process held by its pidfd, so that its number cannot come to mean another.
pub(crate) struct Held {
    pub(crate) pid: Pid,
    fd: OwnedFd,
}

impl Held {
    /// None if it has ended.
    pub(crate) fn open(pid: Pid) -> io::Result<Option<Self>> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self { pid, fd })),
            // EINVAL: the number belongs to a thread that leads no group any more.
            Err(Errno::SRCH | Errno::INVAL) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // What cannot be signalled has ended.
        let _ = pidfd_send_signal(&self.fd, signal);
    }

    /// Whether its command line is this one, up to its end.
    pub(crate) fn has_line(&self, line: &[u8]) -> bool {
        // No further than it can be the same: a command line can be as long as the user likes.
        let mut read = Vec::with_capacity(line.len() + 1);
        open_proc(self.pid, "cmdline")
            .and_then(|file| io::Read::take(file, line.len() as u64 + 1).read_to_end(&mut read))
            .is_ok_and(|_| read == line)
    }

    /// Whether it has ended by now.
    pub(crate) fn has_ended(&self) -> bool {
        let mut poll = [PollFd::new(&self.fd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    async fn ended(&self) -> io::Result<()> {
        let fd = crate::sys::watch(self.fd.as_fd(), Interest::READABLE)?;
        fd.readable().await?.retain_ready();
        Ok(())
    }
}

/// Waits until all have ended; false if the deadline passed first.
pub(crate) async fn all_ended(held: &[Held], deadline: Instant) -> io::Result<bool> {
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
pub(crate) fn read_proc(pid: Pid, file: &str) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    open_proc(pid, file)?.read_to_end(&mut all)?;
    Ok(all)
}
