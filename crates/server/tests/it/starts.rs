//! A start serves whatever it finds, and nothing acknowledged is destroyed by it; a store that cannot write keeps nothing
//! from being taken away.

use crate::harness::{TestServer, only_instance, options, within};
use crate::peers::{self, Shared};
use sandcrab_runtime::fake::{AgentStart, Fake};
use sandcrab_runtime::{Condition, Driver};
use sandcrab_server::{ReconcileError, ServeError, ServeOptions, Server};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

async fn start(dir: &Path, driver: &Fake) -> TestServer {
    TestServer::start_with(options(dir), Arc::new(driver.clone())).await
}

async fn refusal(options: ServeOptions, driver: &Fake) -> ReconcileError {
    match Server::start(options.resolve().unwrap(), Arc::new(driver.clone())).await.err() {
        Some(ServeError::Reconcile(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn sql(dir: &Path, statements: &str) {
    rusqlite::Connection::open(dir.join("sandcrab.db")).unwrap().execute_batch(statements).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e15_what_cannot_be_used_is_quarantined_and_the_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    let server = start(dir.path(), &driver).await;
    for id in ["good", "options", "row"] {
        server.exec(id, "true").await.ok();
    }
    server.exec("driver", "true").await.ok();
    let all = driver.list().await.unwrap();
    let of = |id: &str| all.iter().find(|instance| instance.spec.sandbox.as_str() == id).unwrap().id.clone();
    assert!(all.iter().all(|instance| instance.acknowledged));
    server.stop().await;
    driver.quarantine(&of("driver"), "its record is not readable");
    sql(
        dir.path(),
        "UPDATE sandboxes SET options = '{}' WHERE id = 'options'; UPDATE sandboxes SET created_at = 9223372036854775807 WHERE id = 'row'",
    );
    for _twice in 0..2 {
        let server = start(dir.path(), &driver).await;
        server.exec("good", "true").await.ok();
        for id in ["options", "driver"] {
            let info = server.get(&format!("/v1/sandboxes/{id}")).await.ok();
            assert_eq!(info["status"], "quarantined", "{info}");
            assert!(
                info["problem"].as_str().is_some_and(|problem| problem.contains("not readable")),
                "{info}"
            );
            assert_eq!(server.exec(id, "true").await.failure(), (503, "CONTAINER_UNAVAILABLE".into()));
            assert_eq!(server.events(id).await, ["created", "quarantined"]);
        }
        assert_eq!(driver.list().await.unwrap().len(), 4, "nothing is removed");
        server.stop().await;
    }
    let server = start(dir.path(), &driver).await;
    server.delete("/v1/sandboxes/options").await.ok();
    // The first server's owner of it lives on in this process, and may tell of the end too.
    let events = server.events("options").await;
    assert!(events.iter().any(|event| event == "destroyed"), "{events:?}");
    server.exec("options", "true").await.ok();
    assert_eq!(server.get("/v1/sandboxes/options").await.ok()["status"], "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e15_an_older_database_destroys_nothing_that_somebody_was_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    let server = start(dir.path(), &driver).await;
    server.exec("old", "true").await.ok();
    server.exec("new", "true").await.ok();
    server.stop().await;
    sql(dir.path(), "DELETE FROM sandboxes WHERE id = 'new'");
    let server = start(dir.path(), &driver).await;
    server.exec("old", "true").await.ok();
    let info = server.get("/v1/sandboxes/new").await.ok();
    assert_eq!(info["status"], "quarantined");
    assert!(info["problem"].as_str().unwrap().contains("database does not know it"), "{info}");
    let list = server.get("/v1/sandboxes").await.ok();
    assert_eq!(list["sandboxes"].as_array().unwrap().len(), 2);
    assert_eq!(driver.list().await.unwrap().len(), 2);
    server.delete("/v1/sandboxes/new").await.ok();
    assert_eq!(driver.list().await.unwrap().len(), 1);
    server.exec("new", "true").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e15_a_late_mount_or_most_of_it_missing_is_refused_until_that_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    let server = start(dir.path(), &driver).await;
    for n in 0..6 {
        server.exec(&format!("s{n}"), "true").await.ok();
    }
    server.stop().await;
    // What is there instead of the instances' directory knows no database: nothing is mounted yet.
    driver.forget_database();
    let error = refusal(options(dir.path()), &driver).await;
    assert!(matches!(error, ReconcileError::Strangers { known: 6, .. }), "{error}");
    driver.set_database("0123").await.unwrap();
    let error = refusal(options(dir.path()), &driver).await;
    assert!(matches!(error, ReconcileError::Strangers { known: 6, .. }), "{error}");
    let accepting = || ServeOptions { accept_lost: true, ..options(dir.path()) };
    let server = TestServer::start_with(accepting(), Arc::new(driver.clone())).await;
    server.exec("s0", "true").await.ok();
    server.stop().await;
    // It is the right one again, and most is not there.
    for instance in driver.list().await.unwrap().into_iter().take(4) {
        driver.destroy(&instance.id).await.unwrap();
    }
    let error = refusal(options(dir.path()), &driver).await;
    assert!(matches!(error, ReconcileError::Missing { missing: 4, known: 6 }), "{error}");
    let server = TestServer::start_with(accepting(), Arc::new(driver.clone())).await;
    assert_eq!(server.get("/v1/sandboxes").await.ok()["sandboxes"].as_array().unwrap().len(), 2);
    server.stop().await;
    // One or a few are lost without a question, with an event.
    let gone = driver.list().await.unwrap().remove(0);
    driver.destroy(&gone.id).await.unwrap();
    let server = start(dir.path(), &driver).await;
    assert_eq!(server.events(gone.spec.sandbox.as_str()).await.last().unwrap(), "destroyed");
}

/// As a full disk does it: what changes a sandbox fails, what adds an event too.
const CANNOT_WRITE: &str = "
    CREATE TRIGGER no_update BEFORE UPDATE ON sandboxes BEGIN SELECT RAISE(ABORT, 'full'); END;
    CREATE TRIGGER no_delete BEFORE DELETE ON sandboxes BEGIN SELECT RAISE(ABORT, 'full'); END;
    CREATE TRIGGER no_insert BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'full'); END;";
const CAN_WRITE: &str = "DROP TRIGGER no_update; DROP TRIGGER no_delete; DROP TRIGGER no_insert;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e13_what_is_taken_away_is_gone_also_where_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let driver = peers::good(Shared::default());
    let server = start(dir.path(), &driver).await;
    server.exec("a", "true").await.ok();
    server.exec("b", "true").await.ok();
    let token = server.post("/v1/sandboxes/a/ports", json!({ "port": 4000 })).await.ok()["token"].clone();
    let validate = async || {
        let path = "/v1/sandboxes/a/ports/4000/validate";
        server.post(path, json!({ "token": token })).await.ok()["valid"].clone()
    };
    assert_eq!(validate().await, true);
    sql(dir.path(), CANNOT_WRITE);
    server.delete("/v1/sandboxes/a").await.ok();
    only_instance(&driver).await;
    assert_eq!(server.get("/v1/sandboxes/a").await.failure().0, 404);
    assert_eq!(server.get("/v1/sandboxes/a/ports").await.ok(), json!({ "ports": [] }));
    // A server that starts now finds the same.
    let row = |status: &str| {
        let db = rusqlite::Connection::open(dir.path().join("sandcrab.db")).unwrap();
        let sql = "SELECT count(*) FROM sandboxes WHERE id = 'a' AND status = ?";
        db.query_row(sql, [status], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(row("running"), 1, "nothing could be written");
    server.stop().await;
    let server = start(dir.path(), &driver).await;
    assert_eq!(server.get("/v1/sandboxes/a").await.failure().0, 404);
    server.exec("b", "true").await.ok();
    sql(dir.path(), CAN_WRITE);
    server.exec("a", "true").await.ok();
    assert_eq!(server.get("/v1/sandboxes/a/ports").await.ok(), json!({ "ports": [] }));
    server.delete("/v1/sandboxes/a").await.ok();
    assert_eq!(row("running"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e13_a_sandbox_that_is_held_says_so_and_goes_on() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    server.exec("a", "true").await.ok();
    let instance = only_instance(&driver).await;
    let until_problem = async |is_there: bool| {
        within("the owner hears of it", async {
            loop {
                let info = server.get("/v1/sandboxes/a").await.ok();
                if info["problem"].is_string() == is_there {
                    break info;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
    };
    driver.set_condition(&instance, Condition::Held).unwrap();
    let info = until_problem(true).await;
    assert_eq!(info["status"], "running");
    assert_eq!(server.exec("a", "true").await.failure(), (507, "NO_SPACE".into()));
    driver.set_condition(&instance, Condition::Sound).unwrap();
    until_problem(false).await;
    server.exec("a", "true").await.ok();
    assert_eq!(server.events("a").await, ["created", "held", "released"]);
    // Held again, it can be destroyed.
    driver.set_condition(&instance, Condition::Held).unwrap();
    until_problem(true).await;
    server.delete("/v1/sandboxes/a").await.ok();
    assert!(driver.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e13_a_disk_that_failed_is_why_a_sandbox_ended() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    server.exec("a", "true").await.ok();
    let instance = only_instance(&driver).await;
    driver.set_condition(&instance, Condition::Damaged).unwrap();
    driver.kill(&instance).unwrap();
    server.until_status("a", "stopped").await;
    server.exec("a", "true").await.ok();
    assert_eq!(server.events("a").await, ["created", "diskFailed", "started"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e16_a_start_that_fails_is_not_begun_again_by_each_visitor() {
    let (broken, starts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let driver = {
        let (broken, starts) = (broken.clone(), starts.clone());
        Fake::new(move |start: AgentStart| {
            starts.fetch_add(1, Ordering::SeqCst);
            let is_broken = broken.load(Ordering::SeqCst);
            async move {
                match is_broken {
                    true => 3,
                    false => peers::serve(start, Shared::default()).await,
                }
            }
        })
    };
    let server = TestServer::start(driver.clone()).await;
    server.exec("a", "true").await.ok();
    broken.store(true, Ordering::SeqCst);
    driver.kill(&only_instance(&driver).await).unwrap();
    server.until_status("a", "stopped").await;
    let first = server.exec("a", "true").await;
    assert_eq!(first.failure(), (503, "CONTAINER_UNAVAILABLE".into()));
    let began = starts.load(Ordering::SeqCst);
    for _ in 0..20 {
        let refused = server.exec("a", "true").await;
        assert_eq!(refused.failure(), (503, "CONTAINER_UNAVAILABLE".into()));
    }
    let again = starts.load(Ordering::SeqCst) - began;
    assert!(again <= 3, "{again} more starts for 20 requests");
    assert!(server.get("/v1/sandboxes/a").await.ok()["problem"].as_str().unwrap().contains("does not start"));
    assert!(server.events("a").await.contains(&"startFailed".to_owned()));
    broken.store(false, Ordering::SeqCst);
    within("it starts when it can", async {
        while server.exec("a", "true").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(server.get("/v1/sandboxes/a").await.ok()["problem"].is_null());
}
