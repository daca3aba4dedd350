//! Routes of commands.

use super::error::{Answer, Errors};
use super::extract::{Json, Path, Query, last_event_id, unreadable_body};
use super::{Api, routes};
use crate::agent::{Agent, Keep};
use crate::exec::answer;
use crate::exec::execution::{Execution, StopReason};
use crate::session::task::cancelled;
use crate::stdin::{StdinError, StdinQuery};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use http_body_util::BodyExt;
use sandcrab_api::exec::{ExecEvent, ExecInfo, ExecRequest, ExecResult, OutputEncoding};
use sandcrab_api::session::Done;
use sandcrab_api::{ApiError, ErrorCode, ExecId};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

pub(super) fn router() -> Api<Arc<Agent>> {
    Api::new()
        .routes(routes!(exec))
        .routes(routes!(exec_stream))
        .routes(routes!(list))
        .routes(routes!(describe))
        .routes(routes!(result))
        .routes(routes!(stream))
        .routes(routes!(cancel))
        .routes(routes!(write_stdin))
}

/// Runs a command in a session's shell and answers its whole result. A lost connection does not end it.
#[utoipa::path(post, path = "/exec", tag = "commands", operation_id = "exec",
    request_body = ExecRequest, responses((status = 200, body = ExecResult), Errors))]
async fn exec(State(agent): State<Arc<Agent>>, Json(request): Json<ExecRequest>) -> Answer<Response> {
    let encoding = request.encoding;
    let run = async { answer::result(agent.exec(request, Keep::AsAsked)?, encoding).await };
    Ok(run.await.map_err(|error| error.during("exec"))?)
}

/// Runs a command and streams its output as it is written. Each message is an `ExecEvent`; its id `STDOUT-STDERR` says
/// where to resume.
#[utoipa::path(post, path = "/exec/stream", tag = "commands", operation_id = "execStream",
    request_body = ExecRequest,
    responses((status = 200, body = ExecEvent, content_type = "text/event-stream"), Errors))]
async fn exec_stream(State(agent): State<Arc<Agent>>, Json(request): Json<ExecRequest>) -> Answer<Response> {
    let encoding = request.encoding;
    let execution = agent.exec(request, Keep::ForAFollower).map_err(|error| error.during("execStream"))?;
    Ok(answer::events(&execution, encoding, [0, 0]))
}

/// Commands that wait or run.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
struct ExecList {
    /// The commands, in no order.
    execs: Vec<ExecInfo>,
}

/// Lists the commands that wait or run now.
#[utoipa::path(get, path = "/execs", tag = "commands", operation_id = "listExecs",
    responses((status = 200, body = ExecList), Errors))]
async fn list(State(agent): State<Arc<Agent>>) -> axum::Json<ExecList> {
    axum::Json(ExecList {
        execs: agent.context.executions.active().iter().map(|execution| execution.info()).collect(),
    })
}

fn find(agent: &Agent, id: &ExecId, operation: &'static str) -> Result<Arc<Execution>, ApiError> {
    agent.context.executions.get(id).map_err(|error| error.during(operation))
}

/// Says where a command stands.
#[utoipa::path(get, path = "/execs/{execId}", tag = "commands", operation_id = "describeExec",
    params(("execId" = ExecId, Path, description = "The command")),
    responses((status = 200, body = ExecInfo), Errors))]
async fn describe(State(agent): State<Arc<Agent>>, Path(id): Path<ExecId>) -> Answer<axum::Json<ExecInfo>> {
    Ok(axum::Json(find(&agent, &id, "describeExec")?.info()))
}

/// How output is to be written.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ResultQuery {
    /// Default `utf8`.
    #[serde(default)]
    #[param(inline)]
    encoding: OutputEncoding,
}

/// Waits for a command's end and answers its whole result.
#[utoipa::path(get, path = "/execs/{execId}/result", tag = "commands", operation_id = "execResult",
    params(("execId" = ExecId, Path, description = "The command"), ResultQuery),
    responses((status = 200, body = ExecResult), Errors))]
