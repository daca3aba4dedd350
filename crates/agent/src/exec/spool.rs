//! What one output stream of a command has written, bounded (contract S13).
//!
//! ```text
//! written:  0 ───────── head ─────────┃╌╌╌╌╌ dropped ╌╌╌╌╌┃──────── tail ──────── written
//! stored:   memory up to INLINE bytes, else one unlinked file on the sandbox's disk:
//!           [0, head) as it came, then [head, limit) as a ring
//! ```
//!
//! The memory that a stream costs does not grow with what the command prints. A reader follows by raw byte offset, so
//! that a lost connection resumes without a gap or a repeat (contract S12).

use crate::events::Events;
use rustix::fs::{Mode, OFlags};
use sandcrab_api::exec::LostReason;
use sandcrab_api::sandbox::AgentEventKind;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of one stream that are kept in memory; more moves to the disk.
pub(crate) const INLINE: usize = 16 << 10;

/// How often, at most, an event tells that output is lost. Each result says it for itself.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Makes the files that hold what does not fit memory.
#[derive(Debug)]
pub(crate) struct SpoolDir {
    directory: rustix::fd::OwnedFd,
    events: Arc<Events>,
    told: Mutex<Option<Instant>>,
}

impl SpoolDir {
    /// A directory on the sandbox's disk, to which no path inside leads.
    pub(crate) fn new(directory: rustix::fd::OwnedFd, events: Arc<Events>) -> Arc<Self> {
        Arc::new(Self { directory, events, told: Mutex::default() })
    }

    #[cfg(test)]
    pub(crate) fn open(path: &str) -> Arc<Self> {
        Self::new(File::open(path).unwrap().into(), Arc::default())
    }

    /// Tells that output is lost, and says why as a result does.
    pub(crate) fn lost(&self, error: &io::Error) -> LostReason {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            let reason = format!("output could not be written to the sandbox's disk: {error}");
            self.events.add(AgentEventKind::OutputLost, reason, serde_json::Value::Null);
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LostReason::DiskFull,
            _ => LostReason::DiskFailed,
        }
    }

    /// A file without a name: it is gone when it is closed, whatever happens to the agent.
    pub(crate) fn file(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.directory, ".", flags, Mode::RUSR | Mode::WUSR)?))
    }
}

#[derive(Debug)]
enum Store {
    Memory(Vec<u8>),
    File(File),
}

/// One stream's bytes.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: Arc<SpoolDir>,
    store: Store,
    /// Bytes kept from the beginning.
    head: u64,
    /// Bytes kept from the end, once the head is full.
    ring: u64,
    written: u64,
    /// A ring's first offset that can still be kept: the disk was full before it.
    from: u64,
    /// Where the disk was full, or what was stored was given up: nothing from here on is kept.
    lost: Option<Lost>,
    /// Why something could not be stored.
    reason: Option<LostReason>,
}

#[derive(Clone, Copy, Debug)]
struct Lost {
    /// The first offset that is not kept.
    from: u64,
    /// The first offset of the tail that is still whole: a piece that failed half-way may have overwritten what
    /// stood before.
    tail: u64,
}

/// What a reader finds at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The next bytes are in the buffer: this many.
    Bytes(usize),
    /// This many bytes are no longer, or never were, kept.
    Dropped(u64),
    /// Nothing more has been written so far.
    End,
}

impl Spool {
    /// A spool that keeps at most `limit` bytes: the first and the last half.
    pub(crate) fn new(dir: Arc<SpoolDir>, limit: u64) -> Self {
        let head = limit.div_ceil(2);
        Self {
            dir,
            store: Store::Memory(Vec::new()),
            head,
            ring: limit - head,
            written: 0,
            from: 0,
            lost: None,
            reason: None,
        }
    }

    /// A spool that keeps the last `limit` bytes.
    pub(crate) fn ring(dir: Arc<SpoolDir>, limit: u64) -> Self {
        Self { head: 0, ring: limit, ..Self::new(dir, 0) }
    }

