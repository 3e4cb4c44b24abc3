//! What passed one direction of a link: how long each datagram waited, when it arrived.

use std::time::{Duration, Instant};

use super::queue::OVERHEAD;

/// A datagram that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// When it was sent.
    pub sent: Instant,
    /// How long it waited for those before it: the queueing delay that the senders on this link inflict on themselves.
    pub waited: Duration,
    /// When it arrives. None for one that is lost behind the queue.
    pub arrives: Option<Instant>,
    /// Its bytes, with the headers of IP and UDP.
    pub bytes: usize,
}

/// The record of one direction, from [`super::Network::watch`] on.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// In the order of sending.
    pub passed: Vec<Passed>,
    /// When datagrams were dropped because the queue was full.
    pub overflows: Vec<Instant>,
}

impl Trace {
    pub(super) fn push(&mut self, sent: Instant, waited: Duration, arrives: Option<Instant>, len: usize) {
        self.passed.push(Passed { sent, waited, arrives, bytes: len + OVERHEAD });
    }

    /// Bytes that arrived in each `step` from `from` to `to`.
    pub fn delivered(&self, from: Instant, to: Instant, step: Duration) -> Vec<u64> {
        let steps = to.duration_since(from).as_nanos() / step.as_nanos();
        let mut series = vec![0; steps as usize];
        for passed in &self.passed {
            let Some(after) = passed.arrives.and_then(|at| at.checked_duration_since(from)) else { continue };
            if let Some(sum) = series.get_mut((after.as_nanos() / step.as_nanos()) as usize) {
                *sum += passed.bytes as u64;
            }
        }
        series
    }

    /// Bits per second that arrived from `from` to `to`.
    pub fn bps(&self, from: Instant, to: Instant) -> f64 {
        let span = to.duration_since(from);
        let bytes: u64 = self.delivered(from, to, span).iter().sum();
        bytes as f64 * 8.0 / span.as_secs_f64()
    }

    /// Bits per second that were sent from `from` to `to`, what the queue dropped not included.
    pub fn offered_bps(&self, from: Instant, to: Instant) -> f64 {
        let bytes: usize = self.between(from, to).map(|passed| passed.bytes).sum();
        bytes as f64 * 8.0 / to.duration_since(from).as_secs_f64()
    }

    /// The queueing delay that this share of the datagrams sent from `from` to `to` did not exceed.
    pub fn waited(&self, share: f64, from: Instant, to: Instant) -> Duration {
        let mut waits: Vec<_> = self.between(from, to).map(|passed| passed.waited).collect();
        percentile(&mut waits, share).unwrap_or_default()
    }

    /// The time on the way, waiting included, that this share of the datagrams sent from `from` to `to` did not exceed.
    pub fn delay(&self, share: f64, from: Instant, to: Instant) -> Duration {
        let mut delays: Vec<_> =
            self.between(from, to).filter_map(|p| p.arrives.map(|at| at - p.sent)).collect();
        percentile(&mut delays, share).unwrap_or_default()
    }

    fn between(&self, from: Instant, to: Instant) -> impl Iterator<Item = &Passed> {
        self.passed.iter().filter(move |passed| (from..to).contains(&passed.sent))
    }
}

fn percentile<T: Ord + Copy>(values: &mut [T], share: f64) -> Option<T> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * share).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn sums_and_percentiles_are_of_the_span_asked_for() {
        let t = clock::epoch();
        let mut trace = Trace::default();
        for i in 0..100u64 {
            let sent = t + ms(i * 10);
            // Every fifth is lost behind the queue; 72 bytes are 100 with the headers.
            trace.push(sent, ms(i), (i % 5 != 0).then_some(sent + ms(i + 20)), 72);
        }
        assert_eq!(trace.waited(0.95, t, t + ms(1000)), ms(94));
        assert_eq!(trace.waited(1.0, t + ms(200), t + ms(300)), ms(29));
        assert_eq!(trace.waited(0.5, t + ms(5000), t + ms(6000)), ms(0));
        assert_eq!(trace.delay(0.0, t, t + ms(1000)), ms(21));
        assert!((trace.offered_bps(t, t + ms(1000)) - 80_000.0).abs() < 1.0);
        // Those sent in the last 110 ms or so are still under way.
        let series = trace.delivered(t, t + ms(1000), ms(100));
        assert_eq!(series.len(), 10);
        assert_eq!(
            series.iter().sum::<u64>(),
            100 * trace.passed.iter().filter(|p| p.arrives.is_some_and(|at| at < t + ms(1000))).count()
                as u64
        );
        assert!((trace.bps(t, t + ms(1000)) - series.iter().sum::<u64>() as f64 * 8.0).abs() < 1.0);
    }
}
