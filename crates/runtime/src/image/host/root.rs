//! The layer at `/`: everything but the host's own directories.

use std::path::{Path, PathBuf};

use super::copies::{COPIED, DEBIAN_DIRECTORIES, DIRECTORIES, NOT_COPIED, ROOT_ENTRIES};
use super::plan::{Layer, LeftOut, Meta, Node};
use super::source::{Host, Kind, Stat};
use super::{MAX_TEXT, Why, accounts, apt, credentials};
use crate::image::{ImageError, identity};

/// Files larger than this are copied straight to disk; nobody hides credentials in a file of that size.
const MAX_HELD: u64 = MAX_TEXT;
/// Bounds on all that is copied: ten times a large desktop's.
const MAX_BYTES: u64 = 1 << 30;
const MAX_ENTRIES: u64 = 500_000;

/// Collects the layer.
struct Builder<'a, F> {
    host: &'a Host,
    excluded: F,
    left_out: &'a mut Vec<LeftOut>,
    layer: Layer,
    bytes: u64,
    entries: u64,
    /// The time of everything that is made here rather than copied.
    time: (i64, u32),
}

/// Plans the layer. `trees` are the directories at the root that become trees of their own.
pub(super) fn root_layer(
    host: &Host,
    trees: &[PathBuf],
    excluded: impl Fn(&Path) -> bool,
    left_out: &mut Vec<LeftOut>,
) -> Result<Layer, ImageError> {
    let time = match host.stat(Path::new("usr/lib/os-release"))? {
        Some(stat) => (stat.meta.seconds, stat.meta.nanoseconds),
        // 1980, the first year that a zip file can name.
        None => (315_532_800, 0),
    };
    let layer = Layer::default();
    let mut builder = Builder { host, excluded, left_out, layer, bytes: 0, entries: 0, time };
    builder.skeleton(trees)?;
    for pattern in COPIED {
        for path in builder.expand(pattern)? {
            builder.copy(&path)?;
        }
    }
    builder.apt()?;
    builder.generated()?;
    Ok(builder.layer)
}

