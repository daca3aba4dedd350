//! Everything that the command line says.
#![expect(clippy::print_stderr, reason = "the command line is the one place that speaks")]

use sandcrab_client::ClientError;
use sandcrab_client::api::ErrorCode;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write as _;

/// How results are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub json: bool,
}

impl Report {
    /// A result: as JSON, or as the lines that `text` makes of it.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        self.entry(value, text).map(drop)
    }

    /// One of many results that come by and by; whether anybody still reads them.
    pub(crate) fn entry<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<bool> {
        let mut output = match self.json {
            true => json_text(&serde_json::to_string(value)?) + "\n",
            false => visible(&text(value)).into_owned(),
        };
        if !output.is_empty() && !output.ends_with('\n') {
            output.push('\n');
        }
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush()) {
            // Whoever read this has read enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            outcome => Ok(outcome.map(|()| true)?),
        }
    }

    /// A remark for a person at the terminal.
    pub(crate) fn note(self, text: impl Display) {
        if !self.json {
            eprintln!("sandcrab: {}", visible(&text.to_string()));
        }
    }

    /// A failure, with what to do about it.
    pub(crate) fn failure(self, error: &anyhow::Error) {
        let client = error.downcast_ref::<ClientError>();
        if self.json {
            let json = match client {
                Some(ClientError::Api(error)) => serde_json::to_value(error).unwrap_or_default(),
                _ => {
                    serde_json::json!({ "message": chain(error), "suggestion": client.and_then(remedy) })
                }
            };
            eprintln!("{}", json_text(&json.to_string()));
            return;
        }
        eprintln!("sandcrab: {}", visible(&chain(error)));
        if let Some(remedy) = client.and_then(remedy) {
            eprintln!("{}", visible(&remedy));
        }
    }
}

/// An error with its causes. Some errors end with their cause's own words, which are then not said again.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What a person can do about a failure.
fn remedy(error: &ClientError) -> Option<Cow<'_, str>> {
    match error {
        ClientError::Api(error) if error.code == ErrorCode::Unauthorized => {
            Some("Put a key of this server into SANDCRAB_API_KEY.".into())
        }
        ClientError::Api(error) => error.suggestion.as_deref().map(Cow::Borrowed),
        ClientError::Connect { .. } => {
            Some("Start a server with `sandcrab serve`, or name one in SANDCRAB_URL or with --url.".into())
        }
        ClientError::StreamLost { exec_id, .. } => {
            Some(format!("The command {exec_id} may still run; look with `sandcrab ps`.").into())
        }
        _ => None,
    }
}

/// Text that cannot move a terminal's cursor or say what it does not say (attacks B11, B12): what came out of a sandbox
/// may stand in names and messages.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| drives(c) && !matches!(c, '\n' | '\t');
    if !text.contains(hidden) {
        return text.into();
    }
    text.chars()
        .flat_map(|c| if hidden(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] })
        .collect::<String>()
        .into()
}

/// Whether a terminal acts on a character: a control character, or a mark that reorders text. The rest of Unicode's
/// invisible characters change nothing but themselves.
fn drives(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON whose strings drive no terminal either: serde_json leaves all from U+007F on as it is. Outside of strings JSON
/// has no such characters.
fn json_text(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if drives(c) && !matches!(c, '\n' | '\t') {
            text += &format!("\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

/// A name on one line.
pub(crate) fn name(text: &str) -> String {
    visible(text).replace('\n', "\\n")
}

/// Rows under a heading, in columns as wide as they need.
pub(crate) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = std::iter::once(heading.map(str::to_owned))
        .chain(rows.into_iter().map(|row| row.map(|cell| name(&cell))))
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b11_nothing_printed_drives_the_terminal() {
        assert_eq!(visible("\u{1b}[2Jgone\u{7}"), "\\u{1b}[2Jgone\\u{7}");
        assert_eq!(visible("exe\u{202e}gpj"), "exe\\u{202e}gpj");
        assert_eq!(visible("two\nlines, ünï"), "two\nlines, ünï");
        assert_eq!(name("a\nb"), "a\\nb");
        let odd = "\u{1b}[2J\u{7f}\u{9b}2J\u{202e}\tü\n";
        let json = json_text(&serde_json::to_string(odd).unwrap());
        assert_eq!(json, r#""\u001b[2J\u007f\u009b2J\u202e\tü\n""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), odd);
    }

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("no such name").context("look it up: no such name").context("connect");
        assert_eq!(chain(&error), "connect: look it up: no such name");
    }

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let text =
            table(["ID", "STATUS"], [["a".into(), "running".into()], ["long-id".into(), String::new()]]);
        assert_eq!(text, "ID       STATUS\na        running\nlong-id\n");
    }
}
