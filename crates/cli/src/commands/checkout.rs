//! `sandcrab checkout`

use crate::attached;
use crate::interrupt::Interrupts;
use crate::plan::CheckoutPlan;
use crate::report::Report;
use anyhow::{Context as _, Result};
use sandcrab_client::Sandbox;
use std::io::Read as _;
use tokio::sync::watch;

/// Longer than any password or token that a host takes.
const LONGEST: u64 = 64 << 10;

pub(crate) async fn run(sandbox: &Sandbox, plan: CheckoutPlan, report: Report) -> Result<u8> {
    let mut checkout = match &plan.session {
        Some(session) => sandbox.session(session.as_str())?.git_checkout(plan.url),
        None => sandbox.git_checkout(plan.url),
    };
    if let Some(branch) = plan.branch {
        checkout = checkout.branch(branch);
    }
    if let Some(directory) = plan.directory {
        checkout = checkout.target_dir(directory);
    }
    if let Some(depth) = plan.depth {
        checkout = checkout.depth(depth);
    }
    if let Some(filter) = plan.filter {
        checkout = checkout.filter(filter);
    }
    if let Some(timeout) = plan.timeout {
        checkout = checkout.timeout(timeout);
    }
    let password = if plan.password_stdin { Some(password().await?) } else { plan.password };
    checkout = match (plan.username, password) {
        (Some(username), Some(password)) => checkout.auth(username, password),
        (None, Some(token)) => checkout.token(token),
        (_, None) => checkout,
    };
    let interrupts = Interrupts::listen()?;
    let id = checkout.id().clone();
    // From the moment it is sent the server may know it.
    let (_sent, is_open) = watch::channel(true);
    let work = async {
        let done = checkout.await?;
        report.result(&done, |done| done.target_dir.clone())?;
        Ok(0)
    };
    attached::attend(sandbox, &id, is_open, work, &interrupts, report).await
}

/// The first line of stdin.
async fn password() -> Result<String> {
    let read = || {
        let mut text = String::new();
        std::io::stdin().lock().take(LONGEST).read_to_string(&mut text).map(|_| text)
    };
    let text = tokio::task::spawn_blocking(read).await?.context("read the password from stdin")?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
