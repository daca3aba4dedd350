//! `sandcrab file`

use super::{Done, existing, handle};
use crate::file::FilePlan;
use crate::report::Report;
use anyhow::Result;
use sandcrab_client::api::files::FileChanged;
use sandcrab_client::{Client, MkdirOptions};
use serde_json::json;

pub(crate) async fn run(client: &Client, plan: FilePlan, report: Report) -> Result<u8> {
    match plan {
        FilePlan::Mkdir { places, parents } => {
            let mut done = Done::default();
            let options = MkdirOptions { recursive: parents, mode: None };
            for place in places {
                let made = handle(client, &place.sandbox)?.files().mkdir(&place.path, options).await;
                done.tell(made, path, report)?;
            }
            return Ok(done.code);
        }
        FilePlan::Remove { places } => {
            let mut done = Done::default();
            for place in places {
                let deleted = existing(client, &place.sandbox).await?.files().delete(&place.path).await;
                done.tell(deleted, path, report)?;
            }
            return Ok(done.code);
        }
        FilePlan::Move { from, to } => {
            let moved = existing(client, &from.sandbox).await?.files().move_to(&from.path, &to).await?;
            report.result(&moved, path)?;
        }
        FilePlan::Rename { from, to } => {
            let renamed = existing(client, &from.sandbox).await?.files().rename(&from.path, &to).await?;
            report.result(&renamed, path)?;
        }
        FilePlan::Exists { place } => {
            let exists = existing(client, &place.sandbox).await?.files().exists(&place.path).await?;
            report.result(&json!({ "path": place.path, "exists": exists }), |_| exists.to_string())?;
            return Ok(u8::from(!exists));
        }
    }
    Ok(0)
}

/// Where it is now.
fn path(changed: &FileChanged) -> String {
    changed.new_path.as_ref().unwrap_or(&changed.path).clone()
}
