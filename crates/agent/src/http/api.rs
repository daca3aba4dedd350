//! Routes that are served without being described.
//!
//! The API's document is made of the agent's own handlers, but only the server publishes it. To describe all routes takes
//! milliseconds and megabytes, which every sandbox would pay for at its start; so a route keeps its handler and the
//! *way* to its description.

use axum::http::Method;
use axum::routing::MethodRouter;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

/// Handlers at one path.
#[derive(Debug)]
pub(crate) struct Routes<S> {
    pub(crate) path: String,
    pub(crate) handlers: MethodRouter<S>,
    pub(crate) describe: fn() -> UtoipaMethodRouter<S>,
}

/// Handlers with `#[utoipa::path]`, all at one path: `routes!(create, list)`.
macro_rules! routes {
    ($first:ident $(, $other:ident)* $(,)?) => {{
        use utoipa::Path as _;
        use utoipa_axum::PathItemExt as _;
        let mut handlers = axum::routing::MethodRouter::new();
        utoipa_axum::paste! {
            let path = [<__path_ $first>]::path();
            for method in [<__path_ $first>]::methods() {
                handlers = handlers.on(method.to_method_filter(), $first);
            }
            $(for method in [<__path_ $other>]::methods() {
                handlers = handlers.on(method.to_method_filter(), $other);
            })*
        }
        $crate::http::api::Routes { path, handlers, describe: || utoipa_axum::routes!($first $(, $other)*) }
    }};
}
pub(crate) use routes;

/// A part of the API.
#[derive(Debug)]
pub struct Api<S = ()> {
    routes: Vec<Routes<S>>,
}

impl<S: Clone + Send + Sync + 'static> Api<S> {
    pub(crate) fn new() -> Self {
        Self { routes: Vec::new() }
    }

    pub(crate) fn routes(mut self, routes: Routes<S>) -> Self {
        self.routes.push(routes);
        self
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// What serves it.
    pub fn into_router(self) -> axum::Router<S> {
        self.routes
            .into_iter()
            .fold(axum::Router::new(), |router, Routes { path, handlers, .. }| router.route(&path, handlers))
    }

    /// What describes it.
    pub fn into_openapi(self) -> OpenApi {
        let described = self.routes.iter().map(|routes| (routes.describe)());
        described.fold(OpenApiRouter::<S>::new(), OpenApiRouter::routes).into_openapi()
    }

    /// The id of one operation; describes its path alone.
    pub(crate) fn operation(&self, method: &Method, path: &str) -> Option<String> {
        let routes = self.routes.iter().filter(|routes| routes.path == path);
        routes.flat_map(|routes| (routes.describe)().1.paths).find_map(|(_, item)| {
            let operation: Option<Operation> = match *method {
                Method::GET => item.get,
                Method::POST => item.post,
                Method::PUT => item.put,
                Method::PATCH => item.patch,
                Method::DELETE => item.delete,
                _ => None,
            };
            operation?.operation_id
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    #[test]
    fn x01_the_operation_of_a_route_is_found_without_the_whole_document() {
        let api = crate::http::router();
        assert_eq!(api.operation(&Method::POST, "/exec").as_deref(), Some("exec"));
        assert_eq!(api.operation(&Method::DELETE, "/sessions/{sessionId}").as_deref(), Some("deleteSession"));
        assert_eq!(api.operation(&Method::PATCH, "/exec"), None);
        assert_eq!(api.operation(&Method::GET, "/nothing"), None);
    }
}
