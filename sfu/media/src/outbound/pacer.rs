//! Spreads what goes to one subscriber over time, so that bursts do not fill the queues of its path.
//!
//! Not packets wait here but the work of sending them: numbers are given and packets sealed when it is their turn, so
//! that they leave in the order of their numbers. Audio passes by, though what it takes is counted; retransmissions come
//! before video, and padding is only for when nothing waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So much time's worth of bytes may leave at once ..
const BURST: Duration = Duration::from_millis(10);
/// .. or so much where the path has room: frames of the usual size leave in one go, as they come from senders' own pacers
/// (libwebrtc: `kDefaultBurstInterval` and, for the bound, `kMaxBurstSize`), ..
const ROOMY_BURST: Duration = Duration::from_millis(40);
const MAX_BURST: u64 = 63_000;
/// .. and never less than this: two packets.
const MIN_BURST: u64 = 2500;
/// What waits is sent faster when it would else take longer than this. A large key frame is worth more than its delay.
const MAX_DRAIN: Duration = Duration::from_millis(500);
/// What passed by is made up for, but not more than this: a voice that takes more than the rate for seconds, while a long queue
/// drains, would hold back video for as long again.
const MAX_DEBT: Duration = Duration::from_millis(500);
/// Retransmissions that wait at most; the receiver asks again for the rest.
const MAX_RETRANSMISSIONS: usize = 256;
/// Packets that wait at most.
const MAX_PACKETS: usize = 4096;

/// The queue of one subscriber. `T` says what to send.
#[derive(Debug)]
pub struct Pacer<T> {
    /// Bits per second; `None` for no pacing.
    rate: Option<u64>,
    /// A long queue is no reason to send faster: the path has one itself.
    patient: bool,
    /// The path carries all that is wanted: larger bursts do no harm.
    roomy: bool,
    /// Bytes sent that the rate has not made up for yet.
    debt: u64,
    /// When the debt was last brought up to date.
    settled: Option<Instant>,
    urgent: VecDeque<Waiting<T>>,
    packets: VecDeque<Waiting<T>>,
    /// Bytes that wait.
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting<T> {
    work: T,
    bytes: u32,
    since: Instant,
}

impl<T> Default for Pacer<T> {
    fn default() -> Self {
        Self {
            rate: None,
            patient: false,
            roomy: false,
            debt: 0,
            settled: None,
            urgent: VecDeque::new(),
            packets: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T: Copy + PartialEq> Pacer<T> {
    /// Sets the rate in bits per second; `None` lets everything pass.
    pub fn set_rate(&mut self, rate: Option<u64>, now: Instant) {
        self.settle(now);
        self.rate = rate;
        if rate.is_none() {
            self.debt = 0;
        }
    }

    /// Whether the path is too full for a long queue to be sent faster.
    pub fn set_patient(&mut self, patient: bool, now: Instant) {
        self.settle(now);
        self.patient = patient;
    }

    /// Whether the path carries all that is wanted, so that whole frames may leave at once.
    pub fn set_roomy(&mut self, roomy: bool) {
        self.roomy = roomy;
    }

    /// Whether a packet must wait. Without a queue it goes straight through.
    pub fn must_wait(&mut self, now: Instant) -> bool {
        self.room(now) == 0
    }

    /// Packets may leave until so many bytes did: the one that comes to lie across the end still does, the next one must
    /// wait. Nothing may while something waits already.
    pub fn room(&mut self, now: Instant) -> u64 {
        let Some(rate) = self.speed() else { return u64::MAX };
        if self.has_waiting() {
            return 0;
        }
        self.settle(now);
        self.burst(rate).saturating_sub(self.debt)
    }

    /// Whether a retransmission must wait: it does not for video.
    pub fn must_wait_urgent(&mut self, now: Instant) -> bool {
        self.rate.is_some() && (!self.urgent.is_empty() || !self.is_open(now))
    }

    /// Whether anything waits.
    pub fn has_waiting(&self) -> bool {
        !self.urgent.is_empty() || !self.packets.is_empty()
    }

    /// Packets that wait, retransmissions included.
    pub fn waiting(&self) -> usize {
        self.urgent.len() + self.packets.len()
    }

    /// Retransmissions that wait.
    pub fn waiting_urgent(&self) -> usize {
        self.urgent.len()
    }

    /// So many bytes were sent, whatever they were.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        if let Some(rate) = self.rate {
            self.settle(now);
            let most = bytes_in(MAX_DEBT, rate).max(MIN_BURST);
            self.debt = (self.debt + bytes as u64).min(most.max(self.debt));
        }
    }

    /// Adds a packet at the end. False when there is no room.
    pub fn push(&mut self, work: T, bytes: usize, now: Instant) -> bool {
        if self.packets.len() >= MAX_PACKETS {
            return false;
        }
        self.bytes += bytes as u64;
        self.packets.push_back(Waiting { work, bytes: bytes as u32, since: now });
        true
    }

    /// Adds a retransmission. False when there is no room, or when it waits already.
    pub fn push_urgent(&mut self, work: T, bytes: usize, now: Instant) -> bool {
        if self.urgent.len() >= MAX_RETRANSMISSIONS || self.urgent.iter().any(|w| w.work == work) {
            return false;
        }
        self.bytes += bytes as u64;
        self.urgent.push_back(Waiting { work, bytes: bytes as u32, since: now });
        true
    }

    /// Takes out what is to be sent now, with the time that it waited. What is sent of it goes to [`Self::sent`].
    pub fn pop(&mut self, now: Instant) -> Option<(T, Duration)> {
        if !self.is_open(now) {
            return None;
        }
        let next = self.urgent.pop_front().or_else(|| self.packets.pop_front())?;
        self.bytes -= u64::from(next.bytes);
        Some((next.work, now.saturating_duration_since(next.since)))
    }

    /// Drops the packets for which this does not hold, and gives how many; retransmissions stay.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) -> usize {
        let (before, bytes) = (self.packets.len(), &mut self.bytes);
        self.packets.retain(|waiting| {
            let kept = keep(&waiting.work);
            if !kept {
                *bytes -= u64::from(waiting.bytes);
            }
            kept
        });
        before - self.packets.len()
    }

