//! `sandcrab shell`

use crate::attached;
use crate::interrupt::Interrupts;
use crate::report::{Report, chain, name};
use anyhow::{Context as _, Result};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use sandcrab_client::api::SessionId;
use sandcrab_client::{ClientError, Sandbox, Session};
use std::io::IsTerminal as _;
use std::path::PathBuf;

type Lines = Editor<(), FileHistory>;

/// What the person did.
enum Typed {
    Line(String),
    /// Ctrl-C: never mind.
    Nothing,
    /// Ctrl-D.
    Leave,
}

pub(crate) async fn run(sandbox: &Sandbox, session: &SessionId, report: Report) -> Result<u8> {
    let session = sandbox.session(session.as_str())?;
    if !std::io::stdin().is_terminal() {
        let script = attached::stdin().await?;
        if script.trim().is_empty() {
            return Ok(0);
        }
        let interrupts = Interrupts::listen()?;
        return attached::run(sandbox, session.exec(script), &interrupts, report).await;
    }
    interactive(sandbox, &session, report).await
}

async fn interactive(sandbox: &Sandbox, session: &Session, report: Report) -> Result<u8> {
    let history = history_file();
    let mut lines = Lines::with_config(Config::builder().history_ignore_space(true).build())?;
    if let Some(file) = &history {
        // There is none before the first time.
        _ = lines.load_history(file);
    }
    let interrupts = Interrupts::listen()?;
    let mut status = 0;
    loop {
        let prompt = prompt(sandbox, session, status).await?;
        let command;
        (lines, command) = read_command(sandbox, lines, &prompt).await?;
        let command = match command {
            Typed::Leave => break,
            Typed::Nothing => continue,
            Typed::Line(command) if command.trim().is_empty() => continue,
            Typed::Line(command) => command,
        };
        lines.add_history_entry(command.as_str())?;
        status = match attached::run(sandbox, session.exec(command), &interrupts, report).await {
            Ok(status) => status,
            // What one command met does not end the shell; that the server is gone will show again.
            Err(error) => {
                report.failure(&error);
                crate::FAILED
            }
        };
    }
    if let Some(file) = &history {
        save(&mut lines, file).unwrap_or_else(|error| report.note(format!("history: {}", chain(&error))));
    }
    report.note(format!("left; session {} of sandbox {} lives on", session.id(), sandbox.id()));
    Ok(status)
}

async fn prompt(sandbox: &Sandbox, session: &Session, status: u8) -> Result<String> {
    let cwd = match session.info().await {
        Ok(info) => info.cwd,
        // Its first command makes it.
        Err(error) if error.code() == Some(sandcrab_client::api::ErrorCode::SessionNotFound) => {
            "/workspace".to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    let failed = if status == 0 { String::new() } else { format!(" [{status}]") };
    Ok(format!("{}:{}{failed}$ ", sandbox.id(), name(&cwd)))
}

/// Reads lines until they are a whole command.
async fn read_command(sandbox: &Sandbox, mut lines: Lines, prompt: &str) -> Result<(Lines, Typed)> {
    let mut command = String::new();
    loop {
        let prompt = if command.is_empty() { prompt.to_owned() } else { "> ".to_owned() };
        let line;
        (lines, line) = tokio::task::spawn_blocking(move || {
            let line = lines.readline(&prompt);
            (lines, line)
        })
        .await?;
        match line {
            Ok(line) => command += &line,
            Err(ReadlineError::Interrupted) => return Ok((lines, Typed::Nothing)),
            Err(ReadlineError::Eof) if command.is_empty() => return Ok((lines, Typed::Leave)),
            // As in bash: the end of input ends an unfinished command, which the shell then complains about.
            Err(ReadlineError::Eof) => return Ok((lines, Typed::Line(command))),
            Err(error) => return Err(error).context("read a line"),
        }
        if command.trim().is_empty() || !unfinished(sandbox, &command).await? {
            return Ok((lines, Typed::Line(command)));
        }
        command.push('\n');
    }
}

/// Whether a shell would read on: an open quote, a heredoc, a loop. Only a shell knows, so the sandbox's own is asked; it
/// parses the text and runs nothing.
async fn unfinished(sandbox: &Sandbox, command: &str) -> Result<bool, ClientError> {
    if command.ends_with('\\') {
        return Ok(true);
    }
    let parse = sandbox.exec("bash -n").fresh().stdin(command).env("LC_ALL", "C").await?;
    let complaint = parse.stderr_text();
    Ok(["unexpected end of file", "unexpected EOF while", "delimited by end-of-file"]
        .iter()
        .any(|sign| complaint.contains(sign)))
}

fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("sandcrab/history"))
}

fn save(lines: &mut Lines, file: &std::path::Path) -> Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    lines.save_history(file).with_context(|| format!("write {}", file.display()))
}
