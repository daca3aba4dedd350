//! The agent's API over HTTP, which is the sandbox-scoped part of Sandcrab's API.

pub mod error;
pub mod extract;
