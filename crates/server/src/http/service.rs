//! The routes of the service itself, and the router that joins them with those of sandboxes.

use crate::app::App;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Method, Uri, header};
use sandcrab_agent::http::error::{Answer, Refusal};
use sandcrab_api::ApiError;
use sandcrab_api::sandbox::Health;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The paths that need no key.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/health" | "/v1/openapi.json")
}

/// The operation that a request to the server's own routes is counted as.
pub(super) fn operation(method: &Method, path: &str) -> Option<Arc<str>> {
    let below =
        path.strip_prefix("/v1/sandboxes/").and_then(|rest| rest.find('/').map(|slash| &rest[slash..]));
    if let Some(rest) = below.filter(|rest| crate::ports::is_own(rest)) {
        return Some(crate::ports::operation(method, rest).into());
    }
    let name = match (method.as_str(), path) {
        (_, "/health") => "health",
        (_, "/v1/openapi.json") => "openapi",
        (_, "/metrics") => "metrics",
        (_, "/v1/sandboxes") => "listSandboxes",
        (_, "/v1/images") => "listImages",
        ("PUT", path) if path.starts_with("/v1/images/") => "buildImage",
        ("DELETE", path) if path.starts_with("/v1/images/") => "removeImage",
        (_, "/v1/tickets") => "createTicket",
        (_, path) if !path.starts_with("/v1/sandboxes/") => return None,
        (_, path) if path.ends_with("/events") => "listEvents",
        (_, path) if path.ends_with("/events/stream") => "followEvents",
        (_, path) if path.ends_with("/stop") && below.is_some() => "stopSandbox",
        ("PUT", _) => "createSandbox",
        ("GET", _) => "describeSandbox",
        ("DELETE", _) => "destroySandbox",
        _ => return None,
    };
    Some(name.into())
}

/// Whether an operation of the server's own has query parameters. What programs of operators ask takes any: some add one so
/// that no cache answers.
pub(super) fn takes_query(operation: &str) -> bool {
    let asks = ["listSandboxes", "followEvents", "listExposedPorts", "connectPort"];
    asks.contains(&operation) || ["health", "openapi", "metrics"].contains(&operation)
}

/// The longest body of an operation of the server's own; none of one that takes no body.
pub(super) fn body_bound(operation: &str) -> Option<usize> {
    match operation {
        // Variables as JSON, in which a byte may take six.
        "createSandbox" => Some(4 << 20),
        "createTicket" | "exposePort" | "stopSandbox" | "validatePortToken" => Some(64 << 10),
        _ => None,
    }
}

/// The server's own routes with their document.
pub(super) fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(health))
        .routes(routes!(openapi))
        .routes(routes!(metrics))
        .merge(super::sandboxes::router())
        .merge(super::images::router())
        .merge(crate::ports::router())
        .merge(crate::tickets::router())
}

/// The server's own routes.
pub(super) fn router() -> Router<Arc<App>> {
    let (router, _document) = documented().split_for_parts();
    // Behind the choice of a route, so that a path or method that is none is told as that.
    let router = router.route_layer(axum::middleware::from_fn(only_known_queries));
    router.fallback(unknown).method_not_allowed_fallback(wrong_method)
}

async fn only_known_queries(request: Request, next: Next) -> Result<Response, Refusal> {
    if let Some(operation) = operation(request.method(), request.uri().path())
        && !takes_query(&operation)
        && let Err(error) = crate::proxy::refuse_query(request.uri())
    {
        return Err(Refusal(ApiError { operation: Some(operation.to_string().into()), ..error }));
    }
    Ok(next.run(request).await)
}

async fn unknown(method: Method, uri: Uri) -> Refusal {
    super::unknown_route(&method, uri.path()).into()
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    super::wrong_method(&method, uri.path()).into()
}

/// Says that the server answers, and its release.
#[utoipa::path(get, path = "/health", tag = "server", operation_id = "health", security(()),
    responses((status = 200, description = "The server is up", body = Health)))]
async fn health() -> axum::Json<Health> {
    axum::Json(Health { status: "ok".to_owned(), version: sandcrab_api::VERSION.to_owned() })
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "server", operation_id = "openapi", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")))]
async fn openapi(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.document.clone()).into_response()
}

/// Numbers for operators, in OpenMetrics' text form.
#[utoipa::path(get, path = "/metrics", tag = "server", operation_id = "metrics",
    responses((status = 200, description = "OpenMetrics", body = String,
        content_type = "application/openmetrics-text")))]
async fn metrics(State(app): State<Arc<App>>) -> Answer<Response> {
    let text = app.metrics.encode(&app.sandboxes).map_err(|error| super::internal("metrics", &error))?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use utoipa::openapi::RefOr;
    use utoipa::openapi::path::ParameterIn;

    #[test]
    fn x02_the_queries_that_are_taken_are_those_of_the_document() {
        let (_, document) = documented().split_for_parts();
        for item in document.paths.paths.values() {
            for operation in
                [&item.get, &item.put, &item.post, &item.delete, &item.patch].into_iter().flatten()
            {
                let asks = operation.parameters.iter().flatten();
                let asks = asks.filter(
                    |it| matches!(it, RefOr::T(one) if matches!(one.parameter_in, ParameterIn::Query)),
                );
                let asks = asks.count() > 0;
                let id = operation.operation_id.as_deref().unwrap();
                let any = ["health", "openapi", "metrics"].contains(&id);
                assert_eq!(takes_query(id), asks || any, "{id}");
            }
        }
    }
}
