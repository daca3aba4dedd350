//! `sandcrab checkout`, from a git host in the sandbox itself.

use crate::rig::{Rig, Running, Sandbox, data_dir};
use rustix::process::Signal;
use std::path::Path;

const HOST: &str = "http://127.0.0.1:8080";

/// Starts the git host of the tests in the sandbox, with a repository `r`.
fn serve(rig: &Rig, sandbox: &Sandbox) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/git/server.py");
    rig.cli(&["cp", script.to_str().unwrap(), &sandbox.at("/tmp/server.py")]).ok();
    let prepare = "set -e; git init -q -b main /tmp/w; cd /tmp/w; echo 1 > file; git add .
        git -c user.name=a -c user.email=a@localhost commit -qm 1; mkdir /srv/git; git clone -q --bare . /srv/git/r.git
        mkfifo /tmp/in /tmp/out; exec 5<>/tmp/in
        GIT_PASSWORD=hidden python3 /tmp/server.py /srv/git --port 8080 </tmp/in >/tmp/out 2>/tmp/errors &
        exec 6</tmp/out; read -r line <&6; echo $line; cat <&6 >/tmp/requests &";
    assert_eq!(rig.cli(&["exec", "-s", "host", &sandbox.id, prepare]).ok(), "listening 8080\n");
}

#[test]
fn g01_a_repository_is_cloned_and_its_place_printed() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    serve(&rig, &sandbox);
    let url = format!("{HOST}/open/r.git");
    assert_eq!(rig.cli(&["checkout", id, &url]).ok(), "/workspace/r\n");
    rig.cli(&["exec", "-s", "two", id, "mkdir sub; cd sub"]).ok();
    let json = rig.cli(&["checkout", "--json", "-s", "two", "--depth", "1", id, &url, "shallow"]).json();
    assert_eq!(json["targetDir"], "/workspace/sub/shallow");
    assert_eq!((&json["branch"], &json["repoUrl"]), (&"main".into(), &url.as_str().into()));
    rig.cli(&["checkout", id, &url]).failed("is not an empty directory");
    rig.cli(&["checkout", "-b", "none", id, &url, "x"]).failed("no branch or tag");
    rig.cli(&["checkout", id, "ext::sh -c id"]).failed("https, http, git or ssh");
    let late = rig.cli(&["checkout", "--timeout", "0.3", id, &format!("{HOST}/slow/r.git"), "x"]);
    assert_eq!(late.code(), 124, "{late:?}");
    assert_eq!(rig.cli(&["exec", id, "ls"]).ok(), "r\nsub\n");
}

#[test]
fn g01_a_password_comes_by_stdin_or_by_the_environment_and_stays_nowhere() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    serve(&rig, &sandbox);
    let url = format!("{HOST}/private/r.git");
    rig.cli(&["checkout", id, &url]).failed("could not read Username");
    rig.cli_with(&["checkout", "--username", "me", "--password-stdin", id, &url, "1"], b"hidden\n").ok();
    let arguments = ["checkout", "--username", "me", id, &url, "2"];
    let done = Running::start(rig.command(&arguments).env("SANDCRAB_GIT_PASSWORD", "hidden")).done();
    assert_eq!(done.ok(), "/workspace/2\n");
    let in_url = url.replace("://", "://me:hidden@");
    let shown = rig.cli(&["checkout", "--json", id, &in_url, "3"]);
    assert_eq!(shown.json()["repoUrl"], url.as_str());
    rig.cli_with(&["checkout", "--username", "me", "--password-stdin", id, &url], b"wrong\n")
        .failed("Authentication failed");
    // Not in the sandbox: its disk below what was made, what runs, its log; not in the server's data either.
    let found = rig.cli(&[
        "exec",
        id,
        "grep -rIl hidden /workspace /root /tmp/requests; grep -l hid[d]en /proc/[0-9]*/cmdline",
    ]);
    assert_eq!(found.text(), "", "{found:?}");
    // Positive control for that search.
    assert_eq!(rig.cli(&["exec", id, "echo hidden > c; grep -rIl hidden /workspace"]).ok(), "/workspace/c\n");
    let logs = rig.cli(&["logs", id]);
    assert!(!logs.ok().contains("hidden"), "{logs:?}");
    for name in ["sandcrab.db", "sandcrab.db-wal"] {
        let content = std::fs::read(data_dir().join(name)).unwrap_or_default();
        assert!(!content.windows(6).any(|part| part == b"hidden"), "{name}");
    }
}

