//! What a caller asked of a sandbox, and what follows from it.

use sandcrab_api::sandbox::{CreateSandbox, Isolation, Limits, Network};
use sandcrab_api::units::IdleTime;
use sandcrab_api::{ApiError, ErrorCode, SandboxId, limits};
use sandcrab_runtime::SandboxSpec;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// The image of a sandbox that names none.
const DEFAULT_IMAGE: &str = "host";

/// A sandbox's options with every default filled in; kept in the store as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Options {
    pub(crate) image: String,
    /// As asked for; the driver says which are in force.
    pub(crate) limits: Limits,
    pub(crate) network: Network,
    /// As asked for. Sandboxes made before there was a choice have the defaults.
    #[serde(default)]
    pub(crate) isolation: Isolation,
    /// As of its creation. The driver keeps them; the store does not, because each change of a label writes all that it
    /// keeps. Rows of earlier releases have them.
    #[serde(default, skip_serializing)]
    pub(crate) env: BTreeMap<String, String>,
    /// What tells them from others.
    #[serde(default)]
    env_digest: Option<String>,
    pub(crate) sleep_after: IdleTime,
    pub(crate) keep_alive: bool,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Options {
    /// The options of a new sandbox.
    pub(crate) fn new(wanted: CreateSandbox) -> Self {
        let env = set_variables(wanted.env);
        Self {
            image: wanted.image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
            limits: wanted.limits.unwrap_or_default(),
            network: wanted.network.unwrap_or_default(),
            isolation: wanted.isolation.unwrap_or_default(),
            env_digest: Some(digest(&env)),
            env,
            sleep_after: wanted
                .sleep_after
                .unwrap_or(IdleTime(Duration::from_secs(limits::DEFAULT_SLEEP_AFTER_SECS))),
            keep_alive: wanted.keep_alive.unwrap_or(false),
            labels: wanted.labels.unwrap_or_default(),
        }
    }

    /// What the driver is to make of them.
    pub(crate) fn spec(&self, id: &SandboxId) -> SandboxSpec {
        SandboxSpec {
            sandbox: id.clone(),
            image: self.image.clone(),
            limits: self.limits.clone(),
            network: self.network,
            isolation: self.isolation,
            env: self.env.clone(),
        }
    }

    /// Applies a request to a sandbox that exists: what may change is changed, what is fixed must be as it is.
    /// On error nothing has changed. Says whether anything has.
    pub(crate) fn apply(&mut self, wanted: CreateSandbox, id: &SandboxId) -> Result<bool, ApiError> {
        fn fixed<T: PartialEq>(
            id: &SandboxId,
            field: &str,
            is: &T,
            wanted: Option<&T>,
        ) -> Result<(), ApiError> {
            match wanted {
                Some(wanted) if wanted != is => Err(ApiError::new(
                    ErrorCode::SandboxAlreadyExists,
                    format!("sandbox {id} exists with another {field}, which is fixed at its creation"),
                )
                .with("sandboxId", id.as_str())
                .with("field", field)),
                _ => Ok(()),
            }
        }
        fixed(id, "image", &self.image, wanted.image.as_ref())?;
        fixed(id, "network", &self.network, wanted.network.as_ref())?;
        if let Some(limits) = &wanted.limits {
            fixed(id, "limits.memory", &self.limits.memory, limits.memory.map(Some).as_ref())?;
            fixed(id, "limits.cpu", &self.limits.cpu, limits.cpu.map(Some).as_ref())?;
            fixed(id, "limits.disk", &self.limits.disk, limits.disk.map(Some).as_ref())?;
            fixed(id, "limits.pids", &self.limits.pids, limits.pids.map(Some).as_ref())?;
            let open_files = limits.open_files.map(Some);
            fixed(id, "limits.openFiles", &self.limits.open_files, open_files.as_ref())?;
        }
        if let Some(wanted) = &wanted.isolation {
            let is = self.isolation.resolved();
            fixed(id, "isolation.debugging", &is.debugging, wanted.debugging.map(Some).as_ref())?;
            fixed(id, "isolation.socketLists", &is.socket_lists, wanted.socket_lists.map(Some).as_ref())?;
            fixed(id, "isolation.asyncIo", &is.async_io, wanted.async_io.map(Some).as_ref())?;
            fixed(id, "isolation.ping", &is.ping, wanted.ping.map(Some).as_ref())?;
        }
        let env = (!wanted.env.is_empty()).then(|| digest(&set_variables(wanted.env)));
        let is = self.env_digest.clone().unwrap_or_else(|| digest(&self.env));
        fixed(id, "env", &is, env.as_ref())
            .map_err(|error| error.suggest("Change variables of a sandbox that exists with setEnvVars."))?;

        let before = self.clone();
        if let Some(time) = wanted.sleep_after {
            self.sleep_after = time;
        }
        if let Some(keep) = wanted.keep_alive {
            self.keep_alive = keep;
        }
        if let Some(labels) = wanted.labels {
            self.labels = labels;
        }
        Ok(*self != before)
    }
}

