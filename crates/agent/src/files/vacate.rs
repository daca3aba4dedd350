//! Places for what a program makes whole or not at all: free before, and free again if it fails.

use super::error::{FileError, Reason};
use super::root::{Access, FilePath, Last, Need, kind};
use super::walk::{names, open_below};
use super::{ApiError, Files};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use std::ops::ControlFlow;

/// What stands at a path where something is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vacancy {
    /// Nothing.
    Free,
    /// An empty directory.
    Empty,
    /// Something else.
    Taken,
}

impl Access<'_> {
    fn vacancy(&self, path: &FilePath) -> Result<Vacancy, FileError> {
        let node = match self.node(path) {
            Ok(node) => node,
            Err(error) if error.reason == Reason::Kernel(Errno::NOENT) => return Ok(Vacancy::Free),
            Err(error) => return Err(error),
        };
        if kind(&node.stat) != FileType::Directory {
            return Ok(Vacancy::Taken);
        }
        let directory = self.open(&node, OFlags::RDONLY | OFlags::DIRECTORY, path)?;
        let mut is_empty = true;
        let looked = names(&directory, |_, _| {
            is_empty = false;
            Ok(ControlFlow::Break(()))
        });
        looked.map_err(path.kernel())?;
        Ok(if is_empty { Vacancy::Empty } else { Vacancy::Taken })
    }

    /// Removes what was made at a path where `before` stood. A link is neither followed nor removed where nothing was.
    fn vacate(&self, path: &FilePath, before: Vacancy) -> Result<(), FileError> {
        match before {
            Vacancy::Taken => Ok(()),
            Vacancy::Free => {
                let place = match self.place(path, Last::Keep, Need::Change) {
                    Err(error) if error.reason == Reason::Kernel(Errno::NOENT) => return Ok(()),
                    other => other?,
                };
                match &place.node {
                    Some(node) if kind(&node.stat) == FileType::Directory => {
                        self.vet_node(&place, path)?;
                        self.remove_tree(&place.parent, &place.name).map_err(path.kernel())
                    }
                    _ => Ok(()),
                }
            }
            Vacancy::Empty => {
                let held = self.directory(path, &path.full, Need::Change)?;
                let directory = open_below(&held, b"", OFlags::RDONLY).map_err(path.kernel())?;
                self.empty(&directory).map_err(path.kernel())
            }
        }
    }
}

impl Files {
    /// What stands at a path where something is to be made.
    pub(crate) async fn vacancy(&self, operation: &'static str, path: FilePath) -> Result<Vacancy, ApiError> {
        self.run(operation, move |files| files.vacancy(&path)).await
    }

    /// Makes a path again what it was: for what broke off half made.
    pub(crate) async fn vacate(
        &self,
        operation: &'static str,
        path: FilePath,
        before: Vacancy,
    ) -> Result<(), ApiError> {
        self.run(operation, move |files| files.vacate(&path, before)).await
    }
}
