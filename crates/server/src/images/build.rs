//! The steps that build the image `python`.
//!
//! 1. *look*: a sandbox of the base, without a network, says which Python it has; that chooses the lock.
//! 2. *fetch*: the wheels of the lock that are not on this machine yet are downloaded by pip in a second sandbox, which
//!    has the host's network and does nothing else. Each is taken out of it only if its hash is the lock's.
//! 3. *install*: the first sandbox is given the wheels; pip installs them, still without a network, and what that
//!    changed is packed.
//! 4. *try*: what was installed is imported.
//! 5. *publish*: the driver makes a layer of it.
//!
//! So what has a network runs nothing of a package, what runs code of a package has neither a network nor anything to
//! tell, and nothing of a package ever runs outside of a sandbox.

use super::inside::{Inside, Made};
use super::pip::Settings;
use super::wheels::Wheels;
use super::{BuildError, SANDBOX};
use axum::body::Body;
use sandcrab_api::sandbox::Network;
use sandcrab_runtime::Driver;
use sandcrab_runtime::image::python;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the steps may take. The data stack is 100 MB to fetch, and takes half a minute of one CPU to install.
const LOOK: Duration = Duration::from_secs(60);
const FETCH: Duration = Duration::from_secs(15 * 60);
const INSTALL: Duration = Duration::from_secs(15 * 60);
const TRY: Duration = Duration::from_secs(5 * 60);
/// The largest archive that is taken out of a sandbox: 4 GiB.
const ARCHIVE: u64 = 4 << 30;

/// What a sandbox of the base has.
#[derive(Debug, Deserialize)]
struct Found {
    python: String,
    machine: String,
    libc: String,
    pip: bool,
}

const LOOKING: &str = "python3 -I -c '
import importlib.util, json, platform, sys
print(json.dumps({
    \"python\": \"%d.%d\" % sys.version_info[:2],
    \"machine\": platform.machine(),
    \"libc\": platform.libc_ver()[0],
    \"pip\": importlib.util.find_spec(\"pip\") is not None,
}))'";
const FETCHING: &str = "python3 -m pip download --no-deps --only-binary=:all: --require-hashes --no-cache-dir \
                        --disable-pip-version-check --progress-bar=off --dest=/build/wheels --requirement=/build/lock.txt";
const INSTALLING: &str = "python3 -I /build/build.py /build/lock.txt /build/wheels /build/layer.tar";
const TRYING: &str = "cd /tmp && python3 -c 'import IPython, matplotlib.pyplot, numpy, pandas; print(pandas.DataFrame({\"a\": [1]}))'";

/// Builds the image; the caller takes the sandboxes away.
pub(super) async fn build(
    driver: &Arc<dyn Driver>,
    wheels: &Wheels,
    made: &Made,
    base: &str,
) -> Result<(), BuildError> {
    let none = BTreeMap::new();
    let inside = made.make(base, Network::Loopback, SANDBOX).await?;
    let lock = look(&inside).await?;

    let missing = wheels.missing(lock).await?;
    if !missing.is_empty() {
        tracing::info!(count = missing.len(), "fetching wheels");
        fetch(made, base, wheels, &missing).await?;
    }

    const STEP: &str = "install";
    for (name, path) in wheels.files(lock).await? {
        inside.put_file(STEP, &format!("/build/wheels/{name}"), &path).await?;
    }
    inside.put(STEP, "/build/lock.txt", Body::from(lock)).await?;
    inside.put(STEP, "/build/build.py", Body::from(python::PROGRAM)).await?;
    inside.must(STEP, INSTALLING, &none, INSTALL).await?;
    // Taken out before anything that was installed is used.
    let archive = wheels.temporary(".tar")?;
    let mut file = tokio::fs::File::create(&archive).await.map_err(BuildError::io("create", &archive))?;
    inside.get(STEP, "/build/layer.tar", &mut file, ARCHIVE).await?;
    drop(file);
    inside.must("try", TRYING, &none, TRY).await?;
    driver.add_layer(python::NAME, &inside.instance, &archive).await?;
    Ok(())
}

/// The lock for the Python that the sandbox has.
async fn look(inside: &Inside) -> Result<&'static str, BuildError> {
    const STEP: &str = "look";
    let ran = inside.run(STEP, LOOKING, &BTreeMap::new(), LOOK).await?;
    match ran.code {
        0 => {}
        127 => return Err(BuildError::NoPython),
        _ => return Err(BuildError::failed(STEP, &ran)),
    }
    let found: Found = serde_json::from_str(&ran.stdout).map_err(|error| BuildError::Refused {
        step: STEP,
        message: format!("what python3 says of itself: {error}"),
    })?;
    let lock = python::lock(&found.python, &found.machine).filter(|_| found.libc == "glibc");
    let Some(lock) = lock else {
        let libc = if found.libc.is_empty() { "another libc".to_owned() } else { found.libc };
        return Err(BuildError::NoLock { python: found.python, machine: found.machine, libc });
    };
    if found.pip { Ok(lock) } else { Err(BuildError::NoPip { python: found.python }) }
}

/// Downloads wheels in a sandbox of its own.
async fn fetch(
    made: &Made,
    base: &str,
    wheels: &Wheels,
    missing: &[python::Wheel<'static>],
) -> Result<(), BuildError> {
    const STEP: &str = "fetch";
    let settings = Settings::of_this_machine();
    let bundle = settings
        .certificates()
        .map_err(|(path, source)| BuildError::io("take certificates from", &path)(source))?;
    let mut env = settings.env;
    let inside = made.make(base, Network::Host, SANDBOX).await?;
    if let Some(bundle) = bundle {
        const PATH: &str = "/build/certificates.pem";
        inside.put(STEP, PATH, Body::from(bundle)).await?;
        env.insert("PIP_CERT".to_owned(), PATH.to_owned());
    }
    let lines: String = missing
        .iter()
        .map(|wheel| format!("{} --hash=sha256:{}\n", wheel.requirement, wheel.sha256))
        .collect();
    inside.put(STEP, "/build/lock.txt", Body::from(lines)).await?;
    inside.must(STEP, FETCHING, &env, FETCH).await?;
    for name in inside.names(STEP, "/build/wheels").await? {
        if !Wheels::is_name(&name) {
            continue;
        }
        let temporary = wheels.temporary(".whl")?;
        let mut file =
            tokio::fs::File::create(&temporary).await.map_err(BuildError::io("create", &temporary))?;
        inside.get(STEP, &format!("/build/wheels/{name}"), &mut file, ARCHIVE).await?;
        drop(file);
        wheels.keep(temporary, &name, missing).await?;
    }
    let still = wheels.missing_of(missing).await?;
    match still.first() {
        None => Ok(()),
        Some(wheel) => Err(BuildError::Refused {
            step: STEP,
            message: format!("no file came that is {} with SHA-256 {}", wheel.requirement, wheel.sha256),
        }),
    }
}

/// Where wheels lie, for messages.
pub(super) fn place(images: &Path) -> std::path::PathBuf {
    images.join("wheels")
}
