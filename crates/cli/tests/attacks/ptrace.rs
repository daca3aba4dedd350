//! Tracing: debuggers work, and no process keeps another from ending.

use sandcrab_client::SandboxOptions;
use sandcrab_client::api::sandbox::Isolation;

/// `seize(pid, options)`, `set(request, pid, options)`, and a child that traces or is traced, always in a line and never in
/// a ring: one that was not refused would outlive every kill.
const TRACERS: &str = r#"
import signal, time
SEIZE, SETOPTIONS, OLDSETOPTIONS, ATTACH, DETACH, INTERRUPT = 0x4206, 0x4200, 21, 16, 17, 0x4207
EXIT = 0x40
def ptrace(request, pid, options=0):
    return call(101, request, pid, 0, options)
def sleeper():
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid
def follow(pid):
    """Lets it go on after each stop, until it has ended."""
    while True:
        stopped, status = os.waitpid(-1, 0x40000000)
        if os.WIFSTOPPED(status):
            event, signal_number = status >> 16, os.WSTOPSIG(status)
            ptrace(7, stopped, 0 if event or signal_number in (5, 19) else signal_number)
        elif stopped == pid:
            return
"#;

/// Installs a filter without a listener, and one with one.
const LISTENER: &str = r"
class Program(ctypes.Structure): _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_char_p)]
allow = Program(1, b'\x06\0\0\0\0\0\xff\x7f')
call(157, 38, 1, 0, 0, 0)
print(call(317, 1, 0, ctypes.byref(allow)), call(317, 1, 8, ctypes.byref(allow)))
";

attack!(a32_a_traced_process_cannot_hold_up_anothers_exit, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    // The last in the line is traced itself, by each way of becoming so, and asks by each way of asking.
    let program = format!(
        "{TRACERS}{}",
        r#"
end = sleeper()
print("control", ptrace(SEIZE, end, EXIT))
os.kill(end, 9)
follow(end)
for how in ["seized", "attached", "asked", "thread"]:
    end = sleeper()
    ready, go, done = os.pipe(), os.pipe(), os.pipe()
    middle = os.fork()
    if middle == 0:
        if how == "thread":
            import threading
            threading.Thread(target=signal.pause, daemon=True).start()
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        answers = [ptrace(SEIZE, end, EXIT), ptrace(SEIZE, end, 0)]
        ptrace(INTERRUPT, end)
        os.waitpid(end, 0x40000000)
        answers += [ptrace(SETOPTIONS, end, EXIT | 1), ptrace(OLDSETOPTIONS, end, EXIT), ptrace(SETOPTIONS, end, 1)]
        os.write(done[1], " ".join(answers).encode())
        os._exit(0)
    os.read(ready[0], 1)
    target = middle
    if how == "thread":
        target = max(int(tid) for tid in os.listdir(f"/proc/{middle}/task"))
    if how == "attached":
        assert ptrace(ATTACH, middle) == "ok"
        os.waitpid(middle, 0)
        assert ptrace(SETOPTIONS, middle, EXIT) == "ok"
        assert ptrace(7, middle) == "ok"  # PTRACE_CONT
    else:
        assert ptrace(SEIZE, target, 0 if how == "asked" else EXIT) == "ok"
    os.write(go[1], b"x")
    follow(middle)
    print(how, os.read(done[0], 100).decode())
    os.kill(end, 9)
    os.waitpid(end, 0)
"#
    );
    let refused = "EPERM ok EPERM EPERM ok";
    let expected =
        format!("control ok\nseized {refused}\nattached {refused}\nasked {refused}\nthread {refused}\n");
    assert_eq!(sandbox.python(&program), expected);
});

attack!(a32_debuggers_work, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    let strace = "strace -f -o /tmp/trace bash -c '(exit 3); /bin/true; exit 7'; echo $?; \
        grep -c 'exited with' /tmp/trace; grep -c execve /tmp/trace";
    let seen = sandbox.output(strace);
    let seen: Vec<_> = seen.split_whitespace().collect();
    assert_eq!((seen[0], seen[1]), ("7", "3"), "{seen:?}");
    // Two at once: each waits for the other's request, and no longer.
    let two = "for n in 1 2; do strace -f -o /tmp/two$n bash -c '(sleep 0.3; exit 3); exit 7' & done; wait -n; a=$?; wait -n; \
        echo $a $?; grep -c 'exited with' /tmp/two1 /tmp/two2";
    assert_eq!(sandbox.output(two), "7 7\n/tmp/two1:3\n/tmp/two2:3\n");
    // Attached to a process that runs.
    let attached = "sleep 100 & strace -o /tmp/trace2 -p $! & sleep 0.3; kill %1; wait %2; cat /tmp/trace2";
    let trace = sandbox.output(attached);
    assert!(trace.contains("SIGTERM"), "{trace}");
    let program = "int v = 1; int f(int x) { return x + v; } int main() { return f(41) - 42; }";
    sandbox.output(&format!("echo '{program}' >/tmp/p.c && cc -g -o /tmp/p /tmp/p.c"));
    let gdb = sandbox.output(
        "gdb -q -batch -ex 'break f' -ex run -ex 'print x' -ex 'set var v=2' -ex continue /tmp/p 2>&1",
    );
    assert!(gdb.contains("$1 = 41") && gdb.contains("exited with code 01"), "{gdb}");
    // A process has one listener at the most, and that is the sandbox's.
    assert_eq!(sandbox.python(LISTENER), "ok EBUSY\n");
});

attack!(a16_debugging_can_be_taken_away_by_name, [root, rootless, without_landlock], |rig| {
    let isolation = Isolation { debugging: Some(false), socket_lists: Some(false), ..Isolation::default() };
    let calls = "
import subprocess
end = subprocess.Popen(['sleep', '100']).pid
print(call(101, 16, end, 0, 0), call(310, end, 0, 0, 0, 0, 0), call(438, 3, 0, 0), \
    attempt(lambda: socket.socket(16, 3, 4)), attempt(lambda: socket.socket(16, 3, 0)))";
    let strict = rig.sandbox_with(SandboxOptions { isolation: Some(isolation), ..SandboxOptions::default() });
    assert_eq!(strict.python(calls), "EPERM EPERM EPERM EPROTONOSUPPORT ok\n");
    assert_ne!(strict.run("strace true").exit_code(), 0);
    let info = rig.wait(strict.remote.info()).unwrap();
    assert_eq!(info.isolation, isolation.resolved());
    // The control: what is there without being asked for.
    let usual = rig.sandbox();
    assert_eq!(usual.python(calls), "ok ok EBADF ok ok\n");
});
