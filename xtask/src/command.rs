//! Running other programs: stdin closed, a bound on the time of everything that could hang, output shown or kept in a
//! file, and errors that say which command failed and how.

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A command to be run.
pub(crate) struct Cmd {
    inner: Command,
    limit: Duration,
}

/// The option of `env` (coreutils) that comes before each program.
const DEFAULT_SIGNALS: &str = "--default-signal=INT,QUIT";

/// A command by the name or path of its program, with half an hour to finish.
pub(crate) fn cmd(program: impl AsRef<OsStr>) -> Cmd {
    #[expect(clippy::disallowed_methods, reason = "the one place where these commands start programs")]
    let mut inner = Command::new("env");
    // Run in the background by a script, this program ignores SIGINT and SIGQUIT; what it starts must not inherit that:
    // tests send these signals.
    inner.args([DEFAULT_SIGNALS.as_ref(), program.as_ref()]);
    inner.stdin(Stdio::null());
    Cmd { inner, limit: Duration::from_secs(30 * 60) }
}

impl Cmd {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.inner.args(args);
        self
    }

    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.inner.current_dir(dir);
        self
    }

    pub(crate) fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(key, value);
        self
    }

    /// How long it may take.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it with its output on the terminal. Anything but success is an error.
    pub(crate) fn run(mut self) -> Result<()> {
        let status = self.status()?;
        if !status.success() {
            bail!("`{}` failed: {status}", self.shown());
        }
        Ok(())
    }

    /// Runs it with its output in `log`. Anything but success is an error that shows the log's end.
    pub(crate) fn run_logged(mut self, log: &Path) -> Result<()> {
        let status = self.status_logged(log)?;
        if !status.success() {
            bail!("`{}` failed: {status}\n{}\n(all of it: {})", self.shown(), tail(log, 40), log.display());
        }
        Ok(())
    }

    /// Runs it with its output in `log` and returns how it ended.
    pub(crate) fn status_logged(&mut self, log: &Path) -> Result<ExitStatus> {
        if let Some(dir) = log.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let out = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let err = out.try_clone().with_context(|| format!("duplicate the handle of {}", log.display()))?;
        self.inner.stdout(out).stderr(err);
        self.status()
    }

    /// Runs it with its output on the terminal and returns how it ended.
    pub(crate) fn status(&mut self) -> Result<ExitStatus> {
        let mut child = self.start()?;
        wait(&mut child, self.limit).with_context(|| format!("`{}`", self.shown()))
    }

    /// Runs it and returns what it wrote to stdout, which must be UTF-8. Its stderr goes to the terminal.
    pub(crate) fn read(mut self) -> Result<String> {
        let out = self.inner.stderr(Stdio::inherit()).output();
        let out = out.with_context(|| format!("start `{}`", self.shown()))?;
        if !out.status.success() {
            bail!("`{}` failed: {}", self.shown(), out.status);
        }
        String::from_utf8(out.stdout).with_context(|| format!("`{}` wrote no UTF-8", self.shown()))
    }

    /// Starts it with stdout as given; the caller waits for it.
    pub(crate) fn spawn(mut self, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        self.inner.stdout(stdout).stderr(stderr);
        self.start()
    }

    fn start(&mut self) -> Result<Child> {
        self.inner.spawn().with_context(|| format!("start `{}`", self.shown()))
    }

    /// The command as a person would type it.
    fn shown(&self) -> String {
        self.inner.get_args().skip(1).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

/// Waits for the child's end; past the limit it is killed, which is an error.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    if !ended_within(child, limit)? {
        child.kill().context("kill a command that took too long")?;
        child.wait().context("wait for a command that was killed")?;
        bail!("not done after {} s, killed", limit.as_secs());
    }
    child.wait().context("wait for a command")
}

/// Waits for the child's end as long as the limit; leaves it running otherwise.
pub(crate) fn ended_within(child: &Child, limit: Duration) -> Result<bool> {
    let pidfd =
        pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("open a handle of a command")?;
    let limit = Timespec::try_from(limit).context("a limit that fits the kernel's clock")?;
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for a command"),
        }
    }
}

/// The last lines of a file, for an error message.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Where a program lies, if PATH has it.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}
