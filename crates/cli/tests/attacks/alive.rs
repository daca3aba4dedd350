//! That an agent stays able to answer, and that one which is not is noticed and replaced.

use crate::rig::{Rig, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

/// Other calls answer within this, whatever code in the sandbox does (attack A33). More on a machine that runs every test at
/// once, and far less than any of the blocks that are tried.
const SOON: Duration = Duration::from_secs(3);

/// Calls of several kinds are answered soon.
#[track_caller]
fn answers(sandbox: &Sandbox<'_>, session: &str) {
    let begun = Instant::now();
    let exec = sandbox.rig.wait(sandbox.remote.session(session).unwrap().exec("echo here")).unwrap();
    assert_eq!(exec.stdout_text(), "here\n");
    sandbox.rig.wait(sandbox.remote.files().write("/tmp/answers", "x".to_owned())).unwrap();
    assert!(begun.elapsed() < SOON, "answered after {:?}", begun.elapsed());
}

/// The agent's id on the host.
pub(crate) fn agent(rig: &Rig, sandbox: &Sandbox<'_>) -> Pid {
    for instance in std::fs::read_dir(rig.data_dir().join("instances")).unwrap() {
        let instance = instance.unwrap().path();
        let record = std::fs::read_to_string(instance.join("record.json")).unwrap_or_default();
        if record.contains(&format!("\"{}\"", sandbox.remote.id().as_str())) {
            let pid = std::fs::read_to_string(instance.join("pid")).unwrap();
            return Pid::from_raw(pid.split_once(' ').unwrap().0.parse().unwrap()).unwrap();
        }
    }
    panic!("no instance is that of {}", sandbox.remote.id());
}

attack!(a33_a_frozen_agent_is_noticed_and_replaced, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    sandbox.output("echo kept > /workspace/file");
    kill_process(agent(rig, &sandbox), Signal::STOP).unwrap();
    let begun = Instant::now();
    let error = rig.wait(sandbox.remote.exec("true")).unwrap_err();
    assert!(format!("{error:?}").contains("no longer answered"), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(sandbox.output("cat /workspace/file"), "kept\n");
});

attack!(a33_what_stands_at_dev_null_blocks_nobody, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    // Where the device is mounted, it can neither be removed nor covered.
    let replaced = sandbox
        .output("rm -f /dev/null 2>&1; mkfifo /dev/null 2>&1; test -p /dev/null && echo replaced; true");
    answers(&sandbox, "default");
    answers(&sandbox, "another");
    // A shell that restores its state has need of it as well.
    sandbox.run("export KEPT=yes; exit 3");
    assert_eq!(sandbox.output("echo $KEPT"), "yes\n", "{replaced}");
    sandbox.run("rm -f /dev/null; ln -s /proc/self/fd/3 /dev/null; exit 3");
    answers(&sandbox, "default");
    answers(&sandbox, "a third");
});

attack!(
    a33_lingering_descriptors_sent_to_the_agent_block_nobody,
    [root, rootless, without_landlock],
    |rig| {
        let sandbox = rig.sandbox();
        let program = "/tmp/linger.py";
        rig.wait(sandbox.remote.files().write(program, LINGER.to_owned())).unwrap();
        let printed = sandbox.run(&format!("python3 {program} $$ > /tmp/printed 2>&1; cat /tmp/printed"));
        let printed = printed.stdout_text().into_owned();
        answers(&sandbox, "another");
        answers(&sandbox, "default");
        // The control: it does hold up who closes it.
        let told = sandbox.output("cat /tmp/printed");
        assert!(told.contains("close took 3"), "{printed} {told}");
        assert!(told.contains("sent") || told.contains("EPERM"), "{printed} {told}");
    }
);

/// Sends sockets that linger by the socket of a shell, if that can be had, and says how long closing such takes.
const LINGER: &str = r#"
import array, ctypes, errno, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def lingering(seconds):
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    near.setblocking(False)
    try:
        while True: near.send(b"x" * 65536)
    except BlockingIOError: pass
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    return near, far
near, kept = lingering(3)
begun = time.monotonic()
near.close()
print("close took", round(time.monotonic() - begun), flush=True)
pidfd = libc.syscall(434, int(sys.argv[1]), 0)
keep = []
for number in range(3, 1100):
    fd = libc.syscall(438, pidfd, number, 0)
    if fd < 0:
        if ctypes.get_errno() != errno.EBADF:
            print(errno.errorcode[ctypes.get_errno()], flush=True)
            break
        continue
    try:
        other = socket.socket(fileno=fd)
        if other.type != socket.SOCK_SEQPACKET: continue
    except OSError: continue
    if os.fork() == 0:
        os.setsid()
        for _ in range(100):
            near, far = lingering(600)
            keep.append(far)
            try:
                other.sendmsg([b"x" * 48], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [near.fileno()]))])
                print("sent", flush=True)
            except OSError as error: print(errno.errorcode[error.errno], flush=True)
            near.close()
        time.sleep(600)
"#;
