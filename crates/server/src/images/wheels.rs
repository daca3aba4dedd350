//! The wheels on this machine: downloaded once, or put there by hand where there is no index. A file counts by its hash,
//! which is computed each time, not by its name.

use super::BuildError;
use rustix::fs::FlockOperation;
use sandcrab_runtime::image::python::{self, Wheel};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest name of a wheel.
const NAME: usize = 200;
/// What is being written, and what an interrupted build left, has a name that begins so.
const TEMPORARY: &str = ".new-";

/// The directory of wheels. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Wheels {
    dir: PathBuf,
}

impl Wheels {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory if it is missing and takes the right to build, which one server at a time has of those that
    /// share it; waits for it. Whoever had it before and was killed left files behind that are removed here.
    pub(super) async fn lock(&self) -> Result<File, BuildError> {
        let dir = self.dir.clone();
        blocking(move || {
            fs::create_dir_all(&dir).map_err(BuildError::io("create", &dir))?;
            let path = dir.join("lock");
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(BuildError::io("open", &path))?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
                .map_err(|error| BuildError::io("lock", &path)(error.into()))?;
            for entry in fs::read_dir(&dir).map_err(BuildError::io("list", &dir))? {
                let entry = entry.map_err(BuildError::io("list", &dir))?;
                if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                    fs::remove_file(entry.path()).map_err(BuildError::io("remove", &entry.path()))?;
                }
            }
            Ok(file)
        })
        .await
    }

    /// A file for what is not whole yet; removed when it is dropped.
    pub(super) fn temporary(&self, suffix: &str) -> Result<tempfile::TempPath, BuildError> {
        let made = tempfile::Builder::new().prefix(TEMPORARY).suffix(suffix).tempfile_in(&self.dir);
        made.map(tempfile::NamedTempFile::into_temp_path).map_err(BuildError::io("make a file in", &self.dir))
    }

    /// Whether a name from inside of a sandbox is one that a wheel may have.
    pub(super) fn is_name(name: &str) -> bool {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
        name.ends_with(".whl") && !name.starts_with('.') && name.len() <= NAME && name.bytes().all(good)
    }

    /// Keeps a file under a name if it is one of `wanted`; else it is dropped.
    pub(super) async fn keep(
        &self,
        file: tempfile::TempPath,
        name: &str,
        wanted: &[Wheel<'static>],
    ) -> Result<(), BuildError> {
        let (to, wanted) = (self.dir.join(name), wanted.to_vec());
        blocking(move || {
            let hash = sha256(&file)?;
            if !wanted.iter().any(|wheel| wheel.sha256 == hash) {
                tracing::warn!(file = %to.display(), hash, "a sandbox sent a wheel that nobody asked for");
                return Ok(());
            }
            file.persist(&to).map_err(|error| BuildError::io("keep", &to)(error.error))
        })
        .await
    }

    /// The wheels of a lock that are not there.
    pub(super) async fn missing(&self, lock: &'static str) -> Result<Vec<Wheel<'static>>, BuildError> {
        self.missing_of(&python::wheels(lock).collect::<Vec<_>>()).await
    }

    /// Those of some wheels that are not there.
    pub(super) async fn missing_of(
        &self,
        wanted: &[Wheel<'static>],
    ) -> Result<Vec<Wheel<'static>>, BuildError> {
        let there = self.by_hash().await?;
        Ok(wanted.iter().filter(|wheel| !there.contains_key(wheel.sha256)).copied().collect())
    }

    /// Names and paths of a lock's wheels, as far as they are there.
    pub(super) async fn files(&self, lock: &'static str) -> Result<Vec<(String, PathBuf)>, BuildError> {
        let there = self.by_hash().await?;
        let found = python::wheels(lock).filter_map(|wheel| there.get(wheel.sha256));
        Ok(found.map(|name| (name.clone(), self.dir.join(name))).collect())
    }

    async fn by_hash(&self) -> Result<BTreeMap<String, String>, BuildError> {
        let dir = self.dir.clone();
        blocking(move || {
            let mut found = BTreeMap::new();
            for entry in fs::read_dir(&dir).map_err(BuildError::io("list", &dir))? {
                let entry = entry.map_err(BuildError::io("list", &dir))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
                if is_file && Self::is_name(&name) {
                    found.insert(sha256(&entry.path())?, name);
                }
            }
            Ok(found)
        })
        .await
    }
}

fn sha256(path: &Path) -> Result<String, BuildError> {
    let mut file = File::open(path).map_err(BuildError::io("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(BuildError::io("read", path))? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_a_sandbox_are_names_of_wheels() {
        for good in ["numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl", "a-1+local-py3-none-any.whl"] {
            assert!(Wheels::is_name(good), "{good}");
        }
        for bad in ["../a.whl", "/a.whl", ".new-a.whl", "a.tar.gz", "a b.whl", "a?x=.whl", "a\n.whl", ".whl"]
        {
            assert!(!Wheels::is_name(bad), "{bad}");
        }
        assert!(!Wheels::is_name(&format!("{}.whl", "a".repeat(NAME))));
    }

    #[tokio::test]
    async fn a_wheel_counts_by_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let wheels = Wheels::new(dir.path().join("wheels"));
        fs::create_dir(wheels.dir()).unwrap();
        fs::write(wheels.dir().join(".new-left.whl"), "left by who was killed").unwrap();
        let _lock = wheels.lock().await.unwrap();
        let wanted = [Wheel {
            requirement: "a==1",
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        }];
        let put = async |content: &str| {
            let file = wheels.temporary(".whl").unwrap();
            fs::write(&file, content).unwrap();
            wheels.keep(file, "a-1-py3-none-any.whl", &wanted).await.unwrap();
        };
        put("evil").await;
        assert_eq!(wheels.missing_of(&wanted).await.unwrap(), wanted);
        put("abc").await;
        assert!(wheels.missing_of(&wanted).await.unwrap().is_empty());
        let mut names: Vec<_> = fs::read_dir(wheels.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a-1-py3-none-any.whl", "lock"]);
        fs::write(wheels.dir().join("a-1-py3-none-any.whl"), "abd").unwrap();
        assert_eq!(wheels.missing_of(&wanted).await.unwrap(), wanted, "damaged on disk");
    }
}
