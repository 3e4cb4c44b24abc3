//! What one peer's path carries, as far as the relay knows, and the way that packets to it take.

use std::time::{Duration, Instant};

use super::subscriptions::SubKey;
use super::tracks::StreamKey;
use crate::bwe::allocator::{Allocator, Budget, Shared};
use crate::bwe::{Estimator, EstimatorConfig, Probe};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Remote, SeqNo};
use crate::inbound::{LayerRates, PacketStore};
use crate::outbound::{Forwarder, Pacer, Packet, PlayoutDelay, TwccSeqCounter};
use crate::rtcp::TwccFeedback;
use crate::srtp::SrtpSeal;
use crate::stats::ShardStats;
use crate::tx::TxQueue;

/// Bytes of IP and UDP headers on each datagram.
pub(super) const IP_UDP: usize = 28;
/// Bytes that RTP header, extensions, tag and [`IP_UDP`] add to a payload, about.
pub(super) const WIRE_OVERHEAD: usize = 80;
/// A client that negotiated transport-wide feedback and sent none so long after the first packet never will.
const FEEDBACK_PATIENCE: Duration = Duration::from_secs(3);
/// For so long after the first feedback the estimate may be low only because little was sent: nobody is paused.
const GRACE: Duration = Duration::from_secs(2);
/// .. but not if the estimate stays below where it began for so long, or this share is lost.
const LOW_FOR: Duration = Duration::from_millis(400);
const GRACE_LOSS: f32 = 0.1;
/// A queue that should drain lowers what may be sent. A dip shorter than this is left to the pacer, and to the halt below:
/// key frames cause such, and a picture that is given up for one costs another.
const DIP: Duration = Duration::from_secs(1);
/// Retransmissions take at most this share of the estimate ..
const REPAIR_PERCENT: u64 = 30;
/// .. or so many bits per second, if that is more.
const LEAST_REPAIRS: u64 = 60_000;
/// Bytes that a retransmission which waits is taken for.
pub(super) const REPAIR: usize = 1200;
/// A probe that did not leave in this many times its duration is given up.
const PROBE_PATIENCE: u32 = 4;
/// What probes aim at, against what is wanted: more is given out only with a margin, and jitter costs some of the estimate.
const PROBED_PERCENT: u64 = 125;
/// .. and at the start at least.
const PROBED_AT_START: u64 = 2_000_000;
/// Probes of at least this rate are padded with whole packets: empty ones would be very many.
const LARGE_PADDING: u64 = 4_000_000;
/// A probe that left the estimate where it was is not repeated sooner.
const SAME_PROBE: Duration = Duration::from_millis(200);
/// Time until the estimator is asked again after it wanted a probe that could not be sent.
const REST: Duration = Duration::from_millis(50);
/// A path that carried all that is wanted for so long, without a queue, takes whole frames at once; ..
const ROOMY_AFTER: Duration = Duration::from_secs(3);
/// .. one that loses more than this does not.
const ROOMY_LOSS: f32 = 0.01;
/// The pacer is never slower than what was allocated, and a bit: rates vary.
const PACING_PERCENT: u64 = 120;

/// Video stops while the target is less than this share of the estimate, in percent: so long a queue (260 ms) would make
/// everything late for seconds, and with it what follows. ..
const HALT_PERCENT: u64 = 35;
/// .. It goes on, with key frames, when the queue is short again, ..
const RESUME_PERCENT: u64 = 60;
/// .. or after this time: a queue that does not drain is not of what is sent here. Then video stops no more until the
/// target has recovered to this share.
const MAX_HALT: Duration = Duration::from_secs(2);
const RECOVERED_PERCENT: u64 = 90;

/// Whether video waits for the path's queue to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Halt {
    #[default]
    No,
    Since(Instant),
    /// That was of no use.
    Spent,
}

/// What a pacer's queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A stored packet to be forwarded.
    Packet { sub: SubKey, stream: StreamKey, layer: u8, index: ExtSeq },
    /// A packet of padding only whose number is to be closed up.
    Skip { sub: SubKey, stream: StreamKey, index: ExtSeq },
    /// A packet to be sent again.
    Resend { sub: SubKey, lost: SeqNo },
}

impl Work {
    pub(crate) fn sub(self) -> SubKey {
        match self {
            Work::Packet { sub, .. } | Work::Skip { sub, .. } | Work::Resend { sub, .. } => sub,
        }
    }
}

/// Kinds of packets that are measured apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Video,
    Repair,
    Padding,
}

