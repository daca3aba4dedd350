//! A root directory to work in, with a user who owns it, and a sentinel beside it that nobody inside may reach.

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sandcrab_agent::files::{FilePath, Files};
use sandcrab_api::launch::UserIdentity;
use sandcrab_api::{ApiError, ErrorCode};
use std::ffi::CString;
use std::os::unix::fs::{PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};

/// The uid and gid of the sandbox's user: nobody's on this machine.
pub(crate) const USER: u32 = 4_000_000;
/// Another user of the sandbox.
pub(crate) const OTHER: u32 = 4_001_000;
/// What the sentinel says.
pub(crate) const SECRET: &str = "of the host";

pub(crate) struct World {
    pub(crate) files: Files,
    /// The sandbox's root, as the host sees it.
    pub(crate) root: PathBuf,
    /// A file of the host, beside the root.
    pub(crate) sentinel: PathBuf,
    _folder: tempfile::TempDir,
}

/// A sandbox whose user is root in it, with root's capabilities.
pub(crate) fn root_user() -> UserIdentity {
    UserIdentity {
        fs_uid: USER,
        fs_gid: USER,
        can_switch: true,
        capabilities: u64::MAX,
        ..UserIdentity::default()
    }
}

/// A sandbox whose user is an ordinary one.
pub(crate) fn ordinary_user() -> UserIdentity {
    UserIdentity { uid: 1000, gid: 1000, ..root_user() }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(&root_user())
    }

    pub(crate) fn of(user: &UserIdentity) -> Self {
        assert!(rustix::process::getuid().is_root(), "these tests need root");
        let folder = tempfile::tempdir().unwrap();
        let sentinel = folder.path().join("sentinel");
        std::fs::write(&sentinel, SECRET).unwrap();
        let root = folder.path().join("root");
        for path in [root.clone(), root.join("workspace")] {
            std::fs::create_dir(&path).unwrap();
            give(&path, USER, 0o755);
        }
        // So that the user can walk in from above, as into a sandbox's root.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let spool = folder.path().join("spool");
        std::fs::create_dir(&spool).unwrap();
        std::fs::set_permissions(&spool, PermissionsExt::from_mode(0o700)).unwrap();
        let files = Files::below_with_spool(open(&root), user, open(&spool)).unwrap();
        Self { files, root, sentinel, _folder: folder }
    }

    /// The same sandbox to an agent that starts on it.
    pub(crate) fn again(&self) -> Files {
        Files::below_with_spool(open(&self.root), &root_user(), open(&self.spool())).unwrap()
    }

    fn spool(&self) -> PathBuf {
        self.sentinel.with_file_name("spool")
    }

    /// How many contents wait to be put in the place of others.
    pub(crate) fn waiting(&self) -> usize {
        std::fs::read_dir(self.spool()).unwrap().count()
    }

    /// A path inside, as the host sees it.
    pub(crate) fn host(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(crate) async fn write(&self, path: &str, content: &[u8]) -> Result<(), ApiError> {
        self.write_mode(path, content, None).await
    }

    pub(crate) async fn write_mode(
        &self,
        path: &str,
        content: &[u8],
        mode: Option<u32>,
    ) -> Result<(), ApiError> {
        let parts: Vec<_> = content.chunks(100_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        self.write_parts(path, parts, mode).await
    }

    pub(crate) async fn write_parts(
        &self,
        path: &str,
        parts: Vec<Result<Bytes, ApiError>>,
        mode: Option<u32>,
    ) -> Result<(), ApiError> {
        self.files.write(at(path), mode, futures_util::stream::iter(parts)).await
    }

    /// What the user reads there, as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, ApiError> {
        self.files.read(at(path), None).await.map(|read| read.content)
    }

    pub(crate) fn sentinel_is_untouched(&self) {
        assert_eq!(std::fs::read_to_string(&self.sentinel).unwrap(), SECRET);
        let names = std::fs::read_dir(self.sentinel.parent().unwrap()).unwrap().count();
        assert_eq!(names, 3, "only the root, the agent's own directory and the sentinel");
    }

    /// Plants a file as the user or another would.
    pub(crate) fn plant(&self, path: &str, content: &[u8], owner: u32, mode: u32) {
        std::fs::write(self.host(path), content).unwrap();
        give(&self.host(path), owner, mode);
    }

    pub(crate) fn plant_directory(&self, path: &str, owner: u32, mode: u32) {
        std::fs::create_dir(self.host(path)).unwrap();
        give(&self.host(path), owner, mode);
    }

    pub(crate) fn plant_link(&self, path: &str, target: impl AsRef<Path>) {
        std::os::unix::fs::symlink(target, self.host(path)).unwrap();
        lchown(self.host(path), Some(USER), Some(USER)).unwrap();
    }

    /// Names in a directory, temporary ones too.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.host(path)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    pub(crate) fn mount(&self, path: &str, kind: &str, options: &str) -> Mounted {
        let target = self.host(path);
        if !target.exists() {
            std::fs::create_dir(&target).unwrap();
            give(&target, USER, 0o755);
        }
        let options = (!options.is_empty()).then(|| CString::new(options).unwrap());
        mount(kind, &target, kind, MountFlags::empty(), options.as_deref()).unwrap();
        Mounted(target)
    }
}

/// A mount of a test, gone with it.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

pub(crate) fn open(directory: &Path) -> rustix::fd::OwnedFd {
    openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub(crate) fn give(path: &Path, owner: u32, mode: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A path below `/workspace`, where it is relative.
pub(crate) fn at(path: &str) -> FilePath {
    FilePath::new(Path::new("/workspace"), path)
}

#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> ErrorCode {
    let error = result.expect_err("this must be refused");
    assert!(error.operation.is_some(), "{error:?}");
    assert!(!error.message.contains(char::is_control), "{error:?}");
    error.code
}
