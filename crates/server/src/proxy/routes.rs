//! The table of routes that are passed on to agents, read from the agent's own API document: the document, the agent
//! and the server cannot differ. What is not in the table never reaches a sandbox.

use http::{Method, StatusCode};
use sandcrab_api::{ApiError, ContextId, ErrorCode, ExecId, ProcessId, RunId, SandboxId, SessionId};
use std::sync::Arc;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{OpenApi, RefOr};

/// One route of the agent.
#[derive(Debug)]
pub(crate) struct Route {
    method: Method,
    segments: Vec<Segment>,
    /// The operation's id in the document.
    pub(crate) operation: Arc<str>,
    /// Statuses that the document lists.
    statuses: Vec<u16>,
    /// Whether the answer may be as late as a command's end, or an upload's; else it is bounded.
    pub(crate) may_wait: bool,
    /// Whether the request has a JSON body, which is bounded.
    pub(crate) takes_json: bool,
    /// Whether it has query parameters. The agent refuses those that it does not know.
    pub(crate) takes_query: bool,
    /// What of a sandbox it is about: that is not there where there is no sandbox, so that it makes none.
    subject: Option<Parameter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter(Parameter),
}

/// What stands for `{…}` in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameter {
    Session,
    Exec,
    Process,
    Context,
    Run,
}

/// What a method and a path lead to.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A route, and the path to ask the agent for.
    Route(&'a Route, String),
    /// The path has other methods, which are listed as in the header `Allow`.
    WrongMethod(String),
    /// A route whose parameter breaks its rule.
    Invalid(&'a Route, ApiError),
    /// Nothing.
    Unknown,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Route>,
}

/// The agent's document has something that the table cannot express: a mistake that its tests find.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RoutesError {
    /// A parameter that the server has no rule for.
    #[error("path {path}: no rule is known for parameter {{{name}}}")]
    Parameter {
        /// The path in the document.
        path: String,
        /// The parameter.
        name: String,
    },
    /// A status that is no number.
    #[error("path {path}: {status:?} is not an HTTP status")]
    Status {
        /// The path in the document.
        path: String,
        /// What stands there.
        status: String,
    },
    /// An operation without an id.
    #[error("path {path}: an operation has no operation_id")]
    NoOperationId {
        /// The path in the document.
        path: String,
    },
}

impl Route {
    /// The error of a request about a thing in a sandbox that does not exist; none where the request makes its sandbox.
    pub(crate) fn without_sandbox(&self, id: &SandboxId) -> Option<ApiError> {
        let (code, what) = match self.subject? {
            Parameter::Session => (ErrorCode::SessionNotFound, "session"),
            Parameter::Exec => (ErrorCode::ExecNotFound, "command"),
            Parameter::Process => (ErrorCode::ProcessNotFound, "process"),
            Parameter::Context => (ErrorCode::ContextNotFound, "code context"),
            Parameter::Run => (ErrorCode::ExecNotFound, "run"),
        };
        let message = format!("there is no such {what}: sandbox {id} does not exist");
        Some(ApiError::new(code, message).with("sandboxId", id.as_str()))
    }

    /// Whether the agent may answer this.
    pub(crate) fn allows(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status.as_u16())
    }
}

impl Routes {
    /// Reads the table from the agent's document.
    pub(crate) fn from_document(document: &OpenApi) -> Result<Self, RoutesError> {
        let mut routes = Vec::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in operations(item) {
                routes.push(route(path, method, operation)?);
            }
        }
        Ok(Self { routes })
    }

    /// The route of a request. `path` is what follows `/v1/sandboxes/{id}`, as it came, beginning with a slash.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let mut others = Vec::new();
        for route in &self.routes {
            if !fits(&route.segments, path) {
                continue;
            }
            if route.method != *method {
                others.push(route.method.as_str());
                continue;
            }
            return match canonical(&route.segments, path) {
                Ok(path) => Found::Route(route, path),
                Err(error) => Found::Invalid(route, error),
            };
        }
        if others.is_empty() { Found::Unknown } else { Found::WrongMethod(others.join(", ")) }
    }
}

