//! Names of signals, as signal(7) and `kill -l` have them.

use rustix::process::Signal;
use sandcrab_api::ApiError;

const NAMES: [(&str, Signal); 20] = [
    ("TERM", Signal::TERM),
    ("KILL", Signal::KILL),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("HUP", Signal::HUP),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("STOP", Signal::STOP),
    ("CONT", Signal::CONT),
    ("TSTP", Signal::TSTP),
    ("ALRM", Signal::ALARM),
    ("PIPE", Signal::PIPE),
    ("WINCH", Signal::WINCH),
    ("CHLD", Signal::CHILD),
    ("URG", Signal::URG),
    ("IO", Signal::IO),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("VTALRM", Signal::VTALARM),
];

/// A signal by its name, with or without `SIG`, in either case; TERM by none.
///
/// # Errors
/// `VALIDATION_FAILED` that names the field.
pub(crate) fn parse(name: Option<&str>) -> Result<Signal, ApiError> {
    let Some(name) = name else { return Ok(Signal::TERM) };
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.iter().find(|(known, _)| *known == short).map(|(_, signal)| *signal).ok_or_else(|| {
        let shown: String = name.chars().take(20).collect();
        ApiError::invalid("signal", format!("{shown:?} is no name of a signal that can be sent, as SIGTERM"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x02_signals_have_names() {
        assert_eq!(parse(None).unwrap(), Signal::TERM);
        assert_eq!(parse(Some("SIGKILL")).unwrap(), Signal::KILL);
        assert_eq!(parse(Some("usr1")).unwrap(), Signal::USR1);
        for bad in ["", "SIG", "9", "SIGNOPE"] {
            assert_eq!(parse(Some(bad)).unwrap_err().http_status, 400, "{bad}");
        }
    }
}
