use crate::harness::{OTHER, USER, World, at, code, give, ordinary_user};
use sandcrab_api::ErrorCode;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[tokio::test]
async fn mkdir_makes_one_or_all_and_keeps_what_exists() {
    let world = World::new();
    let mkdir = |path: &str, recursive, mode| world.files.mkdir(at(path), recursive, mode);
    mkdir("a", false, None).await.unwrap();
    mkdir("b/c/../d/./e/", true, Some(0o700)).await.unwrap();
    let stat = std::fs::metadata(world.host("/workspace/b/d/e")).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (USER, 0o700));
    assert_eq!(std::fs::metadata(world.host("/workspace/b/d")).unwrap().mode() & 0o7777, 0o755);
    mkdir("b/d/e", true, Some(0o777)).await.unwrap();
    assert_eq!(std::fs::metadata(world.host("/workspace/b/d/e")).unwrap().mode() & 0o7777, 0o700);
    mkdir("/", true, None).await.unwrap();

    world.plant("workspace/file", b"", USER, 0o644);
    world.plant_link("workspace/dangling", "nowhere");
    assert_eq!(code(mkdir("a", false, None).await), ErrorCode::FileExists);
    assert_eq!(code(mkdir("/", false, None).await), ErrorCode::FileExists);
    assert_eq!(code(mkdir("x/y", false, None).await), ErrorCode::FileNotFound);
    for recursive in [false, true] {
        assert_eq!(code(mkdir("file", recursive, None).await), ErrorCode::FileExists);
        assert_eq!(code(mkdir("dangling", recursive, None).await), ErrorCode::FileExists);
        assert_eq!(code(mkdir("file/x", recursive, None).await), ErrorCode::NotDirectory);
    }
    world.plant_link("workspace/to-a", "a");
    mkdir("to-a", true, None).await.unwrap();
    mkdir("to-a/inside/deep", true, None).await.unwrap();
    assert!(world.host("/workspace/a/inside/deep").is_dir());
    let deepest = "d/".repeat(1500);
    mkdir(&deepest, true, None).await.unwrap();
    assert!(world.files.exists(at(&deepest)).await.unwrap());
}

#[tokio::test]
async fn delete_takes_files_and_links_but_no_directories() {
    let world = World::new();
    world.plant("workspace/file", b"x", OTHER, 0o000);
    world.plant_directory("workspace/dir", USER, 0o755);
    world.plant("workspace/dir/kept", b"x", USER, 0o644);
    world.plant_link("workspace/link", "dir/kept");
    world.plant_link("workspace/dirlink", "dir");
    world.files.delete(at("file")).await.unwrap();
    world.files.delete(at("link")).await.unwrap();
    for path in ["dir", "dir/", "dirlink/", "/", ".", "dir/.."] {
        assert_eq!(code(world.files.delete(at(path)).await), ErrorCode::IsDirectory, "{path}");
    }
    world.files.delete(at("dirlink")).await.unwrap();
    assert_eq!(code(world.files.delete(at("file")).await), ErrorCode::FileNotFound);
    assert_eq!(world.names("/workspace"), ["dir"]);
    assert_eq!(world.names("/workspace/dir"), ["kept"]);
}

#[tokio::test]
async fn rename_replaces_files_and_refuses_directories() {
    let world = World::new();
    let rename = |from: &str, to: &str| world.files.rename(at(from), at(to));
    world.plant("workspace/a", b"a", USER, 0o644);
    world.plant("workspace/b", b"b", USER, 0o644);
    world.plant_directory("workspace/dir", USER, 0o755);
    world.plant_directory("workspace/empty", USER, 0o755);
    rename("a", "b").await.unwrap();
    assert_eq!(world.text("b").await.unwrap(), "a");
    rename("dir", "dir2").await.unwrap();
    for (from, to, expected) in [
        ("b", "dir2", ErrorCode::FileExists),
        ("dir2", "empty", ErrorCode::FileExists),
        ("dir2", "/", ErrorCode::FileExists),
        ("dir2", "b", ErrorCode::NotDirectory),
        ("dir2", "dir2/below", ErrorCode::ValidationFailed),
        ("b", "c/", ErrorCode::NotDirectory),
        ("b", "missing/c", ErrorCode::FileNotFound),
        ("missing", "c", ErrorCode::FileNotFound),
        ("/", "c", ErrorCode::IsDirectory),
    ] {
        assert_eq!(code(rename(from, to).await), expected, "{from} -> {to}");
    }
    let error = rename("b", "missing/c").await.unwrap_err();
    assert_eq!(error.context["path"], "missing/c");

    // A link is renamed itself, and a link that stands in the way is replaced itself.
    world.plant_link("workspace/link", "b");
    world.plant_link("workspace/dirlink", "dir2");
    rename("link", "dirlink").await.unwrap();
    assert_eq!(std::fs::read_link(world.host("/workspace/dirlink")).unwrap().to_str(), Some("b"));
    // Two names of one file: the kernel would leave both.
    std::fs::hard_link(world.host("/workspace/b"), world.host("/workspace/twin")).unwrap();
    rename("b", "b").await.unwrap();
    rename("b", "twin").await.unwrap();
    assert_eq!(world.names("/workspace"), ["dir2", "dirlink", "empty", "twin"]);
}

