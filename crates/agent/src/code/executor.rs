//! One executor: an interpreter's process with our program in it, from start to end.
//!
//! ```text
//! start ──hello──▶ ready ──setup──▶ (run ──done──▶ idle)*  ──end of the process, or a broken channel──▶ gone
//! ```
//!
//! It leads a group of processes of its own: what the code starts ends with it.

use super::channel::{Broken, Channel, Delivery, Failure, Message, Order};
use super::interpreter::{self, ANSWERS, INTERRUPTS, ORDERS, Programs};
use super::journal::Kind;
use super::output::{Late, Output};
use super::run::Run;
use crate::spawn::group::Group;
use crate::spawn::{Child, Exit, SpawnError, SpawnSpec, Spawner};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::process::Signal;
use sandcrab_api::code::{CodeLanguage, LateOutput};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How long an interpreter may take to come up: a cold disk, IPython, and neighbours that do the same.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long an interrupted run has to end before its whole group is interrupted, and then before it is killed.
const INTERRUPT_GRACE: Duration = Duration::from_millis(1000);
/// How long the group of an executor has between SIGTERM and SIGKILL.
const END_GRACE: Duration = Duration::from_millis(500);
/// How much an interpreter that does not come up may say of why.
const LAST_WORDS: usize = 4096;

/// With what an executor is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) language: CodeLanguage,
    /// The interpreter.
    pub(super) program: CString,
    pub(super) env: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) cwd: CString,
}

/// An executor that could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The process could not be made.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Something that the agent does for it failed.
    #[error("{what} for an executor")]
    Agent {
        /// What was being done.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("the interpreter ended before it was ready ({}): {said}", exit.in_words())]
    Ended {
        /// How.
        exit: Exit,
        /// The end of what it wrote to stderr.
        said: String,
    },
    /// It let go of the agent before it was ready, and had to be ended.
    #[error("the interpreter was ended, which had stopped listening before it was ready: {said}")]
    Deaf {
        /// The end of what it wrote to stderr.
        said: String,
    },
    /// It took too long.
    #[error("the interpreter was not ready within {} s", READY_WITHIN.as_secs())]
    Late,
}

fn agent(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Agent { what, source }
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The executor says so.
    Done(Option<Failure>),
    /// The executor is gone: it exited, or had to be killed.
    Gone(Exit),
}

/// By whom an executor ended.
enum End {
    /// By itself, or by somebody else than the agent.
    Own(Exit),
    /// By the agent.
    Killed(Exit),
}

/// What a run needs besides its code.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) count: u64,
    /// Changes of the sandbox's and the session's variables.
    pub(super) env: &'a [Delivery],
    /// The longest message about it, in bytes.
    pub(super) most: usize,
    /// The directory to go to first.
    pub(super) cwd: Option<&'a str>,
}

/// An executor.
#[derive(Debug)]
pub(super) struct Executor {
    group: Group,
    child: Child,
    channel: Channel,
    stdout: Output,
    stderr: Output,
    /// By which the watchdog of a Node executor hears which run is to end or, negative, to begin.
    interrupts: Option<OwnedFd>,
    /// A run was interrupted: what it was doing may go on, and hold up any later one. What waits for a timer then, for
    /// one, may begin to compute behind several runs.
    interrupted: bool,
}

impl Executor {
    /// Starts an interpreter; [`Executor::ready`] says when it is up.
    pub(super) fn start(spawner: &Spawner, programs: &Programs, start: &Start) -> Result<Self, StartError> {
        let (channel, [orders, answers]) = Channel::pair().map_err(agent("making a channel"))?;
        let (stdout, out) = Output::pipe(Kind::Stdout).map_err(agent("making a pipe"))?;
        let (stderr, err) = Output::pipe(Kind::Stderr).map_err(agent("making a pipe"))?;
        let null = crate::null::open(OFlags::RDWR).map_err(agent("opening /dev/null"))?;
        let files = programs.of(start.language).map_err(agent("making a memory file"))?;
        let interrupts = match start.language {
            CodeLanguage::Python => None,
            CodeLanguage::Javascript | CodeLanguage::Typescript => Some(interrupt_pipe()?),
        };
        let mut fds = vec![(null.as_fd(), 0), (out.as_fd(), 1), (err.as_fd(), 2)];
        fds.extend([(orders.as_fd(), ORDERS), (answers.as_fd(), ANSWERS)]);
        fds.extend(files.iter().map(|(file, number)| (file.as_fd(), *number)));
        fds.extend(interrupts.iter().map(|(read, _)| (read.as_fd(), INTERRUPTS)));

        let arguments = interpreter::arguments(start.language);
        let args: Vec<CString> = std::iter::once(Ok(start.program.clone()))
            .chain(arguments.into_iter().map(CString::new))
            .collect::<Result<_, _>>()
            .map_err(|_| agent("writing a command line")(io::ErrorKind::InvalidInput.into()))?;
        let env: Vec<CString> = start
            .env
            .iter()
            .filter_map(|(name, value)| CString::new([name, &b"="[..], value].concat()).ok())
            .collect();
        let spec = SpawnSpec {
            program: &start.program,
            args: &args,
            env: &env,
            cwd: Some(&start.cwd),
            fds: &fds,
            cgroup: None,
            subreaper: false,
        };
        let (group, child) = Group::start(spawner, &spec)?;
        let interrupts = interrupts.map(|(_, write)| write);
        Ok(Self { group, child, channel, stdout, stderr, interrupts, interrupted: false })
    }

