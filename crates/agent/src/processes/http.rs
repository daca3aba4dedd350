//! Routes of processes.

use super::process::Process;
use super::{attach, follow, signal, wait};
use crate::agent::Agent;
use crate::http::error::{Answer, Errors};
use crate::http::extract::{Json, Path, Query, last_event_id, unreadable_body};
use crate::http::{Api, routes};
use crate::stdin::StdinQuery;
use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use sandcrab_api::exec::OutputEncoding;
use sandcrab_api::process::{
    KillProcess, LogLine, PortReady, ProcessCount, ProcessExit, ProcessInfo, ProcessList, ProcessLogEvent,
    ProcessLogs, StartProcess, WaitForExit, WaitForLog, WaitForPort,
};
use sandcrab_api::session::Done;
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode, ProcessId};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

pub(crate) fn router() -> Api<Arc<Agent>> {
    Api::new()
        .routes(routes!(start, list, kill_all))
        .routes(routes!(clean_up))
        .routes(routes!(describe))
        .routes(routes!(kill))
        .routes(routes!(logs))
        .routes(routes!(stream))
        .routes(routes!(write_stdin))
        .routes(routes!(attach))
        .routes(routes!(wait_for_exit))
        .routes(routes!(wait_for_log))
        .routes(routes!(wait_for_port))
}

fn find(agent: &Agent, id: &ProcessId, operation: &'static str) -> Result<Arc<Process>, ApiError> {
    agent.processes.get(id).map_err(|error| error.during(operation))
}

/// Starts a process; it runs when this answers. It belongs to the sandbox: nothing but its own end, a kill or its timeout
/// ends it.
#[utoipa::path(post, path = "/processes", tag = "processes", operation_id = "startProcess",
    request_body = StartProcess, responses((status = 201, body = ProcessInfo), Errors))]
async fn start(
    State(agent): State<Arc<Agent>>,
    Json(request): Json<StartProcess>,
) -> Answer<(StatusCode, axum::Json<ProcessInfo>)> {
    // A task of its own: a caller who leaves must not leave half a process behind.
    let started =
        tokio::spawn(async move { agent.processes.start(&agent.context, &agent.sessions, request).await });
    let started = started.await.unwrap_or_else(|error| {
        Err(ApiError::new(ErrorCode::ProcessError, format!("the process could not be started: {error}")))
    });
    let process = started.map_err(|error| error.during("startProcess"))?;
    Ok((StatusCode::CREATED, axum::Json(process.info())))
}

/// Lists the processes by age, those that have ended included.
#[utoipa::path(get, path = "/processes", tag = "processes", operation_id = "listProcesses",
    responses((status = 200, body = ProcessList), Errors))]
async fn list(State(agent): State<Arc<Agent>>) -> axum::Json<ProcessList> {
    axum::Json(ProcessList {
        processes: agent.processes.list().iter().map(|process| process.info()).collect(),
    })
}

fn counted(count: usize) -> axum::Json<ProcessCount> {
    axum::Json(ProcessCount { success: true, count: count as u64, timestamp: Timestamp::now() })
}

/// How all are ended.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct KillQuery {
    /// As for killing one process; it must be a signal that ends them. Default `SIGTERM`.
    #[param(pattern = r"^(SIG)?(TERM|KILL|INT|QUIT|ABRT)$")]
    pub(crate) signal: Option<String>,
}

/// Ends every process with all that it started. Answers how many there were, when none of it is left.
#[utoipa::path(delete, path = "/processes", tag = "processes", operation_id = "killAllProcesses",
    params(KillQuery), responses((status = 200, body = ProcessCount), Errors))]
async fn kill_all(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<KillQuery>,
) -> Answer<axum::Json<ProcessCount>> {
    let during = |error: ApiError| error.during("killAllProcesses");
    let signal = signal::parse(query.signal.as_deref()).map_err(during)?;
    Ok(counted(agent.processes.kill_all(signal).await.map_err(during)?))
}

/// Forgets every process that has ended. Answers how many there were.
#[utoipa::path(delete, path = "/completed-processes", tag = "processes", operation_id = "cleanupCompletedProcesses",
    responses((status = 200, body = ProcessCount), Errors))]