#[tokio::test]
async fn move_goes_into_directories_and_otherwise_renames() {
    let world = World::new();
    let mv = |from: &str, to: &str| world.files.move_to(at(from), at(to));
    world.plant("workspace/a", b"a", USER, 0o644);
    world.plant_directory("workspace/dir", USER, 0o755);
    world.plant_directory("workspace/other", USER, 0o755);
    world.plant_link("workspace/to-dir", "dir");
    mv("a", "dir").await.unwrap();
    mv("dir/a", "b").await.unwrap();
    mv("b", "to-dir/").await.unwrap();
    assert_eq!(world.names("/workspace/dir"), ["b"]);
    mv("other", "dir").await.unwrap();
    assert_eq!(world.names("/workspace/dir"), ["b", "other"]);
    assert_eq!(code(mv("dir", "dir/other").await), ErrorCode::ValidationFailed);
    assert_eq!(code(mv("dir", ".").await), ErrorCode::FileExists);
    assert_eq!(code(mv("missing", "dir").await), ErrorCode::FileNotFound);
}

#[tokio::test]
async fn move_crosses_mounts_with_all_that_belongs_to_it() {
    let world = World::new();
    let _shm = world.mount("/shm", "tmpfs", "mode=1777");
    let mv = |from: &str, to: &str| world.files.move_to(at(from), at(to));
    world.plant("workspace/file", b"content", OTHER, 0o640);
    world.plant("shm/file", b"replaced", USER, 0o644);
    mv("file", "/shm").await.unwrap();
    let stat = std::fs::metadata(world.host("/shm/file")).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777, stat.len()), (OTHER, 0o640, 7));
    assert!(world.names("/workspace").is_empty());

    world.plant_directory("workspace/tree", USER, 0o755);
    world.plant_directory("workspace/tree/locked", OTHER, 0o500);
    world.plant("workspace/tree/locked/deep", b"deep", OTHER, 0o400);
    world.plant_link("workspace/tree/link", "../anywhere");
    world.plant("workspace/tree/empty", b"", USER, 0o600);
    // One byte at the end of a terabyte: the hole stays one, or this would never end.
    let sparse = std::fs::File::create(world.host("/workspace/tree/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"!", 1 << 40).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    sparse.set_modified(time).unwrap();
    give(&world.host("/workspace/tree/sparse"), USER, 0o644);
    mv("tree", "/shm/moved").await.unwrap();
    assert!(world.names("/workspace").is_empty());
    assert_eq!(world.names("/shm"), ["file", "moved"]);
    assert_eq!(world.names("/shm/moved"), ["empty", "link", "locked", "sparse"]);
    let locked = std::fs::metadata(world.host("/shm/moved/locked")).unwrap();
    assert_eq!((locked.uid(), locked.mode() & 0o7777), (OTHER, 0o500));
    assert_eq!(std::fs::read(world.host("/shm/moved/locked/deep")).unwrap(), b"deep");
    assert_eq!(std::fs::read_link(world.host("/shm/moved/link")).unwrap().to_str(), Some("../anywhere"));
    let sparse = std::fs::metadata(world.host("/shm/moved/sparse")).unwrap();
    assert_eq!((sparse.len(), sparse.modified().unwrap()), ((1 << 40) + 1, time));
    assert!(sparse.blocks() < 100);

    world.plant_link("workspace/link", "/shm/file");
    mv("link", "/shm/link").await.unwrap();
    assert_eq!(std::fs::read_link(world.host("/shm/link")).unwrap().to_str(), Some("/shm/file"));
    mv("/shm/moved", ".").await.unwrap();
    assert_eq!(world.names("/workspace/moved"), ["empty", "link", "locked", "sparse"]);
}

#[tokio::test]
async fn a_move_that_cannot_be_finished_leaves_all_as_it_was() {
    let world = World::new();
    let _shm = world.mount("/shm", "tmpfs", "size=1m,mode=1777");
    world.plant_directory("workspace/tree", USER, 0o755);
    world.plant("workspace/tree/a", b"a", USER, 0o644);
    rustix::fs::mkfifoat(rustix::fs::CWD, world.host("/workspace/tree/fifo"), 0o600.into()).unwrap();
    let error = world.files.move_to(at("tree"), at("/shm")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert!(error.message.contains("/workspace/tree/fifo"), "{}", error.message);
    std::fs::remove_file(world.host("/workspace/tree/fifo")).unwrap();

    world.plant("workspace/tree/large", &vec![1; 3 << 20], USER, 0o644);
    assert_eq!(code(world.files.move_to(at("tree"), at("/shm")).await), ErrorCode::NoSpace);
    assert_eq!(code(world.files.move_to(at("tree/large"), at("/shm")).await), ErrorCode::NoSpace);
    std::fs::remove_file(world.host("/workspace/tree/large")).unwrap();

    world.plant_directory("workspace/tree/mnt", USER, 0o755);
    let mounted = world.mount("/workspace/tree/mnt", "tmpfs", "mode=777");
    assert_eq!(code(world.files.move_to(at("tree"), at("/shm")).await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.move_to(at("tree"), at("tree/mnt")).await), ErrorCode::ValidationFailed);
    assert_eq!(code(world.files.rename(at("tree/mnt"), at("x")).await), ErrorCode::PermissionDenied);
    drop(mounted);

    assert_eq!(world.names("/workspace/tree"), ["a", "mnt"]);
    assert!(world.names("/shm").is_empty());
    world.files.move_to(at("tree"), at("/shm")).await.unwrap();
    assert_eq!(world.names("/shm/tree"), ["a", "mnt"]);
}

#[tokio::test]
async fn an_ordinary_user_may_change_only_what_is_his() {
    let world = World::of(&ordinary_user());
    world.plant_directory("closed", OTHER, 0o755);
    world.plant("closed/file", b"x", OTHER, 0o644);
    world.plant_directory("tmp", OTHER, 0o1777);
    world.plant("tmp/theirs", b"x", OTHER, 0o666);
    assert_eq!(code(world.write("/closed/new", b"").await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.mkdir(at("/closed/new"), false, None).await), ErrorCode::PermissionDenied);
    for path in ["/closed/file", "/tmp/theirs"] {
        assert_eq!(code(world.files.delete(at(path)).await), ErrorCode::PermissionDenied, "{path}");
        assert_eq!(
            code(world.files.rename(at(path), at("mine")).await),
            ErrorCode::PermissionDenied,
            "{path}"
        );
    }
    assert_eq!(world.text("/closed/file").await.unwrap(), "x");
    // Positive control: his own in both places.
    world.write("/tmp/mine", b"y").await.unwrap();
    world.files.rename(at("/tmp/mine"), at("mine")).await.unwrap();
    world.files.delete(at("mine")).await.unwrap();
    give(&world.host("/closed"), USER, 0o755);
    world.files.delete(at("/closed/file")).await.unwrap();
    assert_eq!(std::fs::metadata(world.host("/closed")).unwrap().permissions().mode() & 0o777, 0o755);
}

#[tokio::test]
async fn exists_follows_links_and_says_no_rather_than_fail() {
    let world = World::new();
    world.plant("workspace/file", b"", USER, 0o000);
    world.plant_link("workspace/good", "file");
    world.plant_link("workspace/dangling", "nowhere");
    for (path, expected) in [
        ("file", true),
        ("good", true),
        ("dangling", false),
        ("file/below", false),
        ("none", false),
        ("/", true),
        ("..", true),
    ] {
        assert_eq!(world.files.exists(at(path)).await.unwrap(), expected, "{path}");
    }
    let ordinary = World::of(&ordinary_user());
    ordinary.plant_directory("locked", OTHER, 0o700);
    assert_eq!(code(ordinary.files.exists(at("/locked/x")).await), ErrorCode::PermissionDenied);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "another process does what this one must not")]
async fn b14_moves_of_many_and_nested_entries_leave_nothing_behind() {
    let world = World::new();
    let _mounted = world.mount("/workspace/other", "tmpfs", "mode=777");
    let top = world.host("/workspace/tree");
    std::fs::create_dir(&top).unwrap();
    // More directories in one than are emptied at a time, files beside them, and a chain.
    for n in 0..300 {
        let inner = top.join(format!("d{n}")).join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("file"), n.to_string()).unwrap();
        std::fs::write(top.join(format!("f{n}")), "x").unwrap();
    }
    std::fs::create_dir_all(top.join("e/".repeat(200))).unwrap();
    let owner = format!("{USER}:{USER}");
    let given = std::process::Command::new("chown").args(["-R", &owner]).arg(&top).status().unwrap();
    assert!(given.success());
    let count = |path: &str| world.files.list(at(path), true, true);
    let before = count("tree").await.unwrap().len();
    assert_eq!(before, 300 * 4 + 200);
    world.files.move_to(at("tree"), at("other/moved")).await.unwrap();
    assert_eq!(count("other/moved").await.unwrap().len(), before);
    assert_eq!(world.text("other/moved/d299/inner/file").await.unwrap(), "299");
    assert!(!world.files.exists(at("tree")).await.unwrap());
}
