//! Whether an agent still answers (attacks A28, A33).
//!
//! What a caller waits for may take a week, so that its silence says nothing. What the server asks for itself is answered at
//! once, by an agent that can work. It is asked when there is a doubt: a request has waited for a while, several in a row
//! have failed inside the agent, or the sandbox has been in use for some time.

use super::pool::{Pool, PoolError};
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a request waits before its agent is asked whether it lives.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the agent of a sandbox that is in use is asked without a further reason: for those who follow a stream.
const ROUTINE: Duration = Duration::from_secs(10);
/// How long an agent may fail to answer before it is given up. Far above what one needs on a machine that has no CPU or
/// memory to spare, because all sessions are lost with it.
const SILENCE: Duration = Duration::from_secs(15);
/// How long one question waits; the next one goes over a fresh connection as well.
const QUESTION: Duration = Duration::from_secs(5);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);
/// How many answers in a row with status 500 raise a doubt.
const FAILURES: u32 = 3;

/// What is known of one agent's life.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Uses of the sandbox that are open.
    uses: AtomicUsize,
    /// Answers with status 500 since the last other one.
    failures: AtomicU32,
    doubt: Notify,
    lost: CancellationToken,
    /// The sandbox is made to stand still: that it does not answer says nothing.
    held: AtomicBool,
    /// Why it was given up.
    reason: OnceLock<String>,
}

/// The agent was given up while it was waited for.
#[derive(Debug)]
pub(crate) struct Lost;

impl Pulse {
    pub(crate) fn begin_use(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end_use(&self) {
        self.uses.fetch_sub(1, Ordering::Relaxed);
    }

    /// Says whether the sandbox is made to stand still.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Has the agent asked soon.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Takes note of an answer's status: an agent that fails at everything may be unable to work.
    pub(super) fn answered(&self, status: http::StatusCode) {
        if status != http::StatusCode::INTERNAL_SERVER_ERROR {
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
        } else if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.failures.store(0, Ordering::Relaxed);
            self.doubt();
        }
    }

    /// Waits for an answer, and no longer than the agent is believed to live.
    pub(super) async fn attend<T>(&self, answer: impl Future<Output = T>) -> Result<T, Lost> {
        let mut answer = pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            () = self.lost.cancelled() => return Err(Lost),
            () = tokio::time::sleep(PATIENCE) => self.doubt(),
        }
        tokio::select! {
            biased;
            answer = &mut answer => Ok(answer),
            () = self.lost.cancelled() => Err(Lost),
        }
    }

    /// Why the agent was given up, if it was.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}

impl Pool {
    /// Resolves when the agent is given up: it was in doubt, and did not answer as one that can work. Whoever waits for an
    /// answer of it hears of that at once. To be awaited by one.
    pub(crate) async fn lost(&self) -> &str {
        let pulse = self.pulse();
        loop {
            tokio::select! {
                () = pulse.doubt.notified() => {}
                () = tokio::time::sleep(ROUTINE) => if pulse.uses.load(Ordering::Relaxed) == 0 { continue },
            }
            if let Err(why) = self.examine().await {
                let why = pulse.reason.get_or_init(|| why);
                pulse.lost.cancel();
                return why;
            }
        }
    }

    /// Asks the agent whether it can work, again and again for as long as it may fail to say so.
    async fn examine(&self) -> Result<(), String> {
        let mut deadline = Instant::now() + SILENCE;
        loop {
            if self.pulse().held.load(Ordering::Relaxed) {
                deadline = Instant::now() + SILENCE;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let why =
                match tokio::time::timeout_at(deadline.min(Instant::now() + QUESTION), self.probe()).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(PoolError::Unfit(why))) => why,
                    Ok(Err(error)) => crate::chain(&error),
                    Err(_elapsed) => "no answer".to_owned(),
                };
            if Instant::now() + PAUSE >= deadline {
                return Err(format!("asked for {} s: {why}", SILENCE.as_secs()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[tokio::test(start_paused = true)]
    async fn a33_a_long_wait_raises_one_doubt_and_an_answer_none() {
        let pulse = Pulse::default();
        let doubted = || tokio::time::timeout(Duration::ZERO, pulse.doubt.notified());
        pulse.attend(tokio::time::sleep(PATIENCE / 2)).await.unwrap();
        assert!(doubted().await.is_err());
        pulse.attend(tokio::time::sleep(PATIENCE * 20)).await.unwrap();
        assert!(doubted().await.is_ok());
        assert!(doubted().await.is_err());
        pulse.lost.cancel();
        pulse.attend(std::future::pending::<()>()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a28_failures_in_a_row_raise_a_doubt() {
        let pulse = Pulse::default();
        let doubted = || tokio::time::timeout(Duration::ZERO, pulse.doubt.notified());
        for status in [500, 500, 200, 500, 500, 404] {
            pulse.answered(StatusCode::from_u16(status).unwrap());
        }
        assert!(doubted().await.is_err());
        (0..FAILURES).for_each(|_| pulse.answered(StatusCode::INTERNAL_SERVER_ERROR));
        assert!(doubted().await.is_ok());
    }
}
