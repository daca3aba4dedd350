//! The file API against a real kernel, as root: contract F01 and F02, attacks A17, B01-B06, B12.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

mod attacks;
mod change;
mod harness;
mod http;
mod identity;
mod in_place;
mod list;
mod read;
mod write;
