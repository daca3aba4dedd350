//! Making, removing and moving names.

use super::error::{FileError, Reason};
use super::root::{Access, FilePath, Last, Need, Place, is_mount_point, kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Mode of directories that the API makes, unless it is told another.
const NEW_DIRECTORY: u32 = 0o755;

impl Access<'_> {
    /// Whether something stands at a path; a link counts by what it points to.
    pub(crate) fn exists(&self, path: &FilePath) -> Result<bool, FileError> {
        match self.node(path) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.reason, Reason::Kernel(Errno::NOENT | Errno::NOTDIR)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory; with `recursive` also what is missing above it, and one that exists is fine.
    pub(crate) fn mkdir(&self, path: &FilePath, recursive: bool, mode: Option<u32>) -> Result<(), FileError> {
        let exists = || path.fail(Reason::Kernel(Errno::EXIST));
        let is_directory = || self.directory(path, &path.full, Need::Search);
        let Some((above, name)) = path.split() else {
            return is_directory().and_then(|_| if recursive { Ok(()) } else { Err(exists()) });
        };
        let parent = match self.directory(path, above, Need::Change) {
            Err(error) if recursive && error.reason == Reason::Kernel(Errno::NOENT) => {
                self.make_directories(path, above)?;
                self.directory(path, above, Need::Change)?
            }
            other => other?,
        };
        match mkdirat(&parent, name, Mode::from_raw_mode(NEW_DIRECTORY)) {
            Ok(()) => {}
            Err(Errno::EXIST) if recursive => {
                return match is_directory() {
                    Err(error) if matches!(error.reason, Reason::Kernel(Errno::NOTDIR | Errno::NOENT)) => {
                        Err(exists())
                    }
                    other => other.map(drop),
                };
            }
            Err(errno) => return Err(path.fail(Reason::Kernel(errno))),
        }
        // mkdirat's mode is less the agent's umask, and group folders hand their setgid bit down.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&parent, name, flags, Mode::empty()).map_err(path.kernel())?;
        let now = fstat(&made).map_err(path.kernel())?.st_mode;
        let wanted = (now & 0o7000) | mode.unwrap_or(NEW_DIRECTORY);
        if now & 0o7777 != wanted {
            fchmod(&made, Mode::from_raw_mode(wanted)).map_err(path.kernel())?;
        }
        Ok(())
    }

    /// Removes a file or a link, not what the link points to. A directory is refused.
    pub(crate) fn delete(&self, path: &FilePath) -> Result<(), FileError> {
        let (place, _) = self.existing(path).map_err(|error| match error.reason {
            Reason::IsDirectory => path.fail(Reason::DirectoryToDelete),
            _ => error,
        })?;
        if path.full.ends_with(b"/") {
            // Such a path means a directory, be it through a link.
            self.directory(path, &path.full, Need::Search)?;
            return Err(path.fail(Reason::DirectoryToDelete));
        }
        match unlinkat(&place.parent, &place.name, AtFlags::empty()) {
            Err(Errno::ISDIR) => Err(path.fail(Reason::DirectoryToDelete)),
            other => other.map_err(path.kernel()),
        }
    }

    /// Gives a file, link or directory another path. What stands there is replaced, but a directory.
    pub(crate) fn rename(&self, from: &FilePath, to: &FilePath) -> Result<(), FileError> {
        let (source, kind) = self.existing(from)?;
        let target = self.free_place(to)?;
        self.put(&source, kind, from, target, to)
    }

    /// As [`Self::rename`], but into a directory that stands at `to`, under the old name.
    pub(crate) fn move_to(&self, from: &FilePath, to: &FilePath) -> Result<(), FileError> {
        let (source, kind) = self.existing(from)?;
        let inside = match self.node(to) {
            Ok(node) => super::root::kind(&node.stat) == FileType::Directory,
            Err(error) if error.reason == Reason::Kernel(Errno::NOENT) => false,
            Err(error) => return Err(error),
        };
        if !inside {
            let target = self.free_place(to)?;
            return self.put(&source, kind, from, target, to);
        }
        let to = FilePath { asked: to.asked.clone(), full: [&to.full, &b"/"[..], &source.name].concat() };
        let target = self.free_place(&to)?;
        self.put(&source, kind, from, target, &to)
    }

    /// A place where something is that may be taken away.
    fn existing(&self, path: &FilePath) -> Result<(Place, FileType), FileError> {
        if path.split().is_none() {
            self.directory(path, &path.full, Need::Search)?;
            return Err(path.fail(Reason::IsDirectory));
        }
        let place = self.place(path, Last::Keep, Need::Change)?;
        let node = place.node.as_ref().ok_or_else(|| path.fail(Reason::Kernel(Errno::NOENT)))?;
        self.vet_node(&place, path)?;
        if is_mount_point(&node.stat) {
            return Err(path.fail(Reason::MountPoint));
        }
        let kind = kind(&node.stat);
        Ok((place, kind))
    }

    /// A place that is free, or taken by something that may be replaced.
    fn free_place(&self, path: &FilePath) -> Result<Place, FileError> {
        if path.split().is_none() {
            self.directory(path, &path.full, Need::Search)?;
            return Err(path.fail(Reason::DirectoryInTheWay));
        }
        let place = self.place(path, Last::Keep, Need::Change)?;
        self.vet_node(&place, path)?;
        match &place.node {
            Some(node) if kind(&node.stat) == FileType::Directory => {
                Err(path.fail(Reason::DirectoryInTheWay))
            }
            Some(node) if is_mount_point(&node.stat) => Err(path.fail(Reason::MountPoint)),
            _ => Ok(place),
        }
    }

    fn put(
        &self,
        source: &Place,
        kind: FileType,
        from: &FilePath,
        target: Place,
        to: &FilePath,
    ) -> Result<(), FileError> {
        if to.full.ends_with(b"/") && kind != FileType::Directory {
            return Err(to.fail(Reason::Kernel(Errno::NOTDIR)));
        }
        match renameat(&source.parent, &source.name, &target.parent, &target.name) {
            Ok(()) => self.drop_second_name(source, &target, from),
            // Another mount; or, on an overlay without redirect_dir, a directory of a lower layer.
            Err(Errno::XDEV) => self.copy_and_delete(source, from, target, to),
            // A directory into itself. All other names of EINVAL were ruled out before.
            Err(Errno::INVAL) => Err(to.fail(Reason::IntoItself)),
            Err(errno @ (Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR)) => {
                Err(to.fail(Reason::Kernel(errno)))
            }
            Err(errno) => Err(from.fail(Reason::Kernel(errno))),
        }
    }

    /// Where both names were links to one file, the kernel leaves both (rename(2)); the old one has to go.
    fn drop_second_name(&self, source: &Place, target: &Place, from: &FilePath) -> Result<(), FileError> {
        let (Some(old), Some(new)) = (&source.node, &target.node) else { return Ok(()) };
        let id = |stat: &rustix::fs::Statx| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        if id(&old.stat) != id(&new.stat) {
            return Ok(());
        }
        let (a, b) = (fstat(&source.parent), fstat(&target.parent));
        let (a, b) = (a.map_err(from.kernel())?, b.map_err(from.kernel())?);
        if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) && source.name == target.name {
            return Ok(());
        }
        match unlinkat(&source.parent, &source.name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(from.kernel()),
        }
    }
}
