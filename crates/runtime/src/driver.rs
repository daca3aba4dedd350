//! What every way of isolating offers to the server: the [`Driver`] trait and the values that pass through it.
//!
//! Nothing here assumes that a sandbox is a local process: an instance is a name, a connection is a byte stream, an
//! exit is something that one waits for.

use sandcrab_api::ids::SandboxId;
use sandcrab_api::sandbox::{Isolation, Limits, Network};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// A future that a driver returns; boxed so that the trait can be used as `dyn Driver`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a driver's operation returns. Errors of different drivers share this type; they name operation and subject.
pub type Result<T, E = DriverError> = std::result::Result<T, E>;

/// A connection to an agent.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A boxed connection to an agent.
pub type BoxStream = Box<dyn ByteStream>;

/// One life of a sandbox: the name that a driver gives to what it created.
///
/// A sandbox that is destroyed and made again has another instance, so that nothing which was meant for the first one
/// can reach the second. 16 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(std::sync::Arc<str>);

/// A text that is no instance id.
#[derive(Debug, thiserror::Error)]
#[error("instance id {0:?} is not 16 lower-case hexadecimal digits")]
pub struct InstanceIdError(String);

impl InstanceId {
    /// A fresh id.
    pub fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }

    /// Reads an id back, as from the server's store.
    pub fn parse(text: &str) -> Result<Self, InstanceIdError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.len() == 16 && digits { Ok(Self(text.into())) } else { Err(InstanceIdError(text.to_owned())) }
    }

    /// The id as text, fit for a file's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for InstanceId {
    type Error = InstanceIdError;
    fn try_from(text: String) -> Result<Self, InstanceIdError> {
        Self::parse(&text)
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.as_str().to_owned()
    }
}

/// What to create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Whose sandbox this is; for records, the host name inside and logs.
    pub sandbox: SandboxId,
    /// The image's name; `host` is the one that is always there.
    pub image: String,
    /// Bounds on resources. A missing one takes the driver's default.
    pub limits: Limits,
    /// What the sandbox can reach.
    pub network: Network,
    /// What its code may ask of the kernel.
    #[serde(default)]
    pub isolation: Isolation,
    /// Variables that every session starts with, over those of the image.
    pub env: BTreeMap<String, String>,
}

/// What was created, or found again after a restart of the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The driver's name for it.
    pub id: InstanceId,
    /// What it was created from, with the limits that are in force.
    pub spec: SandboxSpec,
    /// Whether its agent runs. An instance that does not run holds only its files until it is destroyed.
    pub running: bool,
    /// Whether somebody was told of it ([`Driver::acknowledge`]). Only one of which nobody knows is a left-over.
    pub acknowledged: bool,
}

/// Something that a driver holds and cannot use: a record that is not readable, a left-over that is not removable. It
/// stays as it is until it is destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The driver's name for it.
    pub id: InstanceId,
    /// What is wrong with it.
    pub reason: String,
}

/// What keeps a running instance from working as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Sound,
    /// The host's disk is about to be full: nothing in the instance runs until there is room again. Nothing is lost.
    Held,
    /// Its disk failed to take what was written. It is ended, and put right when it is started again.
    Damaged,
}

/// How an instance's agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It is gone; its status went to another parent (a server that has since been replaced).
    Unknown,
}

/// What an instance uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Memory charged to it in bytes, page cache and kernel memory included.
    pub memory: Option<u64>,
    /// The most memory that was ever charged, in bytes.
    pub memory_peak: Option<u64>,
    /// CPU time used in microseconds.
    pub cpu_usec: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// How often the kernel killed a process of it for want of memory.
    pub oom_kills: Option<u64>,
    /// Bytes on disk.
    pub disk: Option<u64>,
}

