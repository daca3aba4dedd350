//! What can go wrong while an image is made.

use std::io;
use std::path::PathBuf;

/// A failure to make or collect an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `copy`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The host's tree is larger than the builder is willing to walk or copy.
    #[error("{what} of the host image passes its bound of {bound} at {}", path.display())]
    TooLarge {
        /// Which measure: `entries`, `bytes`.
        what: &'static str,
        /// The bound.
        bound: u64,
        /// Where it was passed.
        path: PathBuf,
    },
    /// The host has no `/usr`, so there is nothing to make an image of.
    #[error("{} is not a directory; the host image needs it", path.display())]
    NoUsr {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// What was built for a layer is not what a layer may hold.
    #[error("{}: {reason}: {}", archive.display(), entry.display())]
    Archive {
        /// The archive.
        archive: PathBuf,
        /// The entry; empty where its header cannot be read.
        entry: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path to leave out is not absolute, or holds `.` or `..`.
    #[error("the path to leave out of the host image must be absolute and without `..`: {}", path.display())]
    BadExclude {
        /// As it was given.
        path: PathBuf,
    },
}

impl ImageError {
    /// The error with its cause, without the paths of the machine.
    pub(crate) fn for_callers(&self) -> String {
        match self {
            Self::Io { operation, source, .. } => format!("cannot {operation}: {source}"),
            Self::TooLarge { what, bound, .. } => {
                format!("{what} of the host image passes its bound of {bound}")
            }
            Self::NoUsr { .. } => "the host has no /usr".into(),
            Self::Archive { reason, .. } => (*reason).to_owned(),
            Self::BadExclude { .. } => "a path to leave out is not absolute".into(),
        }
    }

    /// Whether something was not there, as what a package manager has just removed.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// For `map_err`: names the operation and its subject.
    pub(crate) fn io<E: Into<io::Error>>(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source: source.into() }
    }
}
