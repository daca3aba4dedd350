//! What a process that the agent starts is and has.

use crate::rig::{pipe, runs};
use rustix::fd::{AsFd, OwnedFd};
use sandcrab_agent::spawn::{Exit, Identity, SpawnSpec, Spawner};
use std::ffi::CString;
use std::io::Read as _;
use std::time::{Duration, Instant};

/// Runs a script under an identity; its exit and what it printed.
async fn script(identity: Identity, text: &str) -> (Exit, String) {
    let (read, write) = pipe();
    let null: OwnedFd = std::fs::File::open("/dev/null").expect("/dev/null opens").into();
    let args = ["sh", "-c", text].map(|arg| CString::new(arg).expect("no NUL"));
    let spawner = Spawner::new(identity);
    let child = spawner
        .spawn(&SpawnSpec {
            program: c"/bin/sh",
            args: &args,
            env: &[c"PATH=/usr/bin:/bin".to_owned()],
            cwd: Some(c"/"),
            fds: &[(null.as_fd(), 0), (write.as_fd(), 1), (write.as_fd(), 2)],
            cgroup: None,
            subreaper: false,
        })
        .expect("sh starts");
    drop(write);
    let mut out = String::new();
    std::fs::File::from(read).read_to_string(&mut out).expect("text is read");
    (child.wait().await.expect("it can be waited for"), out)
}

#[tokio::test]
async fn a02_a_process_has_the_descriptors_it_was_given_and_no_other() {
    let leak = std::fs::File::open("/").expect("/ opens");
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("flags can be set");
    let (exit, out) = script(Identity::default(), "exec ls /proc/self/fd").await;
    // The fourth is the directory that ls reads.
    assert_eq!((exit, out.as_str()), (Exit::Code(0), "0\n1\n2\n3\n"));
}

#[tokio::test]
async fn s03_exits_by_code_and_by_signal() {
    assert_eq!(script(Identity::default(), "exit 7").await.0, Exit::Code(7));
    assert_eq!(script(Identity::default(), "kill -TERM $$").await.0.code(), 143);
}

#[tokio::test]
async fn a_process_starts_with_a_clean_slate_of_signals_and_leads_a_session() {
    // Rust's runtime ignores SIGPIPE, which an exec would keep.
    let (_, out) = script(Identity::default(), "while read -r k v; do case $k in SigBlk:|SigIgn:) echo \"$k $v\";; esac; done < /proc/self/status; ps -o sid= -p $$ | grep -w $$ >/dev/null && echo leads").await;
    let none = "0000000000000000";
    assert_eq!(out, format!("SigBlk: {none}\nSigIgn: {none}\nleads\n"));
}

#[tokio::test]
async fn a_process_takes_the_identity_it_is_given() {
    let identity = Identity {
        ids: Some((12345, 23456)),
        capabilities: Some(1 << 10),
        rlimits: vec![(7, 64, 128)],
        oom_score_adj: Some(b"123".to_vec()),
        ..Identity::default()
    };
    let (exit, out) = script(identity, "id -u; id -g; id -G; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; grep -E '^Cap(Eff|Bnd)' /proc/self/status").await;
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(
        out,
        "12345\n23456\n23456\n64\n128\n123\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000400\n"
    );
    let identity = Identity { ids: Some((0, 0)), capabilities: Some(1 << 10), ..Identity::default() };
    let (_, out) = script(identity, "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status").await;
    let (none, one) = ("0000000000000000", "0000000000000400");
    assert_eq!(
        out,
        format!("CapInh:\t{none}\nCapPrm:\t{one}\nCapEff:\t{one}\nCapBnd:\t{one}\nCapAmb:\t{none}\n")
    );
}

#[tokio::test]
async fn a_process_is_under_the_filter_it_is_given() {
    // Refuses mkdir and mkdirat by EPERM: loads the number (offset 0), compares, answers.
    let instruction = |code, jt, jf, k| libc_filter(code, jt, jf, k);
    let seccomp = vec![
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 2, 0, libc::SYS_mkdirat as u32),
        instruction(0x15, 1, 0, if cfg!(target_arch = "x86_64") { 83 } else { u32::MAX }),
        instruction(0x06, 0, 0, 0x7fff_0000),
        instruction(0x06, 0, 0, 0x0005_0000 | 1),
    ];
    let directory = format!("/tmp/sandcrab-filter-{}", std::process::id());
    let (_, out) = script(
        Identity { seccomp, ..Identity::default() },
        &format!("mkdir {directory} 2>&1; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status"),
    )
    .await;
    assert!(out.contains("Operation not permitted"), "{out}");
    assert!(out.ends_with("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{out}");
    assert!(!std::path::Path::new(&directory).exists());
}