/// A burst under way.
#[derive(Debug)]
struct Probing {
    probe: Probe,
    since: Instant,
    bytes: usize,
    packets: usize,
}

/// The state of sending to one peer.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// None until something can tell about the path: transport-wide numbers are negotiated, or REMB comes.
    estimator: Option<Estimator>,
    /// Where packets go.
    path: Option<Remote>,
    first_sent: Option<Instant>,
    /// When feedback or REMB came first.
    told: Option<Instant>,
    pub(super) pacer: Pacer<Work>,
    probing: Option<Probing>,
    /// When the last probe began, and the estimate then.
    last_probe: Option<(Instant, u64)>,
    rest_until: Option<Instant>,
    pub(super) allocator: Allocator,
    /// Audio in layer 0, repairs in layer 1: what goes off the budget before video.
    fixed: LayerRates<10>,
    shared: Shared,
    /// Since when everything wanted was given out, and the path had no queue.
    roomy_since: Option<Instant>,
    satisfied: bool,
    /// The path was known well enough once: pauses may come, packets are paced.
    started: bool,
    /// Since when the estimate is below where it began.
    low_since: Option<Instant>,
    /// Since when less may be sent than the path carries, as a queue has to drain.
    dip_since: Option<Instant>,
    /// The target that was shared out last.
    shared_target: u64,
    halt: Halt,
    playout: PlayoutDelay,
    /// When to look at the allocation again, and at key frames that subscribers wait for.
    pub(super) next_look: Option<Instant>,
}

impl Sending {
    /// The peer reports on transport-wide numbers.
    pub(super) fn expect_feedback(&mut self, now: Instant) {
        self.estimator.get_or_insert_with(|| Estimator::new(EstimatorConfig::default(), now));
    }

    /// Packets go there from now on. What was known of another path says nothing about this one, least of all what was
    /// concluded from the silence before the change.
    pub(super) fn follow(&mut self, path: Remote, now: Instant) {
        let Some(before) = self.path.replace(path) else { return };
        if before == path || self.estimator.is_none() {
            return;
        }
        self.estimator = Some(Estimator::new(EstimatorConfig::default(), now));
        (self.first_sent, self.told, self.started, self.low_since) = (None, None, false, None);
        (self.probing, self.last_probe, self.rest_until) = (None, None, None);
        self.halt = Halt::No;
        self.allocator = Allocator::default();
        self.next_look = self.next_look.map(|_| now);
        self.set_pace(now);
    }

    pub(super) fn handle_feedback(&mut self, feedback: &TwccFeedback<'_>, now: Instant) {
        let Some(estimator) = self.estimator.as_mut() else { return };
        estimator.on_feedback(feedback, now);
        self.told.get_or_insert(now);
    }

    pub(super) fn handle_remb(&mut self, bps: u64, now: Instant) {
        self.expect_feedback(now);
        let Some(estimator) = self.estimator.as_mut() else { return };
        estimator.on_remb(bps, now);
        self.told.get_or_insert(now);
    }

