//! Sessions: shells that stay alive (contract S01-S07, S09, S11).
//!
//! A [`Session`] owns one shell and runs one command at a time in it. Whoever owns the session gives every command its
//! own stdin, stdout and stderr, keeps the other ends and reads them; [`Session::run`] returns as soon as the shell has
//! said how the command ended, and never waits for the ends of those pipes, which a background job may hold for days.
//!
//! ```text
//!              run                          status                    settled
//!   [no shell] ----> start, restore ----> [busy] ----> [idle, unsettled] ----> [idle]
//!       ^                                   |                 |                  |
//!       |   the shell exits, or is stopped  |                 |                  |  run
//!       +-----------------------------------+<----------------+<-----------------+
//! ```
//!
//! - **busy**: the shell evaluates a command. It ends by a status, by the shell's exit (`exit`, `exec`, a signal), or by
//!   a stop (timeout, cancel), which ends every process of the command and the shell with them.
//! - **unsettled**: the answer is given; the shell may still be writing its state, if the command changed it. The next
//!   command need not wait for that, the shell does both in order.
//! - **no shell**: at first, and after every end of a shell. The next command starts one and restores the last state:
//!   the one that the shell handed over when it exited by itself, else that of the last command that completed.
//!
//! Two kinds of shell are driven: a bash that loads the session loop ([`image::Kind::Loadable`], builtin/sandcrab.c),
//! and any POSIX shell, which then runs one command only ([`image::Kind::Plain`], plain.rs).

mod answer;
mod command;
mod env;
pub mod image;
mod live;
mod patience;
mod plain;
mod processes;
mod protocol;
mod session;
mod state;

pub use command::{Dropped, Ended, RunError, RunOutcome, RunRequest, StopReason};
pub(crate) use env::change;
pub use env::{Changes, SandboxEnv};
pub use session::{Session, SessionConfig, Snapshot};
pub use state::{Exported, State};
