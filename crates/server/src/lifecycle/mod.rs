//! The life of sandboxes: one task owns each sandbox's state, and everyone else sees what it publishes.
//!
//! A request that finds its sandbox running reads the published [`View`] and goes on without meeting the owner; only
//! what changes a state is a message (see [`owner`]).

mod follow;
mod log;
pub(crate) mod options;
mod owner;
mod reconcile;
mod start;
mod state;

pub(crate) use log::EventLog;
pub use reconcile::ReconcileError;
pub(crate) use reconcile::reconcile;

use crate::images::Images;
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::preview::Apps;
use crate::proxy::Pool;
use crate::store::{AccountId, Event, NewEvent, Store};
use sandcrab_api::sandbox::{AgentHello, CreateSandbox, SandboxInfo, SandboxStatus, StopSignal};
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use sandcrab_runtime::{Driver, Exit, InstanceId};
use state::{Message, State};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How long a request whose connection broke waits to hear from the owner what became of the sandbox.
const VERDICT: Duration = Duration::from_millis(500);

/// What owners work with.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) images: Images,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ports: Arc<Ports>,
}

/// A sandbox as its owner last published it.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) life: Life,
    /// What a caller may see; none where there is no sandbox.
    pub(crate) info: Option<Arc<SandboxInfo>>,
}

/// Where a sandbox stands, as seen from outside.
#[derive(Clone)]
pub(crate) enum Life {
    /// Not there: never was, or was taken away.
    Absent,
    /// Being made, or started again.
    Starting,
    /// Up.
    Running(Arc<Live>),
    /// Its agent ended this way.
    Stopped(Ending),
    /// Being taken away.
    Destroying,
}

/// A running agent.
pub(crate) struct Live {
    pub(crate) instance: InstanceId,
    pub(crate) hello: AgentHello,
    pub(crate) pool: Pool,
    /// Connections to what listens in the sandbox.
    pub(crate) apps: Apps,
}

/// How an agent ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) exit: Exit,
    /// The memory limit and the most that was used, when the kernel killed for want of memory.
    pub(crate) oom: Option<sandcrab_api::exec::Oom>,
    /// The server ended it because it no longer answered.
    pub(crate) silent: bool,
    /// A caller had it stopped.
    pub(crate) asked: bool,
}

impl Default for Ending {
    /// Of an agent that ended while no server looked.
    fn default() -> Self {
        Self { exit: Exit::Unknown, oom: None, silent: false, asked: false }
    }
}

/// Which requests keep a sandbox awake: what a later release decides by when it puts idle sandboxes to sleep.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests that run and streams that are open.
    open: AtomicUsize,
    /// When the last of them ended, in milliseconds since 1970; 0 before the first.
    last_end: AtomicI64,
}

impl Activity {
    fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.last_end.store(sandcrab_api::time::Timestamp::now().as_millis(), Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether nothing has used the sandbox for at least `time`.
    pub(crate) fn idle_for(&self, time: Duration) -> bool {
        let last = self.last_end.load(Ordering::Relaxed);
        let now = sandcrab_api::time::Timestamp::now().as_millis();
        self.open.load(Ordering::Relaxed) == 0 && now.saturating_sub(last) >= time.as_millis() as i64
    }
}

/// A sandbox as the rest of the server holds it.
pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    pub(crate) activity: Activity,
    inbox: mpsc::Sender<Message>,
    view: watch::Receiver<View>,
}

impl Sandbox {
    /// Gives a message to the owner. One for which there is no room is answered here; one whose owner has ended comes back.
    fn tell(&self, message: Message) -> Result<(), Message> {
        match self.inbox.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => {
                message.fail(owner::busy(&self.id));
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(message)) => Err(message),
        }
    }

    fn live(&self) -> Option<Arc<Live>> {
        match &self.view.borrow().life {
            Life::Running(live) => Some(live.clone()),
            _ => None,
        }
    }

    /// Why a connection to `live` broke: waits a moment for what the owner hears of it. None if the agent still runs.
    pub(crate) async fn verdict(&self, live: &Arc<Live>) -> Option<ApiError> {
        let mut view = self.view.clone();
        let changed = view.wait_for(|view| match &view.life {
            Life::Running(now) => !Arc::ptr_eq(now, live),
            // Soon one of the others.
            Life::Starting => false,
            Life::Absent | Life::Stopped(_) | Life::Destroying => true,
        });
        let life = match tokio::time::timeout(VERDICT, changed).await {
            Ok(Ok(view)) => view.life.clone(),
            Ok(Err(_owner_ended)) => Life::Absent,
            Err(_elapsed) => return None,
        };
        let id = &self.id;
        let ended = |how: String| {
            ApiError::new(
                ErrorCode::ServiceNotResponding,
                format!("sandbox {id} ended while it worked on this ({how})"),
            )
            .suggest(
                "Its files are kept and the next use starts it again; check what this call had done by then.",
            )
        };
        let error = match life {
            Life::Stopped(Ending { oom: Some(oom), .. }) => {
                ApiError::new(ErrorCode::OomKilled, format!("sandbox {id} was killed for want of memory"))
                    .with("limit", oom.limit)
                    .with("peak", oom.peak)
            }
            Life::Stopped(Ending { asked: true, .. }) => ApiError::new(
                ErrorCode::OperationInterrupted,
                format!("sandbox {id} was stopped while it worked on this"),
            )
            .suggest(
                "Its files are kept and the next use starts it again; check what this call had done by then.",
            ),
            Life::Stopped(Ending { silent: true, .. }) => return Some(gave_no_answer(id)),
            Life::Stopped(Ending { exit, .. }) => ended(exit_text(exit)),
            Life::Running(again) if again.instance == live.instance => {
                ended("it has been started again".to_owned())
            }
            _ => ApiError::new(
                ErrorCode::OperationInterrupted,
                format!("sandbox {id} was destroyed while it worked on this"),
            ),
        };
        Some(error.with("sandboxId", id.as_str()))
    }
}

