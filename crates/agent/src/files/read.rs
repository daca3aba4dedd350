//! Reading: whole files into one answer, and files of any length piece by piece.

use super::error::{FileError, Reason};
use super::mime::media_type;
use super::root::{Access, FilePath, require_file};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::memchr;
use rustix::buffer::spare_capacity;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::{Errno, pread};
use sandcrab_api::files::{FileEncoding, ReadFileResult};
use sandcrab_api::limits;
use sandcrab_api::time::Timestamp;

/// Bytes read at a time. A file that is no longer is opened and read in one go, so that it costs one wake-up of a
/// blocking thread.
pub(crate) const CHUNK: usize = 1 << 20;

/// A stream looks a file of up to this many bytes through before it says whether it is text.
const LOOK_THROUGH: u64 = 16 << 20;

/// A regular file open for reading.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) path: FilePath,
    file: OwnedFd,
    /// Its length when it was opened. What is appended later is not streamed, so a reader comes to an end.
    pub(crate) size: u64,
    /// How much of it has been read.
    pub(crate) done: u64,
}

/// What can be said of a file before its content is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) is_binary: bool,
    pub(crate) mime_type: &'static str,
}

impl Access<'_> {
    /// Opens a regular file; anything else is refused without being opened (attacks B04, B05).
    pub(crate) fn open_file(&self, path: &FilePath) -> Result<Opened, FileError> {
        let node = self.node(path)?;
        require_file(&node.stat, path)?;
        let file = self.open(&node, OFlags::RDONLY, path)?;
        Ok(Opened { path: path.clone(), file, size: node.stat.stx_size, done: 0 })
    }

    /// Reads a whole file into one answer.
    pub(crate) fn read_file(
        &self,
        path: &FilePath,
        encoding: Option<FileEncoding>,
    ) -> Result<ReadFileResult, FileError> {
        let bytes = self.open_file(path)?.whole()?;
        let size = bytes.len() as u64;
        let Description { is_binary, mime_type } = describe(path, &bytes, is_binary(&bytes));
        let wanted = encoding.unwrap_or(if is_binary { FileEncoding::Base64 } else { FileEncoding::Utf8 });
        let encode = |bytes: &[u8]| (FileEncoding::Base64, BASE64.encode(bytes));
        let (encoding, content) = match wanted {
            FileEncoding::Base64 => encode(&bytes),
            FileEncoding::Utf8 => match String::from_utf8(bytes) {
                Ok(text) => (FileEncoding::Utf8, text),
                Err(error) => encode(error.as_bytes()),
            },
        };
        Ok(ReadFileResult {
            success: true,
            path: path.asked.clone(),
            encoding,
            is_binary,
            mime_type: mime_type.to_owned(),
            size,
            timestamp: Timestamp::now(),
            content,
        })
    }
}

