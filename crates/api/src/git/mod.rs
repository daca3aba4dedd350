//! Repositories that are cloned inside a sandbox (contract G01).

mod url;

pub use url::{Credentials, GitUrl};

use crate::error::ApiError;
use crate::ids::{ExecId, SessionId};
use crate::time::Timestamp;
use crate::{limits, validate};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Clone a repository with the sandbox's own git.
///
/// Its `Debug` form shows neither `auth` nor the URL, which may hold a password too.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitCheckout {
    /// `https`, `http`, `git` or `ssh` URL, or `user@host:path` for ssh. A user name and password in an http(s) URL are
    /// taken out of it and handed to git as those of `auth` are. For ssh the sandbox's own `~/.ssh` counts: its keys, its
    /// `known_hosts`, its `config`; nobody answers a prompt.
    #[schema(min_length = 1, max_length = 4096)]
    pub repo_url: String,
    /// The branch or tag to check out. Default: the remote's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 1024)]
    pub branch: Option<String>,
    /// Where the working tree goes: a directory that is empty or does not exist. Default: the repository's name, below
    /// `/workspace` or the session's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub target_dir: Option<String>,
    /// Fetch only so many of the newest commits of the one branch. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    pub depth: Option<u32>,
    /// Leave objects out until they are needed (a partial clone): `blob:none`, `blob:limit=1m`, `tree:0`, as git's
    /// `--filter`. Servers that know no filters send everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^(blob:none|blob:limit=[0-9]+[kmgKMG]?|tree:[0-9]+|object:type=(blob|tree|commit|tag))$"
    )]
    pub filter: Option<String>,
    /// Milliseconds after which git is killed with all its processes and what it had made is removed. Default 600000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000, minimum = 1)]
    pub clone_timeout_ms: Option<u64>,
    /// Who to be for the repository's host; for http and https. It is written nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<GitAuth>,
    /// The session whose exported variables and working directory are its start point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The client's name for this call, as of a command: sending the same id again attaches to the call that has it, and
    /// cancelling the command of this id ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<ExecId>,
}

/// A user name and a password or token. Its `Debug` form shows neither.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitAuth {
    /// Default: the URL's own, else `x-access-token`, which hosts take beside a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 1024)]
    pub username: Option<String>,
    /// Password or token.
    #[schema(min_length = 1, max_length = 16384)]
    pub password: String,
}

impl fmt::Debug for GitCheckout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitCheckout").field("exec_id", &self.exec_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for GitAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitAuth").finish_non_exhaustive()
    }
}

/// A repository that was cloned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitCheckoutResult {
    /// Always true: failures are errors.
    pub success: bool,
    /// The URL without a user name and password.
    pub repo_url: String,
    /// The branch or tag that is checked out.
    pub branch: String,
    /// The working tree, from the root.
    pub target_dir: String,
    /// When it was done.
    pub timestamp: Timestamp,
}

/// User name that goes with a token when no other is given.
const DEFAULT_USERNAME: &str = "x-access-token";

impl GitCheckout {
    /// Checks every field. Gives the URL as git may know it, and the credentials that it may not see on its command line.
    ///
    /// # Errors
    /// `INVALID_GIT_URL`, and `VALIDATION_FAILED` or `NAME_TOO_LONG` naming the field.
    pub fn parse(&self) -> Result<(GitUrl, Option<Credentials>), ApiError> {
        let (url, in_url) = GitUrl::parse(&self.repo_url)?;
        if let Some(branch) = &self.branch {
            text("branch", branch, limits::MAX_GIT_BRANCH_BYTES)?;
        }
        if let Some(dir) = &self.target_dir {
            validate::path("targetDir", dir)?;
        }
        if self.depth.is_some_and(|depth| depth == 0 || i32::try_from(depth).is_err()) {
            return Err(ApiError::invalid("depth", "must be 1 to 2147483647"));
        }
        if let Some(filter) = &self.filter
            && !is_filter(filter)
        {
            let known = "blob:none, blob:limit=SIZE, tree:DEPTH or object:type=TYPE";
            return Err(ApiError::invalid("filter", format!("must be {known}")));
        }
        if validate::timeout("cloneTimeoutMs", self.clone_timeout_ms, 1).is_err() {
            let rule = format!("Invalid clone timeout: must be 1 to {} milliseconds", limits::MAX_TIMEOUT_MS);
            return Err(ApiError::invalid("cloneTimeoutMs", rule));
        }
        let Some(auth) = &self.auth else { return Ok((url, in_url)) };
        if !url.is_http() {
            return Err(ApiError::invalid("auth", "is for http and https; ssh takes the sandbox's own keys"));
        }
        if let Some(username) = &auth.username {
            text("auth.username", username, limits::MAX_GIT_BRANCH_BYTES)?;
        }
        text("auth.password", &auth.password, limits::MAX_GIT_PASSWORD_BYTES)?;
        let username = auth.username.clone().or_else(|| in_url.map(|found| found.username));
        let username = username.unwrap_or_else(|| DEFAULT_USERNAME.to_owned());
        Ok((url, Some(Credentials { username, password: auth.password.clone() })))
    }
}

