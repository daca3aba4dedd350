//! The task that owns one sandbox's state.
//!
//! ```text
//!               use, put              made
//!   Absent ------------------> Making ------> Running <------------.
//!     ^ ^                       |  |             |                  |
//!     | '--- undone (failed) ---'  |             | agent ended      | started
//!     |                            |             v        use       |
//!     |                            |          Stopped ---------> Starting
//!     |                            |           ^ |  ^               | |
//!     |                            |           | |  '---- failed ---' |
//!     |                            v           | v                    v
//!     '----- gone ------------- Destroying <---+--------- destroy, from everywhere
//!                                  |  ^
//!                          failed  v  | use, put, destroy
//!                                Condemned
//! ```
//!
//! One that a caller stops is Stopping on its way from Running to Stopped. A sandbox that cannot be used as it was found at a start is Quarantined: it stays until it is destroyed.
//!
//! Making, Starting, Stopping and Destroying hold the future that does the work; the task polls it beside its inbox, so that a
//! sandbox can be destroyed while it is being made. Messages that a working state cannot answer are deferred and
//! handled, in order, in the state that follows: that is how concurrent first users share one start.
//!
//! The owner writes the store before it answers, with one exception: what is taken away is taken away first, and written
//! after, because a disk that is full must not keep what fills it. The owner ends when there is no sandbox and nobody waits for one.

use super::follow;
use super::options::Options;
use super::start::{self, Started};
use super::state::{Cause, DAMAGED, End, Failed, HELD, Identity, Message, Progress, Reply, State};
use super::{Activity, Context, Ending, Key, Live, Sandbox, Sandboxes, View, event, exit_text, not_found};
use crate::store::{NewEvent, SandboxRow, StoreError, StoredStatus};
use futures_util::FutureExt as _;
use sandcrab_api::exec::Oom;
use sandcrab_api::sandbox::{CreateSandbox, SandboxInfo};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use sandcrab_runtime::{Condition, Exit, InstanceId, Stats};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often a running sandbox's count of kills for want of memory is read. A kill of its commands in the last moments
/// before its agent is killed cannot be told from the agent's own.
const COUNT_KILLS: Duration = Duration::from_secs(5);
/// Messages that wait for an owner to look, and those that it puts off until its work is done.
const INBOX: usize = 1024;
const DEFERRED: usize = 256;
/// The most bytes of wishes that it puts off.
const DEFERRED_BYTES: usize = 4 << 20;
/// Between two attempts to end an agent that no longer answers.
const END_AGAIN: Duration = Duration::from_secs(10);
/// The signal by which the kernel kills for want of memory.
const KILL: i32 = rustix::process::Signal::KILL.as_raw();

struct Owner {
    key: Key,
    all: Sandboxes,
    context: Arc<Context>,
    inbox: mpsc::Receiver<Message>,
    /// For what the owner tells itself.
    own: mpsc::WeakSender<Message>,
    view: watch::Sender<View>,
    deferred: Vec<Message>,
}

/// Starts the owner of a sandbox that has this state, with its first message if there is one.
pub(super) fn spawn(all: &Sandboxes, key: Key, state: State, first: Option<Message>) -> Arc<Sandbox> {
    let (sender, inbox) = mpsc::channel(INBOX);
    let own = sender.downgrade();
    let (view, seen) = watch::channel(state.view(&key, &all.context.driver.not_enforced()));
    let sandbox = Sandbox { id: key.1.clone(), activity: Activity::default(), inbox: sender, view: seen };
    let deferred = first.into_iter().collect();
    let owner = Owner { key, all: all.clone(), context: all.context.clone(), inbox, own, view, deferred };
    let (all, key) = (all.clone(), owner.key.clone());
    tokio::spawn(async move {
        // What it worked on is dropped with it; nothing of that is used again.
        if AssertUnwindSafe(owner.run(state)).catch_unwind().await.is_err() {
            super::reconcile::recover(&all, &key).await;
        }
    });
    Arc::new(sandbox)
}

