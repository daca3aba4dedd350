//! How often one address may be wrong: with the name of a preview (attack C02), or with a key.
//!
//! Each address has a bucket of failures that fills again with time. Only failures are counted, and only they are refused
//! when it is empty: who is right is let in, whoever else is behind the same address.

use crate::gate::network;
use rand::RngExt;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Addresses that are remembered; of more, some are forgotten, which only helps a guesser who has as many.
const ADDRESSES: usize = 16_384;

/// What is known of addresses.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Failures that an address has at the start, and how many it gets back per second.
    burst: f64,
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// An address has failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOften {
    /// How many failures it has at most.
    pub(crate) burst: u32,
    /// In how many seconds it may fail again.
    pub(crate) seconds: u64,
}

impl Throttle {
    pub(crate) fn new(burst: u32, per_second: u32) -> Self {
        Self { burst: burst.into(), per_second: per_second.into(), buckets: Mutex::default() }
    }

    fn fill(&self, bucket: &mut Bucket, now: Instant) {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + since * self.per_second).min(self.burst);
        bucket.at = now;
    }

    /// An address has failed.
    pub(crate) fn failed(&self, peer: IpAddr) -> Result<(), TooOften> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ADDRESSES {
            buckets.retain(|_, bucket| {
                self.fill(bucket, now);
                bucket.left < self.burst
            });
        }
        if buckets.len() >= ADDRESSES {
            let mut random = rand::rng();
            buckets.retain(|_, _| random.random_bool(0.5));
        }
        let bucket = buckets.entry(network(peer)).or_insert(Bucket { left: self.burst, at: now });
        self.fill(bucket, now);
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        let seconds = ((1.0 - bucket.left) / self.per_second).ceil() as u64;
        Err(TooOften { burst: self.burst as u32, seconds: seconds.max(1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c02_an_address_fails_only_so_often() {
        let throttle = Throttle::new(50, 5);
        let guesser: IpAddr = "192.0.2.1".parse().unwrap();
        let (tries, refused) =
            (0..1000).find_map(|n| throttle.failed(guesser).err().map(|refused| (n, refused))).unwrap();
        assert!((50..100).contains(&tries), "{tries}");
        assert!(refused.seconds >= 1 && refused.burst == 50);
        assert_eq!(throttle.failed("192.0.2.2".parse().unwrap()), Ok(()));
    }

    #[test]
    fn c02_an_ipv6_network_is_one_address_and_memory_is_bounded() {
        let throttle = Throttle::new(50, 5);
        let refused = (0..100u128)
            .filter(|n| throttle.failed(IpAddr::V6(((0x2001_0db8_u128 << 96) + n).into())).is_err());
        assert!(refused.count() > 20);
        for n in 0..40_000u32 {
            throttle.failed(IpAddr::V4(n.into())).unwrap();
        }
        assert!(throttle.buckets.lock().unwrap().len() <= ADDRESSES);
    }
}
