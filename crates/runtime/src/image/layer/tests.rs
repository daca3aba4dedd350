//! Layers on made-up archives; none of this needs root.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use tempfile::TempDir;

use super::*;
use crate::image::Tree;

/// A ustar archive that is put together by hand, as a hostile sandbox would.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn entry(mut self, kind: u8, path: &str, link: &str, content: &[u8]) -> Self {
        let mut block = [0; 512];
        block[..path.len()].copy_from_slice(path.as_bytes());
        block[100..108].copy_from_slice(b"0006777\0");
        block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        block[136..148].copy_from_slice(b"00000001750\0");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A file whose header tells of more bytes than follow.
    fn claiming(self, path: &str, size: u64) -> Self {
        let at = self.0.len();
        let mut archive = self.file(path, "");
        let block = &mut archive.0[at..at + 512];
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive
    }

    fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"")
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(b'0', path, "", content.as_bytes())
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"")
    }

    fn write(mut self, dir: &Path) -> PathBuf {
        self.0.resize(self.0.len() + 1024, 0);
        self.write_cut(dir)
    }

    fn write_cut(self, dir: &Path) -> PathBuf {
        let path = dir.join("archive");
        fs::write(&path, self.0).unwrap();
        path
    }
}

fn recipe() -> Recipe {
    Recipe { name: "made".into(), base: "host".into(), digest: "d".into(), foundation: Foundation::Base }
}

fn base() -> Image {
    let tree = |at: &str, layer: &str| Tree { at: at.into(), layers: vec![layer.into()] };
    Image {
        key: "host-1".into(),
        trees: vec![tree("/", "/images/root"), tree("/usr", "/usr")],
        env: [("A".to_owned(), "1".to_owned())].into(),
    }
}

#[test]
fn a_layer_is_unpacked_over_the_trees_of_its_base() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let archive = Archive::default()
        .dir("root")
        .file("root/x", "home")
        .dir("usr")
        .dir("usr/local")
        .file("usr/local/tool", "#!")
        .link("usr/local/again", "../../etc/passwd")
        .file("usr/local/.wh.old", "")
        .write(dir.path());
    let layer = store.publish(&recipe(), &base(), &archive).unwrap();
    assert_eq!((layer.key.as_str(), layer.size), (recipe().key("host-1").as_str(), 6));
    assert_eq!(store.find(&layer.key).unwrap(), layer);
    let image = store.compose(&layer, &base());
    assert_eq!((image.key.as_str(), &image.env), (format!("{}+host-1", layer.key).as_str(), &base().env));
    assert_eq!(parts(&image.key).collect::<Vec<_>>(), [layer.key.as_str(), "host-1"]);
    let own = dir.path().canonicalize().unwrap().join("layers").join(&layer.key);
    assert_eq!(image.trees[0].layers, [own.join("root"), "/images/root".into()]);
    assert_eq!(image.trees[1].layers, [own.join("usr"), "/usr".into()]);
    assert_eq!(fs::read_to_string(own.join("root/root/x")).unwrap(), "home");
    let tool = fs::metadata(own.join("usr/local/tool")).unwrap();
    assert_eq!(
        (tool.permissions().mode() & 0o7777, tool.mtime()),
        (0o755, 1000),
        "neither set-uid nor others' writes"
    );
    assert_eq!(
        fs::metadata(own.join("usr/local")).unwrap().mtime(),
        1000,
        "as of the archive, not of the unpacking"
    );
    assert_eq!(fs::read_link(own.join("usr/local/again")).unwrap(), Path::new("../../etc/passwd"));
    let gone = fs::symlink_metadata(own.join("usr/local/old")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
}

