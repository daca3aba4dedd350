//! `sandcrab doctor`

use crate::report::{Report, name};
use anyhow::{Context as _, Result};
use sandcrab_client::default_data_dir;
use sandcrab_runtime::doctor::{self, Check, Status};
use std::path::PathBuf;

/// The exit code where a server would refuse to make sandboxes.
const MISSING: u8 = 1;

pub(crate) fn run(data_dir: Option<PathBuf>, report: Report) -> Result<u8> {
    let data_dir = data_dir
        .or_else(default_data_dir)
        .context("neither XDG_DATA_HOME nor HOME is set; use --data-dir")?;
    let checks = doctor::examine(&data_dir);
    report.result(&checks, |checks| checks.iter().map(lines).collect())?;
    let missing = checks.iter().any(|check| check.status == Status::Missing);
    Ok(if missing { MISSING } else { 0 })
}

fn lines(check: &Check) -> String {
    let word = match check.status {
        Status::Good => "ok",
        Status::Degraded => "weak",
        Status::Missing => "MISSING",
    };
    let mut text = format!("{word:8} {:18} {}\n", check.name, name(&check.detail));
    if !check.remedy.is_empty() {
        text += &format!("{:27} -> {}\n", "", name(&check.remedy));
    }
    text
}
