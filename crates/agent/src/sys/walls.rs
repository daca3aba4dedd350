//! Three walls keep user code away from what the agent holds, and each is tried here with the others taken down: what
//! is not given is closed (attack A02), no magic link is followed (A30), and the agent's descriptors are not to be looked
//! at from outside (A17).

use super::child::{Plan, Stack, Step, start};
use super::paths::NO_MAGICLINKS;
use rustix::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions, set_dumpable_behavior, waitid};
use std::ffi::{CStr, CString};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// What a start is tried with.
struct Try<'a> {
    program: &'a Path,
    cwd: &'a Path,
    /// A descriptor that is given as number 9.
    given: Option<&'a OwnedFd>,
    /// The descriptors that are closed.
    closed: &'a [(u32, u32)],
    resolve: u64,
}

impl Default for Try<'_> {
    fn default() -> Self {
        Self {
            program: Path::new("/bin/true"),
            cwd: Path::new("/"),
            given: None,
            closed: &[(3, u32::MAX)],
            resolve: NO_MAGICLINKS,
        }
    }
}

/// The exit code, or the step that failed.
fn attempt(tried: &Try<'_>) -> Result<i32, (Step, Option<i32>)> {
    let text = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
    let (program, cwd) = (text(tried.program), text(tried.cwd));
    let fds: Vec<_> = tried.given.map(|fd| (fd.as_raw_fd(), 9)).into_iter().collect();
    let args: [&CStr; 1] = [c"true"];
    let plan = Plan {
        program: &program,
        argv: &[args[0].as_ptr(), std::ptr::null()],
        envp: &[std::ptr::null()],
        cwd: Some(&cwd),
        fds: &fds,
        closed: tried.closed,
        resolve: tried.resolve,
        cgroup: None,
        userns: None,
        ids: None,
        capabilities: None,
        rlimits: &[],
        oom_score_adj: None,
        seccomp: &[],
        subreaper: false,
        leash: None,
    };
    let mut stack = Stack::new().expect("a stack can be mapped");
    let started = start(&mut stack, &plan);
    let (_, pidfd) = started.map_err(|failed| (failed.step, failed.source.raw_os_error()))?;
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("it can be waited for");
    Ok(status.and_then(|status| status.exit_status()).expect("it exits"))
}

fn leaked() -> OwnedFd {
    let usr = std::fs::File::open("/usr").expect("/usr opens");
    // Above the numbers that a child's own opens get.
    rustix::io::fcntl_dupfd_cloexec(&usr, 100).expect("a descriptor can be had")
}

#[test]
fn a02_a_descriptor_that_is_not_given_is_gone_before_the_users_paths_are_followed() {
    let leak = leaked();
    let path = format!("/proc/self/fd/{}", leak.as_raw_fd());
    let tried = Try { cwd: Path::new(&path), resolve: 0, ..Try::default() };
    assert_eq!(attempt(&tried), Err((Step::Directory, Some(libc::ENOENT))));
    let program = format!("{path}/bin/true");
    let tried = Try { program: Path::new(&program), resolve: 0, ..Try::default() };
    assert_eq!(attempt(&tried), Err((Step::Exec, Some(libc::ENOENT))));
    // Without this wall either is reached.
    let tried = Try { cwd: Path::new(&path), closed: &[], resolve: 0, ..Try::default() };
    assert_eq!(attempt(&tried), Ok(0));
    let tried = Try { program: Path::new(&program), closed: &[], resolve: 0, ..Try::default() };
    assert_eq!(attempt(&tried), Ok(0));
}

