//! Where things lie: the repository's root, its packages, and the places under `target/` that the commands write to.

use crate::command::cmd;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The repository that this command was built from.
pub(crate) struct Workspace {
    /// The folder that holds the root `Cargo.toml`.
    pub(crate) root: PathBuf,
}

/// What `cargo metadata` says of one package of the workspace.
#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One dependency of a package.
#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// None for a normal one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    /// Set for packages of this repository.
    pub(crate) path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

impl Workspace {
    /// The workspace whose `cargo xtask` this is.
    pub(crate) fn here() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// A path below the root.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Cargo's target folder. The commands use no other, so that a fresh clone has all of it in one place.
    pub(crate) fn target(&self) -> PathBuf {
        self.path("target")
    }

    /// Where a test run leaves its reports.
    pub(crate) fn report(&self) -> PathBuf {
        self.path("target/test-report")
    }

    /// Where the output of set-up steps goes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path("target/xtask-log")
    }

    /// A binary that cargo built with this profile's folder name (`debug`, `dist`).
    pub(crate) fn binary(&self, profile: &str, name: &str) -> PathBuf {
        self.target().join(env!("XTASK_TARGET")).join(profile).join(name)
    }

    /// The packages of the workspace.
    pub(crate) fn packages(&self) -> Result<Vec<Package>> {
        let text =
            cmd("cargo").args(["metadata", "--format-version=1", "--no-deps"]).dir(&self.root).read()?;
        let metadata: Metadata = serde_json::from_str(&text).context("read the output of cargo metadata")?;
        Ok(metadata.packages)
    }
}
