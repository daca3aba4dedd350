//! A sandbox's event log, read as it is written (contract L08).

use crate::harness::{Answer, KEY, TestServer, within};
use crate::peers::{self, Shared};
use crate::schema;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

/// A stream of events in the middle.
struct Following {
    body: Incoming,
    text: String,
}

impl Following {
    async fn open(server: &TestServer, sandbox: &str, after: &str) -> Self {
        let path = format!("/v1/sandboxes/{sandbox}/events/stream");
        let answer = server.request(Method::GET, &path).header("last-event-id", after).open().await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.into_body(), text: String::new() }
    }

    /// The next event; none at the stream's end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let (id, data) = message.split_once("\ndata: ").unwrap();
                let event: Value = serde_json::from_str(data).unwrap();
                assert_eq!(id, format!("id: {}", event["seq"]));
                schema::check_named("SandboxEvent", &event);
                self.text = rest.to_owned();
                return Some(event);
            }
            let frame = within("an event", self.body.frame()).await?;
            self.text += std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap();
        }
    }

    async fn until(&mut self, kind: &str) -> u64 {
        loop {
            let event = self.next().await.expect("the stream ended");
            if event["kind"] == kind {
                return event["seq"].as_u64().unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l08_events_are_followed_as_they_are_written_and_resumed_by_number() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    server.exec("a", "x").await.ok();
    let mut log = Following::open(&server, "a", "0").await;
    let first = log.until("created").await;
    // What happens to others is not told, and hides nothing.
    for _ in 0..3 {
        server.exec("b", "x").await.ok();
        server.delete("/v1/sandboxes/b").await.ok();
    }
    server.delete("/v1/sandboxes/a").await.ok();
    let end = log.until("destroyed").await;
    server.exec("a", "x").await.ok();
    let again = log.until("created").await;
    assert!(first < end && end < again);

    let all = server.get("/v1/sandboxes/a/events").await.ok();
    let expected = all["events"].as_array().unwrap().iter().filter(|event| event["seq"].as_u64() > Some(end));
    let mut resumed = Following::open(&server, "a", &end.to_string()).await;
    for event in expected {
        assert_eq!(resumed.next().await.as_ref(), Some(event));
    }
    // Nothing is new to this one until something happens.
    let mut late = Following::open(&server, "a", &u64::MAX.to_string()).await;
    server.delete("/v1/sandboxes/a").await.ok();
    log.until("destroyed").await;
    server.stop().await;
    while log.next().await.is_some() {}
    assert_eq!(late.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l08_a_follower_that_is_far_behind_misses_nothing() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    server.exec("a", "x").await.ok();
    let mut log = Following::open(&server, "a", "0").await;
    // More than is kept for a listener, and more than is read at once.
    for _ in 0..150 {
        server.delete("/v1/sandboxes/a").await.ok();
        server.exec("a", "x").await.ok();
    }
    let all = server.get("/v1/sandboxes/a/events").await.ok();
    let all = all["events"].as_array().unwrap().clone();
    assert!(all.len() > 300);
    for event in all {
        assert_eq!(log.next().await, Some(event));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x02_a_stream_of_events_is_refused_like_the_list() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let path = "/v1/sandboxes/a/events/stream";
    assert_eq!(server.get(path).await.failure(), (404, "SANDBOX_NOT_FOUND".into()));
    let late = server.get(&format!("{path}?after=7")).await;
    assert_eq!(late.failure(), (404, "SANDBOX_NOT_FOUND".into()));
    let unknown: Answer = server.request(Method::GET, path).key(Some("no-key-of-ours")).send().await;
    assert_eq!(unknown.failure(), (401, "UNAUTHORIZED".into()));
    assert_eq!(server.key.as_deref(), Some(KEY));
    server.exec("a", "x").await.ok();
    let odd = server.request(Method::GET, path).header("last-event-id", "1-2").send().await;
    assert_eq!(odd.field(), "Last-Event-ID");
    for query in ["after=-1", "after=x", "before=1"] {
        let refused = server.get(&format!("{path}?{query}")).await;
        assert_eq!(refused.failure().0, 400, "{query}");
    }
    let wrong = server.post(path, json!({})).await;
    assert_eq!(wrong.failure(), (405, "METHOD_NOT_ALLOWED".into()));
}
