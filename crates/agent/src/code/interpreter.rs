//! The interpreters of the image, and the programs of ours that run in them.

use crate::files::Files;
use crate::shell::image::object_file;
use crate::spawn::PATH_ENTRIES;
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags};
use sandcrab_api::code::CodeLanguage;
use sandcrab_api::{ApiError, ErrorCode};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

/// Descriptors of an executor, as its program knows them. Low: Node gives to the programs that it starts every inherited
/// descriptor above the first sixteen.
pub(super) const ORDERS: i32 = 10;
pub(super) const PROGRAM: i32 = 11;
pub(super) const PARSER: i32 = 12;
pub(super) const INTERRUPTS: i32 = 13;
pub(super) const ANSWERS: i32 = 14;
pub(super) const APART: i32 = 15;

/// What sets an interpreter apart from other processes as it is loaded, compiled by build.rs.
static APART_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/apart.so"));

const PYTHON: &str = concat!(include_str!("executors/charts.py"), include_str!("executors/python.py"));
/// Loading apart.so fails, since it is no module, but by then it has done its work.
const PYTHON_BOOT: &str = "\
import _imp, os, sys
try: _imp.create_dynamic(type(sys.implementation)(name='apart', origin='/proc/self/fd/15'))
except ImportError: pass
os.close(15)
with open(11, 'rb') as _: exec(compile(os.pread(11, 1 << 24, 0), '<sandcrab>', 'exec'), \
{'__name__': 'sandcrab_executor', '__file__': '<sandcrab>', 'ORDERS': 10, 'ANSWERS': 14})";
const NODE: &str = include_str!("executors/javascript.js");
const NODE_BOOT: &str = include_str!("executors/boot.js");
const NODE_PARSER: &str = include_str!("executors/parser.js");

/// Variables that an interpreter reads at its start only.
const FIXED: [&[u8]; 4] = [b"HOME", b"LANG", b"LANGUAGE", b"VIRTUAL_ENV"];
const FIXED_PREFIXES: [&[u8]; 9] =
    [b"PYTHON", b"NODE_", b"LD_", b"LC_", b"MALLOC_", b"GLIBC_", b"UV_", b"OPENSSL_", b"SSL_"];

/// Whether a change of this variable needs another process.
pub(super) fn is_fixed(name: &[u8]) -> bool {
    FIXED.contains(&name) || FIXED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The interpreter that runs a language: the first of its names on the `PATH` that it would be started with.
///
/// # Errors
/// `PYTHON_NOT_AVAILABLE`, `JAVASCRIPT_NOT_AVAILABLE`.
pub(super) async fn find(
    files: &Files,
    language: CodeLanguage,
    path: &[u8],
    cwd: &Path,
) -> Result<CString, ApiError> {
    let names = match language {
        CodeLanguage::Python => ["python3", "python"],
        CodeLanguage::Javascript | CodeLanguage::Typescript => ["node", "nodejs"],
    };
    let directories = || path.split(|byte| *byte == b':').take(PATH_ENTRIES);
    let programs = names
        .iter()
        .flat_map(|name| directories().map(move |entry| cwd.join(OsStr::from_bytes(entry)).join(name)))
        .collect();
    if let Some(program) = files.first_program(programs).await?
        && let Ok(program) = CString::new(program.as_os_str().as_bytes())
    {
        return Ok(program);
    }
    let [name, _] = names;
    let (code, who, remedy) = match language {
        CodeLanguage::Python => (
            ErrorCode::PythonNotAvailable,
            "Python",
            "Use an image that has python3, such as `python`, or install it in the sandbox.",
        ),
        CodeLanguage::Javascript | CodeLanguage::Typescript => (
            ErrorCode::JavascriptNotAvailable,
            "JavaScript",
            "Use an image that has node, or install it in the sandbox (version 18 or later).",
        ),
    };
    let message = format!(
        "{who} interpreter not available: {language} needs {name}, which is not on the sandbox's PATH"
    );
    Err(ApiError::new(code, message).with("language", language.as_str()).suggest(remedy))
}

/// The command line of a language's executor, without the interpreter's own name.
pub(super) fn arguments(language: CodeLanguage) -> Vec<&'static str> {
    match language {
        CodeLanguage::Python => vec!["-c", PYTHON_BOOT],
        CodeLanguage::Javascript | CodeLanguage::Typescript => vec!["-e", NODE_BOOT, language.as_str()],
    }
}

