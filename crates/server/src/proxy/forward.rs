//! One request's way to an agent and back.

use super::body::{Download, Upload};
use super::pool::{Lease, PoolError, Unanswered};
use super::{Found, Route};
use crate::app::App;
use crate::auth::Caller;
use crate::http::Labels;
use crate::lifecycle::Use;
use crate::preview::websocket::{self, Switch};
use axum::body::Body;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use sandcrab_api::{ApiError, ErrorCode, SandboxId, limits};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long an agent may take to begin an answer that waits for no command and no upload.
const HEAD_TIME: Duration = Duration::from_secs(300);
/// Headers of its own that an agent may send, and their length.
const AGENT_HEADERS: usize = 16;
const AGENT_HEADER_BYTES: usize = 1024;
const AGENT_HEADER_PREFIX: &str = "x-sandcrab-";
/// The longest time that an agent may send callers away for, in seconds.
const RETRY_AFTER: u32 = 86_400;

/// The types that an agent's answer may have; written by the server, never copied.
const TYPES: [&str; 3] = ["application/json", EVENT_STREAM, "application/octet-stream"];
const EVENT_STREAM: &str = "text/event-stream";

/// Passes a request below `/v1/sandboxes/{id}/` on. `path` is what follows the id, as it came.
pub(crate) async fn forward(
    app: &App,
    caller: Caller,
    id: &str,
    path: &str,
    request: Request<Body>,
    labels: &mut Labels,
) -> Result<Response<Body>, ApiError> {
    let method = request.method().clone();
    let (route, path) = match app.routes.find(&method, path) {
        Found::Route(route, path) => (route, path),
        Found::Invalid(route, error) => {
            labels.route = Some(route.operation.clone());
            return Err(during(error, route));
        }
        Found::WrongMethod(allow) => {
            return Err(crate::http::wrong_method_of(&method, request.uri().path(), allow));
        }
        Found::Unknown => return Err(crate::http::unknown_route(&method, request.uri().path())),
    };
    labels.route = Some(route.operation.clone());
    let answer = pass(app, &caller, id, route, path, request).await;
    answer.map_err(|error| during(error, route))
}

fn during(mut error: ApiError, route: &Route) -> ApiError {
    error.operation = Some(route.operation.to_string().into());
    error
}

/// Of an operation without query parameters.
pub(crate) fn refuse_query(uri: &http::Uri) -> Result<(), ApiError> {
    match uri.query().filter(|query| !query.is_empty()) {
        Some(query) => {
            let name = query.split(['=', '&']).next().unwrap_or_default();
            Err(ApiError::invalid(name, "this operation has no query parameters"))
        }
        None => Ok(()),
    }
}

async fn pass(
    app: &App,
    caller: &Caller,
    id: &str,
    route: &Route,
    path: String,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let id = sandbox_id(id)?;
    let mut request = request;
    let switch =
        if route.allows(StatusCode::SWITCHING_PROTOCOLS) { websocket::asked_for(&mut request) } else { None };
    check_length(route, request.headers())?;
    let mut outgoing = outgoing(path, request, switch.as_ref())?;
    if !route.takes_query {
        refuse_query(outgoing.uri())?;
    }
    if caller.life.is_none() && !app.sandboxes.exists(caller.account, &id) {
        // Bad input is told first.
        outgoing = super::first::examine(&app.bodies, route, outgoing).await?;
    }
    let mut used = enter(app, caller, &id, route).await?;
    let mut sent = send(app, &used, route, outgoing).await?;
    if let Err(Unanswered { unsent: Some(unsent), .. }) = &mut sent
        && used.sandbox.verdict(&used.live).await.is_some()
    {
        // The agent had ended before anything was sent, and its owner knows by now: this is the use that starts it.
        let unsent = std::mem::replace(&mut **unsent, Request::new(Upload::empty()));
        used = enter(app, caller, &id, route).await?;
        sent = send(app, &used, route, unsent).await?;
    }
    let (answer, lease) = match sent {
        Ok(sent) => sent,
        Err(unanswered) => return Err(broken(app, &used, route, &unanswered.error).await),
    };
    if let Some(switch) = switch
        && answer.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        if answer.headers().get(header::UPGRADE).is_none_or(|to| !websocket::is_websocket(to)) {
            return Err(misbehaved(app, &used, route, "switched to another protocol than was asked for"));
        }
        let headers = websocket_headers(answer.headers());
        let (link, open) = lease.into_parts();
        return Ok(switch.join(app, headers, answer, link, CancellationToken::new(), (open, used)));
    }
    let (agent, body) = answer.into_parts();
    let head = match Head::of(route, agent.status, &agent.headers) {
        Ok(head) => head,
        // The link is dropped with what may still come over it.
        Err(why) => return Err(misbehaved(app, &used, route, why)),
    };
    let is_event_stream = head.content_type == EVENT_STREAM;
    let body = Download::new(body, lease, Arc::new(used), is_event_stream);
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = agent.status;
    *response.headers_mut() = head.into_headers();
    Ok(response)
}

