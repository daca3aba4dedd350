//! What the server must still know after it was killed: accounts, keys, sandboxes, events.
//!
//! One thread owns the one SQLite connection. Work arrives as closures; whatever waits when the thread looks is
//! committed together, so that many callers share one fsync. A caller is answered after the commit, never before it:
//! what was acknowledged survives kill -9 and loss of power (WAL with `synchronous = FULL`).

mod compact;
mod migrations;
mod ports;
mod reserve;
mod tables;

pub(crate) use ports::PortRow;
pub(crate) use tables::{AccountId, Event, NewEvent, SandboxRow, StoredStatus};

use reserve::Reserve;

use rusqlite::Connection;
use sandcrab_api::SandboxId;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use tokio::sync::{broadcast, oneshot};

/// The most jobs that one commit takes: bounds how long the first of them waits for the last.
const BATCH: usize = 64;
/// News that a listener may be behind; one that is further behind looks for itself.
const NEWS: usize = 256;

/// Whose events have become more.
pub(crate) type News = (AccountId, SandboxId);

/// Why the store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database file could not be opened or made.
    #[error("open the database {path:?}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<rusqlite::Error>,
    },
    /// The schema could not be brought to this release's form.
    #[error("migrate the database to version {version}")]
    Migrate {
        /// The step that failed.
        version: u32,
        /// Why.
        source: Arc<rusqlite::Error>,
    },
    /// The database was written by a later release.
    #[error("the database has version {found}, this release knows {known}; run the release that wrote it")]
    TooNew {
        /// The version in the file.
        found: u32,
        /// The latest version that this release knows.
        known: u32,
    },
    /// The thread that writes could not be started.
    #[error("start the store's thread")]
    Thread(#[source] Arc<std::io::Error>),
    /// A statement failed; nothing of its job was written.
    #[error("{operation} in the database")]
    Job {
        /// What was asked.
        operation: &'static str,
        /// Why it failed.
        source: Arc<rusqlite::Error>,
    },
    /// The room on the disk could not be looked at.
    #[error("look for room beside the database {path:?}")]
    Room {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// A fault in the server's own code; nothing of the job was written.
    #[error("{operation} in the database: a fault of the server")]
    Panicked {
        /// What was asked.
        operation: &'static str,
    },
    /// The store has ended.
    #[error("the store has ended")]
    Closed,
}

/// A handle to the store; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Box<dyn Job>>,
    news: broadcast::Sender<News>,
}

/// What a job is given: the connection, inside a transaction and a savepoint of the job's own.
type Work<T> = Box<dyn FnOnce(&Connection) -> rusqlite::Result<T> + Send>;

trait Job: Send {
    /// Does the work; `false` undoes what it wrote.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Tells the caller, once it is known whether the commit held.
    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>);
}

struct Task<T> {
    operation: &'static str,
    work: Option<Work<T>>,
    outcome: Option<rusqlite::Result<T>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    news: Option<(broadcast::Sender<News>, News)>,
}

impl<T: Send> Job for Task<T> {
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else { return false };
        // The thread is everyone's: a fault in one job is that job's.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(connection)));
        self.outcome = done.ok();
        matches!(self.outcome, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>) {
        let operation = self.operation;
        let answer = match (self.outcome, committed) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Err(source)), _) => Err(StoreError::Job { operation, source: Arc::new(source) }),
            (Some(Ok(_)), Err(source)) => Err(StoreError::Job { operation, source }),
            (None, Ok(())) => Err(StoreError::Panicked { operation }),
            (None, Err(source)) => Err(StoreError::Job { operation, source }),
        };
        if let Some((listeners, news)) = self.news
            && answer.is_ok()
        {
            // An error says that nobody listens.
            let _nobody = listeners.send(news);
        }
        // A caller that has gone away wanted the write all the same.
        let _gone = self.reply.send(answer);
    }
}

impl Store {
    /// Opens or makes the database and brings it to the current version.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let room = |source| StoreError::Room { path: path.to_owned(), source: Arc::new(source) };
        let mut reserve = Reserve::open(path.parent().unwrap_or(Path::new("."))).map_err(room)?;
        make_private(path).map_err(room)?;
        let failed = |source| StoreError::Open { path: path.to_owned(), source: Arc::new(source) };
        let mut connection = connect(path, "NORMAL")
            .or_else(|error| {
                tracing::error!(%error, "the database is opened without the file that others would need beside it");
                connect(path, "EXCLUSIVE")
            })
            .map_err(failed)?;
        compact::prepare(&connection).map_err(failed)?;
        migrations::run(&mut connection)?;
        let (jobs, inbox) = mpsc::channel();
        let (news, _) = broadcast::channel(NEWS);
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || work(&connection, &inbox, &mut reserve))
            .map_err(|error| StoreError::Thread(Arc::new(error)))?;
        Ok(Self { jobs, news })
    }

    /// Runs `work` in a transaction; resolves after the commit. The work is queued when this is called, not when the
    /// future is polled, so jobs of one caller keep their order.
    pub(crate) fn run<T: Send + 'static, W>(
        &self,
        operation: &'static str,
        work: W,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.queue(operation, None, work)
    }

    /// As [`Self::run`], for work that adds events: whoever listens hears of it once they are committed.
    pub(crate) fn run_with_news<T: Send + 'static, W>(
        &self,
        operation: &'static str,
        news: News,
        work: W,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.queue(operation, Some((self.news.clone(), news)), work)
    }

    fn queue<T: Send + 'static, W>(
        &self,
        operation: &'static str,
        news: Option<(broadcast::Sender<News>, News)>,
        work: W,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task { operation, work: Some(Box::new(work)), outcome: None, reply, news };
        let sent = self.jobs.send(Box::new(task));
        async move {
            sent.map_err(|_| StoreError::Closed)?;
            answer.await.map_err(|_| StoreError::Closed)?
        }
    }

    /// Listens for events that are added from now on.
    pub(crate) fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }
}

