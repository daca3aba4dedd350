//! What code inside a sandbox may try, and what must come of it. Each case runs with a root and with a rootless driver,
//! as the sandbox's root and as another user where there is one, with the system call filter and without
//! ([`Home::modes`]), beside a control that shows that the same action works where it is allowed.
#![expect(clippy::tests_outside_test_module, reason = "a test program is all tests")]
#![expect(clippy::unwrap_used, reason = "a test program is all tests")]

mod common;
#[macro_use]
#[path = "common/modes.rs"]
mod modes;

use common::{Home, Mode, ROOT, chain, on_host, python, spec};
use sandcrab_api::sandbox::Network;
use sandcrab_runtime::image::Image;
use sandcrab_runtime::{Driver, InstanceId, SandboxSpec};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

in_each_mode! {
    a02_no_descriptor_of_the_host_is_open_at_the_start,
    a03_an_image_with_links_for_mount_points_is_refused,
    a07_chroot_and_pivot_root_lead_nowhere,
    a08_mounts_stay_as_they_are,
    a09_a10_no_new_namespaces,
    a11_other_namespaces_cannot_be_entered,
    a12_setuid_programs_and_file_capabilities_give_nothing,
    a13_the_kernels_switches_are_out_of_reach,
    a14_control_groups_are_out_of_reach,
    a15_devices_are_the_harmless_ones,
    a16_a17_the_agent_cannot_be_looked_into,
    a18_a19_kernel_interfaces_are_closed,
    a20_other_architectures_calls_do_not_exist,
    a21_nothing_is_typed_into_a_terminal,
    a23_signals_reach_only_the_sandboxs_own,
    a24_sockets_of_the_host_and_of_siblings_are_out_of_reach,
    a25_shared_memory_is_the_sandboxs_own,
    a28_the_agent_cannot_be_disturbed,
    c03_servers_of_the_host_are_unreachable,
}

/// Runs an attack in every mode and checks each line that it prints: `what: outcome`.
async fn attack(home: &Home, id: &InstanceId, script: &str, refused: impl Fn(Mode, &str, &str) -> bool) {
    attack_as(home, id, home.modes(), script, refused).await;
}

/// As [`attack`], in some modes only.
async fn attack_as(
    home: &Home,
    id: &InstanceId,
    modes: impl Iterator<Item = Mode>,
    script: &str,
    refused: impl Fn(Mode, &str, &str) -> bool,
) {
    for mode in modes {
        let ran = home.run_as(id, mode, script).await;
        assert_eq!(ran.code, Some(0), "{mode:?}: {}{}", ran.stdout, ran.stderr);
        assert!(!ran.stdout.is_empty(), "{mode:?}: the attack was not made");
        for line in ran.stdout.lines() {
            let (what, outcome) = line.split_once(": ").unwrap_or_else(|| panic!("{mode:?}: {line}"));
            assert!(refused(mode, what, outcome), "{mode:?}: {what} came to {outcome}");
        }
    }
}

/// The outcomes of a script on the host, as `what: outcome` lines. It takes root's rights: the rootless variant of a test
/// rests on the control of the other.
fn control(script: &str, works: impl Fn(&str, &str) -> bool) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let output = on_host(script);
    assert!(!output.is_empty(), "the control did nothing");
    for line in output.lines() {
        let (what, outcome) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
        assert!(works(what, outcome), "on the host, {what} came to {outcome}");
    }
}

async fn a02_no_descriptor_of_the_host_is_open_at_the_start(home: Home) {
    let id = home.create("a02").await;
    let script = "for fd in /proc/self/fd/*; do echo \"${fd##*/}: $(readlink $fd || echo gone)\"; done; \
                  for n in 3 4 5 6 7 8 9; do cd /proc/self/fd/$n 2>/dev/null && echo \"cwd $n: entered\"; done; true";
    attack(&home, &id, script, |_, what, outcome| match what {
        "0" => outcome == "/dev/null",
        "1" | "2" => outcome.starts_with("pipe:"),
        // bash's own, for the glob.
        _ => outcome == "gone",
    })
    .await;
    let agent = on_host(&format!("ls /proc/{}/fd | wc -l", home.pid(&id)));
    assert!(agent.trim().parse::<u32>().unwrap() > 3, "the agent has descriptors to leak");
    home.destroy(&id).await;
}

