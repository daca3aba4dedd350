//! Closing what came from a sandbox's code (attack A33).
//!
//! To close a socket waits for as long as its `SO_LINGER` says, and to close a Unix socket closes the descriptors that wait in
//! it, sockets that linger among them. The agent serves everything by one thread, so it closes no such descriptor itself. Nor
//! may one stay open in the agent until another thread comes to it: a process that the agent starts inherits it, and its exec
//! waits in closing it. So they go, at once, to threads that have tables of descriptors of their own.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::unix::AsyncFd;

/// The most descriptors that one message carries (SCM_MAX_FD of the kernel).
pub(crate) const MAX_DESCRIPTORS: usize = 253;
/// Threads that close. Each may be held up by one descriptor; all of them by a sandbox that harms nobody but itself so.
const THREADS: usize = 4;
/// A thread does little: what it needs beside its guard page.
const STACK: usize = 64 << 10;

/// The way to the threads.
#[derive(Debug)]
struct Closers {
    send: OwnedFd,
    receive: OwnedFd,
    threads: AtomicUsize,
    /// How many batches are being closed, or wait for a thread.
    busy: AtomicUsize,
}

/// A watched socket whose other end a sandbox's code has: what waits in it may be anything.
#[derive(Debug)]
pub(crate) struct Suspect(Option<AsyncFd<OwnedFd>>);

impl Suspect {
    pub(crate) fn new(socket: AsyncFd<OwnedFd>) -> Self {
        Self(Some(socket))
    }
}

impl std::ops::Deref for Suspect {
    type Target = AsyncFd<OwnedFd>;

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Some(socket) => socket,
            None => unreachable!("it is taken as the value is dropped"),
        }
    }
}

impl Drop for Suspect {
    fn drop(&mut self) {
        close_elsewhere(self.0.take().map(AsyncFd::into_inner));
    }
}

/// Closes descriptors on another thread. Never waits.
pub(crate) fn close_elsewhere(descriptors: impl IntoIterator<Item = OwnedFd>) {
    let mut descriptors = descriptors.into_iter().peekable();
    while descriptors.peek().is_some() {
        let batch: Vec<_> = descriptors.by_ref().take(MAX_DESCRIPTORS - 1).collect();
        match Closers::get().and_then(|closers| closers.take(&batch)) {
            // In this order: whoever closes a descriptor last waits, and that must be the other thread.
            Ok(gate) => {
                drop(batch);
                drop(gate);
            }
            Err(error) => {
                // Held for ever rather than waited for: only a sandbox that keeps all threads busy comes here.
                tracing::warn!(%error, count = batch.len(), "descriptors that a sandbox sent stay open");
                batch.into_iter().for_each(std::mem::forget);
            }
        }
    }
}

/// Starts all threads that will ever be needed. For an agent that can have none later.
pub(crate) fn start_all() -> io::Result<()> {
    let closers = Closers::get()?;
    while closers.threads.load(Ordering::Relaxed) < THREADS {
        closers.start()?;
        closers.threads.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

impl Closers {
    fn get() -> io::Result<&'static Self> {
        static CLOSERS: OnceLock<Closers> = OnceLock::new();
        if let Some(closers) = CLOSERS.get() {
            return Ok(closers);
        }
        let (send, receive) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let (threads, busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(CLOSERS.get_or_init(|| Self { send, receive, threads, busy }))
    }

    fn start(&'static self) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("closes".into()).stack_size(STACK);
        thread.spawn(|| self.work()).map(drop)
    }

    /// Hands over fewer than [`MAX_DESCRIPTORS`]. The thread closes them once the returned pipe end is closed.
    fn take(&'static self, descriptors: &[OwnedFd]) -> io::Result<OwnedFd> {
        let threads = self.threads.load(Ordering::Relaxed);
        if threads < THREADS && self.busy.load(Ordering::Relaxed) >= threads {
            self.threads.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.start() {
                self.threads.fetch_sub(1, Ordering::Relaxed);
                if threads == 0 {
                    return Err(error);
                }
            }
        }
        let (closed, gate) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let batch: Vec<_> = std::iter::once(&closed).chain(descriptors).map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&batch));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // What waits counts as well: the threads that there are may all be held up by what came before it.
        self.busy.fetch_add(1, Ordering::Relaxed);
        let sent =
            rustix::io::retry_on_intr(|| sendmsg(&self.send, &[IoSlice::new(b"x")], &mut ancillary, flags));
        if sent.is_err() {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
        sent?;
        Ok(gate)
    }

    /// Closes what comes, for ever.
    fn work(&'static self) {
        let from: BorrowedFd<'static> = self.receive.as_fd();
        if let Err(error) = crate::sys::keep_only(from.as_raw_fd()) {
            tracing::warn!(%error, "descriptors that a sandbox sent are closed in the agent's own table");
        }
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            match recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                // Only a kernel without memory says so.
                Err(_) => {
                    std::thread::yield_now();
                    continue;
                }
            }
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                    let gate = descriptors.next();
                    let rest: Vec<_> = descriptors.collect();
                    // Its end: the agent's own descriptors of these are closed.
                    while let Some(gate) = &gate
                        && matches!(rustix::io::read(gate, &mut [0]), Err(Errno::INTR) | Ok(1..))
                    {
                    }
                    drop(rest);
                }
            }
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What the tests of this crate send to an agent.
#[cfg(test)]
pub(crate) mod lingering {
    use super::*;
    use rustix::net::sockopt::set_socket_linger;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    /// How long closing one takes at the least.
    pub(crate) const LINGER: Duration = Duration::from_secs(5);

    /// A socket that holds up who closes it last, and what keeps its other end from reading.
    pub(crate) fn socket() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        while near.write(&[0; 64 << 10]).is_ok() {}
        set_socket_linger(&near, Some(LINGER)).unwrap();
        (near.into(), far)
    }

    #[test]
    fn a33_closing_holds_up_another_thread() {
        // The control: it does hold up who closes it.
        let (socket, _far) = self::socket();
        let begun = Instant::now();
        drop(socket);
        assert!(begun.elapsed() >= LINGER - Duration::from_millis(100));

        let mut far = Vec::new();
        let begun = Instant::now();
        for _ in 0..2 * THREADS {
            let (socket, other) = self::socket();
            far.push(other);
            close_elsewhere([socket]);
        }
        assert!(begun.elapsed() < LINGER / 2);
        // Let go of when the other ends are: then what waits behind them is closed as well.
        drop(far);
        let (closed, ours) = UnixStream::pair().unwrap();
        close_elsewhere([closed.into()]);
        ours.set_read_timeout(Some(4 * LINGER)).unwrap();
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0]).unwrap(), 0);
    }
}
