//! From a sandbox to this machine. What a sandbox says of its files is not trusted (attack B13): the place of the copy
//! comes from what was typed, no name that the sandbox gives leads out of it, and the sum of what is written is bounded.

use super::budget::Budget;
use super::rooted::Root;
use super::{Copied, PARALLEL, Remote, base_name, below, look, tool};
use crate::report::Report;
use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use futures_util::stream;
use sandcrab_client::api::files::{FileInfo, FileType};
use sandcrab_client::{FileReader, ListOptions, Sandbox};
use std::path::{Path, PathBuf};

/// Where the copy goes.
enum Target {
    /// Exactly the path that was typed; a link at its end is the caller's own, and is followed.
    Typed(PathBuf),
    /// A name, from what was typed, in a directory. A link that has this name is not followed: an earlier copy may have
    /// brought it.
    Named { directory: PathBuf, name: String },
    /// The source has no name of its own (`.`, `..`, `/`): its content goes into this directory that exists.
    Content(PathBuf),
}

pub(super) async fn run(
    sandbox: &Sandbox,
    from: &str,
    to: &Path,
    force: bool,
    report: Report,
) -> Result<Copied> {
    let entries = match look(sandbox, from, true).await? {
        Remote::Directory(entries) => Some(entries),
        // What does not exist is told by reading it.
        Remote::File | Remote::Nothing => None,
    };
    let target = Target::of(from, to);
    match entries {
        Some(entries) => {
            let root = target.root()?;
            if matches!(target, Target::Content(_)) && !force {
                refuse_replacing(&root, to, &entries)?;
            }
            directory(sandbox, from, &root, &entries, report).await
        }
        None => single(sandbox, from, target).await,
    }
}

impl Target {
    fn of(from: &str, to: &Path) -> Self {
        match (to.is_dir(), base_name(from)) {
            (false, _) => Self::Typed(to.to_owned()),
            (true, Some(name)) => Self::Named { directory: to.to_owned(), name: name.to_owned() },
            (true, None) => Self::Content(to.to_owned()),
        }
    }

    /// Opens the directory that takes a directory's content, and makes it if it is missing.
    fn root(&self) -> Result<Root> {
        match self {
            Self::Typed(path) => {
                std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
                Root::open(path)
            }
            Self::Content(path) => Root::open(path),
            Self::Named { directory, name } => {
                let parent = Root::open(directory)?;
                parent.make_dir(Path::new(name))?;
                parent.enter(Path::new(name))
            }
        }
    }
}

/// A copy of what has no name of its own would mix what the sandbox named with what is there (`~/.ssh`).
fn refuse_replacing(root: &Root, to: &Path, entries: &[FileInfo]) -> Result<()> {
    for entry in entries.iter().filter(|entry| !entry.relative_path.contains('/')) {
        if root.exists(Path::new(&entry.relative_path))? {
            bail!(
                "{} exists already, and the sandbox has chosen the name: give the copy a name, as {}, or add --force",
                to.join(&entry.relative_path).display(),
                to.join("NAME").display(),
            );
        }
    }
    Ok(())
}

/// Copies one file.
async fn single(sandbox: &Sandbox, from: &str, target: Target) -> Result<Copied> {
    let (root, name) = match target {
        Target::Typed(to) => {
            if std::fs::metadata(&to).is_ok_and(|to| !to.is_file()) {
                return into_special(sandbox, from, &to).await;
            }
            let to = to.canonicalize().unwrap_or(to);
            let name = to.file_name().with_context(|| format!("{} names no file", to.display()))?;
            let parent = to.parent().filter(|path| !path.as_os_str().is_empty());
            (parent.unwrap_or(Path::new(".")).to_owned(), PathBuf::from(name))
        }
        Target::Named { directory, name } => (directory, PathBuf::from(name)),
        Target::Content(directory) => (directory, PathBuf::from(".")),
    };
    // First of all, because it says best what is wrong with a file that cannot be read.
    let content = sandbox.files().open(from).await?;
    let mode = mode_of_file(sandbox, from).await?;
    let root = Root::open(&root)?;
    let budget = Budget::of(&root)?;
    let bytes = file(content, from, &root, &name, mode, &budget).await?;
    Ok(Copied { files: 1, bytes, ..Copied::default() })
}