impl Opened {
    /// The whole content as it is now.
    fn whole(&mut self) -> Result<Vec<u8>, FileError> {
        self.require_readable(self.size)?;
        // One byte more than its length, so that the read that fills it also sees that this was all.
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or(CHUNK) + 1);
        while self.read_into(&mut bytes)? > 0 {
            self.require_readable(bytes.len() as u64)?;
            if bytes.len() == bytes.capacity() {
                bytes.reserve(CHUNK);
            }
        }
        Ok(bytes)
    }

    fn require_readable(&self, size: u64) -> Result<(), FileError> {
        if size > limits::MAX_READ_BYTES { Err(self.path.fail(Reason::TooLarge { size })) } else { Ok(()) }
    }

    /// The next bytes, `most` of them where there are as many; none at the end.
    pub(crate) fn next(&mut self, most: usize) -> Result<Vec<u8>, FileError> {
        let left = usize::try_from(self.size - self.done).unwrap_or(usize::MAX);
        let wanted = most.min(left);
        let mut bytes = Vec::with_capacity(wanted);
        while bytes.len() < wanted {
            if self.read_into(&mut bytes)? == 0 {
                return Err(self.path.fail(Reason::Shrank));
            }
        }
        // An allocator may give more room than asked for.
        let excess = bytes.len() - wanted;
        bytes.truncate(wanted);
        self.done -= excess as u64;
        Ok(bytes)
    }

    fn read_into(&mut self, bytes: &mut Vec<u8>) -> Result<usize, FileError> {
        loop {
            match pread(&self.file, spare_capacity(bytes), self.done) {
                Err(Errno::INTR) => {}
                Ok(count) => {
                    self.done += count as u64;
                    return Ok(count);
                }
                Err(errno) => return Err(self.path.fail(Reason::Kernel(errno))),
            }
        }
    }

    /// Says what the file is, given its beginning, and whether all of it is UTF-8. Looks through the whole of it.
    pub(crate) fn look_through(&mut self, first: &[u8]) -> Result<(Description, bool), FileError> {
        let at = self.done;
        let (mut has_nul, mut is_utf8) = (false, true);
        let mut rest = Vec::new();
        let mut piece = first.to_vec();
        loop {
            has_nul |= memchr(0, &piece).is_some();
            if is_utf8 {
                rest.append(&mut piece);
                match complete_text(&rest) {
                    Ok(whole) => drop(rest.drain(..whole)),
                    Err(_) => is_utf8 = false,
                }
            }
            if self.done == self.size || (has_nul && !is_utf8) {
                break;
            }
            piece = self.next(super::stream::PIECE)?;
        }
        self.done = at;
        is_utf8 &= rest.is_empty();
        Ok((describe(&self.path, first, has_nul || !is_utf8), is_utf8))
    }

    /// Says what the file is, given its first [`CHUNK`]. Exact for files of up to [`LOOK_THROUGH`] bytes; longer ones
    /// are judged by their beginning.
    pub(crate) fn describe(&mut self, first: &[u8]) -> Result<Description, FileError> {
        let binary = match complete_text(first) {
            Ok(complete) if memchr(0, first).is_none() => {
                if self.done == self.size {
                    complete < first.len()
                } else {
                    self.size <= LOOK_THROUGH && self.rest_is_binary(&first[complete..])?
                }
            }
            _ => true,
        };
        Ok(describe(&self.path, first, binary))
    }

    /// Looks the rest through, which begins with `cut`, the bytes of a character that were read before.
    fn rest_is_binary(&mut self, cut: &[u8]) -> Result<bool, FileError> {
        let at = self.done;
        let mut text = cut.to_vec();
        while self.done < self.size {
            text.extend(self.next(CHUNK)?);
            match complete_text(&text) {
                Ok(complete) if memchr(0, &text).is_none() => text.drain(..complete),
                _ => {
                    self.done = at;
                    return Ok(true);
                }
            };
        }
        self.done = at;
        Ok(!text.is_empty())
    }
}

/// Whether bytes are no text: no UTF-8, or with NUL, which no text has.
fn is_binary(bytes: &[u8]) -> bool {
    memchr(0, bytes).is_some() || std::str::from_utf8(bytes).is_err()
}

fn describe(path: &FilePath, start: &[u8], is_binary: bool) -> Description {
    let name = path.split().map_or(&b""[..], |(_, name)| name);
    Description { is_binary, mime_type: media_type(name, start, is_binary) }
}

/// How many bytes of `bytes` are whole characters, where at most the last one is cut off; else where the first byte
/// is that no UTF-8 has there.
pub(crate) fn complete_text(bytes: &[u8]) -> Result<usize, usize> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(error) => Err(error.valid_up_to()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s02_a_cut_character_is_told_from_a_wrong_byte() {
        assert_eq!(complete_text("aé".as_bytes()), Ok(3));
        assert_eq!(complete_text(b"a\xc3"), Ok(1));
        assert_eq!(complete_text(b"\xf0\x9f\x98"), Ok(0));
        assert_eq!(complete_text(b"ab\xff"), Err(2));
        assert!(is_binary(b"a\0"));
        assert!(!is_binary("ünï\n".as_bytes()));
    }
}
