//! Failures have one form, name what is wrong, and change nothing.

use crate::harness::TestServer;
use crate::peers::{self, Shared};
use http::Method;
use sandcrab_runtime::Driver;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x01_unknown_routes_and_methods_are_typed() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    for path in [
        "/",
        "/v1",
        "/v1/sandbox",
        "/v1/sandboxes/",
        "/v2/sandboxes",
        "/v1/sandboxes/a/nothing",
        "/v1/sandboxes/a/",
        "/v1/sandboxes/a/agent",
        "/v1/sandboxes/a//exec",
        "/v1/sandboxes/a/exec/",
        "/v1/sandboxes/a/%65xec",
        "/v1/sandboxes/a/../b",
        "/v1/sandboxes/a/events/x",
    ] {
        let (status, code) = server.get(path).await.failure();
        assert!(status == 404 && code == "ROUTE_NOT_FOUND", "{path}: {status} {code}");
    }
    for (method, path) in [
        (Method::POST, "/health"),
        (Method::DELETE, "/v1/sandboxes"),
        (Method::PATCH, "/v1/sandboxes/a"),
        (Method::GET, "/v1/sandboxes/a/exec"),
        (Method::OPTIONS, "/v1/sandboxes/a/exec"),
        (Method::TRACE, "/v1/sandboxes/a"),
        (Method::TRACE, "/v1/sandboxes/a/sessions"),
    ] {
        let answer = server.request(method.clone(), path).send().await;
        assert!(answer.headers.contains_key("allow"), "{method} {path}");
        assert_eq!(answer.failure(), (405, "METHOD_NOT_ALLOWED".into()), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x02_bad_input_names_its_field_and_changes_nothing() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    for (field, body) in [
        ("colour", json!({"colour": 1})),
        ("keepAlive", json!({"keepAlive": "yes"})),
        ("sleepAfter", json!({"sleepAfter": "soon"})),
        ("limits.memory", json!({"limits": {"memory": "lots"}})),
        ("limits.memory", json!({"limits": {"memory": 1}})),
        ("limits.openFiles", json!({"limits": {"openFiles": 63}})),
        ("limits.cpu", json!({"limits": {"cpu": 0}})),
        ("limits.ram", json!({"limits": {"ram": 1}})),
        ("env.A=B", json!({"env": {"A=B": "1"}})),
        ("network", json!({"network": "internet"})),
        ("labels", json!({"labels": {"": "1"}})),
        ("body", json!([1])),
    ] {
        let answer = server.put("/v1/sandboxes/a", body.clone()).await;
        assert_eq!(answer.field(), field, "{body}");
    }
    for id in ["-a", "a-", "root", "WWW", "a%20b", "a%2Fb", "%2e%2e", "a%00", "a%", &"x".repeat(64)] {
        for path in [
            format!("/v1/sandboxes/{id}"),
            format!("/v1/sandboxes/{id}/sessions"),
            format!("/v1/sandboxes/{id}/events"),
        ] {
            let (status, code) = server.get(&path).await.failure();
            assert_eq!((status, code.as_str()), (400, "VALIDATION_FAILED"), "{path}");
        }
        assert_eq!(server.put(&format!("/v1/sandboxes/{id}"), json!({})).await.failure().0, 400, "{id}");
    }
    assert_eq!(server.get("/v1/sandboxes/a/sessions/a%2fb").await.field(), "sessionId");
    assert_eq!(server.get("/v1/sandboxes?colour=1").await.field(), "colour");
    assert_eq!(server.get("/v1/sandboxes").await.ok()["sandboxes"], json!([]));
    assert!(driver.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x02_bodies_of_another_type_or_length_are_refused() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    let put = || server.request(Method::PUT, "/v1/sandboxes/a");
    let html = put().header("content-type", "text/html").body("{}").send().await;
    assert_eq!(html.failure(), (415, "UNSUPPORTED_MEDIA_TYPE".into()));
    assert_eq!(put().body("{}").send().await.failure().0, 415);
    assert_eq!(put().header("content-type", "application/json").body("{").send().await.field(), "body");
    let long = put().header("content-type", "application/json").body(vec![b' '; (48 << 20) + 1]).send().await;
    assert_eq!(long.failure(), (413, "PAYLOAD_TOO_LARGE".into()));
    let long =
        server.request(Method::POST, "/v1/sandboxes/a/exec").header("content-type", "application/json");
    // The length alone is enough: the body is not waited for.
    let long = long.body(vec![b' '; (48 << 20) + 1]).send().await;
    assert_eq!(long.failure(), (413, "PAYLOAD_TOO_LARGE".into()));
    assert!(driver.list().await.unwrap().is_empty());
    // No body at all is a sandbox with defaults.
    assert_eq!(put().send().await.status, 201);
}

/// A sandbox is made by its first use, but not by one that cannot be right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x02_a_wrong_first_request_makes_no_sandbox() {
    let driver = peers::real();
    let server = TestServer::start(driver.clone()).await;
    let long = "x".repeat((8 << 20) + 1);
    for (field, method, path, body) in [
        ("command", Method::POST, "exec", json!({"command": "a\0b"})),
        ("command", Method::POST, "exec/stream", json!({"command": long})),
        ("colour", Method::POST, "exec", json!({"command": "true", "colour": 1})),
        ("env.A=B", Method::POST, "sessions", json!({"env": {"A=B": "1"}})),
        ("env.1", Method::PATCH, "env", json!({"env": {"1": "1"}})),
        ("port", Method::POST, "processes/p/wait-for-port", json!({"port": -1})),
        ("code", Method::POST, "code/run", json!({"code": long})),
        ("depth", Method::POST, "git/checkout", json!({"repoUrl": "https://example.com/a", "depth": 0})),
        ("path", Method::POST, "files/write", json!({"path": "", "content": ""})),
        ("path", Method::GET, "files/content?path=", json!({})),
        ("path", Method::GET, "files/stream", json!({})),
        ("mode", Method::PUT, "files/content?path=/a&mode=99999", json!({})),
        ("signal", Method::DELETE, "processes?signal=SIGNOPE", json!({})),
    ] {
        let path = format!("/v1/sandboxes/a/{path}");
        assert_eq!(server.request(method, &path).json(&body).send().await.field(), field, "{path}");
    }
    let blank = server.exec("a", " ").await;
    assert_eq!(blank.failure(), (400, "INVALID_COMMAND".into()));
    let untyped = server.request(Method::POST, "/v1/sandboxes/a/exec").body("{}").send().await;
    assert_eq!(untyped.failure(), (415, "UNSUPPORTED_MEDIA_TYPE".into()));
    assert_eq!(untyped.json()["operation"], "exec");
    assert_eq!(server.get("/v1/sandboxes").await.ok()["sandboxes"], json!([]));
    assert!(driver.list().await.unwrap().is_empty());

    // One that can be right makes it, and arrives as it was sent, long or short.
    let content = "ü".repeat(3 << 20);
    let write = json!({"path": "/workspace/first", "content": content});
    server.post("/v1/sandboxes/a/files/write", write).await.ok();
    let back = server.get("/v1/sandboxes/a/files/content?path=/workspace/first").await;
    assert!(back.body == content);
    server.exec("b", "true").await.ok();
    assert_eq!(driver.list().await.unwrap().len(), 2);
}

/// The store is taken away below a running server: a fault of its own, with an id, and no panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x03_a_fault_has_an_id_and_the_next_request_is_answered() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    server.exec("a", "true").await.ok();
    let db = rusqlite::Connection::open(server.data.join("sandcrab.db")).unwrap();
    db.execute_batch("ALTER TABLE events RENAME TO elsewhere").unwrap();
    let answer = server.get("/v1/sandboxes/a/events").await;
    assert_eq!(answer.failure(), (500, "INTERNAL_ERROR".into()));
    assert!(answer.json()["context"]["errorId"].as_str().unwrap().starts_with("err_"));
    let failed = server.exec("b", "true").await;
    assert_eq!(failed.failure(), (500, "INTERNAL_ERROR".into()));
    assert_eq!(server.exec("a", "on").await.ok()["stdout"], "on");
    db.execute_batch("ALTER TABLE elsewhere RENAME TO events").unwrap();
    assert_eq!(server.events("a").await, ["created"]);
    server.exec("b", "true").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_counted() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    server.exec("a", "true").await.ok();
    server.exec("a", "busy").await;
    let text = String::from_utf8(server.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        r#"sandcrab_requests_total{operation="exec",status="200"} 1"#,
        r#"sandcrab_requests_total{operation="exec",status="409"} 1"#,
        r#"sandcrab_sandboxes{kind="running"} 1"#,
        "sandcrab_sandbox_creation_seconds_count 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

/// Whatever is wrong with it, the error names the operation by its id in the document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x01_every_refusal_names_its_own_operation() {
    let server = TestServer::start(peers::real()).await;
    server.exec("a", "true").await.ok();
    let names = [("{id}", "a"), ("{port}", "8000"), ("{name}", "no-such-image")];
    let unknown = ["{sessionId}", "{processId}", "{execId}", "{runId}", "{contextId}"];
    let mut refused = 0;
    for (path, item) in crate::schema::DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            // They need nothing, or take the sandbox away.
            if matches!(id, "destroySandbox" | "buildImage") {
                continue;
            }
            let filled = names.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
            let filled = unknown.iter().fold(filled, |path, name| path.replace(name, "unknown"));
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let takes = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
            let mut tries = vec![(filled.clone(), None)];
            if parameters.iter().any(|parameter| parameter["in"] == "query") {
                tries.push((format!("{filled}?odd=1"), None));
            }
            if takes("Last-Event-ID") {
                tries.push((filled.clone(), Some("x-y-z")));
            }
            for (path, last) in tries {
                let mut call = server.request(method.clone(), &path);
                if operation["requestBody"]["content"]["application/json"].is_object() {
                    call = call.json(&serde_json::json!([]));
                }
                if let Some(last) = last {
                    call = call.header("last-event-id", last);
                }
                let answer = call.open().await;
                if !answer.status().is_client_error() {
                    continue;
                }
                let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
                let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(error["operation"], id, "{method} {path} {last:?}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 60, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x02_a_query_where_none_is_taken_is_refused_by_name() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let auth = async |method: http::Method, path: &str| {
        server.request(method, path).json(&serde_json::json!({ "command": "true" })).send().await
    };
    for (method, path) in [
        (http::Method::POST, "/v1/sandboxes/box/exec?timeout=1"),
        (http::Method::GET, "/v1/sandboxes/box/sessions?timeout=1&x=2"),
        (http::Method::GET, "/v1/sandboxes/box/processes?timeout"),
        // The server's own.
        (http::Method::DELETE, "/v1/sandboxes/box?timeout=1"),
        (http::Method::PUT, "/v1/sandboxes/box?timeout=1"),
        (http::Method::GET, "/v1/images?timeout=1"),
        (http::Method::GET, "/v1/sandboxes?timeout=1"),
    ] {
        let answer = auth(method, path).await;
        assert_eq!(answer.failure(), (400, "VALIDATION_FAILED".into()), "{path}");
        assert!(answer.json()["message"].as_str().unwrap().starts_with("timeout: "), "{answer:?}");
    }
    let wrong = auth(http::Method::POST, "/v1/sandboxes/box/ports/1024/connect?path=").await;
    assert_eq!(wrong.status, 405, "a method that is none is told as that");
    assert_eq!(server.get("/health?nothing=cached").await.status, 200);
    assert_eq!(server.get("/v1/images?").await.status, 200);
}
