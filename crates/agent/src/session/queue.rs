//! The commands of one session, in order of arrival (contract S08).

use crate::exec::execution::{Execution, Finish, StopReason};
use crate::exec::registry::Registry;
use crate::room::Held;
use sandcrab_api::limits::MAX_QUEUED_COMMANDS;
use sandcrab_api::session::EnvChanges;
use sandcrab_api::{ApiError, ErrorCode, SessionId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// One command and what it was asked to run with.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) execution: Arc<Execution>,
    pub(crate) env: EnvChanges,
    pub(crate) cwd: Option<String>,
    pub(crate) stdin: Option<String>,
    pub(crate) timeout: Option<Duration>,
    /// What it holds of the agent's memory until it has ended.
    pub(crate) room: Held,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: VecDeque<Job>,
    running: Option<Arc<Execution>>,
    /// Changes of the session's own variables that its next command brings in.
    env: EnvChanges,
    closed: bool,
}

/// The queue between a session's callers and its task.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    news: Notify,
}

/// What the session's task does next.
pub(crate) enum Next {
    /// These changes first, then this command.
    Run(EnvChanges, Box<Job>),
    /// The session is deleted.
    Close,
}

/// The error of every command that a deleted session leaves behind.
pub(crate) fn destroyed(id: &SessionId) -> ApiError {
    ApiError::new(ErrorCode::SessionDestroyed, format!("session {id:?} was deleted"))
        .with("sessionId", id.as_str())
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command at the end.
    ///
    /// # Errors
    /// `RESOURCE_BUSY` past 256 waiting commands, `SESSION_DESTROYED` after the session's end.
    pub(crate) fn push(&self, id: &SessionId, job: Job) -> Result<(), ApiError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(destroyed(id));
        }
        // A command that was cancelled or ran out of time in the queue has finished: it waits no longer.
        inner.jobs.retain(|job| job.execution.finished_at().is_none());
        let waiting = inner.jobs.len();
        if waiting >= MAX_QUEUED_COMMANDS + usize::from(inner.running.is_none()) {
            let message = format!("{waiting} commands already wait in session {id:?}");
            return Err(ApiError::new(ErrorCode::ResourceBusy, message)
                .with("sessionId", id.as_str())
                .with("waiting", waiting)
                .retry_after(1));
        }
        inner.jobs.push_back(job);
        drop(inner);
        self.news.notify_one();
        Ok(())
    }

    /// Changes the session's own variables from its next command on; does not wait for the running one.
    pub(crate) fn change_env(&self, changes: EnvChanges) {
        self.lock().env.extend(changes);
    }

    /// Changes of the session's own variables that its next command will bring in.
    pub(crate) fn waiting_env(&self) -> EnvChanges {
        self.lock().env.clone()
    }

    /// Whether a command runs, and how many wait behind it.
    pub(crate) fn load(&self) -> (bool, usize) {
        let inner = self.lock();
        let waiting = inner.jobs.iter().filter(|job| job.execution.finished_at().is_none()).count();
        (inner.running.is_some(), waiting)
    }

    /// Waits for the next command; called by the session's task alone.
    pub(crate) async fn next(&self) -> Next {
        loop {
            {
                let mut inner = self.lock();
                inner.running = None;
                if inner.closed {
                    return Next::Close;
                }
                while let Some(job) = inner.jobs.pop_front() {
                    if job.execution.start() {
                        inner.running = Some(Arc::clone(&job.execution));
                        return Next::Run(std::mem::take(&mut inner.env), Box::new(job));
                    }
                }
            }
            self.news.notified().await;
        }
    }

    /// Ends the session whose task is gone: its commands fail with this error.
    pub(crate) fn break_off(&self, executions: &Registry, error: &ApiError) {
        let mut inner = self.lock();
        inner.closed = true;
        let jobs = std::mem::take(&mut inner.jobs);
        let running = inner.running.take();
        drop(inner);
        for execution in jobs.into_iter().map(|job| job.execution).chain(running) {
            executions.finish(&execution, Finish::Failed(Box::new(error.clone())));
        }
    }

    /// Ends the session: waiting commands fail, the running one is stopped.
    pub(crate) fn close(&self, id: &SessionId, executions: &Registry) {
        let mut inner = self.lock();
        inner.closed = true;
        let jobs = std::mem::take(&mut inner.jobs);
        let running = inner.running.take();
        drop(inner);
        for execution in jobs.into_iter().map(|job| job.execution).chain(running) {
            executions.stop(&execution, StopReason::SessionDeleted, || destroyed(id));
        }
        self.news.notify_one();
    }
}
