//! One group of processes as a cgroup2 directory. Only `cgroup.procs`, `cgroup.freeze`, `cgroup.events` and `cgroup.kill`
//! are used, which need no controller, so the bare cgroup2 tree of a hybrid host serves as well.

use super::held::{Held, all_ended};
use super::{Asking, KILLED_WITHIN, ROUNDS, unkillable};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// No line of `cgroup.procs` is longer.
const LINE: usize = 16;

/// How long a freeze may take before it goes on without: a process in an uninterruptible wait does not freeze, but
/// neither does it run.
const FROZEN_WITHIN: Duration = Duration::from_millis(500);

/// The directory.
#[derive(Debug)]
pub(crate) struct CgroupDir {
    base: OwnedFd,
    name: String,
    dir: OwnedFd,
    pub(crate) procs: OwnedFd,
    /// Open from the start: what is to be killed is killed even if the agent runs out of descriptors.
    kill: OwnedFd,
}

/// A group whose members stand still. They go on when this is dropped: a caller that hangs up drops what it waited for.
struct Frozen<'a>(Option<&'a OwnedFd>);

impl Frozen<'_> {
    /// Has them go on, and says whether that worked.
    fn thaw(mut self) -> io::Result<()> {
        self.0.take().map_or(Ok(()), go_on)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(go_on) {
            tracing::error!(%error, "a group of processes stays frozen");
        }
    }
}

fn go_on(dir: &OwnedFd) -> io::Result<()> {
    write(dir, c"cgroup.freeze", b"0")
}

impl CgroupDir {
    /// A new directory below `base`, without members.
    pub(crate) fn create(base: BorrowedFd<'_>) -> io::Result<Self> {
        // Unique below the base: the agent's pid tells apart several that share one (tests).
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("s{}-{serial}", rustix::process::getpid().as_raw_nonzero());
        mkdirat(base, name.as_str(), Mode::from_raw_mode(0o755))?;
        Self::open(base, name.clone()).inspect_err(|_| {
            let _ = unlinkat(base, name.as_str(), AtFlags::REMOVEDIR);
        })
    }

    /// The directory of what belongs to nothing that could be asked to end it: it is there once below `base`, for good.
    fn of_nobody(base: BorrowedFd<'_>) -> io::Result<Self> {
        match mkdirat(base, c"left", Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Self::open(base, "left".to_owned()),
            Err(error) => Err(error.into()),
        }
    }

