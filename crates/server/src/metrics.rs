//! Numbers for operators, in OpenMetrics' text form.

use crate::lifecycle::Sandboxes;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use sandcrab_api::sandbox::SandboxStatus;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: Arc<str>,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// What is counted. Gauges of sandboxes are counted when they are asked for.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    creations: Histogram,
    proxy_errors: Family<KindLabels, Counter>,
    sandboxes: Family<KindLabels, Gauge>,
    idle: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("sandcrab");
        let requests = Family::default();
        registry.register("requests", "Requests by operation and HTTP status", requests.clone());
        // From well below a native start to well above a first image.
        let creations = Histogram::new([
            0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.3, 2.6, 5.0, 10.0, 60.0,
        ]);
        registry.register_with_unit(
            "sandbox_creation",
            "From the first use of an id to its running sandbox",
            Unit::Seconds,
            creations.clone(),
        );
        let proxy_errors = Family::default();
        registry.register(
            "proxy_errors",
            "Requests that an agent did not answer as it should",
            proxy_errors.clone(),
        );
        let sandboxes = Family::default();
        registry.register("sandboxes", "Sandboxes by status", sandboxes.clone());
        let idle = Gauge::default();
        registry.register(
            "sandboxes_idle",
            "Running sandboxes unused for longer than their sleepAfter",
            idle.clone(),
        );
        Self { registry, requests, creations, proxy_errors, sandboxes, idle }
    }

    pub(crate) fn request(&self, operation: Arc<str>, status: u16) {
        self.requests.get_or_create(&RequestLabels { operation, status }).inc();
    }

    pub(crate) fn created(&self, took: Duration) {
        self.creations.observe(took.as_secs_f64());
    }

    pub(crate) fn proxy_error(&self, kind: &'static str) {
        self.proxy_errors.get_or_create(&KindLabels { kind }).inc();
    }

    /// The text that a scrape gets.
    pub(crate) fn encode(&self, sandboxes: &Sandboxes) -> Result<String, std::fmt::Error> {
        let (by_status, idle) = sandboxes.census();
        for (status, kind) in [
            (SandboxStatus::Starting, "starting"),
            (SandboxStatus::Running, "running"),
            (SandboxStatus::Stopped, "stopped"),
            (SandboxStatus::Destroying, "destroying"),
            (SandboxStatus::Quarantined, "quarantined"),
        ] {
            let count = by_status.get(&status).copied().unwrap_or(0);
            self.sandboxes.get_or_create(&KindLabels { kind }).set(count);
        }
        self.idle.set(idle);
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
