//! Routes of code contexts.

use super::answer;
use super::run::Run;
use crate::agent::Agent;
use crate::http::error::{Answer, Errors};
use crate::http::extract::{Json, Path, Query};
use crate::http::{Api, routes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use sandcrab_api::code::{
    CodeContext, CodeContextDeleted, CodeContextList, CodeEvent, CreateCodeContext, RunCodeRequest,
    RunCodeResult, RunInfo,
};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ContextId, RunId};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

pub(crate) fn router() -> Api<Arc<Agent>> {
    Api::new()
        .routes(routes!(create, list))
        .routes(routes!(delete))
        .routes(routes!(run_code))
        .routes(routes!(run_code_stream))
        .routes(routes!(result))
        .routes(routes!(stream))
        .routes(routes!(cancel))
}

/// Makes a code context: an interpreter of its own. It can run code when this answers.
#[utoipa::path(post, path = "/code/contexts", tag = "code", operation_id = "createCodeContext",
    request_body = CreateCodeContext, responses((status = 201, body = CodeContext), Errors))]
async fn create(
    State(agent): State<Arc<Agent>>,
    Json(request): Json<CreateCodeContext>,
) -> Answer<(StatusCode, axum::Json<CodeContext>)> {
    let context = agent.code.create(request).await.map_err(|error| error.during("createCodeContext"))?;
    Ok((StatusCode::CREATED, axum::Json(context)))
}

/// Lists the code contexts by age.
#[utoipa::path(get, path = "/code/contexts", tag = "code", operation_id = "listCodeContexts",
    responses((status = 200, body = CodeContextList), Errors))]
async fn list(State(agent): State<Arc<Agent>>) -> axum::Json<CodeContextList> {
    axum::Json(CodeContextList { contexts: agent.code.list() })
}

/// Deletes a code context; its runs fail, and nothing that its code has started is left when this answers.
#[utoipa::path(delete, path = "/code/contexts/{contextId}", tag = "code", operation_id = "deleteCodeContext",
    params(("contextId" = ContextId, Path, description = "The context")),
    responses((status = 200, body = CodeContextDeleted), Errors))]
async fn delete(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<ContextId>,
) -> Answer<axum::Json<CodeContextDeleted>> {
    agent.code.delete(&id).await.map_err(|error| error.during("deleteCodeContext"))?;
    Ok(axum::Json(CodeContextDeleted { success: true, context_id: id, timestamp: Timestamp::now() }))
}

/// Runs code and answers its whole result. What the code raises is a part of the result. A lost connection does not end
/// the run.
#[utoipa::path(post, path = "/code/run", tag = "code", operation_id = "runCode",
    request_body = RunCodeRequest, responses((status = 200, body = RunCodeResult), Errors))]
async fn run_code(State(agent): State<Arc<Agent>>, Json(request): Json<RunCodeRequest>) -> Answer<Response> {
    let run = async { answer::result(agent.code.run(request).await?).await };
    Ok(run.await.map_err(|error| error.during("runCode"))?)
}

/// Runs code and streams what it writes and shows as it comes. Each message is a `CodeEvent`; its id says where to resume.
#[utoipa::path(post, path = "/code/run/stream", tag = "code", operation_id = "runCodeStream",
    request_body = RunCodeRequest,
    responses((status = 200, body = CodeEvent, content_type = "text/event-stream"), Errors))]
async fn run_code_stream(
    State(agent): State<Arc<Agent>>,
    Json(request): Json<RunCodeRequest>,
) -> Answer<Response> {
    let run = agent.code.run(request).await.map_err(|error| error.during("runCodeStream"))?;
    Ok(answer::events(run, 0))
}

fn find(agent: &Agent, id: &RunId, operation: &'static str) -> Result<Arc<Run>, ApiError> {
    agent.code.get_run(id).map_err(|error| error.during(operation))
}

/// Waits for a run's end and answers its whole result.
#[utoipa::path(get, path = "/code/runs/{runId}/result", tag = "code", operation_id = "runResult",
    params(("runId" = RunId, Path, description = "The run")),
    responses((status = 200, body = RunCodeResult), Errors))]
async fn result(State(agent): State<Arc<Agent>>, Path(id): Path<RunId>) -> Answer<Response> {
    let run = find(&agent, &id, "runResult")?;
    Ok(answer::result(run).await.map_err(|error| error.during("runResult"))?)
}

/// Where to resume.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// The id of the last event that came. Default 0, or what the header `Last-Event-ID` says.
    #[serde(default, deserialize_with = "crate::http::extract::offset")]
    offset: Option<u64>,
}

/// Streams a run's events from where a stream broke off, to its end.
#[utoipa::path(get, path = "/code/runs/{runId}/stream", tag = "code", operation_id = "resumeRunStream",
    params(("runId" = RunId, Path, description = "The run"), StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{1,19}$", description = "The id of the last event that came")),
    responses((status = 200, body = CodeEvent, content_type = "text/event-stream"), Errors))]
async fn stream(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<RunId>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    const OPERATION: &str = "resumeRunStream";
    let wrong =
        || ApiError::invalid("Last-Event-ID", "must be the id of an event, a number").during(OPERATION);
    let last = match headers.get("last-event-id") {
        Some(value) => value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?,
        None => 0,
    };
    Ok(answer::events(find(&agent, &id, OPERATION)?, query.offset.unwrap_or(last)))
}

/// Interrupts a run. Answers when it has ended; one that ended before stays as it is. The context keeps its state where
/// the language lets code be interrupted, else its interpreter is started anew.
#[utoipa::path(post, path = "/code/runs/{runId}/cancel", tag = "code", operation_id = "cancelRun",
    params(("runId" = RunId, Path, description = "The run")),
    responses((status = 200, body = RunInfo), Errors))]
async fn cancel(State(agent): State<Arc<Agent>>, Path(id): Path<RunId>) -> Answer<axum::Json<RunInfo>> {
    let run = find(&agent, &id, "cancelRun")?;
    agent.code.cancel(&run).await;
    Ok(axum::Json(run.info()))
}