/// Makes the file if it is missing, and takes it from everyone else where an earlier release did not.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

/// Opens the database. In the mode `EXCLUSIVE` nobody else can look at it meanwhile, and it needs no file `-shm` beside it,
/// for which a full disk may have no room.
fn connect(path: &Path, mode: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA locking_mode = {mode}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY;
         SELECT count(*) FROM sqlite_schema;"
    ))?;
    Ok(connection)
}

/// The thread's loop; ends when the last handle is gone.
fn work(connection: &Connection, inbox: &mpsc::Receiver<Box<dyn Job>>, reserve: &mut Reserve) {
    while let Ok(first) = inbox.recv() {
        let mut batch = vec![first];
        batch.extend(inbox.try_iter().take(BATCH - 1));
        while !batch.is_empty() {
            reserve.attend();
            let (ran, committed) = commit(connection, &mut batch);
            let committed = committed.map_err(Arc::new);
            if let Err(error) = &committed {
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
                    reserve.give_up();
                }
                // A failed COMMIT (a full disk) leaves the transaction open: nothing of it may stay.
                if !connection.is_autocommit()
                    && let Err(error) = connection.execute_batch("ROLLBACK")
                {
                    tracing::error!(%error, "the store could not roll back");
                }
            }
            // Those behind the one that failed have not been tried: they get a transaction of their own.
            for job in batch.drain(..ran) {
                job.answer(committed.clone());
            }
        }
    }
}

/// Runs the jobs in one transaction; how many of them were tried, and whether it was committed.
fn commit(connection: &Connection, batch: &mut [Box<dyn Job>]) -> (usize, rusqlite::Result<()>) {
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
        return (batch.len(), Err(error));
    }
    for (before, job) in batch.iter_mut().enumerate() {
        let mut step = || {
            connection.execute_batch("SAVEPOINT job")?;
            if !job.run(connection) {
                connection.execute_batch("ROLLBACK TO job")?;
            }
            connection.execute_batch("RELEASE job")
        };
        // SQLite itself rolls everything back where the disk is full: there is no transaction any more.
        if let Err(error) = step() {
            return (before + 1, Err(error));
        }
    }
    (batch.len(), connection.execute_batch("COMMIT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(&dir.path().join("test.db")).unwrap()
    }

    #[tokio::test]
    async fn a_failed_job_undoes_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let add = |name: &'static str, twice: bool| {
            store.run("add an account", move |db| {
                let sql = "INSERT INTO accounts (name, created_at) VALUES (?, 0)";
                db.execute(sql, [name])?;
                if twice { db.execute(sql, [name]) } else { Ok(0) }
            })
        };
        // Queued together, so that they can share a commit.
        let (good, bad, other) = tokio::join!(add("a", false), add("b", true), add("c", false));
        assert!(good.is_ok() && other.is_ok());
        assert!(matches!(bad, Err(StoreError::Job { operation: "add an account", .. })));
        let names = store.run("list", |db| {
            db.prepare("SELECT name FROM accounts ORDER BY id")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()
        });
        assert_eq!(names.await.unwrap(), ["default", "a", "c"]);
    }

    #[tokio::test]
    async fn what_was_answered_is_there_when_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        store
            .run("add", |db| db.execute("INSERT INTO accounts (name, created_at) VALUES ('x', 0)", []))
            .await
            .unwrap();
        // A copy taken while the first is open is what a kill would have left.
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let again = open(&copy);
        let count = again
            .run("count", |db| db.query_row("SELECT count(*) FROM accounts", [], |r| r.get::<_, i64>(0)));
        assert_eq!(count.await.unwrap(), 2);
    }

    #[test]
    fn a_database_of_a_later_release_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 999").unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::TooNew { found: 999, .. })));
    }

    /// SQLite ends the whole transaction by itself when a page cannot be written; what is behind that has done nothing wrong.
    #[tokio::test]
    async fn e13_a_rollback_of_sqlites_own_fails_only_the_jobs_that_it_undid() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let add = |name: &'static str| {
            store.run("add an account", move |db| {
                db.execute("INSERT INTO accounts (name, created_at) VALUES (?, 0)", [name])
            })
        };
        let rolled_back = store.run::<(), _>("fail", |db| {
            db.execute_batch("ROLLBACK")?;
            Err(rusqlite::Error::QueryReturnedNoRows)
        });
        let panicked = store.run::<(), _>("panic", |_| panic!("on purpose"));
        let (first, undone, after, panicked, last) =
            tokio::join!(add("a"), rolled_back, add("b"), panicked, add("c"));
        assert!(undone.is_err());
        assert!(matches!(panicked, Err(StoreError::Panicked { operation: "panic" })), "{panicked:?}");
        let names = store.run("list", |db| {
            db.prepare("SELECT name FROM accounts WHERE id > 1 ORDER BY id")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()
        });
        let mut told: Vec<&str> = Vec::new();
        for (name, answer) in [("a", first), ("b", after), ("c", last)] {
            match answer {
                Ok(_) => told.push(name),
                Err(error) => assert!(matches!(error, StoreError::Job { .. }), "{error}"),
            }
        }
        assert!(told.ends_with(&["b", "c"]), "{told:?}");
        assert_eq!(names.await.unwrap(), told, "what was acknowledged is there, and nothing else");
    }

    #[test]
    fn c12_the_database_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let store = open(&dir);
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
        drop(store);
    }
}
