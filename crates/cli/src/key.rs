//! Where a server's key comes from when it is not made by the server itself.

use crate::args::ServeArgs;
use anyhow::{Context as _, Result, bail};
use std::io::Read as _;
use std::path::Path;

/// A shorter key can be guessed.
const MIN_KEY_CHARS: usize = 16;
/// A key file is not read further.
const MAX_KEY_FILE_BYTES: u64 = 4096;
const VARIABLE: &str = "SANDCRAB_API_KEY";

/// The key that was given for `serve`; none if the server keeps one of its own, or asks for none.
pub(crate) fn of(serve: &ServeArgs) -> Result<Option<String>> {
    let (key, origin) = match (&serve.api_key, &serve.api_key_file) {
        (Some(key), _) => (key.clone(), "--api-key".to_owned()),
        (None, Some(file)) => {
            let origin = format!("--api-key-file {}", file.display());
            (read(file).with_context(|| origin.clone())?, origin)
        }
        (None, None) if serve.no_auth => return Ok(None),
        (None, None) => match std::env::var_os(VARIABLE).filter(|key| !key.is_empty()) {
            Some(key) => (key.to_string_lossy().into_owned(), VARIABLE.to_owned()),
            None => return Ok(None),
        },
    };
    check(&key).with_context(|| origin)?;
    Ok(Some(key))
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Nothing of a refused key is shown.
fn check(key: &str) -> Result<()> {
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("a key is visible ASCII without blanks");
    }
    if key.len() < MIN_KEY_CHARS {
        bail!("a key has {MIN_KEY_CHARS} characters or more: `openssl rand -hex 32` makes a good one");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser as _;

    fn key(words: &[&str]) -> Result<Option<String>> {
        let Command::Serve(serve) = Args::try_parse_from([&["sandcrab", "serve"], words].concat())?.command
        else {
            panic!("no serve")
        };
        of(&serve)
    }

    #[test]
    fn c02_a_key_that_can_be_guessed_is_refused_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let path = file.to_str().unwrap();
        for weak in ["", "8letters", "fifteen-letters", "a key of many words", "schlüssel-der-nicht-geht"] {
            std::fs::write(&file, weak).unwrap();
            for words in [["--api-key", weak], ["--api-key-file", path]] {
                let error = format!("{:#}", key(&words).unwrap_err());
                assert!(error.contains("--api-key"), "{error}");
                assert!(weak.is_empty() || !error.contains(weak), "{error}");
            }
        }
        std::fs::write(&file, "sixteen-letters!\n").unwrap();
        assert_eq!(key(&["--api-key-file", path]).unwrap().unwrap(), "sixteen-letters!");
        assert_eq!(key(&["--api-key", "sixteen-letters!"]).unwrap().unwrap(), "sixteen-letters!");
        assert_eq!(key(&["--no-auth"]).unwrap(), None);
        let missing = format!("{:#}", key(&["--api-key-file", "/no/such/file"]).unwrap_err());
        assert!(missing.contains("/no/such/file"), "{missing}");
        assert!(key(&["--no-auth", "--api-key-file", path]).is_err());
        assert!(key(&["--api-key", "sixteen-letters!", "--api-key-file", path]).is_err());
    }
}
