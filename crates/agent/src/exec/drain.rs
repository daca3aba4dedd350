//! Taking a command's output out of its pipes, from its start to its end and not a byte further (contract S07).

use sandcrab_api::exec::StreamName;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::net::unix::pipe::Receiver;
use tokio::task::coop::consume_budget;

/// Where output goes.
pub(crate) trait Sink {
    /// Takes what was written.
    fn append(&self, stream: StreamName, bytes: &[u8]);

    /// Waits until more may be taken: for as long as live readers may hold the writer up.
    fn room(&self, stream: StreamName) -> impl Future<Output = ()> + Send;
}

/// Bytes taken at once: what a pipe holds by default (pipe(7)).
const PIECE: usize = 64 << 10;

thread_local! {
    /// One buffer serves every pipe of the thread: it is full only between two lines of code. Empty in between, so that
    /// only as much of it is ever touched as a pipe has held.
    static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(Vec::with_capacity(PIECE));
}

/// The reading end of a command's pipe.
#[derive(Debug)]
pub(crate) struct Drain {
    pipe: Receiver,
    stream: StreamName,
    open: bool,
}

/// A fresh pipe: the end to drain, and the end for the shell.
pub(crate) fn pipe(stream: StreamName) -> io::Result<(Drain, OwnedFd)> {
    let (read, write) = crate::pipes::of_a_program()?;
    rustix::io::ioctl_fionbio(&read, true)?;
    let pipe = Receiver::from_owned_fd_unchecked(read)?;
    Ok((Drain { pipe, stream, open: true }, write))
}

/// Whether more may come after this read.
fn goes_on(read: &io::Result<usize>) -> bool {
    match read {
        Ok(count) => *count > 0,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}

impl Drain {
    /// Moves output into the sink until every writer has closed the pipe.
    pub(crate) async fn run(&mut self, sink: &impl Sink) {
        while self.open {
            sink.room(self.stream).await;
            if self.pipe.readable().await.is_err() {
                return;
            }
            let read = BUFFER.with_borrow_mut(|buffer| {
                buffer.clear();
                let count = self.pipe.try_read_buf(buffer)?;
                sink.append(self.stream, buffer);
                Ok(count)
            });
            self.open = goes_on(&read);
            // A pipe that is never empty must not keep the thread from everything else, the timeout above all.
            consume_budget().await;
        }
    }

    /// Takes what is in the pipe at this moment: all that the command itself has written, since it has ended. Bounded by
    /// what is there now, as a background job may write faster than it is read. The count and not a short read tells
    /// that the pipe is empty: any program may switch it to packets (`O_DIRECT`, pipe(2)), and a read takes one of them.
    fn take_rest(&mut self, sink: &impl Sink) {
        BUFFER.with_borrow_mut(|buffer| {
            let mut left = rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0) as usize;
            while self.open && left > 0 {
                buffer.clear();
                match rustix::io::read(&self.pipe, &mut buffer.spare_capacity_mut()[..left.min(PIECE)]) {
                    Ok(([], _)) => self.open = false,
                    Ok((bytes, _)) => {
                        sink.append(self.stream, bytes);
                        left = left.saturating_sub(bytes.len());
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        });
    }

    /// Takes what nobody wants.
    fn discard(&self) -> io::Result<usize> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            self.pipe.try_read_buf(buffer)
        })
    }

    /// Lets go of the pipe. One that a background job still has is kept empty for it: it must neither block nor die of
    /// SIGPIPE, and what it writes belongs to no result.
    fn release(mut self) {
        if !self.open {
            return;
        }
        // Past the poller, which may not have heard of the end yet.
        let end = BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            matches!(rustix::io::read(&self.pipe, buffer.spare_capacity_mut()), Ok(([], _)))
        });
        if end {
            return;
        }
        tokio::spawn(async move {
            while self.open && self.pipe.readable().await.is_ok() {
                self.open = goes_on(&self.discard());
                consume_budget().await;
            }
        });
    }
}

/// A file that holds `text` and cannot be changed, for a command's stdin; the null device for none.
pub(crate) fn stdin(text: Option<&str>) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, OFlags, SealFlags, SeekFrom};
    let Some(text) = text else {
        return crate::null::open(OFlags::RDONLY);
    };
    let fd = rustix::fs::memfd_create("stdin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let count = rustix::io::write(&fd, rest)?;
        rest = &rest[count..];
    }
    rustix::fs::seek(&fd, SeekFrom::Start(0))?;
    rustix::fs::fcntl_add_seals(
        fd.as_fd(),
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(fd)
}

/// Both pipes of a command.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdout: Drain,
    stderr: Drain,
}

impl Pipes {
    /// Fresh pipes, and their ends for the shell: stdout, stderr.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd, OwnedFd)> {
        let (stdout, out) = pipe(StreamName::Stdout)?;
        let (stderr, err) = pipe(StreamName::Stderr)?;
        Ok((Self { stdout, stderr }, out, err))
    }

    /// Drains both while `command` runs, then takes the rest of what it wrote.
    pub(crate) async fn drain_while<T>(&mut self, sink: &impl Sink, command: impl Future<Output = T>) -> T {
        let result = {
            let both = async {
                tokio::join!(self.stdout.run(sink), self.stderr.run(sink));
                // Both are closed (`exec >&-`): the command goes on in silence.
                std::future::pending::<()>().await;
            };
            tokio::pin!(both);
            tokio::pin!(command);
            tokio::select! {
                biased;
                result = &mut command => result,
                () = &mut both => unreachable!("pending never resolves"),
            }
        };
        self.stdout.take_rest(sink);
        self.stderr.take_rest(sink);
        result
    }

    /// Lets go of both. To be called when the agent's own copies of the other ends are closed.
    pub(crate) fn release(self) {
        self.stdout.release();
        self.stderr.release();
    }
}

/// What a command reads and writes.
#[derive(Debug)]
pub(crate) struct Stdio {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) pipes: Pipes,
}

impl Stdio {
    /// For a command without input.
    pub(crate) fn new() -> io::Result<Self> {
        let (pipes, stdout, stderr) = Pipes::new()?;
        Ok(Self { stdin: stdin(None)?, stdout, stderr, pipes })
    }
}
