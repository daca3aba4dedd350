//! What the arguments mean: everything is checked here, once.

use crate::args::{
    Args, CheckoutArgs, Command, CommandOptions, CpArgs, CreateArgs, ExecArgs, ExposeArgs, ImageCommand,
    KillArgs, LsArgs, MakeOptions, RunArgs, RunCodeArgs, ServeArgs, StartArgs,
};
use crate::commands::serve::Logging;
use crate::file::FilePlan;
use crate::key;
use crate::quote;
use crate::setup::Setup;
use anyhow::{Context as _, Result, bail};
use regex::Regex;
use sandcrab_client::api::code::CodeLanguage;
use sandcrab_client::api::sandbox::{Isolation, Limits, Network, StopSignal};
use sandcrab_client::api::units::{ByteSize, IdleTime};
use sandcrab_client::api::{ContextId, ProcessId, SandboxId, SessionId};
use sandcrab_client::{ExposeOptions, SandboxOptions};
use sandcrab_runtime::doctor::Feature;
use sandcrab_server::{ServeOptions, TlsOptions};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What to do.
#[derive(Debug)]
pub(crate) enum Plan {
    Serve {
        options: ServeOptions,
        logging: Logging,
    },
    Doctor {
        data_dir: Option<PathBuf>,
    },
    /// Something that is asked of a server.
    Ask {
        url: Option<String>,
        action: Action,
    },
}

#[derive(Debug)]
pub(crate) enum Action {
    Create { sandbox: SandboxId, options: Box<SandboxOptions> },
    Stop { sandboxes: Vec<SandboxId>, signal: StopSignal },
    Run { options: SandboxOptions, command: CommandPlan, allow_missing: Vec<Feature> },
    Exec { sandbox: SandboxId, session: SessionId, command: CommandPlan },
    RunCode { sandbox: SandboxId, code: CodePlan },
    Shell { sandbox: SandboxId, session: SessionId },
    Checkout { sandbox: SandboxId, plan: CheckoutPlan },
    ListSandboxes { labels: Vec<(String, String)> },
    ListFiles { place: Place, all: bool, recursive: bool },
    Start { sandbox: SandboxId, start: Box<StartPlan> },
    Ps { sandbox: SandboxId },
    Logs { sandbox: SandboxId, follow: bool },
    Attach { sandbox: SandboxId, process: ProcessId },
    ProcessLogs { sandbox: SandboxId, process: ProcessId, follow: bool },
    Kill { sandbox: SandboxId, processes: Vec<ProcessId>, signal: String },
    KillAll { sandbox: SandboxId },
    File(FilePlan),
    Setup(Setup),
    Copy(Copy),
    Expose { sandbox: SandboxId, port: u16, options: ExposeOptions },
    Unexpose { sandbox: SandboxId, port: u16 },
    Ports { sandbox: SandboxId, hostname: Option<String> },
    Remove { sandboxes: Vec<SandboxId>, force: bool },
    Info { sandbox: SandboxId },
    ServerInfo,
    Image(ImageAction),
}

/// What to do with images.
#[derive(Debug)]
pub(crate) enum ImageAction {
    List,
    Build { name: String },
    Remove { name: String },
}

/// A command for a session.
#[derive(Debug)]
pub(crate) struct CommandPlan {
    /// Shell text.
    pub text: String,
    pub env: Vec<(String, String)>,
    pub cwd: Option<String>,
    pub timeout: Option<Duration>,
    /// Whether it gets this process's stdin.
    pub interactive: bool,
}

/// A repository for a sandbox. Nothing of it is printed: it may hold a password.
pub(crate) struct CheckoutPlan {
    pub session: Option<SessionId>,
    pub url: String,
    pub directory: Option<String>,
    pub branch: Option<String>,
    pub depth: Option<u32>,
    pub filter: Option<String>,
    pub timeout: Option<Duration>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub password_stdin: bool,
}

impl std::fmt::Debug for CheckoutPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckoutPlan").finish_non_exhaustive()
    }
}

/// A process to start, and what to wait for.
#[derive(Debug)]
pub(crate) struct StartPlan {
    pub session: SessionId,
    pub id: Option<ProcessId>,
    pub restart: bool,
    pub interactive: bool,
    pub wait_port: Option<u16>,
    pub wait_log: Option<Regex>,
    pub wait_timeout: Option<Duration>,
    pub command: CommandPlan,
}

/// Code for a context.
#[derive(Debug)]
pub(crate) struct CodePlan {
    pub source: Local,
    pub language: Option<CodeLanguage>,
    pub session: Option<SessionId>,
    pub context: Option<ContextId>,
    pub env: Vec<(String, String)>,
    pub timeout: Option<Duration>,
}

