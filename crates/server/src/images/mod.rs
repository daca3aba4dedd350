//! Images that are built: at their first use or when somebody asks, once for all who wait.
//!
//! What an image is and where it lies is the driver's; the server has it built in sandboxes of the driver (see
//! [`build`]) and hands over what came of it.

mod build;
mod inside;
mod pip;
mod wheels;

use crate::proxy::PoolError;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use inside::{Made, Ran};
use sandcrab_api::image::{ImageInfo, ImageStatus};
use sandcrab_api::{ApiError, ErrorCode};
use sandcrab_runtime::image::python;
use sandcrab_runtime::{Driver, DriverError};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wheels::Wheels;

/// What the sandboxes of a build are called, in records and as their host name.
const SANDBOX: &str = "image-python";
/// How long a build may take altogether: its steps have bounds of their own, and one may wait for another server's.
const BUILD: Duration = Duration::from_secs(45 * 60);
/// After how long it makes sense to try a build again that failed for want of something outside.
const RETRY_SECONDS: u64 = 10;
/// How long a server that ends waits for the sandboxes of a build to be gone.
const END: Duration = Duration::from_secs(30);
/// Lines of a program's output that an error repeats.
const LINES: usize = 6;

/// A build that runs, for all who wait for it.
type Flight = Shared<BoxFuture<'static, Result<(), ApiError>>>;

/// Builds images. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Images {
    shared: Arc<Common>,
}

struct Common {
    driver: Arc<dyn Driver>,
    wheels: Wheels,
    /// By the image's name.
    flights: Mutex<HashMap<String, Flight>>,
    ending: watch::Sender<bool>,
}