async fn clean_up(State(agent): State<Arc<Agent>>) -> axum::Json<ProcessCount> {
    counted(agent.processes.clean_up())
}

/// Says where a process stands.
#[utoipa::path(get, path = "/processes/{processId}", tag = "processes", operation_id = "getProcess",
    params(("processId" = ProcessId, Path, description = "The process")),
    responses((status = 200, body = ProcessInfo), Errors))]
async fn describe(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ProcessId>,
) -> Answer<axum::Json<ProcessInfo>> {
    Ok(axum::Json(find(&agent, &id, "getProcess")?.info()))
}

/// Ends a process with all that it started: by a signal, and 5 s later by SIGKILL. Answers when none of it is left.
#[utoipa::path(post, path = "/processes/{processId}/kill", tag = "processes", operation_id = "killProcess",
    params(("processId" = ProcessId, Path, description = "The process")),
    request_body = KillProcess, responses((status = 200, body = ProcessInfo), Errors))]
async fn kill(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ProcessId>,
    Json(request): Json<KillProcess>,
) -> Answer<axum::Json<ProcessInfo>> {
    let during = |error: ApiError| error.during("killProcess");
    let signal = signal::parse(request.signal.as_deref()).map_err(during)?;
    let process = find(&agent, &id, "killProcess")?;
    agent.processes.kill(&process, signal).await.map_err(during)?;
    Ok(axum::Json(process.info()))
}

/// How output is to be written.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogsQuery {
    /// Default `utf8`.
    #[serde(default)]
    #[param(inline)]
    encoding: OutputEncoding,
}

/// Answers what is kept of a process's output.
#[utoipa::path(get, path = "/processes/{processId}/logs", tag = "processes", operation_id = "getProcessLogs",
    params(("processId" = ProcessId, Path, description = "The process"), LogsQuery),
    responses((status = 200, body = ProcessLogs), Errors))]
async fn logs(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ProcessId>,
    Query(query): Query<LogsQuery>,
) -> Answer<Response> {
    let process = find(&agent, &id, "getProcessLogs")?;
    Ok(follow::logs(&process, query.encoding).map_err(|error| error.during("getProcessLogs"))?)
}

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// Raw byte offset in stdout. Default 0, or what the header `Last-Event-ID` says.
    #[serde(default, deserialize_with = "crate::http::extract::offset")]
    stdout_offset: Option<u64>,
    /// Raw byte offset in stderr. Default 0, or what the header `Last-Event-ID` says.
    #[serde(default, deserialize_with = "crate::http::extract::offset")]
    stderr_offset: Option<u64>,
    /// Default `utf8`.
    #[serde(default)]
    #[param(inline)]
    encoding: OutputEncoding,
}

/// Replays a process's log and follows it to the process's end. Each message is a `ProcessLogEvent`; its id
/// `STDOUT-STDERR` says where to resume.
#[utoipa::path(get, path = "/processes/{processId}/logs/stream", tag = "processes",
    operation_id = "streamProcessLogs",
    params(("processId" = ProcessId, Path, description = "The process"), StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{1,19}-[0-9]{1,19}$", description = "`STDOUT-STDERR`, the id of the last event that came")),
    responses((status = 200, body = ProcessLogEvent, content_type = "text/event-stream"), Errors))]
async fn stream(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ProcessId>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let during = |error: ApiError| error.during("streamProcessLogs");
    let [stdout, stderr] = last_event_id(&headers).map_err(during)?;
    let offsets = [query.stdout_offset.unwrap_or(stdout), query.stderr_offset.unwrap_or(stderr)];
    let process = find(&agent, &id, "streamProcessLogs")?;
    Ok(follow::Events::new(process, query.encoding, offsets).map_err(during)?.response())
}

/// Writes to the stdin of an interactive process, as the bytes come. Answers when it has taken them all.
#[utoipa::path(post, path = "/processes/{processId}/stdin", tag = "processes", operation_id = "writeProcessStdin",
    params(("processId" = ProcessId, Path, description = "The process"), StdinQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Done), Errors))]
