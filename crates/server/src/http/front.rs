//! What happens to every request before and after its route: a request id, the name check, the key, panics, the
//! answer's common headers, a count and a log line.

use crate::app::App;
use crate::auth::{Caller, OWN_KEY};
use crate::bodies::{self, Outcome};
use crate::connection::Arrival;
use crate::cors::Cors;
use crate::preview::{self, PreviewHost, websocket};
use crate::proxies::Proxies;
use crate::proxy::{self, Upload};
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use futures_util::FutureExt;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, Version};
use http_body::Body as _;
use sandcrab_agent::http::error::Refusal;
use sandcrab_api::{ApiError, ErrorCode};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tower::Service;

const PREFIX: &str = "/v1/sandboxes/";
/// The longest request id that is taken over from a caller.
const REQUEST_ID_LENGTH: usize = 64;

/// The entry of every request. Cheap to clone, one per connection.
#[derive(Clone)]
pub(crate) struct Front {
    app: Arc<App>,
    router: Router,
    proxies: Arc<Proxies>,
    ids: Arc<Ids>,
}

/// What is known of a request when it is counted.
#[derive(Default)]
pub(crate) struct Labels {
    /// The operation's id in the document; none if no route was found.
    pub(crate) route: Option<Arc<str>>,
}

/// Makes request ids: unlike those of any other run of the server, and cheap.
struct Ids {
    run: u32,
    next: AtomicU64,
}

impl Front {
    pub(crate) fn new(app: Arc<App>, proxies: Proxies) -> Self {
        let router = super::service::router().with_state(app.clone());
        let proxies = Arc::new(proxies);
        Self { app, router, proxies, ids: Arc::new(Ids { run: rand::random(), next: AtomicU64::new(0) }) }
    }

    /// Answers a request.
    pub(crate) async fn answer(mut self, mut request: Request<Body>, mut arrival: Arrival) -> Response<Body> {
        arrival.connection.asked();
        arrival.client = self.proxies.client(arrival.peer, request.headers());
        name_host(&mut request);
        let host = self.app.previews.host_of(request.headers());
        if host.is_some() || preview::is_forwarded(request.headers()) {
            return self.preview(host, request, arrival).await;
        }
        let id = self.ids.of(&request);
        request.headers_mut().insert(super::REQUEST_ID, id.clone());
        let origin = self.app.cors.allowed(request.headers());
        let method = request.method().clone();
        let mut labels = Labels::default();

        let mut response = guarded(self.route(request, &arrival, &mut labels)).await;

        let status = response.status();
        let operation = labels.route.unwrap_or_else(|| "none".into());
        if status.is_server_error() {
            tracing::warn!(request = ?id, %method, operation = &*operation, status = status.as_u16(), "request failed");
        } else {
            tracing::debug!(request = ?id, %method, operation = &*operation, status = status.as_u16(), "request");
        }
        self.app.metrics.request(operation, status.as_u16());
        let headers = response.headers_mut();
        headers.insert(super::REQUEST_ID, id);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Cors::open(origin, headers);
        response
    }

    async fn route(
        &mut self,
        request: Request<Body>,
        arrival: &Arrival,
        labels: &mut Labels,
    ) -> Response<Body> {
        self.try_route(request, arrival, labels).await.unwrap_or_else(|error| Refusal(error).into_response())
    }

    async fn try_route(
        &mut self,
        mut request: Request<Body>,
        arrival: &Arrival,
        labels: &mut Labels,
    ) -> Result<Response<Body>, ApiError> {
        check_framing(&request, arrival)?;
        self.app.hosts.check(request.uri(), request.headers(), arrival.local)?;
        if self.app.auth.is_open() {
            self.app.cors.require_own_page(request.headers())?;
        }
        if let Some(preflight) = self.app.cors.preflight(&request) {
            return Ok(preflight);
        }
        check_coding(request.headers())?;
        let path = request.uri().path();
        let mut busy = None;
        if !super::service::is_open(path) {
            let caller = self.caller(&request, arrival)?;
            let keyed = Arc::new(arrival.connection.keyed());
            if let Some((id, rest)) = below_a_sandbox(path)
                && !super::sandboxes::is_own(rest)
            {
                let (id, rest) = (id.to_owned(), rest.to_owned());
                request.extensions_mut().insert(keyed.clone());
                let mut answer = proxy::forward(&self.app, caller, &id, &rest, request, labels).await?;
                answer.extensions_mut().insert(keyed);
                return Ok(answer);
            }
            request.extensions_mut().insert(keyed.clone());
            busy = Some(keyed);
            request.extensions_mut().insert::<Caller>(caller);
        }
        labels.route = super::service::operation(request.method(), request.uri().path());
        let request = self.with_body(request, labels).await?;
        // A router is always ready.
        let mut answer = self.router.call(request).await.unwrap_or_else(|never| match never {});
        busy.map(|busy| answer.extensions_mut().insert(busy));
        Ok(answer)
    }

