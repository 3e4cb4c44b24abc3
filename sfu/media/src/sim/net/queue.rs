//! What stands before a link's rate: datagrams wait here until those before them are through.

use std::time::{Duration, Instant};

/// Bytes of IPv4 and UDP headers, which take their part of a link's rate.
pub const OVERHEAD: usize = 28;

/// A queue with a rate that may change at instants known beforehand. One direction of a link has its own, or several share
/// one: a common bottleneck.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    /// Rates in bits per second with the instants from which they hold, ascending. None for no limit.
    rates: Vec<(Instant, Option<u64>)>,
    /// Longest wait; a datagram that would wait longer is dropped.
    limit: Duration,
    /// Bytes that pass at once after an idle time, as a token bucket lets them.
    bucket: usize,
    /// When the last bit of what was taken so far is through.
    free_at: Instant,
}

/// How a datagram fared in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passage {
    /// Time until its first bit left.
    pub(super) waited: Duration,
    /// When its last bit left.
    pub(super) through: Instant,
}

impl Queue {
    pub(super) fn new(rate: Option<u64>, limit: Duration, start: Instant) -> Self {
        Self { rates: vec![(start, rate)], limit, bucket: 0, free_at: start }
    }

    /// Lets so many bytes pass at once from now on when none waited for long enough.
    pub(super) fn set_bucket(&mut self, bytes: usize) {
        self.bucket = bytes;
    }

    /// One rate for all times from now on.
    pub(super) fn set(&mut self, rate: Option<u64>, limit: Duration) {
        let start = self.rates[0].0;
        self.rates = vec![(start, rate)];
        self.limit = limit;
    }

    /// Another rate from an instant on, after all those that were set before.
    pub(super) fn then(&mut self, at: Instant, rate: Option<u64>) {
        debug_assert!(self.rates.last().is_none_or(|(before, _)| *before <= at), "in the order of time");
        self.rates.push((at, rate));
    }

    /// Takes a datagram; None when it has to wait too long.
    pub(super) fn pass(&mut self, bytes: usize, now: Instant) -> Option<Passage> {
        // What the bucket holds is time that the link has saved up.
        let saved = self.saved(now);
        let start = self.free_at.max(now.checked_sub(saved).unwrap_or(now));
        let waited = start.saturating_duration_since(now);
        if waited > self.limit {
            return None;
        }
        self.free_at = self.through(start, (bytes + OVERHEAD) as f64 * 8.0);
        Some(Passage { waited, through: self.free_at.max(now) })
    }

    /// Time that the full bucket is worth.
    fn saved(&self, now: Instant) -> Duration {
        let index = self.rates.partition_point(|(from, _)| *from <= now).saturating_sub(1);
        let rate = self.rates[index].1.unwrap_or(u64::MAX).max(1);
        Duration::from_secs_f64(self.bucket as f64 * 8.0 / rate as f64)
    }

    /// When so many bits are through that start at `start`.
    fn through(&self, start: Instant, mut bits: f64) -> Instant {
        let mut at = start;
        let mut index = self.rates.partition_point(|(from, _)| *from <= start).saturating_sub(1);
        loop {
            let Some(rate) = self.rates[index].1 else { return at };
            let rate = rate.max(1) as f64;
            let done = at + Duration::from_secs_f64(bits / rate);
            match self.rates.get(index + 1) {
                Some((next, _)) if *next < done => {
                    bits -= next.saturating_duration_since(at).as_secs_f64() * rate;
                    at = at.max(*next);
                    index += 1;
                }
                _ => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn waits_for_what_is_before_and_drops_what_waits_too_long() {
        let t = clock::epoch();
        // 1,000 bytes with the headers take 10 ms.
        let mut queue = Queue::new(Some(800_000), ms(25), t);
        let pass = |queue: &mut Queue, at| queue.pass(972, t + ms(at)).map(|p| (p.waited, p.through - t));
        assert_eq!(pass(&mut queue, 0), Some((ms(0), ms(10))));
        assert_eq!(pass(&mut queue, 0), Some((ms(10), ms(20))));
        assert_eq!(pass(&mut queue, 5), Some((ms(15), ms(30))));
        assert_eq!(pass(&mut queue, 5), Some((ms(25), ms(40))));
        assert_eq!(pass(&mut queue, 5), None);
        assert_eq!(pass(&mut queue, 60), Some((ms(0), ms(70))), "idle since");
    }

    #[test]
    fn a_bucket_lets_a_burst_pass_and_fills_at_the_rate() {
        let t = clock::epoch() + Duration::from_secs(1);
        let mut queue = Queue::new(Some(800_000), ms(25), clock::epoch());
        queue.set_bucket(2000);
        let pass = |queue: &mut Queue, at| queue.pass(972, t + ms(at)).map(|p| (p.waited, p.through - t));
        assert_eq!(pass(&mut queue, 0), Some((ms(0), ms(0))));
        assert_eq!(pass(&mut queue, 0), Some((ms(0), ms(0))));
        assert_eq!(pass(&mut queue, 0), Some((ms(0), ms(10))), "it is empty");
        assert_eq!(pass(&mut queue, 20), Some((ms(0), ms(20))), "ten of these milliseconds filled a half");
        assert_eq!(pass(&mut queue, 20), Some((ms(0), ms(30))));
        assert_eq!(pass(&mut queue, 20), Some((ms(10), ms(40))));
    }

    #[test]
    fn what_is_in_the_queue_leaves_at_the_rate_of_its_time() {
        let t = clock::epoch();
        let mut queue = Queue::new(Some(800_000), Duration::from_secs(9), t);
        queue.then(t + ms(15), Some(80_000));
        queue.then(t + ms(100), None);
        let pass = |queue: &mut Queue| queue.pass(972, t).map(|p| p.through - t);
        assert_eq!(pass(&mut queue), Some(ms(10)));
        assert_eq!(pass(&mut queue), Some(ms(65)), "half at a tenth of the rate");
        assert_eq!(pass(&mut queue), Some(ms(100)), "until there is no limit");
        assert_eq!(pass(&mut queue), Some(ms(100)));
    }
}