/// One line of text: neither git's command line nor the lines between git and its helpers carry more.
fn text(field: &str, value: &str, most: usize) -> Result<(), ApiError> {
    if value.is_empty() || value.len() > most {
        return Err(ApiError::invalid(field, format!("must have 1 to {most} bytes")));
    }
    if value.contains(char::is_control) {
        return Err(ApiError::invalid(field, "must not hold control characters"));
    }
    Ok(())
}

/// Whether git knows this filter (git-rev-list(1), `--filter`). Left out are `sparse:oid`, which needs an object of the
/// repository that is yet to be fetched, and combinations.
fn is_filter(filter: &str) -> bool {
    let number =
        |digits: &str| (1..=18).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    match filter.split_once([':', '=']) {
        Some(("blob", "none")) => true,
        Some(("blob", limit)) => limit
            .strip_prefix("limit=")
            .is_some_and(|size| number(size.strip_suffix(['k', 'm', 'g', 'K', 'M', 'G']).unwrap_or(size))),
        Some(("tree", depth)) => number(depth),
        Some(("object", kind)) => matches!(kind, "type=blob" | "type=tree" | "type=commit" | "type=tag"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn checkout(url: &str) -> GitCheckout {
        GitCheckout { repo_url: url.to_owned(), ..GitCheckout::default() }
    }

    fn with_auth(url: &str, username: Option<&str>, password: &str) -> GitCheckout {
        let auth = GitAuth { username: username.map(str::to_owned), password: password.to_owned() };
        GitCheckout { auth: Some(auth), ..checkout(url) }
    }

    #[test]
    fn x02_what_git_could_not_take_is_refused_by_field() {
        let good = checkout("https://h/r");
        assert!(good.parse().is_ok());
        for (field, bad) in [
            ("branch", GitCheckout { branch: Some(String::new()), ..good.clone() }),
            ("branch", GitCheckout { branch: Some("a\nb".into()), ..good.clone() }),
            ("targetDir", GitCheckout { target_dir: Some("a\0b".into()), ..good.clone() }),
            ("depth", GitCheckout { depth: Some(0), ..good.clone() }),
            ("depth", GitCheckout { depth: Some(1 << 31), ..good.clone() }),
            ("filter", GitCheckout { filter: Some("sparse:path=x".into()), ..good.clone() }),
            ("filter", GitCheckout { filter: Some("blob:limit=".into()), ..good.clone() }),
            ("cloneTimeoutMs", GitCheckout { clone_timeout_ms: Some(0), ..good.clone() }),
            ("auth", with_auth("ssh://git@h/r", None, "x")),
            ("auth", with_auth("git://h/r", None, "x")),
            ("auth.password", with_auth("https://h/r", None, "")),
            ("auth.password", with_auth("https://h/r", None, "a\nhost=evil")),
            ("auth.username", with_auth("https://h/r", Some("a\rb"), "x")),
        ] {
            let error = bad.parse().unwrap_err();
            assert_eq!(error.code, ErrorCode::ValidationFailed, "{field}");
            assert_eq!(error.context["validationErrors"][0]["field"], field);
        }
        for filter in ["blob:none", "blob:limit=10", "blob:limit=1m", "tree:0", "object:type=commit"] {
            assert!(is_filter(filter), "{filter}");
        }
    }

    #[test]
    fn g01_the_callers_own_credentials_win_over_the_urls() {
        let parse = |checkout: GitCheckout| checkout.parse().unwrap().1.map(|c| (c.username, c.password));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(parse(checkout("https://h/r")), None);
        assert_eq!(parse(checkout("https://u:p%40w@h/r")), pair("u", "p@w"));
        assert_eq!(parse(with_auth("https://u:old@h/r", None, "new")), pair("u", "new"));
        assert_eq!(parse(with_auth("https://u:old@h/r", Some("me"), "new")), pair("me", "new"));
        assert_eq!(parse(with_auth("https://h/r", None, "token")), pair(DEFAULT_USERNAME, "token"));
    }

    #[test]
    fn g01_nothing_secret_is_in_the_debug_form() {
        let request = with_auth("https://u:hidden1@h/r", Some("hidden2"), "hidden3");
        let shown = format!("{request:?} {:?} {:?}", request.auth, request.parse().unwrap());
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
