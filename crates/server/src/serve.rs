//! Starting, accepting, ending.

use crate::app::App;
use crate::auth::{self, Auth, KeyError};
use crate::bodies::Bodies;
use crate::connection::Arrival;
use crate::gate::Gate;
use crate::http::{DocumentError, Front};
use crate::images::Images;
use crate::lifecycle::{self, Context, ReconcileError, Sandboxes};
use crate::metrics::Metrics;
use crate::options::{DriverKind, Options};
use crate::ports::Ports;
use crate::preview::Previews;
use crate::store::{Store, StoreError};
use crate::throttle::Throttle;
use crate::tickets::Tickets;
use crate::tls::{Tls, TlsError};
use rustix::fs::FlockOperation;
use sandcrab_api::time::Timestamp;
use sandcrab_runtime::{Driver, DriverError, native};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Wrong keys of one address that are answered as such, and how many more per second.
const WRONG_KEYS: u32 = 20;
const WRONG_KEYS_PER_SECOND: u32 = 1;
/// How long open requests may go on when the server ends. Streams are cut then; clients resume them.
const GRACE: Duration = Duration::from_secs(5);
/// How long the events of destroyed sandboxes are kept, and how often old ones are looked for.
const KEEP_EVENTS: Duration = Duration::from_secs(7 * 24 * 3600);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// After an accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a server could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The data directory could not be used.
    #[error("{operation} {path:?}")]
    DataDir {
        /// What was done.
        operation: &'static str,
        /// The directory or a file in it.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another server has the data directory.
    #[error("another server uses the data directory {path:?}")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The address could not be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The runtime could not be made.
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    /// Signals cannot be heard.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
    /// The operator's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What an earlier server left.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// The driver cannot work on this machine.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The API's document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The encrypted listener.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a person wants to know of a server that has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for encrypted connections, if it does.
    pub tls_address: Option<SocketAddr>,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The key that has just been made, to be shown once.
    pub new_key: Option<String>,
    /// The file that holds the key; none if it was given or none is needed.
    pub key_file: Option<PathBuf>,
    /// Everyone who reaches the address may do everything: no key is needed and it is no loopback address.
    pub open_to_all: bool,
}

/// A server that listens. Nothing is answered before [`Server::run`].
pub struct Server {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    front: Front,
    gate: Gate,
    images: Images,
    store: Store,
    started: Started,
    /// Tells answers that have no end of their own.
    ending: CancellationToken,
    /// Ends what was given away by an upgrade when the server is dropped.
    _ended: DropGuard,
    /// Held as long as the server lives: one server per data directory.
    _lock: File,
}

