//! A real agent in this process, called through its own router.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use sandcrab_agent::Agent;
use sandcrab_api::launch::{AgentConfig, UserIdentity};
use sandcrab_api::{SandboxId, SessionId};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tower::ServiceExt;

/// Longer than anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Sandbox {
    app: axum::Router,
    agent: Arc<Agent>,
    pub(crate) dir: tempfile::TempDir,
    /// The delegated cgroup, removed behind everything else.
    cgroup: Option<Cgroup>,
}

/// A cgroup2 directory of one test's own.
struct Cgroup(PathBuf, File);

impl Cgroup {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1).zip(line.split(' ').nth(2)))
            .find_map(|(at, kind)| (kind == "cgroup2").then_some(at))
            .expect("this test needs a cgroup2 mount");
        let name =
            format!("sandcrab-agent-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(root).join(name);
        std::fs::create_dir(&path).expect("this test needs root, to make a cgroup");
        let file = File::open(&path).unwrap();
        Self(path, file)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What a failed test left behind ends with it.
        let groups = std::fs::read_dir(&self.0).unwrap().filter_map(Result::ok);
        for group in groups.filter(|entry| entry.path().is_dir()) {
            std::fs::write(group.path().join("cgroup.kill"), "1").unwrap();
            while std::fs::remove_dir(group.path()).is_err_and(|error| error.raw_os_error() == Some(16)) {
                std::thread::yield_now();
            }
        }
        std::fs::remove_dir(&self.0).unwrap();
    }
}

impl Sandbox {
    /// An agent whose sessions run as the user that runs the test, without isolation.
    pub(crate) fn start() -> Self {
        Self::with(None)
    }

    /// How many cgroups the agent has for its processes; none without a delegated one.
    pub(crate) fn groups(&self) -> usize {
        let entries = self.cgroup.iter().flat_map(|cgroup| std::fs::read_dir(&cgroup.0).unwrap());
        entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
    }

    /// The same, with cgroups for its processes as in a real sandbox.
    pub(crate) fn start_in_cgroup() -> Self {
        Self::with(Some(Cgroup::new()))
    }

