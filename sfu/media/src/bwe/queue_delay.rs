//! How long packets wait in the path, from their one-way delay against the least of late.

/// Half of what "of late" is, in µs.
const HALF: i64 = 10_000_000;

/// A queue stands when even the least delay of a feedback is above this, in µs: between bursts it should be gone
/// ([RFC 8289](https://www.rfc-editor.org/rfc/rfc8289) calls what stays so the bad queue) ..
const STANDING: f64 = 10_000.0;
/// .. and so many times what that least delay differs from one feedback to the next: by so much the path's jitter alone ..
const ROUGH: f64 = 4.0;
/// .. but above this it stands in any case.
const MAX_STANDING: f64 = 50_000.0;
/// Feedbacks that the mean difference is over.
const MEAN: f64 = 64.0;

/// The least of the values of the last 10 to 20 s.
#[derive(Debug, Default)]
pub(super) struct RecentMin {
    /// When the running half began, its least, and the least of the half before.
    running: Option<(i64, i64)>,
    before: Option<i64>,
}

impl RecentMin {
    pub(super) fn add(&mut self, value: i64, now: i64) {
        self.running = match self.running {
            Some((began, least)) if now - began < HALF => Some((began, least.min(value))),
            Some((_, least)) => {
                self.before = Some(least);
                Some((now, value))
            }
            None => Some((now, value)),
        };
    }

    /// `None` before the first.
    pub(super) fn get(&self) -> Option<i64> {
        let (_, running) = self.running?;
        Some(self.before.map_or(running, |before| before.min(running)))
    }
}

/// The queueing delay of the path.
#[derive(Debug, Default)]
pub(super) struct QueueDelay {
    least: RecentMin,
    now: Option<i64>,
    /// Mean difference between two in a row, µs.
    roughness: f64,
}

impl QueueDelay {
    /// The least one-way delay of the packets of one feedback (µs between two clocks that need not agree).
    pub(super) fn on_delay(&mut self, delay: i64, now: i64) {
        self.least.add(delay, now);
        let before = self.now.replace(delay).unwrap_or(delay);
        let difference = (delay.saturating_sub(before).saturating_abs() as f64).min(MAX_STANDING);
        self.roughness += (difference - self.roughness) / MEAN;
    }

    /// Whether packets wait longer than a burst or the path's jitter explains.
    pub(super) fn stands(&self) -> bool {
        self.micros() as f64 > (STANDING + ROUGH * self.roughness).min(MAX_STANDING)
    }

    /// µs that packets waited in queues last, beyond the least of late.
    pub(super) fn micros(&self) -> i64 {
        self.now.zip(self.least.get()).map_or(0, |(now, least)| now.saturating_sub(least).max(0))
    }

    /// What is left is not ours to drain: another path, or another flow's queue.
    pub(super) fn rebase(&mut self, now: i64) {
        self.least = RecentMin::default();
        if let Some(delay) = self.now {
            self.least.add(delay, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_when_it_does_not_go_between_bursts() {
        let mut queue = QueueDelay::default();
        (0..100).for_each(|n| queue.on_delay(0, n * 50_000));
        queue.on_delay(9_000, 5_000_000);
        assert!(!queue.stands(), "a burst");
        queue.on_delay(15_000, 5_050_000);
        assert!(queue.stands());
        // On a path whose delay jumps about by 20 ms anyway that means nothing.
        let mut queue = QueueDelay::default();
        (0..200).for_each(|n| queue.on_delay(n % 2 * 20_000, n * 50_000));
        queue.on_delay(30_000, 10_000_000);
        assert!(!queue.stands());
        queue.on_delay(51_000, 10_050_000);
        assert!(queue.stands());
    }

    #[test]
    fn is_the_delay_above_the_least_of_late() {
        let mut queue = QueueDelay::default();
        assert_eq!(queue.micros(), 0);
        queue.on_delay(-500, 0);
        queue.on_delay(1500, 1_000_000);
        assert_eq!(queue.micros(), 2000);
        queue.on_delay(1500, 11_000_000);
        assert_eq!(queue.micros(), 2000);
        queue.on_delay(1500, 21_000_001);
        assert_eq!(queue.micros(), 0);
        queue.on_delay(4500, 21_000_002);
        queue.rebase(21_000_003);
        assert_eq!(queue.micros(), 0);
        queue.on_delay(i64::MIN, 21_000_004);
        queue.on_delay(i64::MAX, 21_000_004);
        assert_eq!(queue.micros(), i64::MAX);
    }
}
