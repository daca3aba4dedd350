//! What an owner is asked, and where its sandbox stands: the states of the picture in `owner`, each with its own work.

use super::options::Options;
use super::start::Started;
use super::{Ending, Key, Life, Live, View};
use sandcrab_api::ApiError;
use sandcrab_api::sandbox::{CreateSandbox, Limits, SandboxInfo, SandboxStatus, StopSignal};
use sandcrab_api::time::Timestamp;
use sandcrab_runtime::{Condition, DriverError, Exit, InstanceId};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub(super) type Reply<T> = oneshot::Sender<Result<T, ApiError>>;
pub(super) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Between two starts that fail: doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What others ask of an owner.
pub(super) enum Message {
    /// Have the sandbox run.
    Ensure(Reply<Arc<Live>>),
    /// Have it run if there is one.
    Wake(Reply<Arc<Live>>),
    /// Have the sandbox exist with these options.
    Put(Box<CreateSandbox>, Reply<(Arc<SandboxInfo>, bool)>),
    /// Take it away.
    Destroy(Reply<()>),
    /// End what runs in it, and keep its files.
    Stop(StopSignal, Reply<()>),
    /// The driver says how the instance fares.
    Fares(InstanceId, Condition),
}

impl Message {
    /// Whether the one who asked has gone.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Ensure(reply) | Self::Wake(reply) => reply.is_closed(),
            Self::Put(_, reply) => reply.is_closed(),
            Self::Destroy(_) | Self::Stop(..) | Self::Fares(..) => false,
        }
    }

    pub(super) fn fail(self, error: ApiError) {
        // An asker who has gone away needs no answer.
        let _gone = match self {
            Self::Ensure(reply) | Self::Wake(reply) => reply.send(Err(error)).is_err(),
            Self::Put(_, reply) => reply.send(Err(error)).is_err(),
            Self::Destroy(reply) | Self::Stop(_, reply) => reply.send(Err(error)).is_err(),
            Self::Fares(..) => false,
        };
    }
}

/// What a sandbox is, as long as it is one.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) instance: InstanceId,
    pub(super) options: Options,
    /// The limits in force, once the driver has said so.
    pub(super) limits: Limits,
    pub(super) created_at: Timestamp,
    pub(super) last_change: Timestamp,
    /// How the instance fares while it runs.
    pub(super) condition: Condition,
    /// How starting it failed lately.
    pub(super) failed: Option<Failed>,
}

/// Starts that failed one after the other.
#[derive(Clone)]
pub(super) struct Failed {
    count: u32,
    /// No further one is begun before.
    pub(super) until: Instant,
    pub(super) error: ApiError,
}

impl Failed {
    pub(super) fn again(before: Option<Self>, error: ApiError) -> Self {
        let count = before.map_or(0, |failed| failed.count) + 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (count - 1).min(10)).min(LONGEST_PAUSE);
        Self { count, until: Instant::now() + pause, error }
    }

    /// The error for those who ask before it is time.
    pub(super) fn too_early(&self) -> Option<ApiError> {
        let left = self.until.checked_duration_since(Instant::now())?;
        Some(self.error.clone().retry_after(left.as_secs() + 1))
    }
}

/// Where the sandbox stands.
pub(super) enum State {
    Absent,
    Making { it: Identity, work: Work<Result<Started, ApiError>>, first: Message },
    Running { it: Identity, live: Arc<Live>, exit: Work<End> },
    Stopping { it: Identity, live: Arc<Live>, work: Work<Stop>, waiting: Vec<Reply<()>> },
    Stopped { it: Identity, ending: Ending },
    Starting { it: Identity, ending: Ending, cause: Cause, work: Work<Result<Started, ApiError>> },
    Destroying { it: Identity, work: Work<Result<(), ApiError>>, waiting: Vec<Reply<()>> },
    Condemned { it: Identity },
    Quarantined { it: Identity, why: String },
}

