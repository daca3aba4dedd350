//! Commands whose whole output is waited for.

use crate::ClientError;
use crate::follow::ExecStream;
use crate::path::Query;
use crate::sandbox::Target;
use crate::transport::Call;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sandcrab_api::exec::{ExecOutcome, ExecRequest, OutputEncoding};
use sandcrab_api::limits::DEFAULT_MAX_OUTPUT_BYTES;
use sandcrab_api::session::Done;
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ErrorCode, ExecId, SessionId};
use serde::Deserialize;
use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A command to be run. Awaiting it runs it and gives its [`ExecOutput`]; [`Exec::stream`] gives its output as it comes.
///
/// Dropping the future leaves the command running; [`Sandbox::cancel`](crate::Sandbox::cancel) with [`Exec::id`] kills it.
#[must_use = "a command runs when it is awaited or streamed"]
pub struct Exec {
    target: Arc<Target>,
    request: ExecRequest,
    id: ExecId,
    /// Whether output that is no text is asked for again, as bytes.
    is_exact: bool,
}

/// A command's end and output.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExecOutput {
    /// How it ended.
    pub outcome: ExecOutcome,
    /// What it wrote to stdout, byte for byte.
    pub stdout: Bytes,
    /// What it wrote to stderr, byte for byte.
    pub stderr: Bytes,
    /// The text that ran.
    pub command: String,
    /// The command's id.
    pub exec_id: ExecId,
    /// The session that ran it; none for [`Exec::fresh`].
    pub session_id: Option<SessionId>,
    /// When it started.
    pub timestamp: Timestamp,
}

impl ExecOutput {
    /// The shell's own status; 128+n when signal n ended it.
    pub fn exit_code(&self) -> i32 {
        self.outcome.exit_code
    }

    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.outcome.exit_code == 0
    }

    /// stdout as text; bytes that are no UTF-8 become U+FFFD.
    pub fn stdout_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// stderr as text; bytes that are no UTF-8 become U+FFFD.
    pub fn stderr_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

impl Exec {
    pub(crate) fn new(target: Arc<Target>, session_id: Option<SessionId>, command: String) -> Self {
        let id = new_id();
        let encoding = OutputEncoding::Utf8;
        let request = ExecRequest {
            command,
            session_id,
            exec_id: Some(id.clone()),
            encoding,
            ..ExecRequest::default()
        };
        Self { target, request, id, is_exact: true }
    }

    /// The id that this client made up for the command.
    pub fn id(&self) -> &ExecId {
        &self.id
    }

    /// Names the command: one id runs once, whoever asks.
    pub fn with_id(mut self, id: ExecId) -> Self {
        self.request.exec_id = Some(id.clone());
        self.id = id;
        self
    }

    /// Kills the command and all its processes this long after its start (contract S06). At least a millisecond.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(millis(timeout).max(1));
        self
    }

    /// Bounds the wait for earlier commands of its session (contract S08).
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.request.queue_timeout = Some(millis(timeout));
        self
    }

    /// Sets a variable for this command only.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.env.insert(name.into(), Some(value.into()));
        self
    }

    /// Unsets a variable for this command only.
    pub fn env_remove(mut self, name: impl Into<String>) -> Self {
        self.request.env.insert(name.into(), None);
        self
    }

    /// Sets the working directory for this command only.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.request.cwd = Some(directory.into());
        self
    }

    /// What the command reads on stdin. Default: nothing.
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.request.stdin = Some(text.into());
        self
    }

    /// Keeps its stdin open for what [`Sandbox::exec_input`](crate::Sandbox::exec_input) brings, until that or the command
    /// ends it. Not together with [`Exec::stdin`].
    pub fn interactive(mut self) -> Self {
        self.request.interactive = true;
        self
    }

    /// Whether it is.
    pub fn is_interactive(&self) -> bool {
        self.request.interactive
    }

    /// How output travels. Base64 brings the bytes as they are; text is a quarter smaller, and brings U+FFFD for what is
    /// no UTF-8. Default: as text, and where that is not exact, once more in base64, by the result that is kept (at most
    /// of 1024 later commands, and for 5 minutes). Streams are always exact.
    pub fn encoding(mut self, encoding: OutputEncoding) -> Self {
        self.request.encoding = encoding;
        self.is_exact = false;
        self
    }

    /// Bytes kept of each output stream: the first and the last half (contract S13). Default 64 MiB.
    pub fn max_output(mut self, bytes: u64) -> Self {
        self.request.max_output_bytes = Some(bytes);
        self
    }

    /// Runs it in a shell of its own that no session keeps.
    pub fn fresh(mut self) -> Self {
        self.request.fresh = true;
        self.request.session_id = None;
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As any call, and `COMMAND_TIMEOUT`, `RESOURCE_BUSY`, `SESSION_DESTROYED`, `OPERATION_INTERRUPTED` (cancelled).
    /// An exit code other than 0 is no error.
    pub async fn run(self) -> Result<ExecOutput, ClientError> {
        self.target.declare().await?;
        let kept = self.request.max_output_bytes.unwrap_or(DEFAULT_MAX_OUTPUT_BYTES);
        let call = Call::post("exec", self.target.path("/exec")).json(&self.request);
        let (output, invalid_utf8) = output(&self.target, call, kept, self.request.command.len()).await?;
        if invalid_utf8 && self.is_exact { result(&self.target, &self.id).await } else { Ok(output) }
    }

    /// Runs it and gives its output as it comes.
    ///
    /// # Errors
    /// As [`Exec::run`], for what is known before it starts; what comes later is an item of the stream.
    pub async fn stream(mut self) -> Result<ExecStream, ClientError> {
        self.request.encoding = OutputEncoding::Base64;
        self.target.declare().await?;
        ExecStream::start(self.target, self.id, &self.request).await
    }
}