/// An image that sandboxes can be made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Its name.
    pub name: String,
    /// Whether somebody must build it before its first use: it is not simply there.
    pub is_built: bool,
    /// Whether what is there was made by an earlier form of its recipe: it serves until the new one is built.
    pub is_former: bool,
    /// What names its content, once it is there.
    pub key: Option<String>,
    /// Bytes that it adds to what it is based on, once it is there.
    pub size: Option<u64>,
    /// How many instances are made of it, in whatever state it was then.
    pub instances: usize,
}

/// One way to isolate.
///
/// All methods may be called at the same time; the caller sees to it that one instance is created or destroyed by one
/// task only.
pub trait Driver: Send + Sync + 'static {
    /// Its name: `native`, `fake`.
    fn name(&self) -> &'static str;

    /// Creates an instance and starts its agent, which accepts connections when this returns. On error, and when the
    /// future is dropped, nothing is left behind.
    fn create<'a>(&'a self, id: &'a InstanceId, spec: &'a SandboxSpec) -> BoxFuture<'a, Result<Instance>>;

    /// Starts the agent of an instance that exists and does not run, on the files that it has; the rest is as with
    /// `create`. On error, and when the future is dropped, the files are as they were and nothing runs.
    fn start<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Instance>>;

    /// Opens a connection to an instance's agent.
    fn connect<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<BoxStream>>;

    /// Ends an instance's agent with all that runs beside it, whatever state they are in; the files stay. Resolves when they
    /// have ended. Stopping one that does not run is no error.
    fn stop<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>>;

    /// Takes everything away: processes, memory, disk, mounts, namespaces, cgroups, ids. When this returns `Ok` it is
    /// gone, verified. Destroying what does not exist is no error.
    fn destroy<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>>;

    /// Everything that this driver holds, from what the system shows and its own records. Removes nothing and waits for
    /// nothing; what is wrong with one instance keeps no other from being listed.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Instance>>>;

    /// Limits that this driver takes and cannot enforce on this machine, as the API names them.
    fn not_enforced(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// What was found by [`Driver::list`] or [`Driver::tidy`] and cannot be used.
    fn quarantined(&self) -> Vec<Quarantined> {
        Vec::new()
    }

    /// Removes what interrupted creations and removals left, and images that nothing uses. May take minutes.
    fn tidy(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Says that somebody is about to be told of an instance. When this returns, neither a crash nor a power cut makes it
    /// a left-over.
    fn acknowledge<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>>;

    /// The id of the database that knows the instances; none if none was ever told.
    fn database(&self) -> BoxFuture<'_, Result<Option<String>>>;

    /// Keeps the id of the database beside the instances.
    fn set_database<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// What keeps a running instance from working, now and as it changes.
    fn condition(&self, id: &InstanceId) -> Result<tokio::sync::watch::Receiver<Condition>>;

    /// One instance; none if it does not exist.
    fn inspect<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Option<Instance>>>;

    /// Resolves when the instance's agent has ended, by event and not by polling.
    fn wait_exit<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Exit>>;

    /// The images that the driver knows, by name.
    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>>>;

    /// Publishes what an image adds to the one that instance `built_in` is made of: from then on `create` takes it, for
    /// as long as its base is what it is now. `archive` is a file of the server's: a plain ustar with paths relative to
    /// the root, in which an empty file `.wh.NAME` says that NAME is gone. It comes from the instance and is not
    /// trusted. What is published already stays as it is.
    fn add_layer<'a>(
        &'a self,
        image: &'a str,
        built_in: &'a InstanceId,
        archive: &'a std::path::Path,
    ) -> BoxFuture<'a, Result<()>>;

    /// Removes what was built for an image; false if it was not built. Instances of it that exist keep it from that.
    fn remove_image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// What an instance wrote for people last, as its agent's last words: a few lines, for an error's message.
    fn last_words<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, String>;

    /// What the instance uses now.
    fn stats<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Stats>>;
}

