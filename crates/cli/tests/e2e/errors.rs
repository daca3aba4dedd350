//! What the command line says when something is wrong.

use crate::rig::{Rig, Running, command, program};

#[test]
fn a_mistyped_sandbox_is_not_made_by_looking_at_it() {
    let rig = Rig::new();
    for arguments in [
        &["ps", "mistyped"][..],
        &["logs", "mistyped"],
        &["info", "mistyped"],
        &["ls", "mistyped:/"],
        &["rm", "mistyped"],
    ] {
        let done = rig.cli(arguments);
        done.failed("SANDBOX_NOT_FOUND");
        assert!(done.stderr.contains("Check the sandbox's id"), "{done:?}");
    }
    assert_eq!(rig.cli(&["rm", "--force", "mistyped"]).ok(), "");
}

#[test]
fn x02_bad_input_is_named_and_is_125() {
    let rig = Rig::new();
    for (arguments, part) in [
        (&["exec", "bad id", "true"][..], "bad id"),
        (&["exec", "-s", "a/b", "box", "true"], "a/b"),
        (&["exec", "box"], "CMD"),
        (&["exec", "box", ""], "INVALID_COMMAND"),
        (&["exec", "-e", "A B=1\u{1}=2", "--timeout", "9000000", "box", "true"], "timeout"),
        (&["nosuchcommand"], "nosuchcommand"),
        (&["--url", "ftp://x", "info"], "http://"),
        (&["serve", "--listen", "everywhere"], "--listen"),
        (&["serve", "--driver", "magic"], "magic"),
        (&["serve", "--log", "a=b=c"], "--log"),
    ] {
        rig.cli(arguments).failed(part);
    }
    // The use of an id makes its sandbox, also one that the sandbox's agent refuses.
    rig.cli(&["rm", "-f", "box"]).ok();
}

#[test]
fn x01_no_server_and_no_right_to_it_say_what_to_do() {
    let done = Running::start(&mut command("http://127.0.0.1:1", &["info"])).done();
    done.failed("sandcrab serve");
    let rig = Rig::new();
    let done = Running::start(
        program().args(["ls"]).env("SANDCRAB_URL", &rig.server.url).env("SANDCRAB_API_KEY", "wrong-key"),
    )
    .done();
    done.failed("SANDCRAB_API_KEY");
    let done = Running::start(
        program()
            .args(["--json", "ls"])
            .env("SANDCRAB_URL", &rig.server.url)
            .env("SANDCRAB_API_KEY", "wrong-key"),
    )
    .done();
    let error: serde_json::Value = serde_json::from_str(&done.stderr).unwrap();
    assert_eq!(error["code"], "UNAUTHORIZED");
    assert_eq!(done.code(), 125);
}

#[test]
fn help_and_version_are_no_failures() {
    for arguments in [&["--help"][..], &["--version"], &["exec", "--help"]] {
        let done = Running::start(program().args(arguments)).done();
        assert!(done.ok().contains("andcrab"), "{done:?}");
    }
}

#[test]
fn a29_doctor_tells_what_isolation_this_machine_has() {
    let done = Running::start(program().args(["doctor", "--json"])).done();
    let checks = done.json();
    let checks = checks.as_array().unwrap();
    let missing = checks.iter().filter(|check| check["status"] == "missing").count();
    assert_eq!(done.code(), i32::from(missing > 0), "{done:?}");
    assert!(checks.iter().any(|check| check["name"] == "seccomp"), "{done:?}");
    // These tests build the image, so this machine has what that takes.
    assert!(
        checks.iter().any(|check| check["name"] == "python image" && check["status"] == "good"),
        "{done:?}"
    );
    for check in checks.iter().filter(|check| check["status"] != "good") {
        assert!(!check["remedy"].as_str().unwrap().is_empty(), "{check}");
    }
    let text = Running::start(program().arg("doctor")).done();
    assert_eq!(text.code(), done.code());
    assert!(text.text().contains("seccomp"), "{text:?}");
}
