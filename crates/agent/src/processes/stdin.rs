//! What is written to an interactive process.

use super::process::Process;
use super::registry::not_found;
use sandcrab_api::{ApiError, ErrorCode};
use std::io;
use tokio::io::AsyncWriteExt;

impl Process {
    /// Writes to its stdin; waits for as long as the process does not read. One writer at a time.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` if it is not interactive, `PROCESS_NOT_FOUND` if it has ended, `PROCESS_ERROR` if it has closed
    /// its stdin.
    pub(super) async fn write_stdin(&self, bytes: &[u8]) -> Result<(), ApiError> {
        self.require_interactive()?;
        let mut held = self.stdin.lock().await;
        let Some(pipe) = &mut *held else { return Err(self.no_stdin()) };
        let written = tokio::select! {
            written = pipe.write_all(bytes) => written,
            // Its end closes the pipe, for which its task needs the lock.
            _ = self.ended() => return Err(self.no_stdin()),
        };
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(self.no_stdin()),
            Err(error) => Err(self.stdin_error(&format!("cannot be written to: {error}"))),
        }
    }

    /// Closes its stdin: it reads what was written, and then the end.
    pub(super) async fn close_stdin(&self) -> Result<(), ApiError> {
        self.require_interactive()?;
        *self.stdin.lock().await = None;
        Ok(())
    }

    fn require_interactive(&self) -> Result<(), ApiError> {
        if self.interactive {
            return Ok(());
        }
        let message =
            format!("process {:?} was not started with interactive: true, and reads nothing", self.id);
        Err(ApiError::invalid("processId", message).with("processId", self.id.as_str()))
    }

    fn no_stdin(&self) -> ApiError {
        if self.has_ended() {
            return not_found(&self.id, "has ended");
        }
        self.stdin_error("is closed")
    }

    fn stdin_error(&self, what: &str) -> ApiError {
        ApiError::new(ErrorCode::ProcessError, format!("stdin of process {:?} {what}", self.id))
            .with("processId", self.id.as_str())
    }
}
