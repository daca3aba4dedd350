//! Servers of each mode, sandboxes that end with their test, and commands in them.

use sandcrab_client::{Client, ClientOptions, ExecOutput, Sandbox as RemoteSandbox, SandboxOptions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

pub(crate) const KEY: &str = "key-of-the-attack-tests";

/// The user of the rootless server: `nobody` of Debian.
const ROOTLESS_UID: u32 = 65534;

/// Longer than any call here takes. The first use of a server builds its host image.
const LIMIT: Duration = Duration::from_secs(180);

/// Makes a module named after the attack, with one test for each mode that is listed: `root`, `rootless`,
/// `without_landlock`. The case gets a [`Rig`]; `cargo xtask attacks` counts by these names.
///
/// ```ignore
/// attack!(a30_a_working_directory_through_a_magic_link, [root, rootless, without_landlock], |rig| {
///     let sandbox = rig.sandbox();
///     assert_eq!(sandbox.run("stat /proc/1/root").code(), 1);
/// });
/// ```
macro_rules! attack {
    ($name:ident, [$($mode:ident),+ $(,)?], $case:expr) => {
        mod $name {
            use super::*;
            $(
                #[test]
                fn $mode() {
                    let case: fn(&$crate::rig::Rig) = $case;
                    case(&$crate::rig::Rig::$mode());
                }
            )+
        }
    };
}

/// In what kind of server an attack runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A server that runs as root.
    Root,
    /// A server that runs as an ordinary user.
    Rootless,
    /// A root server on a kernel that seems to have no Landlock: system calls 444-446 answer ENOSYS.
    WithoutLandlock,
}

/// One server for each mode, shared by the tests of this process that run at the same time.
static SERVERS: [Mutex<Weak<Server>>; 3] = [const { Mutex::new(Weak::new()) }; 3];

pub(crate) struct Server {
    url: String,
    data_dir: PathBuf,
    process: Mutex<Child>,
}

/// A server of one mode, and ways to call it.
pub(crate) struct Rig {
    pub(crate) mode: Mode,
    server: Arc<Server>,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub(crate) fn root() -> Self {
        Self::new(Mode::Root)
    }

    pub(crate) fn rootless() -> Self {
        Self::new(Mode::Rootless)
    }

    pub(crate) fn without_landlock() -> Self {
        Self::new(Mode::WithoutLandlock)
    }

    fn new(mode: Mode) -> Self {
        let mut shared = SERVERS[mode as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let server = shared.upgrade().unwrap_or_else(|| Arc::new(Server::start(mode, data_dir(mode))));
        *shared = Arc::downgrade(&server);
        Self::of(mode, server)
    }

    /// A server for one test alone, of the kind that another rig's is, with a data directory of its own that is kept.
    pub(crate) fn apart(&self, name: &str) -> Self {
        let mut data_dir = data_dir(self.mode).into_os_string();
        data_dir.push(format!("-{name}"));
        Self::of(self.mode, Arc::new(Server::start(self.mode, data_dir.into())))
    }

    fn of(mode: Mode, server: Arc<Server>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { mode, server, runtime }
    }

    /// The server's data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.server.data_dir.clone()
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> &str {
        self.server.url.trim_start_matches("http://")
    }

    /// The process id of the server.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server.process.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// The Rust client of the server.
    pub(crate) fn client(&self) -> Client {
        Client::new(ClientOptions::new(&self.server.url).api_key(KEY)).unwrap()
    }

    /// Runs a future of the client's to its end, which must come.
    #[track_caller]
    pub(crate) fn wait<T>(&self, future: impl IntoFuture<Output = T>) -> T {
        let answer = async { tokio::time::timeout(LIMIT, future.into_future()).await };
        self.runtime.block_on(answer).expect("no answer")
    }

    /// A running sandbox with the usual options.
    pub(crate) fn sandbox(&self) -> Sandbox<'_> {
        self.sandbox_with(SandboxOptions::default())
    }

    /// A running sandbox; it is destroyed when the value is dropped.
    pub(crate) fn sandbox_with(&self, options: SandboxOptions) -> Sandbox<'_> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("attack-{}-{number}", std::process::id());
        let remote = self.client().sandbox(&id, options).unwrap();
        self.wait(remote.create()).unwrap();
        Sandbox { rig: self, remote, destroyed: false }
    }
}

/// A sandbox of one test.
pub(crate) struct Sandbox<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) remote: RemoteSandbox,
    destroyed: bool,
}

