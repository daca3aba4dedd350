//! The sandbox's files, as the launch stage reaches them.
//!
//! When a sandbox starts again they are what hostile code has left there. Each path is resolved by the kernel from the
//! root's descriptor, never from a path of this process: a link leads nowhere but into the sandbox itself, and the
//! links of procfs, which lead anywhere, are not followed.

use super::execute::{Reason, StepResult};
use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Owner and mode of what is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// The new root, a mount: first to be filled, later the root of this process.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

fn relative(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

impl Root {
    pub(super) fn new(mount: OwnedFd) -> Self {
        Self(mount)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens a path as a place to mount on or to make something in. Where a link lies on the way: ELOOP.
    pub(super) fn place(&self, path: &Path) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(&self.0, relative(path), flags, Mode::empty(), resolve)?)
    }

    /// The same for what may not be there.
    pub(super) fn place_if_any(&self, path: &Path) -> StepResult<Option<OwnedFd>> {
        match self.place(path) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that holds a path, and the last name.
    pub(super) fn parent_of(&self, path: &Path) -> StepResult<(OwnedFd, PathBuf)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Reason::Words(format!("{} has no parent", path.display())));
        };
        Ok((self.place(parent)?, name.into()))
    }

    /// Makes a directory that is missing, and those above it. What exists belongs to the sandbox and stays as it is,
    /// its own links are followed inside it. Where its files leave no way or no room for the directory, it goes without:
    /// says why.
    pub(super) fn directory(&self, path: &Path, owner: Owner) -> StepResult<Option<Errno>> {
        let path = relative(path);
        let ancestors: Vec<&Path> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
        let mut parent = self.place(Path::new("/"))?;
        for directory in ancestors.into_iter().rev() {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            parent = match rustix::fs::openat2(&self.0, directory, flags, Mode::empty(), resolve) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    let name = Path::new(directory.file_name().unwrap_or_default());
                    let mode = if directory == path { owner.mode } else { 0o755 };
                    match make_directory(parent.as_fd(), name, Owner { mode, ..owner }) {
                        Ok(made) => made,
                        // A link that leads to nothing: it is not ours to say what was meant.
                        Err(error @ (Errno::EXIST | Errno::NOSPC | Errno::DQUOT)) => return Ok(Some(error)),
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error @ (Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG)) => return Ok(Some(error)),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(None)
    }

    /// Creates and removes a file. A disk without room is writable all the same.
    pub(super) fn prove_writable(&self) -> StepResult {
        let name = format!(".writable-{:016x}", rand::random::<u64>());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, &name, flags, Mode::RUSR) {
            Ok(_) => Ok(rustix::fs::unlinkat(&self.0, &name, rustix::fs::AtFlags::empty())?),
            Err(Errno::NOSPC | Errno::DQUOT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes a directory and opens it.
pub(super) fn make_directory(
    parent: BorrowedFd<'_>,
    name: &Path,
    owner: Owner,
) -> rustix::io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    let directory = open_directory(parent, name)?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(owner.mode))?;
    rustix::fs::fchown(&directory, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    Ok(directory)
}

/// Opens a directory by its name, which must not be a link.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}
