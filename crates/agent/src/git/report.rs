//! What git's words mean (contract X01). They are git's own, in the language `C`; lines that begin with `remote:` are the
//! other side's, which may say anything, and decide nothing.

use super::redact::Redactor;
use sandcrab_api::{ApiError, ErrorCode};

/// Bytes of git's words that are looked at: its last, where the reason is.
pub(super) const LOOKED_AT: usize = 32 << 10;
/// Characters of git's words in an error's message, and bytes of them in its context.
const IN_MESSAGE: usize = 1000;
const IN_CONTEXT: usize = 4 << 10;

/// Words by which a failure is known, what it is then, and what to do if that is not what the code's table says. The first
/// row that fits decides: what is more certain stands above what may be its consequence.
const KNOWN: &[(&[&str], ErrorCode, Option<&str>)] = &[
    (&["No space left on device", "Disk quota exceeded"], ErrorCode::NoSpace, None),
    (
        &["already exists and is not an empty directory"],
        ErrorCode::FileExists,
        Some("Choose another targetDir, or delete what is there."),
    ),
    (
        &["fatal: transport '", "fatal: unable to find remote helper for '"],
        ErrorCode::InvalidGitUrl,
        Some(
            "Check the url.*.insteadOf of the sandbox's git configuration, which leads to a protocol that is not allowed.",
        ),
    ),
    (
        &[
            "fatal: repository '",
            "fatal: remote error: ",
            "ERROR: Repository not found",
            "info/refs not valid: ",
            "does not appear to be a git repository",
            "returned error: 404",
            "returned error: 410",
        ],
        ErrorCode::GitRepositoryNotFound,
        None,
    ),
    (
        &[
            "fatal: Authentication failed for ",
            "fatal: could not read Username for ",
            "fatal: could not read Password for ",
            "returned error: 401",
            "returned error: 403",
        ],
        ErrorCode::GitAuthFailed,
        None,
    ),
    (
        &[": Permission denied ("],
        ErrorCode::GitAuthFailed,
        Some(
            "Give the sandbox a private key that this host knows: a file in its ~/.ssh with mode 600, or GIT_SSH_COMMAND.",
        ),
    ),
    (
        &[
            "SSL certificate problem",
            "server certificate verification failed",
            "SSL: no alternative certificate",
            "does not match target host name",
            "error setting certificate",
            "Host key verification failed",
        ],
        ErrorCode::GitNetworkError,
        Some(
            "Make the sandbox trust that host: GIT_SSL_CAINFO or http.sslCAInfo for https, ~/.ssh/known_hosts for ssh.",
        ),
    ),
    (
        &["returned error: 429", "returned error: 5"],
        ErrorCode::GitNetworkError,
        Some("The repository's host refuses or fails for now; try again later."),
    ),
    (
        &[
            "Could not resolve host",
            "Couldn't resolve host",
            "Could not resolve proxy",
            "unable to look up ",
            "Failed to connect to ",
            "Couldn't connect to server",
            "Could not connect to server",
            "unable to connect to ",
            "Connection refused",
            "Connection reset",
            "Connection timed out",
            "Operation timed out",
            "timed out after",
            "Network is unreachable",
            "No route to host",
            "Broken pipe",
            "Empty reply from server",
            "Operation too slow",
            "transfer closed with",
            "SSL connect error",
            "gnutls_handshake() failed",
            "GnuTLS recv error",
            "OpenSSL SSL_",
            "ssh: connect to host",
            "ssh: Could not resolve hostname",
            "kex_exchange_identification",
            "Connection closed by",
            "Received HTTP code",
            "Proxy CONNECT aborted",
            "RPC failed",
            "early EOF",
            "the remote end hung up",
            "unexpected disconnect",
        ],
        ErrorCode::GitNetworkError,
        None,
    ),
    (
        &["': Not a directory", ": Not a directory"],
        ErrorCode::NotDirectory,
        Some("Choose another targetDir; a part of this one is a file."),
    ),
    (&[": File name too long"], ErrorCode::NameTooLong, None),
    (&[": Read-only file system"], ErrorCode::ReadOnly, None),
    (&[": Permission denied"], ErrorCode::PermissionDenied, None),
    // What of the working tree could be made and not written, for which git gives no reason (entry.c): the disk has no
    // room for it. What may not be made, it gives with its reason.
    (&["error: unable to write file "], ErrorCode::NoSpace, None),
    (
        &["unable to checkout working tree", "Clone succeeded, but checkout failed"],
        ErrorCode::GitCheckoutFailed,
        None,
    ),
];

