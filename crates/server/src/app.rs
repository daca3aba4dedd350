//! Everything that answering a request needs, made once at the start.

use crate::auth::Auth;
use crate::cors::Cors;
use crate::hosts::Hosts;
use crate::images::Images;
use crate::lifecycle::Sandboxes;
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::preview::Previews;
use crate::proxy::{FirstUse, Routes};
use crate::tickets::Tickets;
use bytes::Bytes;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(crate) struct App {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) images: Images,
    pub(crate) ports: Arc<Ports>,
    pub(crate) previews: Previews,
    pub(crate) tickets: Tickets,
    pub(crate) routes: Routes,
    pub(crate) first_use: FirstUse,
    pub(crate) auth: Auth,
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