/// Why an image was not built.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("this machine has no python3 that sandboxes see")]
    NoPython,
    #[error("this machine's Python {python} has no pip that sandboxes see")]
    NoPip { python: String },
    #[error("there is no lock for Python {python} on {machine} with {libc}")]
    NoLock { python: String, machine: String, libc: String },
    #[error("step {step:?}: exit code {code}: {output}")]
    Failed { step: &'static str, code: i32, output: String },
    #[error("step {step:?}: {message}")]
    Refused { step: &'static str, message: String },
    #[error("step {step:?} took too long")]
    Late { step: &'static str },
    #[error("step {step:?}: the sandbox did not answer as it should")]
    Agent { step: &'static str, source: PoolError },
    #[error("step \"sandbox\"")]
    Driver(#[from] DriverError),
    #[error("step \"files\": {operation} {path:?}")]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Name(String),
    #[error("it was not done after {} minutes", BUILD.as_secs() / 60)]
    TooLong,
    #[error("the server ended")]
    Ended,
}

impl BuildError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }

    fn failed(step: &'static str, ran: &Ran) -> Self {
        let said = if ran.stderr.trim().is_empty() { &ran.stdout } else { &ran.stderr };
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        let output = lines[lines.len().saturating_sub(LINES)..].join("; ");
        Self::Failed { step, code: ran.code, output: pip::without_logins(&output) }
    }

    fn step(&self) -> &'static str {
        match self {
            Self::NoPython | Self::NoPip { .. } | Self::NoLock { .. } => "look",
            Self::Failed { step, .. } | Self::Refused { step, .. } => step,
            Self::Late { step } | Self::Agent { step, .. } => step,
            Self::Driver(_) => "sandbox",
            Self::Io { .. } => "files",
            Self::Name(_) | Self::TooLong | Self::Ended => "build",
        }
    }

    /// As a caller hears of it.
    fn answer(&self, image: &str, wheels: &Path) -> ApiError {
        let message = format!("image {image} could not be built: {}", crate::chain(self));
        let code = match self {
            Self::NoPython | Self::NoPip { .. } | Self::NoLock { .. } => ErrorCode::PythonNotAvailable,
            _ => ErrorCode::ContainerUnavailable,
        };
        let error = ApiError::new(code, message).with("image", image).with("step", self.step());
        match self {
            Self::NoPython | Self::NoPip { .. } => error.suggest(
                "Install python3 and python3-pip on the server's machine, below /usr, or use the image `host`.",
            ),
            Self::NoLock { .. } => {
                let targets: Vec<&str> = python::targets().collect();
                error.suggest(format!(
                    "The image is made for {} with glibc 2.28 or newer; elsewhere use the image `host` and pip.",
                    targets.join(", ")
                ))
            }
            Self::Failed { step: "fetch", .. } | Self::Refused { step: "fetch", .. } | Self::Late { step: "fetch" } => {
                error.retry_after(RETRY_SECONDS).suggest(format!(
                    "See that the server's machine reaches its package index: the server takes PIP_INDEX_URL, PIP_CERT, \
                     HTTPS_PROXY and pip's configuration files into account. Without an index, put the wheels of the \
                     lock into {}.",
                    wheels.display()
                ))
            }
            _ => error
                .retry_after(RETRY_SECONDS)
                .suggest("Try again with `sandcrab image build`; the server's log and `sandcrab doctor` say more."),
        }
    }
}

impl Images {
    /// Builds with the sandboxes of `driver`; wheels and what is not whole yet lie below `dir`.
    pub(crate) fn new(driver: Arc<dyn Driver>, dir: &Path) -> Self {
        let wheels = Wheels::new(build::place(dir));
        let flights = Mutex::default();
        Self { shared: Arc::new(Common { driver, wheels, flights, ending: watch::Sender::new(false) }) }
    }

    /// The images there are.
    pub(crate) async fn list(&self) -> Result<Vec<ImageInfo>, ApiError> {
        let found = self.shared.driver.images().await;
        let found = found.map_err(|error| crate::http::internal("listImages", &error))?;
        let flights = self.shared.flights();
        let info = |image: sandcrab_runtime::ImageInfo| ImageInfo {
            status: match &image.key {
                Some(_) if !image.is_former => ImageStatus::Ready,
                Some(_) => ImageStatus::Outdated,
                None if flights.contains_key(&image.name) => ImageStatus::Building,
                None => ImageStatus::Unbuilt,
            },
            key: image.key,
            size: image.size,
            sandboxes: image.instances as u64,
            name: image.name,
        };
        Ok(found.into_iter().map(info).collect())
    }

    async fn info(&self, name: &str) -> Result<ImageInfo, ApiError> {
        let list = self.list().await?;
        let known: Vec<String> = list.iter().map(|image| image.name.clone()).collect();
        let found = list.into_iter().find(|image| image.name == name);
        found.ok_or_else(|| unknown("name", &DriverError::ImageNotFound { image: name.to_owned(), known }))
    }

    /// Builds an image unless it is there.
    pub(crate) async fn build(&self, name: &str) -> Result<ImageInfo, ApiError> {
        if self.info(name).await?.status != ImageStatus::Ready {
            self.ensure(name).await?;
        }
        self.info(name).await
    }

    /// Builds anew, beside what serves, the images that an earlier release built in another way.
    pub(crate) async fn refresh(&self) {
        match self.list().await {
            Ok(images) => {
                let outdated = images.into_iter().filter(|image| image.status == ImageStatus::Outdated);
                for image in outdated {
                    // What keeps it from being built is in the log; what is there serves on.
                    let _logged = self.ensure(&image.name).await;
                }
            }
            Err(error) => tracing::warn!(%error, "the images could not be looked at"),
        }
    }

    /// Removes what was built for an image; whether there was anything.
    pub(crate) async fn remove(&self, name: &str) -> Result<bool, ApiError> {
        match self.shared.driver.remove_image(name).await {
            Ok(removed) => Ok(removed),
            Err(error @ DriverError::ImageNotFound { .. }) => Err(unknown("name", &error)),
            Err(error @ DriverError::ImageInUse { instances, .. }) => {
                Err(ApiError::new(ErrorCode::ResourceBusy, error.to_string())
                    .with("image", name)
                    .with("sandboxes", instances)
                    .suggest("Destroy the sandboxes that are made of it first."))
            }
            Err(error) => Err(crate::http::internal("removeImage", &error)),
        }
    }

    /// Builds an image that the driver says is not built. Whoever else asks meanwhile waits for the same build and hears
    /// the same; it goes on if nobody waits any more.
    pub(crate) async fn ensure(&self, name: &str) -> Result<(), ApiError> {
        let flight = {
            let mut flights = self.shared.flights();
            let begin = || start(self.shared.clone(), name.to_owned());
            flights.entry(name.to_owned()).or_insert_with(begin).clone()
        };
        flight.await
    }

    /// Ends all builds and waits until their sandboxes are gone.
    pub(crate) async fn end(&self) {
        self.shared.ending.send_replace(true);
        let flights: Vec<Flight> = self.shared.flights().values().cloned().collect();
        let ended = futures_util::future::join_all(flights);
        if tokio::time::timeout(END, ended).await.is_err() {
            tracing::warn!("sandboxes of a build are left; the server's next start removes them");
        }
    }
}

impl Common {
    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<String, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn build(&self, name: &str) -> Result<(), BuildError> {
        let began = std::time::Instant::now();
        let made = Made::new(self.driver.clone());
        let work = async {
            let _lock = self.wheels.lock().await?;
            // Another server that shares the images may have built it meanwhile.
            let images = self.driver.images().await?;
            let image = images.iter().find(|image| image.name == name);
            if image.is_some_and(|image| image.key.is_some() && !image.is_former) {
                return Ok(());
            }
            tracing::info!(image = name, "building an image");
            build::build(&self.driver, &self.wheels, &made, &python::recipe().base).await
        };
        let mut ending = self.ending.subscribe();
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = tokio::time::sleep(BUILD) => Err(BuildError::TooLong),
            _ = ending.wait_for(|ending| *ending) => Err(BuildError::Ended),
        };
        made.destroy().await;
        if outcome.is_ok() {
            tracing::info!(image = name, seconds = began.elapsed().as_secs(), "the image is there");
        }
        outcome
    }
}

fn start(shared: Arc<Common>, name: String) -> Flight {
    let task = tokio::spawn(async move {
        let outcome = shared.build(&name).await.map_err(|error| {
            tracing::error!(image = name, error = crate::chain(&error), "an image could not be built");
            error.answer(&name, shared.wheels.dir())
        });
        // Before anyone hears of it: who asks after a failure begins a new build.
        shared.flights().remove(&name);
        outcome
    });
    let joined =
        async move { task.await.unwrap_or_else(|panic| Err(crate::http::internal("buildImage", &panic))) };
    joined.boxed().shared()
}

/// There is no such image: the field that names it is at fault.
pub(crate) fn unknown(field: &str, error: &DriverError) -> ApiError {
    let known = match error {
        DriverError::ImageNotFound { known, .. } => known.clone(),
        _ => Vec::new(),
    };
    ApiError::invalid(field, error.to_string()).with("images", known)
}
