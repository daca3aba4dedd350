//! `ls`, `ps`, `logs`, `info`, `rm`, and what outlives a server.

use crate::rig::{Rig, Running, Server, alone, command, sandbox};
use serde_json::json;

#[test]
fn l08_a_sandbox_is_listed_described_and_taken_away() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    rig.cli(&["exec", "-s", "work", id, "mkdir d; echo x > d/.f; echo $'\\e[31m' > $'d/\\e[31mred'"]).ok();
    assert!(rig.cli(&["ls"]).ok().lines().any(|line| line.starts_with(id) && line.contains("running")));
    let info = rig.cli(&["info", "--json", id]).json();
    assert_eq!((info["id"].as_str(), info["status"].as_str()), (Some(id), Some("running")));
    assert!(rig.cli(&["info", id]).ok().contains("loopback"));
    assert!(rig.cli(&["info"]).ok().contains("version"));

    let ps = rig.cli(&["ps", "--json", id]).json();
    assert_eq!(
        (ps["sessions"][0]["id"].as_str(), ps["sessions"][0]["cwd"].as_str()),
        (Some("work"), Some("/workspace"))
    );
    let files = rig.cli(&["ls", "--json", "-a", &sandbox.at("d")]).json();
    assert_eq!(files.as_array().unwrap().len(), 2);
    // A name cannot drive the terminal (attack B11).
    let files = rig.cli(&["ls", &sandbox.at("d")]);
    assert!(files.ok().contains("\\u{1b}[31mred") && !files.text().contains('\u{1b}'), "{files:?}");

    let events = rig.cli(&["logs", "--json", id]);
    let first: serde_json::Value = serde_json::from_str(events.ok().lines().next().unwrap()).unwrap();
    assert_eq!(first["kind"], "created");

    assert_eq!(rig.cli(&["rm", id]).ok().trim(), id);
    rig.cli(&["info", id]).failed("SANDBOX_NOT_FOUND");
    // The id is free, and what it names now is empty.
    assert_eq!(rig.cli(&["exec", id, "ls -A /workspace"]).ok(), "");
}

#[test]
fn l01_a_sandbox_is_made_with_what_was_typed_and_stopped_on_its_files() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let made =
        ["create", "--memory", "256m", "--pids", "100", "-e", "FROM=create", "--label", "team=blue", id];
    assert_eq!(rig.cli(&made).ok(), format!("{id}\n"));
    let info = rig.cli(&["info", "--json", id]).json();
    assert_eq!(
        (&info["limits"]["memory"], &info["limits"]["pids"]),
        (&json!(256 << 20), &json!(100)),
        "{info}"
    );
    assert_eq!(info["labels"], json!({ "team": "blue" }));
    assert_eq!(rig.cli(&["exec", id, "echo $FROM >kept; sleep 1000 & echo $FROM"]).ok(), "create\n");
    assert!(rig.cli(&["ls", "--label", "team=blue"]).ok().contains(id));
    // The same again is fine; what is fixed cannot change, what is not can.
    rig.cli(&made).ok();
    rig.cli(&["create", "--memory", "512m", id]).failed("SANDBOX_ALREADY_EXISTS");
    rig.cli(&["create", "--label", "team=red", id]).ok();
    assert_eq!(rig.cli(&["info", "--json", id]).json()["labels"], json!({ "team": "red" }));
    rig.cli(&["create", "--memory", "lots", id]).failed("--memory");

    assert_eq!(rig.cli(&["stop", id]).ok(), format!("{id}\n"));
    assert_eq!(rig.cli(&["info", "--json", id]).json()["status"], "stopped");
    rig.cli(&["stop", "--kill", id]).ok();
    assert_eq!(rig.cli(&["exec", id, "cat kept; pgrep -c sleep"]).text(), "create\n0\n");
    rig.cli(&["stop", "never-was"]).failed("SANDBOX_NOT_FOUND");
}

#[test]
fn l08_logs_follow_until_they_are_told_to_stop() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    rig.cli(&["exec", &sandbox.id, "true"]).ok();
    let mut logs = Running::start(&mut rig.command(&["logs", "-f", &sandbox.id]));
    logs.wait_for("created");
    // Also past the sandbox's end: the next one of its name is the same log's.
    rig.cli(&["rm", &sandbox.id]).ok();
    logs.wait_for("destroyed");
    rig.cli(&["exec", &sandbox.id, "true"]).ok();
    logs.wait_for("created");
    logs.signal(rustix::process::Signal::INT);
    assert!(logs.done().status.code().is_none());
}

#[test]
fn l05_killing_the_server_loses_neither_state_nor_a_running_command() {
    let _alone = alone();
    let server = Server::start("127.0.0.1:0");
    let kept = sandbox(&server);
    let id = &*kept.id;
    let url = server.url.clone();
    let cli = |arguments: &[&str]| Running::start(&mut command(&url, arguments)).done();
    cli(&["exec", id, "state=kept; cd /tmp; touch before"]).ok();
    let mut running = Running::start(&mut command(
        &url,
        &[
            "exec",
            "-s",
            "other",
            id,
            "echo one; until test -e /tmp/go; do sleep 0.05; done; echo two; exit 4",
        ],
    ));
    drop(running.stdin.take());
    running.wait_for("one\n");

    server.kill();
    let _again = Server::start(url.strip_prefix("http://").unwrap());

    assert_eq!(cli(&["exec", id, "echo $state $PWD; ls before; touch go"]).ok(), "kept /tmp\nbefore\n");
    // The same command, attached to again: nothing twice, nothing lost (contract S12).
    let done = running.done();
    assert_eq!((done.code(), done.text()), (4, "one\ntwo\n"), "{done:?}");
    drop(kept);
}
