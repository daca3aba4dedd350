//! What is written to an interactive process.

use super::process::Process;
use super::registry::not_found;
use crate::stdin::{Stdin, StdinError};
use sandcrab_api::{ApiError, ErrorCode};

impl Process {
    /// Writes to its stdin; waits for as long as the process does not read. One writer at a time.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` if it is not interactive or bytes before `offset` are missing, `PROCESS_NOT_FOUND` if it has
    /// ended, `PROCESS_ERROR` if it has closed its stdin.
    pub(super) async fn write_stdin(&self, bytes: &[u8], offset: Option<u64>) -> Result<(), ApiError> {
        self.interactive()?.write(bytes, offset).await.map_err(|error| match error {
            StdinError::Closed if self.has_ended() => not_found(&self.id, "has ended"),
            StdinError::Gap { .. } => ApiError::invalid("offset", error.to_string()),
            StdinError::Closed | StdinError::Io(_) => {
                ApiError::new(ErrorCode::ProcessError, format!("stdin of process {:?} {error}", self.id))
                    .with("processId", self.id.as_str())
            }
        })
    }

    /// Closes its stdin: it reads what was written, and then the end.
    pub(super) async fn close_stdin(&self) -> Result<(), ApiError> {
        self.interactive()?.end().await;
        Ok(())
    }

    fn interactive(&self) -> Result<&Stdin, ApiError> {
        self.stdin.as_ref().ok_or_else(|| {
            let message =
                format!("process {:?} was not started with interactive: true, and reads nothing", self.id);
            ApiError::invalid("processId", message).with("processId", self.id.as_str())
        })
    }
}
