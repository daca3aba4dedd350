//! The images on disk: made once, found again, published whole, removed when nobody uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use sha2::{Digest, Sha256};

use super::plan::{self, LeftOut, Node, Plan};
use super::source::{Host, Kind};
use super::{Hidden, HostOptions, PATH, copies, links, locale, root, state, survey, write};
use crate::image::{self, Image, ImageError, Tree, entries, hex, read_json, write_json};

/// How often the plan is made anew because the host changed meanwhile, before the last one is taken as it is.
const MAX_TRIES: u32 = 3;

/// Part of every key: raise it when the same host would give other layers.
const VERSION: u32 = 2;

/// The images of one host tree in one data directory.
pub(super) struct Store {
    host: Host,
    /// `DATA/images/host`.
    dir: PathBuf,
    /// Relative to the host's root. As text: comparing paths by component is slow, and there are many.
    exclude: BTreeSet<OsString>,
}

/// What an image is to be made of.
struct Planned {
    state: String,
    plan: Plan,
    /// Whether the host stood still while it was planned.
    is_steady: bool,
}

impl Store {
    pub(super) fn new(root: &Path, data_dir: &Path, options: &HostOptions) -> Result<Self, ImageError> {
        let host = Host::open(root)?;
        if !host.stat(Path::new("usr"))?.is_some_and(|stat| stat.kind == Kind::Dir) {
            return Err(ImageError::NoUsr { path: root.join("usr") });
        }
        let dir = data_dir.join("images/host");
        fs::create_dir_all(dir.join("states")).map_err(ImageError::io("make the directory", &dir))?;
        let dir = dir.canonicalize().map_err(ImageError::io("find", &dir))?;
        let mut exclude = BTreeSet::new();
        for path in &options.exclude {
            exclude.insert(relative(path)?.into_os_string());
        }
        // The data directory holds every sandbox's files.
        if let Some(path) = dir.ancestors().nth(2).and_then(|data_dir| data_dir.strip_prefix(root).ok()) {
            exclude.insert(path.as_os_str().to_owned());
        }
        Ok(Self { host, dir, exclude })
    }

    pub(super) fn ensure(&self) -> Result<Image, ImageError> {
        if let Some(image) = self.known(&self.state()?) {
            return Ok(image);
        }
        let _lock = self.lock()?;
        // Whoever held the lock before may have made it.
        if let Some(image) = self.known(&self.state()?) {
            return Ok(image);
        }
        let planned = self.plan_steadily();
        let last = self.last();
        let built = match (planned, &last) {
            // A package manager is at work: half of what it does is no image.
            (Ok(Planned { is_steady: false, .. }), Some(_)) => Err(None),
            (planned, _) => planned.and_then(|planned| self.write_out(&planned)).map_err(Some),
        };
        match (built, last) {
            (Ok(key), _) => self.load(&key),
            (Err(why), Some(image)) => {
                let why = why.as_ref().map(|error| error as &dyn std::error::Error);
                tracing::warn!(
                    why,
                    key = image.key,
                    "the host's image cannot be made now: the last one serves"
                );
                Ok(image)
            }
            (Err(Some(error)), None) => Err(error),
            (Err(None), None) => unreachable!("without a last one, the plan is carried out"),
        }
    }

    /// The image for the present state, if the cheap look finds one.
    pub(super) fn present(&self) -> Result<Option<Image>, ImageError> {
        Ok(self.known(&self.state()?))
    }

    /// Makes the image for the present state even if the cheap look found one; its key.
    pub(super) fn refresh(&self) -> Result<String, ImageError> {
        let _lock = self.lock()?;
        self.write_out(&self.plan_steadily()?)
    }

    /// The image that was made last with these options.
    fn last(&self) -> Option<Image> {
        self.known(&self.last_name())
    }

    /// Where its key is kept, among the states.
    fn last_name(&self) -> String {
        let mut hasher = Sha256::new();
        self.feed_options(&mut hasher);
        format!("last-{}", hex(hasher))
    }

    /// The image that was recorded for a state. One that cannot be read is made again, under the lock.
    fn known(&self, state: &str) -> Option<Image> {
        let key = fs::read_to_string(self.dir.join("states").join(state)).ok()?;
        self.load(&key).ok()
    }

