//! The work behind an owner's transitions: to make, to start again, to take away.

use super::owner;
use super::state::{End, Identity, Stop};
use super::{Context, Key, Live, VERDICT, event, exit_text, options::Options};
use crate::images;
use crate::preview::Apps;
use crate::proxy::{Pool, PoolError};
use crate::store::{NewEvent, StoreError, StoredStatus};
use sandcrab_api::sandbox::{Limits, StopSignal};
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use sandcrab_runtime::{Condition, DriverError, Instance, InstanceId, SandboxSpec};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a sandbox may take to start. The first one also waits for the host's image to be made.
const START: Duration = Duration::from_secs(120);
/// Between two attempts to write that a sandbox is gone: doubled from the first to the longest.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// How long the processes of a sandbox that is stopped may take to end: they are killed after 5 seconds.
const GRACE: Duration = Duration::from_secs(7);
/// How often an image is built for one sandbox.
const BUILDS: u32 = 3;

/// A sandbox that has come up.
pub(super) struct Started {
    pub(super) live: Arc<Live>,
    /// The limits in force.
    pub(super) limits: Limits,
    /// Kills for want of memory that were counted in it by then.
    pub(super) kills: u64,
}

/// Makes a new sandbox. On error the caller calls [`undo`].
pub(super) async fn create(context: Arc<Context>, key: Key, it: Identity) -> Result<Started, ApiError> {
    let began = Instant::now();
    let spec = it.options.spec(&key.1);
    let row = owner::row(&key, &it)?;
    // Those of an earlier life whose end could not be written, as this server found them when it started.
    context.ports.revoke(key.0, &key.1).await;
    // The record is made beside the sandbox, not before it: the next server takes away an instance without a record
    // and a record without an instance, and nothing is acknowledged before both are there.
    // It is begun behind the sandbox: the thread that writes would have the CPU of the one that makes.
    let stored = async { context.store.insert(row, event("created", "api", "first use")).await };
    let (made, stored) = tokio::join!(make(&context, &key.1, &it.instance, &spec), stored);
    stored.map_err(|error| crate::http::internal("createSandbox", &error))?;
    let instance = made?;
    // From here on it is known: no start of a server takes it for a left-over, not even after a power cut.
    let marked = async { context.driver.acknowledge(&it.instance).await };
    let (live, marked) = tokio::join!(introduce(&context, &key.1, &instance), marked);
    let live = live?;
    marked.map_err(|error| refused(&key.1, &error))?;
    // Not waited for: a server that starts takes `starting` with a running instance for what it is.
    let written = context.store.set_status(key.0, &key.1, StoredStatus::Running, None);
    tokio::spawn(async move {
        if let Err(error) = written.await {
            tracing::error!(sandbox = %key.1, error = crate::chain(&error), "a status could not be written");
        }
    });
    context.metrics.created(began.elapsed());
    Ok(Started { live, limits: instance.spec.limits, kills: 0 })
}

/// Has the driver make a sandbox; first its image, if that is not built.
async fn make(
    context: &Context,
    id: &SandboxId,
    instance: &InstanceId,
    spec: &SandboxSpec,
) -> Result<Instance, ApiError> {
    let mut builds = 0;
    loop {
        let made = tokio::time::timeout(START, context.driver.create(instance, spec)).await;
        match made.map_err(|_| took_too_long(id))? {
            // Again if the host changed so that what was built is not what is needed now.
            Err(DriverError::ImageNotBuilt { image }) if builds < BUILDS => {
                builds += 1;
                let built = context.images.ensure(&image).await;
                built.map_err(|error| error.with("sandboxId", id.as_str()))?;
            }
            made => return made.map_err(|error| refused(id, &error)),
        }
    }
}

/// Takes away what a failed creation may have left.
pub(super) async fn undo(context: &Arc<Context>, key: &Key, instance: &InstanceId) -> Result<(), ApiError> {
    context.driver.destroy(instance).await.map_err(|error| undestroyed(&key.1, &error))?;
    forget(context, key, instance, None).await;
    Ok(())
}

/// Has the store forget a sandbox that is gone. A store that cannot, as on a disk that is full, is asked again and again:
/// for the caller it is gone, and a server that starts meanwhile finds that it is.
async fn forget(context: &Arc<Context>, key: &Key, instance: &InstanceId, last: Option<NewEvent>) {
    let removed = context.store.remove(key.0, &key.1, instance, last.clone()).await;
    let Err(error) = removed else { return };
    tracing::error!(sandbox = %key.1, error = crate::chain(&error), "a sandbox is gone, and this could not be written yet");
    let (context, key, instance) = (context.clone(), key.clone(), instance.clone());
    tokio::spawn(async move {
        let mut pause = AGAIN;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN_AT_MOST);
            match context.store.remove(key.0, &key.1, &instance, last.clone()).await {
                Ok(()) | Err(StoreError::Closed) => return,
                Err(error) => tracing::debug!(sandbox = %key.1, error = crate::chain(&error), "not yet"),
            }
        }
    });
}

/// Starts a stopped sandbox again on its files.
pub(super) async fn start(
    context: Arc<Context>,
    key: Key,
    instance: InstanceId,
) -> Result<Started, ApiError> {
    let noted = context.store.new_agent(key.0, &key.1).await;
    noted
        .map_err(|error| crate::http::internal("ensureSandbox", &error).with("sandboxId", key.1.as_str()))?;
    let started = tokio::time::timeout(START, context.driver.start(&instance)).await;
    let instance = started.map_err(|_| took_too_long(&key.1))?.map_err(|error| refused(&key.1, &error))?;
    meet(context, key.1, instance).await
}

