//! Callers that break HTTP, or take their time over it.

use crate::harness::{TestServer, within};
use crate::peers::{self, Shared};
use sandcrab_runtime::Driver;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Everything that comes back for these bytes until the server closes.
async fn send(server: &TestServer, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // The server may close before it has read everything.
    let _refused = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    // A server that closes while bytes are still coming makes the kernel reset the connection.
    let _reset = within("the server closes", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c07_what_is_no_http_is_refused_and_reaches_no_sandbox() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    let auth =
        format!("connection: close\r\nhost: localhost\r\nauthorization: Bearer {}\r\n", crate::harness::KEY);
    let head = |line: &str, headers: &str| format!("{line}\r\n{auth}{headers}\r\n");
    let exec = "POST /v1/sandboxes/a/exec HTTP/1.1";
    for (name, bytes, allowed) in [
        ("noise", "\0\x01\x02\r\n\r\n".to_owned(), &["400", "none"][..]),
        ("no host", "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), &["400"]),
        (
            "two hosts",
            "GET /health HTTP/1.1\r\nconnection: close\r\nhost: localhost\r\nhost: localhost\r\n\r\n"
                .to_owned(),
            &["400"],
        ),
        ("foreign absolute uri", head("GET http://evil.example/health HTTP/1.1", ""), &["403"]),
        ("connect", head("CONNECT evil.example:443 HTTP/1.1", ""), &["400", "403", "404", "405"]),
        ("two lengths", head(exec, "content-length: 1\r\ncontent-length: 2\r\n"), &["400"]),
        ("bad length", head(exec, "content-length: 1x\r\n"), &["400"]),
        ("chunked is not last", head(exec, "transfer-encoding: chunked, gzip\r\n"), &["400"]),
        ("coded chunks", head(exec, "transfer-encoding: gzip, chunked\r\n"), &["501"]),
        ("identity chunks", head(exec, "transfer-encoding: identity, chunked\r\n"), &["501"]),
        (
            "chunks said twice",
            head(exec, "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
            &["501"],
        ),
        ("encoded body", head(exec, "content-encoding: gzip\r\ncontent-length: 0\r\n"), &["415"]),
        (
            "encoded file",
            head(
                "PUT /v1/sandboxes/a/files/content?path=/f HTTP/1.1",
                "content-encoding: br\r\ncontent-length: 0\r\n",
            ),
            &["415"],
        ),
        ("folded header", head("GET /health HTTP/1.1", "x: a\r\n b\r\n"), &["400"]),
        ("blank in a name", head("GET /health HTTP/1.1", "x : a\r\n"), &["400"]),
        ("long head", head("GET /health HTTP/1.1", &format!("x: {}\r\n", "x".repeat(64 << 10))), &["431"]),
        ("many headers", head("GET /health HTTP/1.1", &"x: a\r\n".repeat(200)), &["431"]),
        ("long path", head(&format!("GET /{} HTTP/1.1", "x".repeat(70 << 10)), ""), &["414", "431"]),
        ("http/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &["400", "none"]),
    ] {
        let answer = send(&server, bytes.as_bytes()).await;
        assert!(allowed.contains(&status(&answer)), "{name}: {answer}");
    }
    assert!(driver.list().await.unwrap().is_empty());
    assert_eq!(server.get("/health").await.status, 200);
}

/// A length beside chunks: the chunks count, and nothing of the rest is taken for another request with the key of
/// this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c07_a_second_request_cannot_hide_in_the_first() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    let key = crate::harness::KEY;
    let hidden = "GET /v1/sandboxes HTTP/1.1\r\nconnection: close\r\nhost: localhost\r\n\r\n";
    let body = format!("0\r\n\r\n{hidden}");
    let bytes = format!(
        "PUT /v1/sandboxes/a HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         transfer-encoding: chunked\r\n\r\n{body}",
        body.len()
    );
    let answer = send(&server, bytes.as_bytes()).await;
    // The hidden one is not read, or is a request of its own, without a key.
    let answers = answer.matches("HTTP/1.1 ").count();
    assert!(answers == 1 || answer.contains("401 Unauthorized"), "{answer}");
    assert!(!answer.contains("\"sandboxes\":["), "{answer}");
}

/// An answer that is given before the body was read says whether another request may follow: small bodies are read away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c15_an_early_answer_says_whether_the_connection_goes_on() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let auth = format!("host: localhost\r\nauthorization: Bearer {}\r\n", crate::harness::KEY);
    let last = format!("GET /v1/sandboxes HTTP/1.1\r\n{auth}connection: close\r\n\r\n");
    let small = |line: &str| format!("{line} HTTP/1.1\r\n{auth}content-length: 7\r\n\r\n{{\"a\":1}}");
    for (line, expected) in [
        ("POST /v1/sandboxes", "405"),
        ("POST /nothing", "404"),
        ("POST /v1/sandboxes/a/nothing", "404"),
        ("POST /v1/tickets", "415"),
        ("PUT /v1/sandboxes/a%20b", "400"),
        ("POST /v1/sandboxes/a/exec", "415"),
    ] {
        let answer = send(&server, format!("{}{last}", small(line)).as_bytes()).await;
        assert_eq!(status(&answer), expected, "{line}: {answer}");
        assert!(!answer.split("\r\n\r\n").next().unwrap().contains("connection: close"), "{line}: {answer}");
        assert!(answer.contains("{\"sandboxes\":"), "{line}: the next request had no answer: {answer}");
    }
    for head in [
        format!("POST /v1/sandboxes HTTP/1.1\r\n{auth}content-length: 1000000\r\n\r\n{}", "x".repeat(100)),
        format!("POST /v1/sandboxes HTTP/1.1\r\n{auth}transfer-encoding: chunked\r\n\r\n5\r\nab"),
        format!("POST /v1/sandboxes HTTP/1.1\r\n{auth}expect: 100-continue\r\ncontent-length: 5\r\n\r\n"),
        format!(
            "POST /v1/sandboxes HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n{}",
            "x".repeat(200_000)
        ),
    ] {
        let answer = send(&server, head.as_bytes()).await;
        let head = answer.split("\r\n\r\n").next().unwrap();
        assert!(matches!(status(&answer), "405" | "401") && head.contains("connection: close"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_carries_many_requests() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let one = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let last = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = send(&server, format!("{}{last}", one.repeat(20)).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 21);
}

/// Connections that never finish a head hold up nobody, and end when the server does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_callers_hold_up_no_one() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let mut slow = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let half =
            if n % 2 == 0 { "GET /health HT" } else { "POST /v1/sandboxes/a/exec HTTP/1.1\r\nhost: lo" };
        stream.write_all(half.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(server.exec("a", "x").await.ok()["stdout"], "x");
    server.stop().await;
    for mut stream in slow {
        let mut rest = Vec::new();
        let _reset = within("the slow one is let go", stream.read_to_end(&mut rest)).await;
    }
}
