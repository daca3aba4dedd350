//! What the kernel counts per user id, and what it shares out by other counts: each sandbox has a part of its own, and
//! taking all of it harms neither neighbours nor the host (attacks E11, E12).
#![expect(clippy::tests_outside_test_module, reason = "a test program is all tests")]

#[expect(dead_code, reason = "shared with test programs that use the rest of it")]
mod common;

use common::{Home, ROOT, USER, on_host, spec};
use sandcrab_api::sandbox::Limits;
use sandcrab_api::units::ByteSize;
use sandcrab_runtime::{Driver, InstanceId, SandboxSpec};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A program that takes all that it can get, says how much that was, and keeps it.
const TAKE_ALL: &str = r#"cat > /tmp/take-$UID.py <<'PROGRAM'
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def until_refused(take, most=200000):
    for count in range(most):
        if take(count) < 0:
            return count, ctypes.get_errno()
    return most, 0
timer = ctypes.c_int()
uid = os.getuid()
small = (ctypes.c_long * 8)(0, 1, 8192)
took = {
    'inotify': until_refused(lambda _: libc.inotify_init1(0)),
    'timers': until_refused(lambda _: libc.syscall(222, 1, None, ctypes.byref(timer))),
    'queues': until_refused(lambda n: libc.syscall(240, b'q%d-%d' % (uid, n), 0o102, 0o600, small)),
}
with open('/tmp/new-%d' % uid, 'w') as file:
    for what, (count, errno) in took.items():
        print(what, count, errno, file=file)
os.rename('/tmp/new-%d' % uid, '/tmp/took-%d' % uid)
signal.pause()
PROGRAM
setsid python3 /tmp/take-$UID.py </dev/null >/tmp/said-$UID 2>&1 & child=$!
until test -e /tmp/took-$UID || ! kill -0 $child; do sleep 0.05; done
cat /tmp/took-$UID /tmp/said-$UID"#;

/// How much of each thing a user of a sandbox got, and the error that ended it.
async fn take_all(home: &Home, id: &InstanceId, uid: u32) -> BTreeMap<String, (u64, i32)> {
    let ran = home.run(id, uid, TAKE_ALL).await;
    let parse = |line: &str| {
        let mut fields = line.split(' ');
        let name = fields.next()?.to_owned();
        Some((name, (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)))
    };
    let took: Option<BTreeMap<_, _>> = ran.stdout.lines().map(parse).collect();
    took.unwrap_or_else(|| panic!("{}{}", ran.stdout, ran.stderr))
}

/// A program of the host's that needs one of each.
const ONE_OF_EACH: &str = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
timer = ctypes.c_int()
print(libc.inotify_init1(0) >= 0, libc.syscall(222, 1, None, ctypes.byref(timer)) >= 0,
      libc.syscall(240, b'sandcrab-limits', 0o102, 0o600, None) >= 0, libc.syscall(241, b'sandcrab-limits') >= 0)";

fn host_has_one_of_each() {
    assert_eq!(
        on_host(&format!("python3 -c '{}'", ONE_OF_EACH.replace('\'', "\""))),
        "True True True True\n"
    );
}

