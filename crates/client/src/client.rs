//! The server as a whole.

use crate::options::ClientOptions;
use crate::path::Query;
use crate::sandbox::{Sandbox, Target};
use crate::transport::{Call, Transport};
use crate::{ClientError, SandboxOptions};
use sandcrab_api::SandboxId;
use sandcrab_api::sandbox::{Health, SandboxInfo, SandboxList};
use std::sync::Arc;

/// A server. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
}

impl Client {
    /// A client of the server that `options` describe. Sends nothing.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::ApiKey`], or [`ClientError::Connect`] when a server by https could not be
    /// verified for want of CA certificates.
    #[expect(clippy::needless_pass_by_value, reason = "options are made for one client and then done with")]
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        Ok(Self { transport: Arc::new(Transport::new(&options)?) })
    }

    /// A client by [`ClientOptions::from_env`].
    ///
    /// # Errors
    /// As [`Client::new`] and [`ClientOptions::from_env`].
    pub fn from_env() -> Result<Self, ClientError> {
        Self::new(ClientOptions::from_env()?)
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Whether the server is up, and its release. Needs no key.
    ///
    /// # Errors
    /// Whatever keeps it from answering.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.transport.json(&Call::get("health", "/health".to_owned())).await
    }

    /// The caller's sandboxes, oldest first; with `labels`, those that have all of them.
    ///
    /// # Errors
    /// As any call.
    pub async fn sandboxes(&self, labels: &[(&str, &str)]) -> Result<Vec<SandboxInfo>, ClientError> {
        let query = labels.iter().fold(Query::new("/v1/sandboxes".to_owned()), |query, (name, value)| {
            query.with("label", &format!("{name}={value}"))
        });
        let list: SandboxList = self.transport.json(&Call::get("listSandboxes", query.finish())).await?;
        Ok(list.sandboxes)
    }

    /// The sandbox with this id. Sends nothing: its first use creates it, with `options` where they say something.
    ///
    /// # Errors
    /// [`ClientError::Id`].
    pub fn sandbox(&self, id: impl AsRef<str>, options: SandboxOptions) -> Result<Sandbox, ClientError> {
        let id = SandboxId::parse(id.as_ref())?;
        Ok(Sandbox::new(Target::new(Arc::clone(&self.transport), id, options)))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
