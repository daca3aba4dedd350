//! Sandboxes that take all that they can get of what the machine has for all (E01, E04, E05, E10, E12). What they get is
//! bounded; meanwhile neighbours are served, and the ratio of their times to quiet ones is printed.

use crate::rig::{Mode, Rig, Sandbox};
use sandcrab_client::SandboxOptions;
use sandcrab_client::api::ErrorCode;
use sandcrab_client::api::sandbox::Limits;
use sandcrab_client::api::units::ByteSize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One at a time: each takes what the others would be measured by.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn limited(rig: &Rig, limits: Limits) -> Sandbox<'_> {
    rig.sandbox_with(SandboxOptions { limits: Some(limits), ..SandboxOptions::default() })
}

/// The 99th percentile of what a command takes in a sandbox; each must succeed.
fn p99(sandbox: &Sandbox<'_>) -> Duration {
    const COMMANDS: usize = 100;
    let mut took: Vec<Duration> = (0..COMMANDS)
        .map(|_| {
            let begun = Instant::now();
            sandbox.output("/bin/true");
            begun.elapsed()
        })
        .collect();
    took.sort();
    took[COMMANDS * 99 / 100]
}

/// Starts an attack that goes on by itself, and prints what a neighbour's commands take meanwhile, beside quiet ones.
#[track_caller]
fn neighbours_go_on(what: &str, rig: &Rig, attacker: &Sandbox<'_>, attack: &str) {
    let neighbour = rig.sandbox();
    let quiet = p99(&neighbour);
    attacker.python_in_background(attack);
    attacker.output("until test -e /tmp/begun; do sleep 0.02; done");
    let busy = p99(&neighbour);
    println!(
        "{what}, {:?}: a neighbour's exec p99 {busy:.1?}, quiet {quiet:.1?}: {:.1} times",
        rig.mode,
        busy.as_secs_f64() / quiet.as_secs_f64()
    );
    // The server is as willing to make sandboxes as before.
    rig.sandbox().output("true");
}

/// CPU seconds for each second that passes, of four processes that do nothing but compute.
const SPIN: &str = "
import time
begun = time.monotonic()
for _ in range(4):
    if os.fork() == 0:
        while time.monotonic() < begun + 2: pass
        os._exit(0)
for _ in range(4): os.wait()
used = os.times()
print((used.children_user + used.children_system) / (time.monotonic() - begun))
";

attack!(e04_the_cpu_limit_holds_for_all_processes_together, [root], |rig| {
    let _alone = alone();
    let half = limited(rig, Limits { cpu: Some(0.5), ..Limits::default() });
    let used: f64 = half.python(SPIN).trim().parse().unwrap();
    // The kernel counts in periods of 100 ms, of which the first and the last are not whole.
    assert!(used < 0.65, "half a CPU gave {used}");
    // What holds it is the kernel's quota, and not that others want the CPUs.
    let quota =
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null | cut -d ' ' -f 1";
    assert_eq!(half.output(quota), "50000\n");
    let free = rig.sandbox();
    free.python(SPIN);
    let throttled = "cat /sys/fs/cgroup/cpu/cpu.stat /sys/fs/cgroup/cpu.stat 2>/dev/null | grep nr_throttled";
    let unlimited = free.output(&format!("{quota}; {throttled}"));
    assert!(["-1", "max"].iter().any(|none| unlimited.starts_with(none)), "{unlimited}");
    assert!(unlimited.ends_with("nr_throttled 0\n"), "{unlimited}");
    let spin = "
open('/tmp/begun', 'w').close()
for _ in range(8):
    if os.fork() == 0:
        while True: pass
";
    neighbours_go_on("e04 spinning", rig, &half, spin);
});

/// Priorities over others, for itself.
const PRIORITIES: &str = "
class Deadline(ctypes.Structure):
    _fields_ = [('size', ctypes.c_uint32), ('policy', ctypes.c_uint32), ('flags', ctypes.c_uint64),
                ('nice', ctypes.c_int32), ('priority', ctypes.c_uint32), ('runtime', ctypes.c_uint64),
                ('deadline', ctypes.c_uint64), ('period', ctypes.c_uint64)]
deadline = Deadline(48, 6, 0, 0, 0, 10**7, 10**8, 10**8)
print('nice', attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)))
print('fifo', attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))))
print('round robin', attempt(lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))))
print('deadline', call(314, 0, ctypes.byref(deadline), 0))
print('realtime input and output', call(251, 1, 0, 1 << 13))
print('lower', attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, 5)))
";

attack!(e04_no_priority_over_others, [root, rootless], |rig| {
    let sandbox = rig.sandbox();
    let check = |shown: &str| {
        assert_eq!(shown.lines().count(), 6, "{shown}");
        for line in shown.lines() {
            let (what, outcome) = line.rsplit_once(' ').unwrap();
            // To be less important is everybody's right: the calls are made as they should be.
            let fine = if what == "lower" { outcome == "ok" } else { matches!(outcome, "EPERM" | "EACCES") };
            assert!(fine, "{line}");
        }
    };
    check(&sandbox.python(PRIORITIES));
    if rig.mode != Mode::Rootless {
        check(&sandbox.python_as_user(PRIORITIES));
    }
});

