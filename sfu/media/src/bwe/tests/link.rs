//! A bottleneck with a queue, and flows through it: what the estimator meets in closed loop.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::bwe::{Estimator, EstimatorConfig, Probe, ProbeId};
use crate::ids::Ssrc;
use crate::rtcp::{Rtcp, TwccArrival, parse, write_twcc};
use crate::sim::clock::epoch;

/// Bytes of a full packet.
const PACKET: usize = 1200;
/// Step of the simulation, in µs.
const STEP: i64 = 500;

/// A generator that repeats (xorshift*).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 to 1.
    pub(super) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How a flow's packets come into being.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// One after the other.
    Smooth,
    /// A frame every 33 ms, every so many seconds a key frame of so many times the size.
    Video { key_every: f64, key_size: f64 },
}

/// A relay's video: key frames six times as large, every eight seconds.
pub(super) const VIDEO: Source = Source::Video { key_every: 8.0, key_size: 6.0 };

pub(super) struct Path {
    /// bps at a time in seconds.
    pub(super) rate: Box<dyn Fn(f64) -> f64>,
    /// Longest queue, as time at `queue_rate`.
    pub(super) queue: Duration,
    pub(super) queue_rate: f64,
    pub(super) rtt: Duration,
    pub(super) loss: f64,
    /// Longest further delay of a packet, uniformly drawn.
    pub(super) jitter: Duration,
    /// May packets overtake each other by it?
    pub(super) reorder: bool,
    /// Share of packets held back by 15 ms, so that others overtake them, and of those that come twice.
    pub(super) overtaken: f64,
    pub(super) twice: f64,
    /// Share of feedback that is lost.
    pub(super) feedback_loss: f64,
    /// bps of others at a time in seconds.
    pub(super) cross: Box<dyn Fn(f64) -> f64>,
    /// Is feedback lost at a time in seconds?
    pub(super) deaf: Box<dyn Fn(f64) -> bool>,
    pub(super) feedback: Duration,
    pub(super) seed: u64,
}

impl Path {
    pub(super) fn new(rate: f64, rtt_ms: u64) -> Self {
        Self {
            rate: Box::new(move |_| rate),
            queue: Duration::from_millis(500),
            queue_rate: rate,
            rtt: Duration::from_millis(rtt_ms),
            loss: 0.0,
            jitter: Duration::ZERO,
            reorder: false,
            overtaken: 0.0,
            twice: 0.0,
            feedback_loss: 0.0,
            cross: Box::new(|_| 0.0),
            deaf: Box::new(|_| false),
            feedback: Duration::from_millis(70),
            seed: 7,
        }
    }
}

struct Packet {
    flow: usize,
    number: u64,
    size: usize,
}

/// One sender with its receiver.
pub(super) struct Flow {
    estimator: Estimator,
    source: Source,
    /// What it has to send in bps, at a time in seconds.
    demand: Box<dyn Fn(f64) -> f64>,
    /// Sends all that it has, whatever the target.
    sends_all: bool,
    starts: f64,
    number: u64,
    /// Bytes of source not yet in packets, and packets waiting for the pacer.
    pending: f64,
    next_frame: i64,
    next_key: i64,
    waiting: VecDeque<usize>,
    pacer_free: i64,
    probe: Option<(Probe, usize, usize, i64)>,
    /// Receiver.
    arrivals: BTreeMap<u64, i64>,
    reported: u64,
    feedback_at: i64,
    feedback_count: u8,
    /// Bytes that the link carried, by second.
    pub(super) carried: Vec<u64>,
    /// Bytes that the full queue dropped, by second.
    dropped: Vec<u64>,
    /// Target each 10 ms.
    pub(super) targets: Vec<u64>,
    pub(super) rtt: Option<Duration>,
    pub(super) loss: f32,
}

impl Flow {
    pub(super) fn new(source: Source, demand: impl Fn(f64) -> f64 + 'static) -> Self {
        Self {
            estimator: Estimator::new(EstimatorConfig::default(), epoch()),
            source,
            demand: Box::new(demand),
            sends_all: false,
            starts: 0.0,
            number: 65_000,
            pending: 0.0,
            next_frame: 0,
            next_key: 0,
            waiting: VecDeque::new(),
            pacer_free: 0,
            probe: None,
            arrivals: BTreeMap::new(),
            reported: 65_000,
            feedback_at: 0,
            feedback_count: 0,
            carried: Vec::new(),
            dropped: Vec::new(),
            targets: Vec::new(),
            rtt: None,
            loss: 0.0,
        }
    }

    pub(super) fn starting(mut self, at: f64) -> Self {
        self.starts = at;
        self.estimator = Estimator::new(EstimatorConfig::default(), instant((at * 1e6) as i64));
        self.next_frame = (at * 1e6) as i64;
        self
    }

    pub(super) fn sending_all(mut self) -> Self {
        self.sends_all = true;
        self
    }

    /// bps carried in the seconds `from..to`.
    pub(super) fn rate(&self, from: usize, to: usize) -> f64 {
        let bytes: u64 = self.carried.iter().take(to).skip(from).sum();
        8.0 * bytes as f64 / (to - from) as f64
    }

