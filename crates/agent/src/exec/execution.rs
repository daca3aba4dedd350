//! One command: where it stands, what it has written, who waits for it.
//!
//! ```text
//! queued ──start──▶ running ──finish──▶ finished ──(5 minutes)──▶ forgotten
//!    └───────────────fail────────────────▲
//! ```
//!
//! The session's task writes it; any number of requests read it. None of them owns it, so a lost connection kills nothing.

use super::answer::Output;
use super::drain::Sink;
use super::spool::{Piece, Spool, SpoolDir};
use crate::fingerprint::Fingerprint;
use crate::news::until;
use crate::stdin::Stdin;
use sandcrab_api::exec::{ExecInfo, ExecOutcome, ExecState, StreamName, Truncated};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ExecId, SessionId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How far a command may run ahead of a live reader before its pipe is left full, in bytes.
const MAX_LAG: u64 = 4 << 20;
/// A reader that takes nothing for this long is no longer waited for: it must not hold the command up for ever.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// How a command ended.
#[derive(Clone, Debug)]
pub(crate) enum Finish {
    /// With a result.
    Outcome(ExecOutcome),
    /// With an error; what it had written so far stays readable.
    Failed(Box<ApiError>),
}

/// Who asked for a running command to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    Cancelled,
    SessionDeleted,
}

#[derive(Debug)]
enum State {
    Queued,
    Running { started: Timestamp },
    Finished { started: Option<Timestamp>, at: Instant, ended: Timestamp, finish: Finish },
}

#[derive(Debug)]
struct Inner {
    state: State,
    stop: Option<StopReason>,
    stdout: Spool,
    stderr: Spool,
    /// Where live readers stand, per stream.
    readers: BTreeMap<u64, [u64; 2]>,
    next_reader: u64,
}

/// One command.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) id: ExecId,
    pub(crate) command: String,
    pub(crate) session_id: Option<SessionId>,
    pub(super) fingerprint: Fingerprint,
    /// Where it takes what is written to it while it runs; none if it reads what it was given.
    pub(crate) stdin: Option<Stdin>,
    inner: Mutex<Inner>,
    /// More to read, or another state.
    news: Notify,
    /// A reader moved on, or left.
    room: Notify,
    /// Somebody wants it stopped.
    stopped: Notify,
}

fn index(stream: StreamName) -> usize {
    match stream {
        StreamName::Stdout => 0,
        StreamName::Stderr => 1,
    }
}

impl Inner {
    fn spool(&self, stream: StreamName) -> &Spool {
        match stream {
            StreamName::Stdout => &self.stdout,
            StreamName::Stderr => &self.stderr,
        }
    }

    fn spool_mut(&mut self, stream: StreamName) -> &mut Spool {
        match stream {
            StreamName::Stdout => &mut self.stdout,
            StreamName::Stderr => &mut self.stderr,
        }
    }

    fn lag(&self, stream: StreamName) -> u64 {
        let slowest = self.readers.values().map(|at| at[index(stream)]).min();
        slowest.map_or(0, |at| self.spool(stream).written().saturating_sub(at))
    }
}

