//! Memory that sockets hold outside of a sandbox's limit (E12).

use crate::rig::{Rig, Sandbox};
use sandcrab_client::SandboxOptions;
use sandcrab_client::api::sandbox::Limits;
use sandcrab_client::api::units::ByteSize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a sandbox of 64 MiB may go on holding outside of its charge.
const REACH: u64 = 64 << 20;

/// One at a time: the kernel counts for the whole machine.
static TURN: Mutex<()> = Mutex::new(());

/// Fills the queues of sockets until it is killed: `fill_PID` says how much it sent.
const FILL: &str = "
import resource, threading, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
piece = bytes(60000)
def tcp():
    server = socket.create_server(('127.0.0.1', 0), backlog=128)
    kept.append(server)
    for _ in range(100):
        client = socket.socket()
        client.setblocking(False)
        try: client.connect(server.getsockname())
        except BlockingIOError: pass
        kept.append(client)
        clients.append(client)
def udp():
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(('127.0.0.1', 0))
    kept.append(receiver)
    for _ in range(8):
        try: sender.sendto(piece, receiver.getsockname())
        except OSError: break
def netlink():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    kept.append(s)
    for _ in range(200):
        # RTM_GETLINK, a dump: its answer waits in the queue.
        try: s.sendto(bytes([20, 0, 0, 0, 18, 0, 1, 3]) + bytes(12), (0, 0))
        except OSError: break
kept, clients = [], []
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        WAY()
    except OSError:
        pass
    for client in clients:
        try:
            while client.send(piece): pass
        except OSError: pass
";

/// The bytes that waiting data of sockets takes on the whole machine beyond what programs have: pages of TCP and UDP, and
/// the slabs of packets.
fn outside() -> u64 {
    let sockets = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let pages: u64 = sockets
        .lines()
        .filter(|line| line.starts_with("TCP:") || line.starts_with("UDP:"))
        .filter_map(|line| line.split(" mem ").nth(1)?.trim().parse::<u64>().ok())
        .sum();
    pages * 4096
}

fn fill(rig: &Rig, way: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = Limits { memory: Some(ByteSize(64 << 20)), ..Limits::default() };
    let sandbox: Sandbox<'_> =
        rig.sandbox_with(SandboxOptions { limits: Some(limits), ..Default::default() });
    let before = outside();
    sandbox.python_in_background(&FILL.replace("WAY()", &format!("{way}()")));
    let events = || rig.wait(sandbox.remote.events()).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let mut most = 0;
    while !events().iter().any(|event| event.kind == "socketMemory") {
        most = most.max(outside().saturating_sub(before));
        assert!(Instant::now() < until, "nothing was ended; {most} bytes were held: {:?}", events());
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{way}: {:.1} MiB at the most", most as f64 / f64::from(1 << 20));
    let freed = Instant::now() + Duration::from_secs(10);
    while outside().saturating_sub(before) > REACH {
        assert!(Instant::now() < freed, "what it held is still held: {}", outside() - before);
        std::thread::sleep(Duration::from_millis(20));
    }
    // The session goes on, and a few sockets are nothing to end anything for.
    assert_eq!(sandbox.output("echo on"), "on\n");
    let few = "
a, b = socket.create_server(('127.0.0.1', 0)), []
for _ in range(50):
    b.append(socket.create_connection(a.getsockname()))
    b[-1].send(bytes(20000))
import time
time.sleep(2.5)
print('kept')
";
    let count = events().len();
    assert_eq!(sandbox.python(few), "kept\n");
    assert_eq!(events().len(), count, "{:?}", events());
}

attack!(e12_connections_that_nothing_accepts_are_bounded_in_sum, [root, rootless], |rig| fill(rig, "tcp"));

attack!(e12_datagrams_that_nothing_reads_are_bounded_in_sum, [root, rootless], |rig| fill(rig, "udp"));

attack!(e12_answers_of_the_kernel_that_nothing_reads_are_bounded_in_sum, [root, rootless], |rig| {
    fill(rig, "netlink");
});

/// Few sockets that hold much each, by queues that were asked to be large and are written to by nobody who reads.
const FEW: &str = "
import resource, time
def large():
    server = socket.create_server(('127.0.0.1', 0))
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
    client.connect(server.getsockname())
    client.setblocking(False)
    try:
        while client.send(bytes(1 << 20)): pass
    except BlockingIOError: pass
    return server, client
kept = [large() for _ in range(24)]
open('/dev/shm/filled', 'w').close()
time.sleep(1000)
";

// The holder of little beside it lives, also where the one that holds much hides its descriptors (rootless, an agent may not
// see those of a process that is not dumpable).
attack!(e12_few_sockets_that_hold_much_are_their_holders_end_and_no_one_elses, [root, rootless], |rig| {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = Limits { memory: Some(ByteSize(128 << 20)), ..Limits::default() };
    let sandbox = rig.sandbox_with(SandboxOptions { limits: Some(limits), ..Default::default() });
    let innocent = "
import time
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(('127.0.0.1', 0))
receiver.sendto(bytes(9000), receiver.getsockname())
open('/dev/shm/innocent', 'w').write(str(os.getpid()))
time.sleep(1000)
";
    sandbox.python_in_background(innocent);
    sandbox.output("until test -s /dev/shm/innocent; do sleep 0.02; done");
    for hide in ["", "call(157, 4, 0, 0, 0, 0)\n"] {
        let count = || {
            let events = rig.wait(sandbox.remote.events()).unwrap();
            events.iter().filter(|event| event.kind == "socketMemory").count()
        };
        let before = count();
        let program = sandbox.program(&format!("{hide}{FEW}"));
        let ended = sandbox.run(&format!("python3 {program}"));
        assert_eq!(ended.exit_code(), 137, "{}", ended.stderr_text());
        let until = Instant::now() + Duration::from_secs(10);
        while count() == before {
            assert!(Instant::now() < until, "no event says so");
            std::thread::sleep(Duration::from_millis(20));
        }
        sandbox.output("kill -0 $(cat /dev/shm/innocent)");
    }
});
