//! Previews: real servers on loopback ports, reached as a browser reaches them. The agents are fake but for their
//! route to ports, which is the real one.

use crate::harness::{Answer, Call, KEY, TestServer, only_instance, options, within};
use crate::peers::{self, Shared};
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use http::Method;
use http_body_util::BodyExt;
use sandcrab_runtime::Driver;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// A server such as people run in a sandbox.
pub(crate) async fn site() -> u16 {
    async fn seen(request: Request) -> Json<Value> {
        let headers: serde_json::Map<String, Value> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
            .collect();
        Json(
            json!({ "method": request.method().as_str(), "uri": request.uri().to_string(), "headers": headers }),
        )
    }
    async fn echo(request: Request) -> Body {
        request.into_body()
    }
    async fn login() -> impl IntoResponse {
        let headers = [("location", "/home"), ("set-cookie", "a=1; Path=/"), ("x-own", "yes")];
        (http::StatusCode::FOUND, headers, "go")
    }
    async fn cookies() -> impl IntoResponse {
        let mut headers = http::HeaderMap::new();
        for cookie in ["own=1", "wide=1; Domain=localhost", "evil=1; Domain=.LOCALHOST; Path=/"] {
            headers.append("set-cookie", cookie.parse().unwrap());
        }
        headers
    }
    async fn packed() -> impl IntoResponse {
        [("content-encoding", "gzip"), ("x-sandcrab-content-encoding", "forged")]
    }
    async fn ticks() -> impl IntoResponse {
        let ticks = futures_util::stream::unfold(0u32, |n| async move {
            if n > 0 {
                std::future::pending::<()>().await;
            }
            Some((Ok::<_, std::io::Error>(format!("data: tick {n}\n\n")), n + 1))
        });
        ([("content-type", "text/event-stream")], Body::from_stream(ticks))
    }
    let router = axum::Router::new()
        .route("/echo", any(echo))
        .route("/login", get(login))
        .route("/cookies", get(cookies))
        .route("/packed", get(packed))
        .route("/ticks", get(ticks))
        .fallback(seen)
        .layer(axum::extract::DefaultBodyLimit::disable());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    port
}

/// Exposes a port; the URL's host, and the token.
pub(crate) async fn expose(server: &TestServer, sandbox: &str, port: u16) -> (String, String) {
    let path = format!("/v1/sandboxes/{sandbox}/ports");
    let exposed = server.post(&path, json!({ "port": port, "hostname": "localhost" })).await;
    assert_eq!(exposed.status, 201, "{exposed:?}");
    let exposed = exposed.json();
    let url = exposed["url"].as_str().unwrap();
    let host = url.strip_prefix("http://").unwrap().strip_suffix('/').unwrap();
    (host.to_owned(), exposed["token"].as_str().unwrap().to_owned())
}

/// A request to a preview, as from a browser without any key.
pub(crate) fn visit<'a>(server: &'a TestServer, method: Method, host: &str, path: &str) -> Call<'a> {
    server.request(method, path).key(None).header("host", host)
}

