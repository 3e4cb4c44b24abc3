//! The delay-based rate: additive increase near the known capacity, multiplicative elsewhere, multiplicative decrease
//! (libwebrtc's `AimdRateControl` and `LinkCapacityEstimator`; the GCC draft, section 5.5).

use super::trendline::Usage;

/// What is left of the acknowledged rate after overuse.
const BETA: f64 = 0.9;
/// Growth a second while the capacity is unknown.
const GROWTH: f64 = 0.08;
/// What a probe that filled a link of known capacity must show, against the rate.
const SATURATED_GAIN: f64 = 1.25;
/// Gain of one probe at most, where overuse was seen in the last µs: a burst between the bursts of others passes through a
/// full link all the same, and what it showed is too much for a whole second.
const PROBE_GAIN: f64 = 1.25;
const CONTESTED: i64 = 30_000_000;
/// .. and so much where it filled the path: how fast a few packets arrive says little where the receiver is late to read
/// them, as browsers are.
const SATURATED_STEP: f64 = 1.15;
/// Time after a probe and a round trip in which what arrives is not what may be sent yet, and a queue is that of the probe,
/// in µs.
const PROBE_SETTLES: i64 = 500_000;
/// A queue up to this length may be that of a burst. It is no reason to fall to what arrives: that is less than the path
/// carries as soon as less is sent, and the next decrease is only a round trip away. In µs.
const SHORT_QUEUE: i64 = 60_000;
/// What arrives while more is sent than the rate is carried, unless packets wait longer than this, in µs.
const NO_QUEUE: i64 = 15_000;
/// The rate grows to so many times what arrives ..
const UNTRIED: f64 = 1.5;
/// .. and where the path was full, so many.
const UNTRIED_FULL: f64 = 1.1;
/// Bits of a packet.
const PACKET_BITS: f64 = 1200.0 * 8.0;

/// The capacity at which overuse was seen, kbit/s, with its variance normalised by the mean.
#[derive(Debug, Default)]
struct LinkCapacity {
    estimate: Option<f64>,
    variance: f64,
}

impl LinkCapacity {
    fn on_overuse(&mut self, acked: f64) {
        self.update(acked / 1000.0, 0.05);
    }

    fn on_probe(&mut self, bps: f64) {
        self.update(bps / 1000.0, 0.5);
    }

    fn update(&mut self, sample: f64, alpha: f64) {
        let estimate = self.estimate.map_or(sample, |e| (1.0 - alpha) * e + alpha * sample);
        let error = estimate - sample;
        let variance = (1.0 - alpha) * self.variance + alpha * error * error / estimate.max(1.0);
        self.variance = variance.clamp(0.4, 2.5);
        self.estimate = Some(estimate);
    }

    /// Three deviations around the estimate, in bps.
    fn bounds(&self) -> Option<(f64, f64)> {
        let estimate = self.estimate?;
        let deviation = 3.0 * (self.variance * estimate).sqrt();
        Some(((estimate - deviation).max(0.0) * 1000.0, (estimate + deviation) * 1000.0))
    }
}

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Held,
    Grew,
    Fell,
}

/// The delay-based rate.
#[derive(Debug)]
pub(super) struct RateControl {
    bps: f64,
    min: f64,
    max: f64,
    capacity: LinkCapacity,
    /// Overuse was the last thing that happened: wait for a steady delay.
    holding: bool,
    changed_at: Option<i64>,
    decreased_at: Option<i64>,
    /// When a probe raised the rate, and when one told anything.
    raised_at: Option<i64>,
    probed_at: Option<i64>,
}

/// What an update knows of the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    /// Rate that arrives, in bps, with what would arrive but for losses that do not depend on the rate.
    pub(super) acked: Option<f64>,
    /// Rate that arrives, in bps, while more is sent than the rate allows.
    pub(super) carried: Option<f64>,
    /// µs.
    pub(super) rtt: i64,
    /// Less is sent than may be, so that neither growth nor a fall of what arrives says much.
    pub(super) limited: bool,
    /// µs that packets wait in the path.
    pub(super) queue: i64,
    /// So much is lost that the queue may be as long as it gets.
    pub(super) lossy: bool,
}

