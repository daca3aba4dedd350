//! The rules that types cannot express, in one place for every side (contract X02: bad input names its field).

use crate::code::{CreateCodeContext, RunCodeRequest};
use crate::error::{ApiError, ErrorCode};
use crate::exec::ExecRequest;
use crate::limits;
use crate::process::{Restart, StartProcess, StatusRange, WaitForExit, WaitForLog, WaitForPort};
use crate::sandbox::{CreateSandbox, Limits};
use crate::session::{CreateSession, EnvChanges, SetEnv};

type Checked = Result<(), ApiError>;

/// A path as the kernel could open it: not empty, no NUL, no component and no whole that is too long.
pub fn path(field: &str, path: &str) -> Checked {
    if path.is_empty() {
        return Err(ApiError::invalid(field, "must not be empty").with("path", path));
    }
    if path.contains('\0') {
        return Err(ApiError::invalid(field, "must not hold NUL"));
    }
    if path.len() >= limits::MAX_PATH_BYTES || path.split('/').any(|name| name.len() > limits::MAX_NAME_BYTES)
    {
        let start: String = path.chars().take(80).collect();
        return Err(ApiError::new(
            ErrorCode::NameTooLong,
            format!("{field}: {start}… is longer than a path can be"),
        )
        .with("path", start));
    }
    Ok(())
}

/// Permission bits without setuid, setgid and sticky.
pub fn mode(mode: Option<u32>) -> Checked {
    match mode {
        Some(bits) if bits > 0o777 => Err(ApiError::invalid("mode", "must be at most 0o777 (511)")),
        _ => Ok(()),
    }
}

/// Names and values that an environment can hold.
pub fn env(changes: &EnvChanges) -> Checked {
    env_of("env", changes)
}

/// Variables that a shell which runs already makes for itself, or never lets go of (bash(1), "Shell Variables"): a value that
/// is given to one of them would not be there.
const MADE_BY_THE_SHELL: [&str; 33] = [
    "BASH",
    "BASHOPTS",
    "BASHPID",
    "BASH_ALIASES",
    "BASH_ARGC",
    "BASH_ARGV",
    "BASH_ARGV0",
    "BASH_CMDS",
    "BASH_COMMAND",
    "BASH_EXECUTION_STRING",
    "BASH_LINENO",
    "BASH_MONOSECONDS",
    "BASH_SOURCE",
    "BASH_SUBSHELL",
    "BASH_VERSINFO",
    "BASH_VERSION",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "LINENO",
    "PIPESTATUS",
    "PPID",
    "PWD",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SRANDOM",
    "UID",
    "_",
];

/// Variables to change in shells that run.
pub fn set_env(request: &SetEnv) -> Checked {
    env(&request.env)?;
    refuse(
        &request.env,
        &MADE_BY_THE_SHELL,
        "the shell makes this variable itself and would not keep the value",
    )
}

/// Refuses some variables by name.
fn refuse(changes: &EnvChanges, names: &[&str], why: &str) -> Checked {
    match changes.keys().find(|name| names.contains(&name.as_str())) {
        Some(name) => Err(ApiError::invalid(&format!("env.{name}"), why)),
        None => Ok(()),
    }
}

fn env_of(parent: &str, changes: &EnvChanges) -> Checked {
    if changes.len() > limits::MAX_ENV_ENTRIES {
        return Err(ApiError::invalid(
            parent,
            format!("must have at most {} entries", limits::MAX_ENV_ENTRIES),
        ));
    }
    env_bytes(parent, changes)?;
    for (name, value) in changes {
        let field = || format!("{parent}.{}", name.chars().take(80).collect::<String>().escape_debug());
        // What `export` takes (POSIX, "Name"): no shell could hold another.
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(ApiError::invalid(
                &field(),
                "a name has letters, digits and '_', and begins with no digit",
            ));
        }
        let value = value.as_deref().unwrap_or_default();
        if value.contains('\0') {
            return Err(ApiError::invalid(&field(), "a value must not hold NUL"));
        }
        if name.len() + 1 + value.len() > limits::MAX_ENV_ENTRY_BYTES {
            return Err(ApiError::invalid(
                &field(),
                format!("name and value must fit {} bytes, the kernel's bound", limits::MAX_ENV_ENTRY_BYTES),
            ));
        }
    }
    Ok(())
}