fn digest(env: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    // Neither names nor values hold NUL.
    for text in env.iter().flat_map(|(name, value)| [name, value]) {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An unset variable of a sandbox that does not exist yet is one that is not there.
fn set_variables(changes: sandcrab_api::session::EnvChanges) -> BTreeMap<String, String> {
    changes.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(json: serde_json::Value) -> CreateSandbox {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn fixed_options_are_named_and_mutable_ones_applied() {
        let id = SandboxId::parse("a").unwrap();
        let mut options = Options::new(wanted(serde_json::json!({
            "limits": {"memory": "64m"}, "env": {"A": "1", "B": null}, "labels": {"k": "v"}
        })));
        assert_eq!(options.sleep_after, IdleTime(Duration::from_secs(180)));
        for (field, json) in [
            ("image", serde_json::json!({"image": "python"})),
            ("network", serde_json::json!({"network": "host"})),
            ("isolation.debugging", serde_json::json!({"isolation": {"debugging": false}})),
            ("isolation.ping", serde_json::json!({"isolation": {"debugging": true, "ping": true}})),
            ("limits.memory", serde_json::json!({"limits": {"memory": "65m"}})),
            ("limits.cpu", serde_json::json!({"limits": {"cpu": 1}})),
            ("env", serde_json::json!({"env": {"A": "2"}, "keepAlive": true})),
        ] {
            let before = options.clone();
            let error = options.apply(wanted(json), &id).unwrap_err();
            assert_eq!((error.http_status, error.context["field"].as_str()), (409, Some(field)));
            assert_eq!(options, before);
        }
        let same = serde_json::json!({"image": "host", "isolation": {"debugging": true, "ping": false}, "limits": {"memory": 67_108_864}, "env": {"A": "1"}});
        assert!(!options.apply(wanted(same), &id).unwrap());
        let change = serde_json::json!({"keepAlive": true, "sleepAfter": "1h", "labels": {}});
        assert!(options.apply(wanted(change), &id).unwrap());
        assert!(options.keep_alive && options.labels.is_empty());
    }

    #[test]
    fn e13_variables_are_compared_but_not_kept_in_the_store() {
        let id = SandboxId::parse("a").unwrap();
        let env = |value: &str| wanted(serde_json::json!({ "env": {"A": value, "B": "2"} }));
        let json = serde_json::to_string(&Options::new(env("1"))).unwrap();
        assert!(!json.contains("\"A\""), "{json}");
        // As an earlier release wrote it.
        let old = serde_json::json!({
            "image": "host", "limits": {}, "network": "loopback", "env": {"A": "1", "B": "2"}, "sleepAfter": 180,
            "keepAlive": false, "labels": {}
        });
        for text in [json, old.to_string()] {
            let mut read: Options = serde_json::from_str(&text).unwrap();
            assert!(read.apply(env("1"), &id).is_ok() && read.apply(CreateSandbox::default(), &id).is_ok());
            assert_eq!(read.apply(env("3"), &id).unwrap_err().context["field"], "env");
        }
    }
}
