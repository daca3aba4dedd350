//! How git is called: arguments and environment as data.

use super::credentials;
use sandcrab_api::git::{Credentials, GitCheckout, GitUrl};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Ways to a repository that git may take, whatever the sandbox's own configuration says. The URL is checked before; this
/// is for what it is rewritten to by the sandbox's `url.*.insteadOf`, and for redirects. `file` is allowed as git allows it
/// by itself: what lies in the sandbox may be read there.
const PROTOCOLS: [&str; 8] = [
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=user",
    "protocol.ext.allow=never",
    "protocol.fd.allow=never",
];

/// Variables of the session that would lead git to another repository than the one to be made (`git rev-parse
/// --local-env-vars`), less those that hold configuration, or that would change the language or the rules of this call.
const LEFT_OUT: [&str; 20] = [
    "GIT_ALLOW_PROTOCOL",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_PROTOCOL_FROM_USER",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
    "LANGUAGE",
    "LC_MESSAGES",
];

/// Nobody answers a prompt; messages are in the words that `report` knows; a trace that the session asks for leaves out
/// what authorises.
const SET: [(&str, &str); 3] = [("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C"), ("GIT_TRACE_REDACT", "1")];

/// The environment of git.
pub(super) fn environment(session: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<CString> {
    let own = |name: &[u8]| {
        LEFT_OUT.iter().any(|left_out| left_out.as_bytes() == name)
            || SET.iter().any(|(set, _)| set.as_bytes() == name)
    };
    let theirs =
        session.iter().filter(|(name, _)| !own(name)).map(|(name, value)| [name, &b"="[..], value].concat());
    let ours = SET.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
    // A variable with a NUL cannot be: it comes from a process or was refused.
    theirs.chain(ours).filter_map(|entry| CString::new(entry).ok()).collect()
}

/// `git clone` of the checked request into a directory named from the root.
pub(super) fn clone(
    request: &GitCheckout,
    url: &GitUrl,
    lent: Option<&Credentials>,
    directory: &[u8],
) -> Vec<CString> {
    let mut arguments = vec!["git".to_owned()];
    let settings = PROTOCOLS.map(str::to_owned).into_iter();
    for setting in settings.chain(lent.iter().flat_map(|_| credentials::settings(url))) {
        arguments.extend(["-c".to_owned(), setting]);
    }
    arguments.push("clone".to_owned());
    // `--name=value` and, before what has no name, `--`: nothing that a caller gives is taken for an option.
    arguments.extend(request.branch.iter().map(|branch| format!("--branch={branch}")));
    arguments.extend(request.depth.iter().map(|depth| format!("--depth={depth}")));
    arguments.extend(request.filter.iter().map(|filter| format!("--filter={filter}")));
    arguments.extend(["--".to_owned(), url.as_str().to_owned()]);
    let words = arguments.into_iter().map(String::into_bytes).chain([directory.to_vec()]);
    words.filter_map(|word| CString::new(word).ok()).collect()
}

/// Prints the branch that is checked out in `directory`; fails where it is none but a tag.
pub(super) fn branch_of(directory: &[u8]) -> Vec<CString> {
    // The directory may have been there before, and belong to someone else of the sandbox.
    let before: [&[u8]; 4] = [b"git", b"-c", b"safe.directory=*", b"-C"];
    let after: [&[u8]; 4] = [b"symbolic-ref", b"--quiet", b"--short", b"HEAD"];
    let words = before.into_iter().chain([directory]).chain(after);
    words.filter_map(|word| CString::new(word).ok()).collect()
}

/// What a person sees of the call in a list of commands. Also tells one request from another under the same id, and so
/// holds all that makes a difference but the credentials.
pub(super) fn shown(request: &GitCheckout, url: &GitUrl) -> String {
    let mut words = vec!["git clone".to_owned()];
    words.extend(request.branch.iter().map(|branch| format!("--branch={branch}")));
    words.extend(request.depth.iter().map(|depth| format!("--depth={depth}")));
    words.extend(request.filter.iter().map(|filter| format!("--filter={filter}")));
    words.extend(["--".to_owned(), url.as_str().to_owned()]);
    words.push(request.target_dir.clone().unwrap_or_else(|| url.name().to_owned()));
    words.join(" ")
}

/// Where a program may be, by the session's `PATH`, in its order. A relative entry is one of the session's cwd.
pub(super) fn candidates(session: &BTreeMap<Vec<u8>, Vec<u8>>, cwd: &Path) -> Vec<CString> {
    let path = session.get(&b"PATH"[..]).map_or(&b""[..], Vec::as_slice);
    path.split(|&byte| byte == b':')
        .take(crate::spawn::PATH_ENTRIES)
        .map(|folder| cwd.join(OsStr::from_bytes(folder)).join("git"))
        .filter_map(|file| CString::new(file.into_os_string().into_encoded_bytes()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(request: &GitCheckout) -> Vec<String> {
        let (url, lent) = request.parse().unwrap();
        clone(request, &url, lent.as_ref(), b"/workspace/-r")
            .into_iter()
            .map(|w| w.into_string().unwrap())
            .collect()
    }

    #[test]
    fn b09_whatever_a_caller_gives_is_one_literal_word() {
        let request = GitCheckout {
            repo_url: "https://h/$(id);r".into(),
            branch: Some("--upload-pack=touch /tmp/evil".into()),
            depth: Some(1),
            filter: Some("blob:none".into()),
            ..GitCheckout::default()
        };
        let words = words(&request);
        let clone = words.iter().position(|word| word == "clone").unwrap();
        assert_eq!(
            words[clone + 1..],
            [
                "--branch=--upload-pack=touch /tmp/evil",
                "--depth=1",
                "--filter=blob:none",
                "--",
                "https://h/$(id);r",
                "/workspace/-r"
            ]
        );
    }

    #[test]
    fn g01_no_argument_or_list_shows_a_password() {
        let url = "https://me:hidden@example.com:8443/r";
        let request = GitCheckout { repo_url: url.into(), ..GitCheckout::default() };
        let all = words(&request);
        assert!(!all.join(" ").contains("hidden") && !all.join(" ").contains("me@"), "{all:?}");
        assert!(all.iter().any(|word| word.starts_with("credential.https://example.com:8443.helper=!f()")));
        let (url, _) = request.parse().unwrap();
        assert_eq!(shown(&request, &url), "git clone -- https://example.com:8443/r r");
        // Where there is nothing to lend, the sandbox's own helpers serve.
        let open = GitCheckout { repo_url: "https://h/r".into(), ..GitCheckout::default() };
        assert!(!words(&open).iter().any(|word| word.starts_with("credential.")));
    }

    #[test]
    fn s14_the_sessions_variables_count_but_for_those_of_another_repository() {
        let session =
            [("https_proxy", "http://p"), ("GIT_DIR", "/x"), ("LC_ALL", "de_DE"), ("GIT_CONFIG_COUNT", "0")]
                .map(|(name, value)| (name.into(), value.into()))
                .into();
        let environment: Vec<_> =
            environment(&session).into_iter().map(|e| e.into_string().unwrap()).collect();
        assert_eq!(
            environment,
            [
                "GIT_CONFIG_COUNT=0",
                "https_proxy=http://p",
                "GIT_TERMINAL_PROMPT=0",
                "LC_ALL=C",
                "GIT_TRACE_REDACT=1"
            ]
        );
    }
}
