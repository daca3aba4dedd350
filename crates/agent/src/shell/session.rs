//! The session: one shell, one command at a time.

use super::answer::Answer;
use super::command::{
    Dropped, Ended, RunError, RunOutcome, RunRequest, StopReason, check, check_variable, failed,
};
use super::env::{self, Changes, Layers, SandboxEnv, Standing};
use super::image::{Kind, ShellImage};
use super::live::{Event, Live, StartError};
use super::patience::Patience;
use super::plain::{self, Plain};
use super::processes::Processes;
use super::protocol::{Assignment, Message, Reply, Request, StateBytes, encode};
use super::state::{Exported, LOST, State, kind_name};
use crate::spawn::group::{KILLED_WITHIN, unkillable};
use crate::spawn::{Exit, Spawner};
use rustix::fd::AsFd;
use rustix::fs::{MemfdFlags, OFlags};
use rustix::process::Signal;
use std::ffi::CString;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a shell may take to start and to restore its state. Far above both; a shell that takes longer is broken.
const START_WITHIN: Duration = Duration::from_secs(20);

/// How many shells are started before a command is given up: some may be killed on their way.
const STARTS: usize = 3;

/// How long a shell may take to begin a command once it has been sent. It begins at once unless it still writes a large
/// state, or something else has read the request: a background job can, if it looks for the shell's private socket.
const BEGUN_WITHIN: Duration = Duration::from_secs(10);

/// How many lost parts of a state one command tells of.
const MAX_DROPPED: usize = 64;

/// What a session is.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Where its first shell starts. Must exist; a restarted shell whose directory is gone starts in `/`.
    pub cwd: String,
    /// Its own variables from the beginning (text sets, none unsets).
    pub env: Changes,
    /// The sandbox's variables.
    pub sandbox_env: SandboxEnv,
    /// The shell of the image.
    pub image: ShellImage,
    /// How long a stopped command's programs have between TERM and KILL. Default 2 s.
    pub grace: Duration,
    /// A state to begin with: that of a session whose sandbox was stopped.
    pub state: Option<Arc<State>>,
}

impl SessionConfig {
    /// A session with defaults.
    pub fn new(cwd: impl Into<String>, sandbox_env: SandboxEnv, image: ShellImage) -> Self {
        Self {
            cwd: cwd.into(),
            env: Changes::new(),
            sandbox_env,
            image,
            grace: Duration::from_secs(2),
            state: None,
        }
    }
}

/// What may be known of a session without waiting for it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The state at the end of the last command that completed, once one changed it.
    pub state: Option<Arc<State>>,
    /// Whether `state` is that of the last command that completed, as opposed to still being on its way.
    pub settled: bool,
    standing: Arc<Standing>,
}

impl Snapshot {
    /// The environment and, if it is known, the directory in which a program that the session starts now begins: as of
    /// the last command that completed (contract S14), with variables that were set since on the sandbox or on the
    /// session (contract S11). `waiting` are those that nobody has given to the session yet.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn exported(&self, sandbox: &SandboxEnv, waiting: &Changes) -> io::Result<Exported> {
        let mut state = self.state.as_ref().map(|state| state.exported()).transpose()?;
        let cwd = state.as_mut().and_then(|exported| exported.cwd.take());
        Ok(Exported { environment: self.standing.environment(state, sandbox, waiting), cwd })
    }
}

/// A session's shell and what outlives it.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    spawner: Spawner,
    processes: Processes,
    layers: Layers,
    live: Option<Live>,
    /// Where the session begins, while its shell waits elsewhere.
    home: Option<String>,
    patience: Patience,
    /// The shell of the running command, where commands have shells of their own.
    plain: Option<Plain>,
    state: Option<Arc<State>>,
    snapshot: watch::Sender<Snapshot>,
    /// The shell has answered but not yet said what became of its state.
    unsettled: bool,
    /// A command was begun whose end nobody waited for.
    abandoned: bool,
    last_status: i32,
    dropped: Vec<Dropped>,
    /// Of processes that were killed and do not end, to be told with the next outcome.
    unkillable: Vec<String>,
}

