//! S04 and S02: commands that try, or happen, to confuse whoever drives the shell. Each is followed by a command that
//! must find the session as it should be.

use crate::rig::{Rig, call};
use std::time::Duration;

/// (script, exit code, stdout). `""` for the output means that nothing is printed.
const TABLE: &[(&str, i32, &str)] = &[
    ("cat <<EOF\nhello\nEOF", 0, "hello\n"),
    ("cat <<EOF\nno end", 0, "no end\n"),
    ("cat <<'EOF' | tr a-z A-Z\n$x `y`\nEOF\n", 0, "$X `Y`\n"),
    ("echo 'unbalanced", 2, ""),
    ("echo \"unbalanced", 2, ""),
    ("echo $(unbalanced", 2, ""),
    ("echo `unbalanced", 2, ""),
    ("if true", 2, ""),
    (")", 2, ""),
    ("echo one; fi", 2, ""),
    ("echo one\n)", 2, "one\n"),
    ("\\", 127, ""),
    ("#", 0, ""),
    ("", 0, ""),
    ("\n\n", 0, ""),
    ("echo end # comment without newline", 0, "end\n"),
    ("exec ls /nonexistent 2>/dev/null", 2, ""),
    ("exec echo replaced", 0, "replaced\n"),
    ("exit 7", 7, ""),
    ("exit", 0, ""),
    ("false; exit", 1, ""),
    ("exit abc", 2, ""),
    ("set -e; false; echo no", 1, ""),
    ("set -u; echo $nope", 127, ""),
    (": ${nope:?gone}", 127, ""),
    ("return", 2, ""),
    ("return 5", 2, ""),
    ("break; echo after", 0, "after\n"),
    ("eval 'return 3'", 2, ""),
    ("enable -n echo; enable -n printf; enable -n eval; type -t printf", 0, "file\n"),
    (
        "eval() { :; }; .() { :; }; builtin() { :; }; printf() { :; }; declare() { :; }; command() { :; }; exec() { :; }",
        0,
        "",
    ),
    (
        "trap() { :; }; set() { :; }; shopt() { :; }; enable() { :; }; umask() { :; }; cd() { :; }; exit() { :; }",
        0,
        "",
    ),
    (
        "readonly() { :; }; export() { :; }; alias() { :; }; unset() { :; }; test() { :; }; true() { :; }",
        0,
        "",
    ),
    ("alias eval=false echo=false declare=false; eval x", 127, ""),
    ("IFS=0123456789; echo \"$?\"", 0, "0\n"),
    ("IFS=; false", 1, ""),
    ("shopt -s extdebug; trap false DEBUG; echo skipped", 0, ""),
    ("trap 'echo debug' DEBUG; true", 0, "debug\n"),
    ("trap 'echo err' ERR; false", 1, "err\n"),
    ("trap 'echo bye' EXIT; exit 3", 3, "bye\n"),
    ("trap 'exit 9' EXIT; exit 3", 9, ""),
    ("trap 'kill -9 $$' EXIT; exit 3", 137, ""),
    ("trap 'exec true' EXIT; exit 3", 0, ""),
    ("trap '' TERM; kill -TERM $$; echo on", 0, "on\n"),
    ("trap 'echo caught' TERM; kill -TERM $$; echo on", 0, "caught\non\n"),
    ("for i in {0..1023}; do eval \"exec $i>&-\"; done", 0, ""),
    ("for i in {3..1023}; do eval \"exec $i>&-\"; done; echo still", 0, "still\n"),
    ("for i in {3..1023}; do eval \"exec $i</dev/null\"; done; echo still", 0, "still\n"),
    ("for i in {0..1023}; do exec {i}>&-; done; true", 0, ""),
    (
        "for fd in /proc/$$/fd/*; do fd=${fd##*/}; ((fd > 2)) && eval \"exec $fd>&-\"; done; echo all",
        0,
        "all\n",
    ),
    ("exec 1>&-; echo x", 1, ""),
    ("exec 2>&-; echo x; ls /nonexistent", 2, "x\n"),
    ("exec 0<&-; cat", 1, ""),
    ("exec 0<&- 1>&- 2>&-", 0, ""),
    ("exec >/dev/null; echo lost", 0, ""),
    ("exec 3>&1; echo three >&3", 0, "three\n"),
    ("ulimit -n 3; echo limited", 0, "limited\n"),
    ("ulimit -n 2; echo limited", 0, "limited\n"),
    ("ulimit -n 0; echo limited", 0, "limited\n"),
    ("ulimit -f 0; echo limited", 0, "limited\n"),
    ("printf '\\000\\001\\377\\n\\r\\0'", 0, "\0\u{1}\u{fffd}\n\r\0"),
    ("kill -9 $$", 137, ""),
    ("kill -9 $BASHPID", 137, ""),
    ("(kill -9 $BASHPID)", 137, ""),
    ("kill -SEGV $$", 139, ""),
    ("kill -HUP $$; echo no", 129, ""),
    ("kill -INT $$; echo no", 130, ""),
    ("kill -PIPE $$; echo no", 141, ""),
    ("kill -USR1 $$; echo no", 138, ""),
    ("suspend", 1, ""),
    ("wait", 0, ""),
    ("wait 99999", 127, ""),
    ("coproc cat; echo hi >&\"${COPROC[1]}\"; read -r x <&\"${COPROC[0]}\"; echo $x", 0, "hi\n"),
    ("read x; echo \"[$x]$?\"", 0, "[]1\n"),
    ("cat", 0, ""),
    ("sandcrab 1000 1001", 127, ""),
    ("enable sandcrab", 1, ""),
    ("enable -d sandcrab; type sandcrab", 1, ""),
    ("echo garbage >&1000; echo fine", 0, "fine\n"),
    ("set -- a b c; shift; echo $# $1", 0, "2 b\n"),
    ("unset PATH; ls", 127, ""),
    ("unset IFS PS4 BASH_VERSION HOME PWD OLDPWD SHLVL OPTIND; echo ok", 0, "ok\n"),
    ("PS4='$(echo evil >&2)'; set -x; set +x", 0, ""),
    ("set -v; echo v", 0, "v\n"),
    ("set -a; A1=x; env | grep -c ^A1=", 0, "1\n"),
    ("set -f -C -B -h -m -p -t 2>/dev/null; echo t", 0, "t\n"),
    ("set -o posix; eval 'syntax ('", 2, ""),
    ("BASH_ENV=/nonexistent; ENV=/nonexistent; export BASH_ENV ENV; echo e", 0, "e\n"),
    ("LC_ALL=nonexistent.locale; echo l", 0, "l\n"),
    ("time true", 0, ""),
    ("function \u{fc}ber { echo umlaut; }; \u{fc}ber", 0, "umlaut\n"),
    ("exec -a other bash -c 'echo $0'", 0, "other\n"),
    ("logout", 1, ""),
    ("times >/dev/null; hash -r; jobs; history", 0, ""),
    ("ulimit -v 1000000; echo v", 0, "v\n"),
];

