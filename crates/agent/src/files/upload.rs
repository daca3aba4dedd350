//! Writing a file from a stream of any length with flat memory.

use super::error::FileError;
use super::read::CHUNK;
use super::write::Pending;
use super::{FilePath, Files, joined};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use sandcrab_api::ApiError;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

const OPERATION: &str = "writeFile";

/// A write under way. Given up, it leaves nothing behind.
struct Write {
    files: Files,
    path: FilePath,
    mode: Option<u32>,
    pending: Option<Pending>,
}

/// Where a write is: with its caller, or on a blocking thread.
enum Turn {
    Here(Box<Write>),
    Away(JoinHandle<(Box<Write>, Result<(), ApiError>)>),
}

impl Files {
    /// Writes a whole file from `content` (contract F01): its target has the old content until all of the new has
    /// come, and keeps it if `content` fails. `mode` are permission bits; without, an existing file keeps its own and
    /// a new one gets 0o644.
    pub async fn write<E: Into<ApiError>>(
        &self,
        path: FilePath,
        mode: Option<u32>,
        content: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(), ApiError> {
        let mut content = std::pin::pin!(content);
        let mut turn = Turn::Here(Box::new(Write { files: self.clone(), path, mode, pending: None }));
        let mut parts = Vec::new();
        let mut size = 0;
        // A short file is written in one step; of a long one, one piece is written while the next arrives.
        while let Some(part) = content.next().await {
            let part = part.map_err(|error| error.into().during(OPERATION))?;
            size += part.len();
            parts.push(part);
            if size > CHUNK {
                turn = turn.back().await?.step(std::mem::take(&mut parts), false).await;
                size = 0;
            }
        }
        turn.back().await?.step(parts, true).await.back().await.map(drop)
    }
}

impl Files {
    /// Begins a write: beside its target where that is new or to be replaced, else apart.
    fn begin(&self, path: &FilePath, mode: Option<u32>) -> Result<Pending, FileError> {
        let target = self.call(|access| access.target(path, mode))?;
        match &self.0.in_place {
            Some(home) if target.is_written_to() => {
                let (spooled, file) = home.spool().map_err(path.kernel())?;
                Ok(target.spooled(spooled, file))
            }
            _ => self.call(|access| target.beside(access)),
        }
    }
}

impl Turn {
    async fn back(self) -> Result<Box<Write>, ApiError> {
        match self {
            Self::Here(write) => Ok(write),
            Self::Away(step) => {
                let (write, done) = joined(OPERATION, step).await?;
                done.map(|()| write)
            }
        }
    }
}

impl Write {
    /// Adds bytes; the last ones also show the file. Begins the write with the first.
    async fn step(mut self: Box<Self>, parts: Vec<Bytes>, is_last: bool) -> Turn {
        let files = self.files.clone();
        Turn::Away(
            files
                .blocking(move || {
                    let done = self.advance(&parts, is_last).map_err(|error| error.into_api(OPERATION));
                    (self, done)
                })
                .await,
        )
    }

    fn advance(&mut self, parts: &[Bytes], is_last: bool) -> Result<(), super::error::FileError> {
        let Self { files, path, mode, pending } = self;
        if pending.is_none() {
            *pending = Some(files.begin(path, *mode)?);
        }
        let Some(write) = pending else { return Ok(()) };
        // With the user's rights although none are checked any more: file systems reserve space for root.
        files.call(|_| write.append(parts))?;
        if is_last {
            files.call(|access| access.commit_write(write))?;
            *pending = None;
        }
        Ok(())
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let Some(mut pending) = self.pending.take() else { return };
        let files = self.files.clone();
        // To free a large file takes long, and the caller may be the agent's only thread.
        let own = files.clone();
        let mut clean = move || {
            if let Err(error) = files.call(|access| access.abandon_write(&mut pending)) {
                tracing::warn!(%error, "a temporary file is left over");
            }
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { drop(own.blocking(clean).await) })),
            Err(_) => clean(),
        }
    }
}
