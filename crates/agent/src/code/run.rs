//! One run of code: where it stands, what it has written and shown, who waits for it.
//!
//! ```text
//! queued ──start──▶ running ──end──▶ finished ──(5 minutes)──▶ forgotten
//!    └───────────────end──────────────▲
//! ```
//!
//! The context's task writes it; any number of requests read it. None of them owns it, so a lost connection ends nothing.

use super::journal::{Journal, Kind, Record};
use crate::exec::spool::SpoolDir;
use crate::fingerprint::Fingerprint;
use crate::news::until;
use crate::room::Held;
use sandcrab_api::code::{RunCodeRequest, RunInfo, RunOutcome};
use sandcrab_api::exec::Truncated;
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ContextId, RunId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) enum Finish {
    /// With a result, which may be an error of the code's own.
    Outcome(Box<RunOutcome>),
    /// With an error: it could not be run, or somebody did not want it any more.
    Failed(Box<ApiError>),
}

/// Who wants a run to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    Cancelled,
    ContextDeleted,
}

#[derive(Debug)]
enum State {
    Queued,
    Running { started: Timestamp },
    Finished { started: Option<Timestamp>, at: Instant, finish: Finish },
}

#[derive(Debug)]
struct Inner {
    state: State,
    stop: Option<StopReason>,
    journal: Journal,
    /// What it holds of the agent's memory until it has ended; what ended runs hold is bounded where they are kept.
    room: Option<Held>,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) context: ContextId,
    pub(crate) request: RunCodeRequest,
    pub(super) fingerprint: Fingerprint,
    inner: Mutex<Inner>,
    /// More to read, or another state.
    news: Notify,
    /// Somebody wants it to end.
    stopped: Notify,
}

impl Run {
    pub(crate) fn new(
        id: RunId,
        context: ContextId,
        request: RunCodeRequest,
        dir: &Arc<SpoolDir>,
        room: Option<Held>,
    ) -> Arc<Self> {
        let inner = Inner { state: State::Queued, stop: None, journal: Journal::new(Arc::clone(dir)), room };
        let (news, stopped) = (Notify::new(), Notify::new());
        let (fingerprint, inner) = (Fingerprint::of_run(&request), Mutex::new(inner));
        Arc::new(Self { id, context, request, fingerprint, inner, news, stopped })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the queue. False if it has ended while it waited.
    pub(crate) fn start(&self) -> bool {
        let mut inner = self.lock();
        if !matches!(inner.state, State::Queued) {
            return false;
        }
        inner.state = State::Running { started: Timestamp::now() };
        drop(inner);
        self.news.notify_waiters();
        true
    }

    /// Ends it, if it has not ended yet; says whether it did. Only the registry ends runs: it counts the ended.
    pub(super) fn end_with(&self, finish: Finish) -> bool {
        let mut inner = self.lock();
        let started = match inner.state {
            State::Queued => None,
            State::Running { started } => Some(started),
            State::Finished { .. } => return false,
        };
        inner.state = State::Finished { started, at: Instant::now(), finish };
        inner.room = None;
        drop(inner);
        self.news.notify_waiters();
        true
    }

    /// Whether it still waits for earlier runs of its context.
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.lock().state, State::Queued)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.lock().state, State::Finished { .. })
    }

    pub(super) fn request_stop(&self, reason: StopReason) {
        self.lock().stop.get_or_insert(reason);
        self.stopped.notify_waiters();
    }

    /// Resolves when its end is asked for.
    pub(crate) async fn stop_requested(&self) -> StopReason {
        until(&self.stopped, || self.lock().stop).await
    }

    /// Takes what the code wrote or showed.
    pub(crate) fn append(&self, kind: Kind, content: &[u8]) {
        self.lock().journal.append(kind, content);
        self.news.notify_waiters();
    }

    /// What of its output was dropped: of the streams, and how many results.
    pub(crate) fn dropped(&self) -> (Option<Truncated>, Option<u64>) {
        let inner = self.lock();
        let [stdout, stderr, results] = inner.journal.dropped();
        let reason = inner.journal.reason().filter(|_| stdout > 0 || stderr > 0);
        let some = |count: u64| (count > 0).then_some(count);
        let truncated = Truncated { stdout: some(stdout), stderr: some(stderr), reason };
        ((truncated != Truncated::default()).then_some(truncated), some(results))
    }

    /// Resolves at its end.
    pub(crate) async fn finished(&self) -> Finish {
        let finish = || match &self.lock().state {
            State::Finished { finish, .. } => Some(finish.clone()),
            _ => None,
        };
        until(&self.news, finish).await
    }

    /// Since when it has been finished.
    pub(crate) fn finished_at(&self) -> Option<Instant> {
        match self.lock().state {
            State::Finished { at, .. } => Some(at),
            _ => None,
        }
    }

    /// When it left the queue.
    pub(crate) fn started(&self) -> Option<Timestamp> {
        match self.lock().state {
            State::Queued => None,
            State::Running { started } => Some(started),
            State::Finished { started, .. } => started,
        }
    }

    /// Waits until it has left the queue, and says when it started; none if it never will.
    pub(crate) async fn left_queue(&self) -> Option<Timestamp> {
        until(&self.news, || (!self.is_queued()).then(|| self.started())).await
    }

    /// The record at a position.
    pub(crate) fn read(&self, at: u64) -> std::io::Result<Option<Record>> {
        self.lock().journal.read(at)
    }

    /// Waits for the record at a position, or the run's end.
    pub(crate) async fn next(&self, at: u64) -> std::io::Result<Result<Record, Finish>> {
        until(&self.news, || self.try_next(at).transpose()).await
    }

    fn try_next(&self, at: u64) -> std::io::Result<Option<Result<Record, Finish>>> {
        let inner = self.lock();
        if let Some(record) = inner.journal.read(at)? {
            return Ok(Some(Ok(record)));
        }
        // Nothing is appended after the end.
        Ok(match &inner.state {
            State::Finished { finish, .. } => Some(Err(finish.clone())),
            _ => None,
        })
    }

    /// Bytes that it has written and shown.
    pub(crate) fn length(&self) -> u64 {
        self.lock().journal.length()
    }

    /// Bytes of memory and of disk that it holds.
    pub(super) fn held(&self) -> (u64, u64) {
        let (memory, disk) = self.lock().journal.held();
        (memory + self.request.code.len() as u64, disk)
    }

    /// Where it stands, for a caller.
    pub(crate) fn info(&self) -> RunInfo {
        let inner = self.lock();
        let (finished, outcome) = match &inner.state {
            State::Finished { finish: Finish::Outcome(outcome), .. } => (true, Some((**outcome).clone())),
            State::Finished { .. } => (true, None),
            _ => (false, None),
        };
        RunInfo { run_id: self.id.clone(), context_id: self.context.clone(), finished, outcome }
    }
}
