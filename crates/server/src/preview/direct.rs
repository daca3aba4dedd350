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
use sandcrab_api::ports::PreviewLabel;
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The host that a visitor called, said by a program that passes visitors' requests on. No page can send it: browsers
/// ask first, and are refused.
pub(crate) const FORWARDED_PREVIEW: HeaderName = HeaderName::from_static("x-sandcrab-preview");

/// Asks to name the body's encoding in [`HIDDEN_ENCODING`] instead of `Content-Encoding`: what passes an answer on by a
/// `fetch` would else have the body decoded under headers that still say that it is encoded.
const HIDE_ENCODING: HeaderName = HeaderName::from_static("x-sandcrab-hide-encoding");
const HIDDEN_ENCODING: HeaderName = HeaderName::from_static("x-sandcrab-content-encoding");

/// Answers a request that a program with a key passes on for a visitor of its own domain.
pub(crate) async fn forwarded(app: &Arc<App>, request: Request<Body>, arrival: Arrival) -> Response<Body> {
    let as_page = page::wants_page(request.method(), request.headers());
    let hides_encoding = request.headers().contains_key(HIDE_ENCODING);
    let answered = async {
        app.hosts.check(request.uri(), request.headers(), arrival.local)?;
        let headers = request.headers();
        let caller = app.auth.caller_by(headers.get(OWN_KEY), "no X-Sandcrab-Key header came");
        let caller = caller.map_err(|denied| app.denied(denied, &arrival))?;
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
        super::visit(app, &exposure.destination(), outside, request, busy).await
    };
    let mut response = answered.await.unwrap_or_else(|error| page::failed(error.during("preview"), as_page));
    if hides_encoding {
        hide_encoding(response.headers_mut());
    }
    response
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
