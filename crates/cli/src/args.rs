//! What was typed. What it means is in [`crate::plan`].

use crate::file::FileArgs;
use crate::setup::{ContextArgs, EnvArgs, SessionArgs};
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;

const QUOTING: &str = "\
One word is shell text and is run as it is; several words are one command, each word literal:
  sandcrab exec box 'echo $HOME | wc -c'     runs a pipe, $HOME is the sandbox's
  sandcrab exec box echo '$HOME | wc -c'     prints $HOME | wc -c

With -i, stdin is passed on to the command as it comes, byte for byte; without it, stdin is left alone.
The exit code is the command's own; 124 says that --timeout was over, 125 that sandcrab itself failed.";

/// Isolated Linux sandboxes with sessions that never die
#[derive(Debug, Parser)]
#[command(name = "sandcrab", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Args {
    /// The server [default: http://127.0.0.1:8787] [env: SANDCRAB_URL; its key: SANDCRAB_API_KEY]
    #[arg(long, global = true, value_name = "URL", hide_env = true)]
    pub url: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve sandboxes to clients
    Serve(ServeArgs),
    /// Run a command in a throw-away sandbox; needs no server
    Run(RunArgs),
    /// Make a sandbox, or change its labels
    Create(CreateArgs),
    /// Run a command in a session of a sandbox
    Exec(ExecArgs),
    /// Run Python, JavaScript or TypeScript in a sandbox; variables, functions and imports stay for the next time
    RunCode(RunCodeArgs),
    /// Work in a session of a sandbox, line by line
    Shell(ShellArgs),
    /// Make and end sessions; `ps` lists them
    Session(SessionArgs),
    /// Set and unset variables of a sandbox, or of one of its sessions
    Env(EnvArgs),
    /// Make, list and end code contexts
    Context(ContextArgs),
    /// Clone a repository inside a sandbox
    Checkout(CheckoutArgs),
    /// List sandboxes, or files of one
    Ls(LsArgs),
    /// Start a process in the background of a sandbox
    Start(StartArgs),
    /// List a sandbox's sessions, what they do, and its processes
    Ps(SandboxArg),
    /// Talk with a process of a sandbox that was started with `start -i`
    Attach(AttachArgs),
    /// Show what a process has written, or what has happened to a sandbox
    Logs(LogsArgs),
    /// End processes of a sandbox with all that they started
    Kill(KillArgs),
    /// Copy files and directories into and out of a sandbox
    Cp(CpArgs),
    /// Make, move, rename and delete files of a sandbox; `ls` lists them
    File(FileArgs),
    /// Make a port of a sandbox reachable: prints the URL
    Expose(ExposeArgs),
    /// Take a port back: its URL is dead at once
    Unexpose(UnexposeArgs),
    /// List a sandbox's exposed ports
    Ports(PortsArgs),
    /// End all that runs in sandboxes and keep their files; their next use starts them
    Stop(StopArgs),
    /// Destroy sandboxes and all that is in them
    Rm(RmArgs),
    /// Show a sandbox, or the server
    Info(InfoArgs),
    /// List, build and remove what sandboxes are made of
    Image(ImageArgs),
    /// Say what this machine can do for isolation, and what to do about what it cannot
    Doctor(DoctorArgs),
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Without a key of yours (16 characters or more) and without --no-auth one is made at the first start, shown once and kept in the data directory, where
commands of the same user find it. Sandboxes go on when the server ends; the next one finds them.")]
pub(crate) struct ServeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8787")]
    pub listen: String,
    /// Where everything is kept [default: /var/lib/sandcrab for root, else $XDG_DATA_HOME/sandcrab]
    #[arg(long, value_name = "DIR", env = "SANDCRAB_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Read the key that callers must send from this file [or: the environment's SANDCRAB_API_KEY]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_auth", "api_key"])]
    pub api_key_file: Option<PathBuf>,
    /// The key itself: every user of this machine can read it in the list of processes
    #[arg(long, value_name = "KEY", conflicts_with = "no_auth")]
    pub api_key: Option<String>,
    /// Let everyone in who reaches the server
    #[arg(long)]
    pub no_auth: bool,
    /// How to isolate
    #[arg(long, default_value = "native")]
    pub driver: String,
    /// Answer to this host name too, beside loopback names and addresses
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Serve previews below this domain too: https://PORT-SANDBOX-TOKEN.DOMAIN[:PORT]/
    #[arg(long, value_name = "DOMAIN[:PORT]")]
    pub preview_domain: Option<String>,
    /// Listen here as well, encrypted, with HTTP/1.1 and HTTP/2
    #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["tls_cert", "tls_key"])]
    pub tls_listen: Option<String>,
    /// The certificate and what it is signed by, as PEM; for previews a wildcard. Read again at SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    pub tls_key: Option<PathBuf>,
    /// Let web pages of this origin call the server; * for all
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,
    /// Believe this proxy what it says of a caller's address (X-Forwarded-For)
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    pub trusted_proxy: Vec<String>,
    /// Start although this part of the isolation is missing: cgroup, seccomp, landlock, quota
    #[arg(long, value_name = "FEATURE")]
    pub allow_missing: Vec<String>,
    /// Forget the sandboxes that the database knows and whose files are gone, however many
    #[arg(long)]
    pub accept_lost: bool,
    /// Leave this path out of the host image
    #[arg(long, value_name = "PATH")]
    pub host_image_exclude: Vec<PathBuf>,
    /// What to log to stderr: error, warn, info, debug, or by part as info,sandcrab_server=debug
    #[arg(long, value_name = "FILTER", env = "SANDCRAB_LOG", default_value = "info")]
    pub log: String,
}