/// A path in a sandbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub sandbox: SandboxId,
    pub path: String,
}

/// A path on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// stdin or stdout.
    Pipe,
    Path(PathBuf),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    In { from: Local, to: Place },
    Out { from: Place, to: Local, force: bool },
}

impl Plan {
    pub(crate) fn new(args: Args) -> Result<Self> {
        let action = match args.command {
            Command::Serve(serve) => return serve_plan(serve),
            Command::Doctor(doctor) => return Ok(Self::Doctor { data_dir: doctor.data_dir }),
            Command::Run(run) => run_action(run)?,
            Command::Exec(exec) => exec_action(exec)?,
            Command::Checkout(checkout) => checkout_action(checkout)?,
            Command::RunCode(code) => run_code_action(code)?,
            Command::Shell(shell) => {
                Action::Shell { sandbox: shell.sandbox.parse()?, session: shell.session.parse()? }
            }
            Command::Ls(ls) => ls_action(ls)?,
            Command::Ps(ps) => Action::Ps { sandbox: ps.sandbox.parse()? },
            Command::Start(start) => start_action(start)?,
            Command::Kill(kill) => kill_action(&kill)?,
            Command::Attach(attach) => {
                Action::Attach { sandbox: attach.sandbox.parse()?, process: attach.process.parse()? }
            }
            Command::Logs(logs) => {
                let (sandbox, follow) = (logs.sandbox.parse()?, logs.follow);
                match logs.process {
                    Some(id) => Action::ProcessLogs { sandbox, process: id.parse()?, follow },
                    None => Action::Logs { sandbox, follow },
                }
            }
            Command::Session(session) => Action::Setup(Setup::session(session)?),
            Command::Env(env) => Action::Setup(Setup::env(env)?),
            Command::Context(context) => Action::Setup(Setup::context(context)?),
            Command::File(file) => Action::File(FilePlan::new(file)?),
            Command::Cp(cp) => Action::Copy(copy(&cp)?),
            Command::Expose(ExposeArgs { hostname, name, token, sandbox, port }) => Action::Expose {
                sandbox: sandbox.parse()?,
                port,
                options: ExposeOptions { hostname, name, token, replace: false },
            },
            Command::Unexpose(unexpose) => {
                Action::Unexpose { sandbox: unexpose.sandbox.parse()?, port: unexpose.port }
            }
            Command::Ports(ports) => {
                Action::Ports { sandbox: ports.sandbox.parse()?, hostname: ports.hostname }
            }
            Command::Create(create) => create_action(create)?,
            Command::Stop(stop) => Action::Stop {
                sandboxes: stop.sandboxes.iter().map(|id| Ok(id.parse()?)).collect::<Result<_>>()?,
                signal: if stop.kill { StopSignal::Kill } else { StopSignal::Term },
            },
            Command::Rm(rm) => Action::Remove {
                sandboxes: rm.sandboxes.iter().map(|id| Ok(id.parse()?)).collect::<Result<_>>()?,
                force: rm.force,
            },
            Command::Image(image) => Action::Image(match image.command {
                ImageCommand::Ls => ImageAction::List,
                ImageCommand::Build(image) => ImageAction::Build { name: image.name },
                ImageCommand::Rm(image) => ImageAction::Remove { name: image.name },
            }),
            Command::Info(info) => match info.sandbox {
                Some(id) => Action::Info { sandbox: id.parse()? },
                None => Action::ServerInfo,
            },
        };
        Ok(Self::Ask { url: args.url, action })
    }
}

fn serve_plan(serve: ServeArgs) -> Result<Plan> {
    let api_key = key::of(&serve)?;
    let logging = Logging { filter: serve.log, key_in_arguments: serve.api_key.is_some() };
    let options = ServeOptions {
        listen: serve.listen,
        data_dir: serve.data_dir,
        api_key,
        no_auth: serve.no_auth,
        driver: serve.driver,
        allow_hosts: serve.allow_host,
        preview_domain: serve.preview_domain,
        tls: tls_plan(serve.tls_listen, serve.tls_cert, serve.tls_key),
        cors_origins: serve.cors_origin,
        trusted_proxies: serve.trusted_proxy,
        allow_missing: serve.allow_missing,
        host_image_exclude: serve.host_image_exclude,
        images_of: None,
        accept_lost: serve.accept_lost,
    };
    Ok(Plan::Serve { options, logging })
}