/// The state of a sandbox whose agent runs: until it ends, what it tells of is written into the log.
fn running(
    context: &Arc<Context>,
    key: &Key,
    own: &mpsc::WeakSender<Message>,
    it: Identity,
    started: Started,
) -> State {
    let Started { live, limits, mut kills } = started;
    let own = own.clone();
    let (context, key, agent) = (context.clone(), key.clone(), live.clone());
    let exit = async move {
        let count_kills = async {
            loop {
                tokio::time::sleep(COUNT_KILLS).await;
                kills = start::kills(&context, &agent.instance).await;
            }
        };
        let follow = async {
            match agent.hello.features.iter().any(|feature| feature == follow::FEATURE) {
                true => follow::follow(&context, &key, &agent).await,
                false => std::future::pending().await,
            }
        };
        // In this order: what is counted when the agent has ended may be its own end.
        let exit = tokio::select! {
            biased;
            exit = context.driver.wait_exit(&agent.instance) => exit,
            never = count_kills => never,
            never = follow => match never {},
            never = end_silent(&context, &key, &agent) => match never {},
            never = watch_condition(&context, &own, &agent) => match never {},
        };
        End { exit, kills_before: kills }
    };
    let it = Identity { limits, condition: Condition::Sound, failed: None, ..it };
    State::Running { it, live, exit: Box::pin(exit) }
}

/// Tells the owner how its instance fares, whenever that changes.
async fn watch_condition(context: &Context, own: &mpsc::WeakSender<Message>, agent: &Live) -> Infallible {
    let mut told = Condition::Sound;
    if let Ok(mut condition) = context.driver.condition(&agent.instance) {
        // It ends with the instance.
        while let Ok(now) = condition.wait_for(|now| *now != told).await.map(|now| *now) {
            told = now;
            agent.pool.pulse().hold(now == Condition::Held);
            let Some(own) = own.upgrade() else { break };
            let _owner_ended = own.send(Message::Fares(agent.instance.clone(), now)).await;
        }
    }
    std::future::pending().await
}

/// Ends an agent that no longer answers, with all of its sandbox but the files: then it has ended like any other.
async fn end_silent(context: &Context, key: &Key, agent: &Live) -> Infallible {
    let why = agent.pool.lost().await;
    tracing::warn!(sandbox = %key.1, why, "an agent no longer answers, and is ended");
    loop {
        if let Err(error) = context.driver.stop(&agent.instance).await {
            tracing::error!(sandbox = %key.1, error = crate::chain(&error), "an agent that does not answer could not be ended");
        }
        tokio::time::sleep(END_AGAIN).await;
    }
}

