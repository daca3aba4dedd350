//! Previews: the way from a browser to what listens inside a sandbox.
//!
//! A request whose host is `{port}-{id}-{token}` below a preview domain never meets the API: it is looked up here and
//! passed on to that port, whoever sends it. The token is the authority. Heads are rewritten (see [`head`]), bodies
//! stream both ways as fast as the slower side takes them, and each port of each sandbox is an origin of its own.

mod apps;
mod body;
mod direct;
mod head;
mod page;
pub(crate) mod websocket;

pub(crate) use apps::Apps;
pub(crate) use direct::{connect, forwarded, is_forwarded};

use crate::app::App;
use crate::auth::Caller;
use crate::connection::Arrival;
use crate::gate::Busy;
use crate::lifecycle::Use;
use crate::ports::Exposure;
use crate::proxy::{PortError, Upload};
use crate::store::AccountId;
use crate::throttle::Throttle;
use apps::Unanswered;
use axum::body::Body;
use head::{ForwardedFor, Outside};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response};
use sandcrab_api::ports::{PreviewDomain, PreviewLabel};
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long what runs in a sandbox may take to begin an answer.
const HEAD_TIME: Duration = Duration::from_secs(300);

/// Names of previews that do not exist: how many one address may ask for, and how many more per second.
const MISSES: u32 = 50;
const MISSES_PER_SECOND: u32 = 5;

/// By which names previews are reached, and by whom too often.
pub(crate) struct Previews {
    /// Beside the names of this machine.
    domain: Option<PreviewDomain>,
    /// Whether callers reach that domain encrypted, although it is not this server that decrypts.
    is_tls_elsewhere: bool,
    misses: Throttle,
}

/// A port of a sandbox, as long as it may be reached.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) account: AccountId,
    pub(crate) sandbox: SandboxId,
    pub(crate) port: u16,
    /// Cancelled when it may no longer be reached.
    pub(crate) revoked: CancellationToken,
}

/// What to do for a sandbox that does not run.
#[derive(Clone, Copy, Debug)]
enum Wake<'a> {
    /// Start it.
    Existing,
    /// What a caller of the API may: start it, or make it where there is none.
    By(&'a Caller),
}

/// A request's host that has the form of a preview's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PreviewHost {
    /// `{port}-{id}-{token}`, in lower case.
    label: String,
    is_local: bool,
}

impl Previews {
    pub(crate) fn new(domain: Option<PreviewDomain>, has_tls: bool) -> Self {
        Self { domain, is_tls_elsewhere: !has_tls, misses: Throttle::new(MISSES, MISSES_PER_SECOND) }
    }

    /// The domain that URLs have if nothing else is asked for.
    pub(crate) fn domain(&self) -> Option<&PreviewDomain> {
        self.domain.as_ref()
    }

    /// The preview that a request is for; none if it is for the API.
    pub(crate) fn host_of(&self, headers: &HeaderMap) -> Option<PreviewHost> {
        self.parse(headers.get(header::HOST)?.to_str().ok()?)
    }

    fn parse(&self, host: &str) -> Option<PreviewHost> {
        // Most hosts are the API's, and stop here.
        if !host.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let (name, port) = host.split_once(':').unwrap_or((host, ""));
        let (label, domain) = name.split_once('.')?;
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
        let is_local = domain == "localhost" || domain.ends_with(".localhost");
        let is_ours = is_local || self.domain.as_ref().is_some_and(|ours| ours.name() == domain);
        let label = label.to_ascii_lowercase();
        let is_preview = is_ours && port.bytes().all(|byte| byte.is_ascii_digit());
        PreviewLabel::parse(&label).filter(|_| is_preview)?;
        Some(PreviewHost { label, is_local })
    }
}

/// A failure of a preview, of whatever code.
fn refusal(code: ErrorCode, message: impl Into<String>) -> ApiError {
    ApiError::new(code, message).during("preview")
}

/// Answers a request to a preview.
pub(crate) async fn answer(
    app: &Arc<App>,
    host: PreviewHost,
    request: Request<Body>,
    arrival: Arrival,
) -> Response<Body> {
    let as_page = page::wants_page(request.method(), request.headers());
    let is_https = arrival.is_tls || (!host.is_local && app.previews.is_tls_elsewhere);
    let answered = async {
        let name = request.headers().get(header::HOST).cloned();
        let host_value = name.unwrap_or_else(|| HeaderValue::from_static(""));
        let peer = ForwardedFor::Address(arrival.client);
        let outside = Outside { peer, host: host_value, is_https };
        let exposure = look_up(app, &host.label, &arrival)?;
        let busy = arrival.connection.visit().ok_or_else(too_many)?;
        visit(app, &exposure.destination(), outside, Wake::Existing, request, Arc::new(busy)).await
    };
    answered.await.unwrap_or_else(|error| page::failed(error.during("preview"), as_page))
}

/// The exposure that a label names (attack C02).
fn look_up(app: &App, label: &str, arrival: &Arrival) -> Result<Arc<Exposure>, ApiError> {
    if let Some(exposure) = PreviewLabel::parse(label).and_then(|label| app.ports.find(&label)) {
        return Ok(exposure);
    }
    let Err(too_often) = app.previews.misses.failed(arrival.client) else { return Err(unknown()) };
    arrival.connection.end();
    let message = "too many previews were asked for that do not exist";
    Err(refusal(ErrorCode::QuotaExceeded, message)
        .with("limit", "failedLookups")
        .with("value", too_often.burst)
        .with("scope", "address")
        .suggest("Wait a little, and use the URL that exposePort returned.")
        .retry_after(too_often.seconds))
}

fn too_many() -> ApiError {
    refusal(ErrorCode::QuotaExceeded, "as many visits of previews are under way as the server allows")
        .with("limit", "visits")
        .with("scope", "server")
        .retry_after(1)
}