/// The arguments require each other, so that all of them came or none did.
fn tls_plan(listen: Option<String>, cert: Option<PathBuf>, key: Option<PathBuf>) -> Option<TlsOptions> {
    Some(TlsOptions { listen: listen?, cert: cert?, key: key? })
}

/// `--isolation NAME=on|off`, in any number.
fn isolation(given: &[String]) -> Result<Isolation> {
    let mut isolation = Isolation::default();
    for text in given {
        let (name, state) = text.split_once('=').unwrap_or((text, ""));
        let field = match name {
            "debugging" => &mut isolation.debugging,
            "socket-lists" => &mut isolation.socket_lists,
            "async-io" => &mut isolation.async_io,
            "ping" => &mut isolation.ping,
            _ => bail!("--isolation {name:?} is none of debugging, socket-lists, async-io, ping"),
        };
        *field = match state {
            "on" => Some(true),
            "off" => Some(false),
            _ => bail!("--isolation {text:?} must be {name}=on or {name}=off"),
        };
    }
    Ok(isolation)
}

fn sandbox_options(make: MakeOptions) -> Result<SandboxOptions> {
    let limits = Limits {
        memory: size("--memory", make.memory.as_deref())?,
        cpu: make.cpu,
        disk: size("--disk", make.disk.as_deref())?,
        pids: make.pids,
        open_files: make.open_files,
    };
    let network = match make.network.as_deref() {
        None => None,
        Some("loopback") => Some(Network::Loopback),
        Some("host") => Some(Network::Host),
        Some(other) => bail!("--network {other:?} is neither loopback nor host"),
    };
    let isolation = isolation(&make.isolation)?;
    Ok(SandboxOptions {
        image: make.image,
        limits: (limits != Limits::default()).then_some(limits),
        network,
        isolation: (isolation != Isolation::default()).then_some(isolation),
        ..SandboxOptions::default()
    })
}

fn create_action(create: CreateArgs) -> Result<Action> {
    let labels: BTreeMap<_, _> = labels(&create.label)?.into_iter().collect();
    let options = SandboxOptions {
        env: variables(create.env)?.into_iter().map(|(name, value)| (name, Some(value))).collect(),
        labels: (!labels.is_empty()).then_some(labels),
        ..sandbox_options(create.options)?
    };
    Ok(Action::Create { sandbox: create.sandbox.parse()?, options: Box::new(options) })
}

fn run_action(run: RunArgs) -> Result<Action> {
    // It lives exactly as long as its command.
    let options = SandboxOptions { keep_alive: Some(true), ..sandbox_options(run.sandbox)? };
    let allow_missing = run.allow_missing.iter().map(|name| name.parse().context("--allow-missing"));
    Ok(Action::Run {
        options,
        allow_missing: allow_missing.collect::<Result<_>>()?,
        command: CommandPlan { interactive: run.interactive, ..command(run.options, &run.command)? },
    })
}

fn exec_action(exec: ExecArgs) -> Result<Action> {
    Ok(Action::Exec {
        sandbox: exec.sandbox.parse()?,
        session: exec.session.parse()?,
        command: CommandPlan { interactive: exec.interactive, ..command(exec.options, &exec.command)? },
    })
}

fn checkout_action(checkout: CheckoutArgs) -> Result<Action> {
    let password = std::env::var("SANDCRAB_GIT_PASSWORD").ok().filter(|password| !password.is_empty());
    if checkout.username.is_some() && password.is_none() && !checkout.password_stdin {
        bail!("--username needs a password, in SANDCRAB_GIT_PASSWORD or with --password-stdin");
    }
    let plan = CheckoutPlan {
        session: checkout.session.as_deref().map(str::parse).transpose()?,
        url: checkout.repository,
        directory: checkout.directory,
        branch: checkout.branch,
        depth: checkout.depth,
        filter: checkout.filter,
        timeout: timeout(checkout.timeout.as_deref())?,
        username: checkout.username,
        password,
        password_stdin: checkout.password_stdin,
    };
    Ok(Action::Checkout { sandbox: checkout.sandbox.parse()?, plan })
}

fn start_action(start: StartArgs) -> Result<Action> {
    let plan = StartPlan {
        session: start.session.parse()?,
        id: start.id.map(|id| id.parse()).transpose()?,
        restart: start.restart,
        interactive: start.interactive,
        wait_port: start.wait_port,
        wait_log: start.wait_log.map(|pattern| Regex::new(&pattern).context("--wait-log")).transpose()?,
        wait_timeout: time("--wait-timeout", start.wait_timeout.as_deref())?,
        command: command(start.options, &start.command)?,
    };
    Ok(Action::Start { sandbox: start.sandbox.parse()?, start: Box::new(plan) })
}