/// A `git clone` that failed.
pub(super) struct Failure<'a> {
    /// The end of what it wrote to stderr, as it wrote it.
    pub(super) stderr: &'a str,
    pub(super) exit_code: i32,
    /// The URL without credentials.
    pub(super) url: &'a str,
    pub(super) branch: Option<&'a str>,
    pub(super) target: &'a str,
}

impl Failure<'_> {
    /// What a caller sees of it.
    pub(super) fn into_api(self, redactor: &Redactor) -> ApiError {
        let (code, suggestion, decisive) = self.kind();
        let said = printable(&redactor.whole(&self.reason(decisive)));
        let subject = match (code, self.branch) {
            (ErrorCode::GitBranchNotFound, Some(branch)) => {
                format!("{} has no branch or tag {branch:?}", self.url)
            }
            _ => format!("{} could not be cloned", self.url),
        };
        let stderr = redactor.whole(self.stderr);
        let from = stderr.ceil_char_boundary(stderr.len().saturating_sub(IN_CONTEXT));
        let mut error = ApiError::new(code, format!("{subject}: {said}"))
            .with("repository", self.url)
            .with("exitCode", self.exit_code)
            .with("stderr", &stderr[from..]);
        if let Some(branch) = self.branch {
            error = error.with("branch", branch);
        }
        error = match code {
            ErrorCode::FileExists
            | ErrorCode::NotDirectory
            | ErrorCode::NameTooLong
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::NoSpace => error.with("path", self.target),
            _ => error.with("targetDir", self.target),
        };
        match suggestion {
            Some(suggestion) => error.suggest(suggestion),
            None => error,
        }
    }

    fn own_lines(&self) -> impl Iterator<Item = &str> {
        // A progress line is overwritten by a carriage return.
        self.stderr.split(['\n', '\r']).filter(|line| !line.starts_with("remote:") && !line.trim().is_empty())
    }

    /// What it is, what to do about it, and the line that says so.
    fn kind(&self) -> (ErrorCode, Option<&'static str>, Option<&str>) {
        let line_with = |words: &str| self.own_lines().find(|line| line.contains(words));
        let not_found = |branch: &str| line_with(&format!("Remote branch {branch} not found in upstream "));
        if let Some(line) = self.branch.and_then(not_found) {
            return (ErrorCode::GitBranchNotFound, None, Some(line));
        }
        let known = KNOWN.iter().find_map(|(words, code, suggestion)| {
            let line = words.iter().find_map(|words| line_with(words))?;
            Some((*code, *suggestion, Some(line)))
        });
        known.unwrap_or((ErrorCode::GitCloneFailed, None, None))
    }

    /// git's own account of it: what it calls errors, else its last line. What decided is there in any case: ssh's words
    /// are not marked as errors.
    fn reason(&self, decisive: Option<&str>) -> String {
        let is_error = |line: &str| {
            ["fatal: ", "error: ", "ERROR: ", "ssh: "].iter().any(|start| line.starts_with(start))
        };
        let mut errors: Vec<_> =
            self.own_lines().filter(|line| is_error(line) || Some(*line) == decisive).collect();
        if errors.is_empty() {
            errors = self.own_lines().last().into_iter().collect();
        }
        match errors.len() {
            0 => format!("git ended with {} and said nothing", self.exit_code),
            // The last has the reason, those before it the particulars.
            more => errors[more.saturating_sub(4)..].join("; "),
        }
    }
}

