//! A file that grows past what one can hold in mind is seen here before it is regretted.

use crate::command::cmd;
use crate::workspace::Workspace;
use anyhow::{Result, bail};

/// From here a file is listed.
const LISTED: usize = 400;
/// From here a file needs a line that starts with [`REASON`].
const BOUND: usize = 800;
/// How such a line starts, after the comment's sign.
const REASON: &str = "Long because";

pub(crate) fn check(ws: &Workspace) -> Result<()> {
    let names =
        ["ls-files", "--cached", "--others", "--exclude-standard", "*.rs", "*.ts", "*.mjs", "*.c", "*.py"];
    let listing = cmd("git").args(names).dir(&ws.root).read()?;
    let mut long = Vec::new();
    for name in listing.lines().filter(|name| !name.contains("generated")) {
        // A file that git still lists but that is deleted in the work tree has no length.
        let Ok(text) = std::fs::read_to_string(ws.path(name)) else { continue };
        let lines = text.lines().count();
        if lines > LISTED {
            long.push((lines, name.to_owned(), text.contains(REASON)));
        }
    }
    long.sort_unstable_by(|a, b| b.cmp(a));
    for (lines, name, _) in &long {
        println!("{lines:>6}  {name}");
    }
    let faults: Vec<_> = long.iter().filter(|(lines, _, reason)| *lines > BOUND && !reason).collect();
    if faults.is_empty() {
        println!("{} files over {LISTED} lines, none over {BOUND} without a reason", long.len());
        return Ok(());
    }
    let names: Vec<_> = faults.iter().map(|(lines, name, _)| format!("{name} ({lines})")).collect();
    bail!("over {BOUND} lines and no \"{REASON} …\" in it: {}", names.join(", "))
}
