//! What one session does to the shell or the interpreter of another.

use crate::rig::Sandbox;
use std::time::{Duration, Instant};

/// Tries all that a debugger can do to a process, and to the descriptors `fds` of it.
const PRY: &str = "
import time
def pry(pid, fd):
    pidfd = libc.syscall(434, ctypes.c_long(pid), ctypes.c_long(0))
    print('mem', attempt(lambda: os.close(os.open(f'/proc/{pid}/mem', os.O_RDWR))))
    print('fds', attempt(lambda: os.readlink(f'/proc/{pid}/fd/{fd}')))
    print('environ', attempt(lambda: os.close(os.open(f'/proc/{pid}/environ', os.O_RDONLY))))
    print('getfd', call(438, pidfd, fd, 0))
    print('seize', call(101, 0x4206, pid, 0, 0x40))
    call(101, 0x11, pid, 0, 0)
";

/// What is said where all of it is refused.
const REFUSED: &str = "mem EACCES\nfds EACCES\nenviron EACCES\ngetfd EPERM\nseize EPERM\n";
const ALLOWED: &str = "mem ok\nfds ok\nenviron ok\ngetfd ok\nseize ok\n";

/// A process of the attacker's own, on which everything succeeds.
#[track_caller]
fn control(sandbox: &Sandbox<'_>) {
    let own = "
import subprocess
child = subprocess.Popen(['sleep', '1000'], stdin=subprocess.DEVNULL)
time.sleep(0.2)
pry(child.pid, 0)
child.kill()
";
    assert_eq!(sandbox.python(&format!("{PRY}{own}")), ALLOWED, "on a process of its own");
}

attack!(a34_another_sessions_shell_is_not_to_be_looked_into, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    let victim = sandbox.remote.session("victim").unwrap();
    let pid = rig.wait(victim.exec("echo $$").run()).unwrap().stdout_text().trim().to_owned();
    assert_eq!(sandbox.python(&format!("{PRY}pry({pid}, 1000)\n")), REFUSED);
    // After a restart, and with a state that is restored, just so.
    rig.wait(victim.exec("export KEPT=1; exit 3").run()).unwrap();
    let pid = rig.wait(victim.exec("echo $$").run()).unwrap().stdout_text().trim().to_owned();
    assert_eq!(sandbox.python(&format!("{PRY}pry({pid}, 1000)\n")), REFUSED);
    control(&sandbox);
});

attack!(
    a34_another_sessions_interpreter_is_not_to_be_looked_into,
    [root, rootless, without_landlock],
    |rig| {
        let sandbox = rig.sandbox();
        let pid = rig.wait(sandbox.remote.run_code("import os; os.getpid()").run()).unwrap();
        let pid = pid.results[0].text.clone().unwrap();
        assert_eq!(sandbox.python(&format!("{PRY}pry({pid}, 10)\n")), REFUSED, "Python");
        let run = sandbox
            .remote
            .run_code("process.pid")
            .language(sandcrab_client::api::code::CodeLanguage::Javascript);
        let pid = rig.wait(run.run()).unwrap().results[0].text.clone().unwrap();
        assert_eq!(sandbox.python(&format!("{PRY}pry({pid}, 10)\n")), REFUSED, "JavaScript");
        control(&sandbox);
    }
);

/// What a shell does with its own `/proc`, and other programs with what all may see of it.
const OWN_PROC: &str = "cat /proc/$$/status >/dev/null && cat /proc/$$/cmdline >/dev/null && cat /proc/$$/stat >/dev/null \
    && read -r -d '' first < /proc/$$/environ && test -n \"$first\" && test -e /proc/$$/fd/1 && cat <(echo sub) \
    && ls /proc/self/fd >/dev/null && cat /proc/self/environ >/dev/null && ps -o comm= -p $$ && (cat /dev/stdin) <<< here";

attack!(a34_a_shell_uses_its_own_proc_as_ever, [root, rootless, without_landlock], |rig| {
    let sandbox = rig.sandbox();
    assert_eq!(sandbox.output(OWN_PROC), "sub\nbash\nhere\n");
    // A program that a session starts is no secret to its other programs: debuggers go on.
    let traced = "sleep 1000 & pid=$!; until grep -q sleep /proc/$pid/comm; do :; done; readlink /proc/$pid/exe; ls /proc/$pid/fd | head -1; kill $pid";
    assert_eq!(sandbox.output(traced), "/usr/bin/sleep\n0\n");
});

attack!(
    a34_a_deadline_is_kept_although_a_tracer_holds_what_was_killed,
    [root, rootless, without_landlock],
    |rig| {
        let sandbox = rig.sandbox();
        // A program of the victim's command is seized, to stop at its exit. Tracers of that kind are refused where the
        // sandbox can tell; then the deadline is kept anyhow.
        sandbox.python_in_background(
            "
import glob, time
while True:
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try: line = open(path, 'rb').read()
        except OSError: continue
        if line.startswith(b'sleep\\x004321'):
            print(call(101, 0x4206, int(path.split('/')[2]), 0, 0x40), flush=True)
            time.sleep(1000)
",
        );
        let victim = sandbox.remote.session("victim").unwrap();
        let begun = Instant::now();
        let ended = rig.wait(victim.exec("sleep 4321").timeout(Duration::from_secs(2)).run());
        assert!(ended.is_err(), "it ran out of time");
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        let exec = rig.wait(victim.exec("echo goes on").run()).unwrap();
        assert_eq!(exec.stdout_text(), "goes on\n");
        let begun = Instant::now();
        let _ = rig.wait(victim.delete());
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        sandbox.output("pkill -f program-; true");
    }
);