/// What became of a shell that was started.
enum Started {
    /// It is ready, or commands have shells of their own.
    Ready,
    /// It ended before it had loaded the session loop.
    EndedLoading(Exit),
    /// It ended before it had restored the state.
    EndedRestoring,
}

impl Session {
    /// A session without a shell yet: the first command starts one.
    pub fn new(config: SessionConfig, spawner: Spawner) -> io::Result<Self> {
        let processes = Processes::new(spawner.identity())?;
        let mut layers = Layers::new(config.sandbox_env.clone(), config.env.clone());
        let state = config.state.clone();
        let standing = layers.standing();
        let (snapshot, _) = watch::channel(Snapshot { state: state.clone(), settled: true, standing });
        Ok(Self {
            config,
            spawner,
            processes,
            layers,
            live: None,
            home: None,
            patience: Patience::default(),
            plain: None,
            state,
            snapshot,
            unsettled: false,
            abandoned: false,
            last_status: 0,
            dropped: Vec::new(),
            unkillable: Vec::new(),
        })
    }

    /// Follows the session's state, also while a command runs. To read it as of the last completed command (contract
    /// S14), wait until it is settled; [`Session::settle`] makes that happen while no command runs.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    /// Gives variables to the session, from its next command on. They win over the sandbox's.
    pub fn set_env(&mut self, changes: &Changes) -> Result<(), RunError> {
        changes.iter().try_for_each(|(name, value)| check_variable(name, value.as_deref()))?;
        self.layers.give(changes);
        self.tell_standing();
        Ok(())
    }

    /// Runs a command. Resolving `stop` ends it, and everything that it started.
    ///
    /// Not cancel-safe: a command whose future is dropped is killed before the next one runs, without a grace.
    pub async fn run(
        &mut self,
        request: &RunRequest,
        stop: impl Future<Output = StopReason>,
    ) -> Result<RunOutcome, RunError> {
        check(request)?;
        let command: Vec<_> = request
            .env
            .iter()
            .map(|(name, value)| Assignment { name: name.clone(), value: value.clone(), only_if: None })
            .collect();
        let mut stop = pin!(stop);
        if self.abandoned {
            self.kill_abandoned().await?;
        }
        self.abandoned = true;
        // A shell that died while it was idle, or cannot run anything, is replaced; the one after that is new.
        let mut tries = 0;
        let outcome = loop {
            tries += 1;
            let ready = tokio::select! {
                biased;
                reason = &mut stop => Err(reason),
                ready = self.ensure_ready() => Ok(ready?),
            };
            if let Err(reason) = ready {
                break self.stopped(reason).await?;
            }
            let answer = tokio::select! {
                biased;
                answer = async {
                    match self.live {
                        Some(_) => self.ask(request, &command).await,
                        None => self.ask_plain(request).await,
                    }
                } => Ok(answer?),
                reason = &mut stop => Err(reason),
            };
            break match answer {
                Err(reason) => self.stopped(reason).await?,
                Ok(Answer::Completed { status }) => self.outcome(status, None, Ended::Completed, false),
                Ok(Answer::CompletedAndLeft { status }) => self.outcome(status, None, Ended::Completed, true),
                Ok(Answer::Exited(exit)) => {
                    self.outcome(exit.code(), exit.signal(), Ended::ShellExited, true)
                }
                Ok(Answer::Lost(exit)) => self.outcome(exit.code(), exit.signal(), Ended::Interrupted, true),
                Ok(Answer::NotBegun) if tries < 3 => continue,
                Ok(Answer::NotBegun) => return Err(RunError::Broken("ends before it begins a command")),
            };
        };
        self.abandoned = false;
        Ok(outcome)
    }

