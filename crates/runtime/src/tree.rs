//! Removing a tree that a sandbox made: as deep and as wide as its disk allows, with directories that may not be read.
//!
//! Goes down and up by descriptors, of which there is a fixed number at a time, and keeps nothing in memory for each level:
//! neither the depth nor the length of a path bounds it. Nothing may live in the tree any more.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// What a tree is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Files and directories.
    Files,
    /// Directories with files that go with them, as in the kernel's control groups.
    Groups,
}

/// Removes a directory with all that is in it. What does not exist is an error.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    remove_of(dir, Kind::Files)
}

/// As [`remove`], for a tree of any kind.
pub(crate) fn remove_of(dir: &Path, kind: Kind) -> io::Result<()> {
    match rustix::fs::rmdir(dir) {
        Err(error) if is_not_empty(error) => {}
        removed => return removed.map_err(Into::into),
    }
    let top = open(rustix::fs::CWD, dir)?;
    Removal { kind, device: rustix::fs::fstat(&top)?.st_dev }.empty(top)?;
    rustix::fs::rmdir(dir).map_err(Into::into)
}

/// Removes what is at a path, a directory or not.
pub(crate) fn remove_any(path: &Path) -> io::Result<()> {
    match rustix::fs::unlink(path) {
        // POSIX says EPERM of a directory, Linux EISDIR.
        Err(Errno::ISDIR | Errno::PERM) if path.is_dir() => remove(path),
        removed => removed.map_err(Into::into),
    }
}

/// A group with others in it is busy.
fn is_not_empty(error: Errno) -> bool {
    matches!(error, Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY)
}

/// Opens a directory to list it and to remove what is in it, which its owner may have forbidden to itself.
fn open<P: rustix::path::Arg + Copy>(at: impl std::os::fd::AsFd, name: P) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&at, name, flags, Mode::empty());
    let dir = match open() {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&at, name, Mode::RWXU, AtFlags::empty())?;
            open()?
        }
        dir => dir?,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&dir)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        rustix::fs::fchmod(&dir, Mode::RWXU)?;
    }
    Ok(dir)
}

/// Directories that are open at once, each with its place in its list. To come back to one that is not is to list it from the
/// beginning, past all that was removed from it, which a directory of many others would pay for with each of them.
const OPEN: usize = 32;

/// A directory that is being emptied.
struct Level {
    entries: Dir,
    /// The directory in it that is being emptied first.
    below: Option<CString>,
    has_changed: bool,
}

impl Level {
    fn of(dir: OwnedFd) -> io::Result<Self> {
        Ok(Self { entries: Dir::new(dir)?, below: None, has_changed: false })
    }

    /// Takes an empty directory or a file out.
    fn take(&mut self, name: &CStr, flags: AtFlags) -> io::Result<()> {
        gone(rustix::fs::unlinkat(self.entries.fd()?, name, flags))?;
        self.has_changed = true;
        Ok(())
    }
}

struct Removal {
    kind: Kind,
    device: u64,
}

impl Removal {
    fn empty(&self, top: OwnedFd) -> io::Result<()> {
        let mut levels = VecDeque::from([Level::of(top)?]);
        // Those above them, which are not open.
        let mut above = 0_u64;
        while let Some(mut level) = levels.pop_back() {
            if let Some(child) = self.next_below(&mut level)? {
                levels.push_back(level);
                if levels.len() == OPEN {
                    levels.pop_front();
                    above += 1;
                }
                levels.push_back(Level::of(child)?);
                continue;
            }
            let is_top = levels.is_empty() && above == 0;
            if !level.has_changed && !is_top {
                // Going down and up again for ever would be the other way to take this.
                return Err(Errno::NOTEMPTY.into());
            }
            if levels.is_empty() && above > 0 {
                above -= 1;
                levels.push_back(Level::of(open(level.entries.fd()?, c"..")?)?);
            } else if let Some(parent) = levels.back_mut()
                && let Some(name) = parent.below.take()
            {
                parent.take(&name, AtFlags::REMOVEDIR)?;
            }
        }
        Ok(())
    }