/// Our programs as sealed memory files, made when the first executor needs them: all executors map the same pages.
#[derive(Debug, Default)]
pub(super) struct Programs {
    python: OnceLock<OwnedFd>,
    node: OnceLock<OwnedFd>,
    parser: OnceLock<OwnedFd>,
    apart: OnceLock<OwnedFd>,
}

impl Programs {
    /// The files of a language's executor with the numbers that they have there.
    pub(super) fn of(&self, language: CodeLanguage) -> io::Result<Vec<(&OwnedFd, i32)>> {
        let apart = made(&self.apart, || {
            object_file("sandcrab-apart", APART_OBJECT).or_else(|error| {
                // Without executable memory files (vm.memfd_noexec = 2) an interpreter is as any other process.
                tracing::warn!(%error, "interpreters are not set apart");
                sealed("")
            })
        })?;
        let program = |slot, text| made(slot, || sealed(text));
        Ok(match language {
            CodeLanguage::Python => vec![(program(&self.python, PYTHON)?, PROGRAM), (apart, APART)],
            CodeLanguage::Javascript | CodeLanguage::Typescript => vec![
                (program(&self.node, NODE)?, PROGRAM),
                (program(&self.parser, NODE_PARSER)?, PARSER),
                (apart, APART),
            ],
        })
    }
}

fn made(slot: &OnceLock<OwnedFd>, make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<&OwnedFd> {
    if let Some(file) = slot.get() {
        return Ok(file);
    }
    let file = make()?;
    Ok(slot.get_or_init(|| file))
}

fn sealed(text: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create("sandcrab-executor", flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 the flag is unknown.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("sandcrab-executor", flags)?,
        other => other?,
    };
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let count = rustix::io::write(&fd, rest)?;
        rest = &rest[count..];
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn k01_a_language_that_the_image_lacks_is_a_501_with_a_remedy() {
        let empty = tempfile::tempdir().unwrap();
        // A directory and a file without the right to run are no interpreter.
        std::fs::create_dir(empty.path().join("python3")).unwrap();
        std::fs::write(empty.path().join("node"), "").unwrap();
        let path = empty.path().as_os_str().as_bytes();
        let files = Files::of_sandbox(&Default::default()).unwrap();
        for (language, code) in [
            (CodeLanguage::Python, ErrorCode::PythonNotAvailable),
            (CodeLanguage::Javascript, ErrorCode::JavascriptNotAvailable),
            (CodeLanguage::Typescript, ErrorCode::JavascriptNotAvailable),
        ] {
            let error = find(&files, language, path, Path::new("/")).await.unwrap_err();
            assert_eq!((error.code, error.http_status), (code, 501));
            assert!(error.suggestion.unwrap().contains("image"));
        }
    }

    #[tokio::test]
    async fn a30_no_interpreter_is_looked_for_behind_a_magic_link() {
        let files = Files::of_sandbox(&Default::default()).unwrap();
        let find =
            async |path: &str| find(&files, CodeLanguage::Python, path.as_bytes(), Path::new("/")).await;
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc/self/root/usr/bin", folder.path().join("planted")).unwrap();
        std::os::unix::fs::symlink("/usr/bin", folder.path().join("honest")).unwrap();
        let of = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        assert!(find(&of("honest")).await.is_ok(), "this test needs /usr/bin/python3");
        for path in ["/proc/self/root/usr/bin", &of("planted")] {
            assert_eq!(find(path).await.unwrap_err().code, ErrorCode::PythonNotAvailable, "{path}");
        }
    }

    #[test]
    fn s11_only_variables_that_are_read_at_the_start_need_another_process() {
        for name in ["PYTHONPATH", "NODE_OPTIONS", "LD_PRELOAD", "HOME", "LC_ALL"] {
            assert!(is_fixed(name.as_bytes()), "{name}");
        }
        for name in ["PATH", "FOO", "HOMER", "LANGUAGES"] {
            assert!(!is_fixed(name.as_bytes()), "{name}");
        }
    }
}