/// The operations of one path. `QUERY`, `TRACE` and the like are no methods of this API.
pub(crate) fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn route(path: &str, method: Method, operation: &Operation) -> Result<Route, RoutesError> {
    let segments =
        path.split('/').skip(1).map(|segment| parse_segment(path, segment)).collect::<Result<Vec<_>, _>>()?;
    let statuses = operation.responses.responses.keys().map(|status| {
        status.parse().map_err(|_| RoutesError::Status { path: path.to_owned(), status: status.clone() })
    });
    let media = |name: &str| match &operation.request_body {
        Some(RefOr::T(body)) => body.content.contains_key(name),
        _ => false,
    };
    let id = operation.operation_id.clone();
    // A session's variables may be set before its first command makes it.
    let makes = id.as_deref() == Some("setSessionEnv");
    let subject = segments.iter().rev().find_map(|segment| match segment {
        Segment::Parameter(parameter) if !makes => Some(*parameter),
        _ => None,
    });
    let parameters = operation.parameters.iter().flatten();
    Ok(Route {
        takes_query: parameters.into_iter().any(
            |parameter| matches!(parameter, RefOr::T(it) if matches!(it.parameter_in, ParameterIn::Query)),
        ),
        subject,
        // Everything about a command, a process or a run of code may be as late as its end, and so may a checkout, which is one.
        may_wait: path == "/exec"
            || path == "/git/checkout"
            || path.starts_with("/processes/")
            || path.starts_with("/exec/")
            || path.starts_with("/execs/")
            || path.starts_with("/code/run")
            || media("application/octet-stream"),
        takes_json: media("application/json"),
        statuses: statuses.collect::<Result<_, _>>()?,
        operation: id.ok_or_else(|| RoutesError::NoOperationId { path: path.to_owned() })?.into(),
        method,
        segments,
    })
}

fn parse_segment(path: &str, segment: &str) -> Result<Segment, RoutesError> {
    let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return Ok(Segment::Literal(segment.to_owned()));
    };
    match name {
        "sessionId" => Ok(Segment::Parameter(Parameter::Session)),
        "execId" => Ok(Segment::Parameter(Parameter::Exec)),
        "processId" => Ok(Segment::Parameter(Parameter::Process)),
        "contextId" => Ok(Segment::Parameter(Parameter::Context)),
        "runId" => Ok(Segment::Parameter(Parameter::Run)),
        _ => Err(RoutesError::Parameter { path: path.to_owned(), name: name.to_owned() }),
    }
}

/// Literal segments are compared as they came: an encoded letter of one is another path.
fn fits(segments: &[Segment], path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    segments.iter().all(|segment| match (segment, parts.next()) {
        (Segment::Literal(text), Some(part)) => text == part,
        (Segment::Parameter(_), Some(part)) => !part.is_empty(),
        (_, None) => false,
    }) && parts.next().is_none()
}

/// The path with each parameter decoded once, held to its rule and encoded again in one form.
fn canonical(segments: &[Segment], path: &str) -> Result<String, ApiError> {
    let mut whole = String::with_capacity(path.len() + 8);
    for (segment, part) in segments.iter().zip(path.split('/').skip(1)) {
        whole.push('/');
        match segment {
            Segment::Literal(text) => whole.push_str(text),
            Segment::Parameter(parameter) => encode(&parameter.check(part)?, &mut whole),
        }
    }
    Ok(whole)
}

impl Parameter {
    fn check(self, part: &str) -> Result<String, ApiError> {
        let name = match self {
            Self::Session => "sessionId",
            Self::Exec => "execId",
            Self::Process => "processId",
            Self::Context => "contextId",
            Self::Run => "runId",
        };
        let text = decode(part).ok_or_else(|| ApiError::invalid(name, "is not percent-encoded UTF-8"))?;
        let checked = match self {
            Self::Session => SessionId::parse(&text).map(|_| ()),
            Self::Exec => ExecId::parse(&text).map(|_| ()),
            Self::Process => ProcessId::parse(&text).map(|_| ()),
            Self::Context => ContextId::parse(&text).map(|_| ()),
            Self::Run => RunId::parse(&text).map(|_| ()),
        };
        checked.map_err(|error| ApiError::invalid(name, error.to_string()))?;
        Ok(text)
    }
}

