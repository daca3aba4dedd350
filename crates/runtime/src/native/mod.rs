//! The `native` driver: Linux namespaces on this machine, without a container engine.
//!
//! On disk, below the data directory:
//! ```text
//! instances/<id>/record.json   what was asked for and what was taken for it; written before anything is made
//! instances/<id>/pid           the first process: its id and start time
//! instances/<id>/ready         the creation was finished; without it, what is there is a left-over
//! instances/<id>/acknowledged  somebody was told of it: it is destroyed when that is asked for, and by nothing else
//! instances/<id>/device        the loop device that the disk was attached to last
//! instances/<id>/disk.img      the writable layers, on a file system of their own
//! instances/<id>/disk/         the writable layers, where disks cannot be had
//! instances/database           the id of the database that knows them
//! sockets/<id>                 where the agent accepts connections
//! ids/<range>                  ranges of ids in use
//! programs/                    the server's program, if it was replaced while it runs
//! ```
//! A server that starts again finds its sandboxes by these records and checks each against the kernel.

mod config;
mod images;
mod launcher;
mod left_overs;
mod process;
mod program;
mod record;
mod space;
mod turns;

use crate::cgroup::{Group, Hierarchies};
use crate::disk;
use crate::doctor::Feature;
use crate::driver::{
    BoxFuture, BoxStream, Condition, Driver, DriverError, Exit, ImageInfo, Instance, InstanceId, Quarantined,
    Result, SandboxSpec, Stats,
};
use crate::ids;
use crate::image::Image;
use crate::image::host::HostOptions;
use crate::image::identity::{self, IdentityFile};
use crate::launch::LaunchPlan;
use crate::launch::plan::{Disk, Ids, Setting, host_name};
use crate::seccomp;
use crate::shares::Shares;
pub use config::{Config, Program};
use config::{DEFAULT_DISK, OPEN_FILES, machine_memory};
pub(crate) use process::identity;
use record::{Files, Record};
use sandcrab_api::sandbox::{Limits, Network};
pub(crate) use space::admit;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// The driver.
#[derive(Debug)]
pub struct Native {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    files: Files,
    ids: Option<ids::Table>,
    shares: Shares,
    cgroups: Hierarchies,
    machine: Machine,
    /// None where disks cannot be had, and need not.
    disks: Option<disk::Disks>,
    /// The filters of user code; none where the kernel has none, and need not.
    seccomp: Option<seccomp::Filters>,
    turns: Arc<turns::Turns>,
    /// Instances that this server is creating now, with the names of their images.
    creating: Mutex<HashMap<InstanceId, String>>,
    /// Instances that this server knows to be whole, with how they ended.
    live: Mutex<HashMap<InstanceId, Live>>,
    /// Instances that cannot be used, and why.
    quarantined: Mutex<BTreeMap<InstanceId, String>>,
    space: space::Space,
    images: images::Images,
}

/// What the machine offers, found out once.
#[derive(Debug)]
struct Machine {
    uid: u32,
    gid: u32,
    cpus: Vec<usize>,
    may_lower_oom: bool,
    open_files: u64,
    landlock: bool,
    seccomp: bool,
}

#[derive(Clone, Debug)]
struct Live {
    record: Arc<Record>,
    acknowledged: bool,
    exit: watch::Receiver<Option<Exit>>,
    condition: watch::Sender<Condition>,
}

