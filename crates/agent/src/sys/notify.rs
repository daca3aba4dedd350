//! A seccomp listener (seccomp_unotify(2)): calls of other processes wait there until one answers.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    id: u64,
    /// The thread that makes it, as this process's namespace numbers it.
    pub(crate) thread: u32,
}

/// The next call that waits; none if there is none now. Does not block.
pub(crate) fn next(listener: BorrowedFd<'_>) -> io::Result<Option<Waiting>> {
    loop {
        let mut ready = [PollFd::new(&listener, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::io::retry_on_intr(|| poll(&mut ready, Some(&now)))?;
        if !ready[0].revents().contains(PollFlags::IN) {
            return Ok(None);
        }
        // SAFETY: all zeroes is a valid value of this plain C struct, and what the kernel wants to find.
        let mut found: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills in a `seccomp_notif`, which outlives the call.
        let taken =
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut found) };
        if taken == 0 {
            return Ok(Some(Waiting { id: found.id, thread: found.pid }));
        }
        let error = io::Error::last_os_error();
        // ENOENT: the caller was interrupted in between.
        if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) {
            return Err(error);
        }
    }
}

/// Whether the caller still waits: if so, what was read about its thread was about it and no other of that number.
pub(crate) fn still_waits(listener: BorrowedFd<'_>, waiting: &Waiting) -> bool {
    // SAFETY: the kernel reads one u64, which outlives the call.
    unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const waiting.id) == 0
    }
}

/// Lets the call go on, or fails it with EPERM. A caller that waits no longer needs no answer.
pub(crate) fn answer(listener: BorrowedFd<'_>, waiting: &Waiting, allowed: bool) -> io::Result<()> {
    let mut response = libc::seccomp_notif_resp {
        id: waiting.id,
        val: 0,
        error: if allowed { 0 } else { -libc::EPERM },
        flags: if allowed { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 },
    };
    // SAFETY: the kernel reads a `seccomp_notif_resp`, which outlives the call.
    let sent =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    match io::Error::last_os_error() {
        _ if sent == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        error => Err(error),
    }
}
