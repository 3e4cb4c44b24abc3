//! Bursts of a known rate: when to send one, and what its arrival says (libwebrtc's `ProbeController` and
//! `ProbeBitrateEstimator`).

use std::num::NonZeroU32;
use std::time::Duration;

use super::send_log::PacketResult;
use super::{Probe, ProbeId};

/// How long a probe lasts.
const DURATION: Duration = Duration::from_millis(15);
/// Packets of a probe that are measured, at least; two are no rate.
const MIN_PACKETS: usize = 5;
/// A token bucket, as shapers and radios have, lets so many bytes pass at any rate after a time in which less was sent. Then
/// a probe is measured only after what empties it at the rate that is known, ..
const BUCKET: f64 = 6_000.0;
/// .. but no more than so many of them, and for no longer than this: what is known may be very little.
const MAX_BUCKETS: f64 = 2.5;
const MAX_SKIP: Duration = Duration::from_millis(150);
/// What is measured takes no longer than this where packets are small enough.
const MAX_MEASURED: Duration = Duration::from_millis(100);
/// The queue that a probe of a contested path may make if that carries no more than is known, in seconds. Probes of little
/// take long, and aim lower for that.
const MAX_QUEUE: f64 = 0.12;
/// Size of a packet, about.
const PACKET: f64 = 1200.0;
/// Share of its packets and bytes that must have arrived.
const MIN_SHARE: f64 = 0.8;
/// A result of at least this share of the probed rate calls for the next probe.
const SUCCESS: f64 = 0.7;
/// .. or this, where the path was full not long ago: part of it may still be what a token bucket let pass.
const SURE: f64 = 0.8;
/// What was sent in less than this share of the time in which it arrived filled the link: its rate is the link's.
const SATURATED: f64 = 0.9;
/// .. of which this share is taken, so as not to build a queue at once.
const OF_SATURATED: f64 = 0.95;
/// The first probe against where the estimate starts.
const FIRST: f64 = 3.0;
/// Every further one against what is known.
const NEXT: f64 = 2.0;
/// How long a result may take beyond the round trip, in µs.
const MAX_WAIT: i64 = 1_000_000;
/// Pause after a probe that failed, and the longest that it doubles to, in µs.
const MIN_PAUSE: i64 = 1_000_000;
const MAX_PAUSE: i64 = 5_000_000;
/// Pause before a probe is repeated of which nothing is known, because the feedback on it was lost; it doubles each time.
/// In µs.
const REPEAT: i64 = 50_000;
/// .. after so many times in a row that is a failure as any other.
const MAX_REPEATS: u32 = 4;
/// Pause before a probe is repeated that left slower than it should have, in µs: frames between its packets held it up, and
/// what it showed is what was sent.
const UNEVEN_PAUSE: i64 = 300_000;
/// A probe follows another so soon that a bucket is as empty as that left it, in µs.
const AT_ONCE: i64 = 200_000;
/// Share of a bucket that a row of probes takes in one step. Less than all may be left in it, and the last is taken in small ones.
const OF_BUCKET: f64 = 0.75;
/// So many in a row that a bucket may have let pass are believed: they may want hardly more than is known.
const MAX_UNSURE: u32 = 4;
/// Pause after a probe that filled a contested path, in µs: two of them right after each other measure the same jitter.
const FULL_PAUSE: i64 = 300_000;
/// Demand that grew this much is worth a probe at once.
const DEMAND_STEP: f64 = 1.2;

/// What a probe showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shown {
    /// A rate that the path carries.
    pub(super) bps: f64,
    /// It arrived slower than it was sent: with other traffic it filled the link.
    pub(super) saturated: bool,
    /// A token bucket alone may have let it pass, on a path that was full not long ago.
    pub(super) unsure: bool,
}

/// Probes in a row that a token bucket alone may have let pass.
#[derive(Debug, Clone, Copy, Default)]
struct Unsure {
    probes: u32,
    /// What they took from it: the bytes beyond what is known.
    taken: f64,
    /// When the last one was known.
    at: i64,
}

