//! Who is let in, by which name, and what they see of others.

use crate::harness::{KEY, TestServer, options, within};
use crate::peers::{self, Shared};
use crate::schema;
use http::Method;
use http_body_util::BodyExt;
use sandcrab_runtime::fake::Fake;
use sandcrab_server::{KeyError, ServeError, Server};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_but_health_and_the_document_needs_the_key() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    for path in [
        "/metrics",
        "/v1/sandboxes",
        "/v1/sandboxes/a",
        "/v1/sandboxes/a/sessions",
        "/v1/sandboxes/a/events",
        "/nothing",
    ] {
        for key in [None, Some("a-key-of-the-test"), Some("a-key-of-the-testsX"), Some("")] {
            let answer = server.request(Method::GET, path).key(key).send().await;
            assert_eq!(answer.failure(), (401, "UNAUTHORIZED".into()), "{path} {key:?}");
        }
    }
    for path in ["/health", "/v1/openapi.json"] {
        server.request(Method::GET, path).key(None).send().await.ok();
    }
    let document = server.request(Method::GET, "/v1/openapi.json").key(None).send().await.ok();
    assert_eq!(document, *crate::schema::DOCUMENT);
    server.request(Method::GET, "/v1/sandboxes").key(Some(KEY)).send().await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_made_at_the_first_start_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let start = || async {
        let options = sandcrab_server::ServeOptions { api_key: None, ..options(dir.path()) };
        TestServer::start_with(options, Arc::new(peers::good(Shared::default()))).await
    };
    let mut server = start().await;
    let key = server.started.new_key.clone().unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("api-key")).unwrap().trim(), key);
    assert_eq!(server.started.key_file.as_deref(), Some(dir.path().join("api-key").as_path()));
    assert_eq!(server.get("/v1/sandboxes").await.failure().0, 401);
    server.key = Some(key.clone());
    server.get("/v1/sandboxes").await.ok();
    server.stop().await;
    let mut again = start().await;
    assert_eq!(again.started.new_key, None);
    again.key = Some(key);
    again.get("/v1/sandboxes").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_auth_lets_everyone_in_and_bad_keys_do_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let driver = || Arc::new(peers::good(Shared::default()));
    let open = sandcrab_server::ServeOptions { api_key: None, no_auth: true, ..options(dir.path()) };
    let server = TestServer::start_with(open, driver()).await;
    assert!(!server.started.open_to_all && server.started.key_file.is_none());
    server.get("/v1/sandboxes").await.ok();
    let second = Server::start(options(dir.path()).resolve().unwrap(), driver()).await;
    assert!(matches!(second.err(), Some(ServeError::InUse { .. })));
    server.stop().await;
    let bad = sandcrab_server::ServeOptions { api_key: Some("short".into()), ..options(dir.path()) };
    let refused = Server::start(bad.resolve().unwrap(), driver()).await;
    assert!(matches!(refused.err(), Some(ServeError::Key(KeyError::Form))));
}

/// A server that knows another account, by its key.
async fn with_other_account(dir: &std::path::Path, driver: Fake) -> TestServer {
    let start = || TestServer::start_with(options(dir), Arc::new(driver.clone()));
    start().await.stop().await;
    let db = rusqlite::Connection::open(dir.join("sandcrab.db")).unwrap();
    db.execute("INSERT INTO accounts (id, name, created_at) VALUES (2, 'other', 0)", []).unwrap();
    let hash: [u8; 32] = Sha256::digest(b"key-of-other").into();
    db.execute("INSERT INTO keys (hash, account, name, created_at) VALUES (?, 2, 'k', 0)", [hash]).unwrap();
    drop(db);
    start().await
}

