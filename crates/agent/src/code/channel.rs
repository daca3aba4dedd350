//! Frames between the agent and an executor: four bytes of length, little-endian, then JSON. The executor is not trusted:
//! the code that it runs can write here whatever it likes.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

/// Longer messages are gathered one at a time, whoever sends them: each is held several times over while it is dealt with.
static LONG: Semaphore = Semaphore::const_new(1);
/// How long one may take to come: an executor writes it in one go, and keeps the others from theirs.
const LONG_WITHIN: Duration = Duration::from_secs(10);
/// What is kept of the buffer between two messages.
const BUFFER: usize = 64 << 10;
/// What the pipe of answers holds.
const PIPE: usize = 256 << 10;

/// What an executor is told.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Order<'a> {
    /// To become the executor of a context.
    Setup {
        /// The whole environment.
        env: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
        /// The working directory.
        cwd: Cow<'a, str>,
    },
    /// To run code.
    Run {
        /// Stands in every message about this run.
        id: &'a str,
        count: u64,
        code: &'a str,
        /// Variables to set or unset: name, value, and the value that it must have now to be changed.
        env: &'a [Delivery],
        /// Variables for this run only.
        once: &'a BTreeMap<String, Option<String>>,
        /// The longest message that it may send, in bytes.
        most: usize,
        /// The directory to go to first.
        #[serde(skip_serializing_if = "Option::is_none")]
        cwd: Option<&'a str>,
    },
}

/// Name, new value, expected value.
pub(super) type Delivery = (String, Option<String>, Option<String>);

/// What an executor says.
#[derive(Debug)]
pub(super) enum Message {
    /// It can run code.
    Hello,
    /// The code of the run with this id shows something.
    Result(Option<String>, Box<Shown>),
    /// The run with this id has ended.
    Done(Option<String>, Option<Failure>),
}

/// The same on the wire.
#[derive(Debug, Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: Kind,
    id: Option<String>,
    result: Option<Box<Shown>>,
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Hello,
    Result,
    Done,
}

/// A result as the executor gives it; as [`sandcrab_api::code::CodeResult`], with JSON as it came.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    png: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jpeg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    svg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    markdown: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    javascript: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chart: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<BTreeMap<String, u64>>,
}

/// JSON that is checked and passed on as it came, but on one line, as an event stream needs it.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Json(Box<RawValue>);

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.get();
        if !text.contains(['\n', '\r']) {
            return self.0.serialize(serializer);
        }
        // Inside a string they are escaped: these stand between two tokens.
        let line = RawValue::from_string(text.replace(['\n', '\r'], " "));
        line.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// Why code ended before its end.
#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) traceback: Vec<String>,
    pub(super) line: Option<u64>,
}

/// The agent's end: two pipes, because a socket would carry descriptors as well, and the code could send such as hold up
/// whoever closes them (attack A33).
#[derive(Debug)]
pub(super) struct Channel {
    orders: OwnedFd,
    /// The same pipe while an order waits for room: watched at other times, it would wake the agent when it is read.
    room: Option<AsyncFd<OwnedFd>>,
    answers: AsyncFd<OwnedFd>,
    received: Vec<u8>,
    /// The longest message that is taken.
    pub(super) most: usize,
    /// A message was given, and has been dealt with when the next one is asked for.
    dealt: bool,
    /// The right to a long message, and when all of it must have come.
    turn: Option<(SemaphorePermit<'static>, Instant)>,
    /// What has not gone out yet.
    unsent: Vec<u8>,
    sent: usize,
}

/// Why an executor can no longer be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It has closed its end.
    #[error("the executor closed its channel")]
    Closed,
    /// It has begun a long message and does not go on.
    #[error("the executor did not end a message")]
    Slow,
    /// It says what no executor says.
    #[error("the executor broke the protocol")]
    Protocol,
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

impl Channel {
    /// A channel and the ends for the executor: to read orders from, and to write answers to.
    pub(super) fn pair() -> io::Result<(Self, [OwnedFd; 2])> {
        let (their_orders, orders) = pipe_with(PipeFlags::CLOEXEC)?;
        let (answers, their_answers) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&orders, true)?;
        rustix::io::ioctl_fionbio(&answers, true)?;
        // What an executor says as it leaves has room. Without it a long last word is cut, as in a socket's buffer.
        let _smaller = fcntl_setpipe_size(&their_answers, PIPE);
        let answers = crate::sys::watch(answers, Interest::READABLE)?;
        let (received, unsent) = (Vec::new(), Vec::new());
        // Enough for the word that it is ready. More is for those of contexts, by their sandbox's size.
        let most = BUFFER;
        let this =
            Self { orders, room: None, answers, received, most, dealt: false, turn: None, unsent, sent: 0 };
        Ok((this, [their_orders, their_answers]))
    }

