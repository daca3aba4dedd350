use crate::harness::{OTHER, USER, World, at, code, give, ordinary_user};
use bytes::Bytes;
use sandcrab_api::{ApiError, ErrorCode};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

#[tokio::test]
async fn f01_a_write_is_whole_visible_and_the_users_when_confirmed() {
    let world = World::new();
    world.write("new/deep/file.txt", b"hello").await.unwrap();
    let path = world.host("/workspace/new/deep/file.txt");
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    let stat = std::fs::metadata(&path).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (USER, USER, 0o644));
    let folder = std::fs::metadata(world.host("/workspace/new")).unwrap();
    assert_eq!((folder.uid(), folder.mode() & 0o7777), (USER, 0o755));
    assert_eq!(world.names("/workspace/new/deep"), ["file.txt"]);
}

#[tokio::test]
async fn f01_an_existing_file_keeps_mode_and_owner_and_is_replaced_in_one_step() {
    let world = World::new();
    world.plant("workspace/run.sh", b"old", OTHER, 0o750);
    let before = std::fs::metadata(world.host("/workspace/run.sh")).unwrap();
    let mut old = std::fs::File::open(world.host("/workspace/run.sh")).unwrap();
    world.write("run.sh", b"new content").await.unwrap();
    let after = std::fs::metadata(world.host("/workspace/run.sh")).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode() & 0o7777), (OTHER, OTHER, 0o750));
    assert_ne!(before.ino(), after.ino());
    // Who has the old file open still reads all of the old.
    assert_eq!(std::io::read_to_string(&mut old).unwrap(), "old");
    world.write_mode("run.sh", b"#!", Some(0o600)).await.unwrap();
    assert_eq!(std::fs::metadata(world.host("/workspace/run.sh")).unwrap().mode() & 0o7777, 0o600);
    world.write_mode("fresh", b"", Some(0o777)).await.unwrap();
    assert_eq!(std::fs::metadata(world.host("/workspace/fresh")).unwrap().mode() & 0o7777, 0o777);
    assert_eq!(world.names("/workspace"), ["fresh", "run.sh"]);
    // A setgid folder gives its group to new files, and does not take an old file's.
    world.plant_directory("workspace/team", OTHER, 0o2777);
    world.plant("workspace/team/mine", b"", USER, 0o600);
    for (name, group) in [("mine", USER), ("new", OTHER)] {
        world.write(&format!("team/{name}"), b"x").await.unwrap();
        let stat = std::fs::metadata(world.host(&format!("/workspace/team/{name}"))).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (USER, group), "{name}");
    }
}

#[tokio::test]
async fn f01_a_final_link_is_followed_also_to_what_does_not_exist_yet() {
    let world = World::new();
    world.plant_directory("workspace/real", USER, 0o755);
    world.plant("workspace/real/a", b"old", USER, 0o644);
    world.plant_link("workspace/one", "two");
    world.plant_link("workspace/two", "/workspace/real/a");
    world.plant_link("workspace/dangling", "real/../real/b");
    world.write("one", b"through").await.unwrap();
    world.write("dangling", b"made").await.unwrap();
    assert_eq!(std::fs::read(world.host("/workspace/real/a")).unwrap(), b"through");
    assert_eq!(std::fs::read(world.host("/workspace/real/b")).unwrap(), b"made");
    for link in ["one", "two", "dangling"] {
        assert!(world.host(&format!("/workspace/{link}")).is_symlink(), "{link}");
    }
    world.plant_link("workspace/loop", "loop");
    assert_eq!(code(world.write("loop", b"").await), ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn f01_devices_fifos_sockets_directories_and_mount_points_are_refused() {
    let world = World::new();
    let fifo = world.host("/workspace/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o666.into()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.host("/workspace/socket")).unwrap();
    let null = rustix::fs::makedev(1, 3);
    let device = world.host("/workspace/null");
    rustix::fs::mknodat(rustix::fs::CWD, &device, rustix::fs::FileType::CharacterDevice, 0o666.into(), null)
        .unwrap();
    for name in ["fifo", "socket", "null"] {
        assert_eq!(code(world.write(name, b"x").await), ErrorCode::PermissionDenied, "{name}");
    }
    assert!(fifo.metadata().unwrap().file_type().is_fifo());
    assert!(device.metadata().unwrap().file_type().is_char_device());
    for name in ["/workspace", "/workspace/", "/", "..", ".", "new/"] {
        assert_eq!(code(world.write(name, b"x").await), ErrorCode::IsDirectory, "{name}");
    }

    world.plant("workspace/resolv.conf", b"below", USER, 0o644);
    world.plant("workspace/other", b"mounted", USER, 0o644);
    let target = world.host("/workspace/resolv.conf");
    rustix::mount::mount_bind(world.host("/workspace/other"), &target).unwrap();
    let mounted = crate::harness::Mounted(target);
    assert_eq!(code(world.write("resolv.conf", b"x").await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.delete(at("resolv.conf")).await), ErrorCode::PermissionDenied);
    assert_eq!(world.text("resolv.conf").await.unwrap(), "mounted");
    drop(mounted);
    world.write("resolv.conf", b"x").await.unwrap();
}

#[tokio::test]
async fn f01_a_client_that_vanishes_leaves_nothing_and_the_old_content() {
    let world = World::new();
    world.plant("workspace/kept", b"old", USER, 0o644);
    for size in [10, 3 << 20] {
        let broken = Err(ApiError::invalid("body", "could not be read to its end"));
        let parts = vec![Ok(Bytes::from(vec![b'x'; size])), broken];
        assert_eq!(code(world.write_parts("kept", parts, None).await), ErrorCode::ValidationFailed);
        // The future is dropped in the middle, as the router does when a connection breaks.
        let endless = futures_util::stream::unfold((), |()| async {
            tokio::task::yield_now().await;
            Some((Ok::<_, ApiError>(Bytes::from(vec![b'y'; 100_000])), ()))
        });
        let write = world.files.write(at("kept"), None, endless);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), write).await.is_err());
    }
    assert_eq!(std::fs::read(world.host("/workspace/kept")).unwrap(), b"old");
    assert_eq!(world.names("/workspace"), ["kept"]);
}

