//! PID 1 of each sandbox: sessions, commands, files, and the router that serves them.

mod agent;
mod closing;
mod code;
mod events;
mod exec;
mod faults;
pub mod files;
mod fingerprint;
mod fitness;
mod git;
pub mod http;
mod log;
mod memory;
mod news;
mod null;
mod persona;
mod pipes;
pub mod ports;
mod processes;
mod ptrace;
mod room;
mod session;
pub mod shell;
mod sockets;
pub mod spawn;
mod stdin;
mod sys;
mod threads;

pub use agent::{Agent, StartError};
pub use persona::main;
pub use session::registry::StartPoint;
