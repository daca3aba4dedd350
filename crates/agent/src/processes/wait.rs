//! Waiting for a process: its end, a line of its output, a port (contract P04). Each wait ends by an event, by the
//! process's end, or by its timeout; a caller who leaves ends it too.

use super::lines::Lines;
use super::log::Step;
use super::ports::{Ports, probe};
use super::process::Process;
use sandcrab_api::exec::StreamName;
use sandcrab_api::process::{
    LogLine, PortMode, PortReady, ProcessExit, WaitForExit, WaitForLog, WaitForPort,
};
use sandcrab_api::{ApiError, ErrorCode, validate};
use std::future::Future;
use std::time::Duration;

/// How long the rest of a line is waited for when the text was found in a line that has no end yet (a prompt).
const REST_OF_LINE: Duration = Duration::from_millis(50);
/// The first pause between two HTTP attempts, and the longest unless the caller says otherwise.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Runs a wait for at most `timeout` milliseconds.
async fn within<T>(
    process: &Process,
    condition: &str,
    timeout: Option<u64>,
    wait: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let _waiter = process.waiter()?;
    let Some(ms) = timeout else { return wait.await };
    let outcome = tokio::time::timeout(Duration::from_millis(ms), wait).await;
    outcome.unwrap_or_else(|_| {
        let message = format!(
            "process {:?} did not become ready within its timeout of {ms} ms: {condition} did not come",
            process.id
        );
        Err(about(ErrorCode::ProcessReadyTimeout, message, process, condition).with("timeout", ms))
    })
}

fn about(code: ErrorCode, message: String, process: &Process, condition: &str) -> ApiError {
    let command: String = process.command.chars().take(4096).collect();
    ApiError::new(code, message)
        .with("processId", process.id.as_str())
        .with("command", command)
        .with("condition", condition)
}

/// The error of a wait whose process has ended.
fn exited(process: &Process, condition: &str, exit: Result<ProcessExit, ApiError>) -> ApiError {
    match exit {
        Ok(exit) => {
            let code = exit.exit_code;
            let message =
                format!("process {:?} ended with exit code {code} before {condition} came", process.id);
            about(ErrorCode::ProcessExitedBeforeReady, message, process, condition).with("exitCode", code)
        }
        Err(error) => error,
    }
}

/// Waits for the end.
///
/// # Errors
/// `PROCESS_READY_TIMEOUT`.
pub(super) async fn for_exit(process: &Process, request: &WaitForExit) -> Result<ProcessExit, ApiError> {
    validate::wait_for_exit(request)?;
    within(process, "its exit", request.timeout, process.ended()).await
}

/// Waits for a line that contains a text, in what is kept of the log or comes.
///
/// # Errors
/// `PROCESS_READY_TIMEOUT`, `PROCESS_EXITED_BEFORE_READY`.
pub(super) async fn for_log(process: &Process, request: &WaitForLog) -> Result<LogLine, ApiError> {
    validate::wait_for_log(request)?;
    let condition = format!("log {:?}", request.text);
    within(process, &condition, request.timeout, line(process, &condition, &request.text)).await
}

async fn line(process: &Process, condition: &str, text: &str) -> Result<LogLine, ApiError> {
    let mut reader = process.log.reader([0, 0]);
    let mut buffer = vec![0; 64 << 10];
    let mut streams = [Lines::new(text.as_bytes()), Lines::new(text.as_bytes())];
    let mut waiting_since: Option<tokio::time::Instant> = None;
    loop {
        let step = match waiting_since {
            None => reader.next(&mut buffer).await,
            Some(since) => {
                match tokio::time::timeout_at(since + REST_OF_LINE, reader.next(&mut buffer)).await {
                    Ok(step) => step,
                    Err(_) => {
                        return Ok(found(&streams, true).unwrap_or_else(|| unreachable!("it was found")));
                    }
                }
            }
        };
        let step = step.map_err(|error| {
            let message = format!("the log of process {:?} could not be read back: {error}", process.id);
            ApiError::new(ErrorCode::FilesystemError, message).with("processId", process.id.as_str())
        })?;
        match step {
            Step::Bytes(stream, count) => streams[stream as usize].push(&buffer[..count]),
            Step::Dropped(stream, _) => streams[stream as usize].gap(),
            Step::End => {
                let exit = process.ended().await;
                return found(&streams, true).ok_or_else(|| exited(process, condition, exit));
            }
        }
        if let Some(line) = found(&streams, false) {
            return Ok(line);
        }
        if waiting_since.is_none() && found(&streams, true).is_some() {
            waiting_since = Some(tokio::time::Instant::now());
        }
        // A log that is never read to its end must not keep the thread from everything else.
        tokio::task::yield_now().await;
    }
}

fn found(streams: &[Lines<'_>; 2], unfinished: bool) -> Option<LogLine> {
    [StreamName::Stdout, StreamName::Stderr].into_iter().find_map(|stream| {
        let line = streams[stream as usize].found(unfinished)?;
        Some(LogLine { line: String::from_utf8_lossy(line).into_owned(), stream })
    })
}

/// Waits for a port of the sandbox to open, and for HTTP to be answered on it.
///
/// # Errors
/// `PROCESS_READY_TIMEOUT`, `PROCESS_EXITED_BEFORE_READY`.
pub(super) async fn for_port(
    process: &Process,
    ports: &Ports,
    request: &WaitForPort,
) -> Result<PortReady, ApiError> {
    validate::wait_for_port(request)?;
    let condition = match request.mode {
        PortMode::Tcp => format!("port {}", request.port),
        PortMode::Http => {
            format!("port {} (http {})", request.port, request.path.as_deref().unwrap_or("/"))
        }
    };
    let wait = async {
        tokio::select! {
            biased;
            ready = ready(ports, request) => ready.map_err(|error| {
                let message = format!("the sandbox's sockets cannot be looked at: {error}");
                ApiError::new(ErrorCode::PortOperationError, message).with("port", request.port)
            }),
            exit = process.given_up() => Err(exited(process, &condition, exit)),
        }
    };
    within(process, &condition, request.timeout, wait).await
}

async fn ready(ports: &Ports, request: &WaitForPort) -> std::io::Result<PortReady> {
    let port = request.port;
    let longest = request.interval.map_or(LONGEST_PAUSE, Duration::from_millis);
    let mut pause = FIRST_PAUSE.min(longest);
    loop {
        let address = ports.opened(port).await?;
        if request.mode == PortMode::Tcp {
            return Ok(PortReady { port, status: None });
        }
        let path = request.path.as_deref().unwrap_or("/");
        let range = request.status.unwrap_or_default();
        if let Some(status) = probe(address, path).await
            && (range.min..=range.max).contains(&status)
        {
            return Ok(PortReady { port, status: Some(status) });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
