//! One process: where it stands, who waits for it, how it ends.
//!
//! ```text
//!             ┌────────── restart: "always" ───────────┐
//!             ▼                                        │
//! starting ──run──▶ running ──exit──▶ completed (0) or failed ──(5 minutes)──▶ forgotten
//!    │                 ├──kill, timeout──▶ killed
//!    └──cannot run──▶ error
//! ```
//!
//! Its task (supervise.rs) writes it; any number of requests read it. None of them owns it, so a lost connection kills
//! nothing (contract P01).

use super::log::Log;
use crate::exec::spool::SpoolDir;
use crate::news::until;
use crate::spawn::Group;
use crate::stdin::Stdin;
use rustix::process::Signal;
use sandcrab_api::exec::Oom;
use sandcrab_api::limits::{DEFAULT_MAX_LOG_BYTES, MAX_ALL_PROCESS_WAITERS, MAX_PROCESS_WAITERS};
use sandcrab_api::process::{ProcessExit, ProcessInfo, ProcessStatus, Restart, StartProcess};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode, ProcessId, SessionId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) command: String,
    session_id: Option<SessionId>,
    pub(super) restart: Restart,
    pub(super) auto_cleanup: bool,
    /// Order of age.
    pub(super) serial: u64,
    /// Bytes of text that it holds.
    pub(super) weight: usize,
    pub(crate) log: Arc<Log>,
    /// Where it takes what is written to it while it runs; none if it is not interactive.
    pub(super) stdin: Option<Stdin>,
    inner: Mutex<Inner>,
    /// Another state.
    news: Notify,
    /// Somebody wants it ended, or ended harder.
    asked: Notify,
    /// Room for those who follow or wait: for this process, and for all of them.
    waiters: [Arc<Semaphore>; 2],
}

#[derive(Debug)]
struct Inner {
    status: ProcessStatus,
    pid: Option<u32>,
    started: Timestamp,
    ended: Option<(Timestamp, Instant)>,
    exit_code: Option<i32>,
    timed_out: bool,
    oom: Option<Oom>,
    error: Option<Box<ApiError>>,
    restarts: u64,
    /// The signal that it is to end by.
    wanted: Option<Signal>,
    /// What it started, as long as anything of it may be left.
    group: Option<Arc<Group>>,
}

/// How a process ended for good.
#[derive(Debug)]
pub(super) struct End {
    pub(super) status: ProcessStatus,
    pub(super) exit_code: Option<i32>,
    pub(super) timed_out: bool,
    pub(super) oom: Option<Oom>,
    pub(super) error: Option<Box<ApiError>>,
}

/// Somebody who follows or waits; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter(#[expect(dead_code, reason = "counts by being there")] [OwnedSemaphorePermit; 2]);

