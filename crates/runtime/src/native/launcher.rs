//! The server's side of a launch: starts the launch stage, hands it plan and descriptors, and hears how it went.

use super::Program;
use super::process::Process;
use super::record::Files;
use crate::driver::{DriverError, InstanceId, Result};
use crate::launch::{self, Failure, LaunchPlan, Order, Report};
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a launch may take. It takes milliseconds; a minute means that the machine is stuck.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Launcher<'a> {
    pub(super) id: &'a InstanceId,
    pub(super) files: &'a Files,
    pub(super) launch: &'a Program,
    pub(super) agent: &'a Path,
    pub(super) cgroup: Option<&'a Path>,
    pub(super) memory_cgroup: Option<&'a Path>,
}

impl Launcher<'_> {
    /// Carries the plan out. When this returns, the agent's program runs and its socket accepts connections.
    pub(super) fn run(&self, plan: &LaunchPlan) -> Result<Process> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(self.io("make a socket for"))?;
        rustix::net::sockopt::set_socket_timeout(&ours, Timeout::Recv, Some(TIMEOUT))
            .map_err(self.io("bound the launch of"))?;

        let plan = in_memory(plan).map_err(self.io("write the plan of"))?;
        let agent = File::open(self.agent).map_err(DriverError::io("open", self.agent.display()))?;
        let socket = self.files.socket(self.id);
        let listener = UnixListener::bind(&socket).map_err(DriverError::io("listen on", socket.display()))?;
        listener.set_nonblocking(true).map_err(self.io("set up the socket of"))?;
        let open = |path: Option<&Path>| {
            path.map(|path| File::open(path).map_err(DriverError::io("open", path.display()))).transpose()
        };
        let (cgroup, memory_cgroup) = (open(self.cgroup)?, open(self.memory_cgroup)?);
        let log = self.files.log(self.id);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(DriverError::io("open", log.display()))?;

        #[expect(clippy::disallowed_methods, reason = "the driver is one of the places that start programs")]
        let mut command = Command::new(&self.launch.path);
        if let [name, arguments @ ..] = &self.launch.argv[..] {
            command.arg0(name).args(arguments);
        }
        let mut child = command
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(DriverError::io("start", self.launch.path.display()))?;
        // The command keeps its own copy of `theirs`, which would keep the socket from ever being closed.
        drop(command);

        let order = Order { cgroup: cgroup.is_some(), memory_cgroup: memory_cgroup.is_some() };
        let mut fds = vec![plan.as_fd(), agent.as_fd(), listener.as_fd()];
        fds.extend(cgroup.iter().chain(&memory_cgroup).map(AsFd::as_fd));
        let outcome = launch::send(ours.as_fd(), &order, &fds)
            .map_err(self.io("send the plan of"))
            .and_then(|()| self.listen(&ours));
        if outcome.is_err() {
            // It may be anywhere in its plan. An error here means that it has ended already.
            let _ = child.kill();
        }
        child.wait().map_err(self.io("wait for the launch of"))?;
        outcome
    }

    fn io<E: Into<std::io::Error>>(&self, operation: &'static str) -> impl FnOnce(E) -> DriverError {
        DriverError::io(operation, self.id)
    }

    fn listen(&self, socket: &OwnedFd) -> Result<Process> {
        let failed = |failure| DriverError::Launch { id: self.id.clone(), failure };
        let mut first = None;
        loop {
            let (report, mut fds) = launch::recv::<Report>(socket.as_fd())
                .map_err(DriverError::io("hear of the launch of", self.id))?;
            match report {
                Some(Report::Started { .. }) => first = fds.pop(),
                Some(Report::Failed(failure)) => return Err(failed(failure)),
                None => break,
            }
        }
        first.map(Process::new).ok_or_else(|| {
            let reason =
                "the launch stage ended without a word; its messages are in the instance's agent.log".into();
            failed(Failure { op: "launch".into(), errno: 0, reason })
        })
    }
}

fn in_memory(plan: &LaunchPlan) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("plan", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}
