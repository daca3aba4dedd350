//! The bound on how long a shell may take to begin a command.

use std::pin::Pin;
use tokio::time::{Instant, Sleep};

/// A timer that outlives a command. It runs for the first of many commands and is set anew only when it has run out: to
/// set one per command would wake the thread's own poller each time.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Waits until `deadline`. Cancel-safe.
    pub(super) async fn until(&mut self, deadline: Instant) {
        loop {
            let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            timer.as_mut().await;
            self.0 = None;
            if Instant::now() >= deadline {
                return;
            }
        }
    }
}
