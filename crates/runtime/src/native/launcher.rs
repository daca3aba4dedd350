//! The server's side of a launch: starts the launch stage, hands it plan and descriptors, and hears how it went.

use super::Program;
use super::process::Process;
use super::record::Files;
use crate::driver::{DriverError, InstanceId, Result};
use crate::launch::{self, Attached, Failure, LaunchPlan, Order, Report};
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a launch may take. It takes milliseconds; a minute means that the machine is stuck.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A launch stage that is on its way up. It takes a millisecond, in which its plan can be made.
pub(super) struct Coming(JoinHandle<Result<Stage>>);

/// A launch stage that waits for its plan. Dropped before it has one, it ends; and so it does when the server is gone.
struct Stage {
    child: Child,
    socket: OwnedFd,
}

/// A launch stage that carries out an instance's plan.
pub(super) struct Launch {
    id: InstanceId,
    stage: Stage,
}

/// The first process of an instance whose launch is not done. It is a child of the server's: dropped, it is ended and its
/// status is taken, so that no zombie stays of a launch that failed.
struct First(Option<Process>);

impl First {
    fn survive(mut self) -> Process {
        match self.0.take() {
            Some(process) => process,
            None => unreachable!("it is taken once, here"),
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(process) = self.0.take() {
            process.end();
        }
    }
}

/// What a launch needs besides its plan.
pub(super) struct Setup<'a> {
    pub(super) files: &'a Files,
    pub(super) agent: &'a File,
    pub(super) cgroup: Option<&'a Path>,
    pub(super) memory_cgroup: Option<&'a Path>,
}

impl Coming {
    /// Has the launch stage's program started by a thread of its own: where the one that starts a program goes on, the
    /// program waits for its CPU.
    pub(super) fn start(program: &Program) -> Result<Self> {
        let failed = DriverError::io("start", program.path.display());
        let program = program.clone();
        let thread = std::thread::Builder::new().name("launch".into());
        thread.spawn(move || Stage::start(&program)).map(Self).map_err(failed)
    }

    /// Has an instance's plan carried out.
    pub(super) fn begin(self, id: &InstanceId, plan: &LaunchPlan, setup: &Setup<'_>) -> Result<Launch> {
        let stage = self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let io = |operation| DriverError::io(operation, id);
        let plan = in_memory(plan).map_err(io("write the plan of"))?;
        let socket = setup.files.socket(id);
        let listener = UnixListener::bind(&socket).map_err(DriverError::io("listen on", socket.display()))?;
        listener.set_nonblocking(true).map_err(io("set up the socket of"))?;
        let log = setup.files.log(id);
        let log = File::options()
            .create(true)
            // Its agent keeps it short, for which it reads what it keeps.
            .read(true)
            .append(true)
            .open(&log)
            .map_err(DriverError::io("open", log.display()))?;
        let open = |path: Option<&Path>| {
            path.map(|path| File::open(path).map_err(DriverError::io("open", path.display()))).transpose()
        };
        let (cgroup, memory_cgroup) = (open(setup.cgroup)?, open(setup.memory_cgroup)?);
        let order = Order { cgroup: cgroup.is_some(), memory_cgroup: memory_cgroup.is_some() };
        let mut fds = vec![plan.as_fd(), setup.agent.as_fd(), listener.as_fd(), log.as_fd()];
        fds.extend(cgroup.iter().chain(&memory_cgroup).map(AsFd::as_fd));
        launch::send(stage.socket.as_fd(), &order, &fds).map_err(io("send the plan of"))?;
        Ok(Launch { id: id.clone(), stage })
    }
}

impl Stage {
    fn start(program: &Program) -> Result<Self> {
        let io = |operation| DriverError::io(operation, "a launch stage");
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(io("make a socket for"))?;
        rustix::net::sockopt::set_socket_timeout(&ours, Timeout::Recv, Some(TIMEOUT))
            .map_err(io("bound the time of"))?;
        #[expect(clippy::disallowed_methods, reason = "the driver is one of the places that start programs")]
        let mut command = Command::new(&program.path);
        if let [name, arguments @ ..] = &program.argv[..] {
            command.arg0(name).args(arguments);
        }
        // Until it has an instance, what it has to say is the server's.
        let child = command.env_clear().stdin(theirs).stdout(Stdio::null()).spawn();
        let child = child.map_err(DriverError::io("start", program.path.display()))?;
        // The command keeps its own copy of `theirs` until it is dropped here: the socket could never be closed.
        Ok(Self { child, socket: ours })
    }
}

impl Launch {
    /// Says that the sandbox's disk is attached. A launch that has ended already says why in [`Self::finish`].
    pub(super) fn attached(&self, device: &Path) {
        let attached = Attached { device: device.to_owned() };
        let _ended = launch::send(self.stage.socket.as_fd(), &attached, &[]);
    }

    /// Waits for the end. When this returns, the agent's program runs and its socket accepts connections.
    pub(super) fn finish(mut self) -> Result<Process> {
        let first = self.listen()?;
        let waited = self.stage.child.wait();
        waited.map_err(DriverError::io("wait for the launch of", &self.id))?;
        Ok(first.survive())
    }

    fn listen(&self) -> Result<First> {
        let failed = |failure| DriverError::Launch { id: self.id.clone(), failure };
        let mut first = None;
        loop {
            let (report, mut fds) = launch::recv::<Report>(self.stage.socket.as_fd())
                .map_err(DriverError::io("hear of the launch of", &self.id))?;
            match report {
                Some(Report::Started { .. }) => first = fds.pop().map(Process::new).map(Some).map(First),
                Some(Report::Failed(failure)) => return Err(failed(failure)),
                None => break,
            }
        }
        first.ok_or_else(|| {
            let reason =
                "the launch stage ended without a word; its messages are in the instance's agent.log".into();
            failed(Failure { op: "launch".into(), errno: 0, reason })
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It may be anywhere in its plan. Where it has ended already, and been waited for, this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn in_memory(plan: &LaunchPlan) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("plan", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}