/// Text on one line that no terminal or log takes for more than text (attack B12).
fn printable(text: &str) -> String {
    text.chars()
        .take(IN_MESSAGE)
        .flat_map(|c| {
            let hidden = c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let escaped = hidden.then(|| c.escape_unicode());
            escaped.into_iter().flatten().chain((!hidden).then_some(c))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandcrab_api::git::Credentials;

    fn error(stderr: &str, branch: Option<&str>) -> ApiError {
        let failure = Failure { stderr, exit_code: 128, url: "https://h/r", branch, target: "/workspace/r" };
        failure.into_api(&Redactor::default())
    }

    #[test]
    fn x01_each_of_gits_failures_has_its_code() {
        use ErrorCode as E;
        for (code, stderr) in [
            (E::GitRepositoryNotFound, "fatal: repository 'https://h/r/' not found"),
            (E::GitRepositoryNotFound, "fatal: remote error: access denied or repository not exported: /r"),
            (
                E::GitRepositoryNotFound,
                "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
            ),
            (E::GitRepositoryNotFound, "fatal: https://h/r/info/refs not valid: is this a git repository?"),
            (
                E::GitAuthFailed,
                "remote: Invalid username or password.\nfatal: Authentication failed for 'https://h/r/'",
            ),
            (E::GitAuthFailed, "fatal: could not read Username for 'https://h': terminal prompts disabled"),
            (
                E::GitAuthFailed,
                "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            ),
            (E::GitNetworkError, "fatal: unable to access 'https://h/r/': Could not resolve host: h"),
            (E::GitNetworkError, "ssh: connect to host h port 22: Connection refused"),
            (
                E::GitNetworkError,
                "fatal: unable to access 'https://h/r/': The requested URL returned error: 503",
            ),
            (
                E::NoSpace,
                "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output",
            ),
            (E::NoSpace, "error: unable to write file big\nfatal: unable to checkout working tree"),
            (E::FileExists, "fatal: destination path 'x' already exists and is not an empty directory."),
            (E::PermissionDenied, "fatal: could not create work tree dir '/proc/x': Permission denied"),
            (E::InvalidGitUrl, "fatal: transport 'ext' not allowed"),
            (E::GitCheckoutFailed, "error: invalid path '.git/x'\nfatal: unable to checkout working tree"),
            (E::GitCloneFailed, "fatal: something new"),
            (E::GitCloneFailed, ""),
        ] {
            assert_eq!(error(stderr, None).code, code, "{stderr}");
        }
    }

    #[test]
    fn x01_what_ssh_says_is_in_the_message() {
        let denied = error(
            "Cloning into 'r'...\ngit@h: Permission denied (publickey).\r\nfatal: Could not read from remote repository.",
            None,
        );
        let expected = "git@h: Permission denied (publickey).; fatal: Could not read from remote repository.";
        assert_eq!(denied.message, format!("https://h/r could not be cloned: {expected}"));
        assert!(denied.suggestion.unwrap().contains("~/.ssh"));
    }

    #[test]
    fn b08_the_other_sides_words_decide_nothing() {
        let stderr = "remote: fatal: repository 'x' not found\nremote: No space left on device\nfatal: odd";
        assert_eq!(error(stderr, None).code, ErrorCode::GitCloneFailed);
        let stderr = "fatal: Remote branch a not found in upstream origin";
        assert_eq!(error(stderr, Some("a")).code, ErrorCode::GitBranchNotFound);
        assert_eq!(error(stderr, Some("b")).code, ErrorCode::GitCloneFailed);
    }

    #[test]
    fn g01_b12_an_error_is_one_plain_line_without_the_password() {
        let credentials = Credentials { username: "me".into(), password: "hidden".into() };
        let stderr = "remote: you sent hidden\nfatal: \u{1b}[31modd hidden\u{202e}\nfatal: end";
        let failure = Failure { stderr, exit_code: 128, url: "https://h/r", branch: None, target: "/r" };
        let error = failure.into_api(&Redactor::new(Some(&credentials)));
        assert_eq!(
            error.message,
            "https://h/r could not be cloned: fatal: \\u{1b}[31modd ***\\u{202e}; fatal: end"
        );
        assert!(!serde_json::to_string(&error).unwrap().contains("hidden"));
    }
}