impl RateControl {
    pub(super) fn new(start: f64, min: f64, max: f64) -> Self {
        Self {
            bps: start,
            min,
            max,
            capacity: LinkCapacity::default(),
            holding: false,
            changed_at: None,
            decreased_at: None,
            raised_at: None,
            probed_at: None,
        }
    }

    pub(super) fn bps(&self) -> f64 {
        self.bps
    }

    /// Whether it is known where the path is full.
    pub(super) fn was_full(&self) -> bool {
        self.capacity.estimate.is_some()
    }

    /// Whether a probe can raise the rate by no more than [`PROBE_GAIN`].
    pub(super) fn is_contested(&self, now: i64) -> bool {
        self.decreased_at.is_some_and(|at| now - at < CONTESTED)
    }

    /// A probe showed that the path carries `bps`; `saturated`: but no more. Does the rate rise to that?
    ///
    /// What a burst gets of a link that is full already depends on how much the other flows send. With equal bursts
    /// relative to its own rate, the flow that has less gains more of its rate; only that much counts, so that probes
    /// bring flows together and not apart.
    pub(super) fn on_probe(&mut self, bps: f64, saturated: bool, limited: bool, now: i64) -> bool {
        self.probed_at = Some(now);
        let least = if saturated && self.capacity.estimate.is_some() { SATURATED_GAIN } else { 1.0 };
        if saturated && limited && bps < self.bps {
            // A burst gets more of a link than a steady flow of that rate would, and nothing else tells while little is
            // sent.
            self.set(bps.max(BETA * self.bps), now);
            return false;
        }
        if bps <= least * self.bps {
            return false;
        }
        if self.capacity.bounds().is_some_and(|(_, upper)| bps > upper) {
            self.capacity = LinkCapacity::default();
        } else if self.capacity.estimate.is_some() {
            self.capacity.on_probe(bps);
        }
        self.raised_at = Some(now);
        let gain = if saturated { SATURATED_STEP } else { PROBE_GAIN };
        self.set(if self.is_contested(now) { bps.min(gain * self.bps) } else { bps }, now);
        true
    }

    /// Something else than the delay made the rate fall.
    pub(super) fn set(&mut self, bps: f64, now: i64) {
        self.bps = bps.clamp(self.min, self.max);
        self.changed_at = Some(now);
    }

    /// Time passed at `now` µs, and the delay does what `usage` says.
    pub(super) fn update(&mut self, usage: Usage, path: Path, now: i64) -> Step {
        let since = (now - self.changed_at.unwrap_or(now)).clamp(0, 1_000_000) as f64 / 1e6;
        match usage {
            Usage::Over => {
                self.changed_at = Some(now);
                return self.decrease(path, now);
            }
            Usage::Under => {
                self.holding = true;
                self.changed_at = Some(now);
                return Step::Held;
            }
            Usage::Normal if self.holding => {
                self.holding = false;
                self.changed_at = Some(now);
                return Step::Held;
            }
            Usage::Normal => {}
        }
        self.changed_at = Some(now);
        if let (Some(acked), Some((_, upper))) = (path.acked, self.capacity.bounds())
            && acked > upper
        {
            self.capacity = LinkCapacity::default();
        }
        // A relay sends what there is until the path is known better.
        if let Some(carried) = path.carried
            && carried > self.bps
            && path.queue < NO_QUEUE
            && self.decreased_at.is_none()
        {
            self.set(carried, now);
            return Step::Grew;
        }
        // What is not tried is not known: the rate may be half as much again as what arrives, and where the path was full
        // before, it is for probes to find out.
        let untried = if self.was_full() { UNTRIED_FULL } else { UNTRIED };
        let limit = path.acked.map_or(self.bps, |acked| untried * acked + 10_000.0);
        if self.bps >= limit {
            return Step::Held;
        }
        let step = match self.capacity.estimate {
            Some(_) => self.additive_bps(path.rtt) * since,
            None => (self.bps * GROWTH * since).max(1000.0 * since),
        };
        self.bps = (self.bps + step).min(limit).min(self.max);
        Step::Grew
    }

    /// Bits per second to add each second: at 1 Mbit/s a packet every response time.
    fn additive_bps(&self, rtt: i64) -> f64 {
        let response = 2.0 * (rtt as f64 / 1e6 + 0.1);
        // By the root of the rate: a fast path is full again within seconds, and two flows still come together.
        let scale = (self.bps / 1e6).sqrt().clamp(0.3, 5.0);
        (scale * PACKET_BITS / response).max(4000.0)
    }

