//! From this machine into a sandbox.

use super::{Copied, PARALLEL, Remote, below, look, tool};
use crate::report::Report;
use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use futures_util::stream;
use sandcrab_client::{MkdirOptions, Sandbox, WriteOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A local directory's content by kind, each with its path in the sandbox, parents first.
#[derive(Default)]
struct Tree {
    directories: Vec<(String, u32)>,
    files: Vec<(PathBuf, String)>,
    links: Vec<(PathBuf, String)>,
    /// Why an entry is left out.
    skipped: Vec<anyhow::Error>,
}

pub(super) async fn run(sandbox: &Sandbox, from: &Path, to: &str, report: Report) -> Result<Copied> {
    let metadata = std::fs::metadata(from).with_context(|| format!("read {}", from.display()))?;
    let into = to.ends_with('/') || matches!(look(sandbox, to, false).await?, Remote::Directory(_));
    let to = match into {
        true => below(to, name(&absolute(from)?)?),
        false => to.to_owned(),
    };
    let mut copied = Copied::default();
    if !metadata.is_dir() {
        copied.bytes = file(sandbox, from, &to).await?;
        copied.files = 1;
        return Ok(copied);
    }
    let mut tree = Tree::default();
    walk(&mut tree, from, &to)?;
    for error in tree.skipped.drain(..) {
        report.failure(&error);
        copied.skipped += 1;
    }
    for (path, mode) in &tree.directories {
        let options = MkdirOptions { recursive: true, mode: Some(*mode) };
        sandbox.files().mkdir(path, options).await?;
        copied.directories += 1;
    }
    let sizes: Vec<u64> = stream::iter(tree.files.iter().map(Ok::<_, anyhow::Error>))
        .map_ok(|(from, to)| file(sandbox, from, to))
        .try_buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    copied.files = sizes.len() as u64;
    copied.bytes = sizes.iter().sum();
    for (link, to) in &tree.links {
        let target = std::fs::read_link(link).with_context(|| format!("read the link {}", link.display()))?;
        tool(sandbox, r#"ln -sfn -- "$TARGET" "$LINK""#, [("TARGET", text(&target)?), ("LINK", to)]).await?;
        copied.links += 1;
    }
    Ok(copied)
}

fn walk(tree: &mut Tree, directory: &Path, to: &str) -> Result<()> {
    let reading = || format!("read {}", directory.display());
    let mode = std::fs::metadata(directory).with_context(reading)?.permissions().mode();
    // Its owner must be able to fill it.
    tree.directories.push((to.to_owned(), mode & 0o777 | 0o700));
    for entry in std::fs::read_dir(directory).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let (path, kind) = (entry.path(), entry.file_type().with_context(reading)?);
        let to = match name(&path) {
            Ok(name) => below(to, name),
            Err(error) => {
                tree.skipped.push(error.context(format!("skip {}", path.display())));
                continue;
            }
        };
        if kind.is_dir() {
            walk(tree, &path, &to)?;
        } else if kind.is_symlink() {
            tree.links.push((path, to));
        } else if kind.is_file() {
            tree.files.push((path, to));
        } else {
            let error = anyhow::anyhow!("neither file, directory nor symbolic link");
            tree.skipped.push(error.context(format!("skip {}", path.display())));
        }
    }
    Ok(())
}

/// Copies one file and gives its size.
async fn file(sandbox: &Sandbox, from: &Path, to: &str) -> Result<u64> {
    let reading = || format!("read {}", from.display());
    let file = tokio::fs::File::open(from).await.with_context(reading)?;
    let metadata = file.metadata().await.with_context(reading)?;
    let length = metadata.is_file().then_some(metadata.len());
    let options = WriteOptions { mode: Some(metadata.permissions().mode() & 0o777), length };
    sandbox
        .files()
        .write_from(to, file, options)
        .await
        .with_context(|| format!("copy {}", from.display()))?;
    Ok(metadata.len())
}

/// The path with a name at its end, which `.` and `..` lack.
fn absolute(path: &Path) -> Result<PathBuf> {
    match path.file_name() {
        Some(_) => Ok(path.to_owned()),
        None => path.canonicalize().with_context(|| format!("read {}", path.display())),
    }
}

fn name(path: &Path) -> Result<&str> {
    text(Path::new(path.file_name().with_context(|| format!("{} has no name", path.display()))?))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8, which the API's paths are", path.display()))
}