impl Unsure {
    fn with(self, taken: f64) -> Self {
        Self { probes: self.probes + 1, taken: self.taken + taken, ..self }
    }

    fn is_enough(&self) -> bool {
        self.taken >= BUCKET || self.probes > MAX_UNSURE
    }
}

/// Packets that left one after the other, and how they arrived.
#[derive(Debug, Clone, Copy)]
struct Train {
    bytes: u64,
    first_sent: i64,
    last_sent: i64,
    last_sent_size: u32,
    first_arrived: i64,
    first_arrived_size: u32,
    last_arrived: i64,
}

impl Train {
    const EMPTY: Self = Self {
        bytes: 0,
        first_sent: i64::MAX,
        last_sent: i64::MIN,
        last_sent_size: 0,
        first_arrived: i64::MAX,
        first_arrived_size: 0,
        last_arrived: i64::MIN,
    };

    /// A packet was overtaken by others: how late it is says nothing about the rate.
    fn is_overtaken(&self, sent: i64, arrived: i64) -> bool {
        sent < self.last_sent && arrived >= self.last_arrived
    }

    fn add(&mut self, sent: i64, arrived: i64, size: u32) {
        self.bytes += u64::from(size);
        self.first_sent = self.first_sent.min(sent);
        if sent >= self.last_sent {
            (self.last_sent, self.last_sent_size) = (sent, size);
        }
        if arrived < self.first_arrived {
            (self.first_arrived, self.first_arrived_size) = (arrived, size);
        }
        self.last_arrived = self.last_arrived.max(arrived);
    }

    /// What it shows of the path: the rate at which it was sent or arrived, and which of them. Between the first and the last
    /// packet one of them does not count.
    fn shown(&self) -> Option<Shown> {
        let sent_for = self.last_sent.saturating_sub(self.first_sent);
        let arrived_for = self.last_arrived.saturating_sub(self.first_arrived);
        let spans = 1..=1_000_000;
        if !spans.contains(&sent_for) || !spans.contains(&arrived_for) {
            return None;
        }
        let without =
            |size: u32, time: i64| 8e6 * self.bytes.saturating_sub(u64::from(size)) as f64 / time as f64;
        let (sent, arrived) =
            (without(self.last_sent_size, sent_for), without(self.first_arrived_size, arrived_for));
        // Packets at its ends may be of different sizes, which makes two rates of one: the times tell whether it was held up.
        let saturated = (sent_for as f64) < SATURATED * arrived_for as f64;
        let bps = if saturated { OF_SATURATED * arrived } else { arrived.min(sent) };
        (arrived <= 2.0 * sent).then_some(Shown { bps, saturated, unsure: false })
    }
}

/// What one probe's packets did.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    probe: Probe,
    /// See [`Probing::poll`].
    contested: bool,
    started_at: i64,
    /// Bytes that are to arrive before those that are measured.
    skip: u64,
    /// This one and those right before it, unless it is sure in any case.
    unsure: Option<Unsure>,
    /// The highest number of its packets that were sent, and how many.
    newest: u64,
    sent: usize,
    /// Those that a feedback spoke of, and those of them that count.
    known: usize,
    packets: usize,
    skipped: u64,
    measured: Train,
}

impl Cluster {
    fn new(probe: Probe, skip: u64, contested: bool, unsure: Option<Unsure>, now: i64) -> Self {
        Self {
            probe,
            contested,
            started_at: now,
            skip,
            unsure,
            newest: 0,
            sent: 0,
            known: 0,
            packets: 0,
            skipped: 0,
            measured: Train::EMPTY,
        }
    }

    fn add(&mut self, sent: i64, arrived: i64, size: u32) {
        if self.skipped < self.skip {
            self.skipped += u64::from(size);
        } else if self.measured.is_overtaken(sent, arrived) {
            // It counts as lost.
            return;
        } else {
            self.measured.add(sent, arrived, size);
        }
        self.packets += 1;
    }

    fn bytes(&self) -> u64 {
        self.skipped + self.measured.bytes
    }