    /// Share of what was sent in the seconds `from..to` that the full queue dropped.
    pub(super) fn dropped(&self, from: usize, to: usize) -> f64 {
        let sum = |bytes: &Vec<u64>| bytes.iter().take(to).skip(from).sum::<u64>() as f64;
        sum(&self.dropped) / (sum(&self.dropped) + sum(&self.carried))
    }

    fn produce(&mut self, now: i64) {
        let t = now as f64 / 1e6;
        let demand = (self.demand)(t);
        let rate = if self.sends_all { demand } else { (self.estimator.target_bps() as f64).min(demand) };
        match self.source {
            Source::Smooth => {
                self.pending += rate * STEP as f64 / 8e6;
                while self.pending >= PACKET as f64 {
                    self.pending -= PACKET as f64;
                    self.waiting.push_back(PACKET);
                }
            }
            Source::Video { key_every, key_size } => {
                if now < self.next_frame {
                    return;
                }
                self.next_frame += 33_333;
                // The mean with key frames is `rate`.
                let frames = key_every * 30.0;
                let plain = rate / 30.0 / 8.0 * frames / (frames - 1.0 + key_size);
                let mut size = plain;
                if now >= self.next_key {
                    self.next_key = now + (key_every * 1e6) as i64;
                    size *= key_size;
                }
                let mut left = size as usize;
                while left > 0 {
                    // Equal parts, as packetisers cut.
                    let packets = left.div_ceil(PACKET);
                    let part = left.div_ceil(packets);
                    self.waiting.push_back(part + 40);
                    left -= part;
                }
            }
        }
    }

    /// The packets that leave now.
    fn send(&mut self, flow: usize, now: i64, out: &mut Vec<Packet>) {
        let at = instant(now);
        self.estimator.set_demand(0, (self.demand)(now as f64 / 1e6) as u64, at);
        if self.estimator.poll_timeout().is_some_and(|due| due <= at) {
            self.estimator.handle_timeout(at);
        }
        if self.probe.is_none()
            && let Some(probe) = self.estimator.poll_probe(at)
        {
            self.probe = Some((probe, 0, 0, now));
        }
        if let Some((probe, bytes, packets, next)) = &mut self.probe {
            let mut done = false;
            while *next <= now && !done {
                let size = self.waiting.pop_front().unwrap_or(PACKET);
                self.estimator.on_sent(self.number, [size].into_iter(), Some(probe.id), at);
                out.push(Packet { flow, number: self.number, size });
                self.number += 1;
                *bytes += size;
                *packets += 1;
                *next += (8e6 * size as f64 / probe.bps as f64) as i64;
                done = *bytes >= probe.min_bytes && *packets >= probe.min_packets;
            }
            if done {
                self.probe = None;
            }
            return;
        }
        self.pacer_free = self.pacer_free.max(now - STEP);
        while self.pacer_free <= now
            && let Some(size) = self.waiting.pop_front()
        {
            self.estimator.on_sent(self.number, [size].into_iter(), None::<ProbeId>, at);
            out.push(Packet { flow, number: self.number, size });
            self.number += 1;
            if !self.sends_all {
                self.pacer_free += (8e6 * size as f64 / self.estimator.pacing_bps() as f64) as i64;
            }
        }
    }

    /// Feedback that leaves the receiver now.
    fn report(&mut self, now: i64, interval: i64) -> Option<Vec<u8>> {
        if now < self.feedback_at || self.arrivals.is_empty() {
            return None;
        }
        self.feedback_at = now + interval;
        let first = *self.arrivals.first_key_value()?.0;
        let base = self.reported.min(first);
        let arrivals: Vec<_> = std::mem::take(&mut self.arrivals)
            .into_iter()
            .map(|(number, at)| TwccArrival { seq: number as u16, ticks: (at / 250) as u64 })
            .collect();
        let mut bytes = Vec::new();
        let mut rest = &arrivals[..];
        let mut base = base as u16;
        while !rest.is_empty() {
            let n = write_twcc(&mut bytes, Ssrc(1), Ssrc(2), base, self.feedback_count, rest);
            self.feedback_count = self.feedback_count.wrapping_add(1);
            base = rest[n - 1].seq.wrapping_add(1);
            rest = &rest[n..];
        }
        Some(bytes)
    }
}

/// What a run showed.
pub(super) struct Run {
    pub(super) flows: Vec<Flow>,
    /// Waiting time of the bottleneck's queue in ms, each ms.
    queue: Vec<f64>,
    capacity: Vec<f64>,
}

impl Run {
    /// ms of queueing delay that `share` of all time is below.
    pub(super) fn queue_ms(&self, share: f64) -> f64 {
        let mut sorted = self.queue.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share) as usize]
    }

    pub(super) fn utilisation(&self, from: usize, to: usize) -> f64 {
        let capacity: f64 = self.capacity[from..to].iter().sum::<f64>() / (to - from) as f64;
        self.flows.iter().map(|flow| flow.rate(from, to)).sum::<f64>() / capacity
    }
}

fn instant(micros: i64) -> Instant {
    epoch() + Duration::from_micros(micros as u64)
}

