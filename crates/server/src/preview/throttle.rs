//! How often one address may name a preview that does not exist (attack C02).
//!
//! Each address has a bucket of failures that fills again with time. While it is empty nothing is looked up for that
//! address, so that a guesser learns nothing; but names that it has used with success go on working, or one guesser
//! behind a shared address would shut out everyone there.

use super::refusal;
use rand::RngExt;
use sandcrab_api::{ApiError, ErrorCode};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Failures that an address has at the start, and how many it gets back per second.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 5.0;
/// Addresses that are remembered; of more, some are forgotten, which only helps a guesser who has as many.
const ADDRESSES: usize = 16_384;
/// Names that are remembered to have been right: these many, and as many older ones.
const GOOD: usize = 16_384;

/// What is known of addresses.
#[derive(Default)]
pub(crate) struct Throttle {
    state: Mutex<State>,
    hasher: RandomState,
}

#[derive(Default)]
struct State {
    buckets: HashMap<IpAddr, Bucket>,
    good: HashSet<u64>,
    good_before: HashSet<u64>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * PER_SECOND).min(BURST);
        self.at = now;
    }
}

impl Throttle {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an address may have a name looked up.
    pub(super) fn check(&self, peer: IpAddr, label: &str) -> Result<(), ApiError> {
        let address = network(peer);
        let mut state = self.state();
        let Some(bucket) = state.buckets.get_mut(&address) else { return Ok(()) };
        bucket.fill(Instant::now());
        if bucket.left >= 1.0 {
            return Ok(());
        }
        let wait = ((1.0 - bucket.left) / PER_SECOND).ceil() as u64;
        let name = self.hasher.hash_one((address, label));
        if state.good.contains(&name) || state.good_before.contains(&name) {
            return Ok(());
        }
        let message = "too many previews were asked for that do not exist";
        Err(refusal(ErrorCode::QuotaExceeded, message)
            .with("limit", "failedLookups")
            .with("value", BURST)
            .with("scope", "address")
            .suggest("Wait a little, and use the URL that exposePort returned.")
            .retry_after(wait.max(1)))
    }

    /// A name was right.
    pub(super) fn succeeded(&self, peer: IpAddr, label: &str) {
        let name = self.hasher.hash_one((network(peer), label));
        let mut state = self.state();
        if !state.good.contains(&name) {
            if state.good.len() >= GOOD {
                state.good_before = std::mem::take(&mut state.good);
            }
            state.good.insert(name);
        }
    }

    /// A name was wrong.
    pub(super) fn failed(&self, peer: IpAddr) {
        let now = Instant::now();
        let mut state = self.state();
        if state.buckets.len() >= ADDRESSES {
            state.buckets.retain(|_, bucket| {
                bucket.fill(now);
                bucket.left < BURST
            });
        }
        if state.buckets.len() >= ADDRESSES {
            let mut random = rand::rng();
            state.buckets.retain(|_, _| random.random_bool(0.5));
        }
        let bucket = state.buckets.entry(network(peer)).or_insert(Bucket { left: BURST, at: now });
        bucket.fill(now);
        bucket.left = (bucket.left - 1.0).max(0.0);
    }
}

/// Whoever has one IPv6 address has the 2^64 of its network.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !(u128::from(u64::MAX))).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c02_guessing_is_slowed_down_and_good_names_go_on() {
        let throttle = Throttle::default();
        let guesser: IpAddr = "192.0.2.1".parse().unwrap();
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        throttle.succeeded(guesser, "3000-a-good");
        let mut refused = None;
        for n in 0..1000 {
            let label = format!("3000-a-guess{n}");
            match throttle.check(guesser, &label) {
                Ok(()) => throttle.failed(guesser),
                Err(error) => {
                    refused = Some((n, error));
                    break;
                }
            }
        }
        let (tries, error) = refused.unwrap();
        assert!((50..100).contains(&tries), "{tries}");
        assert_eq!(error.http_status, 429);
        assert!(error.context["retryAfter"].as_u64().is_some_and(|seconds| seconds >= 1));
        assert!(throttle.check(guesser, "3000-a-good").is_ok());
        assert!(throttle.check(guesser, "3000-a-other").is_err());
        assert!(throttle.check(other, "3000-a-other").is_ok());
    }

    #[test]
    fn c02_an_ipv6_network_is_one_address_and_memory_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..60u128 {
            throttle.failed(IpAddr::V6(((0x2001_0db8_u128 << 96) + n).into()));
        }
        assert!(throttle.check("2001:db8::ffff".parse().unwrap(), "x").is_err());
        for n in 0..40_000u32 {
            throttle.failed(IpAddr::V4(n.into()));
            throttle.succeeded(IpAddr::V4(n.into()), "x");
        }
        let state = throttle.state();
        assert!(state.buckets.len() <= ADDRESSES && state.good.len() + state.good_before.len() <= 2 * GOOD);
    }
}