/// What one call sets fits an environment.
fn env_bytes(parent: &str, changes: &EnvChanges) -> Checked {
    let bytes: usize =
        changes.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len) + 2).sum();
    if bytes <= limits::MAX_ENV_BYTES {
        return Ok(());
    }
    let most = limits::MAX_ENV_BYTES;
    let message = format!("{parent}: the variables take {bytes} bytes; {most} are the most");
    Err(ApiError::new(ErrorCode::QuotaExceeded, message)
        .with("limit", most)
        .with("value", bytes)
        .with("scope", "env"))
}

/// A time limit in milliseconds, from `minimum` to a week.
pub fn timeout(field: &str, value: Option<u64>, minimum: u64) -> Checked {
    match value {
        Some(ms) if ms < minimum || ms > limits::MAX_TIMEOUT_MS => Err(ApiError::invalid(
            field,
            format!("must be {minimum} to {} milliseconds", limits::MAX_TIMEOUT_MS),
        )),
        _ => Ok(()),
    }
}

/// A text for a shell.
fn command(text: &str) -> Checked {
    if text.trim().is_empty() {
        return Err(
            ApiError::new(ErrorCode::InvalidCommand, "command: must not be empty").with("command", "")
        );
    }
    if text.contains('\0') {
        return Err(ApiError::invalid("command", "must not hold NUL"));
    }
    if text.len() > limits::MAX_COMMAND_BYTES {
        return Err(ApiError::invalid(
            "command",
            format!("must have at most {} bytes; write a script file and run it", limits::MAX_COMMAND_BYTES),
        ));
    }
    Ok(())
}

fn stdin(text: Option<&str>) -> Checked {
    if text.is_some_and(|text| text.len() > limits::MAX_STDIN_BYTES) {
        return Err(ApiError::invalid(
            "stdin",
            format!("must have at most {} bytes; write a file and redirect from it", limits::MAX_STDIN_BYTES),
        ));
    }
    Ok(())
}

/// A command to run.
pub fn exec(request: &ExecRequest) -> Checked {
    command(&request.command)?;
    stdin(request.stdin.as_deref())?;
    interactive(request.interactive, request.stdin.as_deref())?;
    if request.fresh && request.session_id.is_some() {
        return Err(ApiError::invalid("fresh", "must not be given together with sessionId"));
    }
    if request.max_output_bytes.is_some_and(|bytes| bytes > limits::MAX_OUTPUT_BYTES) {
        return Err(ApiError::invalid(
            "maxOutputBytes",
            format!("must be at most {}", limits::MAX_OUTPUT_BYTES),
        ));
    }
    timeout("timeout", request.timeout, 1)?;
    timeout("queueTimeout", request.queue_timeout, 0)?;
    env(&request.env)?;
    if !request.fresh {
        refuse(
            &request.env,
            &["BASHOPTS", "SHELLOPTS"],
            "options of a shell that runs: use `set` and `shopt`",
        )?;
    }
    request.cwd.as_deref().map_or(Ok(()), |cwd| path("cwd", cwd))
}

fn interactive(is_interactive: bool, stdin: Option<&str>) -> Checked {
    match stdin {
        Some(_) if is_interactive => {
            Err(ApiError::invalid("interactive", "must not be given together with stdin"))
        }
        _ => Ok(()),
    }
}

/// A process to start.
pub fn start_process(request: &StartProcess) -> Checked {
    command(&request.command)?;
    stdin(request.stdin.as_deref())?;
    interactive(request.interactive, request.stdin.as_deref())?;
    if request.interactive && request.restart == Restart::Always {
        return Err(ApiError::invalid("interactive", "must not be given together with restart"));
    }
    let bounds = limits::MIN_LOG_BYTES..=limits::MAX_OUTPUT_BYTES;
    if request.max_log_bytes.is_some_and(|bytes| !bounds.contains(&bytes)) {
        return Err(ApiError::invalid(
            "maxLogBytes",
            format!("must be {} to {}", limits::MIN_LOG_BYTES, limits::MAX_OUTPUT_BYTES),
        ));
    }
    timeout("timeout", request.timeout, 1)?;
    env(&request.env)?;
    request.cwd.as_deref().map_or(Ok(()), |cwd| path("cwd", cwd))
}

