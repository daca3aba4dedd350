//! Waiting for a state that others change, without a poll and without a missed change.

use std::pin::pin;
use tokio::sync::Notify;

/// What `look` finds, as soon as it finds something: it looks at once, and again at each word of `news`. Whoever changes
/// what it looks at calls `notify_waiters` afterwards.
pub(crate) async fn until<T>(news: &Notify, mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        let mut word = pin!(news.notified());
        // Listening before looking, so that no change is missed in between.
        word.as_mut().enable();
        if let Some(found) = look() {
            return found;
        }
        word.await;
    }
}