    /// Answers a request that is for what runs in a sandbox: its answer is that one's, not the API's.
    async fn preview(
        &self,
        host: Option<PreviewHost>,
        request: Request<Body>,
        arrival: Arrival,
    ) -> Response<Body> {
        let response = match (check_framing(&request, &arrival), host) {
            (Err(error), _) => Refusal(error).into_response(),
            (Ok(()), Some(host)) => guarded(preview::answer(&self.app, host, request, arrival)).await,
            (Ok(()), None) => guarded(preview::forwarded(&self.app, request, arrival)).await,
        };
        self.app.metrics.request("preview".into(), response.status().as_u16());
        response
    }

    /// A request to a route of the server's own with its body gathered, or without one where the route takes none.
    async fn with_body(&self, request: Request<Body>, labels: &Labels) -> Result<Request<Body>, ApiError> {
        let bound = labels.route.as_deref().and_then(super::service::body_bound);
        let (head, body) = request.into_parts();
        let body = match bound {
            Some(bound) if !body.is_end_stream() => {
                let gathered = async {
                    match self.app.bodies.gather(Upload::gathered(body), bound).await? {
                        Outcome::Whole(body) => Ok(body.into_body()),
                        Outcome::NoRoom(_) => Err(bodies::no_room()),
                    }
                };
                gathered.await.map_err(|mut error: ApiError| {
                    error.operation = labels.route.as_deref().map(|name| name.to_owned().into());
                    error
                })?
            }
            _ => Body::empty(),
        };
        Ok(Request::from_parts(head, body))
    }

    /// Who asks. A WebSocket may come with a ticket; with neither that nor a key of its own it must not come from a
    /// page that was not named, because browsers open WebSockets to anywhere (attack C05).
    fn caller(&self, request: &Request<Body>, arrival: &Arrival) -> Result<Caller, ApiError> {
        let headers = request.headers();
        if websocket::is_asked_for(request) {
            let query = request.uri().query().unwrap_or_default();
            if let Some(ticket) = query.split('&').find_map(|pair| pair.strip_prefix("ticket=")) {
                return self.app.tickets.redeem(ticket, request.uri().path());
            }
            let is_foreign = headers.contains_key(header::ORIGIN) && self.app.cors.allowed(headers).is_none();
            if is_foreign && !headers.contains_key(OWN_KEY) {
                return Err(ApiError::new(
                    ErrorCode::Forbidden,
                    "pages of this origin may open no WebSocket",
                )
                .during("authenticate")
                .suggest("Use a ticket, or start the server with --cors-origin ORIGIN."));
            }
        }
        self.app.auth.caller(headers).map_err(|denied| self.app.denied(denied, arrival))
    }
}

/// The answer, or that of a fault if finding it panicked (contract X03). What a request held when it panicked is
/// dropped; what others share is behind locks that are never held across a call that could panic.
async fn guarded(answer: impl Future<Output = Response<Body>>) -> Response<Body> {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<&str>().copied();
        let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
        Refusal(super::fault("request", what)).into_response()
    })
}

/// Refuses bodies in a coding that is not undone here: what follows would be read as something else by others on the way
/// (attack C07), so it is the last request of its connection.
fn check_framing(request: &Request<Body>, arrival: &Arrival) -> Result<(), ApiError> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if is_plain {
        return Ok(());
    }
    arrival.connection.end();
    let message = "Transfer-Encoding: chunked is the only one that this server reads";
    Err(ApiError::new(ErrorCode::UnsupportedTransferCoding, message).during("route"))
}

/// Refuses encoded bodies, which would be stored or parsed as they are.
fn check_coding(headers: &HeaderMap) -> Result<(), ApiError> {
    let codings = headers.get_all(header::CONTENT_ENCODING);
    if codings.iter().all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let message = "Content-Encoding: bodies are read as they come, and this one is encoded";
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message)
        .during("route")
        .suggest("Send the body as it is, without Content-Encoding."))
}

/// HTTP/2 names the host in the URI; everything behind this reads it from one place. A request that has both with
/// different names is refused where the header is read, because then there are two.
fn name_host(request: &mut Request<Body>) {
    if request.version() != Version::HTTP_2 {
        return;
    }
    let Some(authority) = request.uri().authority() else { return };
    let Ok(named) = HeaderValue::from_str(authority.as_str()) else { return };
    if request.headers().get(header::HOST) != Some(&named) {
        request.headers_mut().append(header::HOST, named);
    }
}

/// Splits `/v1/sandboxes/{id}/rest` into the id and `/rest`.
fn below_a_sandbox(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(PREFIX)?;
    Some(rest.split_at(rest.find('/')?))
}

impl Ids {
    fn of(&self, request: &Request<Body>) -> HeaderValue {
        let given = request.headers().get(super::REQUEST_ID).filter(|id| {
            let bytes = id.as_bytes();
            (1..=REQUEST_ID_LENGTH).contains(&bytes.len())
                && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
        given.cloned().unwrap_or_else(|| {
            let text = format!("{:08x}-{:x}", self.run, self.next.fetch_add(1, Ordering::Relaxed));
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn x03_a_panic_is_a_fault_with_an_id() {
        let answer = guarded(async { panic!("index out of {}", "bounds") }).await;
        assert_eq!(answer.status(), 500);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let error: ApiError = serde_json::from_slice(&body).unwrap();
        assert_eq!(error.code, sandcrab_api::ErrorCode::InternalError);
        assert!(error.context["errorId"].as_str().is_some_and(|id| id.starts_with("err_")));
        assert!(!error.message.contains("bounds"));
    }
}
