//! Interpreters that are up before anyone asks: one for each language that was used lately, started behind an answer and
//! kept for a while. A spare has run no code of anyone's.

use super::executor::{Executor, Start, StartError};
use super::interpreter::{Programs, is_fixed};
use crate::spawn::Spawner;
use sandcrab_api::code::CodeLanguage;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a spare waits for a context.
const KEEP: Duration = Duration::from_secs(300);

/// Starts executors, and keeps the spare ones.
#[derive(Clone)]
pub(super) struct Spares(Arc<Inner>);

struct Inner {
    spawner: Spawner,
    programs: Programs,
    slots: Mutex<HashMap<CodeLanguage, Slot>>,
}

enum Slot {
    /// On its way.
    Starting,
    Ready {
        executor: Box<Executor>,
        start: Start,
        /// Dropping it ends the task that would let the spare go in time.
        _keeper: oneshot::Sender<()>,
    },
}

/// Whether a spare that was started so can become what is wanted: what an interpreter reads at its start is the same.
fn fits(spare: &Start, wanted: &Start) -> bool {
    let text = |env: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>| {
        env.iter()
            .all(|(name, value)| std::str::from_utf8(name).is_ok() && std::str::from_utf8(value).is_ok())
    };
    let fixed = |start: &Start| {
        let fixed = start.env.iter().filter(|(name, _)| is_fixed(name));
        fixed.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    spare.program == wanted.program && text(&wanted.env) && fixed(spare) == fixed(wanted)
}

impl Spares {
    pub(super) fn new(spawner: Spawner) -> Self {
        Self(Arc::new(Inner { spawner, programs: Programs::default(), slots: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CodeLanguage, Slot>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An executor for a context: the spare if it fits, else one that is started now.
    pub(super) async fn executor(&self, start: &Start) -> Result<Executor, StartError> {
        if let Some(mut executor) = self.take(start)
            && executor.set_up(&start.env, &start.cwd).is_ok()
        {
            return Ok(*executor);
        }
        Executor::start(&self.0.spawner, &self.0.programs, start)?.ready().await
    }

    fn take(&self, wanted: &Start) -> Option<Box<Executor>> {
        let mut slots = self.lock();
        let (executor, start) = match slots.remove(&wanted.language)? {
            Slot::Ready { executor, start, .. } => (executor, start),
            starting @ Slot::Starting => {
                slots.insert(wanted.language, starting);
                return None;
            }
        };
        drop(slots);
        if executor.lives() && fits(&start, wanted) {
            return Some(executor);
        }
        tokio::spawn(executor.end());
        None
    }

    /// Sees to it that there will be a spare like this. One that is there or on its way is enough.
    pub(super) fn prepare(&self, start: Start) {
        if self.lock().contains_key(&start.language) {
            return;
        }
        self.lock().insert(start.language, Slot::Starting);
        let this = self.clone();
        tokio::spawn(async move {
            let language = start.language;
            let executor = match Executor::start(&this.0.spawner, &this.0.programs, &start) {
                Ok(executor) => executor.ready().await,
                Err(error) => Err(error),
            };
            match executor {
                Ok(executor) => this.keep(language, executor, start).await,
                Err(error) => {
                    tracing::info!(%language, %error, "no spare interpreter");
                    this.lock().remove(&language);
                }
            }
        });
    }

    /// Holds a spare until somebody takes it or its time is over.
    async fn keep(&self, language: CodeLanguage, executor: Executor, start: Start) {
        let (keeper, taken) = oneshot::channel();
        let slot = Slot::Ready { executor: Box::new(executor), start, _keeper: keeper };
        self.lock().insert(language, slot);
        if tokio::time::timeout(KEEP, taken).await.is_err() {
            let slot = self.lock().remove(&language);
            if let Some(Slot::Ready { executor, .. }) = slot {
                executor.end().await;
            }
        }
    }

    /// Whether a spare of this language is ready.
    #[cfg(test)]
    pub(super) fn has(&self, language: CodeLanguage) -> bool {
        matches!(self.lock().get(&language), Some(Slot::Ready { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k01_a_spare_fits_unless_the_interpreter_would_start_differently() {
        let start = |env: &[(&str, &str)]| Start {
            language: CodeLanguage::Python,
            program: c"/usr/bin/python3".to_owned(),
            env: env
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect(),
            cwd: c"/".to_owned(),
        };
        let spare = start(&[("A", "1"), ("HOME", "/root")]);
        assert!(fits(&spare, &start(&[("B", "2"), ("HOME", "/root")])));
        assert!(!fits(&spare, &start(&[("A", "1"), ("HOME", "/home")])));
        assert!(!fits(&spare, &start(&[("A", "1"), ("HOME", "/root"), ("PYTHONPATH", "/x")])));
        let mut bytes = start(&[("HOME", "/root")]);
        bytes.env.insert(b"A".to_vec(), b"\xff".to_vec());
        assert!(!fits(&spare, &bytes), "no message carries bytes that are no text");
    }

    #[tokio::test]
    async fn k01_a_spare_is_taken_once_and_follows_its_taker() {
        let cwd = tempfile::tempdir().unwrap();
        let path = std::os::unix::ffi::OsStrExt::as_bytes(cwd.path().as_os_str());
        let path_of = std::env::var("PATH").unwrap();
        let files = crate::files::Files::of_sandbox(&Default::default()).expect("/ opens");
        let root = std::path::Path::new("/");
        let program =
            super::super::interpreter::find(&files, CodeLanguage::Python, path_of.as_bytes(), root).await;
        let program = program.expect("this test needs python3");
        let start = |cwd: &[u8]| Start {
            language: CodeLanguage::Python,
            program: program.clone(),
            env: [(b"PATH".to_vec(), path_of.clone().into_bytes())].into(),
            cwd: std::ffi::CString::new(cwd).unwrap(),
        };
        let spares = Spares::new(Spawner::new(crate::spawn::Identity::default()));
        spares.prepare(start(b"/"));
        spares.prepare(start(b"/"));
        let ready = async {
            while !spares.has(CodeLanguage::Python) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ready).await.expect("a spare comes up");
        let executor = spares.executor(&start(path)).await.unwrap();
        assert!(!spares.has(CodeLanguage::Python), "it is taken");
        let other = spares.executor(&start(path)).await.unwrap();
        executor.end().await;
        assert!(other.lives(), "the next one is another");
        other.end().await;
    }
}
