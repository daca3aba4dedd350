//! Everything that answering a request needs, made once at the start.

use crate::auth::{Auth, Caller, Denied};
use crate::bodies::Bodies;
use crate::connection::Arrival;
use crate::cors::Cors;
use crate::hosts::Hosts;
use crate::images::Images;
use crate::lifecycle::{Sandboxes, Use};
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::preview::Previews;
use crate::proxy::Routes;
use crate::throttle::Throttle;
use crate::tickets::Tickets;
use bytes::Bytes;
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(crate) struct App {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) images: Images,
    pub(crate) ports: Arc<Ports>,
    pub(crate) previews: Previews,
    pub(crate) tickets: Tickets,
    pub(crate) routes: Routes,
    pub(crate) bodies: Bodies,
    pub(crate) auth: Auth,
    /// Callers with wrong keys.
    pub(crate) wrong_keys: Throttle,
    pub(crate) hosts: Hosts,
    pub(crate) cors: Cors,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the server begins to end: what has no end of its own ends then.
    pub(crate) ending: CancellationToken,
    /// Cancelled when the server has ended: connections that were given away end then.
    pub(crate) ended: CancellationToken,
    /// The API's document as JSON.
    pub(crate) document: Bytes,
}

impl App {
    /// A use of a sandbox: with a key it is made where there is none, with a ticket it must be the one that the ticket is for
    /// (attack C14).
    pub(crate) async fn enter(&self, caller: &Caller, id: SandboxId) -> Result<Use, ApiError> {
        let Some(life) = &caller.life else { return self.sandboxes.enter(caller.account, id).await };
        let used = self.sandboxes.wake(caller.account, id).await?;
        if used.live.instance == *life { Ok(used) } else { Err(crate::tickets::no_good()) }
    }

    /// The answer to a caller who is not let in. Wrong keys are logged, and an address that tries many is slowed down: each
    /// more costs it a connection.
    pub(crate) fn denied(&self, denied: Denied, arrival: &Arrival) -> ApiError {
        if denied != Denied::WrongKey {
            return denied.into();
        }
        let client = arrival.client;
        let Err(too_often) = self.wrong_keys.failed(client) else {
            tracing::warn!(%client, "a request with a wrong key");
            return denied.into();
        };
        tracing::debug!(%client, "one more request with a wrong key");
        arrival.connection.end();
        ApiError::new(ErrorCode::QuotaExceeded, "too many requests with wrong keys came from this address")
            .during("authenticate")
            .with("limit", "wrongKeys")
            .with("value", too_often.burst)
            .with("scope", "address")
            .suggest("Check the key: a right one is let in at once.")
            .retry_after(too_often.seconds)
    }
}
