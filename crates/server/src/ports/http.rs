//! Routes of exposed ports. They are the server's own: tokens outlive agents, and no agent knows them.

use super::{Exposure, Wish};
use crate::app::App;
use crate::auth::Caller;
use crate::store::AccountId;
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use sandcrab_agent::http::error::{Answer, Refusal};
use sandcrab_agent::http::extract::{Json, Path, Query};
use sandcrab_api::ports::{
    self, ExposePort, ExposedPort, ExposedPorts, PortStatus, PortTokenValidity, PortUnexposed, PreviewDomain,
    ValidatePortToken,
};
use sandcrab_api::sandbox::Network;
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use serde::Deserialize;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(expose, list))
        .routes(routes!(unexpose))
        .routes(routes!(validate))
        .routes(routes!(connect))
}

/// Whether a path below a sandbox belongs to these routes.
pub(crate) fn is_own(rest: &str) -> bool {
    rest == "/ports" || rest.starts_with("/ports/")
}

/// The operation that a request to these routes is counted as; `rest` is the path below the sandbox.
pub(crate) fn operation(method: &Method, rest: &str) -> &'static str {
    match (method.as_str(), rest) {
        ("POST", "/ports") => "exposePort",
        (_, "/ports") => "listExposedPorts",
        ("POST", _) => "validatePortToken",
        (_, rest) if rest.ends_with("/connect") => "connectPort",
        _ => "unexposePort",
    }
}

/// Exposes a port: whoever knows the URL reaches what listens on it inside the sandbox, over HTTP and WebSockets. The
/// sandbox need not listen yet; a request to the URL starts it if it is stopped.
#[utoipa::path(post, path = "/v1/sandboxes/{id}/ports", tag = "ports", operation_id = "exposePort",
    params(("id" = SandboxId, Path, description = "The sandbox; made with defaults if it does not exist")),
    request_body = ExposePort,
    responses((status = 201, description = "It is exposed", body = ExposedPort),
        (status = 200, description = "It was exposed already, and `replace` was asked for", body = ExposedPort)))]
async fn expose(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, Refusal>,
    headers: HeaderMap,
    request: Result<Json<ExposePort>, Refusal>,
) -> Answer<(StatusCode, axum::Json<ExposedPort>)> {
    let run = async {
        let id = sandbox_id(id)?;
        let Json(request) = request.map_err(|refusal| refusal.0)?;
        let port = ports::port(request.port)?;
        ports::previewable(&id, port)?;
        ports::name(request.name.as_deref())?;
        request.token.as_deref().map_or(Ok(()), ports::token)?;
        let domain = domain(&app, &headers, request.hostname.as_deref())?;
        let used = app.enter(&caller, id.clone()).await?;
        require_own_network(&app, caller.account, &id, port)?;
        let wish = Wish { token: request.token, name: request.name, replace: request.replace };
        let (exposed, is_new) =
            app.ports.expose(caller.account, &id, &used.live.instance, port, wish).await?;
        let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, axum::Json(describe(&exposed, &domain))))
    };
    run.await.map_err(during("exposePort"))
}

/// Which domain the URLs are to be of.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `NAME[:PORT]`, as for `exposePort`.
    #[param(max_length = 259, pattern = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$")]
    hostname: Option<String>,
}

/// Lists a sandbox's exposed ports by number. An id that was never used has none, and stays unused.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/ports", tag = "ports", operation_id = "listExposedPorts",
    params(("id" = SandboxId, Path, description = "The sandbox"), ListQuery),
    responses((status = 200, description = "The ports", body = ExposedPorts)))]
async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, Refusal>,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, Refusal>,
) -> Answer<axum::Json<ExposedPorts>> {
    let run = || {
        let id = sandbox_id(id)?;
        let Query(query) = query.map_err(|refusal| refusal.0)?;
        let domain = domain(&app, &headers, query.hostname.as_deref())?;
        let exposed = app.ports.list(caller.account, &id);
        let ports = exposed.iter().map(|exposure| describe(exposure, &domain)).collect();
        Ok(axum::Json(ExposedPorts { ports }))
    };
    run().map_err(during("listExposedPorts"))
}

/// Takes a port back. Its URL is dead at once: what is under way over it is cut.
#[utoipa::path(delete, path = "/v1/sandboxes/{id}/ports/{port}", tag = "ports", operation_id = "unexposePort",
    params(("id" = SandboxId, Path, description = "The sandbox"), ("port" = u16, Path, description = "The port", minimum = 1024)),
    responses((status = 200, description = "It is no longer exposed", body = PortUnexposed)))]
async fn unexpose(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, Refusal>,
) -> Answer<axum::Json<PortUnexposed>> {
    let run = async {
        let (id, port) = sandbox_and_port(path)?;
        match app.ports.unexpose(caller.account, &id, port).await? {
            true => Ok(axum::Json(PortUnexposed { success: true, port, timestamp: Timestamp::now() })),
            false => Err(not_exposed(&id, port)),
        }
    };
    run.await.map_err(during("unexposePort"))
}

/// Says whether a token is the one of an exposed port.
#[utoipa::path(post, path = "/v1/sandboxes/{id}/ports/{port}/validate", tag = "ports",
    operation_id = "validatePortToken",
    params(("id" = SandboxId, Path, description = "The sandbox"), ("port" = u16, Path, description = "The port", minimum = 1024)),
    request_body = ValidatePortToken,
    responses((status = 200, description = "Whether it is", body = PortTokenValidity)))]
