//! Unix sockets between server and agent that wake nobody without need.
//!
//! A Unix socket that is watched for room to write wakes its owner each time the other side reads, whether or not the
//! owner has anything to write. Between two processes that answer each other this is a wake-up in the middle of each
//! request and each answer, at some 10 µs of the reader's time where the other CPU sleeps. tokio's own sockets are
//! always watched for both. A [`Stream`] is watched for what can be read; for room, only while a write waits for it.

mod sys;

use std::io::{self, IoSlice, Write as _};
use std::os::unix::net;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::task::coop::consume_budget;

/// A connected Unix stream socket.
#[derive(Debug)]
pub struct Stream {
    socket: AsyncFd<net::UnixStream>,
    /// The same socket while a write waits for room.
    room: Option<AsyncFd<net::UnixStream>>,
}

/// A listening Unix stream socket.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<net::UnixListener>,
}

impl Stream {
    /// Takes over a connected socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking, or not be watched.
    pub fn new(socket: net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: sys::watch(socket, Interest::READABLE)?, room: None })
    }

    /// Connects to a listening socket.
    ///
    /// # Errors
    /// As connect(2); `EAGAIN` if the listener's backlog is full.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        // Never waits: a Unix socket connects at once or not at all.
        Self::new(tokio::net::UnixStream::connect(path).await?.into_std()?)
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&net::UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // A peer that reads as fast as this side writes must not keep the thread from everybody else.
        ready!(pin!(consume_budget()).poll(cx));
        loop {
            match write(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let room = match &self.room {
                        Some(room) => room,
                        None => {
                            let again = self.socket.get_ref().try_clone()?;
                            self.room.insert(sys::watch(again, Interest::WRITABLE)?)
                        }
                    };
                    ready!(room.poll_write_ready(cx))?.clear_ready();
                }
                written => {
                    // Whoever was told to wait is owed a wake-up, also where a second try comes before the event: hyper
                    // flushes again in the same turn, and goes on with its body only in the next.
                    if self.room.take().is_some() {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let room = buffer.remaining();
            match sys::read(self.socket.get_ref(), buffer) {
                Ok(count) => {
                    // A read that leaves room has emptied the socket: what comes after it is an event of its own. Its
                    // end is none that could be missed, since it stays.
                    if 0 < count && count < room {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_with(cx, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_with(cx, |mut socket| socket.write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(std::net::Shutdown::Write))
    }
}

impl Listener {
    /// Takes over a listening socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking, or not be watched.
    pub fn new(socket: net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: sys::watch(socket, Interest::READABLE)? })
    }

    /// Waits for the next connection. Cancel-safe.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn accept(&self) -> io::Result<Stream> {
        loop {
            let mut ready = self.socket.readable().await?;
            match self.socket.get_ref().accept() {
                Ok((socket, _)) => return Stream::new(socket),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// More than the buffers of a pair of sockets hold.
    const MUCH: usize = 8 << 20;

    fn pair() -> (Stream, Stream) {
        let (one, other) = net::UnixStream::pair().unwrap();
        (Stream::new(one).unwrap(), Stream::new(other).unwrap())
    }

    #[tokio::test]
    async fn bytes_come_whole_and_in_order_past_full_buffers() {
        let (mut one, mut other) = pair();
        let sent: Vec<u8> = (0..MUCH).map(|at| (at / 3) as u8).collect();
        let (written, received) = tokio::join!(
            async {
                one.write_all(&sent).await.unwrap();
                one.shutdown().await.unwrap();
                one
            },
            async {
                let mut all = Vec::new();
                other.read_to_end(&mut all).await.unwrap();
                all
            }
        );
        assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
        assert!(written.room.is_none(), "nobody watches for room once there is some");
    }

    #[tokio::test]
    async fn each_small_message_wakes_its_reader() {
        let (mut one, mut other) = pair();
        let echo = async {
            let mut buffer = [0; 64];
            for _ in 0..1000 {
                let count = other.read(&mut buffer).await.unwrap();
                other.write_all(&buffer[..count]).await.unwrap();
            }
        };
        let ask = async {
            let mut buffer = [0; 64];
            for round in 0..1000u32 {
                one.write_all(&round.to_ne_bytes()).await.unwrap();
                let count = one.read(&mut buffer).await.unwrap();
                assert_eq!(buffer[..count], round.to_ne_bytes());
            }
        };
        tokio::join!(echo, ask);
    }

    #[tokio::test]
    async fn a_peer_that_goes_ends_reads_and_fails_writes() {
        let (mut one, other) = pair();
        drop(other);
        assert_eq!(one.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(one.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_writer_that_waits_for_room_hears_of_a_peer_that_goes() {
        let (mut one, other) = pair();
        let much = vec![0; MUCH];
        let (written, ()) = tokio::join!(one.write_all(&much), async {
            tokio::task::yield_now().await;
            drop(other);
        });
        let kind = written.unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{kind:?}");
    }

    #[tokio::test]
    async fn who_was_told_to_wait_is_woken_although_a_second_try_succeeded() {
        let (mut one, mut other) = pair();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let much = vec![0; MUCH];
        while Pin::new(&mut one).poll_write(&mut cx, &much).is_ready() {}
        let emptied = other.read(&mut vec![0; MUCH]).await.unwrap();
        assert!(emptied > 0);
        assert!(!woken.0.load(Ordering::Relaxed), "the event has not been seen yet");
        assert!(Pin::new(&mut one).poll_write(&mut cx, &much).is_ready());
        assert!(woken.0.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_writer_that_always_has_room_lets_others_run() {
        let (mut one, _other) = pair();
        // More steps than a task has before others have their turn (128), less than fill a socket (some 277).
        let writing = async {
            for _ in 0..200 {
                // By hand: helpers of tokio's may count steps themselves.
                std::future::poll_fn(|cx| Pin::new(&mut one).poll_write(cx, b"x")).await.unwrap();
            }
        };
        let mut turns = 0;
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { biased; () = writing => {}, () = others => {} }
        assert_eq!(turns, 1);
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_listener_takes_one_connection_after_the_other() {
        let name = format!("/tmp/sandcrab-socket-{}", std::process::id());
        let path = Path::new(&name);
        let listener = Listener::new(net::UnixListener::bind(path).unwrap()).unwrap();
        for _ in 0..3 {
            let (client, server) = tokio::join!(Stream::connect(path), listener.accept());
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            client.write_all(b"hello").await.unwrap();
            let mut text = [0; 5];
            server.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"hello");
        }
        std::fs::remove_file(path).unwrap();
    }
}
