//! PID 1 of each sandbox: sessions, commands, files, and the router that serves them.

pub mod files;
pub mod http;
pub mod shell;
pub mod spawn;
mod sys;
