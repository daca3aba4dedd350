//! Which crate may depend on which. The rule is what keeps the server out of namespaces and the runtime out of HTTP.

use crate::workspace::{Package, Workspace};
use anyhow::{Result, bail};

/// For each crate, the crates of this repository that it may use. Tests keep to it too.
const RULE: &[(&str, &[&str])] = &[
    ("sandcrab-api", &[]),
    ("sandcrab-client", &["sandcrab-api"]),
    ("sandcrab-socket", &[]),
    ("sandcrab-runtime", &["sandcrab-api", "sandcrab-socket"]),
    ("sandcrab-agent", &["sandcrab-api", "sandcrab-socket"]),
    ("sandcrab-server", &["sandcrab-api", "sandcrab-runtime", "sandcrab-agent"]),
    (
        "sandcrab",
        &["sandcrab-api", "sandcrab-runtime", "sandcrab-agent", "sandcrab-server", "sandcrab-client"],
    ),
    ("sandcrab-bench", &["sandcrab-client"]),
    ("xtask", &[]),
];

/// Crates that must not be found below a crate, whoever brings them: (crate, what it may not use, why).
const NEVER: &[(&str, &[&str], &str)] = &[
    ("sandcrab-api", &["tokio", "axum", "hyper", "reqwest"], "the wire types do no I/O"),
    ("sandcrab-runtime", &["axum", "hyper", "reqwest"], "the runtime never touches HTTP"),
    ("sandcrab-server", &["seccompiler", "landlock", "libc"], "the server never touches namespaces"),
];

pub(crate) fn check(ws: &Workspace) -> Result<()> {
    let packages = ws.packages()?;
    let faults = faults(&packages);
    if faults.is_empty() {
        println!("{} packages keep to the rule", packages.len());
        return Ok(());
    }
    bail!("{}", faults.join("\n"))
}

fn faults(packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let Some((_, allowed)) = RULE.iter().find(|(name, _)| *name == package.name) else {
            faults.push(format!("{} has no line in the rule: xtask/src/check/dependencies.rs", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            if !allowed.contains(&dependency.name.as_str()) {
                faults.push(format!("{} may not depend on {}", package.name, dependency.name));
            }
        }
        for (_, never, why) in NEVER.iter().filter(|(name, _, _)| *name == package.name) {
            for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.is_none()) {
                if never.contains(&dependency.name.as_str()) {
                    faults.push(format!("{} may not use {}: {why}", package.name, dependency.name));
                }
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependency: &str, ours: bool) -> Package {
        let path = ours.then(|| "crates/x".into());
        Package {
            name: name.to_owned(),
            manifest_path: "Cargo.toml".into(),
            dependencies: vec![Dependency { name: dependency.to_owned(), kind: None, path }],
        }
    }

    #[test]
    fn a_crate_below_may_not_use_one_above() {
        let found = faults(&[package("sandcrab-agent", "sandcrab-server", true)]);
        assert_eq!(found, ["sandcrab-agent may not depend on sandcrab-server"]);
        assert!(faults(&[package("sandcrab-server", "sandcrab-agent", true)]).is_empty());
    }

    #[test]
    fn http_is_kept_out_of_the_runtime() {
        let found = faults(&[package("sandcrab-runtime", "hyper", false)]);
        assert_eq!(found, ["sandcrab-runtime may not use hyper: the runtime never touches HTTP"]);
    }

    #[test]
    fn a_new_crate_needs_a_line() {
        assert_eq!(faults(&[package("sandcrab-more", "serde", false)]).len(), 1);
    }
}
