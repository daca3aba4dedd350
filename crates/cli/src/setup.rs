//! `session`, `env` and `context`: what was typed, and what it means.

use crate::plan::{code_language, timeout, variables};
use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use sandcrab_client::api::code::CreateCodeContext;
use sandcrab_client::api::session::{CreateSession, EnvChanges};
use sandcrab_client::api::{ContextId, SandboxId, SessionId};
use std::time::Duration;

#[derive(Debug, ClapArgs)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// Make a session: prints its id
    Create(CreateSessionArgs),
    /// End sessions and free their ids
    Rm(RemoveSessionsArgs),
}

/// How what is made begins.
#[derive(Debug, ClapArgs)]
struct Beginning {
    /// Set a variable in it; without =VALUE it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Begin in this directory, which is made if it is missing
    #[arg(short = 'w', long, value_name = "DIR")]
    cwd: Option<String>,
    /// The timeout of whatever names none itself: 30s, 5m, 1h, or seconds
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
}

#[derive(Debug, ClapArgs)]
struct CreateSessionArgs {
    /// A label for people
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    beginning: Beginning,
    /// The sandbox; created if it does not exist
    sandbox: String,
    /// The session; an id is made up if it is missing
    id: Option<String>,
}

#[derive(Debug, ClapArgs)]
struct RemoveSessionsArgs {
    /// The sandbox
    sandbox: String,
    /// The sessions
    #[arg(required = true)]
    sessions: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
What is set for the sandbox holds in every session from its next command and in every process started later; a session's
own value wins.")]
pub(crate) struct EnvArgs {
    /// This session alone
    #[arg(short, long)]
    session: Option<String>,
    /// Unset a variable
    #[arg(short, long, value_name = "NAME")]
    unset: Vec<String>,
    /// The sandbox; created if it does not exist
    sandbox: String,
    /// Variables to set; without =VALUE one is taken from here
    #[arg(value_name = "NAME[=VALUE]", required_unless_present = "unset")]
    set: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// Make a context for `run-code -c`: prints its id
    Create(CreateContextArgs),
    /// List a sandbox's code contexts, also those that runs without one have made
    Ls(ListContextsArgs),
    /// End contexts with all that their code has started
    Rm(RemoveContextsArgs),
}

#[derive(Debug, ClapArgs)]
struct CreateContextArgs {
    /// python, javascript or typescript
    #[arg(short, long, default_value = "python")]
    language: String,
    /// The session whose variables and directory it begins with [default: none, the sandbox's]
    #[arg(short, long)]
    session: Option<String>,
    #[command(flatten)]
    beginning: Beginning,
    /// The sandbox; created if it does not exist
    sandbox: String,
}

#[derive(Debug, ClapArgs)]
struct ListContextsArgs {
    /// The sandbox
    sandbox: String,
}

#[derive(Debug, ClapArgs)]
struct RemoveContextsArgs {
    /// The sandbox
    sandbox: String,
    /// The contexts
    #[arg(required = true)]
    contexts: Vec<String>,
}

/// What to do with what lasts in a sandbox.
#[derive(Debug)]
pub(crate) struct Setup {
    pub sandbox: SandboxId,
    pub change: Change,
}

#[derive(Debug)]
pub(crate) enum Change {
    CreateSession(CreateSession),
    RemoveSessions(Vec<SessionId>),
    Env { session: Option<SessionId>, env: EnvChanges },
    CreateContext(CreateCodeContext),
    ListContexts,
    RemoveContexts(Vec<ContextId>),
}

impl Setup {
    pub(crate) fn session(args: SessionArgs) -> Result<Self> {
        let (sandbox, change) = match args.command {
            SessionCommand::Create(args) => {
                let create = CreateSession {
                    id: args.id.as_deref().map(SessionId::parse).transpose()?,
                    name: args.name,
                    command_timeout_ms: args.beginning.timeout_ms()?,
                    env: set(args.beginning.env)?,
                    cwd: args.beginning.cwd,
                };
                (args.sandbox, Change::CreateSession(create))
            }
            SessionCommand::Rm(args) => {
                let sessions = args.sessions.iter().map(|id| Ok(SessionId::parse(id)?));
                (args.sandbox, Change::RemoveSessions(sessions.collect::<Result<_>>()?))
            }
        };
        Ok(Self { sandbox: sandbox.parse()?, change })
    }

    pub(crate) fn env(args: EnvArgs) -> Result<Self> {
        let mut env = set(args.set)?;
        env.extend(args.unset.into_iter().map(|name| (name, None)));
        let session = args.session.as_deref().map(SessionId::parse).transpose()?;
        Ok(Self { sandbox: args.sandbox.parse()?, change: Change::Env { session, env } })
    }

    pub(crate) fn context(args: ContextArgs) -> Result<Self> {
        let (sandbox, change) = match args.command {
            ContextCommand::Create(args) => {
                let create = CreateCodeContext {
                    language: code_language(&args.language)?,
                    session_id: args.session.as_deref().map(SessionId::parse).transpose()?,
                    timeout: args.beginning.timeout_ms()?,
                    env_vars: set(args.beginning.env)?,
                    cwd: args.beginning.cwd,
                };
                (args.sandbox, Change::CreateContext(create))
            }
            ContextCommand::Ls(args) => (args.sandbox, Change::ListContexts),
            ContextCommand::Rm(args) => {
                let contexts = args.contexts.iter().map(|id| Ok(ContextId::parse(id)?));
                (args.sandbox, Change::RemoveContexts(contexts.collect::<Result<_>>()?))
            }
        };
        Ok(Self { sandbox: sandbox.parse()?, change })
    }
}

impl Beginning {
    fn timeout_ms(&self) -> Result<Option<u64>> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        Ok(timeout(self.timeout.as_deref())?.map(milliseconds))
    }
}

fn set(entries: Vec<String>) -> Result<EnvChanges> {
    Ok(variables(entries)?.into_iter().map(|(name, value)| (name, Some(value))).collect())
}
