//! Code contexts (contracts K01, K02): interpreters that keep what each run leaves behind, one process for each context.
//!
//! A [`context::Context`] owns its interpreter through one task; an [`executor::Executor`] is that process; [`run::Run`] is
//! one piece of code on its way, which callers follow. Nothing here runs before the first use of a language.

mod answer;
mod channel;
mod context;
mod executor;
pub(crate) mod http;
mod interpreter;
mod journal;
mod output;
mod run;
mod runs;
mod spares;

use crate::agent::Agent;
use crate::files::{FilePath, Files};
use crate::fingerprint::Fingerprint;
use crate::session::registry::StartPoint;
use crate::session::task::Context as Host;
use context::{Context, ContextTerms, Shared, not_found};
use run::{Run, StopReason};
use sandcrab_api::code::{CodeContext, CodeLanguage, CreateCodeContext, RunCodeRequest};
use sandcrab_api::limits::MAX_CODE_CONTEXTS;
use sandcrab_api::{ApiError, ContextId, ErrorCode, RunId, SessionId, validate};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// All code contexts of the sandbox.
pub(crate) struct CodeContexts {
    shared: Arc<Shared>,
    files: Files,
    agent: Weak<Agent>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<ContextId, Arc<Context>>,
    /// The contexts of runs that name none, by session and language.
    defaults: HashMap<(Option<SessionId>, CodeLanguage), ContextId>,
}

