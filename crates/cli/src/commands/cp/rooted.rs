//! A directory of this machine that names from a sandbox cannot lead out of.

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Neither `..` nor an absolute path nor a link, planted before or during the copy, leaves the directory: the kernel
/// refuses each step out of it (openat2(2)).
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

pub(super) struct Root {
    directory: OwnedFd,
    /// For messages.
    path: PathBuf,
}

/// A file that is being written under a name of its own, until it is whole. Dropped before, it is taken away.
pub(super) struct Place<'a> {
    root: &'a Root,
    parent: OwnedFd,
    temporary: String,
    name: PathBuf,
    finished: bool,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self { directory, path: path.to_owned() })
    }

    /// A directory in this one.
    pub(super) fn enter(&self, relative: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat2(&self.directory, relative, flags, Mode::empty(), INSIDE)
            .with_context(|| format!("enter {}", self.show(relative)))?;
        Ok(Self { directory, path: self.path.join(relative) })
    }

    /// Whether something has this name; a link counts by itself.
    pub(super) fn exists(&self, relative: &Path) -> Result<bool> {
        let (parent, name) = self.parent(relative)?;
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("look at {}", self.show(relative))),
        }
    }

    /// Bytes that are free for this process.
    pub(super) fn free(&self) -> Result<u64> {
        let system = rustix::fs::fstatvfs(&self.directory)
            .with_context(|| format!("ask what is free in {}", self.path.display()))?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn show(&self, relative: &Path) -> String {
        self.path.join(relative).display().to_string()
    }

    /// The directory that holds `relative`, and its last name.
    fn parent<'p>(&self, relative: &'p Path) -> Result<(OwnedFd, &'p Path)> {
        let name = relative.file_name().with_context(|| format!("{} is no name", relative.display()))?;
        let parent = match relative.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat2(&self.directory, parent, flags, Mode::empty(), INSIDE)
            .with_context(|| format!("enter the directory of {}", self.show(relative)))?;
        Ok((parent, Path::new(name)))
    }

    /// Makes a directory that its owner can fill; one that exists is as good.
    pub(super) fn make_dir(&self, relative: &Path) -> Result<()> {
        let (parent, name) = self.parent(relative)?;
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("make {}", self.show(relative))),
        }
    }

    /// Gives a directory its mode.
    pub(super) fn set_mode(&self, relative: &Path, mode: u32) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.directory, relative, flags, Mode::empty(), INSIDE)
            .and_then(|directory| rustix::fs::fchmod(directory, Mode::from_raw_mode(mode)))
            .with_context(|| format!("set the mode of {}", self.show(relative)))
    }

    /// Makes a symbolic link; one that exists is replaced, anything else is not.
    pub(super) fn make_link(&self, target: &str, relative: &Path) -> Result<()> {
        let (parent, name) = self.parent(relative)?;
        let making = || format!("make the link {}", self.show(relative));
        match rustix::fs::symlinkat(target, &parent, name) {
            Err(Errno::EXIST) => {
                rustix::fs::readlinkat(&parent, name, Vec::new()).with_context(making)?;
                rustix::fs::unlinkat(&parent, name, AtFlags::empty()).with_context(making)?;
                rustix::fs::symlinkat(target, &parent, name).with_context(making)
            }
            outcome => outcome.with_context(making),
        }
    }

    /// Begins a file. It takes its name, in place of a file or link that has it, when its [`Place`] is finished.
    pub(super) fn create(&self, relative: &Path, mode: u32) -> Result<(tokio::fs::File, Place<'_>)> {
        let (parent, name) = self.parent(relative)?;
        let temporary = format!(".sandcrab-{:016x}", rand::random::<u64>());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let writing = || format!("write {}", self.show(relative));
        let file = rustix::fs::openat(&parent, temporary.as_str(), flags, Mode::RUSR | Mode::WUSR)
            .with_context(writing)?;
        let place = Place { root: self, parent, temporary, name: name.to_owned(), finished: false };
        // Not at its creation, where the umask would take from it.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).with_context(writing)?;
        Ok((tokio::fs::File::from_std(file.into()), place))
    }
}

impl Place<'_> {
    /// Puts the file, which is whole, in its place.
    pub(super) fn finish(mut self) -> Result<()> {
        rustix::fs::renameat(&self.parent, self.temporary.as_str(), &self.parent, &self.name)
            .with_context(|| format!("put {} in place", self.root.show(&self.name)))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // What made the copy end is the failure to tell of.
            _ = rustix::fs::unlinkat(&self.parent, self.temporary.as_str(), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Root, name: &str) -> Result<()> {
        let (_, place) = root.create(Path::new(name), 0o640)?;
        place.finish()
    }

    #[tokio::test]
    async fn b01_a_name_from_a_sandbox_never_leads_out_of_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.join("link")).unwrap();
        let root = Root::open(&inside).unwrap();
        let absolute = outside.path().join("x");
        for name in ["../x", "link/x", absolute.to_str().unwrap(), "a/../../x", ".."] {
            assert!(write(&root, name).is_err(), "{name}");
            assert!(root.make_dir(Path::new(name)).is_err(), "{name}");
            assert!(root.make_link("/etc", Path::new(name)).is_err(), "{name}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        // The same calls succeed where they may.
        root.make_dir(Path::new("a")).unwrap();
        write(&root, "a/x").unwrap();
        root.make_link("x", Path::new("a/y")).unwrap();
        root.make_link("z", Path::new("a/y")).unwrap();
        assert_eq!(std::fs::read_link(inside.join("a/y")).unwrap(), Path::new("z"));
    }

    #[tokio::test]
    async fn a_link_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        std::fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(&Root::open(directory.path()).unwrap(), "link").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "kept");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[tokio::test]
    async fn a_file_that_is_not_whole_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        drop(root.create(Path::new("x"), 0o600).unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
