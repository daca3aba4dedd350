//! The image `python`: the host image with a data stack, IPython, numpy, pandas, matplotlib and what they need.
//!
//! This is its recipe, as data: which wheels, by name, version and hash, for which Python on which machine
//! ([`lock`]), and the program that installs them inside a sandbox and packs what that changed ([`PROGRAM`]). Who builds
//! it is the server; what comes of it is a layer like any other (see [`super::layer`]).

use sha2::{Digest, Sha256};

use super::layer::Recipe;

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
    Recipe { name: NAME.to_owned(), base: "host".to_owned(), digest: super::hex(hasher) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
