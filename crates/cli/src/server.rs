//! The server that a command speaks to.

use crate::report::Report;
use anyhow::{Context as _, Result};
use sandcrab_client::{Client, ClientOptions, default_data_dir};
use sandcrab_runtime::doctor::Feature;
use sandcrab_runtime::native::{self, Native};
use sandcrab_server::{ServeError, ServeOptions, Server};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The server that `--url` or the environment names, or this machine's own.
pub(crate) fn client(url: Option<&str>) -> Result<Client> {
    let options = match url {
        Some(url) => ClientOptions::for_url(url)?,
        None => ClientOptions::from_env()?,
    };
    Ok(Client::new(options)?)
}

/// A server in this process, for a machine on which none runs.
pub(crate) struct Embedded {
    end: oneshot::Sender<()>,
    served: JoinHandle<()>,
    /// A data directory of its own, to be taken away; none if it is the usual one.
    own: Option<PathBuf>,
}

/// As [`client`]; where no server is named and none runs on this machine, one serves in this process.
pub(crate) async fn client_or_embedded(
    url: Option<&str>,
    allow_missing: &[Feature],
) -> Result<(Client, Option<Embedded>)> {
    let client = client(url)?;
    let named = url.is_some() || std::env::var_os("SANDCRAB_URL").is_some_and(|url| !url.is_empty());
    if named {
        return Ok((client, None));
    }
    match client.health().await {
        Err(error) if error.is_connect() => {
            let (client, server) = Embedded::start(allow_missing).await?;
            Ok((client, Some(server)))
        }
        // Whatever else is wrong with it, the command's own request will tell.
        _ => Ok((client, None)),
    }
}

impl Embedded {
    async fn start(allow_missing: &[Feature]) -> Result<(Client, Self)> {
        let usual =
            default_data_dir().context("neither XDG_DATA_HOME nor HOME is set: no place for the data")?;
        // The usual directory has the images already. Another command like this one may have it for the moment.
        match serve(&usual, None, allow_missing).await {
            Err(error) if is_in_use(&error) => {
                let own = usual.join("once").join(format!("{:016x}", rand::random::<u64>()));
                let (client, mut server) = serve(&own, Some(&usual), allow_missing).await?;
                server.own = Some(own);
                Ok((client, server))
            }
            outcome => outcome,
        }
    }

    /// Stops serving. What the command made, it has taken away before.
    pub(crate) async fn stop(self, report: Report) {
        // If it has ended already there is nothing to stop.
        _ = self.end.send(());
        _ = self.served.await;
        if let Some(own) = self.own
            && let Err(error) = std::fs::remove_dir_all(&own)
        {
            report.note(format_args!("remove {}: {error}", own.display()));
        }
    }
}

/// Serves from a data directory, with the images of another one if that is named.
async fn serve(
    data_dir: &Path,
    images_of: Option<&Path>,
    allow_missing: &[Feature],
) -> Result<(Client, Embedded)> {
    let key = format!("{:032x}", rand::random::<u128>());
    let options = ServeOptions {
        listen: "127.0.0.1:0".to_owned(),
        data_dir: Some(data_dir.to_owned()),
        api_key: Some(key.clone()),
        allow_missing: allow_missing.iter().map(ToString::to_string).collect(),
        images_of: images_of.map(Path::to_owned),
        ..ServeOptions::default()
    };
    let driver = native::Config {
        allow_missing: allow_missing.iter().copied().collect(),
        images_of: images_of.map(Path::to_owned),
        ..native::Config::new(data_dir.to_owned())
    };
    let driver = Arc::new(Native::open(driver)?);
    let server = Server::start(options.resolve()?, driver).await?;
    let url = format!("http://{}", server.started().address);
    let client = Client::new(ClientOptions::new(url).api_key(key))?;
    let (end, ended) = oneshot::channel::<()>();
    let served = tokio::spawn(server.run(async { ended.await.unwrap_or_default() }));
    Ok((client, Embedded { end, served, own: None }))
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ServeError::InUse { .. }))
}