/// Passes a visitor's request on. The connection is busy until the answer has been sent.
async fn visit(
    app: &Arc<App>,
    to: &Destination,
    outside: Outside,
    wake: Wake<'_>,
    mut request: Request<Body>,
    busy: Arc<Busy>,
) -> Result<Response<Body>, ApiError> {
    request.extensions_mut().insert(busy.clone());
    let mut answer = pass(app, to, outside, wake, request).await?;
    answer.extensions_mut().insert(busy);
    Ok(answer)
}

fn unknown() -> ApiError {
    refusal(ErrorCode::InvalidToken, "there is no preview at this address")
}

/// Passes a request on to a port and its answer back.
async fn pass(
    app: &Arc<App>,
    to: &Destination,
    outside: Outside,
    wake: Wake<'_>,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let switch = websocket::asked_for(&mut request);
    let (head, body) = request.into_parts();
    head::check_form(&head)?;
    match (&switch, wake) {
        // Who has a key of the API's is no stranger's page.
        (Some(_), Wake::Existing) => websocket::check_origin(app, to, &outside, &head.headers)?,
        (Some(_), Wake::By(_)) => {}
        (None, _) if head.method == http::Method::CONNECT => {
            return Err(refusal(ErrorCode::MethodNotAllowed, "CONNECT is not passed on to previews"));
        }
        (None, _) => {}
    }
    let used = match wake {
        Wake::Existing => app.sandboxes.wake(to.account, to.sandbox.clone()).await?,
        Wake::By(caller) => app.enter(caller, to.sandbox.clone()).await?,
    };
    if to.revoked.is_cancelled() {
        // Meanwhile its sandbox was destroyed; what is there now is another.
        return Err(unknown());
    }
    if let Wake::By(_) = wake {
        crate::ports::require_own_network(app, to.account, &to.sandbox, to.port)?;
    }
    let mut outgoing = Request::new(Upload::whole(body));
    *outgoing.method_mut() = head.method.clone();
    *outgoing.uri_mut() = head::target(&head.uri, &head.method);
    *outgoing.headers_mut() = head::request_headers(head.headers, &outside, &app.auth);
    if let Some(switch) = &switch {
        switch.prepare(&mut outgoing);
    }
    let sent = used.live.apps.send(to.port, outgoing);
    let sent = tokio::time::timeout(HEAD_TIME, sent).await;
    let sent = sent.map_err(|_| silent(to, "it did not begin to answer"))?;
    let (answer, lease) = match sent {
        Ok(sent) => sent,
        Err(error) => return Err(unanswered(app, to, &used, &error).await),
    };
    if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        let Some(switch) = switch else {
            return Err(silent(to, "it switched protocols without being asked to"));
        };
        return switch.answer(app, to, &outside, used, answer, lease);
    }
    let (head, body) = answer.into_parts();
    let mut response = Response::new(Body::new(body::Answer::new(body, lease, to.revoked.clone(), used)));
    *response.status_mut() = head.status;
    *response.headers_mut() = head::answer_headers(head.headers, &outside);
    Ok(response)
}

fn silent(to: &Destination, why: &str) -> ApiError {
    let (id, port) = (&to.sandbox, to.port);
    let message = format!("what runs on port {port} of sandbox {id} did not answer as it should: {why}");
    refusal(ErrorCode::ServiceNotResponding, message).with("port", port)
}

/// Why a request got no answer.
async fn unanswered(app: &App, to: &Destination, used: &Use, error: &Unanswered) -> ApiError {
    let (id, port) = (&to.sandbox, to.port);
    match error {
        Unanswered::Full => refusal(ErrorCode::QuotaExceeded, format!("sandbox {id}: {error}"))
            .with("limit", "previewRequests")
            .with("value", apps::OPEN)
            .with("scope", "sandbox")
            .retry_after(1),
        Unanswered::Port(PortError::Closed) => {
            let message = format!("nothing answers on port {port} of sandbox {id}");
            refusal(ErrorCode::ServiceNotResponding, message)
                .with("port", port)
                .suggest("Start the server inside the sandbox, and have it listen on this port.")
        }
        Unanswered::Exchange(error) if error.is_user() => refusal_of_body(&crate::chain(error)),
        error => {
            app.metrics.proxy_error("preview");
            tracing::debug!(sandbox = %id, port, error = crate::chain(error), "no answer from a port");
            match used.sandbox.verdict(&used.live).await {
                Some(verdict) => verdict,
                None => silent(to, &crate::chain(error)),
            }
        }
    }
}

fn refusal_of_body(why: &str) -> ApiError {
    ApiError::invalid("body", format!("could not be read to its end: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c05_only_hosts_of_the_form_are_previews() {
        let previews = Previews::new(PreviewDomain::parse("p.example").ok(), false);
        for (host, label) in [
            ("3000-a-t.localhost:8787", "3000-a-t"),
            ("3000-a-b-T.LOCALHOST", "3000-a-b-t"),
            ("3000-a-t.dev.localhost.", "3000-a-t"),
            ("3000-a-t.p.example:443", "3000-a-t"),
        ] {
            assert_eq!(previews.parse(host).map(|host| host.label).as_deref(), Some(label), "{host}");
        }
        for host in [
            "localhost:8787",
            "127.0.0.1:8787",
            "3000-a-t",
            "3000-a-t.evil.example",
            "3000-a-t.p.example.evil",
            "3000-a-t.xp.example",
            "x.3000-a-t.localhost",
            "3000-a-t.localhost:x",
            "3000-a-t.localhost@evil",
            "3000.localhost",
            "",
        ] {
            assert_eq!(previews.parse(host), None, "{host}");
        }
    }
}
