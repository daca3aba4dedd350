//! Idle connections to one agent.

use super::body::Upload;
use super::joined::Crumbs;
use super::link::{Broken, Link};
use super::pulse::Pulse;
use crate::wire::Prefixed;
use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use sandcrab_agent::ports::PROTOCOL;
use sandcrab_api::ApiError;
use sandcrab_api::sandbox::{AgentEvent, AgentHello};
use sandcrab_runtime::driver::BoxStream;
use sandcrab_runtime::{Driver, DriverError, InstanceId};
use serde::de::DeserializeOwned;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Idle links that are kept.
const IDLE: usize = 64;
/// How long more than those are kept. A thousand callers who ask again and again would otherwise open most of a thousand
/// links each time; kept for good, they would cost the sandbox some megabytes.
const SPARE: Duration = Duration::from_secs(5);
/// Links that may be open at once: more requests at the same time than any sandbox could answer.
pub(super) const OPEN: usize = 4096;
/// Connections that are opened at once: well below the backlog of the agent's socket, past which a connect fails.
const OPENING: usize = 32;
/// How long opening one may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an agent may take to introduce itself, and how much it may say.
const HELLO: Duration = Duration::from_secs(10);
const HELLO_BYTES: usize = 16 << 10;
/// How long an agent may take to connect to a port of its sandbox: longer than it gives itself.
const OPEN_PORT: Duration = Duration::from_secs(10);
/// How much an agent may tell at once of what happened.
const EVENTS_BYTES: usize = 1 << 20;
/// The longest answer to a question for a number.
const COUNT_BYTES: usize = 4096;

/// Connections to one instance's agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    driver: Arc<dyn Driver>,
    instance: InstanceId,
    idle: Mutex<Idle>,
    open: Arc<Semaphore>,
    opening: Semaphore,
    pulse: Pulse,
    crumbs: Crumbs,
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a pool's spare links when their time has come, until there are none or the pool is gone.
async fn trim(pool: Weak<Inner>) {
    let mut next = Instant::now() + SPARE;
    loop {
        tokio::time::sleep_until(next).await;
        let Some(pool) = pool.upgrade() else { return };
        match pool.idle().trim() {
            Some(then) => next = then,
            None => return,
        }
    }
}

/// Links that nobody uses.
#[derive(Default)]
struct Idle {
    /// The last used on top, each with when that was.
    links: Vec<(Instant, Link)>,
    /// Whether a task waits to close those that are not needed again.
    trimming: bool,
    closed: bool,
}

impl Idle {
    /// Closes what is too many and has not been needed for [`SPARE`]; when to look again, if at all.
    fn trim(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let too_many = self.links.len().saturating_sub(IDLE);
        let old = self.links[..too_many].iter().take_while(|(since, _)| *since + SPARE <= now).count();
        self.links.drain(..old);
        let next = (self.links.len() > IDLE).then(|| self.links[0].0 + SPARE);
        self.trimming = next.is_some();
        next
    }
}

/// A link in use; counts as open until it is dropped.
pub(super) struct Lease {
    pub(super) link: Link,
    open: OwnedSemaphorePermit,
}