impl Owner {
    async fn run(mut self, mut state: State) {
        state = self.resume(state).await;
        loop {
            if matches!(state, State::Absent) && self.all.retire(&self.key, &self.inbox) {
                return;
            }
            let progress = tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => {
                        state = self.handle(state, message).await;
                        self.publish(&state);
                        continue;
                    }
                    // The entry holds a sender for as long as the owner has not retired.
                    None => return,
                },
                progress = state.progress() => progress,
            };
            state = self.advance(state, progress).await;
            state = self.resume(state).await;
        }
    }

    /// Enters a state: publishes it and handles what waited for it.
    async fn resume(&mut self, mut state: State) -> State {
        self.publish(&state);
        for message in std::mem::take(&mut self.deferred) {
            state = self.handle(state, message).await;
        }
        self.publish(&state);
        state
    }

    fn publish(&self, state: &State) {
        self.view.send_replace(state.view(&self.key, &self.context.driver.not_enforced()));
    }

    async fn handle(&mut self, state: State, message: Message) -> State {
        match (state, message) {
            (State::Running { mut it, live, exit }, Message::Fares(instance, condition))
                if it.instance == instance =>
            {
                self.note_condition(&mut it, condition).await;
                State::Running { it, live, exit }
            }
            // Of an agent that has ended since.
            (state, Message::Fares(..)) => state,
            (State::Quarantined { it, why }, message) => match message {
                Message::Destroy(reply) => self.destroy(it, vec![reply]).await,
                message => {
                    message.fail(quarantined(&self.key, &why));
                    State::Quarantined { it, why }
                }
            },
            (State::Running { it, live, exit }, message @ (Message::Ensure(_) | Message::Wake(_)))
                if it.condition == Condition::Held =>
            {
                message.fail(held(&self.key));
                State::Running { it, live, exit }
            }
            (State::Absent, message @ (Message::Destroy(_) | Message::Stop(..) | Message::Wake(_))) => {
                message.fail(not_found(&self.key.1));
                State::Absent
            }
            (State::Absent, message) => self.make(message),

            (State::Running { it, live, exit }, Message::Ensure(reply) | Message::Wake(reply)) => {
                let _gone = reply.send(Ok(live.clone()));
                State::Running { it, live, exit }
            }
            (State::Stopped { it, ending }, message @ (Message::Ensure(_) | Message::Wake(_))) => {
                if let Some(error) = it.failed.as_ref().and_then(Failed::too_early) {
                    message.fail(error);
                    return State::Stopped { it, ending };
                }
                self.defer(message);
                self.start(it, ending)
            }
            (State::Running { mut it, live, exit }, Message::Put(wanted, reply)) => {
                let applied = self.apply(&mut it, *wanted).await;
                let state = State::Running { it, live, exit };
                self.answer_put(&state, applied, reply);
                state
            }
            (State::Stopped { mut it, ending }, Message::Put(wanted, reply)) => {
                let applied = self.apply(&mut it, *wanted).await;
                let state = State::Stopped { it, ending };
                self.answer_put(&state, applied, reply);
                state
            }

            (State::Destroying { it, work, mut waiting }, Message::Destroy(reply)) => {
                waiting.push(reply);
                State::Destroying { it, work, waiting }
            }
            (State::Condemned { it }, Message::Destroy(reply)) => self.destroy(it, vec![reply]).await,
            // What could not be taken away is tried again before the id is used for something new.
            (State::Condemned { it }, message) => {
                self.defer(message);
                self.destroy(it, Vec::new()).await
            }
            (State::Making { it, work, first }, Message::Destroy(reply)) => {
                // The driver leaves nothing behind of a creation that is dropped; destroying makes sure.
                drop(work);
                first.fail(self.interrupted());
                self.interrupt_deferred();
                self.destroy(it, vec![reply]).await
            }
            (State::Starting { it, work, .. }, Message::Destroy(reply)) => {
                drop(work);
                self.interrupt_deferred();
                self.destroy(it, vec![reply]).await
            }
            (State::Running { it, .. } | State::Stopped { it, .. }, Message::Destroy(reply)) => {
                self.destroy(it, vec![reply]).await
            }
            (State::Stopping { it, waiting, .. }, Message::Destroy(reply)) => {
                // Both are over when it is gone.
                self.destroy(it, waiting.into_iter().chain([reply]).collect()).await
            }

            (State::Running { it, live, exit }, Message::Stop(signal, reply)) => {
                let work = Box::pin(start::stop(self.context.clone(), live.clone(), signal, exit));
                State::Stopping { it, live, work, waiting: vec![reply] }
            }
            (State::Stopping { it, live, work, mut waiting }, Message::Stop(_, reply)) => {
                waiting.push(reply);
                State::Stopping { it, live, work, waiting }
            }
            (State::Stopped { it, ending }, Message::Stop(_, reply)) => {
                let _gone = reply.send(Ok(()));
                State::Stopped { it, ending }
            }

            (
                State::Starting { it, ending, cause, work },
                message @ (Message::Ensure(_) | Message::Wake(_)),
            ) if self.is_held(&it) => {
                message.fail(held(&self.key));
                State::Starting { it, ending, cause, work }
            }
            (
                state @ (State::Making { .. }
                | State::Starting { .. }
                | State::Stopping { .. }
                | State::Destroying { .. }),
                message @ (Message::Ensure(_) | Message::Wake(_) | Message::Put(..) | Message::Stop(..)),
            ) => {
                self.defer(message);
                state
            }
        }
    }

    async fn advance(&mut self, state: State, progress: Progress) -> State {
        match (state, progress) {
            (State::Making { mut it, first, .. }, Progress::Started(Ok(started))) => {
                it.last_change = Timestamp::now();
                let state = running(&self.context, &self.key, &self.own, it, started);
                self.publish(&state);
                match first {
                    Message::Put(_, reply) => {
                        let info = self.view.borrow().info.clone();
                        if let Some(info) = info {
                            let _gone = reply.send(Ok((info, true)));
                        }
                        state
                    }
                    message => self.handle(state, message).await,
                }
            }
            (State::Making { it, first, .. }, Progress::Started(Err(error))) => {
                // Undone before anyone hears of the failure: then nothing is left of it (contract L01).
                let state = match start::undo(&self.context, &self.key, &it.instance).await {
                    Ok(()) => State::Absent,
                    Err(_logged) => State::Condemned { it },
                };
                self.publish(&state);
                first.fail(error.clone());
                self.fail_deferred(&error);
                state
            }
            (State::Starting { mut it, cause, .. }, Progress::Started(Ok(started))) => {
                match cause {
                    Cause::Used => {
                        it.last_change = Timestamp::now();
                        let what = event("started", "api", "used after it had stopped");
                        self.note(StoredStatus::Running, by_agent(what, &started.live)).await;
                    }
                    Cause::Found => {
                        let what =
                            by_agent(event("recovered", "server", "the server started"), &started.live);
                        let written = self.context.store.event(self.key.0, &self.key.1, what).await;
                        if let Err(error) = written {
                            log_unwritten(&self.key, &error);
                        }
                    }
                }
                running(&self.context, &self.key, &self.own, it, started)
            }
            (State::Starting { mut it, ending, cause, .. }, Progress::Started(Err(error))) => {
                tracing::warn!(sandbox = %self.key.1, %error, "a sandbox did not come up");
                // Where it is only room that is missing, the next use may find some.
                if cause == Cause::Used && error.code != ErrorCode::NoSpace {
                    let what = event("startFailed", "server", error.message.clone());
                    let written = self.context.store.event_once(self.key.0, &self.key.1, what).await;
                    if let Err(error) = written {
                        log_unwritten(&self.key, &error);
                    }
                    it.failed = Some(Failed::again(it.failed, error.clone()));
                }
                match cause {
                    Cause::Used => self.fail_deferred(&error),
                    // It ended as the server started. Nobody has asked for a start yet: who waits does so now.
                    Cause::Found => {}
                }
                State::Stopped { it, ending }
            }
            (State::Running { it, live, .. }, Progress::Ended(end)) => {
                self.ended(it, &live, end, false).await
            }
            (State::Stopping { it, live, waiting, .. }, Progress::Stopped(Ok(end))) => {
                let state = self.ended(it, &live, end, true).await;
                for reply in waiting {
                    let _gone = reply.send(Ok(()));
                }
                state
            }
            (State::Stopping { it, live, waiting, .. }, Progress::Stopped(Err((error, exit)))) => {
                let error = start::unstopped(&self.key.1, &error);
                for reply in waiting {
                    let _gone = reply.send(Err(error.clone()));
                }
                State::Running { it, live, exit }
            }
            (State::Destroying { waiting, .. }, Progress::Destroyed(Ok(()))) => {
                self.publish(&State::Absent);
                for reply in waiting {
                    let _gone = reply.send(Ok(()));
                }
                State::Absent
            }
            (State::Destroying { it, waiting, .. }, Progress::Destroyed(Err(error))) => {
                for reply in waiting {
                    let _gone = reply.send(Err(error.clone()));
                }
                self.fail_deferred(&error);
                State::Condemned { it }
            }
            // `progress` never resolves with another state's word.
            (state, _) => state,
        }
    }

    /// What follows the end of an agent. `asked`: a caller had it stopped.
    async fn ended(&self, mut it: Identity, live: &Live, end: End, asked: bool) -> State {
        let silent = live.pool.pulse().reason();
        let fares = self.context.driver.condition(&it.instance);
        let is_damaged = fares.is_ok_and(|fares| *fares.borrow() == Condition::Damaged);
        let ending = Ending { asked, ..self.ending(&it, end, asked || silent.is_some()).await };
        it.last_change = Timestamp::now();
        // Published before it is written: requests whose connection broke wait to hear of it.
        let state = State::Stopped { it, ending };
        self.publish(&state);
        live.pool.close();
        live.apps.close();
        let ended = format!("its agent ended: {}", exit_text(ending.exit));
        let mut what = match silent {
            _ if asked => event("stopped", "api", "asked for"),
            Some(why) => {
                event("unresponsive", "server", format!("its agent did not answer ({why}); it was ended"))
            }
            None if is_damaged => event("diskFailed", "server", DAMAGED),
            None if ending.oom.is_some() => event("oom", "kernel", ended),
            None => event("stopped", "agent", ended),
        };
        what.detail = serde_json::to_value(ending.oom).unwrap_or_default();
        self.note(StoredStatus::Stopped, what).await;
        state
    }

    fn make(&mut self, first: Message) -> State {
        let wanted = match &first {
            Message::Put(wanted, _) => (**wanted).clone(),
            _ => CreateSandbox::default(),
        };
        let options = Options::new(wanted);
        let now = Timestamp::now();
        let it = Identity {
            instance: InstanceId::random(),
            limits: options.limits.clone(),
            options,
            created_at: now,
            last_change: now,
            condition: Condition::Sound,
            failed: None,
        };
        let work = Box::pin(start::create(self.context.clone(), self.key.clone(), it.clone()));
        State::Making { it, work, first }
    }

    fn start(&mut self, it: Identity, ending: Ending) -> State {
        let work = Box::pin(start::start(self.context.clone(), self.key.clone(), it.instance.clone()));
        State::Starting { it, ending, cause: Cause::Used, work }
    }

    async fn destroy(&mut self, it: Identity, waiting: Vec<Reply<()>>) -> State {
        // Closed at once: whoever visits it gets nothing more, whatever can be written.
        self.context.ports.revoke(self.key.0, &self.key.1).await;
        // Written before the work: a server that is killed meanwhile must not take the rest for a sandbox. Where it
        // cannot be written the work makes the room.
        let marked =
            self.context.store.set_status(self.key.0, &self.key.1, StoredStatus::Destroying, None).await;
        if let Err(error) = marked {
            log_unwritten(&self.key, &error);
        }
        // Those that were exposed in between; the store takes no more now.
        self.context.ports.revoke(self.key.0, &self.key.1).await;
        let work = Box::pin(start::destroy(self.context.clone(), self.key.clone(), it.instance.clone()));
        State::Destroying { it, work, waiting }
    }

    /// Puts a message off until the work is done. Those who have gone are forgotten first; more than a fair number is
    /// refused.
    fn defer(&mut self, message: Message) {
        self.deferred.retain(|message| !message.is_abandoned());
        let size = |message: &Message| match message {
            Message::Put(wanted, _) => wanted_size(wanted),
            _ => 0,
        };
        let bytes: usize = self.deferred.iter().chain([&message]).map(size).sum();
        if self.deferred.len() < DEFERRED && bytes <= DEFERRED_BYTES {
            self.deferred.push(message);
        } else {
            message.fail(busy(&self.key.1));
        }
    }

    fn is_held(&self, it: &Identity) -> bool {
        let fares = self.context.driver.condition(&it.instance);
        fares.is_ok_and(|fares| *fares.borrow() == Condition::Held)
    }

    async fn note_condition(&self, it: &mut Identity, condition: Condition) {
        let before = std::mem::replace(&mut it.condition, condition);
        let what = match (before, condition) {
            (_, Condition::Held) => event("held", "server", HELD),
            (Condition::Held, Condition::Sound) => {
                event("released", "server", "there is room on the host's disk")
            }
            // Its end, which follows, has an event.
            (_, Condition::Sound | Condition::Damaged) => return,
        };
        if let Err(error) = self.context.store.event(self.key.0, &self.key.1, what).await {
            log_unwritten(&self.key, &error);
        }
    }

    async fn apply(&self, it: &mut Identity, wanted: CreateSandbox) -> Result<(), ApiError> {
        let mut options = it.options.clone();
        if options.apply(wanted, &self.key.1)? {
            let json = start::options_json(&options)?;
            let written = self.context.store.set_options(self.key.0, &self.key.1, json).await;
            written.map_err(|error| crate::http::internal("createSandbox", &error))?;
            it.options = options;
        }
        Ok(())
    }

    fn answer_put(
        &self,
        state: &State,
        applied: Result<(), ApiError>,
        reply: Reply<(Arc<SandboxInfo>, bool)>,
    ) {
        self.publish(state);
        let info = self.view.borrow().info.clone();
        let answer = applied.and_then(|()| info.ok_or_else(|| not_found(&self.key.1)));
        let _gone = reply.send(answer.map(|info| (info, false)));
    }

    /// How the agent ended, with what the driver can still say about its memory. `by_us`: the server itself ended it.
    async fn ending(&self, it: &Identity, end: End, by_us: bool) -> Ending {
        let exit = end.exit.unwrap_or_else(|error| {
            tracing::warn!(sandbox = %self.key.1, error = crate::chain(&error), "waiting for the agent's end failed");
            Exit::Unknown
        });
        let stats = match exit {
            _ if by_us => None,
            Exit::Signal(KILL) | Exit::Unknown => self.context.driver.stats(&it.instance).await.ok(),
            Exit::Signal(_) | Exit::Code(_) => None,
        };
        // The count is of the whole sandbox: a command that was killed long ago is not why the agent ended.
        let is_new = |stats: &Stats| stats.oom_kills.is_some_and(|kills| kills > end.kills_before);
        let oom = stats.filter(is_new).map(|stats| Oom {
            limit: it.limits.memory.map_or(0, |limit| limit.0),
            peak: stats.memory_peak.unwrap_or_default(),
        });
        Ending { exit, oom, silent: by_us, asked: false }
    }

    /// Writes what the outside already sees; a failure is logged, because the state is as it is.
    async fn note(&self, status: StoredStatus, what: NewEvent) {
        let written = self.context.store.set_status(self.key.0, &self.key.1, status, Some(what)).await;
        if let Err(error) = written {
            log_unwritten(&self.key, &error);
        }
    }

    fn fail_deferred(&mut self, error: &ApiError) {
        for message in self.deferred.drain(..) {
            message.fail(error.clone());
        }
    }

    fn interrupt_deferred(&mut self) {
        let error = self.interrupted();
        self.fail_deferred(&error);
    }

    fn interrupted(&self) -> ApiError {
        let id = &self.key.1;
        ApiError::new(
            ErrorCode::OperationInterrupted,
            format!("sandbox {id} was destroyed while it was being made"),
        )
        .with("sandboxId", id.as_str())
    }
}

