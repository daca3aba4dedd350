//! Memory while files of any length pass: a process of its own, so that nothing else counts (attack B05).
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

#[path = "files/harness.rs"]
#[expect(dead_code, reason = "shared with the other tests of files")]
mod harness;

use futures_util::{StreamExt, stream};
use harness::{USER, World, at, code};
use rustix::fs::CWD;
use sandcrab_api::{ApiError, ErrorCode};

/// Resident memory of this process that belongs to it alone, in bytes.
fn anonymous_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// What either direction may take: a few pieces, and what the allocator keeps of them.
const FLAT: u64 = 16 << 20;

#[tokio::test]
async fn b05_endless_files_stream_with_flat_memory() {
    let world = World::new();
    // As large as the file system allows: on tmpfs that is nearly 8 EB.
    let _mounted = world.mount("/workspace/huge", "tmpfs", "mode=777");
    let huge = i64::MAX as u64 & !0xfff;
    std::fs::File::create(world.host("/workspace/huge/file")).unwrap().set_len(huge).unwrap();
    assert_eq!(code(world.text("huge/file").await), ErrorCode::FileTooLarge);
    let content = world.files.content("readFileStream", at("huge/file")).await.unwrap();
    assert_eq!((content.size, content.is_binary), (huge, true));
    let before = anonymous_memory();
    let mut pieces = Box::pin(content.into_pieces());
    let mut read = 0;
    while read < 512 << 20 {
        read += pieces.next().await.unwrap().unwrap().len();
    }
    let grown = anonymous_memory().saturating_sub(before);
    println!("streamed {read} bytes of a file of {huge}: grew by {grown} bytes");
    assert!(grown < FLAT, "grew by {grown} bytes");
    drop(pieces);

    let mut events =
        Box::pin(world.files.content("readFileStream", at("huge/file")).await.unwrap().into_events());
    for _ in 0..500 {
        assert!(events.next().await.is_some());
    }
    assert!(anonymous_memory().saturating_sub(before) < FLAT);

    world.plant_link("workspace/zero", "/dev/zero");
    world.plant_directory("dev", USER, 0o755);
    let zero = rustix::fs::makedev(1, 5);
    rustix::fs::mknodat(
        CWD,
        world.host("/dev/zero"),
        rustix::fs::FileType::CharacterDevice,
        0o666.into(),
        zero,
    )
    .unwrap();
    assert_eq!(code(world.text("zero").await), ErrorCode::PermissionDenied);

    // The way in is as flat.
    let before = anonymous_memory();
    let part = bytes::Bytes::from(vec![b'x'; 100_000]);
    let parts = stream::repeat_with(move || Ok::<_, ApiError>(part.clone())).take(2000);
    world.files.write(at("huge/written"), None, parts).await.unwrap();
    let grown = anonymous_memory().saturating_sub(before);
    println!("wrote 200 MB: grew by {grown} bytes");
    assert!(grown < FLAT, "grew by {grown} bytes");
    assert_eq!(std::fs::metadata(world.host("/workspace/huge/written")).unwrap().len(), 200_000_000);
}