/// The whole answer of a preview, which no document describes.
pub(crate) async fn fetch(call: Call<'_>) -> Answer {
    let (head, body) = call.open().await.into_parts();
    let body = within("the preview's body", body.collect()).await.unwrap().to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

async fn started() -> (TestServer, u16, String) {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let port = site().await;
    let (host, _) = expose(&server, "a", port).await;
    (server, port, host)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_exposed_listed_and_taken_back() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let ports = "/v1/sandboxes/user-1/ports";
    assert_eq!(server.get(ports).await.ok(), json!({ "ports": [] }));
    assert_eq!(server.get("/v1/sandboxes/user-1").await.failure().0, 404, "listing makes no sandbox");
    let wish = json!({ "port": 8080, "hostname": "localhost:8787", "name": "web", "token": "my_token_9" });
    let made = server.post(ports, wish.clone()).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["url"], "http://8080-user-1-my_token_9.localhost:8787/");
    assert_eq!((&made.json()["name"], &made.json()["status"]), (&json!("web"), &json!("active")));
    let again = server.post(ports, wish).await;
    assert_eq!(again.failure(), (409, "PORT_ALREADY_EXPOSED".into()));
    assert_eq!(again.json()["context"]["port"], 8080);
    // By itself the name that the server was called by, where it is a local one.
    let other = server.post(ports, json!({ "port": 3000, "token": "s" })).await.ok();
    let token = other["token"].as_str().unwrap();
    assert_eq!(token, "s", "a token is used as it is, however short");
    assert_eq!(other["url"], format!("http://3000-user-1-{token}.localhost:{}/", server.address.port()));
    let list = server.get(&format!("{ports}?hostname=p.example")).await.ok();
    assert_eq!(list["ports"].as_array().unwrap().len(), 2);
    assert_eq!(list["ports"][1]["url"], "https://8080-user-1-my_token_9.p.example/");

    let valid = async |port: u16, token: &str| {
        let path = format!("{ports}/{port}/validate");
        server.post(&path, json!({ "token": token })).await.ok()["valid"].as_bool().unwrap()
    };
    assert!(valid(8080, "my_token_9").await);
    for (port, token) in [(8080, "my_token_8"), (8080, ""), (3000, "my_token_9"), (3001, "my_token_9")] {
        assert!(!valid(port, token).await, "{port} {token}");
    }
    assert_eq!(server.delete(&format!("{ports}/8080")).await.ok()["port"], 8080);
    assert!(!valid(8080, "my_token_9").await);
    assert_eq!(server.delete(&format!("{ports}/8080")).await.failure(), (404, "PORT_NOT_EXPOSED".into()));
    assert_eq!(server.get(ports).await.ok()["ports"].as_array().unwrap().len(), 1);
}

/// What replaces an exposed port: the same URL, or a new one and the old is dead at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c02_a_port_that_is_exposed_can_be_exposed_again() {
    let (server, port, host) = started().await;
    let again = async |more: Value| {
        let mut wish = json!({ "port": port, "hostname": "localhost", "replace": true });
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/sandboxes/a/ports", wish).await
    };
    let same = again(json!({})).await;
    assert_eq!((same.status.as_u16(), same.json()["url"].as_str()), (200, Some(&*format!("http://{host}/"))));
    // A stream that is open over it stays open through a change of the name, and is cut by one of the token.
    let open = visit(&server, Method::GET, &host, "/ticks").open().await;
    let mut body = open.into_body();
    within("the first event", body.frame()).await.unwrap().unwrap();
    let named = again(json!({ "name": "web" })).await.ok();
    assert_eq!((&named["name"], &named["url"]), (&json!("web"), &json!(format!("http://{host}/"))));
    assert_eq!(fetch(visit(&server, Method::GET, &host, "/p")).await.status, 200);
    let moved = again(json!({ "token": "new_token" })).await.ok();
    assert_eq!((&moved["name"], &moved["token"]), (&json!("web"), &json!("new_token")));
    assert!(within("the cut", body.frame()).await.unwrap().is_err());
    assert_eq!(
        fetch(visit(&server, Method::GET, &host, "/p")).await.failure(),
        (404, "INVALID_TOKEN".into())
    );
    let moved = format!("{port}-a-new_token.localhost");
    assert_eq!(fetch(visit(&server, Method::GET, &moved, "/p")).await.status, 200);

    // One that another port of the sandbox has is refused, and the port stays what it was.
    server.post("/v1/sandboxes/a/ports", json!({ "port": 4000, "token": "taken" })).await.ok();
    let refused = again(json!({ "token": "taken" })).await;
    assert_eq!(refused.field(), "token");
    assert!(refused.json()["message"].as_str().unwrap().contains("port 4000"), "{refused:?}");
    assert_eq!(fetch(visit(&server, Method::GET, &moved, "/p")).await.status, 200);
    // It is one exposure all the time, also for the next server.
    let list = server.get("/v1/sandboxes/a/ports").await.ok();
    assert_eq!(list["ports"].as_array().unwrap().len(), 2);
    server.delete(&format!("/v1/sandboxes/a/ports/{port}")).await.ok();
    assert_eq!(
        fetch(visit(&server, Method::GET, &moved, "/p")).await.failure(),
        (404, "INVALID_TOKEN".into())
    );
}

