//! What a machine needs before the rest can work: Debian packages, the TypeScript package's dependencies, a Python
//! environment for the API checks. Each part does nothing when it is already there.

use crate::command::{cmd, which};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Debian packages that building and a first run need, each with its reason.
pub(crate) const BUILD: &[(&str, &str)] = &[
    ("build-essential", "a C compiler and linker for Rust, SQLite and the shell's loadable builtin"),
    ("ca-certificates", "the host image carries them into sandboxes"),
    ("git", "the host image offers it; the examples clone with it"),
    ("python3", "the host image offers it; the examples run it"),
];

/// What the tests need besides.
pub(crate) const TEST: &[(&str, &str)] = &[
    ("busybox-static", "a shell that cannot load builtins, and a program without libraries"),
    ("chromium", "the browser that the TypeScript package is tried in"),
    ("dash", "a shell that cannot load builtins"),
    (
        "dropbear-bin",
        "an ssh server for checkouts to come from: the programs alone, no service that would be started",
    ),
    ("dpkg-dev", "builds the local .deb that a sandbox installs"),
    ("e2fsprogs", "file system images"),
    ("gawk", "one of the tools behind /etc/alternatives"),
    ("musl-tools", "builds a bash over another C library"),
    ("iproute2", "looks at network namespaces"),
    ("openssl", "the private CA of the git host that checkouts are tried with"),
    ("procps", "looks at processes from inside a sandbox"),
    ("python3-pip", "installs wheels inside sandboxes, the image `python` among them"),
    ("python3-venv", "the environment that schemathesis runs in"),
    ("util-linux", "nsenter, unshare, prlimit: what the attack tests call"),
];

/// Installs those of the packages that the machine lacks.
pub(crate) fn apt(ws: &Workspace, lists: &[&[(&str, &str)]]) -> Result<()> {
    let missing: Vec<_> = lists.iter().copied().flatten().filter(|(name, _)| !is_installed(name)).collect();
    if missing.is_empty() {
        println!("Debian packages: all there");
        return Ok(());
    }
    for (name, reason) in &missing {
        println!("Debian package {name}: {reason}");
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let manual = format!("apt-get install {}", names.join(" "));
    if which("apt-get").is_none() {
        bail!("this is no Debian: install the equivalent of `{manual}` by hand");
    }
    let root = rustix::process::geteuid().is_root();
    if !root && which("sudo").is_none() {
        bail!("not root and no sudo: run `{manual}` as root, then try again");
    }
    let apt_get = |args: &[&str]| {
        let program = if root { cmd("apt-get") } else { cmd("sudo").args(["-n", "apt-get"]) };
        program.env("DEBIAN_FRONTEND", "noninteractive").args(args).limit(Duration::from_secs(600))
    };
    let logs = ws.logs();
    apt_get(&["update", "-q"]).run_logged(&logs.join("apt-update.txt"))?;
    let install = ["install", "-q", "-y", "--no-install-recommends"];
    let install: Vec<&str> = install.into_iter().chain(names.iter().copied()).collect();
    apt_get(&install)
        .run_logged(&logs.join("apt-install.txt"))
        .with_context(|| format!("the machine lacks Debian packages; by hand: `{manual}`"))
}

fn is_installed(package: &str) -> bool {
    let status = Path::new("/usr/share/doc").join(package);
    // Every Debian package ships its copyright there, and looking is a hundred times faster than asking dpkg.
    status.join("copyright").exists()
}

/// Installs the dependencies of a Node package as its lock file says.
pub(crate) fn npm(ws: &Workspace, folder: &str) -> Result<()> {
    if which("npm").is_none() {
        bail!("no npm on PATH: install Node 20 or newer (https://nodejs.org)");
    }
    let dir = ws.path(folder);
    // npm writes this file last, so a newer one than the lock file is a finished installation of it.
    let done = modified(&dir.join("node_modules/.package-lock.json"));
    if done.is_some() && done >= modified(&dir.join("package-lock.json")) {
        println!("{folder}: dependencies are there");
        return Ok(());
    }
    println!("{folder}: npm ci");
    let log = ws.logs().join(format!("npm-ci-{}.txt", folder.replace('/', "-")));
    cmd("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .dir(&dir)
        .limit(Duration::from_secs(600))
        .run_logged(&log)
}

/// A Python environment with exactly what a requirements file lists; returns its `bin` folder.
pub(crate) fn venv(ws: &Workspace, name: &str, requirements: &str) -> Result<PathBuf> {
    let dir = ws.target().join(name);
    let wanted =
        std::fs::read_to_string(ws.path(requirements)).with_context(|| format!("read {requirements}"))?;
    let stamp = dir.join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("{requirements}: installed");
        return Ok(dir.join("bin"));
    }
    println!("{requirements}: pip install");
    let logs = ws.logs();
    // Debian's own interpreter: what else is on PATH may be a wrapper of a version manager.
    cmd("/usr/bin/python3")
        .args(["-m", "venv", "--clear"])
        .arg(&dir)
        .limit(Duration::from_secs(120))
        .run_logged(&logs.join(format!("venv-{name}.txt")))?;
    cmd(dir.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(ws.path(requirements))
        .limit(Duration::from_secs(600))
        .run_logged(&logs.join(format!("pip-{name}.txt")))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))?;
    Ok(dir.join("bin"))
}

