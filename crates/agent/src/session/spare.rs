//! A shell that is up before its session is: bash takes longer to start than everything else that a first command needs.
//!
//! One is begun as the agent starts, beside the agent's own start, for the session that most sandboxes have. Another
//! follows behind the first command of each further session: who makes two may make three. A spare has run nothing of
//! anyone's; what a session is given, its directory and its variables, reaches it with the first command.

use super::task::Context;
use crate::files::Files;
use crate::shell::{self, SessionConfig};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a spare waits for a session. An idle bash is charged a third of a megabyte to the sandbox.
const KEEP: Duration = Duration::from_secs(60);

/// The spare shell of a sandbox, if it has one.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Option<Spare>>);

#[derive(Debug)]
struct Spare {
    shell: shell::Session,
    /// The directory that it is in, by device and inode: another one may have its name by now.
    place: Place,
    /// Dropping it ends the task that would let the spare go in time.
    _keeper: oneshot::Sender<()>,
}

type Place = (u32, u32, u64);

impl Spares {
    /// The shell of a session that is about to begin, if the spare can be it.
    pub(crate) fn take(
        &self,
        config: &SessionConfig,
        files: &Files,
        workspace: &str,
    ) -> Option<shell::Session> {
        let mut spare = self.slot().take()?;
        if files.directory(Path::new(workspace)).is_some_and(|now| now == spare.place) {
            if spare.shell.adopt(config) {
                return Some(spare.shell);
            }
            *self.slot() = Some(spare);
        } else {
            tokio::spawn(end(spare.shell));
        }
        None
    }

    fn slot(&self) -> MutexGuard<'_, Option<Spare>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that there is a spare. Blocks for as long as starting a process does; the shell comes up by itself.
pub(crate) fn prepare(context: &Arc<Context>) {
    if context.spares.slot().is_some() {
        return;
    }
    let (keeper, taken) = oneshot::channel();
    let begun = begin(context).map(|(shell, place)| Spare { shell, place, _keeper: keeper });
    match begun {
        Ok(spare) => *context.spares.slot() = Some(spare),
        // Whoever wants a shell starts one, and says what is wrong with that.
        Err(error) => return tracing::info!(%error, "no spare shell"),
    }
    let context = Arc::downgrade(context);
    tokio::spawn(async move {
        if tokio::time::timeout(KEEP, taken).await.is_err()
            && let Some(context) = context.upgrade()
        {
            let spare = context.spares.slot().take();
            if let Some(spare) = spare {
                end(spare.shell).await;
            }
        }
    });
}

fn begin(context: &Context) -> io::Result<(shell::Session, Place)> {
    let place = context.files.directory(Path::new(&context.workspace));
    let place = place.ok_or_else(|| io::Error::other("the workspace is not there"))?;
    let config = SessionConfig::new(context.workspace.clone(), context.env.clone(), context.shell.clone());
    let mut shell = shell::Session::new(config, context.spawner.clone())?;
    if !shell.begin().map_err(io::Error::other)? {
        return Err(io::Error::other("commands have shells of their own"));
    }
    Ok((shell, place))
}

async fn end(shell: shell::Session) {
    if let Err(error) = shell.end().await {
        tracing::warn!(%error, "a spare shell could not be ended");
    }
}
