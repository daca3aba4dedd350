//! Sessions in an image whose shell cannot load the session loop: dash, busybox, a static bash.
//!
//! Every command gets a shell of its own, started in the session's directory with the session's environment. Nothing that
//! one command does to its shell can then hang or confuse the next one, which no wrapper line around a lasting shell
//! achieves. What carries over is what such a shell can print so that it can be read back for certain: exported variables
//! and the working directory. Functions, aliases, plain variables, options and traps end with their command.
//!
//! The shell runs [`MAIN`], which sources the command from one memory file and prints the environment to another, by
//! special builtins alone: POSIX looks those up before functions.

use super::live::{StartError, agent};
use super::processes::Processes;
use super::protocol::Assignment;
use super::state::Exported;
use crate::spawn::{Child, SpawnSpec, Spawner};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::MemfdFlags;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;

/// The command is in descriptor 8, the answer goes to 9. The subshells keep a failing redirection (a closed 9) from
/// ending the shell or saying so.
const MAIN: &str = "trap '(echo exit; export PWD; export -p) >&9 2>/dev/null' EXIT; . /proc/self/fd/8; \
    set -- \"$?\"; trap - EXIT; (echo done; export PWD; export -p) >&9 2>/dev/null; exit \"$1\"";

/// A shell that runs one command.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) child: Child,
    /// As /proc shows it.
    pub(super) line: Vec<u8>,
    answer: OwnedFd,
}

/// A command, and the `$?` that it begins with.
pub(super) struct Text<'a> {
    pub(super) command: &'a [u8],
    pub(super) last_status: i32,
}

/// What a shell said at its end.
pub(super) struct Said {
    /// It came to the end of the command, as opposed to having been left by `exit` or `set -e`.
    pub(super) completed: bool,
    /// The state at that moment.
    pub(super) exported: Exported,
}

