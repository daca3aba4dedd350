//! How many connections there are, and which of them go first (attack C12).
//!
//! A connection proves nothing before its first request. So there is always room for one more: what has been idle longest
//! without a key makes place, at one address first if that has too many. Requests without a key that take their time are
//! visits of previews; they are bounded, so that the rest of the room is left to callers with a key. A connection counts
//! as long as anything of it is left, also after an upgrade.

use crate::proxies::Proxies;
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Connections at once. Each may need a second descriptor, to an agent; a third is left for everything else.
const MOST: usize = 8192;
const LEAST: usize = 64;
/// The share of one address in the connections that have shown no key.
const ADDRESS_SHARE: usize = 4;
/// The share that is kept for callers with a key.
const RESERVE_SHARE: usize = 4;
/// How many connections go at a time when there are too many: looking for the idlest takes a look at all.
const CLEARED_SHARE: usize = 128;

/// How long a connection may be without a request, from its beginning or from its last one, when it has shown no right.
const UNKNOWN_IDLE: Duration = Duration::from_secs(10);
/// How long when it has.
const KNOWN_IDLE: Duration = Duration::from_secs(60);

/// The count of all connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    /// Proxies, each of which speaks for many callers.
    proxies: Proxies,
    begun: Instant,
    state: Mutex<State>,
    visits: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    most: usize,
    of_address: usize,
    visits: usize,
    cleared: usize,
}

impl Bounds {
    fn of(most: usize) -> Self {
        let cleared = (most / CLEARED_SHARE).max(1);
        Self { most, of_address: most / ADDRESS_SHARE, visits: most - most / RESERVE_SHARE, cleared }
    }
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<u64, Arc<Slot>>,
    /// How many connections without a key each address has.
    strangers: HashMap<IpAddr, usize>,
    next: u64,
}

/// What a connection has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Unknown = 0,
    /// The address of a preview.
    Visitor = 1,
    /// A key.
    Keyed = 2,
}

#[derive(Debug)]
struct Slot {
    address: IpAddr,
    standing: AtomicU8,
    /// Requests under way of callers who may.
    open: AtomicUsize,
    /// When it was last used, in milliseconds after the gate was made.
    used: AtomicU64,
    is_over: AtomicBool,
    over: Notify,
}

impl Slot {
    fn is_keyed(&self) -> bool {
        self.standing.load(Ordering::Relaxed) == Standing::Keyed as u8
    }

    fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.over.notify_one();
    }
}

/// A connection. Counts until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    gate: Gate,
    number: u64,
    slot: Arc<Slot>,
}

/// A request under way. As long as one is, its connection is not idle.
#[derive(Debug)]
pub(crate) struct Busy {
    connection: Connection,
    is_visit: bool,
}

impl Gate {
    /// As many connections as the process's limit on open files allows.
    pub(crate) fn new(proxies: Proxies) -> Self {
        let files = getrlimit(Resource::Nofile).current.map_or(MOST, |files| files as usize / 3);
        Self::with_bounds(Bounds::of(files.clamp(LEAST, MOST)), proxies)
    }

    fn with_bounds(bounds: Bounds, proxies: Proxies) -> Self {
        let (begun, state) = (Instant::now(), Mutex::default());
        Self { inner: Arc::new(Inner { bounds, proxies, begun, state, visits: AtomicUsize::new(0) }) }
    }

