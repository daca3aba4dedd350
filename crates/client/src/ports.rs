//! Ports of a sandbox that can be reached from outside.

use crate::path::{Query, join};
use crate::sandbox::Target;
use crate::transport::Call;
use crate::{ClientError, Sandbox};
use http::Method;
use sandcrab_api::ports::{
    ExposePort, ExposedPort, ExposedPorts, PortTokenValidity, PortUnexposed, ValidatePortToken,
};
use sandcrab_api::ticket::{CreateTicket, Ticket};

/// How a port is exposed; everything may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExposeOptions {
    /// The domain of the URL, with its port where it is not the usual one. Default: the server's own.
    pub hostname: Option<String>,
    /// A label for people.
    pub name: Option<String>,
    /// 1-16 characters of `a-z 0-9 _`. Default: 16 random ones.
    pub token: Option<String>,
    /// A port that is exposed already keeps its URL, or gets a new one with another token. Default: it is an error.
    pub replace: bool,
}

impl Sandbox {
    /// Exposes a port: whoever knows the URL reaches what listens on it inside the sandbox.
    ///
    /// # Errors
    /// `PORT_ALREADY_EXPOSED`, `INVALID_PORT_NUMBER`, `INVALID_PORT` in the host's network, `CUSTOM_DOMAIN_REQUIRED`
    /// when nothing says which domain the URL is to have, `VALIDATION_FAILED` also for an id that no host name can hold.
    pub async fn expose_port(&self, port: u16, options: ExposeOptions) -> Result<ExposedPort, ClientError> {
        let ExposeOptions { hostname, name, token, replace } = options;
        let body = ExposePort { port: port.into(), hostname, name, token, replace };
        let call = Call::post("exposePort", self.target().path("/ports")).json(&body);
        self.target().json(&call).await
    }

    /// Takes a port back: its URL is dead at once, and what is under way over it is cut.
    ///
    /// # Errors
    /// `PORT_NOT_EXPOSED`.
    pub async fn unexpose_port(&self, port: u16) -> Result<PortUnexposed, ClientError> {
        let call = Call::new("unexposePort", Method::DELETE, port_path(self.target(), port));
        self.target().transport.json(&call).await
    }

    /// The exposed ports by number, with URLs of `hostname` or of the server's own domain. Does not create the sandbox.
    ///
    /// # Errors
    /// `CUSTOM_DOMAIN_REQUIRED` when nothing says which domain the URLs are to have.
    pub async fn exposed_ports(&self, hostname: Option<&str>) -> Result<Vec<ExposedPort>, ClientError> {
        let path = Query::new(self.target().path("/ports")).maybe("hostname", hostname).finish();
        let list: ExposedPorts = self.target().transport.json(&Call::get("listExposedPorts", path)).await?;
        Ok(list.ports)
    }

    /// Whether a port is exposed and has this token.
    ///
    /// # Errors
    /// As any call.
    pub async fn validate_port_token(&self, port: u16, token: &str) -> Result<bool, ClientError> {
        let path = format!("{}/validate", port_path(self.target(), port));
        let body = ValidatePortToken { token: token.to_owned() };
        let call = Call::post("validatePortToken", path).json(&body).repeatable();
        let answer: PortTokenValidity = self.target().transport.json(&call).await?;
        Ok(answer.valid)
    }

    /// A ticket with which some other program can open one WebSocket to a port, exposed or not, without a key: its path
    /// below the server's URL, with the ticket. `path` is what to ask the port for.
    ///
    /// # Errors
    /// As any call.
    pub async fn connect_path(&self, port: u16, path: &str) -> Result<String, ClientError> {
        let connect = format!("{}/connect", port_path(self.target(), port));
        let call = Call::post("createTicket", "/v1/tickets".to_owned());
        let call = call.json(&CreateTicket { path: connect.clone() });
        let ticket: Ticket = self.target().json(&call).await?;
        Ok(Query::new(connect).with("path", path).with("ticket", &ticket.ticket).finish())
    }
}

fn port_path(target: &Target, port: u16) -> String {
    join(&target.path("/ports"), &port.to_string())
}
