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
        self.unsure = None;
        self.next_at = self.next_at.max(now + MIN_PAUSE);
    }

    /// The path was silent and is there again: what failed before says nothing.
    pub(super) fn on_return(&mut self, now: i64) {
        self.active = None;
        self.next_bps = None;
        self.unsure = None;
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
mod tests {
    use super::*;

    /// Sends a probe through a link of `link` bps and returns what it showed.
    fn through(probing: &mut Probing, probe: Probe, link: f64, from: i64) -> Option<Shown> {
        let mut arrived = from;
        let mut shown = None;
        let packets = (probe.min_bytes / 1200 + 1).max(probe.min_packets) as i64;
        for n in 0..packets {
            let sent_at = from + n * (9600e6 / probe.bps as f64) as i64;
            arrived = arrived.max(sent_at) + (9600e6 / link) as i64;
            shown = probing.on_result(&PacketResult {
                number: n as u64,
                sent_at,
                arrived_at: Some(arrived),
                size: 1200,
                probe: Some(probe.id),
                was_lost: false,
            });
        }
        probing.on_feedback_end(shown, packets as u64, arrived);
        shown
    }

    #[test]
    fn grows_while_it_succeeds_and_never_above_what_is_wanted() {
        let mut probing = Probing::default();
        assert_eq!(probing.poll(5e5, false, false, 0), None);
        probing.set_wanted(4e6, 0);
        let first = probing.poll(5e5, false, false, 0).unwrap();
        assert_eq!(first.bps, 1_500_000);
        assert_eq!(probing.poll(5e5, false, false, 0), None, "one at a time");
        let shown = through(&mut probing, first, 1e7, 1000).unwrap().bps;
        assert!((1.4e6..1.51e6).contains(&shown), "{shown}");
        let second = probing.poll(shown, false, false, 200_000).unwrap();
        assert!((2.9e6..3.1e6).contains(&(second.bps as f64)));
        let shown = through(&mut probing, second, 1e7, 200_000).unwrap().bps;
        let third = probing.poll(shown, false, false, 400_000).unwrap();
        assert_eq!(third.bps, 4_000_000);
        through(&mut probing, third, 1e7, 400_000).unwrap();
        assert_eq!(probing.poll(4e6, false, false, 500_000), None);
    }

    #[test]
    fn a_probe_of_little_aims_lower() {
        let probe = |known: f64| {
            let mut probing = Probing { began: true, ..Probing::default() };
            probing.set_wanted(4e6, 0);
            probing.poll(known, false, true, 0).unwrap()
        };
        assert_eq!(probe(1e6).bps, 2_000_000);
        for known in [5e4, 9e4, 2e5, 4e5] {
            let probe = probe(known);
            let queue = (probe.bps as f64 / known - 1.0) * probe.duration.as_secs_f64();
            assert!(
                probe.bps as f64 > 1.3 * known && queue < 1.3 * MAX_QUEUE,
                "{known}: {probe:?}, {queue} s"
            );
        }
    }

    #[test]
    fn a_packet_that_is_overtaken_does_not_count() {
        let mut probing = Probing::default();
        probing.set_wanted(4e6, 0);
        let probe = probing.poll(5e5, false, false, 0).unwrap();
        let mut shown = None;
        let skipped = probe.min_packets as i64 - 5;
        for n in (0..skipped).chain([0, 1, 3, 4, 5, 2].map(|n| skipped + n)) {
            let sent_at = n * 6400;
            let late = if n == skipped + 2 { 40_000 } else { 0 };
            let arrived_at = Some(sent_at + 20_000 + late);
            let (probe, was_lost) = (Some(probe.id), false);
            let result = PacketResult { number: n as u64, sent_at, arrived_at, size: 1200, probe, was_lost };
            shown = probing.on_result(&result).or(shown);
        }
        let shown = shown.unwrap();
        assert!(!shown.saturated && (1.1e6..1.5e6).contains(&shown.bps), "{shown:?}");
    }

    #[test]
    fn what_is_lost_is_repeated_soon_but_not_for_ever() {
        let mut probing = Probing::default();
        probing.set_wanted(4e6, 0);
        let (mut now, mut tries) = (0, 0);
        while now < 1_000_000 {
            if let Some(probe) = probing.poll(5e5, false, false, now) {
                tries += 1;
                assert_eq!(probe.bps, 1_500_000);
                let packets = probe.min_packets as u64;
                (0..packets).for_each(|n| probing.on_sent(probe.id, 100 * tries + n));
                probing.on_feedback_end(None, 100 * tries + packets - 2, now + 30_000);
                assert_eq!(
                    probing.poll(5e5, false, false, now + 40_000),
                    None,
                    "its last packet may still arrive"
                );
                probing.on_feedback_end(None, 100 * tries + packets, now + 50_000);
            }
            now += 10_000;
        }
        assert_eq!(tries, 5, "then it waits a second");
    }

    #[test]
    fn one_that_left_unevenly_is_no_failure() {
        let mut probing = Probing::default();
        probing.set_wanted(4e6, 0);
        let (mut now, mut begun) = (0, Vec::new());
        while now < 3_000_000 {
            now += 10_000;
            let Some(probe) = probing.poll(5e5, false, false, now) else { continue };
            begun.push(now);
            assert_eq!(probe.bps, 1_500_000);
            // The last packets, which are measured, leave at half the rate, and arrive as they left.
            let (mut sent_at, mut shown) = (now, None);
            for n in 0..probe.min_packets + 2 {
                sent_at += if n + 7 > probe.min_packets { 12_800 } else { 6400 };
                let arrived_at = Some(sent_at + 20_000);
                let (number, probe, was_lost) = (n as u64, Some(probe.id), false);
                let result = PacketResult { number, sent_at, arrived_at, size: 1200, probe, was_lost };
                shown = probing.on_result(&result).or(shown);
            }
            assert!(shown.is_some_and(|shown| !shown.saturated && shown.bps < 8e5), "{shown:?}");
            now = sent_at + 40_000;
            probing.on_feedback_end(shown, 1000, now);
            assert_eq!(probing.poll(5e5, false, false, now + UNEVEN_PAUSE - 1), None);
        }
        assert_eq!(begun.len(), 1 + MAX_REPEATS as usize, "then it is one: {begun:?}");
        assert!(begun.windows(2).all(|two| two[1] - two[0] < MIN_PAUSE), "{begun:?}");
    }

    #[test]
    fn shows_the_link_when_it_is_slower_and_waits_then() {
        let mut probing = Probing::default();
        probing.set_wanted(4e6, 0);
        let probe = probing.poll(1e6, false, false, 0).unwrap();
        let Shown { bps: shown, saturated, .. } = through(&mut probing, probe, 1.2e6, 0).unwrap();
        assert!(saturated);
        assert!((1.1e6..1.2e6).contains(&shown), "{shown}");
        assert_eq!(probing.poll(shown, false, false, 300_000), None);
        let due = probing.due_at(shown, 0, true).unwrap();
        assert!(probing.poll(shown, false, false, due).is_some());
        // One that never leaves or arrives is over after a while.
        probing.handle_timeout(50_000, due + 1_050_000);
        assert!(probing.poll(shown, false, false, due + 1_050_000 + MAX_PAUSE).is_some());
    }

    #[test]
    fn a_probe_that_filled_a_contested_path_is_followed_by_a_pause() {
        for contested in [false, true] {
            let mut probing = Probing { began: true, ..Probing::default() };
            probing.set_wanted(1e7, 0);
            let probe = probing.poll(1e6, false, contested, 0).unwrap();
            let shown = through(&mut probing, probe, 1.75e6, 0).unwrap();
            assert!(shown.saturated);
            assert_eq!(probing.poll(shown.bps, false, contested, 200_000).is_some(), !contested);
            assert!(contested == probing.poll(shown.bps, false, contested, 200_000 + FULL_PAUSE).is_some());
        }
    }

    /// A link that lets a token bucket's bytes pass at once.
    struct Shaper {
        bps: f64,
        /// Bytes that wait, or the negative of what may pass.
        queue: f64,
        last: i64,
    }

    impl Shaper {
        const BUCKET: f64 = 6000.0;

        fn new(bps: f64) -> Self {
            Self { bps, queue: -Self::BUCKET, last: 0 }
        }

        /// Sends a probe in small packets; returns what it showed and when the feedback was there.
        fn pass(&mut self, probing: &mut Probing, probe: Probe, from: i64) -> (Option<Shown>, i64) {
            let size = 300;
            let (mut shown, mut arrived) = (None, from);
            for n in 0..(probe.min_bytes / size + 1) as i64 {
                let sent_at = from + n * (8e6 * size as f64 / probe.bps as f64) as i64;
                let drained = (sent_at - self.last) as f64 * self.bps / 8e6;
                self.queue = f64::max(self.queue - drained, -Self::BUCKET) + size as f64;
                self.last = sent_at;
                arrived = sent_at + 20_000 + (self.queue.max(0.0) * 8e6 / self.bps) as i64;
                let (number, size) = (n as u64, size as u32);
                let result = PacketResult {
                    number,
                    sent_at,
                    arrived_at: Some(arrived),
                    size,
                    probe: Some(probe.id),
                    was_lost: false,
                };
                shown = probing.on_result(&result).or(shown);
            }
            probing.on_feedback_end(shown, 1000, arrived + 30_000);
            (shown, arrived + 30_000)
        }
    }

    #[test]
    fn a_token_bucket_does_not_show() {
        let mut probing = Probing::default();
        probing.set_wanted(4e6, 0);
        for from in [0, 10_000_000] {
            let probe = probing.poll(4.5e5, false, false, from).unwrap();
            let Shown { bps, saturated, .. } = Shaper::new(5e5).pass(&mut probing, probe, from).0.unwrap();
            assert!(saturated && (4.5e5..5.5e5).contains(&bps), "{bps}");
        }
    }

    #[test]
    fn what_may_be_a_token_bucket_on_a_slow_path_that_was_full_is_tried_further_at_once() {
        for link in [1e5, 1e6] {
            let mut probing = Probing { began: true, ..Probing::default() };
            probing.set_wanted(4e6, 0);
            let mut shaper = Shaper::new(link);
            let (mut now, mut unsure) = (0, 0);
            let shown = loop {
                let probe = probing.poll(9.5e4, false, true, now).expect("one after the other");
                let (shown, known) = shaper.pass(&mut probing, probe, now);
                now = known;
                let shown = shown.unwrap();
                if !shown.unsure {
                    break shown;
                }
                unsure += 1;
            };
            assert!((1..=2).contains(&unsure), "{unsure}");
            if link < 2e5 {
                assert!(shown.saturated && shown.bps < 1.3 * link, "{shown:?}");
                let waited = shaper.queue.max(0.0) * 8.0 / link;
                assert!(waited < 0.15, "{waited} s");
                assert_eq!(probing.poll(9.5e4, false, true, now + MIN_PAUSE - 1), None);
                // The next ones come at longer intervals, though each of them begins well.
                let (mut pauses, mut tried) = (vec![], now);
                for _ in 0..3 {
                    let due = probing.due_at(9.5e4, 50_000, true).unwrap();
                    pauses.push(due - tried);
                    tried = due;
                    while let Some(probe) = probing.poll(9.5e4, false, true, tried) {
                        tried = shaper.pass(&mut probing, probe, tried).1;
                    }
                }
                assert_eq!(pauses, [MIN_PAUSE, 2 * MIN_PAUSE, 4 * MIN_PAUSE]);
            } else {
                assert!(!shown.saturated && shown.bps > 1.25 * 9.5e4, "{shown:?}");
            }
        }
    }

    #[test]
    fn a_path_of_which_hardly_more_is_wanted_is_believed_in_the_end() {
        let mut probing = Probing { began: true, ..Probing::default() };
        probing.set_wanted(9.6e4, 0);
        let mut shaper = Shaper::new(1e6);
        let mut now = 0;
        let mut probes = 0;
        while let Some(probe) = probing.poll(9.5e4, false, true, now) {
            probes += 1;
            let (shown, known) = shaper.pass(&mut probing, probe, now);
            now = known;
            if shown.is_some_and(|shown| !shown.unsure) {
                break;
            }
        }
        assert_eq!(probes, MAX_UNSURE + 1);
    }

    #[test]
    fn where_as_much_is_sent_anyway_probes_are_short() {
        let [mut idle, mut probing] = [Probing::default(), Probing::default()];
        idle.set_wanted(4e6, 0);
        probing.set_wanted(4e6, 0);
        assert!(idle.poll(4.5e5, false, false, 0).unwrap().min_packets > 10);
        let probe = probing.poll(4.5e5, true, false, 0).unwrap();
        assert_eq!(probe.min_packets, 5);
        let Shown { bps, saturated, .. } = through(&mut probing, probe, 5e5, 0).unwrap();
        assert!(saturated && (4.5e5..5.1e5).contains(&bps), "{bps}");
    }
}