/// Runs `flows` through one bottleneck for so many seconds.
pub(super) fn run(path: &Path, mut flows: Vec<Flow>, seconds: usize) -> Run {
    let mut random = Random(path.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let half_rtt = path.rtt.as_micros() as i64 / 2;
    let queue_bytes = (path.queue.as_secs_f64() * path.queue_rate / 8.0) as usize;
    let mut queue: VecDeque<(Option<Packet>, usize)> = VecDeque::new();
    let (mut queued, mut credit, mut cross) = (0usize, 0.0f64, 0.0f64);
    // Arrivals by time and a running number; feedback on its way back.
    let mut wire: BTreeMap<(i64, u64), Packet> = BTreeMap::new();
    let mut back: BTreeMap<(i64, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let (mut event, mut last_arrival) = (0u64, 0i64);
    let mut out = Vec::new();
    let mut result = Run { flows: Vec::new(), queue: Vec::new(), capacity: Vec::new() };
    let mut now = 0;
    while now < seconds as i64 * 1_000_000 {
        let t = now as f64 / 1e6;
        let rate = (path.rate)(t);
        for (index, flow) in flows.iter_mut().enumerate().filter(|(_, flow)| flow.starts <= t) {
            flow.produce(now);
            flow.send(index, now, &mut out);
        }
        cross += (path.cross)(t) * STEP as f64 / 8e6;
        while cross >= PACKET as f64 {
            cross -= PACKET as f64;
            if queued + PACKET <= queue_bytes {
                queued += PACKET;
                queue.push_back((None, PACKET));
            }
        }
        for packet in out.drain(..) {
            if queued + packet.size <= queue_bytes.max(3 * PACKET) {
                queued += packet.size;
                let size = packet.size;
                queue.push_back((Some(packet), size));
            } else {
                let dropped = &mut flows[packet.flow].dropped;
                dropped.resize(dropped.len().max(t as usize + 1), 0);
                dropped[t as usize] += packet.size as u64;
            }
        }
        credit = if queue.is_empty() { 0.0 } else { credit + rate * STEP as f64 / 8e6 };
        while let Some((_, size)) = queue.front() {
            if (*size as f64) > credit {
                break;
            }
            credit -= *size as f64;
            queued -= *size;
            let Some((Some(packet), _)) = queue.pop_front() else { continue };
            let carried = &mut flows[packet.flow].carried;
            carried.resize(carried.len().max(t as usize + 1), 0);
            carried[t as usize] += packet.size as u64;
            if random.share() < path.loss {
                continue;
            }
            // The rest of this step's credit says when within it the last bit left.
            let within = (8e6 * credit / rate) as i64;
            let jitter = (random.share() * path.jitter.as_micros() as f64) as i64;
            let mut at = now + STEP - within.clamp(0, STEP) + half_rtt + jitter;
            if !path.reorder {
                at = at.max(last_arrival);
            }
            if path.overtaken > 0.0 && random.share() < path.overtaken {
                at += 15_000;
            } else {
                last_arrival = last_arrival.max(at);
            }
            event += 1;
            if path.twice > 0.0 && random.share() < path.twice {
                let again = Packet { flow: packet.flow, number: packet.number, size: packet.size };
                wire.insert((at + 1000, event + 1), again);
            }
            wire.insert((at, event), packet);
            event += 1;
        }
        while let Some(entry) = wire.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), packet) = entry.remove_entry();
            flows[packet.flow].arrivals.entry(packet.number).or_insert(at + 12_345_678_000);
        }
        for (index, flow) in flows.iter_mut().enumerate() {
            let highest = flow.arrivals.last_key_value().map(|(number, _)| *number);
            if let Some(bytes) = flow.report(now, path.feedback.as_micros() as i64) {
                flow.reported = flow.reported.max(highest.unwrap_or(0) + 1);
                let lost = path.feedback_loss > 0.0 && random.share() < path.feedback_loss;
                if !lost && !(path.deaf)(t) {
                    event += 1;
                    back.insert((now + half_rtt, event), (index, bytes));
                }
            }
        }
        while let Some(entry) = back.first_entry().filter(|entry| entry.key().0 <= now) {
            let (index, bytes) = entry.remove();
            for packet in parse(&bytes) {
                if let Ok(Rtcp::TransportCc(feedback)) = packet {
                    flows[index].estimator.on_feedback(&feedback, instant(now));
                }
            }
        }
        if now % 1000 == 0 {
            result.queue.push(8000.0 * queued as f64 / rate);
        }
        if now % 10_000 == 0 {
            for flow in &mut flows {
                flow.targets.push(flow.estimator.target_bps());
            }
        }
        if now % 1_000_000 == 0 {
            result.capacity.push(rate);
        }
        now += STEP;
    }
    for flow in &mut flows {
        flow.carried.resize(seconds, 0);
        flow.rtt = flow.estimator.rtt();
        flow.loss = flow.estimator.loss();
    }
    result.flows = flows;
    result
}

impl Run {
    pub(super) fn queue_at(&self, seconds: f64) -> f64 {
        self.queue[(seconds * 1000.0) as usize]
    }
}
