//! Sandboxes come, run, stop and go.

use crate::harness::{TestServer, only_instance, within};
use crate::peers::{self, Shared};
use sandcrab_runtime::ImageInfo;
use sandcrab_runtime::driver::{BoxFuture, Result};
use sandcrab_runtime::fake::{AgentStart, Fake};
use sandcrab_runtime::{Driver, InstanceId};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l01_the_first_use_of_an_id_makes_the_sandbox() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    assert_eq!(server.get("/v1/sandboxes/a").await.failure(), (404, "SANDBOX_NOT_FOUND".into()));
    assert_eq!(server.exec("a", "echo hi").await.ok()["stdout"], "echo hi");
    let info = server.get("/v1/sandboxes/a").await.ok();
    assert_eq!(
        (&info["id"], &info["status"], &info["image"]),
        (&json!("a"), &json!("running"), &json!("host"))
    );
    assert_eq!((&info["sleepAfter"], &info["keepAlive"]), (&json!(180.0), &json!(false)));
    assert_eq!(server.events("a").await, ["created"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l01_concurrent_first_users_share_one_start() {
    let starts = Arc::new(AtomicUsize::new(0));
    let driver = peers::counted(starts.clone());
    let server = Arc::new(TestServer::start(driver.clone()).await);
    let users: Vec<_> = (0..20)
        .map(|n| {
            let server = server.clone();
            tokio::spawn(async move { server.exec("shared", &n.to_string()).await.ok()["stdout"].clone() })
        })
        .collect();
    for (n, user) in users.into_iter().enumerate() {
        assert_eq!(user.await.unwrap(), json!(n.to_string()));
    }
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    only_instance(&driver).await;
}

/// An agent that never introduces itself makes the creation fail, and nothing of it is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l01_a_failed_creation_leaves_nothing_behind() {
    let driver = Fake::new(|start: AgentStart| async move {
        let listener = tokio::net::UnixListener::from_std(start.listener).unwrap();
        // Accepts and hangs up.
        while listener.accept().await.is_ok() {}
        0
    });
    let server = TestServer::start(driver.clone()).await;
    for _ in 0..2 {
        assert_eq!(server.exec("a", "true").await.failure(), (503, "CONTAINER_UNAVAILABLE".into()));
        assert!(driver.list().await.unwrap().is_empty());
        assert_eq!(server.get("/v1/sandboxes/a").await.failure().0, 404);
        assert_eq!(server.get("/v1/sandboxes/a/events").await.failure().0, 404);
    }
    let image = server.put("/v1/sandboxes/a", json!({"image": "no-such"})).await;
    assert_eq!(image.field(), "image");
    assert_eq!(server.get("/v1/sandboxes/a").await.failure().0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_makes_changes_and_names_what_is_fixed() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    let made = server.put("/v1/sandboxes/a", json!({"labels": {"team": "x"}, "sleepAfter": "5m"})).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.ok()["sleepAfter"], 300.0);
    let changed = server.put("/v1/sandboxes/a", json!({"keepAlive": true})).await;
    assert_eq!((changed.status.as_u16(), &changed.ok()["keepAlive"]), (200, &json!(true)));
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["sleepAfter"], 300.0);
    let fixed = server.put("/v1/sandboxes/a", json!({"network": "host", "keepAlive": false})).await;
    assert_eq!(fixed.failure(), (409, "SANDBOX_ALREADY_EXISTS".into()));
    assert_eq!(fixed.json()["context"]["field"], "network");
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["keepAlive"], true);

    server.put("/v1/sandboxes/b", json!({})).await.ok();
    let ids = |list: serde_json::Value| -> Vec<String> {
        let list = list["sandboxes"].as_array().unwrap();
        list.iter().map(|sandbox| sandbox["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(server.get("/v1/sandboxes").await.ok()), ["a", "b"]);
    assert_eq!(ids(server.get("/v1/sandboxes?label=team=x").await.ok()), ["a"]);
    assert_eq!(ids(server.get("/v1/sandboxes?label=team=y").await.ok()), [""; 0]);
    assert_eq!(server.get("/v1/sandboxes?label=team").await.field(), "label");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l06_destroy_frees_everything_and_the_id_is_new_again() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    let file = "/v1/sandboxes/a/files/content?path=/f";
    server
        .request(http::Method::PUT, file)
        .header("content-type", "application/octet-stream")
        .body("x")
        .send()
        .await
        .ok();
    assert_eq!(server.get(file).await.body, "x");
    let first = only_instance(&driver).await;
    let gone = server.delete("/v1/sandboxes/a").await.ok();
    assert_eq!((&gone["success"], &gone["sandboxId"]), (&json!(true), &json!("a")));
    assert!(driver.list().await.unwrap().is_empty());
    assert_eq!(server.get("/v1/sandboxes/a").await.failure().0, 404);
    assert_eq!(server.delete("/v1/sandboxes/a").await.failure(), (404, "SANDBOX_NOT_FOUND".into()));
    assert_eq!(server.events("a").await, ["created", "destroyed"]);

    assert_eq!(server.get(file).await.failure(), (404, "FILE_NOT_FOUND".into()));
    assert_ne!(only_instance(&driver).await, first);
    assert_eq!(server.events("a").await, ["created", "destroyed", "created"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_sandbox_keeps_its_files_and_its_next_use_starts_it() {
    let shared = Shared::default();
    let starts = Arc::new(AtomicUsize::new(0));
    let (counted, agents) = (starts.clone(), shared.clone());
    let driver = Fake::new(move |start| {
        counted.fetch_add(1, Ordering::SeqCst);
        peers::serve(start, agents.clone())
    });
    let server = Arc::new(TestServer::start(driver.clone()).await);
    let stop = "/v1/sandboxes/a/stop";
    assert_eq!(server.post(stop, json!({})).await.failure(), (404, "SANDBOX_NOT_FOUND".into()));
    let file = "/v1/sandboxes/a/files/content?path=/f";
    let upload = server.request(http::Method::PUT, file).header("content-type", "application/octet-stream");
    upload.body("kept").send().await.ok();
    let instance = only_instance(&driver).await;
    let exposed = server.post("/v1/sandboxes/a/ports", json!({ "port": 8080, "token": "t" })).await.ok();

    // What is under way is told why it ended.
    let busy = server.clone();
    let waiting = tokio::spawn(async move { busy.exec("a", "wait").await.failure() });
    shared.began().await;
    let stopped = server.post(stop, json!({ "signal": "SIGKILL" })).await.ok();
    assert_eq!((&stopped["success"], &stopped["sandboxId"]), (&json!(true), &json!("a")));
    assert_eq!(waiting.await.unwrap(), (409, "OPERATION_INTERRUPTED".into()));
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["status"], "stopped");
    for body in [json!({}), json!({ "signal": "SIGINT" }), json!({ "signal": "SIGTERM" })] {
        server.post(stop, body).await.ok();
    }
    assert_eq!(server.post(stop, json!({ "signal": "SIGHUP" })).await.failure().0, 400);
    assert_eq!(server.events("a").await, ["created", "stopped"]);

    assert_eq!(server.get(file).await.body, "kept");
    assert_eq!((only_instance(&driver).await, starts.load(Ordering::SeqCst)), (instance, 2));
    assert_eq!(server.get("/v1/sandboxes/a/ports").await.ok()["ports"][0]["token"], exposed["token"]);
    assert_eq!(server.events("a").await, ["created", "stopped", "started"]);
    // Stopping and using it at the same time: each is answered as the order makes it.
    let (stopped, used) = tokio::join!(server.post(stop, json!({ "signal": "SIGKILL" })), server.get(file));
    assert_eq!(stopped.status, 200);
    assert!(used.status == 200 || used.failure() == (409, "OPERATION_INTERRUPTED".into()), "{used:?}");
    let (stopped, gone) = tokio::join!(server.post(stop, json!({})), server.delete("/v1/sandboxes/a"));
    assert_eq!(gone.status, 200);
    assert!(stopped.status == 200 || stopped.status == 404, "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l06_destroying_a_busy_sandbox_answers_those_who_wait() {
    let shared = Shared::default();
    let server = Arc::new(TestServer::start(peers::good(shared.clone())).await);
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.exec("a", "wait").await.failure() }
    });
    shared.began().await;
    server.delete("/v1/sandboxes/a").await.ok();
    assert_eq!(within("the waiting one", waiting).await.unwrap(), (409, "OPERATION_INTERRUPTED".into()));
    server.exec("a", "true").await.ok();
}

/// A driver whose creations wait for the test.
struct Slow {
    inner: Fake,
    creating: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Driver for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }
    fn create<'a>(
        &'a self,
        id: &'a InstanceId,
        spec: &'a sandcrab_runtime::SandboxSpec,
    ) -> sandcrab_runtime::driver::BoxFuture<'a, sandcrab_runtime::driver::Result<sandcrab_runtime::Instance>>
    {
        Box::pin(async move {
            self.creating.add_permits(1);
            self.go.acquire().await.unwrap().forget();
            self.inner.create(id, spec).await
        })
    }
    fn start<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> sandcrab_runtime::driver::BoxFuture<'a, sandcrab_runtime::driver::Result<sandcrab_runtime::Instance>>
    {
        self.inner.start(id)
    }
    fn connect<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> sandcrab_runtime::driver::BoxFuture<
        'a,
        sandcrab_runtime::driver::Result<sandcrab_runtime::driver::BoxStream>,
    > {
        self.inner.connect(id)
    }
    fn stop<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, sandcrab_runtime::driver::Result<()>> {
        self.inner.stop(id)
    }
    fn destroy<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> sandcrab_runtime::driver::BoxFuture<'a, sandcrab_runtime::driver::Result<()>> {
        self.inner.destroy(id)
    }
    fn list(
        &self,
    ) -> sandcrab_runtime::driver::BoxFuture<
        '_,
        sandcrab_runtime::driver::Result<Vec<sandcrab_runtime::Instance>>,
    > {
        self.inner.list()
    }
    fn acknowledge<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>> {
        self.inner.acknowledge(id)
    }
    fn database(&self) -> BoxFuture<'_, Result<Option<String>>> {
        self.inner.database()
    }
    fn set_database<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.inner.set_database(id)
    }
    fn condition(
        &self,
        id: &InstanceId,
    ) -> Result<tokio::sync::watch::Receiver<sandcrab_runtime::Condition>> {
        self.inner.condition(id)
    }
    fn inspect<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> sandcrab_runtime::driver::BoxFuture<
        'a,
        sandcrab_runtime::driver::Result<Option<sandcrab_runtime::Instance>>,
    > {
        self.inner.inspect(id)
    }
    fn wait_exit<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> sandcrab_runtime::driver::BoxFuture<'a, sandcrab_runtime::driver::Result<sandcrab_runtime::Exit>>
    {
        self.inner.wait_exit(id)
    }
    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>>> {
        self.inner.images()
    }
    fn add_layer<'a>(
        &'a self,
        image: &'a str,
        built_in: &'a InstanceId,
        archive: &'a std::path::Path,
    ) -> BoxFuture<'a, Result<()>> {
        self.inner.add_layer(image, built_in, archive)
    }
    fn remove_image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<bool>> {
        self.inner.remove_image(image)
    }
    fn last_words<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, String> {
        self.inner.last_words(id)
    }
    fn stats<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> sandcrab_runtime::driver::BoxFuture<'a, sandcrab_runtime::driver::Result<sandcrab_runtime::Stats>>
    {
        self.inner.stats(id)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l06_a_sandbox_can_be_destroyed_while_it_starts() {
    let inner = peers::good(Shared::default());
    let (creating, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let driver = Slow { inner: inner.clone(), creating: creating.clone(), go: go.clone() };
    let server = Arc::new(TestServer::start(driver).await);
    let users: Vec<_> = (0..2)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { server.exec("a", "true").await.failure() })
        })
        .collect();
    within("the creation begins", creating.acquire()).await.unwrap().forget();
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["status"], "starting");
    server.delete("/v1/sandboxes/a").await.ok();
    for user in users {
        assert_eq!(user.await.unwrap(), (409, "OPERATION_INTERRUPTED".into()));
    }
    assert!(inner.list().await.unwrap().is_empty());
    assert_eq!(server.get("/v1/sandboxes/a").await.failure().0, 404);
    go.add_permits(1);
    server.exec("a", "true").await.ok();
    only_instance(&inner).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l05_a_killed_agent_is_started_again_on_its_files() {
    let shared = Shared::default();
    let driver = peers::good(shared.clone());
    let server = Arc::new(TestServer::start(driver.clone()).await);
    let file = "/v1/sandboxes/a/files/content?path=/f";
    server
        .request(http::Method::PUT, file)
        .header("content-type", "application/octet-stream")
        .body("kept")
        .send()
        .await
        .ok();
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.exec("a", "wait").await }
    });
    shared.began().await;
    let instance = only_instance(&driver).await;
    driver.kill(&instance).unwrap();
    let broken = waiting.await.unwrap();
    assert_eq!(broken.failure(), (502, "SERVICE_NOT_RESPONDING".into()));
    assert!(broken.json()["message"].as_str().unwrap().contains("signal 9"), "{broken:?}");
    server.until_status("a", "stopped").await;

    assert_eq!(server.get(file).await.body, "kept");
    assert_eq!(only_instance(&driver).await, instance);
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["status"], "running");
    assert_eq!(server.events("a").await, ["created", "stopped", "started"]);
    // Killed again, and used at once, before anyone has heard of it.
    driver.kill(&instance).unwrap();
    assert_eq!(server.get(file).await.body, "kept");
    driver.kill(&instance).unwrap();
    server.until_status("a", "stopped").await;
    server.put("/v1/sandboxes/a", json!({"keepAlive": true})).await.ok();
    assert_eq!(server.get("/v1/sandboxes/a").await.ok()["status"], "stopped");
    server.delete("/v1/sandboxes/a").await.ok();
    assert!(driver.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l08_events_say_what_happened_why_who_and_when() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    server.exec("a", "true").await.ok();
    server.delete("/v1/sandboxes/a").await.ok();
    let events = server.get("/v1/sandboxes/a/events").await.ok();
    let events = events["events"].as_array().unwrap();
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], n as u64 + 1);
        for field in ["kind", "reason", "actor", "timestamp"] {
            assert!(event[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {event}");
        }
    }
    assert_eq!(events.len(), 2);
}