/// Percent-decoding; none if an escape is broken or the bytes are no UTF-8.
pub(crate) fn decode(part: &str) -> Option<String> {
    if !part.contains('%') {
        return Some(part.to_owned());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match (*first, tail) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                hex(*high)? << 4 | hex(*low)?
            }
            (b'%', _) => return None,
            (byte, _) => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn encode(text: &str, out: &mut String) {
    use std::fmt::Write;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ok = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(paths: &serde_json::Value) -> OpenApi {
        serde_json::from_value(serde_json::json!({
            "openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths
        }))
        .unwrap()
    }

    fn table() -> Routes {
        let operation =
            |id: &str| serde_json::json!({"operationId": id, "responses": {"200": {"description": "x"}}});
        Routes::from_document(&document(&serde_json::json!({
            "/exec": {"post": operation("exec")},
            "/sessions": {"get": operation("list"), "post": operation("create")},
            "/sessions/{sessionId}": {"get": operation("get")},
            "/sessions/{sessionId}/env": {"patch": operation("env")},
            "/execs/{execId}": {"get": operation("describe")},
        })))
        .unwrap()
    }

    #[test]
    fn b02_only_what_is_in_the_table_is_found_and_in_one_form() {
        let table = table();
        for (path, canonical) in [
            ("/exec", "/exec"),
            ("/sessions/a%20b", "/sessions/a%20b"),
            ("/sessions/%61b", "/sessions/ab"),
            ("/sessions/%C3%BC/env", "/sessions/%C3%BC/env"),
            ("/sessions/env", "/sessions/env"),
        ] {
            let method = if path == "/exec" {
                Method::POST
            } else if path.ends_with("/env") && path.len() > 13 {
                Method::PATCH
            } else {
                Method::GET
            };
            match table.find(&method, path) {
                Found::Route(_, forwarded) => assert_eq!(forwarded, canonical, "{path}"),
                other => panic!("{path}: {other:?}"),
            }
        }
        for path in [
            "/",
            "",
            "/exec/",
            "//exec",
            "/ex%65c",
            "/agent",
            "/sessions//env",
            "/exec/../agent",
            "/sessions/a/b/c",
        ] {
            assert!(matches!(table.find(&Method::POST, path), Found::Unknown), "{path}");
        }
        for path in [
            "/sessions/..",
            "/sessions/%2e%2e",
            "/sessions/a%2Fb",
            "/sessions/%2",
            "/sessions/%ff",
            "/sessions/a%00",
            "/execs/a%20b",
        ] {
            assert!(matches!(table.find(&Method::GET, path), Found::Invalid(..)), "{path}");
        }
        assert!(
            matches!(table.find(&Method::DELETE, "/sessions"), Found::WrongMethod(allow) if allow == "GET, POST")
        );
    }

    #[test]
    fn a_document_that_the_table_cannot_express_is_refused() {
        let unknown =
            document(&serde_json::json!({"/a/{thing}": {"get": {"operationId": "x", "responses": {}}}}));
        assert!(matches!(Routes::from_document(&unknown), Err(RoutesError::Parameter { .. })));
        let range = document(
            &serde_json::json!({"/a": {"get": {"operationId": "x", "responses": {"4XX": {"description": "x"}}}}}),
        );
        assert!(matches!(Routes::from_document(&range), Err(RoutesError::Status { .. })));
        let nameless = document(&serde_json::json!({"/a": {"get": {"responses": {}}}}));
        assert!(matches!(Routes::from_document(&nameless), Err(RoutesError::NoOperationId { .. })));
    }
}