async fn a03_an_image_with_links_for_mount_points_is_refused(home: Home) {
    for name in ["proc", "dev", "sys", "run"] {
        let target = home.dir.path().join(format!("target-{name}"));
        std::fs::create_dir(&target).unwrap();
        let layer = home.dir.path().join(format!("layer-{name}"));
        std::fs::create_dir(&layer).unwrap();
        std::os::unix::fs::symlink(&target, layer.join(name)).unwrap();
        let mut image: Image = common::image(home.dir.path());
        image.trees[0].layers.insert(0, layer);
        home.driver.add_image(name, image);
        let id = InstanceId::random();
        let spec = SandboxSpec { image: name.into(), ..spec("a03") };
        let error = home.driver.create(&id, &spec).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains(&format!("/{name}")), "{text}");
        assert!(text.contains("symbolic link"), "{text}");
        assert!(std::fs::read_dir(&target).unwrap().next().is_none(), "nothing was mounted or written there");
    }
    assert!(home.driver.list().await.unwrap().is_empty());
    let id = home.create("a03").await;
    home.destroy(&id).await;
}

async fn a07_chroot_and_pivot_root_lead_nowhere(home: Home) {
    let id = home.create("a07").await;
    let sentinel = home.dir.path().join("sentinel");
    std::fs::write(&sentinel, "host").unwrap();
    let script = python(&format!(
        "
root = os.open('/', os.O_RDONLY)
jail = '/tmp/jail%d' % os.getpid()
os.makedirs(jail)
jailed = attempt(lambda: os.chroot(jail))
if jailed == 'ok':
    os.fchdir(root)
    for _ in range(64): os.chdir('..')
    jailed = attempt(lambda: os.chroot('.'))
os.rmdir(jail)
print('chroot:', jailed if os.path.exists('/etc/passwd') else 'lost')
print('sentinel:', attempt(lambda: os.stat('{}')))
print('pivot_root:', call(155, b'.', b'.'))
",
        sentinel.display()
    ));
    attack(&home, &id, &script, |mode, what, outcome| match what {
        // Root may, and ends in its own root; others may not.
        "chroot" => outcome == if mode.uid == ROOT { "ok" } else { "EPERM" },
        "sentinel" => outcome == "ENOENT",
        "pivot_root" => outcome == "EPERM",
        _ => false,
    })
    .await;
    control(&script, |what, outcome| what == "pivot_root" || outcome == "ok");
    home.destroy(&id).await;
}

