//! What agent and builtin say to each other over the control socket. The other side is builtin/sandcrab.c.
//!
//! The socket carries whole datagrams (`SOCK_SEQPACKET`), so bytes that a command writes to it by accident are a
//! datagram of their own, without the nonce of any request, and are passed over. All numbers are in native byte order:
//! both sides run on one machine.

use crate::closing::{MAX_DESCRIPTORS, Suspect, close_elsewhere};
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// No datagram is longer, in either direction. Longer requests go on in further datagrams, longer states travel as memory files.
pub(super) const MAX_DATAGRAM: usize = 32 << 10;

const REQUEST_MAGIC: u32 = u32::from_ne_bytes(*b"SCRQ");
const REPLY_MAGIC: u32 = u32::from_ne_bytes(*b"SCRP");
const REPLY_HEAD: usize = 40;

/// Ties replies to their request. A command cannot guess it.
pub(super) type Nonce = [u64; 2];

/// One change of a variable before a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) name: String,
    /// The new value; none unsets.
    pub(super) value: Option<String>,
    /// Only if the variable stands as the agent left it: at this value, or absent.
    pub(super) only_if: Option<Option<String>>,
}

/// What is asked of the shell.
pub(super) enum Request<'a> {
    /// Evaluate a command.
    Run {
        /// Changes that stay.
        session: &'a [Assignment],
        /// Changes for this command only.
        command: &'a [Assignment],
        /// Where the session begins, if its shell waited for it elsewhere.
        home: &'a str,
        /// Directory for this command only.
        cwd: &'a str,
        /// The command.
        text: &'a [u8],
    },
    /// Restore the state in the memory file that is given as stdin.
    Restore {
        /// Its length.
        size: u64,
    },
}

/// A request as datagrams; descriptors go with the first.
pub(super) fn encode(request: &Request<'_>, nonce: Nonce, last_status: i32) -> Vec<u8> {
    let (kind, session, command, home, cwd, text, size) = match *request {
        Request::Run { session, command, home, cwd, text } => (1u32, session, command, home, cwd, text, 0),
        Request::Restore { size } => (2, &[][..], &[][..], "", "", &[][..], size),
    };
    let mut payload = Vec::with_capacity(text.len() + cwd.len() + 256);
    for a in session.iter().chain(command) {
        let op = u32::from(a.value.is_some())
            | if a.only_if.is_some() { 2 } else { 0 }
            | if matches!(a.only_if, Some(Some(_))) { 4 } else { 0 };
        let value = a.value.as_deref().unwrap_or_default();
        let expect = a.only_if.iter().flatten().next().map(String::as_str).unwrap_or_default();
        for n in [op, a.name.len() as u32, value.len() as u32, expect.len() as u32] {
            payload.extend_from_slice(&n.to_ne_bytes());
        }
        for s in [&a.name, value, expect] {
            payload.extend_from_slice(s.as_bytes());
            payload.push(0);
        }
    }
    for directory in [home, cwd] {
        payload.extend_from_slice(directory.as_bytes());
        payload.push(0);
    }
    payload.extend_from_slice(text);
    let mut all = Vec::with_capacity(payload.len() + 64);
    for n in [REQUEST_MAGIC, kind] {
        all.extend_from_slice(&n.to_ne_bytes());
    }
    for n in [nonce[0], nonce[1], payload.len() as u64, size] {
        all.extend_from_slice(&n.to_ne_bytes());
    }
    for n in [session.len() as u32, command.len() as u32, cwd.len() as u32, text.len() as u32] {
        all.extend_from_slice(&n.to_ne_bytes());
    }
    all.extend_from_slice(&last_status.to_ne_bytes());
    all.extend_from_slice(&(home.len() as u32).to_ne_bytes());
    all.extend_from_slice(&payload);
    all
}

/// What the shell says.
#[derive(Debug)]
pub(super) enum Reply {
    /// The builtin is loaded and waits.
    Hello,
    /// The command completed.
    Status {
        status: i32,
        /// Whether more about its state follows.
        settles_later: bool,
    },
    /// The command changed nothing that a state holds.
    Settled,
    /// The state after the command.
    State(StateBytes),
    /// The command changed the state, which cannot be handed over.
    Unkept,
    /// The state is restored, but for these parts (kind, name).
    Restored(Vec<(u32, String)>),
    /// The shell cannot run anything (its limit on open files) and leaves.
    Refused,
}

/// A state as it arrived.
#[derive(Debug)]
pub(super) enum StateBytes {
    Inline(Bytes),
    File(OwnedFd),
}

/// A datagram with the nonce that it carries.
pub(super) struct Message {
    pub(super) nonce: Nonce,
    pub(super) reply: Reply,
}

/// What one look at the socket brought.
pub(super) enum Received {
    Message(Message),
    /// Something that is no message: a command can write to its shell's socket.
    Junk,
    /// Descriptors that no shell sends: whoever does means harm. None is kept (attacks A26, A33).
    Foreign,
    Nothing,
}

