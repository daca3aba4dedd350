//! Bounds that callers can rely on and that keep memory flat. Each is one number in one place.

/// How long a sandbox may be idle before it sleeps, in seconds (contract L02).
pub const DEFAULT_SLEEP_AFTER_SECS: u64 = 180;
/// Bytes kept of each output stream of one `exec` unless the caller says otherwise (contract S13).
pub const DEFAULT_MAX_OUTPUT_BYTES: u64 = 64 << 20;
/// The most that a caller may ask to have kept of one output stream.
pub const MAX_OUTPUT_BYTES: u64 = 1 << 30;
/// How long a finished command can still be read and resumed, in seconds (contract S12).
pub const EXEC_RETENTION_SECS: u64 = 300;
/// How many commands may wait in one session behind the running one (contract S08).
pub const MAX_QUEUED_COMMANDS: usize = 256;
/// The longest command text, in bytes. Well above the 1 MB that contract S04 names, and far below what a shell
/// needs minutes to parse.
pub const MAX_COMMAND_BYTES: usize = 8 << 20;
/// The longest text given to one command on stdin, in bytes. More goes through a file.
pub const MAX_STDIN_BYTES: usize = 16 << 20;
/// The longest JSON body of a request, in bytes. Larger content goes through the raw file routes.
pub const MAX_JSON_BODY_BYTES: usize = 48 << 20;
/// Linux's PATH_MAX: a longer path can never be opened (limits.h).
pub const MAX_PATH_BYTES: usize = 4096;
/// Linux's NAME_MAX: the longest name of one path component (limits.h).
pub const MAX_NAME_BYTES: usize = 255;
/// Environment entries that one call may set.
pub const MAX_ENV_ENTRIES: usize = 1024;
/// Linux's MAX_ARG_STRLEN less a NUL: a longer `NAME=value` makes every exec fail (binfmts.h).
pub const MAX_ENV_ENTRY_BYTES: usize = 131_071;
/// Bytes of all variables that calls on a sandbox may set together. A quarter of the 6 MiB that Linux lets arguments
/// and environment of one program take (execve(2)), so that every command can still be started.
pub const MAX_ENV_BYTES: usize = 1536 << 10;
/// Sessions that one sandbox may hold (attack E07).
pub const MAX_SESSIONS: usize = 1024;
/// The longest timeout that a caller may set, in milliseconds: one week.
pub const MAX_TIMEOUT_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long a command's processes have between SIGTERM and SIGKILL, in milliseconds (contract S06).
pub const KILL_GRACE_MS: u64 = 2000;
/// The longest file that `readFile` answers as one JSON document, in bytes. Larger ones are streamed. An answer is
/// up to six times as long where every byte needs an escape, and stays well below 256 MiB.
pub const MAX_READ_BYTES: u64 = 32 << 20;
/// Entries that one listing may have; each is about 300 bytes of JSON.
pub const MAX_LIST_ENTRIES: usize = 100_000;
/// The longest URL of a repository, in bytes. Hosts and proxies stop at half of it or less.
pub const MAX_GIT_URL_BYTES: usize = 4096;
/// The longest name of a branch or tag, and of a user of a git host, in bytes.
pub const MAX_GIT_BRANCH_BYTES: usize = 1024;
/// The longest password or token for a git host, in bytes: what fits a line of an HTTP header that servers take.
pub const MAX_GIT_PASSWORD_BYTES: usize = 16 << 10;
/// How long a clone may take unless the caller says otherwise, in milliseconds.
pub const DEFAULT_CLONE_TIMEOUT_MS: u64 = 600_000;
/// Clones that one sandbox may run at once (attack E07). Each is a handful of processes.
pub const MAX_GIT_CHECKOUTS: usize = 32;
/// Bytes kept of each output stream of a process unless the caller says otherwise (contract P03).
pub const DEFAULT_MAX_LOG_BYTES: u64 = 16 << 20;
/// The least that a caller may ask to have kept: two pieces as they are taken from a pipe, so that a follower who keeps
/// up loses nothing.
pub const MIN_LOG_BYTES: u64 = 128 << 10;
/// Processes that one sandbox may run at a time (attack E07).
pub const MAX_PROCESSES: usize = 1024;
/// Processes that have ended and are still known, at the most; the oldest go first.
pub const MAX_ENDED_PROCESSES: usize = 256;
/// How long an ended process is known if it cleans up after itself, in seconds.
pub const PROCESS_RETENTION_SECS: u64 = 300;
/// How long a process has between the signal and SIGKILL, in milliseconds (contract P02).
pub const PROCESS_KILL_GRACE_MS: u64 = 5000;
/// Requests that may follow or wait for one process at a time (attack E07).
pub const MAX_PROCESS_WAITERS: usize = 256;
/// Requests that may follow or wait for any process of one sandbox at a time; each holds up to 128 KiB of the agent's
/// memory.
pub const MAX_ALL_PROCESS_WAITERS: usize = 1024;
/// The longest text that a line of a log can be waited for, in bytes.
pub const MAX_LOG_PATTERN_BYTES: usize = 4096;
/// Code contexts that one sandbox may hold (attack E07): each is a process of its own.
pub const MAX_CODE_CONTEXTS: usize = 64;
/// The longest code of one run, in bytes.
pub const MAX_CODE_BYTES: usize = 8 << 20;
/// How long a run may take unless the caller says otherwise, in milliseconds.
pub const DEFAULT_RUN_TIMEOUT_MS: u64 = 60_000;
/// Bytes kept of each output stream of one run, and of all its results together.
pub const MAX_RUN_OUTPUT_BYTES: u64 = 64 << 20;
/// The longest message of an executor, in bytes: bounds what a single result may cost the agent.
pub const MAX_EXECUTOR_MESSAGE_BYTES: usize = 8 << 20;
