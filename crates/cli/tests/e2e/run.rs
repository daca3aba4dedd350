//! `sandcrab run`

use crate::rig::{Rig, Running, alone, program};
use rustix::process::Signal;
use serde_json::Value;

/// The ids of throw-away sandboxes that are there now.
fn throw_away(rig: &Rig) -> Vec<String> {
    let list = rig.cli(&["ls", "--json"]).json();
    let ids = list.as_array().unwrap().iter().map(|info| info["id"].as_str().unwrap().to_owned());
    ids.filter(|id| id.starts_with("run-")).collect()
}

/// The id of the sandbox that a command runs in is its host name.
const NAME: &str = "uname -n";

#[test]
fn a_throw_away_sandbox_gives_output_exit_code_and_is_gone() {
    let rig = Rig::new();
    let done = rig.cli(&["run", "--", &format!("printf 'a\\0\\377b'; printf err >&2; {NAME} >&2; exit 7")]);
    assert_eq!(done.code(), 7, "{done:?}");
    assert_eq!(done.stdout, b"a\0\xffb");
    let name = done.stderr.strip_prefix("err").unwrap().trim();
    assert!(!throw_away(&rig).iter().any(|id| id == name), "{name}");
}

#[test]
fn exit_codes_are_the_commands_own() {
    let rig = Rig::new();
    for (command, code) in
        [("true", 0), ("exit 7", 7), ("nosuchprogram", 127), ("kill -TERM $$", 143), ("exit 255", 255)]
    {
        assert_eq!(rig.cli(&["run", "--", command]).code(), code, "{command}");
    }
}

#[test]
fn stdin_is_the_commands_and_options_reach_the_sandbox() {
    let rig = Rig::new();
    let command =
        ["run", "-i", "-e", "A=x y", "--cwd", "/tmp", "--memory", "256m", "--", "cat; echo $A; pwd"];
    assert_eq!(rig.cli_with(&command, "typed ünï".as_bytes()).ok(), "typed ünïx y\n/tmp\n");
    assert_eq!(rig.cli_with(&["run", "-i", "od -An -tx1"], b"\xff\xfe").ok().trim(), "ff fe");
    rig.cli(&["run", "--memory", "1k", "true"]).failed("limits.memory");
    rig.cli(&["run", "--image", "nosuch", "true"]).failed("nosuch");
}

#[test]
fn ctrl_c_ends_the_command_and_takes_the_sandbox_away() {
    let rig = Rig::new();
    let mut running =
        Running::start(&mut rig.command(&["run", "--", &format!("{NAME}; trap '' TERM; sleep 1000")]));
    drop(running.stdin.take());
    running.wait_for("\n");
    assert!(!throw_away(&rig).is_empty());
    running.signal(Signal::INT);
    let done = running.done();
    assert_eq!(done.code(), 130, "{done:?}");
    let name = done.text().trim().to_owned();
    assert!(!throw_away(&rig).contains(&name), "{name}");
}

#[test]
fn json_holds_the_whole_result() {
    let rig = Rig::new();
    let done = rig.cli(&["run", "--json", "--", "echo out; echo err >&2; exit 3"]);
    assert_eq!(done.code(), 3);
    let json = done.json();
    assert_eq!((&json["exitCode"], &json["success"]), (&Value::from(3), &Value::from(false)));
    assert_eq!((json["stdout"].as_str(), json["stderr"].as_str()), (Some("out\n"), Some("err\n")));
    let json = rig.cli(&["run", "--json", "--", "printf '\\377'"]).json();
    assert_eq!((json["encoding"].as_str(), json["stdout"].as_str()), (Some("base64"), Some("/w==")));
}

#[test]
fn no_server_is_needed() {
    let _alone = alone();
    assert!(
        std::net::TcpStream::connect("127.0.0.1:8787").is_err(),
        "a server listens on the default address; this test is about there being none"
    );
    let done = Running::start(program().args(["run", "--", "echo first experience; exit 5"])).done();
    assert_eq!((done.code(), done.text()), (5, "first experience\n"), "{done:?}");

    // Two at a time: the second takes a directory of its own while the first has the usual one.
    let mut first = Running::start(program().args(["run", "-i", "--", "echo on; cat"]));
    let second = Running::start(program().args(["run", "--", "echo two"]));
    first.type_in("typed\n");
    assert_eq!(first.done().ok(), "on\ntyped\n");
    assert_eq!(second.done().ok(), "two\n");
    let once = crate::rig::data_dir().join("once");
    assert_eq!(std::fs::read_dir(once).map_or(0, Iterator::count), 0);
}
