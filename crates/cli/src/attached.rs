//! A command run as if it ran here: its output is this process's output, its end is this process's end.

use crate::interrupt::Interrupts;
use crate::plan::CommandPlan;
use crate::report::{Report, chain};
use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use sandcrab_client::api::exec::OutputEncoding;
use sandcrab_client::api::limits::MAX_STDIN_BYTES;
use sandcrab_client::api::{ErrorCode, ExecId};
use sandcrab_client::{ClientError, Exec, ExecEvent, ExecInput, ExecOutput, Sandbox};
use serde_json::json;
use std::io::Read as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

/// The exit code for a command whose time was over, as of timeout(1).
const TIMED_OUT: u8 = 124;
/// The exit code of a program that writes into a pipe that nobody reads: 128 + SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// How much of stdin is passed on at once, in bytes.
const PIECE: usize = 64 << 10;

/// Gives a command what was typed for it.
pub(crate) fn prepare(mut exec: Exec, plan: &CommandPlan) -> Exec {
    for (name, value) in &plan.env {
        exec = exec.env(name, value);
    }
    if let Some(cwd) = &plan.cwd {
        exec = exec.cwd(cwd);
    }
    if let Some(timeout) = plan.timeout {
        exec = exec.timeout(timeout);
    }
    // Not read otherwise: what a program that started this one left open there is not the command's.
    if plan.interactive { exec.interactive() } else { exec }
}

/// Passes stdin on, byte for byte as it comes, until it ends or the command reads no more. What is typed ahead is lost with
/// the command, as at a shell's prompt.
async fn feed(mut input: ExecInput, report: Report) {
    let mut stdin = tokio::io::stdin();
    loop {
        let mut bytes = Vec::with_capacity(PIECE);
        let written = match stdin.read_buf(&mut bytes).await {
            Ok(1..) => input.write(bytes).await,
            Ok(0) => return told(input.end().await, report),
            Err(error) => {
                report.note(format_args!("read stdin: {error}"));
                return told(input.end().await, report);
            }
        };
        if written.is_err() {
            return told(written, report);
        }
    }
}

fn told(written: Result<(), ClientError>, report: Report) {
    match written {
        // It has ended, or let its stdin be: that is its own business. What was lost with it, its end tells.
        Err(error) if matches!(error.code(), Some(ErrorCode::ExecStdinClosed | ErrorCode::ExecNotFound)) => {}
        Err(error) => report.note(format_args!("pass stdin on: {}", chain(&error.into()))),
        Ok(()) => {}
    }
}

