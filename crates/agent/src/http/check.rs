//! What is wrong with a request, said without a sandbox.
//!
//! A sandbox is made by its first use. The server looks through that request here before it makes one, so that bad
//! input changes nothing (contract X02); all later ones go to the agent at once, which finds the same.

use super::extract::{parse_json, parse_query, require_json};
use crate::processes::{KillQuery, parse_signal};
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sandcrab_api::files::{
    FileEncoding, ListFiles, Mkdir, MoveFile, PathRequest, ReadFile, UploadQuery, WriteFile,
};
use sandcrab_api::git::GitCheckout;
use sandcrab_api::process::KillProcess;

use sandcrab_api::{ApiError, validate};
use serde::de::DeserializeOwned;

type Checked = Result<(), ApiError>;

/// Checks the query or the JSON body of a request for an operation of [`super::document`]. What only a sandbox can
/// tell, such as whether a file exists, is not looked at.
///
/// # Errors
/// Those that the agent answers such a request with.
pub fn check(operation: &str, request: &Request<impl AsRef<[u8]>>) -> Checked {
    match operation {
        "createSession" => json(request, validate::create_session),
        "setEnvVars" | "setSessionEnv" => json(request, validate::set_env),
        "exec" | "execStream" => json(request, validate::exec),
        "startProcess" => json(request, validate::start_process),
        "waitForExit" => json(request, validate::wait_for_exit),
        "waitForLog" => json(request, validate::wait_for_log),
        "waitForPort" => json(request, validate::wait_for_port),
        "killProcess" => json(request, |wanted: &KillProcess| signal(wanted.signal.as_deref())),
        "killAllProcesses" => query(request, |wanted: &KillQuery| signal(wanted.signal.as_deref())),
        "createCodeContext" => json(request, validate::create_code_context),
        "runCode" | "runCodeStream" => json(request, validate::run_code),
        "gitCheckout" => json(request, |wanted: &GitCheckout| wanted.parse().map(drop)),
        "readFile" => json(request, |wanted: &ReadFile| validate::path("path", &wanted.path)),
        "writeFile" => json(request, write_file),
        "mkdir" => json(request, |wanted: &Mkdir| {
            validate::path("path", &wanted.path)?;
            validate::mode(wanted.mode)
        }),
        "renameFile" | "moveFile" => json(request, |wanted: &MoveFile| {
            validate::path("path", &wanted.path)?;
            validate::path("newPath", &wanted.new_path)
        }),
        "listFiles" => json(request, |wanted: &ListFiles| validate::path("path", &wanted.path)),
        "deleteFile" | "exists" => json(request, |wanted: &PathRequest| validate::path("path", &wanted.path)),
        "readFileContent" | "readFileStream" => {
            query(request, |wanted: &PathRequest| validate::path("path", &wanted.path))
        }
        "writeFileContent" => query(request, |wanted: &UploadQuery| {
            validate::path("path", &wanted.path)?;
            validate::mode(wanted.mode)
        }),
        // The rest says nothing, or something about one thing in a sandbox, which is not there yet.
        _ => Ok(()),
    }
}

fn json<T: DeserializeOwned>(request: &Request<impl AsRef<[u8]>>, rule: fn(&T) -> Checked) -> Checked {
    require_json(request.headers())?;
    rule(&parse_json(request.body().as_ref())?)
}

fn query<T: DeserializeOwned, B>(request: &Request<B>, rule: fn(&T) -> Checked) -> Checked {
    rule(&parse_query(request.uri())?)
}

fn signal(name: Option<&str>) -> Checked {
    parse_signal(name).map(drop)
}

fn write_file(wanted: &WriteFile) -> Checked {
    validate::path("path", &wanted.path)?;
    validate::mode(wanted.mode)?;
    match wanted.encoding {
        FileEncoding::Utf8 => Ok(()),
        FileEncoding::Base64 => BASE64.decode(&wanted.content).map(drop).map_err(|error| not_base64(&error)),
    }
}

/// The error of a file's content in base64 that is none.
pub(crate) fn not_base64(error: &base64::DecodeError) -> ApiError {
    ApiError::invalid("content", format!("is no base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header;

    fn request(uri: &str, body: &'static str) -> Request<&'static str> {
        Request::builder().uri(uri).header(header::CONTENT_TYPE, "application/json").body(body).unwrap()
    }

    /// Every operation that can be somebody's first and says anything is looked through.
    #[test]
    fn x02_no_operation_is_forgotten() {
        let document = serde_json::to_value(crate::http::document()).unwrap();
        let mut looked_at = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                if operation["requestBody"]["content"]["application/json"].is_object() {
                    check(id, &request("/", "[")).expect_err(id);
                    looked_at += 1;
                } else if !path.contains('{')
                    && let Some(parameters) = operation["parameters"].as_array()
                    && parameters.iter().any(|parameter| parameter["in"] == "query")
                {
                    check(id, &request("/?path=%ff&signal=%ff", "")).expect_err(id);
                    looked_at += 1;
                }
            }
        }
        assert!(looked_at > 20, "{looked_at}");
    }

    #[test]
    fn x02_rules_are_those_of_the_agent() {
        let bad = |operation: &str, uri: &str, body: &'static str| {
            let error = check(operation, &request(uri, body)).unwrap_err();
            assert_eq!(error.http_status, 400, "{error:?}");
            error.message
        };
        assert!(bad("exec", "/", r#"{"command":" "}"#).starts_with("command"));
        assert!(bad("mkdir", "/", r#"{"path":"/a","mode":4095}"#).starts_with("mode"));
        assert!(bad("moveFile", "/", r#"{"path":"/a","newPath":""}"#).starts_with("newPath"));
        assert!(
            bad("writeFile", "/", r#"{"path":"/a","content":"*","encoding":"base64"}"#)
                .starts_with("content")
        );
        assert!(bad("writeFileContent", "/?path=", "").starts_with("path"));
        assert!(bad("readFileContent", "/", "").contains("path"));
        assert!(bad("killAllProcesses", "/?signal=NOPE", "").starts_with("signal"));
        assert!(bad("gitCheckout", "/", r#"{"repoUrl":"--upload-pack=x"}"#).contains("repoUrl"));
        check("exec", &request("/", r#"{"command":"true"}"#)).unwrap();
        check("readFileContent", &request("/?path=/etc/hostname", "")).unwrap();
        check("listSessions", &request("/", "")).unwrap();
    }
}
