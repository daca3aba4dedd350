//! At a server's start: the store says what should be, the driver what is.
//!
//! | store \ driver | agent runs | files only | nothing |
//! |---|---|---|---|
//! | running, stopped | running | stopped | lost: an event says so |
//! | starting | running: all but its acknowledgement was done | removed | removed |
//! | destroying | destroyed | destroyed | forgotten |
//! | nothing | removed: its creation was never acknowledged | removed | |

use super::owner::{self, Cause, Identity, State};
use super::{Ending, Life, Sandbox, Sandboxes, event, start};
use crate::store::{SandboxRow, StoreError, StoredStatus};
use sandcrab_api::time::Timestamp;
use sandcrab_runtime::{DriverError, Exit, Instance, InstanceId};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long a server that starts waits for the agents of its sandboxes to introduce themselves, all at once. It serves
/// after that: an agent that is frozen holds up nobody but the users of its own sandbox.
const INTRODUCTIONS: Duration = Duration::from_secs(1);

/// Why a server could not take up what an earlier one left.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The driver could not say what it holds.
    #[error("list what the driver holds")]
    List(#[source] DriverError),
    /// The database is new but the driver holds sandboxes: someone lost the database.
    #[error(
        "the database is new, but the driver holds {count} sandboxes, {first} first; put the database back, or remove the data directory"
    )]
    Orphans {
        /// How many.
        count: usize,
        /// One of them.
        first: sandcrab_api::SandboxId,
    },
    /// A sandbox's options are not what this release writes.
    #[error("read the options of sandbox {id}")]
    Options {
        /// Whose.
        id: sandcrab_api::SandboxId,
        /// Why.
        source: serde_json::Error,
    },
}

/// How an agent ended that ended while no server looked.
const UNKNOWN: Ending = Ending { exit: Exit::Unknown, oom: None, silent: false };

/// Takes up every sandbox.
pub(crate) async fn reconcile(all: &Sandboxes) -> Result<(), ReconcileError> {
    let context = &all.context;
    let rows = context.store.sandboxes().await?;
    let found = context.driver.list().await.map_err(ReconcileError::List)?;
    if let (false, Some(first)) = (context.store.is_settled().await?, found.first()) {
        return Err(ReconcileError::Orphans { count: found.len(), first: first.spec.sandbox.clone() });
    }
    let mut found: HashMap<InstanceId, Instance> =
        found.into_iter().map(|instance| (instance.id.clone(), instance)).collect();
    let mut taken_up = Vec::new();
    for row in rows {
        let instance = found.remove(&row.instance);
        taken_up.extend(take_up(all, row, instance).await?);
    }
    for (id, instance) in found {
        tracing::warn!(instance = %id, sandbox = %instance.spec.sandbox, "removing an instance that was never acknowledged");
        if let Err(error) = context.driver.destroy(&id).await {
            tracing::error!(instance = %id, error = crate::chain(&error), "it could not be removed");
        }
    }
    context.store.settle().await?;
    introductions(&taken_up).await;
    Ok(())
}

async fn introductions(taken_up: &[Arc<Sandbox>]) {
    let introduced = async {
        for sandbox in taken_up {
            // An error says that it is gone already.
            let mut view = sandbox.view.clone();
            let _gone = view.wait_for(|view| !matches!(view.life, Life::Starting)).await;
        }
    };
    if tokio::time::timeout(INTRODUCTIONS, introduced).await.is_err() {
        let silent = |sandbox: &&Arc<Sandbox>| matches!(sandbox.view.borrow().life, Life::Starting);
        let count = taken_up.iter().filter(silent).count();
        tracing::warn!(
            count,
            "agents that have not answered yet; whoever uses their sandboxes waits for them"
        );
    }
}

/// Gives a sandbox its owner; none if there is no sandbox any more.
async fn take_up(
    all: &Sandboxes,
    row: SandboxRow,
    instance: Option<Instance>,
) -> Result<Option<Arc<Sandbox>>, ReconcileError> {
    let context = &all.context;
    let key = (row.account, row.id.clone());
    let Some(instance) = instance else {
        let lost = matches!(row.status, StoredStatus::Running | StoredStatus::Stopped)
            .then(|| event("destroyed", "server", "its files were gone when the server started"));
        let last = match (lost, row.status) {
            (None, StoredStatus::Destroying) => {
                Some(event("destroyed", "server", "begun before the server ended"))
            }
            (lost, _) => lost,
        };
        tracing::warn!(sandbox = %row.id, status = ?row.status, "a sandbox is no longer there");
        context.store.remove(row.account, &row.id, &row.instance, last).await?;
        return Ok(None);
    };
    let unfinished = row.status == StoredStatus::Starting && !instance.running;
    if unfinished || row.status == StoredStatus::Destroying {
        let state = State::Condemned { it: identity(&row, &instance)? };
        let destroy = owner::Message::Destroy(tokio::sync::oneshot::channel().0);
        return Ok(Some(insert(all, key, state, Some(destroy))));
    }
    let mut it = identity(&row, &instance)?;
    let state = if instance.running {
        if row.status != StoredStatus::Running {
            // The last server ended before it could write what had come about.
            context.store.set_status(row.account, &row.id, StoredStatus::Running, None).await?;
        }
        let work = Box::pin(start::meet(context.clone(), row.id.clone(), instance));
        State::Starting { it, ending: UNKNOWN, cause: Cause::Found, work }
    } else {
        if row.status == StoredStatus::Running {
            it.last_change = Timestamp::now();
            let what = event("stopped", "server", "its agent had ended when the server started");
            context.store.set_status(row.account, &row.id, StoredStatus::Stopped, Some(what)).await?;
        }
        State::Stopped { it, ending: UNKNOWN }
    };
    Ok(Some(insert(all, key, state, None)))
}

fn insert(all: &Sandboxes, key: super::Key, state: State, first: Option<owner::Message>) -> Arc<Sandbox> {
    let mut entries = all.entries.write().unwrap_or_else(PoisonError::into_inner);
    let sandbox = owner::spawn(all, key.clone(), state, first);
    entries.insert(key, sandbox.clone());
    sandbox
}

fn identity(row: &SandboxRow, instance: &Instance) -> Result<Identity, ReconcileError> {
    let options = serde_json::from_str(&row.options)
        .map_err(|source| ReconcileError::Options { id: row.id.clone(), source })?;
    Ok(Identity {
        instance: row.instance.clone(),
        options,
        limits: instance.spec.limits.clone(),
        created_at: row.created_at,
        last_change: row.changed_at,
    })
}