async fn a08_mounts_stay_as_they_are(home: Home) {
    let id = home.create("a08").await;
    let script = python(
        "
os.makedirs('/tmp/m', exist_ok=True)
MS_REMOUNT, MS_BIND = 32, 4096
print('mount:', call(165, b'tmpfs', b'/tmp/m', b'tmpfs', 0, None))
print('bind:', call(165, b'/usr', b'/tmp/m', None, MS_BIND, None))
print('remount:', call(165, None, b'/proc/sys', None, MS_REMOUNT | MS_BIND, None))
print('umount:', call(166, b'/proc/keys', 2))
print('open_tree:', call(428, -100, b'/usr', 1))
print('fsopen:', call(430, b'tmpfs', 0))
print('mount_setattr:', call(442, -100, b'/proc/sys', 0, ctypes.create_string_buffer(32), 32))
print('move_mount:', call(429, -100, b'/usr', -100, b'/tmp/m', 0))
",
    );
    attack(&home, &id, &script, |_, _, outcome| outcome == "EPERM").await;
    control(
        &format!("unshare -m -- bash -c {}", quote(&script.replace("/proc/keys'", "/tmp/m'"))),
        // The other two want a mount point that the host may not have there.
        |what, outcome| outcome == "ok" || matches!(what, "move_mount" | "remount"),
    );
    let keys = home.run(&id, ROOT, "cat /proc/keys | wc -c").await;
    assert_eq!(keys.stdout.trim(), "0", "it is still covered");
    home.destroy(&id).await;
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

async fn a09_a10_no_new_namespaces(home: Home) {
    let id = home.create("a10").await;
    let script = python(
        "
import signal
for name, flag in [('mnt', 0x20000), ('cgroup', 0x02000000), ('uts', 0x04000000), ('ipc', 0x08000000),
                   ('user', 0x10000000), ('pid', 0x20000000), ('net', 0x40000000), ('user and net', 0x50000000)]:
    child = os.fork()
    if child == 0:
        print('unshare %s:' % name, call(272, flag), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print('clone %s:' % name, call(56, flag | signal.SIGCHLD, 0, 0, 0, 0), flush=True)
print('clone3 user:', call(435, (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, signal.SIGCHLD), 64), flush=True)
",
    );
    attack(&home, &id, &script, |mode, what, outcome| match (mode.filtered, what) {
        (true, "clone3 user") => outcome == "ENOSYS",
        (true, _) => outcome == "EPERM",
        // Without the filter the kernel's own bound refuses: this sandbox may have no further namespace.
        (false, _) => matches!(outcome, "ENOSPC" | "EPERM"),
    })
    .await;
    control(&python("print('unshare user:', call(272, 0x10000000))"), |_, outcome| outcome == "ok");
    home.destroy(&id).await;
}

async fn a11_other_namespaces_cannot_be_entered(home: Home) {
    let id = home.create("a11").await;
    let script = python(
        "
for kind in ['mnt', 'pid', 'net', 'user', 'ipc', 'uts', 'cgroup']:
    print('open %s:' % kind, attempt(lambda: os.open('/proc/1/ns/' + kind, os.O_RDONLY)))
    own = os.open('/proc/self/ns/' + kind, os.O_RDONLY)
    print('setns %s:' % kind, call(308, own, 0))
pids = [int(p) for p in os.listdir('/proc') if p.isdigit()]
print('pids:', 'ok' if max(pids) > 1000 else 'few')
",
    );
    attack(&home, &id, &script, |_, what, outcome| {
        if what.starts_with("open") {
            outcome == "EACCES"
        } else if what == "pids" {
            outcome == "few"
        }
        // Entering the user namespace that one is in is EINVAL by itself.
        else {
            outcome == "EPERM" || (what == "setns user" && outcome == "EINVAL")
        }
    })
    .await;
    let own = python("print('setns uts:', call(308, os.open('/proc/self/ns/uts', os.O_RDONLY), 0))");
    control(&own, |_, outcome| outcome == "ok");
    home.destroy(&id).await;
}

async fn a12_setuid_programs_and_file_capabilities_give_nothing(home: Home) {
    let id = home.create("a12").await;
    let prepare =
        "cp /usr/bin/python3 /workspace/suid && chmod 4755 /workspace/suid && ls -l /workspace/suid";
    let prepared = home.run(&id, ROOT, prepare).await;
    assert!(prepared.stdout.starts_with("-rws"), "{}{}", prepared.stdout, prepared.stderr);
    let gain = "import os; print('euid:', os.geteuid())";
    for &uid in home.users() {
        let ran = home.run(&id, uid, &format!("/workspace/suid -c \"{gain}\"")).await;
        assert_eq!(ran.stdout, format!("euid: {uid}\n"), "{}", ran.stderr);
    }
    // CAP_SYS_ADMIN, effective, in a file that its owner executes (vfs_cap_data, version 2).
    let mark = python(
        "
data = bytes.fromhex('0100000200002000000000000000000000000000')
print('mark:', attempt(lambda: os.setxattr('/workspace/suid', 'security.capability', data)))
",
    );
    attack(&home, &id, &mark, |_, _, outcome| outcome == "EPERM").await;

    if home.is_rootless() {
        // The rest takes a second user.
        return home.destroy(&id).await;
    }
    let dir = home.dir.path().join("control");
    let control = on_host(&format!(
        "mkdir {0} && chmod 755 {1} {0} && cp /usr/bin/python3 {0}/suid && chmod 4755 {0}/suid && \
         setpriv --reuid 65534 --clear-groups {0}/suid -c \"{gain}\"",
        dir.display(),
        home.dir.path().display()
    ));
    assert_eq!(control, "euid: 0\n", "where nothing is in the way, a set-uid program gains");
    home.destroy(&id).await;
}

async fn a13_the_kernels_switches_are_out_of_reach(home: Home) {
    let id = home.create("a13").await;
    let script = python(
        "
for path in ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/fs/binfmt_misc/register',
             '/proc/sys/kernel/hostname', '/proc/sys/vm/drop_caches', '/proc/sys/net/ipv4/ip_forward',
             '/proc/sys/user/max_user_namespaces', '/proc/sys/kernel/ns_last_pid', '/proc/sysrq-trigger',
             '/proc/irq/default_smp_affinity', '/sys/kernel/uevent_helper', '/sys/power/state',
             '/sys/kernel/mm/ksm/run', '/sys/module/printk/parameters/time']:
    def write():
        with open(path, 'w') as file: file.write('')
    # What is covered by an empty device takes anything and does nothing.
    covered = os.path.exists(path) and os.stat(path).st_rdev == os.stat('/dev/null').st_rdev
    print(path + ':', 'covered' if covered else attempt(write))
",
    );
    attack(&home, &id, &script, |_, _, outcome| {
        matches!(outcome, "EROFS" | "EACCES" | "EPERM" | "ENOENT" | "covered")
    })
    .await;
    control(
        &python(
            "print('core_pattern:', attempt(lambda: os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY)))",
        ),
        |_, outcome| outcome == "ok",
    );
    home.destroy(&id).await;
}

async fn a14_control_groups_are_out_of_reach(home: Home) {
    let id = home.create("a14").await;
    let script = python(
        "
found = [at for at, _, files in os.walk('/sys/fs') if 'cgroup.procs' in files or 'release_agent' in files]
print('tree:', len(found))
for at in found:
    print('release agent:', attempt(lambda: os.stat(at + '/release_agent')))
    print('write group:', attempt(lambda: os.mkdir(at + '/inner')))
    for name in os.listdir(at):
        print('write %s/%s:' % (at, name), attempt(lambda: os.open(at + '/' + name, os.O_WRONLY)))
        print('write mode:', attempt(lambda: os.chmod(at + '/' + name, 0o666)))
    print('remount:', call(165, None, at.encode(), None, 32 | 4096, None))
print('mount:', call(165, b'cgroup', b'/tmp', b'cgroup2', 0, None))
for number in '0', '3', '4':
    print('agent fd %s:' % number, attempt(lambda: os.readlink('/proc/1/fd/' + number)))
for line in open('/proc/self/cgroup'):
    path = line.strip().split(':')[2]
    print('path:', 'own' if path == '/' else path)
",
    );
    attack(&home, &id, &script, |_, what, outcome| match what {
        // It sees its own groups, where it has any, as they are: read-only.
        "tree" => (outcome == "0") == home.is_rootless(),
        "release agent" => outcome == "ENOENT",
        "mount" | "remount" => outcome == "EPERM",
        "path" => outcome == "own",
        write if write.starts_with("write ") => matches!(outcome, "EROFS" | "EACCES"),
        // ENOENT: a number that the agent does not use.
        _ => matches!(outcome, "EACCES" | "ENOENT"),
    })
    .await;
    let on_host = on_host("cat /proc/*/cgroup | grep -c sandcrab || true");
    assert!(on_host.trim().parse::<u32>().unwrap() > 0, "from the host the group is seen");
    home.destroy(&id).await;
}

async fn a15_devices_are_the_harmless_ones(home: Home) {
    let id = home.create("a15").await;
    let script = python(
        "
import stat
for name, kind, device in [('mem', stat.S_IFCHR, os.makedev(1, 1)), ('null', stat.S_IFCHR, os.makedev(1, 3)),
                           ('disk', stat.S_IFBLK, os.makedev(254, 0)), ('loop', stat.S_IFBLK, os.makedev(7, 0))]:
    print('mknod %s:' % name, attempt(lambda: os.mknod('/tmp/%s%d' % (name, os.getpid()), 0o666 | kind, device)))
for path in ['mem', 'kmem', 'port', 'kmsg', 'kvm', 'fuse', 'loop-control', 'loop0', 'vda', 'net/tun', 'console', 'tty0']:
    print('open %s:' % path, attempt(lambda: os.open('/dev/' + path, os.O_RDONLY)))
",
    );
    attack(&home, &id, &script, |_, what, outcome| {
        if what.starts_with("mknod") { matches!(outcome, "EPERM" | "EACCES") } else { outcome == "ENOENT" }
    })
    .await;
    for mode in home.modes() {
        let fifo =
            home.run_as(&id, mode, "mkfifo /tmp/f$$ && head -c4 /dev/zero | wc -c && echo > /dev/null").await;
        assert_eq!((fifo.code, fifo.stdout.as_str()), (Some(0), "4\n"), "{}", fifo.stderr);
    }
    control(
        &format!(
            "cd {} && {}",
            home.dir.path().display(),
            python(
                "import stat; print('mknod:', attempt(lambda: os.mknod('null', 0o666 | stat.S_IFCHR, os.makedev(1, 3))))"
            )
        ),
        |_, outcome| outcome == "ok",
    );
    home.destroy(&id).await;
}

async fn a16_a17_the_agent_cannot_be_looked_into(home: Home) {
    let id = home.create("a17").await;
    let host_pid = std::process::id();
    let script = python(&format!(
        "
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
iov = (ctypes.c_uint64 * 2)(0, 8)
print('ptrace attach:', call(101, PTRACE_ATTACH, 1, 0, 0))
print('ptrace seize:', call(101, PTRACE_SEIZE, 1, 0, 0))
print('process_vm_readv:', call(310, 1, iov, 1, iov, 1, 0))
print('ptrace host:', call(101, PTRACE_SEIZE, {host_pid}, 0, 0))
for name in ['environ', 'mem', 'maps', 'auxv', 'stack', 'syscall', 'io', 'personality', 'timerslack_ns']:
    def read():
        with open('/proc/1/' + name, 'rb') as file:
            # What is covered by an empty device has nothing to read.
            if not file.read(1): raise OSError(errno.EACCES, 'covered')
    print('read %s:' % name, attempt(read))
for name in ['root', 'cwd', 'exe', 'fd/0']:
    print('link %s:' % name, attempt(lambda: os.readlink('/proc/1/' + name)))
    print('open %s:' % name, attempt(lambda: os.open('/proc/1/' + name, os.O_RDONLY)))
for task in os.listdir('/proc/1/task'):
    print('thread %s:' % task, attempt(lambda: os.readlink('/proc/1/task/%s/fd/0' % task)))
"
    ));
    attack(&home, &id, &script, |_, what, outcome| match what {
        "ptrace host" => outcome == "ESRCH" || outcome == "EPERM",
        _ => matches!(outcome, "EPERM" | "EACCES"),
    })
    .await;
    let own = python(
        "
child = os.fork()
if child == 0:
    import time
    time.sleep(60)
print('ptrace own child:', call(101, 0x4206, child, 0, 0))
print('read own environ:', attempt(lambda: open('/proc/self/environ').read()))
os.kill(child, 9)
",
    );
    for mode in home.modes() {
        let ran = home.run_as(&id, mode, &own).await;
        assert_eq!(ran.stdout, "ptrace own child: ok\nread own environ: ok\n", "{mode:?}: {}", ran.stderr);
    }
    let secrets = home.run(&id, ROOT, "tr '\\0' ' ' < /proc/1/cmdline; env").await;
    assert!(secrets.stdout.starts_with("fixture agent --config-fd 3"), "{}", secrets.stdout);
    assert!(!secrets.stdout.to_lowercase().contains("token"), "{}", secrets.stdout);
    home.destroy(&id).await;
}

async fn a18_a19_kernel_interfaces_are_closed(home: Home) {
    let id = home.create("a18").await;
    let script = python(
        "
buffer = ctypes.create_string_buffer(256)
for name, number, arguments in [
    ('bpf', 321, (0, buffer, 72)), ('perf_event_open', 298, (buffer, 0, -1, -1, 0)), ('userfaultfd', 323, (0,)),
    ('keyctl', 250, (0, -3, 0)), ('add_key', 248, (b'user', b'x', b'y', 1, -3)), ('request_key', 249, (b'user', b'x', None, 0)),
    ('kexec_load', 246, (0, 0, None, 0)), ('init_module', 175, (buffer, 8, b'')), ('finit_module', 313, (0, b'', 0)),
    ('delete_module', 176, (b'x', 0)), ('open_by_handle_at', 304, (-100, buffer, 0)),
    ('syslog', 103, (3, buffer, 16)), ('quotactl', 179, (0, None, 0, None)),
    ('swapon', 167, (b'/x', 0)), ('reboot', 169, (0, 0, 0, None)), ('acct', 163, (b'/x',)), ('iopl', 172, (3,)),
    ('sethostname', 170, (b'x', 1)), ('settimeofday', 164, (buffer, None)), ('kcmp', 312, (os.getpid(), 1, 0, 0, 0)),
    ('io_uring_setup', 425, (8, buffer)), ('io_uring_enter', 426, (0, 0, 0, 0, None, 0)),
]:
    print(name + ':', call(number, *arguments))
",
    );
    attack(&home, &id, &script, |mode, what, outcome| {
        if mode.filtered {
            return if what.starts_with("io_uring") { outcome == "ENOSYS" } else { outcome == "EPERM" };
        }
        // What needs no right in the kernel's own view is for the filter alone to refuse.
        let filter_only = [
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "keyctl",
            "add_key",
            "request_key",
            "io_uring_setup",
            "io_uring_enter",
            "kcmp",
            "syslog",
            "quotactl",
        ];
        // ENOSYS: this kernel was built without it. A handle is looked at before the right to use it.
        (what == "open_by_handle_at" && outcome == "EINVAL")
            || filter_only.contains(&what)
            || matches!(outcome, "EPERM" | "EACCES" | "ENOSYS")
    })
    .await;
    let safe = python(
        "
buffer = ctypes.create_string_buffer(256)
print('bpf:', call(321, 0, buffer, 72)); print('userfaultfd:', call(323, 0)); print('keyctl:', call(250, 0, -3, 0))
print('io_uring_setup:', call(425, 8, buffer))
",
    );
    control(&safe, |what, outcome| {
        !matches!(outcome, "EPERM" | "EACCES") && (outcome != "ENOSYS" || what == "io_uring_setup")
    });
    home.destroy(&id).await;
}

async fn a20_other_architectures_calls_do_not_exist(home: Home) {
    let id = home.create("a20").await;
    // mov eax, 20 (getpid of i386); int 0x80; ret
    let compatible = python(
        "
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex('b814000000cd80c3'))
run = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print('getpid:', run(), flush=True)
",
    );
    for &uid in home.users() {
        let ran = home.run(&id, uid, &compatible).await;
        // 128 + SIGSYS, as the shell would say; here python is the process itself.
        assert_eq!((ran.code, ran.stdout.as_str()), (None, ""), "{}", ran.stderr);
        let x32 = home.run(&id, uid, &python("print(call(0x40000000 | 39))")).await;
        assert_eq!(x32.stdout, "ENOSYS\n", "{}", x32.stderr);
        let native = home.run(&id, uid, &python("print(call(39))")).await;
        assert_eq!(native.stdout, "ok\n", "{}", native.stderr);
    }
    home.destroy(&id).await;
}

