//! Routes of sessions and variables.

use super::error::{Answer, Errors};
use super::extract::{Json, Path};
use super::{Api, routes};
use crate::agent::Agent;
use axum::extract::State;
use axum::http::StatusCode;
use sandcrab_api::session::{CreateSession, Done, SessionDeleted, SessionInfo, SessionList, SetEnv};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{SessionId, validate};
use std::sync::Arc;

pub(super) fn router() -> Api<Arc<Agent>> {
    Api::new()
        .routes(routes!(create, list))
        .routes(routes!(describe, delete))
        .routes(routes!(set_session_env))
        .routes(routes!(set_env))
}

/// Creates a session.
#[utoipa::path(post, path = "/sessions", tag = "sessions", operation_id = "createSession",
    request_body = CreateSession, responses((status = 201, body = SessionInfo), Errors))]
async fn create(
    State(agent): State<Arc<Agent>>,
    Json(request): Json<CreateSession>,
) -> Answer<(StatusCode, axum::Json<SessionInfo>)> {
    let session = agent.create_session(request).await.map_err(|error| error.during("createSession"))?;
    Ok((StatusCode::CREATED, axum::Json(session.info())))
}

/// Lists the sessions by age.
#[utoipa::path(get, path = "/sessions", tag = "sessions", operation_id = "listSessions",
    responses((status = 200, body = SessionList), Errors))]
async fn list(State(agent): State<Arc<Agent>>) -> axum::Json<SessionList> {
    axum::Json(SessionList { sessions: agent.sessions.list().await })
}

/// Describes a session.
#[utoipa::path(get, path = "/sessions/{sessionId}", tag = "sessions", operation_id = "describeSession",
    params(("sessionId" = SessionId, Path, description = "The session")),
    responses((status = 200, body = SessionInfo), Errors))]
async fn describe(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<SessionId>,
) -> Answer<axum::Json<SessionInfo>> {
    let session = agent.sessions.get(&id).map_err(|error| error.during("describeSession"))?;
    Ok(axum::Json(session.settled_info().await))
}

/// Deletes a session; its waiting commands fail, and its shell is gone when this answers, with everything that its commands
/// left running, `nohup` and `setsid` or not. What is to outlive its session is started as a process.
#[utoipa::path(delete, path = "/sessions/{sessionId}", tag = "sessions", operation_id = "deleteSession",
    params(("sessionId" = SessionId, Path, description = "The session")),
    responses((status = 200, body = SessionDeleted), Errors))]
async fn delete(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<SessionId>,
) -> Answer<axum::Json<SessionDeleted>> {
    let ended = agent.sessions.delete(&id).await.map_err(|error| error.during("deleteSession"))?;
    let (timestamp, ended_processes) = (Timestamp::now(), (ended > 0).then_some(ended as u64));
    Ok(axum::Json(SessionDeleted { success: true, session_id: id, ended_processes, timestamp }))
}

/// Sets and unsets variables of one session from its next command on.
#[utoipa::path(patch, path = "/sessions/{sessionId}/env", tag = "sessions", operation_id = "setSessionEnv",
    params(("sessionId" = SessionId, Path, description = "The session")),
    request_body = SetEnv, responses((status = 200, body = Done), Errors))]
async fn set_session_env(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<SessionId>,
    Json(request): Json<SetEnv>,
) -> Answer<axum::Json<Done>> {
    validate::set_env(&request).map_err(|error| error.during("setSessionEnv"))?;
    agent.sessions.set_session_env(&id, request.env).map_err(|error| error.during("setSessionEnv"))?;
    Ok(axum::Json(Done::now()))
}

/// Sets and unsets variables of the whole sandbox: in every session from its next command on.
#[utoipa::path(patch, path = "/env", tag = "sessions", operation_id = "setEnvVars",
    request_body = SetEnv, responses((status = 200, body = Done), Errors))]
async fn set_env(State(agent): State<Arc<Agent>>, Json(request): Json<SetEnv>) -> Answer<axum::Json<Done>> {
    validate::set_env(&request).map_err(|error| error.during("setEnvVars"))?;
    agent.sessions.set_env(&request.env).map_err(|error| error.during("setEnvVars"))?;
    Ok(axum::Json(Done::now()))
}
