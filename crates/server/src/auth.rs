//! Who is asking: keys and the accounts that they belong to.

use crate::store::{AccountId, Store, StoreError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use rand::RngExt;
use sandcrab_api::{ApiError, ErrorCode};
use sandcrab_runtime::InstanceId;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use subtle::ConstantTimeEq;

/// The file in the data dir that holds the operator's key; the local command line reads it too.
pub(crate) const KEY_FILE: &str = "api-key";
/// A key beside the caller's own `Authorization`, which is for what runs in a sandbox.
pub(crate) const OWN_KEY: HeaderName = HeaderName::from_static("x-sandcrab-key");
/// Letters and digits of a key that is made up: 32 of 62 are 190 bits.
const KEY_LENGTH: usize = 32;

/// How callers prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// With the key in the data dir's file `api-key`, made at the first start.
    #[default]
    File,
    /// With this key.
    Given(String),
    /// Not at all: everyone who reaches the server may do everything.
    NoAuth,
}

/// The operator's key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be used.
    #[error("{operation} {path:?}")]
    File {
        /// What was done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Others can read the file.
    #[error(
        "{path:?} can be read by others (mode {mode:o}); chmod 600 it, and make a new key if someone may have seen it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key that no header can carry.
    #[error("an API key has 8 to 512 printable ASCII characters without blanks")]
    Form,
}

/// A caller who has proved who they are.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: AccountId,
    /// The one life of a sandbox that a ticket is for; a key is for all.
    pub(crate) life: Option<InstanceId>,
}

impl Caller {
    fn with_key(account: AccountId) -> Self {
        Self { account, life: None }
    }
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No key came.
    NoKey(&'static str),
    /// A key came that is none of this server's.
    WrongKey,
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let why = match denied {
            Denied::NoKey(why) => why,
            Denied::WrongKey => "the key is not known",
        };
        Self::new(ErrorCode::Unauthorized, why).during("authenticate")
    }
}

/// The known keys. They are compared by hash and in constant time, each with every one.
pub(crate) struct Auth {
    /// None: nobody needs a key.
    keys: Option<Vec<([u8; 32], AccountId)>>,
}

impl Auth {
    /// Reads the keys: the operator's and those of the store.
    pub(crate) async fn load(operator: Option<&str>, store: &Store) -> Result<Self, StoreError> {
        let Some(operator) = operator else { return Ok(Self { keys: None }) };
        let mut keys = store.keys().await?;
        keys.push((hash(operator), AccountId::DEFAULT));
        Ok(Self { keys: Some(keys) })
    }

    /// Whether no key is needed.
    pub(crate) fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    /// As one that needs no key.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { keys: None }
    }

    /// One key, of the default account.
    #[cfg(test)]
    pub(crate) fn of_one_key(key: &str) -> Self {
        Self { keys: Some(vec![(hash(key), AccountId::DEFAULT)]) }
    }

    /// Whether an `Authorization` holds a key of this server's anywhere, which no one else may see: as the whole of it,
    /// as one of several credentials in a list, or as the password of `Basic`.
    pub(crate) fn holds_key(&self, value: &HeaderValue) -> bool {
        let value = value.as_bytes();
        let is_ours = |key: &[u8]| self.account(key).is_some();
        let is_password = |word: &[u8]| {
            let text = BASE64.decode(word).unwrap_or_default();
            let colon = text.iter().position(|byte| *byte == b':');
            is_ours(&text)
                || colon.is_some_and(|colon| is_ours(&text[..colon]) || is_ours(&text[colon + 1..]))
        };
        let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b',' | b';' | b'"');
        bearer(value).is_some_and(is_ours)
            // A key may hold what stands between words as well.
            || value.split(|byte| matches!(byte, b' ' | b'\t')).any(|word| {
                let word = word.strip_suffix(b",").unwrap_or(word);
                is_ours(word) || is_password(word)
            })
            || value.split(is_between).any(|word| {
                let named = word.iter().position(|byte| *byte == b'=').map(|equals| &word[equals + 1..]);
                is_ours(word) || is_password(word) || named.is_some_and(is_ours)
            })
    }

    /// The account that a key belongs to.
    fn account(&self, key: &[u8]) -> Option<AccountId> {
        let presented = Sha256::digest(key);
        let mut found = None;
        for (known, account) in self.keys.as_ref()? {
            if bool::from(presented.as_slice().ct_eq(known)) {
                found = Some(*account);
            }
        }
        found
    }

    /// Who sent this head.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        if let Some(key) = headers.get(OWN_KEY) {
            return self.caller_by(Some(key), "");
        }
        if self.keys.is_none() {
            return Ok(Caller::with_key(AccountId::DEFAULT));
        }
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        let presented = sent.next().ok_or(Denied::NoKey("no Authorization header came"))?;
        // Which of two counts is read differently by others on the way (attack C14).
        if sent.next().is_some() {
            return Err(Denied::NoKey("more than one Authorization header came"));
        }
        let key = bearer(presented.as_bytes())
            .ok_or(Denied::NoKey("the Authorization header has no Bearer key"))?;
        self.account(key).map(Caller::with_key).ok_or(Denied::WrongKey)
    }

    /// Who presents this key as it is; `missing` says that none came.
    pub(crate) fn caller_by(
        &self,
        key: Option<&HeaderValue>,
        missing: &'static str,
    ) -> Result<Caller, Denied> {
        if self.keys.is_none() {
            return Ok(Caller::with_key(AccountId::DEFAULT));
        }
        let key = key.ok_or(Denied::NoKey(missing))?;
        self.account(key.as_bytes().trim_ascii()).map(Caller::with_key).ok_or(Denied::WrongKey)
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The operator's key, and whether it has just been made. None where no key is needed.
pub(crate) fn operator_key(source: &KeySource, data_dir: &Path) -> Result<(Option<String>, bool), KeyError> {
    let (key, is_new) = match source {
        KeySource::NoAuth => return Ok((None, false)),
        KeySource::Given(key) => (key.clone(), false),
        KeySource::File => read_or_make(&data_dir.join(KEY_FILE))?,
    };
    let fits = (8..=512).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok((Some(key), is_new)) } else { Err(KeyError::Form) }
}

