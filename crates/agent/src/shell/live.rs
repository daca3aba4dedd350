//! One running shell with the session loop, from start to end.

use super::image::ShellImage;
use super::processes::Processes;
use super::protocol::{Control, MAX_DATAGRAM, Message, Nonce, Received, Reply, page};
use crate::spawn::{Child, Exit, SpawnSpec, Spawner};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::time::Duration;

/// Where the shell keeps its ends. High, since scripts close and reuse low numbers; below 1024, the usual limit.
const HIGH_FD: i32 = 1000;

/// Datagrams that are read in one go before everybody else has a turn: a command can fill its shell's socket faster than
/// it can be read.
const TURN: usize = 64;

/// How long the socket of such a command is left alone then. It is full in the meantime, which slows the writer down.
const BREATHER: Duration = Duration::from_millis(1);

/// More datagrams than a socket holds (some 280 of one byte, by its default of 208 KiB): what a shell sent before its
/// exit is among the first so many, whatever else still writes.
const LAST: usize = 4096;

/// A shell that could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The process could not be made.
    #[error(transparent)]
    Spawn(#[from] crate::spawn::SpawnError),
    /// Something that the agent does for it failed.
    #[error("{what} for a session's shell")]
    Agent {
        /// What was being done.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

pub(super) fn agent(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Agent { what, source }
}

/// What a shell does.
pub(super) enum Event {
    /// It says something.
    Message(Message),
    /// It has ended.
    Exit(Exit),
}

/// A live shell.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) child: Child,
    pub(super) control: Control,
    page: OwnedFd,
    /// Its command line as /proc shows it, which its forks share.
    pub(super) line: Vec<u8>,
    /// It has said hello: the session loop is loaded.
    pub(super) greeted: bool,
    /// The last two requests: a state may still come for the one before.
    nonces: [Nonce; 2],
    buffer: Box<[u8]>,
}

impl Live {
    /// Starts a bash that loads the session loop. It says hello when it is ready, or exits when it cannot load.
    pub(super) fn start(
        spawner: &Spawner,
        image: &ShellImage,
        program: &CStr,
        processes: &mut Processes,
        environment: &BTreeMap<String, String>,
        cwd: &CStr,
    ) -> Result<Self, StartError> {
        let builtin = image
            .builtin()
            .ok_or_else(|| agent("finding the session loop")(io::ErrorKind::NotFound.into()))?;
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|e| agent("making a socket")(e.into()))?;
        // The shell's end blocks: it has nothing else to wait for.
        rustix::io::ioctl_fionbio(&theirs, false).map_err(|e| agent("making a socket")(e.into()))?;
        let page = page::create().map_err(agent("making a shared page"))?;
        let null = crate::null::open(OFlags::RDWR).map_err(agent("opening /dev/null"))?;

        let high = high_fd(spawner);
        let script = format!(
            "enable -f /proc/self/fd/{builtin} sandcrab && exec {builtin}>&- && sandcrab {high} {page}",
            page = high + 1,
            builtin = high + 2
        );
        let args = ["bash", "--norc", "--noprofile", "-O", "expand_aliases", "-c", &script, "bash"]
            .map(|arg| CString::new(arg).unwrap_or_default());
        let env = environment_strings(environment);
        let subreaper = processes.needs_subreaper();
        let child = spawner.spawn(&SpawnSpec {
            program,
            args: &args,
            env: &env,
            cwd: Some(cwd),
            fds: &[
                (null.as_fd(), 0),
                (null.as_fd(), 1),
                (null.as_fd(), 2),
                (theirs.as_fd(), high),
                (page.as_fd(), high + 1),
                (builtin.as_fd(), high + 2),
            ],
            cgroup: processes.for_new_shell().map_err(agent("making a process group"))?,
            subreaper,
        })?;
        let line = args.iter().flat_map(|arg| arg.as_bytes_with_nul()).copied().collect();
        let control = Control::new(ours).map_err(agent("watching a socket"))?;
        let buffer = vec![0; MAX_DATAGRAM].into_boxed_slice();
        Ok(Self { child, control, page, line, greeted: false, nonces: [[0; 2]; 2], buffer })
    }

    /// A nonce for the next request.
    pub(super) fn next_nonce(&mut self) -> Nonce {
        let nonce = rand::random::<[u64; 2]>();
        self.nonces = [nonce, self.nonces[0]];
        nonce
    }

    /// The next message among at most `most` datagrams that are there already. What is no answer to this shell's last
    /// requests is passed over.
    fn receive(&mut self, most: usize) -> Received {
        for _ in 0..most {
            let message = match self.control.receive(&mut self.buffer) {
                Received::Message(message) => message,
                Received::Junk => continue,
                Received::Foreign => {
                    // It is ended, and not listened to any more: whoever has its socket could send descriptors without end.
                    tracing::warn!(
                        pid = self.child.pid().as_raw_nonzero(),
                        "a shell sent descriptors that none sends"
                    );
                    self.control.close();
                    // One that has ended already is as it should be.
                    let _ended = self.child.signal(Signal::KILL);
                    return Received::Nothing;
                }
                Received::Nothing => return Received::Nothing,
            };
            let current = message.nonce == self.nonces[0];
            let accepted = match message.reply {
                Reply::State(_) | Reply::Settled | Reply::Unkept => {
                    current || message.nonce == self.nonces[1]
                }
                _ => current,
            };
            if accepted {
                return Received::Message(message);
            }
        }
        Received::Junk
    }

    /// What the shell does next. Cancel-safe. Its last messages come before its exit, which can be had again.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        loop {
            match self.receive(TURN) {
                Received::Message(message) => return Ok(Event::Message(message)),
                Received::Junk => {
                    if let Some(exit) = self.child.try_wait() {
                        return Ok(self.last_message().map_or(Event::Exit(exit), Event::Message));
                    }
                    tokio::time::sleep(BREATHER).await;
                    continue;
                }
                Received::Foreign | Received::Nothing => {}
            }
            let exit = tokio::select! {
                biased;
                readable = self.control.readable() => { readable?; None }
                exit = self.child.wait() => Some(exit?),
            };
            if let Some(exit) = exit {
                return Ok(self.last_message().map_or(Event::Exit(exit), Event::Message));
            }
        }
    }

    /// The next of the messages that a shell sent before its exit.
    pub(super) fn last_message(&mut self) -> Option<Message> {
        match self.receive(LAST) {
            Received::Message(message) => Some(message),
            Received::Junk | Received::Foreign | Received::Nothing => None,
        }
    }

    /// What the shell left on the shared page.
    pub(super) fn page(&self) -> io::Result<page::Page> {
        page::read(&self.page)
    }
}

/// Below the limit on open files that the shell will have.
pub(super) fn high_fd(spawner: &Spawner) -> i32 {
    let limit = spawner.identity().open_files().unwrap_or(1024);
    HIGH_FD.min(i32::try_from(limit).unwrap_or(i32::MAX).saturating_sub(24)).max(16)
}

pub(super) fn environment_strings(environment: &BTreeMap<String, String>) -> Vec<CString> {
    // A value with a NUL byte is refused where it is given.
    environment.iter().filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok()).collect()
}
