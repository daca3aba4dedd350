//! Two stages: what was typed ([`ServeOptions`]), then what it means ([`Options`]).

use crate::auth::KeySource;
use crate::cors::{Cors, OriginError};
use crate::hosts::Hosts;
use crate::proxies::{Proxies, ProxyError};
use sandcrab_api::ports::PreviewDomain;
use sandcrab_runtime::doctor::{Feature, UnknownFeature};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A second listener, which is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Where to listen.
    pub listen: String,
    /// PEM: the certificate first, then what it is signed by. Read again at SIGHUP.
    pub cert: PathBuf,
    /// PEM: the certificate's key.
    pub key: PathBuf,
}

/// What was typed after `sandcrab serve`.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen. Default `127.0.0.1:8787`.
    pub listen: String,
    /// Default `/var/lib/sandcrab` for root, else `$XDG_DATA_HOME/sandcrab` (`~/.local/share/sandcrab`).
    pub data_dir: Option<PathBuf>,
    /// The operator's key.
    pub api_key: Option<String>,
    /// Let everyone in who reaches the server.
    pub no_auth: bool,
    /// How to isolate. Default `native`.
    pub driver: String,
    /// Host names beside the loopback ones and the address that a connection came to.
    pub allow_hosts: Vec<String>,
    /// The domain that previews hang below beside `localhost`, with its port where it is not the usual one.
    pub preview_domain: Option<String>,
    /// A second listener. Without it whoever reaches the preview domain is taken to come by https through a proxy.
    pub tls: Option<TlsOptions>,
    /// Origins of web pages that may call the server; `*` for all.
    pub cors_origins: Vec<String>,
    /// Proxies that callers come through, as addresses or networks: what they say of a caller's address is believed.
    pub trusted_proxies: Vec<String>,
    /// Features of the isolation that may be missing, by name; each may be a list with commas.
    pub allow_missing: Vec<String>,
    /// Paths that the host image leaves out.
    pub host_image_exclude: Vec<PathBuf>,
    /// The data directory of another server whose images are used. Default: this one's own.
    pub images_of: Option<PathBuf>,
    /// Forget the sandboxes that the database knows and that are not there, however many.
    pub accept_lost: bool,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8787".to_owned(),
            data_dir: None,
            api_key: None,
            no_auth: false,
            driver: "native".to_owned(),
            allow_hosts: Vec::new(),
            preview_domain: None,
            tls: None,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            allow_missing: Vec::new(),
            host_image_exclude: Vec::new(),
            images_of: None,
            accept_lost: false,
        }
    }
}

/// A way to isolate that `--driver` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// Namespaces of this machine's kernel.
    Native,
}

/// What was meant. Made by [`ServeOptions::resolve`].
#[derive(Debug)]
pub struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) key: KeySource,
    pub(crate) driver: DriverKind,
    pub(crate) hosts: Hosts,
    pub(crate) cors: Cors,
    pub(crate) proxies: Proxies,
    pub(crate) preview_domain: Option<PreviewDomain>,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) allow_missing: Vec<Feature>,
    pub(crate) host_image_exclude: Vec<PathBuf>,
    pub(crate) images_of: Option<PathBuf>,
    pub(crate) accept_lost: bool,
}

