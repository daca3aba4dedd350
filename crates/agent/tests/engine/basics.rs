//! S01-S03, S05: one shell that stays, and one that comes back.

use crate::rig::{Rig, call};
use bytes::Bytes;
use sandcrab_agent::shell::{Ended, State};

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

#[tokio::test]
async fn s05_a_part_that_cannot_be_restored_is_named_and_left_out() {
    let mut rig = Rig::new();
    let gone = rig.path("gone");
    rig.run(format!("mkdir {gone}; cd {gone}; rmdir {gone}; x=kept")).await;
    rig.run("kill -9 $$").await;
    let ran = rig.run("echo $x; [ \"$PWD\" = \"$(/bin/pwd)\" ] && echo true").await;
    assert_eq!(ran.out(), "kept\ntrue\n");
    let dropped: Vec<_> = ran.outcome.dropped.iter().map(|part| part.kind).collect();
    assert_eq!(dropped, ["working directory"]);
    let ran = rig.run("exit 1").await;
    assert_eq!(ran.outcome.dropped, [], "said once");
    assert_eq!(rig.run("echo $x").await.outcome.dropped, [], "the state is that of the shell as it is");
}

#[tokio::test]
async fn s05_a_state_that_is_none_is_refused() {
    assert!(State::from_bytes(Bytes::new()).is_none());
    assert!(State::from_bytes(Bytes::from_static(b"SCT1\0\0\0\0\x11\0\0\0\0\0\0\0")).is_none());
    // Parts that claim to be longer than the whole.
    let mut lies = b"SCT1\x02\0\0\0\x28\0\0\0\0\0\0\0".to_vec();
    lies.extend_from_slice(&[
        1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 127,
    ]);
    let state = State::from_bytes(lies.into()).expect("its head is right");
    assert!(state.exported().is_err());
    // A shell that is given it restores what there is, which is nothing, and works.
    let mut rig = Rig::with_state(state);
    assert_eq!(rig.run("echo works").await.out(), "works\n");
}

#[tokio::test]
async fn s14_exported_variables_and_directory_are_known_without_asking_the_shell() {
    let mut rig = Rig::new();
    let mut watch = rig.session.watch();
    rig.run("cd /usr; export A=$'line\\nwith \\xff'; plain=1; ef() { echo \"$1\"; }; export -f ef; declare -x unset_yet").await;
    rig.session.settle().await.expect("the shell says what became of its state");
    let snapshot = watch.wait_for(|snapshot| snapshot.settled).await.expect("the session lives").clone();
    let exported = snapshot.state.expect("there is a state").exported().expect("it can be read");
    assert_eq!(exported.cwd.as_deref(), Some(&b"/usr"[..]));
    let get = |name: &str| exported.environment.get(name.as_bytes()).map(Vec::as_slice);
    assert_eq!(get("A"), Some(&b"line\nwith \xff"[..]));
    assert_eq!((get("plain"), get("unset_yet")), (None, None));
    assert!(get("PATH").is_some() && get("PWD") == Some(b"/usr"));
    assert_eq!(get("BASH_FUNC_ef%%"), Some(&b"() \n{ \n    echo \"$1\"\n}"[..]));
}

#[tokio::test]
async fn s05_a_state_moves_to_another_session() {
    let mut rig = Rig::new();
    rig.run("arr=(1 'two  words'); f() { cat <<EOF\nhere $1\nEOF\n}; shopt -s extglob; set -o nounset").await;
    rig.session.settle().await.expect("the shell says what became of its state");
    let bytes = rig.session.state().expect("there is a state").to_bytes().expect("it can be read");
    let mut other = Rig::with_state(State::from_bytes(bytes).expect("it is a state"));
    let ran = other.run("f x; echo \"${arr[1]}\"; shopt extglob; [[ $- == *u* ]] && echo nounset").await;
    assert_eq!(ran.out(), "here x\ntwo  words\nextglob        \ton\nnounset\n");
}

/// Another version's structures may differ: the loop is not tried there. This one says that it is another.
#[tokio::test]
async fn s03_a_bash_that_is_not_known_has_a_shell_per_command() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("bash");
    let mut changed = std::fs::read("/bin/bash").unwrap();
    let version = b"\x005.2\x00";
    let found: Vec<_> = (0..changed.len() - 5).filter(|&at| changed[at..at + 5] == *version).collect();
    assert!(!found.is_empty(), "this test needs bash 5.2");
    for at in found {
        changed[at..at + 5].copy_from_slice(b"\x006.0\x00");
    }
    std::fs::write(&other, changed).unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = std::ffi::CString::new(other.to_str().unwrap()).unwrap();
    let image = sandcrab_agent::shell::image::ShellImage::with(Some(&path), c"/bin/sh");
    let mut rig = crate::rig::Rig::with(Default::default(), image, Default::default());
    assert_eq!(rig.run("x=1; export y=2; cd /usr").await.code(), 0);
    assert_eq!(rig.run("echo [$x] $y; pwd").await.out(), "[] 2\n/usr\n");
}
