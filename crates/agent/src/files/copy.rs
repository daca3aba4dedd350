//! Moving across mounts: a copy that appears whole at its new place, then the removal of the old.
//!
//! Kept are content (holes stay holes), modes, owners, times of change and links as links. Hard links become files of
//! their own, and access control lists and extended attributes stay behind. A tree that holds a mount point, a device, a FIFO or a
//! socket is refused before anything of it is gone. Such a move begins with all rights that the user has, because it
//! cannot be begun anew in its middle.

use super::error::{FileError, Reason};
use super::root::{Access, FilePath, Place, is_mount_point, kind, name_of};
use super::walk::{Entry, entries, join, open_below};
use super::write::{Pending, temporary_name};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Statx, Timespec, Timestamps, Uid, chownat, fchmod,
    fchown, fstat, ftruncate, futimens, mkdirat, openat, readlinkat, renameat, seek, sendfile, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

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
                copy.tree_into_place(source, &node.stat, &target)?;
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
        let top = openat(parent, name, flags, Mode::empty())?;
        // (directory below the top, whether its entries are gone)
        let mut waiting = vec![(Vec::new(), false)];
        while let Some((at, emptied)) = waiting.pop() {
            if emptied {
                let (above, name) = match at.iter().rposition(|&byte| byte == b'/') {
                    Some(slash) => (&at[..slash], &at[slash + 1..]),
                    None => (&b""[..], &at[..]),
                };
                if !at.is_empty() {
                    unlinkat(open_below(&top, above, OFlags::PATH)?, name, AtFlags::REMOVEDIR)?;
                }
                continue;
            }
            let directory = open_below(&top, &at, OFlags::RDONLY)?;
            let inside = entries(&directory, usize::MAX, |_| true)?.unwrap_or_default();
            waiting.push((at.clone(), true));
            for Entry { name, stat } in inside {
                if self.is_beyond_user(&stat) {
                    return Err(Errno::ACCESS);
                }
                if kind(&stat) == FileType::Directory {
                    waiting.push((join(&at, &name), false));
                } else {
                    unlinkat(&directory, &name, AtFlags::empty())?;
                }
            }
        }
        unlinkat(parent, name, AtFlags::REMOVEDIR)
    }
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

    fn tree_into_place(&self, source: &Place, stat: &Statx, target: &Place) -> Result<(), FileError> {
        let name = temporary_name();
        mkdirat(&target.parent, &name, Mode::RWXU).map_err(|errno| self.at_target(errno))?;
        let done = self.tree(source, stat, &target.parent, &name).and_then(|()| self.settle(target, &name));
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
    fn tree(&self, source: &Place, stat: &Statx, parent: &OwnedFd, name: &[u8]) -> Result<(), FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |parent: &OwnedFd, name: &[u8]| openat(parent, name, flags, Mode::empty());
        let old = open(&source.parent, &source.name).map_err(|errno| self.at_source(errno))?;
        let new = open(parent, name).map_err(|errno| self.at_target(errno))?;
        let mut waiting = vec![(Vec::new(), *stat)];
        let mut made = Vec::new();
        while let Some((at, stat)) = waiting.pop() {
            let from = open_below(&old, &at, OFlags::RDONLY).map_err(|errno| self.at_source(errno))?;
            let to = open_below(&new, &at, OFlags::PATH).map_err(|errno| self.at_target(errno))?;
            made.push((at.clone(), stat));
            let inside = entries(&from, usize::MAX, |_| true).map_err(|errno| self.at_source(errno))?;
            for Entry { name, stat } in inside.unwrap_or_default() {
                let path = join(&at, &name);
                self.check(&path, &stat)?;
                match kind(&stat) {
                    FileType::Directory => {
                        mkdirat(&to, &name, Mode::RWXU).map_err(|errno| self.at_target(errno))?;
                        waiting.push((path, stat));
                    }
                    FileType::Symlink => self.link(&from, &name, &stat, &to, &name)?,
                    _ => self.file(&from, &name, &stat, &to)?,
                }
            }
        }
        // From the leaves up: a directory gets its mode and time when nothing more is put into it.
        for (at, stat) in made.iter().rev() {
            let directory = open_below(&new, at, OFlags::RDONLY).map_err(|errno| self.at_target(errno))?;
            self.metadata(&directory, stat)?;
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