/// A wait for a process's end.
pub fn wait_for_exit(request: &WaitForExit) -> Checked {
    timeout("timeout", request.timeout, 0)
}

/// A wait for a line of a process's output.
pub fn wait_for_log(request: &WaitForLog) -> Checked {
    let text = request.text.as_str();
    if text.is_empty() || text.len() > limits::MAX_LOG_PATTERN_BYTES || text.contains('\n') {
        return Err(ApiError::invalid(
            "text",
            format!("must have 1 to {} bytes without a line feed", limits::MAX_LOG_PATTERN_BYTES),
        ));
    }
    timeout("timeout", request.timeout, 0)
}

/// A wait for a port.
pub fn wait_for_port(request: &WaitForPort) -> Checked {
    if request.port == 0 {
        let error = ApiError::new(ErrorCode::InvalidPort, "port: must be 1 to 65535");
        return Err(error.with("port", 0).with("reason", "must be 1 to 65535"));
    }
    if let Some(path) = &request.path {
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
        if !path.starts_with('/') || path.len() > limits::MAX_PATH_BYTES || !printable {
            return Err(ApiError::invalid(
                "path",
                format!(
                    "must begin with '/' and have at most {} characters that a URL may hold",
                    limits::MAX_PATH_BYTES
                ),
            ));
        }
    }
    if let Some(StatusRange { min, max }) = request.status
        && (min < 100 || max > 599 || min > max)
    {
        return Err(ApiError::invalid("status", "must be a range within 100 to 599"));
    }
    timeout("timeout", request.timeout, 0)?;
    timeout("interval", request.interval, 1)
}

/// A new session.
pub fn create_session(request: &CreateSession) -> Checked {
    env(&request.env)?;
    timeout("commandTimeoutMs", request.command_timeout_ms, 1)?;
    request.cwd.as_deref().map_or(Ok(()), |cwd| path("cwd", cwd))
}

/// A new code context.
pub fn create_code_context(request: &CreateCodeContext) -> Checked {
    env_of("envVars", &request.env_vars)?;
    timeout("timeout", request.timeout, 1)?;
    request.cwd.as_deref().map_or(Ok(()), |cwd| path("cwd", cwd))
}

/// Code to run.
pub fn run_code(request: &RunCodeRequest) -> Checked {
    if request.code.len() > limits::MAX_CODE_BYTES {
        return Err(ApiError::invalid(
            "code",
            format!("must have at most {} bytes; write a file and import it", limits::MAX_CODE_BYTES),
        ));
    }
    timeout("timeout", request.timeout, 1)?;
    env_of("envVars", &request.env_vars)
}

/// A new sandbox or a change of one.
pub fn create_sandbox(request: &CreateSandbox) -> Checked {
    env(&request.env)?;
    if let Some(wanted) = &request.limits {
        resources(wanted)?;
    }
    if let Some(labels) = &request.labels {
        if labels.len() > 64 {
            return Err(ApiError::invalid("labels", "must have at most 64 entries"));
        }
        for (name, value) in labels {
            if name.is_empty() || name.len() > 128 || value.len() > 1024 {
                return Err(ApiError::invalid("labels", "names have 1 to 128 bytes, values at most 1024"));
            }
        }
    }
    Ok(())
}

