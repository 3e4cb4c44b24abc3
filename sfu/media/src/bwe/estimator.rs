//! The estimate towards one peer.

use std::time::{Duration, Instant};

use super::acked_rate::AckedRate;
use super::loss::LossControl;
use super::packet_groups::PacketGroups;
use super::probe::{Probing, Shown};
use super::queue_delay::{QueueDelay, RecentMin};
use super::rate_control::{Path, RateControl, Step};
use super::send_log::{PacketResult, SendLog};
use super::sent_rate::SentRate;
use super::trendline::{Trendline, Usage};
use super::{Probe, ProbeId};
use crate::rtcp::TwccFeedback;

/// Round trip assumed before one is known, in µs.
const DEFAULT_RTT: i64 = 200_000;
/// Less than this share of the target sent: the source is the limit, not the path.
const LIMITED: f64 = 0.7;
/// .. and for so long beyond the round trip, in µs, what arrives still shows it.
const LIMITED_SHOWS: i64 = 150_000;
/// Less than this share of the target sent, and all of it arrives: a queue is of the moment, and what arrives says nothing
/// of how much more would.
const UNFILLED: f64 = 0.95;
/// A queue is drained within this time, or a round trip if that is longer, in µs.
const DRAIN_TIME: i64 = 400_000;
/// A queue up to this length drains by itself after a decrease: a relay drops a whole layer to send a little less.
const SHORT_QUEUE: i64 = 50_000;
/// A queue of this length is drained even before the trend shows overuse, in µs.
const LONG_QUEUE: i64 = 100_000;
/// A probe that takes longer than this is over as soon as there is a short queue.
const LONG_PROBE: Duration = Duration::from_millis(150);
/// .. until no more than this is left, in µs.
const DRAINED: i64 = 20_000;
/// .. and as long as it gets shorter: within this time beyond the round trip, in µs, by a fifth. What does not is not
/// ours to drain,
const DRAIN_CHECK: i64 = 2_000_000;
/// .. and after this time, in µs, no more is sent until it does.
const DRAIN_HOLD: i64 = 1_000_000;
/// .. not even after the estimate was lowered to this share.
const DRAIN_DECREASE: f64 = 0.85;
/// Share of the target that is always sent while a queue drains.
const MIN_DRAIN: f64 = 0.2;
/// Bytes in flight are what the round trip, the time between feedbacks and this much queue explain, in µs; beyond that
/// feedback stays away, because a queue grew or the path is gone.
const FLIGHT_QUEUE: i64 = 100_000;
/// Time between two feedbacks assumed at most, in µs.
const MAX_FEEDBACK_INTERVAL: i64 = 250_000;
/// Share of the target that is sent while feedback stays away.
const MIN_PUSHBACK: f64 = 0.2;
/// Time without any feedback after which the estimate itself is halved, each time, in µs.
const SILENCE: i64 = 2_000_000;
/// Lost share from which on the losses are asked whether they come from the rate: .. sent for this long, in µs, this
/// often, in µs, is this share of the target. Losses that do not change are nobody's fault.
const TRIAL_LOSS: f64 = 0.06;
const TRIAL: i64 = 600_000;
const TRIAL_INTERVAL: i64 = 6_000_000;
/// What the interval doubles up to while trials change nothing, in µs.
const MAX_TRIAL_INTERVAL: i64 = 64_000_000;
const TRIAL_SHARE: f64 = 0.75;
/// For so long after the first feedback, in µs, a relay may send more than the estimate, and what arrives of it counts if it
/// is as many times the estimate.
const BEGINNING: i64 = 3_000_000;
const SURPLUS: f64 = 1.25;
/// While more than this is lost, a queue need not stand to count: it may be as long as it gets.
const SOME_LOSS: f64 = 0.02;
/// Less loss in a report than this is no reason to send less.
const LITTLE_LOSS: f64 = 0.02;
/// Interval at which time alone is looked at while packets are in flight.
const TICK: Duration = Duration::from_millis(100);

