//! Connections to what listens inside one sandbox.

use crate::proxy::{Broken, Crumbs, Link, Pool, PoolError, PortError, Upload};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests and WebSockets of previews that one sandbox may have under way.
pub(super) const OPEN: usize = 1024;
/// Idle connections that are kept to one sandbox, and how long.
const IDLE: usize = 32;
const IDLE_TIME: Duration = Duration::from_secs(30);

/// Connections to the servers in one sandbox, as long as its agent lives. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Apps {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    state: Mutex<State>,
    open: Arc<Semaphore>,
    crumbs: Crumbs,
}

#[derive(Default)]
struct State {
    idle: HashMap<u16, Vec<Idle>>,
    count: usize,
    /// Whether a task waits to close what has been idle for too long.
    is_watched: bool,
    /// Whether the agent has ended.
    is_closed: bool,
}

struct Idle {
    link: Link,
    since: Instant,
}

/// A connection in use. Counts as under way until it is dropped.
pub(super) struct Lease {
    pub(super) link: Link,
    port: u16,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("{OPEN} requests to the sandbox's ports are under way")]
    Full,
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("begin HTTP with what listens there")]
    Handshake(#[source] hyper::Error),
    #[error("it broke off")]
    Exchange(#[source] hyper::Error),
}

impl From<PoolError> for Unanswered {
    fn from(error: PoolError) -> Self {
        Self::Port(error.into())
    }
}

impl Apps {
    pub(crate) fn new(pool: Pool) -> Self {
        let inner = Inner {
            pool,
            state: Mutex::default(),
            open: Arc::new(Semaphore::new(OPEN)),
            crumbs: Crumbs::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The count of the small pieces that the sandbox's servers send.
    pub(super) fn crumbs(&self) -> Crumbs {
        self.inner.crumbs.clone()
    }

    /// Drops the idle connections and keeps no more: the agent has ended.
    pub(crate) fn close(&self) {
        let mut state = self.inner.state();
        state.is_closed = true;
        state.idle = HashMap::new();
        state.count = 0;
    }

    /// Sends a request to a port.
    ///
    /// An idle connection is used only for what changes nothing, because what listens there may close it at any moment, and
    /// nobody could tell whether it had begun to act (RFC 9110, section 9.2.2). What was sent is never sent again (contract
    /// X04).
    pub(super) async fn send(
        &self,
        port: u16,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Unanswered> {
        use http_body::Body;
        let Ok(permit) = self.inner.open.clone().try_acquire_owned() else { return Err(Unanswered::Full) };
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            && request.body().is_end_stream();
        let mut request = request;
        if is_safe {
            while let Some(mut link) = self.inner.take(port) {
                if !link.is_usable() {
                    continue;
                }
                match link.exchange(request).await {
                    Ok(answer) => return Ok((answer, Lease { link, port, permit })),
                    // Once more, over a connection that is new.
                    Err(Broken::Unsent(unsent, _stale)) => {
                        request = *unsent;
                        break;
                    }
                    Err(Broken::Sent(error)) => return Err(Unanswered::Exchange(error)),
                }
            }
        }
        let link = self.inner.pool.open_port(port).await?;
        let mut link = Link::new(link).await.map_err(Unanswered::Handshake)?;
        match link.exchange(request).await {
            Ok(answer) => Ok((answer, Lease { link, port, permit })),
            Err(Broken::Unsent(_, error) | Broken::Sent(error)) => Err(Unanswered::Exchange(error)),
        }
    }

    /// Takes a connection back whose answer has been read to its end, as [`Pool`] does with an agent's.
    pub(super) fn put(&self, mut lease: Lease) {
        if !lease.link.is_usable() {
            return;
        }
        let mut state = self.inner.state();
        if state.is_closed || state.count >= IDLE {
            return;
        }
        state.count += 1;
        let Lease { link, port, .. } = lease;
        state.idle.entry(port).or_default().push(Idle { link, since: Instant::now() });
        if !std::mem::replace(&mut state.is_watched, true) {
            let inner = Arc::downgrade(&self.inner);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(IDLE_TIME).await;
                    match inner.upgrade() {
                        Some(inner) if inner.close_old() => {}
                        _ => return,
                    }
                }
            });
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, port: u16) -> Option<Link> {
        let mut state = self.state();
        let idle = state.idle.get_mut(&port)?.pop()?;
        state.count -= 1;
        Some(idle.link)
    }

    /// Closes what has been idle for too long; whether anything is left to watch.
    fn close_old(&self) -> bool {
        let mut state = self.state();
        state.idle.retain(|_, list| {
            list.retain(|idle| idle.since.elapsed() < IDLE_TIME);
            !list.is_empty()
        });
        state.count = state.idle.values().map(Vec::len).sum();
        state.is_watched = state.count > 0;
        state.is_watched
    }
}
