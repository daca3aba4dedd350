//! `start`, `ps`, `logs` and `kill` of processes.

use crate::rig::{Rig, Running};
use std::io::Write as _;

#[test]
fn p01_a_process_is_started_listed_followed_and_killed() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    rig.cli(&["exec", id, "export A=session; cd /tmp"]).ok();
    let script = "echo $A $PWD; echo error >&2; while :; do sleep 1000 & wait; done";
    let started = rig.cli(&[
        "start",
        "--id",
        "server",
        "--wait-log",
        "^sess\\w+ /tmp$",
        "--wait-timeout",
        "30s",
        id,
        script,
    ]);
    assert_eq!(started.ok(), "server\n");
    let ps = rig.cli(&["ps", "--json", id]).json();
    assert_eq!(
        (ps["processes"][0]["id"].as_str(), ps["processes"][0]["status"].as_str()),
        (Some("server"), Some("running"))
    );
    assert!(rig.cli(&["ps", id]).ok().contains("server"));

    let logs = rig.cli(&["logs", id, "server"]);
    assert_eq!(logs.ok(), "session /tmp\n");
    let mut following = Running::start(&mut rig.command(&["logs", "-f", id, "server"]));
    following.wait_for("session /tmp");
    assert_eq!(rig.cli(&["kill", id, "server"]).ok(), "server\n");
    assert_eq!(following.done().code(), 0, "it ends with the process");
    rig.cli(&["kill", id, "server"]).failed("PROCESS_NOT_FOUND");
    let ps = rig.cli(&["ps", "--json", id]).json();
    assert_eq!(
        (ps["processes"][0]["status"].as_str(), ps["processes"][0]["exitCode"].as_i64()),
        (Some("killed"), Some(143))
    );

    let json = rig.cli(&["logs", "-f", "--json", id, "server"]);
    let last: serde_json::Value = serde_json::from_str(json.ok().lines().last().unwrap()).unwrap();
    assert_eq!((last["type"].as_str(), last["exitCode"].as_i64()), (Some("exit"), Some(143)));
    rig.cli(&["start", id, "sleep 1000"]).ok();
    rig.cli(&["start", id, "sleep 1000"]).ok();
    assert_eq!(rig.cli(&["kill", "--all", id]).ok(), "2\n");
}

#[test]
fn p01_an_interactive_process_takes_stdin_and_gives_its_exit_code() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let script = "while read line; do echo got $line; done; exit 6";
    let mut talk = Running::start(&mut rig.command(&["start", "-i", &sandbox.id, script]));
    let mut stdin = talk.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    talk.wait_for("got one");
    stdin.write_all(b"two\n").unwrap();
    drop(stdin);
    let done = talk.done();
    assert_eq!((done.code(), done.text()), (6, "got one\ngot two\n"), "{done:?}");
}

#[test]
fn p01_a_process_that_was_left_is_attached_to_again() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let script = "while read line; do echo got $line; done; exit 6";
    let mut talk = Running::start(&mut rig.command(&["start", "-i", "--id", "talker", id, script]));
    talk.type_in("one\n");
    talk.wait_for("got one\n");
    talk.signal(rustix::process::Signal::INT);
    assert!(talk.done().status.code().is_none());

    let mut again = Running::start(&mut rig.command(&["attach", id, "talker"]));
    again.wait_for("got one\n");
    again.type_in("two\n");
    again.wait_for("got two\n");
    drop(again.stdin.take());
    assert_eq!(again.done().code(), 6);

    rig.cli(&["attach", id, "nobody"]).failed("PROCESS_NOT_FOUND");
    rig.cli(&["start", "--id", "deaf", id, "sleep 1000"]).ok();
    rig.cli_with(&["attach", id, "deaf"], b"hello?").failed("interactive");
    // Of one that has ended there is what it said, and its end.
    let ended = rig.cli(&["attach", id, "talker"]);
    assert_eq!((ended.code(), ended.text()), (6, "got one\ngot two\n"), "{ended:?}");
}

#[test]
fn p04_a_start_can_wait_for_a_port_and_says_when_there_will_be_none() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let serve = "exec python3 -m http.server 8123 --bind 127.0.0.1";
    rig.cli(&["start", "--wait-port", "8123", "--wait-timeout", "60s", &sandbox.id, serve]).ok();
    let fetch = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8123').status)";
    assert_eq!(rig.cli(&["exec", &sandbox.id, "python3", "-c", fetch]).ok(), "200\n");
    rig.cli(&["start", "--wait-port", "8124", &sandbox.id, "exit 3"]).failed("PROCESS_EXITED_BEFORE_READY");
    rig.cli(&["start", "--wait-log", "never", "--wait-timeout", "0.1s", &sandbox.id, "sleep 1000"])
        .failed("PROCESS_READY_TIMEOUT");
}