/// Rate of bursts against the target. libwebrtc takes 2.5; a relay cannot choose the size of a key frame, and at this rate
/// it waits here, where audio overtakes it, and not in the path. Frames of many cameras come together, too: faster than
/// the path, each would be a short queue that looks like overuse.
const PACING: f64 = 1.2;

/// Bounds of an [`Estimator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EstimatorConfig {
    /// Where it starts. The first probe tries three times as much if that is wanted, further ones twice what was shown.
    pub start_bps: u64,
    /// Never estimates less: audio must pass even on the worst path.
    pub min_bps: u64,
    /// Never estimates more.
    pub max_bps: u64,
}

impl Default for EstimatorConfig {
    /// 500 kbit/s: nearly every path carries it, and probes reach 3 Mbit/s within a few round trips.
    fn default() -> Self {
        Self { start_bps: 500_000, min_bps: 30_000, max_bps: 50_000_000 }
    }
}

/// A queue that is being drained.
#[derive(Debug, Clone, Copy)]
struct Drain {
    /// When it was looked at last, and the longest it was since, in µs.
    since: i64,
    longest: i64,
    /// It did not get shorter then, so the estimate was lowered.
    decreased: bool,
}

/// Estimates what the path to one peer carries, from its feedback.
#[derive(Debug)]
pub struct Estimator {
    min: f64,
    max: f64,
    epoch: Instant,
    log: SendLog,
    results: Vec<PacketResult>,
    sent: SentRate,
    acked: AckedRate,
    groups: PacketGroups,
    trendline: Trendline,
    rate: RateControl,
    losses: LossControl,
    queue: QueueDelay,
    probing: Probing,
    /// Smoothed, and the least of late without the receiver's pauses; µs.
    rtt: Option<i64>,
    least_rtt: RecentMin,
    draining: Option<Drain>,
    /// µs since `epoch`, as all times here.
    feedback_at: Option<i64>,
    first_feedback_at: Option<i64>,
    feedback_interval: i64,
    /// The first packet sent after the last feedback.
    unanswered_since: Option<i64>,
    /// When the rate was lowered last to see whether fewer packets are lost then.
    trial_at: Option<i64>,
    trial_interval: i64,
    limited: bool,
    /// When it was so last.
    limited_at: Option<i64>,
    remb: Option<f64>,
    report_loss: Option<f64>,
    report_increase_at: Option<i64>,
    /// `rate`, `losses` and `remb` in one.
    estimate: f64,
    /// `estimate` less what drains queues and what feedback that stays away takes.
    target: f64,
    tick_at: Option<Instant>,
    /// The last time of sending, and what it is in µs: many packets leave at the same one.
    sent_at: (Instant, i64),
}

impl Estimator {
    /// Nothing sent yet.
    pub fn new(config: EstimatorConfig, now: Instant) -> Self {
        let min = config.min_bps.max(1000) as f64;
        let max = (config.max_bps as f64).max(min);
        let start = (config.start_bps as f64).clamp(min, max);
        Self {
            min,
            max,
            epoch: now,
            log: SendLog::default(),
            results: Vec::with_capacity(256),
            sent: SentRate::default(),
            acked: AckedRate::default(),
            groups: PacketGroups::default(),
            trendline: Trendline::new(),
            rate: RateControl::new(start, min, max),
            losses: LossControl::default(),
            queue: QueueDelay::default(),
            probing: Probing::default(),
            rtt: None,
            least_rtt: RecentMin::default(),
            draining: None,
            feedback_at: None,
            first_feedback_at: None,
            feedback_interval: 100_000,
            unanswered_since: None,
            trial_at: None,
            trial_interval: TRIAL_INTERVAL,
            limited: false,
            limited_at: None,
            remb: None,
            report_loss: None,
            report_increase_at: None,
            estimate: start,
            target: start,
            tick_at: None,
            sent_at: (now, 0),
        }
    }

