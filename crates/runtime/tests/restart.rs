//! What a sandbox's own files can do to its next start: hostile code had them in its hands.
#![expect(clippy::tests_outside_test_module, reason = "a test program is all tests")]

#[expect(dead_code, reason = "shared with test programs that use the rest of it")]
mod common;

use common::{Home, ROOT, USER, chain, on_host};
use sandcrab_runtime::{Driver, InstanceId};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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

#[tokio::test(flavor = "multi_thread")]
async fn a30_a_start_follows_no_planted_link_out_of_the_sandbox() {
    let home = Home::new();
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

#[tokio::test(flavor = "multi_thread")]
async fn a30_whatever_lies_in_the_way_a_sandbox_starts_again() {
    let home = Home::new();
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

#[tokio::test(flavor = "multi_thread")]
async fn a30_a_full_disk_does_not_keep_a_sandbox_from_starting() {
    let home = Home::new();
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

#[tokio::test(flavor = "multi_thread")]
async fn b14_the_spool_lies_on_the_disk_and_has_no_path_inside() {
    let home = Home::new();
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
