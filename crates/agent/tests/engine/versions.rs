//! The session loop in each bash that it says it knows, apart from the machine's own: the first and the last of the accepted
//! 5.x, over two C libraries. `cargo xtask test` builds them below `target/bash`.

use crate::rig::{Rig, call};
use sandcrab_agent::shell::image::ShellImage;
use std::ffi::CString;
use std::time::Duration;

fn rig(name: &str) -> Rig {
    let path = format!("{}/../../target/bash/{name}/bash", env!("CARGO_MANIFEST_DIR"));
    assert!(std::fs::exists(&path).unwrap(), "`cargo xtask test` makes {path}");
    let path = CString::new(path).unwrap();
    // Without the loop there would be no shell at all: nothing here can pass in the plain way.
    Rig::with(Default::default(), ShellImage::with(Some(&path), c"/nonexistent"), Default::default())
}

async fn holds(name: &str, version: &str) {
    let mut rig = rig(name);
    assert!(rig.run("echo $BASH_VERSION").await.out().starts_with(version));
    // S01, S03: state and status.
    let made = "x='a b'; export y=2; arr=([2]=c [7]='d e'); declare -A map=([k]=v); f() { echo \"f $1\"; }; alias ll='echo alias'; \
                shopt -s nullglob; set -o pipefail; trap 'echo bye' USR1; umask 027; cd /usr";
    assert_eq!(rig.run(made).await.code(), 0);
    let look = "echo \"$x $y ${arr[7]} ${map[k]}\"; f 1; ll; shopt -q nullglob && echo nullglob; shopt -qo pipefail && echo pipefail; trap; umask; pwd";
    let seen = "a b 2 d e v\nf 1\nalias\nnullglob\npipefail\ntrap -- 'echo bye' SIGUSR1\n0027\n/usr\n";
    assert_eq!(rig.run(look).await.out(), seen);
    assert_eq!(rig.run("(exit 7)").await.code(), 7);
    assert_eq!(rig.run("if ; then").await.code(), 2);
    // S05: the shell ends, the session goes on with the same state.
    for ender in ["exit 5", "kill -9 $$", "exec true", "set -e; false"] {
        rig.run(ender).await;
        assert_eq!(rig.run(look).await.out(), seen, "{ender}");
    }
    // Job control and what SIGINT leaves in the shell.
    rig.run("set -m; sh -c 'kill -INT $$'; sleep 100 & kill %1; set +m").await;
    assert_eq!(rig.run("echo still").await.out(), "still\n");
    // S06: a timeout; S02: bytes; stdin; much output.
    let stopped = rig.call(call("sleep 100").timeout(Duration::from_millis(100))).await;
    assert_ne!(stopped.code(), 0);
    assert_eq!(rig.call(call("wc -c").stdin(vec![0xff; 70_000])).await.out().trim(), "70000");
    let many = rig.run("for ((i = 0; i < 30000; i++)); do echo line $i; done").await;
    assert!(many.out().ends_with("line 29999\n") && many.out().lines().count() == 30_000);
    // S11: variables from outside, whatever the name has.
    rig.run("declare -i n=5; declare -u u=x; readonly r=1").await;
    for (name, value) in [("n", "a b"), ("u", "low"), ("z", "$(echo no)")] {
        rig.session.set_env(&[(name.to_owned(), Some(value.to_owned()))].into()).unwrap();
    }
    assert_eq!(rig.run("printf '%s|' \"$n\" \"$u\" \"$z\"").await.out(), "a b|low|$(echo no)|");
}

#[tokio::test]
async fn s03_the_loop_works_in_bash_5_1() {
    holds("5.1", "5.1.").await;
}

#[tokio::test]
async fn s03_the_loop_works_in_bash_5_3_over_musl() {
    holds("5.3-musl", "5.3.").await;
}