impl Execution {
    pub(crate) fn new(
        id: ExecId,
        command: String,
        session_id: Option<SessionId>,
        fingerprint: Fingerprint,
        stdin: Option<Stdin>,
        dir: &Arc<SpoolDir>,
        limit: u64,
    ) -> Arc<Self> {
        let inner = Inner {
            state: State::Queued,
            stop: None,
            stdout: Spool::new(Arc::clone(dir), limit),
            stderr: Spool::new(Arc::clone(dir), limit),
            readers: BTreeMap::new(),
            next_reader: 0,
        };
        let (news, room, stopped) = (Notify::new(), Notify::new(), Notify::new());
        let inner = Mutex::new(inner);
        Arc::new(Self { id, command, session_id, fingerprint, stdin, inner, news, room, stopped })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the queue. False if it was stopped or timed out while it waited.
    pub(crate) fn start(&self) -> bool {
        let mut inner = self.lock();
        if !matches!(inner.state, State::Queued) {
            return false;
        }
        inner.state = State::Running { started: Timestamp::now() };
        drop(inner);
        self.news.notify_waiters();
        true
    }

    /// Ends it, if it has not ended yet; says whether it did. Only the registry ends commands: it counts the ended.
    pub(super) fn end_with(&self, finish: Finish) -> bool {
        let mut inner = self.lock();
        let started = match inner.state {
            State::Queued => None,
            State::Running { started } => Some(started),
            State::Finished { .. } => return false,
        };
        inner.state = State::Finished { started, at: Instant::now(), ended: Timestamp::now(), finish };
        drop(inner);
        self.news.notify_waiters();
        true
    }

    /// Whether it still waits for earlier commands of its session.
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.lock().state, State::Queued)
    }

    /// Asks the session that runs it to kill it.
    pub(super) fn request_stop(&self, reason: StopReason) {
        self.lock().stop.get_or_insert(reason);
        self.stopped.notify_waiters();
    }

    /// Resolves when its end is asked for.
    pub(crate) async fn stop_requested(&self) -> StopReason {
        until(&self.stopped, || self.lock().stop).await
    }

    /// Takes what the command wrote.
    pub(crate) fn append(&self, stream: StreamName, bytes: &[u8]) {
        self.lock().spool_mut(stream).append(bytes);
        self.news.notify_waiters();
    }

    /// Reads one stream at a raw byte offset.
    pub(crate) fn read_at(
        &self,
        stream: StreamName,
        offset: u64,
        buffer: &mut [u8],
    ) -> std::io::Result<Piece> {
        self.lock().spool(stream).read_at(offset, buffer)
    }

    /// Resolves at the command's end.
    pub(crate) async fn finished(&self) -> Finish {
        let finish = || match &self.lock().state {
            State::Finished { finish, .. } => Some(finish.clone()),
            _ => None,
        };
        until(&self.news, finish).await
    }

    /// Since when it has been finished.
    pub(crate) fn finished_at(&self) -> Option<Instant> {
        match self.lock().state {
            State::Finished { at, .. } => Some(at),
            _ => None,
        }
    }

    /// When it left the queue.
    pub(crate) fn started(&self) -> Option<Timestamp> {
        match self.lock().state {
            State::Queued => None,
            State::Running { started } => Some(started),
            State::Finished { started, .. } => started,
        }
    }

    /// When and how it ended.
    pub(crate) fn end(&self) -> Option<(Timestamp, Finish)> {
        match &self.lock().state {
            State::Finished { ended, finish, .. } => Some((*ended, finish.clone())),
            _ => None,
        }
    }

    /// Waits until it has left the queue, and says when it started; none if it never will.
    pub(crate) async fn left_queue(&self) -> Option<Timestamp> {
        until(&self.news, || (!self.is_queued()).then(|| self.started())).await
    }

    /// Where it stands, for a caller.
    pub(crate) fn info(&self) -> ExecInfo {
        let inner = self.lock();
        let (state, outcome) = match &inner.state {
            State::Queued => (ExecState::Queued, None),
            State::Running { .. } => (ExecState::Running, None),
            State::Finished { finish: Finish::Outcome(outcome), .. } => {
                (ExecState::Finished, Some(outcome.clone()))
            }
            State::Finished { .. } => (ExecState::Finished, None),
        };
        ExecInfo {
            exec_id: self.id.clone(),
            session_id: self.session_id.clone(),
            command: self.command.clone(),
            state,
            outcome,
            stdout_bytes: inner.stdout.written(),
            stderr_bytes: inner.stderr.written(),
        }
    }

    /// Bytes dropped per stream; none if nothing was.
    pub(crate) fn truncated(&self) -> Option<Truncated> {
        let inner = self.lock();
        let some = |bytes: u64| (bytes > 0).then_some(bytes);
        let truncated = Truncated {
            stdout: some(inner.stdout.dropped()),
            stderr: some(inner.stderr.dropped()),
            reason: inner.stdout.reason().or(inner.stderr.reason()),
        };
        (truncated != Truncated::default()).then_some(truncated)
    }

    /// Bytes of memory that its output holds.
    pub(crate) fn memory(&self) -> usize {
        let inner = self.lock();
        inner.stdout.memory() + inner.stderr.memory()
    }

    /// Gives up its output, to make room for younger commands'.
    pub(super) fn forget_output(&self) {
        let mut inner = self.lock();
        inner.stdout.forget();
        inner.stderr.forget();
    }

    /// Bytes of the sandbox's disk that it holds.
    pub(crate) fn disk(&self) -> u64 {
        let inner = self.lock();
        inner.stdout.disk() + inner.stderr.disk()
    }

    /// Follows the command from raw byte offsets on.
    pub(crate) fn reader(self: &Arc<Self>, offsets: [u64; 2]) -> Reader {
        let mut inner = self.lock();
        let id = inner.next_reader;
        inner.next_reader += 1;
        // A reader may not ask for what is not written yet.
        let at = [offsets[0].min(inner.stdout.written()), offsets[1].min(inner.stderr.written())];
        inner.readers.insert(id, at);
        drop(inner);
        Reader { execution: Arc::clone(self), id, at }
    }
}