async fn a21_nothing_is_typed_into_a_terminal(home: Home) {
    let id = home.create("a21").await;
    let script = python(
        "
import fcntl, pty, termios
child, terminal = pty.fork()
if child == 0:
    for name, request in [('TIOCSTI', 0x5412), ('TIOCLINUX', 0x541c), ('TIOCCONS', 0x541d)]:
        print('%s:' % name, attempt(lambda: fcntl.ioctl(0, request, b'x')), flush=True)
    print('size:', attempt(lambda: fcntl.ioctl(0, termios.TIOCGWINSZ, b'x' * 8)), flush=True)
    os._exit(0)
seen = b''
try:
    while chunk := os.read(terminal, 1000): seen += chunk
except OSError: pass
print(seen.decode().replace('\\r', ''), end='')
",
    );
    for &uid in home.users() {
        let ran = home.run(&id, uid, &script).await;
        assert_eq!(
            ran.stdout, "TIOCSTI: EPERM\nTIOCLINUX: EPERM\nTIOCCONS: EPERM\nsize: ok\n",
            "{}",
            ran.stderr
        );
    }
    home.destroy(&id).await;
}

async fn a23_signals_reach_only_the_sandboxs_own(home: Home) {
    let id = home.create("a23").await;
    let sibling = home.create("sibling").await;
    home.run(&sibling, ROOT, "nohup setsid sleep 1000 >/dev/null 2>&1 & echo $!").await;
    let host_pid = std::process::id();
    let script = python(&format!(
        "
import signal
print('kill host:', attempt(lambda: os.kill({host_pid}, 0)))
print('pidfd host:', call(434, {host_pid}, 0))
print('tgkill host:', call(234, {host_pid}, {host_pid}, 9))
print('group host:', attempt(lambda: os.killpg({host_pid}, 9)))
"
    ));
    attack(&home, &id, &script, |_, _, outcome| outcome == "ESRCH").await;
    for mode in home.modes() {
        home.run_as(&id, mode, "sleep 1000 & kill -9 -1; kill -9 1; kill -STOP 1; kill -TERM 1; true").await;
        let alive = home.run(&id, ROOT, "echo alive").await;
        assert_eq!(alive.stdout, "alive\n", "{mode:?}");
    }
    let own = home.run(&id, ROOT, "sleep 1000 & kill -9 $!; wait $!; echo $?").await;
    assert_eq!(own.stdout, "137\n", "one's own process dies");
    let ran = home.run(&sibling, ROOT, "pgrep -c sleep").await;
    assert_eq!(ran.stdout, "1\n", "the sibling's process lives: {}", ran.stderr);
    home.destroy(&id).await;
    home.destroy(&sibling).await;
}

