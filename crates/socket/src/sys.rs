//! The only file of this crate that holds `unsafe`.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

/// A socket that keeps one descriptor open for as long as it lives.
pub(crate) trait Socket: AsRawFd {}
impl Socket for UnixStream {}
impl Socket for UnixListener {}

/// Watches a socket with the runtime's poller.
pub(crate) fn watch<T: Socket>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: both implementors of `Socket` own their descriptor and answer with the same one for their whole life.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(Into::into)
}

/// Reads what there is into the free room of `buffer`, which need not be cleared for it.
pub(crate) fn read(socket: &UnixStream, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: nothing uninitialised is written to it: rustix only stores what the kernel has read.
    let room = unsafe { buffer.unfilled_mut() };
    let (read, _) = rustix::io::read(socket, room)?;
    let count = read.len();
    // SAFETY: the kernel has filled the first `count` bytes of the room.
    unsafe { buffer.assume_init(count) };
    buffer.advance(count);
    Ok(count)
}
