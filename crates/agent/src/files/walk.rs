//! Going through a tree of directories by fds, so that nothing that is swapped meanwhile leads out of it.
//!
//! Directories are reached from the tree's top by their relative path, resolved with `RESOLVE_BENEATH` and without
//! any link; so a tree of any depth costs two fds.

use super::root::WANTED;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags, Statx, openat2, statx};
use rustix::io::Errno;
use std::mem::MaybeUninit;

/// One name of a directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) stat: Statx,
}

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

/// The entries of a directory by name, each looked at and none followed; at most `most`, else `None`. Names that
/// `wanted` refuses are left out; what vanishes meanwhile is too.
pub(crate) fn entries(
    directory: &OwnedFd,
    most: usize,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Option<Vec<Entry>>, Errno> {
    let mut buffer = [const { MaybeUninit::uninit() }; 32 << 10];
    let mut reader = RawDir::new(directory, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || !wanted(name.to_bytes()) {
            continue;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = match statx(directory, name, flags, WANTED) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if entries.len() == most {
            return Ok(None);
        }
        entries.push(Entry { name: name.to_bytes().to_vec(), stat });
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(entries))
}

/// `directory/name` as a relative path.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
