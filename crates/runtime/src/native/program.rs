//! The agent's program, as a file that a launch can mount.
//!
//! A server goes on with its program after an upgrade has replaced or removed the file. A mount wants a path, so what
//! has none any more is copied, once, into the data directory.

use crate::driver::{DriverError, Result};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A program and the directory in which it lies under a name.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) file: File,
    pub(super) directory: PathBuf,
    pub(super) name: String,
}

/// The name of a copy.
const COPY: &str = "sandcrab";

/// Finds the file at `path`, which may be a link of procfs to a program that has lost its own path. `copies` is a
/// directory for what must be copied.
pub(super) fn find(path: &Path, copies: &Path) -> Result<Program> {
    let open = |path: &Path| File::open(path).map_err(DriverError::io("open", path.display()));
    let file = open(path)?;
    let failed = || DriverError::io::<io::Error, _>("look at", path.display());
    let metadata = file.metadata().map_err(failed())?;
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed())?;
    if is_same(&real, &metadata)
        && let (Some(directory), Some(name)) =
            (real.parent(), real.file_name().and_then(|name| name.to_str()))
    {
        return Ok(Program { file, directory: directory.into(), name: name.into() });
    }
    let (device, inode, time) = (metadata.dev(), metadata.ino(), metadata.mtime());
    let directory = copies.join(format!("{device:x}-{inode:x}-{time:x}"));
    let copy = directory.join(COPY);
    if !copy.exists() {
        copy_to(&file, copies, &directory).map_err(DriverError::io("copy the program to", copy.display()))?;
    }
    Ok(Program { file: open(&copy)?, directory, name: COPY.into() })
}

fn is_same(path: &Path, file: &fs::Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
}

/// Copies into a directory that is whole when it is there, whoever else does the same meanwhile.
fn copy_to(mut file: &File, copies: &Path, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(copies)?;
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(copies)?;
    let copy = new.path().join(COPY);
    io::copy(&mut file, &mut File::create_new(&copy)?)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o555))?;
    fs::set_permissions(new.path(), fs::Permissions::from_mode(0o755))?;
    match fs::rename(new.path(), directory) {
        Ok(()) => {
            let _moved = new.keep();
            Ok(())
        }
        Err(_) if directory.join(COPY).exists() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes copies that an earlier server made. What still runs from one keeps its file.
pub(super) fn remove_copies(copies: &Path) -> Result<()> {
    match fs::remove_dir_all(copies) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DriverError::io("remove", copies.display())(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(file: &File) -> (u64, u64) {
        let metadata = file.metadata().unwrap();
        (metadata.dev(), metadata.ino())
    }

    #[test]
    fn a01_a_program_is_found_by_its_own_path_or_copied_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copies) = (dir.path().join("program"), dir.path().join("copies"));
        fs::write(&path, "one").unwrap();
        let held = File::open(&path).unwrap();
        let link = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let found = find(&link, &copies).unwrap();
        assert_eq!((found.directory.as_path(), found.name.as_str()), (dir.path(), "program"));
        assert_eq!(identity(&found.file), identity(&held));
        assert!(!copies.exists());

        // As a package manager replaces it: another file under the same name.
        fs::write(dir.path().join("new"), "two").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let copy = find(&link, &copies).unwrap();
        assert!(copy.directory.starts_with(&copies));
        assert_eq!(
            fs::read_to_string(copy.directory.join(&copy.name)).unwrap(),
            "one",
            "it stays what it was"
        );
        fs::remove_file(&path).unwrap();
        let again = find(&link, &copies).unwrap();
        assert_eq!(identity(&again.file), identity(&copy.file), "one copy serves all");
        assert_eq!(fs::read_dir(&copies).unwrap().count(), 1);
        remove_copies(&copies).unwrap();
        remove_copies(&copies).unwrap();
        assert!(!copies.exists());
    }
}
