//! Which rate explains the losses? Modelled after libwebrtc's `LossBasedBweV2`.
//!
//! A path is a bandwidth and an inherent loss: of what is sent up to the bandwidth the inherent share is lost, of what
//! is sent beyond it everything. Observations of what was sent and lost in quarters of a second, newer ones counting
//! more, make some paths likelier than others. Loss that does not depend on the rate (radio) makes a large inherent loss
//! likely and leaves the bandwidth alone; loss that comes with a higher rate (a full queue, a policer) lowers it. Other
//! than in libwebrtc the inherent loss is the most likely one for each candidate (found by bisection, not by one step of
//! Newton's method), it may be large at any rate, and a lower bandwidth must be clearly likelier before it is taken.

use super::send_log::PacketResult;

/// What one observation covers at least, in µs of sending.
const OBSERVATION: i64 = 250_000;
/// Packets of an observation at least.
const MIN_PACKETS: u32 = 10;
const WINDOW: usize = 20;
/// What an observation counts less than the next newer one.
const AGEING: f64 = 0.9;
const MIN_INHERENT: f64 = 0.001;
const MAX_INHERENT: f64 = 0.3;
/// How much likelier (natural logarithm) a lower bandwidth must be.
const EVIDENCE: f64 = 3.0;
/// The evidence is divided by how much more the losses vary than if each packet was lost for itself: in bursts of eight
/// eight packets say little more than one. No more than by this.
const MAX_DISPERSION: f64 = 16.0;
/// Prefers the higher of two bandwidths that explain the losses equally well.
const HIGHER: f64 = 0.001;
/// Growth in one observation while losses limit the rate.
const MAX_GROWTH: f64 = 1.3;

#[derive(Debug, Clone, Copy, Default)]
struct Observation {
    packets: u32,
    lost: u32,
    /// Sent, in bps.
    rate: f64,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    bps: f64,
    inherent: f64,
    likelihood: f64,
    /// Variance of the losses against what this path explains, 1 or more.
    dispersion: f64,
}

/// The loss-based rate.
#[derive(Debug, Default)]
pub(super) struct LossControl {
    /// A ring; the newest at `newest`.
    observations: [Observation; WINDOW],
    newest: usize,
    len: usize,
    partial: Observation,
    partial_bytes: u64,
    /// µs of sending at which the partial observation began, and its latest.
    began: Option<i64>,
    last: i64,
    bps: Option<f64>,
    inherent: f64,
}

impl LossControl {
    /// Bits per second that losses allow; `None`: they allow anything.
    pub(super) fn bps(&self) -> Option<f64> {
        self.bps
    }

    /// The share that is lost whatever is sent.
    pub(super) fn inherent(&self) -> f64 {
        self.inherent
    }

    /// The share lost lately.
    pub(super) fn average(&self) -> f64 {
        let (lost, packets) = self.weighted().fold((0.0, 0.0), |(lost, packets), (weight, o)| {
            (lost + weight * f64::from(o.lost), packets + weight * f64::from(o.packets))
        });
        if packets > 0.0 { lost / packets } else { 0.0 }
    }

    /// What a feedback said, while the delay allows `delay_bps` and `acked` arrives.
    pub(super) fn on_results(&mut self, results: &[PacketResult], delay_bps: f64, acked: Option<f64>) {
        for result in results {
            if result.was_lost {
                self.partial.lost = self.partial.lost.saturating_sub(1);
                continue;
            }
            self.began.get_or_insert(result.sent_at);
            self.last = self.last.max(result.sent_at);
            self.partial.packets += 1;
            self.partial.lost += u32::from(result.arrived_at.is_none());
            self.partial_bytes += u64::from(result.size);
        }
        let span = self.began.map_or(0, |began| self.last - began);
        if span < OBSERVATION || self.partial.packets < MIN_PACKETS {
            return;
        }
        self.partial.rate = 8e6 * self.partial_bytes as f64 / span as f64;
        self.newest = (self.newest + 1) % WINDOW;
        self.len = (self.len + 1).min(WINDOW);
        self.observations[self.newest] = self.partial;
        self.partial = Observation::default();
        self.partial_bytes = 0;
        self.began = Some(self.last);
        self.update(delay_bps, acked);
    }

    /// A probe showed that the path carries `bps`.
    pub(super) fn on_probe(&mut self, bps: f64) {
        self.bps = self.bps.map(|limit| limit.max(bps));
    }

    fn update(&mut self, delay_bps: f64, acked: Option<f64>) {
        let current = self.candidate(self.bps.unwrap_or(delay_bps).min(delay_bps));
        let mut best = current;
        let acked = acked.unwrap_or(delay_bps);
        // While losses limit the rate, it grows no further than what was tried.
        let highest = (MAX_GROWTH * current.bps).min(1.5 * acked).max(current.bps);
        for bps in [1.02 * current.bps, delay_bps, 0.95 * current.bps, 0.85 * current.bps, acked] {
            let candidate = self.candidate(bps.min(highest));
            let evidence = if candidate.bps < current.bps { EVIDENCE * candidate.dispersion } else { 0.0 };
            if candidate.likelihood - evidence > best.likelihood {
                best = candidate;
            }
        }
        self.inherent = best.inherent;
        self.bps = (best.bps < delay_bps).then_some(best.bps);
    }

    fn weighted(&self) -> impl Iterator<Item = (f64, &Observation)> {
        let mut weight = 1.0;
        (0..self.len).map(move |age| {
            let this = weight;
            weight *= AGEING;
            (this, &self.observations[(self.newest + WINDOW - age) % WINDOW])
        })
    }