    fn outcome(
        &mut self,
        exit_code: i32,
        signal: Option<i32>,
        ended: Ended,
        shell_restarted: bool,
    ) -> RunOutcome {
        self.last_status = exit_code;
        let dropped = std::mem::take(&mut self.dropped);
        let unkillable = std::mem::take(&mut self.unkillable);
        RunOutcome { exit_code, signal, ended, shell_restarted, dropped, unkillable }
    }

    /// Waits until the state of the last command is known. Returns at once if it is. Cancel-safe.
    pub async fn settle(&mut self) -> io::Result<()> {
        while self.unsettled {
            let Some(live) = &mut self.live else { break };
            match live.next().await? {
                Event::Message(message) => self.take(message),
                Event::Exit(_) => self.bury(),
            }
        }
        self.publish();
        Ok(())
    }

    /// The state as of the last completed command, once [`Session::settle`] has returned.
    pub fn state(&self) -> Option<Arc<State>> {
        self.state.clone()
    }

    /// Starts and restores a shell if there is none, so that the next command finds one ready.
    pub async fn ensure_ready(&mut self) -> Result<(), RunError> {
        if let Some(live) = &self.live
            && live.greeted
        {
            if live.child.try_wait().is_none() {
                return Ok(());
            }
            self.bury();
        }
        match tokio::time::timeout(START_WITHIN, self.start()).await {
            Ok(result) => result,
            Err(_) => {
                self.kill_shell().await.map_err(failed("killing a shell that does not start"))?;
                Err(RunError::Broken("does not start"))
            }
        }
    }

    async fn start(&mut self) -> Result<(), RunError> {
        let mut restoring = 0;
        for _ in 0..STARTS {
            match self.start_once().await? {
                Started::Ready => return Ok(()),
                Started::EndedLoading(Exit::Code(_)) if self.config.image.cannot_load() => return Ok(()),
                // Killed, or an accident.
                Started::EndedLoading(_) => {}
                Started::EndedRestoring if restoring == 0 => restoring += 1,
                Started::EndedRestoring => {
                    // A state that kills the shell is given up, or the session would restore it for ever.
                    self.state = None;
                    self.unkept("the shells that restored it ended");
                    return Err(RunError::Broken("ended while it restored its state, which is given up"));
                }
            }
        }
        Err(RunError::Broken("ended before it was ready"))
    }

    async fn start_once(&mut self) -> Result<Started, RunError> {
        if self.live.is_none() && !self.begin()? {
            return Ok(Started::Ready);
        }
        // The state of a shell that has run nothing is not waited for: nonce zero is that of the greeting.
        loop {
            let Some(live) = &mut self.live else { return Err(RunError::Broken("is gone")) };
            match live.next().await.map_err(failed("waiting for a shell"))? {
                Event::Message(Message { reply: Reply::Hello, .. }) => {
                    live.greeted = true;
                    break;
                }
                Event::Message(_) => {}
                Event::Exit(exit) => {
                    self.live = None;
                    return Ok(Started::EndedLoading(exit));
                }
            }
        }
        self.config.image.loads();
        match self.state.clone() {
            Some(state) => self.restore(&state).await,
            None => Ok(Started::Ready),
        }
    }

