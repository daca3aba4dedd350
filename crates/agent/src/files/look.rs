//! Looking at a path for the agent's own ends: which program to run, whether a directory is still the same.
//!
//! With the user's rights and without magic links, as every file call: what the agent finds by its own would tell its
//! callers what lies where no code of theirs can look, and would be run or entered in their name.

use super::root::kind;
use super::{FilePath, Files, joined};
use rustix::fs::FileType;
use sandcrab_api::ApiError;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

impl Files {
    /// The first of these absolute paths at which a program stands that the user may run.
    ///
    /// # Errors
    /// If the look itself broke off. A path that cannot be looked at has no program.
    pub(crate) async fn first_program(&self, paths: Vec<PathBuf>) -> Result<Option<PathBuf>, ApiError> {
        let files = self.clone();
        let found = self.blocking(move || paths.into_iter().find(|path| files.is_program(path))).await;
        joined("findProgram", found).await
    }

    /// Whether a program stands at an absolute path that the user may run.
    pub(crate) fn is_program(&self, path: &Path) -> bool {
        let path = at(path);
        let found = self.call(|access| {
            let node = access.node(&path)?;
            Ok(kind(&node.stat) == FileType::RegularFile && access.may_run(&node, &path)?)
        });
        found.unwrap_or(false)
    }

    /// The directory at an absolute path, by device and inode, if the user can reach it.
    pub(crate) fn directory(&self, path: &Path) -> Option<(u32, u32, u64)> {
        let path = at(path);
        let node = self.call(|access| access.node(&path)).ok()?;
        let stat = node.stat;
        (kind(&stat) == FileType::Directory).then_some((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
    }
}

fn at(path: &Path) -> FilePath {
    FilePath { asked: path.to_string_lossy().into_owned(), full: path.as_os_str().as_bytes().to_vec() }
}