attack!(e01_processes_and_threads_stop_at_the_limit, [root, rootless], |rig| {
    let _alone = alone();
    let bombed = limited(rig, Limits { pids: Some(100), ..Limits::default() });
    let bomb = "
import time
count = 0
try:
    while count < 1000:
        if os.fork() == 0: time.sleep(1000)
        count += 1
except BlockingIOError as error:
    print(count, errno.errorcode[error.errno], flush=True)
os.killpg(0, 9)
";
    let shown =
        bombed.run(&format!("setsid python3 {} | cat", bombed.program(bomb))).stdout_text().into_owned();
    let count = shown.strip_suffix(" EAGAIN\n").unwrap_or_else(|| panic!("{shown}"));
    assert!((10..100).contains(&count.parse::<u32>().unwrap()), "{shown}");
    bombed.output("true");
});

attack!(e05_descriptors_stop_at_a_limit_that_nobody_raises, [root, rootless], |rig| {
    let _alone = alone();
    let greedy = rig.sandbox();
    let take = "
import resource
kept = []
def until_refused(take):
    for one in kept: os.close(one) if isinstance(one, int) else one.close()
    kept.clear()
    for count in range(100000):
        outcome = attempt(lambda: kept.append(take()))
        if outcome != 'ok': return count, outcome
print(attempt(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))))
try: resource.setrlimit(resource.RLIMIT_NOFILE, (5000, 5000)); print('raised')
except ValueError: print('not raised')
for take in (lambda: os.open('/dev/null', os.O_RDONLY), lambda: os.eventfd(0), lambda: socket.socket(socket.AF_UNIX)):
    count, outcome = until_refused(take)
    print(4000 < count < 4096, outcome)
";
    let more = Limits { open_files: Some(4500), ..Limits::default() };
    assert_eq!(limited(rig, more).output("ulimit -Sn; ulimit -Hn"), "4500\n4500\n", "as it was asked for");
    let expected = "ok\nnot raised\nTrue EMFILE\nTrue EMFILE\nTrue EMFILE\n";
    assert_eq!(greedy.python(take), expected);
    if rig.mode != Mode::Rootless {
        assert_eq!(greedy.python_as_user(take), expected);
    }
});

/// Sends descriptors to itself that nobody takes.
const IN_FLIGHT: &str = "
import array, time
null = os.open('/dev/null', os.O_RDONLY)
many = array.array('i', [null] * 250)
pairs, count = [], 0
def send():
    pairs.append(socket.socketpair())
    pairs[-1][0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)])
while count < 100000:
    outcome = attempt(send)
    if outcome != 'ok': break
    count += 250
";

attack!(e05_descriptors_in_flight_are_bounded, [root, rootless], |rig| {
    let _alone = alone();
    let (greedy, neighbour) = (rig.sandbox(), rig.sandbox());
    let attack =
        format!("{IN_FLIGHT}\nopen('/tmp/begun', 'w').write('%d %s' % (count, outcome))\ntime.sleep(1000)");
    neighbours_go_on("e05 descriptors in flight", rig, &greedy, &attack);
    let shown = greedy.output("cat /tmp/begun");
    let (count, outcome) = shown.split_once(' ').unwrap();
    let count: u32 = count.parse().unwrap();
    assert!(outcome == "ETOOMANYREFS" && count > 1000 && count <= 4096 + 250, "{shown}");
    let left: u32 = neighbour.python(&format!("{IN_FLIGHT}\nprint(count)")).trim().parse().unwrap();
    // n/a without root: the kernel counts them by the one user that all sandboxes have. Agents and server have a larger
    // limit, so that commands, whose output goes by descriptors that are sent, go on.
    assert!(left > 1000 || rig.mode == Mode::Rootless, "{left}");
});