    fn decrease(&mut self, path: Path, now: i64) -> Step {
        self.holding = true;
        let recent = |at: Option<i64>| at.is_some_and(|at| now - at < path.rtt + PROBE_SETTLES);
        let short = path.queue < SHORT_QUEUE && !path.lossy;
        let fresh = short && recent(self.raised_at);
        if short && recent(self.probed_at) && !fresh {
            return Step::Held;
        }
        let Some(acked) = path.acked else {
            // Overuse before anything is known.
            return if self.may_decrease(None, path.rtt, now) {
                self.fall_to(self.bps / 2.0, now)
            } else {
                Step::Held
            };
        };
        if !self.may_decrease(Some(acked), path.rtt, now) {
            return Step::Held;
        }
        let mut to = BETA * acked;
        if to > self.bps
            && let Some(estimate) = self.capacity.estimate
        {
            to = BETA * estimate * 1000.0;
        }
        if short || path.limited {
            // Little arrives because little is sent. Some other flow's queue is no reason to fall to that at once.
            to = to.max(BETA * self.bps);
        }
        // What arrives does not show yet what a probe has just shown.
        if !path.limited && !fresh {
            if self.capacity.bounds().is_some_and(|(lower, _)| acked < lower) {
                self.capacity = LinkCapacity::default();
            }
            self.capacity.on_overuse(acked);
        }
        self.fall_to(to, now)
    }

    fn fall_to(&mut self, to: f64, now: i64) -> Step {
        if to < self.bps {
            self.bps = to.max(self.min);
            self.decreased_at = Some(now);
            return Step::Fell;
        }
        Step::Held
    }

