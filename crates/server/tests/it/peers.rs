//! Agents for tests: one that behaves, and raw ones that write what they like.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use sandcrab_api::exec::{ExecRequest, ExecResult};
use sandcrab_api::launch::{AgentConfig, UserIdentity};
use sandcrab_api::session::{SessionInfo, SessionList};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ExecId, SandboxId, SessionId};
use sandcrab_runtime::fake::{AgentStart, Fake};
use serde_json::json;
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// What an agent that behaves shares with its test.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Commands that have begun.
    pub began: Arc<Semaphore>,
    /// Lets a `wait` command end.
    pub go: Arc<Semaphore>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { began: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) }
    }
}

impl Shared {
    /// Waits until a command has begun.
    pub(crate) async fn began(&self) {
        crate::harness::within("a command begins", self.began.acquire()).await.unwrap().forget();
    }
}

/// A fake driver whose agents behave. Each command's result says what the command was; files are those of the
/// instance's directory.
pub(crate) fn good(shared: Shared) -> Fake {
    Fake::new(move |start| serve(start, shared.clone()))
}

/// The same, with a count of how often an agent was started.
pub(crate) fn counted(starts: Arc<std::sync::atomic::AtomicUsize>) -> Fake {
    Fake::new(move |start| {
        starts.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        serve(start, Shared::default())
    })
}

/// The same, whose agents take connections but say nothing while they are frozen.
pub(crate) fn freezable(shared: Shared, frozen: tokio::sync::watch::Receiver<bool>) -> Fake {
    Fake::new(move |start| serve_unless(start, shared.clone(), frozen.clone()))
}