fn kill_action(kill: &KillArgs) -> Result<Action> {
    let sandbox = kill.sandbox.parse()?;
    if kill.all {
        return Ok(Action::KillAll { sandbox });
    }
    let processes = kill.processes.iter().map(|id| Ok(id.parse()?)).collect::<Result<_>>()?;
    Ok(Action::Kill { sandbox, processes, signal: kill.signal.clone() })
}

fn run_code_action(args: RunCodeArgs) -> Result<Action> {
    let context = args.context.as_deref().map(ContextId::parse).transpose()?;
    let language = args.language.as_deref().or(language_of(&args.file)).map(code_language).transpose()?;
    Ok(Action::RunCode {
        sandbox: args.sandbox.parse()?,
        code: CodePlan {
            source: if args.file.as_os_str() == "-" { Local::Pipe } else { Local::Path(args.file) },
            // A context knows its language.
            language: language.filter(|_| context.is_none() || args.language.is_some()),
            session: args.session.as_deref().map(SessionId::parse).transpose()?,
            context,
            env: variables(args.env)?,
            timeout: timeout(args.timeout.as_deref())?,
        },
    })
}

pub(crate) fn code_language(name: &str) -> Result<CodeLanguage> {
    match name {
        "python" | "python3" | "py" => Ok(CodeLanguage::Python),
        "javascript" | "js" | "node" => Ok(CodeLanguage::Javascript),
        "typescript" | "ts" => Ok(CodeLanguage::Typescript),
        other => bail!("--language {other:?} is none of python, javascript and typescript"),
    }
}

/// What a file's name says of its language.
fn language_of(file: &std::path::Path) -> Option<&'static str> {
    match file.extension()?.to_str()? {
        "py" => Some("python"),
        "js" | "mjs" | "cjs" => Some("javascript"),
        "ts" | "mts" | "cts" => Some("typescript"),
        _ => None,
    }
}