    /// Waits until it can run code; one that does not come up is ended.
    pub(super) async fn ready(mut self) -> Result<Self, StartError> {
        let mut said = Vec::new();
        let outcome = tokio::time::timeout(READY_WITHIN, self.hello(&mut said)).await;
        let error = match outcome {
            Ok(Ok(())) => return Ok(self),
            Ok(Err(end)) => {
                let from = said.len().saturating_sub(LAST_WORDS);
                let said = String::from_utf8_lossy(&said[from..]).trim().to_owned();
                match end {
                    End::Own(exit) => StartError::Ended { exit, said },
                    End::Killed(_) => StartError::Deaf { said },
                }
            }
            Err(_elapsed) => StartError::Late,
        };
        self.end().await;
        Err(error)
    }

    async fn hello(&mut self, said: &mut Vec<u8>) -> Result<(), End> {
        loop {
            let message = tokio::select! {
                message = self.channel.next() => message,
                _ = self.stdout.next(None) => continue,
                output = self.stderr.overhear(said, LAST_WORDS) => match output {
                    Ok(()) => continue,
                    Err(error) => Err(error.into()),
                },
            };
            match message {
                Ok(Message::Hello) => return Ok(()),
                Ok(_) => {}
                Err(_broken) => {
                    let end = self.end_of_it().await;
                    self.stderr.overhear_rest(said);
                    return Err(end);
                }
            }
        }
    }

    /// Makes it the executor of a context. Does not wait: the first run comes behind it.
    pub(super) fn set_up(&mut self, env: &BTreeMap<Vec<u8>, Vec<u8>>, cwd: &CStr) -> io::Result<()> {
        let text = |bytes| String::from_utf8_lossy(bytes);
        let env: BTreeMap<Cow<'_, str>, Cow<'_, str>> =
            env.iter().map(|(name, value)| (text(name), text(value))).collect();
        self.channel.send(&Order::Setup { env, cwd: cwd.to_string_lossy() })
    }

    /// What was written since the last run, which belongs to none; to be called before each.
    pub(super) fn take_late(&mut self) -> Option<LateOutput> {
        let (stdout, stderr) = (self.stdout.take_late(), self.stderr.take_late());
        let dropped = stdout.dropped + stderr.dropped;
        let text = |late: Late| String::from_utf8_lossy(&late.tail).into_owned();
        let late = LateOutput {
            stdout: text(stdout),
            stderr: text(stderr),
            dropped: (dropped > 0).then_some(dropped),
        };
        (late != LateOutput::default()).then_some(late)
    }

    /// Runs code to its end. When `stop` resolves, the code is interrupted; if it does not end of that, the executor is
    /// killed. Returns what `stop` said, if it did.
    pub(super) async fn run<S>(
        &mut self,
        run: &Run,
        terms: &Terms<'_>,
        stop: impl Future<Output = (S, bool)>,
    ) -> (Ended, Option<S>) {
        self.channel.most = terms.most;
        let request = &run.request;
        let order = Order::Run {
            id: run.id.as_str(),
            count: terms.count,
            code: &request.code,
            env: terms.env,
            once: &request.env_vars,
            most: terms.most,
            cwd: terms.cwd,
        };
        if self.interrupted {
            self.tell_watchdog(-(terms.count as i32));
        }
        if self.channel.send(&order).is_err() {
            return (Ended::Gone(self.gone().await), None);
        }
        tokio::pin!(stop);
        let ended = tokio::select! {
            // First: however much comes of the code, it is interrupted in time.
            biased;
            (why, gently) = &mut stop => {
                let ended = match gently {
                    true => self.interrupt(run, terms.count).await,
                    false => Ended::Gone(self.gone().await),
                };
                return (self.finish(run, ended), Some(why));
            }
            ended = self.follow(run) => ended,
        };
        (self.finish(run, ended), None)
    }

