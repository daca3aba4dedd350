//! A driver without isolation, for tests of the server: the agent is a task in this process that is handed a listening
//! Unix socket and a directory of its own.

use crate::driver::{
    BoxFuture, BoxStream, Condition, Driver, DriverError, Exit, ImageInfo, Instance, InstanceId, Quarantined,
    Result, SandboxSpec, Stats,
};
use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// What a fake agent is started with.
#[derive(Debug)]
pub struct AgentStart {
    /// Which life of which sandbox this is.
    pub instance: InstanceId,
    /// What was asked for.
    pub spec: SandboxSpec,
    /// Where the server connects. Non-blocking, so that it can be given to tokio.
    pub listener: UnixListener,
    /// A directory that lives as long as the instance, whether its agent runs or not.
    pub dir: PathBuf,
}

/// The agent to run: its future is the agent's life, its value the exit code.
pub type AgentEntry = Arc<dyn Fn(AgentStart) -> BoxFuture<'static, i32> + Send + Sync>;

struct Running {
    instance: Instance,
    socket: PathBuf,
    exit: watch::Receiver<Option<Exit>>,
    condition: watch::Sender<Condition>,
    /// Whether waiting for its end panics.
    panics: watch::Sender<bool>,
    task: tokio::task::AbortHandle,
    /// Removed with the entry.
    dir: tempfile::TempDir,
}

impl Running {
    /// The channel tells, not the task: a waiter hears of the end through it, and must then find it to be so.
    fn ended(&self) -> bool {
        self.exit.has_changed().is_err() || self.exit.borrow().is_some()
    }
}

/// The driver. Cheap to clone; clones share their instances, so that a test can "restart the server" over one fake.
#[derive(Clone)]
pub struct Fake {
    entry: AgentEntry,
    /// Where agents run: not necessarily where the server does, so that they can outlive it.
    agents: Handle,
    running: Arc<Mutex<HashMap<InstanceId, Running>>>,
    /// What tests say that sandboxes use.
    stats: Arc<Mutex<Stats>>,
    /// The id of the database that knows the instances.
    database: Arc<Mutex<Option<String>>>,
    /// What tests say that cannot be used.
    quarantined: Arc<Mutex<Vec<Quarantined>>>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake").finish_non_exhaustive()
    }
}

impl Fake {
    /// A driver that runs `entry` as the agent of each instance, on the tokio runtime that this is called from.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new<F, Fut>(entry: F) -> Self
    where
        F: Fn(AgentStart) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = i32> + Send + 'static,
    {
        Self {
            entry: Arc::new(move |start| Box::pin(entry(start))),
            agents: Handle::current(),
            running: Arc::default(),
            stats: Arc::default(),
            database: Arc::default(),
            quarantined: Arc::default(),
        }
    }

    /// Kills an instance's agent as the kernel would; its files stay.
    pub fn kill(&self, id: &InstanceId) -> Result<()> {
        self.with(id, |running| running.task.abort())
    }

    /// Says what every instance uses from now on.
    pub fn set_stats(&self, stats: Stats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    /// Says what keeps an instance from working.
    pub fn set_condition(&self, id: &InstanceId, condition: Condition) -> Result<()> {
        self.with(id, |running| {
            running.condition.send_replace(condition);
        })
    }

    /// Has the one who waits for this instance's end panic, once.
    pub fn panic(&self, id: &InstanceId) -> Result<()> {
        self.with(id, |running| {
            running.panics.send_replace(true);
        })
    }

    /// Has an instance be one that cannot be used.
    pub fn quarantine(&self, id: &InstanceId, reason: &str) {
        let quarantined = Quarantined { id: id.clone(), reason: reason.to_owned() };
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).push(quarantined);
    }

