//! Moving across mounts: a copy that appears whole at its new place, then the removal of the old.
//!
//! Kept are content (holes stay holes), modes, owners, times of change and links as links. Hard links become files of
//! their own, and access control lists and extended attributes stay behind. A tree that holds a mount point, a device, a FIFO or a
//! socket is refused before anything of it is gone. Such a move begins with all rights that the user has, because it
//! cannot be begun anew in its middle.

use super::error::{FileError, Reason};
use super::root::{Access, FilePath, Place, is_mount_point, kind, name_of};
use super::walk::{NAME, join, look, look_at, names, open_below};
use super::write::{Pending, temporary_name};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Statx, Timespec, Timestamps, Uid, chownat, fchmod,
    fchown, fstat, ftruncate, futimens, mkdirat, openat, readlinkat, renameat, seek, sendfile, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ops::ControlFlow;

/// Directories of one directory that are emptied before it is looked through again.
const BATCH: usize = 256;
/// How many names are looked at to remove a tree: somebody may add to it as fast as it is removed.
const MOST_REMOVED: u32 = 20_000_000;
/// What a move may hold for directories that wait to be copied, in bytes: ten thousand siblings with long paths.
const MAX_WAITING: usize = 4 << 20;

impl Access<'_> {
    /// Moves what stands at `source` to `target` on another mount.
    pub(crate) fn copy_and_delete(
        &self,
        source: &Place,
        from: &FilePath,
        target: Place,
        to: &FilePath,
    ) -> Result<(), FileError> {
        if self.may_more() {
            return Err(from.fail(Reason::Kernel(Errno::ACCESS)));
        }
        let Some(node) = &source.node else { return Err(from.fail(Reason::Kernel(Errno::NOENT))) };
        let copy = Transfer { access: self, from, to };
        match kind(&node.stat) {
            FileType::RegularFile => copy.file_into_place(source, &node.stat, target)?,
            FileType::Symlink => {
                let name = temporary_name();
                copy.link(&source.parent, &source.name, &node.stat, &target.parent, &name)?;
                copy.settle(&target, &name)?;
            }
            FileType::Directory => {
                if target.node.is_some() {
                    return Err(to.fail(Reason::Kernel(Errno::NOTDIR)));
                }
                copy.refuse_inside(&node.stat, &target.parent)?;
                copy.tree_into_place(source, &target)?;
            }
            other => return Err(from.fail(Reason::Special(name_of(other)))),
        }
        let removed = if kind(&node.stat) == FileType::Directory {
            self.remove_tree(&source.parent, &source.name)
        } else {
            unlinkat(&source.parent, &source.name, AtFlags::empty())
        };
        removed.map_err(|errno| from.fail(Reason::LeftBehind(errno)))
    }

    /// Removes a directory and all below it. What is added meanwhile stays and makes it fail.
    pub(crate) fn remove_tree(&self, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.empty(&openat(parent, name, flags, Mode::empty())?)?;
        unlinkat(parent, name, AtFlags::REMOVEDIR)
    }

    /// Removes all that is in a directory. Holds a part of the directories' names, however many there are.
    pub(crate) fn empty(&self, top: &OwnedFd) -> Result<(), Errno> {
        // The directories that are to be emptied, each in one before; and whether all of its own were seen.
        let mut waiting = vec![(Vec::new(), false)];
        let mut left = MOST_REMOVED;
        while let Some((at, seen)) = waiting.pop() {
            let directory = open_below(top, &at, OFlags::RDONLY)?;
            if seen && !at.is_empty() {
                // Unless there are more in it, it is empty now.
                let (above, name) = match at.iter().rposition(|&byte| byte == b'/') {
                    Some(slash) => (&at[..slash], &at[slash + 1..]),
                    None => (&b""[..], &at[..]),
                };
                match unlinkat(open_below(top, above, OFlags::PATH)?, name, AtFlags::REMOVEDIR) {
                    Ok(()) => continue,
                    Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
            let (mut inside, mut removed) = (Vec::new(), false);
            names(&directory, |name, _| {
                let Some(stat) = look(&directory, name)? else { return Ok(ControlFlow::Continue(())) };
                if self.is_beyond_user(&stat) {
                    return Err(Errno::ACCESS);
                }
                left = left.checked_sub(1).ok_or(Errno::NOTEMPTY)?;
                if kind(&stat) == FileType::Directory {
                    inside.push(name.to_bytes().to_vec());
                } else {
                    unlinkat(&directory, name, AtFlags::empty())?;
                    removed = true;
                }
                Ok(if inside.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            if seen && inside.is_empty() && !removed {
                // The top, which stays; or nothing that could be seen is in the way.
                return if at.is_empty() { Ok(()) } else { Err(Errno::NOTEMPTY) };
            }
            // Once more behind its own: a directory may show no more of what was in it as it is changed.
            waiting.push((at.clone(), true));
            waiting.extend(inside.iter().map(|name| (join(&at, name), false)));
        }
        Ok(())
    }
}

/// A directory of a tree that is copied.
struct Copied {
    at: Vec<u8>,
    /// What is in it has been copied, or waits behind this.
    entered: bool,
}

/// One move in its copying half.
struct Transfer<'a> {
    access: &'a Access<'a>,
    from: &'a FilePath,
    to: &'a FilePath,
}

impl Transfer<'_> {
    fn at_source(&self, errno: Errno) -> FileError {
        self.from.fail(Reason::Kernel(errno))
    }

    fn at_target(&self, errno: Errno) -> FileError {
        self.to.fail(Reason::Kernel(errno))
    }

    fn file_into_place(&self, source: &Place, stat: &Statx, target: Place) -> Result<(), FileError> {
        let owner = (stat.stx_uid, stat.stx_gid);
        let mode = u32::from(stat.stx_mode) & 0o7777;
        let mut pending = Pending::new(self.access, self.to, target, mode, Some(owner))?;
        let copied = self
            .content(&source.parent, &source.name, stat, pending.file())
            .and_then(|()| self.access.commit_write(&mut pending))
            .and_then(|()| futimens(pending.file(), &times(stat)).map_err(|errno| self.at_target(errno)));
        if copied.is_err()
            && let Err(error) = self.access.abandon_write(&mut pending)
        {
            tracing::warn!(%error, "a temporary file is left over");
        }
        copied
    }

    fn tree_into_place(&self, source: &Place, target: &Place) -> Result<(), FileError> {
        let name = temporary_name();
        mkdirat(&target.parent, &name, Mode::RWXU).map_err(|errno| self.at_target(errno))?;
        let done = self.tree(source, &target.parent, &name).and_then(|()| self.settle(target, &name));
        if done.is_err() {
            self.discard(self.access.remove_tree(&target.parent, &name));
        }
        done
    }

    /// Gives a finished copy its name.
    fn settle(&self, target: &Place, name: &[u8]) -> Result<(), FileError> {
        let settled = renameat(&target.parent, name, &target.parent, &target.name);
        settled.map_err(|errno| {
            if let Err(error) = unlinkat(&target.parent, name, AtFlags::empty())
                && error != Errno::ISDIR
            {
                self.discard(Err(error));
            }
            self.at_target(errno)
        })
    }

    /// The tree below `source` into the new, empty directory `name`.
    fn tree(&self, source: &Place, parent: &OwnedFd, name: &[u8]) -> Result<(), FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |parent: &OwnedFd, name: &[u8]| openat(parent, name, flags, Mode::empty());
        let old = open(&source.parent, &source.name).map_err(|errno| self.at_source(errno))?;
        let new = open(parent, name).map_err(|errno| self.at_target(errno))?;
        let mut waiting = vec![Copied { at: Vec::new(), entered: false }];
        let mut held = 0;
        while let Some(Copied { at, entered }) = waiting.pop() {
            if entered {
                // A directory gets its mode and time when nothing more is put into it.
                let directory =
                    open_below(&new, &at, OFlags::RDONLY).map_err(|errno| self.at_target(errno))?;
                let from = open_below(&old, &at, OFlags::PATH).map_err(|errno| self.at_source(errno))?;
                let stat = look_at(&from).map_err(|errno| self.at_source(errno))?;
                self.metadata(&directory, &stat)?;
                continue;
            }
            held -= at.len();
            let from = open_below(&old, &at, OFlags::RDONLY).map_err(|errno| self.at_source(errno))?;
            let to = open_below(&new, &at, OFlags::PATH).map_err(|errno| self.at_target(errno))?;
            waiting.push(Copied { at: at.clone(), entered: true });
            let mut failed = None;
            names(&from, |name, _| {
                let Some(stat) = look(&from, name)? else { return Ok(ControlFlow::Continue(())) };
                let name = name.to_bytes();
                let path = join(&at, name);
                let done = self.check(&path, &stat).and_then(|()| match kind(&stat) {
                    FileType::Directory => {
                        mkdirat(&to, name, Mode::RWXU).map_err(|errno| self.at_target(errno))?;
                        held += path.len();
                        if held + waiting.len() * NAME > MAX_WAITING {
                            return Err(self.from.fail(Reason::TooManyDirectories));
                        }
                        waiting.push(Copied { at: path, entered: false });
                        Ok(())
                    }
                    FileType::Symlink => self.link(&from, name, &stat, &to, name),
                    _ => self.file(&from, name, &stat, &to),
                });
                Ok(match done {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                })
            })
            .map_err(|errno| self.at_source(errno))?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Refuses what a move could not take along, or the user may not.
    fn check(&self, relative: &[u8], stat: &Statx) -> Result<(), FileError> {
        let fail = |reason| {
            Err(FileError::new(&self.from.asked, &[&self.from.full, &b"/"[..], relative].concat(), reason))
        };
        if is_mount_point(stat) {
            return fail(Reason::MountPoint);
        }
        if self.access.is_beyond_user(stat) {
            return fail(Reason::Kernel(Errno::ACCESS));
        }
        match kind(stat) {
            FileType::RegularFile | FileType::Directory | FileType::Symlink => Ok(()),
            other => fail(Reason::Special(name_of(other))),
        }
    }

    fn file(&self, from: &OwnedFd, name: &[u8], stat: &Statx, to: &OwnedFd) -> Result<(), FileError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = openat(to, name, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| self.at_target(errno))?;
        self.content(from, name, stat, &new)?;
        self.metadata(&new, stat)
    }

    fn content(&self, from: &OwnedFd, name: &[u8], stat: &Statx, new: &OwnedFd) -> Result<(), FileError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let old = openat(from, name, flags, Mode::empty()).map_err(|errno| self.at_source(errno))?;
        let now = fstat(&old).map_err(|errno| self.at_source(errno))?;
        // Swapped since it was looked at, perhaps for a FIFO.
        if (now.st_ino, FileType::from_raw_mode(now.st_mode)) != (stat.stx_ino, FileType::RegularFile) {
            return Err(self.from.fail(Reason::Unsteady));
        }
        let size = now.st_size.cast_unsigned();
        ftruncate(new, size).map_err(|errno| self.at_target(errno))?;
        let mut at = 0;
        while at < size {
            let (start, end) = match seek(&old, SeekFrom::Data(at)) {
                Ok(start) => {
                    (start, seek(&old, SeekFrom::Hole(start)).map_err(|errno| self.at_source(errno))?)
                }
                // Only a hole is left.
                Err(Errno::NXIO) => break,
                // A file system without holes.
                Err(Errno::INVAL) => (at, size),
                Err(errno) => return Err(self.at_source(errno)),
            };
            seek(new, SeekFrom::Start(start)).map_err(|errno| self.at_target(errno))?;
            at = start;
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
                match sendfile(new, &old, Some(&mut at), most) {
                    Ok(0) => return Err(self.from.fail(Reason::Shrank)),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(self.at_target(errno)),
                }
            }
        }
        Ok(())
    }

    fn link(
        &self,
        from: &OwnedFd,
        name: &[u8],
        stat: &Statx,
        to: &OwnedFd,
        new_name: &[u8],
    ) -> Result<(), FileError> {
        let text = readlinkat(from, name, Vec::new()).map_err(|errno| self.at_source(errno))?;
        let target = |errno| self.at_target(errno);
        symlinkat(text.as_c_str(), to, new_name).map_err(target)?;
        if let Some((uid, gid)) = self.owner(stat) {
            chownat(to, new_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(target)?;
        }
        utimensat(to, new_name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).map_err(target)
    }

    fn metadata(&self, new: &OwnedFd, stat: &Statx) -> Result<(), FileError> {
        let target = |errno| self.at_target(errno);
        if let Some((uid, gid)) = self.owner(stat) {
            fchown(new, Some(uid), Some(gid)).map_err(target)?;
        }
        fchmod(new, Mode::from_raw_mode(u32::from(stat.stx_mode) & 0o7777)).map_err(target)?;
        futimens(new, &times(stat)).map_err(target)
    }

    fn owner(&self, stat: &Statx) -> Option<(Uid, Gid)> {
        let differs = (stat.stx_uid, stat.stx_gid) != (self.access.identity.uid, self.access.identity.gid);
        differs.then(|| (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid)))
    }

    /// A directory cannot go below itself, also not by way of another mount.
    fn refuse_inside(&self, source: &Statx, parent: &OwnedFd) -> Result<(), FileError> {
        if self.access.is_below(parent, source).map_err(|errno| self.at_target(errno))? {
            return Err(self.to.fail(Reason::IntoItself));
        }
        Ok(())
    }

    fn discard(&self, removed: Result<(), Errno>) {
        if let Err(errno) = removed {
            tracing::warn!(%errno, path = %self.to.asked.escape_debug(), "an unfinished copy is left over");
        }
    }
}

fn times(stat: &Statx) -> Timestamps {
    let time = |of: &rustix::fs::StatxTimestamp| Timespec { tv_sec: of.tv_sec, tv_nsec: of.tv_nsec.into() };
    Timestamps { last_access: time(&stat.stx_atime), last_modification: time(&stat.stx_mtime) }
}
