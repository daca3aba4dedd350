//! The builder on a made-up host in a temporary directory; none of this needs root.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::sync::Barrier;

use tempfile::TempDir;

use super::*;
use crate::image::entries;

/// A host, and a data directory outside of it.
struct Fake {
    root: TempDir,
    data: TempDir,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { root: TempDir::new().unwrap(), data: TempDir::new().unwrap() };
        fake.file("usr/lib/os-release", "ID=debian\n");
        fake.file("usr/bin/bash", "#!");
        fake.file("usr/bin/python3", "#!");
        fake.file("etc/passwd", "root:x:0:0::/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n");
        fake.file("etc/group", "root:x:0:alice\n");
        fake.file("var/lib/dpkg/status", "Package: x\n");
        fake.file("home/alice/secret", "secret");
        fake.link("bin", "usr/bin");
        fake.link("etc/os-release", "../usr/lib/os-release");
        fake
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn store(&self, exclude: &[&str]) -> Store {
        let options = HostOptions { exclude: exclude.iter().map(PathBuf::from).collect() };
        Store::new(self.root.path(), self.data.path(), &options).unwrap()
    }

    fn hidden(&self, image: &Image) -> Vec<(String, Why)> {
        let hidden = left_out(self.data.path(), image).unwrap();
        hidden.into_iter().map(|hidden| (hidden.path, hidden.why)).collect()
    }
}

/// The layers of an image by name.
struct Built {
    image: Image,
    dir: PathBuf,
}

impl Built {
    fn new(fake: &Fake, exclude: &[&str]) -> Self {
        let image = fake.store(exclude).ensure().unwrap();
        let dir = image.trees[0].layers[0].parent().unwrap().to_owned();
        Self { image, dir }
    }

    fn root(&self, path: &str) -> PathBuf {
        self.dir.join("root").join(path)
    }

    fn masked(&self, path: &str) -> bool {
        fs::symlink_metadata(self.dir.join("usr-mask").join(path))
            .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
    }
}

