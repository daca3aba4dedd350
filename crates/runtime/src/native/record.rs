//! The driver's files: what it wrote about each instance, and where its things lie.

use crate::driver::{DriverError, Instance, InstanceId, Result, SandboxSpec};
use crate::image::Image;
use crate::shares::Share;
use crate::tree;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What was asked for, and what was taken for it. Written before anything is made, so that a server that dies in
/// between leaves nothing that the next one cannot find.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: InstanceId,
    pub(super) spec: SandboxSpec,
    /// The range of ids; none when the server has but one id.
    pub(super) range: Option<u32>,
    /// How much of what the kernel counts per user it may have; none in records of before there were shares.
    #[serde(default)]
    pub(super) share: Option<Share>,
    /// The image as it was then: an instance that is started again has the layers that it had.
    pub(super) image: Image,
}

impl Record {
    pub(super) fn instance(&self, running: bool, acknowledged: bool) -> Instance {
        Instance { id: self.id.clone(), spec: self.spec.clone(), running, acknowledged }
    }
}

/// The name of an instance's record, and of the file that says that its creation was finished.
const RECORD: &str = "record.json";
const READY: &str = "ready";
/// The name of the file that says that somebody was told of the instance.
const ACKNOWLEDGED: &str = "acknowledged";
/// The name of the file, beside the instances, with the id of the database that knows them.
const DATABASE: &str = "database";
/// How many bytes of an agent's log an error's message may have.
const LAST_WORDS: u64 = 2048;

/// Paths below the data directory.
#[derive(Clone, Debug)]
pub(super) struct Files {
    data_dir: PathBuf,
    /// The directory of sockets, open, so that their paths are short however long the data directory's is.
    sockets: std::sync::Arc<fs::File>,
}

fn make_private(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(DriverError::io("create", dir.display()))
}

impl Files {
    pub(super) fn open(data_dir: &Path) -> Result<Self> {
        for name in ["instances", "sockets", "scratch"] {
            make_private(&data_dir.join(name))?;
        }
        let data_dir = fs::canonicalize(data_dir).map_err(DriverError::io("find", data_dir.display()))?;
        let sockets = data_dir.join("sockets");
        let sockets = fs::File::open(&sockets).map_err(DriverError::io("open", sockets.display()))?;
        Ok(Self { data_dir, sockets: sockets.into() })
    }

    pub(super) fn ids(&self) -> PathBuf {
        self.data_dir.join("ids")
    }

    /// Where the server's program is kept that has lost its own path.
    pub(super) fn programs(&self) -> PathBuf {
        self.data_dir.join("programs")
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.data_dir.join("scratch")
    }

    pub(super) fn dir(&self, id: &InstanceId) -> PathBuf {
        self.data_dir.join("instances").join(id.as_str())
    }

    /// The writable layers, where there is no disk for them.
    pub(super) fn directory(&self, id: &InstanceId) -> PathBuf {
        self.dir(id).join("disk")
    }

    /// The disk with the writable layers.
    pub(super) fn image(&self, id: &InstanceId) -> PathBuf {
        self.dir(id).join("disk.img")
    }

