//! Hostile URLs, repositories and names.

use crate::common::Sandbox;
use crate::host::{Host, program, sh};
use serde_json::json;

#[tokio::test]
async fn b08_hostile_urls_are_refused_before_anything_runs() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    let evil = sandbox.dir.path().join("evil");
    for url in [
        format!("ext::sh -c touch% {}", evil.display()),
        format!("ext::sh -c 'touch {}'", evil.display()),
        format!("--upload-pack=touch {}", evil.display()),
        format!("-u{}", evil.display()),
        format!("ssh://-oProxyCommand=touch {}/r", evil.display()),
        format!("-oProxyCommand=touch${{IFS}}{}:r", evil.display()),
        format!("file://{}/r.git", host.root.path().display()),
        format!("{}/r.git", host.root.path().display()),
        "fd::3".into(),
        "https://h/r\nhttps://h/r".into(),
        "https://h/%0aHost:evil".into(),
        String::new(),
    ] {
        let error = sandbox.refused("INVALID_GIT_URL", json!({ "repoUrl": url })).await;
        assert_eq!(error["httpStatus"], 400, "{url}");
        assert!(!evil.exists(), "{url}");
    }
    assert_eq!(sandbox.names(), [""; 0]);
    // Positive control: git itself runs such a program where it is let.
    let control = format!("ext::sh -c touch% {}", evil.display());
    program("git")
        .args(["-c", "protocol.ext.allow=always", "clone", &control])
        .arg(host.root.path().join("control"))
        .output()
        .unwrap();
    let wanted = sh(
        sandbox.dir.path(),
        &format!("git -c protocol.ext.allow=always ls-remote '{control}' 2>&1 || true"),
    );
    assert!(evil.exists(), "{wanted}");
}

#[tokio::test]
async fn b08_configuration_leads_to_no_other_protocol() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    let evil = sandbox.dir.path().join("evil");
    let rewrite = |session: &'static str, to: String| {
        let sandbox = &sandbox;
        async move {
            let export = format!(
                "export GIT_ALLOW_PROTOCOL=ext:file GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0='url.{to}.insteadOf' \
                 GIT_CONFIG_VALUE_0=https://h.invalid/ GIT_CONFIG_KEY_1=protocol.ext.allow GIT_CONFIG_VALUE_1=always"
            );
            assert_eq!(sandbox.exec(session, &export).await["exitCode"], 0);
            json!({ "repoUrl": "https://h.invalid/r.git", "sessionId": session })
        }
    };
    let request = rewrite("a", format!("ext::sh -c touch% {} ", evil.display())).await;
    let error = sandbox.refused("INVALID_GIT_URL", request).await;
    assert!(error["suggestion"].as_str().unwrap().contains("insteadOf"), "{error}");
    assert!(!evil.exists());
    // Positive control: the same session's own git does run it.
    sandbox.exec("a", "git ls-remote https://h.invalid/r.git").await;
    assert!(evil.exists());
    // What lies in the sandbox may be cloned by such a rule: whoever made it can read it anyway.
    let request = rewrite("b", format!("{}/", host.root.path().display())).await;
    assert_eq!(sandbox.checkout(request).await["branch"], "main");
}

/// A repository whose trees and modules try to get at whoever clones it.
fn hostile(host: &Host, evil: &std::path::Path) {
    let script = r#"
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@localhost GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@localhost
        git init -q --bare -b main hooks.git; cd hooks.git
        blob=$(printf '#!/bin/sh\ntouch EVIL\n' | git hash-object -w --stdin)
        hooks=$(printf '100755 blob %s\tpost-checkout\n' $blob | git mktree)
        inside=$(printf '040000 tree %s\thooks\n' $hooks | git mktree)
        tree=$(printf '040000 tree %s\t.git\n' $inside | git mktree)
        git update-ref refs/heads/main $(git commit-tree -m x $tree)
        cd ..; git init -q -b main work; cd work
        mkdir hooks; printf '#!/bin/sh\ntouch EVIL\n' > hooks/post-checkout; chmod +x hooks/post-checkout
        printf '[submodule "s"]\n\tpath = s\n\turl = ext::sh -c touch%% EVIL\n\tupdate = !touch EVIL\n' > .gitmodules
        printf '[core]\n\thooksPath = hooks\n\tfsmonitor = touch EVIL\n[filter "f"]\n\tsmudge = touch EVIL\n' > .gitconfig
        echo '* filter=f' > .gitattributes
        ln -s /etc/passwd link; ln -s .git dotgit
        git add .; git update-index --add --cacheinfo 160000,$(git hash-object -w -t commit --stdin --literally </dev/null),s
        git commit -qm x; cd ..; git clone -q --bare work tricks.git; rm -rf work"#;
    sh(host.root.path(), &script.replace("EVIL", &evil.display().to_string()));
}

