//! Agents that no longer answer, or no longer can (attacks A28, A33): the server finds out by itself.

use crate::harness::{TestServer, within};
use crate::peers::{self, Shared};
use axum::Json;
use axum::http::StatusCode;
use axum::routing::{get, post};
use sandcrab_api::{ApiError, ErrorCode};
use sandcrab_runtime::fake::{AgentStart, Fake};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a33_an_agent_that_falls_silent_is_given_up_and_replaced() {
    let (freeze, frozen) = watch::channel(false);
    let shared = Shared::default();
    let server = Arc::new(TestServer::start(peers::freezable(shared.clone(), frozen)).await);
    server.exec("a", "true").await.ok();
    let path = "/v1/sandboxes/a/files/content?path=/f";
    let put = server.request(http::Method::PUT, path).header("content-type", "application/octet-stream");
    put.body("kept").send().await.ok();
    let exec = |command: &'static str| {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.exec("a", command).await })
    };
    // One that waits on a connection which the agent serves, and ones that wait for a connection.
    shared.began().await;
    let waiting = exec("wait");
    shared.began().await;
    freeze.send_replace(true);
    let waiting = [waiting, exec("true"), exec("true")];
    for answer in waiting {
        let answer = within("a typed error", answer).await.unwrap();
        assert_eq!(answer.failure(), (502, "SERVICE_NOT_RESPONDING".into()));
        assert!(answer.json()["message"].as_str().unwrap().contains("no longer answered"), "{answer:?}");
    }
    server.until_status("a", "stopped").await;
    assert_eq!(server.events("a").await, ["created", "unresponsive"]);
    freeze.send_replace(false);
    assert_eq!(server.get(path).await.body, "kept");
    assert_eq!(server.events("a").await, ["created", "unresponsive", "started"]);
}

/// One that waits long and lives is left alone: its silence says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a33_a_long_command_raises_no_false_alarm() {
    let probes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&probes);
    let driver = Fake::new(move |start: AgentStart| {
        let probes = Arc::clone(&counted);
        serve(start, axum::Router::new().route("/exec", post(std::future::pending::<()>)), move || {
            probes.fetch_add(1, Ordering::SeqCst);
            None
        })
    });
    let server = Arc::new(TestServer::start(driver).await);
    let waiting = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.exec("a", "sleep").await }
    });
    // The first is the introduction.
    within("the server asks", async {
        while probes.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["status"], "running");
    assert_eq!(server.events("a").await, ["created"]);
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a28_an_agent_that_can_no_longer_work_is_given_up() {
    let met = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&met);
    let driver = Fake::new(move |start: AgentStart| {
        let met = Arc::clone(&counted);
        let failing = async || {
            let error = ApiError::new(ErrorCode::CommandExecutionError, "Too many open files").during("exec");
            (StatusCode::INTERNAL_SERVER_ERROR, Json(error))
        };
        serve(start, axum::Router::new().route("/exec", post(failing)), move || {
            let first = met.fetch_add(1, Ordering::SeqCst) == 0;
            (!first).then(|| {
                ApiError::new(ErrorCode::ServiceNotResponding, "its limit on open files was changed")
            })
        })
    });
    let server = TestServer::start(driver).await;
    for _ in 0..2 {
        assert_eq!(server.exec("a", "true").await.failure().0, 500);
    }
    assert_eq!(met.load(Ordering::SeqCst), 1, "two failures are no reason to ask");
    assert_eq!(server.exec("a", "true").await.failure().0, 500);
    server.until_status("a", "stopped").await;
    let events = server.get("/v1/sandboxes/a/events").await.ok();
    let last = events["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["kind"], &last["actor"]), (&"unresponsive".into(), &"server".into()), "{last}");
    assert!(last["reason"].as_str().unwrap().contains("limit on open files"), "{last}");
}

/// Serves routes, and an introduction that fails with what `unfit` says.
async fn serve(
    start: AgentStart,
    routes: axum::Router,
    unfit: impl Fn() -> Option<ApiError> + Clone + Send + Sync + 'static,
) -> i32 {
    let hello = async move || match unfit() {
        None => Ok(Json(serde_json::json!({"version": "0.0.1", "features": []}))),
        Some(error) => Err((StatusCode::BAD_GATEWAY, Json(error))),
    };
    let listener = tokio::net::UnixListener::from_std(start.listener).unwrap();
    axum::serve(listener, routes.route("/agent", get(hello))).await.unwrap();
    0
}
