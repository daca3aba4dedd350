//! Each failure by what git really reports of it.

use crate::common::Sandbox;
use crate::host::{Host, git_daemon, sh};
use serde_json::json;

#[tokio::test]
async fn g01_each_failure_is_told_apart() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    let daemon = format!("git://127.0.0.1:{}", git_daemon(host.root.path()));
    // A port that nothing listens on any more.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (code, status, url) in [
        ("GIT_REPOSITORY_NOT_FOUND", 404, host.url("open/none")),
        ("GIT_REPOSITORY_NOT_FOUND", 404, host.url("page/r")),
        ("GIT_REPOSITORY_NOT_FOUND", 404, format!("{daemon}/none.git")),
        ("GIT_AUTH_FAILED", 401, host.url("private/r")),
        ("GIT_AUTH_FAILED", 401, host.url("private/r").replace("://", "://me:wrong@")),
        ("GIT_AUTH_FAILED", 401, host.url("echo/r").replace("://", "://me:any@")),
        ("GIT_NETWORK_ERROR", 502, host.url("busy/r")),
        ("GIT_NETWORK_ERROR", 502, host.url("break/r")),
        ("GIT_NETWORK_ERROR", 502, "https://no.such.host.invalid/r.git".into()),
        ("GIT_NETWORK_ERROR", 502, "git://no.such.host.invalid/r.git".into()),
        ("GIT_NETWORK_ERROR", 502, "ssh://git@no.such.host.invalid/r.git".into()),
        ("GIT_NETWORK_ERROR", 502, format!("http://{closed}/r.git")),
        ("GIT_NETWORK_ERROR", 502, format!("git://{closed}/r.git")),
        ("GIT_NETWORK_ERROR", 502, format!("ssh://git@{closed}/r.git")),
    ] {
        let error = sandbox.refused(code, json!({ "repoUrl": url, "targetDir": "r" })).await;
        assert_eq!(error["httpStatus"], status, "{url}");
        assert!(error["message"].as_str().unwrap().contains(": "), "{error}");
        assert!(error["suggestion"].as_str().unwrap().ends_with('.'), "{error}");
        assert_eq!(sandbox.names(), [""; 0], "{url} left something");
    }
    let request = json!({ "repoUrl": host.url("open/r"), "branch": "no/such" });
    let error = sandbox.refused("GIT_BRANCH_NOT_FOUND", request.clone()).await;
    assert_eq!(error["context"]["repository"], json!(host.url("open/r")));
    assert_eq!(error["context"]["branch"], "no/such");
    let mut shallow = request;
    (shallow["depth"], shallow["repoUrl"]) = (json!(1), json!(format!("{daemon}/r.git")));
    sandbox.refused("GIT_BRANCH_NOT_FOUND", shallow).await;
    assert_eq!(sandbox.names(), [""; 0]);
    // The same host, asked rightly.
    sandbox.checkout(json!({ "repoUrl": host.url("open/r") })).await;
}

#[tokio::test]
async fn g01_what_stands_at_the_target_is_left_alone() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    let workspace = sandbox.workspace();
    sh(
        &workspace,
        "mkdir full empty; echo kept > full/file; echo kept > plain; ln -s /etc link; ln -s none dangling",
    );
    let (good, bad) = (host.url("open/r"), host.url("open/none"));
    let request = |url: &str, target: &str| json!({ "repoUrl": url, "targetDir": target });
    for target in ["full", "plain", "link", ".", "/"] {
        let error = sandbox.refused("FILE_EXISTS", request(&good, target)).await;
        assert_eq!(error["httpStatus"], 409);
    }
    sandbox.refused("NOT_DIRECTORY", request(&good, "plain/r")).await;
    sandbox.refused("NAME_TOO_LONG", request(&good, &"n".repeat(256))).await;
    sandbox.refused("PERMISSION_DENIED", request(&good, "/proc/self/r")).await;
    // A link that leads nowhere is neither followed by git nor removed for it.
    let (_, error) = sandbox.try_checkout(request(&good, "dangling")).await;
    assert!(error["code"].as_str().unwrap().starts_with("GIT_"), "{error}");
    sandbox.refused("GIT_REPOSITORY_NOT_FOUND", request(&bad, "empty")).await;
    sandbox.refused("GIT_REPOSITORY_NOT_FOUND", request(&bad, "new/deep/r")).await;
    let state = "cat full/file plain; readlink link dangling; find empty new/deep -mindepth 1";
    assert_eq!(sh(&workspace, state), "kept\nkept\n/etc\nnone\n");
    // A default name that another checkout has taken.
    sandbox.checkout(json!({ "repoUrl": good })).await;
    sandbox.refused("FILE_EXISTS", json!({ "repoUrl": good })).await;
    assert_eq!(sh(&workspace, "cat r/file"), "3\n");
}

#[tokio::test]
async fn x01_an_image_without_git_says_what_to_do() {
    let sandbox = Sandbox::start();
    sandbox.exec("a", "PATH=/nonexistent:/etc").await;
    let request = json!({ "repoUrl": "https://h.invalid/r", "sessionId": "a" });
    let error = sandbox.refused("COMMAND_NOT_FOUND", request).await;
    assert_eq!((&error["httpStatus"], &error["context"]["command"]), (&json!(404), &json!("git")));
    assert!(error["suggestion"].as_str().unwrap().contains("apt-get install git"), "{error}");
    // A session whose directory is gone.
    sandbox.exec("b", "mkdir /tmp/gone-$$; cd /tmp/gone-$$; rmdir /tmp/gone-$$").await;
    let request = json!({ "repoUrl": "https://h.invalid/r", "sessionId": "b" });
    sandbox.refused("FILE_NOT_FOUND", request).await;
}

#[tokio::test]
async fn x02_bad_input_names_its_field_and_starts_nothing() {
    let (sandbox, mut host) = (Sandbox::start(), Host::http());
    let url = host.url("open/r");
    for (field, request) in [
        ("repoUrl", json!({})),
        ("depth", json!({ "repoUrl": url, "depth": 0 })),
        ("depth", json!({ "repoUrl": url, "depth": -1 })),
        ("branch", json!({ "repoUrl": url, "branch": "" })),
        ("filter", json!({ "repoUrl": url, "filter": "sparse:path=x" })),
        ("cloneTimeoutMs", json!({ "repoUrl": url, "cloneTimeoutMs": 0 })),
        ("targetDir", json!({ "repoUrl": url, "targetDir": "a\0b" })),
        ("auth.password", json!({ "repoUrl": url, "auth": { "password": "a\nb" } })),
        ("auth.password", json!({ "repoUrl": url, "auth": { "username": "a" } })),
        ("auth", json!({ "repoUrl": "git@h:r", "auth": { "password": "x" } })),
        ("recursive", json!({ "repoUrl": url, "recursive": true })),
    ] {
        let error = sandbox.refused("VALIDATION_FAILED", request.clone()).await;
        assert_eq!(error["context"]["validationErrors"][0]["field"], field, "{request}");
    }
    assert_eq!(host.requests().await, [""; 0]);
    assert_eq!(sandbox.names(), [""; 0]);
}