impl<F: Fn(&Path) -> bool> Builder<'_, F> {
    fn made(&self, mode: u32) -> Meta {
        Meta { mode, uid: 0, gid: 0, seconds: self.time.0, nanoseconds: self.time.1 }
    }

    fn dir(&mut self, path: impl Into<PathBuf>, mode: u32) {
        let meta = self.made(mode);
        self.layer.insert(path, Node::Dir(meta));
    }

    fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        let meta = self.made(mode);
        self.layer.insert(path, Node::File(meta, content.into()));
    }

    fn link(&mut self, path: &str, target: &str) {
        let meta = self.made(0o777);
        self.layer.insert(path, Node::Link(meta, target.into()));
    }

    fn leave_out(&mut self, path: &Path, why: Why) {
        self.left_out.push(LeftOut { path: path.to_owned(), why });
    }

    fn skeleton(&mut self, trees: &[PathBuf]) -> Result<(), ImageError> {
        self.dir("", 0o755);
        for (path, mode) in DIRECTORIES {
            self.dir(path, *mode);
        }
        for tree in trees {
            self.dir(tree, 0o755);
        }
        for name in ROOT_ENTRIES {
            let path = Path::new(name);
            if let Some(stat) = self.host.stat(path)?
                && stat.kind == Kind::Link
            {
                let target = self.host.read_link(path)?;
                self.layer.insert(path, Node::Link(self.made(0o777), target));
            }
        }
        self.link("var/run", "/run");
        self.link("var/spool/mail", "../mail");
        self.link("etc/mtab", "../proc/self/mounts");
        if self.host.stat(Path::new("var/lib/dpkg/status"))?.is_some() {
            for (path, mode) in DEBIAN_DIRECTORIES {
                self.dir(path, *mode);
            }
        }
        Ok(())
    }

    /// The paths that a pattern of [`COPIED`] stands for.
    fn expand(&self, pattern: &str) -> Result<Vec<PathBuf>, ImageError> {
        let path = Path::new(pattern);
        let (Some(prefix), Some(parent)) = (pattern.strip_suffix('*'), path.parent()) else {
            return Ok(vec![path.to_owned()]);
        };
        if !self.host.stat(parent)?.is_some_and(|stat| stat.kind == Kind::Dir) {
            return Ok(Vec::new());
        }
        let names = self.host.names(parent)?.into_iter();
        // As text: `Path::starts_with` compares whole components.
        let starts = |path: &PathBuf| path.to_str().is_some_and(|text| text.starts_with(prefix));
        Ok(names.map(|name| parent.join(name)).filter(starts).collect())
    }

    /// Copies a path and everything below it. A link on the way is copied in place of what it leads to.
    fn copy(&mut self, path: &Path) -> Result<(), ImageError> {
        let mut parents: Vec<&Path> =
            path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        parents.reverse();
        if self.host.stat(path)?.is_none() {
            return Ok(());
        }
        for parent in parents {
            if (self.excluded)(parent) {
                self.leave_out(parent, Why::Excluded);
                return Ok(());
            }
            if matches!(self.layer.get(parent), Some(Node::Dir(_))) {
                continue;
            }
            match self.host.stat(parent)? {
                Some(stat) if stat.kind == Kind::Dir && stat.public() => {
                    self.layer.insert(parent, Node::Dir(owned(stat.meta)));
                }
                Some(stat) if stat.kind == Kind::Link => return self.entry(parent),
                _ => return Ok(()),
            }
        }
        self.entry(path)
    }

    fn entry(&mut self, path: &Path) -> Result<(), ImageError> {
        let Some(stat) = self.host.stat(path)? else { return Ok(()) };
        if NOT_COPIED.iter().any(|left| path == Path::new(left)) {
            return Ok(());
        }
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            let path = self.host.absolute(path);
            return Err(ImageError::TooLarge { what: "copied files", bound: MAX_ENTRIES, path });
        }
        if (self.excluded)(path) {
            self.leave_out(path, Why::Excluded);
            return Ok(());
        }
        match stat.kind {
            Kind::Special => self.leave_out(path, Why::Special),
            _ if !stat.public() => self.leave_out(path, Why::Private),
            Kind::Link => {
                let target = self.host.read_link(path)?;
                self.layer.insert(path, Node::Link(owned(stat.meta), target));
            }
            Kind::Dir => {
                self.layer.insert(path, Node::Dir(owned(stat.meta)));
                for name in self.host.names(path)? {
                    self.entry(&path.join(name))?;
                }
            }
            Kind::File => self.copy_file(path, &stat)?,
        }
        Ok(())
    }

    fn copy_file(&mut self, path: &Path, stat: &Stat) -> Result<(), ImageError> {
        self.bytes += stat.size;
        if self.bytes > MAX_BYTES {
            let path = self.host.absolute(path);
            return Err(ImageError::TooLarge { what: "copied bytes", bound: MAX_BYTES, path });
        }
        let meta = owned(stat.meta);
        // The package database is large and holds what packages brought, so it is not read here.
        if stat.size > MAX_HELD || path.starts_with("var/lib/dpkg") {
            self.layer.insert(path, Node::Copy { meta, from: path.to_owned(), size: stat.size });
            return Ok(());
        }
        if path.file_name().is_some_and(credentials::named) {
            self.leave_out(path, Why::Credentials);
            return Ok(());
        }
        let content = self.host.read(path, MAX_HELD)?;
        if credentials::held_by(&content) {
            self.leave_out(path, Why::Credentials);
        } else {
            self.layer.insert(path, Node::File(meta, content));
        }
        Ok(())
    }

    /// apt's configuration, cleaned; see [`apt`].
    fn apt(&mut self) -> Result<(), ImageError> {
        let mut auth = self.host.text("etc/apt/auth.conf")?;
        for path in self.expand("etc/apt/auth.conf.d/*")? {
            if let Some(path) = path.to_str() {
                auth.push_str(&self.host.text(path)?);
                auth.push('\n');
            }
        }
        let with_login = apt::hosts_with_login(&auth);
        for pattern in ["etc/apt/sources.list", "etc/apt/sources.list.d/*"] {
            for path in self.expand(pattern)? {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("list") => self.cleaned(&path, |text| Some(apt::clean_list(text, &with_login)))?,
                    Some("sources") => {
                        self.cleaned(&path, |text| Some(apt::clean_sources(text, &with_login)))?
                    }
                    // apt reads no others.
                    _ => {}
                }
            }
        }
        for pattern in ["etc/apt/apt.conf", "etc/apt/apt.conf.d/*"] {
            for path in self.expand(pattern)? {
                self.cleaned(&path, apt::clean_conf)?;
            }
        }
        for pattern in ["etc/apt/preferences", "etc/apt/preferences.d", "etc/apt/trusted.gpg"] {
            self.copy(Path::new(pattern))?;
        }
        for pattern in ["etc/apt/trusted.gpg.d", "etc/apt/keyrings"] {
            self.copy(Path::new(pattern))?;
        }
        Ok(())
    }

    fn cleaned(&mut self, path: &Path, clean: impl Fn(&str) -> Option<String>) -> Result<(), ImageError> {
        let Some(stat) = self.host.stat(path)? else { return Ok(()) };
        if path.ancestors().any(|path| (self.excluded)(path)) {
            self.leave_out(path, Why::Excluded);
        } else if stat.kind != Kind::File || !stat.public() {
            self.leave_out(path, Why::Private);
        } else {
            let text = String::from_utf8_lossy(&self.host.read(path, MAX_TEXT)?).into_owned();
            match clean(&text) {
                Some(text) => self.layer.insert(path, Node::File(owned(stat.meta), text.into_bytes())),
                None => self.leave_out(path, Why::Credentials),
            }
        }
        Ok(())
    }

    /// Files that are written rather than copied.
    fn generated(&mut self) -> Result<(), ImageError> {
        let root_shell =
            if self.host.stat(Path::new("usr/bin/bash"))?.is_some() { "/bin/bash" } else { "/bin/sh" };
        let made = accounts::accounts(
            &self.host.text("etc/passwd")?,
            &self.host.text("etc/group")?,
            &self.host.text("var/lib/dpkg/statoverride")?,
            root_shell,
        );
        self.file("etc/passwd", 0o644, made.passwd);
        self.file("etc/group", 0o644, made.group);
        self.file("etc/shadow", 0o600, made.shadow);
        self.file("etc/gshadow", 0o600, made.gshadow);
        // What tells sandboxes apart is in `identity`; these are what programs find until it is written.
        self.file("etc/hostname", 0o644, "sandbox\n");
        self.file("etc/hosts", 0o644, identity::hosts("sandbox"));
        self.file("etc/machine-id", 0o444, "");
        self.file("etc/resolv.conf", 0o644, "# No name server.\n");
        self.file("etc/nsswitch.conf", 0o644, NSSWITCH);
        self.file("etc/environment", 0o644, format!("PATH=\"{}\"\n", super::PATH));
        self.file("etc/fstab", 0o644, "");
        self.file("etc/motd", 0o644, "");
        // Debian's pip refuses to install for the whole system, which is the point of a sandbox.
        self.file("etc/pip.conf", 0o644, "[global]\nbreak-system-packages = true\n");
        if self.layer.get(Path::new("etc/profile")).is_none() {
            self.file("etc/profile", 0o644, format!("export PATH=\"{}\"\n", super::PATH));
        }
        for (name, from) in [(".bashrc", "dot.bashrc"), (".profile", "dot.profile")] {
            let text = self.host.text(&format!("usr/share/base-files/{from}"))?;
            if !text.is_empty() {
                self.file(&format!("root/{name}"), 0o644, text);
            }
        }
        Ok(())
    }
}

/// Plain files and DNS: the host's directory services are not reachable from inside.
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\ngshadow: files\nhosts: files dns\nnetworks: files\n\
                        protocols: db files\nservices: db files\nethers: db files\nrpc: db files\n";

/// A person of the host owns nothing inside: such files belong to root.
fn owned(meta: Meta) -> Meta {
    let keep = |id: u32| if id < 1000 { id } else { 0 };
    Meta { uid: keep(meta.uid), gid: keep(meta.gid), ..meta }
}
