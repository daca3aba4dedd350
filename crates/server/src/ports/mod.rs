//! Which ports of which sandboxes are exposed, and under which tokens.
//!
//! The store has them; this table is what every request of a preview is looked up in. A port that is exposed is written
//! first; one that is taken back is closed here first, and what the store still has of it is removed until it is gone. Each
//! change is a task of its own: a caller that hangs up leaves none half done (attack E16).
//!
//! A sandbox that is to be destroyed is marked in the store before its ports are taken out here: after that the store takes
//! no new ones (see [`Store::expose`]), so the table never holds a port of a life that has ended.

mod http;

pub(crate) use http::{connected, is_own, operation, require_own_network, router};

use crate::lifecycle::not_found;
use crate::preview::Destination;
use crate::store::{AccountId, PortRow, Store, StoreError};
use rand::RngExt;
use sandcrab_api::ports::{MAX_EXPOSED_PORTS, MAX_LABEL, PreviewLabel, TOKEN_CHARACTERS, TOKEN_LENGTH};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use sandcrab_runtime::InstanceId;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// Random characters that are appended to a token which another account has for the same id and port.
const LENGTHEN_BY: usize = 8;
/// How long it takes until the store is asked again to forget a port: at first, and at most.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);

/// A port that is exposed.
#[derive(Debug)]
pub(crate) struct Exposure {
    pub(crate) account: AccountId,
    pub(crate) sandbox: SandboxId,
    pub(crate) port: u16,
    pub(crate) token: String,
    pub(crate) name: Option<String>,
    pub(crate) created_at: Timestamp,
    /// Cancelled when it is taken back: what is under way by then is cut.
    pub(crate) revoked: CancellationToken,
}

impl Exposure {
    pub(crate) fn label(&self) -> PreviewLabel<'_> {
        PreviewLabel { port: self.port, id: self.sandbox.as_str(), token: &self.token }
    }

    pub(crate) fn destination(&self) -> Destination {
        Destination {
            account: self.account,
            sandbox: self.sandbox.clone(),
            port: self.port,
            revoked: self.revoked.clone(),
        }
    }
}

/// By what a preview's host says openly. Accounts may use the same ids, so there may be several.
type Table = BTreeMap<(String, u16), Vec<Arc<Exposure>>>;

/// The exposed ports of all sandboxes.
pub(crate) struct Ports {
    store: Store,
    table: RwLock<Table>,
    /// Held through each change of store and table, so that they change in the same order.
    changes: tokio::sync::Mutex<()>,
}