impl Process {
    pub(super) fn new(
        id: ProcessId,
        request: &StartProcess,
        dir: &Arc<SpoolDir>,
        serial: u64,
        all_waiters: Arc<Semaphore>,
    ) -> Self {
        let kept = if request.restart == Restart::Always { 2 } else { 1 };
        Self {
            id,
            command: request.command.clone(),
            session_id: request.session_id.clone(),
            restart: request.restart,
            auto_cleanup: request.auto_cleanup.unwrap_or(true),
            serial,
            weight: request.command.len() * kept + request.stdin.as_ref().map_or(0, String::len),
            log: Arc::new(Log::new(dir, request.max_log_bytes.unwrap_or(DEFAULT_MAX_LOG_BYTES))),
            stdin: request.interactive.then(Stdin::new),
            inner: Mutex::new(Inner {
                status: ProcessStatus::Starting,
                pid: None,
                started: Timestamp::now(),
                ended: None,
                exit_code: None,
                timed_out: false,
                oom: None,
                error: None,
                restarts: 0,
                wanted: None,
                group: None,
            }),
            news: Notify::new(),
            asked: Notify::new(),
            waiters: [Arc::new(Semaphore::new(MAX_PROCESS_WAITERS)), all_waiters],
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It runs.
    pub(super) fn runs(&self, pid: u32, group: Arc<Group>) {
        let mut inner = self.lock();
        inner.status = ProcessStatus::Running;
        inner.pid = Some(pid);
        inner.started = Timestamp::now();
        inner.group = Some(group);
        drop(inner);
        self.news.notify_waiters();
    }

    /// A run is over, and another one is to follow.
    pub(super) fn restarts(&self) {
        let mut inner = self.lock();
        inner.status = ProcessStatus::Starting;
        inner.restarts += 1;
        inner.group = None;
        drop(inner);
        self.news.notify_waiters();
    }

    /// It has ended for good; `left` says whether something that it started may be left.
    pub(super) fn ends(&self, end: End, left: bool) {
        self.log.end();
        let mut inner = self.lock();
        inner.status = end.status;
        inner.exit_code = end.exit_code;
        inner.timed_out = end.timed_out;
        inner.oom = end.oom;
        inner.error = end.error;
        inner.ended = Some((Timestamp::now(), Instant::now()));
        if !left {
            inner.group = None;
        }
        drop(inner);
        self.news.notify_waiters();
    }

    /// Nothing that it started is left.
    pub(super) fn is_gone(&self) {
        self.lock().group = None;
        self.news.notify_waiters();
    }

    /// What it started and may be left.
    pub(super) fn group(&self) -> Option<Arc<Group>> {
        self.lock().group.clone()
    }

    /// Asks its task to end it; a later SIGKILL cuts short what an earlier signal allows.
    pub(super) fn ask_to_end(&self, signal: Signal) {
        let mut inner = self.lock();
        if inner.wanted.is_none() || signal == Signal::KILL {
            inner.wanted = Some(signal);
        }
        drop(inner);
        self.asked.notify_waiters();
    }

    /// Resolves when its end is asked for; with `only`, when it is asked for by that signal.
    pub(super) async fn asked_to_end(&self, only: Option<Signal>) -> Signal {
        let wanted = || self.lock().wanted.filter(|signal| only.is_none_or(|only| only == *signal));
        until(&self.asked, wanted).await
    }

    /// Waits until `look` finds something in its state.
    async fn when<T>(&self, look: impl Fn(&Inner) -> Option<T>) -> T {
        until(&self.news, || look(&self.lock())).await
    }

    /// Resolves when it has ended and nothing that it started is left.
    pub(super) async fn gone(&self) {
        self.when(|inner| (inner.ended.is_some() && inner.group.is_none()).then_some(())).await;
    }

    /// Resolves at its end.
    pub(super) async fn ended(&self) -> Result<ProcessExit, ApiError> {
        self.when(|inner| inner.ended.map(|_| exit_of(inner))).await
    }

    /// Resolves when it has ended so that nothing can be expected of it any more: what it left behind in the background
    /// after a success may still become ready.
    pub(super) async fn given_up(&self) -> Result<ProcessExit, ApiError> {
        let failed = |inner: &Inner| inner.group.is_none() || inner.status != ProcessStatus::Completed;
        self.when(|inner| inner.ended.filter(|_| failed(inner)).map(|_| exit_of(inner))).await
    }

    /// How it ended, if it did.
    pub(super) fn exit(&self) -> Option<(Timestamp, Result<ProcessExit, ApiError>)> {
        let inner = self.lock();
        inner.ended.map(|(at, _)| (at, exit_of(&inner)))
    }

    /// Since when it has been over; none while it runs, or something that it started does.
    pub(super) fn over_since(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.ended.filter(|_| inner.group.is_none()).map(|(_, at)| at)
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// Enters one more who follows or waits.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`.
    pub(super) fn waiter(&self) -> Result<Waiter, ApiError> {
        let [own, all] = self.waiters.each_ref().map(|room| Arc::clone(room).try_acquire_owned());
        let limit = match (own, all) {
            (Ok(own), Ok(all)) => return Ok(Waiter([own, all])),
            (Err(_), _) => MAX_PROCESS_WAITERS,
            (Ok(_), Err(_)) => MAX_ALL_PROCESS_WAITERS,
        };
        let message =
            format!("{limit} requests already follow or wait for process {:?} or for all of them", self.id);
        Err(ApiError::new(ErrorCode::QuotaExceeded, message)
            .with("limit", limit)
            .with("value", limit)
            .with("scope", "processWaiters")
            .with("processId", self.id.as_str()))
    }

    /// It as it stands now.
    pub(crate) fn info(&self) -> ProcessInfo {
        let [stdout_bytes, stderr_bytes] = self.log.written();
        let inner = self.lock();
        ProcessInfo {
            id: self.id.clone(),
            pid: inner.pid,
            command: self.command.clone(),
            status: inner.status,
            start_time: inner.started,
            end_time: inner.ended.map(|(at, _)| at),
            exit_code: inner.exit_code,
            session_id: self.session_id.clone(),
            timed_out: inner.timed_out,
            oom: inner.oom,
            error: inner.error.as_ref().map(|error| error.message.clone()),
            restart: self.restart,
            restarts: inner.restarts,
            stdout_bytes,
            stderr_bytes,
        }
    }
}

fn exit_of(inner: &Inner) -> Result<ProcessExit, ApiError> {
    match (inner.exit_code, &inner.error) {
        (Some(exit_code), _) => Ok(ProcessExit { exit_code, status: inner.status }),
        (None, Some(error)) => Err((**error).clone()),
        (None, None) => Err(ApiError::new(ErrorCode::ProcessError, "the process ended without an exit code")),
    }
}