/// A key, and what belongs to a user's `~/.ssh`, come into a sandbox as files.
#[test]
fn g01_ssh_takes_the_sandboxs_own_keys_and_known_hosts() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let prepare = "set -e; git init -q -b main /tmp/w; cd /tmp/w; echo 1 > file; git add .
        git -c user.name=a -c user.email=a@localhost commit -qm 1; mkdir /srv/git; git clone -q --bare . /srv/git/r.git
        dropbearkey -t ed25519 -f /tmp/host-key >/dev/null";
    rig.cli(&["exec", "-s", "host", id, prepare]).ok();
    let serve = "exec dropbear -F -E -s -r /tmp/host-key -p 127.0.0.1:2222";
    rig.cli(&["start", "--id", "sshd", "--wait-port", "2222", id, serve]).ok();
    let url = "ssh://root@127.0.0.1:2222/srv/git/r.git";

    let failed = |url: &str, more: &[&str], code: &str, hint: &str| {
        let done = rig.cli(&[&["--json", "checkout"], more, &[id, url, "x"]].concat());
        let error: serde_json::Value = serde_json::from_str(&done.stderr).unwrap();
        assert_eq!(error["code"], code, "{error}");
        assert!(error.to_string().contains(hint), "{error}");
    };
    failed(url, &[], "GIT_NETWORK_ERROR", "~/.ssh/known_hosts");
    rig.cli(&["exec", id, "mkdir -m 700 ~/.ssh; ssh-keyscan -p 2222 127.0.0.1 > ~/.ssh/known_hosts"]).ok();
    failed(url, &[], "GIT_AUTH_FAILED", "~/.ssh");

    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("id_ed25519");
    let mut keygen = crate::rig::tool("ssh-keygen");
    assert!(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap().success());
    let (key, public) = (key.to_str().unwrap(), key.with_extension("pub"));
    rig.cli(&["cp", public.to_str().unwrap(), &sandbox.at("/root/.ssh/authorized_keys")]).ok();
    // A copy keeps its mode, which ssh insists on.
    rig.cli(&["cp", key, &sandbox.at("/root/.ssh/id_ed25519")]).ok();
    let json = rig.cli(&["checkout", "--json", id, url]).json();
    assert_eq!((&json["branch"], &json["repoUrl"]), (&"main".into(), &url.into()));
    assert_eq!(
        rig.cli(&["exec", id, "cat r/file; git -C r remote get-url origin"]).ok(),
        format!("1\n{url}\n")
    );
    // ssh's short form, by what the sandbox's own configuration says of the name.
    let config = "printf 'Host forge\\n HostName 127.0.0.1\\n Port 2222\\n User root\\n' > ~/.ssh/config; chmod 600 ~/.ssh/config";
    rig.cli(&["exec", id, config]).ok();
    rig.cli(&["exec", id, "ssh-keyscan -p 2222 127.0.0.1 | sed 's/^[^ ]*/forge/' >> ~/.ssh/known_hosts"])
        .ok();
    assert_eq!(
        rig.cli(&["checkout", "--depth", "1", id, "forge:/srv/git/r.git", "short"]).ok(),
        "/workspace/short\n"
    );

    failed("forge:/srv/git/none.git", &[], "GIT_REPOSITORY_NOT_FOUND", "none.git");
    failed("forge:/srv/git/r.git", &["--branch", "none"], "GIT_BRANCH_NOT_FOUND", "none");
    rig.cli(&["kill", id, "sshd"]).ok();
    failed(url, &[], "GIT_NETWORK_ERROR", "127.0.0.1");
    assert_eq!(rig.cli(&["exec", id, "ls"]).ok(), "r\nshort\n");
}

#[test]
fn s12_ctrl_c_ends_a_checkout_and_leaves_nothing() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    serve(&rig, &sandbox);
    let url = format!("{HOST}/slow/r.git");
    let running = Running::start(&mut rig.command(&["checkout", id, &url]));
    // The host was asked, so git runs.
    rig.cli(&["exec", "-s", "look", id, "tail -n +1 -f /tmp/requests | grep -m1 slow"]).ok();
    assert!(rig.cli(&["ps", id]).ok().contains("git clone -- http://127.0.0.1:8080/slow/r.git r"));
    running.signal(Signal::INT);
    assert_eq!(running.done().code(), 130);
    let left =
        rig.cli(&["exec", "-s", "look", id, "ls /workspace; grep -l slow/[r].git /proc/[0-9]*/cmdline"]);
    assert_eq!(left.text(), "", "{left:?}");
}