    /// Starts a shell and does not wait for it: it comes up beside whatever else is done, and
    /// [`Session::ensure_ready`] waits for what is left of that. There must be none. False where commands have shells of
    /// their own.
    ///
    /// # Errors
    /// If the process cannot be made.
    pub fn begin(&mut self) -> Result<bool, RunError> {
        let (kind, program) = self.config.image.choose();
        if kind == Kind::Plain {
            return Ok(false);
        }
        // A restored shell gets its variables with the state.
        let environment = match &self.state {
            Some(_) => self.config.sandbox_env.variables(),
            None => self.layers.fresh(),
        };
        let cwd =
            CString::new(self.config.cwd.as_str()).map_err(|_| RunError::Nul("the working directory"))?;
        let start = |this: &mut Self, cwd| {
            Live::start(&this.spawner, &this.config.image, &program, &mut this.processes, &environment, cwd)
        };
        let live = match start(self, &cwd) {
            Err(StartError::Spawn(e)) if e.is_directory() => {
                let part =
                    Dropped { kind: "working directory", name: self.config.cwd.clone(), reason: e.why() };
                // A state has a directory of its own. Told once, however often a shell starts before the next command.
                if self.state.is_none() && !self.dropped.contains(&part) {
                    self.dropped.push(part);
                }
                start(self, c"/")
            }
            Err(StartError::Spawn(e)) if e.is_exec() && self.config.image.cannot_load() => {
                return Ok(false);
            }
            other => other,
        }?;
        self.live = Some(live);
        self.home = None;
        Ok(true)
    }

    /// Becomes the session of `config`, which must have no state, although its shell was begun for another directory and
    /// without the session's own variables. False, and nothing is done, if a shell that is started with those variables
    /// would not be the same.
    pub fn adopt(&mut self, config: &SessionConfig) -> bool {
        // Without some, as TERM, bash makes its own.
        let later = self.layers.later_than_the_shell(&config.env);
        if !later.iter().all(|(name, value)| value.is_some() && env::is_ordinary(name)) {
            return false;
        }
        self.layers.give(&config.env);
        if config.cwd != self.config.cwd {
            self.home = Some(config.cwd.clone());
        }
        self.config = config.clone();
        self.tell_standing();
        true
    }

    async fn restore(&mut self, state: &State) -> Result<Started, RunError> {
        self.layers.restored();
        let Some(live) = &mut self.live else { return Err(RunError::Broken("is gone")) };
        let file = state.file().map_err(failed("opening the state"))?;
        let null = crate::null::open(OFlags::WRONLY).map_err(failed("opening /dev/null"))?;
        let complaints = rustix::fs::memfd_create("sandcrab-restore", MemfdFlags::CLOEXEC)
            .map_err(|e| failed("making a memory file")(e.into()))?;
        let nonce = live.next_nonce();
        let message = encode(&Request::Restore { size: state.len() }, nonce, self.last_status);
        // A send that fails is the end of the shell, which is seen below.
        let _ = live.control.send(&message, &[file.as_fd(), null.as_fd(), complaints.as_fd()]).await;
        let parts = loop {
            match live.next().await.map_err(failed("restoring the state"))? {
                Event::Message(Message { reply: Reply::Restored(parts), .. }) => break parts,
                Event::Message(_) => {}
                Event::Exit(_) => {
                    self.live = None;
                    return Ok(Started::EndedRestoring);
                }
            }
        };
        let mut reason = vec![0; 4096];
        let n = rustix::io::pread(&complaints, &mut reason, 0).unwrap_or(0);
        let reason = String::from_utf8_lossy(&reason[..n]).trim_end().to_owned();
        for (kind, name) in parts {
            let reason = match (kind, name.as_str()) {
                (LOST, "set -e") => "a command that failed had ended the shell by it".to_owned(),
                (LOST, _) => "it ended with the shell".to_owned(),
                _ => reason.clone(),
            };
            lose(&mut self.dropped, Dropped { kind: kind_name(kind), name, reason });
        }
        Ok(Started::Ready)
    }