/// Our end of a control socket.
#[derive(Debug)]
pub(super) struct Control {
    socket: Suspect,
    /// The same socket while a request waits for room. Only then: a shell's reading would wake the agent each time.
    room: Option<AsyncFd<OwnedFd>>,
    /// The other end is closed. The poller would report that again and again.
    closed: bool,
}

impl Control {
    pub(super) fn new(fd: OwnedFd) -> std::io::Result<Self> {
        let socket = Suspect::new(crate::sys::watch(fd, Interest::READABLE)?);
        Ok(Self { socket, room: None, closed: false })
    }

    /// Sends a request with its descriptors.
    pub(super) async fn send(&mut self, message: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let mut fds = fds;
        for chunk in message.chunks(MAX_DATAGRAM) {
            loop {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !fds.is_empty() {
                    ancillary.push(SendAncillaryMessage::ScmRights(fds));
                }
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                match sendmsg(self.socket.get_ref().as_fd(), &[IoSlice::new(chunk)], &mut ancillary, flags) {
                    Ok(_) => break,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        let room = match &self.room {
                            Some(room) => room,
                            None => {
                                let again = self.socket.get_ref().try_clone()?;
                                self.room.insert(crate::sys::watch(again, Interest::WRITABLE)?)
                            }
                        };
                        room.writable().await?.clear_ready();
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            fds = &[];
        }
        self.room = None;
        Ok(())
    }

    /// Takes one datagram if there is one.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        if self.closed {
            return Received::Nothing;
        }
        // Room for all: the kernel closes those that have none, and the agent would have to wait for that.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let socket = self.socket.get_ref().as_fd();
        let got = match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Ok(got) => got.bytes,
            // A reset says that the shell left something unread; what it wrote before is still to come.
            Err(Errno::INTR | Errno::CONNRESET) => return Received::Junk,
            Err(Errno::AGAIN) => return Received::Nothing,
            Err(_) => {
                self.closed = true;
                return Received::Nothing;
            }
        };
        let mut fds = ancillary
            .drain()
            .filter_map(|m| match m {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect::<Vec<_>>();
        let fd = match fds.pop() {
            Some(fd) if fds.is_empty() && is_memory_file(&fd) => Some(fd),
            Some(fd) => {
                close_elsewhere(fds.into_iter().chain([fd]));
                return Received::Foreign;
            }
            None => None,
        };
        if got == 0 {
            // The end, or a datagram of no bytes, which anyone may send.
            self.closed = hung_up(socket);
            return if self.closed { Received::Nothing } else { Received::Junk };
        }
        decode(&buffer[..got], fd).map_or(Received::Junk, Received::Message)
    }

    /// Hears nothing more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Waits until there may be a message; for ever once the other end is closed.
    pub(super) async fn readable(&self) -> std::io::Result<()> {
        if self.closed {
            return std::future::pending().await;
        }
        self.socket.readable().await?.clear_ready();
        Ok(())
    }
}

/// Only files in memory have seals, and closing one waits for nothing.
fn is_memory_file(fd: &OwnedFd) -> bool {
    rustix::fs::fcntl_get_seals(fd).is_ok()
}

/// Whether no other end is left to write, and nothing that it wrote is left to read.
fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut poll = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&at_once)).is_ok()
        && poll[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP)
        && rustix::io::ioctl_fionread(socket).unwrap_or(0) == 0
}

fn decode(datagram: &[u8], fd: Option<OwnedFd>) -> Option<Message> {
    let head = datagram.first_chunk::<REPLY_HEAD>()?;
    let word = |at: usize| head[at..].first_chunk::<4>().map_or(0, |b| u32::from_ne_bytes(*b));
    let long = |at: usize| head[at..].first_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
    if word(0) != REPLY_MAGIC {
        return None;
    }
    let nonce = [long(8), long(16)];
    let extra = &datagram[REPLY_HEAD..];
    let reply = match word(4) {
        1 => Reply::Hello,
        2 => Reply::Status { status: word(24).cast_signed(), settles_later: word(28) != 0 },
        3 => Reply::Settled,
        4 => Reply::State(match fd {
            Some(fd) => StateBytes::File(fd),
            None => StateBytes::Inline(Bytes::copy_from_slice(extra)),
        }),
        5 => Reply::Restored(failed_parts(extra)),
        6 => Reply::Refused,
        7 => Reply::Unkept,
        _ => return None,
    };
    Some(Message { nonce, reply })
}

fn failed_parts(mut rest: &[u8]) -> Vec<(u32, String)> {
    let mut parts = Vec::new();
    while let Some((kind, after)) = rest.split_first_chunk::<4>() {
        let Some((length, after)) = after.split_first_chunk::<4>() else { break };
        let Some((name, after)) = after.split_at_checked(u32::from_ne_bytes(*length) as usize) else { break };
        parts.push((u32::from_ne_bytes(*kind), String::from_utf8_lossy(name).into_owned()));
        rest = after;
    }
    parts
}

