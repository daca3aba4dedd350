//! Agents that break every rule (attack B10): the caller gets a typed error, and other sandboxes go on.

use crate::harness::{KEY, TestServer, within};
use crate::peers;
use sandcrab_api::{ApiError, ErrorCode};
use sandcrab_runtime::fake::{AgentStart, Fake};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Asks a sandbox whose agent answers with `bytes`; what is wrong must be a 502.
async fn refused(name: &str, bytes: impl Into<Vec<u8>>) {
    let server = TestServer::start(peers::raw(bytes)).await;
    let answer = server.exec("a", "true").await;
    assert_eq!(answer.failure(), (502, "SERVICE_NOT_RESPONDING".into()), "{name}");
    // Neither the server nor the sandbox is lost for what comes next.
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["status"], "running", "{name}");
    assert_eq!(server.exec("a", "true").await.failure().0, 502, "{name}");
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_answers_outside_the_document_are_a_502() {
    let json = "content-type: application/json\r\n";
    refused("html", answer("200 OK", "content-type: text/html\r\n", "<script>alert(1)</script>")).await;
    refused("svg", answer("200 OK", "content-type: image/svg+xml\r\n", "<svg/>")).await;
    refused("no type", answer("200 OK", "", "{}")).await;
    refused(
        "redirect",
        answer("302 Found", "content-type: application/json\r\nlocation: https://evil.example\r\n", "{}"),
    )
    .await;
    refused("authenticate", answer("401 Unauthorized", json, "{}")).await;
    refused("no content", "HTTP/1.1 204 No Content\r\n\r\n").await;
    refused("upgrade", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
    refused("odd status", answer("799 What", json, "{}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_broken_and_endless_heads_are_a_502() {
    refused("nothing", "").await;
    refused("noise", vec![0u8; 4096]).await;
    refused("no http", "220 smtp ready\r\n\r\n").await;
    refused("half a head", "HTTP/1.1 200 OK\r\ncontent-type: appl").await;
    refused("huge header", format!("HTTP/1.1 200 OK\r\nx-a: {}\r\n\r\n", "x".repeat(1 << 20))).await;
    refused("many headers", format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-a: 1\r\n".repeat(5000))).await;
    refused(
        "bad length",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: -1\r\n\r\n{}",
    )
    .await;
    refused("two lengths", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}").await;
    refused("endless interim", "HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_nothing_of_the_agents_head_passes_but_what_is_meant_to() {
    let headers = "content-type: application/json; charset=\"><script>\r\nset-cookie: a=b\r\nx-frame-options: ALLOWALL\r\n\
        access-control-allow-origin: *\r\nserver: evil\r\nx-request-id: forged\r\nconnection: x-evil\r\nx-evil: 1\r\n\
        x-content-type-options: none\r\ncontent-security-policy: none\r\nx-sandcrab-note: yes\r\n";
    let server = TestServer::start(peers::raw(answer("200 OK", headers, r#"{"sessions":[]}"#))).await;
    let got = server.get("/v1/sandboxes/a/sessions").await;
    got.ok();
    let mut names: Vec<_> = got.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "cache-control",
            "content-length",
            "content-type",
            "date",
            "x-content-type-options",
            "x-request-id",
            "x-sandcrab-note"
        ]
    );
    assert_eq!(got.headers["content-type"], "application/json");
    assert_ne!(got.headers["x-request-id"], "forged");
}

/// A body that ends too early must not look whole, and one that is too long must not run into the next answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_lying_lengths_harm_only_their_own_answer() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    let server = TestServer::start(peers::raw(format!("{head}100\r\n\r\n{{\"sess"))).await;
    assert!(!server.request(http::Method::GET, "/v1/sandboxes/a/sessions").came_whole().await);

    let smuggled = format!(
        "{head}15\r\n\r\n{{\"sessions\":[]}}HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]"
    );
    let server = TestServer::start(peers::raw(smuggled)).await;
    for _ in 0..3 {
        assert_eq!(server.get("/v1/sandboxes/a/sessions").await.body, r#"{"sessions":[]}"#);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_a_broken_chunked_body_is_cut_not_completed() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    for (name, body) in [
        ("bad size", "zz\r\n{}\r\n0\r\n\r\n".to_owned()),
        ("no end", "2\r\n{}\r\n".to_owned()),
        ("overflow", format!("{}\r\n{{}}\r\n0\r\n\r\n", "f".repeat(40))),
        ("endless extension", format!("2;{}", "x".repeat(1 << 20))),
        ("endless trailers", format!("2\r\n{{}}\r\n0\r\n{}", "a: b\r\n".repeat(100_000))),
    ] {
        let server = TestServer::start(peers::raw(format!("{head}{body}"))).await;
        assert!(!server.request(http::Method::GET, "/v1/sandboxes/a/sessions").came_whole().await, "{name}");
        assert_eq!(server.get("/health").await.status, 200);
    }
}

/// Memory of the server: what an agent sends is passed on as fast as the caller reads, and no faster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_a_flood_is_held_back_when_the_caller_does_not_read() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    let written = Arc::new(AtomicU64::new(0));
    let stalled = Arc::new(tokio::sync::Semaphore::new(0));
    let driver = peers::scripted({
        let (written, stalled) = (written.clone(), stalled.clone());
        move |mut stream: UnixStream| {
            let (written, stalled) = (written.clone(), stalled.clone());
            async move {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
                // Until a write waits for a second: everything between here and the caller is full.
                while let Ok(Ok(())) =
                    tokio::time::timeout(Duration::from_secs(1), stream.write_all(chunk.as_bytes())).await
                {
                    written.fetch_add(chunk.len() as u64, Ordering::SeqCst);
                }
                stalled.add_permits(1);
                std::future::pending().await
            }
        }
    });
    let server = TestServer::start(driver).await;
    let call = server.request(http::Method::POST, "/v1/sandboxes/a/exec/stream");
    let _unread = call.json(&serde_json::json!({"command": "yes"})).open().await;
    within("the agent is held back", stalled.acquire()).await.unwrap().forget();
    let held = written.load(Ordering::SeqCst);
    // Sockets of this machine hold a few megabytes; the server itself well below one.
    assert!(held < 16 << 20, "{held} bytes were taken in");
}

/// An agent that never answers holds up its own callers alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_a_silent_agent_holds_up_no_one_else() {
    let driver = Fake::new(|start: AgentStart| async move {
        let silent = start.spec.sandbox.as_str() == "silent";
        let listener = tokio::net::UnixListener::from_std(start.listener).unwrap();
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            peers::read_head(&mut stream).await.unwrap();
            let hello = r#"{"version":"0.0.1","features":[]}"#;
            stream
                .write_all(answer("200 OK", "content-type: application/json\r\n", hello).as_bytes())
                .await
                .unwrap();
            if silent {
                open.push(stream);
                continue;
            }
            peers::read_head(&mut stream).await;
            let list = r#"{"sessions":[]}"#;
            stream
                .write_all(answer("200 OK", "content-type: application/json\r\n", list).as_bytes())
                .await
                .unwrap();
        }
    });
    let server = TestServer::start(driver).await;
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let call = server.request(http::Method::GET, "/v1/sandboxes/silent/sessions");
        waiting.push(Box::pin(call.open()));
    }
    let all = futures_util::future::join_all(&mut waiting);
    assert!(tokio::time::timeout(Duration::from_millis(300), all).await.is_err());
    assert_eq!(server.get("/v1/sandboxes/other/sessions").await.status, 200);
    assert_eq!(server.get("/v1/sandboxes/silent").await.ok()["status"], "running");
    drop(waiting);
    server.delete("/v1/sandboxes/silent").await.ok();
}

/// What an agent tells of is written, in bounds; what is no event is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l08_b10_an_agents_events_are_logged_within_bounds() {
    let driver = Fake::new(|start: AgentStart| async move {
        let listener = tokio::net::UnixListener::from_std(start.listener).unwrap();
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let json = |body: &str| answer("200 OK", "content-type: application/json\r\n", body);
            let hello = json(r#"{"version":"0.0.1","features":["events"]}"#);
            let long = "x".repeat(10_000);
            let events = json(&format!(
                r#"[{{"seq":1,"kind":"shellRestarted","reason":"exit 7","detail":{{"sessionId":"default"}}}},
                    {{"seq":2,"kind":"oom","reason":"{long}","detail":"{long}"}}]"#
            ));
            for reply in [hello, events, json(r#"[{"seq":3,"kind":"destroyed","reason":"a lie"}]"#)] {
                let Some(_) = peers::read_head(&mut stream).await else { break };
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
            open.push(stream);
        }
    });
    let server = TestServer::start(driver).await;
    server.put("/v1/sandboxes/a", serde_json::json!({})).await.ok();
    let events = within("the events", async {
        loop {
            let events =
                server.get("/v1/sandboxes/a/events").await.ok()["events"].as_array().unwrap().clone();
            if events.len() >= 3 {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!((&events[1]["kind"], &events[1]["actor"]), (&"shellRestarted".into(), &"agent".into()));
    assert_eq!(events[1]["detail"]["sessionId"], "default");
    assert_eq!((events[2]["reason"].as_str().unwrap().len(), events[2].get("detail")), (500, None));
    // The lie is asked for a second later, and never written.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.events("a").await, ["created", "shellRestarted", "oom"]);
}

/// An introduction that is none fails the creation; it takes no memory and no time that matter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_a_hostile_introduction_fails_the_creation() {
    let long =
        answer("200 OK", "content-type: application/json\r\n", &format!("\"{}\"", "x".repeat(1 << 20)));
    let wrong = answer("200 OK", "content-type: application/json\r\n", r#"{"version":1}"#);
    for bytes in [long, wrong, answer("500 No", "", ""), String::new()] {
        let driver = Fake::new(move |start: AgentStart| {
            let bytes = bytes.clone();
            async move {
                let listener = tokio::net::UnixListener::from_std(start.listener).unwrap();
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    peers::read_head(&mut stream).await;
                    stream.write_all(bytes.as_bytes()).await.ok();
                    let mut rest = Vec::new();
                    stream.shutdown().await.ok();
                    stream.read_to_end(&mut rest).await.ok();
                }
            }
        });
        let server = TestServer::start(driver.clone()).await;
        assert_eq!(server.exec("a", "true").await.failure(), (503, "CONTAINER_UNAVAILABLE".into()));
        assert!(sandcrab_runtime::Driver::list(&driver).await.unwrap().is_empty());
    }
}

/// An answer that comes before its upload has ended frees the caller, whether or not the agent takes the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_an_agent_that_answers_and_takes_no_more_of_an_upload_holds_no_caller() {
    let server = TestServer::start(peers::scripted(async |mut stream| {
        let error = ApiError::new(ErrorCode::NoSpace, "no room").during("writeFile");
        let error = serde_json::to_string(&error).unwrap();
        let full = answer("507 Insufficient Storage", "content-type: application/json\r\n", &error);
        stream.write_all(full.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    }))
    .await;
    let head = format!(
        "PUT /v1/sandboxes/a/files/content?path=/big HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/octet-stream\r\ncontent-length: 1000000000000\r\n\r\n"
    );
    let answer = server.upload_without_end(&head).await;
    assert!(answer.starts_with("HTTP/1.1 507 ") && answer.contains("\"NO_SPACE\""), "{answer}");
}
