//! The agent's threads, where user code has the agent's uid (below a rootless server).
//!
//! There a thread's id is all that tells it from user code: the system call filter refuses to act on ids up to
//! [`AGENT_THREADS`], which must be the agent's alone. So the agent starts its threads before anything else runs, keeps
//! them, and uses up the ids that are left; the kernel gives none of them out again.

use sandcrab_api::launch::AGENT_THREADS;
use std::io;
use std::sync::{Arc, Barrier};

/// Starts as many threads as the runtime has for blocking work. Needs a runtime that keeps them.
pub(crate) async fn start_pool(threads: usize) {
    // Each waits until all are there, so none does the work of two.
    let all = Arc::new(Barrier::new(threads));
    let started: Vec<_> = (0..threads)
        .map(|_| {
            let all = Arc::clone(&all);
            tokio::task::spawn_blocking(move || {
                all.wait();
            })
        })
        .collect();
    for thread in started {
        // Fails only if it panicked, and it does not.
        let _ended = thread.await;
    }
}

/// Uses up the ids of [`AGENT_THREADS`] that no thread has.
pub(crate) fn use_up_ids() -> io::Result<()> {
    let own = || rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    loop {
        let thread = std::thread::Builder::new().name("id".into()).spawn(own)?;
        let id = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if id >= AGENT_THREADS {
            return Ok(());
        }
    }
}

/// Fails if a thread has an id that user code may act on.
pub(crate) fn check() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/task")? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|id| id.parse::<u32>().ok());
        if id.is_none_or(|id| id > AGENT_THREADS) {
            let message = format!("thread {} of the agent is within reach of user code", name.display());
            return Err(io::Error::other(message));
        }
    }
    Ok(())
}