impl CodeContexts {
    /// No contexts yet. `agent` tells where programs of sessions begin.
    pub(crate) fn new(host: Arc<Host>, files: Files, agent: Weak<Agent>) -> Self {
        let sessions = agent.clone();
        let start_point = move |session: Option<SessionId>| {
            let agent = sessions.upgrade();
            let point: futures_util::future::BoxFuture<'static, _> = Box::pin(async move {
                let Some(agent) = agent else {
                    return Err(ApiError::new(ErrorCode::CodeExecutionError, "the agent ends"));
                };
                agent.start_point(session.as_ref()).await
            });
            point
        };
        let shared = Shared {
            spares: spares::Spares::new(host.spawner.clone()),
            runs: runs::Runs::default(),
            start_point: Box::new(start_point),
            host,
        };
        Self { shared: Arc::new(shared), files, agent, inner: Mutex::default() }
    }

    fn enter_session(&self, session: Option<&SessionId>) -> Result<(), ApiError> {
        self.agent.upgrade().map_or(Ok(()), |agent| agent.enter_session(session))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // One that a fault ended is there no more.
        inner.by_id.retain(|_, context| !context.has_ended());
        inner
    }

    /// Makes a context; it can run code when this returns.
    pub(crate) async fn create(&self, request: CreateCodeContext) -> Result<CodeContext, ApiError> {
        validate::create_code_context(&request)?;
        self.require_room()?;
        self.enter_session(request.session_id.as_ref())?;
        let given = (self.shared.start_point)(None).await?;
        let begin = (self.shared.start_point)(request.session_id.clone()).await?;
        let begin = begin.with(&Default::default(), request.cwd.as_deref());
        let terms = ContextTerms {
            language: request.language,
            follows: None,
            cwd: begin.cwd.to_string_lossy().into_owned(),
            env: request.env_vars,
            timeout: request.timeout,
        };
        self.find_interpreter(&terms, &begin).await?;
        if request.cwd.is_some() {
            let directory = FilePath::new(Path::new(&self.shared.host.workspace), terms.cwd.clone());
            self.files.mkdir(directory, true, None).await.map_err(|error| error.with("field", "cwd"))?;
        }
        let context = self.insert(terms, begin, given, None)?;
        if let Err(error) = context.ready().await {
            self.forget(&context);
            context.delete(&self.shared.runs).await;
            return Err(error);
        }
        Ok(context.info())
    }

    async fn find_interpreter(&self, terms: &ContextTerms, point: &StartPoint) -> Result<(), ApiError> {
        let begin = point.clone().with(&terms.env, None);
        let path = begin.environment.get(&b"PATH"[..]).map_or(&b""[..], Vec::as_slice);
        interpreter::find(&self.files, terms.language, path, &begin.cwd).await.map(drop)
    }

    fn require_room(&self) -> Result<(), ApiError> {
        let value = self.lock().by_id.len();
        if value < MAX_CODE_CONTEXTS {
            return Ok(());
        }
        let message = format!("the sandbox has {MAX_CODE_CONTEXTS} code contexts, the most that it may hold");
        Err(ApiError::new(ErrorCode::QuotaExceeded, message)
            .with("limit", MAX_CODE_CONTEXTS)
            .with("value", value)
            .with("scope", "codeContexts")
            .suggest("Delete contexts that are not needed."))
    }

    /// Brings a context to life; `default_of` makes it the one of runs that name none.
    fn insert(
        &self,
        terms: ContextTerms,
        begin: StartPoint,
        given: StartPoint,
        default_of: Option<(Option<SessionId>, CodeLanguage)>,
    ) -> Result<Arc<Context>, ApiError> {
        self.require_room()?;
        let id = random(ContextId::parse)?;
        let mut inner = self.lock();
        if let Some(key) = default_of {
            // Another run may have made it meanwhile.
            if let Some(context) = inner.defaults.get(&key).and_then(|id| inner.by_id.get(id)) {
                return Ok(Arc::clone(context));
            }
            inner.defaults.insert(key, id.clone());
        }
        let context = Context::start(Arc::clone(&self.shared), id.clone(), terms, begin, given);
        inner.by_id.insert(id, Arc::clone(&context));
        Ok(context)
    }

    fn forget(&self, context: &Context) {
        let mut inner = self.lock();
        inner.by_id.remove(&context.id);
        inner.defaults.retain(|_, id| *id != context.id);
    }

    /// All contexts by age.
    pub(crate) fn list(&self) -> Vec<CodeContext> {
        let mut list: Vec<_> = self.lock().by_id.values().map(|context| context.info()).collect();
        list.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        list
    }

    fn get(&self, id: &ContextId) -> Result<Arc<Context>, ApiError> {
        self.lock().by_id.get(id).cloned().ok_or_else(|| not_found(id))
    }

    /// Deletes a context: nothing of its interpreter, nor of what that started, is left when this returns.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`.
    pub(crate) async fn delete(&self, id: &ContextId) -> Result<(), ApiError> {
        let context = self.get(id)?;
        context.delete(&self.shared.runs).await;
        self.forget(&context);
        Ok(())
    }

    /// Queues code. The run that has the same id already is returned instead, so that a client may send a request again
    /// whose answer it did not see.
    pub(crate) async fn run(&self, request: RunCodeRequest) -> Result<Arc<Run>, ApiError> {
        validate::run_code(&request)?;
        let id = request.run_id.clone().map_or_else(|| random(RunId::parse), Ok)?;
        let fingerprint = Fingerprint::of_run(&request);
        if let Some(known) = self.shared.runs.known(&id, fingerprint)? {
            return Ok(known);
        }
        let context = self.context_of(&request).await?;
        // The code, and the same on its way to the interpreter.
        let room = self.shared.host.room.take(2 * request.code.len())?;
        let host = &self.shared.host;
        let run = Run::new(id.clone(), context.id.clone(), request, &host.spool, Some(room));
        // Looking for the context may have taken a while.
        if let Some(known) = self.shared.runs.known(&id, fingerprint)? {
            return Ok(known);
        }
        self.shared.runs.insert(&run);
        if let Err(error) = context.push(Arc::clone(&run)) {
            self.shared.runs.refuse(&run);
            return Err(error);
        }
        Ok(run)
    }

    async fn context_of(&self, request: &RunCodeRequest) -> Result<Arc<Context>, ApiError> {
        if let Some(id) = &request.context_id {
            let context = self.get(id)?;
            let language = context.terms.language;
            if request.language.is_some_and(|wanted| wanted != language) {
                return Err(ApiError::invalid("language", format!("context {id} runs {language}"))
                    .with("contextId", id.as_str()));
            }
            return Ok(context);
        }
        self.enter_session(request.session_id.as_ref())?;
        let key = (request.session_id.clone(), request.language.unwrap_or_default());
        if let Some(context) = {
            let inner = self.lock();
            inner.defaults.get(&key).and_then(|id| inner.by_id.get(id)).cloned()
        } {
            return Ok(context);
        }
        let point = (self.shared.start_point)(key.0.clone()).await?;
        let terms = ContextTerms {
            language: key.1,
            follows: key.0.clone(),
            cwd: point.cwd.to_string_lossy().into_owned(),
            env: Default::default(),
            timeout: None,
        };
        self.find_interpreter(&terms, &point).await?;
        self.insert(terms, point.clone(), point, Some(key))
    }

    /// The run with this id.
    ///
    /// # Errors
    /// `EXEC_NOT_FOUND`.
    pub(crate) fn get_run(&self, id: &RunId) -> Result<Arc<Run>, ApiError> {
        self.shared.runs.get(id)
    }

    /// Interrupts a run, and waits for its end. One that has ended stays as it is.
    pub(crate) async fn cancel(&self, run: &Arc<Run>) {
        self.shared.runs.stop(run, StopReason::Cancelled, || context::cancelled(run, false));
        run.finished().await;
    }
}

/// An id that nobody else has.
fn random<T, E: std::fmt::Display>(parse: impl Fn(&str) -> Result<T, E>) -> Result<T, ApiError> {
    // Cannot fail: the text keeps the rule of ids.
    parse(&format!("{:032x}", rand::random::<u128>()))
        .map_err(|error| ApiError::invalid("id", error.to_string()))
}