fn libc_filter(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

#[tokio::test]
async fn a_failed_start_names_its_step_and_leaves_nothing() {
    let spawner = Spawner::new(Identity::default());
    let start = |program, cwd| {
        spawner.spawn(&SpawnSpec {
            program,
            args: &[],
            env: &[],
            cwd,
            fds: &[],
            cgroup: None,
            subreaper: false,
        })
    };
    let error = start(c"/nonexistent", None).expect_err("there is no such program");
    assert!(error.is_exec() && error.errno() == Some(libc::ENOENT), "{error}");
    assert_eq!(error.to_string(), "starting /nonexistent: Exec failed");
    let error = start(c"/bin/true", Some(c"/nonexistent")).expect_err("there is no such directory");
    assert!(error.is_directory(), "{error}");
}

#[tokio::test]
async fn starting_a_process_costs_the_same_however_large_the_agent_is() {
    let once = || async {
        let started = Instant::now();
        script(Identity::default(), ":").await;
        started.elapsed()
    };
    let mut large = vec![0u8; 512 << 20];
    for page in large.chunks_mut(4096) {
        page[0] = 1;
    }
    let mut best = Duration::MAX;
    for _ in 0..30 {
        best = best.min(once().await);
    }
    // A fork of this process copies page tables for over 15 ms; a start takes one or two.
    assert!(best < Duration::from_millis(8), "{best:?}");
    assert_eq!(large[4096], 1);
}

#[tokio::test]
async fn a_signal_reaches_the_process_that_was_started_and_no_later_one() {
    let args = ["sleep", "1000"].map(|arg| CString::new(arg).expect("no NUL"));
    let spawner = Spawner::new(Identity::default());
    let spec = SpawnSpec {
        program: c"/bin/sleep",
        args: &args,
        env: &[],
        cwd: None,
        fds: &[],
        cgroup: None,
        subreaper: false,
    };
    let child = spawner.spawn(&spec).expect("sleep starts");
    assert!(child.try_wait().is_none() && runs(child.pid().as_raw_nonzero().get()));
    child.signal(rustix::process::Signal::KILL).expect("it can be killed");
    assert_eq!(child.wait().await.expect("it can be waited for"), Exit::Signal(9));
    assert_eq!(child.try_wait(), Some(Exit::Signal(9)), "a status can be had again");
    child.signal(rustix::process::Signal::KILL).expect("what has ended is no error");
}

/// Stops every child of this thread that has not come to its exec, until told to end. Returns how many.
fn stop_children(thread: i32, end: &std::sync::atomic::AtomicBool) -> usize {
    let own = std::fs::read_link("/proc/self/exe").expect("a program has a path");
    let mut stopped = std::collections::HashSet::new();
    while !end.load(std::sync::atomic::Ordering::Relaxed) {
        let children =
            std::fs::read_to_string(format!("/proc/self/task/{thread}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            if std::fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe == own)
                && let Some(pid) = rustix::process::Pid::from_raw(child)
                && rustix::process::kill_process(pid, rustix::process::Signal::STOP).is_ok()
            {
                stopped.insert(child);
            }
        }
    }
    stopped.len()
}

#[tokio::test]
async fn a28_whoever_stops_a_process_before_its_exec_stops_nothing_else() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    let unlimited = u64::MAX;
    let limit = (libc::RLIMIT_CORE, limit.current.unwrap_or(unlimited), limit.maximum.unwrap_or(unlimited));
    // Many steps before the exec, for whoever wants to come between.
    let spawner = Spawner::new(Identity { rlimits: vec![limit; 100_000], ..Identity::default() });
    let spec = SpawnSpec {
        program: c"/bin/true",
        args: &[c"true".to_owned()],
        env: &[],
        cwd: None,
        fds: &[],
        cgroup: None,
        subreaper: false,
    };
    let end = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    let attacker = std::thread::spawn({
        let end = std::sync::Arc::clone(&end);
        move || stop_children(thread, &end)
    });
    let mut ends = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        let child = spawner.spawn(&spec).expect("the clone succeeds");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        ends.push(child.wait().await.expect("it can be waited for"));
    }
    end.store(true, std::sync::atomic::Ordering::Relaxed);
    let stopped = attacker.join().expect("the attacker ends");
    assert_eq!((stopped, ends), (3, vec![Exit::Signal(9); 3]));
    let child = spawner.spawn(&spec).expect("true starts");
    assert_eq!(child.wait().await.expect("it can be waited for"), Exit::Code(0));
}
