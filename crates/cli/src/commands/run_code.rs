//! `sandcrab run-code`

use crate::attached;
use crate::interrupt::Interrupts;
use crate::plan::{CodePlan, Local};
use crate::report::{Report, visible};
use anyhow::{Context as _, Result};
use sandcrab_client::api::ErrorCode;
use sandcrab_client::api::code::{CodeError, CodeEvent, CodeResult};
use sandcrab_client::{ClientError, RunCode, Sandbox};
use std::borrow::Cow;
use std::io::IsTerminal;
use tokio::io::AsyncWriteExt as _;

/// The exit code for code that failed.
const FAILED: u8 = 1;
/// The exit code for code whose time was over, as of timeout(1).
const TIMED_OUT: u8 = 124;
/// The exit code of a program that writes into a pipe that nobody reads: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;

pub(crate) async fn run(sandbox: &Sandbox, plan: CodePlan, report: Report) -> Result<u8> {
    let code = match &plan.source {
        Local::Pipe => attached::stdin().await?,
        Local::Path(path) => {
            tokio::fs::read_to_string(path).await.with_context(|| format!("read {}", path.display()))?
        }
    };
    let run = prepare(sandbox, &plan, code)?;
    let id = run.id().clone();
    let interrupts = Interrupts::listen()?;
    let work = async {
        match report.json {
            true => whole(run, report).await,
            false => stream(sandbox, run).await,
        }
    };
    let stop = async {
        interrupts.reach(1).await;
        match sandbox.cancel_run(&id).await {
            // The signal may have overtaken the run itself.
            Err(error) if error.code() == Some(ErrorCode::ExecNotFound) => {}
            outcome => drop(outcome?),
        }
        interrupts.reach(2).await;
        Ok::<_, ClientError>(())
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        left = stop => {
            left?;
            report.note("left the code before its end");
            Ok(interrupts.exit_code())
        }
    };
    if interrupts.count() > 0 { Ok(interrupts.exit_code()) } else { outcome }
}

fn prepare(sandbox: &Sandbox, plan: &CodePlan, code: String) -> Result<RunCode> {
    let mut run = match &plan.session {
        Some(session) => sandbox.session(session.as_str())?.run_code(code),
        None => sandbox.run_code(code),
    };
    if let Some(language) = plan.language {
        run = run.language(language);
    }
    if let Some(context) = &plan.context {
        run = run.context(context.clone());
    }
    if let Some(timeout) = plan.timeout {
        run = run.timeout(timeout);
    }
    for (name, value) in &plan.env {
        run = run.env(name, value);
    }
    Ok(run)
}

async fn whole(run: RunCode, report: Report) -> Result<u8> {
    let result = run.await?;
    report.result(&result, |_| String::new())?;
    Ok(exit_code(result.outcome.error.as_ref()))
}

fn exit_code(error: Option<&CodeError>) -> u8 {
    match error {
        None => 0,
        Some(error) if error.name == "TimeoutError" => TIMED_OUT,
        Some(_) => FAILED,
    }
}

async fn stream(sandbox: &Sandbox, run: RunCode) -> Result<u8> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut events = run.stream().await?;
    let mut code = None;
    while let Some(event) = events.next().await {
        let written = match event? {
            CodeEvent::Stdout { text } => write(&mut stdout, &printed(&text, &std::io::stdout())).await,
            CodeEvent::Stderr { text } => write(&mut stderr, &printed(&text, &std::io::stderr())).await,
            CodeEvent::Result(result) => write(&mut stdout, &visible(&shown(&result))).await,
            CodeEvent::ExecutionComplete { outcome, .. } => {
                code = Some(0);
                write(&mut stderr, lost(outcome.context_restarted)).await
            }
            CodeEvent::Error { ename, evalue, traceback, outcome, .. } => {
                code = Some(exit_code(outcome.as_ref().and_then(|outcome| outcome.error.as_ref())));
                let last = format!("{ename}: {evalue}");
                let told = traceback.last().is_some_and(|line| *line == last);
                let lines = traceback.into_iter().chain((!told).then_some(last));
                let text = lines.map(|line| line + "\n").collect::<String>();
                let restarted = outcome.is_some_and(|outcome| outcome.context_restarted);
                write(&mut stderr, &(visible(&text) + lost(restarted))).await
            }
            CodeEvent::Start { .. } => Ok(()),
        };
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                // A local program would have died of it.
                sandbox.cancel_run(events.run_id()).await?;
                return Ok(BROKEN_PIPE);
            }
            Err(error) => return Err(error).context("write the code's output"),
        }
    }
    code.context("the run's stream ended without its end")
}

/// What the code has printed: exactly that into a file or pipe, and nothing that drives a terminal on one.
fn printed<'a>(text: &'a str, to: &impl IsTerminal) -> Cow<'a, str> {
    if to.is_terminal() { visible(text) } else { text.into() }
}

fn lost(restarted: bool) -> &'static str {
    if restarted {
        "sandcrab: the interpreter was started anew; what earlier runs left in it is lost\n"
    } else {
        ""
    }
}

/// A result on a terminal: its text, else which forms it has.
fn shown(result: &CodeResult) -> String {
    if let Some(text) = &result.text {
        return format!("{text}\n");
    }
    let fields = serde_json::to_value(result).unwrap_or_default();
    let forms: Vec<_> = fields.as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
    format!("[{}]\n", forms.join(", "))
}

async fn write(to: &mut (impl tokio::io::AsyncWrite + Unpin), text: &str) -> std::io::Result<()> {
    to.write_all(text.as_bytes()).await?;
    to.flush().await
}
