//! A driver over the fixture, and sandboxes that clean up after themselves.
#![expect(clippy::unwrap_used, reason = "part of test programs")]
#![expect(clippy::print_stdout, reason = "a test program tells the one that ran it how it went")]

use sandcrab_api::ids::SandboxId;
use sandcrab_runtime::doctor::Feature;
use sandcrab_runtime::image::{Image, Tree};
use sandcrab_runtime::native::{Config, Native, Program};
use sandcrab_runtime::{Driver, InstanceId, SandboxSpec};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a command in a sandbox came to.
#[derive(Debug, Deserialize)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// How long the end of a sandbox may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

pub(crate) const ROOT: u32 = 0;
pub(crate) const USER: u32 = 1000;

/// A driver with a data directory of its own.
pub(crate) struct Home {
    pub(crate) driver: Native,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn config(data_dir: &Path) -> Config {
    let fixture = PathBuf::from(env!("CARGO_BIN_EXE_runtime-fixture"));
    let program =
        |command: &str| Program { path: fixture.clone(), argv: vec!["fixture".into(), command.into()] };
    let mut config = Config::new(data_dir.join("data"));
    config.launch = program("__launch");
    config.agent = program("agent");
    config
}

/// The host's /usr under a root made for the test.
pub(crate) fn image(dir: &Path) -> Image {
    let root = dir.join("image");
    if !root.exists() {
        std::fs::create_dir_all(root.join("usr")).unwrap();
        std::fs::create_dir_all(root.join("etc")).unwrap();
        for link in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        std::fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/:/bin/bash\n",
        )
        .unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    }
    Image {
        key: "test".into(),
        trees: vec![
            Tree { at: "/".into(), layers: vec![root] },
            Tree { at: "/usr".into(), layers: vec!["/usr".into()] },
        ],
        env: Default::default(),
    }
}

pub(crate) fn spec(name: &str) -> SandboxSpec {
    SandboxSpec {
        sandbox: SandboxId::parse(name).unwrap(),
        image: "test".into(),
        limits: Default::default(),
        network: Default::default(),
        isolation: Default::default(),
        env: Default::default(),
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("sandcrab-runtime-").tempdir().unwrap();
        let driver = Native::open(config(dir.path())).expect("a driver; these tests need root");
        driver.add_image("test", image(dir.path()));
        Self { driver, dir }
    }

    /// A driver of a server with one uid, which lacks what only root can have.
    pub(crate) fn rootless() -> Self {
        let dir = tempfile::Builder::new().prefix("sandcrab-runtime-").tempdir().unwrap();
        let mut config = config(dir.path());
        config.allow_missing = [Feature::Cgroup, Feature::Quota].into();
        let driver = Native::open(config).unwrap_or_else(|error| panic!("{}", chain(&error)));
        driver.add_image("test", image(dir.path()));
        Self { driver, dir }
    }

    /// Whether the driver has one uid to give.
    pub(crate) fn is_rootless(&self) -> bool {
        !rustix::process::geteuid().is_root()
    }

    /// The users that exist inside.
    pub(crate) fn users(&self) -> &'static [u32] {
        if self.is_rootless() { &[ROOT] } else { &[ROOT, USER] }
    }

    /// Each user, with the filter and without.
    pub(crate) fn modes(&self) -> impl Iterator<Item = Mode> {
        let users = self.users().iter();
        users.flat_map(|&uid| [true, false].map(|filtered| Mode { uid, filtered }))
    }

    pub(crate) async fn create(&self, name: &str) -> InstanceId {
        let id = InstanceId::random();
        self.driver
            .create(&id, &spec(name))
            .await
            .unwrap_or_else(|error| panic!("create: {}", chain(&error)));
        id
    }

    pub(crate) async fn destroy(&self, id: &InstanceId) {
        self.driver.destroy(id).await.unwrap_or_else(|error| panic!("destroy: {}", chain(&error)));
    }

    /// The host's id of the first process.
    pub(crate) fn pid(&self, id: &InstanceId) -> i32 {
        let file = self.dir.path().join("data/instances").join(id.as_str()).join("pid");
        std::fs::read_to_string(file).unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) async fn run(&self, id: &InstanceId, uid: u32, script: &str) -> Ran {
        self.run_as(id, Mode { uid, filtered: true }, script).await
    }

    pub(crate) async fn run_as(&self, id: &InstanceId, mode: Mode, script: &str) -> Ran {
        let mut stream = self.driver.connect(id).await.unwrap();
        let run = serde_json::json!({ "script": script, "uid": mode.uid, "unfiltered": !mode.filtered });
        let line = run.to_string() + "\n";
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = String::new();
        if let Err(error) = stream.read_to_string(&mut answer).await {
            let log = self.dir.path().join("data/instances").join(id.as_str()).join("agent.log");
            let exit =
                tokio::time::timeout(std::time::Duration::from_secs(1), self.driver.wait_exit(id)).await;
            panic!(
                "{error}; exit {exit:?}; the agent's log: {}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
        }
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }
}