impl Server {
    /// Locks the data directory, opens the store, listens, and takes up what an earlier server left.
    ///
    /// # Errors
    /// Before anything was answered or changed in a sandbox, except that left-overs of interrupted creations may
    /// have been removed.
    pub async fn start(options: Options, driver: Arc<dyn Driver>) -> Result<Self, ServeError> {
        let lock = lock(&options.data_dir)?;
        let store = Store::open(&options.data_dir.join("sandcrab.db"))?;
        let (key, key_is_new) = auth::operator_key(&options.key, &options.data_dir)?;
        let auth = Auth::load(key.as_deref(), &store).await?;
        let (document, routes) = crate::http::document()?;
        let document = serde_json::to_vec(&document).map_err(DocumentError::from)?.into();

        let metrics = Arc::new(Metrics::new());
        let image_dir = options.images_of.as_deref().unwrap_or(&options.data_dir).join("images");
        let images = Images::new(driver.clone(), &image_dir);
        let ports = Arc::new(Ports::new(store.clone()));
        let context = Context {
            store: store.clone(),
            driver: driver.clone(),
            images: images.clone(),
            metrics: metrics.clone(),
            ports: ports.clone(),
        };
        let sandboxes = Sandboxes::new(Arc::new(context));
        // First, so that who connects meanwhile waits instead of being refused.
        let listen = |source| ServeError::Listen { address: options.listen, source };
        let listener = crate::connection::listen(options.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let tls = match options.tls {
            Some(tls) => Some(Tls::listen(tls).await?),
            None => None,
        };
        lifecycle::reconcile(&sandboxes, options.accept_lost).await?;
        let built = images.clone();
        // Beside the first answers: what is left over may be large, and an image takes its time.
        tokio::spawn(async move {
            if let Err(error) = driver.tidy().await {
                tracing::error!(error = crate::chain(&error), "left-overs were not removed");
            }
            built.refresh().await;
        });
        ports.load().await?;

        let gate = Gate::new(options.proxies);
        let app = App {
            sandboxes,
            images: images.clone(),
            ports,
            previews: Previews::new(options.preview_domain, tls.is_some()),
            wrong_keys: Throttle::new(WRONG_KEYS, WRONG_KEYS_PER_SECOND),
            tickets: Tickets::default(),
            routes,
            bodies: Bodies::default(),
            auth,
            hosts: options.hosts,
            cors: options.cors,
            metrics,
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
            document,
        };
        let key_file = options.data_dir.join(auth::KEY_FILE);
        let started = Started {
            address,
            tls_address: tls.as_ref().map(|tls| tls.address),
            open_to_all: key.is_none()
                && (!address.ip().is_loopback()
                    || tls.as_ref().is_some_and(|tls| !tls.address.ip().is_loopback())),
            key_file: (options.key == auth::KeySource::File).then_some(key_file),
            new_key: key.filter(|_| key_is_new),
            data_dir: options.data_dir,
        };
        let ending = app.ending.clone();
        let ended = app.ended.clone().drop_guard();
        Ok(Self {
            listener,
            tls,
            front: Front::new(Arc::new(app), gate.proxies().clone()),
            gate,
            images,
            store,
            started,
            ending,
            _ended: ended,
            _lock: lock,
        })
    }

    /// What a person wants to know of it.
    pub fn started(&self) -> &Started {
        &self.started
    }

    fn reload(&self) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
            Some(Ok(())) => tracing::info!("the certificate was read again"),
            Some(Err(error)) => {
                tracing::error!(error = crate::chain(&error), "the certificate stays as it was");
            }
            None => {}
        }
    }

    /// Answers until `end` resolves; then stops accepting, lets open requests finish for a short while, and returns.
    /// Sandboxes go on.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let mut hangups = Hangups::new(self.tls.is_some());
        let (ending, ended) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut end = pin!(end);
        let mut prune = tokio::time::interval(PRUNE_EVERY);
        loop {
            let accept = async {
                tokio::select! {
                    accepted = self.listener.accept() => accepted.map(|(stream, _)| (stream, None)),
                    accepted = accept_tls(self.tls.as_ref()) => accepted,
                }
            };
            let accepted = tokio::select! {
                accepted = accept => accepted,
                Some(_) = connections.join_next() => continue,
                Some(()) = hangups.recv(), if self.tls.is_some() => {
                    self.reload();
                    continue;
                }
                _ = prune.tick() => {
                    prune_events(&self.store);
                    continue;
                }
                () = &mut end => break,
            };
            match accepted {
                Ok((stream, tls)) => {
                    if let Some(arrival) = arrive(&stream, tls.is_some(), &self.gate) {
                        connections.spawn(connection(
                            stream,
                            tls,
                            arrival,
                            self.front.clone(),
                            ended.clone(),
                        ));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        ending.send_replace(true);
        self.ending.cancel();
        self.images.end().await;
        let finish = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            tracing::info!(open = connections.len(), "connections that were still open are cut");
        }
    }
}

/// A connection that is to be encrypted; none ever comes where nothing listens for them.
async fn accept_tls(tls: Option<&Arc<Tls>>) -> std::io::Result<(TcpStream, Option<Arc<Tls>>)> {
    match tls {
        Some(tls) => Ok((tls.listener.accept().await?.0, Some(tls.clone()))),
        None => std::future::pending().await,
    }
}

/// The signal that asks for the certificate to be read again. Heard only where there is one: elsewhere it ends the
/// process, as its default is.
struct Hangups(Option<tokio::signal::unix::Signal>);

impl Hangups {
    fn new(wanted: bool) -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = || match signal(SignalKind::hangup()) {
            Ok(signal) => Some(signal),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP is not heard; a renewed certificate needs a restart");
                None
            }
        };
        Self(wanted.then(listen).flatten())
    }

    async fn recv(&mut self) -> Option<()> {
        match &mut self.0 {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    }
}

