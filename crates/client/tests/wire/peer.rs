//! Real HTTP peers on loopback that misbehave on purpose.

use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router, extract};
use base64::Engine as _;
use sandcrab_client::{Client, ClientOptions};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A client that gives up early, so that a test of giving up is quick.
pub(crate) fn client(url: &str) -> Client {
    let mut options = ClientOptions::new(url);
    options.reconnect_for = Duration::from_secs(2);
    options.answer_timeout = Duration::from_secs(2);
    Client::new(options).unwrap()
}

/// Serves a router and gives its address.
pub(crate) async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Hands each connection, with the head of its first request read, to `answer`.
pub(crate) async fn raw<F, Fut>(answer: F) -> String
where
    F: Fn(usize, TcpStream, String) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let request = request(&mut stream).await;
            tokio::spawn(answer(number, stream, request));
        }
    });
    url
}

/// One whole request with a `Content-Length` body or none.
pub(crate) async fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return String::new();
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

pub(crate) async fn say(stream: &mut TcpStream, text: &str) {
    // A client that has hung up is part of some tests.
    _ = stream.write_all(text.as_bytes()).await;
}

pub(crate) fn json_answer(body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The result of `true`, as the API answers it.
pub(crate) fn result(exec_id: &str, stdout: &[u8]) -> Value {
    json!({
        "success": true, "exitCode": 0, "duration": 0.1, "command": "true", "execId": exec_id, "sessionId": "default",
        "timestamp": "2026-01-31T12:00:00.000Z", "encoding": "base64", "stdout": base64(stdout), "stderr": "",
    })
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// One event as the API sends it.
pub(crate) fn event(kind: &str, id: [usize; 2], more: &Value) -> String {
    let mut data = json!({ "type": kind, "timestamp": "2026-01-31T12:00:00.000Z" });
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("id: {}-{}\ndata: {data}\n\n", id[0], id[1])
}

pub(crate) fn start(exec_id: &str) -> String {
    event("start", [0, 0], &json!({ "command": "x", "execId": exec_id, "sessionId": "default" }))
}

/// One connection of a stream: how it sends output, and after how many events it breaks.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    /// Bytes of output per event.
    pub(crate) chunk: usize,
    /// Events until the connection breaks off; none for never.
    pub(crate) events: Option<usize>,
    /// How many bytes before the offset that was asked for it begins, as a careless server would.
    pub(crate) overlap: usize,
    /// Ends the body as if all were said, instead of breaking the connection.
    pub(crate) polite: bool,
}

/// Serves one command's output over connections that break as told; the last leg holds on.
pub(crate) struct Script {
    pub(crate) output: Vec<u8>,
    pub(crate) legs: Vec<Leg>,
    used: Mutex<usize>,
}

impl Script {
    pub(crate) fn new(output: Vec<u8>, legs: Vec<Leg>) -> Arc<Self> {
        Arc::new(Self { output, legs, used: Mutex::new(0) })
    }

    fn leg(&self) -> Leg {
        let mut used = self.used.lock().unwrap();
        let last = Leg { chunk: 7, events: None, overlap: 0, polite: false };
        let leg = self.legs.get(*used).cloned().unwrap_or(last);
        *used += 1;
        leg
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        *self.used.lock().unwrap()
    }

    fn answer(&self, exec_id: &str, from: usize) -> Response {
        let leg = self.leg();
        let mut events = vec![start(exec_id)];
        let mut at = from.saturating_sub(leg.overlap);
        while at < self.output.len() {
            let end = (at + leg.chunk).min(self.output.len());
            events.push(event("stdout", [end, 0], &json!({ "data": base64(&self.output[at..end]) })));
            at = end;
        }
        events.push(event("complete", [at, 0], &json!({ "exitCode": 3, "duration": 1.5 })));
        let count = leg.events.unwrap_or(events.len());
        let broken = !leg.polite && count < events.len();
        let mut items: Vec<_> = events.into_iter().take(count).map(|text| Ok(Bytes::from(text))).collect();
        if broken {
            items.push(Err(std::io::Error::other("cut")));
        }
        // A pause between items lets what was sent before a cut reach the client, as on a real line.
        let items = futures_util::StreamExt::then(futures_util::stream::iter(items), async |item| {
            tokio::task::yield_now().await;
            item
        });
        let body = Body::from_stream(items);
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    }

    pub(crate) async fn serve(self: &Arc<Self>) -> String {
        let (begin, resume) = (Arc::clone(self), Arc::clone(self));
        let router = Router::new()
            .route(
                "/v1/sandboxes/x/exec/stream",
                post(async move |Json(request): Json<Value>| begin.answer(request["execId"].as_str().unwrap(), 0)),
            )
            .route(
                "/v1/sandboxes/x/execs/{id}/stream",
                get(
                    async move |extract::Path(id): extract::Path<String>,
                                extract::Query(query): extract::Query<HashMap<String, String>>| {
                        resume.answer(&id, query["stdoutOffset"].parse().unwrap())
                    },
                ),
            );
        serve(router).await
    }
}
