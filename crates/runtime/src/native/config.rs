//! How the driver is set up.

use crate::doctor::Feature;
use crate::image::layer::Recipe;
use crate::image::python;
use sandcrab_api::sandbox::Limits;
use sandcrab_api::units::ByteSize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The disk of a sandbox that asks for none: 10 GiB. It takes of the host's disk what is written to it.
pub(super) const DEFAULT_DISK: u64 = 10 << 30;
/// The memory of a sandbox that asks for none: 4 GiB, and no more than half of the machine's.
const DEFAULT_MEMORY: u64 = 4 << 30;
/// The open files of a process: what servers and build tools need. Programs find the same number as soft and as hard
/// limit, so those that close every possible descriptor stay fast. A process that needs more is rare, and what all of a
/// sandbox's can hold together is what `pids` times this allows.
pub(super) const OPEN_FILES: u64 = 4096;
/// One place for all servers of the machine.
const MACHINE_DIR: &str = "/run/sandcrab";

/// A program to execute, with its leading arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Arguments before those that the driver adds; the first is the program's name for itself.
    pub argv: Vec<String>,
}

/// How the driver is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept. Made if missing, for the server's eyes only.
    pub data_dir: PathBuf,
    /// What may be missing on this machine.
    pub allow_missing: BTreeSet<Feature>,
    /// The launch stage.
    pub launch: Program,
    /// The agent. `--config-fd N` is appended.
    pub agent: Program,
    /// Limits for what a spec leaves open.
    pub defaults: Limits,
    /// Host paths that the `host` image must not show.
    pub host_image_exclude: Vec<PathBuf>,
    /// The data directory whose images are used, if not this one's own: that of another server, which may run.
    pub images_of: Option<PathBuf>,
    /// The images that can be built. Default: `python`.
    pub recipes: Vec<Recipe>,
    /// Where the servers of this machine tell each other which user ids they use.
    pub machine_dir: PathBuf,
}

impl Config {
    /// The usual set-up: this very program is launch stage and agent.
    pub fn new(data_dir: PathBuf) -> Self {
        let program = |command: &str| Program {
            path: "/proc/self/exe".into(),
            argv: vec!["sandcrab".into(), command.into()],
        };
        Self {
            data_dir,
            allow_missing: BTreeSet::new(),
            launch: program("__launch"),
            agent: program("agent"),
            defaults: Limits {
                memory: Some(default_memory()),
                pids: Some(4096),
                disk: Some(ByteSize(DEFAULT_DISK)),
                open_files: Some(OPEN_FILES),
                ..Limits::default()
            },
            host_image_exclude: Vec::new(),
            images_of: None,
            recipes: vec![python::recipe()],
            machine_dir: MACHINE_DIR.into(),
        }
    }
}

/// How much memory a sandbox may use for which nobody has said more: 4 GiB or half of the machine's, whichever is less.
fn default_memory() -> ByteSize {
    ByteSize(DEFAULT_MEMORY.min(machine_memory() / 2))
}

/// How much memory the machine has, in bytes.
pub(super) fn machine_memory() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram.saturating_mul(u64::from(system.mem_unit))
}