/// The page that agent and shell share, read by offset.
pub(super) mod page {
    use super::Nonce;
    use rustix::fd::{AsFd, OwnedFd};
    use rustix::fs::MemfdFlags;

    /// As SHARE_SIZE in the builtin.
    pub(in crate::shell) const SIZE: u64 = 1 << 18;

    /// What the page says.
    pub(in crate::shell) struct Page {
        /// The last command that the shell began.
        pub(in crate::shell) begun: Nonce,
        /// The command that it completed when it could not send the status any more, with that status.
        pub(in crate::shell) completed: Option<(Nonce, i32)>,
        /// The state, if it is here.
        pub(in crate::shell) state: Option<Vec<u8>>,
    }

    pub(in crate::shell) fn create() -> std::io::Result<OwnedFd> {
        let fd = rustix::fs::memfd_create("sandcrab-page", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, SIZE)?;
        rustix::fs::fcntl_add_seals(&fd, rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW)?;
        Ok(fd)
    }

    pub(in crate::shell) fn read(fd: impl AsFd) -> std::io::Result<Page> {
        let mut head = [0u8; 48];
        let got = rustix::io::pread(&fd, &mut head, 0)?;
        if got != head.len() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let long = |i: usize| head[i * 8..].first_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
        let word = |i: usize| head[i * 4..].first_chunk::<4>().map_or(0, |b| u32::from_ne_bytes(*b));
        let completed = [long(2), long(3)];
        let length = long(5);
        let state = if word(9) == 1 && length <= SIZE - 48 {
            let mut state = vec![0; length as usize];
            let got = rustix::io::pread(&fd, &mut state, 48)?;
            state.truncate(got);
            Some(state)
        } else {
            None
        };
        Ok(Page {
            begun: [long(0), long(1)],
            completed: (completed != [0, 0]).then(|| (completed, word(8).cast_signed())),
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closing::lingering::{self, LINGER};
    use rustix::fs::MemfdFlags;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::time::Instant;

    fn pair() -> (Control, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Control::new(ours).unwrap(), theirs)
    }

    fn send(from: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        sendmsg(from, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty()).unwrap();
    }

    fn state() -> Vec<u8> {
        let mut message = vec![0; REPLY_HEAD];
        message[..4].copy_from_slice(&REPLY_MAGIC.to_ne_bytes());
        message[4..8].copy_from_slice(&4u32.to_ne_bytes());
        message
    }

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    /// Other tests of this process open descriptors too, so that the count may be high for a moment.
    fn until_no_more_than(most: usize) {
        let begun = Instant::now();
        while open_descriptors() > most {
            assert!(begun.elapsed() < 4 * LINGER, "{} descriptors are open", open_descriptors());
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn a33_what_lingers_holds_up_nobody_who_receives_it_or_lets_go_of_it() {
        let mut buffer = vec![0; MAX_DATAGRAM];
        let (mut control, theirs) = pair();
        let [(first, _far), (second, _further)] = [(), ()].map(|()| lingering::socket());
        send(&theirs, &state(), &[first.as_fd()]);
        // And one that is never read, in a socket that waits in the socket.
        let (inner, other) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        send(&other, b"x", &[second.as_fd()]);
        send(&theirs, b"x", &[inner.as_fd()]);
        drop((first, second, inner, other));
        let begun = Instant::now();
        assert!(matches!(control.receive(&mut buffer), Received::Foreign));
        drop(control);
        assert!(begun.elapsed() < LINGER / 2);
    }

    #[tokio::test]
    async fn a26_odd_descriptors_are_closed_however_many_they_are() {
        let mut buffer = vec![0; MAX_DATAGRAM];
        let before = open_descriptors();
        let (mut control, theirs) = pair();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (end, _end) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let file = std::fs::File::open("/proc/self/status").unwrap();
        for one in [read.as_fd(), write.as_fd(), end.as_fd(), file.as_fd()] {
            send(&theirs, &state(), &[one]);
            assert!(matches!(control.receive(&mut buffer), Received::Foreign));
            send(&theirs, b"", &[one; MAX_DESCRIPTORS]);
            assert!(matches!(control.receive(&mut buffer), Received::Foreign));
        }
        let memory = rustix::fs::memfd_create("two", MemfdFlags::CLOEXEC).unwrap();
        send(&theirs, &state(), &[memory.as_fd(); 2]);
        assert!(matches!(control.receive(&mut buffer), Received::Foreign));
        // What a shell does send.
        send(&theirs, &state(), &[memory.as_fd()]);
        let Received::Message(Message { reply: Reply::State(StateBytes::File(_)), .. }) =
            control.receive(&mut buffer)
        else {
            panic!("a state is taken")
        };
        drop((control, theirs, read, write, end, _end, file, memory));
        until_no_more_than(before + 16);
    }
}
