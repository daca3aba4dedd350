//! Waiting for a process (contract P04).

use crate::ClientError;
use crate::log::LogEvent;
use crate::processes::{Process, millis};
use crate::transport::Call;
use regex::Regex;
use sandcrab_api::exec::StreamName;
use sandcrab_api::process::{
    LogLine, PortMode, PortReady, ProcessExit, StatusRange, WaitForExit, WaitForLog, WaitForPort,
};
use sandcrab_api::{ApiError, ErrorCode};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::time::Instant;

/// How long a line that has no end yet is waited for before a pattern is tried on it.
const REST_OF_LINE: Duration = Duration::from_millis(50);
/// Bytes of one line that are looked at.
const LONGEST_LINE: usize = 64 << 10;

/// What a line of a log is to be.
#[derive(Clone, Debug)]
pub enum LogPattern {
    /// It contains this text. Looked for in the sandbox: nothing but the line travels.
    Text(String),
    /// It matches this pattern somewhere. Looked for here, in all that the process writes.
    Regex(Regex),
}

impl From<&str> for LogPattern {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for LogPattern {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Regex> for LogPattern {
    fn from(regex: Regex) -> Self {
        Self::Regex(regex)
    }
}

/// The line that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogMatch {
    /// The line without its end.
    pub line: String,
    /// Where it was written.
    pub stream: StreamName,
    /// What the groups of a pattern matched, the whole first; empty for a text.
    pub groups: Vec<Option<String>>,
}

/// What an open port must do to count as ready.
#[derive(Clone, Debug)]
pub struct PortWait {
    request: WaitForPort,
}

impl PortWait {
    /// Something listens on it.
    pub fn tcp(port: u16) -> Self {
        Self::new(port, PortMode::Tcp)
    }

    /// It answers `GET /` over HTTP with a status of 200 to 399.
    pub fn http(port: u16) -> Self {
        Self::new(port, PortMode::Http)
    }

    fn new(port: u16, mode: PortMode) -> Self {
        let (path, status, timeout, interval) = (None, None, None, None);
        Self { request: WaitForPort { port, mode, path, status, timeout, interval } }
    }

    /// What is asked for over HTTP.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.request.path = Some(path.into());
        self
    }

    /// The HTTP statuses that count.
    #[must_use]
    pub fn status(mut self, range: RangeInclusive<u16>) -> Self {
        self.request.status = Some(StatusRange { min: *range.start(), max: *range.end() });
        self
    }

    /// The longest pause between two HTTP attempts.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.request.interval = Some(millis(interval).max(1));
        self
    }
}

impl Process {
    /// Waits for its end.
    ///
    /// # Errors
    /// `PROCESS_READY_TIMEOUT`, `PROCESS_NOT_FOUND`.
    pub async fn wait_for_exit(&self, timeout: Option<Duration>) -> Result<ProcessExit, ClientError> {
        let request = WaitForExit { timeout: timeout.map(millis) };
        self.wait("waitForExit", "/wait-for-exit", &request).await
    }

    /// Waits for a line of its output, in what is kept of it or to come.
    ///
    /// # Errors
    /// `PROCESS_READY_TIMEOUT`, `PROCESS_EXITED_BEFORE_READY`, `PROCESS_NOT_FOUND`.
    pub async fn wait_for_log(
        &self,
        pattern: impl Into<LogPattern>,
        timeout: Option<Duration>,
    ) -> Result<LogMatch, ClientError> {
        let regex = match pattern.into() {
            LogPattern::Regex(regex) => regex,
            LogPattern::Text(text) => {
                let request = WaitForLog { text, timeout: timeout.map(millis) };
                let LogLine { line, stream } = self.wait("waitForLog", "/wait-for-log", &request).await?;
                return Ok(LogMatch { line, stream, groups: Vec::new() });
            }
        };
        let condition = format!("log /{regex}/");
        let search = self.search(&regex, &condition);
        let Some(limit) = timeout else { return search.await };
        match tokio::time::timeout(limit, search).await {
            Ok(found) => found,
            Err(_) => {
                let ms = millis(limit);
                let message = format!("process {:?}: {condition} did not come within {ms} ms", self.id);
                let error = self.about(ErrorCode::ProcessReadyTimeout, message, &condition).await;
                Err(error.with("timeout", ms).into())
            }
        }
    }