async fn write_stdin(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ProcessId>,
    Query(query): Query<StdinQuery>,
    mut body: Body,
) -> Answer<axum::Json<Done>> {
    let during = |error: ApiError| error.during("writeProcessStdin");
    let process = find(&agent, &id, "writeProcessStdin")?;
    let mut offset = query.offset;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| during(unreadable_body(&error)))?;
        let Ok(bytes) = frame.into_data() else { continue };
        process.write_stdin(&bytes, offset).await.map_err(during)?;
        offset = offset.map(|offset| offset.saturating_add(bytes.len() as u64));
    }
    if query.end {
        process.close_stdin().await.map_err(during)?;
    }
    Ok(axum::Json(Done::now()))
}

/// Attaches to a process over a WebSocket. Binary messages to it are stdin, text messages are `AttachCommand`s, of 1 MiB at
/// the most; each message from it is a `ProcessLogEvent`, from the beginning or the given offsets on. It closes behind the
/// process's end; leaving it ends nothing. Programs that can give a WebSocket no header use a ticket.
#[utoipa::path(get, path = "/processes/{processId}/attach", tag = "processes", operation_id = "attachProcess",
    params(("processId" = ProcessId, Path, description = "The process"), StreamQuery),
    responses((status = 101, description = "It is a WebSocket from here on"), Errors))]
async fn attach(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ProcessId>,
    Query(query): Query<StreamQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let during = |error: ApiError| error.during("attachProcess");
    let process = find(&agent, &id, "attachProcess")?;
    let upgrade = upgrade.map_err(|refused| during(ApiError::invalid("Upgrade", refused.body_text())))?;
    let offsets = [query.stdout_offset.unwrap_or(0), query.stderr_offset.unwrap_or(0)];
    let events = follow::Events::new(Arc::clone(&process), query.encoding, offsets).map_err(during)?;
    let upgrade = upgrade.max_message_size(attach::MAX_MESSAGE).max_frame_size(attach::MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| attach::talk(socket, process, events)))
}

/// Waits for a process's end.
#[utoipa::path(post, path = "/processes/{processId}/wait-for-exit", tag = "processes", operation_id = "waitForExit",
    params(("processId" = ProcessId, Path, description = "The process")),
    request_body = WaitForExit, responses((status = 200, body = ProcessExit), Errors))]
async fn wait_for_exit(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ProcessId>,
    Json(request): Json<WaitForExit>,
) -> Answer<axum::Json<ProcessExit>> {
    let process = find(&agent, &id, "waitForExit")?;
    let exit = wait::for_exit(&process, &request).await;
    Ok(axum::Json(exit.map_err(|error| error.during("waitForExit"))?))
}

/// Waits for a line of a process's output that contains a text, in what is kept of it or to come.
#[utoipa::path(post, path = "/processes/{processId}/wait-for-log", tag = "processes", operation_id = "waitForLog",
    params(("processId" = ProcessId, Path, description = "The process")),
    request_body = WaitForLog, responses((status = 200, body = LogLine), Errors))]
async fn wait_for_log(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ProcessId>,
    Json(request): Json<WaitForLog>,
) -> Answer<axum::Json<LogLine>> {
    let process = find(&agent, &id, "waitForLog")?;
    let line = wait::for_log(&process, &request).await;
    Ok(axum::Json(line.map_err(|error| error.during("waitForLog"))?))
}

/// Waits until something listens on a port of the sandbox, and answers HTTP if that is asked for.
#[utoipa::path(post, path = "/processes/{processId}/wait-for-port", tag = "processes", operation_id = "waitForPort",
    params(("processId" = ProcessId, Path, description = "The process whose end ends the wait")),
    request_body = WaitForPort, responses((status = 200, body = PortReady), Errors))]
async fn wait_for_port(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ProcessId>,
    Json(request): Json<WaitForPort>,
) -> Answer<axum::Json<PortReady>> {
    let process = find(&agent, &id, "waitForPort")?;
    let ready = wait::for_port(&process, &agent.ports, &request).await;
    Ok(axum::Json(ready.map_err(|error| error.during("waitForPort"))?))
}