    /// One decrease each round trip, unless what arrives is less than half of the rate.
    fn may_decrease(&self, acked: Option<f64>, rtt: i64, now: i64) -> bool {
        self.decreased_at.is_none_or(|at| now - at >= rtt.clamp(10_000, 200_000))
            || acked.is_some_and(|acked| acked < 0.5 * self.bps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(acked: f64) -> Path {
        Path { acked: Some(acked), carried: None, rtt: 50_000, limited: false, queue: 0, lossy: false }
    }

    /// As `path`, with a queue.
    fn queued(acked: f64) -> Path {
        Path { queue: 100_000, ..path(acked) }
    }

    #[test]
    fn falls_less_while_the_queue_is_short() {
        let mut rate = RateControl::new(1e6, 1e4, 1e8);
        rate.update(Usage::Over, path(0.5e6), 0);
        assert_eq!(rate.bps(), 0.9e6);
        rate.update(Usage::Over, queued(0.5e6), 1_000_000);
        assert_eq!(rate.bps(), 0.45e6);
    }

    #[test]
    fn a_probe_of_a_path_that_was_full_gains_a_quarter_at_most() {
        let mut rate = RateControl::new(1e6, 1e4, 1e8);
        assert!(rate.on_probe(1.5e6, false, false, 0));
        assert_eq!(rate.bps(), 1.5e6, "nothing is known of it");
        rate.update(Usage::Over, queued(1e6), 10_000_000);
        assert!(rate.on_probe(3e6, false, false, 20_000_000));
        assert_eq!(rate.bps(), 1.125e6);
        assert!(rate.on_probe(3e6, false, false, 50_000_000));
        assert_eq!(rate.bps(), 3e6, "that is long ago");
    }

    #[test]
    fn the_queue_of_a_probe_is_no_overuse() {
        let mut rate = RateControl::new(1e6, 1e4, 1e8);
        let short = Path { queue: 30_000, ..path(0.5e6) };
        assert!(!rate.on_probe(0.9e6, true, false, 1_000_000), "no more than the rate");
        assert_eq!(rate.update(Usage::Over, short, 1_100_000), Step::Held);
        assert_eq!(rate.update(Usage::Over, queued(1e6), 1_200_000), Step::Fell);
        assert!(!rate.on_probe(0.5e6, true, false, 2_000_000));
        assert_eq!(rate.update(Usage::Over, short, 2_600_000), Step::Fell, "later it is");
    }

    #[test]
    fn a_saturated_probe_lowers_a_rate_that_nothing_else_tries() {
        let mut rate = RateControl::new(1e6, 1e4, 1e8);
        assert!(!rate.on_probe(0.5e6, true, false, 0));
        assert_eq!(rate.bps(), 1e6, "as much is sent: its delay tells");
        assert!(!rate.on_probe(0.95e6, true, true, 1_000_000));
        assert_eq!(rate.bps(), 0.95e6);
        assert!(!rate.on_probe(0.5e6, true, true, 2_000_000));
        assert_eq!(rate.bps(), 0.855e6, "one probe may be wrong");
    }

    #[test]
    fn a_probe_raises_a_contested_rate_by_little_and_by_less_where_it_filled_the_path() {
        for (saturated, gain) in [(false, 1.25), (true, 1.15)] {
            let mut rate = RateControl::new(1e6, 1e4, 1e8);
            rate.update(Usage::Over, queued(1e6), 0);
            let before = rate.bps();
            assert!(rate.on_probe(3e6, saturated, false, 100_000));
            assert_eq!(rate.bps(), gain * before);
        }
    }

    #[test]
    fn grows_little_beyond_what_arrives_where_the_path_was_full() {
        let mut rate = RateControl::new(1e6, 1e4, 1e8);
        rate.update(Usage::Over, queued(1e6), 0);
        for n in 1..1000 {
            rate.update(Usage::Normal, path(0.9e6), n * 100_000);
        }
        assert!((0.99e6..1.01e6).contains(&rate.bps()), "{}", rate.bps());
    }

    #[test]
    fn grows_eight_percent_a_second_until_a_capacity_is_known() {
        let mut rate = RateControl::new(1e6, 1e4, 1e8);
        let mut now = 0;
        for _ in 0..=10 {
            rate.update(Usage::Normal, path(1e6), now);
            now += 100_000;
        }
        assert!((1.07e6..1.1e6).contains(&rate.bps()), "{}", rate.bps());
        assert_eq!(rate.update(Usage::Over, queued(1e6), now), Step::Fell);
        assert_eq!(rate.bps(), 0.9e6);
        for _ in 0..=11 {
            now += 100_000;
            rate.update(Usage::Normal, path(0.9e6), now);
        }
        assert!((0.92e6..0.95e6).contains(&rate.bps()), "{}", rate.bps());
    }

    #[test]
    fn grows_no_further_than_half_as_much_again_as_what_arrives() {
        let mut rate = RateControl::new(1e6, 1e4, 1e8);
        for n in 0..1000 {
            rate.update(Usage::Normal, path(0.8e6), n * 100_000);
        }
        assert_eq!(rate.bps(), 1.21e6);
        // Nor does it fall because little is sent.
        rate.update(Usage::Normal, path(0.1e6), 200_000_000);
        assert_eq!(rate.bps(), 1.21e6);
    }

    #[test]
    fn what_arrives_without_a_queue_is_carried() {
        let carried = |bps, queue| Path { carried: Some(bps), queue, ..path(bps) };
        let mut rate = RateControl::new(0.5e6, 1e4, 1e8);
        rate.update(Usage::Normal, carried(1.5e6, 40_000), 0);
        assert!(rate.bps() < 0.51e6, "there is a queue: {}", rate.bps());
        rate.update(Usage::Normal, carried(1.5e6, 5_000), 100_000);
        assert_eq!(rate.bps(), 1.5e6);
        rate.update(Usage::Over, carried(1e6, 100_000), 200_000);
        assert_eq!(rate.bps(), 0.9e6);
        for n in 3..20 {
            rate.update(Usage::Normal, carried(1.4e6, 5_000), n * 100_000);
            assert!(rate.bps() < 1.1e6, "the path is known from then on: {}", rate.bps());
        }
    }

    #[test]
    fn falls_once_a_round_trip() {
        let mut rate = RateControl::new(1e6, 1e4, 1e8);
        assert_eq!(rate.update(Usage::Over, path(0.9e6), 0), Step::Fell);
        assert_eq!(rate.update(Usage::Over, path(0.7e6), 10_000), Step::Held);
        assert_eq!(rate.update(Usage::Over, path(0.7e6), 50_000), Step::Fell);
        assert_eq!(rate.update(Usage::Over, path(0.2e6), 60_000), Step::Fell);
    }
}
