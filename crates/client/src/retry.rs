//! How long and how often a lost connection is tried anew.

use crate::ClientError;
use std::time::Duration;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Waits a little longer each time, until the time is up.
pub(crate) struct Patience {
    total: Duration,
    pause: Duration,
    /// When to give up; set by the first loss.
    until: Option<Instant>,
}

impl Patience {
    pub(crate) fn new(total: Duration) -> Self {
        Self { total, pause: FIRST_PAUSE, until: None }
    }

    /// Starts over, because something came through.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.total);
    }

    /// How long it was or will be tried.
    pub(crate) fn total(&self) -> Duration {
        self.total
    }

    /// Whether to try again now; waits before it says yes.
    pub(crate) async fn again(&mut self) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + self.total);
        if now >= until {
            return false;
        }
        // Half of the pause is chance, so that many clients of one server do not come back in step.
        let pause = self.pause.mul_f64(rand::random_range(0.5..=1.0));
        tokio::time::sleep_until((now + pause).min(until)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }

    /// Waits until `error` may be tried over; gives it back when it may not. A server that was not there at the first
    /// attempt is not waited for: it may never have been.
    pub(crate) async fn after(&mut self, error: ClientError) -> Result<(), ClientError> {
        if self.until.is_none() && error.is_connect() {
            return Err(error);
        }
        if self.again().await { Ok(()) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn patience_ends_when_its_time_is_up() {
        let mut patience = Patience::new(Duration::from_secs(5));
        let start = Instant::now();
        let mut tries = 0;
        while patience.again().await {
            tries += 1;
        }
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert!((8..30).contains(&tries), "{tries}");
        assert!(!Patience::new(Duration::ZERO).again().await);
    }
}