#[test]
fn two_overlays_with_the_hosts_usr_at_the_bottom() {
    let fake = Fake::new();
    let built = Built::new(&fake, &[]);
    let [root, usr] = built.image.trees.as_slice() else { panic!("{:?}", built.image.trees) };
    assert_eq!((root.at.as_path(), root.layers.len()), (Path::new("/"), 1));
    assert_eq!((usr.at.as_path(), usr.layers.last().unwrap()), (Path::new("/usr"), &fake.path("usr")));
    assert_eq!(fs::read_link(built.root("bin")).unwrap(), Path::new("usr/bin"));
    assert_eq!(fs::read_link(built.dir.join("usr-add/bin/python")).unwrap(), Path::new("python3"));
    for (dir, mode) in
        [("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700), ("workspace", 0o755), ("usr", 0o755)]
    {
        assert_eq!(fs::metadata(built.root(dir)).unwrap().mode() & 0o7777, mode, "{dir}");
    }
    for absent in ["home/alice", "root/secret", "opt/x"] {
        assert!(!built.root(absent).exists(), "{absent}");
    }
    assert_eq!(fs::read_to_string(built.root("etc/machine-id")).unwrap(), "");
    assert!(fs::read_to_string(built.root("etc/pip.conf")).unwrap().contains("break-system-packages = true"));
    assert!(!fs::read_to_string(built.root("etc/passwd")).unwrap().contains("alice"));
}

#[test]
fn directories_that_are_not_merged_into_usr_become_trees() {
    let fake = Fake::new();
    fs::remove_file(fake.path("bin")).unwrap();
    fake.file("bin/sh", "#!");
    fake.file("bin/private", "secret");
    fake.mode("bin/private", 0o600);
    let built = Built::new(&fake, &[]);
    let bin = built.image.trees.iter().find(|tree| tree.at == Path::new("/bin")).unwrap();
    assert_eq!(bin.layers, [built.dir.join("bin-mask"), fake.path("bin")]);
    assert!(built.root("bin").is_dir());
    assert!(fs::symlink_metadata(built.dir.join("bin-mask/private")).unwrap().file_type().is_char_device());
}

#[test]
fn what_others_may_not_read_is_hidden() {
    let fake = Fake::new();
    fake.file("usr/lib/app/key", "secret");
    fake.mode("usr/lib/app/key", 0o640);
    fake.file("usr/lib/closed/file", "secret");
    fake.mode("usr/lib/closed", 0o711);
    fake.file("usr/lib/node_modules/npm/npmrc", "//registry/:_authToken=secret");
    fake.file("usr/local/etc/tool.conf", "secret");
    fake.file("usr/src/project/main.c", "secret");
    let _socket = std::os::unix::net::UnixListener::bind(fake.path("usr/lib/socket")).unwrap();
    let built = Built::new(&fake, &[]);
    let all = [
        ("lib/app/key", Why::Private),
        ("lib/closed", Why::Private),
        ("lib/node_modules/npm/npmrc", Why::Credentials),
        ("lib/socket", Why::Special),
        ("local/etc", Why::Owner),
        ("src", Why::Owner),
    ];
    for (path, _) in all {
        assert!(built.masked(path), "{path}");
    }
    assert!(built.dir.join("usr-add/src").is_dir() && built.dir.join("usr-add/local/etc").is_dir());
    assert_eq!(fake.hidden(&built.image), all.map(|(path, why)| (format!("/usr/{path}"), why)));
    // The directories on the way show the mask's attributes, so these are the host's.
    let (host, mask) = (fake.path("usr/lib/app"), built.dir.join("usr-mask/lib/app"));
    let attributes = |path: &Path| {
        let meta = fs::symlink_metadata(path).unwrap();
        (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec())
    };
    assert_eq!(attributes(&host), attributes(&mask));
}

#[test]
fn no_link_dangles_that_does_not_dangle_on_the_host() {
    let fake = Fake::new();
    fake.file("opt/chrome/chrome", "#!");
    fake.link("etc/alternatives/browser", "/opt/chrome/chrome");
    fake.link("etc/alternatives/awk", "/usr/bin/bash");
    fake.link("usr/bin/browser", "/etc/alternatives/browser");
    fake.link("usr/bin/www", "browser");
    fake.link("usr/bin/awk", "../../etc/alternatives/awk");
    fake.link("usr/local/bin/mine", "../../../home/alice/secret");
    fake.link("usr/bin/broken", "/nowhere");
    fake.link("usr/bin/loop", "loop");
    fake.link("usr/lib/up", "../../../../../../usr/bin/bash");
    fake.file("usr/lib/key", "secret");
    fake.mode("usr/lib/key", 0o600);
    fake.link("usr/lib/to-key", "key");
    fake.link("usr/lib/to-source", "../src/x");
    fake.file("usr/src/x", "");
    let built = Built::new(&fake, &[]);
    for gone in ["bin/browser", "bin/www", "local/bin/mine", "lib/to-key", "lib/to-source"] {
        assert!(built.masked(gone), "{gone}");
    }
    assert!(fs::symlink_metadata(built.root("etc/alternatives/browser")).is_err());
    for kept in ["bin/awk", "bin/broken", "bin/loop", "lib/up"] {
        assert!(!built.masked(kept), "{kept}");
    }
    assert_eq!(fs::read_link(built.root("etc/alternatives/awk")).unwrap(), Path::new("/usr/bin/bash"));
    assert!(fake.hidden(&built.image).contains(&("/etc/alternatives/browser".into(), Why::Dangling)));
}

#[test]
fn certificates_come_with_what_they_point_to() {
    let fake = Fake::new();
    fake.file("usr/share/ca-certificates/a.crt", "-----BEGIN CERTIFICATE-----\nA");
    fake.file("opt/company/ca.crt", "-----BEGIN CERTIFICATE-----\nB");
    fake.file("opt/company/both.pem", "-----BEGIN PRIVATE KEY-----\nC");
    fake.link("etc/ssl/certs/a.pem", "/usr/share/ca-certificates/a.crt");
    fake.link("etc/ssl/certs/0a.0", "a.pem");
    fake.link("etc/ssl/certs/b.pem", "/opt/company/ca.crt");
    fake.link("etc/ssl/certs/c.pem", "/opt/company/both.pem");
    fake.file("etc/ssl/private/host.key", "-----BEGIN PRIVATE KEY-----");
    fake.file("etc/ssl/certs/mine.pem", "-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----");
    let built = Built::new(&fake, &[]);
    assert_eq!(fs::read_link(built.root("etc/ssl/certs/0a.0")).unwrap(), Path::new("a.pem"));
    let company = built.root("etc/ssl/certs/b.pem");
    assert!(fs::symlink_metadata(&company).unwrap().is_file());
    assert!(fs::read_to_string(&company).unwrap().ends_with("\nB"));
    for gone in ["etc/ssl/certs/c.pem", "etc/ssl/certs/mine.pem", "etc/ssl/private/host.key"] {
        assert!(fs::symlink_metadata(built.root(gone)).is_err(), "{gone}");
    }
}

#[test]
fn apts_credentials_stay_on_the_host() {
    let fake = Fake::new();
    let secret = "hunter2";
    fake.file("etc/apt/auth.conf", &format!("machine paid.example login me password {secret}\n"));
    fake.file(
        "etc/apt/auth.conf.d/90paid",
        &format!("machine https://more.example login me password {secret}\n"),
    );
    fake.file(
        "etc/apt/sources.list",
        &format!(
            "deb http://deb.debian.org/debian bookworm main\ndeb https://me:{secret}@a.example/ s main\n\
             deb https://paid.example/x s main\ndeb https://more.example/x s main\n"
        ),
    );
    fake.file("etc/apt/sources.list.d/a.list.save", &format!("deb https://me:{secret}@a.example/ s main\n"));
    fake.file(
        "etc/apt/apt.conf.d/80proxy",
        &format!("Acquire::http::Proxy \"http://me:{secret}@proxy:3128\";\n"),
    );
    fake.file("etc/apt/apt.conf.d/81broken", &format!("Acquire {{ http::Proxy \"http://me:{secret}@p\";\n"));
    fake.file("etc/apt/apt.conf.d/82closed", "APT::Get::Assume-Yes \"true\";\n");
    fake.mode("etc/apt/apt.conf.d/82closed", 0o640);
    fake.file("etc/profile", &format!("export http_proxy=http://me:{secret}@proxy:3128\n"));
    fake.file("etc/pip.conf", &format!("[global]\nindex-url = https://me:{secret}@pypi.example/simple\n"));
    fake.file("etc/npmrc", &format!("//registry/:_authToken={secret}\n"));
    fake.file("etc/gitconfig", &format!("[http]\nextraHeader = {secret}\n"));
    let built = Built::new(&fake, &[]);
    let mut files = vec![built.dir.clone()];
    while let Some(path) = files.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_file() {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains(secret), "{}", path.display());
        }
    }
    let sources = fs::read_to_string(built.root("etc/apt/sources.list")).unwrap();
    assert_eq!(sources, "deb http://deb.debian.org/debian bookworm main\n");
    let hidden = fake.hidden(&built.image);
    assert!(hidden.contains(&("/etc/apt/apt.conf.d/81broken".into(), Why::Credentials)), "{hidden:?}");
    assert!(hidden.contains(&("/etc/apt/apt.conf.d/82closed".into(), Why::Private)), "{hidden:?}");
}