/// About how much memory a wish takes.
fn wanted_size(wanted: &CreateSandbox) -> usize {
    let env =
        wanted.env.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |value| value.len()));
    let labels = wanted.labels.iter().flatten().map(|(name, value)| name.len() + value.len());
    env.chain(labels).sum()
}

/// For those who come while a sandbox is taken up again whose owner panicked.
pub(super) fn recovering(id: &SandboxId) -> ApiError {
    let message = format!("sandbox {id} is taken up again after a fault of the server");
    ApiError::new(ErrorCode::ResourceBusy, message).with("sandboxId", id.as_str()).retry_after(1)
}

/// More wait for a sandbox than should.
pub(super) fn busy(id: &SandboxId) -> ApiError {
    ApiError::new(
        ErrorCode::ResourceBusy,
        format!("too many requests wait for sandbox {id} to come up or to go"),
    )
    .with("sandboxId", id.as_str())
    .retry_after(1)
}

fn held(key: &Key) -> ApiError {
    ApiError::new(ErrorCode::NoSpace, format!("sandbox {}: {HELD}", key.1))
        .with("sandboxId", key.1.as_str())
        .suggest(
            "Make room on the disk of the server's data directory, for instance by destroying sandboxes.",
        )
}

fn quarantined(key: &Key, why: &str) -> ApiError {
    ApiError::new(ErrorCode::ContainerUnavailable, format!("sandbox {} cannot be used: {why}", key.1))
        .with("sandboxId", key.1.as_str())
        .suggest("Its files are kept. Repair what is named and restart the server, or destroy the sandbox.")
}

fn log_unwritten(key: &Key, error: &StoreError) {
    tracing::error!(sandbox = %key.1, error = crate::chain(error), "an event could not be written");
}

/// An event that says which release of the agent runs.
pub(super) fn by_agent(mut what: NewEvent, live: &Live) -> NewEvent {
    what.detail = serde_json::json!({ "agentVersion": &live.hello.version });
    what
}

/// The row of a sandbox that is about to be made.
pub(super) fn row(key: &Key, it: &Identity) -> Result<SandboxRow, ApiError> {
    Ok(SandboxRow {
        account: key.0,
        id: key.1.clone(),
        instance: it.instance.clone(),
        status: StoredStatus::Starting,
        options: start::options_json(&it.options)?,
        created_at: it.created_at,
        changed_at: it.created_at,
    })
}
