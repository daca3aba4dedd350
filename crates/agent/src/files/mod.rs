//! Files of the sandbox (contract F01, F02).
//!
//! A path comes in with the request, is resolved below the sandbox's root by its fd (`root.rs`) and handled with the
//! rights of the sandbox's user (`identity.rs`). All system calls happen on blocking threads, one stretch per call or
//! per piece of a stream; what must not stop between two of them is one call here.
//!
//! The standard library's path-based functions are not used in this module: they would resolve links as the agent.

mod change;
mod copy;
mod error;
pub mod http;
mod identity;
mod in_place;
mod list;
mod long;
mod look;
mod mime;
mod read;
mod root;
mod stream;
mod sys;
mod upload;
mod vacate;
mod walk;
mod write;

pub use root::FilePath;
pub use stream::Content;
pub(crate) use vacate::Vacancy;

use crate::room::Room;
use error::FileError;
use identity::{Identity, Rights};
use in_place::InPlace;
use root::{Access, Root};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use sandcrab_api::files::{FileEncoding, FileInfo, ReadFileResult};
use sandcrab_api::launch::UserIdentity;
use sandcrab_api::{ApiError, ErrorCode};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Blocking threads that file calls may use at once. More callers wait; more threads would not make a disk faster. The rest
/// of the agent's pool is for what guards the sandbox, which must not wait behind calls that a caller can make long.
const MAX_THREADS: usize = crate::persona::MAX_BLOCKING_THREADS - 2;

/// The files of one sandbox.
#[derive(Clone, Debug)]
pub struct Files(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: Root,
    identity: Identity,
    threads: Arc<Semaphore>,
    /// For long answers.
    room: Arc<Room>,
    /// Where content waits that is to take the place of a file's; none if files are replaced.
    in_place: Option<Arc<InPlace>>,
}

impl Files {
    /// The files below the process's own root directory, for `user`.
    ///
    /// To be called on the main thread before any user code runs: own ids and `/proc` are looked up here once.
    pub fn of_sandbox(user: &UserIdentity) -> Result<Self, Errno> {
        Self::in_room(user, Room::new(None), None)
    }

    /// The same, with the room that long answers have, and a directory of the agent's own on the sandbox's disk.
    pub(crate) fn in_room(
        user: &UserIdentity,
        room: Arc<Room>,
        spool: Option<OwnedFd>,
    ) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self::within(openat(CWD, c"/", flags, Mode::empty())?, user, room, spool)
    }

    /// The files below `root`, a directory opened with `O_PATH`; otherwise as [`Self::of_sandbox`].
    pub fn below(root: OwnedFd, user: &UserIdentity) -> Result<Self, Errno> {
        Self::within(root, user, Room::new(None), None)
    }

    /// The same, with a directory to which no path below `root` leads: what is there already is written to as it stands.
    pub fn below_with_spool(root: OwnedFd, user: &UserIdentity, spool: OwnedFd) -> Result<Self, Errno> {
        Self::within(root, user, Room::new(None), Some(spool))
    }

    fn within(
        root: OwnedFd,
        user: &UserIdentity,
        room: Arc<Room>,
        spool: Option<OwnedFd>,
    ) -> Result<Self, Errno> {
        let (root, identity) = (Root::new(root)?, Identity::of(user)?);
        let threads = Arc::new(Semaphore::new(MAX_THREADS));
        let in_place = spool.map(InPlace::new);
        let files = Self(Arc::new(Inner { root, identity, threads, room, in_place }));
        files.complete_writes()?;
        Ok(files)
    }

    /// Reads a whole file: as text where it is text or `encoding` says so and it is UTF-8, else as base64.
    pub async fn read(
        &self,
        path: FilePath,
        encoding: Option<FileEncoding>,
    ) -> Result<ReadFileResult, ApiError> {
        self.run("readFile", move |files| files.read_file(&path, encoding)).await
    }

    /// Makes a directory with permission bits `mode` (0o755); with `recursive` also missing ones above it.
    pub async fn mkdir(&self, path: FilePath, recursive: bool, mode: Option<u32>) -> Result<(), ApiError> {
        self.run("mkdir", move |files| files.mkdir(&path, recursive, mode)).await
    }

    /// Removes a file or link; a directory is refused.
    pub async fn delete(&self, path: FilePath) -> Result<(), ApiError> {
        self.run("deleteFile", move |files| files.delete(&path)).await
    }

    /// Gives something another path; a file there is replaced, a directory refused.
    pub async fn rename(&self, from: FilePath, to: FilePath) -> Result<(), ApiError> {
        self.run("renameFile", move |files| files.rename(&from, &to)).await
    }

    /// Moves something to another path or into a directory, also across mounts.
    pub async fn move_to(&self, from: FilePath, to: FilePath) -> Result<(), ApiError> {
        self.run("moveFile", move |files| files.move_to(&from, &to)).await
    }

    /// Lists a directory by name, with `recursive` depth first, with `hidden` also names that begin with a dot.
    pub async fn list(
        &self,
        path: FilePath,
        recursive: bool,
        hidden: bool,
    ) -> Result<Vec<FileInfo>, ApiError> {
        let list = move |files: &Access<'_>| {
            let mut found = Vec::new();
            files.list(&path, recursive, hidden, |entry, _| {
                found.push(entry);
                Ok(())
            })?;
            Ok(found)
        };
        self.run("listFiles", list).await
    }

    /// Whether something stands at a path; a link counts by what it points to.
    pub async fn exists(&self, path: FilePath) -> Result<bool, ApiError> {
        self.run("exists", move |files| files.exists(&path)).await
    }

    fn room(&self) -> &Arc<Room> {
        &self.0.room
    }

    /// One call on a blocking thread.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl Fn(&Access<'_>) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let files = self.clone();
        let done = joined(operation, self.blocking(move || files.call(call)).await).await?;
        done.map_err(|error| error.into_api(operation))
    }

    /// Starts work on a blocking thread, as soon as one is free.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // The semaphore is never closed; without it the work would only be less bounded.
        let thread = Arc::clone(&self.0.threads).acquire_owned().await.ok();
        tokio::task::spawn_blocking(move || {
            let _thread = thread;
            work()
        })
    }

    /// Makes a call with the user's plain rights, and where those do not suffice with all of them. Nothing in `call`
    /// may start a thread: it would be born with these rights.
    fn call<T>(&self, mut call: impl FnMut(&Access<'_>) -> Result<T, FileError>) -> Result<T, FileError> {
        let Inner { root, identity, .. } = &*self.0;
        let mut with = |rights| {
            let _acting = identity.act(rights).map_err(FileError::of_agent)?;
            call(&Access { root, identity, rights })
        };
        match with(Rights::Plain) {
            Err(error) if error.is_denied() && identity.has_powers() => with(Rights::Powers),
            done => done,
        }
    }
}

/// Waits for a blocking thread's work.
async fn joined<T>(operation: &'static str, work: JoinHandle<T>) -> Result<T, ApiError> {
    work.await.map_err(|error| broken_off(operation, &error))
}

/// A fault of the agent's own, with an id that finds its line in the log (contract X03).
fn broken_off(operation: &'static str, error: &dyn std::error::Error) -> ApiError {
    let id = format!("{:016x}", rand::random::<u64>());
    tracing::error!(%error, operation, error_id = id, "a file call broke off");
    ApiError::new(ErrorCode::InternalError, format!("the call broke off; error {id}"))
        .during(operation)
        .with("errorId", id)
}
