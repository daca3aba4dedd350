//! `sandcrab exec`

use crate::rig::{Rig, Running};
use rustix::process::Signal;

#[test]
fn s01_two_sessions_keep_their_own_state() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    rig.cli(&["exec", "-s", "prod", id, "export NODE_ENV=production; cd /tmp; f() { echo f; }"]).ok();
    rig.cli(&["exec", "-s", "test", id, "export NODE_ENV=test"]).ok();
    assert_eq!(rig.cli(&["exec", "-s", "prod", id, "echo $NODE_ENV $PWD; f"]).ok(), "production /tmp\nf\n");
    assert_eq!(rig.cli(&["exec", "-s", "test", id, "echo $NODE_ENV $PWD"]).ok(), "test /workspace\n");
    assert_eq!(rig.cli(&["exec", id, "echo ${NODE_ENV-unset}"]).ok(), "unset\n");
}

#[test]
fn s09_what_is_given_to_one_command_holds_for_it_alone() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    let done = rig.cli(&["exec", "-e", "A=1", "-w", "/etc", id, "echo $A $PWD"]);
    assert_eq!(done.ok(), "1 /etc\n");
    assert_eq!(
        rig.cli_with(&["exec", "-i", id, "cat; echo ${A-unset} $PWD"], b"in\n").ok(),
        "in\nunset /workspace\n"
    );
}

#[test]
fn b09_several_words_are_literal() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let done = rig.cli(&[
        "exec",
        &sandbox.id,
        "printf",
        "<%s>",
        "a b",
        "$HOME",
        "`id`",
        "it's",
        "*",
        ";",
        "--json",
        "",
    ]);
    assert_eq!(done.ok(), "<a b><$HOME><`id`><it's><*><;><--json><>");
}

#[test]
fn s02_the_rust_client_brings_every_byte_of_a_result() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sandbox = rig.client().sandbox(&sandbox.id, Default::default()).unwrap();
        // Text, text that JSON writes otherwise, and what is no text, which is asked for again: run once all the same.
        let text = sandbox.exec("printf plain; printf 'a\\n\"b\" λ\\t' >&2").await.unwrap();
        assert_eq!((&text.stdout[..], &text.stderr[..]), (&b"plain"[..], "a\n\"b\" λ\t".as_bytes()));
        let bytes = sandbox.exec("echo x >> ran; printf 'a\\0\\377\\n'; cat ran >&2").await.unwrap();
        assert_eq!((&bytes.stdout[..], &bytes.stderr[..]), (&b"a\0\xff\n"[..], &b"x\n"[..]));
        let text = sandbox.exec("printf 'a\\377'").encoding(sandcrab_client::api::exec::OutputEncoding::Utf8);
        assert_eq!(text.await.unwrap().stdout_text(), "a\u{fffd}");
    });
}

#[test]
fn s02_output_is_byte_exact_however_much_it_is() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let command = "head -c 3000000 /dev/urandom | tee /tmp/random; sha256sum < /tmp/random >&2";
    let done = rig.cli(&["exec", &sandbox.id, command]);
    assert_eq!((done.code(), done.stdout.len()), (0, 3_000_000));
    let again = rig.cli(&["cp", &sandbox.at("/tmp/random"), "-"]);
    assert!(again.stdout == done.stdout, "the file and the output differ");
}

/// Whether a process with this argument runs in the sandbox.
fn runs(rig: &Rig, id: &str, argument: &str) -> bool {
    let (first, rest) = argument.split_at(1);
    // The bracket keeps grep from finding itself.
    rig.cli(&[
        "exec",
        "-s",
        "look",
        id,
        &format!("grep -l '[{first}]{rest}' /proc/[0-9]*/cmdline 2>/dev/null | head -1"),
    ])
    .text()
    .contains("/proc")
}