    /// Removes what can be removed at once, until there is a directory with something in it.
    fn next_below(&self, level: &mut Level) -> io::Result<Option<OwnedFd>> {
        while let Some(entry) = level.entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if !is_dir(level.entries.fd()?, name, entry.file_type())? {
                if self.kind == Kind::Files {
                    level.take(name, AtFlags::empty())?;
                }
                continue;
            }
            match rustix::fs::unlinkat(level.entries.fd()?, name, AtFlags::REMOVEDIR) {
                Err(error) if is_not_empty(error) => {
                    let child = open(level.entries.fd()?, name)?;
                    if rustix::fs::fstat(&child)?.st_dev != self.device {
                        // Something is mounted there: it is not part of the tree.
                        return Err(Errno::XDEV.into());
                    }
                    level.below = Some(name.to_owned());
                    return Ok(Some(child));
                }
                removed => gone(removed)?,
            }
            level.has_changed = true;
        }
        Ok(None)
    }
}

/// Another server removes old images as well.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn is_dir(here: BorrowedFd<'_>, name: &CStr, kind: FileType) -> io::Result<bool> {
    Ok(match kind {
        FileType::Unknown => {
            let stat = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW)?;
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        }
        kind => kind == FileType::Directory,
    })
}

/// Has what is in a directory survive a power cut: names that were made and names that were removed.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A chain of directories below `top`, made without a path that names it whole.
    fn chain(top: &Path, depth: usize) {
        let mut here = File::open(top).unwrap().into();
        for level in 0..depth {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            if level % 1000 == 0 {
                rustix::fs::symlinkat("/etc", &here, "link").unwrap();
            }
            here = open(&here, c"d").unwrap();
        }
    }

    /// On the stack of a thread of the server's, which std's own removal overflows, and with few descriptors.
    #[test]
    fn e15_a_tree_of_any_depth_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        chain(&top, 20_000);
        let removing = top.clone();
        let removed = std::thread::Builder::new().stack_size(128 << 10).spawn(move || remove(&removing));
        removed.unwrap().join().unwrap().unwrap();
        assert!(!top.exists());
        assert!(Path::new("/etc/passwd").exists());
    }

    /// Neither is the width paid for twice, nor that of a directory far below.
    #[test]
    fn e15_a_wide_tree_is_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        let wide = (0..OPEN + 3).fold(top.clone(), |path, _| path.join("d"));
        for parent in [&top, &wide] {
            for n in 0..300 {
                fs::create_dir_all(parent.join(format!("n{n}/a/b"))).unwrap();
                fs::write(parent.join(format!("n{n}/a/file")), "").unwrap();
            }
        }
        let device = rustix::fs::stat(&top).unwrap().st_dev;
        let removal = Removal { kind: Kind::Files, device };
        let mut level = Level::of(open(rustix::fs::CWD, top.as_path()).unwrap()).unwrap();
        let mut seen = 0;
        while let Some(child) = removal.next_below(&mut level).unwrap() {
            removal.empty(child).unwrap();
            let name = level.below.take().unwrap();
            level.take(&name, AtFlags::REMOVEDIR).unwrap();
            seen += 1;
        }
        assert_eq!(seen, 301, "each directory is found once, without listing from the beginning");
        assert!(fs::read_dir(&top).unwrap().next().is_none());
        remove(&top).unwrap();
    }

    #[test]
    fn a_tree_is_removed_with_all_kinds_of_entries_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (top, beside) = (dir.path().join("top"), dir.path().join("beside"));
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir(&beside).unwrap();
        fs::write(beside.join("kept"), "").unwrap();
        symlink(&beside, top.join("a/link")).unwrap();
        symlink("nowhere", top.join("a/b/dangling")).unwrap();
        for n in 0..3000 {
            fs::create_dir(top.join(format!("a/n{n}"))).unwrap();
            fs::write(top.join(format!("a/n{n}/file")), "x").unwrap();
        }
        for (path, mode) in [("a/b/c", 0), ("a/b", 0o500), ("a", 0o300)] {
            fs::set_permissions(top.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        remove(&top).unwrap();
        assert!(!top.exists() && beside.join("kept").exists());
        assert_eq!(remove(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
        remove_any(&beside.join("kept")).unwrap();
        remove_any(&beside).unwrap();
        symlink(dir.path(), dir.path().join("link")).unwrap();
        assert!(remove(&dir.path().join("link")).is_err(), "a link is not followed");
        remove_any(&dir.path().join("link")).unwrap();
        assert!(dir.path().exists());
    }
}