    /// The loop device that the disk was attached to last; none if that was not written.
    pub(super) fn device(&self, id: &InstanceId) -> Result<Option<PathBuf>> {
        let path = self.dir(id).join("device");
        match fs::read_to_string(&path) {
            Ok(device) => Ok(Some(device.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DriverError::io("read", path.display())(error)),
        }
    }

    pub(super) fn write_device(&self, id: &InstanceId, device: &Path) -> Result<()> {
        let path = self.dir(id).join("device");
        fs::write(&path, device.as_os_str().as_bytes()).map_err(DriverError::io("write", path.display()))
    }

    /// Where files may be made that live for a moment.
    pub(super) fn scratch_files(&self) -> PathBuf {
        self.data_dir.join("instances")
    }

    pub(super) fn pid(&self, id: &InstanceId) -> PathBuf {
        self.dir(id).join("pid")
    }

    pub(super) fn log(&self, id: &InstanceId) -> PathBuf {
        self.dir(id).join("agent.log")
    }

    /// The end of what an instance's launch stage and agent wrote to stderr; empty if there is nothing.
    pub(super) fn last_words(&self, id: &InstanceId) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut log = fs::File::open(self.log(id))?;
            let length = log.metadata()?.len();
            log.seek(io::SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
            let mut bytes = Vec::new();
            log.take(LAST_WORDS).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        // A log that cannot be read has nothing to add to the error that it is read for.
        read().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default()
    }

    /// The agent's socket by way of the open directory: sun_path holds 108 bytes.
    pub(super) fn socket(&self, id: &InstanceId) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}/{id}", self.sockets.as_raw_fd()))
    }

    /// Makes an instance's directory with its record. An error if it exists; a failure leaves nothing.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let dir = self.dir(&record.id);
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(DriverError::io("create", dir.display()))?;
        let (temporary, path) = (dir.join("record.new"), dir.join(RECORD));
        let written = serde_json::to_vec(record)
            .map_err(|source| DriverError::Record { path: path.clone(), source })
            .and_then(|text| {
                fs::write(&temporary, text)
                    .and_then(|()| fs::rename(&temporary, &path))
                    .map_err(DriverError::io("write", path.display()))
            });
        if written.is_err()
            && let Err(error) = tree::remove(&dir)
        {
            // A left-over for the next start; why there is one is what the caller is to hear.
            tracing::warn!(dir = %dir.display(), %error, "a creation that failed left something behind");
        }
        written
    }

    /// An instance's record; none if there is no such instance.
    pub(super) fn read(&self, id: &InstanceId) -> Result<Option<Record>> {
        let path = self.dir(id).join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DriverError::io("read", path.display())(error)),
        };
        let record: Record = serde_json::from_slice(&text)
            .map_err(|source| DriverError::Record { path: path.clone(), source })?;
        if record.id != *id {
            // What is done to this one must not be done to the other.
            let foreign = io::Error::new(io::ErrorKind::InvalidData, "it is the record of another instance");
            return Err(DriverError::io("read", path.display())(foreign));
        }
        Ok(Some(record))
    }

    /// Says that an instance's creation is finished.
    pub(super) fn mark_ready(&self, id: &InstanceId) -> Result<()> {
        let path = self.dir(id).join(READY);
        fs::write(&path, "").map_err(DriverError::io("write", path.display()))
    }

    pub(super) fn is_ready(&self, id: &InstanceId) -> bool {
        self.dir(id).join(READY).exists()
    }

    /// Says that somebody is told of the instance: from now on no start of a server takes it for a left-over. When this
    /// returns, a power cut changes nothing of that.
    pub(super) fn acknowledge(&self, id: &InstanceId) -> Result<()> {
        let dir = self.dir(id);
        let acknowledge = || -> io::Result<()> {
            // The disk first: it is the most to write.
            for name in ["disk.img", RECORD, READY] {
                match fs::File::open(dir.join(name)) {
                    Ok(file) => file.sync_all()?,
                    Err(error) if name == "disk.img" && error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            fs::File::create(dir.join(ACKNOWLEDGED))?.sync_all()?;
            tree::sync(&dir)?;
            tree::sync(&self.scratch_files())
        };
        acknowledge().map_err(DriverError::io("acknowledge", dir.display()))
    }

    pub(super) fn is_acknowledged(&self, id: &InstanceId) -> bool {
        self.dir(id).join(ACKNOWLEDGED).exists()
    }

    /// The id of the database that knows the instances; none if none was written.
    pub(super) fn database(&self) -> Result<Option<String>> {
        let path = self.scratch_files().join(DATABASE);
        match fs::read_to_string(&path) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DriverError::io("read", path.display())(error)),
        }
    }

    pub(super) fn set_database(&self, id: &str) -> Result<()> {
        let dir = self.scratch_files();
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&dir)?;
            file.write_all(id.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(dir.join(DATABASE)).map_err(|error| error.error)?;
            tree::sync(&dir)
        };
        write().map_err(DriverError::io("write the database's id in", dir.display()))
    }

    /// All instances that have a directory.
    pub(super) fn instances(&self) -> Result<Vec<InstanceId>> {
        let dir = self.data_dir.join("instances");
        let read = || -> io::Result<Vec<InstanceId>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(&dir)? {
                if let Some(id) = entry?.file_name().to_str().and_then(|name| InstanceId::parse(name).ok()) {
                    found.push(id);
                }
            }
            Ok(found)
        };
        read().map_err(DriverError::io("list", dir.display()))
    }

    /// Removes the place where an instance's agent accepted connections.
    pub(super) fn remove_socket(&self, id: &InstanceId) -> Result<()> {
        let socket = self.socket(id);
        ignore_missing(fs::remove_file(&socket)).map_err(DriverError::io("remove", socket.display()))
    }

    /// Removes what a volatile overlay left to say that it was not written out: the instance runs again on what there is.
    pub(super) fn forget_work(&self, id: &InstanceId) -> Result<()> {
        let disk = self.directory(id);
        let forget = || -> io::Result<()> {
            let entries = match fs::read_dir(&disk) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with("work") {
                    tree::remove(&entry.path())?;
                }
            }
            Ok(())
        };
        forget().map_err(DriverError::io("clear", disk.display()))
    }

    /// Removes an instance's directory in an order that can be cut off anywhere: first what says that it is whole, last
    /// what says what it has.
    pub(super) fn remove(&self, id: &InstanceId) -> Result<()> {
        let dir = self.dir(id);
        let record = dir.join(RECORD);
        let remove = || -> io::Result<()> {
            let was_acknowledged = self.is_acknowledged(id);
            ignore_missing(fs::remove_file(dir.join(ACKNOWLEDGED)))?;
            ignore_missing(fs::remove_file(dir.join(READY)))?;
            if was_acknowledged {
                // Before the database forgets it: it must not come back as one that only the database lost.
                tree::sync(&dir)?;
            }
            let entries = match fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_name() != RECORD {
                    tree::remove_any(&entry.path())?;
                }
            }
            ignore_missing(tree::remove_any(&record))?;
            ignore_missing(fs::remove_dir(&dir))
        };
        remove().map_err(DriverError::io("remove", dir.display()))
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
