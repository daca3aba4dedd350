//! What every test of the engine needs: a session, and a way to run a text in it and read all that it prints.

use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};
use sandcrab_agent::shell::image::ShellImage;
use sandcrab_agent::shell::{
    Changes, RunOutcome, RunRequest, SandboxEnv, Session, SessionConfig, State, StopReason,
};
use sandcrab_agent::spawn::{Identity, Spawner};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::unix::pipe::{Receiver, Sender};

/// No command of a test takes longer; one that does has hung.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) session: Session,
    pub(crate) env: SandboxEnv,
    pub(crate) dir: tempfile::TempDir,
    #[expect(dead_code, reason = "removed with the rig, after the directory in it")]
    parent: tempfile::TempDir,
    #[expect(dead_code, reason = "removed with the rig, after the session")]
    delegated: Option<Delegated>,
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: RunOutcome,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Bytes of stdout, where they were counted instead of kept.
    pub(crate) counted: u64,
}

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.outcome.exit_code
    }
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A request that can still be changed.
pub(crate) struct Call {
    text: Bytes,
    stdin: Option<Vec<u8>>,
    env: Vec<(String, Option<String>)>,
    cwd: Option<String>,
    stop: Option<(Duration, StopReason)>,
    counted: bool,
}

pub(crate) fn call(text: impl AsRef<[u8]>) -> Call {
    Call {
        text: Bytes::copy_from_slice(text.as_ref()),
        stdin: None,
        env: Vec::new(),
        cwd: None,
        stop: None,
        counted: false,
    }
}

impl Call {
    pub(crate) fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = Some(bytes.as_ref().to_vec());
        self
    }
    pub(crate) fn env(mut self, name: &str, value: Option<&str>) -> Self {
        self.env.push((name.into(), value.map(Into::into)));
        self
    }
    pub(crate) fn cwd(mut self, cwd: impl Into<String>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }
    /// Counts what comes on stdout instead of keeping it.
    pub(crate) fn counted(mut self) -> Self {
        self.counted = true;
        self
    }
    pub(crate) fn timeout(mut self, after: Duration) -> Self {
        self.stop = Some((after, StopReason::Timeout));
        self
    }
}

/// The shells of this machine.
pub(crate) fn image() -> ShellImage {
    let files = sandcrab_agent::files::Files::of_sandbox(&Default::default()).expect("/ opens");
    ShellImage::find(&files).expect("this machine has a shell")
}

pub(crate) fn base_env() -> BTreeMap<String, String> {
    [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

/// How the engine knows which processes belong to a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// A delegated cgroup2 directory.
    Cgroup,
    /// The tree of processes.
    Tree,
}

/// A cgroup2 directory of a test's own, as a server would delegate one. Needs root and a cgroup2 mount.
pub(crate) struct Delegated(std::path::PathBuf);

impl Delegated {
    fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is mounted");
        let root = mounts
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ').skip(1);
                Some((fields.next()?, fields.next()?))
            })
            .find_map(|(at, kind)| (kind == "cgroup2").then_some(at))
            .expect("these tests need a cgroup2 mount");
        let serial = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = format!("{root}/sandcrab-engine-test-{}-{serial}", std::process::id());
        std::fs::create_dir(&path).expect("these tests need root, to make a cgroup");
        Self(path.into())
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                let _ = std::fs::write(entry.path().join("cgroup.kill"), "1");
                // The kernel takes a moment to forget what was killed; the directory cannot go before.
                let deadline = std::time::Instant::now() + Duration::from_secs(5);
                while std::fs::remove_dir(entry.path()).is_err() && std::time::Instant::now() < deadline {
                    std::thread::yield_now();
                }
            }
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

impl Rig {
    pub(crate) fn in_mode(mode: Mode) -> Self {
        Self::in_mode_with(mode, image())
    }

    pub(crate) fn in_mode_with(mode: Mode, image: ShellImage) -> Self {
        match mode {
            Mode::Tree => Self::with(Identity::default(), image, Changes::new()),
            Mode::Cgroup => {
                let delegated = Delegated::new();
                let dir = std::fs::File::open(&delegated.0).expect("the cgroup exists");
                let identity = Identity { cgroup: Some(dir.into()), ..Identity::default() };
                Self { delegated: Some(delegated), ..Self::with(identity, image, Changes::new()) }
            }
        }
    }