/// A bash that the session loop is to work in, beside the machine's own.
struct Bash {
    /// Its folder below `target/bash`.
    name: &'static str,
    /// Debian's copy of the GNU release.
    source: &'static str,
    sha256: &'static str,
    compiler: &'static str,
}

const BASHES: [Bash; 2] = [
    Bash {
        name: "5.1",
        source: "http://deb.debian.org/debian/pool/main/b/bash/bash_5.1.orig.tar.xz",
        sha256: "d5eeee4f953c09826409d572e2e8996a2140d67eb8f382ce1f3a9d23883ad696",
        compiler: "cc",
    },
    Bash {
        name: "5.3-musl",
        source: "http://deb.debian.org/debian/pool/main/b/bash/bash_5.3.orig.tar.xz",
        sha256: "a70de6bb41f5e192534a5a1836b1d7fad9a8d4818a6e1506d70f38441552c17a",
        compiler: "musl-gcc",
    },
];

/// Downloads, checks and unpacks a source, and builds it: `$1` URL, `$2` hash, `$3` folder.
const BUILD_BASH: &str = r#"set -e
mkdir -p "$3" && cd "$3"
python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], "source.tar.xz")' "$1"
echo "$2  source.tar.xz" | sha256sum --check --quiet
tar -xf source.tar.xz --strip-components=1
# Its old sources declare functions as the compilers of their time took them.
CFLAGS='-O1 -std=gnu99 -w' ./configure --without-bash-malloc --disable-nls
make -j2
"#;

/// Builds the versions of bash that the session loop is tried in, below `target/bash`, where they are not there yet.
pub(crate) fn bashes(ws: &Workspace) -> Result<()> {
    for bash in &BASHES {
        let dir = ws.target().join("bash").join(bash.name);
        let stamp = dir.join("built.txt");
        if std::fs::read_to_string(&stamp).is_ok_and(|built| built == bash.sha256) {
            println!("bash {}: built", bash.name);
            continue;
        }
        println!("bash {}: build", bash.name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        cmd("bash")
            .args(["-c", BUILD_BASH, "-", bash.source, bash.sha256])
            .arg(&dir)
            .env("CC", bash.compiler)
            .limit(Duration::from_secs(600))
            .run_logged(&ws.logs().join(format!("bash-{}.txt", bash.name)))?;
        std::fs::write(&stamp, bash.sha256).with_context(|| format!("write {}", stamp.display()))?;
    }
    Ok(())
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}
