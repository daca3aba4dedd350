//! One change of an instance at a time: creating, starting and destroying take turns, whoever asks for them.

use crate::driver::InstanceId;
use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The instances that are being changed.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: Mutex<HashSet<InstanceId>>,
    freed: Condvar,
}

/// The right to change an instance, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    id: InstanceId,
}

impl Turns {
    fn taken(&self) -> MutexGuard<'_, HashSet<InstanceId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn if nobody has it.
    pub(super) fn try_take(self: &Arc<Self>, id: &InstanceId) -> Option<Turn> {
        self.taken().insert(id.clone()).then(|| Turn { turns: self.clone(), id: id.clone() })
    }

    /// Takes the turn; blocks while somebody has it.
    pub(super) fn take(self: &Arc<Self>, id: &InstanceId) -> Turn {
        let busy = |taken: &mut HashSet<InstanceId>| !taken.insert(id.clone());
        drop(self.freed.wait_while(self.taken(), busy).unwrap_or_else(PoisonError::into_inner));
        Turn { turns: self.clone(), id: id.clone() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.taken().remove(&self.id);
        self.turns.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_at_a_time_for_each_instance() {
        let turns = Arc::new(Turns::default());
        let (id, other) = (InstanceId::random(), InstanceId::random());
        let first = turns.take(&id);
        assert!(turns.try_take(&id).is_none());
        assert!(turns.try_take(&other).is_some());
        let inside = AtomicUsize::new(1);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _turn = turns.take(&id);
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
            inside.store(0, Ordering::SeqCst);
            drop(first);
        });
        assert!(turns.try_take(&id).is_some());
    }
}
