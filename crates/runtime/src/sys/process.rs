//! Making processes: clone3, exec by descriptor, the table of open descriptors, credentials.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Past the 32 bits that libc's constant has room for (linux/sched.h).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a `clone3` one is on.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The caller, with the new process's id and a pidfd for it.
    Parent { pid: i32, pidfd: OwnedFd },
}

/// clone3(2) as a fork: the child is a copy of the caller with the given namespaces, in the given group of version 2.
///
/// Only for processes with one thread: the child of a multithreaded one could find any lock taken for ever.
pub(crate) fn fork_into(flags: u64, exit_signal: i32, cgroup: Option<&OwnedFd>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    let args = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64 | cgroup.map_or(0, |_| CLONE_INTO_CGROUP),
        pidfd: (&raw mut pidfd).addr() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: exit_signal as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |group| group.as_raw_fd() as u64),
    };
    // SAFETY: without CLONE_VM and with a null stack the child runs on its own copy of this stack, as after fork(2).
    // `args` and `pidfd` outlive the call, and the size passed is that of the structure. The caller has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => {
            // SAFETY: the kernel has just stored a descriptor there that nothing else knows of.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid: pid as i32, pidfd })
        }
    }
}

/// Ends the calling process at once: no destructors, no atexit handlers, no flushing of what a parent has buffered.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// execveat(2) of an open file. Returns only if it failed.
pub(crate) fn exec_fd(file: &OwnedFd, argv: &[CString], envp: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*mut libc::c_char> {
        strings.iter().map(|s| s.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: both arrays end with a null pointer and hold pointers to NUL-terminated strings that live past the call;
    // execveat does not write through them (the pointers are `mut` for historical reasons only).
    unsafe {
        libc::execveat(file.as_raw_fd(), c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH)
    };
    io::Error::last_os_error()
}

/// Descriptors below this number may be overwritten by [`place_fds`].
const LIFTED: RawFd = 32;

/// A copy of a descriptor that [`place_fds`] leaves alone, closed on exec.
pub(crate) fn lift(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, LIFTED)?)
}

/// Puts descriptors at fixed numbers from 3 on, without close-on-exec, and marks every other one above them
/// close-on-exec. Takes the descriptors for good: they now belong to the program that is about to be executed.
///
/// What else is open at those numbers is lost: whatever is needed after this call must have been lifted.
pub(crate) fn place_fds(fds: Vec<Option<OwnedFd>>) -> io::Result<()> {
    let first = 3;
    let end = first + fds.len() as RawFd;
    debug_assert!(end <= LIFTED, "more descriptors than numbers are kept free for");
    // A source may sit on another one's target: lift all of them above the targets first.
    let mut lifted = Vec::new();
    for fd in fds {
        lifted.push(match fd {
            None => None,
            Some(fd) => Some(lift(fd)?),
        });
    }
    for (target, fd) in (first..end).zip(lifted) {
        match fd {
            Some(fd) => {
                // SAFETY: plain descriptor arithmetic. The caller has lifted what it still needs, so nothing that is used
                // again is replaced.
                if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 {
                    return Err(io::Error::last_os_error());
                }
                let _ = fd.into_raw_fd();
            }
            // SAFETY: as above; what was open there is not used any more. EBADF means that nothing was.
            None => unsafe {
                libc::close(target);
            },
        }
    }
    // SAFETY: marks descriptors only; they stay open until the exec.
    if unsafe { libc::close_range(end as u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes what is open as standard input and leaves a copy of standard output in its place, so that what is executed
/// later finds all three open.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    let taken = lift(rustix::stdio::stdin())?;
    rustix::stdio::dup2_stdin(rustix::stdio::stdout())?;
    Ok(taken)
}

/// Takes over a descriptor that a parent left open under a number it told.
///
/// # Errors
/// When nothing is open there.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only looks.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the parent's word is that it is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives every signal its default action back and unblocks all: both would survive an exec.
pub(crate) fn reset_signals() {
    // The kernel's sigaction (asm/signal.h), all zero: SIG_DFL, no flags, empty mask. glibc's own function refuses the
    // two signals that it keeps to itself.
    let default = [0_u64; 4];
    let none = 0_u64;
    let mask_bytes = size_of::<u64>();
    for signal in 1..=64 {
        // SAFETY: `default` is as long as the kernel's structure and outlives the call. SIGKILL and SIGSTOP are
        // refused, which is as wished.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                std::ptr::null::<u8>(),
                mask_bytes,
            )
        };
    }
    // SAFETY: `none` is a signal set of the size told.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null::<u8>(),
            mask_bytes,
        )
    };
}

/// The three ids that a process has as user and as group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessIds {
    pub(crate) real: u32,
    pub(crate) effective: u32,
    pub(crate) saved: u32,
}

/// Sets all three uids and gids of a process with one thread, and its supplementary groups to none if asked.
pub(crate) fn set_ids(ids: ProcessIds, clear_groups: bool) -> io::Result<()> {
    let ProcessIds { real, effective, saved } = ids;
    // SAFETY: plain system calls on the calling process, which has one thread.
    unsafe {
        if clear_groups && libc::setgroups(0, std::ptr::null()) < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::setresgid(real, effective, saved) < 0 || libc::setresuid(real, effective, saved) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The version of Landlock's interface, 0 if there is none.
pub(crate) fn landlock_abi() -> i32 {
    const VERSION: u32 = 1;
    // SAFETY: with a null attribute of size 0 and this flag the call only answers with a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    version.max(0) as i32
}

/// Gives a process with one thread a mount or cgroup namespace of its own (`CLONE_NEWNS`, `CLONE_NEWCGROUP`).
pub(crate) fn new_namespace(kind: i32) -> io::Result<()> {
    // SAFETY: neither has any bearing on memory or descriptors.
    if unsafe { libc::unshare(kind) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Watches a pidfd, which becomes readable when its process has ended. An error gives it back.
pub(crate) fn watch(pidfd: OwnedFd) -> Result<AsyncFd<OwnedFd>, (OwnedFd, io::Error)> {
    // SAFETY: an OwnedFd answers with the same open descriptor for as long as it lives, and AsyncFd owns it.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(|error| error.into_parts())
}

/// Whether the kernel knows seccomp filters that kill a whole process.
pub(crate) fn has_seccomp() -> bool {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the operation reads one word and only answers.
    let known =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    known == 0
}