    /// The packets that wait, in order; retransmissions are not among them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.packets.iter().map(|waiting| &waiting.work)
    }

    /// How long what waits would take at the set rate.
    pub fn drain_time(&self) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| time_for(self.bytes + self.debt, rate))
    }

    /// When something that waits may go.
    pub fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if !self.has_waiting() {
            return None;
        }
        let Some(rate) = self.speed() else { return Some(now) };
        self.settle(now);
        // Half a burst at a time: packet by packet none would leave together with another.
        let over = self.debt.saturating_sub(self.burst(rate) / 2);
        Some(now + time_for(over, rate))
    }

    fn is_open(&mut self, now: Instant) -> bool {
        let Some(rate) = self.speed() else { return true };
        self.settle(now);
        self.debt < self.burst(rate)
    }

    /// How many bytes may leave at once.
    fn burst(&self, rate: u64) -> u64 {
        let time = if self.roomy { ROOMY_BURST } else { BURST };
        bytes_in(time, rate).clamp(MIN_BURST, MAX_BURST)
    }

    /// The rate, or more where the queue is long.
    fn speed(&self) -> Option<u64> {
        let drained = if self.patient { 0 } else { self.bytes * 8 * 1000 / MAX_DRAIN.as_millis() as u64 };
        self.rate.map(|rate| rate.max(drained).max(1))
    }

    fn settle(&mut self, now: Instant) {
        if self.settled == Some(now) {
            return;
        }
        let Some(rate) = self.speed() else {
            self.settled = Some(now);
            return;
        };
        let since = *self.settled.get_or_insert(now);
        let paid = now.saturating_duration_since(since).as_nanos() * u128::from(rate) / 8_000_000_000;
        if paid > 0 || self.debt == 0 {
            self.debt = self.debt.saturating_sub(u64::try_from(paid).unwrap_or(u64::MAX));
            self.settled = Some(now);
        }
    }
}

fn bytes_in(time: Duration, rate: u64) -> u64 {
    rate / 8 * time.as_millis() as u64 / 1000
}

