//! The statements: what is read from and written to each table.

use super::{Store, StoreError};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use sandcrab_api::SandboxId;
use sandcrab_api::time::Timestamp;
use sandcrab_runtime::InstanceId;

/// Events kept of one sandbox id; older ones go first.
const EVENTS_PER_SANDBOX: i64 = 1000;

/// SQLite's `application_id` of a database that a server has started with: "crab".
const SETTLED: i32 = 0x6372_6162;

/// Who owns a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AccountId(pub(crate) i64);

impl AccountId {
    /// The account that every server has; the operator's key belongs to it.
    pub(crate) const DEFAULT: Self = Self(1);
}

/// Where a sandbox stood when it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredStatus {
    /// Its creation was not acknowledged yet.
    Starting,
    /// It was up.
    Running,
    /// Its agent had ended.
    Stopped,
    /// It is to be taken away.
    Destroying,
}

impl StoredStatus {
    const ALL: [Self; 4] = [Self::Starting, Self::Running, Self::Stopped, Self::Destroying];

    fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Destroying => "destroying",
        }
    }
}

/// A sandbox as the store knows it.
#[derive(Clone, Debug)]
pub(crate) struct SandboxRow {
    pub(crate) account: AccountId,
    pub(crate) id: SandboxId,
    pub(crate) instance: InstanceId,
    pub(crate) status: StoredStatus,
    /// JSON of `lifecycle::options::Options`.
    pub(crate) options: String,
    pub(crate) created_at: Timestamp,
    pub(crate) changed_at: Timestamp,
}

/// Something that happened to a sandbox (contract L08).
#[derive(Clone, Debug)]
pub(crate) struct NewEvent {
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
    pub(crate) actor: &'static str,
    pub(crate) detail: serde_json::Value,
}

/// An event as it is answered.
pub(crate) type Event = sandcrab_api::sandbox::SandboxEvent;

impl Store {
    /// Whether a server has ever taken up what its driver held by this database. In one that was lost and made anew,
    /// nothing says that what the driver holds is rubbish.
    pub(crate) async fn is_settled(&self) -> Result<bool, StoreError> {
        self.run("read the database's mark", |db| {
            db.query_row("PRAGMA application_id", [], |row| row.get::<_, i32>(0)).map(|mark| mark == SETTLED)
        })
        .await
    }

    /// Marks the database as one that a server has started with.
    pub(crate) async fn settle(&self) -> Result<(), StoreError> {
        self.run("mark the database", |db| db.pragma_update(None, "application_id", SETTLED)).await
    }

    /// Every key of the table: its hash and its account.
    pub(crate) async fn keys(&self) -> Result<Vec<([u8; 32], AccountId)>, StoreError> {
        self.run("read the keys", |db| {
            db.prepare("SELECT hash, account FROM keys")?
                .query_map([], |row| Ok((row.get(0)?, AccountId(row.get(1)?))))?
                .collect()
        })
        .await
    }

    /// Every sandbox.
    pub(crate) async fn sandboxes(&self) -> Result<Vec<SandboxRow>, StoreError> {
        self.run("read the sandboxes", |db| {
            db.prepare(
                "SELECT account, id, instance, status, options, created_at, changed_at FROM sandboxes",
            )?
            .query_map([], |row| {
                Ok(SandboxRow {
                    account: AccountId(row.get(0)?),
                    id: row.get::<_, Text<SandboxId>>(1)?.0,
                    instance: row.get::<_, Instance>(2)?.0,
                    status: row.get(3)?,
                    options: row.get(4)?,
                    created_at: row.get::<_, Millis>(5)?.0,
                    changed_at: row.get::<_, Millis>(6)?.0,
                })
            })?
            .collect()
        })
        .await
    }

