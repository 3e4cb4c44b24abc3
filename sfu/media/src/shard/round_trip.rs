//! The round trip of one path.

use std::time::{Duration, Instant};

/// Samples older than this do not count.
const WINDOW: Duration = Duration::from_secs(10);

/// The least of the round trips measured within the last five to ten seconds: what the path takes itself, without the
/// waiting that whoever answered added.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RttFilter {
    older: Option<Duration>,
    newer: Option<Duration>,
    /// When `newer` began.
    since: Option<Instant>,
}

impl RttFilter {
    /// A round trip was measured.
    pub(crate) fn record(&mut self, rtt: Duration, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let age = now.saturating_duration_since(since);
        if age >= WINDOW / 2 {
            self.older = self.newer.filter(|_| age < WINDOW);
            self.newer = None;
            self.since = Some(now);
        }
        self.newer = Some(self.newer.map_or(rtt, |least| least.min(rtt)));
    }

    /// The least of late; the last one known where nothing was measured since.
    pub(crate) fn get(&self) -> Option<Duration> {
        [self.older, self.newer].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_the_last_seconds() {
        let t = crate::sim::clock::epoch();
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let mut filter = RttFilter::default();
        assert_eq!(filter.get(), None);
        for (at, rtt, want) in
            [(0, 80, 80), (1, 50, 50), (4, 90, 50), (5, 120, 50), (9, 110, 50), (10, 130, 110)]
        {
            filter.record(ms(rtt), t + s(at));
            assert_eq!(filter.get(), Some(ms(want)), "{at}");
        }
        filter.record(ms(200), t + s(40));
        assert_eq!(filter.get(), Some(ms(200)), "the path may have changed meanwhile");
    }
}