/// Takes a connection in; none if it is gone already, or there is no room for it.
fn arrive(stream: &TcpStream, is_tls: bool, gate: &Gate) -> Option<Arrival> {
    // Answers are small and waited for: Nagle's algorithm would hold them back.
    let addresses = stream.set_nodelay(true).and_then(|()| Ok((stream.local_addr()?, stream.peer_addr()?)));
    let (local, peer) = match addresses {
        Ok((local, peer)) => (local.ip(), peer.ip()),
        Err(error) => {
            tracing::debug!(%error, "a connection was gone at once");
            return None;
        }
    };
    let connection = gate.admit(peer);
    if connection.is_none() {
        tracing::debug!(%peer, "a connection was refused: all others are in use");
    }
    Some(Arrival { local, peer, client: peer, is_tls, connection: connection? })
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    arrival: Arrival,
    front: Front,
    ended: watch::Receiver<bool>,
) {
    match tls {
        None => crate::connection::serve(stream, arrival, front, ended).await,
        Some(tls) => {
            let encrypted = tokio::select! {
                stream = tls.accept(stream) => stream,
                () = arrival.connection.expired() => None,
            };
            if let Some(stream) = encrypted {
                crate::connection::serve(stream, arrival, front, ended).await;
            }
        }
    }
}

fn prune_events(store: &Store) {
    let before = Timestamp::now().as_millis() - KEEP_EVENTS.as_millis() as i64;
    let Some(before) = Timestamp::from_millis(before) else { return };
    let store = store.clone();
    tokio::spawn(async move {
        let pruned = async {
            // In pieces, so that nothing waits long behind it.
            while store.prune_events(before).await? > 0 {}
            store.shrink().await
        };
        if let Err(error) = pruned.await {
            tracing::warn!(error = crate::chain(&error), "old events could not be removed");
        }
    });
}

/// Makes the data directory if it is missing, for this user alone, and locks it.
fn lock(data_dir: &Path) -> Result<File, ServeError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::DataDir { operation, path, source }
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(failed("create", data_dir))?;
    let path = data_dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .and_then(|file| {
            // An earlier release made it readable to all.
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            Ok(file)
        })
        .map_err(failed("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ServeError::InUse { path: data_dir.to_owned() }),
        Err(error) => Err(failed("lock", &path)(error.into())),
    }
}

/// Runs a server until SIGTERM or SIGINT. `started` is called once it listens.
///
/// # Errors
/// If it could not start.
pub fn serve(options: Options, started: impl FnOnce(&Started)) -> Result<(), ServeError> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let served = runtime.block_on(async {
        let driver = driver(&options)?;
        let server = Server::start(options, driver).await?;
        let end = signals()?;
        started(server.started());
        server.run(end).await;
        Ok(())
    });
    // What blocks a thread, as the making of an image, is cut off where it is: the next server finds that as after a kill.
    runtime.shutdown_timeout(GRACE);
    served
}

/// Threads that answer requests: half of the CPUs, because the other half of each request is an agent's work. More only
/// hand requests to each other, and a wake-up on another CPU costs more than an answer.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get() / 2).max(1)
}

fn driver(options: &Options) -> Result<Arc<dyn Driver>, ServeError> {
    match options.driver {
        DriverKind::Native => {
            let config = native::Config {
                allow_missing: options.allow_missing.iter().copied().collect(),
                host_image_exclude: options.host_image_exclude.clone(),
                images_of: options.images_of.clone(),
                ..native::Config::new(options.data_dir.clone())
            };
            Ok(Arc::new(native::Native::open(config)?))
        }
    }
}

fn signals() -> Result<impl Future<Output = ()>, ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Each caller and each agent's connection is a descriptor; the usual soft limit of 1024 is there for `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
}