async fn destroyed_soon(home: &Home, id: &InstanceId) {
    let begun = Instant::now();
    home.destroy(id).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn e11_what_is_counted_per_user_is_charged_to_the_sandbox_alone() {
    let home = Home::new();
    let (greedy, neighbour) = (home.create("greedy").await, home.create("neighbour").await);
    let took = take_all(&home, &greedy, ROOT).await;
    let wall =
        [("inotify", 128, libc::EMFILE), ("timers", 16_384, libc::EAGAIN), ("queues", 100, libc::EMFILE)];
    for (what, most, errno) in wall {
        let (count, refused) = took[what];
        assert!(count > 0 && count <= most && refused == errno, "{what}: {took:?}");
    }
    // Another user of the same sandbox has no more to take: all count together.
    let more = take_all(&home, &greedy, USER).await;
    for (what, ..) in wall {
        assert_eq!(more[what].0, 0, "{what}: {more:?} after {took:?}");
    }
    assert_eq!(take_all(&home, &neighbour, ROOT).await, took, "a neighbour has its own");
    host_has_one_of_each();
    let third = home.create("third").await;
    for id in [&greedy, &neighbour, &third] {
        destroyed_soon(&home, id).await;
    }
}

mod e11_sandboxes_of_one_user_leave_something_for_each_other_and_the_server {
    #[test]
    fn rootless() {
        const NAME: &str =
            "e11_sandboxes_of_one_user_leave_something_for_each_other_and_the_server::rootless";
        crate::common::as_an_ordinary_user(NAME, super::one_user);
    }
}

async fn one_user(home: Home) {
    let greedy = home.create("greedy").await;
    let took = take_all(&home, &greedy, ROOT).await;
    assert!(took.values().all(|(_, refused)| *refused != 0), "{took:?}");
    assert!(took["inotify"].0 > 4, "{took:?}");
    host_has_one_of_each();
    let neighbour = home.create("neighbour").await;
    let left = take_all(&home, &neighbour, ROOT).await;
    for (what, (count, _)) in &left {
        assert!(*count > 0 && *count * 2 > took[what].0, "{what}: {left:?} after {took:?}");
    }
    host_has_one_of_each();
    for id in [&greedy, &neighbour] {
        destroyed_soon(&home, id).await;
    }
}

/// What programs go by that size themselves: the memory's limit and the CPUs.
#[tokio::test]
async fn e02_e04_programs_see_the_limits_that_hold() {
    const MEMORY: u64 = 512 << 20;
    let home = Home::new();
    let id = InstanceId::random();
    let limits = Limits { memory: Some(ByteSize(MEMORY)), cpu: Some(1.0), ..Limits::default() };
    home.driver.create(&id, &SandboxSpec { limits, ..spec("truth") }).await.unwrap();
    let free = home.create("free").await;
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; nproc; \
                  node -p 'process.constrainedMemory(); os.availableParallelism()'; node -p 'process.constrainedMemory()'";
    for uid in [ROOT, USER] {
        let ran = home.run(&id, uid, script).await;
        assert_eq!(ran.stdout, format!("{MEMORY}\n1\n1\n{MEMORY}\n"), "{}", ran.stderr);
    }
    // Whatever it asks for, it does not run on other CPUs than its own.
    let all = "python3 -c 'import os; os.sched_setaffinity(0, range(os.cpu_count()))
print(len(os.sched_getaffinity(0)))'";
    let own = home.run(&id, ROOT, all).await;
    assert_eq!(own.stdout, "1\n", "{}", own.stderr);
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert_eq!(home.run(&free, ROOT, all).await.stdout, format!("{cpus}\n"), "the control has all of them");
    home.destroy(&id).await;
    home.destroy(&free).await;
}

/// Code that lowers its own score below others' would be spared when the whole machine's memory is short.
#[tokio::test]
async fn e02_no_process_hides_from_the_killer() {
    let home = Home::new();
    let id = InstanceId::random();
    let limits = Limits { memory: Some(ByteSize(1 << 30)), ..Limits::default() };
    home.driver.create(&id, &SandboxSpec { limits, ..spec("score") }).await.unwrap();
    let agent = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", home.pid(&id))).unwrap();
    let may_lower = rustix::thread::capabilities(None).expect("its own capabilities").effective;
    let may_lower = may_lower.contains(rustix::thread::CapabilitySet::SYS_RESOURCE);
    // Killed last, where the server may say so.
    assert_eq!(agent, if may_lower { "-63\n" } else { "0\n" });
    for uid in [ROOT, USER] {
        for (score, works) in [("500", true), ("0", true), ("-64", false), ("-900", false), ("-1000", false)]
        {
            let ran = home.run(&id, uid, &format!("echo {score} > /proc/self/oom_score_adj")).await;
            assert_eq!(ran.code == Some(0), works, "{uid} {score}: {}", ran.stderr);
        }
    }
    home.destroy(&id).await;
}