    fn open(base: BorrowedFd<'_>, name: String) -> io::Result<Self> {
        let dir = openat(base, name.as_str(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let procs = openat(&dir, c"cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let kill = openat(&dir, c"cgroup.kill", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { base: base.try_clone_to_owned()?, name, dir, procs, kill })
    }

    /// Lets its members live on without it, and removes it.
    ///
    /// # Errors
    /// If they cannot be moved; one that makes others faster than they are moved is left where it is.
    pub(crate) fn let_go(&self) -> io::Result<()> {
        let nobody = Self::of_nobody(self.base.as_fd())?;
        for _ in 0..ROUNDS {
            if self.remove() {
                return Ok(());
            }
            for pid in self.members()? {
                match nobody.adopt(pid) {
                    Ok(()) => {}
                    Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(io::Error::other("its processes make others too fast"))
    }

    /// To start a process in it.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Its name below the base.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Moves a process into it.
    pub(crate) fn adopt(&self, pid: Pid) -> io::Result<()> {
        write(&self.dir, c"cgroup.procs", pid.as_raw_nonzero().to_string().as_bytes())
    }

    /// What lives in it.
    pub(crate) fn members(&self) -> io::Result<Vec<Pid>> {
        let mut text = [0u8; 4096];
        let mut at = 0;
        let mut all = Vec::new();
        loop {
            let n = rustix::io::pread(&self.procs, &mut text, at)?;
            at += n as u64;
            all.extend_from_slice(&text[..n]);
            // The kernel writes whole lines until the next one has no room.
            if n + LINE < text.len() {
                break;
            }
        }
        // A process that is not visible in this pid namespace shows as 0 and cannot be signalled from here.
        Ok(all
            .split(|b| *b == b'\n')
            .filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok().and_then(Pid::from_raw))
            .collect())
    }

    /// Asks all to end and gives them the grace. A failure may leave all of them frozen: [`CgroupDir::kill`] ends them
    /// all the same.
    pub(crate) async fn ask_to_end(&self, asking: &Asking<'_>) -> io::Result<()> {
        let frozen = self.freeze().await?;
        let mut known = Vec::new();
        let mut asked = Vec::new();
        for pid in self.members()? {
            known.push(pid);
            let Some(held) = Held::open(pid)? else { continue };
            // While all are frozen: nobody sees another one's end before it has its own signal.
            if asking.stops(&held) {
                held.signal(Signal::STOP);
            } else {
                held.signal(asking.signal);
                asked.push(held);
            }
        }
        frozen.thaw()?;
        let deadline = Instant::now() + asking.grace;
        while all_ended(&asked, deadline).await? {
            asked.clear();
            // What they started while they ended has the rest of the grace.
            for pid in self.members()? {
                let Some(held) = Held::open(pid)? else { continue };
                if !known.contains(&pid) && !asking.stops(&held) {
                    known.push(pid);
                    asked.push(held);
                }
            }
            if asked.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Sends a signal to every member, to all at one moment.
    pub(crate) async fn signal(&self, signal: Signal) -> io::Result<()> {
        let frozen = self.freeze().await;
        let sent = self.members().and_then(|members| {
            for pid in members {
                if let Some(held) = Held::open(pid)? {
                    held.signal(signal);
                }
            }
            Ok(())
        });
        frozen.and_then(Frozen::thaw).and(sent)
    }

    /// Has all members stand still until what it returns is dropped.
    async fn freeze(&self) -> io::Result<Frozen<'_>> {
        let events = self.events()?;
        write(&self.dir, c"cgroup.freeze", b"1")?;
        let frozen = Frozen(Some(&self.dir));
        // A freeze that takes too long is gone on without.
        let _ = tokio::time::timeout(FROZEN_WITHIN, happens(&events, b"frozen 1")).await;
        Ok(frozen)
    }

    /// Waits until nothing lives in it.
    pub(crate) async fn emptied(&self) -> io::Result<()> {
        happens(&self.events()?, b"populated 0").await
    }

    fn events(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let events = openat(&self.dir, c"cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        crate::sys::watch(events, Interest::PRIORITY)
    }

    /// Kills all, and waits for nothing.
    pub(crate) fn kill_now(&self) {
        if let Err(error) = rustix::io::write(&self.kill, b"1") {
            tracing::warn!(group = %self.name, %error, "processes are left behind");
        }
    }

    /// Kills all and waits until none is left.
    pub(crate) async fn kill(&self) -> io::Result<()> {
        let deadline = Instant::now() + KILLED_WITHIN;
        loop {
            rustix::io::write(&self.kill, b"1")?;
            let mut held = Vec::new();
            for pid in self.members()? {
                held.extend(Held::open(pid)?);
            }
            if held.is_empty() {
                return Ok(());
            }
            if !all_ended(&held, deadline).await? {
                return Err(unkillable(held.iter().filter(|held| !held.has_ended()).map(|held| held.pid)));
            }
        }
    }

    /// Removes the group if it is empty.
    pub(crate) fn remove(&self) -> bool {
        matches!(unlinkat(&self.base, self.name.as_str(), AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
    }
}

/// Waits until `cgroup.events` has this line.
async fn happens(events: &AsyncFd<OwnedFd>, line: &[u8]) -> io::Result<()> {
    loop {
        let mut text = [0u8; 256];
        let n = rustix::io::pread(events.get_ref(), &mut text, 0)?;
        if text[..n].split(|byte| *byte == b'\n').any(|one| one == line) {
            return Ok(());
        }
        events.ready(Interest::PRIORITY).await?.clear_ready();
    }
}

fn write(dir: impl AsFd, file: &std::ffi::CStr, text: &[u8]) -> io::Result<()> {
    let fd = openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, text)?;
    Ok(())
}
