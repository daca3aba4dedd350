//! What a request says, to tell a retry from another request under the same name.

use sandcrab_api::code::RunCodeRequest;
use sandcrab_api::exec::ExecRequest;
use sandcrab_api::git::{GitAuth, GitCheckout};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

/// A hash of all of a request that has an effect: not of its name, and not of the form of its answer. Known to no caller, so
/// that none can make two that are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Fingerprint {
    fn of(kind: &str, parts: impl Hash) -> Self {
        Self(KEY.hash_one((kind, parts)))
    }

    pub(crate) fn of_command(request: &ExecRequest) -> Self {
        let ExecRequest {
            command,
            session_id,
            exec_id: _,
            fresh,
            timeout,
            queue_timeout,
            env,
            cwd,
            stdin,
            interactive,
            encoding: _,
            max_output_bytes,
        } = request;
        // Said or not, it is the same session.
        let session_id = session_id.as_ref().filter(|id| !id.is_default());
        let bounds = (timeout, queue_timeout, max_output_bytes);
        Self::of("command", (command, session_id, fresh, bounds, env, cwd, stdin, interactive))
    }

    pub(crate) fn of_checkout(request: &GitCheckout) -> Self {
        let GitCheckout {
            repo_url,
            branch,
            target_dir,
            depth,
            filter,
            clone_timeout_ms,
            auth,
            session_id,
            exec_id: _,
        } = request;
        let auth = auth.as_ref().map(|GitAuth { username, password }| (username, password));
        let how = (branch, depth, filter, clone_timeout_ms);
        Self::of("checkout", (repo_url, target_dir, how, auth, session_id))
    }

    pub(crate) fn of_run(request: &RunCodeRequest) -> Self {
        let RunCodeRequest { code, context_id, language, session_id, env_vars, timeout, run_id: _ } = request;
        Self::of("run", (code, context_id, language, session_id, env_vars, timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The whole with each field on its own set to its value.
    fn variants(base: &Value, fields: &Value) -> Vec<Value> {
        let one = |(name, value): (&String, &Value)| {
            let mut changed = base.clone();
            changed[name] = value.clone();
            changed
        };
        fields.as_object().unwrap().iter().map(one).collect()
    }

    fn differ(prints: &[Fingerprint]) {
        for (number, print) in prints.iter().enumerate() {
            assert!(!prints[..number].contains(print), "number {number} is the same as an earlier one");
        }
    }

    #[test]
    fn x04_everything_that_has_an_effect_counts_and_nothing_else() {
        let command = |value: Value| Fingerprint::of_command(&serde_json::from_value(value).unwrap());
        let base = json!({ "command": "true", "execId": "e" });
        let fields = json!({
            "command": "false", "sessionId": "s", "fresh": true, "timeout": 1, "queueTimeout": 1, "env": {"A": "1"},
            "cwd": "/", "stdin": "x", "maxOutputBytes": 1
        });
        let mut prints: Vec<_> = variants(&base, &fields).into_iter().map(command).collect();
        prints.push(command(base.clone()));
        prints.push(command(json!({ "command": "true", "env": {"A": null} })));
        differ(&prints);
        for same in [
            json!({ "command": "true", "execId": "other" }),
            json!({ "command": "true", "encoding": "base64" }),
            json!({ "command": "true", "sessionId": "default" }),
        ] {
            assert_eq!(command(same), command(base.clone()));
        }

        let run = |value: Value| Fingerprint::of_run(&serde_json::from_value(value).unwrap());
        let base = json!({ "code": "1", "runId": "r" });
        let fields = json!({
            "code": "2", "contextId": "c", "language": "typescript", "sessionId": "s", "envVars": {"A": "1"}, "timeout": 1
        });
        let mut prints: Vec<_> = variants(&base, &fields).into_iter().map(run).collect();
        prints.push(run(base.clone()));
        differ(&prints);
        assert_eq!(run(json!({ "code": "1" })), run(base));

        let checkout = |value: Value| Fingerprint::of_checkout(&serde_json::from_value(value).unwrap());
        let base = json!({ "repoUrl": "https://a.example/r" });
        let fields = json!({
            "repoUrl": "https://b.example/r", "branch": "b", "targetDir": "d", "depth": 1, "filter": "blob:none",
            "cloneTimeoutMs": 1, "auth": {"password": "p"}, "sessionId": "s"
        });
        let mut prints: Vec<_> = variants(&base, &fields).into_iter().map(checkout).collect();
        prints.push(checkout(base.clone()));
        differ(&prints);
        assert_eq!(checkout(json!({ "repoUrl": "https://a.example/r", "execId": "e" })), checkout(base));
    }
}
