//! A real `sandcrab serve` for a while: on a port that the kernel picks, with a key and a data folder of its own.

use crate::command::{cmd, tail, wait};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

/// A server that listens.
pub(crate) struct Server {
    child: Child,
    binary: PathBuf,
    data: PathBuf,
    log: PathBuf,
    // Kept open, since who speaks to a closed pipe is killed.
    _stdout: BufReader<ChildStdout>,
    /// Where it answers.
    pub(crate) url: String,
    /// The key that it accepts.
    pub(crate) key: String,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

impl Server {
    /// Starts it below `target/NAME`; returns once it says that it listens.
    pub(crate) fn start(ws: &Workspace, binary: &Path, name: &str) -> Result<Self> {
        let place = ws.target().join(name);
        let data = place.join("data");
        std::fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
        let log = place.join("server.log");
        let key = format!("key-of-the-server-for-{name}");
        let mut child = cmd(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--api-key", &key, "--data-dir"])
            .arg(&data)
            .spawn(Stdio::piped(), File::create(&log).context("create the server's log")?.into())?;
        let mut stdout = BufReader::new(child.stdout.take().context("the server's stdout is a pipe")?);
        let mut line = String::new();
        let url = loop {
            line.clear();
            if stdout.read_line(&mut line).context("read what the server says")? == 0 {
                let status = wait(&mut child, Duration::from_secs(10))?;
                bail!("the server ended before it listened ({status}):\n{}", tail(&log, 20));
            }
            if let Some(at) = line.find("http://") {
                break line[at..].split_whitespace().next().unwrap_or_default().to_owned();
            }
        };
        Ok(Self { child, binary: binary.to_owned(), data, log, _stdout: stdout, url, key })
    }

    /// A command of the CLI against this server.
    pub(crate) fn cli<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> crate::command::Cmd {
        cmd(&self.binary)
            .env("SANDCRAB_URL", &self.url)
            .env("SANDCRAB_API_KEY", &self.key)
            .args(args)
            .limit(Duration::from_secs(60))
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))
    }

    /// Destroys every sandbox, since those outlive a server, and ends it.
    pub(crate) fn stop(mut self) -> Result<()> {
        let listed = self.cli(["--json", "ls"]).read().context("list the sandboxes that are left")?;
        let sandboxes: Vec<Listed> = serde_json::from_str(&listed).context("read the list of sandboxes")?;
        if !sandboxes.is_empty() {
            let ids = sandboxes.iter().map(|sandbox| sandbox.id.as_str());
            self.cli(["rm", "--force", "--"].into_iter().chain(ids)).read()?;
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("tell the server to end")?;
        let status = wait(&mut self.child, Duration::from_secs(30)).context("wait for the server's end")?;
        if !status.success() {
            bail!("the server ended with {status}:\n{}", tail(&self.log, 20));
        }
        std::fs::remove_dir_all(&self.data).with_context(|| format!("remove {}", self.data.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` it is gone. Without it something failed already, and that is what is reported.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}
