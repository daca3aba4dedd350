//! The image `python`: the host image with a data stack, IPython, numpy, pandas, matplotlib and what they need.
//!
//! This is its recipe, as data: which wheels, by name, version and hash, for which Python on which machine
//! ([`lock`]), and the program that installs them inside a sandbox and packs what that changed ([`PROGRAM`]). Who builds
//! it is the server; what comes of it is a layer like any other (see [`super::layer`]).

use sha2::{Digest, Sha256};

use super::Image;
use super::layer::{Foundation, Recipe};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The image's name.
pub const NAME: &str = "python";

/// Runs inside a sandbox: installs the wheels of a lock and packs the difference.
pub const PROGRAM: &str = include_str!("build.py");

/// What [`lock`] has, as `VERSION-MACHINE`. Written by `cargo xtask python-lock`.
const LOCKS: &[(&str, &str)] = &[
    ("3.11-x86_64", include_str!("locks/3.11-x86_64.txt")),
    ("3.11-aarch64", include_str!("locks/3.11-aarch64.txt")),
    ("3.12-x86_64", include_str!("locks/3.12-x86_64.txt")),
    ("3.12-aarch64", include_str!("locks/3.12-aarch64.txt")),
    ("3.13-x86_64", include_str!("locks/3.13-x86_64.txt")),
    ("3.13-aarch64", include_str!("locks/3.13-aarch64.txt")),
    ("3.14-x86_64", include_str!("locks/3.14-x86_64.txt")),
    ("3.14-aarch64", include_str!("locks/3.14-aarch64.txt")),
];

/// One wheel of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wheel<'a> {
    /// `NAME==VERSION`.
    pub requirement: &'a str,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: &'a str,
}

/// The lock for a Python (`3.11`) on a kind of machine (`x86_64`): a requirements file as pip reads it, with one hash
/// for each package. None where there is none.
pub fn lock(python: &str, machine: &str) -> Option<&'static str> {
    let target = format!("{python}-{machine}");
    LOCKS.iter().find(|(name, _)| *name == target).map(|(_, lock)| *lock)
}

/// What there are locks for: `3.11-x86_64`, …
pub fn targets() -> impl Iterator<Item = &'static str> {
    LOCKS.iter().map(|(name, _)| *name)
}

/// The wheels of a lock.
pub fn wheels(lock: &str) -> impl Iterator<Item = Wheel<'_>> {
    lock.lines().filter_map(|line| {
        let (requirement, sha256) = line.split_once(" --hash=sha256:")?;
        Some(Wheel { requirement, sha256 })
    })
}

/// What the image is made from.
pub fn recipe() -> Recipe {
    let mut hasher = Sha256::new();
    for text in LOCKS.iter().flat_map(|(name, lock)| [*name, *lock]).chain([PROGRAM]) {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    Recipe {
        name: NAME.to_owned(),
        base: "host".to_owned(),
        digest: super::hex(hasher),
        foundation: Foundation::Python,
    }
}

/// Where `python3` is looked for below `/usr`, in the order of the image's PATH.
const PROGRAMS: [&str; 2] = ["local/bin", "bin"];
/// Links from `python3` to the program.
const MAX_LINKS: usize = 8;

/// What the layer needs of the image below: which Python it has, and what is installed where pip installs. Other packages
/// of the machine may change. None if there is no Python.
pub(super) fn foundation(base: &Image) -> Option<String> {
    let tree = base.trees.iter().find(|tree| tree.at == Path::new("/usr")).or(base.trees.first())?;
    let below = if tree.at == Path::new("/usr") { PathBuf::new() } else { PathBuf::from("usr") };
    let (place, program) = PROGRAMS.iter().find_map(|place| {
        let directory = below.join(place);
        Some((*place, interpreter(&tree.layers, &directory)?))
    })?;
    let mut hasher = Sha256::new();
    for part in [place, &program, std::env::consts::ARCH] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let library = below.join("local/lib").join(&program);
    let mut installed = BTreeSet::new();
    for packages in ["dist-packages", "site-packages"] {
        for layer in &tree.layers {
            // What is not there holds nothing.
            let entries = std::fs::read_dir(layer.join(&library).join(packages)).into_iter().flatten();
            installed.extend(entries.flatten().map(|entry| entry.file_name()));
        }
    }
    for name in installed {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_encoded_bytes());
    }
    Some(format!("{program}-{}", super::hex(hasher)))
}

/// The name of the program that `python3` in a directory leads to: `python3.11`.
fn interpreter(layers: &[PathBuf], directory: &Path) -> Option<String> {
    let mut name = "python3".to_owned();
    for _ in 0..MAX_LINKS {
        let found = layers
            .iter()
            .map(|layer| layer.join(directory).join(&name))
            .find(|path| path.is_symlink() || path.exists())?;
        match std::fs::read_link(&found) {
            Ok(target) => name = target.file_name()?.to_str()?.to_owned(),
            Err(_) => return Some(name),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_foundation_is_the_interpreter_and_what_lies_beside_it() {
        use super::super::Tree;
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let image = |key: &str| Image {
            key: key.into(),
            trees: vec![Tree { at: "/usr".into(), layers: vec![dir.path().to_owned()] }],
            env: Default::default(),
        };
        assert_eq!(foundation(&image("a")), None, "no Python");
        put("bin/python3.11");
        std::os::unix::fs::symlink("python3.11", dir.path().join("bin/python3")).unwrap();
        let first = foundation(&image("a")).unwrap();
        assert!(first.starts_with("python3.11-"), "{first}");
        // Any other package of the machine.
        put("bin/jq");
        put("lib/python3/dist-packages/apt/__init__.py");
        assert_eq!(foundation(&image("b")), Some(first.clone()));
        put("local/lib/python3.11/dist-packages/numpy/__init__.py");
        let beside = foundation(&image("b")).unwrap();
        assert_ne!(beside, first);
        std::fs::remove_file(dir.path().join("bin/python3")).unwrap();
        put("bin/python3.12");
        std::os::unix::fs::symlink("python3.12", dir.path().join("bin/python3")).unwrap();
        assert!(foundation(&image("b")).unwrap().starts_with("python3.12-"));
    }

    #[test]
    fn every_line_of_a_lock_is_one_pinned_wheel() {
        for target in targets() {
            let (python, machine) = target.split_once('-').unwrap();
            let lock = lock(python, machine).unwrap();
            let lines = lock.lines().filter(|line| !line.starts_with('#')).count();
            assert_eq!(wheels(lock).count(), lines, "{target}");
            for Wheel { requirement, sha256 } in wheels(lock) {
                let (name, version) = requirement.split_once("==").unwrap();
                assert!(
                    !name.is_empty() && !version.is_empty() && !requirement.contains(' '),
                    "{requirement}"
                );
                assert!(sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit()), "{sha256}");
            }
            for wanted in ["ipython", "numpy", "pandas", "matplotlib"] {
                let found = wheels(lock).any(|wheel| wheel.requirement.starts_with(&format!("{wanted}==")));
                assert!(found, "{wanted} in {target}");
            }
        }
        assert_eq!(lock("2.7", "x86_64"), None);
        assert_eq!(lock("3.11", "../../x"), None);
    }
}