/// Whatever another account asks of this id, it gets what it would get of an id that nobody has, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c01_no_route_tells_one_account_of_anothers_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_other_account(dir.path(), peers::real()).await;
    let a = "/v1/sandboxes/a";
    let mine = async |path: &str, body: Value| server.post(&format!("{a}{path}"), body).await.ok();
    mine("/exec", json!({ "command": "kept=1; echo secret > f", "sessionId": "s1", "execId": "e1" })).await;
    mine(
        "/processes",
        json!({ "command": "echo secret; exec sleep 1000", "processId": "p1", "interactive": true }),
    )
    .await;
    let context = mine("/code/contexts", json!({})).await["id"].as_str().unwrap().to_owned();
    mine("/code/run", json!({ "code": "kept = 1", "contextId": context, "runId": "r1" })).await;
    let token = mine("/ports", json!({ "port": 8000, "hostname": "localhost:1" })).await["token"].clone();
    let events = server.get(&format!("{a}/events")).await.ok();

    let bodies = json!({
        "exec": { "command": "true", "execId": "e1", "sessionId": "s1" },
        "execStream": { "command": "true", "execId": "e1", "sessionId": "s1" },
        "startProcess": { "command": "true", "processId": "p1" },
        "createSession": { "id": "s1" },
        "runCode": { "code": "kept", "contextId": context },
        "runCodeStream": { "code": "kept", "contextId": context },
        "exposePort": { "port": 8000, "token": token, "hostname": "localhost:1" },
        "validatePortToken": { "token": token },
        "mkdir": { "path": "d" },
        "renameFile": { "oldPath": "f", "newPath": "g" },
        "moveFile": { "sourcePath": "f", "destinationPath": "g" },
        "waitForLog": { "text": "secret" },
        "waitForPort": { "port": 8000, "timeout": 10 },
        "gitCheckout": { "repoUrl": "http://127.0.0.1:1/r" },
    });
    let filled = |template: &str, id: &str| {
        [("{id}", id), ("{sessionId}", "s1"), ("{processId}", "p1"), ("{execId}", "e1"), ("{runId}", "r1")]
            .into_iter()
            .chain([("{contextId}", &*context), ("{port}", "8000")])
            .fold(template.to_owned(), |path, (name, value)| path.replace(name, value))
    };
    let mut tried = 0;
    let paths = schema::DOCUMENT["paths"].as_object().unwrap();
    let mut operations: Vec<_> = paths
        .iter()
        .filter(|(path, _)| path.starts_with("/v1/sandboxes/{id}"))
        .flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, it)| (path, method, it)))
        .collect();
    // What takes the sandbox itself away comes last.
    operations.sort_by_key(|(path, method, _)| (*path == "/v1/sandboxes/{id}", *method == "delete"));
    for (path, method, operation) in operations {
        let mut seen = Vec::new();
        for id in ["a", "nobodys"] {
            let query = if path.contains("/files") { "?path=f" } else { "" };
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
            let mut call =
                server.request(method, &format!("{}{query}", filled(path, id))).key(Some("key-of-other"));
            let content = operation["requestBody"]["content"].as_object();
            if content.is_some_and(|content| content.contains_key("application/json")) {
                let body = &bodies[operation["operationId"].as_str().unwrap()];
                call = call.json(if body.is_null() { const { &Value::Null } } else { body });
            } else if content.is_some() {
                call = call.header("content-type", "application/octet-stream").body("mine");
            }
            let answer = call.open().await;
            let status = answer.status();
            let mut code = Value::Null;
            if status.is_client_error() || status.is_server_error() {
                let body = within("an error", answer.into_body().collect()).await.unwrap().to_bytes();
                code = serde_json::from_slice::<Value>(&body).unwrap()["code"].clone();
            }
            seen.push((status, code));
        }
        assert_eq!(seen[0], seen[1], "{method} {path}");
        tried += 1;
    }
    assert!(tried > 40, "{tried} operations");

    // Everything is as it was, and the port's URL is the first one's.
    let kept = mine("/exec", json!({ "command": "echo $kept; cat f; ls", "sessionId": "s1" })).await;
    assert_eq!(kept["stdout"], "1\nsecret\nf\n");
    assert_eq!(server.get(&format!("{a}/processes/p1")).await.ok()["status"], "running");
    assert_eq!(server.get(&format!("{a}/execs/e1/result")).await.ok()["exitCode"], 0);
    let ran = mine("/code/run", json!({ "code": "kept", "contextId": context })).await;
    assert_eq!(ran["results"][0]["text"], "1");
    assert_eq!(server.get(&format!("{a}/ports?hostname=localhost:1")).await.ok()["ports"][0]["token"], token);
    assert_eq!(server.get(&format!("{a}/events")).await.ok(), events);
    server.request(Method::DELETE, &format!("{a}/processes")).send().await.ok();
}

/// Another account, as a key of the store has it, sees nothing of the first one's and cannot tell what exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c01_accounts_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_other_account(dir.path(), peers::good(Shared::default())).await;
    server.exec("a", "true").await.ok();
    let other = |method, path: &str| server.request(method, path).key(Some("key-of-other"));
    for id in ["a", "no-such"] {
        for (method, path) in [(Method::GET, ""), (Method::DELETE, ""), (Method::GET, "/events")] {
            let answer = other(method.clone(), &format!("/v1/sandboxes/{id}{path}")).send().await;
            assert_eq!(answer.failure(), (404, "SANDBOX_NOT_FOUND".into()), "{method} {id}{path}");
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert_eq!(message, format!("there is no sandbox {id}"));
        }
    }
    assert_eq!(other(Method::GET, "/v1/sandboxes").send().await.ok()["sandboxes"], serde_json::json!([]));
    // The same id is another sandbox.
    let file = "/v1/sandboxes/a/files/content?path=/f";
    let upload = other(Method::PUT, file).header("content-type", "application/octet-stream");
    upload.body("mine").send().await.ok();
    assert_eq!(server.get(file).await.failure(), (404, "FILE_NOT_FOUND".into()));
    assert_eq!(other(Method::GET, file).send().await.body, "mine");
    other(Method::DELETE, "/v1/sandboxes/a").send().await.ok();
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["status"], "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c06_a_foreign_host_name_is_refused_even_with_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let named =
        sandcrab_server::ServeOptions { allow_hosts: vec!["crab.example".into()], ..options(dir.path()) };
    let server = TestServer::start_with(named, Arc::new(peers::good(Shared::default()))).await;
    for path in ["/health", "/v1/sandboxes", "/v1/openapi.json"] {
        for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1"] {
            let answer = server.request(Method::GET, path).header("host", host).send().await;
            assert_eq!(answer.failure(), (403, "FORBIDDEN".into()), "{path} {host}");
        }
        for host in ["localhost", "crab.example:443", "[::1]"] {
            server.request(Method::GET, path).header("host", host).send().await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pages_that_were_named_may_call() {
    let dir = tempfile::tempdir().unwrap();
    let named = sandcrab_server::ServeOptions {
        cors_origins: vec!["https://app.example".into()],
        ..options(dir.path())
    };
    let server = TestServer::start_with(named, Arc::new(peers::good(Shared::default()))).await;
    let preflight = |origin: &'static str| {
        let call = server.request(Method::OPTIONS, "/v1/sandboxes/a/exec").key(None);
        call.header("origin", origin).header("access-control-request-method", "POST").send()
    };
    let answer = preflight("https://app.example").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    let refused = preflight("https://evil.example").await;
    assert_eq!(refused.status, 401);
    assert!(!refused.headers.contains_key("access-control-allow-origin"));
    // A page can read errors too.
    let call = server.request(Method::GET, "/v1/sandboxes/none").header("origin", "https://app.example");
    let answer = call.send().await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["access-control-allow-origin"]),
        (404, &"https://app.example".parse().unwrap())
    );
}
