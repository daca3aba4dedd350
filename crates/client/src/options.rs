//! Where the server is and how to talk to it.

use crate::ClientError;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The address of a server on this machine that was started without options.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8787";

/// The file in the server's data directory that holds the key made at its first start.
pub const KEY_FILE: &str = "api-key";

/// Where the server is and how to talk to it.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The server's address: `http://host:port` or `https://host`, with a path before `/v1` if it has one.
    /// Default [`DEFAULT_URL`].
    pub url: String,
    /// The key that is sent as `Authorization: Bearer`. Default: none.
    pub api_key: Option<String>,
    /// A PEM file with the certificates that may vouch for a server by https. Default: those of this machine, or those
    /// that `SSL_CERT_FILE` or `SSL_CERT_DIR` name.
    pub ca_file: Option<PathBuf>,
    /// The longest time until a connection stands. Default 10 seconds.
    pub connect_timeout: Duration,
    /// The longest time until the answer to a call that no command and no transfer can make long. Default 60 seconds.
    pub answer_timeout: Duration,
    /// How long a lost connection is tried anew, for what may be retried: commands, their streams, and reading.
    /// Covers a restart of the server. Default 30 seconds, zero for never.
    pub reconnect_for: Duration,
    /// How many connections are kept open for later calls. Default 1024.
    pub max_idle_connections: usize,
}

impl ClientOptions {
    /// A server at `url`, without a key.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            api_key: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            reconnect_for: Duration::from_secs(30),
            max_idle_connections: 1024,
        }
    }

    /// Sends `key` with every call.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// `SANDCRAB_URL` and `SANDCRAB_API_KEY`; without a key, and for a server on this machine only, the key that the
    /// server left in its default data directory.
    ///
    /// # Errors
    /// [`ClientError::KeyFile`] when that key exists and cannot be read.
    pub fn from_env() -> Result<Self, ClientError> {
        let url = std::env::var("SANDCRAB_URL").ok().filter(|url| !url.is_empty());
        Self::for_url(url.unwrap_or_else(|| DEFAULT_URL.to_owned()))
    }

    /// As [`ClientOptions::from_env`], for a server at `url`.
    ///
    /// # Errors
    /// As [`ClientOptions::from_env`].
    pub fn for_url(url: impl Into<String>) -> Result<Self, ClientError> {
        let mut options = Self::new(url);
        options.api_key = match std::env::var("SANDCRAB_API_KEY").ok().filter(|key| !key.is_empty()) {
            Some(key) => Some(key),
            // A key of this machine's server is no other server's business.
            None if is_local(&options.url) => match default_data_dir() {
                Some(directory) => local_key(&directory)?,
                None => None,
            },
            None => None,
        };
        Ok(options)
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self::new(DEFAULT_URL)
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("url", &self.url)
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

/// The data directory of this machine's server: `$SANDCRAB_DATA_DIR`, or what a server takes when it is told none:
/// `/var/lib/sandcrab` for root, else `$XDG_DATA_HOME/sandcrab` or `~/.local/share/sandcrab`.
pub fn default_data_dir() -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("SANDCRAB_DATA_DIR").filter(|directory| !directory.is_empty()) {
        return Some(directory.into());
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/sandcrab"));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("sandcrab"))
}

/// The key in a data directory; none when there is no such file.
///
/// # Errors
/// [`ClientError::KeyFile`] when the file exists and cannot be read.
pub fn local_key(data_dir: &Path) -> Result<Option<String>, ClientError> {
    let path = data_dir.join(KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(key) => Ok(Some(key.trim().to_owned()).filter(|key| !key.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ClientError::KeyFile { path, source }),
    }
}

/// Whether the address is on this machine.
fn is_local(url: &str) -> bool {
    url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(is_local_host)).unwrap_or(false)
}

pub(crate) fn is_local_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_key_goes_to_this_machine_only() {
        for local in ["http://127.0.0.1:8787", "http://localhost", "http://[::1]:1", "https://127.9.9.9/x"] {
            assert!(is_local(local), "{local}");
        }
        for foreign in
            ["http://10.0.0.1", "https://example.com", "http://localhost.example.com", "nonsense", ""]
        {
            assert!(!is_local(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_missing_key_is_none_and_an_unreadable_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(local_key(directory.path()).unwrap(), None);
        std::fs::write(directory.path().join(KEY_FILE), "sc_abc\n").unwrap();
        assert_eq!(local_key(directory.path()).unwrap().as_deref(), Some("sc_abc"));
        let odd = tempfile::tempdir().unwrap();
        std::fs::create_dir(odd.path().join(KEY_FILE)).unwrap();
        assert!(matches!(local_key(odd.path()), Err(ClientError::KeyFile { .. })));
    }

    #[test]
    fn a_key_is_never_printed() {
        let options = ClientOptions::default().api_key("secret-key");
        assert!(!format!("{options:?}").contains("secret"));
    }
}
