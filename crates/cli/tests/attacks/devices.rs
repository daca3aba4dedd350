//! Device nodes that sandboxes would share (A31), and terminals that one could take from all (E12).

use crate::rig::Mode;
use std::os::unix::fs::MetadataExt as _;

/// Watches and locks every node, says so, and waits; then tells which of them something happened to.
const WATCH: &str = r#"
import fcntl, time
names = ['null', 'zero', 'full', 'random', 'urandom', 'tty']
events = libc.inotify_init1(0o4000)
ALL = 0xfff
for name in names:
    assert libc.inotify_add_watch(events, b'/dev/' + name.encode(), ALL) >= 0, name
kept = [os.open('/dev/' + name, os.O_RDWR) for name in names if name != 'tty']
for fd in kept: fcntl.flock(fd, fcntl.LOCK_EX)
def seen():
    found = set()
    while True:
        try: data = os.read(events, 65536)
        except BlockingIOError: return found
        while data:
            watch, length = int.from_bytes(data[:4], 'little'), int.from_bytes(data[12:16], 'little')
            found.add(names[watch - 1])
            data = data[16 + length:]
seen()
open('/dev/shm/ready', 'w').close()
while not os.path.exists('/dev/shm/stop'): time.sleep(0.02)
strange = seen()
for name in names: attempt(lambda: os.utime('/dev/' + name)); attempt(lambda: os.open('/dev/' + name, os.O_RDWR))
open('/dev/shm/seen', 'w').write('%s %s' % (sorted(strange), sorted(seen())))
"#;

/// Uses, locks and touches every node.
const USE: &str = r#"
import fcntl
for name in ['null', 'zero', 'full', 'random', 'urandom']:
    fd = os.open('/dev/' + name, os.O_RDWR)
    print(name, attempt(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
          attempt(lambda: os.write(fd, b'x')), attempt(lambda: os.utime('/dev/' + name)),
          attempt(lambda: os.chmod('/dev/' + name, 0o600)), attempt(lambda: os.unlink('/dev/' + name)),
          attempt(lambda: os.rename('/dev/shm/ready', '/dev/' + name)))
"#;

attack!(a31_device_nodes_are_the_sandboxs_own, [root, rootless], |rig| {
    let (watcher, other) = (rig.sandbox(), rig.sandbox());
    let times = || {
        ["null", "zero", "full", "random", "urandom", "tty"].map(|name| {
            let found = std::fs::metadata(format!("/dev/{name}")).unwrap();
            (found.mode(), found.modified().unwrap())
        })
    };
    let before = times();
    watcher.python_in_background(WATCH);
    watcher.output("until test -e /dev/shm/ready; do sleep 0.02; done");
    let expected = |name: &str| {
        // A full device takes nothing; the random ones take what anyone writes.
        let written = if name == "full" { "ENOSPC" } else { "ok" };
        match rig.mode {
            // The node is the agent's: written to and touched by all, changed and removed by no one inside.
            Mode::Root | Mode::WithoutLandlock => format!("{name} ok {written} ok EPERM EPERM"),
            // That of the host: flock and inotify are shared, and nothing can be changed.
            Mode::Rootless => format!("{name} {written} EROFS EROFS EBUSY"),
        }
    };
    let used = other.python(USE);
    assert_eq!(used.lines().count(), 5, "{used}");
    for line in used.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let shown = match rig.mode {
            Mode::Rootless => [&fields[..1], &fields[2..6]].concat().join(" "),
            Mode::Root | Mode::WithoutLandlock => fields[..6].join(" "),
        };
        assert_eq!(shown, expected(fields[0]), "{line}");
        assert_ne!(fields[6], "ok", "a node is replaced: {line}");
    }
    assert_eq!(times(), before, "the host's nodes are as they were");
    if rig.mode == Mode::Rootless {
        // n/a: without root no node can be made, so that inotify and flock of the host's are shared.
        return;
    }
    let node = |sandbox: &crate::rig::Sandbox<'_>| sandbox.output("stat -c %d:%i /dev/null");
    let on_host = std::fs::metadata("/dev/null").unwrap();
    let on_host = format!("{}:{}\n", on_host.dev(), on_host.ino());
    let nodes = std::collections::BTreeSet::from([node(&watcher), node(&other), on_host]);
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    watcher.output("touch /dev/shm/stop; until test -s /dev/shm/seen; do sleep 0.02; done");
    // What the sandbox itself runs opens null and urandom; the others it used only after that.
    let seen = watcher.output("cat /dev/shm/seen");
    let (strange, own) = seen.split_once("] ").unwrap();
    for name in ["zero", "full", "random"] {
        assert!(!strange.contains(&format!("'{name}'")), "another sandbox's use is seen: {seen}");
        assert!(own.contains(&format!("'{name}'")), "its own use is seen: {seen}");
    }
    // People make files beside the nodes, and take them away.
    other.output("ln -s /dev/null /dev/own && rm /dev/own && test ! -e /dev/own");
    assert_eq!(other.run_as_user("touch /dev/own").exit_code(), 1);
});

/// Opens terminals for as long as there are any.
const TAKE_TERMINALS: &str = "
import pty
kept = []
def take(): kept.append(os.open('/dev/ptmx', os.O_RDWR))
for count in range(5000):
    outcome = attempt(take)
    if outcome != 'ok': break
print(count, outcome)
";

attack!(e12_terminals_are_bounded_for_each_sandbox, [root, rootless], |rig| {
    let (greedy, neighbour) = (rig.sandbox(), rig.sandbox());
    assert_eq!(greedy.python(&format!("{TAKE_TERMINALS}\nopen('/dev/shm/ready', 'w')")), "32 ENOSPC\n");
    greedy.python_in_background(&format!(
        "{TAKE_TERMINALS}\nopen('/dev/shm/taken', 'w'); import signal; signal.pause()"
    ));
    greedy.output("until test -e /dev/shm/taken; do sleep 0.02; done");
    assert_eq!(greedy.python(TAKE_TERMINALS), "0 ENOSPC\n");
    assert_eq!(neighbour.python(TAKE_TERMINALS), "32 ENOSPC\n", "a neighbour has its own");
});