/// A use of the sandbox, which is made where there is none, unless the request is about something in it.
async fn enter(app: &App, caller: &Caller, id: &SandboxId, route: &Route) -> Result<Use, ApiError> {
    let Some(unknown) = route.without_sandbox(id).filter(|_| caller.life.is_none()) else {
        return app.enter(caller, id.clone()).await;
    };
    match app.sandboxes.wake(caller.account, id.clone()).await {
        Err(error) if error.code == ErrorCode::SandboxNotFound => Err(unknown),
        used => used,
    }
}

type Sent = Result<(Response<Incoming>, Lease), Unanswered>;

/// Sends a request; bounded where its answer waits for nothing.
async fn send(app: &App, used: &Use, route: &Route, request: Request<Upload>) -> Result<Sent, ApiError> {
    let pulse = used.live.pool.pulse();
    let sent = pulse.attend(used.live.pool.send(request));
    let attended = if route.may_wait {
        sent.await
    } else {
        tokio::time::timeout(HEAD_TIME, sent).await.map_err(|_| {
            misbehaved(app, used, route, &format!("did not begin to answer within {} s", HEAD_TIME.as_secs()))
        })?
    };
    match attended {
        Ok(sent) => {
            if let Ok((answer, _)) = &sent {
                pulse.answered(answer.status());
            }
            Ok(sent)
        }
        Err(_lost) => {
            app.metrics.proxy_error("silent");
            let verdict = used.sandbox.verdict(&used.live).await;
            // Its end may take longer than that.
            Err(verdict.unwrap_or_else(|| crate::lifecycle::gave_no_answer(&used.sandbox.id)))
        }
    }
}

/// Reads the id in a path, percent-encoded as it came.
pub(crate) fn sandbox_id(part: &str) -> Result<SandboxId, ApiError> {
    let text =
        super::routes::decode(part).ok_or_else(|| ApiError::invalid("id", "is not percent-encoded UTF-8"))?;
    SandboxId::parse(&text).map_err(|error| ApiError::invalid("id", error.to_string()))
}

fn check_length(route: &Route, headers: &HeaderMap) -> Result<(), ApiError> {
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let bound = limits::MAX_JSON_BODY_BYTES;
    if route.takes_json && length.is_some_and(|length| length > bound as u64) {
        return Err(crate::bodies::too_long(bound));
    }
    Ok(())
}

/// The request as the agent gets it: nothing of the caller's head but what the routes are documented to read. Above
/// all not the key.
fn outgoing(
    mut path: String,
    request: Request<Body>,
    switch: Option<&Switch>,
) -> Result<Request<Upload>, ApiError> {
    let (head, body) = request.into_parts();
    if let Some(query) = head.uri.query() {
        // A ticket has been used up by now.
        let passes = |pair: &&str| switch.is_none() || !pair.starts_with("ticket=");
        let query: Vec<_> = query.split('&').filter(passes).collect();
        if !query.is_empty() {
            path.push('?');
            path.push_str(&query.join("&"));
        }
    }
    let uri = Uri::try_from(path).map_err(|error| ApiError::invalid("path", error.to_string()))?;
    let mut outgoing = Request::new(Upload::new(body));
    *outgoing.method_mut() = head.method;
    *outgoing.uri_mut() = uri;
    let headers = outgoing.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("sandbox"));
    const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
    for name in [header::CONTENT_TYPE, LAST_EVENT_ID, crate::http::REQUEST_ID] {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(switch) = switch {
        headers.extend(websocket_headers(&head.headers));
        switch.prepare(&mut outgoing);
    }
    Ok(outgoing)
}

/// What the two ends of a WebSocket agree on (RFC 6455, section 11.3).
fn websocket_headers(headers: &HeaderMap) -> HeaderMap {
    [
        header::SEC_WEBSOCKET_ACCEPT,
        header::SEC_WEBSOCKET_EXTENSIONS,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_VERSION,
    ]
    .into_iter()
    .filter_map(|name| Some((name.clone(), headers.get(name)?.clone())))
    .collect()
}