/// How a command is run, wherever it is.
#[derive(Debug, ClapArgs)]
pub(crate) struct CommandOptions {
    /// Set a variable for this command; without =VALUE it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Run it in this directory
    #[arg(short = 'w', long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Kill it with all its processes after this time: 30s, 5m, 1h, or seconds
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
}

/// What a sandbox is made with.
#[derive(Debug, ClapArgs)]
pub(crate) struct MakeOptions {
    /// The image: host, this machine's own programs, or python, these and a data stack [default: host]
    #[arg(long)]
    pub image: Option<String>,
    /// Memory: 512m, 2g
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// CPUs, fractions allowed
    #[arg(long, value_name = "NUMBER")]
    pub cpu: Option<f64>,
    /// Disk: 512m, 10g
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<String>,
    /// Processes and threads
    #[arg(long, value_name = "NUMBER")]
    pub pids: Option<u64>,
    /// Open files of each process
    #[arg(long, value_name = "NUMBER")]
    pub open_files: Option<u64>,
    /// loopback (its own, and nothing else) or host (no isolation of the network) [default: loopback]
    #[arg(long)]
    pub network: Option<String>,
    /// What its code may ask of the kernel: debugging, socket-lists [default: on], async-io, ping [default: off]
    #[arg(long, value_name = "NAME=on|off", value_delimiter = ',')]
    pub isolation: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Any other command makes a sandbox with defaults at its first use. What a sandbox was made with stays as it is: the same again is fine,
something else an error.")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub options: MakeOptions,
    /// Set a variable for all its sessions; without =VALUE it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// A label for people and for `ls --label`; those that are given replace the old ones
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// The sandbox
    pub sandbox: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StopArgs {
    /// End everything at once, without asking first
    #[arg(long)]
    pub kill: bool,
    /// The sandboxes
    #[arg(required = true)]
    pub sandboxes: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = QUOTING)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub sandbox: MakeOptions,
    /// Where no server runs: go on although this part of the isolation is missing: cgroup, seccomp, landlock, quota
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub allow_missing: Vec<String>,
    /// Pass stdin on to the command; without it the command's stdin is empty
    #[arg(short, long)]
    pub interactive: bool,
    #[command(flatten)]
    pub options: CommandOptions,
    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = QUOTING)]
