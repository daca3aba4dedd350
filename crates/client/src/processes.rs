//! Processes: programs that a sandbox runs in the background (contract P01-P04).

use crate::ClientError;
use crate::attach::Attached;
use crate::exec::decode;
use crate::log::LogStream;
use crate::path::Query;
use crate::sandbox::Target;
use crate::transport::{Call, RequestBody};
use bytes::Bytes;
use http::Method;
use sandcrab_api::exec::{OutputEncoding, Truncated};
use sandcrab_api::limits::MAX_OUTPUT_BYTES;
use sandcrab_api::process::{
    KillProcess, ProcessCount, ProcessInfo, ProcessList, ProcessLogs, Restart, StartProcess,
};
use sandcrab_api::session::Done;
use sandcrab_api::{ProcessId, SessionId};
use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncRead;

/// A process to be started. Awaiting it starts it and gives its [`Process`], which runs by then.
#[must_use = "a process starts when it is awaited"]
pub struct Start {
    target: Arc<Target>,
    request: StartProcess,
}

impl Start {
    pub(crate) fn new(target: Arc<Target>, session_id: Option<SessionId>, command: String) -> Self {
        Self { target, request: StartProcess { command, session_id, ..StartProcess::default() } }
    }

    /// Names the process; no other of the sandbox may have this name.
    pub fn with_id(mut self, id: ProcessId) -> Self {
        self.request.process_id = Some(id);
        self
    }

    /// Kills the process and all that it started this long after its start. At least a millisecond.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(millis(timeout).max(1));
        self
    }

    /// Sets a variable for this process only.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.env.insert(name.into(), Some(value.into()));
        self
    }

    /// Unsets a variable for this process only.
    pub fn env_remove(mut self, name: impl Into<String>) -> Self {
        self.request.env.insert(name.into(), None);
        self
    }

    /// Sets its working directory, relative to the session's.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.request.cwd = Some(directory.into());
        self
    }

    /// What it reads on stdin. Default: nothing.
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.request.stdin = Some(text.into());
        self
    }

    /// Keeps its stdin open for [`Process::write_stdin`] and [`Process::attach`].
    pub fn interactive(mut self) -> Self {
        self.request.interactive = true;
        self
    }

    /// Keeps it known after its end until it is cleaned up, as opposed to 5 minutes.
    pub fn keep(mut self) -> Self {
        self.request.auto_cleanup = Some(false);
        self
    }

    /// Starts it again after every end but a kill or its timeout.
    pub fn restart(mut self) -> Self {
        self.request.restart = Restart::Always;
        self
    }

    /// Bytes kept of each output stream: the last ones (contract P03). Default 16 MiB.
    pub fn max_log(mut self, bytes: u64) -> Self {
        self.request.max_log_bytes = Some(bytes);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// As any call, and `PROCESS_ALREADY_EXISTS`, `QUOTA_EXCEEDED`, `FILE_NOT_FOUND` (its directory).
    pub async fn run(self) -> Result<Process, ClientError> {
        self.run_with_info().await.map(|(process, _)| process)
    }

    /// Starts it, and says how it stands at that moment.
    ///
    /// # Errors
    /// As [`Start::run`].
    pub async fn run_with_info(self) -> Result<(Process, ProcessInfo), ClientError> {
        let call = Call::post("startProcess", self.target.path("/processes")).json(&self.request);
        let info: ProcessInfo = self.target.json(&call).await?;
        Ok((Process::new(self.target, info.id.clone()), info))
    }
}

impl IntoFuture for Start {
    type Output = Result<Process, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// What is kept of a process's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessOutput {
    /// What it wrote to stdout, byte for byte.
    pub stdout: Bytes,
    /// What it wrote to stderr, byte for byte.
    pub stderr: Bytes,
    /// Bytes before these that are no longer kept.
    pub truncated: Option<Truncated>,
}

impl ProcessOutput {
    /// stdout as text; bytes that are no UTF-8 become U+FFFD.
    pub fn stdout_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// stderr as text; bytes that are no UTF-8 become U+FFFD.
    pub fn stderr_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

/// A process of a sandbox. Cheap to clone; dropping it leaves the process running.
#[derive(Clone)]
pub struct Process {
    pub(crate) target: Arc<Target>,
    pub(crate) id: ProcessId,
}

impl Process {
    pub(crate) fn new(target: Arc<Target>, id: ProcessId) -> Self {
        Self { target, id }
    }

    /// Its id.
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        self.target.process_path(&self.id, rest)
    }

    /// It as it stands now.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`.
    pub async fn info(&self) -> Result<ProcessInfo, ClientError> {
        self.target.transport.json(&Call::get("getProcess", self.path(""))).await
    }

    /// Ends it with all that it started: by SIGTERM, and 5 s later by SIGKILL. Nothing of it is left when this returns.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`, also when it has ended.
    pub async fn kill(&self) -> Result<ProcessInfo, ClientError> {
        self.signal("SIGTERM").await
    }

