//! From a sandbox to this machine. What a sandbox says of its files is not trusted: no name that it gives leads out of
//! the directory that was asked for.

use super::rooted::Root;
use super::{Copied, PARALLEL, Remote, base_name, below, look, tool};
use anyhow::{Context as _, Result, bail};
use futures_util::TryStreamExt as _;
use futures_util::stream;
use sandcrab_client::api::files::{FileInfo, FileType};
use sandcrab_client::{FileReader, ListOptions, Sandbox};
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt as _;

pub(super) async fn run(sandbox: &Sandbox, from: &str, to: &Path) -> Result<Copied> {
    let entries = match look(sandbox, from, true).await? {
        Remote::Directory(entries) => Some(entries),
        // What does not exist is told by reading it.
        Remote::File | Remote::Nothing => None,
    };
    let to = target(sandbox, from, to).await?;
    match entries {
        Some(entries) => directory(sandbox, from, &to, &entries).await,
        None => {
            if std::fs::metadata(&to).is_ok_and(|to| !to.is_file()) {
                return into_special(sandbox, from, &to).await;
            }
            // First of all, because it says best what is wrong with a file that cannot be read.
            let content = sandbox.files().open(from).await?;
            let mode = mode_of_file(sandbox, from).await?;
            // The caller's own link is followed, as any program would that writes to its name.
            let to = to.canonicalize().unwrap_or(to);
            let (parent, name) = (to.parent(), to.file_name());
            let name = name.with_context(|| format!("{} names no file", to.display()))?;
            let root =
                Root::open(parent.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
            let bytes = file(content, from, &root, Path::new(name), mode).await?;
            Ok(Copied { files: 1, bytes, ..Copied::default() })
        }
    }
}

/// A device or a FIFO is written to, not replaced.
async fn into_special(sandbox: &Sandbox, from: &str, to: &Path) -> Result<Copied> {
    let opening = || format!("write {}", to.display());
    let mut file = tokio::fs::OpenOptions::new().write(true).open(to).await.with_context(opening)?;
    let bytes = sandbox.files().read_to(from, &mut file).await?;
    Ok(Copied { files: 1, bytes, ..Copied::default() })
}

/// Where the copy goes: into a directory that exists, under the source's own name.
async fn target(sandbox: &Sandbox, from: &str, to: &Path) -> Result<PathBuf> {
    if !to.is_dir() {
        return Ok(to.to_owned());
    }
    let name = match base_name(from) {
        Some(name) => name.to_owned(),
        // `.` and `..` have a name as well; `/` has none, and its content goes straight into the directory.
        None => {
            let path = tool(sandbox, r#"cd -- "$DIRECTORY" && pwd -P"#, [("DIRECTORY", from)]).await?;
            base_name(path.trim_end_matches('\n')).unwrap_or(".").to_owned()
        }
    };
    Ok(to.join(name))
}

async fn directory(sandbox: &Sandbox, from: &str, to: &Path, entries: &[FileInfo]) -> Result<Copied> {
    std::fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    let root = Root::open(to)?;
    let of = |kind| entries.iter().filter(move |entry| entry.kind == kind);
    if let Some(odd) = of(FileType::Other).next() {
        bail!("{} is neither file, directory nor symbolic link", odd.absolute_path);
    }
    let mut copied = Copied { directories: 1, ..Copied::default() };
    let mut directories: Vec<&FileInfo> = of(FileType::Directory).collect();
    // Parents before what is in them.
    directories.sort_by_key(|entry| entry.relative_path.matches('/').count());
    for entry in &directories {
        root.make_dir(Path::new(&entry.relative_path))?;
        copied.directories += 1;
    }
    let sizes: Vec<u64> = stream::iter(of(FileType::File).map(Ok::<_, anyhow::Error>))
        .map_ok(async |entry| {
            let source = below(from, &entry.relative_path);
            let content = sandbox.files().open(&source).await?;
            file(content, &source, &root, Path::new(&entry.relative_path), mode(&entry.mode)).await
        })
        .try_buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    copied.files = sizes.len() as u64;
    copied.bytes = sizes.iter().sum();
    // Links come last, so that nothing is written through one.
    for entry in of(FileType::Symlink) {
        let link = below(from, &entry.relative_path);
        let target = tool(sandbox, r#"readlink -- "$LINK""#, [("LINK", &link)]).await?;
        root.make_link(target.strip_suffix('\n').unwrap_or(&target), Path::new(&entry.relative_path))?;
        copied.links += 1;
    }
    // A directory that may not be written gets its mode when all is in it.
    for entry in directories.iter().rev() {
        root.set_mode(Path::new(&entry.relative_path), mode(&entry.mode))?;
    }
    Ok(copied)
}

async fn file(mut content: FileReader, from: &str, root: &Root, to: &Path, mode: u32) -> Result<u64> {
    let (mut file, place) = root.create(to, mode)?;
    let written = match tokio::io::copy(&mut content, &mut file).await {
        // tokio's file writes behind; flushing waits for it.
        Ok(bytes) => file.flush().await.map(|()| bytes),
        Err(error) => Err(error),
    };
    place.finish(written.is_ok())?;
    written.with_context(|| format!("copy {from}"))
}

/// The mode of one file, which only its directory's listing tells.
async fn mode_of_file(sandbox: &Sandbox, path: &str) -> Result<u32> {
    let Some(name) = base_name(path) else { return Ok(0o644) };
    let parent = match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/",
        Some((parent, _)) => parent,
        None => ".",
    };
    let siblings =
        sandbox.files().list(parent, ListOptions { recursive: false, include_hidden: true }).await?;
    // A link's own mode says nothing.
    let found = siblings.iter().find(|entry| entry.name == name && entry.kind == FileType::File);
    Ok(found.map_or(0o644, |entry| mode(&entry.mode)))
}

/// `rwxr-xr-x` as bits; letters for setuid and its like count as what they stand for without it.
fn mode(text: &str) -> u32 {
    text.bytes().take(9).fold(0, |bits, letter| bits << 1 | u32::from(!matches!(letter, b'-' | b'S' | b'T')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_from_their_letters() {
        for (text, bits) in
            [("rwxr-xr-x", 0o755), ("rw-------", 0o600), ("rwsr-Sr-t", 0o745), ("---------", 0), ("", 0)]
        {
            assert_eq!(mode(text), bits, "{text}");
        }
    }
}