    async fn ask(&mut self, request: &RunRequest, command: &[Assignment]) -> Result<Answer, RunError> {
        let Some(live) = &mut self.live else { return Ok(Answer::NotBegun) };
        self.processes.before_command(live.child.pid()).map_err(failed("setting apart earlier processes"))?;
        let due = self.layers.deliver();
        let nonce = live.next_nonce();
        let home = self.home.take();
        let message = encode(
            &Request::Run {
                session: &due,
                command,
                home: home.as_deref().unwrap_or_default(),
                cwd: request.cwd.as_deref().unwrap_or_default(),
                text: &request.text,
            },
            nonce,
            self.last_status,
        );
        let fds = [request.stdin.as_fd(), request.stdout.as_fd(), request.stderr.as_fd()];
        let deadline = Instant::now() + BEGUN_WITHIN;
        let sent = tokio::select! {
            biased;
            // A send that fails is the end of the shell, which is seen below.
            _ = live.control.send(&message, &fds) => true,
            _ = live.child.wait() => true,
            () = self.patience.until(deadline) => false,
        };
        let mut deadline = Instant::now() + if sent { BEGUN_WITHIN } else { Duration::ZERO };
        let (mut is_begun, mut given_up) = (false, false);
        loop {
            let Some(live) = &mut self.live else { return Ok(Answer::NotBegun) };
            let event = tokio::select! {
                biased;
                event = live.next() => event.map_err(failed("waiting for a command"))?,
                () = self.patience.until(deadline), if !is_begun || given_up => {
                    if given_up {
                        let page = live.page().ok();
                        self.unkillable.push(unkillable([live.child.pid()]).to_string());
                        self.bury();
                        let exit = Exit::Signal(libc::SIGKILL);
                        return Ok(Answer::at_the_end(page.as_ref(), nonce, exit, true));
                    }
                    is_begun = live.page().is_ok_and(|page| page.begun == nonce);
                    if !is_begun {
                        // Something else has read the request, or the shell is stopped. What is certain after the
                        // kill is that the command either was begun or never will be.
                        live.child.signal(Signal::KILL).map_err(failed("killing a shell that does not begin"))?;
                        (is_begun, given_up) = (true, true);
                        deadline = Instant::now() + KILLED_WITHIN;
                    }
                    continue;
                }
            };
            match event {
                Event::Message(Message { reply: Reply::Status { status, settles_later }, .. }) => {
                    self.unsettled = settles_later;
                    self.layers.completed();
                    if !settles_later {
                        self.layers.saved();
                    }
                    self.tell_standing();
                    self.snapshot.send_if_modified(|s| {
                        std::mem::replace(&mut s.settled, !settles_later) == settles_later
                    });
                    return Ok(Answer::Completed { status });
                }
                Event::Message(message) => {
                    self.take(message);
                    // Whoever reads the shell's memory can forge these without end; the deadline has its turn.
                    tokio::task::yield_now().await;
                }
                Event::Exit(exit) => {
                    let page = live.page().ok();
                    self.bury();
                    return Ok(Answer::at_the_end(page.as_ref(), nonce, exit, given_up));
                }
            }
        }
    }