/// All of stdin, as the text of a program; that of a terminal ends with Ctrl-D.
pub(crate) async fn stdin() -> Result<String> {
    let read = || {
        let mut bytes = Vec::new();
        let bound = MAX_STDIN_BYTES as u64 + 1;
        std::io::stdin().lock().take(bound).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = tokio::task::spawn_blocking(read).await?.context("read stdin")?;
    if bytes.len() > MAX_STDIN_BYTES {
        bail!(
            "stdin is longer than {MAX_STDIN_BYTES} bytes: bring it in with `sandcrab cp - SANDBOX:/path` and redirect from there"
        );
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => bail!(
            "stdin is no UTF-8 text: bring it in with `sandcrab cp - SANDBOX:/path` and redirect from there"
        ),
    }
}

/// Runs a command to its end and gives its exit code. An interrupt cancels it; a second one leaves it.
pub(crate) async fn run(
    sandbox: &Sandbox,
    exec: Exec,
    interrupts: &Interrupts,
    report: Report,
) -> Result<u8> {
    let id = exec.id().clone();
    let (opened, is_open) = watch::channel(false);
    let work = async {
        match report.json {
            true => result(sandbox, exec, &opened, report).await,
            false => stream(sandbox, exec, &opened, report).await,
        }
    };
    attend(sandbox, &id, is_open, work, interrupts, report).await
}

/// Waits for `work`, the command of this id. An interrupt cancels the command; a second one leaves it. `is_open` says
/// when the server is sure to know it.
pub(crate) async fn attend(
    sandbox: &Sandbox,
    id: &ExecId,
    mut is_open: watch::Receiver<bool>,
    work: impl Future<Output = Result<u8>>,
    interrupts: &Interrupts,
    report: Report,
) -> Result<u8> {
    let before = interrupts.count();
    let stop = async {
        interrupts.reach(before + 1).await;
        if let Err(error) = sandbox.cancel(id).await {
            // The signal may have overtaken the command itself.
            if error.code() == Some(ErrorCode::ExecNotFound) && is_open.wait_for(|open| *open).await.is_ok() {
                sandbox.cancel(id).await.map(drop)?;
            } else {
                report.note(format_args!("cancel the command: {}", chain(&error.into())));
            }
        }
        interrupts.reach(before + 2).await;
        Ok::<_, ClientError>(())
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        left = stop => {
            left?;
            report.note("left the command before its end");
            Ok(interrupts.exit_code())
        }
    };
    match outcome {
        _ if interrupts.count() > before => Ok(interrupts.exit_code()),
        Err(error) if is_timeout(&error) => {
            report.failure(&error);
            Ok(TIMED_OUT)
        }
        outcome => outcome,
    }
}

fn is_timeout(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().and_then(ClientError::code) == Some(ErrorCode::CommandTimeout)
}

/// A status as a process can have it: a shell knows no others either.
pub(crate) fn code(exit_code: i32) -> u8 {
    u8::try_from(exit_code & 0xff).unwrap_or(u8::MAX)
}

async fn stream(sandbox: &Sandbox, exec: Exec, opened: &watch::Sender<bool>, report: Report) -> Result<u8> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let is_interactive = exec.is_interactive();
    let mut events = exec.stream().await?;
    opened.send_replace(true);
    if is_interactive {
        // Left alone at the end: a terminal is read until someone types.
        tokio::spawn(feed(sandbox.exec_input(events.exec_id()), report));
    }
    let mut status = None;
    while let Some(event) = events.next().await {
        let written = match event? {
            ExecEvent::Stdout(bytes) => write(&mut stdout, &bytes).await,
            ExecEvent::Stderr(bytes) => write(&mut stderr, &bytes).await,
            ExecEvent::Dropped { stream, bytes } => {
                write(
                    &mut stderr,
                    format!("sandcrab: {bytes} bytes of {stream:?} were dropped here\n").as_bytes(),
                )
                .await
            }
            ExecEvent::Complete(outcome) => {
                status = Some(outcome.exit_code);
                Ok(())
            }
            _ => Ok(()),
        };
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                // A local command would have died of it.
                sandbox.cancel(events.exec_id()).await?;
                return Ok(BROKEN_PIPE);
            }
            Err(error) => return Err(error).context("write the command's output"),
        }
    }
    status.map(code).context("the command's stream ended without its end")
}

pub(crate) async fn write(
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    bytes: &[u8],
) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

async fn result(sandbox: &Sandbox, exec: Exec, opened: &watch::Sender<bool>, report: Report) -> Result<u8> {
    let output = if exec.is_interactive() {
        let id = exec.id().clone();
        let begun = exec.stream().await?;
        opened.send_replace(true);
        tokio::spawn(feed(sandbox.exec_input(&id), report));
        // Nobody follows it: it need not wait for a reader.
        drop(begun);
        sandbox.exec_result(&id).await?
    } else {
        // The whole answer comes at once; from here on the server may know the command.
        opened.send_replace(true);
        exec.await?
    };
    report.result(&as_json(&output)?, |json| json.to_string())?;
    Ok(code(output.exit_code()))
}

/// A result as the API writes it: text where both streams are text, else base64.
fn as_json(output: &ExecOutput) -> Result<serde_json::Value> {
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let (encoding, stdout, stderr) =
        match (std::str::from_utf8(&output.stdout), std::str::from_utf8(&output.stderr)) {
            (Ok(stdout), Ok(stderr)) => (OutputEncoding::Utf8, stdout.to_owned(), stderr.to_owned()),
            _ => (OutputEncoding::Base64, base64(&output.stdout), base64(&output.stderr)),
        };
    let mut json = serde_json::to_value(&output.outcome)?;
    let more = json!({
        "success": output.success(),
        "command": output.command,
        "execId": output.exec_id,
        "sessionId": output.session_id,
        "timestamp": output.timestamp,
        "encoding": encoding,
        "stdout": stdout,
        "stderr": stderr,
    });
    if let (Some(json), serde_json::Value::Object(more)) = (json.as_object_mut(), more) {
        json.extend(more);
    }
    Ok(json)
}
