//! Processes: programs that the sandbox runs in the background (contract P01-P04).
//!
//! A process belongs to the sandbox: not to the session in which it began, nor to the request that started it. It is run
//! by a shell in a group of its own (spawn/group), so that a kill takes all that it started; its output goes into a ring
//! on the sandbox's disk (log.rs), from which any number of followers read.

mod attach;
mod follow;
pub(crate) mod http;
mod lines;
mod log;
mod ports;
mod process;
mod registry;
mod run;
mod signal;
mod stdin;
mod supervise;
mod wait;

pub(crate) use http::KillQuery;
pub(crate) use ports::Ports;
pub(crate) use registry::Processes;
pub(crate) use signal::parse as parse_signal;