impl Lease {
    /// The link, and what makes it count as open.
    pub(super) fn into_parts(self) -> (Link, OwnedSemaphorePermit) {
        (self.link, self.open)
    }
}

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// Too many requests to it are under way.
    #[error("{OPEN} requests to the sandbox are under way")]
    Full,
    /// The driver could not connect.
    #[error("connect to the agent")]
    Connect(#[source] DriverError),
    /// Nobody accepted the connection.
    #[error("the agent did not accept a connection within {} s", CONNECT.as_secs())]
    ConnectTimeout,
    /// HTTP did not begin.
    #[error("begin HTTP with the agent")]
    Handshake(#[source] hyper::Error),
    /// The exchange failed after the request may have been sent.
    #[error("the agent broke off")]
    Exchange(#[source] hyper::Error),
    /// What the server asked for itself was not answered.
    #[error("the agent's word to the server {0}")]
    Own(&'static str),
    /// It answered that it cannot work.
    #[error("the agent says that it cannot work: {0}")]
    Unfit(String),
    /// What the server asked for itself could not be kept.
    #[error("keep what the agent sent")]
    Keep(#[source] std::io::Error),
    /// What the server asked for itself could not be read.
    #[error("the agent's word to the server is not readable")]
    OwnForm(#[source] serde_json::Error),
}

/// Why a port of a sandbox could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// Nothing listens there, or it does not accept.
    #[error("nothing answers on that port")]
    Closed,
    /// The agent could not be asked.
    #[error(transparent)]
    Agent(#[from] PoolError),
}

/// A request that got no answer.
pub(super) struct Unanswered {
    pub(super) error: PoolError,
    /// The request itself, if nothing of it was sent.
    pub(super) unsent: Option<Box<Request<Upload>>>,
}

impl Pool {
    pub(crate) fn new(driver: Arc<dyn Driver>, instance: InstanceId) -> Self {
        let inner = Inner {
            driver,
            instance,
            idle: Mutex::default(),
            open: Arc::new(Semaphore::new(OPEN)),
            opening: Semaphore::new(OPENING),
            pulse: Pulse::default(),
            crumbs: Crumbs::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The count of the small pieces that the agent sends.
    pub(super) fn crumbs(&self) -> Crumbs {
        self.inner.crumbs.clone()
    }

    /// Drops the idle links and keeps no more: the agent has ended.
    pub(crate) fn close(&self) {
        let mut idle = self.inner.idle();
        idle.closed = true;
        idle.links.clear();
    }

    /// Takes a link back whose answer has been read to its end, and closes it if it is good for nothing more: kept with
    /// an upload that nobody takes, it would keep the caller waiting who sends it.
    pub(super) fn put(&self, mut lease: Lease) {
        if !lease.link.is_usable() {
            return;
        }
        let mut idle = self.inner.idle();
        if idle.closed {
            return;
        }
        idle.links.push((Instant::now(), lease.link));
        if idle.links.len() > IDLE && !std::mem::replace(&mut idle.trimming, true) {
            tokio::spawn(trim(Arc::downgrade(&self.inner)));
        }
    }

    fn take_idle(&self) -> Option<Link> {
        self.inner.idle().links.pop().map(|(_, link)| link)
    }

    /// Sends a caller's request over an idle link, or over a new one. A request of which nothing was sent because its link
    /// had gone stale is sent once more, over a new link; nothing else is (contract X04).
    pub(super) async fn send(
        &self,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Unanswered> {
        let Ok(open) = self.inner.open.clone().try_acquire_owned() else {
            return Err(Unanswered { error: PoolError::Full, unsent: None });
        };
        let mut request = request;
        while let Some(mut link) = self.take_idle() {
            if !link.is_usable() {
                continue;
            }
            match link.exchange(request).await {
                Ok(answer) => return Ok((answer, Lease { link, open })),
                Err(Broken::Unsent(unsent, _stale)) => {
                    request = *unsent;
                    break;
                }
                Err(Broken::Sent(error)) => {
                    return Err(Unanswered { error: PoolError::Exchange(error), unsent: None });
                }
            }
        }
        let mut link = match self.connect().await {
            Ok(link) => link,
            Err(error) => return Err(Unanswered { error, unsent: Some(Box::new(request)) }),
        };
        link.exchange(request).await.map(|answer| (answer, Lease { link, open })).map_err(|broken| {
            let (error, unsent) = match broken {
                Broken::Unsent(request, error) => (error, Some(request)),
                Broken::Sent(error) => (error, None),
            };
            Unanswered { error: PoolError::Exchange(error), unsent }
        })
    }

    /// A byte stream to what listens on a port inside the sandbox.
    pub(crate) async fn open_port(&self, port: u16) -> Result<BoxStream, PortError> {
        let open = async {
            let mut link = self.connect().await?;
            let mut request = Request::new(Upload::empty());
            let path = format!("/agent/ports/{port}");
            *request.uri_mut() = path.parse().map_err(|_| PoolError::Own("has no address"))?;
            let headers = request.headers_mut();
            headers.insert(header::HOST, HeaderValue::from_static("sandbox"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
            let answer = link.exchange(request).await.map_err(|broken| match broken {
                Broken::Unsent(_, error) | Broken::Sent(error) => PoolError::Exchange(error),
            })?;
            match answer.status() {
                StatusCode::SWITCHING_PROTOCOLS => {}
                StatusCode::BAD_GATEWAY => return Err(PortError::Closed),
                _ => return Err(PoolError::Own("on a port has another status than 101 or 502").into()),
            }
            let (stream, begun) =
                link.switch(hyper::upgrade::on(answer)).await.map_err(PoolError::Exchange)?;
            if begun.is_empty() {
                Ok(stream)
            } else {
                Ok(Box::new(Prefixed::new(begun, stream)) as BoxStream)
            }
        };
        tokio::time::timeout(OPEN_PORT, open).await.unwrap_or_else(|_elapsed| {
            self.inner.pulse.doubt();
            Err(PoolError::Own("on a port did not come in time").into())
        })
    }

    async fn connect(&self) -> Result<Link, PoolError> {
        let opened = tokio::time::timeout(CONNECT, async {
            // Never closed, so the error cannot come; without a permit the connect is merely unbounded.
            let _opening = self.inner.opening.acquire().await.ok();
            self.inner.driver.connect(&self.inner.instance).await
        });
        let stream = opened.await.map_err(|_| PoolError::ConnectTimeout)?.map_err(PoolError::Connect)?;
        Link::new(stream).await.map_err(PoolError::Handshake)
    }

    /// Asks the agent for its version and features.
    pub(crate) async fn hello(&self) -> Result<AgentHello, PoolError> {
        let hello = tokio::time::timeout(HELLO, self.ask("/agent", HELLO_BYTES));
        hello.await.map_err(|_| PoolError::Own("did not come in time"))?
    }

    /// Asks the agent, over a connection that it must accept for that, whether it can work.
    pub(super) async fn probe(&self) -> Result<(), PoolError> {
        let mut link = self.connect().await?;
        let mut request = Request::new(Upload::empty());
        *request.uri_mut() = Uri::from_static("/agent");
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("sandbox"));
        let answer = link.exchange(request).await.map_err(|broken| match broken {
            Broken::Unsent(_, error) | Broken::Sent(error) => PoolError::Exchange(error),
        })?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(());
        }
        let mut text = Vec::new();
        read_body(answer.into_body(), &mut link, &mut text, HELLO_BYTES as u64).await?;
        let said = serde_json::from_slice(&text).map(|error: ApiError| error.message);
        Err(PoolError::Unfit(said.unwrap_or_else(|_| format!("status {status}"))))
    }

    /// What is known of the agent's life.
    pub(crate) fn pulse(&self) -> &Pulse {
        &self.inner.pulse
    }

    /// Waits for what happened in the sandbox after event `after` of the agent.
    pub(crate) async fn events(&self, after: u64) -> Result<Vec<AgentEvent>, PoolError> {
        self.ask(&format!("/agent/events?after={after}"), EVENTS_BYTES).await
    }

    /// Asks the agent something for the server's own use.
    async fn ask<T: DeserializeOwned>(&self, path: &str, bound: usize) -> Result<T, PoolError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().map_err(|_| PoolError::Own("has no address"))?;
        let (status, body) = self.call(request, bound).await?;
        if status != StatusCode::OK {
            return Err(PoolError::Own("has another status than 200"));
        }
        serde_json::from_slice(&body).map_err(PoolError::OwnForm)
    }

    /// Has every process of the sandbox ended, with the grace that they have.
    pub(crate) async fn end_processes(&self) -> Result<(), PoolError> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = http::Method::DELETE;
        *request.uri_mut() = http::Uri::from_static("/processes");
        match self.call(request, COUNT_BYTES).await? {
            (StatusCode::OK, _) => Ok(()),
            _ => Err(PoolError::Own("has another status than 200")),
        }
    }

    /// Sends a request of the server's own and reads its answer, of at most `bound` bytes.
    pub(crate) async fn call(
        &self,
        request: Request<Body>,
        bound: usize,
    ) -> Result<(StatusCode, Bytes), PoolError> {
        let mut body = Vec::new();
        let status = self.download(request, &mut body, bound as u64).await?;
        Ok((status, body.into()))
    }

    /// As [`Self::call`], with the answer's body going to `to` as it comes.
    pub(crate) async fn download<W: AsyncWrite + Unpin>(
        &self,
        mut request: Request<Body>,
        to: &mut W,
        bound: u64,
    ) -> Result<StatusCode, PoolError> {
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("sandbox"));
        let (answer, mut lease) =
            self.send(request.map(Upload::new)).await.map_err(|unanswered| unanswered.error)?;
        let status = answer.status();
        read_body(answer.into_body(), &mut lease.link, to, bound).await?;
        to.flush().await.map_err(PoolError::Keep)?;
        self.put(lease);
        Ok(status)
    }
}

/// Reads an answer of at most `bound` bytes.
async fn read_body<W: AsyncWrite + Unpin>(
    mut body: Incoming,
    link: &mut Link,
    to: &mut W,
    bound: u64,
) -> Result<(), PoolError> {
    let mut left = bound;
    loop {
        let frame = std::future::poll_fn(|cx| {
            link.drive(cx);
            Pin::new(&mut body).poll_frame(cx)
        });
        let Some(frame) = frame.await else { return Ok(()) };
        let Ok(data) = frame.map_err(PoolError::Exchange)?.into_data() else { return Ok(()) };
        left = left.checked_sub(data.len() as u64).ok_or(PoolError::Own("is too long"))?;
        to.write_all(&data).await.map_err(PoolError::Keep)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use sandcrab_runtime::fake::Fake;
    use tokio::io::{AsyncReadExt as _, DuplexStream};

    /// Links in use, and the agent's ends of them.
    async fn leases(pool: &Pool, count: usize) -> (Vec<Lease>, Vec<DuplexStream>) {
        let (mut leases, mut agent) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (near, far) = tokio::io::duplex(64);
            let link = Link::new(Box::new(near)).await.unwrap();
            leases.push(Lease { link, open: pool.inner.open.clone().try_acquire_owned().unwrap() });
            agent.push(far);
        }
        (leases, agent)
    }

    fn idle(pool: &Pool) -> usize {
        pool.inner.idle().links.len()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_burst_opened_is_kept_for_the_next_and_closed_when_none_comes() {
        let driver = Fake::new(async |_| std::future::pending().await);
        let pool = Pool::new(Arc::new(driver), InstanceId::random());
        let (first, mut agent) = leases(&pool, 100).await;
        first.into_iter().for_each(|lease| pool.put(lease));
        assert_eq!(idle(&pool), 100);

        // The next burst takes the links that were used last; the rest has been idle for as long as none may be then.
        tokio::time::sleep(SPARE - Duration::from_millis(1)).await;
        let again: Vec<_> = (0..20).map(|_| pool.take_idle().unwrap()).collect();
        for link in again {
            let open = pool.inner.open.clone().try_acquire_owned().unwrap();
            pool.put(Lease { link, open });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(idle(&pool), IDLE);
        let mut closed = 0;
        for end in &mut agent {
            closed += usize::from(end.read_u8().now_or_never().is_some());
        }
        assert_eq!(closed, 100 - IDLE);

        // And a later burst is trimmed as well.
        let (more, _agent) = leases(&pool, 10).await;
        more.into_iter().for_each(|lease| pool.put(lease));
        assert_eq!(idle(&pool), IDLE + 10);
        tokio::time::sleep(2 * SPARE).await;
        assert_eq!(idle(&pool), IDLE);
        pool.close();
        assert_eq!(idle(&pool), 0);
    }
}
