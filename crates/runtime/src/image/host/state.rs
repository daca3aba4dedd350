//! A cheap look at the host that tells whether an image may be out of date.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::plan::field;
use super::source::{Host, Kind};
use crate::image::ImageError;

/// Files and directories whose identity, size and times change when packages or certificates do.
const WATCHED: &[&str] = &[
    "etc/alternatives",
    "etc/apt",
    "etc/apt/apt.conf",
    "etc/apt/apt.conf.d",
    "etc/apt/auth.conf",
    "etc/apt/auth.conf.d",
    "etc/apt/keyrings",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg.d",
    "etc/group",
    "etc/ld.so.cache",
    "etc/localtime",
    "etc/os-release",
    "etc/passwd",
    "etc/pki/ca-trust/extracted/pem",
    "etc/profile",
    "etc/ssl/certs",
    "etc/ssl/certs/ca-certificates.crt",
    "lib/apk/db/installed",
    "usr",
    "usr/bin",
    "usr/include",
    "usr/lib",
    "usr/lib/node_modules",
    "usr/lib/os-release",
    "usr/lib/python3/dist-packages",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/lib64",
    "usr/libexec",
    "usr/sbin",
    "usr/share",
    "var/lib/dpkg/info",
    "var/lib/dpkg/status",
    "var/lib/pacman/local",
    "var/lib/rpm/rpmdb.sqlite",
];

/// How deep `/usr/local` is looked through: down to `lib/python3.x/dist-packages`.
const LOCAL_DEPTH: usize = 3;
/// At most this many of its directories; the rest is found by a full comparison only.
const LOCAL_BOUND: usize = 512;

/// Feeds the state: some 40 `statx` calls and a walk through the top of `/usr/local`, about a millisecond.
pub(super) fn feed(host: &Host, hasher: &mut Sha256) -> Result<(), ImageError> {
    for path in super::copies::ROOT_ENTRIES.iter().chain(WATCHED) {
        feed_path(host, Path::new(path), hasher)?;
    }
    let mut level = vec![PathBuf::from("usr/local")];
    let mut count = 0;
    for _ in 0..=LOCAL_DEPTH {
        let mut next = Vec::new();
        for dir in level {
            count += 1;
            if count > LOCAL_BOUND || !feed_path(host, &dir, hasher)? {
                continue;
            }
            for (name, may_be_dir) in host.entries(&dir)? {
                let path = dir.join(name);
                if may_be_dir
                    && host.stat(&path)?.is_some_and(|stat| stat.kind == Kind::Dir && !stat.mount_point)
                {
                    next.push(path);
                }
            }
        }
        level = next;
    }
    Ok(())
}

/// Whether it is a directory.
fn feed_path(host: &Host, path: &Path, hasher: &mut Sha256) -> Result<bool, ImageError> {
    let stat = host.stat(path)?;
    field(hasher, path.as_os_str().as_encoded_bytes());
    if let Some(stat) = &stat {
        for number in stat.identity {
            hasher.update(number.to_le_bytes());
        }
    }
    Ok(stat.is_some_and(|stat| stat.kind == Kind::Dir))
}
