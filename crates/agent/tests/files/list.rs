use crate::harness::{OTHER, USER, World, at, code, give, ordinary_user};
use sandcrab_api::ErrorCode;
use sandcrab_api::files::{FileInfo, FileType};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fn relative(files: &[FileInfo]) -> Vec<&str> {
    files.iter().map(|file| file.relative_path.as_str()).collect()
}

#[tokio::test]
async fn a_listing_is_sorted_and_says_what_everything_is() {
    let world = World::new();
    world.plant("workspace/b.txt", b"12345", USER, 0o640);
    world.plant_directory("workspace/a", USER, 0o755);
    world.plant("workspace/a/inner", b"", USER, 0o755);
    world.plant_directory("workspace/a/.git", USER, 0o755);
    world.plant("workspace/a/.git/config", b"", USER, 0o644);
    world.plant("workspace/.hidden", b"", USER, 0o644);
    world.plant_link("workspace/link", "/");
    rustix::fs::mkfifoat(rustix::fs::CWD, world.host("/workspace/pipe"), 0o600.into()).unwrap();

    let plain = world.files.list(at("."), false, false).await.unwrap();
    assert_eq!(relative(&plain), ["a", "b.txt", "link", "pipe"]);
    let kinds: Vec<_> = plain.iter().map(|file| file.kind).collect();
    assert_eq!(kinds, [FileType::Directory, FileType::File, FileType::Symlink, FileType::Other]);
    let file = &plain[1];
    assert_eq!((file.name.as_str(), file.absolute_path.as_str()), ("b.txt", "/workspace/b.txt"));
    assert_eq!((file.size, file.mode.as_str()), (5, "rw-r-----"));
    assert_eq!(
        (file.permissions.readable, file.permissions.writable, file.permissions.executable),
        (true, true, false)
    );
    let age = sandcrab_api::time::Timestamp::now().as_millis() - file.modified_at.as_millis();
    assert!((-1000..60_000).contains(&age), "{age} ms");

    let all = world.files.list(at("/workspace/"), true, true).await.unwrap();
    assert_eq!(
        relative(&all),
        [".hidden", "a", "a/.git", "a/.git/config", "a/inner", "b.txt", "link", "pipe"]
    );
    assert_eq!(all[3].absolute_path, "/workspace/a/.git/config");
    let shown = world.files.list(at("a/../a"), true, false).await.unwrap();
    assert_eq!(shown[0].absolute_path, "/workspace/a/inner");
    world.plant_link("workspace/to-a", "a");
    let through = world.files.list(at("to-a"), false, false).await.unwrap();
    assert_eq!(through[0].absolute_path, "/workspace/to-a/inner");
    let root = world.files.list(at("/"), false, false).await.unwrap();
    assert_eq!(root[0].absolute_path, "/workspace");

    assert_eq!(code(world.files.list(at("b.txt"), false, false).await), ErrorCode::NotDirectory);
    assert_eq!(code(world.files.list(at("none"), false, false).await), ErrorCode::FileNotFound);
}

#[tokio::test]
async fn b12_strange_names_are_listed_without_harm() {
    let world = World::new();
    let strange = [&b"new\nline"[..], b"esc\x1b[31m", b"bad\xff\xfeutf8", b"-rf", "ünï".as_bytes()];
    for name in strange {
        let path = world.host("/workspace").join(OsStr::from_bytes(name));
        std::fs::write(&path, b"").unwrap();
        give(&path, USER, 0o644);
    }
    let listed = world.files.list(at("."), false, false).await.unwrap();
    let names: Vec<_> = listed.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["-rf", "bad\u{fffd}\u{fffd}utf8", "esc\u{1b}[31m", "new\nline", "ünï"]);
    let bytes: Vec<_> = listed.iter().map(|file| file.path_bytes.as_deref()).collect();
    assert_eq!(bytes, [None, Some("YmFk//51dGY4"), None, None, None], "only what no text can name");
    world.files.delete(at("new\nline")).await.unwrap();
    world.write("esc\u{1b}[31m", b"same name").await.unwrap();
    assert_eq!(world.text("esc\u{1b}[31m").await.unwrap(), "same name");
    let error = world.text("forged\nERROR line\u{1b}[0m").await.unwrap_err();
    assert!(!error.message.contains(char::is_control), "{}", error.message);
}