impl Ports {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, table: RwLock::default(), changes: tokio::sync::Mutex::default() }
    }

    /// Takes up what the store has.
    pub(crate) async fn load(&self) -> Result<(), StoreError> {
        let rows = self.store.ports().await?;
        let mut table = self.write();
        for row in rows {
            insert(&mut table, row, CancellationToken::new());
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exposure that a host names; none if there is none with this very token (attack C02).
    pub(crate) fn find(&self, label: &PreviewLabel<'_>) -> Option<Arc<Exposure>> {
        let table = self.read();
        let candidates = table.get(&(label.id.to_owned(), label.port))?;
        let mut found = None;
        for exposure in candidates {
            if bool::from(exposure.token.as_bytes().ct_eq(label.token.as_bytes())) {
                found = Some(exposure.clone());
            }
        }
        found
    }

    /// What is exposed of a sandbox, by port.
    pub(crate) fn list(&self, account: AccountId, sandbox: &SandboxId) -> Vec<Arc<Exposure>> {
        let table = self.read();
        let of_id = table.range((sandbox.as_str().to_owned(), 0)..=(sandbox.as_str().to_owned(), u16::MAX));
        of_id.flat_map(|(_, list)| list).filter(|exposure| exposure.account == account).cloned().collect()
    }

    /// The exposure of one port of a sandbox.
    pub(crate) fn get(&self, account: AccountId, sandbox: &SandboxId, port: u16) -> Option<Arc<Exposure>> {
        let table = self.read();
        let candidates = table.get(&(sandbox.as_str().to_owned(), port))?;
        candidates.iter().find(|exposure| exposure.account == account).cloned()
    }

    /// Exposes a port of the life `instance` of a sandbox. False: it was exposed, and the wish was to replace that.
    pub(crate) async fn expose(
        self: &Arc<Self>,
        account: AccountId,
        sandbox: &SandboxId,
        instance: &InstanceId,
        port: u16,
        wish: Wish,
    ) -> Result<(Arc<Exposure>, bool), ApiError> {
        let (ports, sandbox, instance) = (self.clone(), sandbox.clone(), instance.clone());
        let change =
            tokio::spawn(async move { ports.expose_whole(account, &sandbox, &instance, port, wish).await });
        change.await.map_err(|panic| crate::http::internal("exposePort", &panic))?
    }

    async fn expose_whole(
        &self,
        account: AccountId,
        sandbox: &SandboxId,
        instance: &InstanceId,
        port: u16,
        wish: Wish,
    ) -> Result<(Arc<Exposure>, bool), ApiError> {
        let _change = self.changes.lock().await;
        let exposed = self.list(account, sandbox);
        let (standing, others): (Vec<_>, Vec<_>) =
            exposed.into_iter().partition(|exposure| exposure.port == port);
        let standing = standing.into_iter().next();
        if standing.is_some() && !wish.replace {
            let message = format!("port {port} of sandbox {sandbox} is exposed already");
            return Err(ApiError::new(ErrorCode::PortAlreadyExposed, message).with("port", port));
        }
        if standing.is_none() && others.len() >= MAX_EXPOSED_PORTS {
            let message =
                format!("sandbox {sandbox} has {MAX_EXPOSED_PORTS} exposed ports, which is the most");
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                .with("limit", "exposedPorts")
                .with("value", MAX_EXPOSED_PORTS)
                .with("scope", "sandbox"));
        }
        let wants = |exposure: &Exposure| wish.token.as_ref().is_none_or(|token| *token == exposure.token);
        // One that is being taken back is not kept.
        let kept = standing.as_ref().filter(|standing| wants(standing) && !standing.revoked.is_cancelled());
        if let Some(kept) = kept
            && (wish.name.is_none() || wish.name == kept.name)
        {
            return Ok((kept.clone(), false));
        }
        let taken = |other: &&Arc<Exposure>| wish.token.as_ref().is_some_and(|token| *token == other.token);
        if let Some(other) = others.iter().find(taken) {
            let rule = format!("is already in use by port {} of the sandbox", other.port);
            return Err(ApiError::invalid("token", rule));
        }
        let token = match kept {
            Some(kept) => kept.token.clone(),
            None => self.free_token(sandbox, port, wish.token)?,
        };
        let name = wish.name.or_else(|| standing.as_ref().and_then(|standing| standing.name.clone()));
        let row =
            PortRow { account, sandbox: sandbox.clone(), port, token, name, created_at: Timestamp::now() };
        let revoked = kept.map(|kept| kept.revoked.clone()).unwrap_or_default();
        let is_moved = kept.is_none();
        let written = self.store.expose(row.clone(), instance.clone()).await;
        if !written.map_err(|error| crate::http::internal("exposePort", &error))? {
            return Err(not_found(sandbox));
        }
        let mut table = self.write();
        if let Some(standing) = &standing {
            take_out(&mut table, standing);
            if is_moved {
                standing.revoked.cancel();
            }
        }
        Ok((insert(&mut table, row, revoked), standing.is_none()))
    }

    /// The wanted token, or one that is made up. Only where another account has the same one for this id and port it is
    /// lengthened, because a preview's host names no account.
    fn free_token(&self, sandbox: &SandboxId, port: u16, wanted: Option<String>) -> Result<String, ApiError> {
        let mut token = wanted.unwrap_or_default();
        if token.is_empty() {
            lengthen(&mut token, TOKEN_LENGTH);
        }
        while self.find(&PreviewLabel { port, id: sandbox.as_str(), token: &token }).is_some() {
            let longer = token.len() + LENGTHEN_BY;
            lengthen(&mut token, longer);
        }
        let label = PreviewLabel { port, id: sandbox.as_str(), token: &token };
        if label.to_string().len() > MAX_LABEL {
            let rule = "is taken already, and there is no room to lengthen it beside an id of this length";
            return Err(ApiError::invalid("token", rule));
        }
        Ok(token)
    }

    /// Takes one port back; false if it was not exposed. It is closed when this returns, also where the store could not
    /// write so: until it can, the port is closed as long as this server lives.
    pub(crate) async fn unexpose(
        self: &Arc<Self>,
        account: AccountId,
        sandbox: &SandboxId,
        port: u16,
    ) -> Result<bool, ApiError> {
        let Some(exposure) = self.get(account, sandbox, port) else { return Ok(false) };
        exposure.revoked.cancel();
        let (ports, sandbox) = (self.clone(), sandbox.clone());
        let change = tokio::spawn(async move {
            let _change = ports.changes.lock().await;
            // What is there now may be the same under another name; what took its place under another token is not meant.
            let now = ports.get(account, &sandbox, port);
            let Some(exposure) = now.filter(|now| now.revoked.is_cancelled()) else { return Ok(false) };
            remove(&mut ports.write(), account, &sandbox, |exposed| exposed == port);
            let forgotten = ports.store.unexpose(account, &sandbox, port, exposure.created_at).await;
            if forgotten.is_err() {
                tokio::spawn(ports.clone().forget(exposure));
            }
            forgotten.map(|()| true)
        });
        let changed = change.await.map_err(|panic| crate::http::internal("unexposePort", &panic))?;
        changed.map_err(|error| {
            let error = crate::http::internal("unexposePort", &error);
            let message = format!("the port is closed, but this could not be written: {}", error.message);
            ApiError { message, ..error }
        })
    }

    /// Has the store forget a port that was taken back, however long that takes.
    async fn forget(self: Arc<Self>, gone: Arc<Exposure>) {
        let mut pause = AGAIN;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN_AT_MOST);
            match self.store.unexpose(gone.account, &gone.sandbox, gone.port, gone.created_at).await {
                Ok(()) | Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(sandbox = %gone.sandbox, port = gone.port, error = crate::chain(&error),
                        "a port is closed, but the store still has it");
                }
            }
        }
    }

    /// Takes every port of a sandbox back that has been marked in the store as one to be destroyed (contract L06).
    pub(crate) async fn revoke(&self, account: AccountId, sandbox: &SandboxId) {
        let _change = self.changes.lock().await;
        remove(&mut self.write(), account, sandbox, |_| true);
    }
}