    fn candidate(&self, bps: f64) -> Candidate {
        // The likelihood is concave in the inherent loss: where its slope is zero, or at a bound.
        let (mut low, mut high) = (MIN_INHERENT, MAX_INHERENT);
        let lost = self.weighted().any(|(_, o)| o.lost > 0);
        if !lost {
            high = low;
        }
        for _ in 0..if lost { 12 } else { 0 } {
            let middle = (low + high) / 2.0;
            let slope: f64 = self
                .weighted()
                .map(|(weight, o)| {
                    let excess = excess(bps, o.rate);
                    let p = probability(middle, excess);
                    let (lost, arrived) = (f64::from(o.lost), f64::from(o.packets - o.lost.min(o.packets)));
                    weight * (lost / p - arrived / (1.0 - p)) * (1.0 - excess)
                })
                .sum();
            if slope > 0.0 { low = middle } else { high = middle }
        }
        let inherent = (low + high) / 2.0;
        let higher = HIGHER * ln(1.0 + bps / 1000.0);
        let likelihood = self
            .weighted()
            .map(|(weight, o)| {
                let p = probability(inherent, excess(bps, o.rate));
                let (lost, arrived) = (f64::from(o.lost), f64::from(o.packets - o.lost.min(o.packets)));
                weight * (lost * ln(p) + arrived * ln(1.0 - p) + higher * f64::from(o.packets))
            })
            .sum();
        let (varied, weights) = self.weighted().fold((0.0, 0.0), |(varied, weights), (weight, o)| {
            let p = probability(inherent, excess(bps, o.rate));
            let packets = f64::from(o.packets);
            let off = f64::from(o.lost) - packets * p;
            (varied + weight * off * off / (packets * p * (1.0 - p)).max(0.1), weights + weight)
        });
        let dispersion = (varied / f64::max(weights, 1.0)).clamp(1.0, MAX_DISPERSION);
        Candidate { bps, inherent, likelihood, dispersion }
    }
}

/// The share of what is sent that is beyond `bps`.
fn excess(bps: f64, rate: f64) -> f64 {
    if rate > bps { (rate - bps) / rate } else { 0.0 }
}

fn probability(inherent: f64, excess: f64) -> f64 {
    (inherent + (1.0 - inherent) * excess).clamp(1e-4, 1.0 - 1e-4)
}

/// The natural logarithm of a positive, normal number, to about nine digits. The platform's own may differ from another's
/// in the last bit, and a run must repeat anywhere.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    // ln m = 2 artanh((m-1)/(m+1)), with m around 1.
    let (m, exponent) = if mantissa > std::f64::consts::SQRT_2 {
        (mantissa / 2.0, exponent + 1)
    } else {
        (mantissa, exponent)
    };
    let y = (m - 1.0) / (m + 1.0);
    let z = y * y;
    let series = 1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z / 11.0))));
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * y * series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quarters of a second at `rate` with one packet in `every` lost (0: none).
    fn feed(loss: &mut LossControl, from: &mut i64, quarters: usize, rate: f64, every: u64, delay_bps: f64) {
        let gap = (1200.0 * 8e6 / rate) as i64;
        for _ in 0..quarters {
            let end = *from + OBSERVATION + gap;
            let mut results = Vec::new();
            let mut n = 0;
            while *from < end {
                n += 1;
                let lost = every > 0 && n % every == every / 2;
                let arrived_at = (!lost).then_some(*from);
                let number = *from as u64;
                results.push(PacketResult {
                    number,
                    sent_at: *from,
                    arrived_at,
                    size: 1200,
                    probe: None,
                    was_lost: false,
                });
                *from += gap;
            }
            let share = if every > 0 { 1.0 - 1.0 / every as f64 } else { 1.0 };
            loss.on_results(&results, delay_bps, Some(rate * share));
        }
    }

    #[test]
    fn the_logarithm_is_one() {
        for x in [1e-4, 0.001, 0.3, 0.5, 0.999_9, 1.0, 1.5, 2.0, 1e4, 5e7] {
            assert!((ln(x) - x.ln()).abs() < 1e-7, "{x}: {} {}", ln(x), x.ln());
        }
    }

    #[test]
    fn random_loss_leaves_the_rate_alone() {
        for every in [100, 20, 10, 5] {
            let (mut loss, mut at) = (LossControl::default(), 0);
            feed(&mut loss, &mut at, 8, 2e6, 0, 2e6);
            feed(&mut loss, &mut at, 60, 2e6, every, 2e6);
            assert!(loss.bps().is_none_or(|bps| bps > 1.9e6), "1 in {every}: {:?}", loss.bps());
            let real = 1.0 / every as f64;
            assert!((loss.average() - real).abs() < 0.01 + 0.25 * real, "1 in {every}: {}", loss.average());
        }
    }

    #[test]
    fn loss_that_comes_with_the_rate_lowers_it() {
        let (mut loss, mut at) = (LossControl::default(), 0);
        feed(&mut loss, &mut at, 12, 1e6, 0, 1e6);
        // A policer at 1 Mbit/s.
        feed(&mut loss, &mut at, 4, 1.25e6, 5, 1.25e6);
        assert!(loss.bps().is_some_and(|bps| (0.85e6..1.1e6).contains(&bps)), "{:?}", loss.bps());
        // It goes away.
        feed(&mut loss, &mut at, 40, 1.05e6, 0, 1.25e6);
        assert_eq!(loss.bps(), None);
    }
}
