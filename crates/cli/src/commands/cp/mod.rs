//! `sandcrab cp`

mod budget;
mod download;
mod rooted;
mod upload;

use super::{existing, handle};
use crate::interrupt::Interrupts;
use crate::plan::{Copy, Local};
use crate::report::Report;
use anyhow::{Context as _, Result, bail};
use sandcrab_client::api::ErrorCode;
use sandcrab_client::api::files::FileInfo;
use sandcrab_client::{Client, ClientError, ListOptions, Sandbox, WriteOptions};
use serde::Serialize;
use std::time::Duration;

/// Files in flight at a time: enough to hide the way to a server that is not on this machine.
const PARALLEL: usize = 8;

/// A sandbox may have put anything in a tool's place.
const TOOL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest target of a link is shorter (PATH_MAX).
const MAX_TOOL_OUTPUT: u64 = 8 << 10;

/// What was copied.
#[derive(Debug, Default, Serialize)]
struct Copied {
    files: u64,
    directories: u64,
    links: u64,
    bytes: u64,
    /// Entries that could not be copied; each was told of.
    #[serde(skip_serializing_if = "is_none")]
    skipped: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Copies, and gives the exit code. An interrupt ends the copy and takes away what is not whole.
pub(crate) async fn run(client: &Client, copy: Copy, report: Report) -> Result<u8> {
    let interrupts = Interrupts::listen()?;
    tokio::select! {
        outcome = perform(client, copy, report) => outcome,
        () = interrupts.reach(1) => Ok(interrupts.exit_code()),
    }
}

async fn perform(client: &Client, copy: Copy, report: Report) -> Result<u8> {
    let copied = match copy {
        Copy::In { from: Local::Pipe, to } => {
            let sandbox = handle(client, &to.sandbox)?;
            sandbox.files().write_from(&to.path, tokio::io::stdin(), WriteOptions::default()).await?;
            return Ok(0);
        }
        Copy::Out { from, to: Local::Pipe, .. } => {
            let sandbox = existing(client, &from.sandbox).await?;
            sandbox.files().read_to(&from.path, &mut tokio::io::stdout()).await?;
            return Ok(0);
        }
        Copy::In { from: Local::Path(from), to } => {
            upload::run(&handle(client, &to.sandbox)?, &from, &to.path, report).await?
        }
        Copy::Out { from, to: Local::Path(to), force } => {
            let sandbox = existing(client, &from.sandbox).await?;
            download::run(&sandbox, &from.path, &to, force, report).await?
        }
    };
    report.result(&copied, |_| String::new())?;
    Ok(if copied.skipped == 0 { 0 } else { crate::FAILED })
}

/// What stands at a path of a sandbox.
enum Remote {
    Nothing,
    File,
    Directory(Vec<FileInfo>),
}

/// Looks at a path; a directory comes with all that is in it, and below it if `recursive`.
async fn look(sandbox: &Sandbox, path: &str, recursive: bool) -> Result<Remote, ClientError> {
    match sandbox.files().list(path, ListOptions { recursive, include_hidden: true }).await {
        Ok(entries) => Ok(Remote::Directory(entries)),
        Err(error) => match error.code() {
            Some(ErrorCode::NotDirectory) => Ok(Remote::File),
            Some(ErrorCode::FileNotFound) => Ok(Remote::Nothing),
            _ => Err(error),
        },
    }
}

/// The last part of a path in a sandbox; none where it is no name.
fn base_name(path: &str) -> Option<&str> {
    path.trim_end_matches('/').rsplit('/').next().filter(|name| !matches!(*name, "" | "." | ".."))
}

/// A path below another.
fn below(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}

/// Runs a small tool of the sandbox, whose words are variables, so that none of them is read as shell text.
async fn tool<const N: usize>(sandbox: &Sandbox, text: &str, words: [(&str, &str); N]) -> Result<String> {
    let exec = sandbox.exec(text).fresh().timeout(TOOL_TIMEOUT).max_output(MAX_TOOL_OUTPUT);
    let exec = words.into_iter().fold(exec, |exec, (name, word)| exec.env(name, word));
    let output = exec.await?;
    if !output.success() {
        bail!("{text}: {}", output.stderr_text().trim());
    }
    String::from_utf8(output.stdout.to_vec()).with_context(|| format!("{text}: it wrote no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_last_part_of_a_path() {
        assert_eq!(base_name("/a/b"), Some("b"));
        assert_eq!(base_name("b/"), Some("b"));
        for none in ["/", ".", "..", "a/..", ""] {
            assert_eq!(base_name(none), None, "{none}");
        }
        assert_eq!(below("/", "x"), "/x");
    }
}
