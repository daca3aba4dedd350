//! One server for all tests, and processes of the command line that cannot hang.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

/// Longer than anything here takes: a process that hangs fails its test instead. The first use of the server builds the
/// host image.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const KEY: &str = "key-of-the-tests";

/// Tests share the server; one that ends it has it for itself.
static TURN: RwLock<()> = RwLock::new(());
static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());

pub(crate) struct Server {
    pub(crate) url: String,
    process: Mutex<Child>,
}

/// Kept between runs of the tests: it holds the host image, which takes seconds to build.
pub(crate) fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-e2e")
}

pub(crate) fn program() -> Command {
    #[expect(clippy::disallowed_methods, reason = "these tests are about processes")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcrab"));
    command.env_remove("SANDCRAB_URL").env_remove("SANDCRAB_API_KEY").env("SANDCRAB_DATA_DIR", data_dir());
    command
}

/// A program of this machine that a user would prepare something with.
pub(crate) fn tool(name: &str) -> Command {
    #[expect(clippy::disallowed_methods, reason = "these tests are about processes")]
    Command::new(name)
}

impl Server {
    /// Starts a server and waits until it says where it listens.
    pub(crate) fn start(listen: &str) -> Arc<Self> {
        Self::start_with(listen, &[])
    }

    /// As [`Self::start`], with more variables.
    pub(crate) fn start_with(listen: &str, env: &[(&str, &str)]) -> Arc<Self> {
        assert!(rustix::process::geteuid().is_root(), "these tests need root, for the native driver");
        let mut process = program()
            .envs(env.iter().copied())
            .args(["serve", "--json", "--log", "warn", "--listen", listen, "--api-key", KEY])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("the server did not start in {} or {env:?}; does another use it?", data_dir().display())
        });
        let url = started["url"].as_str().unwrap().to_owned();
        Arc::new(Self { url, process: Mutex::new(process) })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Ends it without a chance to tidy up.
    pub(crate) fn kill(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server, and ways to call it.
pub(crate) struct Rig {
    pub(crate) server: Arc<Server>,
    _turn: RwLockReadGuard<'static, ()>,
}

impl Rig {
    /// The Rust client of this server.
    pub(crate) fn client(&self) -> sandcrab_client::Client {
        let options = sandcrab_client::ClientOptions::new(&self.server.url).api_key(KEY);
        sandcrab_client::Client::new(options).unwrap()
    }

    pub(crate) fn new() -> Self {
        let turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
        let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        let server = shared.upgrade().unwrap_or_else(|| Server::start("127.0.0.1:0"));
        *shared = Arc::downgrade(&server);
        Self { server, _turn: turn }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        command(&self.server.url, arguments)
    }

    /// Runs the command line to its end, with nothing on stdin.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Done {
        self.cli_with(arguments, b"")
    }

    pub(crate) fn cli_with(&self, arguments: &[&str], stdin: &[u8]) -> Done {
        let mut running = Running::start(&mut self.command(arguments));
        running.stdin.take().unwrap().write_all(stdin).unwrap();
        running.done()
    }

    /// A sandbox id of this test alone; destroyed at its end.
    pub(crate) fn sandbox(&self) -> Sandbox {
        sandbox(&self.server)
    }
}

pub(crate) fn command(url: &str, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments).env("SANDCRAB_URL", url).env("SANDCRAB_API_KEY", KEY);
    command
}

pub(crate) fn sandbox(server: &Arc<Server>) -> Sandbox {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let id = format!("e2e-{}-{number}", std::process::id());
    Sandbox { id, url: server.url.clone(), _server: Arc::clone(server) }
}

/// The Rust client of a server, for what the command line has no word for.
pub(crate) fn client(url: &str) -> sandcrab_client::Client {
    sandcrab_client::Client::new(sandcrab_client::ClientOptions::new(url).api_key(KEY)).unwrap()
}

/// Runs a future to its end, which must come.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it does not end") })
}

/// Keeps all other tests away, and with them the shared server.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Sandbox {
    pub(crate) id: String,
    url: String,
    _server: Arc<Server>,
}

impl Sandbox {
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}:{path}", self.id)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let removed = command(&self.url, &["rm", "-f", &self.id]).stdout(Stdio::null()).status();
        if !std::thread::panicking() {
            assert!(removed.unwrap().success());
        }
    }
}

/// A finished process.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// What it printed, if all went well.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code(), 0, "{self:?}");
        self.text()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn failed(&self, part: &str) {
        assert_eq!(self.code(), 125, "{self:?}");
        assert!(self.stderr.contains(part), "{part}: {self:?}");
    }
}

/// A process whose output is read as it comes.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    errors: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    /// Up to where it was waited for.
    met: usize,
    until: Instant,
}

fn read_on(mut from: impl std::io::Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Drop for Running {
    /// A test that failed half-way leaves nothing running.
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = read_on(child.stdout.take().unwrap());
        let errors = read_on(child.stderr.take().unwrap());
        let stdin = child.stdin.take();
        Self { child, stdin, output, errors, seen: Vec::new(), met: 0, until: Instant::now() + PATIENCE }
    }

    /// Gives it more time than others need.
    pub(crate) fn patiently(mut self, time: Duration) -> Self {
        self.until = Instant::now() + time;
        self
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits until this stands in stdout, behind what was waited for before.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        loop {
            let found = self.seen[self.met..].windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(at) = found {
                self.met += at + text.len();
                return;
            }
            match self.output.recv_timeout(self.left()) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(error) => {
                    _ = self.child.kill();
                    let errors: Vec<u8> = self.errors.iter().flatten().collect();
                    let (seen, errors) =
                        (String::from_utf8_lossy(&self.seen), String::from_utf8_lossy(&errors));
                    panic!("waited for {text:?}: {error}\n{seen}\n{errors}");
                }
            }
        }
    }

    /// What comes between what was waited for and `end`.
    #[track_caller]
    pub(crate) fn text_until(&mut self, end: &str) -> String {
        let from = self.met;
        self.wait_for(end);
        String::from_utf8(self.seen[from..self.met - end.len()].to_vec()).unwrap()
    }

    /// Sends what was typed.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn done(mut self) -> Done {
        drop(self.stdin.take());
        let (mut stdout, mut stderr) = (std::mem::take(&mut self.seen), Vec::new());
        for (receiver, into) in [(&self.output, &mut stdout), (&self.errors, &mut stderr)] {
            loop {
                match receiver.recv_timeout(self.left()) {
                    Ok(bytes) => into.extend(bytes),
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                        _ = self.child.kill();
                        panic!("it did not end; so far: {}", String::from_utf8_lossy(into));
                    }
                }
            }
        }
        let status = self.child.wait().unwrap();
        Done { status, stdout, stderr: String::from_utf8(stderr).unwrap() }
    }

    /// Stops listening to its stdout, as `head` does when it has enough.
    pub(crate) fn hang_up(command: &mut Command, after: usize) -> ExitStatus {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut vec![0; after]).unwrap();
        drop(stdout);
        Self {
            stdin: None,
            output: channel().1,
            errors: channel().1,
            seen: Vec::new(),
            met: 0,
            until: Instant::now(),
            child,
        }
        .child
        .wait()
        .unwrap()
    }
}
