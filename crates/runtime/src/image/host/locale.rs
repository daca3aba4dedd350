//! The locale that every program of a sandbox starts with, in one file.
//!
//! Debian keeps `C.UTF-8` as a directory of thirteen files. Each program that calls setlocale(3), as bash and the
//! coreutils do, looks for an archive first and opens those one by one when there is none: 0.2 ms of each start. In an
//! archive (locale(7), localedef(1)) they are one open file.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::plan::{Meta, Node};
use super::source::{Host, Kind};
use crate::image::ImageError;

/// Where the archive goes, relative to `/usr`.
pub(super) const ARCHIVE: &str = "lib/locale/locale-archive";
/// As setlocale(3) knows `C.UTF-8`.
const LOCALE: &str = "usr/lib/locale/C.utf8";
const LOCALEDEF: &str = "usr/bin/localedef";

/// An archive of `C.UTF-8` for a host that has none: a host that has one may have more in it than is ours to copy.
pub(super) fn archive(host: &Host, excluded: impl Fn(&Path) -> bool) -> Result<Option<Node>, ImageError> {
    if Path::new("usr").join(ARCHIVE).ancestors().chain(Path::new(LOCALE).ancestors()).any(excluded) {
        return Ok(None);
    }
    let is = |path: &str, kind| {
        host.stat(Path::new(path)).map(|stat| stat.filter(|stat| stat.kind == kind).map(|stat| stat.meta))
    };
    let present = host.stat(&Path::new("usr").join(ARCHIVE))?.is_some();
    let (Some(meta), Some(_), false) = (is(LOCALE, Kind::Dir)?, is(LOCALEDEF, Kind::File)?, present) else {
        return Ok(None);
    };
    match make(host) {
        Ok(content) => Ok(Some(Node::File(Meta { mode: 0o644, ..meta }, content))),
        Err(error) => {
            // Without it everything works as on the host.
            tracing::warn!(%error, "no archive of locales for the host image");
            Ok(None)
        }
    }
}

fn make(host: &Host) -> io::Result<Vec<u8>> {
    let root = tempfile::tempdir()?;
    let file = root.path().join("usr").join(ARCHIVE);
    std::fs::create_dir_all(file.parent().unwrap_or(root.path()))?;
    #[expect(clippy::disallowed_methods, reason = "the driver is one of the places that start programs")]
    let output = Command::new(host.absolute(Path::new(LOCALEDEF)))
        .arg("--prefix")
        .arg(root.path())
        .arg("--add-to-archive")
        .arg(host.absolute(Path::new(LOCALE)))
        .env_clear()
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("localedef: {}: {said}", output.status)));
    }
    std::fs::read(file)
}
