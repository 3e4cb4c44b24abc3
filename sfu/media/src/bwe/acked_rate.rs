//! What arrives at the receiver a second: libwebrtc's `BitrateEstimator`, a Bayesian filter over short windows.

/// Window of the first sample, in µs; a longer one, so that it starts near the truth.
const FIRST_WINDOW: i64 = 500_000;
/// Window of a sample, in µs.
const WINDOW: i64 = 150_000;
/// A longer pause says nothing of the path, in µs.
const MAX_PAUSE: i64 = 1_000_000;
/// Samples below this share of the estimate are a sudden fall.
const SUDDEN: f64 = 0.7;
/// How much less a sample is trusted the further it is from the estimate.
const UNCERTAINTY: f64 = 10.0;
/// The same while little is sent: a lull then says nothing about the path.
const UNCERTAINTY_LIMITED: f64 = 20.0;
/// What the variance grows by from sample to sample, kbit²/s².
const VARIANCE_STEP: f64 = 5.0;

/// Estimates the acknowledged rate from the times of arrival.
#[derive(Debug, Default)]
pub(super) struct AckedRate {
    /// Bytes of the window that runs, and how long it ran in µs.
    bytes: u64,
    window: i64,
    last: Option<i64>,
    /// kbit/s and its variance.
    estimate: Option<(f64, f64)>,
    /// The last two samples, kbit/s.
    samples: [f64; 2],
}

impl AckedRate {
    /// A packet arrived at `at` µs of the receiver's clock. `limited`: the source sends less than it may.
    pub(super) fn on_arrival(&mut self, at: i64, size: u32, limited: bool) {
        let window = if self.estimate.is_some() { WINDOW } else { FIRST_WINDOW };
        let passed = self.last.map_or(0, |last| at.saturating_sub(last));
        if passed < 0 {
            // Reordered by the network: it belongs to the window all the same.
            self.bytes += u64::from(size);
            return;
        }
        self.last = Some(at);
        self.window = self.window.saturating_add(passed);
        if passed > MAX_PAUSE || (limited && passed > window) {
            // Nothing was sent. What came before the pause is no window's worth.
            self.bytes = 0;
            self.window = 0;
        }
        if self.window >= window {
            let sample = 8000.0 * self.bytes as f64 / self.window as f64;
            self.window = 0;
            self.bytes = 0;
            self.on_sample(sample, limited);
        }
        self.bytes += u64::from(size);
    }

    /// Bits per second that a path carries whose queue grows. The filter follows a sudden fall slowly: if the last two
    /// samples are far below it, they count.
    pub(super) fn congested_bps(&self) -> Option<f64> {
        let recent = 1000.0 * self.samples.into_iter().fold(0.0, f64::max);
        self.bps().map(|bps| if recent > 0.0 && recent < SUDDEN * bps { recent } else { bps })
    }

    /// What follows may be very different: samples count more for a while.
    pub(super) fn expect_change(&mut self) {
        if let Some((_, variance)) = &mut self.estimate {
            *variance += 200.0;
        }
    }

    /// Bits per second; `None` before the first half second.
    pub(super) fn bps(&self) -> Option<f64> {
        self.estimate.map(|(kbps, _)| kbps * 1000.0)
    }

    fn on_sample(&mut self, sample: f64, limited: bool) {
        self.samples = [self.samples[1], sample];
        let Some((estimate, variance)) = self.estimate else {
            self.estimate = Some((sample, 50.0));
            return;
        };
        let scale = if limited && sample < estimate { UNCERTAINTY_LIMITED } else { UNCERTAINTY };
        // Other than in libwebrtc a rise is not trusted less than a fall, or it would take minutes after a probe.
        let uncertainty = scale * (estimate - sample).abs() / estimate.max(sample).max(1.0);
        let sample_variance = (uncertainty * uncertainty).max(1e-3);
        let predicted = variance + VARIANCE_STEP;
        let sum = sample_variance + predicted;
        let estimate = (sample_variance * estimate + predicted * sample) / sum;
        self.estimate = Some((estimate.max(0.0), sample_variance * predicted / sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: &mut AckedRate, from: i64, ms: i64, bytes_per_ms: u32) -> i64 {
        for at in 0..ms {
            rate.on_arrival((from + at) * 1000, bytes_per_ms, false);
        }
        from + ms
    }

    #[test]
    fn follows_steps() {
        let mut rate = AckedRate::default();
        let t = run(&mut rate, 0, 499, 125);
        assert_eq!(rate.bps(), None);
        let t = run(&mut rate, t, 600, 125);
        assert!((rate.bps().unwrap() / 1e6 - 1.0).abs() < 0.02, "{:?}", rate.bps());
        let t = run(&mut rate, t, 500, 25);
        assert!((rate.congested_bps().unwrap() / 2e5 - 1.0).abs() < 0.05, "{:?}", rate.congested_bps());
        let t = run(&mut rate, t, 1500, 25);
        assert!((rate.bps().unwrap() / 2e5 - 1.0).abs() < 0.3, "{:?}", rate.bps());
        run(&mut rate, t, 2000, 250);
        assert!((rate.bps().unwrap() / 2e6 - 1.0).abs() < 0.2, "{:?}", rate.bps());
    }

    #[test]
    fn a_pause_is_no_low_rate() {
        let mut rate = AckedRate::default();
        let t = run(&mut rate, 0, 2000, 125);
        run(&mut rate, t + 5000, 140, 125);
        assert!(rate.bps().unwrap() > 0.9e6, "{:?}", rate.bps());
    }
}