pub(crate) struct ExecArgs {
    /// The session; created if it does not exist
    #[arg(short, long, default_value = "default")]
    pub session: String,
    /// Pass stdin on to the command; without it the command's stdin is empty
    #[arg(short, long)]
    pub interactive: bool,
    #[command(flatten)]
    pub options: CommandOptions,
    /// The sandbox; created if it does not exist
    pub sandbox: String,
    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The value of the last expression is printed, also rich ones by their text; --json gives them in every form.
The exit code is 1 when the code failed, 124 when --timeout was over, 125 when sandcrab itself failed.
Ctrl-C interrupts the code; its context keeps its state.")]
pub(crate) struct RunCodeArgs {
    /// python, javascript or typescript [default: by the file's name, else python]
    #[arg(short, long)]
    pub language: Option<String>,
    /// Run it in the session's own context, which follows its variables and directory
    #[arg(short, long)]
    pub session: Option<String>,
    /// Run it in this code context
    #[arg(short, long, value_name = "ID", conflicts_with = "session")]
    pub context: Option<String>,
    /// Set a variable for this run; without =VALUE it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Interrupt it after this time: 30s, 5m, 1h, or seconds [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// The sandbox; created if it does not exist
    pub sandbox: String,
    /// The code; - for stdin
    #[arg(default_value = "-")]
    pub file: PathBuf,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Ctrl-C cancels the running command, Ctrl-D leaves; the session lives on with all its state.
stdin that is no terminal is run as one script.")]
pub(crate) struct ShellArgs {
    /// The session; created if it does not exist
    #[arg(short, long, default_value = "default")]
    pub session: String,
    /// The sandbox; created if it does not exist
    pub sandbox: String,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Prints the directory of the working tree. Ctrl-C ends it; what fails or is ended leaves nothing behind.
A password or token comes from SANDCRAB_GIT_PASSWORD or, with --password-stdin, from the first line of stdin. It is lent to
git for this one call and written nowhere. ssh takes the sandbox's own ~/.ssh: a key, with mode 600, and known_hosts come
there by `sandcrab cp`.")]
pub(crate) struct CheckoutArgs {
    /// Start from this session's exported variables and working directory [default: the sandbox's and /workspace]
    #[arg(short, long)]
    pub session: Option<String>,
    /// The branch or tag [default: the remote's own]
    #[arg(short, long)]
    pub branch: Option<String>,
    /// Fetch only so many of the newest commits
    #[arg(long, value_name = "COMMITS")]
    pub depth: Option<u32>,
    /// Leave objects out until they are needed: blob:none, blob:limit=1m, tree:0
    #[arg(long)]
    pub filter: Option<String>,
    /// End it after this time: 30s, 5m, 1h, or seconds [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Who to be for the repository's host
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Take the password or token from stdin
    #[arg(long)]
    pub password_stdin: bool,
    /// The sandbox; created if it does not exist
    pub sandbox: String,
    /// https, http, git or ssh URL, or user@host:path
    #[arg(value_name = "URL")]
    pub repository: String,
    /// Where to: an empty directory or a new one [default: the repository's name]
    #[arg(value_name = "DIR")]
    pub directory: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LsArgs {
    /// Files whose names begin with a dot too
    #[arg(short, long)]
    pub all: bool,
    /// Directories with all that is below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Only sandboxes with this label
    #[arg(short, long, value_name = "NAME=VALUE", conflicts_with = "place")]
    pub label: Vec<String>,
    /// Files of a sandbox: SANDBOX:/path; relative paths start at /workspace
    #[arg(value_name = "SANDBOX:PATH")]
    pub place: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SandboxArg {
    /// The sandbox
    pub sandbox: String,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The process belongs to the sandbox: it goes on when this command has ended. Its id is printed once it runs, and is ready
where --wait-port or --wait-log says what that means.")]
pub(crate) struct StartArgs {
    /// The session whose variables and directory it starts with
    #[arg(short, long, default_value = "default")]
    pub session: String,
    /// The process's name; one is made up if it is missing
    #[arg(long)]
    pub id: Option<String>,
    /// Start it again after every end but a kill or its timeout
    #[arg(long)]
    pub restart: bool,
    /// Stay: pass stdin on to it, print its output, and end with its exit code. Ctrl-C leaves it running
    #[arg(short, long, conflicts_with = "restart")]
    pub interactive: bool,
    /// Wait until something listens on this port of the sandbox
    #[arg(long, value_name = "PORT")]
    pub wait_port: Option<u16>,
    /// Wait until a line of its output matches this regular expression
    #[arg(long, value_name = "PATTERN")]
    pub wait_log: Option<String>,
    /// How long to wait for either: 30s, 5m, 1h, or seconds [default: without end]
    #[arg(long, value_name = "TIME")]
    pub wait_timeout: Option<String>,
    #[command(flatten)]
    pub options: CommandOptions,
    /// The sandbox; created if it does not exist
    pub sandbox: String,
    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Prints what is kept of its output and goes on with it, passes stdin on, and ends with the process's exit code. The end of
stdin is the process's too; Ctrl-C leaves it running, to be attached to again.")]
pub(crate) struct AttachArgs {
    /// The sandbox
    pub sandbox: String,
    /// The process
    pub process: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogsArgs {
    /// Go on as things happen; a process's log to its end
    #[arg(short, long)]
    pub follow: bool,
    /// The sandbox
    pub sandbox: String,
    /// The process; without it the sandbox's own events are shown
    pub process: Option<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
TERM, INT, QUIT, ABRT and KILL end a process; what has not ended 5 s later is killed. Other signals are only sent.")]
pub(crate) struct KillArgs {
    /// The signal, as HUP or SIGHUP
    #[arg(short, long, value_name = "NAME", default_value = "TERM")]
    pub signal: String,
    /// End all processes
    #[arg(short, long, conflicts_with_all = ["processes", "signal"])]
    pub all: bool,
    /// The sandbox
    pub sandbox: String,
    /// The processes
    #[arg(required_unless_present = "all", value_name = "PROCESS")]
    pub processes: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
One side is SANDBOX:/path (relative paths start at /workspace), the other a local path, or - for stdin or stdout.
Into a directory that exists, the source is copied under its own name, as you typed it; one without a name (. or /) out
of a sandbox gives its content, and replaces nothing there. Modes, symbolic links and holes are kept. What cannot be
copied is told and skipped, and the exit code is 125. Ctrl-C leaves no unfinished file.")]
pub(crate) struct CpArgs {
    /// Out of a sandbox: let the content of a source without a name replace what is there
    #[arg(short, long)]
    pub force: bool,
    /// What to copy
    pub source: String,
    /// Where to
    pub destination: String,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Whoever knows the URL reaches what listens on the port, also over WebSockets. It holds until the port is taken back or
the sandbox destroyed; a visit starts the sandbox if it is stopped.")]
pub(crate) struct ExposeArgs {
    /// The URL's domain, with its port [default: the server's preview domain, or the localhost it is called by]
    #[arg(long, value_name = "NAME[:PORT]")]
    pub hostname: Option<String>,
    /// A label for people
    #[arg(long)]
    pub name: Option<String>,
    /// The secret in the URL: 1-16 characters of a-z, 0-9 and _ [default: 16 random ones]
    #[arg(long)]
    pub token: Option<String>,
    /// The sandbox; created if it does not exist
    pub sandbox: String,
    /// The port, 1024 to 65535
    pub port: u16,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UnexposeArgs {
    /// The sandbox
    pub sandbox: String,
    /// The port
    pub port: u16,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PortsArgs {
    /// The URLs' domain, as for `expose`
    #[arg(long, value_name = "NAME[:PORT]")]
    pub hostname: Option<String>,
    /// The sandbox
    pub sandbox: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RmArgs {
    /// Do not mind if one does not exist
    #[arg(short, long)]
    pub force: bool,
    /// The sandboxes
    #[arg(required = true)]
    pub sandboxes: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InfoArgs {
    /// The sandbox; without it the server
    pub sandbox: Option<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
An image that is not built is built by the first sandbox that is made of it; `build` does so beforehand.
python is the host's image with IPython, numpy, pandas and matplotlib. It is made anew when the host's /usr changes.")]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images
    Ls,
    /// Build an image, unless it is there
    Build(ImageName),
    /// Remove what was built for an image that no sandbox is made of
    Rm(ImageName),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImageName {
    /// The image
    pub name: String,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "The exit code is 1 where a server would refuse to make sandboxes.")]
pub(crate) struct DoctorArgs {
    /// Where a server would keep its data [default: /var/lib/sandcrab for root, else $XDG_DATA_HOME/sandcrab]
    #[arg(long, value_name = "DIR", env = "SANDCRAB_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        super::Args::command().debug_assert();
    }
}
