//! The estimate towards one peer.

use std::time::{Duration, Instant};

use super::send_log::{PacketResult, SendLog};
use super::{Probe, ProbeId};
use crate::rtcp::TwccFeedback;

/// Bounds of an [`Estimator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EstimatorConfig {
    /// Where it starts. The first probes try three and six times as much if that is wanted.
    pub start_bps: u64,
    /// Never estimates less: audio must pass even on the worst path.
    pub min_bps: u64,
    /// Never estimates more.
    pub max_bps: u64,
}

impl Default for EstimatorConfig {
    /// 500 kbit/s: nearly every path carries it, and the first probes reach 3 Mbit/s within a few round trips.
    fn default() -> Self {
        Self { start_bps: 500_000, min_bps: 30_000, max_bps: 50_000_000 }
    }
}

/// Estimates what the path to one peer carries, from its feedback.
#[derive(Debug)]
pub struct Estimator {
    config: EstimatorConfig,
    epoch: Instant,
    log: SendLog,
    results: Vec<PacketResult>,
    target: u64,
    remb: Option<u64>,
    rtt: Option<Duration>,
    loss: f32,
    last_report_increase: Option<Instant>,
    has_twcc: bool,
}

impl Estimator {
    /// Nothing sent yet.
    pub fn new(config: EstimatorConfig, now: Instant) -> Self {
        let max = config.max_bps.max(config.min_bps);
        Self {
            config,
            epoch: now,
            log: SendLog::default(),
            results: Vec::with_capacity(256),
            target: config.start_bps.clamp(config.min_bps, max),
            remb: None,
            rtt: None,
            loss: 0.0,
            last_report_increase: None,
            has_twcc: false,
        }
    }

    /// A packet of `size` bytes on the wire (IP and UDP headers included) with the transport-wide number `number` (in
    /// full, not its 16 bits) left. `probe`: the probe that it was sent for.
    pub fn on_sent(&mut self, number: u64, size: usize, probe: Option<ProbeId>, now: Instant) {
        let now = self.micros(now);
        self.log.on_sent(number, size, probe, now);
    }

    /// Transport-wide feedback arrived. It may be late, twice, or about anything.
    pub fn on_feedback(&mut self, feedback: &TwccFeedback<'_>, now: Instant) {
        let at = self.micros(now);
        self.results.clear();
        self.log.on_feedback(feedback, at, &mut self.results);
        let Some(last) = self.results.iter().rfind(|r| r.arrived_at.is_some()) else { return };
        self.has_twcc = true;
        self.on_rtt(Duration::from_micros((at - last.sent_at).max(0) as u64));
        let lost = self.results.iter().filter(|r| r.arrived_at.is_none()).count();
        self.loss += (lost as f32 / self.results.len() as f32 - self.loss) / 8.0;
    }

    /// The receiver's own estimate (draft-alvestrand-rmcat-remb): bounds the target from then on.
    pub fn on_remb(&mut self, bps: u64, _now: Instant) {
        self.remb = Some(bps);
    }

    /// A receiver report: `fraction_lost` in 1/256 since the one before, and the round trip if it tells. Controls the
    /// rate only while the peer sends no transport-wide feedback (the GCC draft, section 6).
    pub fn on_report(&mut self, fraction_lost: u8, rtt: Option<Duration>, now: Instant) {
        if self.has_twcc {
            return;
        }
        if let Some(rtt) = rtt {
            self.on_rtt(rtt);
        }
        let loss = f32::from(fraction_lost) / 256.0;
        self.loss = loss;
        if fraction_lost > 25 {
            self.target = self.target * u64::from(512 - u16::from(fraction_lost)) / 512;
        } else if fraction_lost < 5
            && self.last_report_increase.is_none_or(|at| now.saturating_duration_since(at).as_secs() >= 1)
        {
            self.last_report_increase = Some(now);
            self.target = self.target * 108 / 100;
        }
        self.target = self.target.clamp(self.config.min_bps, self.config.max_bps.max(self.config.min_bps));
    }

    /// What is sent of what the subscriptions could use: `allocated_bps` is what the allocation gave out of the
    /// target, `wanted_bps` what it would give out without a bound. Probes aim at `wanted_bps`.
    pub fn set_demand(&mut self, _allocated_bps: u64, _wanted_bps: u64, _now: Instant) {}

    /// What may be sent now, media and retransmissions and all headers.
    pub fn target_bps(&self) -> u64 {
        self.target.min(self.remb.unwrap_or(u64::MAX)).max(self.config.min_bps)
    }

    /// How fast a burst (a key frame) may leave.
    pub fn pacing_bps(&self) -> u64 {
        self.target_bps() * 5 / 2
    }

    /// Round trip, smoothed; feedback includes how long the receiver waited before it wrote.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Share of packets lost recently, 0 to 1.
    pub fn loss(&self) -> f32 {
        self.loss
    }

    /// A probe to be started now. To be asked after every feedback, timeout and change of demand.
    pub fn poll_probe(&mut self, _now: Instant) -> Option<Probe> {
        None
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Bytes sent that no feedback spoke of yet.
    pub fn in_flight_bytes(&self) -> u64 {
        self.log.in_flight_bytes()
    }

    fn on_rtt(&mut self, sample: Duration) {
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    fn micros(&self, now: Instant) -> i64 {
        now.saturating_duration_since(self.epoch).as_micros() as i64
    }
}
