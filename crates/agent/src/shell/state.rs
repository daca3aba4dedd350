//! A session's state between two shells: what the builtin wrote after a command, kept as it came.
//!
//! The bytes come from a process that the user controls, so they are read with bounds and believed in nothing: a state
//! that lies can only harm the session that it belongs to. Large states stay in the memory file in which the shell
//! wrote them, which is charged to the sandbox and sealed on arrival; the agent reads the little it needs.

use super::protocol::StateBytes;
use bytes::Bytes;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use std::collections::BTreeMap;
use std::io;

const MAGIC: u32 = u32::from_ne_bytes(*b"SCT1");
const HEAD: u64 = 16;
const PART: usize = 24;
/// No environment that an exec could take is longer (the kernel's limit follows the stack limit, 8 MiB / 4 by default).
pub(super) const MAX_ENVIRONMENT: u64 = 4 << 20;
/// More parts than this are no state of a shell.
const MAX_PARTS: u32 = 1 << 20;

const SCALAR: u32 = 1;
const FUNCTION: u32 = 5;
const CWD: u32 = 11;
/// Named only: no state carries it.
pub(super) const LOST: u32 = 17;
const ATT_EXPORTED: u32 = 1;
const ATT_INVISIBLE: u32 = 0x1000;

/// The name of a kind of part, for people.
pub(super) fn kind_name(kind: u32) -> &'static str {
    match kind {
        1 => "variable",
        2 => "array",
        3 => "associative array",
        4 => "nameref",
        5 => "function",
        6 => "alias",
        7 => "trap",
        8 => "set options",
        9 => "shell options",
        10 => "umask",
        11 => "working directory",
        12 => "positional parameter",
        13 => "disabled builtin",
        14 => "unset special variable",
        15 => "restricted mode",
        16 => "directory stack",
        LOST => "what was set by",
        _ => "part",
    }
}

/// The state of a session at the end of a command.
#[derive(Debug)]
pub struct State {
    source: Source,
    length: u64,
}

#[derive(Debug)]
enum Source {
    Inline(Bytes),
    File(OwnedFd),
}

/// The part of a state that other processes of the session start with (contract S14).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Exported variables and functions, as an exec takes them. Values are bytes: not every one is text.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The working directory.
    pub cwd: Option<Vec<u8>>,
}

impl State {
    /// A state as a shell sent it; none if it is no state.
    pub(super) fn receive(bytes: StateBytes) -> io::Result<Option<Self>> {
        let source = match bytes {
            StateBytes::Inline(bytes) => Source::Inline(bytes),
            StateBytes::File(fd) => {
                // From here on nobody can change it, not even who still has it open.
                rustix::fs::fcntl_add_seals(
                    &fd,
                    SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
                )?;
                Source::File(fd)
            }
        };
        Self::checked(source)
    }

