//! When a shard's thread wakes, and for what.

use std::time::{Duration, Instant};

use sfu_media::shard::Shard;

/// Timers may be so late: those of hundreds of peers share a wake-up. ..
const GRID: Duration = Duration::from_millis(4);
/// .. Those for which nobody waits, and reports that are received apart, may be so late: mostly media wakes before.
const PATIENCE: Duration = Duration::from_millis(20);
/// Receivers report at least so often; when nothing came for so long, the next report wakes.
const REPORTS: Duration = Duration::from_millis(150);
/// Under load the thread wakes at most so often: one wake-up finds what many would have found one by one.
const REST: Duration = Duration::from_millis(1);
/// Longest sleep: bounds how late the CPU figure is.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// When the thread wakes. A wake-up costs as much as forwarding several packets, so that what need not be on time to the
/// millisecond waits for company; a quiet shard is not woken for nothing.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// Deadlines are rounded up from here on.
    start: Instant,
    /// RTCP comes on a socket of its own.
    apart: bool,
    /// The last two turns.
    woke: [Instant; 2],
    /// When there was last a look at reports, and when there were some.
    looked: Instant,
    found: Option<Instant>,
}

/// What a shard wants to be woken for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deadlines {
    /// Somebody waits for it.
    prompt: Option<Instant>,
    /// .. and it counts to the point.
    exact: bool,
    /// The first of all.
    any: Option<Instant>,
}

impl Deadlines {
    pub(super) fn of(shard: &Shard, now: Instant) -> Self {
        Self { prompt: shard.poll_prompt_timeout(), exact: shard.is_exact(now), any: shard.poll_timeout() }
    }
}

/// What to wait for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// First sleep for so long, whatever comes.
    pub(super) rest: Option<Duration>,
    /// Then wait at most so long ..
    pub(super) timeout: Duration,
    /// .. for datagrams, and for RTCP or not.
    pub(super) for_feedback: bool,
}

impl Rhythm {
    pub(super) fn new(apart: bool, now: Instant) -> Self {
        Self { start: now, apart, woke: [now; 2], looked: now, found: None }
    }

    pub(super) fn woke(&mut self, now: Instant) {
        self.woke = [self.woke[1], now];
    }

    /// What to wait for now.
    pub(super) fn wait(&self, Deadlines { prompt, exact, any }: Deadlines, now: Instant) -> Wait {
        let [before, last] = self.woke;
        // A turn that followed right upon another is one of many; a lone one is not held up.
        let dense = last.saturating_duration_since(before) < REST;
        let rest = REST.saturating_sub(now.saturating_duration_since(last));
        let rest = Some(rest).filter(|rest| dense && !exact && !rest.is_zero());
        let now = now + rest.unwrap_or_default();
        let prompt = prompt.map(|at| if exact { at } else { self.round_up(at) });
        let deadline = [prompt, any.map(|at| at + PATIENCE)].into_iter().flatten().min();
        let deadline = deadline.map_or(MAX_SLEEP, |at| at.saturating_duration_since(now));
        // Where there were reports a moment ago there will be more: they are collected. Where there were none they wake.
        let held = Some(self.looked + PATIENCE).filter(|until| self.expects_reports(now) && *until > now);
        let held_for = held.map(|until| until.saturating_duration_since(now));
        let timeout = deadline.min(MAX_SLEEP).min(held_for.unwrap_or(MAX_SLEEP));
        Wait { rest, timeout, for_feedback: held.is_none() }
    }

    fn round_up(&self, at: Instant) -> Instant {
        let since = at.saturating_duration_since(self.start).as_micros();
        let grid = GRID.as_micros();
        let rounded = since.div_ceil(grid).saturating_mul(grid);
        self.start + Duration::from_micros(u64::try_from(rounded).unwrap_or(u64::MAX / 2))
    }

    /// Whether there is a look at reports in a turn that has another reason.
    pub(super) fn feedback_due(&self, now: Instant) -> bool {
        self.expects_reports(now) && now >= self.looked + GRID
    }

    pub(super) fn took_feedback(&mut self, found: usize, now: Instant) {
        self.looked = now;
        if found > 0 {
            self.found = Some(now);
        }
    }

    fn expects_reports(&self, now: Instant) -> bool {
        self.apart && self.found.is_some_and(|at| now.saturating_duration_since(at) < REPORTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    fn prompt(at: Instant) -> Deadlines {
        Deadlines { prompt: Some(at), exact: false, any: Some(at) }
    }

    #[test]
    fn a_lone_datagram_is_not_held_up_and_many_are_taken_together() {
        let t = Instant::now();
        let mut rhythm = Rhythm::new(false, t);
        for n in 1..5 {
            let now = t + us(20_000 * n);
            rhythm.woke(now);
            assert_eq!(
                rhythm.wait(Deadlines::default(), now + us(30)),
                Wait { rest: None, timeout: MAX_SLEEP, for_feedback: true }
            );
        }
        // Another one, right behind.
        let now = t + us(80_100);
        rhythm.woke(now);
        assert_eq!(rhythm.wait(Deadlines::default(), now + us(40)).rest, Some(us(960)));
        // What took longer than that has no rest.
        assert_eq!(rhythm.wait(Deadlines::default(), now + us(1_000)).rest, None);
    }

    #[test]
    fn deadlines_share_wake_ups_and_none_is_early() {
        let t = Instant::now();
        let mut rhythm = Rhythm::new(false, t);
        let now = t + us(50_000);
        rhythm.woke(now);
        let timeout = |at| rhythm.wait(prompt(t + us(at)), now).timeout;
        assert_eq!([timeout(50_001), timeout(52_000), timeout(52_001)], [us(2_000), us(2_000), us(6_000)]);
        assert_eq!(timeout(40_000), Duration::ZERO);
        let exact = Deadlines { exact: true, ..prompt(t + us(50_001)) };
        assert_eq!(rhythm.wait(exact, now).timeout, us(1), "while there is a probe");
        assert_eq!(timeout(9_000_000), MAX_SLEEP);
        let patient = Deadlines { any: Some(t + us(51_000)), ..Deadlines::default() };
        assert_eq!(rhythm.wait(patient, now).timeout, us(1_000) + PATIENCE);
        let both = Deadlines { any: Some(t + us(40_000)), ..prompt(t + us(57_000)) };
        assert_eq!(rhythm.wait(both, now).timeout, us(10_000).min(PATIENCE - us(10_000)));
    }

    #[test]
    fn reports_are_collected_while_there_are_some() {
        let t = Instant::now();
        let mut rhythm = Rhythm::new(true, t);
        let at = t + us(100_000);
        rhythm.woke(at);
        assert!(rhythm.wait(Deadlines::default(), at).for_feedback, "there was none: the first wakes");
        rhythm.took_feedback(3, at);
        let wait = rhythm.wait(Deadlines::default(), at);
        assert_eq!(wait, Wait { rest: None, timeout: PATIENCE, for_feedback: false });
        assert!(!rhythm.feedback_due(at + us(3_900)));
        assert!(rhythm.feedback_due(at + GRID), "another reason woke the thread");
        assert!(
            rhythm.wait(Deadlines::default(), at + PATIENCE).for_feedback,
            "they have waited for long enough"
        );
        // A look that finds none says little: they come every 50 or 100 ms.
        rhythm.took_feedback(0, at + GRID);
        assert!(!rhythm.wait(Deadlines::default(), at + GRID).for_feedback);
        let later = at + REPORTS;
        assert!(rhythm.wait(Deadlines::default(), later).for_feedback && !rhythm.feedback_due(later));
    }
}
