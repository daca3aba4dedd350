//! S06, S07: a command ends whole, and what was left in the background lives on.

use crate::rig::{Mode, Rig, call, kill, runs};
use sandcrab_agent::shell::{Ended, StopReason};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(300);

/// Each test once with cgroups and once without.
macro_rules! in_both_modes {
    ($($name:ident),+ $(,)?) => {
        mod with_cgroups { $(#[tokio::test] async fn $name() { super::$name(super::Mode::Cgroup).await; })+ }
        mod without_cgroups { $(#[tokio::test] async fn $name() { super::$name(super::Mode::Tree).await; })+ }
    };
}

in_both_modes!(
    s06_nothing_of_a_command_runs_after_its_deadline,
    s06_timeout_ends_loops_and_ignored_signals,
    s06_programs_get_term_and_the_grace,
    s06_what_was_daemonised_during_the_command_dies_with_it,
    s06_survivors_of_earlier_commands_live,
    s06_an_executed_program_is_stopped_like_any_other,
    s06_a_stopped_shell_is_stopped,
    s07_a_background_job_does_not_hold_the_command,
    s07_late_output_never_reaches_another_command,
);

async fn s06_nothing_of_a_command_runs_after_its_deadline(mode: Mode) {
    let mut rig = Rig::in_mode(mode);
    rig.run("kept=yes").await;
    let evil = rig.path("evil");
    for script in [
        "sleep 100; touch EVIL",
        "while :; do sleep 100; touch EVIL; done",
        "sleep 100 | (sleep 100; touch EVIL)",
        "x=$(sleep 100; touch EVIL); touch EVIL",
        "(sleep 100; touch EVIL); touch EVIL",
        "trap '' INT TERM; sleep 100; touch EVIL",
        "trap 'touch EVIL' TERM EXIT; sleep 100; touch EVIL",
        "(trap 'touch EVIL' TERM; sleep 100; touch EVIL)",
        "(trap '' TERM; sleep 100; touch EVIL) & wait; touch EVIL",
        "f() { sleep 100; touch EVIL; }; f",
        "if sleep 100; then touch EVIL; else touch EVIL; fi",
        "sleep 100 || touch EVIL",
        "cat <(sleep 100; touch EVIL)",
        "coproc { sleep 100; touch EVIL; }; wait; touch EVIL",
    ] {
        let started = Instant::now();
        let ran = rig.call(call(script.replace("EVIL", &evil)).timeout(SHORT)).await;
        assert_eq!(ran.outcome.ended, Ended::Stopped(StopReason::Timeout), "{script}");
        assert!(ran.outcome.shell_restarted, "{script}");
        assert!(started.elapsed() < Duration::from_secs(20), "{script}: {:?}", started.elapsed());
        assert!(!rig.exists("evil"), "{script}: went on after its deadline");
    }
    // Whatever was going to happen late has had its time while the commands after it ran.
    assert_eq!(rig.run("echo $kept").await.out(), "yes\n");
    assert!(!rig.exists("evil"));
}

async fn s06_timeout_ends_loops_and_ignored_signals(mode: Mode) {
    let mut rig = Rig::in_mode(mode);
    rig.run("n=1").await;
    for script in
        ["while :; do :; done", "trap '' TERM INT HUP; while :; do n=$((n+1)); done", "read x < <(sleep 100)"]
    {
        let ran = rig.call(call(script).timeout(SHORT)).await;
        assert_eq!(ran.outcome.ended, Ended::Stopped(StopReason::Timeout), "{script}");
        assert_eq!(rig.run("echo $n").await.out(), "1\n", "{script}");
    }
}

async fn s06_programs_get_term_and_the_grace(mode: Mode) {
    let mut rig = Rig::in_mode(mode);
    let polite = "perl -e '$SIG{TERM} = sub { open F, \">\", \"asked\"; close F; exit 0 }; open F, \">\", \"up\"; close F; sleep 100'";
    let started = Instant::now();
    let ran = rig.call(call(polite).timeout(Duration::from_millis(500))).await;
    assert!(rig.exists("up") && rig.exists("asked"), "{ran:?}");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "a grace ends with the last program: {:?}",
        started.elapsed()
    );
    let started = Instant::now();
    rig.call(call("perl -e '$SIG{TERM} = \"IGNORE\"; sleep 100'").timeout(SHORT)).await;
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(2) && took < Duration::from_secs(10),
        "TERM, then KILL after 2 s: {took:?}"
    );
}

async fn s06_what_was_daemonised_during_the_command_dies_with_it(mode: Mode) {
    let mut rig = Rig::in_mode(mode);
    let script = "setsid sh -c 'sleep 1000 & echo $! > daemon; disown' & wait; (setsid sleep 1001 & echo $! > second); sleep 100";
    rig.call(call(script).timeout(Duration::from_millis(700))).await;
    assert!(!runs(rig.pid("daemon")), "the daemon lives");
    assert!(!runs(rig.pid("second")), "the second daemon lives");
}

async fn s06_survivors_of_earlier_commands_live(mode: Mode) {
    let mut rig = Rig::in_mode(mode);
    rig.run("sleep 1000 & echo $! > job").await;
    rig.run("(setsid sleep 1001 & echo $! > daemon)").await;
    rig.run("true").await;
    rig.call(call("sleep 1002 & echo $! > late; sleep 100").timeout(SHORT)).await;
    assert!(!runs(rig.pid("late")));
    let (job, daemon) = (rig.pid("job"), rig.pid("daemon"));
    assert!(runs(job) && runs(daemon), "job {} daemon {}", runs(job), runs(daemon));
    kill(job);
    kill(daemon);
}

async fn s06_an_executed_program_is_stopped_like_any_other(mode: Mode) {
    let mut rig = Rig::in_mode(mode);
    rig.run("a=1").await;
    let ran = rig.call(call("echo $$ > pid; exec sleep 100").timeout(SHORT)).await;
    assert_eq!(ran.outcome.ended, Ended::Stopped(StopReason::Timeout));
    assert!(!runs(rig.pid("pid")));
    assert_eq!(rig.run("echo $a").await.out(), "1\n");
}

async fn s06_a_stopped_shell_is_stopped(mode: Mode) {
    let mut rig = Rig::in_mode(mode);
    let ran = rig.call(call("kill -STOP $$; touch evil").timeout(SHORT)).await;
    assert_eq!(ran.outcome.ended, Ended::Stopped(StopReason::Timeout));
    assert!(!rig.exists("evil"));
}

async fn s07_a_background_job_does_not_hold_the_command(mode: Mode) {
    let mut rig = Rig::in_mode(mode);
    let started = Instant::now();
    let ran = rig.run("sleep 1000 & echo $! > job; echo done").await;
    assert_eq!(ran.out(), "done\n");
    assert!(started.elapsed() < Duration::from_secs(5));
    let job = rig.pid("job");
    for _ in 0..3 {
        assert_eq!(rig.run("kill -0 $! && echo alive").await.out(), "alive\n");
    }
    kill(job);
}

async fn s07_late_output_never_reaches_another_command(mode: Mode) {
    let mut rig = Rig::in_mode(mode);
    let fifo = rig.path("go");
    let ran = rig
        .run(format!(
            "mkfifo {fifo}; (read x < {fifo}; echo late; echo late >&2; echo wrote > wrote) & echo first"
        ))
        .await;
    assert_eq!(ran.out(), "first\n");
    // The job has written by the time this ends, while this command's own pipes are open.
    let ran = rig.run(format!("echo go > {fifo}; until test -e wrote; do :; done; echo second")).await;
    assert_eq!((ran.out(), ran.err()), ("second\n".into(), String::new()));
}

/// A shell that waits for its next command ends at once of a signal that ends it, whenever that comes: no command dies of it
/// that came later, and the state of one that was answered is there.
#[tokio::test]
async fn s05_a_signal_to_a_shell_that_waits_ends_it_then_and_no_command() {
    let mut rig = Rig::new();
    let mut kept = String::new();
    for round in 0..100 {
        // Somewhere around the answer and the wait that follows it.
        let command = format!(
            "kept={round}; echo $$; (for ((i = 0; i < {}; i++)); do :; done; kill -TERM $$) &",
            round * 20
        );
        let ran = rig.run(command).await;
        if ran.code() == 0 {
            kept = round.to_string();
        }
        let pid: i32 = ran.out().trim().parse().expect("a pid");
        let until = Instant::now() + Duration::from_secs(20);
        while runs(pid) {
            assert!(Instant::now() < until, "round {round}: it waits on");
            tokio::task::yield_now().await;
        }
        let next = rig.run("echo $kept").await;
        assert_eq!((next.out(), next.code()), (format!("{kept}\n"), 0), "round {round}: {ran:?}");
    }
}
