//! Credentials for one call: in a memory file that git's helper reads, and that is empty once the call is over
//! (contract G01).
//!
//! git gets a helper that is a line of shell: it prints that file, by the number that it has in git and in all that git
//! starts. So the secret is in no argument, no variable and no file with a name, and git asks for it only when the host of
//! the URL wants it: the helper is set for that host alone, and a redirect elsewhere does not get it. The user's own
//! helpers are left out for the call, since git would give them what worked to keep.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::write;
use sandcrab_api::git::{Credentials, GitUrl};
use std::io;

/// The file's number in git.
pub(super) const FD: i32 = 3;

/// Prints the file when git asks for credentials. Opened anew each time, because git may ask twice; without programs,
/// because images differ in what they have.
const HELPER: &str = "!f() { test \"$1\" = get || return 0; while IFS= read -r line; do printf '%s\\n' \"$line\"; \
                      done </proc/self/fd/3; }; f";

/// The memory file. Whatever still holds it when this goes away finds it empty.
#[derive(Debug)]
pub(super) struct Lent(OwnedFd);

impl Lent {
    pub(super) fn new(Credentials { username, password }: &Credentials) -> io::Result<Self> {
        // Without MFD_ALLOW_SEALING nobody can keep it from being emptied.
        let lent = Self(memfd_create("git-credentials", MemfdFlags::CLOEXEC)?);
        // gitcredentials(7); neither holds a line's end.
        let text = format!("username={username}\npassword={password}\n");
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let count = write(&lent.0, rest)?;
            rest = &rest[count..];
        }
        Ok(lent)
    }
}

impl AsFd for Lent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Err(errno) = ftruncate(&self.0, 0) {
            tracing::error!(%errno, "lent credentials could not be wiped");
        }
    }
}

/// The configuration that makes git ask the helper, and nobody else, for this URL's host.
pub(super) fn settings(url: &GitUrl) -> [String; 2] {
    ["credential.helper=".to_owned(), format!("credential.{}.helper={HELPER}", url.origin())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::pread;

    #[test]
    fn g01_what_was_lent_is_gone_whoever_kept_it() {
        let credentials = Credentials { username: "me".into(), password: "secret".into() };
        let lent = Lent::new(&credentials).unwrap();
        let kept = lent.as_fd().try_clone_to_owned().unwrap();
        let read = || {
            let mut buffer = [0; 64];
            let count = pread(&kept, &mut buffer, 0).unwrap();
            String::from_utf8(buffer[..count].to_vec()).unwrap()
        };
        assert_eq!(read(), "username=me\npassword=secret\n");
        assert!(rustix::fs::fcntl_add_seals(&kept, rustix::fs::SealFlags::SHRINK).is_err());
        drop(lent);
        assert_eq!(read(), "");
    }
}