#[test]
fn b07_a_hostile_archive_writes_nothing_outside_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let out = outside.to_str().unwrap();
    let usr = || Archive::default().dir("usr");
    let mut broken_sum = usr().write(dir.path());
    fs::write(&broken_sum, {
        let mut bytes = fs::read(&broken_sum).unwrap();
        bytes[0] = b'x';
        bytes
    })
    .unwrap();
    broken_sum = {
        let to = dir.path().join("sum");
        fs::rename(&broken_sum, &to).unwrap();
        to
    };
    let cases: Vec<(&str, Archive)> = vec![
        ("..", usr().file("usr/../../outside/x", "x")),
        ("absolute", Archive::default().file(&format!("{out}/x"), "x")),
        ("through a link", usr().link("usr/l", out).file("usr/l/x", "x")),
        ("a link as a directory", usr().link("usr/l", out).dir("usr/l/d")),
        ("twice", usr().link("usr/l", &format!("{out}/x")).file("usr/l", "x")),
        ("without its directory", usr().file("usr/no/x", "x")),
        ("a device", usr().entry(b'3', "usr/null", "", b"")),
        ("a FIFO", usr().entry(b'6', "usr/fifo", "", b"")),
        ("a hard link", usr().entry(b'1', "usr/h", "etc/passwd", b"")),
        ("a long name of GNU", usr().entry(b'L', "././@LongLink", "", b"x")),
        ("a tree that is a file", Archive::default().file("usr", "x")),
        ("a whiteout with content", usr().file("usr/.wh.x", "x")),
        ("a whiteout of nothing", usr().file("usr/.wh.", "")),
        ("everything below is gone", usr().file("usr/.wh..wh..opq", "")),
        ("the directory itself is gone", usr().file("usr/.wh..", "")),
        ("the one above is gone", usr().file("usr/.wh...", "")),
        ("a whiteout that is a link", usr().link("usr/.wh.x", out)),
        ("no name", usr().file("", "x")),
        (
            "too deep",
            (0..70).fold(usr(), |archive, depth| archive.dir(&format!("usr{}", "/d".repeat(depth + 1)))),
        ),
        ("more bytes than it holds", usr().claiming("usr/bomb", 7 << 30)),
    ];
    for (what, archive) in cases {
        let archive = archive.write(dir.path());
        let refused = store.publish(&recipe(), &base(), &archive);
        assert!(refused.is_err(), "{what}");
        assert_eq!(super::super::entries(&store.dir).unwrap(), ["lock"], "{what}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{what}");
    }
    assert!(matches!(store.publish(&recipe(), &base(), &broken_sum), Err(ImageError::Archive { .. })));
    let cut = usr().file("usr/x", "xyz").0[..1024 + 1].to_vec();
    let cut = Archive(cut).write_cut(dir.path());
    assert!(store.publish(&recipe(), &base(), &cut).is_err());
    assert_eq!(super::super::entries(&store.dir).unwrap(), ["lock"]);
}

#[test]
fn a_layer_is_published_once_and_starts_clean_after_an_interruption() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    fs::create_dir_all(store.dir.join(".new-x/usr")).unwrap();
    let damaged = store.dir.join(recipe().key("host-1"));
    fs::create_dir_all(damaged.join("usr/half")).unwrap();
    assert!(store.find(&recipe().key("host-1")).is_none());
    let archive = Archive::default().dir("usr").file("usr/a", "1").write(dir.path());
    let first = store.publish(&recipe(), &base(), &archive).unwrap();
    let second = Archive::default().dir("usr").file("usr/b", "22").write(dir.path());
    assert_eq!(store.publish(&recipe(), &base(), &second).unwrap(), first, "the first one stays");
    assert!(!damaged.join("usr/half").exists());
    assert_eq!(super::super::entries(&store.dir).unwrap(), ["lock", first.key.as_str()]);
    assert!(store.find(&recipe().key("host-2")).is_none(), "another base is another image");
    let other = Recipe { digest: "e".into(), ..recipe() };
    assert_ne!(other.key("host-1"), first.key);
}

#[test]
fn what_somebody_holds_or_keeps_is_not_collected() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let archive = Archive::default().dir("usr").write(dir.path());
    let key = store.publish(&recipe(), &base(), &archive).unwrap().key;
    // Another server's: a lock belongs to what was opened.
    let other = Store::open(dir.path()).unwrap();
    let held = other.hold(&key).unwrap();
    assert!(store.collect(&BTreeSet::new()).unwrap().is_empty());
    assert!(!store.remove(&key).unwrap());
    drop(held);
    assert!(store.collect(&BTreeSet::from([key.clone()])).unwrap().is_empty());
    assert_eq!(store.collect(&BTreeSet::new()).unwrap(), [key.as_str()]);
    assert!(store.find(&key).is_none() && other.hold(&key).is_err());
    assert!(!store.remove(&key).unwrap());
}

#[test]
fn b07_an_archive_that_passes_its_bounds_is_refused_before_it_is_written() {
    let dir = TempDir::new().unwrap();
    let bounds = archive::Bounds { entries: 3, bytes: 10 };
    let usr = || Archive::default().dir("usr");
    let trees = [Path::new("/usr")];
    for (what, archive, fits) in [
        ("both at the bound", usr().file("usr/a", "12345").file("usr/b", "12345"), true),
        ("one byte more", usr().file("usr/a", "12345").file("usr/b", "123456"), false),
        ("one entry more", usr().dir("usr/a").dir("usr/b").dir("usr/c"), false),
        ("more than there is", usr().claiming("usr/a", (8 << 30) - 1), false),
    ] {
        let to = TempDir::new_in(dir.path()).unwrap();
        let archive = archive.write(dir.path());
        let unpacked = archive::unpack_within(&archive, to.path(), &trees, bounds);
        assert_eq!(unpacked.is_ok(), fits, "{what}");
        assert!(fits || !to.path().join("usr/c").exists(), "{what}");
        let longest = fs::read_dir(to.path().join("usr")).unwrap();
        let longest = longest.map(|entry| entry.unwrap().metadata().unwrap()).filter(fs::Metadata::is_file);
        assert!(longest.map(|file| file.len()).max().unwrap_or(0) <= 5, "{what}");
    }
}
