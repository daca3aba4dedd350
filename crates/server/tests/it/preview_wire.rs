//! Previews byte by byte: WebSockets, trailers, HTTP/2, and what breaks or bends the rules of HTTP on either side.

use crate::harness::{TestServer, options, within};
use crate::peers::{self, Shared};
use crate::previews::{expose, fetch, site, visit};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A server that does with each connection, after the first request's head, what `script` says. Its port, and how many
/// heads it has seen.
async fn scripted<F, Fut>(script: F) -> (u16, Arc<AtomicUsize>)
where
    F: Fn(TcpStream, String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (script, heads) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    let counted = heads.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (script, counted) = (script.clone(), counted.clone());
            tokio::spawn(async move {
                let Some(head) = read_head(&mut stream).await else { return };
                counted.fetch_add(1, Ordering::SeqCst);
                script(stream, head).await;
            });
        }
    });
    (port, heads)
}

/// A server in front of a scripted one, and the preview's host.
async fn before<F, Fut>(script: F) -> (TestServer, String, Arc<AtomicUsize>)
where
    F: Fn(TcpStream, String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let server = TestServer::start(peers::good(Shared::default())).await;
    let (port, heads) = scripted(script).await;
    let (host, _) = expose(&server, "a", port).await;
    (server, host, heads)
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nset-cookie: wide=1; Domain=localhost\r\n\r\n";

/// Echoes after it has switched, and says something on its own first.
async fn echo_socket(mut stream: TcpStream, head: String) {
    assert!(head.to_ascii_lowercase().contains("upgrade: websocket\r\n"), "{head}");
    stream.write_all(format!("{SWITCH}hello").as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let _gone = tokio::io::copy(&mut read, &mut write).await;
}

/// Asks for a WebSocket; the answer's head, and the stream behind it.
async fn socket(server: &TestServer, host: &str, origin: Option<&str>) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let origin = origin.map(|origin| format!("origin: {origin}\r\n")).unwrap_or_default();
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{origin}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let head = within("the answer's head", read_head(&mut stream)).await.unwrap();
    (head, stream)
}

async fn read(stream: &mut TcpStream, length: usize) -> String {
    let mut text = vec![0; length];
    within("bytes of the WebSocket", stream.read_exact(&mut text)).await.unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c02_a_websocket_carries_both_ways_until_its_port_is_taken_back() {
    let (server, host, _) = before(echo_socket).await;
    let (head, mut stream) = socket(&server, &host, None).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let lower = head.to_ascii_lowercase();
    for line in
        ["upgrade: websocket", "connection: upgrade", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="]
    {
        assert!(lower.contains(line), "{head}");
    }
    assert!(!lower.contains("set-cookie"), "{head}");
    assert_eq!(read(&mut stream, 5).await, "hello");
    for n in 0..100 {
        let text = format!("message {n:04}");
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(read(&mut stream, text.len()).await, text);
    }
    // A megabyte both ways at once.
    let sent = vec![b'x'; 1 << 20];
    let (mut reader, mut writer) = stream.split();
    let mut got = vec![0; sent.len()];
    let both = async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got)) };
    let (wrote, read) = within("a megabyte both ways", both).await;
    wrote.unwrap();
    read.unwrap();
    assert!(got == sent);
    let port = host.split('-').next().unwrap();
    server.delete(&format!("/v1/sandboxes/a/ports/{port}")).await.ok();
    let mut rest = Vec::new();
    let _reset = within("the WebSocket is cut", stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c05_a_page_of_another_origin_opens_no_websocket() {
    let dir = tempfile::tempdir().unwrap();
    let named = sandcrab_server::ServeOptions {
        cors_origins: vec!["https://app.example".into()],
        ..options(dir.path())
    };
    let server = TestServer::start_with(named, Arc::new(peers::good(Shared::default()))).await;
    let (port, heads) = scripted(echo_socket).await;
    let (host, _) = expose(&server, "a", port).await;
    let (stranger, _) = expose(&server, "b", port).await;
    let (sibling, _) = expose(&server, "a", site().await).await;
    for foreign in [
        "http://evil.example".to_owned(),
        "null".to_owned(),
        format!("https://{host}"),
        format!("http://{host}:8787"),
        format!("http://{stranger}"),
        format!("http://x.{host}"),
        "http://localhost".to_owned(),
        format!("http://{}", server.address),
    ] {
        let (head, _) = socket(&server, &host, Some(&foreign)).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{foreign}: {head}");
    }
    assert_eq!(heads.load(Ordering::SeqCst), 0);
    for own in [format!("http://{host}"), format!("http://{sibling}"), "https://app.example".to_owned()] {
        let (head, _) = socket(&server, &host, Some(&own)).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{own}: {head}");
    }
    // A page that is no longer shown is nobody's.
    let sibling_port = sibling.split('-').next().unwrap();
    server.delete(&format!("/v1/sandboxes/a/ports/{sibling_port}")).await.ok();
    let (head, _) = socket(&server, &host, Some(&format!("http://{sibling}"))).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    // Plain requests of other origins are the site's own to judge.
    let port = site().await;
    let (host, _) = expose(&server, "c", port).await;
    let seen = fetch(visit(&server, Method::GET, &host, "/").header("origin", "http://evil.example")).await;
    assert_eq!(seen.ok()["headers"]["origin"], "http://evil.example");
    assert!(!seen.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c07_what_could_be_read_in_two_ways_is_refused_or_rewritten() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let (server, host, heads) = before(move |mut stream: TcpStream, head: String| {
        let log = log.clone();
        async move {
            log.lock().unwrap().push(head);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.ok();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.ok();
            log.lock().unwrap().push(String::from_utf8_lossy(&rest).into_owned());
        }
    })
    .await;
    let send = async |bytes: String| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _refused = stream.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let _reset = within("the server closes", stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let host_line = format!("host: {host}\r\n");
    let close = "connection: close\r\n";
    for (name, bytes, statuses) in [
        ("absolute", format!("GET http://{host}/ HTTP/1.1\r\n{close}{host_line}\r\n"), &["400"][..]),
        (
            "foreign absolute",
            format!("GET http://evil.example/ HTTP/1.1\r\n{close}{host_line}\r\n"),
            &["400"],
        ),
        ("two hosts", format!("GET / HTTP/1.1\r\n{close}{host_line}{host_line}\r\n"), &["400"]),
        (
            "two hosts, one ours",
            format!("GET / HTTP/1.1\r\n{close}{host_line}host: localhost\r\n\r\n"),
            &["400"],
        ),
        (
            "ours first",
            format!("GET /health HTTP/1.1\r\n{close}host: localhost\r\n{host_line}\r\n"),
            &["400"],
        ),
        ("connect", format!("CONNECT {host}:80 HTTP/1.1\r\n{close}{host_line}\r\n"), &["400", "405"]),
        ("trace", format!("TRACE / HTTP/1.1\r\n{close}{host_line}\r\n"), &["405"]),
        (
            "two lengths",
            format!("POST / HTTP/1.1\r\n{close}{host_line}content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            &["400"],
        ),
        (
            "bad chunked",
            format!("POST / HTTP/1.1\r\n{close}{host_line}transfer-encoding: chunked, gzip\r\n\r\n"),
            &["400"],
        ),
        ("folded", format!("GET / HTTP/1.1\r\n{close}{host_line}x: a\r\n b\r\n\r\n"), &["400"]),
        ("user in host", format!("GET / HTTP/1.1\r\n{close}host: u@{host}\r\n\r\n"), &["403"]),
        ("odd port", format!("GET / HTTP/1.1\r\n{close}host: {host}:x\r\n\r\n"), &["403"]),
    ] {
        let answer = send(bytes).await;
        let status = answer.split(' ').nth(1).unwrap_or("none");
        assert!(statuses.contains(&status), "{name}: {answer}");
        assert_eq!(heads.load(Ordering::SeqCst), 0, "{name}");
    }
    // A length beside chunks: what reaches the site has one meaning, and the hidden request is none.
    let hidden = "GET /hidden HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let body = format!("0\r\n\r\n{hidden}");
    for order in [
        format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", body.len()),
        format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", body.len()),
    ] {
        let answer = send(format!("POST /shown HTTP/1.1\r\n{close}{host_line}{order}\r\n{body}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    // Switching to a protocol that would carry requests past the server is not passed on.
    send(format!("GET /h2c HTTP/1.1\r\n{host_line}connection: close, upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n")).await;
    let all = seen.lock().unwrap().join("\n").to_ascii_lowercase();
    assert!(!all.contains("/hidden") && !all.contains("h2c\r\n") && !all.contains("http2-settings"), "{all}");
    for request in all.split("post /shown").skip(1) {
        assert_eq!(
            request.matches("content-length").count() + request.matches("transfer-encoding").count(),
            1,
            "{all}"
        );
    }
}

/// Servers that break HTTP in what they answer: a 502, and nothing else is touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_a_site_that_breaks_http_harms_only_its_own_answer() {
    for (name, answer) in [
        ("nothing", String::new()),
        ("noise", "220 smtp ready\r\n\r\n".into()),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-type: te".into()),
        ("huge header", format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20))),
        ("endless interim", "HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000)),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".into()),
        ("unasked switch", SWITCH.to_owned()),
        ("bad length", "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n".into()),
    ] {
        let (server, host, _) = before(move |mut stream: TcpStream, _| {
            let answer = answer.clone();
            async move {
                stream.write_all(answer.as_bytes()).await.ok();
            }
        })
        .await;
        let answer = fetch(visit(&server, Method::GET, &host, "/")).await;
        assert_eq!(answer.failure(), (502, "SERVICE_NOT_RESPONDING".into()), "{name}");
        assert_eq!(server.exec("a", "x").await.ok()["stdout"], "x", "{name}");
    }
    // A switch to something else than was asked for.
    let (server, host, _) = before(async |mut stream: TcpStream, _| {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
    })
    .await;
    assert!(socket(&server, &host, None).await.0.starts_with("HTTP/1.1 502 "));
    // A body that is cut must not look whole.
    let (server, host, _) = before(async |mut stream: TcpStream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort").await.unwrap();
    })
    .await;
    assert!(!visit(&server, Method::GET, &host, "/").came_whole().await);
}

/// No request reaches an app twice, however many kept connections close under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x04_what_reached_an_app_is_not_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let again = Arc::clone(&seen);
    let (server, host, heads) = before(move |mut stream: TcpStream, _| {
        let again = Arc::clone(&again);
        async move {
            // Answers once as if to keep the connection, reads the next request, and closes.
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok();
            if read_head(&mut stream).await.is_some() {
                again.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    // Many that are kept.
    let visits = (0..16).map(|_| fetch(visit(&server, Method::GET, &host, "/")));
    futures_util::future::join_all(visits).await;
    let reached = || heads.load(Ordering::SeqCst) + seen.load(Ordering::SeqCst);
    for _ in 0..16 {
        let before = reached();
        let answer = fetch(visit(&server, Method::GET, &host, "/")).await;
        assert!(answer.body == "ok" || answer.status == 502, "{answer:?}");
        assert!(reached() - before <= 1, "{} times", reached() - before);
    }
    let before = heads.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(fetch(visit(&server, Method::POST, &host, "/").body("x")).await.body, "ok");
    }
    assert_eq!(heads.load(Ordering::SeqCst) - before, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_and_expectations_pass() {
    let (server, host, _) = before(async |mut stream: TcpStream, head: String| {
        assert!(head.to_ascii_lowercase().contains("te: trailers\r\n"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("expect:"), "{head}");
        let mut body = Vec::new();
        while !body.ends_with(b"x-sum: 1\r\n\r\n") {
            body.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end, set-cookie\r\n\r\n\
                      2\r\nok\r\n0\r\nx-end: 7\r\nset-cookie: a=b\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\nte: trailers\r\nexpect: 100-continue\r\ntrailer: x-sum\r\n\
         transfer-encoding: chunked\r\nconnection: close, te\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let interim = within("the interim answer", read_head(&mut stream)).await.unwrap();
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    stream.write_all(b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("2\r\nok\r\n0\r\nx-end: 7\r\n\r\n"), "{answer}");
}

/// An upload that what runs there does not take, and a download that the caller does not: nobody gathers them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_side_holds_the_other_back() {
    let (server, host, _) = before(async |mut stream: TcpStream, head: String| {
        if head.starts_with("POST") {
            // Reads nothing at all.
            std::future::pending::<()>().await;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let chunk = vec![7; 1 << 20];
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let mut upload = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 10000000000\r\n\r\n");
    upload.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![7; 1 << 20];
    let mut sent = 0;
    let patience = std::time::Duration::from_millis(500);
    while tokio::time::timeout(patience, upload.write_all(&chunk)).await.is_ok() {
        sent += 1;
        assert!(sent < 64, "{sent} MiB were taken");
    }
    let answer = visit(&server, Method::GET, &host, "/").open().await;
    tokio::time::sleep(patience).await;
    drop(answer);
    assert_eq!(server.exec("a", "x").await.ok()["stdout"], "x");
}

type H2 = hyper::client::conn::http2::SendRequest<http_body_util::combinators::BoxBody<Bytes, hyper::Error>>;

async fn http2(server: &TestServer) -> H2 {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_in_front_is_http1_behind() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let (host, _) = expose(&server, "a", site().await).await;
    let mut sender = http2(&server).await;
    let request = |path: &str| Request::builder().uri(format!("http://{host}{path}"));
    let empty = || Empty::<Bytes>::new().map_err(|never| match never {}).boxed();
    let cookies = request("/x?y").header("cookie", "a=1").header("cookie", "b=2").body(empty()).unwrap();
    let answer = within("the answer", sender.send_request(cookies)).await.unwrap();
    let seen = answer.into_body().collect().await.unwrap().to_bytes();
    let seen: serde_json::Value = serde_json::from_slice(&seen).unwrap();
    assert_eq!((&seen["uri"], &seen["headers"]["host"]), (&"/x?y".into(), &host.as_str().into()));
    assert_eq!(seen["headers"]["cookie"], "a=1; b=2");
    // A streamed body, of no known length.
    let parts =
        futures_util::stream::iter((0..50).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 100_000])))));
    let upload = request("/echo").method("POST").body(BodyExt::boxed(StreamBody::new(parts))).unwrap();
    let echo = within("the echo", async {
        sender.send_request(upload).await.unwrap().into_body().collect().await.unwrap().to_bytes()
    });
    assert_eq!(echo.await.len(), 5_000_000);
    // The API answers over it too, and holds it to the same rules.
    let health = Request::builder().uri("http://localhost/health").body(empty()).unwrap();
    assert_eq!(sender.send_request(health).await.unwrap().status(), 200);
    let foreign = Request::builder().uri("http://evil.example/health").body(empty()).unwrap();
    assert_eq!(sender.send_request(foreign).await.unwrap().status(), 403);
    let two =
        Request::builder().uri(format!("http://{host}/")).header("host", "localhost").body(empty()).unwrap();
    assert_eq!(sender.send_request(two).await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_over_http2_is_an_extended_connect() {
    let (server, host, _) = before(echo_socket).await;
    let mut sender = http2(&server).await;
    let empty = || Empty::<Bytes>::new().map_err(|never| match never {}).boxed();
    // The server says in its settings that it takes them; an answer shows that they have come.
    let health = Request::builder().uri("http://localhost/health").body(empty()).unwrap();
    sender.send_request(health).await.unwrap();
    let ask = |origin: String| {
        Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{host}/ws"))
            .header("sec-websocket-version", "13")
            .header("origin", origin)
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .body(empty())
            .unwrap()
    };
    let foreign =
        within("the refusal", sender.send_request(ask("http://evil.example".into()))).await.unwrap();
    assert_eq!(foreign.status(), 403);
    let answer = within("the answer", sender.send_request(ask(format!("http://{host}")))).await.unwrap();
    assert_eq!(answer.status(), 200);
    let upgraded = within("the stream", hyper::upgrade::on(answer)).await.unwrap();
    let mut stream = TokioIo::new(upgraded);
    let mut text = [0; 5];
    within("its first words", stream.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"hello");
    stream.write_all(b"again").await.unwrap();
    within("the echo", stream.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"again");
}

/// Opens a WebSocket of the API with these headers beside the usual ones; the answer's head, and the stream behind it.
async fn api_socket(server: &TestServer, path: &str, headers: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let head = within("the answer's head", read_head(&mut stream)).await.unwrap();
    (head, stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c05_a_websocket_of_the_api_needs_a_key_or_a_ticket_that_was_not_used() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let heads = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = heads.clone();
    let (port, _) = scripted(move |stream: TcpStream, head: String| {
        log.lock().unwrap().push(head.clone());
        echo_socket(stream, head)
    })
    .await;
    let path = format!("/v1/sandboxes/a/ports/{port}/connect");
    let ticket = async |path: &str| {
        let made = server.post("/v1/tickets", serde_json::json!({ "path": path })).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["ticket"].as_str().unwrap().to_owned()
    };
    let open =
        async |query: &str, headers: &str| api_socket(&server, &format!("{path}{query}"), headers).await;
    let first = ticket(&path).await;
    let query = format!("?path=%2Fchat%3Froom%3D1&ticket={first}");
    let (head, mut stream) = open(&query, "origin: http://evil.example\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(read(&mut stream, 5).await, "hello");
    stream.write_all(b"echo!").await.unwrap();
    assert_eq!(read(&mut stream, 5).await, "echo!");
    let seen = heads.lock().unwrap().join("");
    assert!(seen.starts_with("GET /chat?room=1 HTTP/1.1\r\n") && !seen.contains(&first), "{seen}");

    let key = format!("authorization: Bearer {}\r\n", crate::harness::KEY);
    let own_key = format!("x-sandcrab-key: {}\r\norigin: http://app.example\r\n", crate::harness::KEY);
    for headers in [&key, &own_key] {
        let (head, _) = open("", headers).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{headers}: {head}");
    }
    assert!(!heads.lock().unwrap().join("").contains(crate::harness::KEY));
    let other = ticket("/v1/sandboxes/b/ports/3000/connect").await;
    for (query, headers, status) in [
        (format!("?ticket={first}"), String::new(), "401"),
        (format!("?ticket={other}"), String::new(), "401"),
        ("?ticket=".into(), key.clone(), "401"),
        (String::new(), String::new(), "401"),
        (String::new(), format!("{key}origin: http://evil.example\r\n"), "403"),
    ] {
        let (head, _) = open(&query, &headers).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{query} {headers}: {head}");
    }
    // A ticket opens nothing but a WebSocket.
    let plain = server.request(Method::GET, &format!("{path}?ticket={}", ticket(&path).await)).key(None);
    assert_eq!(plain.send().await.failure(), (401, "UNAUTHORIZED".into()));
    assert_eq!(server.get(&path).await.field(), "Upgrade");
    for bad in ["", "/v1/sandboxes", "/health", "/v1/sandboxes/a?x", "http://x/v1/sandboxes/a"] {
        assert_eq!(server.post("/v1/tickets", serde_json::json!({ "path": bad })).await.field(), "path");
    }
    // What a sandbox says is never shown as a page of the API.
    let (port, _) = scripted(async |mut stream: TcpStream, _| {
        let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 8\r\n\r\n<script>";
        stream.write_all(page.as_bytes()).await.unwrap();
    })
    .await;
    let (head, mut stream) =
        api_socket(&server, &format!("/v1/sandboxes/a/ports/{port}/connect"), &key).await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("application/json"), "{head}");
    let mut start = [0; 60];
    stream.read_exact(&mut start).await.unwrap();
    assert!(
        start.starts_with(b"{\"code\":\"SERVICE_NOT_RESPONDING\""),
        "{}",
        String::from_utf8_lossy(&start)
    );
    // Not in the host's network.
    server.put("/v1/sandboxes/h", serde_json::json!({ "network": "host" })).await.ok();
    let (head, _) = api_socket(&server, &format!("/v1/sandboxes/h/ports/{port}/connect"), &key).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

/// A server that answers before it has read what it was sent frees the visitor, whether or not it takes the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_a_preview_that_answers_and_takes_no_more_of_an_upload_holds_no_visitor() {
    let (server, host, _) = before(async |mut stream: TcpStream, _| {
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno!").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let head = format!("PUT /big HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000000000\r\n\r\n");
    let answer = server.upload_without_end(&head).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("\r\n\r\nno!"), "{answer}");
}

/// Without keys everyone may do everything, but for what other sites' pages make a browser do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c05_without_keys_a_foreign_page_still_opens_no_websocket() {
    let dir = tempfile::tempdir().unwrap();
    let open = sandcrab_server::ServeOptions { api_key: None, no_auth: true, ..options(dir.path()) };
    let server = TestServer::start_with(open, Arc::new(peers::good(Shared::default()))).await;
    let (port, _) = scripted(echo_socket).await;
    let path = format!("/v1/sandboxes/a/ports/{port}/connect");
    assert!(api_socket(&server, &path, "").await.0.starts_with("HTTP/1.1 101 "));
    let foreign = api_socket(&server, &path, "origin: http://evil.example\r\n").await.0;
    assert!(foreign.starts_with("HTTP/1.1 403 "), "{foreign}");
}

/// Bytes that come one by one go on together, whole and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e14_single_bytes_are_joined() {
    const BYTES: usize = 100_000;
    let (server, host, _) = before(async |mut stream: TcpStream, _head: String| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let text: String = (0..BYTES).map(|n| format!("1\r\n{}\r\n", n % 10)).collect();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.write_all(b"0\r\nx-end: yes\r\n\r\n").await.unwrap();
    })
    .await;
    let request = Request::builder().uri("/").header("host", &host).header("te", "trailers");
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let mut body = within("an answer", sender.send_request(request)).await.unwrap().into_body();
    let (mut pieces, mut text, mut trailers) = (0, Vec::new(), None);
    while let Some(frame) = within("a piece", body.frame()).await {
        match frame.unwrap().into_data() {
            Ok(data) => {
                pieces += 1;
                text.extend_from_slice(&data);
            }
            Err(last) => trailers = last.into_trailers().ok(),
        }
    }
    assert!(text.len() == BYTES && text.iter().enumerate().all(|(n, byte)| *byte == b'0' + (n % 10) as u8));
    assert_eq!(trailers.unwrap()["x-end"], "yes");
    assert!(pieces < BYTES / 20, "{pieces} pieces");
}

/// A length beside chunks is not passed on: it would cut the answer, or hide another in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c07_a_length_beside_chunks_does_not_pass() {
    let (server, host, _) = before(async |mut stream: TcpStream, _head: String| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(b"a\r\n0123456789\r\n0\r\n\r\n").await.unwrap();
    })
    .await;
    let answer = fetch(visit(&server, Method::GET, &host, "/")).await;
    assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
    assert_eq!(answer.body, "0123456789");
}