impl Plain {
    pub(super) fn start(
        spawner: &Spawner,
        program: &CStr,
        processes: &mut Processes,
        environment: &BTreeMap<Vec<u8>, Vec<u8>>,
        cwd: &CStr,
        text: &Text<'_>,
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Self, StartError> {
        let file = |what| {
            rustix::fs::memfd_create("sandcrab-command", MemfdFlags::CLOEXEC)
                .map_err(|e| agent(what)(e.into()))
        };
        let command = file("making a file for the command")?;
        // On the command's own first line, so that its line numbers are right.
        let status = match text.last_status {
            0 => String::new(),
            status => format!("(exit {status}); "),
        };
        for mut rest in [&b"exec 8<&-; "[..], status.as_bytes(), text.command, b"\n"] {
            while !rest.is_empty() {
                let n =
                    rustix::io::write(&command, rest).map_err(|e| agent("writing the command")(e.into()))?;
                rest = &rest[n..];
            }
        }
        let answer = file("making a file for the answer")?;
        let args = ["sh", "-c", MAIN, "sh"].map(|arg| CString::new(arg).unwrap_or_default());
        let env: Vec<_> = environment
            .iter()
            .filter_map(|(name, value)| CString::new([name, &b"="[..], value].concat()).ok())
            .collect();
        let subreaper = processes.needs_subreaper();
        let child = spawner.spawn(&SpawnSpec {
            program,
            args: &args,
            env: &env,
            cwd: Some(cwd),
            fds: &[(stdio[0], 0), (stdio[1], 1), (stdio[2], 2), (command.as_fd(), 8), (answer.as_fd(), 9)],
            cgroup: processes.for_new_shell().map_err(agent("making a process group"))?,
            subreaper,
        })?;
        let line = args.iter().flat_map(|arg| arg.as_bytes_with_nul()).copied().collect();
        Ok(Self { child, line, answer })
    }

    /// What it said, once it has ended; none if it was replaced or killed.
    pub(super) fn said(&self) -> io::Result<Option<Said>> {
        let length =
            rustix::fs::fstat(&self.answer)?.st_size.cast_unsigned().min(super::state::MAX_ENVIRONMENT);
        let mut text = vec![0; length as usize];
        let mut done = 0;
        while done < text.len() {
            match rustix::io::pread(&self.answer, &mut text[done..], done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        text.truncate(done);
        let Some(end) = text.iter().position(|b| *b == b'\n') else { return Ok(None) };
        let completed = match &text[..end] {
            b"done" => true,
            b"exit" => false,
            _ => return Ok(None),
        };
        let environment = parse_exports(&text[end + 1..]);
        let cwd = environment.get(&b"PWD"[..]).cloned();
        Ok(Some(Said { completed, exported: Exported { environment, cwd } }))
    }
}

/// Makes the changes that are due in an environment.
pub(super) fn apply(environment: &mut BTreeMap<Vec<u8>, Vec<u8>>, due: &[Assignment]) {
    for change in due {
        let now = environment.get(change.name.as_bytes()).map(Vec::as_slice);
        if change.only_if.as_ref().is_some_and(|expected| expected.as_deref().map(str::as_bytes) != now) {
            continue;
        }
        match &change.value {
            Some(value) => drop(environment.insert(change.name.clone().into(), value.clone().into())),
            None => drop(environment.remove(change.name.as_bytes())),
        }
    }
}

/// A path as seen from a directory.
pub(super) fn join(directory: &[u8], path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") { path.to_vec() } else { [directory, b"/", path].concat() }
}

/// Reads what `export -p` prints: `export NAME=VALUE` lines whose values are quoted as the shell itself would read them.
fn parse_exports(text: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut after_export = false;
    for word in (Words { text, at: 0 }) {
        if !after_export {
            after_export = word == b"export" || word == b"-x";
            continue;
        }
        after_export = false;
        if let Some(equals) = word.iter().position(|b| *b == b'=') {
            all.insert(word[..equals].to_vec(), word[equals + 1..].to_vec());
        }
    }
    all
}

/// The words of a shell text in which nothing is left to expand.
struct Words<'a> {
    text: &'a [u8],
    at: usize,
}

impl Words<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.text.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn until(&mut self, close: u8, escapes: &[u8], word: &mut Vec<u8>) {
        while let Some(b) = self.byte() {
            match b {
                _ if b == close => return,
                b'\\' if !escapes.is_empty() => match self.byte() {
                    Some(b'\n') => {}
                    Some(next) if escapes.contains(&next) => word.push(next),
                    Some(next) => word.extend_from_slice(&[b'\\', next]),
                    None => word.push(b'\\'),
                },
                _ => word.push(b),
            }
        }
    }

    /// Inside `$'...'`, which only bash prints.
    fn ansi(&mut self, word: &mut Vec<u8>) {
        while let Some(b) = self.byte() {
            match (b, if b == b'\\' { self.byte() } else { None }) {
                (b'\'', _) => return,
                (b'\\', Some(b'n')) => word.push(b'\n'),
                (b'\\', Some(b't')) => word.push(b'\t'),
                (b'\\', Some(b'r')) => word.push(b'\r'),
                (b'\\', Some(b'a')) => word.push(7),
                (b'\\', Some(b'b')) => word.push(8),
                (b'\\', Some(b'v')) => word.push(11),
                (b'\\', Some(b'f')) => word.push(12),
                (b'\\', Some(b'E' | b'e')) => word.push(27),
                (b'\\', Some(digit @ b'0'..=b'7')) => {
                    let mut value = u32::from(digit - b'0');
                    while let Some(next @ b'0'..=b'7') =
                        self.text.get(self.at).copied().filter(|_| value < 0o40)
                    {
                        value = value * 8 + u32::from(next - b'0');
                        self.at += 1;
                    }
                    word.push(value as u8);
                }
                (b'\\', Some(other)) => word.push(other),
                (other, _) => word.push(other),
            }
        }
    }
}

impl Iterator for Words<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        let mut word = Vec::new();
        self.text.get(self.at)?;
        while let Some(b) = self.byte() {
            match b {
                b'\'' => self.until(b'\'', b"", &mut word),
                b'"' => self.until(b'"', b"$`\"\\", &mut word),
                b'$' if self.text.get(self.at) == Some(&b'\'') => {
                    self.at += 1;
                    self.ansi(&mut word);
                }
                b'\\' => word.extend(self.byte()),
                b if b.is_ascii_whitespace() => break,
                b => word.push(b),
            }
        }
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s05_exports_are_read_as_shells_print_them() {
        let text = b"export A='1'\nexport B='it'\"'\"'s\nmore'\nexport C\nexport D=\"a\\$b\\\\\\\"\"\ndeclare -x E=$'\\n\\377x'\nexport F=''\n";
        let all = parse_exports(text);
        let get = |name: &str| all.get(name.as_bytes()).map(Vec::as_slice);
        assert_eq!(get("A"), Some(&b"1"[..]));
        assert_eq!(get("B"), Some(&b"it's\nmore"[..]));
        assert_eq!(get("C"), None);
        assert_eq!(get("D"), Some(&b"a$b\\\""[..]));
        assert_eq!(get("E"), Some(&b"\n\xffx"[..]));
        assert_eq!(get("F"), Some(&b""[..]));
    }
}