    pub(super) fn handle_report(&mut self, fraction_lost: u8, rtt: Option<Duration>, now: Instant) {
        if let Some(estimator) = self.estimator.as_mut() {
            estimator.on_report(fraction_lost, rtt, now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(estimator) = self.estimator.as_mut()
            && estimator.poll_timeout().is_some_and(|at| at <= now)
        {
            estimator.handle_timeout(now);
        }
    }

    /// When [`Self::handle_timeout`] or a look at the allocation is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let estimator = self.estimator.as_ref().filter(|_| self.told.is_some());
        let due = estimator.and_then(|estimator| estimator.poll_timeout());
        let due = due.map(|at| self.rest_until.map_or(at, |rest| at.max(rest)));
        [due, self.next_look].into_iter().flatten().min()
    }

    /// What the path carries; `None` while nothing tells.
    pub(super) fn estimate(&self) -> Option<u64> {
        self.told?;
        self.estimator.as_ref().map(|estimator| estimator.estimate_bps())
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.estimator.as_ref()?.rtt()
    }

    /// What the peer is to be told to wait before it shows a frame.
    pub(super) fn playout_delay(&self) -> Option<Duration> {
        self.playout.told()
    }

    /// Looks how long repairs take on this path. Whether the peer is to be told another delay.
    pub(super) fn look_at_repairs(&mut self, now: Instant) -> bool {
        let Some(estimator) = &self.estimator else { return false };
        let Some(rtt) = estimator.least_rtt() else { return false };
        self.playout.update(estimator.random_loss(), rtt, now)
    }

    /// What may be shared out: the estimate, or less while a queue that is long or stays has to drain.
    fn shareable(&mut self, now: Instant) -> Option<u64> {
        self.told?;
        let estimator = self.estimator.as_ref()?;
        let (target, estimate) = (estimator.target_bps(), estimator.estimate_bps());
        if target >= estimate / 100 * 97 {
            self.dip_since = None;
            return Some(estimate);
        }
        let since = *self.dip_since.get_or_insert(now);
        let lasting = now.saturating_duration_since(since) >= DIP;
        // While video is halted anyway, how little may be sent says nothing of what to show after.
        Some(if lasting && !self.is_halted() { target } else { estimate })
    }

    /// Whether what may be shared out moved enough since it was.
    pub(super) fn has_moved(&mut self, now: Instant) -> bool {
        let (before, target) = (self.shared_target, self.shareable(now).unwrap_or(0));
        target < before / 100 * 97 || target > before / 100 * 110
    }

    /// Looks whether video has to stop or may go on, by what the target lacks of the estimate. Whether that changed.
    pub(super) fn look_at_queue(&mut self, now: Instant) -> bool {
        let Some(estimator) = self.estimator.as_ref().filter(|_| self.told.is_some() && self.started) else {
            return false;
        };
        let share = estimator.target_bps() * 100 / estimator.estimate_bps().max(1);
        let before = self.is_halted();
        self.halt = match self.halt {
            Halt::No if share < HALT_PERCENT => Halt::Since(now),
            Halt::Since(_) if share >= RESUME_PERCENT => Halt::No,
            Halt::Since(at) if now.saturating_duration_since(at) > MAX_HALT => Halt::Spent,
            Halt::Spent if share >= RECOVERED_PERCENT => Halt::No,
            halt => halt,
        };
        before != self.is_halted()
    }

    /// Whether less is sent for a while because the path has a queue.
    pub(super) fn drains(&self) -> bool {
        self.estimator.as_ref().is_some_and(|estimator| {
            estimator.target_bps() < estimator.estimate_bps() / 100 * RECOVERED_PERCENT
        })
    }

    /// Whether the path was full not long ago, and may be no wider than it was then.
    fn is_contested(&self, now: Instant) -> bool {
        self.estimator.as_ref().is_some_and(|estimator| estimator.is_contested(now))
    }

    /// Whether no video is sent now.
    pub(super) fn is_halted(&self) -> bool {
        matches!(self.halt, Halt::Since(_))
    }

    /// What video may take, `None` for any amount.
    pub(super) fn budget(&mut self, now: Instant) -> Option<Budget> {
        let shareable = self.shareable(now);
        let estimator = self.estimator.as_ref()?;
        let Some(told) = self.told else {
            let waited = self.first_sent.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            return (waited < FEEDBACK_PATIENCE).then_some(Budget { starting: true, ..Budget::default() });
        };
        let (estimate, loss) = (estimator.estimate_bps(), estimator.loss());
        let target = shareable.unwrap_or(estimate);
        match estimate < EstimatorConfig::default().start_bps / 10 * 9 {
            true => _ = self.low_since.get_or_insert(now),
            false => self.low_since = None,
        }
        let low = self.low_since.is_some_and(|at| now.saturating_duration_since(at) >= LOW_FOR);
        self.started |= now.saturating_duration_since(told) >= GRACE || low || loss > GRACE_LOSS;
        self.shared_target = target;
        let bps = target.saturating_sub(self.fixed_bps(target, now));
        Some(Budget {
            bps,
            starting: !self.started,
            drains: self.drains(),
            contested: self.is_contested(now),
            lossy: self.playout.is_needed(),
        })
    }

    /// What goes off the budget before video: audio, and repairs up to a share.
    fn fixed_bps(&mut self, target: u64, now: Instant) -> u64 {
        let audio = self.fixed.up_to(0, 0, now).unwrap_or(0);
        let all = self.fixed.up_to(1, 0, now).unwrap_or(0);
        audio + (all - audio).min(target / 100 * REPAIR_PERCENT)
    }

    /// Whether repairs take so much that more of them would starve what they repair.
    pub(super) fn repairs_enough(&mut self, now: Instant) -> bool {
        let Some(target) = self.estimate().filter(|_| self.started) else { return false };
        let audio = self.fixed.up_to(0, 0, now).unwrap_or(0);
        let all = self.fixed.up_to(1, 0, now).unwrap_or(0);
        let waiting = (self.pacer.waiting_urgent() * REPAIR * 8) as u64;
        all - audio + waiting > (target / 100 * REPAIR_PERCENT).max(LEAST_REPAIRS)
    }

    /// The video budget was shared out.
    pub(super) fn set_shared(&mut self, shared: Shared, now: Instant) {
        let fixed = self.fixed_bps(self.shared_target, now);
        self.satisfied = shared.allocated >= shared.wanted;
        let mut wanted = (shared.wanted + fixed) / 100 * PROBED_PERCENT;
        if !self.started && shared.wanted > 0 {
            // Little is known of the tracks either.
            wanted = wanted.max(PROBED_AT_START);
        }
        self.shared = Shared { allocated: shared.allocated + fixed, wanted };
        if let Some(estimator) = self.estimator.as_mut() {
            estimator.set_demand(self.shared.allocated, self.shared.wanted, now);
        }
    }

    /// Sets how fast packets leave now.
    pub(super) fn set_pace(&mut self, now: Instant) {
        let paced = self.told.is_some() && self.started;
        let rate = self.estimator.as_ref().filter(|_| paced).map(|estimator| {
            let probe = self.probing.as_ref().map_or(0, |probing| probing.probe.bps);
            // What is allocated waits here while a queue in the path drains: from here it can be taken back.
            let (target, estimate) = (estimator.target_bps(), estimator.estimate_bps().max(1));
            let allocated = self.shared.allocated.saturating_mul(target.min(estimate)) / estimate;
            estimator.pacing_bps().max(allocated / 100 * PACING_PERCENT).max(probe)
        });
        let drains = self.drains();
        self.pacer.set_patient(paced && (drains || self.is_contested(now)), now);
        let lossy = self.estimator.as_ref().is_some_and(|estimator| estimator.loss() > ROOMY_LOSS);
        let since = if self.satisfied && !drains && !lossy {
            Some(*self.roomy_since.get_or_insert(now))
        } else {
            None
        };
        self.roomy_since = since;
        let roomy = since.is_some_and(|since| now.saturating_duration_since(since) >= ROOMY_AFTER);
        self.pacer.set_roomy(roomy && self.probing.is_none());
        self.pacer.set_rate(rate, now);
    }

    /// Begins a probe if one is asked for. To be called only where padding can be sent.
    pub(super) fn start_probe(&mut self, now: Instant) -> bool {
        if self.told.is_none() {
            return false;
        }
        let Some(estimator) = self.estimator.as_mut() else { return false };
        let target = estimator.estimate_bps();
        // What the last one did not move, the next one will not either.
        if self.last_probe.is_some_and(|(at, before)| {
            now.saturating_duration_since(at) < SAME_PROBE && target < before / 100 * 105
        }) {
            return false;
        }
        let Some(probe) = estimator.poll_probe(now) else { return false };
        self.last_probe = Some((now, target));
        self.probing = Some(Probing { probe, since: now, bytes: 0, packets: 0 });
        true
    }

    /// The estimator wants a probe that cannot be sent now: lets it wait, or it would ask again and again.
    pub(super) fn rest(&mut self, now: Instant) {
        let asks = self.estimator.as_ref().and_then(|estimator| estimator.poll_timeout());
        self.rest_until = asks.filter(|at| *at <= now).map(|_| now + REST);
    }

    pub(super) fn is_probing(&self) -> bool {
        self.probing.is_some()
    }

    /// Bytes of the next packet of padding, if it is time for one.
    pub(super) fn padding_due(&mut self, now: Instant) -> Option<usize> {
        let Probing { probe, since, bytes, .. } = self.probing.as_ref()?;
        let elapsed = now.saturating_duration_since(*since);
        let late = elapsed > probe.duration * PROBE_PATIENCE + Duration::from_millis(50);
        if late || self.estimator.as_ref().is_some_and(|estimator| estimator.is_too_much(probe)) {
            self.probing = None;
            return None;
        }
        let due = elapsed.as_micros() * u128::from(probe.bps) / 8_000_000;
        if *bytes as u128 > due {
            return None;
        }
        // Packets of one size: the rate of a few is blurred by the size of those at its ends.
        Some(if probe.bps < LARGE_PADDING { 0 } else { probe.min_bytes / probe.min_packets.max(1) })
    }

    /// When more padding is due.
    pub(super) fn next_padding(&self) -> Option<Instant> {
        let Probing { probe, since, bytes, .. } = self.probing.as_ref()?;
        Some(*since + Duration::from_micros((*bytes as u64).saturating_mul(8_000_000) / probe.bps.max(1)))
    }

    /// Reads a bit of all that a packet needs, see [`Forwarder::touch`].
    pub(super) fn touch(&self) -> u64 {
        let estimator = self.estimator.as_ref().map_or(0, |estimator| estimator.touch());
        estimator + u64::from(self.pacer.has_waiting()) + u64::from(self.first_sent.is_some())
    }

    /// Datagrams of these sizes left, the first with this transport-wide number if they have any.
    fn sent(&mut self, first: Option<u64>, datagrams: &[usize], kind: Kind, now: Instant) {
        let sizes = datagrams.iter().map(|bytes| bytes + IP_UDP);
        let all = sizes.clone().sum();
        self.first_sent.get_or_insert(now);
        self.pacer.sent(all, now);
        let layer = match kind {
            Kind::Audio => Some(0),
            Kind::Repair => Some(1),
            Kind::Video | Kind::Padding => None,
        };
        if let Some(layer) = layer {
            self.fixed.record(layer, 0, all, now);
        }
        let (Some(estimator), Some(first)) = (self.estimator.as_mut(), first) else { return };
        let mut id = None;
        if let Some(probing) = self.probing.as_mut() {
            id = Some(probing.probe.id);
            probing.bytes += all;
            probing.packets += sizes.len();
            if probing.bytes >= probing.probe.min_bytes && probing.packets >= probing.probe.min_packets {
                self.probing = None;
            }
        }
        estimator.on_sent(first, sizes, id, now);
    }
}

/// Everything that a packet passes on its way to one peer.
pub(super) struct Way<'a> {
    pub(super) seal: &'a mut SrtpSeal,
    pub(super) dst: Remote,
    pub(super) twcc: &'a mut TwccSeqCounter,
    pub(super) sending: &'a mut Sending,
    pub(super) tx: &'a mut TxQueue,
}