/// A program's own request to a port that is not exposed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c01_a_program_with_a_key_reaches_a_port_that_is_not_exposed() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let port = site().await;
    let call = |key: &str, port: &str| {
        let call = server.request(Method::GET, "/v1/sandboxes?q").key(None);
        call.header("x-sandcrab-key", key).header("x-sandcrab-sandbox", "new").header("x-sandcrab-port", port)
    };
    let seen = fetch(call(KEY, &port.to_string()).header("authorization", "Bearer of-the-app")).await.ok();
    assert_eq!(seen["uri"], "/v1/sandboxes?q", "every path is the port's own");
    let host = format!("localhost:{port}");
    assert_eq!(
        (&seen["headers"]["host"], &seen["headers"]["authorization"]),
        (&json!(host), &json!("Bearer of-the-app"))
    );
    assert!(!seen.to_string().contains("x-sandcrab"), "{seen}");
    assert_eq!(server.get("/v1/sandboxes/new").await.ok()["status"], "running", "the first use makes it");
    assert_eq!(fetch(call("another-key-0", "3000")).await.failure(), (401, "UNAUTHORIZED".into()));
    for bad in ["80", "x", ""] {
        assert_eq!(fetch(call(KEY, bad)).await.failure(), (400, "INVALID_PORT_NUMBER".into()), "{bad}");
    }
    let nameless = server.request(Method::GET, "/").key(None).header("x-sandcrab-key", KEY);
    assert_eq!(fetch(nameless.header("x-sandcrab-port", "3000")).await.field(), "X-Sandcrab-Sandbox");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x02_bad_wishes_are_refused_and_make_nothing() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let ports = "/v1/sandboxes/a/ports";
    for (wish, field) in [
        (json!({ "port": 3000, "hostname": "a b" }), "hostname"),
        (json!({ "port": 3000, "token": "UPPER" }), "token"),
        (json!({ "port": 3000, "token": "seventeen_letters" }), "token"),
        (json!({ "port": 3000, "name": "x".repeat(200) }), "name"),
        (json!({ "port": "3000" }), "port"),
        (json!({ "port": 3000.5 }), "port"),
        (json!({ "port": 3000, "colour": 1 }), "colour"),
        (json!({}), "port"),
    ] {
        assert_eq!(server.post(ports, wish.clone()).await.field(), field, "{wish}");
    }
    for port in [0, 80, 1023, 65536, -1] {
        let refused = server.post(ports, json!({ "port": port })).await;
        assert_eq!(refused.failure(), (400, "INVALID_PORT_NUMBER".into()));
        assert_eq!(refused.json()["context"]["port"], port);
    }
    for port in ["0", "x", "65536"] {
        let path = format!("{ports}/{port}");
        assert_eq!(server.delete(&path).await.failure(), (400, "INVALID_PORT_NUMBER".into()), "{port}");
    }
    for hostname in ["192.0.2.1", "me.workers.dev"] {
        let refused = server.post(ports, json!({ "port": 3000, "hostname": hostname })).await;
        assert_eq!(refused.failure(), (400, "CUSTOM_DOMAIN_REQUIRED".into()), "{hostname}");
    }
    for id in ["Upper", "dots.in.it", &"x".repeat(60)] {
        let refused = server.post(&format!("/v1/sandboxes/{id}/ports"), json!({ "port": 3000 })).await;
        assert_eq!(refused.field(), "id", "{id}");
    }
    assert_eq!(server.get("/v1/sandboxes").await.ok()["sandboxes"], json!([]));
}

