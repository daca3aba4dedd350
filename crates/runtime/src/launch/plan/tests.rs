//! The plans, held by snapshots.

use super::*;
use crate::SandboxSpec;
use crate::image::Tree;
use sandcrab_api::ids::SandboxId;
use sandcrab_api::sandbox::Limits;
use sandcrab_api::units::ByteSize;

fn image() -> Image {
    Image {
        key: "key".into(),
        trees: vec![
            Tree { at: "/".into(), layers: vec!["/data/image/root".into()] },
            Tree { at: "/usr".into(), layers: vec!["/data/image/usr".into(), "/usr".into()] },
        ],
        env: [("PIP_ROOT_USER_ACTION".to_owned(), "ignore".to_owned())].into(),
    }
}

fn spec(network: Network) -> SandboxSpec {
    SandboxSpec {
        sandbox: SandboxId::parse("User_1.x").unwrap(),
        image: "host".into(),
        limits: Limits { memory: Some(ByteSize(512 << 20)), ..Limits::default() },
        network,
        isolation: Default::default(),
        env: [("API_KEY".to_owned(), "k".to_owned())].into(),
    }
}

fn planned(ids: Ids, disk: Disk, network: Network) -> LaunchPlan {
    let image = image();
    let root = matches!(ids, Ids::Range { .. });
    let cgroups = ["/sys/fs/cgroup/memory/sandcrab/id/tasks".into()];
    let setting = Setting {
        image: &image,
        identity: &[IdentityFile { path: "/etc/hostname".into(), content: "x\n".into(), mode: 0o644 }],
        ids,
        disk,
        scratch: Path::new("/data/scratch"),
        pid_file: Path::new("/data/instances/id/pid"),
        cgroups: if root { &cgroups } else { &[] },
        delegated_cgroup: root,
        shown_cgroups: root.then(|| vec![vec!["cpu".into(), "cpuacct".into()], vec!["memory".into()]]),
        memory_cgroup: root,
        cpus: root.then_some(&[1][..]),
        memory: 512 << 20,
        may_lower_oom: root,
        open_files: 20_000,
        user_open_files: 4096,
        share: &Share {
            inotify_instances: 128,
            inotify_watches: 65_536,
            signals: 16_384,
            queue_bytes: 819_200,
            processes: 100,
            locked_bytes: 8 << 20,
        },
        seccomp: "BASE64",
        landlock: true,
        boot_id: "0b6c5a2e-1111-4222-8333-444455556666",
        program: (Path::new("/usr/local/bin"), "sandcrab"),
        agent_argv: &["sandcrab".into(), "agent".into()],
    };
    plan(&spec(network), &setting)
}

#[test]
fn a_root_servers_plan() {
    let ids = Ids::Range { first: 1_000_000, agent: 500 };
    let plan = planned(ids, Disk::Device, Network::Loopback);
    insta::assert_yaml_snapshot!(plan);
}

#[test]
fn a_rootless_servers_plan() {
    let disk = Disk::Directory("/data/instances/id/disk".into());
    insta::assert_yaml_snapshot!(planned(Ids::Single { uid: 1000, gid: 1001 }, disk, Network::Loopback));
}

#[test]
fn the_hosts_network_is_taken_only_when_asked_for() {
    let ids = Ids::Range { first: 1_000_000, agent: 500 };
    let own = planned(ids, Disk::Device, Network::Loopback);
    assert!(own.namespaces.net);
    let host = planned(ids, Disk::Device, Network::Host);
    assert!(!host.namespaces.net);
    // The host's own settings of its network are not a sandbox's to make.
    let touches = |op: &Op| match op {
        Op::LoopbackUp => true,
        Op::Write { path, .. } => path.starts_with("/proc/sys/net"),
        _ => false,
    };
    assert!(own.inside.iter().any(touches));
    assert!(!host.inside.iter().any(touches));
}

#[test]
fn the_agents_id_is_none_of_the_peoples() {
    let ids = Ids::Range { first: 1_000_000, agent: 500 };
    let plan = planned(ids, Disk::Device, Network::Loopback);
    assert_eq!(plan.namespaces.uid_map, [(0, 500, 1), (1, 1_000_000, ID_COUNT)]);
    let people = plan.inside.iter().find_map(|op| match op {
        Op::UserNamespace { first, count, .. } => Some((*first, *count)),
        _ => None,
    });
    assert_eq!(people, Some((1, ID_COUNT)), "the agent's 0 is not in it");
    assert_eq!(plan.config.identity.fs_uid, 1);
}

#[test]
fn host_names_are_made_of_any_sandbox_id() {
    assert_eq!(host_name("user-123"), "user-123");
    assert_eq!(host_name("a_b~c"), "a-b-c");
    assert_eq!(host_name("~~"), "sandbox");
    assert_eq!(host_name(&"x".repeat(63)).len(), 63);
}

#[test]
fn e02_an_agents_score_hides_little_memory() {
    assert_eq!(oom_score(8 << 20), -900, "all of it is less than that");
    assert_eq!(oom_score(512 << 20), -125);
    assert_eq!(oom_score(4 << 30), -16);
    assert_eq!(oom_score(1 << 50), -1);
    assert_eq!(oom_score(0), -900);
}
