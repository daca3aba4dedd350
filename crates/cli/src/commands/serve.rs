//! `sandcrab serve`

use crate::report::Report;
use anyhow::{Context as _, Result};
use sandcrab_server::{ServeOptions, Started};
use serde_json::json;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// What is logged, and of what.
#[derive(Debug)]
pub(crate) struct Logging {
    /// As `info` or `info,sandcrab_server=debug`.
    pub filter: String,
    /// Whether the key stands in the list of processes, which is worth a warning.
    pub key_in_arguments: bool,
}

/// Serves until SIGTERM or SIGINT. Makes a runtime of its own.
pub(crate) fn run(options: ServeOptions, logging: &Logging, report: Report) -> Result<()> {
    log(logging, report)?;
    if logging.key_in_arguments {
        tracing::warn!(
            "every user of this machine can read a key given by --api-key: use --api-key-file or SANDCRAB_API_KEY"
        );
    }
    let mut told = Ok(());
    sandcrab_server::serve(options.resolve()?, |started| told = announce(started, report))?;
    told
}

fn log(logging: &Logging, report: Report) -> Result<()> {
    let filter =
        EnvFilter::try_new(&logging.filter).with_context(|| format!("--log {:?}", logging.filter))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match report.json {
        true => log.json().init(),
        false => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}

fn announce(started: &Started, report: Report) -> Result<()> {
    let url = format!("http://{}", started.address);
    let json = json!({
        "url": url,
        "tlsAddress": started.tls_address,
        "dataDir": started.data_dir,
        "apiKey": started.new_key,
        "apiKeyFile": started.key_file,
    });
    if started.open_to_all {
        report.note("everyone who reaches this address may do everything: --no-auth asks for no key");
    }
    report.result(&json, |_| {
        let mut text = format!("sandcrab listens on {url}\n");
        if let Some(address) = started.tls_address {
            text += &format!("and, encrypted, on {address}\n");
        }
        if let (Some(key), Some(file)) = (&started.new_key, &started.key_file) {
            let dir = &started.data_dir;
            let how = match sandcrab_client::default_data_dir().is_some_and(|usual| usual == *dir) {
                true => String::new(),
                false => format!(" with SANDCRAB_DATA_DIR={}", dir.display()),
            };
            text += &format!(
                "its key is {key}\n(shown this once; commands of this user find it in {}{how}, others need SANDCRAB_API_KEY)\n",
                file.display()
            );
        }
        text
    })
}
