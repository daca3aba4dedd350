//! The schema, step by step. A step that was released is never edited; a change is a new step.

use super::StoreError;
use rusqlite::Connection;
use std::sync::Arc;

/// Step n brings the database from version n to n + 1. Times are milliseconds since 1970.
const STEPS: &[&str] = &[
    "
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO accounts (id, name, created_at) VALUES (1, 'default', unixepoch() * 1000);

-- Keys beside the operator's own, which is in the data dir's api-key file or on the command line.
CREATE TABLE keys (
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32), -- SHA-256 of the key
    account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Ids belong to an account: two accounts may use the same one and never meet.
CREATE TABLE sandboxes (
    account INTEGER NOT NULL REFERENCES accounts (id),
    id TEXT NOT NULL,
    instance TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('starting', 'running', 'stopped', 'destroying')),
    options TEXT NOT NULL, -- JSON of lifecycle::options::Options
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (account, id)
) STRICT, WITHOUT ROWID;

-- Outlives its sandbox, so that `destroyed` can be read.
CREATE TABLE events (
    account INTEGER NOT NULL,
    sandbox TEXT NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail TEXT NOT NULL, -- JSON
    at INTEGER NOT NULL,
    PRIMARY KEY (account, sandbox, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_by_time ON events (at);
",
    "
-- Ports that can be reached from outside by whoever knows the token. They go with their sandbox.
CREATE TABLE ports (
    account INTEGER NOT NULL,
    sandbox TEXT NOT NULL,
    port INTEGER NOT NULL,
    token TEXT NOT NULL,
    name TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (account, sandbox, port),
    UNIQUE (port, sandbox, token), -- a preview's host names no account
    FOREIGN KEY (account, sandbox) REFERENCES sandboxes (account, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
",
    "
-- What is one for the whole database: its own id, which lies beside the instances too, whether it does by now, and a
-- number that no event of an id without a mark has had.
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO facts VALUES ('database', lower(hex(randomblob(16)))), ('placed', '0'), ('eventFloor', '0');

-- The last number that an event of an id had, and the last one that its present agent gave. Both only go up while
-- somebody may follow: an event may be removed, its number is not used again.
CREATE TABLE event_marks (
    account INTEGER NOT NULL,
    sandbox TEXT NOT NULL,
    seq INTEGER NOT NULL,
    agent_seq INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, sandbox)
) STRICT, WITHOUT ROWID;
INSERT INTO event_marks (account, sandbox, seq) SELECT account, sandbox, max(seq) FROM events GROUP BY account, sandbox;
",
];

/// Brings the database to the latest version.
pub(super) fn run(connection: &mut Connection) -> Result<(), StoreError> {
    let known = STEPS.len() as u32;
    let failed = |version| move |source| StoreError::Migrate { version, source: Arc::new(source) };
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed(0))?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for (version, step) in (found..known).map(|from| (from + 1, STEPS[from as usize])) {
        apply(connection, version, step).map_err(failed(version))?;
    }
    Ok(())
}

fn apply(connection: &mut Connection, version: u32, step: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(step)?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}
