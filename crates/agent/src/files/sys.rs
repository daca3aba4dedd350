//! The two system calls that rustix does not offer.

use rustix::io::Errno;

/// No id: `setfsuid` and `setfsgid` refuse it and, like every call of theirs, answer with the id in force.
const ASK: u32 = u32::MAX;

/// Gives the calling thread this file system uid; checked, because the call itself reports no error (setfsuid(2)).
pub(crate) fn set_fs_uid(uid: u32) -> Result<(), Errno> {
    // SAFETY: setfsuid takes a number and touches no memory. glibc's is the bare system call, so it changes the
    // calling thread alone.
    let now = unsafe {
        libc::setfsuid(uid);
        libc::setfsuid(ASK)
    };
    if now.cast_unsigned() == uid { Ok(()) } else { Err(Errno::PERM) }
}

/// Gives the calling thread this file system gid; checked like [`set_fs_uid`].
pub(crate) fn set_fs_gid(gid: u32) -> Result<(), Errno> {
    // SAFETY: as for setfsuid.
    let now = unsafe {
        libc::setfsgid(gid);
        libc::setfsgid(ASK)
    };
    if now.cast_unsigned() == gid { Ok(()) } else { Err(Errno::PERM) }
}
