//! What an agent tells of goes into its sandbox's log. The agent is not trusted: it may fill its own sandbox's log, whose
//! length is bounded, and that at a bounded pace.

use super::{Context, Key, Live};
use crate::store::NewEvent;
use sandcrab_api::sandbox::AgentEvent;
use std::convert::Infallible;
use std::time::Duration;

/// What an agent says of itself if it can be asked for events.
pub(super) const FEATURE: &str = "events";
/// Between two questions: more happens in one question's answer, not in more questions.
const PACE: Duration = Duration::from_secs(1);
/// After a question that was not answered as it should.
const PAUSE: Duration = Duration::from_secs(10);
/// Events of one answer that are written.
const BATCH: usize = 64;
/// The longest reason in characters, and the longest detail in bytes of JSON.
const REASON: usize = 500;
const DETAIL: usize = 4096;

/// Follows an agent; whoever stops waiting for it ends that.
pub(super) async fn follow(context: &Context, key: &Key, live: &Live) -> Infallible {
    let mut after = 0;
    loop {
        let pause = match live.pool.events(after).await {
            Ok(events) => {
                let events: Vec<_> = events.into_iter().take(BATCH).collect();
                let last = events.iter().map(|event| event.seq).max();
                let told = events.into_iter().map(|event| (event.seq, bounded(event))).collect();
                match last {
                    None => PACE,
                    // Only what is written is acknowledged, which the next question does: the agent forgets it then.
                    Some(last) => match context.store.agent_events(key.0, &key.1, told).await {
                        Ok(()) => {
                            after = after.max(last);
                            PACE
                        }
                        Err(error) => {
                            tracing::error!(sandbox = %key.1, error = crate::chain(&error), "events could not be written");
                            PAUSE
                        }
                    },
                }
            }
            Err(error) => {
                tracing::debug!(sandbox = %key.1, error = crate::chain(&error), "an agent did not tell of events");
                PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn bounded(event: AgentEvent) -> NewEvent {
    let fits = event.detail.to_string().len() <= DETAIL;
    NewEvent {
        kind: event.kind.as_str(),
        actor: "agent",
        reason: event.reason.chars().take(REASON).collect(),
        detail: if fits { event.detail } else { serde_json::Value::Null },
    }
}