impl Sandbox<'_> {
    /// Destroys it before the test's end.
    #[track_caller]
    pub(crate) fn destroy(mut self) {
        self.destroyed = true;
        self.rig.wait(self.remote.destroy()).unwrap();
    }

    /// Runs a command as the sandbox's root, in the default session.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> ExecOutput {
        self.rig.wait(self.remote.exec(command)).unwrap()
    }

    /// Runs a command as an ordinary user of the sandbox, uid and gid 1000. A rootless sandbox has root alone.
    #[track_caller]
    pub(crate) fn run_as_user(&self, command: &str) -> ExecOutput {
        assert_ne!(self.rig.mode, Mode::Rootless, "a rootless sandbox has one user");
        let script = format!("/tmp/as-user-{}", rand::random::<u64>());
        self.rig.wait(self.remote.files().write(&script, command.to_owned())).unwrap();
        self.run(&format!("setpriv --reuid 1000 --regid 1000 --clear-groups bash {script}"))
    }

    /// What a command printed; it must have ended with 0.
    #[track_caller]
    pub(crate) fn output(&self, command: &str) -> String {
        let output = self.run(command);
        assert_eq!(output.exit_code(), 0, "{command}: {}{}", output.stdout_text(), output.stderr_text());
        output.stdout_text().into_owned()
    }

    /// Runs a Python program as root. `call(number, …)` makes a system call and gives `ok` or the error's name;
    /// `attempt(action)` gives the same for an action.
    #[track_caller]
    pub(crate) fn python(&self, program: &str) -> String {
        self.output(&format!("python3 {}", self.program(program)))
    }

    /// Starts a Python program that outlives the command, and may fail.
    #[track_caller]
    pub(crate) fn python_in_background(&self, program: &str) {
        let path = self.program(program);
        self.output(&format!("setsid python3 {path} </dev/null >{path}.out 2>&1 &"));
    }

    /// As [`Self::python`], as an ordinary user of the sandbox.
    #[track_caller]
    pub(crate) fn python_as_user(&self, program: &str) -> String {
        let ran = self.run_as_user(&format!("python3 {}", self.program(program)));
        assert_eq!(ran.exit_code(), 0, "{}{}", ran.stdout_text(), ran.stderr_text());
        ran.stdout_text().into_owned()
    }

    /// Writes a Python program into the sandbox, with `call` and `attempt`; where it is.
    #[track_caller]
    pub(crate) fn program(&self, program: &str) -> String {
        let path = format!("/tmp/program-{}.py", rand::random::<u64>());
        self.rig.wait(self.remote.files().write(&path, format!("{PRELUDE}{program}"))).unwrap();
        path
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        if self.destroyed {
            return;
        }
        let destroyed = self.rig.wait(self.remote.destroy());
        if !std::thread::panicking() {
            destroyed.unwrap();
        }
    }
}

const PRELUDE: &str = "\
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return 'ok' if libc.syscall(ctypes.c_long(number), *wide) >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(action):
    try:
        action()
        return 'ok'
    except OSError as error:
        return errno.errorcode[error.errno]
";

/// Kept between runs of the tests: it holds the host image, which takes seconds to build.
fn data_dir(mode: Mode) -> PathBuf {
    let name = match mode {
        Mode::Root => "attacks-root",
        Mode::Rootless => "attacks-rootless",
        Mode::WithoutLandlock => "attacks-without-landlock",
    };
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

impl Server {
    fn start(mode: Mode, data_dir: PathBuf) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root, for a server of each kind");
        std::fs::create_dir_all(&data_dir).unwrap();
        let program = env!("CARGO_BIN_EXE_sandcrab");
        let user = ROOTLESS_UID.to_string();
        let (wrapper, accepted): (Vec<&str>, &str) = match mode {
            Mode::Root => (vec![program], ""),
            Mode::Rootless => {
                chown(&data_dir, Some(ROOTLESS_UID), Some(ROOTLESS_UID)).unwrap();
                let change = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
                (change.into_iter().chain(["--inh-caps=-all", program]).collect(), "cgroup,quota")
            }
            Mode::WithoutLandlock => {
                let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/attacks/without_landlock.py");
                (vec!["python3", wrapper, program], "landlock")
            }
        };
        #[expect(clippy::disallowed_methods, reason = "these tests are about processes")]
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]);
        command.args(["serve", "--json", "--log", "warn", "--listen", "127.0.0.1:0", "--api-key", KEY]);
        if !accepted.is_empty() {
            command.args(["--allow-missing", accepted]);
        }
        command.env_remove("SANDCRAB_URL").env_remove("SANDCRAB_API_KEY");
        command.env("SANDCRAB_DATA_DIR", &data_dir).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("the {mode:?} server did not start in {}; does another use it?", data_dir.display())
        });
        let url = started["url"].as_str().unwrap().to_owned();
        Self { url, data_dir, process: Mutex::new(process) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
