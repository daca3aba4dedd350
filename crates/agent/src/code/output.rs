//! An executor's stdout and stderr: pipes that live as long as it does. What comes while a run is on belongs to that run;
//! what comes between two runs belongs to none: its end is kept for the next one, and nobody who writes late is held up.

use super::journal::Kind;
use super::run::Run;
use crate::exec::text::Encoder;
use rustix::fd::OwnedFd;
use sandcrab_api::exec::OutputEncoding;
use std::io;
use tokio::net::unix::pipe::Receiver;
use tokio::task::coop::consume_budget;

/// Bytes taken at once: what a pipe holds by default (pipe(7)).
const PIECE: usize = 64 << 10;

thread_local! {
    /// One buffer serves every pipe of the thread: it is full only between two lines of code.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// One of the two.
#[derive(Debug)]
pub(super) struct Output {
    pipe: Receiver,
    kind: Kind,
    encoder: Encoder,
    open: bool,
    late: Late,
}

/// What came between two runs.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// The end of it.
    pub(super) tail: Vec<u8>,
    /// Bytes before that.
    pub(super) dropped: u64,
}

/// Bytes that are kept of that.
const LATE: usize = 16 << 10;

impl Late {
    fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let over = self.tail.len().saturating_sub(LATE);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }
}

impl Output {
    /// A fresh pipe: the end to read, and the end for the executor.
    pub(super) fn pipe(kind: Kind) -> io::Result<(Self, OwnedFd)> {
        let (read, write) = crate::pipes::of_a_program()?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let pipe = Receiver::from_owned_fd_unchecked(read)?;
        Ok((
            Self {
                pipe,
                kind,
                encoder: Encoder::new(OutputEncoding::Utf8),
                open: true,
                late: Late::default(),
            },
            write,
        ))
    }

    /// Waits for output, and takes it; never resolves once nobody can write any more. Cancel-safe.
    pub(super) async fn next(&mut self, run: Option<&Run>) -> io::Result<()> {
        if !self.open {
            std::future::pending::<()>().await;
        }
        self.pipe.readable().await?;
        match self.take(PIECE, run, Receiver::try_read) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => drop(outcome?),
        }
        // A pipe that is never empty must not keep the thread from everything else.
        consume_budget().await;
        Ok(())
    }

    /// Takes what is in the pipe at this moment: all that was written before the message that has just come. Bounded by
    /// what is there now, as others may go on writing.
    pub(super) fn settle(&mut self, run: Option<&Run>) {
        let mut left = rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0) as usize;
        while left > 0 && self.open {
            // Past the poller, which may not have heard of it yet.
            let read = |pipe: &Receiver, buffer: &mut [u8]| Ok(rustix::io::read(pipe, buffer)?);
            match self.take(left.min(PIECE), run, read) {
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// As [`Output::next`], for what an interpreter says before it is ready: keeps the end of it.
    pub(super) async fn overhear(&mut self, said: &mut Vec<u8>, most: usize) -> io::Result<()> {
        if !self.open {
            std::future::pending::<()>().await;
        }
        self.pipe.readable().await?;
        let mut buffer = [0; 1024];
        match self.pipe.try_read(&mut buffer) {
            Ok(count) => {
                self.open = count > 0;
                said.extend_from_slice(&buffer[..count]);
                said.drain(..said.len().saturating_sub(most));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What is left of that in the pipe.
    pub(super) fn overhear_rest(&mut self, said: &mut Vec<u8>) {
        let mut buffer = vec![0; PIECE];
        let mut left = rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0) as usize;
        while left > 0 {
            match rustix::io::read(&self.pipe, &mut buffer[..left.min(PIECE)]) {
                Ok(0) => return,
                Ok(count) => {
                    said.extend_from_slice(&buffer[..count]);
                    left = left.saturating_sub(count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// What came since the last run, all that is there at this moment.
    pub(super) fn take_late(&mut self) -> Late {
        self.settle(None);
        std::mem::take(&mut self.late)
    }

    /// The run is over: half a character that it wrote is shown as what it is.
    pub(super) fn finish(&mut self, run: &Run) {
        self.settle(Some(run));
        self.give(&[], true, Some(run));
        self.encoder.reset();
    }

    fn take(
        &mut self,
        most: usize,
        run: Option<&Run>,
        read: impl FnOnce(&Receiver, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(PIECE, 0);
            let count = read(&self.pipe, &mut buffer[..most])?;
            self.open = count > 0;
            self.give(&buffer[..count], false, run);
            Ok(count)
        })
    }

    fn give(&mut self, bytes: &[u8], last: bool, run: Option<&Run>) {
        let Some(run) = run else {
            self.late.push(bytes);
            return;
        };
        let mut text = String::new();
        self.encoder.push(bytes, last, &mut text);
        if !text.is_empty() {
            run.append(self.kind, text.as_bytes());
        }
    }
}