async fn a24_sockets_of_the_host_and_of_siblings_are_out_of_reach(home: Home) {
    let name = format!("sandcrab-test-{}", InstanceId::random());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let script = python(&format!(
        "
def reach(address):
    socket.socket(socket.AF_UNIX).connect(address)
print('abstract:', attempt(lambda: reach('\\0{name}')))
for path in ['/var/run/docker.sock', '/run/docker.sock', '/run/dbus/system_bus_socket', '/run/systemd/private']:
    print(path + ':', attempt(lambda: reach(path)))
"
    ));
    let id = home.create("a24").await;
    attack(&home, &id, &script, |_, what, outcome| {
        outcome == if what == "abstract" { "ECONNREFUSED" } else { "ENOENT" }
    })
    .await;

    // With the host's network the namespace does not help: the second layer does.
    let other = InstanceId::random();
    let host_network = SandboxSpec { network: Network::Host, ..spec("a24-host") };
    home.driver.create(&other, &host_network).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    attack(&home, &other, &script, |_, what, outcome| {
        outcome == if what == "abstract" { "EPERM" } else { "ENOENT" }
    })
    .await;
    let connect =
        format!("import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}'); print('reached')");
    assert_eq!(on_host(&format!("python3 -c {}", quote(&connect))), "reached\n");
    let sys = "ls /sys; ls /sys/class/net | grep -x lo; ls -A /sys/kernel /sys/firmware /sys/class/block; \
               for f in $(find /sys/devices/virtual/net/lo -writable -type f); do echo 1 2>/dev/null >$f && echo $f; done";
    let shown = home.run(&other, ROOT, sys).await;
    assert!(shown.stdout.starts_with("bus\nclass\ndev\ndevices\nfs\nmodule\nlo\n"), "{shown:?}");
    assert!(!shown.stdout.contains("/sys/devices"), "written: {shown:?}");
    home.destroy(&id).await;
    home.destroy(&other).await;
}

