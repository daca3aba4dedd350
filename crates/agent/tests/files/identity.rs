use crate::harness::{OTHER, USER, World, at, code, give, open, ordinary_user, root_user};
use sandcrab_agent::files::Files;
use sandcrab_api::ErrorCode;
use sandcrab_api::launch::UserIdentity;
use std::os::unix::fs::MetadataExt;

#[tokio::test]
async fn f02_the_users_root_reaches_what_its_capabilities_reach() {
    let world = World::new();
    world.plant_directory("home", OTHER, 0o700);
    world.plant("home/private", b"of another user", OTHER, 0o600);
    assert_eq!(world.text("/home/private").await.unwrap(), "of another user");
    world.write("/home/private", b"changed").await.unwrap();
    let stat = std::fs::metadata(world.host("/home/private")).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o777), (OTHER, 0o600));
    world.write("/home/new", b"").await.unwrap();
    assert_eq!(std::fs::metadata(world.host("/home/new")).unwrap().uid(), USER);
    world.files.delete(at("/home/private")).await.unwrap();

    // Each of it is refused to a user without capabilities.
    let world = World::of(&ordinary_user());
    world.plant_directory("home", OTHER, 0o700);
    world.plant("home/private", b"", OTHER, 0o600);
    assert_eq!(code(world.text("/home/private").await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.write("/home/new", b"").await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.delete(at("/home/private")).await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.list(at("/home"), false, false).await), ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn f02_what_belongs_to_the_agent_is_beyond_the_users_root() {
    let world = World::new();
    // Uid 0 is the agent's in these tests.
    world.plant_directory("spool", 0, 0o700);
    world.plant("spool/open-to-all", b"secret", USER, 0o666);
    world.plant("workspace/agents", b"secret", 0, 0o600);
    world.plant_directory("sticky", 0, 0o1777);
    world.plant("sticky/agents", b"secret", 0, 0o600);
    world.plant_link("workspace/link", "/spool/open-to-all");
    world.plant_link("workspace/up", "/spool/..");
    for path in ["/spool/open-to-all", "agents", "link", "/sticky/agents", "/spool/../workspace/agents"] {
        assert_eq!(code(world.text(path).await), ErrorCode::PermissionDenied, "{path}");
        assert_eq!(code(world.write(path, b"x").await), ErrorCode::PermissionDenied, "{path}");
        assert_eq!(
            code(world.files.content("readFileStream", at(path)).await.map(|_| ())),
            ErrorCode::PermissionDenied,
            "{path}"
        );
    }
    assert_eq!(code(world.files.list(at("/spool"), false, true).await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.exists(at("/spool/open-to-all")).await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.mkdir(at("/spool/x"), true, None).await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.delete(at("/spool/open-to-all")).await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.delete(at("/sticky/agents")).await), ErrorCode::PermissionDenied);
    assert_eq!(
        code(world.files.rename(at("/spool/open-to-all"), at("x")).await),
        ErrorCode::PermissionDenied
    );
    assert_eq!(
        code(world.files.rename(at("/workspace/link"), at("/spool/x")).await),
        ErrorCode::PermissionDenied
    );
    assert_eq!(code(world.files.move_to(at("/spool"), at("x")).await), ErrorCode::PermissionDenied);
    let recursive = world.files.list(at("/"), true, true).await.unwrap();
    assert!(
        !recursive.iter().any(|file| file.name == "open-to-all" && file.absolute_path.starts_with("/spool"))
    );
    // What the agent's bits allow to others is open to the user as to anybody.
    give(&world.host("/workspace/agents"), 0, 0o644);
    assert_eq!(world.text("agents").await.unwrap(), "secret");
    assert_eq!(code(world.write("agents", b"x").await), ErrorCode::PermissionDenied);
    world.write("/sticky/mine", b"").await.unwrap();
    world.files.delete(at("/sticky/mine")).await.unwrap();
}

#[tokio::test]
async fn f02_without_a_switch_the_calls_drop_what_the_user_lacks() {
    // Rootless: agent and user share one uid, here 0; the user has no capability at all.
    let user = UserIdentity { can_switch: false, capabilities: 0, fs_uid: 1, fs_gid: 1, ..root_user() };
    let world = World::of(&user);
    give(&world.host("/workspace"), 0, 0o755);
    world.plant("workspace/theirs", b"x", OTHER, 0o600);
    assert_eq!(code(world.text("theirs").await), ErrorCode::PermissionDenied);
    world.write("own", b"mine").await.unwrap();
    assert_eq!(std::fs::metadata(world.host("/workspace/own")).unwrap().uid(), 0);
    assert_eq!(world.text("own").await.unwrap(), "mine");
    // With the capability it is allowed: the refusal above was the identity's.
    let capable = Files::below(open(&world.root), &UserIdentity { capabilities: u64::MAX, ..user }).unwrap();
    assert_eq!(capable.read(at("theirs"), None).await.unwrap().content, "x");
}

#[tokio::test]
async fn f02_other_work_on_the_same_threads_keeps_the_agents_identity() {
    let world = World::new();
    for n in 0..50 {
        let name = format!("f{n}");
        let (done, identity) = tokio::join!(
            world.write(&name, b"x"),
            tokio::task::spawn_blocking(|| {
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                let line =
                    |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
                (line("Uid:"), line("CapEff:"), line("Groups:"))
            })
        );
        done.unwrap();
        let main = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let (uid, capabilities, groups) = identity.unwrap();
        for line in [uid, capabilities, groups] {
            assert!(main.contains(&line), "{line}");
        }
    }
}
