//! `sandcrab agent`: the process that becomes PID 1 of a sandbox.

use crate::agent::{Agent, take};
use sandcrab_api::launch::AgentConfig;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::Duration;

/// Threads for file operations at the most: enough to hide a slow disk, few enough for a small sandbox.
pub(crate) const MAX_BLOCKING_THREADS: usize = 8;

/// Why the agent's process ends.
#[derive(Debug, thiserror::Error)]
enum PersonaError {
    #[error("usage: sandcrab agent --config-fd N")]
    Usage,
    #[error("read the configuration")]
    ReadConfig(#[source] std::io::Error),
    #[error("parse the configuration")]
    ParseConfig(#[source] serde_json::Error),
    #[error("make the agent invisible to other processes")]
    Dumpable(#[source] rustix::io::Errno),
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Start(#[from] crate::agent::StartError),
}

/// Runs the agent with the arguments that follow `agent`; never returns while the sandbox lives.
pub fn main(arguments: &[OsString]) -> ExitCode {
    tracing_subscriber::fmt().json().with_writer(|| crate::log::Log).init();
    crate::log::tell_of_panics();
    let Err(error) = run(arguments);
    let source = std::error::Error::source(&error).map(ToString::to_string);
    tracing::error!(source, "{error}");
    ExitCode::FAILURE
}

fn run(arguments: &[OsString]) -> Result<Infallible, PersonaError> {
    let [flag, fd] = arguments else { return Err(PersonaError::Usage) };
    let fd = fd
        .to_str()
        .and_then(|fd| fd.parse().ok())
        .filter(|fd| flag == "--config-fd" && *fd >= 0)
        .ok_or(PersonaError::Usage)?;
    let mut text = String::new();
    File::from(take(fd)?).read_to_string(&mut text).map_err(PersonaError::ReadConfig)?;
    let config: AgentConfig = serde_json::from_str(&text).map_err(PersonaError::ParseConfig)?;

    crate::sys::no_fault_handlers();
    // Before anything of the user's runs: its memory and descriptors are nobody's to read (attack A17).
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(PersonaError::Dumpable)?;
    let listener = UnixListener::from(take(config.listen_fd)?);
    let alone = config.identity.can_switch;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        // One more cannot be had where the sandbox has as many processes as it may.
        .thread_keep_alive(Duration::MAX)
        .build()
        .map_err(PersonaError::Runtime)?;
    runtime.block_on(async {
        // With a uid of its own it starts the others when they are needed; the first is there whatever runs.
        crate::threads::start_pool(if alone { 1 } else { MAX_BLOCKING_THREADS }).await;
        let agent = Agent::start(&config)?;
        Ok::<_, PersonaError>(agent.serve(listener).await?)
    })
}
