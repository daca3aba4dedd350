//! Sandboxes that use up what they can get (attacks E01-E08): each is bounded, and neighbours and the server go on.

use crate::rig::{Rig, Sandbox, Server, alone, block_on, client, sandbox};
use sandcrab_client::api::limits::{MAX_PROCESSES, MAX_SESSIONS};
use sandcrab_client::api::sandbox::Limits;
use sandcrab_client::api::session::CreateSession;
use sandcrab_client::api::units::ByteSize;
use sandcrab_client::api::{ApiError, ErrorCode};
use sandcrab_client::{ClientError, ExecEvent, SandboxOptions};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// How far server and agent may grow while they pass on what a sandbox says.
const GROWTH: u64 = 32 * MIB;

fn with_limits(rig: &Rig, sandbox: &Sandbox, limits: Limits) -> sandcrab_client::Sandbox {
    let options = SandboxOptions { limits: Some(limits), ..SandboxOptions::default() };
    client(&rig.server.url).sandbox(&sandbox.id, options).unwrap()
}

fn of(rig: &Rig, sandbox: &Sandbox) -> sandcrab_client::Sandbox {
    client(&rig.server.url).sandbox(&sandbox.id, SandboxOptions::default()).unwrap()
}

/// What the API refused a call with.
#[track_caller]
fn refusal<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> ApiError {
    match outcome {
        Err(ClientError::Api(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The most memory that a process had resident since this was last reset, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn reset_peak(pid: u32) -> u64 {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    peak(pid)
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Commands of a neighbour while something goes on elsewhere: each must succeed, and soon.
async fn neighbour(sandbox: &sandcrab_client::Sandbox, meanwhile: impl Future) {
    let mut meanwhile = std::pin::pin!(meanwhile);
    let ask = async {
        loop {
            let begun = Instant::now();
            assert!(sandbox.exec("/bin/true").await.unwrap().success());
            let took = begun.elapsed();
            // A hundred times what it takes on a busy machine; one that was shut out would wait for the bomb's end.
            assert!(took < Duration::from_secs(2), "a neighbour's command took {took:?}");
        }
    };
    tokio::select! {
        _ = &mut meanwhile => {}
        () = ask => {}
    }
}

#[test]
fn e01_bombs_of_processes_and_threads_stop_at_the_limit_and_neighbours_go_on() {
    let rig = Rig::new();
    let (bomber, other) = (rig.sandbox(), rig.sandbox());
    let limits = Limits { pids: Some(100), cpu: Some(1.0), ..Limits::default() };
    let (bombed, other) = (with_limits(&rig, &bomber, limits), of(&rig, &other));
    block_on(async {
        assert!(other.exec("true").await.unwrap().success());
        assert!(bombed.exec("kept=1").await.unwrap().success());
        let bomb = bombed.session("bomb").unwrap();
        neighbour(&other, async {
            let fork =
                bomb.exec("bomb() { bomb | bomb & }; bomb; sleep 1000").timeout(Duration::from_secs(3));
            assert_eq!(refusal(fork.await).code, ErrorCode::CommandTimeout);
        })
        .await;
        // Nothing of it is left, and what was there before is as it was.
        let left = bombed.exec("echo $kept; ls -d /proc/[0-9]* | wc -l").await.unwrap();
        let text = left.stdout_text().into_owned();
        let (kept, count) = text.trim().split_once('\n').unwrap();
        assert_eq!(kept, "1");
        assert!(count.parse::<u32>().unwrap() < 20, "{text}");

        let threads = "exec python3 -c '
import threading
wait = threading.Event()
count = 0
try:
    while count < 1000:
        threading.Thread(target=wait.wait, daemon=True).start()
        count += 1
except RuntimeError as error:
    print(count, error)
'";
        let stopped = bombed.exec(threads).await.unwrap();
        let text = stopped.stdout_text().into_owned();
        let count: u32 = text.split(' ').next().unwrap().parse().unwrap_or(0);
        assert!((10..100).contains(&count) && text.contains("can't start new thread"), "{stopped:?}");
        // Where the limit is not in the way as many threads start: the bomb is no dud.
        let free = other.exec(threads.replace("while count < 1000", "while count < 200")).await.unwrap();
        assert_eq!((free.exit_code(), free.stdout_text().into_owned()), (0, String::new()));
    });
}

#[test]
fn e02_hogs_of_memory_are_killed_inside_and_told_with_limit_and_peak() {
    let rig = Rig::new();
    let (hog, other) = (rig.sandbox(), rig.sandbox());
    let limit = 160 * MIB;
    let limits = Limits { memory: Some(ByteSize(limit)), ..Limits::default() };
    let (hog, other) = (with_limits(&rig, &hog, limits), of(&rig, &other));
    block_on(async {
        assert!(other.exec("true").await.unwrap().success());
        assert!(hog.exec("kept=1; python3 -c 'bytearray(20 << 20)'").await.unwrap().success());
        neighbour(&other, async {
            let killed = hog.exec("python3 -c 'bytearray(600 << 20)'").await.unwrap();
            let oom = killed.outcome.oom.expect("it says that memory was the reason");
            assert_eq!((killed.exit_code(), oom.limit), (137, limit));
            assert!((limit / 2..=limit + 4 * MIB).contains(&oom.peak), "{oom:?}");
        })
        .await;
        // A kill that nobody was told of is not laid at the door of a later command.
        hog.exec("python3 -c 'bytearray(600 << 20)'; true").await.unwrap();
        let innocent = hog.exec("kill -9 $$").await.unwrap();
        assert_eq!((innocent.exit_code(), innocent.outcome.oom), (137, None));
        assert!(hog.exec("kept=1").await.unwrap().success());
        // Memory that is a file system's counts too, whoever holds it.
        let filled =
            hog.exec("head -c 600M /dev/zero > /dev/shm/x; echo $?; rm -f /dev/shm/x").await.unwrap();
        assert!(filled.stdout_text().trim() != "0", "{filled:?}");
        // What the kernel only keeps because there is room is given back, and kills nobody.
        let cached = "for n in 1 2 3; do head -c 100M /dev/zero > f$n; done; cat f1 f2 f3 | wc -c; rm f?";
        let cached = hog.exec(cached).await.unwrap();
        assert_eq!(cached.stdout_text().trim(), (300 * MIB).to_string(), "{cached:?}");
        let kept = hog.exec("echo $kept; python3 -c 'print(len(bytearray(20 << 20)))'").await.unwrap();
        assert_eq!(kept.stdout_text(), "1\n20971520\n", "{kept:?}");
        let events = hog.events().await.unwrap();
        assert!(events.iter().any(|event| event.kind == "oom"), "{events:?}");
    });
}

#[test]
fn e03_a_full_disk_is_the_sandboxs_own() {
    let rig = Rig::new();
    let (full, other) = (rig.sandbox(), rig.sandbox());
    let limits = Limits { disk: Some(ByteSize(96 * MIB)), ..Limits::default() };
    let (full, other) = (with_limits(&rig, &full, limits), of(&rig, &other));
    let used = || {
        let du =
            crate::rig::tool("du").args(["-sxB1"]).arg(crate::rig::data_dir().join("instances")).output();
        String::from_utf8(du.unwrap().stdout).unwrap().split('\t').next().unwrap().parse::<u64>().unwrap()
    };
    block_on(async {
        assert!(full.exec("true").await.unwrap().success());
        assert!(other.exec("true").await.unwrap().success());
        let before = used();
        let bytes = full.exec("head -c 300M /dev/zero > big; ls -s big >/dev/null").await.unwrap();
        assert!(bytes.stderr_text().contains("No space left on device"), "{bytes:?}");
        // Other tests' sandboxes write beside it, a little.
        assert!(used().saturating_sub(before) < 200 * MIB, "it took {} bytes of the host", used() - before);
        let error = refusal(full.files().write("/workspace/more", vec![7; 8 << 20]).await);
        assert_eq!((error.code, error.http_status), (ErrorCode::NoSpace, 507));
        // Nothing half done, and the sandbox can still be used and tidied up.
        let kept = full.exec("ls -A; rm big; echo fits > small; cat small").await.unwrap();
        assert_eq!(kept.stdout_text(), "big\nfits\n", "{kept:?}");
        full.files().write("/workspace/more", vec![7; 8 << 20]).await.unwrap();

        let inodes = "mkdir many; cd many; python3 -c '
import errno
n = 0
try:
    while n < 10_000_000:
        open(str(n), \"w\").close()
        n += 1
except OSError as error:
    print(errno.errorcode[error.errno])
'; cd ..; rm -r many; : > one && echo again";
        let inodes = full.exec(inodes).await.unwrap();
        assert_eq!(inodes.stdout_text(), "ENOSPC\nagain\n", "{inodes:?}");

        let deep = full
            .exec(
                "python3 -c '
import os
for n in range(3000):
    os.mkdir(\"d\" * 200)
    os.chdir(\"d\" * 200)
'; ls",
            )
            .await
            .unwrap();
        assert!(deep.success(), "{deep:?}");
        // Deeper than any path can name: an answer or an error of the table, and an agent that lives.
        let options = sandcrab_client::ListOptions { recursive: true, ..Default::default() };
        match full.files().list("/workspace", options).await {
            Ok(entries) => assert!(entries.len() > 10),
            Err(error) => {
                assert!(error.code().is_some_and(|code| code != ErrorCode::InternalError), "{error:?}")
            }
        }
        assert!(full.exec("true").await.unwrap().success());
        assert!(other.exec("echo x > /workspace/x").await.unwrap().success());
    });
}

#[test]
fn e06_endless_output_is_bounded_and_a_reader_who_stops_holds_nothing_up() {
    let _alone = alone();
    let server = Server::start("127.0.0.1:0");
    let talker = sandbox(&server);
    let before = children(server.pid());
    block_on(async {
        let talker = client(&server.url).sandbox(&talker.id, SandboxOptions::default()).unwrap();
        assert!(talker.exec("true").await.unwrap().success());
        let agent = children(server.pid()).into_iter().find(|pid| !before.contains(pid)).unwrap();
        let start = [server.pid(), agent].map(|pid| (pid, reset_peak(pid)));
        // A line without an end, two gigabytes of it.
        let all = 2_000_000_000;
        let flood =
            talker.exec(format!("head -c {all} /dev/zero | tr '\\0' x")).max_output(MIB).await.unwrap();
        let dropped = flood.outcome.truncated.as_ref().and_then(|truncated| truncated.stdout).unwrap();
        assert_eq!(flood.stdout.len() as u64 + dropped, all);
        assert!(flood.stdout.len() as u64 <= MIB && flood.stdout.iter().all(|byte| *byte == b'x'));

        // Its reader stops after the first bytes. It is not waited for for ever: the command ends.
        let all = 1_000_000_000;
        let endless = format!("head -c {all} /dev/zero | tr '\\0' x; echo > /tmp/done");
        let mut stream = talker.exec(endless).stream().await.unwrap();
        let (mut seen, mut lost) = (0, 0);
        while seen == 0 {
            if let ExecEvent::Stdout(bytes) = stream.next().await.unwrap().unwrap() {
                seen += bytes.len() as u64;
            }
        }
        let waits = "until test -e /tmp/done; do sleep 0.05; done";
        let done = talker.session("waits").unwrap().exec(waits).timeout(Duration::from_secs(100)).await;
        assert!(done.unwrap().success());
        while let Some(event) = stream.next().await {
            match event.unwrap() {
                ExecEvent::Stdout(bytes) => seen += bytes.len() as u64,
                ExecEvent::Dropped { bytes, .. } => lost += bytes,
                ExecEvent::Complete(outcome) => assert_eq!(outcome.exit_code, 0),
                _ => {}
            }
        }
        assert_eq!(seen + lost, all, "what is not there is counted");
        for (pid, before) in start {
            let grown = peak(pid).saturating_sub(before);
            assert!(grown < GROWTH, "process {pid} grew by {grown} bytes");
        }
    });
}

#[test]
fn e07_thousands_of_sessions_processes_and_connections_meet_a_limit() {
    let _alone = alone();
    let server = Server::start("127.0.0.1:0");
    let (many, other) = (sandbox(&server), sandbox(&server));
    block_on(async {
        let client = client(&server.url);
        let of = |sandbox: &Sandbox| client.sandbox(&sandbox.id, SandboxOptions::default()).unwrap();
        let (many, other) = (of(&many), of(&other));
        assert!(other.exec("true").await.unwrap().success());
        assert!(many.exec("true").await.unwrap().success());
        let mut made = 1;
        let error = loop {
            match many.create_session(&CreateSession::default()).await {
                Ok(_) => made += 1,
                Err(error) => break refusal::<()>(Err(error)),
            }
            assert!(made <= MAX_SESSIONS, "no limit on sessions");
        };
        assert_eq!((error.code, error.http_status, made), (ErrorCode::QuotaExceeded, 429, MAX_SESSIONS));
        // What was there goes on.
        assert!(many.exec("true").await.unwrap().success());

        let mut started = 0;
        let error = loop {
            match many.start("exec sleep 100000").await {
                Ok(_) => started += 1,
                Err(error) => break refusal::<()>(Err(error)),
            }
            assert!(started <= MAX_PROCESSES, "no limit on processes");
        };
        assert_eq!((error.code, error.http_status), (ErrorCode::QuotaExceeded, 429));
        assert!(error.context.contains_key("limit"), "{error:?}");
        assert!(other.exec("true").await.unwrap().success());
        assert_eq!(many.kill_all_processes().await.unwrap(), started as u64);

        // Callers who connect and say nothing keep nobody out.
        let address = server.url.trim_start_matches("http://");
        let mut silent = Vec::new();
        for _ in 0..2000 {
            silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        assert!(other.exec("true").await.unwrap().success());
    });
}

#[test]
fn e08_what_dodges_every_signal_is_gone_when_a_destroy_answers() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    // A name by which the host finds them.
    let mark = format!("9{}.{}", std::process::id(), &sandbox.id.len());
    let dodge = format!(
        "cp /bin/sleep /tmp/dodger
        for n in 1 2 3 4 5; do
            (trap '' HUP INT TERM QUIT USR1 PIPE; setsid bash -c 'trap \"\" HUP INT TERM; (setsid /tmp/dodger {mark} &) & ' ) &
        done
        python3 -c '
import os, signal, sys
for n in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0: os._exit(0)
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP): signal.signal(number, signal.SIG_IGN)
        os.execv(\"/tmp/dodger\", [\"dodger\", \"{mark}\"])
'
        until test $(pgrep -cf 'dodger {mark}') = 10; do sleep 0.05; done"
    );
    let on_host = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.ends_with(format!("dodger\0{mark}\0").as_bytes())).count()
    };
    rig.cli(&["exec", "--timeout", "60s", &sandbox.id, &dodge]).ok();
    assert_eq!(on_host(), 10);
    let begun = Instant::now();
    rig.cli(&["rm", &sandbox.id]).ok();
    assert_eq!(on_host(), 0);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// A sandbox that has all the processes that it may: files are read and written, and who starts one more hears which limit
/// that is.
#[test]
fn e01_a_full_table_of_processes_is_named_and_files_go_on() {
    let rig = Rig::new();
    let sandbox = rig.sandbox();
    let limits = Limits { pids: Some(48), ..Limits::default() };
    block_on(with_limits(&rig, &sandbox, limits).create()).unwrap();
    let hog = "import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n    try:\n        if os.fork() == 0: signal.pause()\n    except OSError: print('full', flush=True); signal.pause()";
    rig.cli_with(&["cp", "-", &format!("{}:/tmp/hog.py", sandbox.id)], hog.as_bytes()).ok();
    rig.cli(&["start", "--id", "hog", &sandbox.id, "exec python3 /tmp/hog.py"]).ok();
    let mut logs = crate::rig::Running::start(&mut rig.command(&["logs", "-f", &sandbox.id, "hog"]));
    logs.wait_for("full");
    // The one shell that waits for a session is up already.
    rig.cli(&["exec", "-s", "first", &sandbox.id, "true"]);
    for n in 0..4 {
        assert!(rig.cli(&["ls", &format!("{}:/", sandbox.id)]).ok().contains("tmp"));
        rig.cli_with(&["cp", "-", &format!("{}:/tmp/file", sandbox.id)], b"kept").ok();
        assert_eq!(rig.cli(&["cp", &format!("{}:/tmp/file", sandbox.id), "-"]).ok(), "kept");
        let refused = rig.cli(&["exec", "-s", &format!("further{n}"), &sandbox.id, "true"]);
        refused.failed("limits.pids");
        let refused = rig.cli(&["start", &sandbox.id, "true"]);
        refused.failed("limits.pids");
    }
    rig.cli(&["kill", &sandbox.id, "hog"]).ok();
    assert_eq!(rig.cli(&["exec", &sandbox.id, "echo on"]).ok(), "on\n");
}