impl Native {
    /// Opens the data directory and looks at the machine.
    ///
    /// # Errors
    /// [`DriverError::Missing`] names a feature that the machine lacks and that `config` does not accept to lack.
    pub fn open(config: Config) -> Result<Self> {
        let files = Files::open(&config.data_dir)?;
        program::remove_copies(&files.programs())?;
        let machine = Machine::examine()?;
        let cgroups = Hierarchies::discover().map_err(DriverError::io("examine", "cgroups"))?;
        let need = |feature: Feature, missing: Option<String>| match missing {
            Some(detail) if !config.allow_missing.contains(&feature) => {
                Err(DriverError::Missing { feature, detail })
            }
            _ => Ok(()),
        };
        need(Feature::Cgroup, cgroups.missing())?;
        need(Feature::Landlock, (!machine.landlock).then(|| "the kernel has no Landlock".into()))?;
        need(Feature::Seccomp, (!machine.seccomp).then(|| "the kernel has no seccomp filters".into()))?;
        let agent = if machine.uid == 0 { seccomp::Agent::Apart } else { seccomp::Agent::SameId };
        let seccomp = machine.seccomp.then(|| seccomp::Filters::new(agent));
        let disks = disk::Disks::default();
        let quota = if machine.uid == 0 {
            disks.examine(config.defaults.disk.map_or(DEFAULT_DISK, |disk| disk.0))
        } else {
            Err("a disk is mounted by root only".into())
        };
        need(Feature::Quota, quota.clone().err())?;
        let images = images::Images::open(
            config.images_of.as_deref().unwrap_or(&config.data_dir),
            config.images_of.is_none(),
            HostOptions { exclude: config.host_image_exclude.clone() },
            config.recipes.clone(),
        )?;
        let shares = Shares::examine(machine.uid == 0)?;
        let ids =
            if machine.uid == 0 { Some(ids::Table::open(files.ids(), &config.machine_dir)?) } else { None };
        let space = space::Space::open(&config.data_dir)?;
        let this = Self {
            shared: Arc::new(Shared {
                config,
                files,
                ids,
                shares,
                cgroups,
                machine,
                disks: quota.is_ok().then_some(disks),
                seccomp,
                turns: Arc::default(),
                creating: Mutex::default(),
                live: Mutex::default(),
                quarantined: Mutex::default(),
                space,
                images,
            }),
        };
        if this.shared.disks.is_some() {
            space::watch(&this.shared)?;
        }
        Ok(this)
    }

    /// Makes an image known under a name, beside `host`.
    pub fn add_image(&self, name: &str, image: Image) {
        self.shared.images.add(name, image);
    }
}

impl Machine {
    fn examine() -> Result<Self> {
        let cpus =
            rustix::thread::sched_getaffinity(None).map_err(DriverError::io("read", "cpu affinity"))?;
        let capabilities =
            rustix::thread::capabilities(None).map_err(DriverError::io("read", "capabilities"))?.effective;
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        Ok(Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            cpus: (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu)).collect(),
            may_lower_oom: capabilities.contains(rustix::thread::CapabilitySet::SYS_RESOURCE),
            open_files: open_files.unwrap_or(1 << 20).min(1 << 20),
            landlock: crate::doctor::landlock_abi() > 0,
            seccomp: crate::doctor::has_seccomp(),
        })
    }
}

