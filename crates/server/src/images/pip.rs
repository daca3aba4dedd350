//! What this machine says of its package index: the settings of pip and of proxies that a sandbox is to fetch by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Settings of pip that are taken over, by their names in its configuration files; the variables are named after them.
const OPTIONS: [&str; 8] = [
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "timeout",
    "default-timeout",
    "retries",
    "cert",
];
/// Other variables that are taken over as they are.
const VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];
/// Where pip finds certificates if its own setting does not say.
const BUNDLES: [&str; 2] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
/// Pip tries a server five more times, with longer and longer pauses, if nothing says otherwise; somebody waits here.
const DEFAULTS: [(&str, &str); 2] = [("PIP_RETRIES", "2"), ("PIP_DEFAULT_TIMEOUT", "30")];

/// How to reach the index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Variables for pip.
    pub(super) env: BTreeMap<String, String>,
    /// A file of this machine with the certificates that may vouch for the index.
    pub(super) bundle: Option<PathBuf>,
}

impl Settings {
    /// Those of this process's environment and of pip's configuration files.
    pub(super) fn of_this_machine() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut files: Vec<PathBuf> = vec!["/etc/xdg/pip/pip.conf".into(), "/etc/pip.conf".into()];
        if let Some(home) = variable("HOME").map(PathBuf::from) {
            let config = variable("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
            files.extend([home.join(".pip/pip.conf"), config.join("pip/pip.conf")]);
        }
        files.extend(variable("PIP_CONFIG_FILE").map(PathBuf::from));
        // One that cannot be read says nothing, as for pip.
        let texts = files.iter().filter_map(|path| std::fs::read_to_string(path).ok());
        Self::new(variable, texts)
    }

    /// `texts` are configuration files, later ones before earlier ones.
    fn new(variable: impl Fn(&str) -> Option<String>, texts: impl Iterator<Item = String>) -> Self {
        let mut env: BTreeMap<String, String> =
            DEFAULTS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for text in texts {
            env.extend(configured(&text).map(|(option, value)| (name_of(option), value)));
        }
        for option in OPTIONS {
            env.extend(variable(&name_of(option)).map(|value| (name_of(option), value)));
        }
        for name in VARIABLES {
            env.extend(variable(name).map(|value| (name.to_owned(), value)));
        }
        let bundle = env.remove("PIP_CERT").or_else(|| BUNDLES.iter().find_map(|name| variable(name)));
        Self { env, bundle: bundle.map(PathBuf::from) }
    }

    /// The certificates, if the settings name some.
    pub(super) fn certificates(&self) -> Result<Option<Vec<u8>>, (PathBuf, std::io::Error)> {
        let Some(path) = &self.bundle else { return Ok(None) };
        read_certificates(path).map(Some).map_err(|error| (path.clone(), error))
    }
}

/// A bundle goes into a sandbox: nothing but certificates may be in it.
fn read_certificates(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, Read};
    const MOST: u64 = 8 << 20;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    if bytes.len() as u64 > MOST || text.contains("PRIVATE KEY") || !text.contains("BEGIN CERTIFICATE") {
        return Err(Error::other("it is no file of certificates alone"));
    }
    Ok(bytes)
}

fn name_of(option: &str) -> String {
    format!("PIP_{}", option.to_uppercase().replace('-', "_"))
}

/// The settings of the sections `global` and `download`. A value may go on in indented lines.
fn configured(text: &str) -> impl Iterator<Item = (&'static str, String)> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    let (mut counts, mut open) = (false, false);
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        if let Some(section) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (counts, open) = (matches!(section, "global" | "download"), false);
        } else if line.starts_with([' ', '\t']) {
            if let (true, Some((_, value))) = (open, found.last_mut()) {
                *value = format!("{value} {}", line.trim()).trim().to_owned();
            }
        } else if let Some((key, value)) = line.split_once(['=', ':']) {
            let key = key.trim().to_lowercase().replace('_', "-");
            let option = OPTIONS.into_iter().find(|option| *option == key);
            open = counts && option.is_some();
            found.extend(option.filter(|_| counts).map(|option| (option, value.trim().to_owned())));
        }
    }
    found.into_iter().filter(|(_, value)| !value.is_empty())
}

/// What a program printed, without logins in URLs.
pub(super) fn without_logins(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/'\"<>".contains(c)).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(login) => {
                clean.push_str("****");
                &after[login..]
            }
            None => after,
        };
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_would_do_is_what_the_sandbox_does() {
        let variables = |name: &str| match name {
            "PIP_RETRIES" => Some("7".to_owned()),
            "https_proxy" => Some("http://proxy:3128".to_owned()),
            "CURL_CA_BUNDLE" => Some("/etc/ca.pem".to_owned()),
            "AWS_SECRET_ACCESS_KEY" | "PIP_TARGET" | "PIP_FIND_LINKS" => Some("not this".to_owned()),
            _ => None,
        };
        let files = [
            "[global]\nindex-url = https://first/simple\nretries = 1\n",
            "# x\n[install]\nindex-url = https://no/\n[global]\nindex_url: https://me:pw@second/simple\n\
             extra-index-url =\n    https://a/\n    https://b/\ntarget = /x\n    https://c/\n",
        ];
        let settings = Settings::new(variables, files.into_iter().map(str::to_owned));
        let expected = [
            ("PIP_DEFAULT_TIMEOUT", "30"),
            ("PIP_EXTRA_INDEX_URL", "https://a/ https://b/"),
            ("PIP_INDEX_URL", "https://me:pw@second/simple"),
            ("PIP_RETRIES", "7"),
            ("https_proxy", "http://proxy:3128"),
        ];
        assert_eq!(settings.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(settings.bundle, Some("/etc/ca.pem".into()));
    }

    #[test]
    fn a_bundle_with_a_key_in_it_stays_outside() {
        let dir = tempfile::tempdir().unwrap();
        let settings = |content: &str| {
            let path = dir.path().join("ca.pem");
            std::fs::write(&path, content).unwrap();
            Settings { bundle: Some(path), ..Settings::default() }.certificates()
        };
        assert!(settings("-----BEGIN CERTIFICATE-----\nA").unwrap().is_some());
        assert!(settings("-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----").is_err());
        assert!(settings("root:x:0:0").is_err());
        assert_eq!(Settings::default().certificates().unwrap(), None);
    }

    #[test]
    fn logins_are_not_repeated() {
        let said = "Looking in indexes: https://me:pw@host/simple, http://b@c/x (https://plain/y@z) end";
        let clean = "Looking in indexes: https://****@host/simple, http://****@c/x (https://plain/y@z) end";
        assert_eq!(without_logins(said), clean);
    }
}
