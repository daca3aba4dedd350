//! Shells that cannot load the session loop: what must hold there (S02, S03, S06, S07, S09, S11, and S05 for directory and
//! environment).

use crate::rig::{Mode, Rig, call, kill, runs};
use sandcrab_agent::shell::image::ShellImage;
use sandcrab_agent::shell::{Changes, Ended, StopReason};
use sandcrab_agent::spawn::Identity;
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// Each test with dash and with busybox (Debian: busybox-static), which must both be installed.
macro_rules! in_both_shells {
    ($($name:ident),+ $(,)?) => {
        mod in_dash { $(#[tokio::test] async fn $name() { super::$name(c"/bin/dash").await; })+ }
        mod in_busybox { $(#[tokio::test] async fn $name() { super::$name(c"/bin/busybox").await; })+ }
    };
}

in_both_shells!(
    s02_streams_are_apart_and_byte_for_byte,
    s03_the_exit_code_is_the_shells_own,
    s04_nothing_confuses_the_next_command,
    s05_directory_and_environment_survive,
    s06_a_timeout_ends_everything,
    s07_background_jobs_live_on,
    s09_what_is_given_to_one_command_ends_with_it,
    s11_variables_of_sandbox_and_session,
);

fn rig(shell: &'static CStr) -> Rig {
    assert!(std::path::Path::new(shell.to_str().expect("a text path")).exists(), "this test needs {shell:?}");
    Rig::with(Identity::default(), ShellImage::with(None, shell), Changes::new())
}

async fn s02_streams_are_apart_and_byte_for_byte(shell: &'static CStr) {
    let mut rig = rig(shell);
    let ran = rig.run("printf 'no newline'; printf err >&2; printf '\\377\\000\\n'").await;
    assert_eq!((ran.stdout, ran.stderr), (b"no newline\xff\0\n".to_vec(), b"err".to_vec()));
    assert_eq!(rig.call(call("cat; cat | wc -c").stdin("abc")).await.out().trim_end(), "abc0");
    assert_eq!(rig.run("cat").await.out(), "");
    let many = "a=$((a+1))\n".repeat(100_000);
    assert_eq!(rig.run(format!("{many}echo $a")).await.out(), "100000\n");
}

async fn s03_the_exit_code_is_the_shells_own(shell: &'static CStr) {
    let mut rig = rig(shell);
    for (text, code, ended) in [
        ("true", 0, Ended::Completed),
        ("false", 1, Ended::Completed),
        ("(exit 42)", 42, Ended::Completed),
        ("sh -c 'kill -9 $$'", 137, Ended::Completed),
        ("nosuchcommand_here", 127, Ended::Completed),
        ("trap 'echo bye' EXIT", 0, Ended::Completed),
        ("exit 7", 7, Ended::ShellExited),
        ("kill -9 $$", 137, Ended::ShellExited),
        ("exec true", 0, Ended::ShellExited),
        ("exec sh -c 'exit 9'", 9, Ended::ShellExited),
        ("set -e; false; echo no", 1, Ended::ShellExited),
        ("echo 'unbalanced", 2, Ended::ShellExited),
        ("set -u; echo $unset", 2, Ended::ShellExited),
    ] {
        let ran = rig.run(text).await;
        assert_eq!(
            (ran.code(), ran.out(), ran.outcome.ended),
            (code, String::new(), ended),
            "{text}: {}",
            ran.err()
        );
        assert_eq!(ran.outcome.shell_restarted, ended == Ended::ShellExited, "{text}");
        assert_eq!(rig.run("echo $?").await.out(), format!("{code}\n"), "after {text}");
    }
}

async fn s04_nothing_confuses_the_next_command(shell: &'static CStr) {
    for script in [
        "cat <<EOF\nhello\nEOF",
        "echo() { :; }; printf() { :; }; cd() { :; }; test() { :; }; command() { :; }; pwd() { :; }; alias eval=false set=false trap=false",
        "IFS=0123456789",
        "set -n",
        "set -f -C -u -v 2>/dev/null",
        "exec >&- 2>&-",
        "for i in 0 1 2 3 4 5 6 7 8 9; do eval \"exec $i>&-\"; done",
        "echo garbage >&9; echo garbage >&8",
        "trap 'exit 9' EXIT; exit 3",
        "trap '' TERM; unset PATH HOME PWD IFS PS1",
        "ulimit -n 3; ulimit -f 0",
        "exit 200",
        "return 3",
        "break; continue",
        ")",
    ] {
        let mut rig = rig(shell);
        rig.run("export KEPT='from before'; cd /usr").await;
        rig.run(script).await;
        let ran = rig.run("echo \"$KEPT\"; pwd").await;
        assert_eq!(ran.out(), "from before\n/usr\n", "after {script:?}: {}", ran.err());
    }
}

async fn s05_directory_and_environment_survive(shell: &'static CStr) {
    let mut rig = rig(shell);
    rig.run("cd /usr; export A='it'\"'\"'s\nnasty $x `y` \\ \"'; export B=b C; unset LANG").await;
    let show = "printf '[%s]' \"$A\" \"$B\" \"${LANG-unset}\"; pwd";
    let expected = "[it's\nnasty $x `y` \\ \"][b][unset]/usr\n";
    for end in ["true", "exit 7", "set -e; false", "kill -9 $$", "exec true"] {
        rig.run(end).await;
        assert_eq!(rig.run(show).await.out(), expected, "after {end}");
    }
    rig.run("export A=at-exit; cd lib; exit 1").await;
    rig.run("export A=lost; cd /; kill -9 $$").await;
    assert_eq!(rig.run("echo $A; pwd").await.out(), "at-exit\n/usr/lib\n");
    rig.run(format!("mkdir {0}; cd {0}; rmdir {0}", rig.path("gone"))).await;
    let ran = rig.run("pwd").await;
    assert_eq!((ran.out(), ran.outcome.dropped.len()), ("/\n".into(), 1));
}

async fn s06_a_timeout_ends_everything(shell: &'static CStr) {
    for mode in [Mode::Cgroup, Mode::Tree] {
        let mut rig = Rig::in_mode_with(mode, ShellImage::with(None, shell));
        let evil = rig.path("evil");
        rig.run("export A=1").await;
        for script in [
            "sleep 100; touch EVIL",
            "while :; do sleep 100; touch EVIL; done",
            "x=$(sleep 100; touch EVIL); touch EVIL",
            "sleep 100 | (sleep 100; touch EVIL)",
            "trap '' INT TERM; sleep 100; touch EVIL",
            "(trap 'touch EVIL' TERM; sleep 100; touch EVIL)",
            "while :; do :; done",
            "setsid sleep 1000 & echo $! > daemon; sleep 100",
        ] {
            let ran = rig.call(call(script.replace("EVIL", &evil)).timeout(Duration::from_millis(300))).await;
            assert_eq!(ran.outcome.ended, Ended::Stopped(StopReason::Timeout), "{script}");
        }
        assert!(!runs(rig.pid("daemon")));
        assert_eq!(rig.run("echo $A").await.out(), "1\n");
        assert!(!rig.exists("evil"));
    }
}

async fn s07_background_jobs_live_on(shell: &'static CStr) {
    let mut rig = rig(shell);
    let started = Instant::now();
    assert_eq!(rig.run("sleep 1000 & echo $! > job; echo done").await.out(), "done\n");
    assert!(started.elapsed() < Duration::from_secs(5));
    let job = rig.pid("job");
    assert_eq!(rig.run(format!("kill -0 {job} && echo alive")).await.out(), "alive\n");
    rig.call(call("sleep 100").timeout(Duration::from_millis(200))).await;
    assert!(runs(job));
    kill(job);
}

async fn s09_what_is_given_to_one_command_ends_with_it(shell: &'static CStr) {
    let mut rig = rig(shell);
    rig.run("export A=mine; cd /usr").await;
    let given = call("echo $A $B; pwd; export A=changed B=changed; cd /")
        .env("A", Some("a"))
        .env("B", Some("b"))
        .cwd("/etc");
    assert_eq!(rig.call(given).await.out(), "a b\n/etc\n");
    assert_eq!(rig.run("echo $A ${B-unset}; pwd").await.out(), "mine unset\n/usr\n");
    assert_eq!(
        rig.call(call("echo ${A-unset}; pwd").env("A", None).cwd("lib")).await.out(),
        "unset\n/usr/lib\n"
    );
    assert_eq!(rig.run("echo $A").await.out(), "mine\n");
    let ran = rig.call(call("echo never").cwd("/nonexistent")).await;
    assert_eq!((ran.code(), ran.out()), (1, String::new()));
    assert!(ran.err().contains("/nonexistent"), "{}", ran.err());
}

async fn s11_variables_of_sandbox_and_session(shell: &'static CStr) {
    let change =
        |name: &str, value: Option<&str>| Changes::from([(name.to_owned(), value.map(str::to_owned))]);
    let mut rig = rig(shell);
    rig.run("true").await;
    rig.env.change(&change("A", Some("1")));
    assert_eq!(rig.run("echo $A").await.out(), "1\n");
    rig.run("export A=shell").await;
    rig.env.change(&change("A", Some("2")));
    assert_eq!(rig.run("echo $A").await.out(), "shell\n");
    rig.session.set_env(&change("B", Some("own"))).expect("a valid name");
    rig.env.change(&change("B", Some("sandbox")));
    assert_eq!(rig.run("echo $B").await.out(), "own\n");
}

#[tokio::test]
async fn s03_a_shell_that_cannot_load_the_loop_is_driven_plainly() {
    // Whatever was taken for a bash and is none.
    let image = ShellImage::with(Some(c"/bin/dash"), c"/bin/dash");
    let mut rig = Rig::with(Identity::default(), image, Changes::new());
    assert_eq!(rig.run("echo plain").await.out(), "plain\n");
    let image = ShellImage::with(Some(c"/etc/hostname"), c"/bin/dash");
    let mut rig = Rig::with(Identity::default(), image, Changes::new());
    assert_eq!(rig.run("echo plain").await.out(), "plain\n");
}
