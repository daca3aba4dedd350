//! How a file call fails, and the one place where that becomes an error of the API.

use rustix::io::Errno;
use sandcrab_api::{ApiError, ErrorCode, limits};

/// A failed file call: which path, and why.
#[derive(Debug, thiserror::Error)]
#[error("{shown}: {reason}")]
pub(crate) struct FileError {
    /// The path as the caller gave it.
    pub(crate) asked: String,
    /// The path from the root, escaped, so that a name cannot forge a line of a log (attack B12).
    shown: String,
    pub(crate) reason: Reason,
}

/// Why a file call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("{}", text(*.0))]
    Kernel(Errno),
    #[error("the kernel refused: {}", text(*.0))]
    Identity(Errno),
    #[error("is a directory")]
    IsDirectory,
    #[error("is a directory; Cannot delete directory by this call, only files and links")]
    DirectoryToDelete,
    #[error("is a directory; rename does not replace one")]
    DirectoryInTheWay,
    #[error("is {0}, no file with content of its own")]
    Special(&'static str),
    #[error("is a mount point")]
    MountPoint,
    #[error("lies on {0}, which would answer for the agent instead of the sandbox's user")]
    SpeaksForAgent(&'static str),
    #[error("belongs to another user, and the sandbox's user cannot make a file that does")]
    OwnerNotKept,
    #[error("was copied to its new path and could not be removed from the old: {}", text(*.0))]
    LeftBehind(Errno),
    #[error("cannot be moved into itself")]
    IntoItself,
    #[error("has {size} bytes, more than the {} that fit one answer", limits::MAX_READ_BYTES)]
    TooLarge { size: u64 },
    #[error("has more than the {} entries that fit one answer", limits::MAX_LIST_ENTRIES)]
    TooMany,
    #[error("holds more directories than can wait to be copied to another mount")]
    TooManyDirectories,
    #[error("takes more of the agent's memory than the sandbox's memory limit leaves it")]
    TooMuch,
    #[error("has no room in the agent's memory while other calls are answered")]
    NoRoom,
    #[error("became shorter while it was read")]
    Shrank,
    #[error("has bytes that are no UTF-8 at {0} although it began as text")]
    NotText(u64),
    #[error("kept changing while it was looked up")]
    Unsteady,
}

/// The kernel's reason in the words that people know from their shell.
fn text(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "no such file or directory".into(),
        Errno::EXIST => "exists already".into(),
        // Of a file that is opened without waiting (fcntl(2), F_SETLEASE).
        Errno::AGAIN => "another process holds a lease on it".into(),
        Errno::LOOP => "its symbolic links form a loop".into(),
        other => std::io::Error::from(other).to_string(),
    }
}

impl FileError {
    pub(crate) fn new(asked: &str, path: &[u8], reason: Reason) -> Self {
        Self { asked: asked.to_owned(), shown: show(path), reason }
    }

    /// For what the agent itself could not do.
    pub(crate) fn of_agent(errno: Errno) -> Self {
        Self::new("", b"taking on the user's identity", Reason::Identity(errno))
    }

    /// Whether permission bits forbade it, so that root's capabilities might not.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.reason, Reason::Kernel(Errno::ACCESS | Errno::PERM))
    }

    /// The error that a caller sees.
    pub(crate) fn into_api(self, operation: &'static str) -> ApiError {
        let error =
            ApiError::new(self.reason.code(), self.to_string()).during(operation).with("path", self.asked);
        let error = match self.reason {
            Reason::Unsteady | Reason::Kernel(Errno::AGAIN) => error.retry_after(1),
            Reason::NoRoom => error.with("scope", "memory").retry_after(1),
            Reason::TooLarge { size } => error.with("size", size).with("limit", limits::MAX_READ_BYTES),
            Reason::TooMany => error.with("limit", limits::MAX_LIST_ENTRIES),
            _ => error,
        };
        match self.reason.suggestion() {
            Some(suggestion) => error.suggest(suggestion),
            None => error,
        }
    }
}