async fn a25_shared_memory_is_the_sandboxs_own(home: Home) {
    let (one, two) = (home.create("a25-1").await, home.create("a25-2").await);
    let make = python(
        "
print('shmget:', call(29, 0x5a5a, 4096, 0o1666))
print('mq_open:', call(240, b'a25', 0o100 | 2, 0o666, None))
print('file:', attempt(lambda: open('/dev/shm/a25', 'w')))
",
    );
    let find = python(
        "
print('shmget:', call(29, 0x5a5a, 4096, 0o666))
print('mq_open:', call(240, b'a25', 2, 0, None))
print('file:', attempt(lambda: open('/dev/shm/a25')))
",
    );
    let made = home.run(&one, ROOT, &make).await;
    assert_eq!(made.stdout, "shmget: ok\nmq_open: ok\nfile: ok\n", "{}", made.stderr);
    let found = home.run(&one, ROOT, &find).await;
    assert_eq!(found.stdout, made.stdout, "the same sandbox finds them");
    attack(&home, &two, &find, |_, _, outcome| outcome == "ENOENT").await;
    control(&find, |_, outcome| outcome == "ENOENT");
    home.destroy(&one).await;
    home.destroy(&two).await;
}

#[tokio::test]
async fn disks_of_siblings_are_not_even_named() {
    let home = Home::new();
    let (one, sibling) = (home.create("disk-1").await, home.create("disk-2").await);
    let script = "echo \"seen: $(cat /sys/block/*/loop/backing_file /sys/fs/ext4/* 2>/dev/null | wc -c)\"; \
                  echo \"device: $(df /tmp | grep -c loop)\"";
    attack(&home, &one, script, |_, _, outcome| outcome == "0").await;
    let seen = on_host("cat /sys/block/loop*/loop/backing_file");
    assert!(seen.contains(sibling.as_str()), "from the host they are seen");
    home.destroy(&one).await;
    home.destroy(&sibling).await;
}