impl IntoFuture for Exec {
    type Output = Result<ExecOutput, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// What is written to the stdin of an interactive command, in order.
pub struct ExecInput {
    target: Arc<Target>,
    id: ExecId,
    /// Bytes that it has taken.
    taken: u64,
}

impl ExecInput {
    pub(crate) fn new(target: Arc<Target>, id: ExecId) -> Self {
        Self { target, id, taken: 0 }
    }

    /// Writes; waits for as long as the command does not read. When the connection is lost it goes on where it broke off.
    ///
    /// # Errors
    /// `EXEC_STDIN_CLOSED` when the command has ended or its stdin was closed, `EXEC_NOT_FOUND`, `VALIDATION_FAILED` if it
    /// is not interactive.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), ClientError> {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        self.send(bytes, false).await?;
        self.taken += length;
        Ok(())
    }

    /// Closes it: the command reads the end.
    ///
    /// # Errors
    /// As [`ExecInput::write`].
    pub async fn end(self) -> Result<(), ClientError> {
        match self.send(Bytes::new(), true).await {
            // Asked twice, where the first answer was lost.
            Err(error) if error.code() == Some(ErrorCode::ExecStdinClosed) => Ok(()),
            ended => ended,
        }
    }

    async fn send(&self, bytes: Bytes, end: bool) -> Result<(), ClientError> {
        let query = Query::new(self.target.exec_path(&self.id, "/stdin"))
            .with("offset", &self.taken.to_string())
            .with("end", if end { "true" } else { "false" });
        let call = Call::post("writeExecStdin", query.finish()).octets(bytes).repeatable().unbounded();
        self.target.transport.json::<Done>(&call).await.map(drop)
    }
}

impl std::fmt::Debug for ExecInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecInput")
            .field("exec_id", &self.id)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

/// The result of a command that was sent before.
pub(crate) async fn result(target: &Target, id: &ExecId) -> Result<ExecOutput, ClientError> {
    let query = Query::new(target.exec_path(id, "/result")).with("encoding", "base64");
    let kept = sandcrab_api::limits::MAX_OUTPUT_BYTES;
    let command = sandcrab_api::limits::MAX_COMMAND_BYTES;
    let (output, _) = output(target, Call::get("getExecResult", query.finish()), kept, command).await?;
    Ok(output)
}

/// A result as it comes, without a copy of its long parts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireResult<'a> {
    #[serde(flatten)]
    outcome: ExecOutcome,
    command: String,
    exec_id: ExecId,
    #[serde(default)]
    session_id: Option<SessionId>,
    timestamp: Timestamp,
    encoding: OutputEncoding,
    #[serde(default)]
    invalid_utf8: bool,
    #[serde(borrow)]
    stdout: Cow<'a, str>,
    #[serde(borrow)]
    stderr: Cow<'a, str>,
}

/// A result, and whether U+FFFD stands in it for bytes that are no text.
async fn output(
    target: &Target,
    call: Call,
    kept: u64,
    command: usize,
) -> Result<(ExecOutput, bool), ClientError> {
    // In JSON one byte takes at most six. Around it: the rest of the result or of the error.
    let longest = kept.saturating_mul(12).saturating_add(command as u64 * 6).saturating_add(1 << 20);
    let call = call.repeatable().unbounded().limit(usize::try_from(longest).unwrap_or(usize::MAX));
    let (status, bytes) = target.transport.bytes(&call).await?;
    let result: WireResult<'_> = target.transport.parse(call.operation, status, &bytes)?;
    let decode = |text: Cow<'_, str>| match (result.encoding, text) {
        // As it stands in the answer: no copy.
        (OutputEncoding::Utf8, Cow::Borrowed(text)) => Ok(bytes.slice_ref(text.as_bytes())),
        (encoding, text) => decode(encoding, text).ok_or_else(|| {
            target.transport.unexpected(call.operation, status, "output that is no base64".to_owned())
        }),
    };
    let output = ExecOutput {
        stdout: decode(result.stdout)?,
        stderr: decode(result.stderr)?,
        outcome: result.outcome,
        command: result.command,
        exec_id: result.exec_id,
        session_id: result.session_id,
        timestamp: result.timestamp,
    };
    Ok((output, result.invalid_utf8))
}

/// The bytes of an output field.
pub(crate) fn decode(encoding: OutputEncoding, text: Cow<'_, str>) -> Option<Bytes> {
    match encoding {
        _ if text.is_empty() => Some(Bytes::new()),
        OutputEncoding::Utf8 => Some(text.into_owned().into()),
        OutputEncoding::Base64 => STANDARD.decode(text.as_bytes()).ok().map(Bytes::from),
    }
}

pub(crate) fn new_id() -> ExecId {
    let text = format!("{:032x}", rand::random::<u128>());
    // 32 hexadecimal digits are within the rule of these ids.
    ExecId::parse(&text).unwrap_or_else(|_| unreachable!("{text} is an exec id"))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