    /// Has the id that [`Driver::set_database`] kept be another one, as after instances and database were mixed up.
    pub fn forget_database(&self) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn with<T>(&self, id: &InstanceId, f: impl FnOnce(&Running) -> T) -> Result<T> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(id).map(f).ok_or_else(|| DriverError::NotFound { id: id.clone() })
    }

    fn make(&self, id: &InstanceId, spec: &SandboxSpec) -> Result<Instance> {
        if spec.image != "host" {
            return Err(unknown_image(&spec.image));
        }
        let dir = tempfile::tempdir().map_err(DriverError::io("make a directory for", id))?;
        let root = dir.path().join("root");
        std::fs::create_dir(&root).map_err(DriverError::io("create", root.display()))?;
        let instance = Instance { id: id.clone(), spec: spec.clone(), running: true, acknowledged: false };
        self.launch(&instance, dir)
    }

    fn start_again(&self, id: &InstanceId) -> Result<Instance> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = match running.remove(id) {
            None => return Err(DriverError::NotFound { id: id.clone() }),
            Some(entry) if !entry.ended() => {
                let instance = entry.instance.clone();
                running.insert(id.clone(), entry);
                return Ok(instance);
            }
            Some(entry) => entry,
        };
        drop(running);
        self.launch(&stopped.instance, stopped.dir)
    }

    fn launch(&self, instance: &Instance, dir: tempfile::TempDir) -> Result<Instance> {
        let Instance { id, spec, .. } = instance;
        // A name of its own for each start: the last one's socket file is still there.
        let socket = dir.path().join(format!("{}.sock", InstanceId::random()));
        let listener = listen(&socket).map_err(DriverError::io("listen on", socket.display()))?;
        let root = dir.path().join("root");
        let start = AgentStart { instance: id.clone(), spec: spec.clone(), listener, dir: root };

        let (ended, exit) = watch::channel(None);
        let agent = (self.entry)(start);
        let task = self.agents.spawn(async move {
            // An abort drops the future here: then the sender goes without a value, which reads as a kill.
            let code = agent.await;
            ended.send_replace(Some(Exit::Code(code)));
        });
        let instance = Instance { running: true, ..instance.clone() };
        let condition = watch::Sender::default();
        let task = task.abort_handle();
        let entry = Running {
            instance: instance.clone(),
            socket,
            exit,
            condition,
            panics: watch::Sender::new(false),
            task,
            dir,
        };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), entry);
        Ok(instance)
    }
}