    fn shown(&self) -> Option<Shown> {
        let bytes = self.bytes();
        let enough = self.packets as f64 >= MIN_SHARE * self.probe.min_packets as f64
            && bytes as f64 >= MIN_SHARE * self.probe.min_bytes as f64;
        let shown = self.measured.shown().filter(|_| enough)?;
        let unsure = self.unsure.is_some_and(|unsure| !unsure.is_enough()) && !shown.saturated;
        Some(Shown { unsure, ..shown })
    }
}

/// How large a probe has to be.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Bytes that are not measured.
    skip: f64,
    bytes: f64,
    packets: usize,
}

impl Size {
    /// Of a probe at `bps` where `target` is known, and sent anyway if `filled`.
    fn of(bps: f64, target: f64, filled: bool) -> Self {
        let plain = bps * DURATION.as_secs_f64() / 8.0;
        // What is sent beyond what is known takes from the bucket. Where as much is sent all the time it is empty.
        let bucket = if filled { 0.0 } else { BUCKET };
        let skip = (bucket * bps / (bps - target).max(1.0))
            .min(MAX_BUCKETS * bucket)
            .min(bps * MAX_SKIP.as_secs_f64() / 8.0);
        let packets = MIN_PACKETS + (skip / PACKET) as usize;
        let measured = (MIN_PACKETS as f64 * PACKET).min(bps * MAX_MEASURED.as_secs_f64() / 8.0);
        Self { skip, bytes: plain.max(skip + measured), packets }
    }

    fn seconds(self, bps: f64) -> f64 {
        8.0 * self.bytes / bps.max(1.0)
    }
}

/// Decides on probes.
#[derive(Debug, Default)]
pub(super) struct Probing {
    last_id: u32,
    active: Option<Cluster>,
    /// Rate of the next one, if the last one succeeded.
    next_bps: Option<f64>,
    unsure: Option<Unsure>,
    /// When the next one may be, in µs.
    next_at: i64,
    pause: i64,
    wanted: f64,
    began: bool,
    /// Probes in a row of which nothing is known.
    repeats: u32,
}

impl Probing {
    /// The subscriptions could use `wanted` bps now.
    pub(super) fn set_wanted(&mut self, wanted: f64, now: i64) {
        if wanted > DEMAND_STEP * self.wanted {
            self.next_at = now;
            self.pause = 0;
        }
        self.wanted = wanted;
    }

    /// When something is due, in µs: the next probe if `allowed` and more is wanted than `target`, or the end of this one.
    pub(super) fn due_at(&self, target: f64, rtt: i64, allowed: bool) -> Option<i64> {
        match &self.active {
            Some(active) => Some(active.started_at + MAX_WAIT + rtt),
            None => (allowed && self.wanted > target).then_some(self.next_at),
        }
    }

    /// A probe to be sent now, for `target` bps is too little. `filled`: so much is sent anyway. `contested`: the path was full not
    /// long ago, and may be no wider than `target`.
    pub(super) fn poll(&mut self, target: f64, filled: bool, contested: bool, now: i64) -> Option<Probe> {
        if self.active.is_some() || now < self.next_at || self.wanted <= target {
            return None;
        }
        let factor = if self.began { NEXT } else { FIRST };
        let bps = self.next_bps.take().unwrap_or(factor * target).max(target).min(self.wanted);
        self.began = true;
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let before = self.unsure.take().filter(|unsure| now - unsure.at < AT_ONCE);
        // What was sent of late is more only because of them.
        let filled = filled && before.is_none();
        let mut size = Size::of(bps, target, filled);
        let queue = (bps - target).max(0.0) / target.max(1.0) * size.seconds(bps);
        // Those before made no queue, and what is left of a bucket makes none.
        let left = before.map_or(0.0, |before| (OF_BUCKET * BUCKET - before.taken).max(0.0));
        let most = MAX_QUEUE + 8.0 * left / target.max(1.0);
        let bps = if contested && queue > most {
            let bps = target + (bps - target) * most / queue;
            size = Size::of(bps, target, filled);
            bps
        } else {
            bps
        };
        let probe = Probe {
            id: ProbeId(NonZeroU32::new(self.last_id).unwrap_or(NonZeroU32::MIN)),
            bps: bps as u64,
            min_bytes: size.bytes as usize,
            min_packets: size.packets,
            duration: Duration::from_secs_f64(size.seconds(bps)),
        };
        let taken = size.bytes * (1.0 - target / bps).max(0.0);
        let unsure = (contested && !filled).then(|| before.unwrap_or_default().with(taken));
        self.active = Some(Cluster::new(probe, size.skip as u64, contested, unsure, now));
        Some(probe)
    }

