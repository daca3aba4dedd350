//! Routes of sandboxes as wholes. What happens inside one is the agent's (see [`crate::proxy`]).

use crate::app::App;
use crate::auth::Caller;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode, header};
use sandcrab_agent::http::error::{Answer, Refusal};
use sandcrab_agent::http::extract::{Json, Path, Query};
use sandcrab_api::sandbox::{
    CreateSandbox, SandboxDestroyed, SandboxEvent, SandboxEvents, SandboxInfo, SandboxList, SandboxStopped,
    StopSandbox,
};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, SandboxId, validate};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(describe, create, destroy))
        .routes(routes!(stop))
        .routes(routes!(events))
        .routes(routes!(follow_events))
}

/// Whether a path below a sandbox is the server's own to answer.
pub(super) fn is_own(rest: &str) -> bool {
    matches!(rest, "/stop" | "/events" | "/events/stream") || crate::ports::is_own(rest)
}

/// Which sandboxes to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `NAME=VALUE`: only those with this label.
    #[param(pattern = "^[^=]+=")]
    label: Option<String>,
}

/// Lists the account's sandboxes, oldest first.
#[utoipa::path(get, path = "/v1/sandboxes", tag = "sandboxes", operation_id = "listSandboxes", params(ListQuery),
    responses((status = 200, description = "The sandboxes", body = SandboxList)))]
async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<ListQuery>, Refusal>,
) -> Answer<axum::Json<SandboxList>> {
    const OPERATION: &str = "listSandboxes";
    let Query(query) = query.map_err(during(OPERATION))?;
    let label = match &query.label {
        Some(text) => Some(
            text.split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| ApiError::invalid("label", "must be NAME=VALUE").during(OPERATION))?,
        ),
        None => None,
    };
    let mut sandboxes = app.sandboxes.list(caller.account);
    if let Some((name, value)) = label {
        sandboxes.retain(|sandbox| sandbox.labels.get(name).is_some_and(|found| found == value));
    }
    Ok(axum::Json(SandboxList { sandboxes: sandboxes.iter().map(|info| SandboxInfo::clone(info)).collect() }))
}

/// Describes a sandbox.
#[utoipa::path(get, path = "/v1/sandboxes/{id}", tag = "sandboxes", operation_id = "describeSandbox",
    params(("id" = SandboxId, Path, description = "The sandbox")),
    responses((status = 200, description = "The sandbox as it stands now", body = SandboxInfo)))]
async fn describe(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, Refusal>,
) -> Answer<axum::Json<SandboxInfo>> {
    const OPERATION: &str = "describeSandbox";
    let id = parse(OPERATION, id)?;
    let info = app.sandboxes.info(caller.account, id).map_err(|error| error.during(OPERATION))?;
    Ok(axum::Json(SandboxInfo::clone(&info)))
}

/// Makes a sandbox, or changes what may change of one that exists: `sleepAfter`, `keepAlive`, `labels`. Without a body
/// it is made with defaults.
#[utoipa::path(put, path = "/v1/sandboxes/{id}", tag = "sandboxes", operation_id = "createSandbox",
    params(("id" = SandboxId, Path, description = "The sandbox")), request_body = Option<CreateSandbox>,
    responses((status = 201, description = "It was made and runs", body = SandboxInfo),
        (status = 200, description = "It exists, now with these options", body = SandboxInfo)))]
async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, Refusal>,
    request: Request,
) -> Answer<(StatusCode, axum::Json<SandboxInfo>)> {
    const OPERATION: &str = "createSandbox";
    let id = parse(OPERATION, id)?;
    let wanted = body(request).await.map_err(during(OPERATION))?;
    validate::create_sandbox(&wanted).map_err(|error| error.during(OPERATION))?;
    let put = app.sandboxes.put(caller.account, id, wanted).await;
    let (info, made) = put.map_err(|error| error.during(OPERATION))?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(SandboxInfo::clone(&info))))
}

/// Takes a sandbox away with everything in it. Answers when it is gone; the id is free again.
#[utoipa::path(delete, path = "/v1/sandboxes/{id}", tag = "sandboxes", operation_id = "destroySandbox",
    params(("id" = SandboxId, Path, description = "The sandbox")),
    responses((status = 200, description = "It is gone", body = SandboxDestroyed)))]
async fn destroy(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, Refusal>,
) -> Answer<axum::Json<SandboxDestroyed>> {
    const OPERATION: &str = "destroySandbox";
    let id = parse(OPERATION, id)?;
    app.sandboxes.destroy(caller.account, id.clone()).await.map_err(|error| error.during(OPERATION))?;
    Ok(axum::Json(SandboxDestroyed { success: true, sandbox_id: id, timestamp: Timestamp::now() }))
}

