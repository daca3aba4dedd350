//! All processes of a sandbox that can still be asked about, by id. What is kept is bounded (attack E07): past the bounds
//! the oldest of the ended lose their logs first, and then are forgotten.

use super::process::Process;
use super::run::Launch;
use super::supervise;
use crate::session::registry::Sessions;
use crate::session::task::Context;
use futures_util::future::join_all;
use rustix::process::Signal;
use sandcrab_api::limits::{
    MAX_ALL_PROCESS_WAITERS, MAX_ENDED_PROCESSES, MAX_PROCESSES, PROCESS_KILL_GRACE_MS,
    PROCESS_RETENTION_SECS,
};
use sandcrab_api::process::{Restart, StartProcess};
use sandcrab_api::{ApiError, ErrorCode, ProcessId, SessionId, validate};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// How long an ended process is known if it cleans up after itself.
const KEEP: Duration = Duration::from_secs(PROCESS_RETENTION_SECS);
/// Bytes of text (commands, stdin) that all processes may hold together.
const MAX_TEXTS: usize = 32 << 20;
/// Bytes of memory and of the sandbox's disk that the logs of ended processes may hold. The newest may exceed each alone.
const MAX_LOG_MEMORY: usize = 4 << 20;
const MAX_LOG_DISK: u64 = 256 << 20;
/// How long a kill may take beyond the grace: longer means that something hangs in the kernel.
const KILLED_WITHIN: Duration = Duration::from_millis(PROCESS_KILL_GRACE_MS + 15_000);

/// The registry.
#[derive(Debug)]
pub(crate) struct Processes {
    inner: Mutex<Inner>,
    /// Room for those who follow or wait.
    waiters: Arc<Semaphore>,
    /// One more has ended.
    some_ended: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<ProcessId, Arc<Process>>,
    last: u64,
}

impl Inner {
    fn by_age(&self, which: impl Fn(&Process) -> bool) -> Vec<Arc<Process>> {
        let mut all: Vec<_> = self.by_id.values().filter(|process| which(process)).cloned().collect();
        all.sort_by_key(|process| process.serial);
        all
    }

    fn forget(&mut self, process: &Arc<Process>) {
        if self.by_id.get(&process.id).is_some_and(|known| Arc::ptr_eq(known, process)) {
            self.by_id.remove(&process.id);
        }
    }

    /// Lets ended processes go whose time is over, or for which there is no room.
    fn expire(&mut self) {
        let mut ended = self.by_age(|process| process.over_since().is_some());
        ended.sort_by_key(|process| process.over_since());
        let crowd = ended.len().saturating_sub(MAX_ENDED_PROCESSES);
        let (mut memory, mut disk) = (0, 0);
        for (younger, process) in ended.iter().enumerate().rev() {
            let old = process.auto_cleanup && process.over_since().is_some_and(|at| at.elapsed() >= KEEP);
            if old || younger < crowd {
                self.forget(process);
                continue;
            }
            let held = process.log.held();
            (memory, disk) = (memory + held.0, disk + held.1);
            if younger + 1 < ended.len() && (memory > MAX_LOG_MEMORY || disk > MAX_LOG_DISK) {
                process.log.forget();
                (memory, disk) = (memory - held.0, disk - held.1);
            }
        }
    }
}

impl Default for Processes {
    fn default() -> Self {
        let waiters = Arc::new(Semaphore::new(MAX_ALL_PROCESS_WAITERS));
        Self { inner: Mutex::default(), waiters, some_ended: Notify::new() }
    }
}

/// The signals whose delivery is a request to end; any other is only sent.
fn ends(signal: Signal) -> bool {
    [Signal::TERM, Signal::INT, Signal::QUIT, Signal::ABORT, Signal::KILL].contains(&signal)
}