    /// A packet of a probe was sent.
    pub(super) fn on_sent(&mut self, probe: ProbeId, number: u64) {
        if let Some(active) = self.active.as_mut().filter(|active| active.probe.id == probe) {
            active.newest = active.newest.max(number);
            active.sent += 1;
        }
    }

    /// A feedback spoke of a packet of a probe. What the probe showed so far, if that is enough.
    pub(super) fn on_result(&mut self, result: &PacketResult) -> Option<Shown> {
        let active = self.active.as_mut().filter(|active| Some(active.probe.id) == result.probe)?;
        active.known += usize::from(!result.was_lost);
        active.add(result.sent_at, result.arrived_at?, result.size);
        active.shown()
    }

    /// All of a feedback was seen, which spoke of numbers up to `newest`, and what the probe showed. If it is over, decides
    /// what follows.
    pub(super) fn on_feedback_end(&mut self, shown: Option<Shown>, newest: u64, now: i64) {
        let Some(active) = self.active else { return };
        // Numbers are given in order: what is not known by then is in a feedback that was lost.
        let over = active.sent >= active.probe.min_packets && newest > active.newest;
        let Some(Shown { bps, saturated, unsure }) = shown else {
            // Packets that were lost are another matter: the probe itself may have been too much.
            if over && active.sent > active.known {
                self.repeat(active.probe, REPEAT << self.repeats, now);
            }
            return;
        };
        let over = over || active.bytes() >= active.probe.min_bytes as u64;
        let success = if active.contested { SURE } else { SUCCESS };
        if bps >= success * active.probe.bps as f64 {
            self.repeats = 0;
            self.active = None;
            match active.unsure.filter(|_| unsure) {
                Some(unsure) => self.unsure = Some(Unsure { at: now, ..unsure }),
                None => self.pause = 0,
            }
            self.next_at = if saturated && active.contested { now + FULL_PAUSE } else { now };
            self.next_bps = (bps < self.wanted).then_some(NEXT * bps);
        } else if over && !saturated {
            self.repeat(active.probe, UNEVEN_PAUSE, now);
        } else if over {
            // What the first part of it shows may be less than all of it will.
            self.fail(now);
        }
    }

    /// Time passed: a probe whose packets were lost or never sent is over.
    pub(super) fn handle_timeout(&mut self, rtt: i64, now: i64) {
        if self.active.is_some_and(|active| now >= active.started_at + MAX_WAIT + rtt) {
            self.fail(now);
        }
    }

    /// The path is congested: no probe now, nor right after.
    pub(super) fn on_congestion(&mut self, now: i64) {
        self.next_bps = None;
        self.next_at = self.next_at.max(now + MIN_PAUSE);
    }

    /// The path was silent and is there again: what failed before says nothing.
    pub(super) fn on_return(&mut self, now: i64) {
        self.active = None;
        self.next_bps = None;
        self.pause = 0;
        self.next_at = now;
    }

    fn repeat(&mut self, probe: Probe, after: i64, now: i64) {
        if self.repeats >= MAX_REPEATS {
            return self.fail(now);
        }
        self.active = None;
        self.next_bps = Some(probe.bps as f64);
        self.next_at = self.next_at.max(now + after);
        self.repeats += 1;
    }

    fn fail(&mut self, now: i64) {
        self.repeats = 0;
        self.active = None;
        self.next_bps = None;
        self.pause = (2 * self.pause).clamp(MIN_PAUSE, MAX_PAUSE);
        self.next_at = self.next_at.max(now + self.pause);
    }
}

#[cfg(test)]
mod tests;
