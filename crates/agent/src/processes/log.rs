//! What a process writes: for each stream a ring with a bound, on the sandbox's disk (contract P03).
//!
//! Readers follow by raw byte offset. A reader that keeps up is waited for, briefly, so that it loses nothing; one that
//! does not is told what the ring dropped. However slow readers are, the process is held up for [`PATIENCE`] at a time,
//! and below the pace of [`window`] bytes in that time a reader is not waited for at all.

use crate::exec::answer::Output;
use crate::exec::drain::Sink;
use crate::exec::spool::{Piece, Spool, SpoolDir};
use crate::news::until;
use sandcrab_api::exec::{StreamName, Truncated};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How far the process may run ahead of a reader before it is held up, in bytes, unless the ring is too small for it.
const MAX_WINDOW: u64 = 4 << 20;
/// How long the process is held up for a reader that does not come nearer.
const PATIENCE: Duration = Duration::from_millis(250);

/// Bytes that a reader may lag behind before the process is held up: a part of the ring, so that what it has not read is
/// still there.
fn window(ring: u64) -> u64 {
    MAX_WINDOW.min(ring / 2)
}

/// Both streams of one process.
#[derive(Debug)]
pub(crate) struct Log {
    window: u64,
    inner: Mutex<Inner>,
    /// More to read, or the end.
    news: Notify,
    /// A reader moved on, or left.
    room: Notify,
}

#[derive(Debug)]
struct Inner {
    streams: [Spool; 2],
    readers: BTreeMap<u64, Place>,
    next_reader: u64,
    ended: bool,
}

/// Where a reader stands.
#[derive(Debug)]
struct Place {
    at: [u64; 2],
    waited_for: bool,
}

impl Inner {
    fn lag(&self, place: &Place, stream: StreamName) -> u64 {
        self.streams[stream as usize].written().saturating_sub(place.at[stream as usize])
    }

    /// How far the slowest reader lags of those that are waited for.
    fn worst_lag(&self, stream: StreamName) -> u64 {
        let waited_for = self.readers.values().filter(|place| place.waited_for);
        waited_for.map(|place| self.lag(place, stream)).max().unwrap_or(0)
    }
}

/// What a [`Reader`] finds next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This many bytes of a stream are in the buffer.
    Bytes(StreamName, usize),
    /// Bytes that are not kept.
    Dropped(StreamName, u64),
    /// The end; everything was read.
    End,
}

impl Log {
    /// An empty log that keeps the last `ring` bytes of each stream.
    pub(crate) fn new(dir: &Arc<SpoolDir>, ring: u64) -> Self {
        let inner = Inner {
            streams: [Spool::ring(Arc::clone(dir), ring), Spool::ring(Arc::clone(dir), ring)],
            readers: BTreeMap::new(),
            next_reader: 0,
            ended: false,
        };
        let (news, room) = (Notify::new(), Notify::new());
        Self { window: window(ring), inner: Mutex::new(inner), news, room }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is written any more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.news.notify_waiters();
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> [u64; 2] {
        self.lock().streams.each_ref().map(Spool::written)
    }

    /// Bytes dropped per stream; none if nothing was.
    pub(crate) fn truncated(&self) -> Option<Truncated> {
        let inner = self.lock();
        let [stdout, stderr] = inner.streams.each_ref().map(Spool::dropped);
        let reason = inner.streams.iter().find_map(Spool::reason);
        let some = |bytes: u64| (bytes > 0).then_some(bytes);
        let truncated = Truncated { stdout: some(stdout), stderr: some(stderr), reason };
        (truncated != Truncated::default()).then_some(truncated)
    }

    /// Bytes of memory and of the disk that it holds.
    pub(crate) fn held(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.streams.iter().map(Spool::memory).sum(), inner.streams.iter().map(Spool::disk).sum())
    }

    /// Gives up what is kept, to make room for younger logs.
    pub(crate) fn forget(&self) {
        self.lock().streams.iter_mut().for_each(Spool::forget);
    }

    /// Follows the log from raw byte offsets on.
    pub(crate) fn reader(self: &Arc<Self>, offsets: [u64; 2]) -> Reader {
        let mut inner = self.lock();
        let id = inner.next_reader;
        inner.next_reader += 1;
        // A reader may not ask for what is not written yet.
        let at = [0, 1].map(|stream| offsets[stream].min(inner.streams[stream].written()));
        // One that starts far behind is waited for once it has come near.
        let waited_for =
            [0, 1].iter().all(|stream| inner.streams[*stream].written() - at[*stream] <= self.window);
        inner.readers.insert(id, Place { at, waited_for });
        drop(inner);
        Reader { log: Arc::clone(self), id, at }
    }
}

impl Sink for Log {
    fn append(&self, stream: StreamName, bytes: &[u8]) {
        self.lock().streams[stream as usize].append(bytes);
        self.news.notify_waiters();
    }

