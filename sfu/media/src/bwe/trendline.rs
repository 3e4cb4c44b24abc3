//! Does the one-way delay grow? libwebrtc's `TrendlineEstimator`: the slope of the smoothed delay over the last groups
//! against a threshold that adapts to the path's own jitter (the GCC draft, section 5.4).

use super::packet_groups::GroupDelta;

const WINDOW: usize = 20;
const SMOOTHING: f64 = 0.9;
/// What the slope is multiplied by to compare it with the threshold, which is in ms.
const GAIN: f64 = 4.0;
/// Groups up to which few of them count less.
const MAX_DELTAS: u32 = 60;
const FIRST_THRESHOLD: f64 = 12.5;
/// How fast the threshold follows a larger slope, and a smaller one, each ms.
const RISE: f64 = 0.0087;
const FALL: f64 = 0.039;
/// A slope this far above the threshold is a spike that it does not follow, in ms.
const MAX_SPIKE: f64 = 15.0;
/// How long the slope has to be above the threshold, in ms.
const OVERUSE_TIME: f64 = 10.0;

/// What the delay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Usage {
    /// Steady.
    #[default]
    Normal,
    /// Grows: more is sent than the path carries.
    Over,
    /// Falls: a queue drains.
    Under,
}

/// The trend of the delay.
#[derive(Debug)]
pub(super) struct Trendline {
    /// Time of arrival and smoothed delay in ms, the oldest at `next` once full.
    points: [(f64, f64); WINDOW],
    len: usize,
    next: usize,
    /// Where time counts from, in µs.
    origin: Option<i64>,
    deltas: u32,
    delay: f64,
    smoothed: f64,
    threshold: f64,
    threshold_at: Option<f64>,
    previous_trend: f64,
    over_for: Option<f64>,
    over_count: u32,
    usage: Usage,
}

impl Trendline {
    pub(super) fn new() -> Self {
        Self {
            points: [(0.0, 0.0); WINDOW],
            len: 0,
            next: 0,
            origin: None,
            deltas: 0,
            delay: 0.0,
            smoothed: 0.0,
            threshold: FIRST_THRESHOLD,
            threshold_at: None,
            previous_trend: 0.0,
            over_for: None,
            over_count: 0,
            usage: Usage::Normal,
        }
    }

    /// What the groups so far say.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// One group more.
    pub(super) fn on_delta(&mut self, delta: GroupDelta) {
        self.deltas = (self.deltas + 1).min(1000);
        let origin = *self.origin.get_or_insert(delta.arrived_at);
        let at = delta.arrived_at.saturating_sub(origin) as f64 / 1000.0;
        self.delay += (delta.arrived - delta.sent) as f64 / 1000.0;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.delay;
        self.points[self.next] = (at, self.smoothed);
        self.next = (self.next + 1) % WINDOW;
        self.len = (self.len + 1).min(WINDOW);
        let trend = if self.len == WINDOW { self.slope().unwrap_or(self.previous_trend) } else { 0.0 };
        self.detect(trend, delta.sent as f64 / 1000.0, at);
    }

    /// Least squares. The origin is the mean, so that large times cost no precision.
    fn slope(&self) -> Option<f64> {
        let n = WINDOW as f64;
        let (sum_x, sum_y) = self.points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        let (mean_x, mean_y) = (sum_x / n, sum_y / n);
        let (up, down) = self.points.iter().fold((0.0, 0.0), |(up, down), (x, y)| {
            (up + (x - mean_x) * (y - mean_y), down + (x - mean_x) * (x - mean_x))
        });
        (down > 0.0).then(|| up / down)
    }

    fn detect(&mut self, trend: f64, sent_delta: f64, at: f64) {
        if self.deltas < 2 {
            return;
        }
        let scaled = f64::from(self.deltas.min(MAX_DELTAS)) * trend * GAIN;
        if scaled > self.threshold {
            // At first it may have begun anywhere between the two groups.
            let over_for = self.over_for.map_or(sent_delta / 2.0, |time| time + sent_delta);
            self.over_for = Some(over_for);
            self.over_count += 1;
            if over_for > OVERUSE_TIME && self.over_count > 1 && trend >= self.previous_trend {
                self.over_for = Some(0.0);
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_for = None;
            self.over_count = 0;
            self.usage = if scaled < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.previous_trend = trend;
        self.adapt(scaled.abs(), at);
    }

    fn adapt(&mut self, scaled: f64, at: f64) {
        let since = at - self.threshold_at.unwrap_or(at);
        self.threshold_at = Some(at);
        if scaled > self.threshold + MAX_SPIKE {
            return;
        }
        let k = if scaled < self.threshold { FALL } else { RISE };
        self.threshold += k * (scaled - self.threshold) * since.clamp(0.0, 100.0);
        self.threshold = self.threshold.clamp(6.0, 600.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups every 20 ms, each `extra(n)` µs later than the one before.
    fn run(trendline: &mut Trendline, from: i64, groups: i64, extra: impl Fn(i64) -> i64) -> Option<i64> {
        let mut at = from;
        let mut over = None;
        for n in 0..groups {
            at += 20_000 + extra(n);
            trendline.on_delta(GroupDelta { sent: 20_000, arrived: 20_000 + extra(n), arrived_at: at });
            if trendline.usage() == Usage::Over {
                over.get_or_insert(n);
            }
        }
        over
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_falling_one_underuse() {
        let mut trendline = Trendline::new();
        assert_eq!(run(&mut trendline, 0, 100, |_| 0), None);
        assert_eq!(trendline.usage(), Usage::Normal);
        let over = run(&mut trendline, 3_000_000, 40, |_| 4000);
        assert!(over.is_some_and(|n| n < 20), "{over:?}");
        run(&mut trendline, 6_000_000, 40, |_| -4000);
        assert_eq!(trendline.usage(), Usage::Under);
    }

    #[test]
    fn jitter_alone_is_none() {
        let mut trendline = Trendline::new();
        assert_eq!(run(&mut trendline, 0, 2000, |n| if n % 2 == 0 { 9000 } else { -9000 }), None);
        assert_eq!(trendline.usage(), Usage::Normal);
    }
}
