//! A real server for the run: its own data folder and key, on a port that the kernel picks.

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running `sandcrab serve`.
pub(crate) struct Server {
    child: Child,
    // Kept open: a server that speaks to a closed pipe would be killed.
    _stdout: BufReader<ChildStdout>,
    /// Where it answers.
    pub(crate) url: String,
    /// The key that it accepts.
    pub(crate) key: String,
}

impl Server {
    /// Starts it and waits until it says that it listens.
    pub(crate) fn start(binary: &Path, data: &Path, log: &Path) -> Result<Self> {
        let key = format!("key-of-the-bench-{}", std::process::id());
        let log = std::fs::File::create(log).context("create the server's log")?;
        #[expect(clippy::disallowed_methods, reason = "the bench starts the server that it measures")]
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--api-key", &key, "--data-dir"]).arg(data);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().context("the server's stdout")?);
        let mut line = String::new();
        loop {
            line.clear();
            if stdout.read_line(&mut line).context("read what the server says")? == 0 {
                bail!("the server ended before it listened: {}", child.wait().context("wait for it")?);
            }
            if let Some(at) = line.find("http://") {
                let url = line[at..].split_whitespace().next().unwrap_or_default().to_owned();
                return Ok(Self { child, _stdout: stdout, url, key });
            }
        }
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let address = self.url.trim_start_matches("http://").trim_end_matches('/');
        address.parse().with_context(|| format!("an address in {}", self.url))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that is already gone has nothing to be told.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