async fn result(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ExecId>,
    Query(query): Query<ResultQuery>,
) -> Answer<Response> {
    let execution = find(&agent, &id, "execResult")?;
    Ok(answer::result(execution, query.encoding).await.map_err(|error| error.during("execResult"))?)
}

/// Where to resume.
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

/// Streams a command's output from raw byte offsets on, to its end.
#[utoipa::path(get, path = "/execs/{execId}/stream", tag = "commands", operation_id = "resumeExecStream",
    params(("execId" = ExecId, Path, description = "The command"), StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{1,19}-[0-9]{1,19}$", description = "`STDOUT-STDERR`, the id of the last event that came")),
    responses((status = 200, body = ExecEvent, content_type = "text/event-stream"), Errors))]
async fn stream(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ExecId>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let [stdout, stderr] = last_event_id(&headers).map_err(|error| error.during("resumeExecStream"))?;
    let offsets = [query.stdout_offset.unwrap_or(stdout), query.stderr_offset.unwrap_or(stderr)];
    Ok(answer::events(&find(&agent, &id, "resumeExecStream")?, query.encoding, offsets))
}

/// Kills a command with all its processes. Answers when none of it is left; an ended one stays as it is.
#[utoipa::path(post, path = "/execs/{execId}/cancel", tag = "commands", operation_id = "cancelExec",
    params(("execId" = ExecId, Path, description = "The command")),
    responses((status = 200, body = ExecInfo), Errors))]
async fn cancel(State(agent): State<Arc<Agent>>, Path(id): Path<ExecId>) -> Answer<axum::Json<ExecInfo>> {
    let execution = find(&agent, &id, "cancelExec")?;
    agent.context.executions.stop(&execution, StopReason::Cancelled, || cancelled(&execution));
    execution.finished().await;
    Ok(axum::Json(execution.info()))
}

/// Writes to the stdin of an interactive command, as the bytes come; waits while it is queued. Answers when it has taken
/// them all.
#[utoipa::path(post, path = "/execs/{execId}/stdin", tag = "commands", operation_id = "writeExecStdin",
    params(("execId" = ExecId, Path, description = "The command"), StdinQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Done), Errors))]
async fn write_stdin(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ExecId>,
    Query(query): Query<StdinQuery>,
    mut body: Body,
) -> Answer<axum::Json<Done>> {
    let during = |error: ApiError| error.during("writeExecStdin").with("execId", id.as_str());
    let execution = find(&agent, &id, "writeExecStdin")?;
    let Some(stdin) = &execution.stdin else {
        let message =
            format!("command {id:?} was not sent with interactive: true, and reads what it was given");
        return Err(during(ApiError::invalid("execId", message)).into());
    };
    let closed = || ApiError::new(ErrorCode::ExecStdinClosed, format!("command {id:?} reads no more stdin"));
    let mut offset = query.offset;
    let write = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unreadable_body(&error))?;
            let Ok(bytes) = frame.into_data() else { continue };
            stdin.write(&bytes, offset).await.map_err(|error| match error {
                StdinError::Closed => closed(),
                StdinError::Gap { .. } => ApiError::invalid("offset", format!("stdin {error}")),
                StdinError::Io(_) => ApiError::new(
                    ErrorCode::CommandExecutionError,
                    format!("stdin of command {id:?} {error}"),
                ),
            })?;
            offset = offset.map(|offset| offset.saturating_add(bytes.len() as u64));
        }
        if query.end {
            stdin.end().await;
        }
        Ok(())
    };
    // One that never begins has no stdin to be closed.
    let written = tokio::select! {
        written = write => written,
        _ended = execution.finished() => Err(closed()),
    };
    written.map_err(during)?;
    Ok(axum::Json(Done::now()))
}
