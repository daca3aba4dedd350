//! Processes that are talked with over a WebSocket, through the server to a real agent.

use crate::harness::{KEY, TestServer, options, within};
use crate::peers;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Method};
use sandcrab_runtime::Driver;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const PROCESSES: &str = "/v1/sandboxes/a/processes";
const ATTACH: &str = "/v1/sandboxes/a/processes/p/attach";
/// Answers each line, and ends with a code of its own at the end of its stdin.
const TALKER: &str = "while read line; do echo \"got $line\"; done; exit 4";

/// One end of a conversation.
struct Talk(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Talk {
    async fn open(
        server: &TestServer,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (u16, Value)> {
        let mut request = format!("ws://{}{ATTACH}{query}", server.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match within("a WebSocket", tokio_tungstenite::connect_async(request)).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(refused)) => {
                let error =
                    refused.body().as_ref().map_or(Value::Null, |body| serde_json::from_slice(body).unwrap());
                Err((refused.status().as_u16(), error))
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn with_key(server: &TestServer, query: &str) -> Self {
        Self::open(server, query, &[("authorization", &format!("Bearer {KEY}"))]).await.unwrap()
    }

    async fn send(&mut self, message: impl Into<Message>) {
        within("a message is taken", self.0.send(message.into())).await.unwrap();
    }

    /// The next event; none when the socket is closed.
    async fn next(&mut self) -> Option<Value> {
        match within("an event", self.0.next()).await {
            Some(Ok(Message::Text(text))) => {
                let event = serde_json::from_str(&text).unwrap();
                crate::schema::check_named("ProcessLogEvent", &event);
                Some(event)
            }
            Some(Ok(Message::Close(_))) | None => None,
            other => panic!("{other:?}"),
        }
    }

    /// What it writes to stdout up to and with `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut all = String::new();
        while !all.ends_with(end) {
            let event = self.next().await.expect("the conversation ended");
            if event["type"] == "stdout" {
                all += event["data"].as_str().unwrap();
            }
        }
        all
    }

    async fn exit_code(&mut self) -> i64 {
        let mut last = Value::Null;
        while let Some(event) = self.next().await {
            last = event;
        }
        assert_eq!(last["type"], "exit", "{last}");
        last["exitCode"].as_i64().unwrap()
    }
}

async fn start(server: &TestServer, command: &str) {
    let request = json!({ "command": command, "processId": "p", "interactive": true });
    server.post(PROCESSES, request).await.ok();
}

async fn ticket(server: &TestServer, path: &str) -> String {
    let ticket = server.post("/v1/tickets", json!({ "path": path })).await.ok();
    format!("?ticket={}", ticket["ticket"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_stdin_streams_in_and_output_out_until_the_caller_ends_it() {
    let server = TestServer::start(peers::real()).await;
    start(&server, TALKER).await;
    let mut talk = Talk::with_key(&server, "").await;
    assert_eq!(talk.next().await.unwrap()["type"], "process_info");
    talk.send(b"one\n".to_vec()).await;
    assert_eq!(talk.until("\n").await, "got one\n");
    // Half a line is no line until its rest comes, whatever kind of message brings it.
    talk.send(b"tw".to_vec()).await;
    talk.send(r#"{"type":"stdin","data":"o\n"}"#).await;
    assert_eq!(talk.until("\n").await, "got two\n");
    talk.send(r#"{"type":"end"}"#).await;
    assert_eq!(talk.exit_code().await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_a_caller_who_vanishes_leaves_the_process_and_what_it_was_told() {
    let driver = Arc::new(peers::real());
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start_with(options(dir.path()), driver.clone() as Arc<dyn Driver>).await;
    start(&server, TALKER).await;
    for round in 0..3 {
        let mut talk = Talk::with_key(&server, "").await;
        talk.send(format!("{round}\n").into_bytes()).await;
        talk.until(&format!("got {round}\n")).await;
        // Without a farewell.
        drop(talk);
    }
    // Neither does the server's end matter (contract L05): the next one finds the process, its output and its stdin.
    server.stop().await;
    let server = TestServer::start_with(options(dir.path()), driver).await;
    let mut talk = Talk::with_key(&server, "?stdoutOffset=6").await;
    assert_eq!(talk.until("got 2\n").await, "got 1\ngot 2\n");
    talk.send(b"3\n".to_vec()).await;
    talk.until("got 3\n").await;
    talk.send(r#"{"type":"end"}"#).await;
    assert_eq!(talk.exit_code().await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_megabytes_of_stdin_arrive_whole_at_a_process_that_reads_late() {
    let server = TestServer::start(peers::real()).await;
    // More than the pipe and all buffers on the way hold.
    const PIECES: usize = 64;
    start(&server, "read -r line; echo ready; sleep 0.3; sha256sum").await;
    let mut talk = Talk::with_key(&server, "").await;
    talk.send(b"go\n".to_vec()).await;
    talk.until("ready\n").await;
    let mut expected = Vec::new();
    for number in 0..PIECES {
        let piece: Vec<u8> = (0..256 << 10).map(|at| ((at * 7 + number) % 256) as u8).collect();
        expected.extend_from_slice(&piece);
        talk.send(piece).await;
    }
    talk.send(r#"{"type":"end"}"#).await;
    let digest: String =
        <sha2::Sha256 as sha2::Digest>::digest(&expected).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(talk.until("-\n").await, format!("{digest}  -\n"));
    assert_eq!(talk.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c05_only_a_key_or_a_ticket_for_this_very_path_attaches() {
    let server = TestServer::start(peers::real()).await;
    start(&server, TALKER).await;
    let refused = async |query: &str, headers: &[(&'static str, &str)]| {
        let (status, _) = Talk::open(&server, query, headers).await.err().expect("it was let in");
        status
    };
    let key = format!("Bearer {KEY}");
    assert_eq!(refused("", &[]).await, 401);
    assert_eq!(refused("", &[("authorization", "Bearer no-key-of-ours")]).await, 401);
    assert_eq!(refused("", &[("authorization", &key), ("origin", "http://evil.example")]).await, 403);
    let other = ticket(&server, "/v1/sandboxes/a/processes/q/attach").await;
    assert_eq!(refused(&other, &[]).await, 401);
    let good = ticket(&server, ATTACH).await;
    // As a browser does: from a page of some origin, without a header of its own.
    let mut talk = Talk::open(&server, &good, &[("origin", "http://a.page.example")]).await.unwrap();
    talk.send(b"by ticket\n".to_vec()).await;
    assert_eq!(talk.until("\n").await, "got by ticket\n");
    assert_eq!(refused(&good, &[]).await, 401, "a ticket is good once");
    talk.send(r#"{"type":"end"}"#).await;
    assert_eq!(talk.exit_code().await, 4);
}

/// A ticket is for WebSockets of the sandbox that had the id when it was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c14_a_ticket_outlives_no_sandbox_and_opens_nothing_else() {
    let driver = peers::real();
    let server = TestServer::start(driver.clone()).await;
    start(&server, TALKER).await;
    for path in [
        "/v1/sandboxes",
        "/v1/sandboxes/a",
        "/v1/sandboxes/a/",
        "/v1/sandboxes/a/processes",
        "/v1/sandboxes/a/files/content",
        "/v1/sandboxes/a/ports/8000",
        "/v1/sandboxes/a/ports/x/connect",
        "/v1/sandboxes/a%20b/processes/p/attach",
        "/v1/sandboxes/a/processes/%2e%2e/attach",
        "/metrics",
    ] {
        let refused = server.post("/v1/tickets", json!({ "path": path })).await;
        assert_eq!(refused.field(), "path", "{path}");
    }
    let low = server.post("/v1/tickets", json!({ "path": "/v1/sandboxes/a/ports/80/connect" })).await;
    assert_eq!(low.failure(), (400, "INVALID_PORT_NUMBER".to_owned()));
    let refused = async |query: &str| Talk::open(&server, query, &[]).await.err().expect("it was let in").0;
    // Gone, and nothing is made.
    let late = [ticket(&server, ATTACH).await, ticket(&server, ATTACH).await];
    server.delete("/v1/sandboxes/a").await.ok();
    assert_eq!(refused(&late[0]).await, 404);
    assert!(driver.list().await.unwrap().is_empty());
    // Another life of the same id, with a process of the same id.
    start(&server, TALKER).await;
    assert_eq!(refused(&late[1]).await, 401);
    let good = ticket(&server, ATTACH).await;
    let mut talk = Talk::open(&server, &good, &[]).await.unwrap();
    talk.send(r#"{"type":"end"}"#).await;
    assert_eq!(talk.exit_code().await, 4);
    // Without the words of a WebSocket it is no key.
    let plain = ticket(&server, ATTACH).await;
    let answer = server.request(Method::GET, &format!("{ATTACH}{plain}")).key(None).send().await;
    assert_eq!(answer.failure().0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x02_what_cannot_be_attached_to_is_told_by_its_code() {
    let server = TestServer::start(peers::real()).await;
    start(&server, TALKER).await;
    // No WebSocket at all.
    assert_eq!(server.get(ATTACH).await.field(), "Upgrade");
    let post = server.post(ATTACH, json!({})).await;
    assert_eq!(post.failure(), (405, "METHOD_NOT_ALLOWED".into()));
    let unknown = server.get(&ATTACH.replace("/p/", "/q/")).await;
    assert_eq!(unknown.failure(), (404, "PROCESS_NOT_FOUND".into()));
    let odd = server.get(&ATTACH.replace("/p/", "/%2e%2e/")).await;
    assert_eq!(odd.failure(), (400, "VALIDATION_FAILED".into()));

    let key = format!("Bearer {KEY}");
    let headers: HeaderMap = [("authorization".parse().unwrap(), key.parse().unwrap())].into_iter().collect();
    let ask = async |path: &str| {
        let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
        request.headers_mut().extend(headers.clone());
        match within("an answer", tokio_tungstenite::connect_async(request)).await {
            Err(Error::Http(refused)) => refused.status().as_u16(),
            other => panic!("{path}: {other:?}"),
        }
    };
    assert_eq!(ask(&ATTACH.replace("/p/", "/q/")).await, 404);
    assert_eq!(ask(&format!("{ATTACH}?stdoutOffset=x")).await, 400);
    assert_eq!(
        ask("/v1/sandboxes/a/processes/p").await,
        200,
        "a route that opens no WebSocket answers as ever"
    );

    // Stdin of a process that reads none, and words that mean nothing, are told and end the talk; not the process.
    server.post(PROCESSES, json!({ "command": "exec sleep 1000", "processId": "deaf" })).await.ok();
    for (process, words) in [("deaf", Message::from(vec![b'x'; 64 << 10])), ("p", "nonsense".into())] {
        let path = ATTACH.replace("/p/", &format!("/{process}/"));
        let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
        request.headers_mut().extend(headers.clone());
        let mut talk =
            Talk(within("a WebSocket", tokio_tungstenite::connect_async(request)).await.unwrap().0);
        assert_eq!(talk.next().await.unwrap()["type"], "process_info");
        // Whoever talks on, and listens late, is told all the same.
        for _ in 0..50 {
            talk.send(words.clone()).await;
        }
        assert_eq!(talk.next().await.unwrap()["detail"]["code"], "VALIDATION_FAILED");
        assert_eq!(talk.next().await, None);
        let info = server.get(&format!("{PROCESSES}/{process}")).await.ok();
        assert_eq!(info["status"], "running");
    }
    server.request(Method::DELETE, PROCESSES).send().await.ok();
}