/// Bounds on resources that a sandbox could live with.
fn resources(wanted: &Limits) -> Checked {
    // A static agent and one bash need about 1 MB; below a few more nothing useful runs and creation itself is killed.
    if wanted.memory.is_some_and(|bytes| bytes.0 < 8 << 20) {
        return Err(ApiError::invalid("limits.memory", "must be at least 8m"));
    }
    if wanted.cpu.is_some_and(|cpus| !(0.01..=1024.0).contains(&cpus)) {
        return Err(ApiError::invalid("limits.cpu", "must be 0.01 to 1024"));
    }
    if wanted.disk.is_some_and(|bytes| bytes.0 < 8 << 20) {
        return Err(ApiError::invalid("limits.disk", "must be at least 8m"));
    }
    if wanted.pids.is_some_and(|pids| !(8..=4_194_304).contains(&pids)) {
        return Err(ApiError::invalid("limits.pids", "must be 8 to 4194304"));
    }
    if wanted.open_files.is_some_and(|files| !(64..=1_048_576).contains(&files)) {
        return Err(ApiError::invalid("limits.openFiles", "must be 64 to 1048576"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(result: Checked) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.http_status, 400);
        error.message.split(':').next().unwrap().to_owned()
    }

    fn command(text: &str) -> ExecRequest {
        ExecRequest { command: text.to_owned(), ..ExecRequest::default() }
    }

    #[test]
    fn x02_bad_commands_name_their_field() {
        assert_eq!(exec(&command(" \n")).unwrap_err().code, ErrorCode::InvalidCommand);
        assert_eq!(field(exec(&command("a\0b"))), "command");
        assert_eq!(field(exec(&command(&"x".repeat(limits::MAX_COMMAND_BYTES + 1)))), "command");
        assert_eq!(field(exec(&ExecRequest { timeout: Some(0), ..command("true") })), "timeout");
        let env = [("A=B".to_owned(), Some("1".to_owned()))].into();
        assert_eq!(field(exec(&ExecRequest { env, ..command("true") })), "env.A=B");
        assert!(exec(&command("true")).is_ok());
    }

    #[test]
    fn s11_a_variable_that_would_not_keep_its_value_is_refused_by_name() {
        let change = |name: &str| SetEnv { env: [(name.to_owned(), Some("1".to_owned()))].into() };
        for name in MADE_BY_THE_SHELL {
            assert_eq!(field(set_env(&change(name))), format!("env.{name}"));
        }
        for name in ["PATH", "IFS", "OPTIND", "OLDPWD", "BASH_ENV", "SHLVL"] {
            assert!(set_env(&change(name)).is_ok(), "{name}");
        }
        let given = ExecRequest { env: change("SHELLOPTS").env, ..command("true") };
        assert_eq!(field(exec(&given)), "env.SHELLOPTS");
        assert!(exec(&ExecRequest { fresh: true, ..given }).is_ok());
    }

    #[test]
    fn e07_variables_fit_an_environment_wherever_they_are_given() {
        let env = |entries: usize, length: usize| -> EnvChanges {
            (0..entries).map(|n| (format!("V{n}"), Some("x".repeat(length)))).collect()
        };
        let (fits, long) = (env(12, 131_000), env(13, 131_000));
        let checks = |env: &EnvChanges| {
            let env = || env.clone();
            [
                create_sandbox(&CreateSandbox { env: env(), ..CreateSandbox::default() }),
                create_session(&CreateSession { env: env(), ..CreateSession::default() }),
                exec(&ExecRequest { env: env(), ..command("true") }),
                create_code_context(&CreateCodeContext { env_vars: env(), ..CreateCodeContext::default() }),
                run_code(&RunCodeRequest { env_vars: env(), ..RunCodeRequest::default() }),
            ]
        };
        assert!(checks(&fits).iter().all(Result::is_ok));
        for refused in checks(&long) {
            let error = refused.unwrap_err();
            assert_eq!((error.http_status, &error.context["scope"]), (429, &serde_json::json!("env")));
        }
    }

    #[test]
    fn b02_paths_that_no_kernel_opens_are_refused() {
        for bad in ["", "a\0b", &"a/".repeat(2048), &"n".repeat(256)] {
            assert_eq!(path("path", bad).unwrap_err().http_status, 400, "{bad:?}");
        }
        // Valid names: resolved inside the sandbox's root, wherever they point.
        for good in ["../../etc/passwd", "%2e%2e/x", "//a", "a b", "ünï"] {
            assert!(path("path", good).is_ok(), "{good}");
        }
    }
}
