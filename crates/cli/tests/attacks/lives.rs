//! What lives share and what they leave behind: a shared layer (A22), the page cache (E14), randomness and identity (C11), daemons that dodge a
//! destroy (E08), many lives at once (E09).

use crate::rig::{Mode, Rig};
use sandcrab_client::SandboxOptions;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// A file of the host's that sandboxes see, and that nothing runs meanwhile.
const SHARED: &str = "/usr/share/doc/dash/copyright";

attack!(a22_a_layer_of_the_host_stays_as_it_is, [root, rootless, without_landlock], |rig| {
    let before = std::fs::read(SHARED).unwrap();
    let (evil, good) = (rig.sandbox(), rig.sandbox());
    // Through the page cache, as Dirty COW and Dirty Pipe did. The file is opened for reading.
    let sneak = format!(
        "
import mmap
f = os.open('{SHARED}', os.O_RDONLY)
private = mmap.mmap(f, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
private[:4] = b'evil'
out, into = os.pipe()
for _ in range(16):
    os.write(into, bytes(4096))
    os.read(out, 4096)
os.splice(f, into, 1, offset_src=3)
os.write(into, b'evil')
print(open('{SHARED}', 'rb').read(4) == b'evil')
"
    );
    assert_eq!(evil.python(&sneak), "False\n");
    assert_eq!(std::fs::read(SHARED).unwrap(), before, "by the page cache");
    // As root may: by a write, a shared mapping, and removing it. All that is the sandbox's own copy.
    let write = format!(
        "
import mmap
f = open('{SHARED}', 'r+b')
shared = mmap.mmap(f.fileno(), 0)
shared[:4] = b'evil'
shared.flush()
print(open('{SHARED}', 'rb').read(4))
os.chmod('{SHARED}', 0o777)
os.unlink('{SHARED}')
"
    );
    if rig.mode == Mode::Rootless {
        // The layer's files belong to a user that does not exist in there.
        assert_eq!(evil.run(&format!("echo evil > {SHARED}")).exit_code(), 1);
    } else {
        assert_eq!(evil.python(&write), "b'evil'\n");
    }
    assert_eq!(std::fs::read(SHARED).unwrap(), before, "by its own copy");
    assert_eq!(good.output(&format!("cat {SHARED}")).as_bytes(), before, "a sibling sees the host's");
});

attack!(e14_the_page_cache_of_the_host_is_neither_seen_nor_emptied, [root, rootless], |rig| {
    let sandbox = rig.sandbox();
    // The numbers of x86-64; cachestat has one everywhere.
    let program = format!(
        "
import mmap
POSIX_FADV_DONTNEED, MADV_PAGEOUT = 4, 21
file = os.open('{SHARED}', os.O_RDONLY)
size = os.fstat(file).st_size
pages = ctypes.create_string_buffer(size // 4096 + 1)
mapped = libc.mmap
mapped.restype = ctypes.c_void_p
at = mapped(None, ctypes.c_size_t(size), 1, 2, file, ctypes.c_long(0))
span, seen = (ctypes.c_uint64 * 2)(0, size), (ctypes.c_uint64 * 5)()
print('mincore', call(27, ctypes.c_void_p(at), size, pages))
print('cachestat', call(451, file, span, seen, 0))
"
    );
    assert_eq!(sandbox.python(&program), "mincore ENOSYS\ncachestat ENOSYS\n");
    // Resident here, and not made to go by advice inside.
    let resident = || {
        let seen = tool_output("fincore", &["--bytes", "--noheadings", "--output", "RES", SHARED]);
        seen.trim().parse::<u64>().unwrap()
    };
    std::fs::read(SHARED).unwrap();
    let before = resident();
    assert!(before > 0, "the control sees it");
    let advice = format!("os.posix_fadvise(os.open('{SHARED}', os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)");
    assert_eq!(sandbox.python(&advice), "");
    assert_eq!(resident(), before);
});

/// What a program of the host's prints.
fn tool_output(program: &str, arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "the control of an attack runs outside of any sandbox")]
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

attack!(c11_no_two_sandboxes_share_randomness_or_identity, [root, rootless], |rig| {
    let sandboxes = [rig.sandbox(), rig.sandbox()];
    let mut seen = BTreeSet::new();
    for sandbox in &sandboxes {
        for command in [
            "cat /etc/machine-id",
            "hostname",
            "cat /proc/sys/kernel/random/uuid",
            "python3 -c 'import random, uuid; print(random.random(), uuid.uuid4())'",
        ] {
            let value = sandbox.output(command);
            assert!(value.trim().len() > 8, "{command}: {value:?}");
            assert!(seen.insert(value.clone()), "{command} again: {value}");
        }
    }
});

/// How many processes of the host have this in their command line.
fn processes_with(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(mark).then_some(())
    });
    processes.count()
}

