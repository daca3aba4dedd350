//! WebSockets: requests that turn their connection into a stream of its own.

use super::apps::Lease;
use super::head::{self, Outside};
use super::{Destination, refusal, silent};
use crate::app::App;
use crate::gate::Busy;
use crate::lifecycle::Use;
use crate::proxy::{Link, Upload};
use crate::wire::Prefixed;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sandcrab_agent::ports::relay::relay;
use sandcrab_api::ports::PreviewLabel;
use sandcrab_api::{ApiError, ErrorCode};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// A caller who wants a WebSocket.
pub(crate) struct Switch {
    upgrade: OnUpgrade,
    /// Over HTTP/2 it is an extended CONNECT (RFC 8441), which knows no key.
    is_connect: bool,
    /// The caller's connection counts as long as the WebSocket is open.
    busy: Option<Arc<Busy>>,
}

/// Whether a request asks for a WebSocket.
pub(crate) fn is_asked_for(request: &Request<Body>) -> bool {
    let headers = request.headers();
    let has = |name, word: &str| head::tokens(headers, &name).any(|token| token.eq_ignore_ascii_case(word));
    is_connect(request)
        || request.version() == Version::HTTP_11
            && request.method() == Method::GET
            && has(header::UPGRADE, "websocket")
            && has(header::CONNECTION, "upgrade")
}

fn is_connect(request: &Request<Body>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Takes hold of the connection of a request that asks for a WebSocket. Other protocols are not switched to: one that
/// the server does not speak could carry requests past it (attack C07).
pub(crate) fn asked_for(request: &mut Request<Body>) -> Option<Switch> {
    let is_connect = is_connect(request);
    let busy = request.extensions().get().cloned();
    is_asked_for(request).then(|| Switch { upgrade: hyper::upgrade::on(request), is_connect, busy })
}

/// Refuses WebSockets that pages of other origins open (attack C05): browsers let them, and send cookies along. Pages
/// of the sandbox's own previews may, and those that the operator named. What runs on two ports of one sandbox is one
/// party, which needs no page to reach its own ports.
pub(super) fn check_origin(
    app: &App,
    to: &Destination,
    outside: &Outside,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let own = outside.origin().unwrap_or_default();
    // Below the same domain, by the same scheme and port.
    let is_sibling = || {
        let (scheme, host) = text.split_once("://")?;
        let (label, domain) = host.split_once('.')?;
        let (own_scheme, own_host) = own.split_once("://")?;
        let is_near = scheme == own_scheme && own_host.split_once('.')?.1 == domain;
        let other = app.ports.find(&PreviewLabel::parse(label).filter(|_| is_near)?)?;
        Some(other.account == to.account && other.sandbox == to.sandbox)
    };
    if own == text || app.cors.allowed(headers).is_some() || is_sibling() == Some(true) {
        return Ok(());
    }
    let message = format!("pages of {:?} may open no WebSocket here", text.escape_default().to_string());
    Err(refusal(ErrorCode::Forbidden, message)
        .suggest("Open it from the preview's own page, or start the server with --cors-origin ORIGIN."))
}

impl Switch {
    /// Makes a request ask for the same of the next one on the way.
    pub(crate) fn prepare(&self, request: &mut Request<Upload>) {
        *request.method_mut() = Method::GET;
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, WEBSOCKET);
        if self.is_connect {
            let key = BASE64.encode(rand::random::<[u8; 16]>());
            if let Ok(key) = HeaderValue::try_from(key) {
                headers.insert(header::SEC_WEBSOCKET_KEY, key);
            }
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
    }

    /// Passes the agreement on, and from then on the bytes.
    pub(super) fn answer(
        self,
        app: &App,
        to: &Destination,
        outside: &Outside,
        used: Use,
        answer: Response<Incoming>,
        lease: Lease,
    ) -> Result<Response<Body>, ApiError> {
        if answer.headers().get(header::UPGRADE).is_none_or(|to| !is_websocket(to)) {
            return Err(silent(to, "it switched to another protocol than was asked for"));
        }
        let headers = head::answer_headers(answer.headers().clone(), outside);
        let Lease { link, permit, .. } = lease;
        let cut = to.revoked.clone();
        Ok(self.join(app, headers, answer, link, cut, (permit, used)))
    }

    /// Grants the caller's wish with these headers, and joins the two streams until one ends or is cut. `keep` is held
    /// as long.
    pub(crate) fn join(
        self,
        app: &App,
        headers: HeaderMap,
        answer: Response<Incoming>,
        link: Link,
        cut: CancellationToken,
        keep: impl Send + 'static,
    ) -> Response<Body> {
        let theirs = hyper::upgrade::on(answer);
        let kept = (keep, self.busy.clone());
        let (response, ours) = self.agree(headers);
        let ended = app.ended.clone();
        tokio::spawn(async move {
            let _kept = kept;
            let carry = async {
                let (ours, (stream, begun)) = tokio::try_join!(ours, link.switch(theirs))?;
                Ok::<_, hyper::Error>(relay(TokioIo::new(ours), Prefixed::new(begun, stream)).await)
            };
            let carried = tokio::select! {
                carried = carry => carried,
                () = cut.cancelled() => return,
                () = ended.cancelled() => return,
            };
            match carried {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a WebSocket broke"),
                Err(error) => tracing::debug!(error = crate::chain(&error), "a WebSocket did not begin"),
            }
        });
        response
    }

    fn agree(self, headers: HeaderMap) -> (Response<Body>, OnUpgrade) {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        if self.is_connect {
            const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
            headers.remove(ACCEPT);
        } else {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, WEBSOCKET);
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        (response, self.upgrade)
    }
}

pub(crate) fn is_websocket(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes())
}