    /// A path inside the test's own directory, as text for a script.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a text path").to_owned()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.dir.path().join(name).exists()
    }

    /// The pid that a script wrote to a file.
    pub(crate) fn pid(&self, name: &str) -> i32 {
        let text = std::fs::read_to_string(self.dir.path().join(name)).expect("the script wrote a pid");
        text.trim().parse().expect("a pid")
    }

    pub(crate) fn new() -> Self {
        Self::with(Identity::default(), image(), Changes::new())
    }

    pub(crate) fn with_state(state: State) -> Self {
        let image = image();
        Self::with_all(Identity::default(), image, Changes::new(), Some(state))
    }

    pub(crate) fn with(identity: Identity, image: ShellImage, own: Changes) -> Self {
        Self::with_all(identity, image, own, None)
    }

    /// A session with these variables, whose shell was begun in another place before anything was known of it.
    pub(crate) fn from_spare(own: Changes) -> Self {
        let image = image();
        let mut rig = Self::with(Identity::default(), image.clone(), own.clone());
        let spawner = Spawner::new(Identity::default());
        let nowhere = SessionConfig::new("/", rig.env.clone(), image.clone());
        let mut spare = Session::new(nowhere, spawner).expect("a session can be made");
        assert!(spare.begin().expect("a shell starts"), "the shell can load the session loop");
        let cwd = rig.dir.path().canonicalize().expect("the directory exists");
        let mut config = SessionConfig::new(cwd.to_str().expect("a text path"), rig.env.clone(), image);
        config.env = own;
        assert!(spare.adopt(&config), "it can become this session's");
        rig.session = spare;
        rig
    }

    fn with_all(identity: Identity, image: ShellImage, own: Changes, state: Option<State>) -> Self {
        // In a directory of its own: a script that lists `..` sees nobody else's come and go.
        let parent = tempfile::tempdir().expect("a directory for the test");
        let dir = tempfile::tempdir_in(&parent).expect("a directory in it");
        let cwd = dir.path().canonicalize().expect("the directory exists");
        let env = SandboxEnv::new(base_env());
        let mut config = SessionConfig::new(cwd.to_str().expect("a text path"), env.clone(), image);
        config.env = own;
        config.state = state.map(std::sync::Arc::new);
        let session = Session::new(config, Spawner::new(identity)).expect("a session can be made");
        Self { session, env, dir, parent, delegated: None }
    }

    /// Runs a text and insists on a result.
    pub(crate) async fn run(&mut self, text: impl AsRef<[u8]>) -> Ran {
        self.call(call(text)).await
    }

    pub(crate) async fn call(&mut self, call: Call) -> Ran {
        tokio::time::timeout(PATIENCE, self.try_call(call)).await.expect("the command ends")
    }

    async fn try_call(&mut self, call: Call) -> Ran {
        let (stdin, feed) = match call.stdin {
            None => (std::fs::File::open("/dev/null").expect("/dev/null opens").into(), None),
            Some(bytes) => {
                let (read, write) = pipe();
                (read, Some((write, bytes)))
            }
        };
        let (out_read, stdout) = pipe();
        let (err_read, stderr) = pipe();
        let request = RunRequest { text: call.text, stdin, stdout, stderr, env: call.env, cwd: call.cwd };
        let stop = async move {
            match call.stop {
                Some((after, reason)) => {
                    tokio::time::sleep(after).await;
                    reason
                }
                None => std::future::pending().await,
            }
        };
        let feed = feed.map(|(write, bytes)| tokio::spawn(feed_all(write, bytes)));
        let (tell, told) = tokio::sync::watch::channel(false);
        let out = tokio::spawn(drain(out_read, told.clone(), !call.counted));
        let err = tokio::spawn(drain(err_read, told, true));
        let outcome = self.session.run(&request, stop).await.expect("the command can be run");
        drop(request);
        tell.send_replace(true);
        if let Some(feed) = feed {
            feed.abort();
        }
        let (stdout, counted) = out.await.expect("stdout is read");
        let (stderr, _) = err.await.expect("stderr is read");
        Ran { outcome, stdout, stderr, counted }
    }
}

/// Whether a process runs, as opposed to being gone or a zombie.
pub(crate) fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']))
}

/// Ends what a test left running on purpose.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).expect("a pipe")
}

/// Reads until the end, or until nothing is there after the command has ended: a background job may hold the other end.
async fn drain(fd: OwnedFd, mut ended: tokio::sync::watch::Receiver<bool>, keep: bool) -> (Vec<u8>, u64) {
    rustix::io::ioctl_fionbio(&fd, true).expect("a pipe can be non-blocking");
    let pipe = Receiver::from_owned_fd(fd).expect("a pipe can be watched");
    let mut all = Vec::new();
    let mut count = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match pipe.try_read(&mut buffer) {
            Ok(0) => return (all, count),
            Ok(n) => {
                count += n as u64;
                if keep {
                    all.extend_from_slice(&buffer[..n]);
                }
                continue;
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => panic!("reading output: {e}"),
        }
        // What tokio has not heard of yet is there all the same once the command has ended.
        if *ended.borrow_and_update() {
            return match rustix::io::read(&pipe, &mut buffer) {
                Ok(0) => (all, count),
                Err(rustix::io::Errno::AGAIN) => {
                    // A background job holds the other end; it must not die of a pipe that nobody reads.
                    tokio::spawn(async move { while !matches!(read_some(&pipe).await, Ok(0) | Err(_)) {} });
                    (all, count)
                }
                Ok(n) => {
                    count += n as u64;
                    if keep {
                        all.extend_from_slice(&buffer[..n]);
                    }
                    continue;
                }
                Err(e) => panic!("reading output: {e}"),
            };
        }
        tokio::select! {
            ready = pipe.readable() => ready.expect("a pipe can be watched"),
            changed = ended.changed() => changed.expect("the test still runs"),
        }
    }
}

async fn read_some(pipe: &Receiver) -> std::io::Result<usize> {
    loop {
        pipe.readable().await?;
        match pipe.try_read(&mut [0; 4096]) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn feed_all(fd: OwnedFd, bytes: Vec<u8>) {
    rustix::io::ioctl_fionbio(&fd, true).expect("a pipe can be non-blocking");
    let mut pipe = Sender::from_owned_fd(fd).expect("a pipe can be watched");
    // Whoever reads may leave before the end.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut pipe, &bytes).await;
}