#[tokio::test]
async fn s04_nothing_in_a_command_confuses_the_next_one() {
    let mut wrong = Vec::new();
    for (script, code, out) in TABLE {
        let mut rig = Rig::new();
        rig.run("kept='from before'; kf() { return 33; }; cd /usr").await;
        let ran = rig.run(script).await;
        if (ran.code(), ran.out()) != (*code, (*out).to_owned()) {
            wrong.push(format!("{script:?}: {ran:?}"));
        }
        // Said in words that no function or alias of the table's has, and by an exit code, which needs no output.
        let check = "[[ $kept == 'from before' && ${PWD-/usr} == /usr ]] && { \\kf; [[ $? == 33 ]]; }";
        let ran = rig.run(check).await;
        if ran.code() != 0 {
            wrong.push(format!("after {script:?}: {ran:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Shapes in which a program runs in the foreground of a shell with job control.
const SHAPES: &[&str] = &[
    "@",
    "@; true",
    "@ | cat",
    "true | @",
    "f() { @; }; f",
    "for i in 1 2; do @; done",
    "while @; do break; done",
    "( @ )",
    "@ & wait $!",
    "{ @; } 2>/dev/null",
];

#[tokio::test]
async fn s03_s05_a_signal_under_job_control_ends_no_later_command() {
    let mut wrong = Vec::new();
    let dying = ["INT", "QUIT", "TERM", "KILL", "PIPE"].map(|name| format!("bash -c 'kill -{name} $$'"));
    // To the whole job, as a terminal would: a subshell would wait for a member that alone is stopped.
    let stopping = ["TSTP", "STOP", "TTIN"].map(|name| format!("bash -c 'kill -{name} 0'"));
    let python = ["python3 -c 'raise KeyboardInterrupt' 2>/dev/null".to_owned()];
    for program in dying.iter().chain(&stopping).chain(&python) {
        for shape in SHAPES {
            let mut rig = Rig::new();
            rig.run("kept='from before'; set -m").await;
            let script = shape.replace('@', program);
            let limit = Duration::from_secs(10);
            let ran = rig.call(call(&script).timeout(limit)).await;
            for check in ["echo \"$kept\"", "kill -KILL $(jobs -p) 2>/dev/null; wait; echo \"$kept\""] {
                let after = rig.call(call(check).timeout(limit)).await;
                if (after.code(), after.out().as_str()) != (0, "from before\n") {
                    wrong.push(format!("{script:?} ({ran:?}), then {check:?}: {after:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn s04_set_r_does_what_it_says_and_no_more() {
    let mut rig = Rig::new();
    assert_eq!(rig.run("set -r; cd / 2>/dev/null; echo $?").await.out(), "1\n");
    assert_eq!(rig.run("cd /").await.code(), 1);
    assert_eq!(rig.run("exit 4").await.code(), 4);
    assert_eq!(rig.run("cd /").await.code(), 1, "a restricted session stays restricted");
}

#[tokio::test]
async fn s04_a_command_text_of_one_megabyte() {
    let mut rig = Rig::new();
    let long = "x".repeat(1 << 20);
    let ran = rig.run(format!("v={long}; echo ${{#v}}")).await;
    assert_eq!(ran.out(), format!("{}\n", 1 << 20));
    let many = "a=$((a+1))\n".repeat(100_000);
    assert_eq!(rig.run(format!("{many}echo $a")).await.out(), "100000\n");
    assert_eq!(rig.run("echo ${#v}").await.out(), format!("{}\n", 1 << 20));
    assert_eq!(rig.run("exit 1").await.code(), 1);
    assert_eq!(rig.run("echo ${#v} $a").await.out(), format!("{} 100000\n", 1 << 20));
}

#[tokio::test]
async fn s02_streams_are_apart_and_byte_for_byte() {
    let mut rig = Rig::new();
    let ran = rig.run("printf 'no newline'; printf 'err' >&2; printf '\\xff\\x00\\n' ").await;
    assert_eq!((ran.stdout, ran.stderr), (b"no newline\xff\0\n".to_vec(), b"err".to_vec()));
    let ran = rig.run("head -c 5000000 /dev/urandom | tee random; head -c 3000000 /dev/zero >&2").await;
    assert_eq!(ran.stdout, std::fs::read(rig.path("random")).expect("the script made it"));
    assert_eq!(ran.stderr.len(), 3_000_000);
}

#[tokio::test]
async fn s02_a_line_of_one_gigabyte_passes() {
    let mut rig = Rig::new();
    let ran = rig.call(call("head -c 1000000000 /dev/zero | tr '\\0' x").counted()).await;
    assert_eq!((ran.code(), ran.counted), (0, 1_000_000_000));
}

#[tokio::test]
async fn s03_a_shell_that_was_killed_while_idle_is_replaced_before_the_next_command() {
    let mut rig = Rig::new();
    rig.run("x=1; echo $$ > pid").await;
    rig.session.settle().await.expect("the shell says what became of its state");
    crate::rig::kill(rig.pid("pid"));
    while crate::rig::runs(rig.pid("pid")) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ran = rig.run("echo $x").await;
    assert_eq!((ran.code(), ran.out()), (0, "1\n".into()));
}

#[tokio::test]
async fn s04_whoever_reads_the_shells_private_socket_only_loses_time() {
    let mut rig = Rig::new();
    rig.run("x=1").await;
    let ran = rig.call(call("cat <&1000").timeout(Duration::from_millis(200))).await;
    assert!(matches!(ran.outcome.ended, sandcrab_agent::shell::Ended::Stopped(_)), "{ran:?}");
    rig.run("cat <&1000 >/dev/null & echo $! > thief").await;
    // One of the two reads the request. If it is the thief, the shell is replaced and the command runs all the same.
    let ran = rig.run("echo $x").await;
    assert_eq!(ran.out(), "1\n", "{ran:?}");
    crate::rig::kill(rig.pid("thief"));
}

#[tokio::test]
async fn s04_a28_a_flood_on_the_shells_private_socket_delays_nobody() {
    let (mut rig, mut other) = (Rig::new(), Rig::new());
    rig.run("x=1").await;
    other.run("y=2").await;
    let flood = "for i in 1 2 3 4; do yes >&1000 & done; touch flooding; wait";
    let flooded = tokio::time::Instant::now();
    let long = async {
        let ran = rig.call(call(flood).timeout(Duration::from_secs(1))).await;
        (ran.outcome.ended, flooded.elapsed())
    };
    let short = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = tokio::time::Instant::now();
        assert_eq!(other.run("echo $y").await.out(), "2\n");
        begun.elapsed()
    };
    let ((ended, within), answered) = tokio::join!(long, short);
    assert!(rig.exists("flooding"));
    assert!(matches!(ended, sandcrab_agent::shell::Ended::Stopped(_)), "{ended:?}");
    assert!(within < Duration::from_secs(5), "a timeout of 1 s took {within:?}");
    assert!(answered < Duration::from_secs(2), "a command beside the flood took {answered:?}");
    // A flood from the background neither hides an answer nor the end of the shell.
    rig.run("yes >&1000 & echo $! > flooder").await;
    assert_eq!(rig.run("echo $x").await.out(), "1\n");
    assert_eq!(rig.run("x=3; exit 5").await.code(), 5);
    assert_eq!(rig.run("echo $x").await.out(), "3\n");
    crate::rig::kill(rig.pid("flooder"));
}

#[tokio::test]
async fn s04_a28_a_datagram_of_no_bytes_is_not_the_end_of_the_shell() {
    let mut rig = Rig::new();
    let ran = rig.run("x=1; python3 -c 'import os; os.write(1, b\"\")' >&1000; (exit 3)").await;
    assert_eq!((ran.code(), ran.outcome.shell_restarted), (3, false), "{ran:?}");
    let ran = rig.run("python3 -c 'import os; os.write(1, b\"\")' >&1000; x=2; exit 4").await;
    assert_eq!(ran.code(), 4, "{ran:?}");
    assert_eq!(rig.run("echo $x").await.out(), "2\n");
}

#[tokio::test]
async fn s05_a_limit_on_files_keeps_a_large_state_from_being_saved_and_nothing_else() {
    let mut rig = Rig::new();
    rig.run("x=saved").await;
    rig.run("ulimit -f 0; big=$(head -c 100000 /dev/zero | tr '\\0' x)").await;
    let settled = tokio::time::timeout(Duration::from_secs(20), rig.session.settle()).await;
    settled.expect("the shell says that there is no state").expect("and lives");
    let ran = rig.run("echo $x ${#big}").await;
    assert_eq!(ran.out(), "saved 100000\n");
    assert_eq!(ran.outcome.dropped.iter().map(|part| part.kind).collect::<Vec<_>>(), ["state"], "it is said");
    rig.run("kill -9 $$").await;
    assert_eq!(rig.run("echo $x ${#big}; ulimit -f").await.out(), "saved 0\nunlimited\n");
}

/// A shell that people work in ignores `set -n`. Here it lasts for the rest of its command, in this shell and in the next.
#[tokio::test]
async fn s03_no_command_is_skipped_with_success() {
    let mut rig = Rig::new();
    for off in ["set -n", "set -o noexec", "set -n; exit 4"] {
        rig.run(off).await;
        let ran = rig.run("echo ran; exit_() { return 5; }; exit_").await;
        assert_eq!((ran.out().as_str(), ran.code()), ("ran\n", 5), "{off}");
        assert_eq!(
            rig.run("case $- in *n*) echo on;; esac; shopt -qo noexec; echo $?").await.out(),
            "1\n",
            "{off}"
        );
    }
    rig.run("set -n; kill -9 $$").await;
    assert_eq!(rig.run("kill -9 $$").await.code(), 137);
    assert_eq!(rig.run("echo ran").await.out(), "ran\n");
}

/// As a person would want it at a prompt: the next command is there. Once, and with a word about it.
#[tokio::test]
async fn s05_set_e_ends_one_shell_and_not_each_next_one() {
    let mut rig = Rig::new();
    rig.run("kept=1; set -e").await;
    assert_eq!(rig.run("false; echo never").await.out(), "", "it is in force from one command to the next");
    let next = rig.run("false; echo $kept $-").await;
    assert!(next.out().starts_with("1 ") && !next.out().contains('e'), "{next:?}");
    let dropped: Vec<_> = next.outcome.dropped.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(dropped, ["set -e"], "{next:?}");
    assert!(!rig.run("false").await.outcome.shell_restarted);
}

#[tokio::test]
async fn s05_what_no_state_carries_is_named() {
    let mut rig = Rig::new();
    rig.run("ulimit -Sn 100; complete -W 'a b' cmd").await;
    rig.run("kill -9 $$").await;
    let next = rig.run("ulimit -Sn; complete -p").await;
    assert_ne!(next.out().lines().next(), Some("100"));
    let mut dropped: Vec<_> = next.outcome.dropped.iter().map(|part| part.name.as_str()).collect();
    dropped.sort_unstable();
    assert_eq!(dropped, ["complete", "ulimit"], "{next:?}");
    rig.run("exit 1").await;
    assert!(rig.run("true").await.outcome.dropped.is_empty(), "told once");
}
