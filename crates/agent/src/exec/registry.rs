//! All commands that can still be asked about, by id.
//!
//! A finished one is kept for five minutes (contract S12). The number kept is bounded too, because a sandbox may run
//! thousands of commands a second: past the bound the oldest finished one goes first.

use super::execution::{Execution, Finish, StopReason};
use sandcrab_api::limits::EXEC_RETENTION_SECS;
use sandcrab_api::{ApiError, ErrorCode, ExecId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a finished command is kept.
const KEEP: Duration = Duration::from_secs(EXEC_RETENTION_SECS);
/// Finished commands that are kept at the most.
const MAX_FINISHED: usize = 1024;
/// Bytes of memory that finished commands may hold.
const MAX_FINISHED_BYTES: usize = 4 << 20;

/// Bytes of the sandbox's disk that their output may hold. The newest may exceed it alone.
const MAX_FINISHED_DISK: u64 = 256 << 20;

/// The registry.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    /// The first of the finished ones came.
    some_finished: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    memory: usize,
    disk: u64,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<ExecId, Arc<Execution>>,
    /// Finished ones by age, with what they hold.
    finished: VecDeque<(Arc<Execution>, Held)>,
    held: Held,
}

impl Registry {
    /// Adds a new command, or returns the one that already has its id.
    ///
    /// # Errors
    /// `EXEC_ALREADY_EXISTS` if that one is another command.
    pub(crate) fn insert(&self, new: &Arc<Execution>) -> Result<Option<Arc<Execution>>, ApiError> {
        let mut inner = self.lock();
        let Some(old) = inner.by_id.get(&new.id) else {
            inner.by_id.insert(new.id.clone(), Arc::clone(new));
            return Ok(None);
        };
        if old.command == new.command && old.session_id == new.session_id {
            return Ok(Some(Arc::clone(old)));
        }
        let message = format!("execId {:?} names another command", new.id);
        Err(ApiError::new(ErrorCode::ExecAlreadyExists, message).with("execId", new.id.as_str()))
    }

    /// Forgets a command that its session refused: it never was.
    pub(crate) fn refuse(&self, execution: &Execution, error: &ApiError) {
        self.lock().by_id.remove(&execution.id);
        // Another request may have attached to it in the meantime.
        execution.end_with(Finish::Failed(Box::new(error.clone())));
    }

    /// The command with this id.
    pub(crate) fn get(&self, id: &ExecId) -> Result<Arc<Execution>, ApiError> {
        let mut inner = self.lock();
        inner.expire();
        inner.by_id.get(id).cloned().ok_or_else(|| {
            ApiError::new(
                ErrorCode::ExecNotFound,
                format!("no command with execId {id:?} runs or ended lately"),
            )
            .with("execId", id.as_str())
        })
    }

    /// Ends a command, and lets old ones go. Only the first end of a command counts.
    pub(crate) fn finish(&self, execution: &Arc<Execution>, finish: Finish) {
        if !execution.end_with(finish) {
            return;
        }
        let held = Held { memory: execution.memory(), disk: execution.disk() };
        let mut inner = self.lock();
        inner.held.memory += held.memory;
        inner.held.disk += held.disk;
        inner.finished.push_back((Arc::clone(execution), held));
        inner.expire();
        if inner.finished.len() == 1 {
            self.some_finished.notify_one();
        }
    }

    /// Ends a command that still waits in its queue; says whether it did.
    pub(crate) fn fail_if_queued(
        &self,
        execution: &Arc<Execution>,
        error: impl FnOnce() -> ApiError,
    ) -> bool {
        let queued = execution.is_queued();
        if queued {
            self.finish(execution, Finish::Failed(Box::new(error())));
        }
        queued
    }

    /// Stops a command: a queued one ends at once with `error`, a running one is killed by its session.
    pub(crate) fn stop(
        &self,
        execution: &Arc<Execution>,
        reason: StopReason,
        error: impl FnOnce() -> ApiError,
    ) {
        if !self.fail_if_queued(execution, error) {
            execution.request_stop(reason);
        }
    }

    /// Lets finished commands go when their time is over; runs as long as the agent.
    pub(crate) async fn expire_in_time(&self) {
        loop {
            let oldest = {
                let mut inner = self.lock();
                inner.expire();
                inner.finished.front().and_then(|(execution, _)| execution.finished_at())
            };
            match oldest {
                Some(at) => tokio::time::sleep_until((at + KEEP).into()).await,
                None => self.some_finished.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands that wait or run now.
    pub(crate) fn active(&self) -> Vec<Arc<Execution>> {
        let inner = self.lock();
        inner.by_id.values().filter(|execution| execution.finished_at().is_none()).cloned().collect()
    }
}

impl Inner {
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((oldest, _)) = self.finished.front() {
            let old = oldest.finished_at().is_none_or(|at| now.duration_since(at) >= KEEP);
            let full = self.finished.len() > MAX_FINISHED
                || self.held.memory > MAX_FINISHED_BYTES
                || (self.held.disk > MAX_FINISHED_DISK && self.finished.len() > 1);
            if !old && !full {
                return;
            }
            if let Some((gone, held)) = self.finished.pop_front() {
                self.held.memory -= held.memory;
                self.held.disk -= held.disk;
                self.by_id.remove(&gone.id);
            }
        }
    }
}