    /// Runs a command in a shell of its own (see plain.rs).
    async fn ask_plain(&mut self, request: &RunRequest) -> Result<Answer, RunError> {
        let (_, program) = self.config.image.choose();
        let mut before = match &self.state {
            Some(state) => state.exported().map_err(failed("reading the session's state"))?,
            None => Exported { environment: env::as_bytes(&self.layers.fresh()), cwd: None },
        };
        let cwd = before.cwd.get_or_insert_with(|| self.config.cwd.clone().into_bytes()).clone();
        plain::apply(&mut before.environment, &self.layers.deliver());
        self.layers.completed();
        self.layers.saved();
        self.keep_exported(&before);

        let mut environment = before.environment.clone();
        for (name, value) in &request.env {
            match value {
                Some(value) => drop(environment.insert(name.clone().into(), value.clone().into())),
                None => drop(environment.remove(name.as_bytes())),
            }
        }
        let cwd = match &request.cwd {
            Some(own) => plain::join(&cwd, own.as_bytes()),
            None => cwd,
        };
        environment.insert(b"PWD".to_vec(), cwd.clone());
        let directory = CString::new(cwd).map_err(|_| RunError::Nul("the working directory"))?;
        let stdio = [request.stdin.as_fd(), request.stdout.as_fd(), request.stderr.as_fd()];
        let mut start = |environment: &_, directory: &_| {
            let text = plain::Text { command: &request.text, last_status: self.last_status };
            Plain::start(&self.spawner, &program, &mut self.processes, environment, directory, &text, stdio)
        };
        let started = match start(&environment, &directory) {
            Err(StartError::Spawn(e)) if e.is_directory() && request.cwd.is_some() => {
                let message =
                    format!("sh: cd: {}: {}\n", request.cwd.as_deref().unwrap_or_default(), e.why());
                rustix::io::write(&request.stderr, message.as_bytes())
                    .map_err(|e| failed("writing to stderr")(e.into()))?;
                return Ok(Answer::Completed { status: 1 });
            }
            Err(StartError::Spawn(e)) if e.is_directory() => {
                let part = Dropped {
                    kind: "working directory",
                    name: directory.to_string_lossy().into_owned(),
                    reason: "it cannot be entered any more".into(),
                };
                lose(&mut self.dropped, part);
                environment.insert(b"PWD".to_vec(), b"/".to_vec());
                start(&environment, c"/")
            }
            other => other,
        };
        let plain = self.plain.insert(started?);
        let exit = plain.child.wait().await.map_err(failed("waiting for a command"))?;
        let said = plain.said().map_err(failed("reading what a shell said"))?;
        self.plain = None;
        let completed = said.as_ref().is_some_and(|said| said.completed);
        if let Some(mut said) = said {
            // What was given to this command only is as it was before.
            for (name, _) in &request.env {
                match before.environment.remove(name.as_bytes()) {
                    Some(value) => drop(said.exported.environment.insert(name.clone().into(), value)),
                    None => drop(said.exported.environment.remove(name.as_bytes())),
                }
            }
            if request.cwd.is_some() || said.exported.cwd.is_none() {
                said.exported.cwd = before.cwd;
            }
            self.keep_exported(&said.exported);
        }
        Ok(match exit {
            Exit::Code(status) if completed => Answer::Completed { status },
            exit => Answer::Exited(exit),
        })
    }

    fn keep_exported(&mut self, exported: &Exported) {
        self.state = State::from_exported(exported).map(Arc::new);
        self.publish();
    }

    /// What the shell says beside answers.
    fn take(&mut self, message: Message) {
        match message.reply {
            Reply::State(bytes) => self.keep(bytes),
            Reply::Settled => {
                self.unsettled = false;
                self.layers.saved();
            }
            Reply::Unkept => self.unkept("the shell could not hand it over"),
            _ => {}
        }
    }

    fn keep(&mut self, bytes: StateBytes) {
        match State::receive(bytes) {
            Ok(Some(state)) => {
                self.state = Some(Arc::new(state));
                self.unsettled = false;
                self.layers.saved();
                self.publish();
            }
            Ok(None) => self.unkept("what the shell handed over is none"),
            Err(error) => self.unkept(format!("it cannot be read: {error}")),
        }
    }

    /// The state as of the last command is lost; the one before stands, if any.
    fn unkept(&mut self, reason: impl Into<String>) {
        self.unsettled = false;
        lose(&mut self.dropped, Dropped { kind: "state", name: String::new(), reason: reason.into() });
        self.publish();
    }

    fn publish(&mut self) {
        let settled = !self.unsettled;
        let standing = self.layers.standing();
        self.snapshot.send_replace(Snapshot { state: self.state.clone(), settled, standing });
    }

    /// Publishes what was given to the session, if that changed.
    fn tell_standing(&mut self) {
        let standing = self.layers.standing();
        self.snapshot.send_if_modified(|snapshot| {
            let same = Arc::ptr_eq(&snapshot.standing, &standing);
            snapshot.standing = standing;
            !same
        });
    }

