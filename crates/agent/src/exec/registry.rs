//! All commands that can still be asked about, by id.
//!
//! A finished one is kept for five minutes (contract S12). What is kept is bounded too, because a sandbox may run
//! thousands of commands a second: past the bounds the oldest loses its output first, and then is forgotten.

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
/// Bytes of memory that their output may hold. The newest may exceed each of these bounds alone.
const MAX_OUTPUT_MEMORY: usize = 4 << 20;
/// Bytes of the sandbox's disk that their output may hold.
const MAX_OUTPUT_DISK: u64 = 256 << 20;
/// Bytes of memory that their texts may hold.
const MAX_TEXTS: usize = 4 << 20;

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
    texts: usize,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<ExecId, Arc<Execution>>,
    /// Finished ones by age, with what they hold.
    finished: VecDeque<(Arc<Execution>, Held)>,
    held: Held,
    /// How many of them, the youngest, still have their output.
    with_output: usize,
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
        if old.fingerprint == new.fingerprint {
            return Ok(Some(Arc::clone(old)));
        }
        let message = format!("execId {:?} names another command, or this one with other options", new.id);
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
        let held =
            Held { memory: execution.memory(), disk: execution.disk(), texts: execution.command.len() };
        let mut inner = self.lock();
        inner.held.memory += held.memory;
        inner.held.disk += held.disk;
        inner.held.texts += held.texts;
        inner.with_output += 1;
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
            // The text stays as long as the command: it is shown to whoever asks about it.
            let crowded = self.finished.len() > 1
                && (self.finished.len() > MAX_FINISHED || self.held.texts > MAX_TEXTS);
            if !old && !crowded {
                break;
            }
            if let Some((gone, held)) = self.finished.pop_front() {
                self.held.memory -= held.memory;
                self.held.disk -= held.disk;
                self.held.texts -= held.texts;
                self.with_output = self.with_output.saturating_sub(1);
                self.by_id.remove(&gone.id);
            }
        }
        while self.with_output > 1
            && (self.held.memory > MAX_OUTPUT_MEMORY || self.held.disk > MAX_OUTPUT_DISK)
        {
            let first = self.finished.len() - self.with_output;
            let (execution, held) = &mut self.finished[first];
            execution.forget_output();
            self.held.memory -= std::mem::take(&mut held.memory);
            self.held.disk -= std::mem::take(&mut held.disk);
            self.with_output -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::spool::SpoolDir;
    use crate::fingerprint::Fingerprint;
    use sandcrab_api::exec::{ExecOutcome, ExecRequest, StreamName};

    fn run(registry: &Registry, id: &str, command: &str, output: usize) -> Arc<Execution> {
        let dir = SpoolDir::open("/tmp");
        let print =
            Fingerprint::of_command(&ExecRequest { command: command.to_owned(), ..ExecRequest::default() });
        let id_of = ExecId::parse(id).unwrap();
        let execution = Execution::new(id_of, command.to_owned(), None, print, None, &dir, 64 << 20);
        assert!(registry.insert(&execution).unwrap().is_none(), "{id} is known");
        assert!(execution.start());
        execution.append(StreamName::Stdout, &vec![b'x'; output]);
        registry.finish(&execution, Finish::Outcome(ExecOutcome::default()));
        execution
    }

    #[test]
    fn s12_a_finished_command_is_known_after_its_output_had_to_go() {
        let registry = Registry::default();
        let first = run(&registry, "first", "true", 16 << 10);
        for number in 0..400 {
            run(&registry, &number.to_string(), "true", 16 << 10);
        }
        assert!(Arc::ptr_eq(&registry.get(&first.id).unwrap(), &first));
        assert_eq!(first.truncated().unwrap().stdout, Some(16 << 10));
        let held = registry.lock().held;
        assert!(held.memory <= MAX_OUTPUT_MEMORY, "{held:?}");
    }

    #[test]
    fn s12_the_newest_command_is_known_however_long_it_is() {
        let registry = Registry::default();
        let long = "#".repeat(MAX_TEXTS + 1);
        let newest = run(&registry, "long", &long, 0);
        assert!(registry.get(&newest.id).is_ok());
        run(&registry, "next", "true", 0);
        assert!(registry.get(&newest.id).is_err(), "it made room");
    }

    #[test]
    fn s12_the_number_of_known_commands_is_bounded() {
        let registry = Registry::default();
        for number in 0..MAX_FINISHED + 10 {
            run(&registry, &number.to_string(), "true", 0);
        }
        assert_eq!(registry.lock().by_id.len(), MAX_FINISHED);
    }
}
