//! The task that owns a session's shell and runs its commands one at a time.

use super::queue::{Job, Next};
use super::registry::Session;
use super::spare::{self, Spares};
use crate::events::Events;
use crate::exec::answer::excerpt;
use crate::exec::drain::{self, Pipes, Stdio};
use crate::exec::execution::{Execution, Finish, StopReason};
use crate::exec::registry::Registry;
use crate::exec::spool::SpoolDir;
use crate::files::Files;
use crate::memory::{Kills, MemoryCgroup};
use crate::room::Room;
use crate::shell::image::ShellImage;
use crate::shell::{self, Ended, RunOutcome, RunRequest, SandboxEnv};
use crate::spawn::{SpawnError, Spawner};
use crate::stdin::Stdin;
use bytes::Bytes;
use sandcrab_api::exec::{ExecOutcome, StreamName};
use sandcrab_api::sandbox::AgentEventKind;
use sandcrab_api::{ApiError, ErrorCode, SessionId};
use serde_json::json;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// What every session of a sandbox works with.
pub(crate) struct Context {
    /// Where sessions start unless they are told otherwise.
    pub(crate) workspace: String,
    /// The sandbox's files, with the rights of its user.
    pub(crate) files: Files,
    pub(crate) spool: Arc<SpoolDir>,
    pub(crate) executions: Registry,
    pub(crate) spawner: Spawner,
    pub(crate) shell: ShellImage,
    pub(crate) env: SandboxEnv,
    pub(crate) memory: Option<MemoryCgroup>,
    /// For what callers send.
    pub(crate) room: Arc<Room>,
    pub(crate) events: Arc<Events>,
    pub(crate) spares: Spares,
}

/// Why a command was stopped before its end.
#[derive(Clone, Copy)]
enum Stopped {
    TimedOut(Duration),
    Asked(StopReason),
}

/// What is done behind an answer, so that nobody waits for it: a dozen system calls of a command's pipes.
#[derive(Default)]
struct Chores {
    /// Whether there is anything to do.
    due: bool,
    /// Of the last command.
    used: Option<(RunRequest, Pipes)>,
    /// For the next one.
    spare: Option<Stdio>,
}

impl Chores {
    /// What the next command reads and writes.
    async fn stdio(&mut self, given: Option<&str>, written: Option<&Stdin>) -> std::io::Result<Stdio> {
        self.let_go();
        let mut stdio = self.spare.take().map_or_else(Stdio::new, Ok)?;
        match (given, written) {
            (_, Some(written)) => {
                let (pipe, read) = crate::stdin::pipe()?;
                written.open(pipe).await;
                stdio.stdin = read;
            }
            (Some(_), None) => stdio.stdin = drain::stdin(given)?,
            (None, None) => {}
        }
        Ok(stdio)
    }

    fn let_go(&mut self) {
        if let Some((request, pipes)) = self.used.take() {
            drop(request);
            pipes.release();
        }
    }

    fn perform(&mut self) {
        self.due = false;
        self.let_go();
        // Where it cannot be made now, the command that wants it says so.
        self.spare = self.spare.take().or_else(|| Stdio::new().ok());
    }
}

