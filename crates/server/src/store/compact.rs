//! What was freed in the database's file is given back to the disk.

use super::{Store, StoreError};
use rusqlite::Connection;

/// Pages that are given back at a time: other work waits as long.
const PAGES: u32 = 1024;

/// Makes the file one that can be shortened: a new one costs nothing, one of an earlier release is written anew once. Left
/// as it is where the disk has no room for that.
pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    /// As SQLite numbers it.
    const INCREMENTAL: u32 = 2;
    if db.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, u32>(0))? == INCREMENTAL {
        return Ok(());
    }
    db.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
    if let Err(error) = db.execute_batch("VACUUM") {
        tracing::warn!(%error, "the database could not be written anew; it does not get shorter");
    }
    Ok(())
}

impl Store {
    /// Gives free pages back, some at a time; resolves when there are none.
    pub(crate) async fn shrink(&self) -> Result<(), StoreError> {
        loop {
            let left = self.run("shorten the database", |db| {
                let mut step = db.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
                let mut rows = step.query([])?;
                while rows.next()?.is_some() {}
                db.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u32>(0))
            });
            if left.await? == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn e13_what_was_freed_is_given_back_to_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        // As an earlier release made it.
        Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE old (x)")
            .unwrap();
        let store = Store::open(&path).unwrap();
        store
            .run("fill", |db| {
                db.execute_batch(
                    "CREATE TABLE big (x); INSERT INTO big VALUES (zeroblob(20000000)); DROP TABLE big",
                )
            })
            .await
            .unwrap();
        let pages =
            || store.run("count", |db| db.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0)));
        assert!(pages().await.unwrap() > 4000);
        store.shrink().await.unwrap();
        assert!(pages().await.unwrap() < 100);
    }
}
