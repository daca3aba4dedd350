//! Ports of the sandbox through the agent's socket: real listeners, and the agent's own HTTP.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a module of its own"
)]

use sandcrab_agent::Agent;
use sandcrab_api::SandboxId;
use sandcrab_api::launch::{AgentConfig, UserIdentity};
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

const PATIENCE: Duration = Duration::from_secs(10);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

fn agent(dir: &tempfile::TempDir) -> std::sync::Arc<Agent> {
    let workspace = dir.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    // The agent takes a copy.
    let spool = std::fs::File::open(dir.path()).unwrap();
    let config = AgentConfig {
        sandbox_id: SandboxId::parse("test").unwrap(),
        listen_fd: -1,
        identity: UserIdentity { capabilities: u64::MAX, ..UserIdentity::default() },
        env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        workspace: workspace.to_str().unwrap().to_owned(),
        spool_fd: spool.as_raw_fd(),
        memory_cgroup_fd: None,
        hindered: Vec::new(),
        ptrace_fd: None,
        socket_bound: None,
    };
    Agent::start(&config).unwrap()
}

/// An agent that listens, and asks for a port through it.
async fn open(port: &str, upgrade: &str) -> (UnixStream, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(agent(&dir).serve(listener));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let head = format!("GET /agent/ports/{port} HTTP/1.1\r\nhost: sandbox\r\n{upgrade}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(within("the agent's head", stream.read_u8()).await.unwrap());
    }
    (stream, String::from_utf8(answer).unwrap())
}

const UPGRADE: &str = "connection: upgrade\r\nupgrade: sandcrab-port\r\n";

async fn echoes(address: &str) {
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mut stream, head) = open(&port.to_string(), UPGRADE).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (mut app, _) = within("the connection arrives", listener.accept()).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut text = [0; 4];
    within("bytes to the port", app.read_exact(&mut text)).await.unwrap();
    app.write_all(&text).await.unwrap();
    within("bytes back", stream.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"ping");
    // Each end is passed on, and the other way stays open until its own.
    stream.shutdown().await.unwrap();
    assert_eq!(within("the end", app.read(&mut text)).await.unwrap(), 0);
    app.write_all(b"last").await.unwrap();
    drop(app);
    let mut rest = Vec::new();
    within("the rest", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"last");
}

#[tokio::test]
async fn a_port_of_either_loopback_is_reached() {
    echoes("127.0.0.1:0").await;
    echoes("[::1]:0").await;
}

#[tokio::test]
async fn c08_nothing_but_a_loopback_port_can_be_asked_for() {
    let (_, head) = open("1", UPGRADE).await;
    assert!(head.starts_with("HTTP/1.1 502 "), "nothing listens there: {head}");
    for other in ["169.254.169.254:80", "65536", "-1", "unix", "%2Frun%2Fx.sock", "localhost:80"] {
        let (_, head) = open(other, UPGRADE).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{other}: {head}");
    }
    for upgrade in ["", "connection: upgrade\r\nupgrade: websocket\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let (_, head) = open(&port, upgrade).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{upgrade}: {head}");
    }
}

/// What one side does not read, the agent does not gather.
#[tokio::test]
async fn a_port_that_floods_is_held_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stream, _) = open(&port.to_string(), UPGRADE).await;
    let (mut app, _) = within("the connection arrives", listener.accept()).await.unwrap();
    let chunk = vec![7; 1 << 20];
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(300), app.write_all(&chunk)).await.is_ok() {
        sent += chunk.len();
        assert!(sent < 64 << 20, "the agent took it all");
    }
    drop(stream);
    within("the flood is cut", async { while app.write_all(&chunk).await.is_ok() {} }).await;
}
