//! A server ends, gently or not, and the next one finds everything.

use crate::harness::{TestServer, only_instance, options, within};
use crate::peers::{self, Shared};
use sandcrab_runtime::{Driver, InstanceId, SandboxSpec};
use sandcrab_server::{ReconcileError, ServeError, Server};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// What a server that is killed at this instant leaves: its files as they are, while it still runs.
fn as_killed(data: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["sandcrab.db", "sandcrab.db-wal"] {
        if data.join(name).exists() {
            std::fs::copy(data.join(name), copy.path().join(name)).unwrap();
        }
    }
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l05_a_killed_servers_sandboxes_go_on_and_the_next_one_finds_them() {
    let shared = Shared::default();
    let driver = peers::good(shared.clone());
    let server = Arc::new(TestServer::start(driver.clone()).await);
    server.put("/v1/sandboxes/a", json!({"labels": {"k": "v"}, "sleepAfter": 7})).await.ok();
    let before = server.get("/v1/sandboxes/a").await.ok();
    // Killed in the middle of a command.
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.exec("a", "wait").await.status }
    });
    shared.began().await;
    let copy = as_killed(&server.data);
    let next = TestServer::start_with(options(copy.path()), Arc::new(driver.clone())).await;

    let after = next.get("/v1/sandboxes/a").await.ok();
    for field in ["id", "status", "image", "labels", "sleepAfter", "createdAt", "limits"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(next.exec("a", "new").await.ok()["stdout"], "new");
    assert_eq!(next.events("a").await, ["created", "recovered"]);
    // The command that ran meanwhile was not disturbed: the sandbox is the same one.
    shared.go.add_permits(1);
    assert_eq!(within("the old command", waiting).await.unwrap(), 200);
    next.delete("/v1/sandboxes/a").await.ok();
    assert!(driver.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l05_a_server_that_is_stopped_leaves_its_sandboxes_running() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    let server = TestServer::start_with(options(dir.path()), Arc::new(driver.clone())).await;
    server.exec("a", "true").await.ok();
    let instance = only_instance(&driver).await;
    server.stop().await;
    assert!(driver.inspect(&instance).await.unwrap().unwrap().running);
    driver.kill(&instance).unwrap();
    driver.wait_exit(&instance).await.unwrap();

    let server = TestServer::start_with(options(dir.path()), Arc::new(driver.clone())).await;
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["status"], "stopped");
    assert_eq!(server.events("a").await, ["created", "stopped"]);
    server.exec("a", "true").await.ok();
    assert_eq!(only_instance(&driver).await, instance);
    server.stop().await;
    driver.destroy(&instance).await.unwrap();

    let server = TestServer::start_with(options(dir.path()), Arc::new(driver.clone())).await;
    assert_eq!(server.get("/v1/sandboxes/a").await.failure().0, 404);
    assert_eq!(server.events("a").await.last().unwrap(), "destroyed");
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        sandbox: "a".parse().unwrap(),
        image: "host".into(),
        limits: Default::default(),
        network: Default::default(),
        isolation: Default::default(),
        env: Default::default(),
    }
}

