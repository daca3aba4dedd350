//! Everything that answering a request needs, made once at the start.

use crate::auth::Auth;
use crate::cors::Cors;
use crate::hosts::Hosts;
use crate::images::Images;
use crate::lifecycle::Sandboxes;
use crate::metrics::Metrics;
use crate::proxy::Routes;
use bytes::Bytes;
use std::sync::Arc;

pub(crate) struct App {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) images: Images,
    pub(crate) routes: Routes,
    pub(crate) auth: Auth,
    pub(crate) hosts: Hosts,
    pub(crate) cors: Cors,
    pub(crate) metrics: Arc<Metrics>,
    /// The API's document as JSON.
    pub(crate) document: Bytes,
}
