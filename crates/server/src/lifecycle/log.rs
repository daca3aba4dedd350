//! A sandbox's event log, read as it is written (contract L08).

use super::not_found;
use crate::store::{AccountId, Event, News, Store};
use sandcrab_api::{ApiError, SandboxId};
use std::collections::VecDeque;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

const OPERATION: &str = "followEvents";
/// Events that are read at once: an agent decides how many there are.
const BATCH: usize = 32;

/// The events of one id after a number, those that are there and those to come. It has no end: an id that was destroyed
/// may be used again.
pub(crate) struct EventLog {
    store: Store,
    account: AccountId,
    id: SandboxId,
    /// The number of the last event that was given.
    after: u64,
    /// Read and not given yet.
    read: VecDeque<Event>,
    /// Whether there may be more behind these already.
    is_full: bool,
    news: Receiver<News>,
}

impl EventLog {
    /// # Errors
    /// `SANDBOX_NOT_FOUND` for an id that was never used.
    pub(super) async fn open(
        store: Store,
        account: AccountId,
        id: SandboxId,
        after: u64,
    ) -> Result<Self, ApiError> {
        // Listening before looking, so that none is missed in between.
        let news = store.news();
        let mut log = Self { store, account, id, after, read: VecDeque::new(), is_full: false, news };
        log.look().await?;
        if log.read.is_empty() && (after == 0 || log.fetch(0, 1).await?.is_empty()) {
            return Err(not_found(&log.id));
        }
        Ok(log)
    }

    /// The next event; none once the server ends.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ApiError> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.after = event.seq;
                return Ok(Some(event));
            }
            if !self.is_full {
                match self.news.recv().await {
                    Ok((account, id)) if account == self.account && id == self.id => {}
                    // Of so many others that what was missed may have been this one's.
                    Err(RecvError::Lagged(_)) => {}
                    Ok(_) => continue,
                    Err(RecvError::Closed) => return Ok(None),
                }
            }
            self.look().await?;
        }
    }

    async fn look(&mut self) -> Result<(), ApiError> {
        self.read = self.fetch(self.after, BATCH).await?.into();
        self.is_full = self.read.len() == BATCH;
        Ok(())
    }

    async fn fetch(&self, after: u64, most: usize) -> Result<Vec<Event>, ApiError> {
        let found = self.store.events(self.account, &self.id, after, most).await;
        found.map_err(|error| crate::http::internal(OPERATION, &error))
    }
}