#[tokio::test]
async fn b08_a_hostile_repository_runs_nothing() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    let evil = sandbox.dir.path().join("evil");
    hostile(&host, &evil);
    // `.git` in a tree would put a hook where git runs it: git refuses to check that out, and nothing stays.
    sandbox.refused("GIT_CHECKOUT_FAILED", json!({ "repoUrl": host.url("open/hooks") })).await;
    assert_eq!(sandbox.names(), [""; 0]);
    assert!(!evil.exists());
    sandbox.checkout(json!({ "repoUrl": host.url("open/tricks") })).await;
    assert!(!evil.exists());
    let seen = "readlink link; ls -A s; git config --get-regexp 'hooks|filter|submodule' || true";
    assert_eq!(sh(&sandbox.workspace().join("tricks"), seen), "/etc/passwd\n");
    // Positive control: hooks do run where the sandbox's own user says so.
    let template = sandbox.dir.path().join("template/hooks");
    sh(
        sandbox.dir.path(),
        &format!(
            "mkdir -p {0}; printf '#!/bin/sh\\ntouch {1}' > {0}/post-checkout; chmod +x {0}/post-checkout",
            template.display(),
            evil.display()
        ),
    );
    sandbox.exec("a", &format!("export GIT_TEMPLATE_DIR={}", template.parent().unwrap().display())).await;
    sandbox.checkout(json!({ "repoUrl": host.url("open/r"), "sessionId": "a" })).await;
    assert!(evil.exists());
}

#[tokio::test]
async fn b09_names_are_literal() {
    let (sandbox, host) = (Sandbox::start(), Host::http());
    let evil = sandbox.dir.path().join("evil");
    let names = [
        format!("$(touch {})", evil.display()).replace('/', "%"),
        format!("`touch {}`", evil.display()).replace('/', "%"),
        "; touch evil".to_owned(),
        "a b\n'\"\\*?[".to_owned(),
        "--bare".to_owned(),
        "-".to_owned(),
        "~".to_owned(),
    ];
    for name in &names {
        let done = sandbox.checkout(json!({ "repoUrl": host.url("open/r"), "targetDir": name })).await;
        assert_eq!(done["targetDir"], json!(sandbox.workspace().join(name)));
        assert!(sandbox.workspace().join(name).join("file").exists(), "{name:?}");
    }
    let mut expected = names.to_vec();
    expected.sort();
    assert_eq!(sandbox.names(), expected);
    for branch in [
        "$(touch evil)",
        "--upload-pack=touch evil",
        "-c",
        "; touch evil",
        "main not found in upstream",
        "../main",
    ] {
        let request = json!({ "repoUrl": host.url("open/r"), "targetDir": "b", "branch": branch });
        let error = sandbox.refused("GIT_BRANCH_NOT_FOUND", request).await;
        assert_eq!(error["context"]["branch"], branch);
    }
    // A session's id and its directory.
    let (session, folder) = ("$(touch evil);`id`", "in $(touch evil)");
    sandbox.exec(session, &format!("mkdir '{folder}'; cd '{folder}'")).await;
    sandbox.checkout(json!({ "repoUrl": host.url("open/r"), "sessionId": session })).await;
    assert!(sandbox.workspace().join(folder).join("r/file").exists());
    assert!(!evil.exists() && !sandbox.workspace().join("evil").exists());
    assert!(!sandbox.workspace().join(folder).join("evil").exists());
}
