//! Ctrl-C and its relatives: the first asks the command to stop, the second stops waiting for it.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Counts the signals that ask this process to end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupts {
    /// How many came, and the number of the last.
    seen: watch::Receiver<(u64, u8)>,
}

impl Interrupts {
    /// From here on these signals no longer end the process by themselves.
    pub(crate) fn listen() -> Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (sender, seen) = watch::channel((0, 0));
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => libc::SIGINT,
                    _ = terminate.recv() => libc::SIGTERM,
                    _ = hangup.recv() => libc::SIGHUP,
                    () = sender.closed() => return,
                };
                sender.send_modify(|(count, last)| {
                    *count += 1;
                    *last = u8::try_from(number).unwrap_or(0);
                });
            }
        });
        Ok(Self { seen })
    }

    /// How many have come so far.
    pub(crate) fn count(&self) -> u64 {
        self.seen.borrow().0
    }

    /// Waits until `count` have come.
    pub(crate) async fn reach(&self, count: u64) {
        let mut seen = self.seen.clone();
        if seen.wait_for(|(reached, _)| *reached >= count).await.is_err() {
            // The listening task ends only with the runtime.
            std::future::pending().await
        }
    }

    /// The exit code of a process that the last signal ended.
    pub(crate) fn exit_code(&self) -> u8 {
        128 + self.seen.borrow().1
    }
}
