//! What a server finds of its instances when it starts, and what it removes.
//!
//! Finding is quick and removes nothing. Whatever is wrong with one instance, and whatever its contents are, it is set
//! aside by itself: the others are served.

use super::process::{self, Process};
use super::record::Record;
use super::{Live, Shared};
use crate::driver::{Condition, DriverError, Exit, InstanceId, Result};
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

/// An instance that is whole.
pub(super) struct Found {
    record: Record,
    /// Its first process, if that runs.
    process: Option<Process>,
}

impl Shared {
    /// The instances that are whole and that this server does not know yet.
    pub(super) fn find_all(&self) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for id in self.files.instances()? {
            // Whoever changes it now knows of it.
            let Some(_turn) = self.turns.try_take(&id) else { continue };
            if self.live().contains_key(&id) {
                continue;
            }
            match self.look(&id) {
                Ok(Some(found)) => {
                    self.quarantined().remove(&id);
                    all.push(found);
                }
                // A left-over.
                Ok(None) => {}
                Err(error) => self.set_aside(&id, &error),
            }
        }
        Ok(all)
    }

    /// None if its creation was not finished, or its removal was begun.
    fn look(&self, id: &InstanceId) -> Result<Option<Found>> {
        let (ready, acknowledged) = (self.files.is_ready(id), self.files.is_acknowledged(id));
        if !ready && !acknowledged {
            return Ok(None);
        }
        let broken = |what| DriverError::io("use", id)(io::Error::new(io::ErrorKind::InvalidData, what));
        let record = self.files.read(id)?.ok_or_else(|| broken("it has no record"))?;
        if !ready {
            return Err(broken("it is marked as one that is known, and its creation was not finished"));
        }
        if let (Some(ids), Some(range)) = (&self.ids, record.range)
            && let Err(error) = ids.keep(range)
        {
            // It can be destroyed. Whether it can be started is looked at then.
            tracing::warn!(instance = %id, %error, "an instance has lost its user ids");
        }
        if let Some(share) = record.share {
            self.shares.found(id, share);
        }
        let process = process::find(&self.files.pid(id))?;
        Ok(Some(Found { record, process }))
    }

    fn set_aside(&self, id: &InstanceId, error: &DriverError) {
        let reason = chain(error);
        tracing::error!(instance = %id, reason, "an instance cannot be used and is left as it is");
        self.quarantined().insert(id.clone(), reason);
    }

    /// Makes an instance known.
    pub(super) fn take_up(&self, found: Found) {
        let record = Arc::new(found.record);
        match found.process {
            Some(process) => {
                self.adopt(record, process);
            }
            None => {
                let (_, exit) = watch::channel(Some(Exit::Unknown));
                let acknowledged = self.files.is_acknowledged(&record.id);
                let condition = watch::Sender::new(Condition::Sound);
                self.live().insert(record.id.clone(), Live { record, acknowledged, exit, condition });
            }
        }
    }

    /// Removes what nothing needs. One that cannot be removed is set aside; blocks for as long as it takes.
    pub(super) fn tidy(&self) -> Result<()> {
        for id in self.files.instances()? {
            let Some(_turn) = self.turns.try_take(&id) else { continue };
            if self.live().contains_key(&id) || self.files.is_ready(&id) || self.files.is_acknowledged(&id) {
                continue;
            }
            tracing::info!(instance = %id, "removing what an interrupted creation or removal left");
            if let Err(error) = self.destroy(&id) {
                self.set_aside(&id, &error);
            }
        }
        self.collect_images()?;
        if let Some(ids) = &self.ids {
            ids.give_back_orphans(|id| self.creating().contains_key(id) || self.files.dir(id).exists())?;
        }
        Ok(())
    }
}

fn chain(error: &DriverError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