/// A driver whose agents are real ones, without isolation: what they start runs here, as the tests do.
pub(crate) fn real() -> Fake {
    Fake::new(async |start: AgentStart| {
        let workspace = start.dir.join("workspace");
        std::fs::create_dir_all(&workspace).unwrap();
        let variables = [("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("TERM", "dumb")];
        // The agent takes a copy.
        let spool = std::fs::File::open(&start.dir).unwrap();
        let config = AgentConfig {
            sandbox_id: SandboxId::parse("test").unwrap(),
            listen_fd: -1,
            identity: UserIdentity { capabilities: u64::MAX, ..UserIdentity::default() },
            env: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            workspace: workspace.to_str().unwrap().to_owned(),
            spool_fd: spool.as_raw_fd(),
            memory_cgroup_fd: None,
            hindered: Vec::new(),
            ptrace_fd: None,
            socket_bound: None,
        };
        let agent = sandcrab_agent::Agent::start(&config).unwrap();
        match agent.serve(start.listener).await.unwrap() {}
    })
}

#[derive(Clone)]
struct Sandbox {
    shared: Shared,
    dir: std::path::PathBuf,
}

pub(crate) async fn serve(start: AgentStart, shared: Shared) -> i32 {
    let (_thawed, frozen) = tokio::sync::watch::channel(false);
    serve_unless(start, shared, frozen).await
}

async fn serve_unless(
    start: AgentStart,
    shared: Shared,
    mut frozen: tokio::sync::watch::Receiver<bool>,
) -> i32 {
    let state = Sandbox { shared, dir: start.dir };
    let router = axum::Router::new()
        .route("/agent", get(async || Json(json!({"version": "0.0.1", "features": []}))))
        .route("/exec", post(exec))
        .route("/exec/stream", post(stream))
        .route("/sessions", get(async || Json(SessionList { sessions: Vec::new() })))
        .route("/sessions/{id}", get(async |Path(id): Path<String>| Json(session(&id))))
        .route("/files/content", put(upload).get(download))
        .merge(sandcrab_agent::ports::router())
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(state);
    let listener = UnixListener::from_std(start.listener).unwrap();
    // Connections end with the agent's future, as those of a killed agent do.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // The last word of a sender that is gone holds.
        let _gone = frozen.wait_for(|frozen| !frozen).await;
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let io = hyper_util::rt::TokioIo::new(stream);
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        connections.spawn(connection.with_upgrades());
    }
}

fn session(id: &str) -> SessionInfo {
    let now = Timestamp::now();
    let id = SessionId::parse(id).unwrap();
    SessionInfo { id, name: None, cwd: "/workspace".into(), created_at: now, busy: false, waiting: 0 }
}

async fn exec(
    State(sandbox): State<Sandbox>,
    headers: http::HeaderMap,
    Json(request): Json<ExecRequest>,
) -> Response {
    sandbox.shared.began.add_permits(1);
    let stdout = match request.command.as_str() {
        "wait" => {
            sandbox.shared.go.acquire().await.unwrap().forget();
            "waited".to_owned()
        }
        // What the server let through of the caller's head.
        "headers" => headers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>().join(" "),
        "busy" => {
            let error =
                sandcrab_api::ApiError::new(sandcrab_api::ErrorCode::ResourceBusy, "256 commands wait");
            let headers = [("retry-after", "2"), ("set-cookie", "a=b")];
            return (http::StatusCode::CONFLICT, headers, Json(error.during("exec"))).into_response();
        }
        command => command.to_owned(),
    };
    Json(ExecResult {
        success: true,
        outcome: Default::default(),
        command: request.command,
        exec_id: ExecId::parse("e1").unwrap(),
        session_id: None,
        timestamp: Timestamp::now(),
        encoding: Default::default(),
        invalid_utf8: false,
        stdout,
        stderr: String::new(),
    })
    .into_response()
}

/// One event at once, and then one for each word of the test's.
async fn stream(State(sandbox): State<Sandbox>, Json(request): Json<ExecRequest>) -> Response {
    let endless = futures_util::stream::unfold((sandbox, true), |(sandbox, first)| async move {
        if !first {
            sandbox.shared.go.acquire().await.unwrap().forget();
        }
        let event = json!({"type": "stdout", "data": "tick", "timestamp": Timestamp::now()});
        let text = format!("id: 4-0\ndata: {event}\n\n");
        Some((Ok::<_, std::io::Error>(text), (sandbox, false)))
    });
    let _ = request;
    ([("content-type", "text/event-stream")], axum::body::Body::from_stream(endless)).into_response()
}

async fn upload(
    State(sandbox): State<Sandbox>,
    Query(query): Query<HashMap<String, String>>,
    body: bytes::Bytes,
) -> Response {
    let path = &query["path"];
    std::fs::write(sandbox.dir.join(path.trim_start_matches('/')), &body).unwrap();
    Json(json!({"success": true, "path": path, "timestamp": Timestamp::now()})).into_response()
}

async fn download(State(sandbox): State<Sandbox>, Query(query): Query<HashMap<String, String>>) -> Response {
    let path = sandbox.dir.join(query["path"].trim_start_matches('/'));
    let error = || {
        let error = sandcrab_api::ApiError::new(sandcrab_api::ErrorCode::FileNotFound, "no such file")
            .during("readFile");
        (http::StatusCode::NOT_FOUND, Json(error)).into_response()
    };
    let Ok(content) = std::fs::read(path) else { return error() };
    ([("content-type", "application/octet-stream"), ("x-sandcrab-is-binary", "false")], content)
        .into_response()
}

/// A driver whose agents introduce themselves and answer the next request with `bytes`, then close.
pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Fake {
    let bytes: Arc<[u8]> = bytes.into().into();
    scripted(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            stream.write_all(&bytes).await.ok();
            stream.shutdown().await.ok();
        }
    })
}

/// A driver whose agents introduce themselves and then do with each further request what `script` says.
pub(crate) fn scripted<F, Fut>(script: F) -> Fake
where
    F: Fn(UnixStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let script = Arc::new(script);
    Fake::new(move |start: AgentStart| {
        let script = script.clone();
        async move {
            let listener = UnixListener::from_std(start.listener).unwrap();
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(introduce_then(stream, script.clone()));
            }
        }
    })
}

async fn introduce_then<F, Fut>(mut stream: UnixStream, script: Arc<F>)
where
    F: Fn(UnixStream) -> Fut,
    Fut: Future<Output = ()>,
{
    let Some(head) = read_head(&mut stream).await else { return };
    if !head.starts_with("GET /agent ") {
        return script(stream).await;
    }
    let hello = r#"{"version":"0.0.1","features":[]}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{hello}",
        hello.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    if read_head(&mut stream).await.is_some() {
        script(stream).await;
    }
}

/// Reads up to the end of a request's head.
pub(crate) async fn read_head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}
