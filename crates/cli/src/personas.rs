//! What this binary is when a server or a sandbox executes it, instead of a person.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// Does a persona's work if the first argument names one. To be called before anything else is done: the launch stage is
/// single-threaded by its nature, and the probe reports what it finds itself given.
pub(crate) fn dispatch() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next()?;
    persona(&name, &arguments.collect::<Vec<_>>())
}

fn persona(name: &OsStr, arguments: &[OsString]) -> Option<ExitCode> {
    Some(match name.to_str()? {
        "agent" => sandcrab_agent::main(arguments),
        "__launch" => exit_code(sandcrab_runtime::launch::main()),
        "__openapi" => match sandcrab_server::openapi() {
            Ok(document) => print(&document),
            Err(_) => ExitCode::from(crate::FAILED),
        },
        "__probe" => print(&sandcrab_runtime::probe::run()),
        _ => return None,
    })
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(crate::FAILED))
}

/// A document on stdout, for a program that reads it.
fn print(document: &impl serde::Serialize) -> ExitCode {
    let stdout = std::io::stdout().lock();
    match serde_json::to_writer_pretty(stdout, document) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(crate::FAILED),
    }
}