    /// Packets of these sizes on the wire (IP and UDP headers included) left, the first one with the transport-wide number
    /// `first` (in full, not its 16 bits). `probe`: the probe that they were sent for.
    pub fn on_sent(
        &mut self,
        first: u64,
        sizes: impl ExactSizeIterator<Item = usize>,
        probe: Option<ProbeId>,
        now: Instant,
    ) {
        if self.sent_at.0 != now {
            self.sent_at = (now, self.micros(now));
        }
        let at = self.sent_at.1;
        let numbers = first..first + sizes.len() as u64;
        // No datagram is longer.
        let bytes = self.log.on_sent(first, sizes.map(|size| size.min(0xffff) as u32), probe, at);
        self.sent.on_sent(bytes, at);
        if let Some(probe) = probe {
            numbers.for_each(|number| self.probing.on_sent(probe, number));
        }
        self.unanswered_since.get_or_insert(at);
        if self.feedback_at.is_some() {
            self.tick_at.get_or_insert(now + TICK);
        }
    }

    /// Reads a bit of all that [`Self::on_sent`] needs, so that it is in the cache then.
    pub(crate) fn touch(&self) -> u64 {
        self.log.touch() + u64::from(self.unanswered_since.is_some())
    }

    /// Transport-wide feedback arrived. It may be late, twice, or about anything.
    pub fn on_feedback(&mut self, feedback: &TwccFeedback<'_>, now: Instant) {
        let at = self.micros(now);
        let mut results = std::mem::take(&mut self.results);
        results.clear();
        self.log.on_feedback(feedback, at, &mut results);
        if !results.is_empty() {
            self.on_results(&mut results, at);
        }
        self.results = results;
    }

    /// The receiver's own estimate (draft-alvestrand-rmcat-remb): bounds the target from then on, and is the target of a peer
    /// that sends no transport-wide feedback and loses little.
    pub fn on_remb(&mut self, bps: u64, now: Instant) {
        let (at, bps) = (self.micros(now), bps as f64);
        self.remb = Some(bps);
        let clean = self.report_loss.is_none_or(|loss| loss < LITTLE_LOSS);
        if self.feedback_at.is_none() && clean && bps > self.rate.bps() {
            self.rate.set(bps, at);
        }
        self.combine(at);
    }

    /// Receiver reports of a second or so: `fraction_lost` in 1/256, and the round trip if it tells. Controls the
    /// rate only while the peer sends no transport-wide feedback
    /// ([draft-ietf-rmcat-gcc-02 section 6](https://datatracker.ietf.org/doc/html/draft-ietf-rmcat-gcc-02#section-6)).
    pub fn on_report(&mut self, fraction_lost: u8, rtt: Option<Duration>, now: Instant) {
        if self.feedback_at.is_some() {
            return;
        }
        let at = self.micros(now);
        if let Some(rtt) = rtt {
            self.on_rtt(i64::try_from(rtt.as_micros()).unwrap_or(i64::MAX).min(60_000_000));
        }
        let loss = f64::from(fraction_lost) / 256.0;
        self.report_loss = Some(loss);
        // More than half as much again as what is sent was never tried.
        let tried = 1.5 * self.sent.bps(at) + 10_000.0;
        if loss > 0.1 {
            self.rate.set(self.rate.bps() * (1.0 - 0.5 * loss), at);
        } else if loss < LITTLE_LOSS
            && self.rate.bps() < tried
            && self.report_increase_at.is_none_or(|last| at - last >= 1_000_000)
        {
            self.report_increase_at = Some(at);
            self.rate.set((1.08 * self.rate.bps()).min(tried), at);
        }
        self.combine(at);
    }

    /// What the subscriptions could use in all: `wanted_bps` is what they would take without a bound, `allocated_bps`
    /// what they were given of the target. Probes aim at `wanted_bps`, never above.
    pub fn set_demand(&mut self, allocated_bps: u64, wanted_bps: u64, now: Instant) {
        let at = self.micros(now);
        self.probing.set_wanted((wanted_bps.max(allocated_bps) as f64).min(self.max), at);
    }

    /// What may be sent now, media and retransmissions and all headers.
    pub fn target_bps(&self) -> u64 {
        self.target as u64
    }

    /// What the path is held to carry: the target without what it lacks for moments, while a queue drains, feedback stays
    /// away, or a lower rate is tried. At most what it was when less was sent.
    pub fn estimate_bps(&self) -> u64 {
        self.estimate as u64
    }

