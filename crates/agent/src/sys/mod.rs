//! The only folder of this crate that holds `unsafe`: system calls that no safe wrapper offers.

pub(crate) mod child;
pub(crate) mod notify;
pub(crate) mod paths;
#[cfg(test)]
mod walls;
mod watchdog;

use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that the launch stage left open for this process and named by number. It stays open for the process's
/// whole life, which is what `'static` says; a number that is not open gives `EBADF` on its first use.
///
/// # Panics
/// If `fd` is negative.
pub(crate) fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    assert!(fd >= 0, "a descriptor is not negative");
    // SAFETY: not -1; nothing in the agent closes a descriptor that its configuration names.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A child that has ended and whose status nobody has taken. The status stays with the kernel.
pub(crate) fn any_ended_child() -> Option<Pid> {
    // SAFETY: siginfo_t is a plain C struct that waitid fills in; si_pid is valid after it reported a child, and zero
    // (as initialised) when there is none.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &mut info, flags) != 0 {
            return None;
        }
        info.si_pid()
    };
    Pid::from_raw(pid)
}

/// Takes back the handlers that std has for SIGSEGV and SIGBUS. The kernel sends process 1 no signal from inside that it has
/// no handler for; a fault of its own ends it all the same.
pub(crate) fn no_fault_handlers() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the default action takes no pointer; no other thread runs yet that could fault in between.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// A descriptor that stays the same and open for as long as the value lives.
pub(crate) trait Held: AsRawFd {}
impl Held for OwnedFd {}
impl Held for BorrowedFd<'_> {}

/// Watches a descriptor with the runtime's poller. For reading and writing it must be non-blocking.
pub(crate) fn watch<T: Held>(fd: T, interest: Interest) -> std::io::Result<AsyncFd<T>> {
    // SAFETY: both implementors of `Held` keep the descriptor open and name the same one for their whole life.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}

/// Gives memory that was freed back to the kernel: what only the start needed is not charged to the sandbox for ever.
pub(crate) fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer; the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives the calling thread a table of descriptors of its own, with nothing in it but `fd`, which keeps its number. What
/// stands in the other threads' table is neither closed nor copied.
pub(crate) fn keep_only(fd: RawFd) -> std::io::Result<()> {
    let fd = fd.cast_unsigned();
    let close = |first: libc::c_uint, last: libc::c_uint, flags: libc::c_uint| {
        // SAFETY: takes numbers alone. The first call leaves the other threads' table; from then on the calling thread uses
        // `fd` only.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    close(fd + 1, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)?;
    if fd > 0 { close(0, fd - 1, 0) } else { Ok(()) }
}