/// Meets the agent of an instance that runs already.
pub(super) async fn meet(
    context: Arc<Context>,
    id: SandboxId,
    instance: Instance,
) -> Result<Started, ApiError> {
    if let Ok(mut condition) = context.driver.condition(&instance.id) {
        // One that is made to stand still says nothing until it goes on. It ends with the instance.
        let _gone = condition.wait_for(|now| *now != Condition::Held).await;
    }
    let live = introduce(&context, &id, &instance).await?;
    let kills = kills(&context, &instance.id).await;
    Ok(Started { live, limits: instance.spec.limits, kills })
}

/// How many processes of an instance were killed for want of memory; 0 where that is not counted.
pub(super) async fn kills(context: &Context, instance: &InstanceId) -> u64 {
    let stats = context.driver.stats(instance).await;
    stats.ok().and_then(|stats| stats.oom_kills).unwrap_or_default()
}

/// Ends all that runs in a sandbox. Its processes are asked to end first, unless it is to be at once.
pub(super) async fn stop(
    context: Arc<Context>,
    live: Arc<Live>,
    signal: StopSignal,
    exit: Pin<Box<dyn Future<Output = End> + Send>>,
) -> Stop {
    if signal != StopSignal::Kill {
        let ended = tokio::time::timeout(GRACE, live.pool.end_processes()).await;
        // Whatever is left, for whatever reason, is ended now.
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = crate::chain(&error), "processes were not asked to end")
            }
            Err(_elapsed) => tracing::debug!("processes did not end in time"),
        }
    }
    match context.driver.stop(&live.instance).await {
        Ok(()) => Ok(exit.await),
        Err(error) => Err((error, exit)),
    }
}

/// Takes a sandbox away and forgets it.
pub(super) async fn destroy(context: Arc<Context>, key: Key, instance: InstanceId) -> Result<(), ApiError> {
    context.driver.destroy(&instance).await.map_err(|error| undestroyed(&key.1, &error))?;
    forget(&context, &key, &instance, Some(event("destroyed", "api", "asked for"))).await;
    Ok(())
}

/// Meets the agent of an instance: opens a connection and asks for its version and features.
async fn introduce(
    context: &Arc<Context>,
    id: &SandboxId,
    instance: &Instance,
) -> Result<Arc<Live>, ApiError> {
    let pool = Pool::new(context.driver.clone(), instance.id.clone());
    match pool.hello().await {
        Ok(hello) => {
            let apps = Apps::new(pool.clone());
            Ok(Arc::new(Live { instance: instance.id.clone(), hello, pool, apps }))
        }
        Err(error) => Err(silent(context, id, instance, &error).await),
    }
}

/// An agent that did not introduce itself: what it said last, and how it ended if it did, say why.
async fn silent(context: &Context, id: &SandboxId, instance: &Instance, error: &PoolError) -> ApiError {
    let exit = tokio::time::timeout(VERDICT, context.driver.wait_exit(&instance.id)).await;
    let end = match exit {
        Ok(Ok(exit)) => format!("it ended, {}", exit_text(exit)),
        Ok(Err(error)) => crate::chain(&error),
        Err(_elapsed) => "it runs".to_owned(),
    };
    let words = context.driver.last_words(&instance.id).await;
    let words = if words.is_empty() { "nothing".to_owned() } else { words };
    let error = crate::chain(error);
    tracing::error!(sandbox = %id, instance = %instance.id, error, end, words, "an agent did not introduce itself");
    ApiError::new(
        ErrorCode::ContainerUnavailable,
        format!(
            "sandbox {id} came up, but its agent did not introduce itself: {error} ({end}; it said: {words})"
        ),
    )
    .with("sandboxId", id.as_str())
}

/// The options as the store keeps them.
pub(super) fn options_json(options: &Options) -> Result<String, ApiError> {
    serde_json::to_string(options).map_err(|error| crate::http::internal("createSandbox", &error))
}

fn took_too_long(id: &SandboxId) -> ApiError {
    ApiError::new(
        ErrorCode::ContainerUnavailable,
        format!("sandbox {id} was not up after {} s", START.as_secs()),
    )
    .with("sandboxId", id.as_str())
}

/// Why the driver did not start it: the caller's fault where it is, else the machine's.
fn refused(id: &SandboxId, error: &DriverError) -> ApiError {
    let error = match error {
        DriverError::ImageNotFound { .. } => images::unknown("image", error),
        DriverError::Limit { limit, reason } => {
            ApiError::invalid(&format!("limits.{}", limit.trim_start_matches("limits.")), reason.clone())
        }
        error => crate::http::no_space(error).unwrap_or_else(|| {
            tracing::error!(sandbox = %id, error = crate::chain(error), "a sandbox could not be started");
            ApiError::new(
                ErrorCode::ContainerUnavailable,
                format!("sandbox {id} could not be started: {}", error.for_callers()),
            )
        }),
    };
    error.with("sandboxId", id.as_str())
}

pub(super) fn unstopped(id: &SandboxId, error: &DriverError) -> ApiError {
    tracing::error!(sandbox = %id, error = crate::chain(error), "a sandbox could not be stopped");
    let message = format!("sandbox {id} could not be stopped: {}", error.for_callers());
    ApiError::new(ErrorCode::ContainerUnavailable, message)
        .with("sandboxId", id.as_str())
        .suggest("Stop it again, or destroy it; the server's log says what holds it.")
}

fn undestroyed(id: &SandboxId, error: &DriverError) -> ApiError {
    tracing::error!(sandbox = %id, error = crate::chain(error), "a sandbox could not be taken away");
    ApiError::new(
        ErrorCode::ContainerUnavailable,
        format!("sandbox {id} could not be taken away: {}", error.for_callers()),
    )
    .with("sandboxId", id.as_str())
    .suggest("Destroy it again; the server's log and `sandcrab doctor` say what holds it.")
}