    /// How fast a burst (a key frame) may leave.
    pub fn pacing_bps(&self) -> u64 {
        (PACING * self.target) as u64
    }

    /// Round trip, smoothed. That from feedback is without the pauses that the receiver makes between two.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|rtt| Duration::from_micros(rtt.max(0) as u64))
    }

    /// Share of packets lost in the last seconds, 0 to 1.
    pub fn loss(&self) -> f32 {
        self.report_loss.filter(|_| self.feedback_at.is_none()).unwrap_or_else(|| self.losses.average())
            as f32
    }

    /// Share of packets that is lost whatever is sent, 0 to 1, as far as transport-wide feedback tells.
    pub fn random_loss(&self) -> f32 {
        self.losses.inherent() as f32
    }

    /// The least round trip of late: without queues and pauses.
    pub fn least_rtt(&self) -> Option<Duration> {
        self.least_rtt.get().map(|rtt| Duration::from_micros(rtt.max(0) as u64))
    }

    /// Bytes sent after the last packet that a feedback spoke of.
    pub fn in_flight_bytes(&self) -> u64 {
        self.log.in_flight_bytes()
    }

    /// Whether the path was full not long ago, so that what a probe shows may be too much.
    pub(crate) fn is_contested(&self, now: Instant) -> bool {
        self.rate.is_contested(self.micros(now))
    }

    /// A probe to be started now. To be asked after every feedback, timeout and change of demand.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        if !self.may_probe() {
            return None;
        }
        let at = self.micros(now);
        let filled = self.sent.bps(at) >= UNFILLED * self.estimate;
        self.probing.poll(self.estimate, filled, self.rate.is_contested(at), at)
    }

    /// Whether a probe under way has made a queue in the path, so that the rest of it would only lengthen that.
    pub(crate) fn is_too_much(&self, probe: &Probe) -> bool {
        self.draining.is_some() || probe.duration > LONG_PROBE && self.queue.micros() > SHORT_QUEUE
    }

    /// When [`Self::handle_timeout`] wants to be called, and [`Self::poll_probe`] after it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let probe = self.probing.due_at(self.estimate, self.rtt_micros(), self.may_probe());
        let probe = probe.map(|at| self.epoch + Duration::from_micros(at.max(0) as u64));
        [self.tick_at, probe].into_iter().flatten().min()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let at = self.micros(now);
        self.probing.handle_timeout(self.rtt_micros(), at);
        if self.tick_at.is_none_or(|tick| now < tick) {
            return;
        }
        self.tick_at = (self.unanswered_since.is_some() || self.draining.is_some()).then(|| now + TICK);
        if self.feedback_at.is_some() && self.unanswered_since.is_some_and(|since| at - since >= SILENCE) {
            self.unanswered_since = Some(at);
            self.rate.set(0.5 * self.rate.bps(), at);
            self.probing.on_congestion(at);
        }
        self.combine(at);
    }

    /// A probe needs a peer that tells of it, and a path that is not busy with a queue already. A peer that estimates itself
    /// recognises probes by `abs-send-time`, and its next estimate tells; then there is no result but that.
    fn may_probe(&self) -> bool {
        let told = match self.feedback_at {
            Some(_) => self.remb.is_none_or(|remb| remb > self.estimate),
            None => self.remb.is_some(),
        };
        told && self.draining.is_none()
            && self.target >= self.estimate
            && self.trendline.usage() != Usage::Over
    }

    fn on_results(&mut self, results: &mut [PacketResult], at: i64) {
        let rtt_limit = 2 * MAX_FEEDBACK_INTERVAL;
        if let Some(last) = self.feedback_at {
            if at - last > SILENCE {
                self.probing.on_return(at);
            }
            let interval = (at - last).min(rtt_limit);
            self.feedback_interval += (interval - self.feedback_interval) / 8;
        }
        self.feedback_at = Some(at);
        self.first_feedback_at.get_or_insert(at);
        self.unanswered_since = (self.log.in_flight_bytes() > 0).then_some(at);

        let limited = self.sent.bps(at) < LIMITED * self.target;
        if limited {
            self.limited_at = Some(at);
        }
        if self.limited && !limited {
            self.acked.expect_change();
        }
        self.limited = limited;

        let acked = self.acked.bps();
        self.losses.on_results(results, self.rate.bps(), acked);

        // The delay is in the order of arrival; numbers break ties, so that the order is one.
        results.sort_unstable_by_key(|result| (result.arrived_at, result.number));
        let newest_arrival = results.last().and_then(|result| result.arrived_at);
        let mut least_delay = i64::MAX;
        let mut rtt = i64::MAX;
        let mut probed = None;
        for result in results.iter() {
            let Some(arrived_at) = result.arrived_at else {
                self.probing.on_result(result);
                continue;
            };
            self.acked.on_arrival(arrived_at, result.size, limited);
            least_delay = least_delay.min(arrived_at.saturating_sub(result.sent_at));
            let waited = newest_arrival.map_or(0, |newest| newest.saturating_sub(arrived_at));
            rtt = rtt.min((at - result.sent_at).saturating_sub(waited));
            // A probe builds a short queue on purpose.
            if result.probe.is_none()
                && let Some(delta) = self.groups.on_packet(result.sent_at, arrived_at)
            {
                self.trendline.on_delta(delta);
            }
            probed = self.probing.on_result(result).or(probed);
        }
        if newest_arrival.is_some() {
            self.queue.on_delay(least_delay, at);
            if self.queue.micros() > LONG_QUEUE {
                // The trend needs some groups more to be sure; the queue is there already.
                self.drain(at);
            }
            let rtt = rtt.clamp(0, 60_000_000);
            self.least_rtt.add(rtt, at);
            self.on_rtt(rtt);
            let newest = results.iter().map(|result| result.number).max().unwrap_or(0);
            self.control(probed, newest, at);
        }
        self.combine(at);
    }

    /// Lets the delay and what a probe showed change the rate. `newest`: the highest number that the feedback spoke of.
    fn control(&mut self, probed: Option<Shown>, newest: u64, at: i64) {
        let lossy = self.losses.average() > SOME_LOSS;
        let usage = match self.trendline.usage() {
            // Frames come in bursts, and what they wait for each other says nothing of the next second.
            Usage::Over if !self.queue.stands() && !lossy => Usage::Normal,
            // A queue that is full grows no longer.
            Usage::Normal if self.queue.stands() && lossy => Usage::Over,
            usage => usage,
        };
        // What is lost whatever is sent is carried by the link up to there.
        let carried = 1.0 / (1.0 - self.losses.inherent());
        let arrives = if usage == Usage::Over { self.acked.congested_bps() } else { self.acked.bps() };
        let acked = arrives.map(|bps| bps * carried);
        let sent = self.sent.bps(at);
        let begins = self.first_feedback_at.is_some_and(|first| at - first < BEGINNING)
            && self.draining.is_none()
            && self.losses.bps().is_none();
        let arrives_as_sent = acked.is_some_and(|acked| acked >= 0.9 * sent);
        let path = Path {
            acked,
            carried: arrives.filter(|_| begins && sent > SURPLUS * self.rate.bps()),
            rtt: self.rtt_micros(),
            limited: arrives_as_sent && self.sent.bps(at) < UNFILLED * self.target || self.was_limited(at),
            queue: self.queue.micros(),
            lossy,
        };
        // A queue that stays as long as it is while it should drain looks steady, but is no reason to send more.
        let stays = self.draining.is_some_and(|drain| at - drain.since > DRAIN_HOLD);
        let usage = if stays && usage == Usage::Normal { Usage::Under } else { usage };
        let step = self.rate.update(usage, path, at);
        if step == Step::Fell || usage == Usage::Over {
            self.probing.on_congestion(at);
        }
        if step == Step::Fell && self.queue.micros() > SHORT_QUEUE {
            self.drain(at);
        }
        let probed = probed.map(|shown| Shown { bps: shown.bps * carried, ..shown });
        if let Some(Shown { bps, saturated, unsure: false }) = probed
            && usage != Usage::Over
            && self.rate.on_probe(bps, saturated, path.limited, at)
        {
            self.losses.on_probe(bps);
            self.acked.expect_change();
        }
        self.probing.on_feedback_end(probed, newest, at);
    }

    /// Little was sent a moment ago. What arrived then does not tell what a path carries that has a queue now.
    fn was_limited(&self, at: i64) -> bool {
        let lately = self.limited_at.is_some_and(|last| at - last < self.rtt_micros() + LIMITED_SHOWS);
        lately && self.queue.micros() < LONG_QUEUE
    }

    fn drain(&mut self, at: i64) {
        self.draining.get_or_insert(Drain { since: at, longest: 0, decreased: false });
        self.tick_at.get_or_insert(self.epoch + Duration::from_micros(at.max(0) as u64) + TICK);
    }

    /// The estimate from its parts, and what may be sent of it now.
    fn combine(&mut self, now: i64) {
        let rate = self.rate.bps();
        let rate = self.losses.bps().map_or(rate, |losses| rate.min(losses));
        self.estimate = self.remb.map_or(rate, |remb| rate.min(remb)).clamp(self.min, self.max);
        let share = self.drain_share(now).min(self.pushback_share()).min(self.trial_share(now));
        self.target = (self.estimate * share).clamp(self.min, self.max);
    }

    /// The share of the estimate that lets the queue drain.
    fn drain_share(&mut self, now: i64) -> f64 {
        let rtt = self.rtt_micros();
        let queue = self.queue.micros();
        let Some(drain) = &mut self.draining else { return 1.0 };
        if queue <= DRAINED {
            self.draining = None;
            return 1.0;
        }
        drain.longest = drain.longest.max(queue);
        if now - drain.since > DRAIN_CHECK + rtt {
            let shorter = queue <= drain.longest / 5 * 4;
            if !shorter && drain.decreased {
                self.draining = None;
                self.queue.rebase(now);
                return 1.0;
            }
            *drain = Drain { since: now, longest: queue, decreased: !shorter };
            if !shorter {
                // The estimate itself may still be too high.
                self.rate.set(DRAIN_DECREASE * self.rate.bps(), now);
            }
        }
        (1.0 - queue as f64 / DRAIN_TIME.max(rtt) as f64).max(MIN_DRAIN)
    }

    /// The share of the estimate that the bytes in flight allow: they grow before any feedback can tell of a queue.
    fn pushback_share(&self) -> f64 {
        let Some(rtt) = self.least_rtt.get() else { return 1.0 };
        let explained = rtt + self.feedback_interval.min(MAX_FEEDBACK_INTERVAL) + FLIGHT_QUEUE;
        let allowed = self.estimate * explained as f64 / 8e6 + 3000.0;
        let in_flight = self.log.in_flight_bytes() as f64;
        if in_flight <= allowed { 1.0 } else { (allowed / in_flight).max(MIN_PUSHBACK) }
    }

    /// Lowers the rate for a moment while much is lost. At one rate alone a full policer looks like a bad radio.
    fn trial_share(&mut self, now: i64) -> f64 {
        if self.trial_at.is_some_and(|at| now - at < TRIAL) {
            return TRIAL_SHARE;
        }
        if self.first_feedback_at.is_none_or(|first| now - first < BEGINNING) {
            return 1.0;
        }
        let since = self.trial_at.map_or(i64::MAX, |at| now - at);
        if self.losses.bps().is_some() || self.losses.inherent() < TRIAL_LOSS / 2.0 {
            self.trial_interval = TRIAL_INTERVAL;
        }
        if since >= self.trial_interval && self.losses.inherent() > TRIAL_LOSS {
            if self.trial_at.is_some() {
                self.trial_interval = (2 * self.trial_interval).min(MAX_TRIAL_INTERVAL);
            }
            self.trial_at = Some(now);
            return TRIAL_SHARE;
        }
        1.0
    }

    fn on_rtt(&mut self, sample: i64) {
        self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt + (sample - rtt) / 8));
    }

    fn rtt_micros(&self) -> i64 {
        self.rtt.unwrap_or(DEFAULT_RTT)
    }

    fn micros(&self, now: Instant) -> i64 {
        now.saturating_duration_since(self.epoch).as_micros() as i64
    }
}