/// Runs a session to its end.
pub(crate) async fn run(context: Arc<Context>, session: Arc<Session>, mut shell: shell::Session) {
    // The shell starts while the answer to its creation travels. If it cannot, the first command says so.
    if let Err(error) = shell.ensure_ready().await {
        tracing::warn!(session = %session.id, %error, "no shell yet");
    }
    let mut settled = true;
    let mut chores = Chores::default();
    // Beside the one that most sandboxes have: more may follow.
    let mut is_further = !session.id.is_default();
    loop {
        let (env, job) = tokio::select! {
            biased;
            next = session.queue.next() => match next {
                Next::Run(env, job) => (env, job),
                Next::Close => break,
            },
            // Behind the answer: its state is known when it is asked for (contract S14).
            result = shell.settle(), if !settled => {
                if let Err(error) = result {
                    tracing::warn!(session = %session.id, %error, "the state of a session could not be taken");
                }
                settled = true;
                continue;
            }
            () = tokio::task::yield_now(), if chores.due => {
                chores.perform();
                if std::mem::take(&mut is_further) {
                    spare::prepare(&context);
                }
                continue;
            }
        };
        let execution = Arc::clone(&job.execution);
        let finish = match shell.set_env(&env) {
            Ok(()) => run_one(&context, &mut shell, &mut chores, *job).await,
            Err(error) => failed(&execution, &error.to_string()),
        };
        context.executions.finish(&execution, finish);
        settled = false;
        if session.is_fresh() {
            break;
        }
        // A shell that the command ended is replaced behind the answer, so that the next command need not wait for it.
        if let Err(error) = shell.ensure_ready().await {
            tracing::warn!(session = %session.id, %error, "no new shell yet");
        }
    }
    chores.let_go();
    session.queue.close(&session.id, &context.executions);
    let ended = if session.is_fresh() { shell.leave().await.map(|()| 0) } else { shell.end().await };
    let ended = ended.map_err(|error| {
        tracing::error!(session = %session.id, %error, "a session's processes could not be ended");
        tell_unkillable(&context, &session.id, &[error.to_string()]);
        error.to_string()
    });
    session.ended.send_replace(Some(ended));
    if session.is_fresh() {
        spare::prepare(&context);
    }
}

async fn run_one(context: &Context, shell: &mut shell::Session, chores: &mut Chores, job: Job) -> Finish {
    let execution = job.execution;
    crate::faults::point(&execution.command);
    let _room = job.room;
    let begin = Instant::now();
    let Stdio { stdin, stdout, stderr, mut pipes } =
        match chores.stdio(job.stdin.as_deref(), execution.stdin.as_ref()).await {
            Ok(stdio) => stdio,
            Err(error) => return failed(&execution, &format!("its pipes could not be made: {error}")),
        };
    let kills = context.memory.as_ref().map(MemoryCgroup::kills);
    let stopped = OnceLock::new();
    let stop = async {
        let (why, reason) = tokio::select! {
            reason = execution.stop_requested() => (Stopped::Asked(reason), shell::StopReason::Cancel),
            limit = elapsed(job.timeout) => (Stopped::TimedOut(limit), shell::StopReason::Timeout),
        };
        // Set once: the future is not polled again after its end.
        let _ = stopped.set(why);
        reason
    };
    let text = Bytes::copy_from_slice(execution.command.as_bytes());
    let env = job.env.into_iter().collect();
    let request = RunRequest { text, stdin, stdout, stderr, env, cwd: job.cwd };
    let outcome = pipes.drain_while(&*execution, shell.run(&request, stop)).await;
    if let Some(stdin) = &execution.stdin {
        stdin.close().await;
    }
    *chores = Chores { due: true, used: Some((request, pipes)), spare: None };
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return not_run(&execution, &error),
    };
    tell(context, &execution, &outcome);
    match (outcome.ended, stopped.get()) {
        (Ended::Stopped(_), Some(why)) => Finish::Failed(Box::new(stop_error(&execution, *why))),
        _ => {
            let outcome = result(context, &execution, &outcome, begin, kills);
            if let Some(oom) = outcome.oom {
                let detail = json!({ "execId": execution.id, "limit": oom.limit, "peak": oom.peak });
                context.events.add(
                    AgentEventKind::Oom,
                    "a command was killed for want of memory".to_owned(),
                    detail,
                );
            }
            Finish::Outcome(outcome)
        }
    }
}

/// Tells of processes that were killed and do not end.
fn tell_unkillable(context: &Context, session: &SessionId, processes: &[String]) {
    for said in processes {
        let detail = json!({ "sessionId": session });
        context.events.add(AgentEventKind::Unkillable, format!("processes are left behind: {said}"), detail);
    }
}