    async fn room(&self, stream: StreamName) {
        if self.lock().worst_lag(stream) <= self.window {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut moved = std::pin::pin!(self.room.notified());
            // Listening before looking, so that no move is missed in between.
            moved.as_mut().enable();
            // Half the window at once: a reader that takes longer for it than the patience is not waited for.
            if self.lock().worst_lag(stream) <= self.window / 2 {
                return;
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                let mut inner = self.lock();
                let written = inner.streams[stream as usize].written();
                for place in inner.readers.values_mut() {
                    place.waited_for &= written - place.at[stream as usize] <= self.window / 2;
                }
                return;
            }
        }
    }
}

impl Output for Log {
    fn read_at(&self, stream: StreamName, offset: u64, buffer: &mut [u8]) -> io::Result<Piece> {
        self.lock().streams[stream as usize].read_at(offset, buffer)
    }

    fn kept(&self) -> u64 {
        self.lock().streams.iter().map(|spool| spool.written() - spool.dropped()).sum()
    }
}

/// A place in a log that moves on.
#[derive(Debug)]
pub(crate) struct Reader {
    log: Arc<Log>,
    id: u64,
    at: [u64; 2],
}

impl Reader {
    /// Raw byte offsets read so far.
    pub(crate) fn offsets(&self) -> [u64; 2] {
        self.at
    }

    /// What can be read now, if anything.
    pub(crate) fn try_next(&mut self, buffer: &mut [u8]) -> io::Result<Option<Step>> {
        // The end is looked at first: nothing is appended after it, so what follows is complete.
        let ended = self.log.lock().ended;
        for stream in [StreamName::Stdout, StreamName::Stderr] {
            let (count, step) = match self.log.read_at(stream, self.at[stream as usize], buffer)? {
                Piece::Bytes(count) => (count as u64, Step::Bytes(stream, count)),
                Piece::Dropped(count) => (count, Step::Dropped(stream, count)),
                Piece::End => continue,
            };
            self.advance(stream, count);
            return Ok(Some(step));
        }
        Ok(ended.then_some(Step::End))
    }

    /// Waits for the next bytes, or the end. Cancel-safe.
    pub(crate) async fn next(&mut self, buffer: &mut [u8]) -> io::Result<Step> {
        let log = Arc::clone(&self.log);
        until(&log.news, || self.try_next(buffer).transpose()).await
    }

    fn advance(&mut self, stream: StreamName, count: u64) {
        self.at[stream as usize] += count;
        let mut inner = self.log.lock();
        let near = [0, 1]
            .iter()
            .all(|stream| inner.streams[*stream].written() - self.at[*stream] <= self.log.window / 2);
        if let Some(place) = inner.readers.get_mut(&self.id) {
            place.at = self.at;
            place.waited_for |= near;
        }
        drop(inner);
        self.log.room.notify_waiters();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.log.lock().readers.remove(&self.id);
        self.log.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(ring: u64) -> Arc<Log> {
        Arc::new(Log::new(&SpoolDir::open("/tmp"), ring))
    }

    async fn write(log: &Log, bytes: usize) {
        for _ in 0..bytes / (64 << 10) {
            log.room(StreamName::Stdout).await;
            log.append(StreamName::Stdout, &[b'x'; 64 << 10]);
        }
    }

    async fn read(mut reader: Reader) -> (u64, u64) {
        let (mut bytes, mut dropped) = (0, 0);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.next(&mut buffer).await.unwrap() {
                Step::Bytes(_, count) => bytes += count as u64,
                Step::Dropped(_, count) => dropped += count,
                Step::End => return (bytes, dropped),
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn p03_a_reader_that_keeps_up_loses_nothing() {
        let log = log(1 << 20);
        let reader = tokio::spawn(read(log.reader([0, 0])));
        write(&log, 64 << 20).await;
        log.end();
        assert_eq!(reader.await.unwrap(), (64 << 20, 0));
    }

    #[tokio::test]
    async fn e06_a_process_is_not_held_up_by_a_reader_that_does_not_read() {
        let log = log(1 << 20);
        let reader = log.reader([0, 0]);
        let begin = Instant::now();
        write(&log, 64 << 20).await;
        log.end();
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert_eq!(read(reader).await, (1 << 20, 63 << 20), "and it is told what it lost");
    }

    #[tokio::test]
    async fn p03_a_reader_resumes_without_a_seam() {
        let log = log(1 << 20);
        log.append(StreamName::Stdout, b"one two");
        log.append(StreamName::Stderr, b"three");
        let mut buffer = [0; 64];
        let mut reader = log.reader([4, 0]);
        assert_eq!(reader.next(&mut buffer).await.unwrap(), Step::Bytes(StreamName::Stdout, 3));
        assert_eq!(&buffer[..3], b"two");
        assert_eq!(reader.offsets(), [7, 0]);
        assert_eq!(reader.next(&mut buffer).await.unwrap(), Step::Bytes(StreamName::Stderr, 5));
        log.end();
        assert_eq!(reader.next(&mut buffer).await.unwrap(), Step::End);
        let mut beyond = log.reader([1000, 1000]);
        assert_eq!(beyond.next(&mut buffer).await.unwrap(), Step::End);
    }
}