fn time_for(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos((u128::from(bytes) * 8_000_000_000 / u128::from(rate.max(1))) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Offers packets of 1000 bytes, `burst` of them every `every` ms for a second; gives the times of sending in ms.
    fn run(rate: u64, burst: u32, every: u64) -> Vec<(u32, u64)> {
        let t = crate::sim::clock::epoch();
        let mut pacer = Pacer::default();
        pacer.set_rate(Some(rate), t);
        let (mut sent, mut number) = (Vec::new(), 0);
        for at in 0..1000 {
            let now = t + ms(at);
            while let Some((work, _)) = pacer.pop(now) {
                sent.push((work, at));
                pacer.sent(1000, now);
            }
            for _ in 0..if at % every == 0 { burst } else { 0 } {
                if pacer.must_wait(now) {
                    assert!(pacer.push(number, 1000, now));
                } else {
                    sent.push((number, at));
                    pacer.sent(1000, now);
                }
                number += 1;
            }
        }
        sent
    }

    #[test]
    fn within_the_rate_frames_go_straight_through() {
        // Ten packets at once are 8 ms of 10 Mbit/s.
        let sent = run(10_000_000, 10, 33);
        assert!(sent.iter().all(|(number, at)| *at == u64::from(number / 10) * 33), "{sent:?}");
    }

    #[test]
    fn a_burst_is_spread_at_the_rate_and_in_order() {
        // 20 kB at 1 Mbit/s: 160 ms.
        let sent = run(1_000_000, 20, 500);
        assert!(sent.windows(2).all(|w| w[0].0 + 1 == w[1].0));
        let first: Vec<_> = sent.iter().filter(|(number, _)| *number < 20).map(|(_, at)| *at).collect();
        assert_eq!(first.iter().filter(|at| **at == 0).count(), 3, "a small burst at once");
        let last = *first.last().unwrap();
        assert!((125..=150).contains(&last), "{last}");
        for window in first.windows(5) {
            assert!(window[4] - window[0] >= 4 || window[0] == 0, "{first:?}");
        }
    }

    #[test]
    fn where_there_is_room_whole_frames_pass() {
        let t = crate::sim::clock::epoch();
        let mut pacer = Pacer::<u32>::default();
        pacer.set_rate(Some(3_000_000), t);
        assert_eq!(pacer.room(t), 3_750);
        pacer.set_roomy(true);
        assert_eq!(pacer.room(t), 15_000, "40 ms");
        // 2.5 Mbit/s in 30 frames a second: none waits.
        for frame in 0..300 {
            let now = t + Duration::from_micros(33_333 * frame);
            assert!(pacer.room(now) >= 10_417);
            pacer.sent(10_417, now);
        }
        pacer.set_rate(Some(50_000_000), t + ms(20_000));
        assert_eq!(pacer.room(t + ms(20_000)), MAX_BURST);
    }

    #[test]
    fn a_long_queue_is_sent_faster() {
        let t = crate::sim::clock::epoch();
        let mut pacer = Pacer::default();
        pacer.set_rate(Some(100_000), t);
        // 100 kB at 100 kbit/s would take 8 s.
        for number in 0..100 {
            assert!(pacer.push(number, 1000, t));
        }
        assert_eq!(pacer.drain_time(), ms(8000));
        let mut left_at = Vec::new();
        for at in 0..4000 {
            while let Some((_, waited)) = pacer.pop(t + ms(at)) {
                assert_eq!(waited, ms(at));
                pacer.sent(1000, t + ms(at));
                left_at.push(at);
            }
        }
        assert_eq!(left_at.len(), 100);
        assert!(left_at[60] < 600, "{left_at:?}");
    }

    #[test]
    fn what_passed_by_for_long_holds_back_for_half_a_second() {
        let t = crate::sim::clock::epoch();
        let mut pacer = Pacer::<u32>::default();
        pacer.set_rate(Some(50_000), t);
        // A voice of 80 kbit/s for eight seconds.
        for at in 0..400 {
            pacer.sent(200, t + ms(20 * at));
        }
        let end = t + ms(8000);
        assert!(pacer.must_wait(end) && pacer.drain_time() <= ms(500), "{:?}", pacer.drain_time());
        assert!(!pacer.must_wait(end + ms(500)));
    }

    #[test]
    fn retransmissions_pass_video_and_nothing_is_without_bounds() {
        let t = crate::sim::clock::epoch();
        let mut pacer = Pacer::default();
        pacer.set_rate(Some(1_000_000), t);
        pacer.sent(10_000, t);
        assert!(pacer.must_wait(t) && pacer.must_wait_urgent(t));
        assert!(pacer.push(1, 1000, t) && pacer.push(2, 1000, t) && pacer.push_urgent(3, 1000, t));
        assert_eq!(pacer.pop(t), None);
        let at = pacer.poll_timeout(t).unwrap();
        assert_eq!(at, t + ms(70), "debt of 10,000 bytes but for half of 2500");
        pacer.retain(|work| *work != 1);
        assert_eq!(
            [pacer.pop(at), pacer.pop(at), pacer.pop(at)],
            [Some((3, ms(70))), Some((2, ms(70))), None]
        );
        assert_eq!(pacer.poll_timeout(at), None);
        assert!((0..MAX_PACKETS as i32).all(|n| pacer.push(n, 1, at)) && !pacer.push(0, 1, at));
        assert!((0..MAX_RETRANSMISSIONS as i32).all(|n| pacer.push_urgent(n, 1, at)));
        assert!(!pacer.push_urgent(0, 1, at));
        // Without a rate all goes.
        pacer.set_rate(None, at);
        assert!(!pacer.must_wait(at) && pacer.poll_timeout(at) == Some(at));
        assert_eq!(std::iter::from_fn(|| pacer.pop(at)).count(), MAX_PACKETS + MAX_RETRANSMISSIONS);
    }
}
