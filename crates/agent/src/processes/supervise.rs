//! The task that owns a process's runs.

use super::process::{End, Process};
use super::run::{Launch, Run};
use crate::memory::{Kills, MemoryCgroup};
use crate::session::task::Context;
use crate::spawn::{Exit, Group};
use rustix::process::Signal;
use sandcrab_api::limits::PROCESS_KILL_GRACE_MS;
use sandcrab_api::process::{ProcessStatus, Restart};
use sandcrab_api::sandbox::AgentEventKind;
use sandcrab_api::{ApiError, ErrorCode};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const GRACE: Duration = Duration::from_millis(PROCESS_KILL_GRACE_MS);
/// The pause before the first restart; each one that follows at once is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A run that lasts this long was a good one: the next pause is the first again.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// What a run left behind has this long to end before the next run begins.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(2);

/// Why a run was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    Asked,
    TimedOut,
}

/// Enters a run into its process.
pub(super) async fn begin(process: &Process, run: Run) -> Begun {
    let group = Arc::new(run.group);
    let pid = run.child.pid().as_raw_nonzero().get().unsigned_abs();
    if let (Some(stdin), Some(pipe)) = (&process.stdin, run.stdin) {
        stdin.open(pipe).await;
    }
    process.runs(pid, Arc::clone(&group));
    Begun { group, child: run.child, pipes: run.pipes, since: Instant::now() }
}

/// A run that its process knows of.
pub(super) struct Begun {
    group: Arc<Group>,
    child: crate::spawn::Child,
    pipes: crate::exec::drain::Pipes,
    since: Instant,
}

/// Runs a process to its end, and until nothing is left of it. `launch` is there if it may be restarted.
pub(super) async fn supervise(
    context: &Context,
    process: &Process,
    launch: Option<Launch>,
    mut run: Begun,
    deadline: Option<Instant>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let kills = context.memory.as_ref().map(MemoryCgroup::kills);
        let group = Arc::clone(&run.group);
        let since = run.since;
        let (exit, stopped) = run_once(process, run, deadline).await;
        let again = launch.as_ref().filter(|_| process.restart == Restart::Always && stopped.is_none());
        let Some(launch) = again else {
            // Known at once where there is nothing, so that who has seen the end finds no process any more.
            let left = !group.is_empty().unwrap_or(false);
            process.ends(end(context, exit, stopped, kills), left);
            // Behind the end, which frees it from a writer that waits.
            if let Some(stdin) = &process.stdin {
                stdin.close().await;
            }
            if left {
                leave_nothing(process, &group).await;
            }
            return;
        };
        if since.elapsed() >= GOOD_RUN {
            pause = FIRST_PAUSE;
        }
        let restarted = tokio::select! {
            biased;
            stopped = stop_asked(process, deadline) => Err(stopped),
            restarted = restart(context, process, launch, &group, &mut pause) => Ok(restarted),
        };
        match restarted {
            Ok(next) => run = next,
            Err((stopped, _)) => {
                log_failure(process, group.stop(Signal::KILL, Duration::ZERO).await);
                process.ends(end(context, exit, Some(stopped), kills), false);
                return;
            }
        }
    }
}

/// Ends a process whose task panicked, with all that it started.
pub(super) async fn give_up(context: &Context, process: &Process) {
    let reason = format!("process {:?} was ended by a fault of the agent", process.id);
    tracing::error!("{reason}");
    if let Some(group) = process.group() {
        log_failure(process, group.stop(Signal::KILL, Duration::ZERO).await);
    }
    let error = Some(Box::new(ApiError::new(ErrorCode::InternalError, reason.clone())));
    let end = End { status: ProcessStatus::Error, exit_code: None, timed_out: false, oom: None, error };
    process.ends(end, false);
    let detail = serde_json::json!({ "processId": process.id });
    context.events.add(AgentEventKind::Fault, reason, detail);
}

async fn run_once(
    process: &Process,
    run: Begun,
    deadline: Option<Instant>,
) -> (io::Result<Exit>, Option<Stopped>) {
    let Begun { group, child, mut pipes, .. } = run;
    crate::faults::point(&process.command);
    let outcome = pipes
        .drain_while(&*process.log, async {
            tokio::select! {
                biased;
                exit = child.wait() => (exit, None),
                (stopped, signal) = stop_asked(process, deadline) => {
                    stop(process, &group, signal).await;
                    (child.wait_killed().await, Some(stopped))
                }
            }
        })
        .await;
    pipes.release();
    outcome
}

/// Resolves when the process is to be ended, with why and by which signal.
async fn stop_asked(process: &Process, deadline: Option<Instant>) -> (Stopped, Signal) {
    let timed_out = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        signal = process.asked_to_end(None) => (Stopped::Asked, signal),
        () = timed_out => (Stopped::TimedOut, Signal::TERM),
    }
}

/// Ends everything of a run. A SIGKILL that is asked for meanwhile cuts the grace short.
async fn stop(process: &Process, group: &Group, signal: Signal) {
    let stopped = tokio::select! {
        stopped = group.stop(signal, GRACE) => stopped,
        _ = process.asked_to_end(Some(Signal::KILL)), if signal != Signal::KILL => {
            group.stop(Signal::KILL, Duration::ZERO).await
        }
    };
    log_failure(process, stopped);
}

fn log_failure(process: &Process, stopped: io::Result<()>) {
    if let Err(error) = stopped {
        tracing::error!(process = %process.id, %error, "a process could not be stopped");
    }
}

/// Waits until nothing is left of an ended process: what it left running in the background lives on until it ends by
/// itself, or the process is killed once more.
async fn leave_nothing(process: &Process, group: &Group) {
    tokio::select! {
        biased;
        emptied = group.emptied() => log_failure(process, emptied),
        signal = process.asked_to_end(None) => stop(process, group, signal).await,
    }
    process.is_gone();
}

/// Starts the process once more, later and later while it cannot be started.
async fn restart(
    context: &Context,
    process: &Process,
    launch: &Launch,
    group: &Group,
    pause: &mut Duration,
) -> Begun {
    log_failure(process, group.stop(Signal::TERM, LEFTOVERS_GRACE).await);
    process.restarts();
    loop {
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        match launch.start(context) {
            Ok(run) => return begin(process, run).await,
            Err(error) => tracing::warn!(process = %process.id, %error, "a process cannot be started again"),
        }
    }
}

fn end(context: &Context, exit: io::Result<Exit>, stopped: Option<Stopped>, kills: Option<Kills>) -> End {
    let exit_code = exit.as_ref().ok().map(|exit| exit.code());
    let status = match (stopped, exit_code) {
        (_, None) => ProcessStatus::Error,
        (Some(_), _) => ProcessStatus::Killed,
        (None, Some(0)) => ProcessStatus::Completed,
        (None, Some(_)) => ProcessStatus::Failed,
    };
    // Only what died of SIGKILL can have met the limit: 128 + 9.
    let killed = stopped.is_none() && exit_code == Some(137);
    let error = exit.err().map(|error| {
        Box::new(ApiError::new(
            ErrorCode::ProcessError,
            format!("the process could not be waited for: {error}"),
        ))
    });
    End {
        status,
        exit_code,
        timed_out: stopped == Some(Stopped::TimedOut),
        oom: context
            .memory
            .as_ref()
            .filter(|_| killed)
            .zip(kills)
            .and_then(|(memory, kills)| memory.killed_since(kills)),
        error,
    }
}
