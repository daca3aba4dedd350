use crate::harness::{SECRET, USER, World, at, code};
use futures_util::StreamExt;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sandcrab_api::{ApiError, ErrorCode};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Each method once on `path`; what it answered.
async fn every_method(world: &World, path: &str) -> Vec<(&'static str, Result<String, ApiError>)> {
    let files = &world.files;
    let stream = async {
        let content = files.content("readFileStream", at(path)).await?;
        let pieces: Vec<_> = content.into_pieces().take(4).collect().await;
        Ok(format!("{pieces:?}"))
    };
    vec![
        ("read", world.text(path).await),
        ("stream", stream.await),
        ("exists", files.exists(at(path)).await.map(|exists| format!("exists: {exists}"))),
        ("list", files.list(at(path), true, true).await.map(|files| format!("{files:?}"))),
        ("write", world.write(path, b"overwritten").await.map(|()| String::new())),
        ("mkdir", files.mkdir(at(path), false, None).await.map(|()| String::new())),
        ("move", files.move_to(at(path), at("/workspace/taken")).await.map(|()| String::new())),
        ("rename to", files.rename(at("/workspace/bait"), at(path)).await.map(|()| String::new())),
        ("rename", files.rename(at(path), at("/workspace/taken")).await.map(|()| String::new())),
        ("delete", files.delete(at(path)).await.map(|()| String::new())),
    ]
}

#[tokio::test]
async fn b01_planted_links_end_inside_whatever_method_follows_them() {
    let world = World::new();
    let outside = world.sentinel.display().to_string();
    let folder = world.sentinel.parent().unwrap().display().to_string();
    let climb = "../".repeat(40);
    let targets = [
        ("absolute", outside.clone()),
        ("relative", "../../sentinel".to_owned()),
        ("climbing", format!("{climb}{}", outside.trim_start_matches('/'))),
        ("chain", "absolute".to_owned()),
        ("folder", folder.clone()),
        ("chained-folder", format!("/workspace/folder/../../{climb}{folder}")),
    ];
    for (name, target) in &targets {
        world.plant_link(&format!("workspace/{name}"), target);
    }
    let paths = targets.iter().map(|(name, _)| (*name).to_owned()).chain([
        "folder/sentinel".to_owned(),
        "chained-folder/sentinel".to_owned(),
        format!("{climb}{}", outside.trim_start_matches('/')),
        outside.clone(),
        "/../../sentinel".to_owned(),
    ]);
    for path in paths {
        for (method, answer) in every_method(&world, &path).await {
            if let Ok(answer) = answer {
                assert!(
                    !answer.contains(SECRET) && !answer.contains("\"sentinel\""),
                    "{method} {path}: {answer}"
                );
            }
            world.sentinel_is_untouched();
        }
    }
    // Positive control: the same path leads to the file of that name inside, which the writes above have made.
    world.write(&outside, b"inside").await.unwrap();
    assert_eq!(world.text(&outside).await.unwrap(), "inside");
    world.plant_link("workspace/again", &outside);
    assert_eq!(world.text("again").await.unwrap(), "inside");
    world.sentinel_is_untouched();
}

#[tokio::test]
async fn b02_odd_paths_never_name_a_host_path() {
    let world = World::new();
    for path in [
        "%2e%2e/%2e%2e/sentinel",
        "..%2f..%2fsentinel",
        "//..//..//sentinel",
        "../../../sentinel",
        "\u{ff0e}\u{ff0e}/x",
    ] {
        assert_eq!(code(world.text(path).await), ErrorCode::FileNotFound, "{path}");
    }
    assert_eq!(code(world.text(&"a".repeat(256)).await), ErrorCode::NameTooLong);
    assert_eq!(code(world.text(&"a/".repeat(3000)).await), ErrorCode::NameTooLong);
    world.write("//workspace/.//x", b"fine").await.unwrap();
    assert_eq!(world.text("/workspace/x").await.unwrap(), "fine");
    world.sentinel_is_untouched();
}

