//! One code context: a queue of runs, and the task that owns its interpreter.
//!
//! ```text
//!             start                     run                 done
//!  [no interpreter] ----> [idle] ------------> [running] ----------> [idle]
//!        ^                  |                      |
//!        +------------------+<---------------------+   it exited, or had to be killed
//! ```
//!
//! The interpreter is this context's alone and ends with it. One that is gone is replaced by the next run, whose caller is
//! told that what was in it is lost (contract K02).

use super::channel::{Delivery, Failure};
use super::executor::{Ended, Executor, Start, StartError, Terms};
use super::interpreter;
use super::run::{Finish, Run, StopReason};
use super::runs::Runs;
use super::spares::Spares;
use crate::memory::{Kills, MemoryCgroup};
use crate::session::registry::StartPoint;
use crate::spawn::Exit;
use futures_util::future::BoxFuture;
use sandcrab_api::code::{CodeContext, CodeError, CodeLanguage, RunOutcome};
use sandcrab_api::exec::Oom;
use sandcrab_api::limits::{DEFAULT_RUN_TIMEOUT_MS, MAX_EXECUTOR_MESSAGE_BYTES, MAX_QUEUED_COMMANDS};
use sandcrab_api::sandbox::AgentEventKind;
use sandcrab_api::session::EnvChanges;
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ContextId, ErrorCode, SessionId};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How often a message of an executor is held while it is dealt with: as it came, read, written, and as a record.
const MESSAGE: usize = 4;
/// What an executor must be able to say: an error with its traceback.
const LEAST_MESSAGE: usize = 3 << 20;

/// Says where a program of a session begins.
pub(super) type StartPointOf =
    dyn Fn(Option<SessionId>) -> BoxFuture<'static, Result<StartPoint, ApiError>> + Send + Sync;

/// What all contexts of a sandbox share.
pub(super) struct Shared {
    pub(super) spares: Spares,
    pub(super) runs: Runs,
    /// Where a program of this session begins, the sandbox's own point for none.
    pub(super) start_point: Box<StartPointOf>,
    /// What the agent's rooms share.
    pub(super) host: Arc<crate::session::task::Context>,
}

/// How a context was asked for.
#[derive(Clone, Debug)]
pub(super) struct ContextTerms {
    pub(super) language: CodeLanguage,
    /// Follow the variables and the directory of this session, before each run.
    pub(super) follows: Option<SessionId>,
    /// The directory to start in.
    pub(super) cwd: String,
    pub(super) env: EnvChanges,
    pub(super) timeout: Option<u64>,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Arc<Run>>,
    running: Option<Arc<Run>>,
    last_used: Timestamp,
    closed: bool,
}

/// A context, as its callers see it.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) id: ContextId,
    pub(super) terms: ContextTerms,
    created_at: Timestamp,
    inner: Mutex<Inner>,
    news: Notify,
    /// Whether its first interpreter is up, once that is known.
    ready: watch::Sender<Option<Result<(), Box<ApiError>>>>,
    /// Set when its task is gone, and with it the interpreter.
    ended: watch::Sender<bool>,
}

