//! S01-S03, S05: one shell that stays, and one that comes back.

use crate::rig::{Rig, call};
use sandcrab_agent::shell::Ended;

#[tokio::test]
async fn s01_what_one_command_makes_the_next_one_finds() {
    let mut rig = Rig::new();
    let ran = rig
        .run("cd /usr; export E=1; plain=two; arr=(a 'b c'); declare -A map=([k]='v w'); f() { echo \"f:$1\"; }; alias ll='echo aliased'; umask 027; set -o pipefail; shopt -s nullglob; trap 'echo usr1' USR1")
        .await;
    assert_eq!((ran.code(), ran.out(), ran.err()), (0, String::new(), String::new()));
    let ran = rig
        .run("pwd; env | grep ^E=; echo $plain \"${arr[1]}\" \"${map[k]}\"; f x; ll y; umask; shopt -o pipefail; shopt nullglob; kill -USR1 $$; echo end")
        .await;
    assert_eq!(
        ran.out(),
        "/usr\nE=1\ntwo b c v w\nf:x\naliased y\n0027\npipefail       \ton\nnullglob       \ton\nusr1\nend\n"
    );
}

#[tokio::test]
async fn s03_the_exit_code_is_the_shells_own() {
    let mut rig = Rig::new();
    for (text, code) in [
        ("true", 0),
        ("false", 1),
        ("(exit 42)", 42),
        ("sh -c 'kill -9 $$'", 137),
        ("nosuchcommand_here", 127),
        ("exit 7", 7),
        ("exit 300", 44),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
        ("exec true", 0),
        ("exec sh -c 'exit 9'", 9),
        ("exec /nonexistent", 127),
        ("${unset?}", 127),
        ("set -u; echo $unset", 127),
        ("set -e; false; echo not here", 1),
    ] {
        let ran = rig.run(text).await;
        assert_eq!(ran.code(), code, "{text}: {ran:?}");
        assert_eq!(ran.out(), "", "{text}");
    }
}

#[tokio::test]
async fn s05_exit_ends_the_command_and_not_the_session() {
    let mut rig = Rig::new();
    let ran = rig.run("x=1; f() { local x=99; y=2; exit 7; }; f").await;
    assert_eq!(ran.code(), 7);
    assert_eq!(ran.outcome.ended, Ended::ShellExited);
    assert!(ran.outcome.shell_restarted);
    let ran = rig.run("echo $? $x $y").await;
    assert_eq!(ran.out(), "7 1 2\n");
    assert!(!ran.outcome.shell_restarted);
    assert_eq!(ran.outcome.dropped, []);
}

#[tokio::test]
async fn s05_a_killed_shell_comes_back_as_of_the_last_completed_command() {
    let mut rig = Rig::new();
    rig.run("x=kept; cd /usr").await;
    let ran = rig.run("x=lost; cd /; kill -9 $$").await;
    assert_eq!((ran.code(), ran.outcome.signal), (137, Some(9)));
    assert_eq!(rig.run("echo $x; pwd").await.out(), "kept\n/usr\n");
}

#[tokio::test]
async fn s03_stdin_reaches_the_command() {
    let mut rig = Rig::new();
    assert_eq!(rig.call(call("cat; cat | wc -c").stdin("abc")).await.out(), "abc0\n");
    assert_eq!(rig.run("cat; echo empty").await.out(), "empty\n");
}
