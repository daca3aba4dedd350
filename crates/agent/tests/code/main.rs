//! Code contexts through the agent's API, with the machine's own python3 and node (contracts K01, K02, S11, S12, S14).
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a module of its own"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "shared with the tests of sessions")]
mod common;
mod contexts;
mod hostile;
mod ipython;
mod javascript;
mod python;
mod rig;
mod stopping;
mod streams;