    /// Waits until a port of the sandbox is ready.
    ///
    /// # Errors
    /// `PROCESS_READY_TIMEOUT`, `PROCESS_EXITED_BEFORE_READY`, `PROCESS_NOT_FOUND`.
    pub async fn wait_for_port(
        &self,
        port: PortWait,
        timeout: Option<Duration>,
    ) -> Result<PortReady, ClientError> {
        let request = WaitForPort { timeout: timeout.map(millis), ..port.request };
        self.wait("waitForPort", "/wait-for-port", &request).await
    }

    async fn wait<T: serde::de::DeserializeOwned>(
        &self,
        operation: &'static str,
        path: &str,
        request: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        // Waiting twice does no more than waiting once.
        let call = Call::post(operation, self.path(path)).json(request).repeatable().unbounded();
        self.target.transport.json(&call).await
    }

    async fn search(&self, regex: &Regex, condition: &str) -> Result<LogMatch, ClientError> {
        let mut log = self.follow().await?;
        let mut lines = [Vec::new(), Vec::new()];
        let mut quiet: Option<Instant> = None;
        loop {
            let event = match quiet {
                None => log.next().await,
                Some(at) => match tokio::time::timeout_at(at, log.next()).await {
                    Ok(event) => event,
                    Err(_) => {
                        quiet = None;
                        match unfinished(regex, &lines) {
                            Some(found) => return Ok(found),
                            None => continue,
                        }
                    }
                },
            };
            let Some(event) = event.transpose()? else {
                return Err(self.target.transport.unexpected(
                    "waitForLog",
                    200,
                    "a log without its end".to_owned(),
                ));
            };
            let (stream, bytes) = match event {
                LogEvent::Stdout(bytes) => (StreamName::Stdout, bytes),
                LogEvent::Stderr(bytes) => (StreamName::Stderr, bytes),
                LogEvent::Dropped { stream, .. } => {
                    lines[stream as usize].clear();
                    continue;
                }
                LogEvent::Exit(exit) => {
                    if let Some(found) = unfinished(regex, &lines) {
                        return Ok(found);
                    }
                    let code = exit.exit_code;
                    let message =
                        format!("process {:?} ended with exit code {code} before {condition} came", self.id);
                    let error = self.about(ErrorCode::ProcessExitedBeforeReady, message, condition).await;
                    return Err(error.with("exitCode", code).into());
                }
                LogEvent::Info { .. } => continue,
            };
            let line = &mut lines[stream as usize];
            for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                let room = LONGEST_LINE.saturating_sub(line.len());
                line.extend_from_slice(&piece[..piece.len().min(room)]);
                if piece.ends_with(b"\n") {
                    if let Some(found) = matched(regex, stream, line) {
                        return Ok(found);
                    }
                    line.clear();
                }
            }
            quiet = lines.iter().any(|line| !line.is_empty()).then(|| Instant::now() + REST_OF_LINE);
        }
    }

    async fn about(&self, code: ErrorCode, message: String, condition: &str) -> ApiError {
        // The command is for people; an error without it says what matters.
        let command = self.info().await.map(|info| info.command).unwrap_or_default();
        ApiError::new(code, message)
            .during("waitForLog")
            .with("processId", self.id.as_str())
            .with("command", command)
            .with("condition", condition)
    }
}

fn unfinished(regex: &Regex, lines: &[Vec<u8>; 2]) -> Option<LogMatch> {
    [StreamName::Stdout, StreamName::Stderr].into_iter().find_map(|stream| {
        let line = &lines[stream as usize];
        (!line.is_empty()).then(|| matched(regex, stream, line)).flatten()
    })
}

fn matched(regex: &Regex, stream: StreamName, line: &[u8]) -> Option<LogMatch> {
    let line = String::from_utf8_lossy(line);
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let captures = regex.captures(line)?;
    let groups = captures.iter().map(|group| group.map(|found| found.as_str().to_owned())).collect();
    Some(LogMatch { line: line.to_owned(), stream, groups })
}