impl Drop for Home {
    /// A test that failed half-way must not leave sandboxes behind.
    fn drop(&mut self) {
        let (driver, panicking) = (&self.driver, std::thread::panicking());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let destroyed = runtime.block_on(async {
                    for instance in driver.list().await? {
                        // All is gone before the status of the first process is waited for, which a failed test's
                        // runtime, stopped by this very drop, can take no more.
                        let destroyed = tokio::time::timeout(PATIENCE, driver.destroy(&instance.id)).await;
                        match destroyed {
                            Ok(destroyed) => destroyed?,
                            Err(_late) => assert!(panicking, "{} is not gone", instance.id),
                        }
                    }
                    Ok::<_, sandcrab_runtime::DriverError>(())
                });
                // A test that has failed already is not to be hidden behind what came of it.
                if let Err(error) = destroyed
                    && !panicking
                {
                    panic!("{}", chain(&error));
                }
            });
        });
    }
}

/// As whom an attack runs, and whether the system call filter is on: what the kernel refuses without it is a layer of
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) uid: u32,
    pub(crate) filtered: bool,
}

/// Runs a case with a root driver.
pub(crate) fn as_root<F: Future<Output = ()>>(case: impl FnOnce(Home) -> F) {
    block_on(case(Home::new()));
}

/// Runs a case with a rootless driver: this program again, as an ordinary user and for this test alone.
pub(crate) fn as_an_ordinary_user<F: Future<Output = ()>>(test: &str, case: impl FnOnce(Home) -> F) {
    const NOBODY: &str = "65534";
    if !rustix::process::geteuid().is_root() {
        block_on(case(Home::rootless()));
        println!("{RAN}");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let change =
        ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all", "--no-new-privs"];
    #[expect(clippy::disallowed_methods, reason = "a rootless driver needs a process of another user")]
    let output = std::process::Command::new("setpriv")
        .args(change)
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains(RAN), "{stdout}{stderr}");
}

/// What the second run says when the case has ended well: one that ran no test says nothing.
const RAN: &str = "the rootless case ran to its end";

/// With a thread of its own for the driver's tasks: they go on while a case that failed takes its sandboxes away.
fn block_on(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(case);
}

/// A Python program that can make system calls by number; `call(number, …)` prints `ok` or the error's name.
pub(crate) fn python(program: &str) -> String {
    let prelude = "\
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
    format!("exec python3 - <<'PROGRAM'\n{prelude}{program}\nPROGRAM")
}

/// Runs a script on the host, as root: the positive control.
#[expect(clippy::disallowed_methods, reason = "the control of an attack runs outside of any sandbox")]
pub(crate) fn on_host(script: &str) -> String {
    let output = std::process::Command::new("bash").args(["-c", script]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {stdout}{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An error with its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
