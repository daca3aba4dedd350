//! Checkouts that are ended before their end.

use crate::common::Sandbox;
use crate::host::{Host, PASSWORD};
use axum::http::StatusCode;
use serde_json::json;

/// Whether a process has this in its command line.
fn runs(text: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().any(|entry| {
        let line = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        line.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

#[tokio::test]
async fn g01_a_timeout_takes_the_whole_tree_and_what_it_made() {
    let (sandbox, mut host) = (Sandbox::start(), Host::http());
    std::fs::create_dir(sandbox.workspace().join("empty")).unwrap();
    for target in ["new", "empty"] {
        // Time enough for git to have made its directory and asked the host.
        let request = json!({ "repoUrl": host.url("slow/r"), "targetDir": target, "cloneTimeoutMs": 1500 });
        let (error, ()) = tokio::join!(sandbox.refused("COMMAND_TIMEOUT", request), async {
            host.asked("/slow/r.git").await;
            assert!(runs(&host.url("slow/r")), "positive control");
            assert!(sandbox.workspace().join(target).join(".git").exists(), "positive control");
        });
        assert_eq!((&error["httpStatus"], &error["context"]["timeout"]), (&json!(408), &json!(1500)));
        assert!(error["message"].as_str().unwrap().contains("timeout"), "{error}");
        assert!(!runs(&host.url("slow/r")));
    }
    assert_eq!(sandbox.names(), ["empty"]);
    assert_eq!(std::fs::read_dir(sandbox.workspace().join("empty")).unwrap().count(), 0);
}

#[tokio::test]
async fn s12_losing_the_connection_ends_nothing_and_cancelling_everything() {
    let (sandbox, mut host) = (Sandbox::start(), Host::http());
    let auth = json!({ "username": "me", "password": PASSWORD });
    let request = json!({ "repoUrl": host.url("gate/r"), "execId": "kept", "auth": auth });
    tokio::select! {
        answer = sandbox.try_checkout(request.clone()) => panic!("{answer:?}"),
        () = host.asked("gate/r.git/info/refs?service=git-upload-pack me") => {}
    }
    // Nobody waits for it, and it goes on.
    host.open_gate(9);
    assert_eq!(sandbox.checkout(request).await["branch"], "main");

    let request = json!({ "repoUrl": host.url("slow/r"), "targetDir": "s", "execId": "killed" });
    let (error, ()) = tokio::join!(sandbox.refused("OPERATION_INTERRUPTED", request.clone()), async {
        host.asked("/slow/r.git").await;
        let elsewhere = json!({ "repoUrl": host.url("open/r"), "targetDir": "elsewhere" });
        sandbox.checkout(elsewhere).await;
        let (status, info) = sandbox.call("POST", "/execs/killed/cancel", None).await;
        assert_eq!((status, &info["state"]), (StatusCode::OK, &json!("finished")));
        assert!(!runs(&host.url("slow/r")), "it answers when nothing is left");
    });
    assert_eq!(error["context"]["repository"], json!(host.url("slow/r")));
    // Asked again, the same end is told.
    sandbox.refused("OPERATION_INTERRUPTED", request).await;
    assert_eq!(sandbox.names(), ["elsewhere", "r"]);
}

#[tokio::test]
async fn g01_one_place_has_one_checkout_at_a_time() {
    let (sandbox, mut host) = (Sandbox::start(), Host::http());
    let slow = json!({ "repoUrl": host.url("slow/r"), "targetDir": "here", "execId": "first" });
    let first = sandbox.refused("OPERATION_INTERRUPTED", slow);
    let (_, ()) = tokio::join!(first, async {
        host.asked("/slow/r.git").await;
        let second = json!({ "repoUrl": host.url("open/r"), "targetDir": ".//here" });
        let error = sandbox.refused("RESOURCE_BUSY", second).await;
        assert_eq!(error["context"]["retryAfter"], 1);
        sandbox.call("POST", "/execs/first/cancel", None).await;
    });
    sandbox.checkout(json!({ "repoUrl": host.url("open/r"), "targetDir": "here" })).await;
}