    fn finish(&mut self, run: &Run, ended: Ended) -> Ended {
        self.stdout.finish(run);
        self.stderr.finish(run);
        ended
    }

    /// Takes what the run writes and shows, until its end.
    async fn follow(&mut self, run: &Run) -> Ended {
        let own = |id: Option<String>| id.as_deref() == Some(run.id.as_str());
        loop {
            let message = tokio::select! {
                biased;
                message = self.channel.next() => message,
                // A failing pipe is one that nobody reads any more: the channel tells of what comes of it.
                _ = self.stdout.next(Some(run)) => continue,
                _ = self.stderr.next(Some(run)) => continue,
            };
            match message {
                Ok(Message::Result(id, shown)) if own(id.clone()) => {
                    // In the order in which the code did it.
                    self.stdout.settle(Some(run));
                    self.stderr.settle(Some(run));
                    if let Ok(json) = serde_json::to_vec(&shown) {
                        run.append(Kind::Result, &json);
                    }
                }
                Ok(Message::Done(id, failure)) if own(id.clone()) => return Ended::Done(failure),
                // Of a run that is over, or of nobody.
                Ok(_) => {}
                Err(broken) => {
                    if !matches!(broken, Broken::Closed) {
                        tracing::warn!(run = %run.id, %broken, "an executor is ended");
                    }
                    return Ended::Gone(self.gone().await);
                }
            }
        }
    }

    /// Interrupts the run: first the interpreter alone, then everything that it started, then it is killed.
    async fn interrupt(&mut self, run: &Run, count: u64) -> Ended {
        self.interrupted = true;
        self.tell_watchdog(count as i32);
        let mut sent = self.child.signal(Signal::INT);
        for last in [false, true] {
            let deadline = Instant::now() + INTERRUPT_GRACE;
            if sent.is_ok()
                && let Ok(ended) = tokio::time::timeout_at(deadline, self.follow(run)).await
            {
                return ended;
            }
            if !last {
                sent = self.group.signal(Signal::INT).await;
            }
        }
        Ended::Gone(self.gone().await)
    }

    fn tell_watchdog(&self, run: i32) {
        if let Some(pipe) = &self.interrupts {
            // One that reads no more is of no use: without it the run ends with its interpreter.
            _ = rustix::io::write(pipe, &run.to_le_bytes());
        }
    }

    /// Waits between two runs; returns when the executor is gone. Cancel-safe.
    pub(super) async fn idle(&mut self) {
        loop {
            tokio::select! {
                message = self.channel.next() => if message.is_err() { return },
                _ = self.stdout.next(None) => {}
                _ = self.stderr.next(None) => {}
            }
        }
    }

    /// Whether its process still runs.
    pub(super) fn lives(&self) -> bool {
        self.child.try_wait().is_none()
    }

    async fn gone(&mut self) -> Exit {
        match self.end_of_it().await {
            End::Own(exit) | End::Killed(exit) => exit,
        }
    }

    /// How it ended; kills what has not. Nothing is left of its group then, whatever the code has started.
    async fn end_of_it(&mut self) -> End {
        // One that has closed its channel is on its way out, or of no use.
        let exited = tokio::time::timeout(Duration::from_millis(50), self.child.wait()).await;
        let killed = self.group.stop(Signal::KILL, Duration::ZERO).await;
        if let Err(error) = killed {
            tracing::error!(%error, "the processes of an executor could not be ended");
        }
        match exited {
            Ok(Ok(exit)) => End::Own(exit),
            _ => End::Killed(self.child.try_wait().unwrap_or(Exit::Signal(9))),
        }
    }

    /// Ends it with everything that its code has started.
    pub(super) async fn end(self) {
        if let Err(error) = self.group.stop(Signal::TERM, END_GRACE).await {
            tracing::error!(%error, "the processes of an executor could not be ended");
        }
        // Takes its status: nobody else asks for it.
        self.child.try_wait();
    }
}

/// A pipe: the end to read from, and the end to write to, which never blocks.
fn interrupt_pipe() -> Result<(OwnedFd, OwnedFd), StartError> {
    let failed = |e: rustix::io::Errno| agent("making a pipe")(e.into());
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
    rustix::io::ioctl_fionbio(&write, true).map_err(failed)?;
    Ok((read, write))
}