#[test]
fn a30_no_magic_link_is_followed_even_to_what_the_child_has() {
    let leak = leaked();
    let root = Path::new("/");
    let folder = tempfile::tempdir().expect("a directory can be made");
    let planted = |name: &str, target: &str| {
        let link = folder.path().join(name);
        symlink(target, &link).expect("a link can be made");
        link
    };
    let script = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("a file can be written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("its mode changes");
        file
    };
    let given = |cwd, program, resolve| {
        let closed = &[(0, 8), (10, u32::MAX)];
        attempt(&Try { program, cwd, given: Some(&leak), closed, resolve })
    };
    let usual = Path::new("/bin/true");
    let workspace = planted("workspace", "/proc/self/fd/9");
    for cwd in [
        "/proc/self/fd/9",
        "/dev/fd/9",
        "/proc/self/cwd",
        "/proc/self/root/usr",
        "/proc/thread-self/fd/9/bin",
    ] {
        assert_eq!(
            given(Path::new(cwd), usual, NO_MAGICLINKS),
            Err((Step::DirectoryLink, Some(libc::ELOOP))),
            "{cwd}"
        );
        assert_eq!(given(Path::new(cwd), usual, 0), Ok(0), "{cwd}: reached without this wall");
    }
    assert_eq!(given(&workspace, usual, NO_MAGICLINKS), Err((Step::DirectoryLink, Some(libc::ELOOP))));

    // Programs, directly, by planted links, as interpreters of scripts, and of scripts of scripts.
    let bash = planted("bash", "/proc/self/fd/9/bin/true");
    let via = script("via", "#! /proc/self/fd/9/bin/true x\n");
    let chain = script("chain", &format!("#!{}\n", via.display()));
    for program in [Path::new("/proc/self/fd/9/bin/true"), &bash, &via, &chain] {
        let name = program.display();
        assert_eq!(given(root, program, NO_MAGICLINKS), Err((Step::ExecLink, Some(libc::ELOOP))), "{name}");
        assert_eq!(given(root, program, 0), Ok(0), "{name}: reached without this wall");
    }
    let own = script("own", "#!/proc/self/exe\n");
    for program in [Path::new("/proc/self/exe"), &own] {
        assert_eq!(given(root, program, NO_MAGICLINKS), Err((Step::ExecLink, Some(libc::ELOOP))));
    }
    // An ELF program whose own interpreter is such a link: the text of the same length in a copy of true.
    let mut elf = std::fs::read("/bin/true").expect("/bin/true is read");
    let at =
        memchr::memmem::find(&elf, b"/lib64/ld-linux").or_else(|| memchr::memmem::find(&elf, b"/lib/ld-"));
    let at = at.expect("true names its interpreter");
    elf[at..at + 15].copy_from_slice(b"/proc/self/exe\0");
    let elf_path = folder.path().join("elf");
    std::fs::write(&elf_path, elf).expect("a file can be written");
    std::fs::set_permissions(&elf_path, std::fs::Permissions::from_mode(0o755)).expect("its mode changes");
    assert_eq!(given(root, &elf_path, NO_MAGICLINKS), Err((Step::ExecLink, Some(libc::ELOOP))));

    // Honest links, chains of them and scripts go on as ever.
    let honest = planted("honest", "/usr");
    let (linked, honest_script) = (planted("true", "/bin/true"), script("honest.sh", "#!/bin/sh\nexit 3\n"));
    let further = planted("further", honest.to_str().expect("text"));
    assert_eq!(given(&further, usual, NO_MAGICLINKS), Ok(0));
    assert_eq!(given(root, &linked, NO_MAGICLINKS), Ok(0));
    assert_eq!(given(root, &honest_script, NO_MAGICLINKS), Ok(3));
    // A loop is what it is, and so is what cannot be found.
    let turning = planted("turning", folder.path().join("turning").to_str().expect("text"));
    assert_eq!(given(&turning, usual, NO_MAGICLINKS), Err((Step::Directory, Some(libc::ELOOP))));
    assert_eq!(given(root, Path::new("/nonexistent"), NO_MAGICLINKS), Err((Step::Exec, Some(libc::ENOENT))));
}

#[test]
fn a17_the_agents_descriptors_are_hidden_even_from_its_own_uid() {
    const ALONE: &str = "SANDCRAB_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // As a rootless server's agent, without the capabilities that hide a process as well; and by itself, since what
        // is tried holds for a whole process.
        #[expect(clippy::disallowed_methods, reason = "a test starts itself as another user")]
        let mut command = std::process::Command::new("setpriv");
        let this = "sys::walls::a17_the_agents_descriptors_are_hidden_even_from_its_own_uid";
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command.arg(std::env::current_exe().expect("a program has a path")).args([this, "--exact"]);
        let output = command.env(ALONE, "1").output().expect("this test needs root and setpriv");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let leak = leaked();
    // Of the agent, not of the child: closing does not help.
    let path = format!("/proc/{}/fd/{}", std::process::id(), leak.as_raw_fd());
    let tried = Try { cwd: Path::new(&path), resolve: 0, ..Try::default() };
    set_dumpable_behavior(DumpableBehavior::NotDumpable).expect("it can be set");
    let hidden = attempt(&tried);
    set_dumpable_behavior(DumpableBehavior::Dumpable).expect("it can be set");
    assert_eq!(hidden, Err((Step::Directory, Some(libc::EACCES))));
    assert_eq!(attempt(&tried), Ok(0), "reached without this wall");
}