    /// Puts an order on its way; [`Channel::next`] sends what does not fit the socket at once.
    pub(super) fn send(&mut self, order: &Order<'_>) -> io::Result<()> {
        let start = self.unsent.len();
        self.unsent.extend_from_slice(&[0; 4]);
        serde_json::to_writer(&mut self.unsent, order)?;
        let length = (self.unsent.len() - start - 4) as u32;
        self.unsent[start..start + 4].copy_from_slice(&length.to_le_bytes());
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        match self.poll_flush(&mut nobody) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            match rustix::io::write(&self.orders, &self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let room = match &self.room {
                        Some(room) => room,
                        None => {
                            let again = self.orders.try_clone()?;
                            self.room.insert(crate::sys::watch(again, Interest::WRITABLE)?)
                        }
                    };
                    ready!(room.poll_write_ready(cx))?.clear_ready();
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
        self.room = None;
        self.unsent = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// The next message. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Message, Broken> {
        if std::mem::take(&mut self.dealt) {
            self.turn = None;
        }
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            if self.announced().is_some_and(|length| length > BUFFER) && self.turn.is_none() {
                // The semaphore is never closed.
                let turn = LONG.acquire().await.map_err(|_| Broken::Closed)?;
                self.turn = Some((turn, Instant::now() + LONG_WITHIN));
            }
            let due = self.turn.as_ref().map(|(_, due)| *due);
            let room = self.missing().clamp(4096, 256 << 10);
            self.received.reserve(room);
            let count = std::future::poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                    return Poll::Ready(Err(error));
                }
                poll_read(&self.answers, cx, &mut self.received)
            });
            let count = match due {
                Some(due) => tokio::time::timeout_at(due, count).await.map_err(|_| Broken::Slow)?,
                None => count.await,
            };
            if count? == 0 {
                return Err(Broken::Closed);
            }
            consume_budget().await;
        }
    }

    /// How many bytes are still to come of the message that has begun.
    fn missing(&self) -> usize {
        self.announced().map_or(4, |length| (length + 4).saturating_sub(self.received.len()))
    }

    fn announced(&self) -> Option<usize> {
        let (head, _) = self.received.split_first_chunk::<4>()?;
        Some(u32::from_le_bytes(*head) as usize)
    }

    fn take(&mut self) -> Result<Option<Message>, Broken> {
        let Some(length) = self.announced() else { return Ok(None) };
        if length > self.most {
            return Err(Broken::Protocol);
        }
        if self.received.len() < length + 4 {
            return Ok(None);
        }
        let frame: Frame =
            serde_json::from_slice(&self.received[4..length + 4]).map_err(|_| Broken::Protocol)?;
        let message = match frame.kind {
            Kind::Hello => Message::Hello,
            Kind::Result => Message::Result(frame.id, frame.result.ok_or(Broken::Protocol)?),
            Kind::Done => Message::Done(frame.id, frame.error),
        };
        self.received.drain(..length + 4);
        self.dealt = true;
        if self.received.is_empty() && self.received.capacity() > BUFFER {
            self.received = Vec::new();
        }
        Ok(Some(message))
    }
}

/// Reads what there is, as much as the buffer has room for. A short read says nothing of what is left: a writer may have
/// made packets of it (O_DIRECT).
fn poll_read(from: &AsyncFd<OwnedFd>, cx: &mut Context<'_>, to: &mut Vec<u8>) -> Poll<io::Result<usize>> {
    loop {
        let mut ready = ready!(from.poll_read_ready(cx))?;
        match rustix::io::read(from.get_ref(), rustix::buffer::spare_capacity(to)) {
            Ok(count) => return Poll::Ready(Ok(count)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(errno) => return Poll::Ready(Err(errno.into())),
        }
    }
}