/// What a caller would like.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    pub(crate) token: Option<String>,
    pub(crate) name: Option<String>,
    /// Whether it takes the place of what the port is exposed as.
    pub(crate) replace: bool,
}

fn insert(table: &mut Table, row: PortRow, revoked: CancellationToken) -> Arc<Exposure> {
    let PortRow { account, sandbox, port, token, name, created_at } = row;
    let key = (sandbox.as_str().to_owned(), port);
    let exposure = Arc::new(Exposure { account, sandbox, port, token, name, created_at, revoked });
    table.entry(key).or_default().push(exposure.clone());
    exposure
}

/// Removes one exposure that another one takes the place of.
fn take_out(table: &mut Table, exposure: &Arc<Exposure>) {
    let key = (exposure.sandbox.as_str().to_owned(), exposure.port);
    if let Some(list) = table.get_mut(&key) {
        list.retain(|other| !Arc::ptr_eq(other, exposure));
    }
}

fn remove(table: &mut Table, account: AccountId, sandbox: &SandboxId, is_meant: impl Fn(u16) -> bool) {
    let first = (sandbox.as_str().to_owned(), 0);
    let last = (sandbox.as_str().to_owned(), u16::MAX);
    let meant: Vec<_> =
        table.range(first..=last).map(|(key, _)| key.clone()).filter(|(_, port)| is_meant(*port)).collect();
    for key in meant {
        let Some(list) = table.get_mut(&key) else { continue };
        list.retain(|exposure| {
            let stays = exposure.account != account;
            if !stays {
                exposure.revoked.cancel();
            }
            stays
        });
        if list.is_empty() {
            table.remove(&key);
        }
    }
}

fn lengthen(token: &mut String, length: usize) {
    let mut random = rand::rng();
    while token.len() < length {
        token.push(char::from(TOKEN_CHARACTERS[random.random_range(0..TOKEN_CHARACTERS.len())]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(account: i64, id: &str, port: u16, token: &str) -> PortRow {
        PortRow {
            account: AccountId(account),
            sandbox: SandboxId::parse(id).unwrap(),
            port,
            token: token.into(),
            name: None,
            created_at: Timestamp::now(),
        }
    }

    #[tokio::test]
    async fn c02_only_the_whole_name_finds_an_exposure() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::new(Store::open(&dir.path().join("test.db")).unwrap());
        for row in [row(1, "a", 3000, "one"), row(2, "a", 3000, "two"), row(1, "a-b", 3000, "one")] {
            insert(&mut ports.write(), row, CancellationToken::new());
        }
        let find =
            |port, id, token| ports.find(&PreviewLabel { port, id, token }).map(|found| found.account.0);
        assert_eq!((find(3000, "a", "one"), find(3000, "a", "two")), (Some(1), Some(2)));
        for (port, id, token) in
            [(3000, "a", "on"), (3000, "a", "onee"), (3000, "a", ""), (3001, "a", "one"), (3000, "b", "one")]
        {
            assert_eq!(find(port, id, token), None, "{port} {id} {token}");
        }
        let id = SandboxId::parse("a").unwrap();
        let gone = ports.get(AccountId(1), &id, 3000).unwrap();
        ports.revoke(AccountId(1), &id).await;
        assert!(gone.revoked.is_cancelled());
        assert_eq!((find(3000, "a", "one"), find(3000, "a", "two")), (None, Some(2)));
        assert_eq!(find(3000, "a-b", "one"), Some(1));
        // A wanted token is used as it is, unless another account has it here.
        let token = |wanted: &str| ports.free_token(&id, 3000, Some(wanted.into())).unwrap();
        assert_eq!((token("a").as_str(), token("longenough").as_str()), ("a", "longenough"));
        insert(&mut ports.write(), row(2, "a", 3000, "longenough"), CancellationToken::new());
        assert!(token("longenough").starts_with("longenough") && token("longenough").len() == 18);
    }
}