/// `--label NAME=VALUE`, in any number.
fn labels(given: &[String]) -> Result<Vec<(String, String)>> {
    let labels = given.iter().map(|label| {
        let (name, value) =
            label.split_once('=').with_context(|| format!("--label {label:?} is not NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    labels.collect()
}

fn ls_action(ls: LsArgs) -> Result<Action> {
    let Some(place) = ls.place else {
        return Ok(Action::ListSandboxes { labels: labels(&ls.label)? });
    };
    let place = match Place::parse(&place)? {
        Some(place) => place,
        None => Place { sandbox: place.parse()?, path: ".".to_owned() },
    };
    Ok(Action::ListFiles { place, all: ls.all, recursive: ls.recursive })
}

pub(crate) fn timeout(text: Option<&str>) -> Result<Option<Duration>> {
    let timeout = time("--timeout", text)?;
    if timeout == Some(Duration::ZERO) {
        bail!("--timeout must be more than 0");
    }
    Ok(timeout)
}

/// `NAME=VALUE`, or `NAME` for a variable of this process.
pub(crate) fn variables(entries: Vec<String>) -> Result<Vec<(String, String)>> {
    let mut env = Vec::new();
    for entry in entries {
        let (name, value) = match entry.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let value =
                    std::env::var(&entry).with_context(|| format!("--env {entry}: take it from here"))?;
                (entry, value)
            }
        };
        env.push((name, value));
    }
    Ok(env)
}

fn command(options: CommandOptions, words: &[String]) -> Result<CommandPlan> {
    let (env, timeout) = (variables(options.env)?, timeout(options.timeout.as_deref())?);
    Ok(CommandPlan { text: quote::command(words), env, cwd: options.cwd, timeout, interactive: false })
}

fn time(option: &'static str, text: Option<&str>) -> Result<Option<Duration>> {
    text.map(|text| Ok(text.parse::<IdleTime>().context(option)?.0)).transpose()
}

fn size(option: &'static str, text: Option<&str>) -> Result<Option<ByteSize>> {
    text.map(|text| text.parse().context(option)).transpose()
}

impl Place {
    /// `SANDBOX:PATH`; `None` where there is no colon, or a path before it. An id may hold a colon itself: then the path
    /// must be absolute.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let split = text.find(":/").or_else(|| text.find(':'));
        let Some(colon) = split.filter(|&colon| colon > 0 && !text[..colon].contains('/')) else {
            return Ok(None);
        };
        let path = match &text[colon + 1..] {
            "" => ".",
            path => path,
        };
        Ok(Some(Self { sandbox: text[..colon].parse()?, path: path.to_owned() }))
    }
}

fn copy(cp: &CpArgs) -> Result<Copy> {
    let local = |text: &str| match text {
        "-" => Local::Pipe,
        path => Local::Path(path.into()),
    };
    match (Place::parse(&cp.source)?, Place::parse(&cp.destination)?) {
        (None, Some(to)) => Ok(Copy::In { from: local(&cp.source), to }),
        (Some(from), None) => Ok(Copy::Out { from, to: local(&cp.destination), force: cp.force }),
        (None, None) => bail!("neither side is in a sandbox: write it as SANDBOX:/path"),
        (Some(_), Some(_)) => {
            bail!("both sides are in a sandbox: copy through this machine, or write a local path as ./NAME")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn plan(words: &[&str]) -> Result<Plan> {
        Plan::new(Args::try_parse_from([&["sandcrab"], words].concat())?)
    }

    #[test]
    fn places_are_told_from_local_paths() {
        let place = |sandbox: &str, path: &str| {
            Some(Place { sandbox: sandbox.parse().unwrap(), path: path.to_owned() })
        };
        for (text, expected) in [
            ("box:/a/b", place("box", "/a/b")),
            ("box:rel/x:y", place("box", "rel/x:y")),
            ("box:", place("box", ".")),
            ("a:b:/etc", place("a:b", "/etc")),
            ("./box:/a", None),
            ("/tmp/a:b", None),
            ("file", None),
            (":/x", None),
        ] {
            assert_eq!(Place::parse(text).unwrap(), expected, "{text}");
        }
        assert!(Place::parse("ro ot:/x").is_err());
    }

    fn action(words: &[&str]) -> Action {
        match plan(words).unwrap() {
            Plan::Ask { action, .. } => action,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_takes_all_words_after_it_begins() {
        let words = ["exec", "-s", "two", "-e", "A=1=2", "box", "ls", "--json", "-la", "$X"];
        let Action::Exec { command, session, .. } = action(&words) else { panic!("no exec") };
        assert_eq!(session.as_str(), "two");
        assert_eq!(command.text, "ls --json -la '$X'");
        assert_eq!(command.env, [("A".to_owned(), "1=2".to_owned())]);

        let words = ["run", "--memory", "64m", "--timeout", "1.5s", "--json", "--", "-x"];
        assert!(Args::parse_from([&["sandcrab"], &words[..]].concat()).json);
        let Action::Run { options, command, .. } = action(&words) else { panic!("no run") };
        assert_eq!(options.limits.unwrap().memory, Some(ByteSize(64 << 20)));
        assert_eq!((command.text.as_str(), command.timeout), ("-x", Some(Duration::from_millis(1500))));
    }

    #[test]
    fn x02_what_makes_no_sense_is_named() {
        for (words, part) in [
            (&["exec", "-s", "a/b", "box", "true"][..], "session id"),
            (&["exec", "root", "true"], "reserved"),
            (&["run", "--memory", "lots", "true"], "--memory"),
            (&["run", "--network", "bridge", "true"], "neither loopback nor host"),
            (&["run", "--isolation", "gdb=on", "true"], "none of debugging"),
            (&["run", "--isolation", "ping", "true"], "ping=on or ping=off"),
            (&["run", "--allow-missing", "walls", "true"], "--allow-missing"),
            (&["run", "--timeout", "soon", "true"], "--timeout"),
            (&["run", "--timeout", "0", "true"], "more than 0"),
            (&["checkout", "--timeout", "0", "box", "https://h/r"], "more than 0"),
            (&["checkout", "--username", "me", "box", "https://h/r"], "SANDCRAB_GIT_PASSWORD"),
            (&["run", "--env", "SANDCRAB_TEST_NOT_SET", "true"], "SANDCRAB_TEST_NOT_SET"),
            (&["cp", "a", "b"], "neither side"),
            (&["cp", "x:/a", "y:/b"], "both sides"),
            (&["start", "--wait-log", "(", "box", "true"], "--wait-log"),
            (&["start", "--id", "a/b", "box", "true"], "process id"),
            (&["session", "create", "--timeout", "0", "box"], "more than 0"),
            (&["session", "rm", "box", "a/b"], "session id"),
            (&["context", "create", "-l", "ruby", "box"], "ruby"),
            (&["env", "box"], "required"),
            (&["kill", "box"], "required"),
            (&["ls", "--label", "x"], "NAME=VALUE"),
            (&["rm"], "required"),
        ] {
            let error = format!("{:#}", plan(words).unwrap_err());
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }
}
