//! The Rust client of Sandcrab.
//!
//! ```no_run
//! # async fn example() -> Result<(), sandcrab_client::ClientError> {
//! use sandcrab_client::{Client, SandboxOptions};
//!
//! let client = Client::from_env()?;
//! let sandbox = client.sandbox("user-123", SandboxOptions::default())?;
//! let session = sandbox.session("build")?;
//! session.exec("cd /tmp && export GREETING=hello").await?;
//! let output = session.exec("echo $GREETING from $PWD").await?;
//! assert_eq!(output.stdout, &b"hello from /tmp\n"[..]);
//! sandbox.destroy().await?;
//! # Ok(())
//! # }
//! ```
//!
//! - A sandbox or session is made by its first use; [`Client::sandbox`] and [`Sandbox::session`] send nothing.
//! - Output is bytes, exactly as the command wrote them.
//! - A lost connection kills nothing (contract S12). Every command has an id that this client makes up, so a request
//!   whose connection failed before its answer is sent again and attaches to the same command; a stream goes on where it
//!   broke off. Reading is tried again too; nothing else is.
//! - [`Sandbox::start`] starts a process in the background; [`Process`] waits for its log lines, its port and its end by
//!   event, follows its log, talks with it ([`Process::attach`]) and kills it with all that it started.
//! - Dropping a future or a stream does not stop its command: [`Sandbox::cancel`] does.
//!
//! Needs a tokio runtime with I/O and time. Speaks HTTP/1.1 over TCP or TLS, without a proxy.

mod attach;
mod client;
mod code;
mod error;
mod events;
mod exec;
mod files;
mod follow;
mod git;
mod images;
mod log;
mod options;
mod path;
mod ports;
mod processes;
mod resume;
mod retry;
mod sandbox;
mod session;
mod sse;
mod transport;
mod wait;

pub use attach::{Attached, AttachedInput, AttachedOutput};
pub use client::Client;
pub use code::{CodeStream, RunCode};
pub use error::{ClientError, ConnectError};
pub use events::EventStream;
pub use exec::{Exec, ExecInput, ExecOutput};
pub use files::{FileReader, Files, ListOptions, MkdirOptions, WriteOptions};
pub use follow::{ExecEvent, ExecStream};
pub use git::Checkout;
pub use log::{LogEvent, LogStream};
pub use options::{ClientOptions, DEFAULT_URL, KEY_FILE, default_data_dir, local_key};
pub use ports::ExposeOptions;
pub use processes::{Process, ProcessOutput, Start};
pub use sandbox::Sandbox;
/// How a sandbox is made, when its first use makes it.
pub use sandcrab_api::sandbox::CreateSandbox as SandboxOptions;
pub use session::Session;
pub use wait::{LogMatch, LogPattern, PortWait};

/// The wire types.
pub use sandcrab_api as api;
