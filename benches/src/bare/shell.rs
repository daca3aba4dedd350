//! A persistent bash over pipes: each command with two fresh FIFOs for its output, and a status line on a descriptor of
//! its own. It keeps none of the contract's promises and shows what the shell itself costs.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{Mode, OFlags, mkfifoat, open};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A bash that waits for commands.
pub(crate) struct Shell {
    child: Child,
    stdin: ChildStdin,
    status: BufReader<ChildStdout>,
    fifos: PathBuf,
    count: u64,
}

impl Shell {
    /// Starts it; FIFOs are made in `fifos`.
    pub(crate) fn start(fifos: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&fifos).context("create the folder of the FIFOs")?;
        let mut child = bash()
            .args(["--norc", "--noprofile"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start bash")?;
        let stdin = child.stdin.take().context("bash's stdin")?;
        let status = BufReader::new(child.stdout.take().context("bash's stdout")?);
        Ok(Self { child, stdin, status, fifos, count: 0 })
    }

    /// Runs one command; returns how long it took from handing it over to having its status and all its output.
    pub(crate) fn time(&mut self, command: &str) -> Result<Duration> {
        let begun = Instant::now();
        self.count += 1;
        let [out, err] = ["out", "err"].map(|name| self.fifos.join(format!("{}-{name}", self.count)));
        let read = |path: &PathBuf| -> Result<File> {
            mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR).context("make a FIFO")?;
            let fd = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
            Ok(fd.context("open a FIFO")?.into())
        };
        let (mut stdout, mut stderr) = (read(&out)?, read(&err)?);
        let line = format!("{{ {command}\n}} </dev/null >{} 2>{}; echo $?\n", out.display(), err.display());
        self.stdin.write_all(line.as_bytes()).context("hand bash a command")?;
        let mut status = String::new();
        self.status.read_line(&mut status).context("read a status")?;
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).context("read stdout")?;
        stderr.read_to_end(&mut output).context("read stderr")?;
        for path in [&out, &err] {
            std::fs::remove_file(path).context("remove a FIFO")?;
        }
        ensure!(status == "0\n", "`{command}` ended with {status:?}");
        Ok(begun.elapsed())
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        let status = child.wait().context("wait for bash")?;
        if !status.success() {
            bail!("bash ended with {status}");
        }
        Ok(())
    }
}

/// How long a bash takes that starts, does nothing and ends.
pub(crate) fn time_start() -> Result<Duration> {
    let begun = Instant::now();
    let status = bash().args(["--norc", "--noprofile", "-c", "true"]).stdin(Stdio::null()).status();
    ensure!(status.context("start bash")?.success(), "`bash -c true` failed");
    Ok(begun.elapsed())
}

/// How fast output of a command comes through a plain pipe.
pub(crate) fn time_pipe(command: &str, bytes: usize) -> Result<Duration> {
    let begun = Instant::now();
    let mut child = bash()
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start bash")?;
    let mut stdout = child.stdout.take().context("bash's stdout")?;
    let mut chunk = vec![0; 64 << 10];
    let mut seen = 0;
    loop {
        match stdout.read(&mut chunk).context("read from bash")? {
            0 => break,
            count => seen += count,
        }
    }
    ensure!(child.wait().context("wait for bash")?.success(), "`{command}` failed");
    ensure!(seen == bytes, "`{command}` wrote {seen} bytes instead of {bytes}");
    Ok(begun.elapsed())
}

fn bash() -> Command {
    #[expect(clippy::disallowed_methods, reason = "the bare limit is a bash")]
    let mut command = Command::new("bash");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}