impl Context {
    /// Brings a context to life. Its interpreter starts at once, from `begin`. Later it is given what differs from
    /// `given` in the variables that it follows.
    pub(super) fn start(
        shared: Arc<Shared>,
        id: ContextId,
        terms: ContextTerms,
        begin: StartPoint,
        given: StartPoint,
    ) -> Arc<Self> {
        let now = Timestamp::now();
        let inner = Inner { waiting: VecDeque::new(), running: None, last_used: now, closed: false };
        let context = Arc::new(Self {
            id,
            terms,
            created_at: now,
            inner: Mutex::new(inner),
            news: Notify::new(),
            ready: watch::Sender::new(None),
            ended: watch::Sender::new(false),
        });
        let task = Task { shared, context: Arc::clone(&context), executor: None, begin, given, count: 0 };
        let (shared, broken) = (Arc::clone(&task.shared), Arc::clone(&context));
        tokio::spawn(async move {
            if crate::faults::panics(task.work()).await {
                broken.give_up(&shared);
            }
        });
        context
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It as it stands now.
    pub(super) fn info(&self) -> CodeContext {
        CodeContext {
            id: self.id.clone(),
            language: self.terms.language,
            cwd: self.terms.cwd.clone(),
            created_at: self.created_at,
            last_used: self.lock().last_used,
        }
    }

    /// Waits until its first interpreter is up.
    pub(super) async fn ready(&self) -> Result<(), ApiError> {
        let mut ready = self.ready.subscribe();
        // The sender lives as long as this handle.
        match ready.wait_for(Option::is_some).await.map(|known| known.clone()) {
            Ok(Some(Err(error))) => Err(*error),
            _ => Ok(()),
        }
    }

    /// Puts a run at the end of the queue.
    ///
    /// # Errors
    /// `RESOURCE_BUSY` past 256 waiting runs, `CONTEXT_NOT_FOUND` after the context's end.
    pub(super) fn push(&self, run: Arc<Run>) -> Result<(), ApiError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(not_found(&self.id));
        }
        // One that was cancelled in the queue waits no longer.
        inner.waiting.retain(|run| !run.has_ended());
        let waiting = inner.waiting.len();
        if waiting >= MAX_QUEUED_COMMANDS + usize::from(inner.running.is_none()) {
            let message = format!("{waiting} runs already wait in code context {}", self.id);
            return Err(ApiError::new(ErrorCode::ResourceBusy, message)
                .with("contextId", self.id.as_str())
                .with("waiting", waiting)
                .retry_after(1)
                .suggest("Try again after Retry-After, or use another context."));
        }
        inner.waiting.push_back(run);
        drop(inner);
        self.news.notify_one();
        Ok(())
    }

    /// The next run; none when the context is deleted.
    async fn next(&self) -> Option<Arc<Run>> {
        loop {
            {
                let mut inner = self.lock();
                inner.running = None;
                if inner.closed {
                    return None;
                }
                while let Some(run) = inner.waiting.pop_front() {
                    if run.start() {
                        inner.running = Some(Arc::clone(&run));
                        inner.last_used = Timestamp::now();
                        return Some(run);
                    }
                }
            }
            self.news.notified().await;
        }
    }

    /// Ends the context whose task panicked. Its interpreter went with the task.
    fn give_up(&self, shared: &Shared) {
        let reason = format!("code context {} was ended by a fault of the agent", self.id);
        tracing::error!("{reason}");
        let left: Vec<_> = {
            let mut inner = self.lock();
            inner.closed = true;
            let running = inner.running.take();
            std::mem::take(&mut inner.waiting).into_iter().chain(running).collect()
        };
        let error = ApiError::new(ErrorCode::InternalError, reason.clone());
        let error = Box::new(error.with("contextId", self.id.as_str()));
        self.ready
            .send_if_modified(|ready| ready.is_none().then(|| *ready = Some(Err(error.clone()))).is_some());
        self.ended.send_replace(true);
        for run in left {
            shared.runs.finish(&run, Finish::Failed(error.clone()));
        }
        let detail = serde_json::json!({ "contextId": self.id });
        shared.host.events.add(AgentEventKind::Fault, reason, detail);
    }

    /// Whether nothing is left of it.
    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Ends the context: waiting runs fail, the one that is on is ended with its interpreter. Returns when nothing is
    /// left of it.
    pub(super) async fn delete(&self, runs: &Runs) {
        let stopped: Vec<_> = {
            let mut inner = self.lock();
            inner.closed = true;
            let running = inner.running.clone();
            std::mem::take(&mut inner.waiting).into_iter().chain(running).collect()
        };
        for run in stopped {
            runs.stop(&run, StopReason::ContextDeleted, || deleted(&self.id));
        }
        self.news.notify_one();
        // The receiver cannot fail before the sender, which this handle holds.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

/// There is no such context.
pub(super) fn not_found(id: &ContextId) -> ApiError {
    ApiError::new(ErrorCode::ContextNotFound, format!("code context {id} not found"))
        .with("contextId", id.as_str())
}

fn deleted(id: &ContextId) -> ApiError {
    ApiError::new(ErrorCode::OperationInterrupted, format!("code context {id} was deleted"))
        .with("contextId", id.as_str())
}

/// The error of a run that was cancelled.
pub(super) fn cancelled(run: &Run, restarted: bool) -> ApiError {
    let error = ApiError::new(ErrorCode::OperationInterrupted, "the run was cancelled")
        .with("runId", run.id.as_str())
        .with("contextId", run.context.as_str());
    if restarted { error.with("contextRestarted", true) } else { error }
}

/// Why a run was stopped.
#[derive(Clone, Copy, Debug)]
enum Stop {
    TimedOut(Duration),
    Asked(StopReason),
}

struct Task {
    shared: Arc<Shared>,
    context: Arc<Context>,
    executor: Option<Executor>,
    /// Where the interpreter starts, should it have to start again.
    begin: StartPoint,
    /// The variables and the directory that it follows, as they were last given.
    given: StartPoint,
    count: u64,
}

impl Task {
    async fn work(mut self) {
        let first = self.start().await;
        // If it cannot start, its creator hears of it; the first run tries again.
        self.context.ready.send_replace(Some(first.map_err(Box::new)));
        // An interpreter that ended between two runs took their state along.
        let mut lost = false;
        let mut spare_due = true;
        loop {
            let run = tokio::select! {
                biased;
                run = self.context.next() => run,
                () = idle(self.executor.as_mut()) => {
                    lost = true;
                    self.end_executor().await;
                    continue;
                }
            };
            let Some(run) = run else { break };
            let finish = self.run(&run, &mut lost).await;
            self.shared.runs.finish(&run, finish);
            if std::mem::take(&mut spare_due) {
                // Behind the answer, which it would have held up.
                self.prepare_spare();
            }
        }
        self.end_executor().await;
        self.context.ended.send_replace(true);
    }

    /// Starts the interpreter where the context begins.
    async fn start(&mut self) -> Result<(), ApiError> {
        let terms = &self.context.terms;
        let begin = self.begin.clone().with(&terms.env, None);
        let path = begin.environment.get(&b"PATH"[..]).map_or(&b""[..], Vec::as_slice);
        let program = interpreter::find(&self.shared.host.files, terms.language, path, &begin.cwd).await?;
        let (_, cwd) = begin.for_exec();
        let start = Start { language: terms.language, program, env: begin.environment, cwd };
        let executor = self.shared.spares.executor(&start).await;
        self.executor = Some(executor.map_err(|error| start_error(&error, &self.context))?);
        Ok(())
    }

    /// The next context of this language will most likely begin where one without a session does.
    fn prepare_spare(&self) {
        let (shared, language) = (Arc::clone(&self.shared), self.context.terms.language);
        tokio::spawn(async move {
            let Ok(begin) = (shared.start_point)(None).await else { return };
            let path = begin.environment.get(&b"PATH"[..]).map_or(&b""[..], Vec::as_slice);
            if let Ok(program) = interpreter::find(&shared.host.files, language, path, &begin.cwd).await {
                let (_, cwd) = begin.for_exec();
                shared.spares.prepare(Start { language, program, env: begin.environment, cwd });
            }
        });
    }

    async fn end_executor(&mut self) {
        if let Some(executor) = self.executor.take() {
            executor.end().await;
        }
    }

    async fn run(&mut self, run: &Arc<Run>, lost: &mut bool) -> Finish {
        crate::faults::point(&run.request.code);
        let kills = self.shared.host.memory.as_ref().map(MemoryCgroup::kills);
        let (env, cwd) = match self.deliveries().await {
            Ok(due) => due,
            Err(error) => return Finish::Failed(Box::new(error)),
        };
        if self.executor.as_ref().is_some_and(|executor| !executor.lives()) {
            *lost = true;
            self.end_executor().await;
        }
        if self.executor.is_none()
            && let Err(error) = self.start().await
        {
            return Finish::Failed(Box::new(error));
        }
        let Some(executor) = &mut self.executor else {
            return Finish::Failed(Box::new(ApiError::new(ErrorCode::CodeExecutionError, "no interpreter")));
        };
        self.count += 1;
        let late_output = executor.take_late().filter(|_| self.count > 1);
        let begin = Instant::now();
        let limit = run.request.timeout.or(self.context.terms.timeout).unwrap_or(DEFAULT_RUN_TIMEOUT_MS);
        let limit = Duration::from_millis(limit);
        let stop = async {
            tokio::select! {
                reason = run.stop_requested() => (Stop::Asked(reason), reason == StopReason::Cancelled),
                () = tokio::time::sleep_until(begin + limit) => (Stop::TimedOut(limit), true),
            }
        };
        let most = (self.shared.host.room.total() / MESSAGE).clamp(LEAST_MESSAGE, MAX_EXECUTOR_MESSAGE_BYTES);
        let terms = Terms { count: self.count, env: &env, most, cwd: cwd.as_deref() };
        let (ended, stopped) = executor.run(run, &terms, stop).await;
        let mut restarted = std::mem::take(lost);
        let exit = match &ended {
            Ended::Done(_) => None,
            Ended::Gone(exit) => {
                restarted = true;
                Some(*exit)
            }
        };
        if exit.is_some() {
            self.executor = None;
        }
        let error = match (ended, stopped) {
            (_, Some(Stop::Asked(StopReason::Cancelled))) => {
                return Finish::Failed(Box::new(cancelled(run, restarted)));
            }
            (_, Some(Stop::Asked(StopReason::ContextDeleted))) => {
                return Finish::Failed(Box::new(deleted(&run.context)));
            }
            (Ended::Done(failure), Some(Stop::TimedOut(limit))) => Some(timed_out(limit, failure)),
            (Ended::Gone(_), Some(Stop::TimedOut(limit))) => Some(timed_out(limit, None)),
            (Ended::Done(failure), None) => failure.map(code_error),
            (Ended::Gone(exit), None) => Some(exited(exit)),
        };
        let (truncated, results_dropped) = run.dropped();
        let killed = stopped.is_none() && exit == Some(Exit::Signal(9));
        Finish::Outcome(Box::new(RunOutcome {
            execution_count: self.count,
            duration: (begin.elapsed().as_secs_f64() * 1e6).round() / 1e3,
            error,
            context_restarted: restarted,
            oom: self.oom(kills.filter(|_| killed)),
            truncated,
            results_dropped,
            late_output,
        }))
    }

    /// Whether the memory limit killed the interpreter since then; tells of it.
    fn oom(&self, kills: Option<Kills>) -> Option<Oom> {
        let host = &self.shared.host;
        let oom = host.memory.as_ref()?.killed_since(kills?)?;
        let context = self.context.id.as_str();
        let detail = serde_json::json!({ "contextId": context, "limit": oom.limit, "peak": oom.peak });
        let reason = "a code context's interpreter was killed for want of memory".to_owned();
        host.events.add(AgentEventKind::Oom, reason, detail);
        Some(oom)
    }

    /// What changed of the sandbox's variables, or of the session's and its directory, since the last run
    /// (contracts S11, S14). What is the context's own stays.
    async fn deliveries(&mut self) -> Result<(Vec<Delivery>, Option<String>), ApiError> {
        let now = (self.shared.start_point)(self.context.terms.follows.clone()).await?;
        let before = std::mem::replace(&mut self.given, now);
        let now = &self.given;
        let due = changed(&before.environment, &now.environment, &self.context.terms.env);
        for (name, value, _) in &due {
            let name = name.clone().into_bytes();
            match value {
                Some(value) => drop(self.begin.environment.insert(name, value.clone().into_bytes())),
                None => drop(self.begin.environment.remove(&name)),
            }
        }
        let moved = self.context.terms.follows.is_some() && before.cwd != now.cwd;
        if moved {
            self.begin.cwd.clone_from(&now.cwd);
        }
        Ok((due, moved.then(|| now.cwd.to_string_lossy().into_owned())))
    }
}

type Environment = BTreeMap<Vec<u8>, Vec<u8>>;

fn changed(before: &Environment, now: &Environment, own: &EnvChanges) -> Vec<Delivery> {
    if before == now {
        return Vec::new();
    }
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    let names = now.iter().filter(|(name, value)| before.get(*name) != Some(value)).map(|(name, _)| name);
    names
        .chain(gone)
        .filter(|name| *name != b"PWD" && *name != b"OLDPWD" && *name != b"_")
        .map(|name| (text(name), now.get(name).map(text), before.get(name).map(text)))
        .filter(|(name, ..)| !own.contains_key(name))
        .collect()
}

/// Waits for the end of an interpreter that does nothing; for ever where there is none.
async fn idle(executor: Option<&mut Executor>) {
    match executor {
        Some(executor) => executor.idle().await,
        None => std::future::pending().await,
    }
}

fn code_error(failure: Failure) -> CodeError {
    let Failure { name, value, traceback, line } = failure;
    CodeError { name, value, traceback, line_number: line }
}

fn timed_out(limit: Duration, failure: Option<Failure>) -> CodeError {
    let value = format!("the code ran into its timeout of {} ms", limit.as_millis());
    let where_ = failure.map(code_error).unwrap_or_default();
    CodeError { name: "TimeoutError".to_owned(), value, ..where_ }
}

fn exited(exit: Exit) -> CodeError {
    let how = match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
    };
    CodeError {
        name: "InterpreterExited".to_owned(),
        value: format!("the interpreter {how}; the context starts anew with its next run"),
        traceback: Vec::new(),
        line_number: None,
    }
}

