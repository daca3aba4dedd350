//! Requests pass to the agent and back, streamed and with nothing that is not meant to pass.

use crate::harness::{TestServer, within};
use crate::peers::{self, Shared};
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_key_never_reaches_a_sandbox() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let call = server.request(Method::POST, "/v1/sandboxes/a/exec").json(&json!({"command": "headers"}));
    let call = call
        .header("cookie", "session=secret")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-request-id", "mine-1");
    let answer = call.send().await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    let stdout = answer.ok()["stdout"].as_str().unwrap().to_owned();
    let mut seen: Vec<_> = stdout.split(' ').collect();
    seen.sort_unstable();
    assert_eq!(seen, ["content-length", "content-type", "host", "x-request-id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x04_an_agents_errors_pass_with_their_retry_after_and_nothing_else() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let busy = server.exec("a", "busy").await;
    assert_eq!(busy.failure(), (409, "RESOURCE_BUSY".into()));
    assert_eq!(busy.headers["retry-after"], "2");
    assert!(!busy.headers.contains_key("set-cookie"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_byte_for_byte_in_both_directions() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n * 31 % 251) as u8).collect();
    let path = "/v1/sandboxes/a/files/content?path=/big";
    let upload = server.request(Method::PUT, path).header("content-type", "application/octet-stream");
    upload.body(content.clone()).send().await.ok();
    for _ in 0..3 {
        let answer = server.get(path).await;
        assert_eq!(answer.headers["content-length"], "3000000");
        assert_eq!(answer.headers["x-sandcrab-is-binary"], "false");
        assert!(answer.body == content);
    }
}

/// An agent that has heard enough answers before the body's end: its answer arrives, not the end of its patience.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x01_an_upload_that_is_refused_in_the_middle_is_told_why() {
    let server = TestServer::start(peers::real()).await;
    // A file that cannot be: found out before a byte of the body is read.
    let path = "/v1/sandboxes/a/files/content?path=/dev/null/x";
    for size in [1, 1 << 20, 64 << 20] {
        let upload = server.request(Method::PUT, path).header("content-type", "application/octet-stream");
        let refused = upload.body(vec![7; size]).send().await;
        assert_eq!(refused.failure(), (400, "NOT_DIRECTORY".into()), "{size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_a_stream_passes_as_it_is_written_and_ends_with_a_reason_when_the_sandbox_does() {
    let shared = Shared::default();
    let driver = peers::good(shared.clone());
    let server = TestServer::start(driver.clone()).await;
    let open = || async {
        let call = server.request(Method::POST, "/v1/sandboxes/a/exec/stream").json(&json!({"command": "x"}));
        let answer = call.open().await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.into_body()
    };
    let mut body = open().await;
    for _ in 0..3 {
        let frame = within("an event", body.frame()).await.unwrap().unwrap().into_data().unwrap();
        assert!(frame.starts_with(b"id: 4-0\ndata: ") && frame.ends_with(b"\n\n"));
        shared.go.add_permits(1);
    }
    server.delete("/v1/sandboxes/a").await.ok();
    let rest = within("the rest", body.collect()).await.unwrap().to_bytes();
    let rest = String::from_utf8(rest.to_vec()).unwrap();
    let last = rest.trim_end().rsplit("data: ").next().unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!((&last["type"], &last["detail"]["code"]), (&json!("error"), &json!("OPERATION_INTERRUPTED")));
}

/// A caller who leaves takes nothing along but its connection: the next one finds a sandbox that works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_a_client_that_vanishes_breaks_nothing() {
    let shared = Shared::default();
    let server = TestServer::start(peers::good(shared.clone())).await;
    for _ in 0..20 {
        let call = server.request(Method::POST, "/v1/sandboxes/a/exec/stream").json(&json!({"command": "x"}));
        drop(call.open().await);
        let call = server.request(Method::POST, "/v1/sandboxes/a/exec").json(&json!({"command": "wait"}));
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(10), call.open()).await;
        assert!(waiting.is_err());
    }
    assert_eq!(server.exec("a", "still here").await.ok()["stdout"], "still here");
}

/// A connection that the agent closed while it was idle is not the caller's problem; a request that was read is not
/// sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x04_only_a_request_that_was_not_sent_is_sent_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let closed = Arc::new(Semaphore::new(0));
    let driver = peers::scripted({
        let (requests, closed) = (requests.clone(), closed.clone());
        move |mut stream| {
            let (requests, closed) = (requests.clone(), closed.clone());
            async move {
                let number = requests.fetch_add(1, Ordering::SeqCst);
                if number.is_multiple_of(2) {
                    let body = r#"{"sessions":[]}"#;
                    let head =
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n";
                    stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
                    // Closed without a word, as if idle for too long.
                }
                // Every other request is read and then dropped.
                drop(stream);
                closed.add_permits(1);
            }
        }
    });
    let server = TestServer::start(driver).await;
    for _ in 0..5 {
        server.get("/v1/sandboxes/a/sessions").await.ok();
        // The answer comes before the close. A request in between may have been read: it would rightly be lost with the
        // connection, and never be counted here.
        within("the connection is closed", closed.acquire()).await.unwrap().forget();
        let dropped = server.get("/v1/sandboxes/a/sessions").await;
        assert_eq!(dropped.failure(), (502, "SERVICE_NOT_RESPONDING".into()));
        within("the connection is closed", closed.acquire()).await.unwrap().forget();
    }
    assert_eq!(requests.load(Ordering::SeqCst), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_all_answered() {
    let server = Arc::new(TestServer::start(peers::good(Shared::default())).await);
    server.exec("a", "first").await.ok();
    let calls: Vec<_> = (0..300)
        .map(|n| {
            let server = server.clone();
            tokio::spawn(
                async move { server.exec("a", &format!("c{n}")).await.ok()["stdout"] == format!("c{n}") },
            )
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
}
