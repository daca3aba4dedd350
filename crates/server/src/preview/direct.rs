//! Ways to a port that go through the API: with a key, not with a token.

use super::head::{ForwardedFor, Outside};
use super::{Destination, Wake, page, unknown, websocket};
use crate::app::App;
use crate::auth::{Caller, OWN_KEY};
use crate::connection::Arrival;
use axum::body::Body;
use http::header::{self, Entry, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use sandcrab_api::ports::{self, PreviewLabel};
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The host that a visitor called, said by a program that passes visitors' requests on. No page can send it: browsers
/// ask first, and are refused.
const FORWARDED_PREVIEW: HeaderName = HeaderName::from_static("x-sandcrab-preview");

/// The port, exposed or not, of the sandbox of [`SANDBOX`] that a program's own request is for. No page can send these
/// either, so that what a sandbox answers is never a page of the API's origin.
const PORT: HeaderName = HeaderName::from_static("x-sandcrab-port");
const SANDBOX: HeaderName = HeaderName::from_static("x-sandcrab-sandbox");

/// Asks to name the body's encoding in [`HIDDEN_ENCODING`] instead of `Content-Encoding`: what passes an answer on by a
/// `fetch` would else have the body decoded under headers that still say that it is encoded.
const HIDE_ENCODING: HeaderName = HeaderName::from_static("x-sandcrab-hide-encoding");
const HIDDEN_ENCODING: HeaderName = HeaderName::from_static("x-sandcrab-content-encoding");

/// Whether a program with a key says that a request is for what runs in a sandbox.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED_PREVIEW) || headers.contains_key(PORT)
}

/// Answers a request that a program with a key passes on for a visitor of its own domain, or makes to a port.
pub(crate) async fn forwarded(app: &Arc<App>, request: Request<Body>, arrival: Arrival) -> Response<Body> {
    let as_page = page::wants_page(request.method(), request.headers());
    let hides_encoding = request.headers().contains_key(HIDE_ENCODING);
    let answered = async {
        app.hosts.check(request.uri(), request.headers(), arrival.local)?;
        let caller = app.auth.caller_by(request.headers().get(OWN_KEY), "no X-Sandcrab-Key header came");
        let caller = caller.map_err(|denied| app.denied(denied, &arrival))?;
        if request.headers().contains_key(PORT) {
            return to_port(app, &caller, request, &arrival).await;
        }
        let headers = request.headers();
        let host = headers.get(FORWARDED_PREVIEW).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
        let text = host.to_str().unwrap_or_default().to_ascii_lowercase();
        let label = text.split(['.', ':']).next().and_then(PreviewLabel::parse);
        let found = label.and_then(|label| app.ports.find(&label));
        let exposure = found.filter(|exposure| exposure.account == caller.account).ok_or_else(unknown)?;
        const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
        let peer = headers.get(FOR).cloned();
        let peer = peer.map_or(ForwardedFor::Address(arrival.peer), ForwardedFor::Said);
        let is_https = headers.get(PROTO).is_some_and(|proto| proto == "https");
        let outside = Outside { peer, host, is_https };
        let busy = Arc::new(arrival.connection.keyed());
        super::visit(app, &exposure.destination(), outside, Wake::Existing, request, busy).await
    };
    let mut response = answered.await.unwrap_or_else(|error| page::failed(error.during("preview"), as_page));
    if hides_encoding {
        hide_encoding(response.headers_mut());
    }
    response
}

/// Passes a program's own request on to a port of a sandbox, which is made where there is none.
async fn to_port(
    app: &Arc<App>,
    caller: &Caller,
    request: Request<Body>,
    arrival: &Arrival,
) -> Result<Response<Body>, ApiError> {
    let sandbox = SandboxId::parse(text(&request, &SANDBOX))
        .map_err(|error| ApiError::invalid("X-Sandcrab-Sandbox", error.to_string()))?;
    let number = text(&request, &PORT);
    let number = number.parse().map_err(|_| ports::invalid_port(number.into(), "must be an integer"))?;
    let port = ports::port(number)?;
    let host = HeaderValue::try_from(format!("localhost:{port}"))
        .map_err(|error| crate::http::internal("fetchPort", &error))?;
    let peer = ForwardedFor::Said(HeaderValue::from_static("127.0.0.1"));
    let outside = Outside { peer, host, is_https: false };
    let revoked = CancellationToken::new();
    let destination = Destination { account: caller.account, sandbox, port, revoked };
    let busy = Arc::new(arrival.connection.keyed());
    super::visit(app, &destination, outside, Wake::By(caller), request, busy).await
}

fn text<'a>(request: &'a Request<Body>, name: &HeaderName) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn hide_encoding(headers: &mut HeaderMap) {
    headers.remove(HIDDEN_ENCODING);
    if let Entry::Occupied(entry) = headers.entry(header::CONTENT_ENCODING) {
        let encodings: Vec<_> = entry.remove_entry_mult().1.collect();
        headers.extend(encodings.into_iter().map(|encoding| (HIDDEN_ENCODING, encoding)));
    }
}

/// Opens a WebSocket to a port for a caller of the API. What answers otherwise than by switching is not shown: nothing
/// that a sandbox says is a page of the API's origin.
pub(crate) async fn connect(
    app: &Arc<App>,
    caller: &Caller,
    sandbox: SandboxId,
    port: u16,
    path: &str,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    if !websocket::is_asked_for(&request) {
        let suggestion = "Open it as a WebSocket; plain requests go to the URL that exposePort returns.";
        return Err(ApiError::invalid("Upgrade", "must ask for a WebSocket").suggest(suggestion));
    }
    let path: PathAndQuery = path
        .parse()
        .ok()
        .filter(|_| path.starts_with('/'))
        .ok_or_else(|| ApiError::invalid("path", "must be a path with or without a query"))?;
    *request.uri_mut() = Uri::from(path);
    let host = HeaderValue::try_from(format!("localhost:{port}"))
        .map_err(|error| crate::http::internal("connectPort", &error))?;
    let peer = ForwardedFor::Said(HeaderValue::from_static("127.0.0.1"));
    let outside = Outside { peer, host, is_https: false };
    let destination =
        Destination { account: caller.account, sandbox, port, revoked: CancellationToken::new() };
    let answer = super::pass(app, &destination, outside, Wake::By(caller), request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let message = format!("what runs on port {port} answered {status} instead of opening a WebSocket");
    Err(ApiError::new(ErrorCode::ServiceNotResponding, message).with("port", port).with("status", status))
}
