use crate::harness::{USER, World, at, code};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{StreamExt, TryStreamExt};
use sandcrab_api::ErrorCode;
use sandcrab_api::files::{FileEncoding, FileEvent};

#[tokio::test]
async fn text_is_text_and_anything_else_is_base64() {
    let world = World::new();
    world.plant("workspace/a.json", "{\"ü\":1}".as_bytes(), USER, 0o644);
    world.plant("workspace/b.bin", b"\xff\xfe\0", USER, 0o644);
    world.plant("workspace/empty", b"", USER, 0o644);

    let text = world.files.read(at("a.json"), None).await.unwrap();
    assert_eq!(
        (text.content.as_str(), text.encoding, text.is_binary),
        ("{\"ü\":1}", FileEncoding::Utf8, false)
    );
    assert_eq!((text.mime_type.as_str(), text.size, text.path.as_str()), ("application/json", 8, "a.json"));
    let asked = world.files.read(at("a.json"), Some(FileEncoding::Base64)).await.unwrap();
    assert_eq!(BASE64.decode(asked.content).unwrap(), "{\"ü\":1}".as_bytes());
    assert!(!asked.is_binary);
    for encoding in [None, Some(FileEncoding::Utf8), Some(FileEncoding::Base64)] {
        let binary = world.files.read(at("b.bin"), encoding).await.unwrap();
        assert_eq!((binary.encoding, binary.is_binary), (FileEncoding::Base64, true));
        assert_eq!(BASE64.decode(binary.content).unwrap(), b"\xff\xfe\0");
    }
    let empty = world.files.read(at("empty"), None).await.unwrap();
    assert_eq!((empty.content.as_str(), empty.is_binary, empty.size), ("", false, 0));
}

#[tokio::test]
async fn a_file_too_large_for_one_answer_says_so_and_streams() {
    let world = World::new();
    let size = sandcrab_api::limits::MAX_READ_BYTES + 1;
    std::fs::File::create(world.host("/workspace/large")).unwrap().set_len(size).unwrap();
    let error = world.files.read(at("large"), None).await.unwrap_err();
    assert_eq!((error.code, &error.context["size"]), (ErrorCode::FileTooLarge, &size.into()));
    let pieces = world.files.content("readFileStream", at("large")).await.unwrap().into_pieces();
    let read = pieces.try_fold(0, |sum, piece| async move { Ok(sum + piece.len() as u64) }).await.unwrap();
    assert_eq!(read, size);
}

#[tokio::test]
async fn contents_of_every_length_come_back_byte_for_byte() {
    let world = World::new();
    for size in [0, 1, 196_607, 196_608, 196_609, 1 << 20, (1 << 20) + 1, 3_000_001] {
        let content: Vec<u8> = (0..size).map(|n: usize| (n * 7 + n / 251) as u8).collect();
        world.write("file", &content).await.unwrap();
        let opened = world.files.content("readFileStream", at("file")).await.unwrap();
        assert_eq!((opened.size, opened.is_complete()), (size as u64, size <= 1 << 20));
        let pieces: Vec<_> = opened.into_pieces().try_collect().await.unwrap();
        assert!(pieces.concat() == content, "{size}");

        let events: Vec<_> =
            world.files.content("readFileStream", at("file")).await.unwrap().into_events().collect().await;
        let Some((FileEvent::Metadata { encoding, is_binary, .. }, rest)) = events.split_first() else {
            panic!()
        };
        let Some((FileEvent::Complete { bytes_read }, chunks)) = rest.split_last() else {
            panic!("{rest:?}")
        };
        assert_eq!((*bytes_read, *encoding == FileEncoding::Base64), (size as u64, *is_binary));
        let mut joined = String::new();
        for chunk in chunks {
            let FileEvent::Chunk { data } = chunk else { panic!("{chunk:?}") };
            joined += data;
        }
        let bytes = if *is_binary { BASE64.decode(joined).unwrap() } else { joined.into_bytes() };
        assert!(bytes == content, "{size}");
    }
}

#[tokio::test]
async fn s02_a_character_is_never_split_over_two_chunks() {
    let world = World::new();
    // Four-byte characters behind one byte: every piece's end cuts one.
    let text = format!("x{}", "😀".repeat(400_000));
    world.write("emoji.txt", text.as_bytes()).await.unwrap();
    let events: Vec<_> =
        world.files.content("readFileStream", at("emoji.txt")).await.unwrap().into_events().collect().await;
    let chunks = events.iter().filter_map(|event| match event {
        FileEvent::Chunk { data } => Some(data.as_str()),
        _ => None,
    });
    let chunks: Vec<_> = chunks.collect();
    assert!(chunks.len() > 4 && chunks.iter().all(|chunk| !chunk.contains('\u{fffd}')));
    assert!(chunks.concat() == text);
    assert_eq!(events.last(), Some(&FileEvent::Complete { bytes_read: text.len() as u64 }));
}

#[tokio::test]
async fn a_stream_never_calls_wrong_bytes_text() {
    let world = World::new();
    // Wrong in its last byte: looked through, hence known before the first event.
    world.plant("workspace/late", &[&vec![b'a'; 5 << 20][..], b"\xff"].concat(), USER, 0o644);
    let opened = world.files.content("readFileStream", at("late")).await.unwrap();
    assert!(opened.is_binary);
    // The same in a file too long to be looked through ends in an error, not in other bytes.
    world.plant("workspace/later", &[&vec![b'a'; 17 << 20][..], b"\xff\xff"].concat(), USER, 0o644);
    let opened = world.files.content("readFileStream", at("later")).await.unwrap();
    assert!(!opened.is_binary);
    let last = opened.into_events().fold(None, |_, event| async { Some(event) }).await;
    let Some(FileEvent::Error { detail, .. }) = last else { panic!("{last:?}") };
    assert!(detail.message.contains(&(17 << 20).to_string()), "{}", detail.message);
    assert_eq!(detail.code, ErrorCode::FilesystemError);
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_streamed_is_an_error_and_one_that_grows_is_not() {
    let world = World::new();
    for (after, ends_well) in [(2 << 20, false), (9 << 20, true)] {
        world.plant("workspace/moving", &vec![b'a'; 5 << 20], USER, 0o644);
        let opened = world.files.content("readFileStream", at("moving")).await.unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .open(world.host("/workspace/moving"))
            .unwrap()
            .set_len(after)
            .unwrap();
        let read = opened.into_pieces().try_fold(0, |sum, piece| async move { Ok(sum + piece.len()) }).await;
        match read {
            Ok(read) => assert!(ends_well && read == 5 << 20),
            Err(error) => assert!(!ends_well && error.code == ErrorCode::FilesystemError),
        }
    }
}

#[tokio::test]
async fn directories_and_missing_files_are_not_read() {
    let world = World::new();
    assert_eq!(code(world.text("/workspace").await), ErrorCode::IsDirectory);
    assert_eq!(
        code(world.files.content("readFileStream", at("nothing")).await.map(|_| ())),
        ErrorCode::FileNotFound
    );
}
