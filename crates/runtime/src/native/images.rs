//! The images of the driver: the host's, those that are built over it, and those that a test or an embedder adds.

use crate::driver::{DriverError, ImageInfo, Result};
use crate::image::host::{self, HostOptions};
use crate::image::layer::{self, Layer, Recipe, Store};
use crate::image::{Image, ImageError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The name of the image that is always there.
const HOST: &str = "host";
/// How long the host's image is taken to show the host as it is.
const FRESH: Duration = Duration::from_secs(2);
/// How often, at most, every file of the host's image is compared with the host: half a second of one CPU.
const COMPARED: Duration = Duration::from_secs(600);
/// How often an image is made that another server removes before it is held.
const TRIES: usize = 3;

/// All images. Several servers may share the directory: what one uses it holds, and no other removes it.
#[derive(Debug)]
pub(super) struct Images {
    /// `images` in it is where they are kept.
    data_dir: PathBuf,
    /// Whether what nobody uses may be removed: not by a guest in another server's directory, who does not know what
    /// that one's stopped sandboxes need.
    owner: bool,
    options: HostOptions,
    recipes: Vec<Recipe>,
    layers: Store,
    added: Mutex<HashMap<String, Arc<Image>>>,
    /// The host's image, and when it was last looked at.
    host: Mutex<Option<(Instant, Arc<Image>)>>,
    /// When every file of it was last compared.
    compared: Mutex<Instant>,
    /// By key, what keeps an image from being removed.
    held: Mutex<HashMap<String, File>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Images {
    /// Images in `data_dir/images`; `owner` says whether that is the driver's own data directory.
    pub(super) fn open(
        data_dir: &Path,
        owner: bool,
        options: HostOptions,
        recipes: Vec<Recipe>,
    ) -> Result<Self> {
        Ok(Self {
            data_dir: data_dir.to_owned(),
            owner,
            options,
            recipes,
            layers: Store::open(&data_dir.join("images"))?,
            added: Mutex::default(),
            host: Mutex::default(),
            compared: Mutex::new(Instant::now()),
            held: Mutex::default(),
        })
    }

    pub(super) fn add(&self, name: &str, image: Image) {
        lock(&self.added).insert(name.to_owned(), Arc::new(image));
    }

    /// The image with a name, held.
    pub(super) fn get(&self, name: &str) -> Result<Arc<Image>> {
        if let Some(image) = lock(&self.added).get(name) {
            return Ok(image.clone());
        }
        if name == HOST {
            return self.host();
        }
        let recipe = self.recipe(name)?;
        let base = self.get(&recipe.base)?;
        let unbuilt = || DriverError::ImageNotBuilt { image: name.to_owned() };
        let foundation = recipe.foundation(&base);
        let layer = self.layers.find(&recipe.key(&foundation));
        let former = || self.layers.find_former(recipe, &foundation);
        let layer = layer.or_else(former).ok_or_else(unbuilt)?;
        if !lock(&self.held).contains_key(&layer.key) {
            // Who removed it in between says that it is to be built again.
            let held = self.layers.hold(&layer.key).map_err(|_| unbuilt())?;
            lock(&self.held).insert(layer.key.clone(), held);
        }
        Ok(Arc::new(self.layers.compose(&layer, &base)))
    }

    fn recipe(&self, name: &str) -> Result<&Recipe> {
        self.recipes.iter().find(|recipe| recipe.name == name).ok_or_else(|| {
            let known = self.names().into_iter().collect();
            DriverError::ImageNotFound { image: name.to_owned(), known }
        })
    }

    fn names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = lock(&self.added).keys().cloned().collect();
        names.insert(HOST.to_owned());
        names.extend(self.recipes.iter().map(|recipe| recipe.name.clone()));
        names
    }

    fn host(&self) -> Result<Arc<Image>> {
        // Looking costs about a millisecond; what a package manager did a moment ago need not be seen at once.
        let mut host = lock(&self.host);
        if let Some((checked, image)) = &*host
            && checked.elapsed() < FRESH
        {
            return Ok(image.clone());
        }
        let image = Arc::new(self.make_host()?);
        *host = Some((Instant::now(), image.clone()));
        self.compare_in_background(&image);
        Ok(image)
    }

    fn make_host(&self) -> Result<Image, ImageError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let image = host::ensure(&self.data_dir, &self.options)?;
            if lock(&self.held).contains_key(&image.key) {
                return Ok(image);
            }
            match host::hold(&self.data_dir, &image) {
                Ok(held) => {
                    lock(&self.held).insert(image.key.clone(), held);
                    return Ok(image);
                }
                Err(_) if tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds changes that the quick look does not see, such as a file deep in `/usr` that became private. The next
    /// quick look finds the image that this makes.
    fn compare_in_background(&self, image: &Arc<Image>) {
        let mut compared = lock(&self.compared);
        if compared.elapsed() < COMPARED {
            return;
        }
        *compared = Instant::now();
        let (data_dir, options, image) = (self.data_dir.clone(), self.options.clone(), image.clone());
        std::thread::spawn(move || match host::changed(&data_dir, &options, &image) {
            Ok(true) => {
                tracing::info!(former = image.key, "the host has changed: new sandboxes get a new image")
            }
            Ok(false) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the host cannot be compared with its image");
            }
        });
    }

    /// What there is, with how many instances use it.
    pub(super) fn list(&self, instances: &BTreeMap<String, usize>) -> Result<Vec<ImageInfo>> {
        let mut list = Vec::new();
        for name in self.names() {
            let is_built = self.recipes.iter().any(|recipe| recipe.name == name);
            let key = match self.get(&name) {
                Ok(image) => layer::parts(&image.key).next().map(str::to_owned),
                Err(DriverError::ImageNotBuilt { .. }) => None,
                Err(error) => return Err(error),
            };
            let size = key.as_ref().and_then(|key| self.layers.find(key)).map(|layer| layer.size);
            let is_former = is_built && key.is_some() && key != Some(self.wanted(&name)?);
            let instances = instances.get(&name).copied().unwrap_or_default();
            list.push(ImageInfo { name, is_built, is_former, key, size, instances });
        }
        Ok(list)
    }

    /// The key of the layer that an image is to have now.
    fn wanted(&self, name: &str) -> Result<String> {
        let recipe = self.recipe(name)?;
        Ok(recipe.key(&recipe.foundation(&*self.get(&recipe.base)?)))
    }

    /// Publishes what was built for an image in an instance that is made of `base`.
    pub(super) fn publish(&self, name: &str, base: &Image, archive: &Path) -> Result<Layer> {
        let recipe = self.recipe(name)?;
        Ok(self.layers.publish(recipe, base, archive)?)
    }

    /// Removes what was built for an image of which there are so many instances; false if nothing was or another server
    /// holds it.
    pub(super) fn remove(&self, name: &str, instances: usize) -> Result<bool> {
        if name == HOST || lock(&self.added).contains_key(name) {
            return Ok(false);
        }
        let key = match self.get(name) {
            Ok(image) => layer::parts(&image.key).next().unwrap_or_default().to_owned(),
            Err(DriverError::ImageNotBuilt { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if instances > 0 {
            return Err(DriverError::ImageInUse { image: name.to_owned(), instances });
        }
        lock(&self.held).remove(&key);
        Ok(self.layers.remove(&key)?)
    }

    /// Removes the images of former states of the machine that are not in `used`, the directories that instances are made of.
    pub(super) fn collect(&self, used: &BTreeSet<String>) -> Result<()> {
        if !self.owner {
            return Ok(());
        }
        let mut keep = used.clone();
        // What is over the host as it is now is kept like the host's own image.
        let present = self.host.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let base = match present {
            Some((_, image)) => Some(Image::clone(&image)),
            // Nothing was made of it yet: making it is for who needs it.
            None => host::known(&self.data_dir, &self.options)?,
        };
        if let Some(base) = base {
            for recipe in &self.recipes {
                let foundation = recipe.foundation(&base);
                let layer = self.layers.find(&recipe.key(&foundation));
                let serves = layer.or_else(|| self.layers.find_former(recipe, &foundation));
                keep.extend(serves.map(|layer| layer.key));
            }
        }
        let mut removed = self.layers.collect(&keep)?;
        removed.extend(host::collect(&self.data_dir, &self.options, &keep)?);
        if !removed.is_empty() {
            tracing::info!(?removed, "removed images that nothing uses");
        }
        Ok(())
    }
}