/// What was typed makes no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Not an address.
    #[error("--listen {text:?} is not ADDRESS:PORT")]
    Listen {
        /// What was typed.
        text: String,
        /// Why not.
        source: std::net::AddrParseError,
    },
    /// Two that exclude each other.
    #[error("--api-key and --no-auth exclude each other")]
    KeyAndNoAuth,
    /// No such driver.
    #[error("--driver {0:?} is not a driver of this release: native")]
    Driver(String),
    /// No such feature.
    #[error("--allow-missing")]
    Feature(#[from] UnknownFeature),
    /// Not an origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Not a proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Not a domain.
    #[error("--preview-domain {text:?}: {why}")]
    PreviewDomain {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing says where data should go.
    #[error("neither XDG_DATA_HOME nor HOME is set; name a place with --data-dir")]
    NoDataDir,
    /// A path that depends on where the server was started.
    #[error("--host-image-exclude {0:?} is not an absolute path")]
    Exclude(PathBuf),
}

impl ServeOptions {
    /// Finds out what was meant.
    pub fn resolve(self) -> Result<Options, OptionsError> {
        let listen = self.listen.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let listen = listen.unwrap_or_else(|| self.listen.clone());
        let key = match (self.api_key, self.no_auth) {
            (Some(_), true) => return Err(OptionsError::KeyAndNoAuth),
            (Some(key), false) => KeySource::Given(key),
            (None, true) => KeySource::NoAuth,
            (None, false) => KeySource::File,
        };
        let driver = match self.driver.as_str() {
            "native" => DriverKind::Native,
            _ => return Err(OptionsError::Driver(self.driver)),
        };
        let features = self.allow_missing.iter().flat_map(|list| list.split(','));
        let allow_missing = features.map(str::trim).filter(|name| !name.is_empty()).map(str::parse);
        if let Some(path) = self.host_image_exclude.iter().find(|path| !path.is_absolute()) {
            return Err(OptionsError::Exclude(path.clone()));
        }
        let preview_domain = self.preview_domain.map(|text| {
            let why = |error: sandcrab_api::ApiError| error.message;
            PreviewDomain::parse(&text).map_err(|error| OptionsError::PreviewDomain { text, why: why(error) })
        });
        Ok(Options {
            listen: listen.parse().map_err(|source| OptionsError::Listen { text: self.listen, source })?,
            data_dir: self.data_dir.map_or_else(default_data_dir, Ok)?,
            key,
            driver,
            hosts: Hosts::new(&self.allow_hosts),
            cors: Cors::new(&self.cors_origins)?,
            proxies: Proxies::new(&self.trusted_proxies)?,
            preview_domain: preview_domain.transpose()?,
            tls: self.tls,
            allow_missing: allow_missing.collect::<Result<_, _>>()?,
            host_image_exclude: self.host_image_exclude,
            images_of: self.images_of,
            accept_lost: self.accept_lost,
        })
    }
}

/// Where data goes when nothing else is said; the local command line looks for the key there.
pub(crate) fn default_data_dir() -> Result<PathBuf, OptionsError> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/sandcrab"));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Ok(base.ok_or(OptionsError::NoDataDir)?.join("sandcrab"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_becomes_what_was_meant() {
        let options = ServeOptions {
            listen: "localhost:0".into(),
            allow_missing: vec!["quota,seccomp".into(), "landlock".into()],
            ..ServeOptions::default()
        };
        let options = options.resolve().unwrap();
        assert_eq!(options.listen.to_string(), "127.0.0.1:0");
        assert_eq!(options.allow_missing, [Feature::Quota, Feature::Seccomp, Feature::Landlock]);
        assert_eq!(options.key, KeySource::File);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let typed = ServeOptions::default;
        let refused = |options: ServeOptions| options.resolve().unwrap_err().to_string();
        assert!(refused(ServeOptions { listen: "nowhere".into(), ..typed() }).contains("nowhere"));
        assert!(
            refused(ServeOptions { preview_domain: Some("a b".into()), ..typed() })
                .contains("--preview-domain")
        );
        assert!(refused(ServeOptions { driver: "docker".into(), ..typed() }).contains("docker"));
        assert!(
            refused(ServeOptions { api_key: Some("k".into()), no_auth: true, ..typed() }).contains("exclude")
        );
        assert!(
            refused(ServeOptions { cors_origins: vec!["x".into()], ..typed() }).contains("--cors-origin")
        );
        assert!(
            refused(ServeOptions { trusted_proxies: vec!["x".into()], ..typed() })
                .contains("--trusted-proxy")
        );
        assert!(
            refused(ServeOptions { allow_missing: vec!["all".into()], ..typed() })
                .contains("--allow-missing")
        );
        assert!(
            refused(ServeOptions { host_image_exclude: vec!["a".into()], ..typed() }).contains("absolute")
        );
    }
}
