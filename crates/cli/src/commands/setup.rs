//! `sandcrab session`, `sandcrab env` and `sandcrab context`

use super::list::word;
use super::{Done, existing, handle};
use crate::report::{Report, table};
use crate::setup::{Change, Setup};
use anyhow::Result;
use sandcrab_client::Client;
use sandcrab_client::api::code::CodeContext;
use serde_json::json;

pub(crate) async fn run(client: &Client, setup: Setup, report: Report) -> Result<u8> {
    let Setup { sandbox: id, change } = setup;
    match change {
        Change::CreateSession(wish) => {
            let session = handle(client, &id)?.create_session(&wish).await?;
            report.result(&session.info().await?, |session| session.id.to_string())?;
        }
        Change::Env { session, env } => {
            let sandbox = handle(client, &id)?;
            let names: Vec<_> = env.keys().cloned().collect();
            match &session {
                Some(session) => sandbox.session(session.as_str())?.change_env(env).await?,
                None => sandbox.change_env(env).await?,
            }
            report.result(&json!({ "success": true, "changed": names }), |_done| String::new())?;
        }
        Change::CreateContext(wish) => {
            let context = handle(client, &id)?.create_code_context(&wish).await?;
            report.result(&context, |context| context.id.to_string())?;
        }
        Change::ListContexts => {
            let contexts = existing(client, &id).await?.code_contexts().await?;
            let heading = ["CONTEXT", "LANGUAGE", "DIRECTORY", "LAST USED"];
            report.result(&contexts, |contexts| table(heading, contexts.iter().map(row)))?;
        }
        Change::RemoveSessions(sessions) => {
            let sandbox = existing(client, &id).await?;
            let mut done = Done::default();
            for session in sessions {
                let deleted = sandbox.session(session.as_str())?.delete().await;
                done.tell(deleted, |deleted| deleted.session_id.to_string(), report)?;
            }
            return Ok(done.code);
        }
        Change::RemoveContexts(contexts) => {
            let sandbox = existing(client, &id).await?;
            let mut done = Done::default();
            for context in contexts {
                let deleted = sandbox.delete_code_context(&context).await;
                done.tell(deleted, |deleted| deleted.context_id.to_string(), report)?;
            }
            return Ok(done.code);
        }
    }
    Ok(0)
}

fn row(context: &CodeContext) -> [String; 4] {
    let CodeContext { id, language, cwd, last_used, .. } = context;
    [id.to_string(), word(language), cwd.clone(), last_used.to_string()]
}