/// 100,000 calls while two other threads swap a directory and a file against links out of the root.
#[test]
fn b03_a_swapped_link_never_leads_out_in_100_000_tries() {
    const TRIES: u32 = 100_000;
    const AT_ONCE: u32 = 20;
    let world = World::new();
    let outside = world.sentinel.parent().unwrap().to_owned();
    // In memory, since what races is names, not disks.
    let _mounted = world.mount("/workspace", "tmpfs", &format!("mode=755,uid={USER},gid={USER}"));
    // Permissions are not what keeps the user out.
    std::fs::set_permissions(&outside, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(&world.sentinel, PermissionsExt::from_mode(0o666)).unwrap();
    world.plant_directory("workspace/dir", USER, 0o755);
    world.plant("workspace/dir/sentinel", b"inside", USER, 0o644);
    world.plant_link("workspace/evil", &outside);
    world.plant("workspace/file", b"inside", USER, 0o644);
    world.plant_link("workspace/evilfile", &world.sentinel);

    let stop = AtomicBool::new(false);
    let swaps = AtomicU32::new(0);
    let start = Instant::now();
    let (inside, refused) = std::thread::scope(|scope| {
        for (a, b) in [("dir", "evil"), ("file", "evilfile")] {
            let (a, b) = (world.host(&format!("/workspace/{a}")), world.host(&format!("/workspace/{b}")));
            let (stop, swaps) = (&stop, &swaps);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                    // Without a pause the renames alone would keep both processors and the folder's lock.
                    std::thread::sleep(Duration::from_micros(10));
                }
            });
        }
        // Stops the swapping also where an assertion below fails.
        let _stop = Stop(&stop);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut counts = (0, 0);
            for round in 0..TRIES / AT_ONCE {
                let tries = (0..AT_ONCE).map(|n| swapped(&world, round * AT_ONCE + n));
                for is_inside in futures_util::future::join_all(tries).await {
                    *(if is_inside { &mut counts.0 } else { &mut counts.1 }) += 1;
                }
            }
            counts
        })
    });
    let swaps = swaps.into_inner();
    println!(
        "{TRIES} tries during {swaps} swaps in {:?}: {inside} ended inside, {refused} were refused, leaks = 0",
        start.elapsed()
    );
    assert!(swaps > TRIES / 10 && inside > TRIES / 10 && refused > 0);
    world.sentinel_is_untouched();
}