/// Clients that come and go while a sandbox is being made: only so many are waited with, and those who have gone cost
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e16_those_who_wait_for_one_sandbox_are_bounded() {
    let (creating, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let slow = Slow { inner: peers::good(Shared::default()), creating: creating.clone(), go: go.clone() };
    let server = Arc::new(TestServer::start(slow).await);
    let ask = |label: String| {
        let server = server.clone();
        tokio::spawn(async move { server.put("/v1/sandboxes/a", json!({ "labels": { "n": label } })).await })
    };
    let first = ask("first".into());
    within("the creation", creating.acquire()).await.unwrap().forget();
    let waiting: Vec<_> = (0..300).map(|n| ask(n.to_string())).collect();
    let mut refused = Vec::new();
    let mut patient = Vec::new();
    for asked in waiting {
        // Those that are refused are so at once; the others wait for the creation.
        match tokio::time::timeout(std::time::Duration::from_millis(20), &mut { asked }).await {
            Ok(answer) => refused.push(answer.unwrap()),
            Err(_waits) => patient.push(()),
        }
    }
    assert!(refused.len() >= 40 && !patient.is_empty(), "{} refused", refused.len());
    for answer in &refused {
        assert_eq!(answer.failure(), (409, "RESOURCE_BUSY".into()));
    }
    go.add_permits(1);
    within("the first", first).await.unwrap().ok();
    server.exec("a", "true").await.ok();
}

/// Who asks after a thing in a sandbox that does not exist is told so, and makes none: above all a follower that resumes
/// behind a destroy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l06_what_is_about_a_thing_in_a_sandbox_makes_none() {
    let driver = peers::good(Shared::default());
    let server = TestServer::start(driver.clone()).await;
    let body = json!({});
    for (method, path, code) in [
        ("GET", "/execs/e", "EXEC_NOT_FOUND"),
        ("GET", "/execs/e/stream", "EXEC_NOT_FOUND"),
        ("POST", "/execs/e/cancel", "EXEC_NOT_FOUND"),
        ("GET", "/processes/p", "PROCESS_NOT_FOUND"),
        ("GET", "/processes/p/logs", "PROCESS_NOT_FOUND"),
        ("POST", "/processes/p/kill", "PROCESS_NOT_FOUND"),
        ("GET", "/sessions/s", "SESSION_NOT_FOUND"),
        ("DELETE", "/sessions/s", "SESSION_NOT_FOUND"),
        ("DELETE", "/code/contexts/c", "CONTEXT_NOT_FOUND"),
        ("GET", "/code/runs/r/stream", "EXEC_NOT_FOUND"),
        ("POST", "/code/runs/r/cancel", "EXEC_NOT_FOUND"),
    ] {
        let url = format!("/v1/sandboxes/none{path}");
        let mut request = server.request(method.parse().unwrap(), &url);
        if method == "POST" {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await;
        assert_eq!(answer.failure(), (404, code.into()), "{method} {path}");
        assert!(answer.json()["message"].as_str().unwrap().contains("none does not exist"), "{answer:?}");
    }
    assert!(driver.list().await.unwrap().is_empty());
    // The controls: lists are of any sandbox, and a session's variables come before its first command.
    server.get("/v1/sandboxes/list/processes").await;
    server
        .request(http::Method::PATCH, "/v1/sandboxes/env/sessions/s/env")
        .json(&json!({ "env": {} }))
        .send()
        .await;
    assert_eq!(driver.list().await.unwrap().len(), 2);
}