    /// A state from bytes that [`State::to_bytes`] gave.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        Self::checked(Source::Inline(bytes)).ok().flatten()
    }

    /// A state that holds no more than this.
    pub(super) fn from_exported(exported: &Exported) -> Option<Self> {
        let variables =
            exported.environment.iter().map(|(name, value)| (SCALAR, ATT_EXPORTED, &name[..], &value[..]));
        let cwd = exported.cwd.iter().map(|cwd| (CWD, 0, &b""[..], &cwd[..]));
        let mut bytes = vec![0; HEAD as usize];
        let mut parts = 0u32;
        for (kind, attributes, name, text) in variables.chain(cwd) {
            for word in [kind, attributes, u32::try_from(name.len()).ok()?, 0] {
                bytes.extend_from_slice(&word.to_ne_bytes());
            }
            bytes.extend_from_slice(&(text.len() as u64).to_ne_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(text);
            parts += 1;
        }
        let length = bytes.len() as u64;
        bytes[..4].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[4..8].copy_from_slice(&parts.to_ne_bytes());
        bytes[8..16].copy_from_slice(&length.to_ne_bytes());
        Self::from_bytes(bytes.into())
    }

    fn checked(source: Source) -> io::Result<Option<Self>> {
        let length = match &source {
            Source::Inline(bytes) => bytes.len() as u64,
            Source::File(fd) => rustix::fs::fstat(fd)?.st_size.cast_unsigned(),
        };
        let state = Self { source, length };
        let mut head = [0; HEAD as usize];
        state.read(0, &mut head)?;
        let magic = head.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
        let said = head.last_chunk::<8>().map(|b| u64::from_ne_bytes(*b));
        Ok((magic == Some(MAGIC) && said == Some(length)).then_some(state))
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a state is never empty: it has a head")]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// All of it, to be kept outside of memory. As large as the largest variable of the session.
    pub fn to_bytes(&self) -> io::Result<Bytes> {
        match &self.source {
            Source::Inline(bytes) => Ok(bytes.clone()),
            Source::File(_) => {
                let mut all = vec![0; self.length as usize];
                self.read(0, &mut all)?;
                Ok(all.into())
            }
        }
    }

    /// A file from which a shell can read it.
    pub(super) fn file(&self) -> io::Result<OwnedFd> {
        match &self.source {
            Source::File(fd) => Ok(fd.try_clone()?),
            Source::Inline(bytes) => {
                let fd = rustix::fs::memfd_create("sandcrab-state", MemfdFlags::CLOEXEC)?;
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let n = rustix::io::write(&fd, rest)?;
                    rest = &rest[n..];
                }
                Ok(fd)
            }
        }
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match &self.source {
            Source::Inline(bytes) => {
                let at = usize::try_from(at).map_err(|_| short())?;
                let from = bytes.get(at..).and_then(|rest| rest.get(..into.len())).ok_or_else(short)?;
                into.copy_from_slice(from);
            }
            Source::File(fd) => {
                let mut done = 0;
                while done < into.len() {
                    let n = rustix::io::pread(fd.as_fd(), &mut into[done..], at + done as u64)?;
                    if n == 0 {
                        return Err(short());
                    }
                    done += n;
                }
            }
        }
        Ok(())
    }

    /// What processes of the session start with. Reads only the exported parts.
    pub fn exported(&self) -> io::Result<Exported> {
        let mut exported = Exported::default();
        let mut head = [0; HEAD as usize];
        self.read(0, &mut head)?;
        let parts = head[4..].first_chunk::<4>().map_or(0, |b| u32::from_ne_bytes(*b)).min(MAX_PARTS);
        let mut budget = MAX_ENVIRONMENT;
        let mut at = HEAD;
        for _ in 0..parts {
            let mut part = [0; PART];
            self.read(at, &mut part)?;
            let word = |i: usize| part[i * 4..].first_chunk::<4>().map_or(0, |b| u32::from_ne_bytes(*b));
            let (kind, attributes, name_length) = (word(0), word(1), u64::from(word(2)));
            let text_length = part.last_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
            let name_at = at + PART as u64;
            at = name_at.saturating_add(name_length).saturating_add(text_length);
            let exported_here = matches!(kind, SCALAR | FUNCTION) && attributes & ATT_EXPORTED != 0;
            if !(kind == CWD || exported_here && attributes & ATT_INVISIBLE == 0) {
                continue;
            }
            let Some(left) = budget.checked_sub(name_length.saturating_add(text_length)) else { continue };
            budget = left;
            let mut name = vec![0; name_length as usize];
            let mut text = vec![0; text_length as usize];
            self.read(name_at, &mut name)?;
            self.read(name_at + name_length, &mut text)?;
            match kind {
                CWD => exported.cwd = Some(text),
                // As bash exports a function: its text without the name.
                FUNCTION => {
                    if let Some(body) = text.strip_prefix(&name[..]) {
                        let key = [b"BASH_FUNC_", &name[..], b"%%"].concat();
                        exported.environment.insert(key, body.trim_ascii_start().to_vec());
                    }
                }
                _ => {
                    exported.environment.insert(name, text);
                }
            }
        }
        Ok(exported)
    }
}
