//! What a hostile caller does before it shows a key, with bodies that never end, and with what it may use once.

use crate::harness::{KEY, TestServer, options, within};
use crate::peers::{self, Shared};
use http::Method;
use sandcrab_server::ServeOptions;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections that say nothing, of whom the server cannot know anything.
async fn silent(server: &TestServer, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        all.push(within("a connection", TcpStream::connect(server.address)).await.unwrap());
    }
    all
}

/// More than the server may hold, and what this process has descriptors for.
fn flood() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.map_or(8300, |files| (files as usize / 2).saturating_sub(500).min(8300))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_idle_connections_shut_nobody_out() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    // One that was there before, with a key, is in use afterwards as well.
    let mut before = TcpStream::connect(server.address).await.unwrap();
    let list =
        format!("GET /v1/sandboxes HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n");
    let mut buffer = [0; 4096];
    before.write_all(list.as_bytes()).await.unwrap();
    within("an answer", before.read(&mut buffer)).await.unwrap();

    let flood = silent(&server, flood()).await;
    let asked = Instant::now();
    server.request(Method::GET, "/health").key(None).send().await.ok();
    server.get("/v1/sandboxes").await.ok();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    before.write_all(list.as_bytes()).await.unwrap();
    let read = within("an answer", before.read(&mut buffer)).await.unwrap();
    assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
    drop(flood);
}

