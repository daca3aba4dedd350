//! All runs that can still be asked about, by id: those that wait or run, and for five minutes those that have ended
//! (contract S12). What is kept is bounded; past the bounds the oldest is forgotten first.

use super::run::{Finish, Run, StopReason};
use crate::fingerprint::Fingerprint;
use sandcrab_api::limits::EXEC_RETENTION_SECS;
use sandcrab_api::{ApiError, ErrorCode, RunId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a finished run is kept.
const KEEP: Duration = Duration::from_secs(EXEC_RETENTION_SECS);
/// Finished runs that are kept at the most. The newest may exceed each of the next bounds alone.
const MAX_FINISHED: usize = 256;
/// Bytes of memory that they may hold.
const MAX_MEMORY: u64 = 4 << 20;
/// Bytes of the sandbox's disk that they may hold.
const MAX_DISK: u64 = 256 << 20;

/// The registry.
#[derive(Debug, Default)]
pub(crate) struct Runs(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<RunId, Arc<Run>>,
    /// Finished ones by age, with what they hold.
    finished: VecDeque<(Arc<Run>, (u64, u64))>,
    memory: u64,
    disk: u64,
    /// A task waits for the oldest's time to be over.
    expiring: bool,
}

impl Runs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run that has this id already, if it is of the same request.
    ///
    /// # Errors
    /// `EXEC_ALREADY_EXISTS` if it is another's.
    pub(crate) fn known(&self, id: &RunId, request: Fingerprint) -> Result<Option<Arc<Run>>, ApiError> {
        match self.lock().by_id.get(id) {
            None => Ok(None),
            Some(old) if old.fingerprint == request => Ok(Some(Arc::clone(old))),
            Some(_) => {
                let message = format!("run {id} exists already, of other code or with other options");
                let error = ApiError::new(ErrorCode::ExecAlreadyExists, message).with("runId", id.as_str());
                Err(error.suggest("Use a new runId for another run."))
            }
        }
    }

    /// Adds a new run.
    pub(crate) fn insert(&self, run: &Arc<Run>) {
        self.lock().by_id.insert(run.id.clone(), Arc::clone(run));
    }

    /// The run with this id.
    ///
    /// # Errors
    /// `EXEC_NOT_FOUND`.
    pub(crate) fn get(&self, id: &RunId) -> Result<Arc<Run>, ApiError> {
        self.lock().by_id.get(id).cloned().ok_or_else(|| {
            ApiError::new(ErrorCode::ExecNotFound, format!("there is no run {id}"))
                .with("runId", id.as_str())
                .suggest("Results are kept for 5 minutes after a run's end.")
        })
    }

    /// Forgets a run that was never queued.
    pub(crate) fn refuse(&self, run: &Run) {
        self.lock().by_id.remove(&run.id);
    }

    /// Ends a run; it is known for five minutes more.
    pub(crate) fn finish(&self, run: &Arc<Run>, finish: Finish) {
        if !run.end_with(finish) {
            return;
        }
        let held = run.held();
        let mut inner = self.lock();
        inner.memory += held.0;
        inner.disk += held.1;
        inner.finished.push_back((Arc::clone(run), held));
        inner.expire();
        if !std::mem::replace(&mut inner.expiring, true) {
            tokio::spawn(expire_in_time(Arc::clone(&self.0)));
        }
    }

    /// Ends a run: one that waits at once with `error`, one that is on by its context.
    pub(crate) fn stop(&self, run: &Arc<Run>, reason: StopReason, error: impl FnOnce() -> ApiError) {
        if run.is_queued() {
            self.finish(run, Finish::Failed(Box::new(error())));
        } else {
            run.request_stop(reason);
        }
    }
}

/// Lets finished runs go when their time is over, as long as there are any.
async fn expire_in_time(inner: Arc<Mutex<Inner>>) {
    loop {
        let next = {
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.expire();
            let oldest = inner.finished.front().and_then(|(run, _)| run.finished_at());
            inner.expiring = oldest.is_some();
            oldest
        };
        let Some(oldest) = next else { return };
        tokio::time::sleep_until(oldest + KEEP).await;
    }
}

impl Inner {
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((oldest, _)) = self.finished.front() {
            let old = oldest.finished_at().is_none_or(|at| now.duration_since(at) >= KEEP);
            let crowded = self.finished.len() > 1
                && (self.finished.len() > MAX_FINISHED || self.memory > MAX_MEMORY || self.disk > MAX_DISK);
            if !old && !crowded {
                break;
            }
            if let Some((gone, (memory, disk))) = self.finished.pop_front() {
                self.memory -= memory;
                self.disk -= disk;
                self.by_id.remove(&gone.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::journal::Kind;
    use crate::exec::spool::SpoolDir;
    use sandcrab_api::ContextId;
    use sandcrab_api::code::RunCodeRequest;

    fn run(runs: &Runs, id: &str, output: usize) -> Arc<Run> {
        let dir = SpoolDir::open("/tmp");
        let context = ContextId::parse("c").unwrap();
        let run = Run::new(RunId::parse(id).unwrap(), context, RunCodeRequest::default(), &dir, None);
        runs.insert(&run);
        assert!(run.start());
        run.append(Kind::Stdout, &vec![b'x'; output]);
        runs.finish(&run, Finish::Outcome(Box::default()));
        run
    }

    #[tokio::test(start_paused = true)]
    async fn s12_a_finished_run_is_known_for_five_minutes() {
        let runs = Runs::default();
        let one = run(&runs, "one", 1);
        tokio::time::sleep(KEEP - Duration::from_secs(1)).await;
        assert!(Arc::ptr_eq(&runs.get(&one.id).unwrap(), &one));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(runs.get(&one.id).unwrap_err().code, ErrorCode::ExecNotFound);
        run(&runs, "two", 1);
        assert!(runs.lock().expiring, "the next one's time is watched again");
    }

    #[tokio::test]
    async fn s12_what_finished_runs_hold_is_bounded() {
        let runs = Runs::default();
        for number in 0..300 {
            run(&runs, &format!("r{number}"), 20 << 10);
        }
        let big = run(&runs, "big", 50 << 20);
        let inner = runs.lock();
        assert!(inner.by_id.len() <= MAX_FINISHED && inner.disk <= MAX_DISK && inner.memory <= MAX_MEMORY);
        assert!(inner.by_id.contains_key(&big.id));
    }
}
