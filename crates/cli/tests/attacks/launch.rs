//! What reaches for the launch of a sandbox: the agent's program (A01), and the next start by way of the sandbox's own
//! files (A30).

use crate::alive::agent;
use crate::rig::{Rig, Sandbox};
use rustix::fs::{Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Tries to change each program that is not the sandbox's own, by a descriptor from `/proc`.
const SEIZE: &str = "
import time
until = time.time() + 60
while time.time() < until and not os.path.exists('/tmp/enough'):
    for pid in os.listdir('/proc'):
        if not pid.isdigit(): continue
        exe = '/proc/%s/exe' % pid
        try:
            if 'sandcrab' not in os.readlink(exe): continue
            f = os.open(exe, os.O_RDONLY)
        except OSError: continue
        with open('/tmp/outcomes', 'a') as out:
            print('device:', os.fstat(f).st_dev, file=out)
            for what, action in [
                ('mode', lambda: os.fchmod(f, 0o6777)), ('owner', lambda: os.fchown(f, 0, 0)), ('times', lambda: os.utime(f)),
                ('attribute', lambda: os.setxattr(f, 'user.x', b'x')),
                ('write', lambda: os.open('/proc/self/fd/%d' % f, os.O_WRONLY)),
                ('cut', lambda: os.open('/proc/self/fd/%d' % f, os.O_RDWR | os.O_TRUNC)),
            ]: print(what + ':', attempt(action), file=out)
        os.close(f)
";

attack!(a01_the_program_of_the_agent_cannot_be_changed, [root, rootless, without_landlock], |rig| {
    let path = Path::new(env!("CARGO_BIN_EXE_sandcrab"));
    let state = || {
        let found = std::fs::metadata(path).unwrap();
        (found.mode(), found.uid(), found.len(), found.mtime_nsec(), found.ctime(), found.ctime_nsec())
    };
    let before = state();
    let sandbox = rig.sandbox();
    sandbox.python_in_background(SEIZE);
    // What the agent executes next is its own program again, as an ordinary process of the sandbox.
    let plant = "rm -rf /bin; mkdir /bin; ln -s /usr/bin/* /bin/; rm /bin/bash; \
                 printf '#!/proc/self/exe\\n' > /bin/bash; chmod 755 /bin/bash";
    sandbox.output(plant);
    for _ in 0..20 {
        // It fails, as it must: such an interpreter is refused before it is executed.
        let _refused = rig.wait(sandbox.remote.start("true").run());
    }
    let outcomes = sandbox.run("cat /tmp/outcomes 2>/dev/null").stdout_text().into_owned();
    sandbox.output("touch /tmp/enough");
    for line in outcomes.lines() {
        match line.split_once(": ").unwrap() {
            ("device", device) => assert_ne!(device, std::fs::metadata(path).unwrap().dev().to_string()),
            // A refusal by owner or mode would be another than this, and would not hold for the server's own user.
            ("mode" | "owner" | "times" | "attribute", outcome) => assert_eq!(outcome, "EROFS", "{outcomes}"),
            (_, outcome) => assert!(matches!(outcome, "EROFS" | "EACCES" | "ETXTBSY"), "{outcomes}"),
        }
    }
    // What a descriptor of it would be worth, had one been reached: it is opened from outside, with every right.
    let program =
        std::fs::File::open(format!("/proc/{}/exe", agent(rig, &sandbox).as_raw_nonzero())).unwrap();
    assert_eq!(program.metadata().unwrap().len(), before.2, "it is the program");
    assert_ne!(program.metadata().unwrap().dev(), std::fs::metadata(path).unwrap().dev());
    let opened = format!("/proc/self/fd/{}", program.as_raw_fd());
    let write = OFlags::WRONLY | OFlags::CLOEXEC;
    assert_eq!(rustix::fs::fchmod(&program, Mode::from_raw_mode(0o6777)), Err(Errno::ROFS));
    assert_eq!(rustix::fs::fchown(&program, Some(Uid::ROOT), None), Err(Errno::ROFS));
    assert_eq!(rustix::fs::open(opened, write, Mode::empty()).map(drop), Err(Errno::ROFS));
    assert_eq!(state(), before);
    let own =
        "f = os.open('/bin/bash', os.O_RDONLY); print(attempt(lambda: (os.fchmod(f, 0o6777), os.utime(f))))";
    assert_eq!(sandbox.python(own), "ok\n", "a file of its own is changed so");
});

/// Ends the agent and waits until the sandbox answers again.
fn restart(rig: &Rig, sandbox: &Sandbox<'_>) {
    kill_process(agent(rig, sandbox), Signal::KILL).unwrap();
    // A call that meets the end fails, and the next one starts it again.
    let again = || rig.wait(sandbox.remote.exec("true")).is_ok();
    assert!((0..20).any(|_| again()), "it does not start again");
}

attack!(a30_a_start_follows_no_planted_link, [root, rootless, without_landlock], |rig| {
    let outside = tempfile::tempdir().unwrap();
    std::fs::set_permissions(outside.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let host = outside.path().display();
    let sandbox = rig.sandbox();
    for fd in 3..12 {
        let up = "../".repeat(24);
        sandbox.output(&format!("rm -rf /var; ln -s /proc/self/fd/{fd}/{up}{host} /var"));
        restart(rig, &sandbox);
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "by descriptor {fd}");
    }
    let events = rig.wait(sandbox.remote.events()).unwrap();
    let told = events.iter().find(|event| event.kind == "startHindered").expect("an event");
    assert!(told.reason.contains("/var/tmp") && told.reason.contains("symbolic link"), "{}", told.reason);
    // Its files can be reached, so it can be put right; a link inside is a link.
    sandbox.output("rm /var; mkdir /workspace/var; ln -s workspace/var /var");
    restart(rig, &sandbox);
    assert_eq!(sandbox.output("stat -c %a /workspace/var/tmp"), "1777\n");
});

attack!(b14_output_is_kept_whatever_becomes_of_the_visible_tree, [root, rootless], |rig| {
    let sandbox = rig.sandbox();
    sandbox.run("rm -rf /.sandcrab; rmdir /.sandcrab; mkdir /.sandcrab; chmod 0 /.sandcrab");
    for _ in 0..2 {
        let output = sandbox.run("head -c 1000000 /dev/zero | tr '\\0' x");
        assert_eq!((output.exit_code(), output.stdout_text().len()), (0, 1_000_000));
        restart(rig, &sandbox);
    }
});
