//! A token bucket: a rate that may be exceeded for a moment.

use std::time::Instant;

/// Refills at `rate` per second, holds at most `burst`.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        Self { rate: rate.into(), burst: burst.into(), level: burst.into(), at: now }
    }

    /// Takes `amount` out; false if it is not there.
    pub(crate) fn take(&mut self, amount: u32, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + elapsed * self.rate).min(self.burst);
        if self.level < amount.into() {
            return false;
        }
        self.level -= f64::from(amount);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 50, start);
        assert!((0..50).all(|_| bucket.take(1, start)));
        assert!(!bucket.take(1, start));
        let later = start + Duration::from_secs(1);
        assert!((0..10).all(|_| bucket.take(1, later)));
        assert!(!bucket.take(1, later));
        assert!(!bucket.take(51, later + Duration::from_secs(1000)));
    }
}