async fn a28_the_agent_cannot_be_disturbed(home: Home) {
    let id = home.create("a28").await;
    let script = python(
        "
import resource, signal
def write(path, text):
    # What is covered by an empty device takes anything and does nothing.
    if os.stat(path).st_rdev == os.stat('/dev/null').st_rdev: raise OSError(errno.EACCES, 'covered')
    with open(path, 'w') as file: file.write(text)
limit = (ctypes.c_uint64 * 2)(3, 3)
print('prlimit:', call(302, 1, resource.RLIMIT_NOFILE, limit, None))
print('setpriority:', attempt(lambda: os.setpriority(os.PRIO_PROCESS, 1, 19)))
print('affinity:', attempt(lambda: os.sched_setaffinity(1, {0})))
print('scheduler:', attempt(lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))))
print('ioprio:', call(251, 1, 1, 0x6000))
print('stop:', attempt(lambda: os.kill(1, signal.SIGSTOP)))
print('term:', attempt(lambda: os.kill(1, signal.SIGTERM)))
for task in os.listdir('/proc/1/task'):
    for name in ['oom_score_adj', 'comm']:
        print('%s of %s:' % (name, task), attempt(lambda: write('/proc/1/task/%s/%s' % (task, name), '1000')))
for name in ['oom_score_adj', 'oom_adj', 'coredump_filter', 'clear_refs', 'autogroup', 'sched', 'timerslack_ns', 'uid_map', 'setgroups']:
    print(name + ':', attempt(lambda: write('/proc/1/' + name, '1')))