    /// The proxies that are believed.
    pub(crate) fn proxies(&self) -> &Proxies {
        &self.inner.proxies
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.inner.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes a connection in, at the cost of idle ones where there are too many; none if all are in use.
    pub(crate) fn admit(&self, peer: IpAddr) -> Option<Connection> {
        let Bounds { most, of_address, cleared, .. } = self.inner.bounds;
        let address = network(peer);
        let mut state = self.state();
        let has = state.strangers.get(&address).copied().unwrap_or(0);
        if has >= of_address && !self.inner.proxies.contains(peer) {
            state.clear(cleared, |slot| slot.address == address && !slot.is_keyed());
            if state.strangers.get(&address).copied().unwrap_or(0) >= of_address {
                return None;
            }
        }
        if state.slots.len() >= most {
            state.clear(cleared, |slot| !slot.is_keyed());
        }
        if state.slots.len() >= most {
            state.clear(cleared, |_| true);
        }
        if state.slots.len() >= most {
            return None;
        }
        let slot = Arc::new(Slot {
            address,
            standing: AtomicU8::new(Standing::Unknown as u8),
            open: AtomicUsize::new(0),
            used: AtomicU64::new(self.now()),
            is_over: AtomicBool::new(false),
            over: Notify::new(),
        });
        let number = state.next;
        state.next += 1;
        state.slots.insert(number, slot.clone());
        *state.strangers.entry(address).or_insert(0) += 1;
        Some(Connection { held: Arc::new(Held { gate: self.clone(), number, slot }) })
    }
}

impl State {
    /// Ends those that have been idle longest of some connections.
    fn clear(&mut self, count: usize, may_go: impl Fn(&Slot) -> bool) {
        let idle = self.slots.iter().filter(|(_, slot)| slot.is_idle() && may_go(slot));
        let mut idle: Vec<_> =
            idle.map(|(number, slot)| (slot.used.load(Ordering::Relaxed), *number)).collect();
        if idle.len() > count {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
        for (_, number) in idle {
            if let Some(slot) = self.remove(number) {
                slot.end();
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Slot>> {
        let slot = self.slots.remove(&number)?;
        if !slot.is_keyed() {
            self.leave(slot.address);
        }
        Some(slot)
    }

    /// One stranger less at an address.
    fn leave(&mut self, address: IpAddr) {
        if let Some(count) = self.strangers.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.strangers.remove(&address);
            }
        }
    }
}

impl Connection {
    fn touch(&self) {
        self.held.slot.used.store(self.held.gate.now(), Ordering::Relaxed);
    }

    /// A request came whose caller is not known yet.
    pub(crate) fn asked(&self) {
        self.touch();
    }

    /// A request of a caller with a key begins.
    pub(crate) fn keyed(&self) -> Busy {
        let slot = &self.held.slot;
        if !slot.is_keyed() {
            let mut state = self.held.gate.state();
            let before = slot.standing.swap(Standing::Keyed as u8, Ordering::Relaxed);
            if before != Standing::Keyed as u8 && state.slots.contains_key(&self.held.number) {
                state.leave(slot.address);
            }
        }
        self.begin(false)
    }

    /// A visit of a preview begins; none if there are as many as there may be.
    pub(crate) fn visit(&self) -> Option<Busy> {
        let inner = &self.held.gate.inner;
        let busy = self.begin(true);
        let others = inner.visits.fetch_add(1, Ordering::Relaxed);
        if others >= inner.bounds.visits {
            return None;
        }
        self.held.slot.standing.fetch_max(Standing::Visitor as u8, Ordering::Relaxed);
        Some(busy)
    }

    fn begin(&self, is_visit: bool) -> Busy {
        self.held.slot.open.fetch_add(1, Ordering::Relaxed);
        Busy { connection: self.clone(), is_visit }
    }

    /// Ends the connection after what is under way.
    pub(crate) fn end(&self) {
        self.held.slot.end();
    }

    /// Whether it is to end.
    pub(crate) fn is_over(&self) -> bool {
        self.held.slot.is_over.load(Ordering::Relaxed)
    }

    /// Whether no request is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.slot.is_idle()
    }

    /// Resolves when it has been idle for too long, or others need its place.
    pub(crate) async fn expired(&self) {
        let slot = &self.held.slot;
        while !slot.is_over.load(Ordering::Relaxed) {
            let allowed = match slot.standing.load(Ordering::Relaxed) {
                standing if standing == Standing::Unknown as u8 => UNKNOWN_IDLE,
                _ => KNOWN_IDLE,
            };
            let idle = self.held.gate.now().saturating_sub(slot.used.load(Ordering::Relaxed));
            let left = allowed.saturating_sub(Duration::from_millis(idle));
            if slot.is_idle() && left.is_zero() {
                return;
            }
            // One in use is looked at again when it could be idle for as long.
            let wait = if slot.is_idle() { left } else { allowed };
            let _elapsed = tokio::time::timeout(wait, slot.over.notified()).await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gate.state().remove(self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.is_visit {
            self.connection.held.gate.inner.visits.fetch_sub(1, Ordering::Relaxed);
        }
        self.connection.touch();
        self.connection.held.slot.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an address stands for: of IPv6 its network of 2^64, which one caller has as a whole.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !(u128::from(u64::MAX))).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests;