fn unknown_image(image: &str) -> DriverError {
    DriverError::ImageNotFound { image: image.to_owned(), known: vec!["host".to_owned()] }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn as_it_stands(running: &Running) -> Instance {
    Instance { running: !running.ended(), ..running.instance.clone() }
}

impl Driver for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn create<'a>(&'a self, id: &'a InstanceId, spec: &'a SandboxSpec) -> BoxFuture<'a, Result<Instance>> {
        Box::pin(async move { self.make(id, spec) })
    }

    fn start<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Instance>> {
        Box::pin(async move { self.start_again(id) })
    }

    fn connect<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<BoxStream>> {
        Box::pin(async move {
            let (socket, ended) = self.with(id, |r| (r.socket.clone(), r.ended()))?;
            if ended {
                return Err(DriverError::NotRunning { id: id.clone() });
            }
            let stream = sandcrab_socket::Stream::connect(&socket)
                .await
                .map_err(DriverError::io("connect to", socket.display()))?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn stop<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut exit = self.with(id, |running| {
                running.task.abort();
                running.exit.clone()
            })?;
            // Closed when the task's future has been dropped, whether it ended or was aborted.
            while exit.changed().await.is_ok() {}
            Ok(())
        })
    }

    fn destroy<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| held.id != *id);
            let entry = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
            if let Some(mut entry) = entry {
                entry.task.abort();
                // Closed when the task's future has been dropped, whether it ended or was aborted.
                while entry.exit.changed().await.is_ok() {}
            }
            Ok(())
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Instance>>> {
        Box::pin(async move {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(running.values().map(as_it_stands).collect())
        })
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn acknowledge<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = running.get_mut(id).ok_or_else(|| DriverError::NotFound { id: id.clone() })?;
            entry.instance.acknowledged = true;
            Ok(())
        })
    }

    fn database(&self) -> BoxFuture<'_, Result<Option<String>>> {
        Box::pin(async { Ok(self.database.lock().unwrap_or_else(PoisonError::into_inner).clone()) })
    }

    fn set_database<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            *self.database.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
            Ok(())
        })
    }

    fn condition(&self, id: &InstanceId) -> Result<watch::Receiver<Condition>> {
        self.with(id, |running| running.condition.subscribe())
    }

    fn inspect<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Option<Instance>>> {
        Box::pin(async move {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(running.get(id).map(as_it_stands))
        })
    }

    fn wait_exit<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Exit>> {
        Box::pin(async move {
            let (mut exit, mut panics) = self.with(id, |r| (r.exit.clone(), r.panics.subscribe()))?;
            let exit = tokio::select! {
                exit = exit.wait_for(Option::is_some) => exit,
                true = async { panics.wait_for(|panics| *panics).await.is_ok() } => {
                    self.with(id, |r| r.panics.send_replace(false))?;
                    panic!("a test has this driver panic");
                }
            };
            match exit {
                Ok(value) => Ok(value.unwrap_or(Exit::Unknown)),
                Err(_aborted) => Ok(Exit::Signal(libc::SIGKILL)),
            }
        })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>>> {
        Box::pin(async move {
            let instances = self.running.lock().unwrap_or_else(PoisonError::into_inner).len();
            let key = Some("host".to_owned());
            Ok(vec![ImageInfo {
                name: "host".into(),
                is_built: false,
                is_former: false,
                key,
                size: None,
                instances,
            }])
        })
    }

    fn add_layer<'a>(
        &'a self,
        image: &'a str,
        _built_in: &'a InstanceId,
        _archive: &'a Path,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { Err(unknown_image(image)) })
    }

    fn remove_image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { if image == "host" { Ok(false) } else { Err(unknown_image(image)) } })
    }

    fn last_words<'a>(&'a self, _id: &'a InstanceId) -> BoxFuture<'a, String> {
        Box::pin(async move { String::new() })
    }

    fn stats<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<Stats>> {
        Box::pin(async move { self.with(id, |_| *self.stats.lock().unwrap_or_else(PoisonError::into_inner)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandcrab_api::ids::SandboxId;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn spec() -> SandboxSpec {
        SandboxSpec {
            sandbox: SandboxId::parse("fake").unwrap(),
            image: "host".into(),
            limits: Default::default(),
            network: Default::default(),
            isolation: Default::default(),
            env: Default::default(),
        }
    }

    /// Echoes one connection, then ends with code 3.
    async fn echo_once(start: AgentStart) -> i32 {
        let listener = tokio::net::UnixListener::from_std(start.listener).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = [0; 4];
        stream.read_exact(&mut text).await.unwrap();
        stream.write_all(&text).await.unwrap();
        3
    }

    #[tokio::test]
    async fn an_instance_lives_and_ends() {
        let driver = Fake::new(echo_once);
        let id = InstanceId::random();
        assert!(driver.create(&id, &spec()).await.unwrap().running);
        let mut stream = driver.connect(&id).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut text = [0; 4];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"ping");
        assert_eq!(driver.wait_exit(&id).await.unwrap(), Exit::Code(3));
        assert!(matches!(driver.connect(&id).await, Err(DriverError::NotRunning { .. })));
        assert!(!driver.inspect(&id).await.unwrap().unwrap().running);
        driver.destroy(&id).await.unwrap();
        assert!(driver.inspect(&id).await.unwrap().is_none());
        assert!(matches!(driver.connect(&id).await, Err(DriverError::NotFound { .. })));
    }

    #[tokio::test]
    async fn a_killed_instance_starts_again_on_its_files() {
        let (lives, mut files) = tokio::sync::mpsc::unbounded_channel();
        let driver = Fake::new(move |start: AgentStart| {
            // Each life leaves one more file.
            let count = std::fs::read_dir(&start.dir).unwrap().count();
            std::fs::write(start.dir.join(format!("{count}")), "").unwrap();
            lives.send(count).unwrap();
            async move {
                let _listening = start.listener;
                std::future::pending().await
            }
        });
        let id = InstanceId::random();
        driver.create(&id, &spec()).await.unwrap();
        driver.kill(&id).unwrap();
        assert_eq!(driver.wait_exit(&id).await.unwrap(), Exit::Signal(libc::SIGKILL));
        assert!(matches!(driver.connect(&id).await, Err(DriverError::NotRunning { .. })));
        assert!(driver.start(&id).await.unwrap().running);
        driver.connect(&id).await.unwrap();
        assert_eq!((files.try_recv().unwrap(), files.try_recv().unwrap()), (0, 1));
        driver.destroy(&id).await.unwrap();
        assert!(matches!(driver.start(&id).await, Err(DriverError::NotFound { .. })));
    }

    #[tokio::test]
    async fn l06_destroy_ends_a_running_agent() {
        let driver = Fake::new(|_start| std::future::pending());
        let id = InstanceId::random();
        driver.create(&id, &spec()).await.unwrap();
        let waiter = tokio::spawn({
            let (driver, id) = (driver.clone(), id.clone());
            async move { driver.wait_exit(&id).await }
        });
        tokio::task::yield_now().await;
        driver.destroy(&id).await.unwrap();
        driver.destroy(&id).await.unwrap();
        assert_eq!(waiter.await.unwrap().unwrap(), Exit::Signal(libc::SIGKILL));
        assert!(driver.list().await.unwrap().is_empty());
    }
}