",
    );
    // With one uid for all, the filter alone keeps the agent's process id from being addressed.
    let rootless = home.is_rootless();
    let modes = home.modes().filter(|mode| mode.filtered || !rootless);
    attack_as(&home, &id, modes, &script, |_, what, outcome| {
        // Writing there only sets the scheduler's statistics of the process to 0.
        (what == "sched" && rootless) || matches!(outcome, "EPERM" | "EACCES" | "ENOENT" | "EROFS")
    })
    .await;
    // What is preloaded into everything that starts does not reach what already runs.
    let preload = "echo /nonexistent.so > /etc/ld.so.preload; echo >> /usr/bin/env; mv /usr/bin/bash /usr/bin/bash.old; \
                   cp /usr/bin/bash.old /usr/bin/bash; rm /etc/ld.so.preload; echo done";
    assert_eq!(home.run(&id, ROOT, preload).await.stdout, "done\n");
    let own = python(
        "
child = os.fork()
if child == 0:
    import time
    time.sleep(60)
print('setpriority:', attempt(lambda: os.setpriority(os.PRIO_PROCESS, child, 19)))
print('affinity:', attempt(lambda: os.sched_setaffinity(child, {0})))
print('oom_score_adj:', attempt(lambda: open('/proc/%d/oom_score_adj' % child, 'w').write('1000')))
os.kill(child, 9)
",
    );
    for mode in home.modes() {
        let ran = home.run_as(&id, mode, &own).await;
        assert_eq!(
            ran.stdout, "setpriority: ok\naffinity: ok\noom_score_adj: ok\n",
            "{mode:?}: {}",
            ran.stderr
        );
    }
    home.destroy(&id).await;
}

async fn c03_servers_of_the_host_are_unreachable(home: Home) {
    let id = home.create("c03").await;
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let addresses = on_host("hostname -I 2>/dev/null || true");
    let mut hosts: Vec<&str> = addresses.split_whitespace().collect();
    hosts.extend(["127.0.0.1", "localhost", "0.0.0.0", "::1", "169.254.169.254", "10.0.0.1"]);
    let script = python(&format!(
        "
for host in {hosts:?}:
    print(host + ' :', attempt(lambda: socket.create_connection((host, {port}), timeout=2)))
"
    ));
    attack(&home, &id, &script, |_, _, outcome| {
        matches!(outcome, "ECONNREFUSED" | "ENETUNREACH" | "EHOSTUNREACH" | "EADDRNOTAVAIL")
    })
    .await;
    let reach = format!(
        "print('127.0.0.1 :', attempt(lambda: socket.create_connection(('127.0.0.1', {port}), timeout=2)))"
    );
    control(&python(&reach), |_, outcome| outcome == "ok");
    let own = python(
        "
server = socket.create_server(('127.0.0.1', 80))
print('own:', attempt(lambda: socket.create_connection(('127.0.0.1', 80), timeout=2)))
",
    );
    for mode in home.modes() {
        let ran = home.run_as(&id, mode, &own).await;
        assert_eq!(ran.stdout, "own: ok\n", "{mode:?}: {}", ran.stderr);
    }
    home.destroy(&id).await;
}