#[tokio::test]
async fn f01_concurrent_writers_leave_one_whole_content() {
    let world = World::new();
    let contents: Vec<Vec<u8>> = (0..8).map(|n| vec![b'a' + n; 1_500_000]).collect();
    for round in 0..4 {
        let name = format!("shared-{}", round / 2);
        let writes = contents.iter().map(|content| world.write(&name, content));
        for done in futures_util::future::join_all(writes).await {
            done.unwrap();
        }
        let left = std::fs::read(world.host(&format!("/workspace/{name}"))).unwrap();
        assert!(contents.contains(&left), "{} bytes, mixed", left.len());
    }
    assert_eq!(world.names("/workspace"), ["shared-0", "shared-1"]);
}

#[tokio::test]
async fn f01_a_full_disk_is_no_space_and_leaves_no_rest() {
    let world = World::new();
    let mounted = world.mount("/workspace/small", "tmpfs", "size=1m,mode=777");
    world.write("small/fits", &vec![1; 300_000]).await.unwrap();
    assert_eq!(code(world.write("small/large", &vec![2; 3_000_000]).await), ErrorCode::NoSpace);
    assert_eq!(code(world.write("small/fits", &vec![3; 3_000_000]).await), ErrorCode::NoSpace);
    assert_eq!(world.names("/workspace/small"), ["fits"]);
    assert_eq!(std::fs::read(world.host("/workspace/small/fits")).unwrap(), vec![1; 300_000]);
    // The room of what failed is free again, as soon as its file is closed behind the answer: positive control.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while let Err(error) = world.write("small/again", &vec![4; 600_000]).await {
        assert!(error.code == ErrorCode::NoSpace && std::time::Instant::now() < until, "{error:?}");
        tokio::task::yield_now().await;
    }
    drop(mounted);

    let _read_only = world.mount("/workspace/frozen", "tmpfs", "ro,mode=777");
    assert_eq!(code(world.write("frozen/x", b"").await), ErrorCode::ReadOnly);
}

#[tokio::test]
async fn f01_overlays_replace_files_of_lower_layers() {
    let world = World::new();
    for name in ["lower", "upper", "work", "merged"] {
        world.plant_directory(name, USER, 0o755);
    }
    world.plant("lower/config", b"shipped", USER, 0o640);
    let path = |name: &str| world.host(name).display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={}", path("lower"), path("upper"), path("work"));
    let _mounted = world.mount("/merged", "overlay", &options);
    world.write("/merged/config", b"mine").await.unwrap();
    world.write("/merged/new", b"new").await.unwrap();
    assert_eq!(world.text("/merged/config").await.unwrap(), "mine");
    assert_eq!(std::fs::read(world.host("/lower/config")).unwrap(), b"shipped");
    let stat = std::fs::metadata(world.host("/merged/config")).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (USER, 0o640));
    assert_eq!(world.names("/merged"), ["config", "new"]);
}

#[tokio::test]
async fn f01_what_cannot_keep_its_owner_is_refused_and_unchanged() {
    let world = World::of(&ordinary_user());
    world.plant("workspace/shared", b"old", OTHER, 0o777);
    assert_eq!(code(world.write("shared", b"new").await), ErrorCode::PermissionDenied);
    assert_eq!(std::fs::read(world.host("/workspace/shared")).unwrap(), b"old");
    // Written to as it stands, it stays the other's; what was asked for its mode is refused before anything is written.
    give(&world.host("/workspace/shared"), OTHER, 0o666);
    world.write("shared", b"new").await.unwrap();
    let stat = std::fs::metadata(world.host("/workspace/shared")).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (OTHER, 0o666));
    assert_eq!(code(world.write_mode("shared", b"x", Some(0o600)).await), ErrorCode::PermissionDenied);
    assert_eq!(std::fs::read(world.host("/workspace/shared")).unwrap(), b"new");
    give(&world.host("/workspace/shared"), USER, 0o666);
    world.write("shared", b"new").await.unwrap();
    give(&world.host("/workspace/shared"), USER, 0o444);
    assert_eq!(code(world.write("shared", b"again").await), ErrorCode::PermissionDenied);
    assert_eq!(world.names("/workspace"), ["shared"]);
}

#[tokio::test]
async fn x02_paths_through_files_and_missing_ones_have_their_codes() {
    let world = World::new();
    world.plant("workspace/file", b"", USER, 0o644);
    assert_eq!(code(world.write("file/below", b"").await), ErrorCode::NotDirectory);
    assert_eq!(code(world.text("missing").await), ErrorCode::FileNotFound);
    let long = "n/".repeat(2100);
    assert_eq!(code(world.write(&format!("{long}x"), b"").await), ErrorCode::NameTooLong);
    let error = world.text("missing").await.unwrap_err();
    assert_eq!(error.context["path"], "missing");
    assert!(error.message.contains("/workspace/missing"), "{}", error.message);
}