#[tokio::test]
async fn a_listing_has_the_users_permissions_and_enters_only_what_he_may() {
    let world = World::of(&ordinary_user());
    world.plant_directory("workspace/locked", OTHER, 0o700);
    world.plant("workspace/locked/secret", b"", OTHER, 0o600);
    world.plant("workspace/theirs", b"", OTHER, 0o604);
    let files = world.files.list(at("."), true, false).await.unwrap();
    assert_eq!(relative(&files), ["locked", "theirs"]);
    assert!(!files[0].permissions.readable && !files[0].permissions.executable);
    assert!(files[1].permissions.readable && !files[1].permissions.writable);

    // The sandbox's root may more.
    let world = World::new();
    world.plant_directory("workspace/locked", OTHER, 0o700);
    world.plant("workspace/locked/secret", b"", OTHER, 0o600);
    let files = world.files.list(at("."), true, false).await.unwrap();
    assert_eq!(relative(&files), ["locked", "locked/secret"]);
    assert!(files[1].permissions.writable);
}

#[tokio::test]
async fn e03_a_thousand_entries_are_fast_and_too_many_are_refused() {
    let world = World::new();
    world.plant_directory("workspace/many", USER, 0o755);
    for n in 0..1000 {
        world.plant(&format!("workspace/many/file-{n:04}"), b"", USER, 0o644);
    }
    let start = std::time::Instant::now();
    let files = world.files.list(at("many"), false, false).await.unwrap();
    let took = start.elapsed();
    assert_eq!((files.len(), files[999].name.as_str()), (1000, "file-0999"));
    println!("listing 1,000 entries: {took:?}");
    assert!(took.as_millis() < 500, "{took:?}");

    let directory = world.host("/workspace/many");
    let more = sandcrab_api::limits::MAX_LIST_ENTRIES - 1000;
    for n in 0..=more {
        std::fs::hard_link(directory.join(format!("file-{:04}", n % 1000)), directory.join(format!("x{n}")))
            .unwrap();
    }
    assert_eq!(code(world.files.list(at("."), true, false).await), ErrorCode::FileTooLarge);
    std::fs::remove_file(directory.join("x0")).unwrap();
    let start = std::time::Instant::now();
    let files = world.files.list(at("many"), true, false).await.unwrap();
    println!("listing {} entries: {:?}", files.len(), start.elapsed());
    assert_eq!(files.len(), sandcrab_api::limits::MAX_LIST_ENTRIES);
}

/// Directories in each other, deeper than any path reaches; made as a sandbox's code would.
#[expect(clippy::disallowed_methods, reason = "another process does what this one must not")]
fn plant_deep(world: &World, depth: usize) {
    let script = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(int(sys.argv[2])): os.mkdir('d'); os.chdir('d')";
    let path = world.host("/workspace/deep");
    std::fs::create_dir(&path).unwrap();
    let made = std::process::Command::new("python3")
        .args(["-c", script, path.to_str().unwrap(), &depth.to_string()])
        .status()
        .unwrap();
    assert!(made.success());
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "another process does what this one must not")]
async fn b14_trees_deeper_than_any_path_are_a_typed_error() {
    let world = World::new();
    plant_deep(&world, 3_000);
    assert_eq!(code(world.files.list(at("deep"), true, true).await), ErrorCode::NameTooLong);
    // What a path reaches is listed.
    assert_eq!(world.files.list(at("deep"), false, true).await.unwrap().len(), 1);
    assert_eq!(code(world.files.move_to(at("deep"), at("deep/d")).await), ErrorCode::ValidationFailed);
    // Left to itself, the folder's own removal would need a path as long.
    let removed =
        std::process::Command::new("rm").arg("-rf").arg(world.host("/workspace/deep")).status().unwrap();
    assert!(removed.success());
}