/// The head of the answer to the caller: the server's own words.
#[derive(Debug)]
struct Head {
    content_type: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Head {
    /// Reads an agent's head; the error says in what it is wrong.
    fn of(route: &Route, status: StatusCode, headers: &HeaderMap) -> Result<Self, &'static str> {
        if !route.allows(status) {
            return Err("answered with a status that this operation does not have");
        }
        let said =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let said = said.split(';').next().unwrap_or_default().trim();
        let content_type = TYPES
            .into_iter()
            .find(|known| said.eq_ignore_ascii_case(known))
            .ok_or("answered with a type that no operation has")?;
        let mut kept = Vec::new();
        for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with(AGENT_HEADER_PREFIX))
        {
            if kept.len() == AGENT_HEADERS {
                return Err("answered with too many headers");
            }
            if value.len() > AGENT_HEADER_BYTES || value.to_str().is_err() {
                return Err("answered with a header that is too long or no ASCII");
            }
            kept.push((name.clone(), value.clone()));
        }
        let retry_after =
            headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        if let Some(seconds) = retry_after.filter(|seconds| *seconds <= RETRY_AFTER) {
            kept.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        Ok(Self { content_type, headers: kept })
    }

    fn into_headers(self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.extend(self.headers);
        headers
    }
}

/// An agent that breaks the rules: the caller hears of it, and so does the log.
fn misbehaved(app: &App, used: &Use, route: &Route, why: &str) -> ApiError {
    app.metrics.proxy_error("misbehaved");
    let id = &used.sandbox.id;
    tracing::warn!(sandbox = %id, operation = &*route.operation, why, "an agent misbehaved");
    ApiError::new(ErrorCode::ServiceNotResponding, format!("the agent of sandbox {id} {why}"))
        .with("sandboxId", id.as_str())
}

/// Why a request got no answer.
async fn broken(app: &App, used: &Use, route: &Route, error: &PoolError) -> ApiError {
    let id = &used.sandbox.id;
    if let PoolError::Full = error {
        return ApiError::new(ErrorCode::QuotaExceeded, format!("sandbox {id}: {error}"))
            .with("limit", "requests")
            .with("value", super::pool::OPEN)
            .with("scope", "sandbox")
            .retry_after(1);
    }
    if let PoolError::Exchange(error) = error
        && error.is_user()
    {
        return ApiError::invalid("body", format!("could not be read to its end: {}", crate::chain(error)));
    }
    app.metrics.proxy_error("broken");
    tracing::debug!(sandbox = %id, operation = &*route.operation, error = crate::chain(error), "no answer from an agent");
    match used.sandbox.verdict(&used.live).await {
        Some(verdict) => verdict,
        None => {
            let text = format!("the agent of sandbox {id} did not answer: {}", crate::chain(error));
            ApiError::new(ErrorCode::ServiceNotResponding, text).with("sandboxId", id.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Routes;

    fn head(status: u16, headers: &[(&str, &str)]) -> Result<HeaderMap, &'static str> {
        let document = serde_json::json!({
            "openapi": "3.1.0", "info": {"title": "t", "version": "1"},
            "paths": {"/exec": {"post": {"operationId": "exec", "responses": {"200": {"description": "x"}}}}}
        });
        let routes = Routes::from_document(&serde_json::from_value(document).unwrap()).unwrap();
        let Found::Route(route, _) = routes.find(&http::Method::POST, "/exec") else { panic!("no route") };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        Head::of(route, StatusCode::from_u16(status).unwrap(), &map).map(Head::into_headers)
    }

    #[test]
    fn b10_the_server_writes_the_head_itself() {
        let json = ("content-type", "application/json; charset=utf-8");
        let kept = head(
            200,
            &[
                json,
                ("set-cookie", "a=b"),
                ("x-sandcrab-size", "3"),
                ("location", "//evil"),
                ("retry-after", "2"),
            ],
        )
        .unwrap();
        let names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "x-sandcrab-size", "retry-after"]);
        assert_eq!(kept["content-type"], "application/json");
        assert!(!head(200, &[json, ("retry-after", "99999999")]).unwrap().contains_key("retry-after"));
    }

    #[test]
    fn b10_wrong_statuses_types_and_headers_are_refused() {
        let json = ("content-type", "application/json");
        assert!(head(200, &[("content-type", "text/html")]).is_err());
        assert!(head(200, &[]).is_err());
        for status in [101, 204, 302, 401, 599] {
            assert!(head(status, &[json]).is_err(), "{status}");
        }
        let long = "x".repeat(AGENT_HEADER_BYTES + 1);
        assert!(head(200, &[json, ("x-sandcrab-a", &long)]).is_err());
        assert!(head(200, &[json, ("x-sandcrab-a", "\u{fc}")]).is_err());
        let many: Vec<_> = std::iter::once(json).chain((0..17).map(|_| ("x-sandcrab-a", "1"))).collect();
        assert!(head(200, &many).is_err());
    }
}
