//! What happened in the sandbox that someone may want to know of later (contract L08). The server fetches it for the
//! sandbox's log; what it has fetched is forgotten here.

use crate::news::until;
use sandcrab_api::sandbox::{AgentEvent, AgentEventKind};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Events kept while no server fetches them; older ones go first.
const KEPT: usize = 256;
/// Events given at once.
const BATCH: usize = 64;

/// The events that no server has fetched yet.
#[derive(Debug, Default)]
pub(crate) struct Events {
    kept: Mutex<Kept>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    events: VecDeque<AgentEvent>,
}

impl Events {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one.
    pub(crate) fn add(&self, kind: AgentEventKind, reason: String, detail: serde_json::Value) {
        let mut kept = self.kept();
        kept.last += 1;
        let event = AgentEvent { seq: kept.last, kind, reason, detail };
        kept.events.push_back(event);
        if kept.events.len() > KEPT {
            kept.events.pop_front();
        }
        drop(kept);
        self.added.notify_waiters();
    }

    /// The events after `seq`, oldest first; waits until there is one. Those up to `seq` are forgotten.
    pub(crate) async fn after(&self, seq: u64) -> Vec<AgentEvent> {
        until(&self.added, || Some(self.fetch(seq)).filter(|events| !events.is_empty())).await
    }

    pub(crate) fn fetch(&self, seq: u64) -> Vec<AgentEvent> {
        let mut kept = self.kept();
        while kept.events.front().is_some_and(|event| event.seq <= seq) {
            kept.events.pop_front();
        }
        kept.events.iter().take(BATCH).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn seqs(events: &[AgentEvent]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[tokio::test]
    async fn l08_events_are_kept_until_they_are_fetched() {
        let events = Arc::new(Events::default());
        let waiting = tokio::spawn({
            let events = Arc::clone(&events);
            async move { events.after(0).await }
        });
        tokio::task::yield_now().await;
        let add = || events.add(AgentEventKind::ShellRestarted, "exit 7".into(), serde_json::Value::Null);
        add();
        assert_eq!(seqs(&waiting.await.unwrap()), [1]);
        add();
        // Not yet fetched for certain: an answer may be lost on its way.
        assert_eq!(seqs(&events.after(0).await), [1, 2]);
        assert_eq!(seqs(&events.after(1).await), [2]);
        assert_eq!(events.kept().events.len(), 1);
        (0..1000).for_each(|_| add());
        let oldest = events.after(2).await;
        assert_eq!((oldest.len(), oldest[0].seq), (BATCH, 1002 - KEPT as u64 + 1));
    }
}
