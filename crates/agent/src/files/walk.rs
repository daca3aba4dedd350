//! Going through a tree of directories by fds, so that nothing that is swapped meanwhile leads out of it.
//!
//! Directories are reached from the tree's top by their relative path, resolved with `RESOLVE_BENEATH` and without
//! any link; so a tree of any depth costs two fds.

use super::root::WANTED;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, openat2, statx};
use rustix::io::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;

/// Opens the directory `relative` (empty: the top itself) below `top`.
pub(crate) fn open_below(top: &OwnedFd, relative: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let relative: &[u8] = if relative.is_empty() { b"." } else { relative };
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match openat2(top, relative, flags, Mode::empty(), how) {
            // Without `..` there is nothing to race with, so this comes to an end.
            Err(Errno::AGAIN) => std::thread::yield_now(),
            other => return other,
        }
    }
}

/// What a name costs in memory beside its bytes, about.
pub(crate) const NAME: usize = 48;

/// Goes through the names of a directory in no order, until `each` says that it is enough. The name's kind is the file
/// system's word, which it need not give.
pub(crate) fn names(
    directory: &OwnedFd,
    mut each: impl FnMut(&CStr, FileType) -> Result<ControlFlow<()>, Errno>,
) -> Result<(), Errno> {
    let mut buffer = [const { MaybeUninit::uninit() }; 32 << 10];
    let mut reader = RawDir::new(directory, &mut buffer);
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") && each(name, entry.file_type())?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Looks at what a name stands for, without following it; none if it has vanished.
pub(crate) fn look(directory: &OwnedFd, name: impl rustix::path::Arg) -> Result<Option<Statx>, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match statx(directory, name, flags, WANTED) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// Looks at what is held.
pub(crate) fn look_at(held: &OwnedFd) -> Result<Statx, Errno> {
    statx(held, c"", AtFlags::EMPTY_PATH, WANTED)
}

/// `directory/name` as a relative path.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
