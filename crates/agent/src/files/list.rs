//! Listing directories.

use super::error::{FileError, Reason};
use super::root::{Access, FilePath, kernel_file_system, kind};
use super::walk::{NAME, join, look, names, open_below};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType as Kind, OFlags, StatVfsMountFlags, Statx, fstatvfs};
use rustix::io::Errno;
use sandcrab_api::files::{FileInfo, FileType, Permissions};
use sandcrab_api::limits;
use sandcrab_api::time::Timestamp;
use std::ops::ControlFlow;

/// A directory that is being listed.
struct Level {
    /// What is still to come, the next one last.
    names: Vec<Box<[u8]>>,
    read_only: bool,
    /// How long the path of the directory is.
    path: usize,
}

/// A listing on its way.
struct Listing<'a, F> {
    path: &'a FilePath,
    hidden: bool,
    /// The directories that have begun, each in the one before.
    levels: Vec<Level>,
    /// Bytes of their names, and how many there are.
    waiting: (usize, usize),
    found: usize,
    each: F,
}

impl<F: FnMut(FileInfo, usize) -> Result<(), Reason>> Listing<'_, F> {
    fn enter(&mut self, directory: &OwnedFd, path: usize) -> Result<(), Enter> {
        let read_only = fstatvfs(directory)?.f_flag.contains(StatVfsMountFlags::RDONLY);
        let (hidden, room) = (self.hidden, limits::MAX_LIST_ENTRIES - self.found);
        let mut inside: Vec<Box<[u8]>> = Vec::new();
        let (bytes, count) = &mut self.waiting;
        names(directory, |name, _| {
            let name = name.to_bytes();
            if !hidden && name.first() == Some(&b'.') {
                return Ok(ControlFlow::Continue(()));
            }
            *bytes += name.len() + NAME;
            *count += 1;
            inside.push(name.into());
            Ok(if *count > room { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if *count > room {
            return Err(Enter::TooMany);
        }
        inside.sort_unstable_by(|a, b| b.cmp(a));
        self.levels.push(Level { names: inside, read_only, path });
        Ok(())
    }

    /// Gives up what is left of the directory that is listed.
    fn leave(&mut self) {
        let left = self.levels.pop().map_or_else(Vec::new, |level| level.names);
        self.waiting.0 -= left.iter().map(|name| name.len() + NAME).sum::<usize>();
        self.waiting.1 -= left.len();
    }

    fn found(&mut self, entry: FileInfo) -> Result<(), FileError> {
        self.found += 1;
        (self.each)(entry, self.waiting.0).map_err(|reason| self.path.fail(reason))
    }
}

/// Why a directory was not entered.
enum Enter {
    TooMany,
    Kernel(Errno),
}

impl From<Errno> for Enter {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl Access<'_> {
    /// The entries of a directory: by name, and with `recursive` those of a directory right after it. `each` gets them, and
    /// how many bytes are held for those that are still to come.
    ///
    /// Directories below that the user may not read, and the kernel's own file systems, are listed and not entered. Memory
    /// and descriptors do not grow with the tree: only the names of the directories on the way to where it is are held.
    pub(crate) fn list(
        &self,
        path: &FilePath,
        recursive: bool,
        hidden: bool,
        each: impl FnMut(FileInfo, usize) -> Result<(), Reason>,
    ) -> Result<(), FileError> {
        let node = self.node(path)?;
        if kind(&node.stat) != Kind::Directory {
            return Err(path.fail(Reason::Kernel(Errno::NOTDIR)));
        }
        let top = self.open(&node, OFlags::RDONLY | OFlags::DIRECTORY, path)?;
        let base = self.base(&top, path)?;
        let refused = |why| match why {
            Enter::TooMany => path.fail(Reason::TooMany),
            Enter::Kernel(errno) => path.fail(Reason::Kernel(errno)),
        };
        let mut listing = Listing { path, hidden, levels: Vec::new(), waiting: (0, 0), found: 0, each };
        listing.enter(&top, 0).map_err(refused)?;
        // The path of the directory that is listed, and the directory, unless it was left for one below.
        let mut at = Vec::new();
        let mut current = Some(open_below(&top, b"", OFlags::PATH).map_err(path.kernel())?);
        while let Some(level) = listing.levels.last_mut() {
            at.truncate(level.path);
            let Some(name) = level.names.pop() else {
                listing.levels.pop();
                current = None;
                continue;
            };
            let read_only = level.read_only;
            listing.waiting.0 -= name.len() + NAME;
            listing.waiting.1 -= 1;
            let directory = match current.take() {
                Some(directory) => directory,
                None => match open_below(&top, &at, OFlags::PATH) {
                    Ok(directory) => directory,
                    // It is no longer there, nor is what was in it.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                        listing.leave();
                        continue;
                    }
                    Err(errno) => return Err(path.fail(Reason::Kernel(errno))),
                },
            };
            let stat = match look(&directory, &*name) {
                Ok(stat) => stat,
                // A directory that may be read and not be searched.
                Err(Errno::ACCESS | Errno::PERM) if listing.levels.len() > 1 && !self.may_more() => {
                    listing.leave();
                    continue;
                }
                Err(errno) => return Err(path.fail(Reason::Kernel(errno))),
            };
            current = Some(directory);
            let Some(stat) = stat else { continue };
            at = join(&at, &name);
            listing.found(self.describe_entry(&base, &at, &name, &stat, read_only))?;
            if !recursive || kind(&stat) != Kind::Directory || self.is_beyond_user(&stat) {
                continue;
            }
            let entered = open_below(&top, &at, OFlags::RDONLY).map_err(Enter::from).and_then(|below| {
                if kernel_file_system(&below)?.is_some() {
                    return Ok(());
                }
                listing.enter(&below, at.len())?;
                current = Some(below);
                Ok(())
            });
            match entered {
                Ok(()) => {}
                // Not the user's to read, or no longer there.
                Err(Enter::Kernel(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {}
                Err(Enter::Kernel(Errno::ACCESS | Errno::PERM)) if !self.may_more() => {}
                Err(why) => return Err(refused(why)),
            }
        }
        Ok(())
    }

    /// The path of the listed directory from the root, without detours.
    fn base(&self, top: &OwnedFd, path: &FilePath) -> Result<String, FileError> {
        let parts = || path.full.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        let full = if parts().any(|part| part == b"..") {
            // Where `..` leads depends on links: only the kernel knows.
            self.true_path(top, path)?
        } else {
            parts().fold(Vec::new(), |whole, part| [&whole, &b"/"[..], part].concat())
        };
        let text = String::from_utf8_lossy(&full).into_owned();
        Ok(if text == "/" { String::new() } else { text })
    }

    fn describe_entry(
        &self,
        base: &str,
        relative: &[u8],
        name: &[u8],
        stat: &Statx,
        read_only: bool,
    ) -> FileInfo {
        let (relative_path, path_bytes) = match std::str::from_utf8(relative) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => (String::from_utf8_lossy(relative).into_owned(), Some(STANDARD.encode(relative))),
        };
        let kind = match kind(stat) {
            Kind::RegularFile => FileType::File,
            Kind::Directory => FileType::Directory,
            Kind::Symlink => FileType::Symlink,
            _ => FileType::Other,
        };
        let access = self.identity.access(stat, kind == FileType::Directory);
        let changed = &stat.stx_mtime;
        let millis =
            changed.tv_sec.saturating_mul(1000).saturating_add(i64::from(changed.tv_nsec / 1_000_000));
        FileInfo {
            name: String::from_utf8_lossy(name).into_owned(),
            path_bytes,
            absolute_path: format!("{base}/{relative_path}"),
            relative_path,
            kind,
            size: stat.stx_size,
            // A time that no calendar has is shown as the epoch.
            modified_at: Timestamp::from_millis(millis)
                .or(Timestamp::from_millis(0))
                .unwrap_or_else(Timestamp::now),
            mode: mode_string(stat.stx_mode),
            permissions: Permissions {
                readable: access & 4 != 0,
                writable: access & 2 != 0 && !(read_only && kind != FileType::Other),
                executable: access & 1 != 0,
            },
        }
    }
}

/// Permissions as `ls` writes them, without the type.
fn mode_string(mode: u16) -> String {
    let triple = |shift: u16, special: u16, letter: char| {
        let bits = mode >> shift;
        let execute = match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        };
        [if bits & 4 != 0 { 'r' } else { '-' }, if bits & 2 != 0 { 'w' } else { '-' }, execute]
    };
    [triple(6, 0o4000, 's'), triple(3, 0o2000, 's'), triple(0, 0o1000, 't')].concat().iter().collect()
}

#[cfg(test)]
mod tests {
    use super::mode_string;

    #[test]
    fn modes_read_as_ls_writes_them() {
        assert_eq!(mode_string(0o644), "rw-r--r--");
        assert_eq!(mode_string(0o1777), "rwxrwxrwt");
        assert_eq!(mode_string(0o4750), "rwsr-x---");
        assert_eq!(mode_string(0o6604), "rwS--Sr--");
    }
}
