//! The server that a command speaks to.

use anyhow::Result;
use sandcrab_client::{Client, ClientOptions};

/// The server that `--url` or the environment names, or this machine's own.
pub(crate) fn client(url: Option<&str>) -> Result<Client> {
    let options = match url {
        Some(url) => ClientOptions::for_url(url)?,
        None => ClientOptions::from_env()?,
    };
    Ok(Client::new(options)?)
}
