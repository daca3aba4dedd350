//! Checkouts through the agent's API, with real git, from real servers on loopback.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a module of its own"
)]

mod attacks;
mod cloning;
#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod common;
mod credentials;
mod failures;
mod host;
mod stopping;
