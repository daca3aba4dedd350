//! System calls that no library wraps, because nobody sane makes them.

use libc::{c_int, c_long};

use super::{Outcome, errno};

/// Seconds after which an attempt is given up: one that blocks ends by SIGALRM.
const PATIENCE: u32 = 5;

/// Runs something in a child process, so that whatever it changes ends with it, and a filter that kills is survived.
///
/// `body` returns 0 or an error number. It runs between fork and exit in what may be a program of many threads, so it
/// must not allocate, lock or panic: system calls on memory that was made before.
pub(super) fn attempt(body: impl FnOnce() -> c_int) -> Outcome {
    // SAFETY: the child calls only `alarm`, `body`, which does nothing but system calls (see above), and `_exit`.
    let child = unsafe { libc::fork() };
    match child {
        0 => {
            // SAFETY: as above; both calls are async-signal-safe and touch no memory.
            unsafe {
                libc::alarm(PATIENCE);
                libc::_exit(body())
            }
        }
        -1 => errno::of(&std::io::Error::last_os_error()),
        child => wait(child),
    }
}

fn wait(child: c_int) -> Outcome {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for an int during the call.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if waited == child {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return errno::of(&error);
        }
    }
    if libc::WIFSIGNALED(status) {
        errno::signal(libc::WTERMSIG(status))
    } else {
        match libc::WEXITSTATUS(status) {
            0 => "ok".to_owned(),
            number => errno::name(number),
        }
    }
}

/// Makes a system call; 0 or the error number.
pub(super) fn call(number: c_long, arguments: [usize; 6]) -> c_int {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: callers pass numbers, null, or pointers to memory that they hold during the call, as large as the call
    // expects; a call that is refused reads none of it.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { last_errno() } else { 0 }
}

fn last_errno() -> c_int {
    // SAFETY: the function returns a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() }
}

/// Forks by `clone` with these flags; 0 or the error number. To be called in an [`attempt`].
pub(super) fn clone_with(flags: c_int) -> c_int {
    let flags = flags | libc::SIGCHLD;
    // SAFETY: without a stack and without CLONE_VM this is fork; the new process ends at once.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match child {
        -1 => last_errno(),
        // SAFETY: `_exit` is async-signal-safe.
        0 => unsafe { libc::_exit(0) },
        _ => {
            // SAFETY: a null status is allowed.
            unsafe { libc::wait4(-1, std::ptr::null_mut(), libc::__WALL, std::ptr::null_mut()) };
            0
        }
    }
}

/// The version of Landlock.
pub(super) fn landlock_version() -> Option<u32> {
    const VERSION: usize = 1;
    // SAFETY: with this flag the kernel takes no memory: both other arguments must be 0.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, VERSION) };
    u32::try_from(version).ok()
}

/// The number of the session keyring, or the error.
pub(super) fn session_keyring() -> Result<String, c_int> {
    const GET_KEYRING_ID: usize = 0;
    const SESSION: isize = -3;
    // SAFETY: the call takes numbers only; the last says not to make a keyring.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION, 0_usize) };
    if id == -1 { Err(last_errno()) } else { Ok(id.to_string()) }
}

/// The securebits of this thread.
pub(super) fn securebits() -> c_int {
    // SAFETY: takes no memory.
    unsafe { libc::prctl(libc::PR_GET_SECUREBITS) }
}

/// Whether this process may be traced by others of the same ids.
pub(super) fn dumpable() -> bool {
    // SAFETY: takes no memory.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) == 1 }
}

/// The scheduling policy of this thread.
pub(super) fn scheduler() -> c_int {
    // SAFETY: takes no memory.
    unsafe { libc::sched_getscheduler(0) }
}

/// Makes `getpid` through the 32-bit entry; 0 or the error number. To be called in an [`attempt`]: a kernel without
/// that entry ends the process.
#[cfg(target_arch = "x86_64")]
pub(super) fn getpid_32_bit() -> c_int {
    const GETPID: i32 = 20;
    let result: i32;
    // SAFETY: the call takes no arguments and touches no memory; the kernel may clear r8 to r11.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("eax") GETPID => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if result < 0 { -result } else { 0 }
}

/// A `struct timex` of zeros; libc's has private padding.
pub(super) fn zeroed_timex() -> libc::timex {
    // SAFETY: all fields are integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}
