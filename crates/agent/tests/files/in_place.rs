//! Files that are there are written to as they stand (contract F01).

use crate::harness::{OTHER, USER, World, at, give};
use rustix::fs::inotify;
use sandcrab_agent::files::Files;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

#[tokio::test]
async fn f01_whoever_watches_a_file_or_has_another_name_for_it_sees_every_write() {
    let world = World::new();
    world.plant("workspace/app.js", b"one", OTHER, 0o640);
    let path = world.host("/workspace/app.js");
    rustix::fs::setxattr(&path, "user.note", b"kept", rustix::fs::XattrFlags::CREATE).unwrap();
    std::fs::hard_link(&path, world.host("/workspace/link.js")).unwrap();
    let before = std::fs::metadata(&path).unwrap();
    let mut open = std::fs::File::open(&path).unwrap();
    let events = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&events, &path, inotify::WatchFlags::MODIFY | inotify::WatchFlags::CLOSE_WRITE)
        .unwrap();
    let long = vec![b'x'; 1_000_000];
    for content in [&b"two, longer"[..], b"3", b"", &long, b"end"] {
        world.write("app.js", content).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == content);
        assert!(std::fs::read(world.host("/workspace/link.js")).unwrap() == content);
        let mut seen = Vec::new();
        open.rewind().unwrap();
        open.read_to_end(&mut seen).unwrap();
        assert!(seen == content, "who has it open sees it");
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut heard = inotify::Reader::new(&events, &mut buffer);
        assert!(heard.next().is_ok(), "a watcher hears of {} bytes", content.len());
        while heard.next().is_ok() {}
    }
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!((after.ino(), after.uid(), after.mode()), (before.ino(), OTHER, before.mode()));
    let mut note = [0; 8];
    assert_eq!(rustix::fs::getxattr(&path, "user.note", &mut note).unwrap(), 4);
    assert_eq!(world.waiting(), 0, "nothing is left of what waited");
    // The mode that is asked for is given; a write alone takes nothing away.
    world.write_mode("app.js", b"x", Some(0o604)).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o604);
    give(&path, USER, 0o2640);
    world.write("app.js", b"y").await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o2640);
}

/// What can be executed is replaced: a program that runs is not changed, and is not in the way.
#[tokio::test]
async fn f01_a_program_that_runs_is_replaced() {
    let world = World::new();
    for (name, mode) in [("program", 0o755), ("once", 0o644)] {
        std::fs::copy("/bin/sleep", world.host(&format!("/workspace/{name}"))).unwrap();
        give(&world.host(&format!("/workspace/{name}")), USER, 0o755);
        #[expect(clippy::disallowed_methods, reason = "a program that runs")]
        let mut sleep = Command::new(world.host(&format!("/workspace/{name}"))).arg("1000").spawn().unwrap();
        // It is text that is busy, whatever its mode says by now.
        give(&world.host(&format!("/workspace/{name}")), USER, mode);
        world.write(name, b"new").await.unwrap();
        assert_eq!(std::fs::read(world.host(&format!("/workspace/{name}"))).unwrap(), b"new");
        assert!(sleep.try_wait().unwrap().is_none());
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    }
    assert_eq!(world.names("/workspace"), ["once", "program"]);
    assert_eq!(world.waiting(), 0);
}

const ROLE: &str = "SANDCRAB_TEST_WRITES_IN";
const SIZE: usize = 20_000_000;

fn content(number: u8) -> Vec<u8> {
    vec![b'a' + number % 26; SIZE + usize::from(number)]
}

/// Writes one content after the other, until it is killed.
async fn write_for_ever(root: &str) {
    let open = |path: String| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::openat(rustix::fs::CWD, path, flags, rustix::fs::Mode::empty()).unwrap()
    };
    let files = Files::below_with_spool(
        open(format!("{root}/root")),
        &crate::harness::root_user(),
        open(format!("{root}/spool")),
    )
    .unwrap();
    std::io::stdout().write_all(b"\nwriting\n").unwrap();
    for number in 1.. {
        let parts = content(number);
        let parts = parts
            .chunks(1 << 20)
            .map(|part| Ok::<_, sandcrab_api::ApiError>(bytes::Bytes::copy_from_slice(part)));
        files.write(at("file"), None, futures_util::stream::iter(parts.collect::<Vec<_>>())).await.unwrap();
    }
}

/// A kill at any point leaves the old content or the new, once an agent has come up again.
#[tokio::test]
async fn f01_a_write_that_the_agent_is_killed_in_is_whole_or_never_was() {
    if let Some(root) = std::env::var_os(ROLE) {
        return write_for_ever(root.to_str().unwrap()).await;
    }
    let world = World::new();
    let root = world.root.parent().unwrap().to_owned();
    let path = world.host("/workspace/file");
    world.plant("workspace/file", &content(0), USER, 0o644);
    let mut completed = 0;
    for round in 0..400u64 {
        // At least so many; on a busy machine most come before the copy.
        if round >= 40 && completed > 0 {
            break;
        }
        #[expect(clippy::disallowed_methods, reason = "an agent that is killed")]
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "in_place::f01_a_write_that_the_agent_is_killed_in_is_whole_or_never_was",
                "--nocapture",
            ])
            .env(ROLE, &root)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "writing"));
        // At another point each time.
        std::thread::sleep(std::time::Duration::from_micros(3_000 + round % 40 * 2_357));
        agent.kill().unwrap();
        agent.wait().unwrap();
        let mixed = |found: &[u8]| {
            !found.iter().all(|byte| *byte == found[0]) || found.len() != SIZE + usize::from(found[0] - b'a')
        };
        let was_mixed = mixed(&std::fs::read(&path).unwrap());
        // The next agent completes what was begun.
        drop(world.again());
        let found = std::fs::read(&path).unwrap();
        assert!(!mixed(&found), "round {round}: {} bytes of {}", found.len(), found[0]);
        assert_eq!(world.waiting(), 0, "round {round}");
        completed += usize::from(was_mixed);
    }
    // Else nothing of this was tried.
    assert!(completed > 0, "no kill came in the middle of a copy");
}
