//! What a checkout makes, and where it starts from.

use crate::common::Sandbox;
use crate::host::{Host, git_daemon, sh};
use serde_json::json;

#[tokio::test]
async fn g01_a_repository_is_cloned_as_asked() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    let (url, workspace) = (host.url("open/r"), sandbox.workspace());
    let done = sandbox.checkout(json!({ "repoUrl": url })).await;
    assert_eq!(done["success"], true);
    assert_eq!(done["repoUrl"], json!(url));
    assert_eq!(done["branch"], "main");
    assert_eq!(done["targetDir"], json!(workspace.join("r")));
    assert!(done["timestamp"].is_string());
    let r = workspace.join("r");
    assert_eq!(
        sh(&r, "cat file; git log --format=%s; git status --porcelain; git remote get-url origin"),
        format!("3\n3\n2\n1\n{url}\n")
    );

    let dev = sandbox.checkout(json!({ "repoUrl": url, "branch": "dev", "targetDir": "a/b/./dev" })).await;
    assert_eq!((&dev["branch"], &dev["targetDir"]), (&json!("dev"), &json!(workspace.join("a/b/dev"))));
    assert_eq!(sh(&workspace.join("a/b/dev"), "cat file"), "1\n");
    let tag = sandbox.checkout(json!({ "repoUrl": url, "branch": "v1", "targetDir": "tag" })).await;
    assert_eq!(tag["branch"], "v1");
    assert_eq!(sh(&workspace.join("tag"), "cat file"), "2\n");
    sandbox.checkout(json!({ "repoUrl": url, "depth": 2, "targetDir": "shallow" })).await;
    assert_eq!(
        sh(&workspace.join("shallow"), "git log --format=%s; git rev-parse --is-shallow-repository"),
        "3\n2\ntrue\n"
    );
    sandbox.checkout(json!({ "repoUrl": url, "filter": "blob:none", "targetDir": "partial" })).await;
    let missing = "cat file; git rev-list --objects --all --missing=print | grep -c '^?'";
    assert_eq!(sh(&workspace.join("partial"), missing), "3\n2\n");

    // An empty directory is as good as none; an empty repository has the branch that it will have.
    std::fs::create_dir(workspace.join("made")).unwrap();
    let empty = sandbox.checkout(json!({ "repoUrl": host.url("open/empty"), "targetDir": "made" })).await;
    assert_eq!(empty["branch"], "trunk");
}

#[tokio::test]
async fn g01_https_with_a_private_ca_and_the_git_protocol() {
    let (sandbox, host) = (Sandbox::start(), Host::https());
    let error = sandbox.refused("GIT_NETWORK_ERROR", json!({ "repoUrl": host.url("open/r") })).await;
    assert!(error["suggestion"].as_str().unwrap().contains("GIT_SSL_CAINFO"), "{error}");
    let ca = host.ca.as_ref().unwrap().display();
    sandbox.exec("a", &format!("export GIT_SSL_CAINFO={ca}")).await;
    sandbox.checkout(json!({ "repoUrl": host.url("open/r"), "sessionId": "a" })).await;
    // A tag and a shallow one over git://, which knows neither TLS nor users.
    let url = format!("git://127.0.0.1:{}/r.git", git_daemon(host.root.path()));
    let done = sandbox.checkout(json!({ "repoUrl": url, "targetDir": "by-git", "depth": 1 })).await;
    assert_eq!(done["branch"], "main");
    assert_eq!(sandbox.names(), ["by-git", "r"]);
}

#[tokio::test]
async fn s14_a_checkout_starts_from_its_sessions_variables_and_directory() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    // The variables rewrite a URL, as the user's own configuration would; no such host is ever asked.
    let rewrite = format!(
        "mkdir -p deep/er; cd deep/er; export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=url.{}/open/.insteadOf \
         GIT_CONFIG_VALUE_0=https://git.example.invalid/ GIT_DIR=/nonexistent GIT_WORK_TREE=/nonexistent",
        host.origin()
    );
    sandbox.exec("a", &rewrite).await;
    let request = json!({ "repoUrl": "https://git.example.invalid/r.git", "sessionId": "a" });
    let done = sandbox.checkout(request.clone()).await;
    assert_eq!(done["targetDir"], json!(sandbox.workspace().join("deep/er/r")));
    let options = json!({ "repoUrl": host.url("open/r"), "sessionId": "a", "targetDir": sandbox.workspace().join("x") });
    assert_eq!(sandbox.checkout(options).await["targetDir"], json!(sandbox.workspace().join("x")));
    // Another session has neither.
    let mut other = request.clone();
    other["sessionId"] = json!("b");
    sandbox.refused("GIT_NETWORK_ERROR", other).await;
    // Of the last command that completed: the one that runs does not count, and is not waited for.
    let mut running =
        sandbox.stream(json!({ "command": "cd /; echo on; sleep 1000", "sessionId": "a" })).await;
    while running.next().await.unwrap().1["type"] != "stdout" {}
    let mut again = request;
    again["targetDir"] = json!("again");
    assert_eq!(sandbox.checkout(again).await["targetDir"], json!(sandbox.workspace().join("deep/er/again")));
}

#[tokio::test]
async fn s12_a_checkout_is_a_command_that_outlives_its_caller() {
    let (sandbox, mut host) = (Sandbox::start(), Host::http());
    let request = json!({ "repoUrl": host.url("open/r"), "execId": "one", "depth": 1 });
    // The caller goes away before anything has come of it.
    let lost = sandbox.try_checkout(request.clone());
    tokio::select! { biased; _ = lost => unreachable!("it takes longer"), () = tokio::task::yield_now() => {} }
    // Whether or not the first request arrived, the second attaches or begins: one id runs once.
    let first = sandbox.checkout(request.clone()).await;
    assert_eq!(sandbox.checkout(request).await, first);
    assert_eq!(host.requests().await.iter().filter(|line| line.contains("info/refs")).count(), 1);
    let other = json!({ "repoUrl": host.url("open/r"), "execId": "one", "depth": 2 });
    sandbox.refused("EXEC_ALREADY_EXISTS", other).await;

    let (_, info) = sandbox.call("GET", "/execs/one", None).await;
    assert_eq!(info["command"], json!(format!("git clone --depth=1 -- {} r", host.url("open/r"))));
    assert_eq!((&info["state"], &info["outcome"]["exitCode"]), (&json!("finished"), &json!(0)));
    let (_, result) = sandbox.call("GET", "/execs/one/result", None).await;
    assert!(result["stderr"].as_str().unwrap().starts_with("Cloning into"), "{result}");
}