impl Sink for Execution {
    fn append(&self, stream: StreamName, bytes: &[u8]) {
        Self::append(self, stream, bytes);
    }

    /// Waits until live readers are near enough.
    async fn room(&self, stream: StreamName) {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.lock().lag(stream) <= MAX_LAG {
                return;
            }
            if tokio::time::timeout(READER_PATIENCE, notified).await.is_err() {
                let mut inner = self.lock();
                let limit = inner.spool(stream).written().saturating_sub(MAX_LAG);
                inner.readers.retain(|_, at| at[index(stream)] >= limit);
            }
        }
    }
}

impl Output for Execution {
    fn read_at(&self, stream: StreamName, offset: u64, buffer: &mut [u8]) -> std::io::Result<Piece> {
        Self::read_at(self, stream, offset, buffer)
    }

    fn kept(&self) -> u64 {
        let inner = self.lock();
        [&inner.stdout, &inner.stderr].iter().map(|spool| spool.written() - spool.dropped()).sum()
    }
}

/// A place in a command's output that moves on.
#[derive(Debug)]
pub(crate) struct Reader {
    execution: Arc<Execution>,
    id: u64,
    at: [u64; 2],
}

/// What a [`Reader`] finds next.
#[derive(Debug)]
pub(crate) enum Step {
    /// This many bytes of a stream are in the buffer.
    Bytes(StreamName, usize),
    /// Bytes that are not kept.
    Dropped(StreamName, u64),
    /// The command's end; everything was read.
    End(Timestamp, Finish),
}

impl Reader {
    pub(crate) fn execution(&self) -> &Arc<Execution> {
        &self.execution
    }

    /// Raw byte offsets read so far.
    pub(crate) fn offsets(&self) -> [u64; 2] {
        self.at
    }

    /// Waits for the next bytes, or the end.
    pub(crate) async fn next(&mut self, buffer: &mut [u8]) -> std::io::Result<Step> {
        let execution = Arc::clone(&self.execution);
        until(&execution.news, || self.try_next(buffer).transpose()).await
    }

    /// The same without waiting; none while there is nothing.
    fn try_next(&mut self, buffer: &mut [u8]) -> std::io::Result<Option<Step>> {
        // The end is looked at first: nothing is appended after it, so what follows is complete.
        let end = self.execution.end();
        for stream in [StreamName::Stdout, StreamName::Stderr] {
            let (count, step) = match self.execution.read_at(stream, self.at[index(stream)], buffer)? {
                Piece::Bytes(count) => (count as u64, Step::Bytes(stream, count)),
                Piece::Dropped(count) => (count, Step::Dropped(stream, count)),
                Piece::End => continue,
            };
            self.advance(stream, count);
            return Ok(Some(step));
        }
        Ok(end.map(|(ended, finish)| Step::End(ended, finish)))
    }

    fn advance(&mut self, stream: StreamName, count: u64) {
        self.at[index(stream)] += count;
        if let Some(at) = self.execution.lock().readers.get_mut(&self.id) {
            *at = self.at;
        }
        self.execution.room.notify_waiters();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.execution.lock().readers.remove(&self.id);
        self.execution.room.notify_waiters();
    }
}