impl Reason {
    fn code(self) -> ErrorCode {
        match self {
            Self::Kernel(Errno::NOENT) => ErrorCode::FileNotFound,
            Self::Kernel(Errno::ISDIR) | Self::IsDirectory | Self::DirectoryToDelete => {
                ErrorCode::IsDirectory
            }
            Self::Kernel(Errno::NOTDIR) => ErrorCode::NotDirectory,
            Self::Kernel(Errno::NAMETOOLONG) => ErrorCode::NameTooLong,
            Self::Kernel(Errno::EXIST | Errno::NOTEMPTY) | Self::DirectoryInTheWay => ErrorCode::FileExists,
            Self::Kernel(Errno::ROFS) => ErrorCode::ReadOnly,
            Self::Kernel(Errno::NOSPC | Errno::DQUOT) => ErrorCode::NoSpace,
            Self::Kernel(Errno::TXTBSY | Errno::BUSY | Errno::AGAIN)
            | Self::Unsteady
            | Self::LeftBehind(_) => ErrorCode::ResourceBusy,
            Self::Kernel(Errno::ACCESS | Errno::PERM | Errno::LOOP)
            | Self::Special(_)
            | Self::MountPoint
            | Self::SpeaksForAgent(_)
            | Self::OwnerNotKept => ErrorCode::PermissionDenied,
            Self::IntoItself => ErrorCode::ValidationFailed,
            Self::TooLarge { .. } | Self::TooMany | Self::TooManyDirectories | Self::TooMuch => {
                ErrorCode::FileTooLarge
            }
            Self::NoRoom => ErrorCode::QuotaExceeded,
            Self::Kernel(_) | Self::Identity(_) | Self::Shrank | Self::NotText(_) => {
                ErrorCode::FilesystemError
            }
        }
    }

    fn suggestion(self) -> Option<&'static str> {
        Some(match self {
            Self::Special(_) => "Use a command for devices, FIFOs and sockets.",
            Self::SpeaksForAgent(_) => "Use a command, which sees it as the sandbox's user does.",
            Self::MountPoint => "Name another path; what is mounted there must stay.",
            Self::OwnerNotKept => "Write to it with a command, or delete it first.",
            Self::DirectoryInTheWay => "Use moveFile to put it inside, or choose another path.",
            Self::DirectoryToDelete => "Remove it with a command, such as `rm -r`.",
            Self::IntoItself => "Choose a path outside of the directory that is moved.",
            Self::TooLarge { .. } => "Use readFileStream, or read it in parts with a command.",
            Self::TooManyDirectories => "Move it with a command.",
            Self::NoRoom => "Try again when other calls have ended.",
            Self::TooMany | Self::TooMuch => "List its directories one by one, or search with a command.",
            Self::LeftBehind(_) => "Remove the rest with a command when nothing writes to it.",
            Self::Shrank => "Read it again when nothing writes to it.",
            Self::NotText(_) => "Read it with encoding base64 or as raw content.",
            Self::Kernel(Errno::BUSY) => "Something uses it, perhaps as mount point or working directory.",
            Self::Kernel(Errno::TXTBSY) => "A process runs it; end that first.",
            Self::Kernel(Errno::AGAIN) => "Try again; who holds the lease has been told of this.",
            Self::Kernel(Errno::LOOP) => "Check where its symbolic links lead.",
            _ => return None,
        })
    }
}

/// A path for people: what is no printable text is escaped.
pub(crate) fn show(path: &[u8]) -> String {
    format!("\"{}\"", String::from_utf8_lossy(path).escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b12_a_name_cannot_forge_a_log_line() {
        let path = "/tmp/a\nERROR \u{1b}[31mforged\u{202e}";
        let error = FileError::new(path, path.as_bytes(), Reason::Kernel(Errno::NOENT)).into_api("readFile");
        assert!(!error.message.contains(char::is_control), "{}", error.message);
        assert!(!error.message.contains('\u{202e}'), "{}", error.message);
        assert_eq!(error.context["path"], path);
        assert_eq!(error.code, ErrorCode::FileNotFound);
    }

    #[test]
    fn x01_every_errno_has_a_code_and_only_the_unforeseen_are_500() {
        let code = |errno| Reason::Kernel(errno).code();
        assert_eq!(code(Errno::DQUOT), ErrorCode::NoSpace);
        assert_eq!(code(Errno::ROFS), ErrorCode::ReadOnly);
        assert_eq!(code(Errno::BUSY), ErrorCode::ResourceBusy);
        assert_eq!(code(Errno::LOOP).status(), 403);
        assert_eq!(code(Errno::IO), ErrorCode::FilesystemError);
    }
}
