//! The host image of the machine that the tests run on.

#![expect(clippy::tests_outside_test_module, reason = "a test binary is a test module")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sandcrab_runtime::image::Image;
use sandcrab_runtime::image::host::{self, HostOptions, Why};

/// The image that all tests of this crate share: making one takes seconds.
fn image() -> (PathBuf, Image) {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("host-image");
    let image = host::ensure(&data, &HostOptions::default()).expect("the host image of this machine");
    (data, image)
}

/// Every file below a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut pending = vec![dir.to_owned()];
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of a layer") {
            let path = entry.expect("an entry of a layer").path();
            if fs::symlink_metadata(&path).expect("a file of a layer").is_dir() {
                pending.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

#[test]
fn the_machine_has_an_image_and_keeps_it() {
    let data = tempfile::TempDir::new().expect("a directory for the image");
    let image = host::ensure(data.path(), &HostOptions::default()).expect("the host image of this machine");
    assert!(image.key.starts_with("host-"));
    assert_eq!(image.trees[0].at, Path::new("/"));
    let usr = image.trees.iter().find(|tree| tree.at == Path::new("/usr")).expect("a tree for /usr");
    assert_eq!(usr.layers.last().map(PathBuf::as_path), Some(Path::new("/usr")));
    for layer in image.trees.iter().flat_map(|tree| &tree.layers) {
        assert!(layer.is_absolute() && layer.is_dir(), "{}", layer.display());
    }
    let again = host::ensure(data.path(), &HostOptions::default()).expect("the image again");
    assert_eq!(again, image);
    assert!(!host::changed(data.path(), &HostOptions::default(), &image).expect("a comparison"));
    let keep = BTreeSet::from([image.key.clone()]);
    let removed = host::collect(data.path(), &HostOptions::default(), &keep).expect("a collection");
    assert_eq!(removed, Vec::<String>::new());
}

#[test]
fn the_layer_at_the_root_has_certificates_and_no_secrets() {
    let (_data, image) = image();
    let root = &image.trees[0].layers[0];
    let bundle = fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).expect("the bundle");
    assert!(bundle.matches("BEGIN CERTIFICATE").count() > 50);
    for path in walk(root) {
        let meta = fs::symlink_metadata(&path).expect("a file of the layer");
        if !meta.is_file() || path.strip_prefix(root).is_ok_and(|path| path.starts_with("var/lib/dpkg")) {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path).expect("a readable file")).into_owned();
        assert!(!text.contains("PRIVATE KEY-----"), "{}", path.display());
        for line in text.lines().filter(|line| line.to_lowercase().contains("proxy")) {
            assert!(!line.contains('@'), "{}: {line}", path.display());
        }
    }
    for absent in
        ["etc/apt/auth.conf", "etc/gitconfig", "etc/npmrc", "etc/ssh", "root/.ssh", "run/docker.sock"]
    {
        assert!(fs::symlink_metadata(root.join(absent)).is_err(), "{absent}");
    }
}

#[test]
fn what_root_alone_may_read_below_usr_is_hidden() {
    let (data, image) = image();
    let hidden = host::left_out(&data, &image).expect("the list");
    let usr = image.trees.iter().find(|tree| tree.at == Path::new("/usr")).expect("a tree for /usr");
    let mask = usr.layers.iter().find(|layer| layer.ends_with("usr-mask"));
    for hidden in hidden.iter().filter(|hidden| hidden.path.starts_with("/usr/") && hidden.why != Why::Owner)
    {
        let whiteout = mask.expect("a mask").join(hidden.path.trim_start_matches("/usr/"));
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let meta = fs::symlink_metadata(&whiteout).expect("a whiteout");
        assert!(meta.file_type().is_char_device() && meta.rdev() == 0, "{}", whiteout.display());
    }
    use std::os::unix::fs::PermissionsExt;
    let private = |path: &Path| {
        let meta = fs::symlink_metadata(path).expect("a file of the host");
        !meta.is_symlink() && meta.permissions().mode() & 0o004 == 0
    };
    for path in walk(Path::new("/usr/share/polkit-1")).into_iter().filter(|path| private(path)) {
        let listed = hidden.iter().any(|hidden| path.starts_with(&hidden.path));
        assert!(listed, "{} is not hidden", path.display());
    }
}