    /// The shell has exited: takes the state that it left and lets go of it.
    fn bury(&mut self) {
        let Some(mut live) = self.live.take() else { return };
        self.processes.ended(live.child.left());
        // At most: the states of two commands. A forger may have more to say.
        for _ in 0..4 {
            let Some(message) = live.last_message() else { break };
            self.take(message);
        }
        if let Ok(page) = live.page()
            && let Some(state) = page.state
        {
            self.keep(StateBytes::Inline(state.into()));
        }
        self.unsettled = false;
        self.publish();
    }

    /// Ends the running command and its shell.
    async fn stopped(&mut self, reason: StopReason) -> Result<RunOutcome, RunError> {
        self.stop_shell(self.config.grace).await.map_err(failed("stopping a command"))?;
        Ok(self.outcome(128 + libc::SIGKILL, Some(libc::SIGKILL), Ended::Stopped(reason), true))
    }

    async fn stop_shell(&mut self, grace: Duration) -> io::Result<()> {
        if let Some(live) = &self.live {
            let stopped = self.processes.stop(live.child.pid(), &live.line, grace).await;
            live.child.signal(Signal::KILL)?;
            let ended = live.child.wait_killed().await;
            self.bury();
            // What does not end is told of, and the session goes on without it.
            self.give_up(ended.map(drop).and(stopped))?;
        }
        if let Some(plain) = &self.plain {
            let stopped = self.processes.stop(plain.child.pid(), &plain.line, grace).await;
            plain.child.signal(Signal::KILL)?;
            let ended = plain.child.wait_killed().await;
            self.plain = None;
            self.give_up(ended.map(drop).and(stopped))?;
        }
        Ok(())
    }

    /// Keeps what was said of processes that were killed and do not end; other failures pass.
    fn give_up(&mut self, killed: io::Result<()>) -> io::Result<()> {
        match killed {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => self.unkillable.push(error.to_string()),
            other => return other,
        }
        Ok(())
    }

    async fn kill_shell(&mut self) -> io::Result<()> {
        self.stop_shell(Duration::ZERO).await
    }

    async fn kill_abandoned(&mut self) -> Result<(), RunError> {
        self.kill_shell().await.map_err(failed("killing a command that nobody waits for"))?;
        self.abandoned = false;
        Ok(())
    }

    /// Ends the session: its shell, its running command, and what earlier commands left running in the background.
    /// How many processes these were, the shell aside.
    pub async fn end(mut self) -> io::Result<usize> {
        let shell = self.live.as_ref().map(|live| live.child.pid());
        let count = shell.map_or(Ok(0), |shell| self.processes.background(shell))?;
        self.kill_shell().await?;
        let stopped = self.processes.stop_survivors().await;
        self.give_up(stopped)?;
        self.all_ended().map(|()| count)
    }

    /// Ends its shell and its running command. What earlier commands left running in the background lives on, whether they
    /// ended the shell or not.
    pub async fn leave(mut self) -> io::Result<()> {
        if self.abandoned {
            self.kill_shell().await?;
        } else if let Some(live) = &self.live {
            live.child.signal(Signal::KILL)?;
            let ended = live.child.wait_killed().await;
            self.bury();
            self.give_up(ended.map(drop))?;
        }
        self.processes.let_go()?;
        self.all_ended()
    }

    fn all_ended(&self) -> io::Result<()> {
        match self.unkillable.is_empty() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, self.unkillable.join("; "))),
        }
    }
}

/// Notes a part that is lost. Whoever has the shell's socket may tell of such without end (attack B14).
fn lose(dropped: &mut Vec<Dropped>, part: Dropped) {
    match dropped.len() {
        ..MAX_DROPPED => dropped.push(part),
        MAX_DROPPED => dropped.push(Dropped {
            kind: "part",
            name: String::new(),
            reason: format!("more than {MAX_DROPPED} were lost; the rest is not named"),
        }),
        _ => {}
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A session is ended by `end`; one that is dropped leaves at least no shell behind.
        for child in
            self.live.iter().map(|live| &live.child).chain(self.plain.iter().map(|plain| &plain.child))
        {
            let _ = child.signal(Signal::KILL);
        }
    }
}