    fn load(&self, key: &str) -> Result<Image, ImageError> {
        let dir = self.dir.join(key);
        let mut image: Image = read_json(&dir.join("image.json"))?;
        for layer in image.trees.iter_mut().flat_map(|tree| &mut tree.layers) {
            // An absolute path replaces what it is joined to: the host's own directories stay as they are.
            *layer = dir.join(&*layer);
        }
        Ok(image)
    }

    /// Plans until the host stands still meanwhile, or often enough. What is gone by the time that it is looked at is a
    /// change like any other.
    fn plan_steadily(&self) -> Result<Planned, ImageError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let state = self.state();
            let plan = self.plan();
            let is_last = tries == MAX_TRIES;
            match (state, plan) {
                (Ok(state), Ok(plan)) => {
                    let is_steady = self.state().is_ok_and(|now| now == state);
                    if is_steady || is_last {
                        return Ok(Planned { state, plan, is_steady });
                    }
                }
                (Err(error), _) | (_, Err(error)) if is_last || !error.is_missing() => return Err(error),
                _ => {}
            }
            tracing::info!("the host changed while its image was planned; planning again");
        }
    }

    /// Called with the lock held; the key.
    fn write_out(&self, planned: &Planned) -> Result<String, ImageError> {
        let key = self.key(&planned.state, &planned.plan);
        if !self.dir.join(&key).join("image.json").exists() {
            self.write(&key, &planned.plan)?;
        }
        self.publish(&key, Path::new("states"), &planned.state)?;
        self.publish(&key, Path::new("states"), &self.last_name())?;
        Ok(key)
    }

    /// A hash of what the cheap look sees.
    pub(super) fn state(&self) -> Result<String, ImageError> {
        let mut hasher = Sha256::new();
        self.feed_options(&mut hasher);
        state::feed(&self.host, &mut hasher)?;
        Ok(hex(hasher))
    }

    fn feed_options(&self, hasher: &mut Sha256) {
        hasher.update(VERSION.to_le_bytes());
        for path in &self.exclude {
            plan::field(hasher, path.as_encoded_bytes());
        }
        plan::field(hasher, self.host.absolute(Path::new("")).as_os_str().as_encoded_bytes());
    }

    fn key(&self, state: &str, plan: &Plan) -> String {
        let mut hasher = Sha256::new();
        plan::field(&mut hasher, state.as_bytes());
        plan.feed(&mut hasher);
        format!("host-{}", hex(hasher))
    }

    fn plan(&self) -> Result<Plan, ImageError> {
        let excluded = |path: &Path| self.exclude.contains(path.as_os_str());
        let mut plan = Plan::default();
        let mut at = vec![PathBuf::from("usr")];
        for name in copies::ROOT_ENTRIES.iter().filter(|name| !excluded(Path::new(name))) {
            if self.host.stat(Path::new(name))?.is_some_and(|stat| stat.kind == Kind::Dir) {
                at.push(PathBuf::from(name));
            }
        }
        for at in &at {
            let tree = survey::survey(&self.host, at, excluded, &mut plan.left_out)?;
            plan.trees.push(tree);
        }
        plan.root = root::root_layer(&self.host, &at, excluded, &mut plan.left_out)?;
        self.add_python(&mut plan)?;
        if let Some(archive) = locale::archive(&self.host, excluded)?
            && let Some(usr) = plan.trees.first_mut()
        {
            usr.add.insert(locale::ARCHIVE, archive);
        }
        links::settle(&self.host, &mut plan)?;
        for tree in &mut plan.trees {
            tree.complete(&self.host)?;
        }
        plan.left_out.sort();
        plan.left_out.dedup();
        Ok(plan)
    }

    /// `python`, which most programs and people call it, where the distribution has only `python3`.
    fn add_python(&self, plan: &mut Plan) -> Result<(), ImageError> {
        let bin = Path::new("usr/bin");
        if self.host.stat(&bin.join("python"))?.is_none()
            && let Some(python3) = self.host.stat(&bin.join("python3"))?
            && let Some(usr) = plan.trees.first_mut()
        {
            usr.add.insert("bin/python", Node::Link(python3.meta, "python3".into()));
        }
        Ok(())
    }

    fn write(&self, key: &str, plan: &Plan) -> Result<(), ImageError> {
        let temporary = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&self.dir)
            .map_err(ImageError::io("make a directory in", &self.dir))?;
        let dir = temporary.path();
        write::layer(&self.host, &plan.root, &dir.join("root"))?;
        let mut trees = vec![Tree { at: "/".into(), layers: vec!["root".into()] }];
        for tree in &plan.trees {
            let mut layers = Vec::new();
            for (suffix, layer) in [("add", &tree.add), ("mask", &tree.mask)] {
                if !layer.is_empty() {
                    let name = format!("{}-{suffix}", tree.at.display());
                    write::layer(&self.host, layer, &dir.join(&name))?;
                    layers.push(PathBuf::from(name));
                }
            }
            layers.push(self.host.absolute(&tree.at));
            trees.push(Tree { at: Path::new("/").join(&tree.at), layers });
        }
        write_json(&dir.join("image.json"), &Image { key: key.to_owned(), trees, env: environment() })?;
        let hidden =
            |LeftOut { path, why }: &LeftOut| Hidden { path: format!("/{}", path.display()), why: *why };
        write_json(&dir.join("left-out.json"), &plan.left_out.iter().map(hidden).collect::<Vec<_>>())?;
        rustix::fs::chmod(dir, Mode::from_raw_mode(0o755))
            .map_err(ImageError::io("set the permissions of", dir))?;
        // A name must not outlive the content that it promises, not even a power cut.
        let fd = File::open(dir).map_err(ImageError::io("open", dir))?;
        rustix::fs::syncfs(&fd).map_err(ImageError::io("sync", dir))?;
        let to = self.dir.join(key);
        if to.exists() {
            // Without image.json: left by someone's hand. Nothing can use it.
            crate::tree::remove(&to).map_err(ImageError::io("remove", &to))?;
        }
        fs::rename(temporary.keep(), &to).map_err(ImageError::io("publish", &to))
    }

    /// Writes a small file in one step.
    fn publish(&self, content: &str, dir: &Path, name: &str) -> Result<(), ImageError> {
        let dir = self.dir.join(dir);
        let failed = || ImageError::io::<std::io::Error>("record", dir.join(name));
        let mut file = tempfile::NamedTempFile::new_in(&dir).map_err(failed())?;
        std::io::Write::write_all(&mut file, content.as_bytes()).map_err(failed())?;
        file.persist(dir.join(name)).map_err(|error| failed()(error.error))?;
        Ok(())
    }

    pub(super) fn collect(&self, keep: &BTreeSet<String>) -> Result<Vec<String>, ImageError> {
        let _lock = self.lock()?;
        // The last one serves where the next cannot be made.
        let present = self.present()?.or_else(|| self.last()).map(|image| image.key);
        let (mut gone, mut removed) = (Vec::new(), Vec::new());
        for name in entries(&self.dir)? {
            if name.starts_with(".new-") || name.starts_with(".old-") {
                gone.push(self.dir.join(&name));
            } else if name.starts_with("host-")
                && !keep.contains(&name)
                && present.as_ref() != Some(&name)
                && let Some(old) = image::put_away(&self.dir, &name)?
            {
                gone.push(old);
                removed.push(name);
            }
        }
        image::discard(gone);
        for state in entries(&self.dir.join("states"))? {
            let path = self.dir.join("states").join(state);
            let key = fs::read_to_string(&path).map_err(ImageError::io("read", &path))?;
            if !self.dir.join(&key).exists() {
                fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
            }
        }
        Ok(removed)
    }

    fn lock(&self) -> Result<File, ImageError> {
        image::lock(&self.dir.join("lock"), FlockOperation::LockExclusive)
    }
}

/// The environment of the image's processes.
fn environment() -> BTreeMap<String, String> {
    [
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("PATH", PATH),
        // pip warns root not to do what a sandbox is for.
        ("PIP_ROOT_USER_ACTION", "ignore"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// An excluded path relative to the root.
fn relative(path: &Path) -> Result<PathBuf, ImageError> {
    let bad = || ImageError::BadExclude { path: path.to_owned() };
    let inside = path.strip_prefix("/").map_err(|_| bad())?;
    let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
    // Without `/usr` nothing is left to make an image of.
    if !plain || inside.as_os_str().is_empty() || inside == Path::new("usr") {
        return Err(bad());
    }
    Ok(inside.components().collect())
}