#[test]
fn s06_ctrl_c_cancels_the_command_and_the_session_lives_on() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    rig.cli(&["exec", id, "kept=yes"]).ok();
    let mut running =
        Running::start(&mut rig.command(&["exec", id, "echo on; sleep 7654321; touch /tmp/evil"]));
    drop(running.stdin.take());
    // Comes while the command runs, so output is not held back.
    running.wait_for("on\n");
    assert!(runs(&rig, id, "7654321"));
    let ps = rig.cli(&["ps", id]);
    assert!(ps.ok().contains("running") && ps.text().contains("busy"), "{ps:?}");
    running.signal(Signal::INT);
    let done = running.done();
    assert_eq!((done.code(), done.text()), (130, "on\n"), "{done:?}");
    assert!(!runs(&rig, id, "7654321"));
    assert_eq!(rig.cli(&["exec", id, "echo $kept; ls /tmp/evil"]).text(), "yes\n");
}

#[test]
fn s06_sigterm_cancels_too() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let mut running = Running::start(&mut rig.command(&["exec", "--json", &sandbox.id, "sleep 1234567"]));
    drop(running.stdin.take());
    while !runs(&rig, &sandbox.id, "1234567") {}
    running.signal(Signal::TERM);
    assert_eq!(running.done().code(), 143);
    assert!(!runs(&rig, &sandbox.id, "1234567"));
}

#[test]
fn s06_a_timeout_is_124_and_says_so() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let done = rig.cli(&["exec", "--timeout", "0.2", &sandbox.id, "echo on; sleep 1000"]);
    assert_eq!((done.code(), done.text()), (124, "on\n"));
    assert!(done.stderr.contains("COMMAND_TIMEOUT"), "{done:?}");
}

#[test]
fn a_reader_that_has_enough_ends_the_command() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let status = Running::hang_up(&mut rig.command(&["exec", &sandbox.id, "yes 2468135"]), 1000);
    assert_eq!(status.code(), Some(141));
    assert!(!runs(&rig, &sandbox.id, "2468135"));
}

#[test]
fn s09_stdin_is_left_alone_without_i() {
    use crate::rig::Running;
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let (id, read) = (&*sandbox.id, "cat; echo end");
    // The pipe stays open, and has something in it.
    for words in [&["exec", id, read][..], &["exec", "--json", id, read], &["run", "--", read]] {
        let mut running = Running::start(&mut rig.command(words));
        running.type_in("not for the command");
        running.wait_for("end");
    }
    assert_eq!(rig.cli_with(&["exec", "-i", id, read], b"typed\n").ok(), "typed\nend\n");
}

#[test]
fn s09_stdin_is_passed_on_byte_for_byte_as_it_comes() {
    use crate::rig::Running;
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let id = &*sandbox.id;
    assert_eq!(rig.cli_with(&["exec", "-i", id, "od -An -c"], b"a\xff\0b").text().trim(), "a 377  \\0   b");
    let much: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sum = rig.cli_with(&["exec", "-i", id, "wc -c"], &much);
    assert_eq!(sum.text(), "5000000\n", "{sum:?}");
    // The command answers what came while the pipe stays open, and its end is this program's, whoever holds the pipe.
    for words in [
        &["exec", "-i", id, "read a; echo \"got $a\"; exit 4"][..],
        &["run", "-i", "read a; echo \"got $a\"; exit 4"],
    ] {
        let mut running = Running::start(&mut rig.command(words));
        running.type_in("one\n");
        running.wait_for("got one\n");
        assert_eq!(running.done().code(), 4);
    }
    let mut running = Running::start(&mut rig.command(&["exec", "--json", "-i", id, "head -1; cat"]));
    running.type_in("first\n");
    drop(running.stdin.take());
    assert!(running.done().text().contains(r#""stdout":"first\n""#));
    // What never reads is not waited for.
    let mut running = Running::start(&mut rig.command(&["exec", "-i", id, "echo ready; sleep 7531642"]));
    running.type_in("ignored\n");
    running.wait_for("ready\n");
    running.signal(Signal::INT);
    assert_eq!(running.done().code(), 130);
    assert!(!runs(&rig, id, "7531642"));
}
