//! The stdin of a program that takes what is written to it while it runs.

use rustix::fd::OwnedFd;
use serde::Deserialize;
use std::io;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, watch};
use utoipa::IntoParams;

/// What is written, and what follows it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StdinQuery {
    /// Close stdin behind these bytes. Default false.
    #[serde(default)]
    #[param(required = false)]
    pub(crate) end: bool,
    /// How many bytes were written before these, in all. What it has taken of them already is left out, so that a call
    /// whose answer was lost may be sent again. Default: no bytes are left out.
    #[serde(default, deserialize_with = "crate::http::extract::offset")]
    pub(crate) offset: Option<u64>,
}

/// Why bytes were not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StdinError {
    /// Nobody reads it any more.
    #[error("is closed")]
    Closed,
    /// Bytes before these are missing.
    #[error("has taken {taken} bytes")]
    Gap { taken: u64 },
    #[error("cannot be written to: {0}")]
    Io(#[from] io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The program has not begun.
    Waiting,
    Open,
    Closed,
}

#[derive(Debug, Default)]
struct Held {
    pipe: Option<pipe::Sender>,
    /// Bytes that the pipe has taken.
    taken: u64,
}

/// A pipe to a program: the end that a [`Stdin`] writes to, and the program's.
pub(crate) fn pipe() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (read, write) = crate::pipes::of_a_program()?;
    rustix::io::ioctl_fionbio(&write, true)?;
    Ok((pipe::Sender::from_owned_fd_unchecked(write)?, read))
}

/// A program's stdin; it waits for its pipe.
#[derive(Debug)]
pub(crate) struct Stdin {
    state: watch::Sender<State>,
    /// Held by the one who writes.
    held: Mutex<Held>,
}

impl Stdin {
    pub(crate) fn new() -> Self {
        Self { state: watch::Sender::new(State::Waiting), held: Mutex::default() }
    }

    /// Its program begins, with the other end of this pipe.
    pub(crate) async fn open(&self, pipe: pipe::Sender) {
        let mut held = self.held.lock().await;
        // Whoever has closed it before its program began gave it nothing to read.
        let begins = self.state.send_if_modified(|state| {
            let begins = *state == State::Waiting;
            if begins {
                *state = State::Open;
            }
            begins
        });
        held.pipe = begins.then_some(pipe);
    }

    /// Writes; waits for as long as the program does not read. One writer at a time.
    pub(crate) async fn write(&self, bytes: &[u8], offset: Option<u64>) -> Result<(), StdinError> {
        let mut state = self.state.subscribe();
        let waiting = state.wait_for(|state| *state != State::Waiting).await.map(|state| *state);
        if !matches!(waiting, Ok(State::Open)) {
            return Err(StdinError::Closed);
        }
        let mut held = self.held.lock().await;
        let Held { pipe, taken } = &mut *held;
        let before = match offset {
            Some(offset) if offset > *taken => return Err(StdinError::Gap { taken: *taken }),
            Some(offset) => usize::try_from(*taken - offset).unwrap_or(usize::MAX),
            None => 0,
        };
        let mut rest = bytes.get(before..).unwrap_or_default();
        let Some(pipe) = pipe else { return Err(StdinError::Closed) };
        while !rest.is_empty() {
            let wrote = tokio::select! {
                wrote = write_some(pipe, rest) => wrote,
                // Whoever closes it waits for the lock.
                _closed = state.wait_for(|state| *state == State::Closed) => return Err(StdinError::Closed),
            };
            match wrote {
                Ok(count) => {
                    *taken += count as u64;
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(StdinError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Closes it behind what was written, or at once where a writer waits: the program reads the end.
    pub(crate) async fn close(&self) {
        self.state.send_replace(State::Closed);
        self.held.lock().await.pipe = None;
    }

    /// Closes it behind those who write.
    pub(crate) async fn end(&self) {
        let mut held = self.held.lock().await;
        held.pipe = None;
        self.state.send_replace(State::Closed);
    }
}

async fn write_some(pipe: &pipe::Sender, bytes: &[u8]) -> io::Result<usize> {
    loop {
        pipe.writable().await?;
        match pipe.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            wrote => return wrote,
        }
    }
}
