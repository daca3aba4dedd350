//! The statements: what is read from and written to each table.

use super::{Store, StoreError};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use sandcrab_api::SandboxId;
use sandcrab_api::time::Timestamp;
use sandcrab_runtime::InstanceId;

/// Events kept of one sandbox id; older ones go first.
const EVENTS_PER_SANDBOX: i64 = 1000;

/// Events that are removed in one go.
const PRUNED: i64 = 500;

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

    /// The database's id, and whether it lies beside the instances by now.
    pub(crate) async fn identity(&self) -> Result<(String, bool), StoreError> {
        self.run("read the database's id", |db| {
            let fact = |name| {
                db.query_row("SELECT value FROM facts WHERE name = ?", [name], |row| row.get::<_, String>(0))
            };
            Ok((fact("database")?, fact("placed")? == "1"))
        })
        .await
    }

    /// Takes note that the database's id lies beside the instances.
    pub(crate) async fn set_placed(&self) -> Result<(), StoreError> {
        self.run("note where the database's id is", |db| {
            db.execute("UPDATE facts SET value = '1' WHERE name = 'placed'", []).map(|_| ())
        })
        .await
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

    /// Every sandbox, and what is wrong with each row that cannot be read.
    pub(crate) async fn sandboxes(&self) -> Result<(Vec<SandboxRow>, Vec<String>), StoreError> {
        self.run("read the sandboxes", |db| {
            let sql = "SELECT account, id, instance, status, options, created_at, changed_at FROM sandboxes";
            let mut statement = db.prepare(sql)?;
            let mut rows = statement.query([])?;
            let (mut all, mut broken) = (Vec::new(), Vec::new());
            while let Some(row) = rows.next()? {
                match sandbox(row) {
                    Ok(sandbox) => all.push(sandbox),
                    Err(error) => {
                        let (id, instance) = (row.get_ref(1)?, row.get_ref(2)?);
                        broken.push(format!("sandbox {id:?}, instance {instance:?}: {error}"));
                    }
                }
            }
            Ok((all, broken))
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
            // An earlier life whose end could not be written has ended all the same.
            db.execute(
                "DELETE FROM sandboxes WHERE account = ? AND id = ?",
                params![row.account.0, row.id.as_str()],
            )?;
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
            add_event(db, row.account, &row.id, &event)?;
            forget_agent(db, row.account, &row.id)
        })
    }

    /// Forgets which events the last agent of a sandbox has told: the next one counts anew. To be written before it starts.
    pub(crate) fn new_agent(
        &self,
        account: AccountId,
        id: &SandboxId,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let id = id.clone();
        self.run("note a new agent", move |db| forget_agent(db, account, &id))
    }

    /// Writes what an agent told, each under the number that it gave; what was written already is left out.
    pub(crate) fn agent_events(
        &self,
        account: AccountId,
        id: &SandboxId,
        told: Vec<(u64, NewEvent)>,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let id = id.clone();
        self.run_with_news("write an agent's events", (account, id.clone()), move |db| {
            for (seq, event) in told {
                let sql = "UPDATE event_marks SET agent_seq = ?1 WHERE account = ?2 AND sandbox = ?3 AND agent_seq < ?1";
                let seq = i64::try_from(seq).unwrap_or(i64::MAX);
                if db.execute(sql, params![seq, account.0, id.as_str()])? > 0 {
                    add_event(db, account, &id, &event)?;
                }
            }
            Ok(())
        })
    }

    /// Adds an event, unless it is what the log ends with already.
    pub(crate) fn event_once(
        &self,
        account: AccountId,
        id: &SandboxId,
        event: NewEvent,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let id = id.clone();
        self.run_with_news("write an event", (account, id.clone()), move |db| {
            let sql = "SELECT kind = ?3 AND reason = ?4 FROM events
                       WHERE account = ?1 AND sandbox = ?2 ORDER BY seq DESC LIMIT 1";
            let is_last = db
                .query_row(sql, params![account.0, id.as_str(), event.kind, event.reason], |row| row.get(0))
                .optional()?
                .unwrap_or(false);
            if is_last { Ok(()) } else { add_event(db, account, &id, &event) }
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
            let sql = "SELECT EXISTS (SELECT 1 FROM sandboxes WHERE account = ? AND id = ?)";
            let has_next_life = db.query_row(sql, params![account.0, id.as_str()], |row| row.get(0))?;
            match event {
                // Written late: the next life's log is not the place.
                Some(_) if has_next_life => Ok(()),
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

    /// Removes some of the events of destroyed sandboxes from before `before`; how many. To be called until there are none:
    /// others' writes go in between.
    pub(crate) async fn prune_events(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.run("prune events", move |db| {
            let removed = db.execute(
                "DELETE FROM events WHERE (account, sandbox, seq) IN (SELECT account, sandbox, seq FROM events WHERE at < ?1
                 AND NOT EXISTS (SELECT 1 FROM sandboxes
                 WHERE sandboxes.account = events.account AND sandboxes.id = events.sandbox) LIMIT ?2)",
                params![before.as_millis(), PRUNED],
            )?;
            if removed == 0 {
                prune_marks(db)?;
            }
            Ok(removed)
        })
        .await
    }
}

/// Removes the marks of ids of which nothing else is left: whatever follows for them begins above all of these.
fn prune_marks(db: &Connection) -> rusqlite::Result<()> {
    const UNUSED: &str = "NOT EXISTS (SELECT 1 FROM events
         WHERE events.account = event_marks.account AND events.sandbox = event_marks.sandbox)
         AND NOT EXISTS (SELECT 1 FROM sandboxes
         WHERE sandboxes.account = event_marks.account AND sandboxes.id = event_marks.sandbox)";
    db.execute_batch(&format!(
        "UPDATE facts SET value = max(CAST(value AS INTEGER),
         (SELECT coalesce(max(seq), 0) FROM event_marks WHERE {UNUSED})) WHERE name = 'eventFloor';
         DELETE FROM event_marks WHERE {UNUSED};"
    ))
}

fn forget_agent(db: &Connection, account: AccountId, id: &SandboxId) -> rusqlite::Result<()> {
    let sql = "UPDATE event_marks SET agent_seq = 0 WHERE account = ? AND sandbox = ?";
    db.execute(sql, params![account.0, id.as_str()]).map(|_| ())
}

fn sandbox(row: &rusqlite::Row<'_>) -> rusqlite::Result<SandboxRow> {
    Ok(SandboxRow {
        account: AccountId(row.get(0)?),
        id: row.get::<_, Text<SandboxId>>(1)?.0,
        instance: row.get::<_, Instance>(2)?.0,
        status: row.get(3)?,
        options: row.get(4)?,
        created_at: row.get::<_, Millis>(5)?.0,
        changed_at: row.get::<_, Millis>(6)?.0,
    })
}

fn add_event(db: &Connection, account: AccountId, id: &SandboxId, event: &NewEvent) -> rusqlite::Result<()> {
    let seq: i64 = db
        .prepare_cached(
            "INSERT INTO event_marks (account, sandbox, seq)
             SELECT ?1, ?2, 1 + CAST(value AS INTEGER) FROM facts WHERE name = 'eventFloor'
             ON CONFLICT DO UPDATE SET seq = seq + 1 RETURNING seq",
        )?
        .query_row(params![account.0, id.as_str()], |row| row.get(0))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn note(reason: &str) -> NewEvent {
        NewEvent { kind: "stopped", reason: reason.into(), actor: "agent", detail: serde_json::Value::Null }
    }

    fn row(id: &SandboxId) -> SandboxRow {
        let now = Timestamp::now();
        SandboxRow {
            account: AccountId::DEFAULT,
            id: id.clone(),
            instance: InstanceId::random(),
            status: StoredStatus::Starting,
            options: "{}".into(),
            created_at: now,
            changed_at: now,
        }
    }

    async fn told(store: &Store, id: &SandboxId) -> Vec<(u64, String)> {
        let events = store.events(AccountId::DEFAULT, id, 0, usize::MAX).await.unwrap();
        events.into_iter().map(|event| (event.seq, event.reason)).collect()
    }

    #[tokio::test]
    async fn l08_no_number_of_an_event_is_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("test.db")).unwrap();
        let account = AccountId::DEFAULT;
        let (id, other) = (SandboxId::parse("a").unwrap(), SandboxId::parse("b").unwrap());
        // A creation that fails takes its event with it, and not its number.
        let failed = row(&id);
        store.insert(failed.clone(), NewEvent { kind: "created", ..note("failed") }).await.unwrap();
        store.remove(account, &id, &failed.instance, None).await.unwrap();
        let made = row(&id);
        store.insert(made.clone(), note("made")).await.unwrap();
        assert_eq!(told(&store, &id).await, [(2, "made".into())]);
        store.remove(account, &id, &made.instance, Some(note("gone"))).await.unwrap();
        // Pruned, all of it: a follower who is at 3 must hear of the next life.
        let later = Timestamp::from_millis(Timestamp::now().as_millis() + 1000).unwrap();
        while store.prune_events(later).await.unwrap() > 0 {}
        assert_eq!(told(&store, &id).await, []);
        let again = row(&id);
        store.insert(again, note("again")).await.unwrap();
        assert_eq!(told(&store, &id).await, [(4, "again".into())]);
        store.insert(row(&other), note("other")).await.unwrap();
        assert!(told(&store, &other).await[0].0 >= 4, "its last number is no longer known");
    }

    #[tokio::test]
    async fn l08_what_an_agent_tells_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("test.db")).unwrap();
        let (account, id) = (AccountId::DEFAULT, SandboxId::parse("a").unwrap());
        store.insert(row(&id), note("made")).await.unwrap();
        let batch = |from: u64| (from..from + 3).map(|seq| (seq, note(&format!("told {seq}")))).collect();
        store.agent_events(account, &id, batch(1)).await.unwrap();
        // As the next server does, which was not told how far the last one had come.
        store.agent_events(account, &id, batch(1)).await.unwrap();
        store.agent_events(account, &id, batch(2)).await.unwrap();
        let reasons =
            |told: Vec<(u64, String)>| told.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>();
        assert_eq!(reasons(told(&store, &id).await), ["made", "told 1", "told 2", "told 3", "told 4"]);
        // The next agent counts anew.
        store.new_agent(account, &id).await.unwrap();
        store.agent_events(account, &id, batch(1)).await.unwrap();
        assert_eq!(told(&store, &id).await.len(), 8);
        // The same word twice in a row is one word.
        for _ in 0..2 {
            store.event_once(account, &id, note("set aside")).await.unwrap();
        }
        assert_eq!(told(&store, &id).await.len(), 9);
    }
}