/// A device or a FIFO is written to, not replaced.
async fn into_special(sandbox: &Sandbox, from: &str, to: &Path) -> Result<Copied> {
    let opening = || format!("write {}", to.display());
    let mut file = tokio::fs::OpenOptions::new().write(true).open(to).await.with_context(opening)?;
    let bytes = sandbox.files().read_to(from, &mut file).await?;
    Ok(Copied { files: 1, bytes, ..Copied::default() })
}

/// Copies a directory's content into `root`. An entry that cannot be copied is told of and counted; the rest goes on.
async fn directory(
    sandbox: &Sandbox,
    from: &str,
    root: &Root,
    entries: &[FileInfo],
    report: Report,
) -> Result<Copied> {
    let of = |kind| entries.iter().filter(move |entry| entry.kind == kind);
    let budget = Budget::of(root)?;
    budget.expect(of(FileType::File).map(|entry| entry.size))?;
    let mut copied = Copied { directories: 1, ..Copied::default() };
    let mut failed = 0;
    let mut tell = |path: &str, error: anyhow::Error| {
        report.failure(&error.context(format!("skip {path}")));
        failed += 1;
    };
    for odd in of(FileType::Other) {
        tell(&odd.absolute_path, anyhow::anyhow!("neither file, directory nor symbolic link"));
    }
    let mut directories: Vec<&FileInfo> = of(FileType::Directory).collect();
    // Parents before what is in them.
    directories.sort_by_key(|entry| entry.relative_path.matches('/').count());
    for entry in &directories {
        match root.make_dir(Path::new(&entry.relative_path)) {
            Ok(()) => copied.directories += 1,
            Err(error) => tell(&entry.absolute_path, error),
        }
    }
    let mut files = stream::iter(of(FileType::File))
        .map(async |entry| {
            let copy = async {
                let source = below(from, &entry.relative_path);
                let content = sandbox.files().open(&source).await?;
                file(content, &source, root, Path::new(&entry.relative_path), mode(&entry.mode), &budget)
                    .await
            };
            (entry, copy.await)
        })
        .buffer_unordered(PARALLEL);
    while let Some((entry, outcome)) = files.next().await {
        match outcome {
            Ok(bytes) => {
                copied.files += 1;
                copied.bytes += bytes;
            }
            // Without room, or without a server, no other file comes either.
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => tell(&entry.absolute_path, error),
        }
    }
    drop(files);
    // Links come last, so that nothing is written through one.
    for entry in of(FileType::Symlink) {
        match link(sandbox, from, root, entry).await {
            Ok(()) => copied.links += 1,
            Err(error) => tell(&entry.absolute_path, error),
        }
    }
    // A directory that may not be written gets its mode when all is in it.
    for entry in directories.iter().rev() {
        if let Err(error) = root.set_mode(Path::new(&entry.relative_path), mode(&entry.mode)) {
            tell(&entry.absolute_path, error);
        }
    }
    copied.skipped = failed;
    Ok(copied)
}

async fn link(sandbox: &Sandbox, from: &str, root: &Root, entry: &FileInfo) -> Result<()> {
    let link = below(from, &entry.relative_path);
    let target = tool(sandbox, r#"readlink -- "$LINK""#, [("LINK", &link)]).await?;
    root.make_link(target.strip_suffix('\n').unwrap_or(&target), Path::new(&entry.relative_path))
}

/// Whether a failure is not about the one file that met it.
fn is_final(error: &anyhow::Error) -> bool {
    if error.downcast_ref::<super::budget::Exhausted>().is_some() {
        return true;
    }
    if let Some(client) = error.downcast_ref::<sandcrab_client::ClientError>() {
        return client.code().is_none();
    }
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    })
}

async fn file(
    content: FileReader,
    from: &str,
    root: &Root,
    to: &Path,
    mode: u32,
    budget: &Budget,
) -> Result<u64> {
    let (file, place) = root.create(to, mode)?;
    // What fails or is interrupted takes the unfinished file away, by the end of `place`.
    let bytes = budget.copy(content, file).await.with_context(|| format!("copy {from}"))?;
    place.finish()?;
    Ok(bytes)
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
