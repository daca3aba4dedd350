//! seccomp(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Installs a filter in the calling thread, which must have no_new_privs; with `listener` it returns the descriptor at
/// which calls that the filter asks about arrive.
pub(crate) fn install(program: &[libc::sock_filter], listener: bool) -> io::Result<Option<OwnedFd>> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // It closes no side channel: the agent, which inherits it, need not become slower for one.
    let mut flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    if listener {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    }
    // SAFETY: `program` and the instructions it points to outlive the call, which only reads them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: with this flag the kernel answers with a new descriptor, which nothing else owns.
    Ok(listener.then(|| unsafe { OwnedFd::from_raw_fd(result as i32) }))
}