/// A random UUID (RFC 9562, version 4), as the kernel makes one at each boot.
fn boot_id() -> String {
    let bits = rand::random::<u128>() & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, HashMap<InstanceId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn creating(&self) -> MutexGuard<'_, HashMap<InstanceId, String>> {
        self.creating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn quarantined(&self) -> MutexGuard<'_, BTreeMap<InstanceId, String>> {
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes images of former states of the machine that no instance uses.
    fn collect_images(&self) -> Result<()> {
        // Held until the end: an instance that begins to be created has its image before it has a record.
        let creating = self.creating();
        if !creating.is_empty() {
            return Ok(());
        }
        let mut used = BTreeSet::new();
        for id in self.files.instances()? {
            match self.files.read(&id) {
                Ok(record) => used.extend(record.into_iter().flat_map(|record| record.image.directories())),
                // What it is made of is not known, and may be needed by the one who repairs it.
                Err(error) => {
                    tracing::warn!(instance = %id, %error, "old images are kept");
                    return Ok(());
                }
            }
        }
        self.images.collect(&used)
    }

    /// How many instances are made of each image, by its name.
    fn instances_by_image(&self) -> Result<BTreeMap<String, usize>> {
        let mut count = BTreeMap::new();
        for id in self.files.instances()? {
            // One that cannot be read starts from no image any more.
            if let Ok(Some(record)) = self.files.read(&id) {
                *count.entry(record.spec.image).or_default() += 1;
            }
        }
        Ok(count)
    }

    fn defaults(&self, spec: &SandboxSpec) -> SandboxSpec {
        let defaults = &self.config.defaults;
        let given = &spec.limits;
        let limits = Limits {
            memory: given.memory.or(defaults.memory),
            cpu: given.cpu.or(defaults.cpu),
            disk: given.disk.or(defaults.disk),
            pids: given.pids.or(defaults.pids),
            open_files: given.open_files.or(defaults.open_files),
        };
        SandboxSpec { limits, ..spec.clone() }
    }

    /// Creates an instance; blocks. What a failure leaves is taken away before it is returned.
    fn create(&self, id: &InstanceId, spec: &SandboxSpec) -> Result<(Arc<Record>, process::Process)> {
        self.space.admit(|| self.promised())?;
        let stage = launcher::Coming::start(&self.config.launch)?;
        let spec = self.defaults(spec);
        let image = self.images.get(&spec.image)?;
        let share = self.shares.take(id, spec.limits.pids)?;
        let range = self.ids.as_ref().map(|ids| ids.take(id)).transpose();
        let range = range.inspect_err(|_| self.shares.give_back(id))?;
        let record = Record { id: id.clone(), spec, range, share: Some(share), image: Image::clone(&image) };
        if let Err(error) = self.files.write(&record) {
            // Nothing else exists yet, and the directory may be that of another instance with the same id.
            self.shares.give_back(id);
            if let (Some(ids), Some(range)) = (&self.ids, range) {
                unless_failed(id, ids.give_back(range, id));
            }
            return Err(error);
        }
        let mut identity = identity::files(&host_name(record.spec.sandbox.as_str()));
        if record.spec.network == Network::Host {
            identity.push(identity::name_servers());
        }
        match self.start(&record, &identity, stage) {
            Ok(process) => Ok((Arc::new(record), process)),
            Err(error) => {
                unless_failed(id, self.remove(&record));
                Err(error)
            }
        }
    }

    /// Starts the agent of an instance whose record is written.
    fn start(
        &self,
        record: &Record,
        identity: &[IdentityFile],
        stage: launcher::Coming,
    ) -> Result<process::Process> {
        let group = self.cgroups.group(record.id.as_str());
        let agent = program::find(&self.config.agent.path, &self.files.programs())?;
        let plan = self.plan(record, identity, &group, &agent)?;
        let setup = launcher::Setup {
            files: &self.files,
            agent: &agent.file,
            cgroup: group.delegated(),
            memory_cgroup: group.memory(),
        };
        let launch = stage.begin(&record.id, &plan, &setup)?;
        // Beside the launch's first steps: the kernel takes its time, most of which it sleeps.
        let attached = self.attach_disk(record)?;
        if let Some(attached) = &attached {
            launch.attached(&attached.path);
        }
        let process = launch.finish()?;
        if let Err(error) = self.files.mark_ready(&record.id) {
            process.end();
            return Err(error);
        }
        if let Some(attached) = attached {
            tokio::task::spawn_blocking(move || attached.settle());
        }
        Ok(process)
    }

    /// What the launch stage is to do; makes the groups and directories that it names.
    fn plan(
        &self,
        record: &Record,
        identity: &[IdentityFile],
        group: &Group,
        agent: &program::Program,
    ) -> Result<LaunchPlan> {
        let id = &record.id;
        let ids = match record.range {
            Some(range) => ids::ids(range),
            None => Ids::Single { uid: self.machine.uid, gid: self.machine.gid },
        };
        let agent_id = match ids {
            Ids::Range { agent, .. } => Some(agent),
            Ids::Single { .. } => None,
        };
        let cpus = self.cpus(record);
        group.create(&record.spec.limits, cpus.as_deref(), agent_id)?;
        let disk = match self.disks {
            Some(_) => Disk::Device,
            None => {
                let dir = self.files.directory(id);
                match std::fs::create_dir(&dir) {
                    Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                        return Err(DriverError::io("create", dir.display())(error));
                    }
                    _ => Disk::Directory(dir),
                }
            }
        };
        let share = match record.share {
            Some(share) => share,
            None => self.shares.take(id, record.spec.limits.pids)?,
        };
        let pid_file = self.files.pid(id);
        let isolation = &record.spec.isolation;
        let seccomp = self.seccomp.as_ref().map(|filters| filters.get(isolation)).transpose()?;
        let setting = Setting {
            image: &record.image,
            identity,
            ids,
            disk,
            scratch: &self.files.scratch(),
            pid_file: &pid_file,
            cgroups: &group.tasks(),
            delegated_cgroup: group.delegated().is_some(),
            shown_cgroups: group.shown(),
            memory_cgroup: group.memory().is_some(),
            cpus: cpus.as_deref(),
            memory: self.memory(record, group),
            may_lower_oom: self.machine.may_lower_oom,
            open_files: self.machine.open_files,
            user_open_files: self.user_open_files(record)?,
            share: &share,
            seccomp: seccomp.as_deref().unwrap_or_default(),
            landlock: self.machine.landlock,
            boot_id: &boot_id(),
            program: (&agent.directory, &agent.name),
            agent_argv: &self.config.agent.argv,
        };
        Ok(crate::launch::plan(&record.spec, &setting))
    }

    /// The disk of an instance, made if it is new; none where there are no disks.
    fn attach_disk(&self, record: &Record) -> Result<Option<disk::Attached>> {
        let Some(disks) = &self.disks else { return Ok(None) };
        let image = self.files.image(&record.id);
        let new = if image.exists() {
            disk::repair(&image)?;
            None
        } else {
            Some(disks.create(&image, record.spec.limits.disk.map_or(DEFAULT_DISK, |disk| disk.0))?)
        };
        let attached = disk::attach(&image)?;
        if let Some(new) = new {
            new.read_ahead(&attached);
        }
        self.files.write_device(&record.id, &attached.path)?;
        Ok(Some(attached))
    }

    /// The open files of a process of user code. Descriptors in flight over sockets count per user, and each sender is
    /// refused beyond its own limit: where sandboxes have the server's user, the server can send when they cannot.
    fn user_open_files(&self, record: &Record) -> Result<u64> {
        let (rootless, server) = (self.machine.uid != 0, self.machine.open_files);
        let most = if rootless { server / 4 } else { server };
        let wanted = record.spec.limits.open_files.unwrap_or(OPEN_FILES);
        if wanted > most.max(OPEN_FILES) {
            let part = if rootless { "a quarter of " } else { "" };
            let reason =
                format!("{wanted} is more than {part}the {server} that the server may have (RLIMIT_NOFILE)");
            return Err(DriverError::Limit { limit: "openFiles", reason });
        }
        Ok(wanted.min(most))
    }

    /// How much memory the kernel sees an instance in when memory is short.
    fn memory(&self, record: &Record, group: &Group) -> u64 {
        let limit = record.spec.limits.memory.filter(|_| group.memory().is_some());
        limit.map_or(u64::MAX, |limit| limit.0).min(machine_memory())
    }

    /// The CPUs that a CPU limit allows: as many as the limit, rounded up, beginning at another place per instance.
    fn cpus(&self, record: &Record) -> Option<Vec<usize>> {
        let count = record.spec.limits.cpu?.ceil().max(1.0) as usize;
        let all = &self.machine.cpus;
        let start = record.range.unwrap_or_default() as usize;
        (count < all.len()).then(|| (0..count).map(|i| all[(start + i) % all.len()]).collect())
    }

    /// Ends the agent of an instance that is known, with all that runs beside it; blocks until whoever watches it knows.
    /// What it lived in is taken away by the start that follows.
    fn end(&self, id: &InstanceId) -> Result<()> {
        let mut live = self.find(id)?;
        self.cgroups.group(id.as_str()).kill();
        if let Some(process) = process::find(&self.files.pid(id))? {
            process.kill_and_wait(id)?;
        }
        let ended = live.exit.wait_for(Option::is_some);
        let _watcher_ended = tokio::runtime::Handle::current().block_on(ended).is_err();
        Ok(())
    }

    /// Ends all processes of an instance and takes away what they lived in; its files stay. Blocks until the kernel
    /// says that it is gone.
    fn stop(&self, id: &InstanceId) -> Result<()> {
        let group = self.cgroups.group(id.as_str());
        // The kill comes first: nothing that it needs can be used up by a sandbox.
        group.kill();
        if let Some(process) = process::find(&self.files.pid(id))? {
            process.kill_and_wait(id)?;
        }
        for pid in group.pids() {
            // Only where the kernel cannot kill a group at once and a launch was cut short.
            process::kill_stray(pid, id, || group.pids().contains(&pid))?;
        }
        group.remove()?;
        self.files.remove_socket(id)?;
        disk::Release::new(&self.files.image(id), self.files.device(id)?.as_deref()).wait()?;
        if group.exists() {
            return Err(DriverError::Residue { id: id.clone(), what: "cgroups".into() });
        }
        Ok(())
    }

    /// Takes away all that an instance has or may have; blocks until it is gone.
    fn remove(&self, record: &Record) -> Result<()> {
        self.stop(&record.id)?;
        self.files.remove(&record.id)?;
        if let (Some(ids), Some(range)) = (&self.ids, record.range) {
            ids.give_back(range, &record.id)?;
        }
        self.shares.give_back(&record.id);
        Ok(())
    }

    /// Starts an instance again on its files, unless it runs; to be called by who has its turn.
    fn start_again(&self, id: &InstanceId) -> Result<Instance> {
        let live = self.find(id)?;
        if live.exit.borrow().is_none() {
            return Ok(live.instance());
        }
        self.space.admit(|| self.promised())?;
        if let (Some(ids), Some(range)) = (&self.ids, live.record.range) {
            ids.keep(range)?;
        }
        let stage = launcher::Coming::start(&self.config.launch)?;
        self.stop(id)?;
        self.files.forget_work(id)?;
        match self.start(&live.record, &[], stage) {
            Ok(process) => Ok(self.adopt(live.record, process)),
            Err(error) => {
                unless_failed(id, self.stop(id));
                Err(error)
            }
        }
    }

    /// To be called by who has the instance's turn.
    fn destroy(&self, id: &InstanceId) -> Result<()> {
        match self.files.read(id) {
            Ok(Some(record)) => self.remove(&record)?,
            // The record is removed last but for its directory; one that cannot be read hinders nothing. The range is
            // given back when nothing has its name any more.
            Ok(None) | Err(_) => {
                self.stop(id)?;
                self.files.remove(id)?;
                self.shares.give_back(id);
            }
        }
        self.live().remove(id);
        self.quarantined().remove(id);
        Ok(())
    }

    /// Watches a running instance and makes it known.
    fn adopt(&self, record: Arc<Record>, process: process::Process) -> Instance {
        let acknowledged = self.files.is_acknowledged(&record.id);
        let instance = record.instance(true, acknowledged);
        let (ended, exit) = watch::channel(None);
        let held = self.cgroups.group(record.id.as_str()).is_frozen();
        let condition = watch::Sender::new(if held { Condition::Held } else { Condition::Sound });
        tokio::spawn(async move {
            let exit = process.wait().await;
            ended.send_replace(Some(exit));
        });
        self.live().insert(record.id.clone(), Live { record, acknowledged, exit, condition });
        instance
    }

    fn find(&self, id: &InstanceId) -> Result<Live> {
        self.live().get(id).cloned().ok_or_else(|| DriverError::NotFound { id: id.clone() })
    }
}