/// One call where the swapping goes on. Whether it ended inside; else it was refused.
async fn swapped(world: &World, n: u32) -> bool {
    let inside = |()| "inside".to_owned();
    let done = match n % 8 {
        0 => world.text("dir/sentinel").await,
        1 => world.text("file").await,
        2 => world.write("dir/sentinel", b"inside").await.map(inside),
        3 => world.write("file", b"inside").await.map(inside),
        4 => world.text("dir/../dir/sentinel").await,
        5 => world.files.list(at("dir"), true, true).await.map(|files| {
            assert!(files.iter().all(|file| file.name != "root"), "{files:?}");
            inside(())
        }),
        6 => world.write("dir/new/deep", b"x").await.map(inside),
        _ => world.files.exists(at("dir/root")).await.map(|exists| {
            assert!(!exists);
            inside(())
        }),
    };
    match done {
        Ok(content) => {
            assert_eq!(content, "inside");
            true
        }
        Err(error) => {
            assert_ne!(error.http_status, 500, "{error:?}");
            false
        }
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn b04_special_files_are_a_typed_error_at_once() {
    let world = World::new();
    rustix::fs::mkfifoat(CWD, world.host("/workspace/fifo"), 0o666.into()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.host("/workspace/socket")).unwrap();
    let kinds = [("null", 1, 3), ("zero", 1, 5), ("tty", 5, 0), ("ptmx", 5, 2)];
    for (name, major, minor) in kinds {
        let path = world.host(&format!("/workspace/{name}"));
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::CharacterDevice, 0o666.into(), device).unwrap();
    }
    world.plant_link("workspace/to-fifo", "fifo");
    let start = Instant::now();
    for name in ["fifo", "to-fifo", "socket", "null", "zero", "tty", "ptmx"] {
        assert_eq!(code(world.text(name).await), ErrorCode::PermissionDenied, "{name}");
        assert_eq!(
            code(world.files.content("readFileStream", at(name)).await.map(|_| ())),
            ErrorCode::PermissionDenied,
            "{name}"
        );
        assert!(world.files.exists(at(name)).await.unwrap(), "{name}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    // They can be removed and renamed, as names.
    world.files.rename(at("fifo"), at("fifo2")).await.unwrap();
    world.files.delete(at("fifo2")).await.unwrap();
    // Positive control: a file under the same name is read.
    world.write("fifo", b"a file now").await.unwrap();
    assert_eq!(world.text("to-fifo").await.unwrap(), "a file now");
}

#[tokio::test]
async fn b06_a_hard_link_elsewhere_keeps_its_content() {
    let world = World::new();
    // Whoever could link a host's file into the root does not change it by writing: it is not the user's.
    for mode in [0o600, 0o644, 0o755] {
        std::fs::set_permissions(&world.sentinel, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
        let name = format!("hard-{mode:o}");
        std::fs::hard_link(&world.sentinel, world.host(&format!("/workspace/{name}"))).unwrap();
        assert_eq!(code(world.write(&name, b"x").await), ErrorCode::PermissionDenied, "{mode:o}");
        world.sentinel_is_untouched();
    }
    // One that the user could write to by itself has the new content under each name, as with any program of its.
    world.plant("workspace/one", b"old", USER, 0o644);
    std::fs::hard_link(world.host("/workspace/one"), world.host("/workspace/two")).unwrap();
    world.write("two", b"x").await.unwrap();
    assert_eq!(world.text("one").await.unwrap(), "x");
}

#[tokio::test]
async fn a17_nothing_of_the_agent_comes_out_of_proc_by_any_method() {
    let world = World::new();
    let _proc = world.mount("/proc", "proc", "");
    let own = std::process::id();
    // A file of the agent's own, open, which /proc/self/fd would lead to.
    let file = std::fs::File::open(&world.sentinel).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    world.plant_link("workspace/self", "/proc/self");
    world.plant_link("workspace/environ", "/proc/self/environ");
    world.plant_link("workspace/fd", format!("/proc/self/fd/{fd}"));
    world.plant_link("workspace/root", "/proc/1/root");
    let mut paths =
        vec!["/proc".to_owned(), "/proc/sys/kernel/core_pattern".into(), "/proc/sysrq-trigger".into()];
    paths.extend(["self/environ", "self", "environ", "fd", "root", "root/etc/passwd"].map(String::from));
    for process in ["self", "thread-self", "1", &own.to_string()] {
        for name in [
            "", "/environ", "/mem", "/maps", "/cmdline", "/status", "/fd", "/root", "/cwd", "/exe", "/ns/mnt",
        ] {
            paths.push(format!("/proc/{process}{name}"));
        }
        paths.push(format!("/proc/{process}/fd/{fd}"));
        paths.push(format!("/proc/{process}/fd/9999"));
        paths.push(format!("/proc/{process}/root/etc/passwd"));
        paths.push(format!("/proc/{process}/cwd/Cargo.toml"));
        paths.push(format!("/proc/{process}/task/{own}/environ"));
    }
    let mut tries = 0;
    for path in &paths {
        for (method, answer) in every_method(&world, path).await {
            // Taking away one's own link into /proc is allowed; it is planted again.
            let is_link = path.strip_prefix('/').is_none() && !path.contains('/');
            if is_link && matches!(method, "move" | "rename" | "delete") {
                let target = if answer.is_ok() {
                    std::fs::read_link(world.host("/workspace/taken")).ok()
                } else {
                    None
                };
                if let Some(target) = target {
                    std::fs::remove_file(world.host("/workspace/taken")).unwrap();
                    world.plant_link(&format!("workspace/{path}"), target);
                }
                continue;
            }
            let error = answer.expect_err(&format!("{method} {path}"));
            // A path that does not exist for this process may be called missing; nothing else may be said.
            let expected = [
                ErrorCode::PermissionDenied,
                ErrorCode::FileNotFound,
                ErrorCode::FileExists,
                ErrorCode::NotDirectory,
            ];
            assert!(expected.contains(&error.code), "{method} {path}: {error:?}");
            assert!(!error.message.contains(SECRET));
            // What is there and what is not get one answer.
            if matches!(method, "read" | "stream" | "exists" | "list") && !path.contains("root") {
                assert!(error.message.contains("lies on procfs"), "{method} {path}: {error:?}");
            }
            tries += 1;
        }
    }
    println!("{} paths x 10 methods = {tries} attacks, leaks = 0", paths.len());
    // A listing of everything shows /proc and does not enter it.
    let all = world.files.list(at("/"), true, true).await.unwrap();
    assert!(all.iter().any(|file| file.absolute_path == "/proc"));
    assert!(!all.iter().any(|file| file.absolute_path.starts_with("/proc/")));
    // Positive control: a plain directory of that name is read.
    drop(_proc);
    world.write("/proc/self/environ", b"a plain file").await.unwrap();
    assert_eq!(world.text("environ").await.unwrap(), "a plain file");
}

#[tokio::test]
async fn f02_the_kernels_own_file_systems_are_refused() {
    let world = World::new();
    let _sys = world.mount("/sys", "sysfs", "");
    let _pts = world.mount("/pts", "devpts", "newinstance,ptmxmode=0666");
    for path in ["/sys", "/sys/kernel", "/sys/kernel/uevent_seqnum", "/pts", "/pts/ptmx"] {
        assert_eq!(code(world.text(path).await), ErrorCode::PermissionDenied, "{path}");
        assert_eq!(
            code(world.files.list(at(path), false, false).await),
            ErrorCode::PermissionDenied,
            "{path}"
        );
        assert_eq!(code(world.files.exists(at(path)).await), ErrorCode::PermissionDenied, "{path}");
    }
    assert_eq!(code(world.write("/sys/kernel/new", b"").await), ErrorCode::PermissionDenied);
    assert_eq!(code(world.files.mkdir(at("/sys/kernel/new"), true, None).await), ErrorCode::PermissionDenied);
}
