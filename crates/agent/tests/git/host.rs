//! Git hosts: `tests/git/server.py` over http and https, and git's own daemon.

use crate::common::Sandbox;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The password that the host knows.
pub(crate) const PASSWORD: &str = "s3cret/p@ss wörd";
const PATIENCE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "these tests are about programs")]
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    // Nothing of the machine's own configuration, and no prompt.
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent").env("GIT_TERMINAL_PROMPT", "0");
    command
}

/// Runs a shell script in `directory`; it must succeed.
#[track_caller]
pub(crate) fn sh(directory: &Path, script: &str) -> String {
    let done = program("bash").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Makes bare repositories in `root`: `r` with three commits, the branches main, dev and the tag v1; `empty`.
fn repositories(root: &Path) {
    sh(
        root,
        "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@localhost GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@localhost
        git init -q -b main work; cd work
        for n in 1 2 3; do echo $n > file; git add file; git commit -qm $n; done
        git tag v1 HEAD~1; git branch dev HEAD~2; cd ..
        git clone -q --bare work r.git; git -C r.git config uploadpack.allowFilter true; rm -r work
        git init -q --bare -b trunk empty.git",
    );
}

/// A git host that ends with this value.
pub(crate) struct Host {
    server: Child,
    gate: ChildStdin,
    lines: UnboundedReceiver<String>,
    port: String,
    scheme: &'static str,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) root: tempfile::TempDir,
}

impl Host {
    pub(crate) fn http() -> Self {
        Self::start("http", "")
    }

    pub(crate) fn https() -> Self {
        Self::start("https", "")
    }

    /// A host whose `/moved/…` leads to another.
    pub(crate) fn moved_to(url: &str) -> Self {
        Self::start("http", url)
    }

    fn start(scheme: &'static str, moved_to: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        repositories(root.path());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/git/server.py");
        let mut server = program("python3")
            .arg(script)
            .arg(root.path())
            .args((scheme == "https").then_some("--tls"))
            .env("GIT_PASSWORD", PASSWORD)
            .env("GIT_MOVED_TO", moved_to)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
        let gate = server.stdin.take().unwrap();
        let mut ca = None;
        let port = loop {
            let line = output.next().expect("the host did not start");
            match line.split_once(' ') {
                Some(("ca", file)) => ca = Some(file.into()),
                Some(("listening", port)) => break port.to_owned(),
                _ => panic!("{line}"),
            }
        };
        let (sender, lines) = unbounded_channel();
        std::thread::spawn(move || {
            output.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop)
        });
        Self { server, gate, lines, port, scheme, ca, root }
    }

    pub(crate) fn origin(&self) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.scheme, self.port)
    }

    /// The URL of a repository: `open/r`, `private/r`, …
    pub(crate) fn url(&self, repository: &str) -> String {
        format!("{}/{repository}.git", self.origin())
    }

    /// Waits until the host has a request like this.
    pub(crate) async fn asked(&mut self, what: &str) {
        loop {
            let line =
                tokio::time::timeout(PATIENCE, self.lines.recv()).await.expect("the host was not asked");
            if line.expect("the host ended").contains(what) {
                return;
            }
        }
    }

    /// The requests that came since this was last asked.
    pub(crate) async fn requests(&mut self) -> Vec<String> {
        // One more request, which is told after all that were answered before.
        let mut connection = std::net::TcpStream::connect(self.origin().rsplit('/').next().unwrap()).unwrap();
        connection.write_all(b"GET /page/mark HTTP/1.0\r\n\r\n").unwrap();
        let mut lines = Vec::new();
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await.unwrap().unwrap();
            if line.contains("/page/mark") {
                return lines;
            }
            lines.push(line);
        }
    }

    /// Lets so many requests through the gate.
    pub(crate) fn open_gate(&mut self, times: usize) {
        self.gate.write_all("\n".repeat(times).as_bytes()).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        if let Some(directory) = self.ca.as_deref().and_then(Path::parent) {
            std::fs::remove_dir_all(directory).unwrap();
        }
    }
}

/// The repositories of `root` by git's own protocol; gives the port. One daemon for each connection, as inetd has it.
pub(crate) fn git_daemon(root: &Path) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let base = format!("--base-path={}", root.display());
    std::thread::spawn(move || {
        // The thread ends with the tests.
        while let Ok((connection, _)) = listener.accept() {
            let output = std::os::fd::OwnedFd::from(connection.try_clone().unwrap());
            let mut daemon = program("git");
            daemon.args(["daemon", "--inetd", "--export-all", &base]);
            daemon.stdin(std::os::fd::OwnedFd::from(connection)).stdout(output).stderr(Stdio::null());
            daemon.status().unwrap();
        }
    });
    port
}

impl Sandbox {
    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    pub(crate) async fn try_checkout(&self, request: Value) -> (StatusCode, Value) {
        self.call("POST", "/git/checkout", Some(&request)).await
    }

    /// A checkout that must succeed.
    pub(crate) async fn checkout(&self, request: Value) -> Value {
        let (status, answer) = self.try_checkout(request.clone()).await;
        assert_eq!(status, StatusCode::OK, "{request} -> {answer}");
        answer
    }

    /// A checkout that must fail with this code; gives the error.
    pub(crate) async fn refused(&self, code: &str, request: Value) -> Value {
        let (status, error) = self.try_checkout(request.clone()).await;
        assert_eq!(error["code"], code, "{request} -> {error}");
        assert_eq!(error["httpStatus"], json!(status.as_u16()));
        assert_eq!(error["operation"], "gitCheckout");
        error
    }

    /// Names in the workspace.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.workspace()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}