    /// Sends a signal to it and all that it started. TERM, INT, QUIT, ABRT and KILL end it as [`Process::kill`] does; any
    /// other is only sent.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`, also when it has ended; `VALIDATION_FAILED` if there is no such signal.
    pub async fn signal(&self, signal: &str) -> Result<ProcessInfo, ClientError> {
        let request = KillProcess { signal: Some(signal.to_owned()) };
        let call = Call::post("killProcess", self.path("/kill")).json(&request);
        self.target.transport.json(&call).await
    }

    /// What is kept of its output.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`.
    pub async fn logs(&self) -> Result<ProcessOutput, ClientError> {
        let query = Query::new(self.path("/logs")).with("encoding", "base64");
        // Base64 of two streams, and the rest of the answer.
        let longest = usize::try_from(MAX_OUTPUT_BYTES).unwrap_or(usize::MAX).saturating_mul(3);
        let call = Call::get("getProcessLogs", query.finish()).unbounded().limit(longest);
        let logs: ProcessLogs = self.target.transport.json(&call).await?;
        let decode = |text: String| {
            decode(OutputEncoding::Base64, text.into()).ok_or_else(|| {
                self.target.transport.unexpected(call.operation, 200, "output that is no base64".to_owned())
            })
        };
        Ok(ProcessOutput {
            stdout: decode(logs.stdout)?,
            stderr: decode(logs.stderr)?,
            truncated: logs.truncated,
        })
    }

    /// Its log from the beginning, and then as it is written, to its end (contract P03).
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`; `QUOTA_EXCEEDED` when too many follow it already.
    pub async fn follow(&self) -> Result<LogStream, ClientError> {
        self.follow_from(0, 0).await
    }

    /// Its log from these raw byte offsets of stdout and stderr on.
    ///
    /// # Errors
    /// As [`Process::follow`].
    pub async fn follow_from(&self, stdout: u64, stderr: u64) -> Result<LogStream, ClientError> {
        LogStream::open(self.clone(), [stdout, stderr]).await
    }

    /// Talks with it over one connection: its output comes from the beginning of what is kept, and then as it is written;
    /// what is sent becomes its stdin if it was started [`interactive`](Start::interactive). Losing the connection, or
    /// dropping the value, leaves the process as it is, its stdin open.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`; `QUOTA_EXCEEDED` when too many follow it already.
    pub async fn attach(&self) -> Result<Attached, ClientError> {
        self.attach_from(0, 0).await
    }

    /// As [`Process::attach`], with its output from these raw byte offsets of stdout and stderr on.
    ///
    /// # Errors
    /// As [`Process::attach`].
    pub async fn attach_from(&self, stdout: u64, stderr: u64) -> Result<Attached, ClientError> {
        Attached::open(self, [stdout, stderr]).await
    }

    /// Writes to the stdin of a process that was started [`interactive`](Start::interactive).
    ///
    /// # Errors
    /// `VALIDATION_FAILED` if it is not interactive, `PROCESS_NOT_FOUND` if it has ended.
    pub async fn write_stdin(&self, bytes: impl Into<Bytes>) -> Result<(), ClientError> {
        self.upload(RequestBody::Bytes(bytes.into()), false).await
    }

    /// Writes to its stdin all that the reader gives, as it comes, and then closes it.
    ///
    /// # Errors
    /// As [`Process::write_stdin`].
    pub async fn write_stdin_from(&self, reader: impl AsyncRead + Send + 'static) -> Result<(), ClientError> {
        let chunks = Box::pin(tokio_util::io::ReaderStream::new(reader));
        self.upload(RequestBody::Stream { chunks, length: None }, true).await
    }

    /// Closes its stdin: it reads the end.
    ///
    /// # Errors
    /// As [`Process::write_stdin`].
    pub async fn close_stdin(&self) -> Result<(), ClientError> {
        self.upload(RequestBody::Bytes(Bytes::new()), true).await
    }

    async fn upload(&self, body: RequestBody, end: bool) -> Result<(), ClientError> {
        let end = if end { "true" } else { "false" };
        let query = Query::new(self.path("/stdin")).with("end", end);
        let call = Call::post("writeProcessStdin", query.finish());
        self.target.transport.upload::<Done>(&call, body).await.map(drop)
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("sandbox", &self.target.id)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

pub(crate) async fn list(target: &Target) -> Result<Vec<ProcessInfo>, ClientError> {
    let list: ProcessList = target.json(&Call::get("listProcesses", target.path("/processes"))).await?;
    Ok(list.processes)
}

pub(crate) async fn kill_all(target: &Target) -> Result<u64, ClientError> {
    let call = Call::new("killAllProcesses", Method::DELETE, target.path("/processes"));
    target.json::<ProcessCount>(&call).await.map(|done| done.count)
}

pub(crate) async fn clean_up(target: &Target) -> Result<u64, ClientError> {
    let call = Call::new("cleanupCompletedProcesses", Method::DELETE, target.path("/completed-processes"));
    target.json::<ProcessCount>(&call).await.map(|done| done.count)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