/// Tells of what the session lost with its shell (contract S05).
fn tell(context: &Context, execution: &Execution, outcome: &RunOutcome) {
    if let Some(session) = &execution.session_id {
        tell_unkillable(context, session, &outcome.unkillable);
    }
    // A shell that only one command ever has is nobody's loss.
    let Some(session) = &execution.session_id else { return };
    for part in &outcome.dropped {
        let reason = format!("{} {} was not restored: {}", part.kind, shown(&part.name), shown(&part.reason));
        let detail = json!({ "sessionId": session, "kind": part.kind, "name": shown(&part.name) });
        context.events.add(AgentEventKind::RestorePartDropped, reason, detail);
    }
    if outcome.shell_restarted {
        let how = match outcome.signal {
            Some(signal) => format!("signal {signal}"),
            None => format!("exit code {}", outcome.exit_code),
        };
        let detail = json!({ "sessionId": session, "execId": execution.id });
        let reason = format!("a command ended its session's shell ({how})");
        context.events.add(AgentEventKind::ShellRestarted, reason, detail);
    }
}

/// An error and everything that led to it, on one line.
pub(crate) fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Resolves when the time is over; never without a limit.
async fn elapsed(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

fn result(
    context: &Context,
    execution: &Execution,
    outcome: &RunOutcome,
    begin: Instant,
    kills: Option<Kills>,
) -> ExecOutcome {
    // Only a command that died of SIGKILL can have met the limit: 128 + 9.
    let killed = outcome.exit_code == 137;
    ExecOutcome {
        exit_code: outcome.exit_code,
        duration: (begin.elapsed().as_secs_f64() * 1e6).round() / 1e3,
        shell_restarted: outcome.shell_restarted,
        interrupted: outcome.ended == Ended::Interrupted,
        oom: context
            .memory
            .as_ref()
            .filter(|_| killed)
            .zip(kills)
            .and_then(|(memory, kills)| memory.killed_since(kills)),
        truncated: execution.truncated(),
    }
}

/// The shell did not run the command.
fn not_run(execution: &Execution, error: &shell::RunError) -> Finish {
    match error.spawn_error().and_then(SpawnError::quota_error) {
        Some(quota) => Finish::Failed(Box::new(quota.with("command", shown(&execution.command)))),
        None => failed(execution, &reasons(error)),
    }
}

fn failed(execution: &Execution, reason: &str) -> Finish {
    let error =
        ApiError::new(ErrorCode::CommandExecutionError, format!("the command could not be run: {reason}"))
            .with("command", shown(&execution.command));
    Finish::Failed(Box::new(error))
}

/// The command's text, as much of it as an error needs.
fn shown(command: &str) -> String {
    const MOST: usize = 4096;
    command.chars().take(MOST).collect()
}

/// The error of a command that was cancelled.
pub(crate) fn cancelled(execution: &Execution) -> ApiError {
    ApiError::new(ErrorCode::OperationInterrupted, "the command was cancelled")
        .with("execId", execution.id.as_str())
        .with("command", shown(&execution.command))
}

fn stop_error(execution: &Execution, stopped: Stopped) -> ApiError {
    let error = match stopped {
        Stopped::Asked(StopReason::SessionDeleted) => {
            return match &execution.session_id {
                Some(id) => super::queue::destroyed(id),
                None => cancelled(execution),
            };
        }
        Stopped::Asked(StopReason::Cancelled) => cancelled(execution),
        Stopped::TimedOut(limit) => {
            let ms = limit.as_millis() as u64;
            ApiError::new(
                ErrorCode::CommandTimeout,
                format!("the command ran into its timeout of {ms} ms and was killed"),
            )
            .with("command", shown(&execution.command))
            .with("timeout", ms)
            .with("exitCode", 124)
        }
    };
    error
        .with("stdout", excerpt(execution, StreamName::Stdout))
        .with("stderr", excerpt(execution, StreamName::Stderr))
}
