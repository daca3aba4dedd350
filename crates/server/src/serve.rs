//! Starting, accepting, ending.

use crate::app::App;
use crate::auth::{self, Auth, KeyError};
use crate::http::{DocumentError, Front};
use crate::images::Images;
use crate::lifecycle::{self, Context, ReconcileError, Sandboxes};
use crate::metrics::Metrics;
use crate::options::{DriverKind, Options};
use crate::store::{Store, StoreError};
use ::http::Request;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::FlockOperation;
use sandcrab_api::time::Timestamp;
use sandcrab_runtime::{Driver, DriverError, native};
use std::convert::Infallible;
use std::fs::File;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 8192;
/// How long a connection may take to send a request's head, and how long it may be idle before one.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// The longest head of a request. A longer one is answered 431.
const HEAD_BYTES: usize = 32 << 10;
/// What is read at once at most.
const BUFFER: usize = 256 << 10;
/// How long open requests may go on when the server ends. Streams are cut then; clients resume them.
const GRACE: Duration = Duration::from_secs(5);
/// How long, and how many bytes of it, the rest of a refused request is read after the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 256 << 20;
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
}

/// What a person wants to know of a server that has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Where it listens.
    pub address: SocketAddr,
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
    front: Front,
    images: Images,
    store: Store,
    started: Started,
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
        let context =
            Context { store: store.clone(), driver, images: images.clone(), metrics: metrics.clone() };
        let sandboxes = Sandboxes::new(Arc::new(context));
        // First, so that who connects meanwhile waits instead of being refused.
        let listen = |source| ServeError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        lifecycle::reconcile(&sandboxes).await?;

        let app = App {
            sandboxes,
            images: images.clone(),
            routes,
            auth,
            hosts: options.hosts,
            cors: options.cors,
            metrics,
            document,
        };
        let key_file = options.data_dir.join(auth::KEY_FILE);
        let started = Started {
            address,
            open_to_all: key.is_none() && !address.ip().is_loopback(),
            key_file: (options.key == auth::KeySource::File).then_some(key_file),
            new_key: key.filter(|_| key_is_new),
            data_dir: options.data_dir,
        };
        Ok(Self { listener, front: Front::new(Arc::new(app)), images, store, started, _lock: lock })
    }

    /// What a person wants to know of it.
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// Answers until `end` resolves; then stops accepting, lets open requests finish for a short while, and returns.
    /// Sandboxes go on.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let (ending, ended) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut end = pin!(end);
        let mut prune = tokio::time::interval(PRUNE_EVERY);
        loop {
            let accept = async {
                let permit = permits.clone().acquire_owned().await;
                (self.listener.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                accepted = accept => accepted,
                Some(_) = connections.join_next() => continue,
                _ = prune.tick() => {
                    prune_events(&self.store);
                    continue;
                }
                () = &mut end => break,
            };
            match accepted {
                Ok((stream, _peer)) => {
                    let serve = connection(stream, self.front.clone(), ended.clone());
                    connections.spawn(async move {
                        serve.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        ending.send_replace(true);
        self.images.end().await;
        let finish = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            tracing::info!(open = connections.len(), "connections that were still open are cut");
        }
    }
}

async fn connection(stream: TcpStream, front: Front, mut ended: watch::Receiver<bool>) {
    let mut ended = pin!(ended.wait_for(|ended| *ended));
    // Answers are small and waited for: Nagle's algorithm would hold them back.
    let local = stream.set_nodelay(true).and_then(|()| stream.local_addr());
    let local = match local {
        Ok(local) => local.ip(),
        Err(error) => {
            tracing::debug!(%error, "a connection was gone at once");
            return;
        }
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let front = front.clone();
        Box::pin(async move { Ok::<_, Infallible>(front.answer(request.map(Body::new), local).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut told = false;
    let served = poll_fn(|cx| {
        if !told && ended.as_mut().poll(cx).is_ready() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    if let Err(error) = served {
        tracing::debug!(error = crate::chain(&error), "a connection broke");
    }
    linger(connection.into_parts().io.into_inner()).await;
}

/// Closes a connection so that its last answer arrives: the kernel would take it back if it closed with bytes of a
/// refused body still unread. They are read and dropped, for a while.
async fn linger(mut stream: TcpStream) {
    let drop_the_rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whoever is still sending after that is cut off, which is all that an error here would say.
    let _cut = tokio::time::timeout(LINGER, drop_the_rest).await;
}

fn prune_events(store: &Store) {
    let before = Timestamp::now().as_millis() - KEEP_EVENTS.as_millis() as i64;
    let Some(before) = Timestamp::from_millis(before) else { return };
    let store = store.clone();
    tokio::spawn(async move {
        if let Err(error) = store.prune_events(before).await {
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
        .open(&path)
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
    runtime.block_on(async {
        let driver = driver(&options)?;
        let server = Server::start(options, driver).await?;
        let end = signals()?;
        started(server.started());
        server.run(end).await;
        Ok(())
    })
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
