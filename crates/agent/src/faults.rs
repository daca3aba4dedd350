//! What a task's own panic ends: what the task owned, with a typed error and an event; the rest goes on (contract X03).

use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;

/// Runs a task to its end; says whether it panicked. What it owned is dropped then, and not used again.
pub(crate) async fn panics(task: impl Future<Output = ()>) -> bool {
    AssertUnwindSafe(task).catch_unwind().await.is_err()
}

/// Where tests of this crate have a task panic, by what it is asked to run.
#[cfg(not(test))]
pub(crate) fn point(_what: &str) {}

#[cfg(test)]
pub(crate) fn point(what: &str) {
    assert!(!what.contains("panic, please"), "a test asks for it");
}

#[cfg(test)]
mod tests {
    use crate::Agent;
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use sandcrab_api::launch::{AgentConfig, UserIdentity};
    use sandcrab_api::{ErrorCode, SandboxId};
    use serde_json::{Value, json};
    use std::os::fd::AsRawFd as _;
    use std::time::Duration;
    use tower::ServiceExt as _;

    struct Sandbox {
        app: axum::Router,
        _dir: tempfile::TempDir,
    }

    impl Sandbox {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let spool = std::fs::File::open(dir.path()).unwrap();
            let path = ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
            let agent = Agent::start(&AgentConfig {
                sandbox_id: SandboxId::parse("test").unwrap(),
                listen_fd: -1,
                identity: UserIdentity { capabilities: u64::MAX, ..UserIdentity::default() },
                env: [path].into(),
                workspace: dir.path().to_str().unwrap().to_owned(),
                spool_fd: spool.as_raw_fd(),
                memory_cgroup_fd: None,
                hindered: Vec::new(),
                ptrace_fd: None,
                socket_bound: None,
            });
            Self { app: crate::http::app(agent.unwrap()), _dir: dir }
        }

        async fn call(&self, method: &str, path: &str, body: Value) -> Value {
            let request = http::Request::builder().method(method).uri(path);
            let request = request.header("content-type", "application/json");
            let request = request.body(Body::from(body.to_string())).unwrap();
            let answer = async {
                let answer = self.app.clone().oneshot(request).await.unwrap();
                answer.into_body().collect().await.unwrap().to_bytes()
            };
            let bytes = tokio::time::timeout(Duration::from_secs(60), answer).await.expect("an answer");
            serde_json::from_slice(&bytes).unwrap_or_default()
        }

        async fn exec(&self, session: &str, command: &str) -> Value {
            self.call("POST", "/exec", json!({ "command": command, "sessionId": session })).await
        }
    }

    #[tokio::test]
    async fn x03_a_session_whose_task_panics_ends_alone_and_its_id_is_free() {
        let sandbox = Sandbox::start();
        sandbox.exec("other", "x=1").await;
        sandbox.exec("s", "x=1; sleep 1000 >/dev/null 2>&1 & echo $!").await;
        let (broken, waiting) =
            tokio::join!(sandbox.exec("s", ": panic, please"), sandbox.exec("s", "echo behind it"));
        for answer in [broken, waiting] {
            assert_eq!(answer["code"], ErrorCode::InternalError.as_str(), "{answer}");
            assert!(answer["message"].as_str().unwrap().contains("\"s\""), "{answer}");
        }
        assert_eq!(sandbox.exec("s", "echo ${x-new}").await["stdout"], "new\n");
        assert_eq!(sandbox.exec("other", "echo $x").await["stdout"], "1\n");
        let fresh = json!({ "command": ": panic, please", "fresh": true });
        assert_eq!(sandbox.call("POST", "/exec", fresh).await["code"], ErrorCode::InternalError.as_str());
    }

    #[tokio::test]
    async fn x03_a_process_whose_task_panics_is_over() {
        let sandbox = Sandbox::start();
        let start = json!({ "command": "exec sleep 1000; panic, please", "processId": "p" });
        sandbox.call("POST", "/processes", start).await;
        let ended = sandbox.call("POST", "/processes/p/wait-for-exit", json!({ "timeout": 30_000 })).await;
        assert!(ended["exitCode"].is_null(), "{ended}");
        let info = sandbox.call("GET", "/processes/p", Value::Null).await;
        assert_eq!(info["status"], "error", "{info}");
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", info["pid"])).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }

    #[tokio::test]
    async fn x03_a_context_whose_task_panics_ends_alone() {
        let sandbox = Sandbox::start();
        let run = async |code: &str| {
            sandbox.call("POST", "/code/run", json!({ "code": code, "language": "python" })).await
        };
        assert_eq!(run("x = 1").await["error"], Value::Null);
        let (broken, waiting) = tokio::join!(run("# panic, please"), run("2"));
        for answer in [&broken, &waiting] {
            let said = answer.to_string();
            assert!(said.contains("fault of the agent"), "{said}");
        }
        let again = run("print('x' in globals())").await.to_string();
        assert!(again.contains("False"), "the next run has a new context: {again}");
    }
}