    /// Writes a new sandbox with its first event.
    pub(crate) fn insert(
        &self,
        row: SandboxRow,
        event: NewEvent,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        self.run_with_news("write a new sandbox", (row.account, row.id.clone()), move |db| {
            db.execute(
                "INSERT INTO sandboxes (account, id, instance, status, options, created_at, changed_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    row.account.0,
                    row.id.as_str(),
                    row.instance.as_str(),
                    row.status,
                    row.options,
                    row.created_at.as_millis(),
                    row.changed_at.as_millis(),
                ],
            )?;
            add_event(db, row.account, &row.id, &event)
        })
    }

    /// Writes a sandbox's status, and why it changed where there is more to say.
    pub(crate) fn set_status(
        &self,
        account: AccountId,
        id: &SandboxId,
        status: StoredStatus,
        event: Option<NewEvent>,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let id = id.clone();
        self.run_with_news("write a sandbox's status", (account, id.clone()), move |db| {
            let now = Timestamp::now().as_millis();
            let sql = "UPDATE sandboxes SET status = ?, changed_at = ? WHERE account = ? AND id = ?";
            db.execute(sql, params![status, now, account.0, id.as_str()])?;
            if status == StoredStatus::Destroying {
                super::ports::revoke_all(db, account, &id)?;
            }
            event.map_or(Ok(()), |event| add_event(db, account, &id, &event))
        })
    }

    /// Writes a sandbox's options.
    pub(crate) fn set_options(
        &self,
        account: AccountId,
        id: &SandboxId,
        options: String,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let id = id.clone();
        self.run("write a sandbox's options", move |db| {
            let sql = "UPDATE sandboxes SET options = ? WHERE account = ? AND id = ?";
            db.execute(sql, params![options, account.0, id.as_str()]).map(|_| ())
        })
    }

    /// Forgets a sandbox; its events stay. With no event it was never acknowledged, and its events go too.
    pub(crate) fn remove(
        &self,
        account: AccountId,
        id: &SandboxId,
        instance: &InstanceId,
        event: Option<NewEvent>,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (id, instance) = (id.clone(), instance.clone());
        self.run_with_news("remove a sandbox", (account, id.clone()), move |db| {
            let sql = "DELETE FROM sandboxes WHERE account = ? AND id = ? AND instance = ?";
            let removed = db.execute(sql, params![account.0, id.as_str(), instance.as_str()])?;
            match event {
                Some(event) => add_event(db, account, &id, &event),
                // The first event of this life is the latest one of the id.
                None if removed > 0 => db
                    .execute(
                        "DELETE FROM events WHERE account = ?1 AND sandbox = ?2 AND kind = 'created' AND seq =
                         (SELECT max(seq) FROM events WHERE account = ?1 AND sandbox = ?2)",
                        params![account.0, id.as_str()],
                    )
                    .map(|_| ()),
                None => Ok(()),
            }
        })
    }

    /// Adds one event.
    pub(crate) fn event(
        &self,
        account: AccountId,
        id: &SandboxId,
        event: NewEvent,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let id = id.clone();
        let news = (account, id.clone());
        self.run_with_news("write an event", news, move |db| add_event(db, account, &id, &event))
    }

    /// The events of an id after number `after`, oldest first and no more than `most`; of a destroyed one too.
    pub(crate) async fn events(
        &self,
        account: AccountId,
        id: &SandboxId,
        after: u64,
        most: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let id = id.clone();
        // Past what the table can count nothing comes.
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.run("read events", move |db| {
            db.prepare_cached(
                "SELECT seq, kind, reason, actor, detail, at FROM events
                 WHERE account = ? AND sandbox = ? AND seq > ? ORDER BY seq LIMIT ?",
            )?
            .query_map(params![account.0, id.as_str(), after, most], |row| {
                Ok(Event {
                    seq: row.get::<_, i64>(0)?.unsigned_abs(),
                    kind: row.get(1)?,
                    reason: row.get(2)?,
                    actor: row.get(3)?,
                    detail: row.get::<_, Text<serde_json::Value>>(4)?.0,
                    timestamp: row.get::<_, Millis>(5)?.0,
                })
            })?
            .collect()
        })
        .await
    }

    /// Removes the events of destroyed sandboxes from before `before`.
    pub(crate) async fn prune_events(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.run("prune events", move |db| {
            db.execute(
                "DELETE FROM events WHERE at < ? AND NOT EXISTS
                 (SELECT 1 FROM sandboxes WHERE sandboxes.account = events.account AND sandboxes.id = events.sandbox)",
                [before.as_millis()],
            )
        })
        .await
    }
}

fn add_event(db: &Connection, account: AccountId, id: &SandboxId, event: &NewEvent) -> rusqlite::Result<()> {
    let last: Option<i64> = db
        .prepare_cached("SELECT max(seq) FROM events WHERE account = ? AND sandbox = ?")?
        .query_row(params![account.0, id.as_str()], |row| row.get(0))
        .optional()?
        .flatten();
    let seq = last.unwrap_or(0) + 1;
    db.prepare_cached(
        "INSERT INTO events (account, sandbox, seq, kind, reason, actor, detail, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        account.0,
        id.as_str(),
        seq,
        event.kind,
        event.reason,
        event.actor,
        event.detail.to_string(),
        Timestamp::now().as_millis(),
    ])?;
    db.prepare_cached("DELETE FROM events WHERE account = ? AND sandbox = ? AND seq <= ?")?
        .execute(params![account.0, id.as_str(), seq - EVENTS_PER_SANDBOX])
        .map(|_| ())
}

impl ToSql for StoredStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for StoredStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(FromSqlError::InvalidType)
    }
}

/// A column of text that is parsed when it is read.
pub(super) struct Text<T>(pub(super) T);

impl<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>> FromSql for Text<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

/// A column with a driver's name for a sandbox.
struct Instance(InstanceId);

impl FromSql for Instance {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        InstanceId::parse(value.as_str()?).map(Self).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

/// A column of milliseconds since 1970.
pub(super) struct Millis(pub(super) Timestamp);

impl FromSql for Millis {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let millis = value.as_i64()?;
        Timestamp::from_millis(millis).map(Self).ok_or(FromSqlError::OutOfRange(millis))
    }
}
