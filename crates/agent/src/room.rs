//! How much memory the agent fills with what callers send (attack B14): bounded by the sandbox's own limit, because the agent
//! that exceeds it is killed, and all sessions with it.

use sandcrab_api::{ApiError, ErrorCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The part of the sandbox's memory that may be filled: the rest is its programs'.
const PART: u64 = 4;
/// The most, also where there is no limit.
const MOST: u64 = 256 << 20;

/// Room for what callers send.
#[derive(Debug)]
pub(crate) struct Room {
    total: usize,
    used: AtomicUsize,
}

/// A part of the room, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    /// Room in a sandbox with this memory limit.
    pub(crate) fn new(limit: Option<u64>) -> Arc<Self> {
        let total = limit.map_or(MOST, |limit| (limit / PART).min(MOST)) as usize;
        Arc::new(Self { total, used: AtomicUsize::new(0) })
    }

    /// All of it.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// None of it yet.
    pub(crate) fn nothing(self: &Arc<Self>) -> Held {
        Held { room: Arc::clone(self), bytes: 0 }
    }

    /// Takes a part.
    ///
    /// # Errors
    /// As [`Held::resize`].
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Held, ApiError> {
        let mut held = self.nothing();
        held.resize(bytes)?;
        Ok(held)
    }
}

impl Held {
    /// Makes it larger or smaller.
    ///
    /// # Errors
    /// `PAYLOAD_TOO_LARGE` if there is never so much room, `QUOTA_EXCEEDED` if others have it now.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), ApiError> {
        let Room { total, used } = &*self.room;
        if let Some(less) = self.bytes.checked_sub(bytes) {
            used.fetch_sub(less, Ordering::Relaxed);
            self.bytes = bytes;
            return Ok(());
        }
        if bytes > *total {
            let message = format!(
                "this takes {bytes} bytes of the agent's memory; the sandbox's memory limit leaves it {total}"
            );
            return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with("limit", *total));
        }
        let more = bytes - self.bytes;
        let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|used| used <= total)
        });
        match taken {
            Ok(_) => self.bytes = bytes,
            Err(value) => {
                let message = format!(
                    "other calls hold {value} of the {total} bytes that the sandbox's memory limit leaves for what is sent to it"
                );
                return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                    .with("limit", *total)
                    .with("value", value)
                    .with("scope", "memory")
                    .retry_after(1)
                    .suggest("Try again when other calls have ended, send less at once, or give the sandbox more memory."));
            }
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What one request holds until it is answered; among its extensions.
#[derive(Clone, Debug)]
pub(crate) struct Holding(Arc<Mutex<Held>>);

impl Holding {
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self(Arc::new(Mutex::new(room.nothing())))
    }

    /// As [`Held::resize`].
    pub(crate) fn resize(&self, bytes: usize) -> Result<(), ApiError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).resize(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b14_room_is_a_part_of_the_limit_and_is_given_back() {
        let room = Room::new(Some(64 << 20));
        assert_eq!(room.total(), 16 << 20);
        let mut first = room.take(10 << 20).unwrap();
        assert_eq!(room.take(10 << 20).unwrap_err().code, ErrorCode::QuotaExceeded);
        assert_eq!(room.take(17 << 20).unwrap_err().code, ErrorCode::PayloadTooLarge);
        first.resize(6 << 20).unwrap();
        let second = room.take(10 << 20).unwrap();
        assert_eq!(first.resize(7 << 20).unwrap_err().http_status, 429);
        drop((first, second));
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
        assert_eq!(Room::new(None).total(), 256 << 20);
    }
}
