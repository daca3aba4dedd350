//! Listing directories.

use super::error::{FileError, Reason};
use super::root::{Access, FilePath, kernel_file_system, kind};
use super::walk::{Entry, entries, join, open_below};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType as Kind, OFlags, StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;
use sandcrab_api::files::{FileInfo, FileType, Permissions};
use sandcrab_api::limits;
use sandcrab_api::time::Timestamp;

impl Access<'_> {
    /// The entries of a directory: by name, and with `recursive` those of a directory right after it.
    ///
    /// Directories below that the user may not read, and the kernel's own file systems, are listed and not entered.
    pub(crate) fn list(
        &self,
        path: &FilePath,
        recursive: bool,
        hidden: bool,
    ) -> Result<Vec<FileInfo>, FileError> {
        let node = self.node(path)?;
        if kind(&node.stat) != Kind::Directory {
            return Err(path.fail(Reason::Kernel(Errno::NOTDIR)));
        }
        let top = self.open(&node, OFlags::RDONLY | OFlags::DIRECTORY, path)?;
        let base = self.base(&top, path)?;
        let mut found: Vec<FileInfo> = Vec::new();
        let most = |found: &Vec<FileInfo>| limits::MAX_LIST_ENTRIES - found.len();
        let wanted = |name: &[u8]| hidden || name.first() != Some(&b'.');

        // Depth first: what is still to come, the next one last.
        let mut waiting: Vec<(Vec<u8>, Entry, bool)> = Vec::new();
        let enter = |directory: &OwnedFd, at: &[u8], room: usize, waiting: &mut Vec<_>| {
            let read_only = fstatvfs(directory)?.f_flag.contains(StatVfsMountFlags::RDONLY);
            let Some(inside) = entries(directory, room, wanted)? else { return Ok(false) };
            waiting.extend(inside.into_iter().rev().map(|entry| (join(at, &entry.name), entry, read_only)));
            Ok::<bool, Errno>(true)
        };
        let too_many = || path.fail(Reason::TooMany);
        if !enter(&top, b"", most(&found), &mut waiting).map_err(path.kernel())? {
            return Err(too_many());
        }
        while let Some((relative, entry, read_only)) = waiting.pop() {
            found.push(self.describe_entry(&base, &relative, &entry, read_only));
            if !recursive || kind(&entry.stat) != Kind::Directory {
                continue;
            }
            if self.is_beyond_user(&entry.stat) {
                continue;
            }
            let room = most(&found).saturating_sub(waiting.len());
            let entered = open_below(&top, &relative, OFlags::RDONLY).and_then(|below| {
                let refused = kernel_file_system(&below)?.is_some();
                if refused { Ok(true) } else { enter(&below, &relative, room, &mut waiting) }
            });
            match entered {
                Ok(true) => {}
                Ok(false) => return Err(too_many()),
                Err(errno @ (Errno::ACCESS | Errno::PERM)) if self.may_more() => {
                    return Err(path.fail(Reason::Kernel(errno)));
                }
                // Not the user's to read, or no longer there.
                Err(Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(path.fail(Reason::Kernel(errno))),
            }
        }
        Ok(found)
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

    fn describe_entry(&self, base: &str, relative: &[u8], entry: &Entry, read_only: bool) -> FileInfo {
        let relative_path = String::from_utf8_lossy(relative).into_owned();
        let stat = &entry.stat;
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
            name: String::from_utf8_lossy(&entry.name).into_owned(),
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