    /// Bytes that the command has written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that lie between head and tail, or could not be stored.
    pub(crate) fn dropped(&self) -> u64 {
        let end = self.end();
        self.written - end + (self.tail_start() - self.head.min(end))
    }

    /// Why bytes are gone that were within the bounds.
    pub(crate) fn reason(&self) -> Option<LostReason> {
        self.reason
    }

    /// Bytes of memory that it occupies.
    pub(crate) fn memory(&self) -> usize {
        match &self.store {
            Store::Memory(bytes) => bytes.capacity(),
            Store::File(_) => 0,
        }
    }

    /// Bytes of the disk that it occupies.
    pub(crate) fn disk(&self) -> u64 {
        match &self.store {
            Store::Memory(_) => 0,
            Store::File(_) => self.end().min(self.head + self.ring),
        }
    }

    /// Behind the last offset that is kept.
    fn end(&self) -> u64 {
        self.lost.map_or(self.written, |lost| lost.from)
    }

    /// The first offset of what is kept from the end; never before the head's end.
    fn tail_start(&self) -> u64 {
        let tail = self.lost.map_or_else(|| self.written.saturating_sub(self.ring), |lost| lost.tail);
        tail.max(self.from).clamp(self.head.min(self.end()), self.end())
    }

    /// Gives up what is stored: from now on all of it reads as dropped.
    pub(crate) fn forget(&mut self) {
        self.store = Store::Memory(Vec::new());
        self.lost = Some(Lost { from: 0, tail: 0 });
    }