/// Each of these says nothing more; one with a key has the time of a pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_silent_connections_end_soon_in_both_versions() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let known =
        format!("GET /v1/sandboxes HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n");
    let begun = Instant::now();
    let mut open = Vec::new();
    for words in [
        &b""[..],
        b"GET /health HTTP/1.1\r\nhost: lo",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        http2,
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(words).await.unwrap();
        open.push(stream);
    }
    let mut pooled = TcpStream::connect(server.address).await.unwrap();
    pooled.write_all(known.as_bytes()).await.unwrap();
    let mut buffer = [0; 4096];
    within("an answer", pooled.read(&mut buffer)).await.unwrap();
    for (number, mut stream) in open.into_iter().enumerate() {
        let mut rest = Vec::new();
        let _reset = within(&format!("the end of {number}"), stream.read_to_end(&mut rest)).await;
    }
    assert!((9..16).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    pooled.write_all(known.as_bytes()).await.unwrap();
    assert!(within("an answer", pooled.read(&mut buffer)).await.unwrap() > 0, "the pooled one was closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_wrong_keys_are_slowed_and_right_ones_are_not() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let mut limited = 0;
    for n in 0..40 {
        let key = format!("a-wrong-key-{n}");
        let answer = server.request(Method::GET, "/v1/sandboxes").key(Some(&key)).send().await;
        match answer.failure() {
            (401, _) => {}
            (429, _) => {
                assert!(answer.headers.contains_key("retry-after"));
                assert_eq!(answer.headers["connection"], "close");
                limited += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(limited > 10, "{limited}");
    server.get("/v1/sandboxes").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c13_a_server_without_keys_answers_no_foreign_page() {
    let dir = tempfile::tempdir().unwrap();
    let open = ServeOptions {
        api_key: None,
        no_auth: true,
        cors_origins: vec!["https://app.example".into()],
        ..options(dir.path())
    };
    let driver = peers::good(Shared::default());
    let server = TestServer::start_with(open, Arc::new(driver.clone())).await;
    let call = |method: Method, path: &str| server.request(method, path);
    for (method, path) in [
        (Method::GET, "/v1/sandboxes/evil/sessions"),
        (Method::GET, "/v1/sandboxes/evil/files/content?path=/f"),
        (Method::PUT, "/v1/sandboxes/evil"),
        (Method::DELETE, "/v1/sandboxes/evil"),
        (Method::GET, "/v1/sandboxes"),
        (Method::GET, "/metrics"),
        (Method::GET, "/health"),
        (Method::GET, "/nothing"),
    ] {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let answer = call(method.clone(), path).header(name, value).send().await;
            assert_eq!(answer.failure(), (403, "FORBIDDEN".into()), "{method} {path} {name}: {value}");
        }
    }
    use sandcrab_runtime::Driver as _;
    assert!(driver.list().await.unwrap().is_empty(), "a foreign page made a sandbox");
    // Programs, what a person types, and the page that was named.
    call(Method::GET, "/v1/sandboxes").send().await.ok();
    call(Method::GET, "/v1/sandboxes").header("sec-fetch-site", "none").send().await.ok();
    call(Method::GET, "/v1/sandboxes/a/sessions").header("origin", "https://app.example").send().await.ok();
}

/// Routes that take little take no more, whatever is announced; and none of it is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c15_small_routes_take_small_bodies() {
    use sandcrab_runtime::Driver as _;
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    for (line, bound) in [
        ("PUT /v1/sandboxes/a", 4 << 20),
        ("POST /v1/tickets", 64 << 10),
        ("POST /v1/sandboxes/a/ports", 64 << 10),
        ("POST /v1/sandboxes/a/ports/8000/validate", 64 << 10),
    ] {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        );
        let announced = format!("{head}content-length: {}\r\n\r\n", 47 << 20);
        let chunks = format!("{head}transfer-encoding: chunked\r\n\r\n");
        for (how, head) in [("announced", announced), ("in chunks", chunks)] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut sent = 0;
            if how == "in chunks" {
                let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
                while sent <= bound + (256 << 10) && stream.write_all(chunk.as_bytes()).await.is_ok() {
                    sent += 0x8000;
                }
            }
            let mut answer = vec![0; 4096];
            let read = within(&format!("{line} {how}"), stream.read(&mut answer)).await.unwrap();
            let answer = String::from_utf8_lossy(&answer[..read]);
            assert!(answer.starts_with("HTTP/1.1 413 "), "{line} {how} after {sent}: {answer}");
            assert!(answer.contains(&format!("longer than {bound} bytes")), "{answer}");
        }
    }
    assert!(driver.list().await.unwrap().is_empty());
    // What fits is read.
    let labels = serde_json::json!({ "labels": { "k": "v" }, "env": { "A": "x".repeat(100_000) } });
    server.put("/v1/sandboxes/a", labels).await.ok();
}

/// Callers that hang up in the middle of it leave a port exposed or not, and nothing between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e16_a_caller_that_hangs_up_leaves_no_half_exposed_port() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    let start = || TestServer::start_with(options(dir.path()), Arc::new(driver.clone()));
    let server = start().await;
    server.exec("a", "true").await.ok();
    let ports = || 4000..4040_u16;
    let hang_up = async |method: &str, path: String, body: String, pause: u64| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_micros(pause)).await;
    };
    let all = "/v1/sandboxes/a/ports";
    let listed = async |server: &TestServer| {
        // What is under way is done when this is: changes are made one after the other.
        server.post(all, serde_json::json!({ "port": 5000 })).await.ok();
        server.delete(&format!("{all}/5000")).await.ok();
        let list = server.get(all).await.ok();
        list["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["port"].as_u64().unwrap() as u16)
            .collect::<Vec<_>>()
    };
    let mut begun = 0;
    for port in ports() {
        hang_up("POST", all.into(), format!("{{\"port\":{port}}}"), u64::from(port - 4000) * 50).await;
    }
    let exposed = listed(&server).await;
    begun += exposed.len();
    for port in ports().filter(|port| !exposed.contains(port)) {
        server.post(all, serde_json::json!({ "port": port })).await.ok();
    }
    assert_eq!(listed(&server).await, ports().collect::<Vec<_>>());
    for port in ports() {
        hang_up("DELETE", format!("{all}/{port}"), String::new(), u64::from(port - 4000) * 50).await;
    }
    let left = listed(&server).await;
    begun += 40 - left.len();
    assert!(begun > 0, "none of them got through");
    server.stop().await;
    let again = start().await;
    assert_eq!(listed(&again).await, left, "a restart opens what was closed, or closes what was open");
    for port in left {
        again.delete(&format!("{all}/{port}")).await.ok();
    }
}