#[test]
fn copies_keep_mode_and_time_and_lose_setuid() {
    let fake = Fake::new();
    let path = fake.file("etc/skel/tool", "x");
    fake.mode("etc/skel/tool", 0o6755);
    let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 7 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
    let built = Built::new(&fake, &[]);
    let meta = fs::metadata(built.root("etc/skel/tool")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o755, 1_000_000_000, 7));
}

#[test]
fn a_link_on_the_way_is_not_followed_out() {
    let fake = Fake::new();
    fake.file("home/alice/ssl/certs/x.pem", "secret");
    fake.link("etc/ssl", "/home/alice/ssl");
    fake.file("home/alice/fonts/x", "secret");
    fake.link("etc/fonts", "../home/alice/fonts");
    let built = Built::new(&fake, &[]);
    assert!(fs::symlink_metadata(built.root("etc/fonts")).is_err());
    assert!(fs::symlink_metadata(built.root("etc/ssl/certs")).is_err());
}

#[test]
fn excludes_hide_and_bad_ones_are_refused() {
    let fake = Fake::new();
    fake.file("usr/share/big/x", "x");
    fake.file("etc/fonts/x", "x");
    fake.file("etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main\n");
    fake.file("etc/X11/rgb.txt", "x");
    let built = Built::new(&fake, &["/usr/share/big", "/etc/fonts", "/etc/apt/", "/etc/X11"]);
    assert!(built.masked("share/big"));
    assert!(!built.dir.join("usr-add/share/big").exists());
    for gone in ["etc/fonts", "etc/apt/sources.list", "etc/X11"] {
        assert!(!built.root(gone).exists(), "{gone}");
    }
    assert_ne!(built.image.key, Built::new(&fake, &[]).image.key);
    for bad in ["relative", "/usr/../etc", "/", "/usr", ""] {
        let options = HostOptions { exclude: vec![bad.into()] };
        let made = Store::new(fake.root.path(), fake.data.path(), &options);
        assert!(matches!(made, Err(ImageError::BadExclude { .. })), "{bad}");
    }
}

#[test]
fn the_data_directory_is_never_shown() {
    let fake = Fake::new();
    let data = fake.path("usr/local/sandcrab");
    fs::create_dir_all(&data).unwrap();
    let image = Store::new(fake.root.path(), &data, &HostOptions::default()).unwrap().ensure().unwrap();
    let hidden = left_out(&data, &image).unwrap();
    assert_eq!(hidden, [Hidden { path: "/usr/local/sandcrab".into(), why: Why::Excluded }]);
}

