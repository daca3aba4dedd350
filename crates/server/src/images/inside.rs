//! A sandbox that the server uses for work of its own. What answers in it is trusted no more than in any other.

use super::BuildError;
use crate::proxy::{Pool, PoolError};
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use sandcrab_api::exec::{ExecRequest, ExecResult};
use sandcrab_api::files::{ListFiles, ListFilesResult};
use sandcrab_api::sandbox::Network;
use sandcrab_api::{ApiError, SandboxId};
use sandcrab_runtime::{Driver, InstanceId, SandboxSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWrite;

/// The longest answer that is read as a whole.
const ANSWER: usize = 1 << 20;
/// What is kept of a program's output: enough to see why it failed.
const OUTPUT: u64 = 64 << 10;
/// How long an agent may take to answer anything but a command, or to send or take any one file.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// Every sandbox that one piece of work made, so that each is taken away however the work ends.
pub(super) struct Made {
    driver: Arc<dyn Driver>,
    instances: Mutex<Vec<InstanceId>>,
}

impl Made {
    pub(super) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, instances: Mutex::default() }
    }

    /// Makes a sandbox of an image.
    pub(super) async fn make(
        &self,
        image: &str,
        network: Network,
        sandbox: &str,
    ) -> Result<Inside, BuildError> {
        let instance = InstanceId::random();
        self.instances.lock().unwrap_or_else(PoisonError::into_inner).push(instance.clone());
        let spec = SandboxSpec {
            sandbox: SandboxId::parse(sandbox).map_err(|error| BuildError::Name(error.to_string()))?,
            image: image.to_owned(),
            limits: Default::default(),
            network,
            isolation: Default::default(),
            env: BTreeMap::new(),
        };
        self.driver.create(&instance, &spec).await?;
        let pool = Pool::new(self.driver.clone(), instance.clone());
        Ok(Inside { instance, pool })
    }

    /// Takes away every sandbox that was made.
    pub(super) async fn destroy(&self) {
        let instances = std::mem::take(&mut *self.instances.lock().unwrap_or_else(PoisonError::into_inner));
        for instance in instances {
            if let Err(error) = self.driver.destroy(&instance).await {
                // The server's next start removes it: no sandbox of the store has it.
                tracing::error!(%instance, error = crate::chain(&error), "a sandbox for a build was not removed");
            }
        }
    }
}

/// One such sandbox.
pub(super) struct Inside {
    pub(super) instance: InstanceId,
    pool: Pool,
}

/// How a command ended.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Inside {
    /// Runs a command in a shell of its own; an error if it takes longer than `limit`.
    pub(super) async fn run(
        &self,
        step: &'static str,
        command: &str,
        env: &BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<Ran, BuildError> {
        let request = ExecRequest {
            command: command.to_owned(),
            fresh: true,
            timeout: Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            env: env.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
            max_output_bytes: Some(OUTPUT),
            ..ExecRequest::default()
        };
        // The agent keeps the limit itself; one that does not is not waited for.
        let result: ExecResult = self.post(step, "/exec", &request, limit + ANSWER_TIME).await?;
        Ok(Ran { code: result.outcome.exit_code, stdout: result.stdout, stderr: result.stderr })
    }

    /// As [`Self::run`], for a command that must succeed.
    pub(super) async fn must(
        &self,
        step: &'static str,
        command: &str,
        env: &BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<String, BuildError> {
        let ran = self.run(step, command, env, limit).await?;
        if ran.code == 0 { Ok(ran.stdout) } else { Err(BuildError::failed(step, &ran)) }
    }

    /// The names in a directory.
    pub(super) async fn names(&self, step: &'static str, path: &str) -> Result<Vec<String>, BuildError> {
        let request =
            ListFiles { path: path.to_owned(), recursive: false, include_hidden: false, session_id: None };
        let list: ListFilesResult = self.post(step, "/files/list", &request, ANSWER_TIME).await?;
        Ok(list.files.into_iter().map(|file| file.name).collect())
    }

    /// Writes a file.
    pub(super) async fn put(&self, step: &'static str, path: &str, content: Body) -> Result<(), BuildError> {
        let request = Request::builder()
            .method(Method::PUT)
            .uri(content_of(path))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(content);
        self.call(step, request, ANSWER_TIME).await.map(drop)
    }

    /// Copies a file of this machine into the sandbox.
    pub(super) async fn put_file(
        &self,
        step: &'static str,
        path: &str,
        from: &Path,
    ) -> Result<(), BuildError> {
        let file = tokio::fs::File::open(from).await.map_err(BuildError::io("open", from))?;
        self.put(step, path, Body::from_stream(tokio_util::io::ReaderStream::new(file))).await
    }

    /// Copies a file out, of at most `bound` bytes.
    pub(super) async fn get<W: AsyncWrite + Unpin>(
        &self,
        step: &'static str,
        path: &str,
        to: &mut W,
        bound: u64,
    ) -> Result<(), BuildError> {
        let request = Request::builder().uri(content_of(path)).body(Body::empty());
        let request = request.map_err(|error| BuildError::Name(error.to_string()))?;
        let got = tokio::time::timeout(ANSWER_TIME, self.pool.download(request, to, bound)).await;
        let status = got
            .map_err(|_| BuildError::Late { step })?
            .map_err(|source| BuildError::Agent { step, source })?;
        if status == StatusCode::OK {
            Ok(())
        } else {
            Err(BuildError::Refused { step, message: format!("{path}: {status}") })
        }
    }

    async fn post<T: DeserializeOwned>(
        &self,
        step: &'static str,
        path: &str,
        request: &impl Serialize,
        limit: Duration,
    ) -> Result<T, BuildError> {
        let own = |source| BuildError::Agent { step, source: PoolError::OwnForm(source) };
        let body = serde_json::to_vec(request).map_err(own)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body));
        let answer = self.call(step, request, limit).await?;
        serde_json::from_slice(&answer).map_err(own)
    }

    async fn call(
        &self,
        step: &'static str,
        request: http::Result<Request<Body>>,
        limit: Duration,
    ) -> Result<Bytes, BuildError> {
        let request = request.map_err(|error| BuildError::Name(error.to_string()))?;
        let answer = tokio::time::timeout(limit, self.pool.call(request, ANSWER)).await;
        let (status, body) = answer
            .map_err(|_| BuildError::Late { step })?
            .map_err(|source| BuildError::Agent { step, source })?;
        if status.is_success() {
            return Ok(body);
        }
        let message = match serde_json::from_slice::<ApiError>(&body) {
            Ok(error) => error.message,
            Err(_) => status.to_string(),
        };
        Err(BuildError::Refused { step, message })
    }
}

/// The address of a file's bytes. Paths here are of letters, digits and marks that need no escape, but for `+`.
fn content_of(path: &str) -> String {
    format!("/files/content?path={}", path.replace('+', "%2B"))
}