/// Ends everything that runs in a sandbox and keeps its files and exposed ports: the next use starts it again on them.
/// What is under way in it is told that it was stopped. One that does not run stays as it is.
#[utoipa::path(post, path = "/v1/sandboxes/{id}/stop", tag = "sandboxes", operation_id = "stopSandbox",
    params(("id" = SandboxId, Path, description = "The sandbox")), request_body = Option<StopSandbox>,
    responses((status = 200, description = "Nothing runs in it", body = SandboxStopped)))]
async fn stop(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, Refusal>,
    request: Request,
) -> Answer<axum::Json<SandboxStopped>> {
    const OPERATION: &str = "stopSandbox";
    let id = parse(OPERATION, id)?;
    let StopSandbox { signal } = body(request).await.map_err(during(OPERATION))?;
    let stopped = app.sandboxes.stop(caller.account, id.clone(), signal.unwrap_or_default()).await;
    stopped.map_err(|error| error.during(OPERATION))?;
    Ok(axum::Json(SandboxStopped { success: true, sandbox_id: id, timestamp: Timestamp::now() }))
}

/// Reads a sandbox's event log, oldest first; also of one that was destroyed. An id that is used again goes on with the same log, and
/// its numbers.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/events", tag = "sandboxes", operation_id = "listEvents",
    params(("id" = SandboxId, Path, description = "The sandbox")),
    responses((status = 200, description = "The events", body = SandboxEvents)))]
async fn events(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, Refusal>,
) -> Answer<axum::Json<SandboxEvents>> {
    const OPERATION: &str = "listEvents";
    let id = parse(OPERATION, id)?;
    let events = app.sandboxes.events(caller.account, &id).await.map_err(|error| error.during(OPERATION))?;
    Ok(axum::Json(SandboxEvents { events }))
}

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FollowQuery {
    /// Only events whose `seq` is greater. Default 0, or what the header `Last-Event-ID` says.
    after: Option<u64>,
}

/// Replays a sandbox's event log and follows it, also past the sandbox's end: a destroyed id may be used again. Each
/// message is a `SandboxEvent`; its id is the event's `seq`. Following does not keep the sandbox awake.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/events/stream", tag = "sandboxes", operation_id = "followEvents",
    params(("id" = SandboxId, Path, description = "The sandbox"), FollowQuery,
        ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{1,19}$", description = "The `seq` of the last event that came")),
    responses((status = 200, description = "The events", body = SandboxEvent, content_type = "text/event-stream")))]
async fn follow_events(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, Refusal>,
    query: Result<Query<FollowQuery>, Refusal>,
    headers: HeaderMap,
) -> Answer<Response> {
    const OPERATION: &str = "followEvents";
    let id = parse(OPERATION, id)?;
    let Query(query) = query.map_err(during(OPERATION))?;
    let after = query.after.map_or_else(|| last_event_id(&headers), Ok);
    let after = after.map_err(|error| error.during(OPERATION))?;
    let log = app.sandboxes.follow_events(caller.account, id, after).await;
    let log = log.map_err(|error| error.during(OPERATION))?;
    // The server's end is its end too: who follows on asks the next one.
    let messages = stream::unfold((log, app), |(mut log, app)| async move {
        let event = tokio::select! {
            event = log.next() => event.transpose()?,
            () = app.ending.cancelled() => return None,
        };
        Some((event.map(|event| message(&event)), (log, app)))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((headers, Body::from_stream(messages)).into_response())
}

fn message(event: &SandboxEvent) -> Bytes {
    // The type has no keys that are not text.
    let json = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\ndata: {json}\n\n", event.seq).into()
}

fn last_event_id(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| ApiError::invalid("Last-Event-ID", "must be the seq of an event"))
}

pub(super) fn during(operation: &'static str) -> impl Fn(Refusal) -> Refusal {
    move |refusal| Refusal(refusal.0.during(operation))
}

fn parse(operation: &'static str, id: Result<Path<String>, Refusal>) -> Result<SandboxId, Refusal> {
    let Path(text) = id.map_err(during(operation))?;
    let id = SandboxId::parse(&text)
        .map_err(|error| ApiError::invalid("id", error.to_string()).during(operation))?;
    Ok(id)
}

/// The body, or defaults where there is none.
async fn body<T: DeserializeOwned + Default>(request: Request) -> Result<T, Refusal> {
    use axum::extract::FromRequest;
    use http_body::Body;
    if request.body().is_end_stream() {
        return Ok(T::default());
    }
    Json::from_request(request, &()).await.map(|Json(wanted)| wanted)
}
