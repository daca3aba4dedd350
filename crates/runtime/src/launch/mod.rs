//! The launch stage: a single-threaded process between the server and the agent, which builds a sandbox around itself.
//!
//! A server has many threads, so it must not fork and then configure: it executes its own program again as the hidden
//! command `__launch`, whose standard input is a socket. Over it come the plan and descriptors; over it go reports.

mod control_groups;
mod execute;
mod landlock;
mod mounts;
pub(crate) mod ops;
mod place;
pub mod plan;
mod rights;

pub use crate::sys::process::inherited_fd;
pub use ops::{Attributes, Op};
pub use plan::{LaunchPlan, plan};

use crate::sys;
use execute::Handed;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Which step of a launch failed, and why: sent from the launch stage to the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step, with its subject: `mount overlay tree0`.
    pub op: String,
    /// The system's error number, 0 if the failure is not the system's.
    pub errno: i32,
    /// The reason in words.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.reason)
    }
}

/// What is sent beside the descriptors: which of the optional ones are there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) cgroup: bool,
    pub(crate) memory_cgroup: bool,
}

/// What follows the order where the sandbox has a disk of its own: attaching it takes as long as the steps before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attached {
    /// The loop device.
    pub(crate) device: PathBuf,
}

/// What the launch stage and the sandbox's first process report. When both are done the socket is closed; that means
/// success if `Started` came and `Failed` did not.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The first process exists; its pidfd comes along.
    Started {
        /// Its id in the launch stage's pid namespace.
        pid: i32,
    },
    /// A step failed; nothing goes on after it.
    Failed(Failure),
}

/// The most that one report takes, and the most descriptors of one message.
const MESSAGE_BYTES: usize = 16 << 10;
const MESSAGE_FDS: usize = 6;

/// The hidden command `__launch`. Returns the exit code of the launch stage; in the sandbox's first process it returns
/// only if that could not become the agent.
pub fn main() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(()) => 1,
    }
}

fn run() -> Result<(), ()> {
    let socket = sys::process::take_stdin().map_err(drop)?;
    let result = receive(socket.as_fd()).and_then(|(plan, handed)| {
        let disk = || {
            let (attached, _) = recv::<Attached>(socket.as_fd())?;
            attached.map(|attached| attached.device).ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
        };
        execute::execute(&plan, handed, &disk, |pid, pidfd| {
            send(socket.as_fd(), &Report::Started { pid }, &[pidfd.as_fd()])
        })
    });
    result.map_err(|failure| {
        // If the server is gone there is nobody to tell.
        let _ = send(socket.as_fd(), &Report::Failed(failure), &[]);
    })
}

fn receive(socket: BorrowedFd<'_>) -> Result<(LaunchPlan, Handed), Failure> {
    let failed = |reason: String| Failure { op: "read the plan".into(), errno: 0, reason };
    let (order, fds) = recv::<Order>(socket).map_err(|error| failed(error.to_string()))?;
    let Some((order, mut fds)) = order.map(|order| (order, fds.into_iter())) else {
        return Err(failed("the server closed the socket".into()));
    };
    let mut next = || fds.next().ok_or_else(|| failed("a descriptor is missing".into()));
    let (plan, agent, listener, log) = (next()?, next()?, next()?, next()?);
    // What is said from here on, by the agent too, is this instance's.
    rustix::stdio::dup2_stderr(&log).map_err(|error| failed(error.to_string()))?;
    drop(log);
    let cgroup = order.cgroup.then(&mut next).transpose()?;
    let memory_cgroup = order.memory_cgroup.then(&mut next).transpose()?;
    let plan = serde_json::from_reader(io::BufReader::new(std::fs::File::from(plan)))
        .map_err(|error| failed(error.to_string()))?;
    Ok((plan, Handed { agent, listener, cgroup, memory_cgroup }))
}

/// Sends one message with descriptors.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message with descriptors; none at the end.
pub(crate) fn recv<T: for<'a> Deserialize<'a>>(
    socket: BorrowedFd<'_>,
) -> io::Result<(Option<T>, Vec<OwnedFd>)> {
    let mut text = vec![0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok((None, fds));
    }
    Ok((Some(serde_json::from_slice(&text[..received.bytes])?), fds))
}
