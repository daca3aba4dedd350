//! Wire types, ids, the error table and limits of Sandcrab's API.
//!
//! Everything that crosses a process boundary is described here once: the server and the agent serve it, the
//! clients are generated from it or written against it, and `openapi.json` is derived from it. The crate does no
//! I/O, so any side can depend on it.

pub mod code;
pub mod error;
pub mod exec;
pub mod files;
pub mod git;
pub mod ids;
pub mod image;
pub mod launch;
pub mod limits;
mod object;
pub mod ports;
pub mod process;
pub mod sandbox;
pub mod session;
pub mod ticket;
pub mod time;
pub mod units;
pub mod validate;

pub use error::{ApiError, ErrorCode};
pub use ids::{ContextId, ExecId, ProcessId, RunId, SandboxId, SessionId};

/// The release this crate belongs to; server and agent exchange it when a connection opens.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