    /// Takes bytes that the command wrote. Never fails: what the disk has no room for is counted as dropped.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let start = self.written;
        self.written += bytes.len() as u64;
        if self.lost.is_some() {
            return;
        }
        let Err(error) = self.store_at(start, bytes) else { return };
        self.reason = Some(self.dir.lost(&error));
        if self.head == 0 {
            // A ring has a hole at its beginning anyway: what comes when there is room again is kept.
            self.from = self.written;
        } else {
            // A stream with a hole in it stays closed: a later piece behind a gap would read as if it were whole.
            self.lost = Some(Lost { from: start, tail: self.written.saturating_sub(self.ring).min(start) });
        }
    }

    fn store_at(&mut self, start: u64, bytes: &[u8]) -> io::Result<()> {
        if let Store::Memory(memory) = &mut self.store {
            let whole = self.written <= self.head + self.ring;
            if whole && start == memory.len() as u64 && memory.len() + bytes.len() <= INLINE {
                memory.extend_from_slice(bytes);
                return Ok(());
            }
            let file = self.dir.file()?;
            file.write_all_at(memory, 0)?;
            self.store = Store::File(file);
        }
        let Store::File(file) = &self.store else { return Ok(()) };
        let mut offset = start;
        let mut rest = bytes;
        // What would be overwritten within this very call need not be written at all.
        if offset >= self.head && rest.len() as u64 > self.ring {
            let skip = rest.len() as u64 - self.ring;
            offset += skip;
            rest = &rest[skip as usize..];
        }
        while !rest.is_empty() {
            let (position, room) = self.place(offset);
            if room == 0 {
                return Ok(());
            }
            let count = room.min(rest.len() as u64) as usize;
            file.write_all_at(&rest[..count], position)?;
            offset += count as u64;
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Where an offset is stored, and how many bytes from there on lie together.
    fn place(&self, offset: u64) -> (u64, u64) {
        if offset < self.head {
            return (offset, self.head - offset);
        }
        if self.ring == 0 {
            return (self.head, 0);
        }
        let at = (offset - self.head) % self.ring;
        (self.head + at, self.ring - at)
    }

    /// Reads what stands at `offset` into `buffer`.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Piece> {
        if offset >= self.written {
            return Ok(Piece::End);
        }
        let end = self.end();
        if offset >= end {
            return Ok(Piece::Dropped(self.written - offset));
        }
        let tail = self.tail_start();
        if offset >= self.head && offset < tail {
            return Ok(Piece::Dropped(tail - offset));
        }
        let (position, together) = self.place(offset);
        let count = together.min(end - offset).min(buffer.len() as u64) as usize;
        match &self.store {
            Store::Memory(bytes) => {
                let from = offset as usize;
                let rest = bytes.get(from..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(Piece::Bytes(count))
            }
            Store::File(file) => {
                file.read_exact_at(&mut buffer[..count], position)?;
                Ok(Piece::Bytes(count))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spool(limit: u64) -> Spool {
        Spool::new(SpoolDir::open("/tmp"), limit)
    }

    /// Everything that can be read from `offset` on; dropped bytes become `None`.
    fn read_all(spool: &Spool, mut offset: u64, step: usize) -> Vec<Option<u8>> {
        let mut out = Vec::new();
        let mut buffer = vec![0; step];
        loop {
            match spool.read_at(offset, &mut buffer).unwrap() {
                Piece::Bytes(count) => {
                    assert!(count > 0);
                    out.extend(buffer[..count].iter().map(|b| Some(*b)));
                    offset += count as u64;
                }
                Piece::Dropped(count) => {
                    out.extend(std::iter::repeat_n(None, count as usize));
                    offset += count;
                }
                Piece::End => return out,
            }
        }
    }

    proptest! {
        #[test]
        fn s13_keeps_the_first_and_the_last_half(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..12),
            limit in prop_oneof![0u64..64, 1000u64..40_000, Just(1 << 20)],
            step in 1usize..5000,
        ) {
            let mut spool = spool(limit);
            for piece in &pieces {
                spool.append(piece);
            }
            let all: Vec<u8> = pieces.concat();
            let head = limit.div_ceil(2) as usize;
            let tail = (limit as usize - head).min(all.len());
            let expected: Vec<Option<u8>> = all
                .iter()
                .enumerate()
                .map(|(at, byte)| (at < head || at >= all.len() - tail).then_some(*byte))
                .collect();
            prop_assert_eq!(spool.written(), all.len() as u64);
            prop_assert_eq!(spool.dropped(), expected.iter().filter(|b| b.is_none()).count() as u64);
            prop_assert_eq!(read_all(&spool, 0, step), expected.clone());
            let middle = all.len() / 2;
            prop_assert_eq!(read_all(&spool, middle as u64, step), &expected[middle..]);
        }
    }

    proptest! {
        #[test]
        fn p03_a_ring_keeps_the_end(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..12),
            limit in prop_oneof![1u64..64, 1000u64..40_000, Just(1 << 20)],
            step in 1usize..5000,
        ) {
            let mut spool = Spool::ring(SpoolDir::open("/tmp"), limit);
            for piece in &pieces {
                spool.append(piece);
            }
            let all: Vec<u8> = pieces.concat();
            let dropped = all.len().saturating_sub(limit as usize);
            let expected: Vec<Option<u8>> =
                all.iter().enumerate().map(|(at, byte)| (at >= dropped).then_some(*byte)).collect();
            prop_assert_eq!(spool.dropped(), dropped as u64);
            prop_assert_eq!(read_all(&spool, 0, step), expected);
        }
    }

    proptest! {
        #[test]
        fn s13_a_disk_that_fills_up_is_counted_exactly(
            pieces in prop::collection::vec(1usize..9000, 2..16),
            full_after in 0usize..16,
            limit in prop_oneof![20_000u64..60_000, Just(1 << 20)],
        ) {
            let mut spool = spool(limit);
            let mut all = Vec::new();
            for (number, length) in pieces.into_iter().enumerate() {
                if number == full_after && let Store::File(file) = &spool.store {
                    // The same file, but nothing more can be written into it.
                    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
                    spool.store = Store::File(File::open(path).unwrap());
                }
                let piece = vec![number as u8; length];
                spool.append(&piece);
                all.extend(piece);
            }
            let read = read_all(&spool, 0, 777);
            prop_assert_eq!(read.len(), all.len());
            prop_assert!(read.iter().zip(&all).all(|(kept, wrote)| kept.is_none_or(|byte| byte == *wrote)));
            prop_assert_eq!(spool.dropped(), read.iter().filter(|byte| byte.is_none()).count() as u64);
        }
    }

    proptest! {
        #[test]
        fn p03_a_ring_goes_on_when_the_disk_has_room_again(
            pieces in prop::collection::vec(1usize..9000, 4..20),
            full_from in 0usize..20,
            full_for in 1usize..6,
            limit in prop_oneof![20_000u64..60_000, Just(1 << 20)],
        ) {
            let mut spool = Spool::ring(SpoolDir::open("/tmp"), limit);
            let mut room = None;
            let mut all = Vec::new();
            for (number, length) in pieces.into_iter().enumerate() {
                if number == full_from && let Store::File(file) = &spool.store {
                    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
                    let full = Store::File(File::open(path).unwrap());
                    room = Some(std::mem::replace(&mut spool.store, full));
                }
                if number == full_from + full_for && let Some(store) = room.take() {
                    spool.store = store;
                }
                let piece = vec![number as u8; length];
                spool.append(&piece);
                all.extend(piece);
            }
            let read = read_all(&spool, 0, 777);
            prop_assert_eq!(read.len(), all.len());
            prop_assert_eq!(spool.dropped(), read.iter().filter(|byte| byte.is_none()).count() as u64);
            let kept = spool.dropped() as usize;
            prop_assert!(read[..kept].iter().all(Option::is_none), "what is dropped is the beginning");
            prop_assert!(read[kept..].iter().zip(&all[kept..]).all(|(read, wrote)| *read == Some(*wrote)));
            prop_assert!(room.is_some() || spool.dropped() < all.len() as u64, "the last piece is kept");
        }
    }

    #[test]
    fn p03_a_ring_in_memory_survives_a_disk_that_takes_nothing() {
        // O_TMPFILE is refused below /proc.
        let mut spool = Spool::ring(SpoolDir::open("/proc"), 1 << 20);
        spool.append(&[1; 100]);
        spool.append(&[2; INLINE]);
        assert_eq!(spool.dropped(), INLINE as u64 + 100);
        assert_eq!(spool.reason(), Some(LostReason::DiskFailed));
        spool.append(&[]);
        let told = spool.dir.events.fetch(0);
        assert_eq!(told.len(), 1, "told once, and not for each piece: {told:?}");
        assert_eq!(told[0].kind, AgentEventKind::OutputLost);
        spool.dir = SpoolDir::open("/tmp");
        spool.append(&[3; 10]);
        assert_eq!(spool.dropped(), INLINE as u64 + 100);
        assert_eq!(&read_all(&spool, INLINE as u64 + 100, 64), &[Some(3); 10]);
    }

    #[test]
    fn s13_what_is_forgotten_reads_as_dropped() {
        let mut spool = spool(1 << 20);
        spool.append(&[1; 100_000]);
        spool.forget();
        assert_eq!((spool.dropped(), spool.memory(), spool.disk()), (100_000, 0, 0));
        assert!(read_all(&spool, 0, 64).iter().all(Option::is_none));
    }

    #[test]
    fn s13_memory_stays_flat_however_much_is_written() {
        let mut spool = spool(1 << 20);
        let block = vec![b'x'; 64 << 10];
        for _ in 0..1000 {
            spool.append(&block);
        }
        assert_eq!(spool.written(), 1000 * (64 << 10));
        assert!(spool.memory() <= INLINE);
        assert_eq!(spool.dropped(), 1000 * (64 << 10) - (1 << 20));
    }

    #[test]
    fn s13_what_the_disk_cannot_hold_is_counted_as_dropped() {
        // O_TMPFILE is refused below /proc: like a full disk, nothing can be stored.
        let mut spool = Spool::new(SpoolDir::open("/proc"), 1 << 20);
        spool.append(&[1; 100]);
        spool.append(&[2; INLINE]);
        spool.append(&[3; 10]);
        assert_eq!(spool.dropped(), INLINE as u64 + 10);
        let read = read_all(&spool, 0, 64);
        assert_eq!(&read[..100], &[Some(1); 100]);
        assert!(read[100..].iter().all(Option::is_none));
    }
}