/// Why a driver could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// There is no such instance.
    #[error("there is no instance {id}")]
    NotFound {
        /// The id that was asked for.
        id: InstanceId,
    },
    /// The instance exists but its agent does not run.
    #[error("the agent of instance {id} does not run")]
    NotRunning {
        /// The instance.
        id: InstanceId,
    },
    /// The driver has no such image.
    #[error("there is no image {image:?}; there are {}", known.join(", "))]
    ImageNotFound {
        /// The name that was asked for.
        image: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The image must be built first.
    #[error("image {image:?} is not built")]
    ImageNotBuilt {
        /// Its name.
        image: String,
    },
    /// Instances are made of the image.
    #[error("{instances} sandboxes use image {image:?}")]
    ImageInUse {
        /// Its name.
        image: String,
        /// How many.
        instances: usize,
    },
    /// The image could not be made.
    #[error("the image cannot be made")]
    Image(#[from] crate::image::ImageError),
    /// A limit that cannot be met.
    #[error("limit {limit}: {reason}")]
    Limit {
        /// Which limit.
        limit: &'static str,
        /// Why not.
        reason: String,
    },
    /// The machine lacks something, and nobody said that it may.
    #[error("{feature} is missing on this machine: {detail}; `--allow-missing {feature}` accepts that")]
    Missing {
        /// The feature, as `--allow-missing` names it.
        feature: crate::doctor::Feature,
        /// What was tried and what came of it.
        detail: String,
    },
    /// This build's own system call policy is broken.
    #[error("the system call filter cannot be made")]
    Seccomp(#[from] crate::seccomp::PolicyError),
    /// Every range of user ids is in use.
    #[error("all {count} ranges of user ids are in use")]
    NoIds {
        /// How many there are.
        count: u32,
    },
    /// There is too little left of something that all sandboxes of this server share.
    #[error("there are not enough {what} left: {reason}")]
    NoRoom {
        /// Of what.
        what: &'static str,
        /// How it stands with it.
        reason: String,
    },
    /// The instance's range of user ids went to another server of this machine while this one did not run.
    #[error("another server of this machine uses the user ids of this instance: {}", by.display())]
    IdsClaimed {
        /// The file by which the other server has them.
        by: std::path::PathBuf,
    },
    /// A step inside the launch stage failed.
    #[error("launch of instance {id}: {failure}")]
    Launch {
        /// The instance.
        id: InstanceId,
        /// The step and its reason.
        failure: crate::launch::Failure,
    },
    /// A system call or file operation of the driver failed.
    #[error("{operation} {subject}")]
    Io {
        /// What was done.
        operation: &'static str,
        /// To what.
        subject: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A record of the driver's own could not be read.
    #[error("record {path:?} of the driver is not readable")]
    Record {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Something that was to be gone is still there.
    #[error("instance {id} left {what} behind")]
    Residue {
        /// The instance.
        id: InstanceId,
        /// What is left.
        what: String,
    },
}

impl DriverError {
    /// The error with its causes, without the paths of the machine: those are for its operator's log.
    pub fn for_callers(&self) -> String {
        match self {
            Self::Io { operation, source, .. } => format!("{operation}: {source}"),
            Self::Image(image) => format!("{self}: {}", image.for_callers()),
            Self::Record { .. } => "a record of the driver is not readable".into(),
            Self::IdsClaimed { .. } => {
                "another server of this machine uses the user ids of this instance".into()
            }
            Self::Seccomp(source) => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }

    /// An [`DriverError::Io`], for use with `map_err`.
    pub(crate) fn io<E: Into<std::io::Error>, S: fmt::Display>(
        operation: &'static str,
        subject: S,
    ) -> impl FnOnce(E) -> Self + use<E, S> {
        let subject = subject.to_string();
        move |source| Self::Io { operation, subject, source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_are_hex_and_nothing_else() {
        let id = InstanceId::random();
        assert_eq!(InstanceId::parse(id.as_str()).unwrap(), id);
        for bad in ["", "../../etc/passwd", "0123456789abcdeg", "0123456789ABCDEF", "0123456789abcdef0"] {
            assert!(InstanceId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_trait_is_dyn_compatible() {
        fn takes(_: Option<std::sync::Arc<dyn Driver>>) {}
        takes(None);
    }
}