fn start_error(error: &StartError, context: &Context) -> ApiError {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    let language = context.terms.language;
    let unusable = match error {
        StartError::Spawn(error) => {
            CString::new(context.terms.cwd.as_str()).ok().and_then(|cwd| error.callers_error(&cwd))
        }
        _ => None,
    };
    if let Some(error) = unusable {
        return error.with("contextId", context.id.as_str()).with("language", language.as_str());
    }
    // Killed from outside: by the memory limit, or because it took too long. Another one may come up.
    let passes = matches!(
        error,
        StartError::Late | StartError::Deaf { .. } | StartError::Ended { exit: Exit::Signal(9), .. }
    );
    let code = if passes { ErrorCode::InterpreterNotReady } else { ErrorCode::CodeExecutionError };
    let api = ApiError::new(code, format!("the {language} interpreter could not be started: {reason}"))
        .with("contextId", context.id.as_str())
        .with("language", language.as_str());
    if passes { api.retry_after(1) } else { api }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s11_only_what_changed_is_delivered_and_own_values_stay() {
        let env = |pairs: &[(&str, &str)]| -> Environment {
            pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
        };
        let before = env(&[("A", "1"), ("B", "1"), ("C", "1"), ("OWN", "1"), ("PWD", "/")]);
        let now = env(&[("A", "1"), ("B", "2"), ("D", "4"), ("OWN", "2"), ("PWD", "/x")]);
        let own = [("OWN".to_owned(), Some("mine".to_owned()))].into();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            changed(&before, &now, &own),
            [
                ("B".to_owned(), some("2"), some("1")),
                ("D".to_owned(), some("4"), None),
                ("C".to_owned(), None, some("1")),
            ]
        );
    }
}