attack!(e05_floods_of_input_and_output_leave_neighbours_going, [root, rootless], |rig| {
    let _alone = alone();
    let disk = if rig.mode == Mode::Rootless { None } else { Some(ByteSize(256 << 20)) };
    let greedy = limited(rig, Limits { disk, ..Limits::default() });
    let flood = "
open('/tmp/begun', 'w').close()
for n in range(4):
    if os.fork() == 0:
        fd = os.open('/workspace/flood%d' % n, os.O_CREAT | os.O_RDWR, 0o600)
        while True:
            for block in range(64): os.pwrite(fd, os.urandom(1 << 16), block << 16)
            os.fsync(fd)
if os.fork() == 0:
    while True:
        fd = os.open('/workspace/small', os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.write(fd, b'x'); os.fsync(fd); os.close(fd); os.unlink('/workspace/small')
";
    neighbours_go_on("e05 writing and fsync", rig, &greedy, flood);
});

attack!(e10_clock_host_name_settings_and_swap_stay, [root, rootless], |rig| {
    let sandbox = rig.sandbox();
    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let program = "
import time
class Timex(ctypes.Structure): _fields_ = [('modes', ctypes.c_uint), ('rest', ctypes.c_char * 512)]
now = (ctypes.c_long * 2)(int(time.time()) + 3600, 0)
print('clock_settime', call(227, 0, now))
print('settimeofday', call(164, now, None))
print('adjtimex', call(159, ctypes.byref(Timex(0x4000))))
print('sethostname', call(170, b'evil', 4))
print('setdomainname', call(171, b'evil', 4))
print('swapon', call(167, b'/tmp/swap', 0))
print('swapoff', call(168, b'/tmp/swap'))
print('acct', call(163, b'/tmp/acct'))
print('reboot', call(169, 0xfee1dead, 672274793, 0, None))
print('timezone', call(164, None, (ctypes.c_int * 2)(60, 0)))
for path in ['kernel/hostname', 'kernel/pid_max', 'vm/swappiness', 'vm/overcommit_memory', 'fs/file-max',
             'net/ipv4/ip_forward', 'user/max_inotify_instances', 'user/max_user_namespaces', 'kernel/shmmax']:
    path = '/proc/sys/' + path
    print(path, attempt(lambda: os.open(path, os.O_WRONLY)))
    print('controls', 'ok' if not os.path.exists(path) or open(path).read() else 'unreadable')
print('controls', call(228, 0, now), call(159, ctypes.byref(Timex(0))), call(63, ctypes.create_string_buffer(390)))
";
    let check = |shown: &str| {
        assert_eq!(shown.lines().count(), 29, "{shown}");
        for line in shown.lines() {
            let (what, outcome) = line.split_once(' ').unwrap();
            match what {
                // What only looks is allowed.
                "controls" => assert!(outcome == "ok" || outcome == "ok ok ok", "{line}"),
                _ => assert!(matches!(outcome, "EPERM" | "EACCES" | "EROFS" | "ENOENT"), "{line}"),
            }
        }
    };
    check(&sandbox.python(program));
    if rig.mode != Mode::Rootless {
        check(&sandbox.python_as_user(program));
    }
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
});

/// Ways to hold kernel memory without any of one's own; each holds more than 64 MiB.
const KERNEL_MEMORY: [(&str, &str); 3] = [
    (
        "pipes",
        "
for _ in range(1900):
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.write(write, b'x' * 65536)
    kept.append((read, write))",
    ),
    (
        "sockets",
        "
for _ in range(1200):
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.setblocking(False)
    try:
        while True: one.send(b'x' * 60000)
    except BlockingIOError: pass
    kept.append((one, other))",
    ),
    (
        "open files",
        "
for _ in range(200):
    if os.fork() == 0:
        for _ in range(4000): kept.append(os.eventfd(0))
        time.sleep(1000)
time.sleep(2)",
    ),
];

attack!(e12_pipes_sockets_and_open_files_count_as_memory, [root], |rig| {
    let _alone = alone();
    for (what, program) in KERNEL_MEMORY {
        let program =
            format!("import time\nkept = []{program}\nprint('held', flush=True)\nos.killpg(0, 9)\n");
        let small = limited(rig, Limits { memory: Some(ByteSize(64 << 20)), ..Limits::default() });
        let command = format!("setsid python3 {} | cat", small.program(&program));
        match rig.wait(small.remote.exec(&command)) {
            Ok(ran) => assert!(kills(&small) > 0, "{what} are not counted: {ran:?}"),
            // What holds it is so small itself that the agent went too; it may have gone while it answered.
            Err(error) => {
                let gone = [Some(ErrorCode::OomKilled), Some(ErrorCode::ServiceNotResponding)];
                assert!(gone.contains(&error.code()), "{what}: {error:?}");
                // The next call may be the one that hears of it; the one after that finds a new agent.
                let again =
                    (0..3).any(|_| rig.wait(small.remote.exec("true")).is_ok_and(|ran| ran.success()));
                assert!(again, "{what}: it does not start again after {error:?}");
            }
        }
        let large = limited(rig, Limits { memory: Some(ByteSize(1 << 30)), ..Limits::default() });
        let ran = large.run(&format!("setsid python3 {} | cat", large.program(&program)));
        assert_eq!(ran.stdout_text(), "held\n", "{what}, where there is enough: {ran:?}");
        assert_eq!(kills(&large), 0, "{what}");
    }
});

/// How many of its processes were killed because the sandbox's memory was short.
fn kills(sandbox: &Sandbox<'_>) -> u32 {
    let shown = sandbox.output(
        "cat /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events 2>/dev/null || true",
    );
    shown.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().trim().parse().unwrap()
}