    fn with(cgroup: Option<Cgroup>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("workspace");
        std::fs::create_dir(&workspace).unwrap();
        // The agent takes a copy.
        let spool = std::fs::File::open(dir.path()).unwrap();
        let config = AgentConfig {
            sandbox_id: SandboxId::parse("test").unwrap(),
            listen_fd: -1,
            identity: UserIdentity {
                capabilities: u64::MAX,
                cgroup_fd: cgroup.as_ref().map(|cgroup| cgroup.1.as_raw_fd()),
                ..UserIdentity::default()
            },
            env: [
                ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
                ("LANG", "C.UTF-8"),
                ("TERM", "dumb"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            workspace: workspace.to_str().unwrap().to_owned(),
            spool_fd: spool.as_raw_fd(),
            memory_cgroup_fd: None,
            hindered: Vec::new(),
            ptrace_fd: None,
            socket_bound: None,
        };
        let agent = Agent::start(&config).unwrap();
        Self { app: sandcrab_agent::http::app(Arc::clone(&agent)), agent, dir, cgroup }
    }

    /// The processes in it, where it has a cgroup.
    pub(crate) fn processes(&self) -> Vec<String> {
        let Cgroup(path, _) = self.cgroup.as_ref().expect("a sandbox with a cgroup");
        let groups = std::fs::read_dir(path).unwrap().filter_map(Result::ok);
        // A group may go between the listing and the look at it.
        let lists =
            groups.filter_map(|group| std::fs::read_to_string(group.path().join("cgroup.procs")).ok());
        lists.flat_map(|list| list.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// Waits until there are so many; the kernel does not tell of them.
    pub(crate) async fn until_processes(&self, count: usize) -> Vec<String> {
        let reached = async {
            loop {
                let now = self.processes();
                if now.len() == count {
                    return now;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("the processes in time")
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some(json) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(json.to_string()))
                .unwrap(),
            None => request.body(Body::empty()).unwrap(),
        };
        let answer = self.app.clone().oneshot(request);
        tokio::time::timeout(PATIENCE, answer).await.expect("no answer in time").unwrap()
    }

    /// Serves the agent on loopback, for what no single call can do; gives the address.
    pub(crate) async fn serve(&self) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = self.app.clone();
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    pub(crate) async fn request(&self, request: Request<Body>) -> Response {
        let answer = self.app.clone().oneshot(request);
        tokio::time::timeout(PATIENCE, answer).await.expect("no answer in time").unwrap()
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let response = self.send(method, path, body).await;
        let status = response.status();
        let bytes =
            tokio::time::timeout(PATIENCE, response.into_body().collect()).await.expect("no end in time");
        let bytes = bytes.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {bytes:?}")))
    }

    /// `exec` that must succeed as a call.
    pub(crate) async fn exec_with(&self, request: Value) -> Value {
        let (status, answer) = self.call("POST", "/exec", Some(&request)).await;
        assert_eq!(status, StatusCode::OK, "{request} -> {answer}");
        answer
    }

    pub(crate) async fn exec(&self, session: &str, command: &str) -> Value {
        self.exec_with(json!({ "command": command, "sessionId": session })).await
    }

    /// Where a program of this session begins: its directory, and a variable's value by its name.
    pub(crate) async fn start_point(&self, session: Option<&str>) -> (String, HashMap<String, String>) {
        let id = session.map(|id| SessionId::parse(id).unwrap());
        let point = self.agent.start_point(id.as_ref()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let variables = point.environment.into_iter().map(|(name, value)| (text(name), text(value)));
        (point.cwd.to_str().unwrap().to_owned(), variables.collect())
    }

    pub(crate) async fn stdout(&self, session: &str, command: &str) -> String {
        self.exec(session, command).await["stdout"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn stream(&self, request: Value) -> Events {
        let response = self.send("POST", "/exec/stream", Some(&request)).await;
        assert_eq!(response.status(), StatusCode::OK);
        Events::of(response)
    }

    /// Follows a process's log from the event with this id on.
    pub(crate) async fn follow(&self, process_id: &str, last_event_id: &str) -> Events {
        self.resume_at(&format!("/processes/{process_id}/logs/stream"), last_event_id).await
    }

    pub(crate) async fn resume(&self, exec_id: &str, last_event_id: &str) -> Events {
        self.resume_at(&format!("/execs/{exec_id}/stream"), last_event_id).await
    }

    /// Takes up the stream at a path behind the event with this id.
    pub(crate) async fn resume_at(&self, path: &str, last_event_id: &str) -> Events {
        let request = Request::get(path).header("last-event-id", last_event_id);
        let response = self.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Events::of(response)
    }
}

/// The events of a stream as they come.
pub(crate) struct Events {
    body: Body,
    text: String,
}

impl Events {
    pub(crate) fn of(response: Response) -> Self {
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event with its id; none at the end.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let message: String = self.text.drain(..end + 2).collect();
                let (id, data) = message.trim_end().split_once('\n').unwrap();
                let id = id.strip_prefix("id: ").unwrap().to_owned();
                return Some((id, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("no event in time")?;
            self.text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
    }

    /// Reads to the end: both streams' text and the last event.
    pub(crate) async fn rest(&mut self) -> (String, String, Value) {
        let (mut stdout, mut stderr, mut last) = (String::new(), String::new(), Value::Null);
        while let Some((_, event)) = self.next().await {
            match event["type"].as_str().unwrap() {
                "stdout" => stdout.push_str(event["data"].as_str().unwrap()),
                "stderr" => stderr.push_str(event["data"].as_str().unwrap()),
                _ => last = event,
            }
        }
        (stdout, stderr, last)
    }
}

/// A program of Python that changes what its stdout is in every way that a program may, and writes in every way: the pipe of
/// packets, without waiting, appending, signalled, small and large; by write, splice, tee and vmsplice.
pub(crate) const ODD_PIPES: &str = r#"
import ctypes, fcntl, os, select, signal
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGIO, signal.SIG_IGN)

def all_of(data):
    while data:
        try: data = data[os.write(1, data):]
        except BlockingIOError: select.select([], [1], [])

def pass_on(name, count):
    read, write = os.pipe()
    os.write(write, f"{name}\n".encode() * count)
    left = count * (len(name) + 1)
    while left:
        try:
            if name == "tee":
                moved = libc.tee(read, 1, left, 0)
                if moved < 0: raise BlockingIOError
                os.read(read, moved)
            else: moved = os.splice(read, 1, left)
        except BlockingIOError:
            select.select([], [1], [])
            continue
        left -= moved
    os.close(read); os.close(write)

class Vector(ctypes.Structure): _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]

for size in (4096, 1 << 20):
    fcntl.fcntl(1, 1031, size)
    for flags in (os.O_DIRECT, os.O_NONBLOCK, os.O_APPEND, os.O_ASYNC, os.O_DIRECT | os.O_NONBLOCK, 0):
        fcntl.fcntl(1, fcntl.F_SETFL, flags)
        for line in range(50): all_of(f"{size} {flags:o} {line}\n".encode())
        pass_on("splice", 20)
        if not flags & os.O_NONBLOCK:
            pass_on("tee", 20)
            text = b"vmsplice\n" * 20
            vector, left = Vector(text, len(text)), len(text)
            assert libc.vmsplice(1, ctypes.byref(vector), 1, 0) == left
"#;

/// What it writes.
pub(crate) fn odd_pipes_output() -> String {
    use rustix::fs::OFlags;
    let (direct, later) = (OFlags::DIRECT.bits(), OFlags::NONBLOCK.bits());
    // O_ASYNC of asm-generic/fcntl.h, which rustix does not name.
    let flags = [direct, later, OFlags::APPEND.bits(), 0o20000, direct | later, 0];
    let mut all = String::new();
    for size in [4096, 1 << 20] {
        for flags in flags {
            all.extend((0..50).map(|line| format!("{size} {flags:o} {line}\n")));
            all += &"splice\n".repeat(20);
            if flags & later == 0 {
                all += &"tee\n".repeat(20);
                all += &"vmsplice\n".repeat(20);
            }
        }
    }
    all
}