/// The agent was ended, or is to be, because it no longer answered.
pub(crate) fn gave_no_answer(id: &SandboxId) -> ApiError {
    ApiError::new(
        ErrorCode::ServiceNotResponding,
        format!("sandbox {id} no longer answered while it worked on this, and is ended"),
    )
    .suggest("Its files are kept and the next use starts it again; check what this call had done by then.")
    .with("sandboxId", id.as_str())
}

fn exit_text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Unknown => "cause unknown".to_owned(),
    }
}

/// A use of a running sandbox. As long as it lives the sandbox counts as active.
pub(crate) struct Use {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) live: Arc<Live>,
}

impl Use {
    fn new(sandbox: Arc<Sandbox>, live: Arc<Live>) -> Self {
        sandbox.activity.begin();
        live.pool.pulse().begin_use();
        Self { sandbox, live }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.sandbox.activity.end();
        self.live.pool.pulse().end_use();
    }
}

type Key = (AccountId, SandboxId);

/// All sandboxes. Each entry lives as long as its owner.
#[derive(Clone)]
pub(crate) struct Sandboxes {
    context: Arc<Context>,
    entries: Arc<RwLock<HashMap<Key, Arc<Sandbox>>>>,
}

impl Sandboxes {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, entries: Arc::default() }
    }

    fn find(&self, key: &Key) -> Option<Arc<Sandbox>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// The entry of an id, made if it is missing, after `message` went to its owner: an owner without a sandbox ends
    /// as soon as nobody wants anything of it, so the first word is said under the lock.
    fn send(&self, key: &Key, message: Message) -> Arc<Sandbox> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = entries.get(key) {
            // An owner that retires takes its entry out. One that panicked leaves it, until it has a successor: a second
            // owner beside a sandbox that lives would make another one.
            if let Err(message) = sandbox.tell(message) {
                message.fail(owner::recovering(&key.1));
            }
            return sandbox.clone();
        }
        let sandbox = owner::spawn(self, key.clone(), State::Absent, Some(message));
        entries.insert(key.clone(), sandbox.clone());
        sandbox
    }

    /// Whether there is such a sandbox, in whatever state.
    pub(crate) fn exists(&self, account: AccountId, id: &SandboxId) -> bool {
        self.find(&(account, id.clone())).is_some_and(|sandbox| sandbox.view.borrow().info.is_some())
    }

    /// A use of the sandbox, which is made or started first where needed (contract L01).
    pub(crate) async fn enter(&self, account: AccountId, id: SandboxId) -> Result<Use, ApiError> {
        let key = (account, id);
        if let Some(sandbox) = self.find(&key)
            && let Some(live) = sandbox.live()
        {
            return Ok(Use::new(sandbox, live));
        }
        let (reply, answer) = oneshot::channel();
        let sandbox = self.send(&key, Message::Ensure(reply));
        let live = answer.await.map_err(|_| owner_gone(&key.1))??;
        Ok(Use::new(sandbox, live))
    }

    /// A use of a sandbox that exists, which is started first where needed (contract L03).
    pub(crate) async fn wake(&self, account: AccountId, id: SandboxId) -> Result<Use, ApiError> {
        let key = (account, id);
        let unknown = || not_found(&key.1);
        let sandbox = self.find(&key).ok_or_else(unknown)?;
        if let Some(live) = sandbox.live() {
            return Ok(Use::new(sandbox, live));
        }
        let (reply, answer) = oneshot::channel();
        sandbox.tell(Message::Wake(reply)).map_err(|_| self.ended(&key))?;
        let live = answer.await.map_err(|_| self.ended(&key))??;
        Ok(Use::new(sandbox, live))
    }

    /// Makes the sandbox, or changes what may change of one that exists. The flag says whether it was made.
    pub(crate) async fn put(
        &self,
        account: AccountId,
        id: SandboxId,
        wanted: CreateSandbox,
    ) -> Result<(Arc<SandboxInfo>, bool), ApiError> {
        let key = (account, id);
        let (reply, answer) = oneshot::channel();
        self.send(&key, Message::Put(Box::new(wanted), reply));
        answer.await.map_err(|_| owner_gone(&key.1))?
    }

    /// Takes the sandbox away; resolves when all of it is gone (contract L06).
    pub(crate) async fn destroy(&self, account: AccountId, id: SandboxId) -> Result<(), ApiError> {
        let key = (account, id);
        let unknown = || not_found(&key.1);
        let sandbox = self.find(&key).ok_or_else(unknown)?;
        let (reply, answer) = oneshot::channel();
        sandbox.tell(Message::Destroy(reply)).map_err(|_| self.ended(&key))?;
        answer.await.map_err(|_| self.ended(&key))?
    }

    /// Why an owner does not answer: it has retired, or panicked.
    fn ended(&self, key: &Key) -> ApiError {
        match self.find(key) {
            Some(_) => owner::recovering(&key.1),
            None => not_found(&key.1),
        }
    }

    /// Ends all that runs in a sandbox and keeps its files; resolves when nothing of it runs. One that does not run stays as
    /// it is.
    pub(crate) async fn stop(
        &self,
        account: AccountId,
        id: SandboxId,
        signal: StopSignal,
    ) -> Result<(), ApiError> {
        let key = (account, id);
        let unknown = || not_found(&key.1);
        let sandbox = self.find(&key).ok_or_else(unknown)?;
        let (reply, answer) = oneshot::channel();
        sandbox.tell(Message::Stop(signal, reply)).map_err(|_| unknown())?;
        answer.await.map_err(|_| unknown())?
    }

    /// A sandbox as it stands now; never waits for its owner.
    pub(crate) fn info(&self, account: AccountId, id: SandboxId) -> Result<Arc<SandboxInfo>, ApiError> {
        let key = (account, id);
        let info = self.find(&key).and_then(|sandbox| sandbox.view.borrow().info.clone());
        info.ok_or_else(|| not_found(&key.1))
    }

    /// An account's sandboxes, by age.
    pub(crate) fn list(&self, account: AccountId) -> Vec<Arc<SandboxInfo>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = entries
            .iter()
            .filter(|((owner, _), _)| *owner == account)
            .filter_map(|(_, sandbox)| sandbox.view.borrow().info.clone())
            .collect();
        drop(entries);
        list.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        list
    }

    /// The event log of an id, also of one that was destroyed (contract L08).
    pub(crate) async fn events(&self, account: AccountId, id: &SandboxId) -> Result<Vec<Event>, ApiError> {
        let events = self.context.store.events(account, id, 0, usize::MAX).await;
        let events = events.map_err(|error| crate::http::internal("listEvents", &error))?;
        if events.is_empty() { Err(not_found(id)) } else { Ok(events) }
    }

    /// The same log, read as it is written.
    pub(crate) async fn follow_events(
        &self,
        account: AccountId,
        id: SandboxId,
        after: u64,
    ) -> Result<EventLog, ApiError> {
        EventLog::open(self.context.store.clone(), account, id, after).await
    }

    /// How many sandboxes there are by status, and how many of the running ones are idle past their time.
    pub(crate) fn census(&self) -> (HashMap<SandboxStatus, i64>, i64) {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut by_status = HashMap::new();
        let mut idle = 0;
        for sandbox in entries.values() {
            let Some(info) = sandbox.view.borrow().info.clone() else { continue };
            *by_status.entry(info.status).or_insert(0) += 1;
            let due = info.status == SandboxStatus::Running && !info.keep_alive;
            idle += i64::from(due && sandbox.activity.idle_for(info.sleep_after.0));
        }
        (by_status, idle)
    }

    /// Removes an entry whose owner is about to end. Not if a message is waiting: then the owner goes on.
    fn retire(&self, key: &Key, inbox: &mpsc::Receiver<Message>) -> bool {
        // Under the lock, because messages to an owner without a sandbox are sent under it.
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if !inbox.is_empty() {
            return false;
        }
        entries.remove(key);
        true
    }
}

/// The owner ended without an answer: only a panic in it does that.
fn owner_gone(id: &SandboxId) -> ApiError {
    crate::http::internal("ensureSandbox", &OwnerGone(id.clone()))
}

#[derive(Debug, thiserror::Error)]
#[error("the owner of sandbox {0} ended without an answer")]
struct OwnerGone(SandboxId);

/// There is no such sandbox in this account.
pub(crate) fn not_found(id: &SandboxId) -> ApiError {
    ApiError::new(ErrorCode::SandboxNotFound, format!("there is no sandbox {id}"))
        .with("sandboxId", id.as_str())
}

/// An event that needs no detail.
fn event(kind: &'static str, actor: &'static str, reason: impl Into<String>) -> NewEvent {
    NewEvent { kind, actor, reason: reason.into(), detail: serde_json::Value::Null }
}
