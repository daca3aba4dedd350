//! The one system call that neither std nor rustix has.

use rustix::io::Errno;
use rustix::process::Pid;

/// Which side of a clone this is.
pub(crate) enum Side {
    /// The caller, with the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// `clone3` with these `CLONE_*` flags, like fork in everything else. Fails with EINVAL in a process of several
/// threads, whose locks the child would inherit locked.
pub(crate) fn clone(flags: libc::c_int) -> Result<Side, Errno> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(usize::MAX);
    if threads != 1 {
        return Err(Errno::INVAL);
    }
    let args = libc::clone_args {
        flags: flags as u64,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: `args` is a whole clone_args that outlives the call, and its size is passed. Without a stack and without
    // CLONE_VM the child gets a copy of this address space, as with fork; the process has one thread (checked
    // above), so no lock is held by a thread that the child lacks.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)),
        0 => Ok(Side::Child),
        pid => Pid::from_raw(pid as i32).map(Side::Parent).ok_or(Errno::CHILD),
    }
}

/// Ends the process at once, without running what its parent had registered for its end.
pub(crate) fn exit_child(code: i32) -> ! {
    // SAFETY: _exit takes any code, touches no memory and does not return.
    unsafe { libc::_exit(code) }
}
