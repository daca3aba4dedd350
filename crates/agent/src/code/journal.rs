//! What one run has written and shown, in the order in which it came, bounded.
//!
//! Records follow each other in memory up to [`INLINE`] bytes, else in one unlinked file on the sandbox's disk: the memory
//! that a run costs does not grow with what it prints, and any number of readers follow it by position.

use crate::exec::spool::{INLINE, SpoolDir};
use sandcrab_api::exec::LostReason;
use sandcrab_api::limits::MAX_RUN_OUTPUT_BYTES;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text of stdout.
    Stdout,
    /// Text of stderr.
    Stderr,
    /// A result as a JSON object.
    Result,
}

const KINDS: [Kind; 3] = [Kind::Stdout, Kind::Stderr, Kind::Result];
/// A byte of kind and four of length.
const HEAD: u64 = 5;

#[derive(Debug)]
enum Store {
    Memory(Vec<u8>),
    File(File),
}

/// One run's records.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: Arc<SpoolDir>,
    store: Store,
    length: u64,
    /// Bytes kept, by kind.
    kept: [u64; 3],
    /// Bytes of output, and number of results, that are not kept.
    dropped: [u64; 3],
    /// What was kept has been given up, or the disk is full.
    closed: bool,
    /// Why something could not be kept.
    reason: Option<LostReason>,
}

/// A record and where the next one begins.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) content: Vec<u8>,
    pub(crate) next: u64,
}

impl Journal {
    pub(crate) fn new(dir: Arc<SpoolDir>) -> Self {
        let store = Store::Memory(Vec::new());
        Self { dir, store, length: 0, kept: [0; 3], dropped: [0; 3], closed: false, reason: None }
    }

    /// Adds a record; never fails: what has no room is counted as dropped.
    pub(crate) fn append(&mut self, kind: Kind, content: &[u8]) {
        let index = kind as usize;
        let size = content.len() as u64;
        let fits = !self.closed && self.kept[index] + size <= MAX_RUN_OUTPUT_BYTES;
        // The first that is dropped ends its kind: a later one behind a gap would read as if it were whole.
        if fits && self.dropped[index] == 0 {
            match self.write(kind, content) {
                Ok(()) => return self.kept[index] += size,
                Err(error) => {
                    self.closed = true;
                    self.reason = Some(self.dir.lost(&error));
                }
            }
        }
        self.dropped[index] += if kind == Kind::Result { 1 } else { size };
    }

    fn write(&mut self, kind: Kind, content: &[u8]) -> io::Result<()> {
        let mut record = Vec::with_capacity(content.len() + HEAD as usize);
        record.push(kind as u8);
        record.extend_from_slice(&(content.len() as u32).to_le_bytes());
        record.extend_from_slice(content);
        if let Store::Memory(memory) = &mut self.store {
            let length = memory.len() + record.len();
            if length <= INLINE {
                // As a Vec grows by itself, but never past the bound.
                if length > memory.capacity() {
                    let room = (2 * memory.len()).clamp(length, INLINE);
                    memory.reserve_exact(room - memory.len());
                }
                memory.extend_from_slice(&record);
                self.length = memory.len() as u64;
                return Ok(());
            }
            let file = self.dir.file()?;
            file.write_all_at(memory, 0)?;
            self.store = Store::File(file);
        }
        if let Store::File(file) = &self.store {
            file.write_all_at(&record, self.length)?;
            self.length += record.len() as u64;
        }
        Ok(())
    }

    /// Why output is gone that was within the bounds.
    pub(crate) fn reason(&self) -> Option<LostReason> {
        self.reason
    }

    /// The record at a position where one begins; none at the end, or where none begins.
    pub(crate) fn read(&self, at: u64) -> io::Result<Option<Record>> {
        let Some(room) = self.length.checked_sub(at).filter(|room| *room >= HEAD) else { return Ok(None) };
        let mut head = [0; HEAD as usize];
        self.read_at(&mut head, at)?;
        let [kind, length @ ..] = head;
        let length = u64::from(u32::from_le_bytes(length));
        let Some(kind) = KINDS.get(usize::from(kind)).filter(|_| length <= room - HEAD) else {
            return Ok(None);
        };
        let mut content = vec![0; length as usize];
        self.read_at(&mut content, at + HEAD)?;
        Ok(Some(Record { kind: *kind, content, next: at + HEAD + length }))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match &self.store {
            Store::File(file) => file.read_exact_at(buffer, at),
            Store::Memory(bytes) => {
                let at = at as usize;
                let found = bytes.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(found);
                Ok(())
            }
        }
    }

    /// Bytes of stdout, bytes of stderr and the number of results that were dropped.
    pub(crate) fn dropped(&self) -> [u64; 3] {
        self.dropped
    }

    /// Bytes that a whole result takes, about.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of memory and of disk that it holds.
    pub(crate) fn held(&self) -> (u64, u64) {
        match &self.store {
            Store::Memory(bytes) => (bytes.capacity() as u64, 0),
            Store::File(_) => (0, self.length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(journal: &Journal) -> Vec<(Kind, Vec<u8>)> {
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(record) = journal.read(at).unwrap() {
            at = record.next;
            found.push((record.kind, record.content));
        }
        found
    }

    proptest! {
        #[test]
        fn k01_records_come_back_in_order(pieces in prop::collection::vec((0usize..3, 0usize..9000), 0..20)) {
            let mut journal = Journal::new(SpoolDir::open("/tmp"));
            let pieces: Vec<_> = pieces.into_iter().map(|(kind, size)| (KINDS[kind], vec![b'x'; size])).collect();
            for (kind, content) in &pieces {
                journal.append(*kind, content);
            }
            prop_assert_eq!(all(&journal), pieces);
            prop_assert!(journal.held().0 <= INLINE as u64);
        }
    }

    #[test]
    fn k01_what_is_too_much_is_counted_and_other_kinds_go_on() {
        let mut journal = Journal::new(SpoolDir::open("/tmp"));
        let block = vec![b'x'; 1 << 20];
        for _ in 0..70 {
            journal.append(Kind::Stdout, &block);
        }
        journal.append(Kind::Stderr, b"seen");
        assert_eq!(journal.dropped(), [6 << 20, 0, 0]);
        assert_eq!(all(&journal).pop(), Some((Kind::Stderr, b"seen".to_vec())));
        assert_eq!(journal.held().0, 0);
    }

    #[test]
    fn k01_a_disk_that_is_full_drops_and_counts() {
        // O_TMPFILE is refused below /proc: like a full disk, nothing can be stored.
        let mut journal = Journal::new(SpoolDir::open("/proc"));
        journal.append(Kind::Result, b"{}");
        journal.append(Kind::Stdout, &vec![b'x'; 1 << 20]);
        journal.append(Kind::Result, b"{}");
        assert_eq!(journal.dropped(), [1 << 20, 0, 1]);
        assert_eq!(all(&journal), [(Kind::Result, b"{}".to_vec())]);
    }
}