/// In the host's network a port is the host's, the server's own among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c08_no_port_of_the_hosts_network_is_exposed() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    server.put("/v1/sandboxes/h", json!({ "network": "host" })).await.ok();
    for port in [server.address.port(), site().await] {
        let refused = server.post("/v1/sandboxes/h/ports", json!({ "port": port })).await;
        assert_eq!(refused.failure(), (400, "INVALID_PORT".into()));
        assert_eq!(refused.json()["context"]["port"], port);
    }
    assert_eq!(server.get("/v1/sandboxes/h/ports").await.ok(), json!({ "ports": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c04_a_request_passes_as_it_came_without_what_is_ours() {
    let (server, port, host) = started().await;
    let call = visit(&server, Method::GET, &host, "/some/%70ath?q=1&r=%2F")
        .header("authorization", &format!("Bearer {KEY}"))
        .header("cookie", "theirs=1; sandcrab_console=secret")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-forwarded-host", "evil.example")
        .header("x-sandcrab-key", KEY)
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-own", "2");
    let seen = fetch(call).await.ok();
    assert_eq!((&seen["method"], &seen["uri"]), (&json!("GET"), &json!("/some/%70ath?q=1&r=%2F")));
    assert_eq!(
        seen["headers"],
        json!({
            "host": host, "x-own": "2", "cookie": "theirs=1",
            "x-forwarded-for": "127.0.0.1", "x-forwarded-host": host,
            "x-forwarded-proto": "http", "x-forwarded-port": "80",
        })
    );
    // Theirs passes.
    let call = visit(&server, Method::GET, &host, "/").header("authorization", "Bearer of-the-site");
    assert_eq!(fetch(call).await.ok()["headers"]["authorization"], "Bearer of-the-site");

    let answer = fetch(visit(&server, Method::GET, &host, "/login")).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (302, &b"go"[..]));
    assert_eq!(
        (&answer.headers["location"], &answer.headers["set-cookie"]),
        (&"/home".parse().unwrap(), &"a=1; Path=/".parse().unwrap())
    );
    for name in ["x-request-id", "cache-control", "x-content-type-options"] {
        assert!(!answer.headers.contains_key(name), "{name} is the API's");
    }
    let answer = fetch(visit(&server, Method::GET, &host, "/cookies")).await;
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["own=1"]);
    // The port itself is asked, whatever the label's case.
    let upper = host.to_uppercase().replace("LOCALHOST", "localhost");
    assert_eq!(fetch(visit(&server, Method::GET, &upper, "/")).await.ok()["headers"]["host"], upper.as_str());
    assert!(host.starts_with(&format!("{port}-a-")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c02_only_the_whole_name_opens_a_preview_and_only_while_it_is_exposed() {
    let (server, port, host) = started().await;
    let invalid = async |host: &str| {
        let answer = fetch(visit(&server, Method::GET, host, "/")).await;
        assert_eq!(answer.failure(), (404, "INVALID_TOKEN".into()), "{host}");
        assert!(!answer.json()["message"].as_str().unwrap().contains("a-"), "no oracle");
    };
    let (_, token) = host.strip_suffix(".localhost").unwrap().rsplit_once('-').unwrap();
    assert_eq!(fetch(visit(&server, Method::GET, &host, "/")).await.status, 200);
    let shorter = &token[..15];
    for wrong in [
        format!("{port}-a-{shorter}.localhost"),
        format!("{port}-a-{token}x.localhost"),
        format!("{port}-b-{token}.localhost"),
        format!("{}-a-{token}.localhost", port - 1),
        format!("{port}-no-such-{token}.localhost"),
    ] {
        invalid(&wrong).await;
    }
    // A page for people.
    let call = visit(&server, Method::GET, &format!("{port}-a-wrong.localhost"), "/")
        .header("accept", "text/html,*/*");
    let page = fetch(call).await;
    assert_eq!(
        (page.status.as_u16(), &page.headers["content-type"]),
        (404, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));

    // Taken back: dead at once, and so is a stream that is open.
    let stream = visit(&server, Method::GET, &host, "/ticks").open().await;
    let mut stream = stream.into_body();
    assert_eq!(
        within("a tick", stream.frame()).await.unwrap().unwrap().into_data().unwrap(),
        "data: tick 0\n\n"
    );
    server.delete(&format!("/v1/sandboxes/a/ports/{port}")).await.ok();
    assert!(within("the stream is cut", stream.frame()).await.is_none_or(|frame| frame.is_err()));
    invalid(&host).await;

    // A sandbox that is destroyed takes its ports with it; the next one of its id has none of them.
    let (host, _) = expose(&server, "a", port).await;
    assert_eq!(fetch(visit(&server, Method::GET, &host, "/")).await.status, 200);
    server.delete("/v1/sandboxes/a").await.ok();
    invalid(&host).await;
    assert_eq!(server.get("/v1/sandboxes/a").await.failure().0, 404, "a stale URL makes no sandbox");
    server.exec("a", "true").await.ok();
    invalid(&host).await;
    assert_eq!(server.get("/v1/sandboxes/a/ports").await.ok(), json!({ "ports": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c02_guessing_is_slowed_down_but_shuts_nobody_out() {
    let (server, port, host) = started().await;
    fetch(visit(&server, Method::GET, &host, "/")).await.ok();
    let mut statuses = Vec::new();
    for n in 0..80 {
        let guess = format!("{port}-a-guess{n}.localhost");
        statuses.push(fetch(visit(&server, Method::GET, &guess, "/")).await);
    }
    let limited = statuses.iter().find(|answer| answer.status == 429).expect("no limit");
    assert_eq!(limited.failure(), (429, "QUOTA_EXCEEDED".into()));
    assert!(limited.headers.contains_key("retry-after"));
    fetch(visit(&server, Method::GET, &host, "/")).await.ok();
}

/// Two accounts may use one id; neither sees nor reaches the other's ports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c01_accounts_do_not_see_each_others_ports() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    let start = || TestServer::start_with(options(dir.path()), Arc::new(driver.clone()));
    start().await.stop().await;
    let db = rusqlite::Connection::open(dir.path().join("sandcrab.db")).unwrap();
    db.execute("INSERT INTO accounts (id, name, created_at) VALUES (2, 'other', 0)", []).unwrap();
    let hash: [u8; 32] = Sha256::digest(b"key-of-other").into();
    db.execute("INSERT INTO keys (hash, account, name, created_at) VALUES (?, 2, 'k', 0)", [hash]).unwrap();
    drop(db);
    let server = start().await;
    let other = |method, path: &str| server.request(method, path).key(Some("key-of-other"));
    let wish = json!({ "port": 4000, "token": "the_same_token" });
    let mine = server.post("/v1/sandboxes/a/ports", wish.clone()).await.ok();
    assert_eq!(other(Method::GET, "/v1/sandboxes/a/ports").send().await.ok(), json!({ "ports": [] }));
    let taken = other(Method::DELETE, "/v1/sandboxes/a/ports/4000").send().await;
    assert_eq!(taken.failure(), (404, "PORT_NOT_EXPOSED".into()));
    let validate = other(Method::POST, "/v1/sandboxes/a/ports/4000/validate");
    assert_eq!(
        validate.json(&json!({ "token": "the_same_token" })).send().await.ok(),
        json!({ "valid": false })
    );
    // The same wish gets another token, since a host names no account.
    let theirs = other(Method::POST, "/v1/sandboxes/a/ports").json(&wish).send().await.ok();
    assert_ne!(mine["token"], theirs["token"]);
    assert!(theirs["token"].as_str().unwrap().starts_with("the_same_token"));
    other(Method::DELETE, "/v1/sandboxes/a").send().await.ok();
    assert_eq!(server.get("/v1/sandboxes/a/ports").await.ok()["ports"][0]["token"], mine["token"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l05_exposed_ports_outlive_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    let start = || TestServer::start_with(options(dir.path()), Arc::new(driver.clone()));
    let port = site().await;
    let server = start().await;
    let (host, _) = expose(&server, "a", port).await;
    let (gone, _) = expose(&server, "b", port).await;
    server.delete("/v1/sandboxes/b").await.ok();
    server.stop().await;
    let server = start().await;
    fetch(visit(&server, Method::GET, &host, "/")).await.ok();
    assert_eq!(fetch(visit(&server, Method::GET, &gone, "/")).await.status, 404);
    // Nothing is left of it in the store either.
    let db = rusqlite::Connection::open(dir.path().join("sandcrab.db")).unwrap();
    let count: i64 = db.query_row("SELECT count(*) FROM ports", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l03_a_preview_starts_a_sandbox_that_has_stopped() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    let port = site().await;
    let (host, _) = expose(&server, "a", port).await;
    driver.kill(&only_instance(&driver).await).unwrap();
    server.until_status("a", "stopped").await;
    fetch(visit(&server, Method::GET, &host, "/")).await.ok();
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["status"], "running");
    assert!(driver.list().await.unwrap().len() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_without_a_server_is_a_502_that_says_so() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (host, _) = expose(&server, "a", free).await;
    let answer = fetch(visit(&server, Method::GET, &host, "/")).await;
    assert_eq!(answer.failure(), (502, "SERVICE_NOT_RESPONDING".into()));
    assert_eq!(answer.json()["context"]["port"], free);
    // Large uploads are refused without being read.
    let upload = visit(&server, Method::POST, &host, "/").body(vec![0; 1 << 20]);
    assert_eq!(fetch(upload).await.failure().0, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_whole_and_connections_are_used_again() {
    let (server, _, host) = started().await;
    let body: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
    let echo = fetch(visit(&server, Method::PUT, &host, "/echo").body(body.clone())).await;
    assert!(echo.status == 200 && echo.body == body);
    for n in 0..200 {
        let seen = fetch(visit(&server, Method::GET, &host, &format!("/{n}"))).await.ok();
        assert_eq!(seen["uri"], format!("/{n}"));
    }
    let head = fetch(visit(&server, Method::HEAD, &host, "/login")).await;
    assert_eq!((head.status.as_u16(), &head.headers["content-length"]), (302, &"2".parse().unwrap()));
    assert!(head.body.is_empty());
    let options = fetch(
        visit(&server, Method::OPTIONS, &host, "/x")
            .header("access-control-request-method", "PUT")
            .header("origin", "http://x.example"),
    );
    assert_eq!(options.await.ok()["method"], "OPTIONS", "preflights are the site's to answer");
}

/// Events arrive when they are written, and a caller that goes away frees the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_stream_as_they_come() {
    let (server, _, host) = started().await;
    for _ in 0..20 {
        let answer =
            visit(&server, Method::GET, &host, "/ticks").header("accept", "text/event-stream").open().await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut body = answer.into_body();
        let first = within("the first event", body.frame()).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "data: tick 0\n\n");
        assert!(tokio::time::timeout(Duration::from_millis(20), body.frame()).await.is_err());
    }
}

/// A program of the operator's that takes visitors in under its own domain, and passes them on with its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c01_visitors_are_passed_on_by_whoever_has_the_accounts_key() {
    let (server, _, host) = started().await;
    let label = host.strip_suffix(".localhost").unwrap();
    let theirs = format!("{label}.apps.example");
    let forward = |key: &str| {
        let call = server.request(Method::GET, "/p?q").key(None).header("x-sandcrab-preview", &theirs);
        call.header("x-sandcrab-key", key)
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-proto", "https")
    };
    let seen = fetch(forward(KEY).header("authorization", "Bearer of-the-visitor")).await.ok();
    assert_eq!(seen["uri"], "/p?q");
    assert_eq!(
        seen["headers"],
        json!({
            "host": theirs, "authorization": "Bearer of-the-visitor",
            "x-forwarded-for": "203.0.113.9", "x-forwarded-host": theirs,
            "x-forwarded-proto": "https", "x-forwarded-port": "443",
        })
    );
    assert_eq!(fetch(forward("another-key-0")).await.failure(), (401, "UNAUTHORIZED".into()));
    let keyless = server.request(Method::GET, "/").key(Some(KEY)).header("x-sandcrab-preview", &theirs);
    assert_eq!(
        fetch(keyless).await.failure(),
        (401, "UNAUTHORIZED".into()),
        "the visitor's header is no key"
    );
    let foreign = forward(KEY).header("host", "evil.example");
    assert_eq!(fetch(foreign).await.failure(), (403, "FORBIDDEN".into()));
    let wrong = forward(KEY).header("x-sandcrab-preview", "3000-a-wrong.apps.example");
    assert_eq!(fetch(wrong).await.failure(), (404, "INVALID_TOKEN".into()));
}

/// A `fetch` decodes what `Content-Encoding` names, and then passes on headers that are wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c01_a_body_is_passed_on_encoded_under_a_name_that_no_fetch_knows() {
    let (server, _, host) = started().await;
    let ask = || server.request(Method::GET, "/packed").header("x-sandcrab-preview", &host);
    let encodings = async |call: Call<'_>| {
        let headers = fetch(call.header("x-sandcrab-key", KEY)).await.headers;
        ["content-encoding", "x-sandcrab-content-encoding"]
            .map(|name| headers.get(name).map(|value| value.to_str().unwrap().to_owned()))
    };
    let gzip = || Some("gzip".to_owned());
    assert_eq!(encodings(ask()).await, [gzip(), Some("forged".to_owned())]);
    assert_eq!(encodings(ask().header("x-sandcrab-hide-encoding", "1")).await, [None, gzip()]);
}
