//! The route of checkouts.

use crate::agent::Agent;
use crate::exec::execution::{Execution, Finish};
use crate::exec::spool::Piece;
use crate::http::error::{Answer, Errors};
use crate::http::extract::Json;
use crate::http::{Api, routes};
use axum::extract::State;
use sandcrab_api::exec::StreamName;
use sandcrab_api::git::{GitCheckout, GitCheckoutResult};
use sandcrab_api::{ApiError, ErrorCode};
use std::sync::Arc;

pub(crate) fn router() -> Api<Arc<Agent>> {
    Api::new().routes(routes!(checkout))
}

/// Clones a repository with the sandbox's own git and checks it out.
///
/// A lost connection does not end it: send the request again with its `execId`, or cancel the command of that id. A
/// checkout that fails leaves nothing behind.
#[utoipa::path(post, path = "/git/checkout", tag = "git", operation_id = "gitCheckout",
    request_body = GitCheckout,
    responses((status = 200, description = "It is checked out", body = GitCheckoutResult),
        (status = 401, description = "The repository's host wants other credentials", body = ApiError),
        (status = 502, description = "The repository's host cannot be reached", body = ApiError), Errors))]
async fn checkout(
    State(agent): State<Arc<Agent>>,
    Json(request): Json<GitCheckout>,
) -> Answer<axum::Json<GitCheckoutResult>> {
    let result = async { result(&*agent.git_checkout(request)?).await };
    Ok(axum::Json(result.await.map_err(|error| error.during(super::OPERATION))?))
}

/// A checkout's result, which is what it wrote to stdout.
async fn result(execution: &Execution) -> Result<GitCheckoutResult, ApiError> {
    if let Finish::Failed(error) = execution.finished().await {
        return Err(*error);
    }
    let mut json = vec![0; super::KEPT as usize];
    let read = execution.read_at(StreamName::Stdout, 0, &mut json);
    if let Ok(Piece::Bytes(count)) = read
        && let Ok(result) = serde_json::from_slice(&json[..count])
    {
        return Ok(result);
    }
    // Another command under this id, or one that made room for younger ones.
    let message =
        format!("execId {:?} names a command whose result is none of a checkout, or not kept", execution.id);
    Err(ApiError::new(ErrorCode::ExecAlreadyExists, message).with("execId", execution.id.as_str()))
}
