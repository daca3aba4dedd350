//! Exposed ports in the database.

use super::tables::{Millis, Text};
use super::{AccountId, Store, StoreError};
use rusqlite::{Connection, params};
use sandcrab_api::SandboxId;
use sandcrab_api::time::Timestamp;
use sandcrab_runtime::InstanceId;

/// An exposed port as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortRow {
    pub(crate) account: AccountId,
    pub(crate) sandbox: SandboxId,
    pub(crate) port: u16,
    pub(crate) token: String,
    pub(crate) name: Option<String>,
    pub(crate) created_at: Timestamp,
}

impl Store {
    /// Every exposed port.
    pub(crate) async fn ports(&self) -> Result<Vec<PortRow>, StoreError> {
        self.run("read the exposed ports", |db| {
            db.prepare("SELECT account, sandbox, port, token, name, created_at FROM ports")?
                .query_map([], |row| {
                    Ok(PortRow {
                        account: AccountId(row.get(0)?),
                        sandbox: row.get::<_, Text<SandboxId>>(1)?.0,
                        port: row.get(2)?,
                        token: row.get(3)?,
                        name: row.get(4)?,
                        created_at: row.get::<_, Millis>(5)?.0,
                    })
                })?
                .collect()
        })
        .await
    }

    /// Writes an exposed port of this life of a sandbox, in place of one that was taken back and could not be removed. False
    /// if that life has ended or is about to: a port that was written then would be the next one's.
    pub(crate) fn expose(
        &self,
        row: PortRow,
        instance: InstanceId,
    ) -> impl Future<Output = Result<bool, StoreError>> + use<> {
        self.run("write an exposed port", move |db| {
            let written = db.execute(
                "INSERT OR REPLACE INTO ports (account, sandbox, port, token, name, created_at)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM sandboxes
                 WHERE account = ?1 AND id = ?2 AND instance = ?7 AND status <> 'destroying')",
                params![
                    row.account.0,
                    row.sandbox.as_str(),
                    row.port,
                    row.token,
                    row.name,
                    row.created_at.as_millis(),
                    instance.as_str(),
                ],
            )?;
            Ok(written > 0)
        })
    }

    /// Removes this exposure of a port, not a later one.
    pub(crate) fn unexpose(
        &self,
        account: AccountId,
        sandbox: &SandboxId,
        port: u16,
        created_at: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let sandbox = sandbox.clone();
        self.run("remove an exposed port", move |db| {
            let sql = "DELETE FROM ports WHERE account = ? AND sandbox = ? AND port = ? AND created_at = ?";
            db.execute(sql, params![account.0, sandbox.as_str(), port, created_at.as_millis()]).map(|_| ())
        })
    }
}

/// Removes every exposed port of a sandbox.
pub(super) fn revoke_all(db: &Connection, account: AccountId, sandbox: &SandboxId) -> rusqlite::Result<()> {
    let sql = "DELETE FROM ports WHERE account = ? AND sandbox = ?";
    db.execute(sql, params![account.0, sandbox.as_str()]).map(|_| ())
}