attack!(e08_what_dodges_every_signal_is_gone_when_a_destroy_answers, [root, rootless], |rig| {
    let mark = format!("dodger-{:?}-{}", rig.mode, std::process::id());
    let sandbox = rig.sandbox();
    let daemon = format!(
        "
import signal, time
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 65):
                try: signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError): pass
            os.closerange(0, 64)
            os.execv('/bin/bash', ['{mark}', '-c', 'trap \"\" TERM HUP INT; while :; do read -t 1000 <> <(:); done'])
        os._exit(0)
time.sleep(0.5)
"
    );
    sandbox.python(&daemon);
    assert!(processes_with(&mark) >= 5, "they run");
    sandbox.destroy();
    assert_eq!(processes_with(&mark), 0);
});

/// What the host holds for a server: mounts, loop devices and directories of instances, and the server's descriptors.
fn held(rig: &Rig) -> [usize; 4] {
    let data = rig.data_dir().canonicalize().unwrap();
    let lines = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter(|line| line.contains(data.to_str().unwrap())).count()
    };
    let loops = std::fs::read_dir("/sys/block").unwrap().filter_map(|device| {
        let file = std::fs::read_to_string(device.ok()?.path().join("loop/backing_file")).ok()?;
        Path::new(file.trim()).starts_with(&data).then_some(())
    });
    let entries = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
    [
        lines("/proc/self/mountinfo"),
        loops.count(),
        entries(&data.join("instances")),
        entries(Path::new(&format!("/proc/{}/fd", rig.server_pid()))),
    ]
}

attack!(e09_many_lives_at_once_leave_nothing, [root, rootless], |shared| {
    // What the sandboxes of other tests hold is not counted.
    let rig = &shared.apart("lives");
    let mark = format!("leftover-{:?}-{}", rig.mode, std::process::id());
    let lives = |names: &str, count: usize| {
        let (client, mark) = (rig.client(), &mark);
        let names = names.to_owned();
        rig.wait(async move {
            let lives = (0..count).map(|number| {
                let id = format!("e09-{}-{names}-{number}", std::process::id());
                let sandbox = client.sandbox(&id, SandboxOptions::default()).unwrap();
                async move {
                    let left =
                        format!("(exec -a {mark} sleep 1000) & mkdir -p /tmp/a/b/c; echo x > /tmp/a/b/c/d");
                    sandbox.exec(left).await.unwrap();
                    sandbox.destroy().await.unwrap();
                }
            });
            futures_util::future::join_all(lives).await;
        });
    };
    // The first ones make what the server keeps: connections, caches.
    lives("first", 24);
    let before = held(rig);
    lives("then", 24);
    assert_eq!(processes_with(&mark), 0);
    // Connections of a client that has gone, and what is removed behind an answer, are there for a moment.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let after = held(rig);
        if before.into_iter().zip(after).all(|(before, after)| after < before + 6) {
            return;
        }
        assert!(Instant::now() < until, "{before:?} {after:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
});

// Also what detached from all that the agent knows: by setsid, twice forked, its parents ended. Below a rootless server no
// control group holds it.
attack!(e01_what_detaches_ends_with_its_process_and_its_session, [root, rootless], |rig| {
    let sandbox = rig.sandbox();
    let detach =
        "(setsid sh -c 'setsid sleep 1234 & exec sleep 0.1' & ) ; sleep 0.5; setsid sleep 1235 & sleep 0.2";
    let count = || sandbox.output("pgrep -fc '^sleep 123[45]' || true").trim().to_owned();
    let process = rig.wait(sandbox.remote.start(format!("{detach}; exit 0")).run()).unwrap();
    rig.wait(process.wait_for_exit(Some(Duration::from_secs(60)))).unwrap();
    assert_eq!(count(), "2", "it lives on behind a process that ended");
    rig.wait(process.kill()).unwrap();
    assert_eq!(count(), "0", "and is killed as part of it");
    let process = rig.wait(sandbox.remote.start(format!("{detach}; exec sleep 1000")).run()).unwrap();
    sandbox.output("for n in $(seq 500); do [ $(pgrep -fc '^sleep 123') = 2 ] && break; sleep 0.02; done");
    assert_eq!(count(), "2");
    rig.wait(process.kill()).unwrap();
    assert_eq!(count(), "0", "killed with its process");
    for end in ["", "exit 0", "kill -9 $$", "exec true"] {
        let session = sandbox.remote.session("s").unwrap();
        rig.wait(session.exec(format!("{detach}; {end}"))).unwrap();
        assert_eq!(count(), "2", "{end}: a session's jobs live on");
        rig.wait(session.exec("true")).unwrap();
        rig.wait(session.delete()).unwrap();
        assert_eq!(count(), "0", "{end}: deleted with its session");
    }
});
