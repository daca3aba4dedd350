//! `sandcrab shell`

use crate::rig::{Rig, Running, program};

#[test]
fn a_script_on_stdin_runs_in_the_session() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let script = b"cd /tmp\nx=1\ncat <<EOF\nheredoc $x\nEOF\nfalse\n";
    let done = rig.cli_with(&["shell", &sandbox.id], script);
    assert_eq!((done.code(), done.text()), (1, "heredoc 1\n"));
    assert_eq!(rig.cli(&["exec", &sandbox.id, "echo $x $PWD"]).ok(), "1 /tmp\n");
    assert_eq!(rig.cli(&["shell", &sandbox.id]).ok(), "");
}

/// The shell on a terminal of its own.
fn on_a_terminal(rig: &Rig, id: &str) -> Running {
    let program = program();
    let line = format!("{} shell -s work {id}", program.get_program().display());
    #[expect(clippy::disallowed_methods, reason = "script(1) gives the program a terminal")]
    let mut command = std::process::Command::new("script");
    let home = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-e2e-home");
    command
        .args(["-qec", &line, "/dev/null"])
        .envs([("TERM", "xterm"), ("SANDCRAB_API_KEY", crate::rig::KEY)]);
    command.env("SANDCRAB_URL", &rig.server.url).env("XDG_STATE_HOME", home);
    Running::start(&mut command)
}

#[test]
fn a_person_works_line_by_line() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let mut shell = on_a_terminal(&rig, &sandbox.id);
    shell.wait_for(":/workspace$ ");
    shell.type_in("cd /tmp; kept=yes\r");
    shell.wait_for(":/tmp$ ");
    // What is not finished is read on.
    shell.type_in("for i in 1 2; do\r");
    shell.wait_for("> ");
    shell.type_in("echo \"num$i\"\r");
    shell.wait_for("> ");
    shell.type_in("done\r");
    shell.wait_for("num1");
    shell.wait_for("num2");
    // Lines that come at once are read one after the other, and none is lost.
    shell.type_in("echo on''ce\recho tw''ice\rcat <<X\rin the he''re\rX\r(exit 3)\r");
    shell.wait_for("once");
    shell.wait_for("twice");
    shell.wait_for("in the he''re");
    shell.wait_for(":/tmp [3]$ ");
    // Ctrl-C ends the command and not the shell.
    shell.type_in("echo st''arted; sleep 1000\r");
    shell.wait_for("started");
    shell.type_in("\u{3}");
    shell.wait_for(":/tmp [130]$ ");
    shell.type_in("\u{4}");
    let done = shell.done();
    assert!(done.text().contains("lives on"), "{done:?}");
    assert_eq!(rig.cli(&["exec", "-s", "work", &sandbox.id, "echo $kept $PWD"]).ok(), "yes /tmp\n");
}