/// Logs that a failure could not be cleaned up after: what failed first is what the caller is to hear.
fn unless_failed(id: &InstanceId, cleaned: Result<()>) {
    if let Err(error) = cleaned {
        let error: &dyn std::error::Error = &error;
        tracing::error!(instance = %id, error, "what a failure left behind was not removed");
    }
}

/// Runs what blocks on a thread that may. It runs to its end even if nobody waits any more.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Driver for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn create<'a>(&'a self, id: &'a InstanceId, spec: &'a SandboxSpec) -> BoxFuture<'a, Result<Instance>> {
        Box::pin(async move {
            let (shared, id, spec) = (self.shared.clone(), id.clone(), spec.clone());
            let (send, receive) = oneshot::channel();
            // Here and not on the thread, which may have to wait for its start: who destroys the instance meanwhile
            // waits for this.
            let turn = shared.turns.try_take(&id);
            tokio::task::spawn_blocking(move || {
                let _turn = turn.unwrap_or_else(|| shared.turns.take(&id));
                // Not before this thread: the lock is held while images are removed.
                shared.creating().insert(id.clone(), spec.image.clone());
                let created =
                    shared.create(&id, &spec).map(|(record, process)| shared.adopt(record, process));
                shared.creating().remove(&id);
                // Whoever asked may have gone in the meantime: then nobody would ever destroy it.
                if let Err(Ok(instance)) = send.send(created)
                    && let Err(error) = shared.destroy(&instance.id)
                {
                    tracing::error!(instance = %instance.id, %error, "an abandoned instance was not removed");
                }
            });
            match receive.await {
                Ok(created) => created,
                Err(_) => unreachable!("the thread above sends whatever comes"),
            }
        })
    }

    fn start<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Instance>> {
        Box::pin(async move {
            let (shared, id) = (self.shared.clone(), id.clone());
            let (send, receive) = oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _turn = shared.turns.take(&id);
                // Who asked may have gone before it began, or while it was under way: then nobody would watch it.
                if send.is_closed() {
                    return;
                }
                if let Err(Ok(_instance)) = send.send(shared.start_again(&id)) {
                    unless_failed(&id, shared.end(&id));
                }
            });
            match receive.await {
                Ok(started) => started,
                Err(_) => unreachable!("the thread above sends whatever comes while somebody waits"),
            }
        })
    }

    fn connect<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<BoxStream>> {
        Box::pin(async move {
            let live = self.shared.find(id)?;
            if live.exit.borrow().is_some() {
                return Err(DriverError::NotRunning { id: id.clone() });
            }
            let socket = self.shared.files.socket(id);
            let stream = sandcrab_socket::Stream::connect(&socket)
                .await
                .map_err(DriverError::io("connect to agent", id))?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn stop<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (shared, id) = (self.shared.clone(), id.clone());
            blocking(move || {
                let _turn = shared.turns.take(&id);
                shared.end(&id)
            })
            .await
        })
    }

    fn destroy<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (shared, id) = (self.shared.clone(), id.clone());
            let live = blocking(move || {
                let _turn = shared.turns.take(&id);
                let live = shared.live().get(&id).cloned();
                shared.destroy(&id)?;
                Ok(live)
            })
            .await?;
            // Its first process has ended; it is gone when the one who watches it has taken its status.
            if let Some(Live { mut exit, .. }) = live {
                let _watcher_ended = exit.wait_for(Option::is_some).await.is_err();
            }
            Ok(())
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Instance>>> {
        Box::pin(async move {
            let shared = self.shared.clone();
            for found in blocking(move || shared.find_all()).await? {
                self.shared.take_up(found);
            }
            let live = self.shared.live();
            Ok(live.values().map(Live::instance).collect())
        })
    }

    fn not_enforced(&self) -> Vec<&'static str> {
        let Shared { cgroups, disks, .. } = &*self.shared;
        let limits =
            [("memory", cgroups.has("memory")), ("cpu", cgroups.has("cpu")), ("disk", disks.is_some())];
        limits.into_iter().filter(|(_, enforced)| !enforced).map(|(name, _)| name).collect()
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        let quarantined = self.shared.quarantined();
        quarantined
            .iter()
            .map(|(id, reason)| Quarantined { id: id.clone(), reason: reason.clone() })
            .collect()
    }

    fn tidy(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let shared = self.shared.clone();
            blocking(move || shared.tidy()).await
        })
    }

    fn acknowledge<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (shared, id) = (self.shared.clone(), id.clone());
            blocking(move || {
                shared.files.acknowledge(&id)?;
                if let Some(live) = shared.live().get_mut(&id) {
                    live.acknowledged = true;
                }
                Ok(())
            })
            .await
        })
    }

    fn database(&self) -> BoxFuture<'_, Result<Option<String>>> {
        Box::pin(async move {
            let shared = self.shared.clone();
            blocking(move || shared.files.database()).await
        })
    }

    fn set_database<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (shared, id) = (self.shared.clone(), id.to_owned());
            blocking(move || shared.files.set_database(&id)).await
        })
    }

    fn condition(&self, id: &InstanceId) -> Result<watch::Receiver<Condition>> {
        Ok(self.shared.find(id)?.condition.subscribe())
    }

    fn inspect<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Option<Instance>>> {
        Box::pin(async move { Ok(self.shared.live().get(id).map(Live::instance)) })
    }

    fn wait_exit<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Exit>> {
        Box::pin(async move {
            let mut exit = self.shared.find(id)?.exit;
            let value = exit.wait_for(Option::is_some).await;
            Ok(value.ok().and_then(|value| *value).unwrap_or(Exit::Unknown))
        })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>>> {
        Box::pin(async move {
            let shared = self.shared.clone();
            blocking(move || shared.images.list(&shared.instances_by_image()?)).await
        })
    }

    fn add_layer<'a>(
        &'a self,
        image: &'a str,
        built_in: &'a InstanceId,
        archive: &'a Path,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (shared, image, archive) = (self.shared.clone(), image.to_owned(), archive.to_owned());
            let base = self.shared.find(built_in)?.record;
            blocking(move || {
                let layer = shared.images.publish(&image, &base.image, &archive)?;
                tracing::info!(image, key = layer.key, size = layer.size, "an image was built");
                Ok(())
            })
            .await
        })
    }

    fn remove_image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let (shared, image) = (self.shared.clone(), image.to_owned());
            blocking(move || {
                // Held until the end: who begins to be created has its image before it has a record.
                let creating = shared.creating();
                let instances = shared.instances_by_image()?.get(&image).copied().unwrap_or_default();
                let begun = creating.values().filter(|name| **name == image).count();
                let instances = instances.max(begun);
                shared.images.remove(&image, instances)
            })
            .await
        })
    }

    fn last_words<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, String> {
        Box::pin(async move {
            let (shared, id) = (self.shared.clone(), id.clone());
            let words = blocking(move || Ok(shared.files.last_words(&id))).await;
            words.unwrap_or_default()
        })
    }

    fn stats<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Stats>> {
        Box::pin(async move {
            self.shared.find(id)?;
            let (shared, id) = (self.shared.clone(), id.clone());
            blocking(move || {
                let disk = disk::used(&shared.files.image(&id));
                Ok(Stats { disk, ..shared.cgroups.group(id.as_str()).stats() })
            })
            .await
        })
    }
}

impl Live {
    fn instance(&self) -> Instance {
        self.record.instance(self.exit.borrow().is_none(), self.acknowledged)
    }
}
