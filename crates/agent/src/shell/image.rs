//! Which shell an image has, and how sessions drive it.

use crate::files::Files;
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The session loop, compiled by build.rs.
static BUILTIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sandcrab.so"));

/// How a shell is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bash that loads the session loop as a builtin.
    Loadable,
    /// Any other POSIX shell: each command has a shell of its own, and only environment and directory stay.
    Plain,
}

/// The shell of one sandbox, shared by its sessions.
#[derive(Clone, Debug)]
pub struct ShellImage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bash: Option<CString>,
    loadable: Mutex<Option<CString>>,
    /// A shell of `loadable` has loaded the loop.
    proven: AtomicBool,
    plain: CString,
    builtin: Option<OwnedFd>,
    /// Whether commands have shells of their own.
    is_plain: watch::Sender<bool>,
}

impl ShellImage {
    /// Finds the shells of the sandbox. Fails if there is none at all.
    pub fn find(files: &Files) -> io::Result<Self> {
        let first = |paths: &[&'static CStr]| {
            paths.iter().copied().find(|path| files.is_program(Path::new(OsStr::from_bytes(path.to_bytes()))))
        };
        let bash = first(&[c"/bin/bash", c"/usr/bin/bash", c"/usr/local/bin/bash"]);
        let sh = first(&[c"/bin/sh", c"/usr/bin/sh", c"/bin/dash", c"/bin/busybox"]).or(bash);
        let Some(sh) = sh else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the image has neither bash nor sh"));
        };
        Ok(Self::with(bash, sh))
    }

    /// Uses these shells: `loadable` as long as it loads the session loop, else `plain`.
    pub fn with(loadable: Option<&CStr>, plain: &CStr) -> Self {
        // Without executable memory files (vm.memfd_noexec = 2) there is no loop to load.
        let builtin = object_file("sandcrab-builtin", BUILTIN)
            .inspect_err(|error| tracing::warn!(%error, "no file for the session loop"))
            .ok();
        let bash = loadable.map(CStr::to_owned);
        let loadable = builtin.as_ref().and(loadable).map(CStr::to_owned);
        let is_plain = watch::Sender::new(loadable.is_none());
        let loadable = Mutex::new(loadable);
        Self(Arc::new(Inner {
            bash,
            loadable,
            proven: AtomicBool::new(false),
            plain: plain.to_owned(),
            builtin,
            is_plain,
        }))
    }

    /// The shell for the next start.
    pub(super) fn choose(&self) -> (Kind, CString) {
        let loadable = self.0.loadable.lock().unwrap_or_else(PoisonError::into_inner);
        match &*loadable {
            Some(path) => (Kind::Loadable, path.clone()),
            None => (Kind::Plain, self.0.plain.clone()),
        }
    }

    /// The shell for programs that no session drives: bash where the image has it.
    pub(crate) fn program(&self) -> CString {
        self.0.bash.clone().unwrap_or_else(|| self.0.plain.clone())
    }

    /// This image's bash has loaded the loop: from now on a shell that cannot is an accident of the moment (no memory,
    /// no processes left).
    pub(super) fn loads(&self) {
        self.0.proven.store(true, Ordering::Relaxed);
    }

    /// A shell could not load the loop. Unless one could before, the image's bash is asked no more; returns whether so.
    pub(super) fn cannot_load(&self) -> bool {
        if self.0.proven.load(Ordering::Relaxed) {
            return false;
        }
        tracing::info!("the image's bash cannot load the session loop");
        *self.0.loadable.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.is_plain.send_replace(true);
        true
    }

    /// Waits until commands have shells of their own, and says why.
    pub(crate) async fn until_plain(&self) -> String {
        // The sender lives as long as this handle.
        let mut is_plain = self.0.is_plain.subscribe();
        let _never = is_plain.wait_for(|is_plain| *is_plain).await.map(|_| ());
        let shell = self.0.bash.as_ref().map_or("there is no bash".into(), |bash| {
            format!("{} cannot load the session loop, as bash 4.3 to 5.3 can", bash.to_string_lossy())
        });
        format!(
            "{shell}: each command has a shell of its own, and of a session only variables and directory stay"
        )
    }

    /// The file with the session loop.
    pub(super) fn builtin(&self) -> Option<&OwnedFd> {
        self.0.builtin.as_ref()
    }
}

/// A shared object as a sealed memory file that can be loaded, one per agent: every process maps the same pages.
pub(crate) fn object_file(name: &str, object: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every memory file is executable and the flag is unknown.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    let mut rest = object;
    while !rest.is_empty() {
        let n = rustix::io::write(&fd, rest)?;
        rest = &rest[n..];
    }
    rustix::fs::fcntl_add_seals(
        &fd,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(fd)
}
