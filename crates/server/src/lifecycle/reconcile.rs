//! At a server's start: the store says what should be, the driver what is.
//!
//! | store \\ driver | agent runs | files only | cannot be used | nothing |
//! |---|---|---|---|---|
//! | running, stopped | running | stopped | quarantined | lost: an event says so |
//! | starting | running: all but its acknowledgement was done | removed | removed | removed |
//! | destroying | destroyed | destroyed | destroyed | forgotten |
//! | options not readable | quarantined | quarantined | quarantined | forgotten |
//! | nothing, and somebody was told of it | quarantined | quarantined | quarantined | |
//! | nothing else | removed: its creation was never acknowledged | removed | removed | |
//!
//! Nothing that somebody was told of is taken away by a start. Where store and driver do not belong together, or most of what
//! the store knows is missing, as where `instances/` is not mounted yet, the server does not start and says why.

use super::owner;
use super::state::{Cause, Identity, Message, State};
use super::{Ending, Life, Sandbox, Sandboxes, event, start};
use crate::store::{AccountId, SandboxRow, StoreError, StoredStatus};
use sandcrab_api::SandboxId;
use sandcrab_api::sandbox::CreateSandbox;
use sandcrab_api::time::Timestamp;
use sandcrab_runtime::{Condition, DriverError, Instance, InstanceId};
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
    /// The driver's instances are those of another database, or its directory is not the one that it was.
    #[error(
        "the database knows {known} sandboxes, but the directory `instances` is {what}; put the one back that belongs to the database, or start with --accept-lost to forget what is missing"
    )]
    Strangers {
        /// How many sandboxes the database has.
        known: usize,
        /// What is there in its place.
        what: &'static str,
    },
    /// Most sandboxes are not there.
    #[error(
        "{missing} of {known} sandboxes that the database knows are not there; put them back, or start with --accept-lost to forget them"
    )]
    Missing {
        /// How many are not there.
        missing: usize,
        /// How many the database has.
        known: usize,
    },
}

/// As many sandboxes may be lost without a question, whatever their share is.
const FEW: usize = 3;

/// What the driver holds.
struct Holdings {
    instances: HashMap<InstanceId, Instance>,
    /// With what is wrong with each.
    broken: HashMap<InstanceId, String>,
}

/// Takes up every sandbox. `accept_lost` says that what is missing is known to be.
pub(crate) async fn reconcile(all: &Sandboxes, accept_lost: bool) -> Result<(), ReconcileError> {
    let context = &all.context;
    let (rows, unreadable) = context.store.sandboxes().await?;
    for what in &unreadable {
        tracing::error!(what, "a row of the database cannot be read; its sandbox is not served and is kept");
    }
    let found = context.driver.list().await.map_err(ReconcileError::List)?;
    let broken = context.driver.quarantined().into_iter().map(|one| (one.id, one.reason)).collect();
    let is_settled = context.store.is_settled().await?;
    if let (false, Some(first)) = (is_settled, found.first()) {
        return Err(ReconcileError::Orphans { count: found.len(), first: first.spec.sandbox.clone() });
    }
    let instances = found.into_iter().map(|instance| (instance.id.clone(), instance)).collect();
    let mut held = Holdings { instances, broken };
    belong_together(all, &rows, &held, accept_lost).await?;

    let mut taken_up = Vec::new();
    let mut unmarked = Vec::new();
    for row in rows {
        let instance = held.instances.remove(&row.instance);
        unmarked.extend(instance.iter().filter(|it| !it.acknowledged).map(|it| it.id.clone()));
        let broken = held.broken.remove(&row.instance);
        taken_up.extend(take_up(all, row, instance, broken).await);
    }
    // One whose row cannot be read has no other that would keep it.
    let mut left_overs = set_aside(all, held);
    if !unreadable.is_empty() {
        left_overs.clear();
    }
    tokio::spawn(settle_rest(all.clone(), unmarked, left_overs));
    if !is_settled {
        log_unwritten(context.store.settle().await);
    }
    introductions(&taken_up).await;
    Ok(())
}

/// Between two attempts to take up a sandbox whose owner panicked.
const RECOVER_AGAIN: Duration = Duration::from_secs(5);

/// Takes a sandbox up again whose owner panicked, as a start of the server does. Meanwhile its entry answers nobody.
pub(super) async fn recover(all: &Sandboxes, key: &super::Key) {
    tracing::error!(sandbox = %key.1, "the owner of a sandbox panicked");
    while let Err(error) = take_up_again(all, key).await {
        tracing::error!(sandbox = %key.1, error = crate::chain(&error), "it could not be taken up again");
        tokio::time::sleep(RECOVER_AGAIN).await;
    }
}