impl Way<'_> {
    /// Forwards a run of packets now, and counts them.
    pub(super) fn forward(
        &mut self,
        forwarder: &mut Forwarder,
        kind: Kind,
        run: &[Packet<'_>],
        stats: &mut ShardStats,
        now: Instant,
    ) {
        for part in run.chunks(forwarder.step(run).max(1)) {
            let result = self
                .measure(kind, now, |seal, dst, twcc, tx| forwarder.forward(part, seal, dst, twcc, tx, now));
            match result {
                Ok(()) => stats.rtp_out += part.len() as u64,
                Err(reason) => stats.drops[reason as usize] += part.len() as u64,
            }
        }
    }

    /// Sends a packet again now, twice where that is worth it; gives how often.
    pub(super) fn resend<'s>(
        &mut self,
        forwarder: &mut Forwarder,
        lost: SeqNo,
        stores: impl Fn(u8) -> Option<&'s PacketStore>,
        now: Instant,
    ) -> Result<u64, DropReason> {
        let mut twice = false;
        self.measure(Kind::Repair, now, |seal, dst, twcc, tx| {
            twice = forwarder.retransmit(lost, &stores, seal, dst, twcc, tx, now)?;
            Ok(())
        })?;
        if twice {
            self.measure(Kind::Repair, now, |seal, dst, twcc, tx| {
                forwarder.repeat(lost, &stores, seal, dst, twcc, tx, now)
            })?;
        }
        Ok(1 + u64::from(twice))
    }

    /// Sends padding of about this size now; gives the bytes.
    pub(super) fn pad<'s>(
        &mut self,
        forwarder: &mut Forwarder,
        size: usize,
        stores: impl Fn(u8) -> Option<&'s PacketStore>,
        now: Instant,
    ) -> Result<usize, DropReason> {
        let before = self.tx.len();
        self.measure(Kind::Padding, now, |seal, dst, twcc, tx| {
            forwarder.pad(size, stores, seal, dst, twcc, tx, now)
        })?;
        Ok(self.tx.len() - before)
    }

    fn measure(
        &mut self,
        kind: Kind,
        now: Instant,
        send: impl FnOnce(&mut SrtpSeal, Remote, &mut TwccSeqCounter, &mut TxQueue) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let (before, waiting) = (self.twcc.count(), self.tx.count());
        let result = send(self.seal, self.dst, self.twcc, self.tx);
        let sizes = self.tx.sizes().get(waiting..).unwrap_or_default();
        if !sizes.is_empty() {
            let numbered = self.twcc.count() != before;
            self.sending.sent(numbered.then_some(before + 1), sizes, kind, now);
        }
        result
    }
}
