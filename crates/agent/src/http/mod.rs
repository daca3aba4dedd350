//! The agent's API over HTTP, which is the sandbox-scoped part of Sandcrab's API.

pub(crate) mod api;
pub(crate) mod check;
pub mod error;
mod exec;
pub mod extract;
pub(crate) mod serve;
mod sessions;

pub use api::Api;
pub use check::check;
pub use serve::linger;

use crate::agent::Agent;
pub(crate) use api::routes;
use axum::extract::State;
use axum::http::Method;
use sandcrab_api::ApiError;
use sandcrab_api::sandbox::{AgentEvent, AgentHello};
use std::sync::Arc;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(components(schemas(ApiError)))]
struct Document;

/// The sandbox-scoped routes and their document: what the server mounts below `/v1/sandboxes/{id}`.
pub fn router() -> Api<Arc<Agent>> {
    Api::new()
        .merge(sessions::router())
        .merge(exec::router())
        .merge(crate::files::http::router())
        .merge(crate::git::http::router())
        .merge(crate::processes::http::router())
        .merge(crate::code::http::router())
}

/// The document of the sandbox-scoped routes.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.merge(router().into_openapi());
    document
}

/// Everything that the agent serves: the sandbox-scoped routes, and its introduction to the server.
pub fn app(agent: Arc<Agent>) -> axum::Router {
    let routes = router().routes(routes!(hello)).into_router();
    let routes = routes.route("/agent/events", axum::routing::get(events)).merge(crate::ports::router());
    routes.fallback(unknown).method_not_allowed_fallback(wrong_method).with_state(agent)
}

/// The operation that a route stands for. Only refusals ask.
fn operation(method: &Method, path: &str) -> Option<String> {
    router().operation(method, path)
}

/// Says which agent this is, if it can work.
#[utoipa::path(get, path = "/agent", responses((status = 200, body = AgentHello)))]
async fn hello(State(agent): State<Arc<Agent>>) -> error::Answer<axum::Json<AgentHello>> {
    if let Err(unfit) = agent.fitness.check() {
        return Err(ApiError::new(sandcrab_api::ErrorCode::ServiceNotResponding, unfit.to_string()).into());
    }
    let features = ["sessions", "exec", "files", "events", "git", "processes", "code", crate::ports::FEATURE];
    let features = features.map(str::to_owned).to_vec();
    Ok(axum::Json(AgentHello { version: sandcrab_api::VERSION.to_owned(), features }))
}

/// How far the server has read.
#[derive(serde::Deserialize)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
}

/// What happened since, for the server alone; answered when there is something.
async fn events(
    State(agent): State<Arc<Agent>>,
    extract::Query(query): extract::Query<EventsQuery>,
) -> axum::Json<Vec<AgentEvent>> {
    axum::Json(agent.context.events.after(query.after).await)
}

async fn unknown(uri: axum::http::Uri) -> error::Refusal {
    ApiError::new(sandcrab_api::ErrorCode::RouteNotFound, format!("there is no route {}", uri.path())).into()
}

async fn wrong_method(method: Method, uri: axum::http::Uri) -> error::Refusal {
    let message = format!("{method} is not a method of {}", uri.path());
    ApiError::new(sandcrab_api::ErrorCode::MethodNotAllowed, message).into()
}