#[test]
fn a_change_of_the_host_gives_a_new_key() {
    let fake = Fake::new();
    let first = fake.store(&[]).ensure().unwrap();
    assert_eq!(fake.store(&[]).ensure().unwrap(), first);
    fake.file("usr/local/lib/python3.11/dist-packages/new.py", "");
    let second = fake.store(&[]).ensure().unwrap();
    assert_ne!(second.key, first.key);
    // In the depth, where only the full comparison looks.
    fake.file("usr/share/doc/deep/er/key", "secret");
    let third = fake.store(&[]).ensure().unwrap();
    fake.mode("usr/share/doc/deep/er/key", 0o600);
    assert_eq!(fake.store(&[]).ensure().unwrap(), third);
    assert_ne!(fake.store(&[]).refresh().unwrap(), third.key);
    let fourth = fake.store(&[]).ensure().unwrap();
    assert_ne!(fourth.key, third.key);
    assert_eq!(fake.hidden(&fourth), [("/usr/share/doc/deep/er/key".into(), Why::Private)]);
    assert_eq!(fake.store(&[]).refresh().unwrap(), fourth.key);
}

#[test]
fn many_who_ask_at_once_get_one_image() {
    let fake = Fake::new();
    let start = Barrier::new(8);
    let images: Vec<Image> = std::thread::scope(|scope| {
        let ask = || {
            start.wait();
            fake.store(&[]).ensure().unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(images.iter().all(|image| *image == images[0]));
    let names = entries(&fake.data.path().join("images/host")).unwrap();
    assert_eq!(names, [images[0].key.as_str(), "lock", "states"]);
}

#[test]
fn collecting_removes_what_is_not_kept_and_interrupted_builds() {
    let fake = Fake::new();
    let first = fake.store(&[]).ensure().unwrap();
    fake.file("usr/bin/new", "");
    let second = fake.store(&[]).ensure().unwrap();
    let dir = fake.data.path().join("images/host");
    fs::create_dir_all(dir.join(".new-abc/root")).unwrap();
    fs::create_dir_all(dir.join(".old-abc/root")).unwrap();
    assert!(fake.store(&[]).collect(&BTreeSet::from([first.key.clone()])).unwrap().is_empty(), "in use");
    let removed = fake.store(&[]).collect(&BTreeSet::new()).unwrap();
    assert_eq!(removed, [first.key]);
    // In the background, from under names that nothing finds.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while entries(&dir).unwrap() != [second.key.as_str(), "lock", "states"] {
        assert!(std::time::Instant::now() < deadline, "{:?}", entries(&dir));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(entries(&dir.join("states")).unwrap().len(), 2, "its state, and that it is the last");
    assert_eq!(fake.store(&[]).ensure().unwrap(), second);
    fake.file("usr/bin/newer", "");
    assert!(
        fake.store(&[]).collect(&BTreeSet::new()).unwrap().is_empty(),
        "it serves until there is another"
    );
    fake.store(&[]).ensure().unwrap();
    assert_eq!(fake.store(&[]).collect(&BTreeSet::new()).unwrap(), [second.key.as_str()]);
}

#[test]
fn the_last_good_image_serves_while_the_next_cannot_be_made() {
    let fake = Fake::new();
    let states = fake.data.path().join("images/host/states");
    let (store, strict) = (fake.store(&[]), fake.store(&["/usr/bin/python3"]));
    let good = store.ensure().unwrap();
    fake.file("usr/bin/new", "");
    // Nothing can be written down any more, as on a full disk.
    let kept = fs::read_dir(&states)
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| entry.file_name().to_string_lossy().starts_with("last-"));
    let kept = kept.unwrap().path();
    let state = store.state().unwrap();
    fs::create_dir(states.join(&state)).unwrap();
    fs::write(states.join(&state).join("in-the-way"), "").unwrap();
    assert_eq!(store.ensure().unwrap(), good);
    // Not for other options: what they hide must stay hidden.
    let other = strict.state().unwrap();
    fs::create_dir_all(states.join(other).join("in-the-way")).unwrap();
    strict.ensure().unwrap_err();
    fs::remove_dir_all(states.join(&state)).unwrap();
    assert_ne!(store.ensure().unwrap(), good);
    assert_ne!(fs::read_to_string(kept).unwrap(), good.key);
}

#[test]
fn a_damaged_record_is_made_again() {
    let fake = Fake::new();
    let image = fake.store(&[]).ensure().unwrap();
    let dir = fake.data.path().join("images/host").join(&image.key);
    fs::remove_file(dir.join("image.json")).unwrap();
    assert_eq!(fake.store(&[]).ensure().unwrap(), image);
    assert!(dir.join("image.json").exists() && dir.join("root/etc/passwd").exists());
}

#[test]
fn a_machine_without_usr_is_refused() {
    let (root, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let made = Store::new(root.path(), data.path(), &HostOptions::default());
    assert!(matches!(made, Err(ImageError::NoUsr { .. })));
}