/// Why a sandbox is being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It had stopped, and someone uses it.
    Used,
    /// The server started, and its agent runs: it is only to introduce itself.
    Found,
}

/// How an agent ended.
pub(super) struct End {
    pub(super) exit: Result<Exit, DriverError>,
    /// Kills for want of memory that were counted before.
    pub(super) kills_before: u64,
}

/// What came of stopping an agent: how it ended, or why it could not be stopped and what to wait for its end with.
pub(super) type Stop = Result<End, (DriverError, Work<End>)>;

pub(super) enum Progress {
    Stopped(Stop),
    Started(Result<Started, ApiError>),
    Ended(End),
    Destroyed(Result<(), ApiError>),
}

impl State {
    /// Resolves when the state's own work is done. Safe to drop and call again: the work stays in the state.
    pub(super) async fn progress(&mut self) -> Progress {
        match self {
            Self::Making { work, .. } | Self::Starting { work, .. } => Progress::Started(work.await),
            Self::Running { exit, .. } => Progress::Ended(exit.await),
            Self::Stopping { work, .. } => Progress::Stopped(work.await),
            Self::Destroying { work, .. } => Progress::Destroyed(work.await),
            Self::Absent | Self::Stopped { .. } | Self::Condemned { .. } | Self::Quarantined { .. } => {
                std::future::pending().await
            }
        }
    }

    pub(super) fn view(&self, key: &Key, not_enforced: &[&'static str]) -> View {
        let mut problem = None;
        let (life, it, status) = match self {
            Self::Absent => return View { life: Life::Absent, info: None },
            // Nothing in it moves: whoever would use it is told by its owner.
            Self::Running { it, .. } if it.condition == Condition::Held => {
                problem = Some(HELD.to_owned());
                (Life::Starting, it, SandboxStatus::Running)
            }
            Self::Quarantined { it, why } => {
                problem = Some(why.clone());
                (Life::Stopped(Ending::default()), it, SandboxStatus::Quarantined)
            }
            Self::Making { it, .. } | Self::Starting { it, .. } => {
                (Life::Starting, it, SandboxStatus::Starting)
            }
            Self::Running { it, live, .. } => (Life::Running(live.clone()), it, SandboxStatus::Running),
            // Whoever comes now waits for its next start.
            Self::Stopping { it, .. } => (Life::Starting, it, SandboxStatus::Running),
            Self::Stopped { it, ending } => (Life::Stopped(*ending), it, SandboxStatus::Stopped),
            Self::Destroying { it, .. } | Self::Condemned { it } => {
                (Life::Destroying, it, SandboxStatus::Destroying)
            }
        };
        match self {
            Self::Stopped { it: Identity { failed: Some(failed), .. }, .. } => {
                problem = Some(format!("it does not start: {}", failed.error.message));
            }
            Self::Starting { it: Identity { condition: Condition::Held, .. }, .. } => {
                problem = Some(HELD.to_owned());
            }
            _ => {}
        }
        let Identity { options, limits, created_at, last_change, .. } = it.clone();
        let info = SandboxInfo {
            id: key.1.clone(),
            status,
            image: options.image,
            network: options.network,
            isolation: options.isolation.resolved(),
            limits,
            sleep_after: options.sleep_after,
            keep_alive: options.keep_alive,
            labels: options.labels,
            created_at,
            last_change,
            not_enforced: not_enforced.iter().map(|&limit| limit.to_owned()).collect(),
            problem,
        };
        View { life, info: Some(Arc::new(info)) }
    }
}

/// Why a sandbox was ended whose disk failed.
pub(super) const DAMAGED: &str = "its disk could not take what was written, as where the host's disk is full; it was ended, and its \
                       disk is put right when it is used again";

/// Why nothing in a sandbox runs.
pub(super) const HELD: &str =
    "the host's disk is about to be full: the sandbox stands still until there is room, and loses nothing";
