//! The probe, outside of any sandbox and inside.

#![expect(clippy::tests_outside_test_module, reason = "a test program is all tests")]

#[expect(dead_code, reason = "shared with test programs that use the rest of it")]
mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Home, ROOT, USER, chain, spec};
use sandcrab_runtime::image::host::{self, HostOptions};
use sandcrab_runtime::probe::{self, Report};
use sandcrab_runtime::{Driver, InstanceId, SandboxSpec};

/// Runs the probe as this user of a sandbox of the host image, with the defaults of the driver.
async fn inside(uid: u32) -> Report {
    let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join("host-image");
    let mut image = host::ensure(&images, &HostOptions::default()).expect("the host image");
    let home = Home::new();
    // The program comes in as one more layer of the image: a sandbox sees no file of the host.
    let layer = home.dir.path().join("probe");
    std::fs::create_dir(&layer).expect("a layer");
    std::fs::set_permissions(&layer, PermissionsExt::from_mode(0o755)).expect("its permissions");
    std::fs::copy(env!("CARGO_BIN_EXE_runtime-fixture"), layer.join("probe")).expect("the program");
    image.trees[0].layers.insert(0, layer);
    home.driver.add_image("probe", image);
    let id = InstanceId::random();
    let spec = SandboxSpec { image: "probe".into(), ..spec("probe") };
    home.driver.create(&id, &spec).await.unwrap_or_else(|error| panic!("create: {}", chain(&error)));
    let ran = home.run(&id, uid, "exec /probe __probe").await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    home.destroy(&id).await;
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

#[tokio::test]
async fn the_sandboxs_root_sees_this() {
    insta::assert_yaml_snapshot!("root", inside(ROOT).await.stable());
}

#[tokio::test]
async fn an_unprivileged_user_sees_this() {
    insta::assert_yaml_snapshot!("user", inside(USER).await.stable());
}

/// The same look from where nothing is refused: without it, `EPERM` inside could mean that the probe asks wrongly.
#[test]
fn outside_the_probe_finds_everything_open() {
    let report = probe::run();
    assert_eq!(report.identity.uids, [0; 4], "the isolation tests need root");
    assert!(!report.identity.no_new_privs);
    assert_eq!(report.identity.seccomp, "disabled");
    assert!(report.identity.capabilities["effective"].contains(&"sys_admin".to_owned()));
    for kind in ["cgroup", "ipc", "pid", "user", "uts"] {
        let namespace = &report.namespaces[kind];
        assert!(namespace.id.is_some(), "{kind}");
        assert!(namespace.initial.is_some(), "{kind}");
    }
    for (call, allowed) in [
        ("acct", "EFAULT"),
        ("add_key", "EFAULT"),
        ("bpf", "EINVAL"),
        ("chroot", "ok"),
        ("clone user", "ok"),
        ("clone3", "EINVAL"),
        ("fsopen", "ok"),
        ("keyctl", "ok"),
        ("mknod block", "ok"),
        ("mount", "EINVAL"),
        ("mount_setattr", "ok"),
        ("open_by_handle_at", "ESTALE"),
        ("open_tree", "ok"),
        ("pivot_root", "EBUSY"),
        ("setns", "EBADF"),
        ("sethostname", "EINVAL"),
        ("umount2", "EINVAL"),
        ("unshare mnt", "ok"),
        ("unshare user", "ok"),
        ("userfaultfd", "ok"),
    ] {
        assert_eq!(report.syscalls[call], allowed, "{call}");
    }
    for socket in ["inet stream", "netlink route", "packet raw", "unix stream"] {
        assert_eq!(report.sockets[socket], "ok", "{socket}");
    }
    #[cfg(target_arch = "x86_64")]
    assert_eq!(report.foreign_calls["x32 getpid"], "ENOSYS");
    assert_eq!(report.kernel_files["/sys/module"].read, "ok");
    assert_eq!(report.kernel_files["/proc/sys/kernel/core_pattern"].write, "ok");
    assert!(report.writable_sysctls.contains(&"/proc/sys/kernel/core_pattern".to_owned()));
    assert!(!report.writable_sysfs.is_empty());
    assert!(report.writable.contains(&"/usr".to_owned()));
    assert!(report.mounts.iter().any(|mount| mount.at == "/proc" && mount.kind == "proc"));
    assert!(report.devices["/dev/null"].starts_with("char 1:3 "));
    assert!(report.network.interfaces.contains(&"lo".to_owned()));
    assert!(report.network.addresses.contains(&"127.0.0.1".to_owned()));
    assert!(report.processes.contains_key(&std::process::id()));
    assert!(report.setuid_files > 0);
    assert!(report.cpus > 0);
}

#[test]
fn a_report_survives_json_and_is_stable() {
    let report = probe::run();
    let text = serde_json::to_string(&report).expect("a report as JSON");
    assert_eq!(serde_json::from_str::<Report>(&text).expect("the report back"), report);
    let stable = report.stable();
    assert_eq!(stable.clone().stable(), stable);
    assert!(stable.namespaces.values().all(|namespace| namespace.id.is_none()));
    assert_eq!(stable.kernel, "*");
}