async fn take_up_again(all: &Sandboxes, key: &super::Key) -> Result<(), ReconcileError> {
    let context = &all.context;
    let (rows, _unreadable) = context.store.sandboxes().await?;
    let row = rows.into_iter().find(|row| row.account == key.0 && row.id == key.1);
    let taken_up = match row {
        None => None,
        Some(row) => {
            let instance = context.driver.inspect(&row.instance).await.map_err(ReconcileError::List)?;
            let broken = context.driver.quarantined().into_iter().find(|one| one.id == row.instance);
            let what = "a fault of the server ended what it did with this sandbox, which was taken up again";
            log_unwritten(context.store.event(key.0, &key.1, event("recovered", "server", what)).await);
            take_up(all, row, instance, broken.map(|one| one.reason)).await
        }
    };
    if taken_up.is_none() {
        all.entries.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
    Ok(())
}

/// Whether the store and the driver's instances are of one server. New ones are from here on.
async fn belong_together(
    all: &Sandboxes,
    rows: &[SandboxRow],
    held: &Holdings,
    accept_lost: bool,
) -> Result<(), ReconcileError> {
    let context = &all.context;
    let (id, is_placed) = context.store.identity().await?;
    let there = context.driver.database().await.map_err(ReconcileError::List)?;
    let known = rows.len();
    let has_any = known > 0 || !held.instances.is_empty() || !held.broken.is_empty();
    let strangers = |what| Err(ReconcileError::Strangers { known, what });
    match there.as_deref() {
        Some(there) if there == id => {}
        Some(_) if has_any && !accept_lost => return strangers("that of another database"),
        None if is_placed && known > 0 && !accept_lost => {
            return strangers("a new one, as where a disk is not mounted yet");
        }
        _ => match context.driver.set_database(&id).await {
            Ok(()) => log_unwritten(context.store.set_placed().await),
            // A disk that is full. The next start tries again.
            Err(error) => {
                tracing::error!(
                    error = crate::chain(&error),
                    "the database's id was not written to the instances"
                );
            }
        },
    }
    let is_missing = |row: &&SandboxRow| {
        matches!(row.status, StoredStatus::Running | StoredStatus::Stopped)
            && !held.instances.contains_key(&row.instance)
            && !held.broken.contains_key(&row.instance)
    };
    let missing = rows.iter().filter(is_missing).count();
    if missing > FEW && missing * 2 > known && !accept_lost {
        return Err(ReconcileError::Missing { missing, known });
    }
    Ok(())
}

/// Sets aside what the store does not know and somebody was told of; gives back what nobody was told of.
fn set_aside(all: &Sandboxes, held: Holdings) -> Vec<InstanceId> {
    let mut left_overs = Vec::new();
    for (id, instance) in held.instances {
        if instance.acknowledged {
            let why = "the database does not know it, as where an older copy was put back";
            quarantine(all, Some(&instance.spec.sandbox), id, why.to_owned());
        } else {
            left_overs.push(id);
        }
    }
    for (id, why) in held.broken {
        quarantine(all, None, id, why);
    }
    left_overs
}

/// Lists an instance that has no row under its sandbox's id, or, where that is another's or not known, under a name of its
/// own. It belongs to the operator.
fn quarantine(all: &Sandboxes, sandbox: Option<&SandboxId>, instance: InstanceId, why: String) {
    let is_free = |id: &&SandboxId| all.find(&(AccountId::DEFAULT, (*id).clone())).is_none();
    let named = SandboxId::parse(&format!("lost-{instance}"));
    let Some(id) = sandbox.filter(is_free).cloned().or_else(|| named.ok()) else { return };
    let now = Timestamp::now();
    let it = Identity {
        instance,
        options: super::options::Options::new(CreateSandbox::default()),
        limits: Default::default(),
        created_at: now,
        last_change: now,
        condition: Condition::Sound,
        failed: None,
    };
    set_quarantined(all, (AccountId::DEFAULT, id), it, why);
}

fn set_quarantined(all: &Sandboxes, key: super::Key, it: Identity, why: String) -> Arc<Sandbox> {
    tracing::error!(sandbox = %key.1, instance = %it.instance, why, "a sandbox cannot be used and is kept as it is");
    let written = all.context.store.event_once(key.0, &key.1, event("quarantined", "server", why.clone()));
    tokio::spawn(async move { log_unwritten(written.await) });
    insert(all, key, State::Quarantined { it, why }, None)
}

/// What need not be done before the first answer.
async fn settle_rest(all: Sandboxes, unmarked: Vec<InstanceId>, left_overs: Vec<InstanceId>) {
    let driver = &all.context.driver;
    for id in unmarked {
        match driver.acknowledge(&id).await {
            // Destroyed meanwhile.
            Ok(()) | Err(DriverError::NotFound { .. }) => {}
            Err(error) => {
                tracing::error!(instance = %id, error = crate::chain(&error), "it could not be marked")
            }
        }
    }
    for id in left_overs {
        tracing::warn!(instance = %id, "removing an instance that was never acknowledged");
        if let Err(error) = driver.destroy(&id).await {
            tracing::error!(instance = %id, error = crate::chain(&error), "it could not be removed");
        }
    }
}

/// The state is as it is, and the next start comes to the same.
fn log_unwritten(written: Result<(), StoreError>) {
    if let Err(error) = written {
        tracing::error!(error = crate::chain(&error), "what the start found could not be written");
    }
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
    broken: Option<String>,
) -> Option<Arc<Sandbox>> {
    let context = &all.context;
    let key = (row.account, row.id.clone());
    let limits = instance.as_ref().map(|instance| instance.spec.limits.clone()).unwrap_or_default();
    let (mut it, unreadable) = identity(&row, limits);
    let running = instance.as_ref().is_some_and(|instance| instance.running);
    let is_there = instance.is_some() || broken.is_some();
    if is_there
        && (row.status == StoredStatus::Destroying || row.status == StoredStatus::Starting && !running)
    {
        let destroy = Message::Destroy(tokio::sync::oneshot::channel().0);
        return Some(insert(all, key, State::Condemned { it }, Some(destroy)));
    }
    if let (true, Some(why)) = (is_there, broken.or(unreadable)) {
        return Some(set_quarantined(all, key, it, why));
    }
    let Some(instance) = instance else {
        let last = match row.status {
            StoredStatus::Starting => None,
            StoredStatus::Destroying => Some("begun before the server ended"),
            StoredStatus::Running | StoredStatus::Stopped => {
                Some("its files were gone when the server started")
            }
        };
        tracing::warn!(sandbox = %row.id, status = ?row.status, "a sandbox is no longer there");
        let last = last.map(|reason| event("destroyed", "server", reason));
        log_unwritten(context.store.remove(row.account, &row.id, &row.instance, last).await);
        return None;
    };
    let state = if instance.running {
        if row.status != StoredStatus::Running {
            // The last server ended before it could write what had come about.
            let written = context.store.set_status(row.account, &row.id, StoredStatus::Running, None);
            log_unwritten(written.await);
        }
        it.condition = context.driver.condition(&row.instance).map(|now| *now.borrow()).unwrap_or_default();
        let work = Box::pin(start::meet(context.clone(), row.id.clone(), instance));
        State::Starting { it, ending: Ending::default(), cause: Cause::Found, work }
    } else {
        if row.status == StoredStatus::Running {
            it.last_change = Timestamp::now();
            let what = event("stopped", "server", "its agent had ended when the server started");
            let written = context.store.set_status(row.account, &row.id, StoredStatus::Stopped, Some(what));
            log_unwritten(written.await);
        }
        State::Stopped { it, ending: Ending::default() }
    };
    Some(insert(all, key, state, None))
}

fn insert(all: &Sandboxes, key: super::Key, state: State, first: Option<Message>) -> Arc<Sandbox> {
    let mut entries = all.entries.write().unwrap_or_else(PoisonError::into_inner);
    let sandbox = owner::spawn(all, key.clone(), state, first);
    entries.insert(key, sandbox.clone());
    sandbox
}

/// What a sandbox is, with what is wrong with its row.
fn identity(row: &SandboxRow, limits: sandcrab_api::sandbox::Limits) -> (Identity, Option<String>) {
    let (options, why) = match serde_json::from_str(&row.options) {
        Ok(options) => (options, None),
        Err(error) => {
            let none = super::options::Options::new(CreateSandbox::default());
            (none, Some(format!("its options in the database are not readable: {error}")))
        }
    };
    let it = Identity {
        instance: row.instance.clone(),
        options,
        limits,
        created_at: row.created_at,
        last_change: row.changed_at,
        condition: Condition::Sound,
        failed: None,
    };
    (it, why)
}