fn read_or_make(path: &Path) -> Result<(String, bool), KeyError> {
    let failed = |operation| move |source| KeyError::File { operation, path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyError::Exposed { path: path.to_owned(), mode });
            }
            let text = std::fs::read_to_string(path).map_err(failed("read"))?;
            return Ok((text.trim().to_owned(), false));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
    }
    let key = format!("sc_{}", random_text());
    // Complete under its name or not there: a server that is killed here makes another one.
    let partial = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed("create"))?;
    writeln!(file, "{key}").and_then(|()| file.sync_all()).map_err(failed("write"))?;
    std::fs::rename(&partial, path).map_err(failed("name"))?;
    Ok((key, true))
}

fn random_text() -> String {
    let mut random = rand::rng();
    (0..KEY_LENGTH).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let (first, made) = operator_key(&KeySource::File, dir.path()).unwrap();
        assert!(made && first.as_ref().is_some_and(|key| key.len() == 35));
        assert_eq!(operator_key(&KeySource::File, dir.path()).unwrap(), (first, false));
        let path = dir.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            operator_key(&KeySource::File, dir.path()),
            Err(KeyError::Exposed { mode: 0o644, .. })
        ));
    }

    #[test]
    fn keys_that_no_header_carries_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "short", "with blank inside", "with\nnewline"] {
            let given = KeySource::Given(bad.to_owned());
            assert!(matches!(operator_key(&given, dir.path()), Err(KeyError::Form)), "{bad:?}");
        }
    }

    #[test]
    fn only_known_keys_are_let_in() {
        let auth =
            Auth { keys: Some(vec![(hash("one-key-1"), AccountId(7)), (hash("two-key-2"), AccountId(8))]) };
        let ask = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            auth.caller(&headers).map(|caller| caller.account.0).ok()
        };
        assert_eq!(ask("Bearer one-key-1"), Some(7));
        assert_eq!(ask("bearer  two-key-2"), Some(8));
        for bad in ["", "Bearer", "Bearer ", "Bearer one-key-2", "Basic one-key-1", "one-key-1"] {
            assert_eq!(ask(bad), None, "{bad}");
        }
        assert!(matches!(auth.caller(&HeaderMap::new()), Err(Denied::NoKey(_))));
        let mut two = HeaderMap::new();
        two.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer one-key-1"));
        assert_eq!(auth.caller(&two).map(|caller| caller.account.0), Ok(7));
        two.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer one-key-1"));
        assert!(matches!(auth.caller(&two), Err(Denied::NoKey(_))));
        assert_eq!(ApiError::from(Denied::WrongKey).code, ErrorCode::Unauthorized);
    }
}
