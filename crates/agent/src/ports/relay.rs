//! Carries bytes between two streams, both ways, until both have ended.
//!
//! All streams of a thread share one buffer, which is only used between a read and the write that follows at once: a
//! thousand idle connections hold no memory. Only what the other side does not take is kept, and nothing more is read
//! until it has gone.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What is read at once at most.
const BUFFER: usize = 128 << 10;
/// Reads after which others get their turn.
const TURNS: usize = 16;
/// How long one direction may be silent after the other has ended. A side that half-closes waits for an answer, but
/// one that is gone looks the same, and nobody would ever hear of it from a peer that says nothing.
const LINGER: Duration = Duration::from_secs(60);

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What was read and not taken yet, from `taken` on.
    rest: Vec<u8>,
    taken: usize,
    /// Whether something was written that may wait in the writer's own buffer.
    unflushed: bool,
    /// Whether the reader has ended.
    ending: bool,
    /// Whether the writer has been told, or takes no more.
    ended: bool,
    /// Why it takes no more.
    refused: Option<io::Error>,
    /// Whether a byte was carried since this was last looked at.
    moved: bool,
}

/// Carries what `a` sends to `b` and what `b` sends to `a`. An end of one is passed on as an end of writing to the
/// other. One that takes no more may have said something before it left: that is still carried, to its end.
///
/// # Errors
/// The first error of either stream. Both should be dropped then.
pub async fn relay<A, B>(mut a: A, mut b: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Way::default(), Way::default());
    let mut silence: Option<Pin<Box<Sleep>>> = None;
    poll_fn(move |cx| {
        let first = there.poll(cx, &mut a, &mut b)?;
        let second = back.poll(cx, &mut b, &mut a)?;
        if first.is_ready() && second.is_ready() {
            return Poll::Ready(there.refused.take().or(back.refused.take()).map_or(Ok(()), Err));
        }
        let moved = std::mem::take(&mut there.moved) | std::mem::take(&mut back.moved);
        if there.ended || back.ended {
            let silence = silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
            if moved {
                silence.as_mut().reset(Instant::now() + LINGER);
            }
            ready!(silence.as_mut().poll(cx));
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    })
    .await
}

/// Which side of a direction failed.
enum Fault {
    Reader(io::Error),
    Writer(io::Error),
}

impl Way {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_to_end(cx, from, to)) {
            Ok(()) => {}
            Err(Fault::Writer(error)) => self.refused = Some(error),
            Err(Fault::Reader(error)) => return Poll::Ready(Err(error)),
        }
        self.ended = true;
        self.rest = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn poll_to_end<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _turn in 0..TURNS {
            ready!(self.poll_rest(cx, to)).map_err(Fault::Writer)?;
            if self.ending {
                return Pin::new(&mut *to).poll_shutdown(cx).map_err(Fault::Writer);
            }
            if SHARED.with_borrow_mut(|buffer| self.poll_carry(cx, from, to, buffer))?.is_pending() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Fault::Writer)?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was kept.
    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while self.taken < self.rest.len() {
            self.taken += ready!(write(cx, to, &self.rest[self.taken..]))?;
            self.moved = true;
        }
        // The memory goes too.
        self.rest = Vec::new();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes at once; pending if there is nothing to read.
    fn poll_carry<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        buffer: &mut [u8],
    ) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(from).poll_read(cx, &mut buffer)).map_err(Fault::Reader)?;
        let mut read = buffer.filled() as &[u8];
        self.ending = read.is_empty();
        self.moved |= !read.is_empty();
        self.unflushed |= !read.is_empty();
        while !read.is_empty() {
            match write(cx, to, read) {
                Poll::Ready(written) => read = &read[written.map_err(Fault::Writer)?..],
                Poll::Pending => {
                    self.rest.extend_from_slice(read);
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn write(cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn through(size: usize) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (caller, near) = duplex(size);
        let (far, app) = duplex(size);
        (caller, app, tokio::spawn(relay(near, far)))
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_each_end_is_passed_on() {
        let (mut caller, mut app, carried) = through(1000);
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let echo = tokio::spawn(async move {
            let mut all = Vec::new();
            // Ends when the caller's end arrives; the way back is still open.
            app.read_to_end(&mut all).await.unwrap();
            app.write_all(&all).await.unwrap();
        });
        caller.write_all(&sent).await.unwrap();
        caller.shutdown().await.unwrap();
        let mut got = Vec::new();
        caller.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        echo.await.unwrap();
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nothing_is_read_ahead_of_a_reader_that_stops() {
        let (mut caller, app, carried) = through(64 << 10);
        let mut sent = 0;
        let chunk = vec![7; 64 << 10];
        while tokio::time::timeout(Duration::from_millis(100), caller.write_all(&chunk)).await.is_ok() {
            sent += chunk.len();
            assert!(sent < 1 << 20, "more than the buffers on the way were taken");
        }
        drop(app);
        assert!(carried.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn the_last_words_of_a_side_that_takes_no_more_arrive() {
        let (mut caller, mut app, carried) = through(1000);
        // More than the buffers on the way, so that something is still to be written when it leaves.
        app.write_all(&[7; 500]).await.unwrap();
        caller.write_all(&[1; 2500]).await.unwrap();
        app.write_all(b"no!").await.unwrap();
        drop(app);
        let mut got = Vec::new();
        caller.read_to_end(&mut got).await.unwrap();
        assert_eq!((got.len(), &got[500..]), (503, &b"no!"[..]));
        assert!(carried.await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_is_gone_does_not_hold_the_other_for_ever() {
        let (caller, mut app, carried) = through(1000);
        drop(caller);
        // It is told of the end, and says nothing more.
        assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
        let began = Instant::now();
        carried.await.unwrap().unwrap();
        assert!(began.elapsed() >= LINGER);
        drop(app);
    }
}
