//! `sandcrab expose`, `unexpose` and `ports`

use crate::commands::list::word;
use crate::report::{Report, name, table};
use anyhow::Result;
use sandcrab_client::api::ports::ExposedPort;
use sandcrab_client::{ExposeOptions, Sandbox};

pub(crate) async fn expose(
    sandbox: &Sandbox,
    port: u16,
    options: ExposeOptions,
    report: Report,
) -> Result<()> {
    let exposed = sandbox.expose_port(port, options).await?;
    report.result(&exposed, |exposed| name(&exposed.url))
}

pub(crate) async fn unexpose(sandbox: &Sandbox, port: u16, report: Report) -> Result<()> {
    let done = sandbox.unexpose_port(port).await?;
    report.result(&done, |done| done.port.to_string())
}

pub(crate) async fn list(sandbox: &Sandbox, hostname: Option<&str>, report: Report) -> Result<()> {
    let ports = sandbox.exposed_ports(hostname).await?;
    report.result(&ports, |ports| table(["PORT", "STATUS", "NAME", "URL"], ports.iter().map(row)))
}

fn row(port: &ExposedPort) -> [String; 4] {
    let name = port.name.clone().unwrap_or_else(|| "-".to_owned());
    [port.port.to_string(), word(&port.status), name, port.url.clone()]
}