pub(super) fn not_found(id: &ProcessId, how: &str) -> ApiError {
    ApiError::new(ErrorCode::ProcessNotFound, format!("process {id:?} not found: it {how}"))
        .with("processId", id.as_str())
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process; it runs when this returns (contract P01).
    ///
    /// # Errors
    /// `PROCESS_ALREADY_EXISTS`, `QUOTA_EXCEEDED`; `FILE_NOT_FOUND` and the like when its directory cannot be entered.
    pub(crate) async fn start(
        self: &Arc<Self>,
        context: &Arc<Context>,
        sessions: &Sessions,
        request: StartProcess,
    ) -> Result<Arc<Process>, ApiError> {
        validate::start_process(&request)?;
        let session = request.session_id.clone().unwrap_or_else(SessionId::default_session);
        let process = self.enter(context, &request)?;
        let begun = async {
            sessions.enter(request.session_id.as_ref())?;
            let point = sessions.start_point(Some(&session)).await?;
            let deadline = request.timeout.map(|ms| Instant::now() + Duration::from_millis(ms));
            let restarts = request.restart == Restart::Always;
            let launch = Launch::new(context, request, point).map_err(super::run::RunError::into_api)?;
            let run = launch.start(context).map_err(super::run::RunError::into_api)?;
            let begun = supervise::begin(&process, run).await;
            Ok((restarts.then_some(launch), begun, deadline))
        };
        let (launch, begun, deadline) = match begun.await {
            Ok(begun) => begun,
            Err(error) => {
                self.lock().forget(&process);
                return Err(error);
            }
        };
        let (this, context, owned) = (Arc::clone(self), Arc::clone(context), Arc::clone(&process));
        tokio::spawn(async move {
            let task = supervise::supervise(&context, &owned, launch, begun, deadline);
            if crate::faults::panics(task).await {
                supervise::give_up(&context, &owned).await;
            }
            this.lock().expire();
            this.some_ended.notify_one();
        });
        Ok(process)
    }

    /// Takes the id and the room.
    fn enter(&self, context: &Context, request: &StartProcess) -> Result<Arc<Process>, ApiError> {
        let mut inner = self.lock();
        inner.expire();
        let id = request.process_id.clone().map_or_else(random_id, Ok)?;
        if inner.by_id.contains_key(&id) {
            let message = format!("there is a process {id:?} already");
            return Err(
                ApiError::new(ErrorCode::ProcessAlreadyExists, message).with("processId", id.as_str())
            );
        }
        let alive = inner.by_id.values().filter(|process| process.over_since().is_none()).count();
        let quota = |limit: usize, value: usize, scope: &str, what: &str| {
            let message = format!("the sandbox's processes have {value} {what}; {limit} are the most");
            let error = ApiError::new(ErrorCode::QuotaExceeded, message);
            error.with("limit", limit).with("value", value).with("scope", scope)
        };
        if alive >= MAX_PROCESSES {
            return Err(quota(MAX_PROCESSES, alive, "processes", "members that run")
                .suggest("Kill processes that are not needed."));
        }
        inner.last += 1;
        let process = Arc::new(Process::new(
            id.clone(),
            request,
            &context.spool,
            inner.last,
            Arc::clone(&self.waiters),
        ));
        let texts: usize = inner.by_id.values().map(|process| process.weight).sum::<usize>() + process.weight;
        let most = MAX_TEXTS.min(context.room.total() / 2);
        if texts > most {
            return Err(quota(most, texts, "processTexts", "bytes of commands and stdin")
                .suggest("Write long texts to files, or clean up completed processes."));
        }
        inner.by_id.insert(id, Arc::clone(&process));
        Ok(process)
    }

    /// The process with this id.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`.
    pub(crate) fn get(&self, id: &ProcessId) -> Result<Arc<Process>, ApiError> {
        let mut inner = self.lock();
        inner.expire();
        inner.by_id.get(id).cloned().ok_or_else(|| not_found(id, "is not known"))
    }

    /// All processes by age.
    pub(crate) fn list(&self) -> Vec<Arc<Process>> {
        let mut inner = self.lock();
        inner.expire();
        inner.by_age(|_| true)
    }

    /// Forgets every process that is over; says how many.
    pub(crate) fn clean_up(&self) -> usize {
        let mut inner = self.lock();
        let over = inner.by_age(|process| process.over_since().is_some());
        over.iter().for_each(|process| inner.forget(process));
        over.len()
    }

    /// Sends a signal to a process with all that it started. One that asks it to end is followed by SIGKILL after the
    /// grace; then this returns when none of it is left (contract P02).
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND` if it is over; `PROCESS_ERROR` if it does not end.
    pub(crate) async fn kill(&self, process: &Process, signal: Signal) -> Result<(), ApiError> {
        let failed = |why: String| {
            let message = format!("process {:?} could not be signalled: {why}", process.id);
            ApiError::new(ErrorCode::ProcessError, message).with("processId", process.id.as_str())
        };
        let left = process.group().is_some_and(|group| !group.is_empty().unwrap_or(false));
        if process.has_ended() && !left {
            return Err(not_found(&process.id, "has ended"));
        }
        if !ends(signal) {
            let Some(group) = process.group() else { return Ok(()) };
            return group.signal(signal).await.map_err(|error| failed(error.to_string()));
        }
        process.ask_to_end(signal);
        let gone = tokio::time::timeout(KILLED_WITHIN, process.gone()).await;
        gone.map_err(|_| failed(format!("something of it is left after {} s", KILLED_WITHIN.as_secs())))
    }

    /// Ends every process, with what ended ones left behind; says how many there were.
    ///
    /// # Errors
    /// `PROCESS_ERROR` if one of them does not end.
    pub(crate) async fn kill_all(&self, signal: Signal) -> Result<usize, ApiError> {
        let alive = self.lock().by_age(|process| process.over_since().is_none());
        let killed = join_all(alive.iter().map(|process| self.kill(process, signal))).await;
        for outcome in &killed {
            // One that has ended meanwhile is as it should be.
            if let Err(error) = outcome
                && error.code != ErrorCode::ProcessNotFound
            {
                return Err(error.clone());
            }
        }
        Ok(alive.len())
    }

    /// Lets ended processes go when their time is over; runs as long as the agent.
    pub(crate) async fn expire_in_time(&self) {
        loop {
            let oldest = {
                let mut inner = self.lock();
                inner.expire();
                inner
                    .by_id
                    .values()
                    .filter(|process| process.auto_cleanup)
                    .filter_map(|p| p.over_since())
                    .min()
            };
            match oldest {
                Some(at) => tokio::time::sleep_until((at + KEEP).into()).await,
                None => self.some_ended.notified().await,
            }
        }
    }
}

fn random_id() -> Result<ProcessId, ApiError> {
    // Cannot fail: the text keeps the rule of ids.
    ProcessId::parse(&format!("proc-{:016x}", rand::random::<u64>()))
        .map_err(|error| ApiError::invalid("processId", error.to_string()))
}