/// Each point at which a creation or a destruction can be cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l01_what_a_killed_server_left_half_done_is_finished_or_undone() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    TestServer::start_with(options(dir.path()), Arc::new(driver.clone())).await.stop().await;
    let db = rusqlite::Connection::open(dir.path().join("sandcrab.db")).unwrap();
    let row = |id: &str, instance: &InstanceId, status: &str| {
        let json = r#"{"image":"host","limits":{},"network":"loopback","env":{},"sleepAfter":180,"keepAlive":false,"labels":{}}"#;
        db.execute(
            "INSERT INTO sandboxes (account, id, instance, status, options, created_at, changed_at) VALUES (1, ?, ?, ?, ?, 1, 1)",
            [id, instance.as_str(), status, json],
        )
        .unwrap();
    };
    let ids: Vec<_> = (0..5).map(|_| InstanceId::random()).collect();
    // Made, but its record was not: never acknowledged.
    driver.create(&ids[0], &spec()).await.unwrap();
    // Recorded, but not made.
    row("recorded", &ids[1], "starting");
    // Both, and the acknowledgement may have been sent.
    driver.create(&ids[2], &spec()).await.unwrap();
    row("both", &ids[2], "starting");
    // Cut off while it was taken away, before and after.
    driver.create(&ids[3], &spec()).await.unwrap();
    row("going", &ids[3], "destroying");
    row("gone", &ids[4], "destroying");
    drop(db);

    let server = TestServer::start_with(options(dir.path()), Arc::new(driver.clone())).await;
    assert_eq!(server.get("/v1/sandboxes/both").await.ok()["status"], "running");
    for id in ["recorded", "gone"] {
        assert_eq!(server.get(&format!("/v1/sandboxes/{id}")).await.failure().0, 404, "{id}");
    }
    within("what was going is gone", async {
        while driver.list().await.unwrap().len() != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(only_instance(&driver).await, ids[2]);
    server.exec("going", "true").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_database_takes_no_sandbox_with_it() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    server.exec("a", "true").await.ok();
    let empty = tempfile::tempdir().unwrap();
    let refused = Server::start(options(empty.path()).resolve().unwrap(), Arc::new(driver.clone())).await;
    let error = refused.err().unwrap();
    assert!(matches!(error, ServeError::Reconcile(ReconcileError::Orphans { count: 1, .. })), "{error}");
    only_instance(&driver).await;
    // Nor does a second try, for which the database is no longer new.
    let refused = Server::start(options(empty.path()).resolve().unwrap(), Arc::new(driver.clone())).await;
    assert!(refused.is_err());
    only_instance(&driver).await;
}

/// Every one of these agents holds its introduction until its bound; the server does not wait for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l05_frozen_sandboxes_do_not_keep_a_server_from_starting() {
    const FROZEN: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    let (frozen, seen) = tokio::sync::watch::channel(false);
    let driver = peers::freezable(peers::Shared::default(), seen);
    let server = TestServer::start_with(options(dir.path()), Arc::new(driver.clone())).await;
    for number in 0..FROZEN {
        server.exec(&format!("s{number}"), "true").await.ok();
    }
    server.stop().await;
    frozen.send(true).unwrap();
    let began = std::time::Instant::now();
    let server = TestServer::start_with(options(dir.path()), Arc::new(driver.clone())).await;
    assert_eq!(server.get("/v1/sandboxes/s0").await.ok()["status"], "starting");
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "it served after {took:?}");
    // Others are made and a frozen one is destroyed meanwhile; one that thaws is found as it was.
    server.delete("/v1/sandboxes/s1").await.ok();
    frozen.send(false).unwrap();
    server.exec("other", "true").await.ok();
    server.exec("s2", "true").await.ok();
    assert_eq!(server.events("s2").await, ["created", "recovered"]);
    assert_eq!(driver.list().await.unwrap().len(), FROZEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e02_only_a_kill_that_was_not_counted_before_is_why_an_agent_ended() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    let killed = |kills| sandcrab_runtime::Stats { oom_kills: Some(kills), ..Default::default() };
    let server = TestServer::start_with(options(dir.path()), Arc::new(driver.clone())).await;
    server.exec("a", "true").await.ok();
    // A command of the sandbox was killed some time ago; the agent is killed by someone else.
    driver.set_stats(killed(1));
    let copy = as_killed(dir.path());
    let server = TestServer::start_with(options(copy.path()), Arc::new(driver.clone())).await;
    let instance = only_instance(&driver).await;
    driver.kill(&instance).unwrap();
    server.until_status("a", "stopped").await;
    server.exec("a", "true").await.ok();
    assert_eq!(server.events("a").await, ["created", "recovered", "stopped", "started"]);
    driver.set_stats(killed(2));
    driver.kill(&instance).unwrap();
    server.until_status("a", "stopped").await;
    server.exec("a", "true").await.ok();
    assert_eq!(server.events("a").await[4..], ["oom", "started"]);
}

/// A fault of the server's own in what it does with one sandbox ends that, and nothing else: the sandbox is taken up again
/// as it is, and there is never a second one of its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x03_a_sandbox_whose_owner_panics_is_taken_up_again() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    server.exec("a", "true").await.ok();
    server.exec("b", "true").await.ok();
    let path = "/v1/sandboxes/a/files/content?path=/f";
    let put = server.request(http::Method::PUT, path).header("content-type", "application/octet-stream");
    put.body("kept").send().await.ok();
    let instances = driver.list().await.unwrap();
    let a = instances.iter().find(|one| one.spec.sandbox.as_str() == "a").unwrap().id.clone();

    driver.panic(&a).unwrap();
    server.until_event("a", "recovered").await;
    server.until_status("a", "running").await;
    assert_eq!(server.get(path).await.body, "kept");
    let now = driver.list().await.unwrap();
    assert_eq!(now.len(), 2, "{now:?}");
    assert!(now.iter().any(|one| one.id == a), "it is the same instance");
    // Its next owner may have met the same fault.
    let events = server.events("a").await;
    assert!(events[0] == "created" && events[1..].iter().all(|kind| kind == "recovered"), "{events:?}");
    assert_eq!(server.events("b").await, ["created"]);

    // Whatever comes while it is taken up again is answered, and a destroy is a destroy.
    driver.panic(&a).unwrap();
    let answers = futures_util::future::join_all((0..20).map(|_| server.exec("a", "true"))).await;
    for answer in answers {
        assert!([200, 500, 502, 503, 409].contains(&answer.status.as_u16()), "{answer:?}");
    }
    server.until_status("a", "running").await;
    server.request(http::Method::DELETE, "/v1/sandboxes/a").send().await.ok();
    assert_eq!(driver.list().await.unwrap().len(), 1);
    server.exec("a", "true").await.ok();
    assert_eq!(driver.list().await.unwrap().len(), 2);
}
