//! At a server's start: the store says what should be, the driver what is.
//!
//! | store \ driver | agent runs | files only | nothing |
//! |---|---|---|---|
//! | running, stopped | running | stopped | lost: an event says so |
//! | starting | running: all but its acknowledgement was done | removed | removed |
//! | destroying | destroyed | destroyed | forgotten |
//! | nothing | removed: its creation was never acknowledged | removed | |

use super::owner::{self, Identity, State};
use super::{Ending, Sandboxes, event, start};
use crate::store::{SandboxRow, StoreError, StoredStatus};
use sandcrab_api::time::Timestamp;
use sandcrab_runtime::{DriverError, Exit, Instance, InstanceId};
use std::collections::HashMap;
use std::sync::PoisonError;

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
    for row in rows {
        let instance = found.remove(&row.instance);
        take_up(all, row, instance).await?;
    }
    for (id, instance) in found {
        tracing::warn!(instance = %id, sandbox = %instance.spec.sandbox, "removing an instance that was never acknowledged");
        if let Err(error) = context.driver.destroy(&id).await {
            tracing::error!(instance = %id, error = crate::chain(&error), "it could not be removed");
        }
    }
    Ok(context.store.settle().await?)
}

async fn take_up(all: &Sandboxes, row: SandboxRow, instance: Option<Instance>) -> Result<(), ReconcileError> {
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
        return Ok(());
    };
    let unfinished = row.status == StoredStatus::Starting && !instance.running;
    if unfinished || row.status == StoredStatus::Destroying {
        let state = State::Condemned { it: identity(&row, &instance)? };
        insert(all, key, state, Some(owner::Message::Destroy(tokio::sync::oneshot::channel().0)));
        return Ok(());
    }
    let mut it = identity(&row, &instance)?;
    let state = if instance.running {
        match start::introduce(context, &row.id, &instance).await {
            Ok(live) => {
                let what = owner::by_agent(event("recovered", "server", "the server started"), &live);
                context.store.event(row.account, &row.id, what).await?;
                owner::running(context, &key, it, live)
            }
            Err(error) => {
                tracing::warn!(sandbox = %row.id, %error, "the agent of a sandbox does not answer");
                State::Stopped { it, ending: Ending { exit: Exit::Unknown, oom: None } }
            }
        }
    } else {
        if row.status == StoredStatus::Running {
            it.last_change = Timestamp::now();
            let what = event("stopped", "server", "its agent had ended when the server started");
            context.store.set_status(row.account, &row.id, StoredStatus::Stopped, Some(what)).await?;
        }
        State::Stopped { it, ending: Ending { exit: Exit::Unknown, oom: None } }
    };
    insert(all, key, state, None);
    Ok(())
}

fn insert(all: &Sandboxes, key: super::Key, state: State, first: Option<owner::Message>) {
    let mut entries = all.entries.write().unwrap_or_else(PoisonError::into_inner);
    let sandbox = owner::spawn(all, key.clone(), state, first);
    entries.insert(key, sandbox);
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
