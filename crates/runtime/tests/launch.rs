//! What files can do to a launch that reaches for them: those of an image, and those that hostile code has left for the
//! next start of its sandbox.
#![expect(clippy::tests_outside_test_module, clippy::unwrap_used, reason = "a test program is all tests")]

#[expect(dead_code, reason = "shared with test programs that use the rest of it")]
mod common;
#[macro_use]
#[path = "common/modes.rs"]
mod modes;

use common::{Home, ROOT, USER, chain, on_host, python};
use sandcrab_runtime::{Driver, DriverError, InstanceId, SandboxSpec};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

in_each_mode! {
    a30_a_start_follows_no_planted_link_out_of_the_sandbox,
    a30_whatever_lies_in_the_way_a_sandbox_starts_again,
    b14_the_spool_lies_on_the_disk_and_has_no_path_inside,
    c11_the_host_is_not_told_by_its_boot_or_its_disks,
    a04_terminals_and_devices_of_an_image_have_no_effect,
    a05_a_mount_target_that_is_swapped_for_a_link_leads_nowhere,
    a06_an_image_that_brings_its_own_proc_changes_nothing,
}

/// Ends the first process and starts the instance again.
async fn restart(home: &Home, id: &InstanceId) {
    let pid = rustix::process::Pid::from_raw(home.pid(id)).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    home.driver.wait_exit(id).await.unwrap();
    home.driver.start(id).await.unwrap_or_else(|error| panic!("start: {}", chain(&error)));
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn a30_a_start_follows_no_planted_link_out_of_the_sandbox(home: Home) {
    let id = home.create("a30").await;
    // Open to everyone: it is the path alone that must not lead there.
    let outside = tempfile::tempdir().unwrap();
    let host = outside.path().join("host");
    std::fs::create_dir(&host).unwrap();
    for directory in [outside.path(), &host] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let up = "../".repeat(24);
    for fd in 3..20 {
        // The descriptors of the launch stage, and the directory that its steps begin in.
        for link in [format!("/proc/self/fd/{fd}/{up}"), format!("/proc/thread-self/fd/{fd}/{up}")] {
            let plant = format!("rm -rf /var && ln -s {link}{} /var; echo planted", host.display());
            assert_eq!(home.run(&id, ROOT, &plant).await.stdout, "planted\n");
            restart(&home, &id).await;
            assert_eq!(entries(&host), [] as [String; 0], "{link}");
        }
    }
    for link in ["/proc/self/cwd/..", "/proc/self/root", "/proc/1/cwd", "/dev/fd/4"] {
        let plant = format!("rm -rf /var /root; ln -s {link}{} /var; ln -s {link}/x /root", host.display());
        home.run(&id, ROOT, &plant).await;
        restart(&home, &id).await;
        assert_eq!(entries(&host), [] as [String; 0], "{link}");
    }

    // Links of one's own are followed, inside.
    let honest = "rm -rf /var /root; mkdir -p /workspace/var /workspace/home; ln -s workspace/var /var; \
                  ln -s /workspace/home/../home /root; echo planted";
    assert_eq!(home.run(&id, ROOT, honest).await.stdout, "planted\n");
    restart(&home, &id).await;
    let ran =
        home.run(&id, USER, "stat -c %a /workspace/var/tmp; readlink /var /root; touch /var/tmp/x").await;
    assert_eq!(ran.stdout, "1777\nworkspace/var\n/workspace/home/../home\n", "{}", ran.stderr);
    home.destroy(&id).await;
}

async fn a30_whatever_lies_in_the_way_a_sandbox_starts_again(home: Home) {
    let id = home.create("a30-way").await;
    for plant in [
        "rm -rf /tmp /var /root; touch /tmp /var /root",
        "rm -rf /tmp /var; ln -s tmp /tmp; ln -s /nowhere/at/all /var",
        "rm -rf /tmp /var; mkfifo /tmp; mkdir -p /var; ln -s /dev/zero /var/tmp",
        "rm -rf /tmp; ln -s $(printf 'x/%.0s' {1..2000}) /tmp",
        "chmod 0 / /workspace /var; chown 1000:1000 /",
        "rm -rf /.sandcrab; ln -s /proc/self/fd/8 /.sandcrab; rm -rf /etc /sbin",
    ] {
        let planted = home.run(&id, ROOT, &format!("{plant}; echo planted")).await;
        assert!(planted.stdout.ends_with("planted\n"), "{plant}: {}", planted.stderr);
        restart(&home, &id).await;
        let ran = home.run(&id, ROOT, "chmod 755 / /workspace; ls -d /workspace").await;
        assert_eq!(ran.stdout, "/workspace\n", "{plant}: {}", ran.stderr);
    }
    // What it mounts on cannot be taken away from inside.
    let held =
        home.run(&id, ROOT, "rmdir /proc /dev /sys /run; mv /proc /p; mv /dev /d; ls -d /proc /dev").await;
    assert_eq!(held.stdout, "/dev\n/proc\n", "{}", held.stderr);
    home.destroy(&id).await;
}

/// With a root driver only: a rootless one has no disks, and would fill the machine's.
#[test]
fn a30_a_full_disk_does_not_keep_a_sandbox_from_starting() {
    common::as_root(full_disk);
}

async fn full_disk(home: Home) {
    let blocks = "cat /dev/zero > /workspace/fill";
    let inodes = "true";
    for fill in [blocks, inodes] {
        let id = InstanceId::random();
        let mut spec = common::spec("a30-full");
        spec.limits.disk = Some(sandcrab_api::units::ByteSize(16 << 20));
        home.driver.create(&id, &spec).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        // Directories take the last blocks, or the last inodes.
        let script = format!(
            "rm -rf /var /tmp; {fill} 2>/dev/null; n=0; while mkdir /workspace/d$n; do n=$((n+1)); done; df -i / | tail -1"
        );
        let full = home.run(&id, ROOT, &script).await;
        assert!(full.stderr.contains("No space left"), "{}", full.stderr);
        restart(&home, &id).await;
        let ran = home.run(&id, ROOT, "rm -rf /workspace/*; mkdir /more && echo room").await;
        assert_eq!(ran.stdout, "room\n", "{}", ran.stderr);
        home.destroy(&id).await;
    }
}

async fn b14_the_spool_lies_on_the_disk_and_has_no_path_inside(home: Home) {
    let id = home.create("spool").await;
    let pid = home.pid(&id);
    let fds = on_host(&format!("ls -l /proc/{pid}/fd"));
    let spool = fds.lines().find(|line| line.ends_with("/spool")).unwrap_or_else(|| panic!("{fds}"));
    assert!(spool.contains(" 8 -> "), "{spool}");
    let ran = home
        .run(
            &id,
            ROOT,
            "ls -a / | grep -c -e sandcrab -e spool; find / -xdev -name spool -inum +0 2>/dev/null | head",
        )
        .await;
    assert_eq!(ran.stdout.lines().next(), Some("0"), "{}", ran.stdout);
    // It is on the disk whose size is the sandbox's limit, and nothing else of the host's is.
    let disk = on_host(&format!("stat -fL -c '%T %b' /proc/{pid}/fd/8; stat -L -c '%a %U' /proc/{pid}/fd/8"));
    assert!(disk.starts_with("ext2/ext3 "), "{disk}");
    assert!(disk.contains("\n700 "), "{disk}");
    home.destroy(&id).await;
}

async fn c11_the_host_is_not_told_by_its_boot_or_its_disks(home: Home) {
    let (one, two) = (home.create("host-1").await, home.create("host-2").await);
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let host = on_host(boot);
    let ids = [home.run(&one, ROOT, boot).await.stdout, home.run(&two, USER, boot).await.stdout];
    assert!(ids.iter().all(|id| id.len() == host.len() && *id != host), "{ids:?}");
    assert_ne!(ids[0], ids[1]);
    restart(&home, &one).await;
    assert_ne!(home.run(&one, ROOT, boot).await.stdout, ids[0], "it is of one start");
    let shown = "cat /proc/{diskstats,partitions,cmdline,softirqs,config.gz} /proc/pressure/* 2>/dev/null; \
                 ls /sys/block /sys/class/bdi /sys/class/block /sys/dev/block /sys/devices/virtual/bdi 2>/dev/null | grep -v :$";
    assert!(on_host(shown).contains("loop"), "the host has it");
    let ran = home.run(&one, ROOT, shown).await;
    assert_eq!(ran.stdout.trim(), "", "{}", ran.stdout);
    // A cover is not to be written through, nor taken for a device.
    let write =
        home.run(&one, ROOT, "echo x > /proc/keys; echo x > /proc/diskstats; stat -c %F /proc/keys").await;
    assert_eq!(write.stdout, "regular empty file\n");
    assert_eq!(write.stderr.matches("Read-only file system").count(), 2, "{}", write.stderr);
    home.destroy(&one).await;
    home.destroy(&two).await;
}

/// Makes an image known whose topmost layer is `layer`.
fn add_image(home: &Home, name: &str, layer: &Path) {
    let mut image = common::image(home.dir.path());
    image.trees[0].layers.insert(0, layer.into());
    home.driver.add_image(name, image);
}

async fn a04_terminals_and_devices_of_an_image_have_no_effect(home: Home) {
    let layer = home.dir.path().join("layer");
    let sentinel = home.dir.path().join("sentinel");
    std::fs::write(&sentinel, "host").unwrap();
    std::fs::create_dir_all(layer.join("dev/pts")).unwrap();
    for name in ["pts/0", "pts/ptmx", "console", "ptmx", "null", "tty", "stdin", "shm", "mqueue"] {
        symlink(&sentinel, layer.join("dev").join(name)).unwrap();
    }
    add_image(&home, "terminals", &layer);
    let id = InstanceId::random();
    let spec = SandboxSpec { image: "terminals".into(), ..common::spec("a04") };
    home.driver.create(&id, &spec).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let script = python(
        "
import pty
ours, theirs = pty.openpty()
os.write(ours, b'typed\\n')
print(os.ttyname(theirs), os.read(theirs, 6))
print(os.readlink('/dev/ptmx'), os.readlink('/dev/stdin'), os.path.exists('/dev/console'))
open('/dev/null', 'w').write('x')
print([name for name in os.listdir('/dev') if os.path.islink('/dev/' + name) and 'sentinel' in os.readlink('/dev/' + name)])
",
    );
    let ran = home.run(&id, ROOT, &script).await;
    assert_eq!(ran.stdout, "/dev/pts/0 b'typed\\n'\npts/ptmx /proc/self/fd/0 False\n[]\n", "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&sentinel).unwrap(), "host");
    home.destroy(&id).await;
}

async fn a05_a_mount_target_that_is_swapped_for_a_link_leads_nowhere(home: Home) {
    let target = home.dir.path().join("target");
    std::fs::create_dir_all(target.join("shm")).unwrap();
    let layer = home.dir.path().join("layer");
    let stop = std::sync::atomic::AtomicBool::new(false);
    for name in ["dev", "run", "proc"] {
        std::fs::create_dir_all(layer.join(name)).unwrap();
        symlink(&target, layer.join(format!("{name}-link"))).unwrap();
    }
    add_image(&home, "swapped", &layer);
    let swap = || {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let directory = std::fs::File::open(&layer).unwrap();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            for name in ["dev", "run", "proc"] {
                rustix::fs::renameat_with(&directory, name, &directory, format!("{name}-link"), flags)
                    .unwrap();
            }
        }
    };
    let (mut made, mut refused) = (0, 0);
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        scope.spawn(swap);
        for _ in 0..60 {
            let id = InstanceId::random();
            let spec = SandboxSpec { image: "swapped".into(), ..common::spec("a05") };
            let created = tokio::task::block_in_place(|| runtime.block_on(home.driver.create(&id, &spec)));
            match created {
                Ok(_) => {
                    made += 1;
                    tokio::task::block_in_place(|| runtime.block_on(home.destroy(&id)));
                }
                Err(DriverError::Launch { failure, .. }) => {
                    refused += 1;
                    assert!(
                        ["/dev", "/run", "/proc"].iter().any(|name| failure.op.contains(name)),
                        "{failure}"
                    );
                }
                Err(error) => panic!("{}", chain(&error)),
            }
            assert_eq!(entries(&target), ["shm"]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(refused > 0 && made + refused == 60, "{made} made, {refused} refused");
    assert_eq!(entries(&target.join("shm")), [] as [String; 0]);
}

async fn a06_an_image_that_brings_its_own_proc_changes_nothing(home: Home) {
    let layer = home.dir.path().join("layer");
    let content = "NoNewPrivs:\t1\nCapBnd:\t0000000000000000\n";
    let fake =
        ["proc/sys/user/max_user_namespaces", "proc/1/status", "proc/self/status", "proc/self/oom_score_adj"];
    for path in fake {
        let path = layer.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    add_image(&home, "fake", &layer);
    let id = InstanceId::random();
    let spec = SandboxSpec { image: "fake".into(), ..common::spec("a06") };
    home.driver.create(&id, &spec).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let script = "grep -c NoNewPrivs /proc/sys/user/max_user_namespaces; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status";
    let ran = home.run(&id, ROOT, script).await;
    assert_eq!(ran.stdout, "0\nNoNewPrivs:\t1\nSeccomp:\t2\n", "{}", ran.stderr);
    // What is really in force, from outside.
    let status = on_host(&format!("grep -E '^(NoNewPrivs|CapBnd):' /proc/{}/status", home.pid(&id)));
    // With one uid for all, what user code may have can only come from what the agent has.
    let bound = if home.is_rootless() { "405ff" } else { "000ff" };
    assert_eq!(status, format!("CapBnd:\t00000000000{bound}\nNoNewPrivs:\t1\n"));
    for path in fake {
        assert_eq!(std::fs::read_to_string(layer.join(path)).unwrap(), content, "{path}");
    }
    home.destroy(&id).await;
}