async fn validate(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, Refusal>,
    request: Result<Json<ValidatePortToken>, Refusal>,
) -> Answer<axum::Json<PortTokenValidity>> {
    let run = || {
        let (id, port) = sandbox_and_port(path)?;
        let Json(request) = request.map_err(|refusal| refusal.0)?;
        let exposed = app.ports.get(caller.account, &id, port);
        let is_its = |exposure: Arc<Exposure>| exposure.token.as_bytes().ct_eq(request.token.as_bytes());
        let valid = exposed.is_some_and(|exposure| bool::from(is_its(exposure)));
        Ok(axum::Json(PortTokenValidity { valid }))
    };
    run().map_err(during("validatePortToken"))
}

/// Where a WebSocket is to go.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConnectQuery {
    /// The path, with its query, to ask what listens there for. Default `/`.
    path: Option<String>,
    /// From `POST /v1/tickets`, instead of a key.
    #[serde(rename = "ticket")]
    _ticket: Option<String>,
}

/// Opens a WebSocket to a port inside the sandbox, exposed or not. Programs that can give a WebSocket no header use a
/// ticket.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/ports/{port}/connect", tag = "ports", operation_id = "connectPort",
    params(("id" = SandboxId, Path, description = "The sandbox; made with defaults if it does not exist"),
        ("port" = u16, Path, description = "The port", minimum = 1024), ConnectQuery),
    responses((status = 101, description = "The WebSocket is open")))]
async fn connect(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, Refusal>,
    query: Result<Query<ConnectQuery>, Refusal>,
    request: Request,
) -> Answer<Response> {
    let run = async {
        let (id, port) = sandbox_and_port(path)?;
        let Query(query) = query.map_err(|refusal| refusal.0)?;
        let path = query.path.as_deref().unwrap_or("/");
        crate::preview::connect(&app, &caller, id, port, path, request).await
    };
    run.await.map_err(during("connectPort"))
}

/// In the host's network every port is the host's, the server's own among them (attack C08).
pub(crate) fn require_own_network(
    app: &App,
    account: AccountId,
    id: &SandboxId,
    port: u16,
) -> Result<(), ApiError> {
    if app.sandboxes.info(account, id.clone())?.network != Network::Host {
        return Ok(());
    }
    let reason = "it shares the host's network, so that its ports are the host's";
    Err(ApiError::new(ErrorCode::InvalidPort, format!("port {port} of sandbox {id}: {reason}"))
        .with("port", port)
        .with("reason", reason)
        .suggest("Call the port at the host itself, or use a sandbox with a network of its own."))
}

/// The domain that URLs are to have: the wanted one, the server's own, or the local name that it was called by.
fn domain(app: &App, headers: &HeaderMap, wanted: Option<&str>) -> Result<PreviewDomain, ApiError> {
    if let Some(wanted) = wanted {
        return PreviewDomain::parse(wanted);
    }
    if let Some(domain) = app.previews.domain() {
        return Ok(domain.clone());
    }
    let called = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match PreviewDomain::parse(called) {
        Ok(domain) if domain.is_local() => Ok(domain),
        _ => Err(ports::domain_required(called, "the server has no wildcard domain")),
    }
}

fn describe(exposure: &Exposure, domain: &PreviewDomain) -> ExposedPort {
    ExposedPort {
        port: exposure.port,
        url: domain.url(&exposure.label()),
        token: exposure.token.clone(),
        name: exposure.name.clone(),
        status: PortStatus::Active,
        created_at: exposure.created_at,
    }
}

fn not_exposed(id: &SandboxId, port: u16) -> ApiError {
    ApiError::new(ErrorCode::PortNotExposed, format!("port {port} of sandbox {id} is not exposed"))
        .with("port", port)
}

fn during(operation: &'static str) -> impl Fn(ApiError) -> Refusal {
    move |error| Refusal(error.during(operation))
}

fn sandbox_id(id: Result<Path<String>, Refusal>) -> Result<SandboxId, ApiError> {
    let Path(text) = id.map_err(|refusal| refusal.0)?;
    SandboxId::parse(&text).map_err(|error| ApiError::invalid("id", error.to_string()))
}

/// The port whose WebSocket a path below a sandbox is; none if it is another path.
///
/// # Errors
/// The port is none that can be connected to.
pub(crate) fn connected(rest: &str) -> Result<Option<u16>, ApiError> {
    let port = rest.strip_prefix("/ports/").and_then(|rest| rest.strip_suffix("/connect"));
    port.and_then(|port| port.parse().ok()).map(ports::port).transpose()
}

fn sandbox_and_port(path: Result<Path<(String, String)>, Refusal>) -> Result<(SandboxId, u16), ApiError> {
    let Path((id, port)) = path.map_err(|refusal| refusal.0)?;
    let id = SandboxId::parse(&id).map_err(|error| ApiError::invalid("id", error.to_string()))?;
    let number = port
        .parse()
        .map_err(|_| ports::invalid_port(port.get(..20).unwrap_or(&port).into(), "must be an integer"))?;
    Ok((id, ports::port(number)?))
}
