//! Deadlines of a shard: a few per peer, one per track of another shard and per periodic report, in two heaps: what is to be on
//! time, and what can wait a while for another reason to wake.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::peers::PeerKey;
use super::tracks::TrackKey;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Whatever a peer has to do next: transport, feedback, reports.
    Peer(PeerKey),
    /// What a peer's streams lack is to be asked for: retransmissions, key frames.
    Repair(PeerKey),
    /// What waits in a peer's pacer.
    Pace(PeerKey),
    /// What a track of another shard asks for there.
    Relayed(TrackKey),
    /// Audio levels.
    Levels,
    /// Connection quality.
    Quality,
    /// Counters.
    Stats,
}

impl Timer {
    fn slot(self) -> usize {
        match self {
            Timer::Levels => 0,
            Timer::Quality => 1,
            Timer::Stats => 2,
            Timer::Peer(key) => 3 + 4 * key.index(),
            Timer::Pace(key) => 4 + 4 * key.index(),
            Timer::Repair(key) => 5 + 4 * key.index(),
            Timer::Relayed(key) => 6 + 4 * key.index(),
        }
    }

    /// Whether somebody waits for what it does. The others do their work as well some milliseconds later.
    fn is_prompt(self) -> bool {
        matches!(self, Timer::Pace(_) | Timer::Repair(_) | Timer::Relayed(_))
    }
}

/// A heap entry. The order of arming breaks ties, so that a run repeats exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    at: Instant,
    order: u64,
    timer: Timer,
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The deadlines. A timer fires at the earliest instant it was armed for and is disarmed by firing; whoever handles it
/// arms it again. Firing early is allowed, so a deadline that moves back costs nothing per packet.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    prompt: BinaryHeap<Reverse<Entry>>,
    patient: BinaryHeap<Reverse<Entry>>,
    /// The heap entry that counts, by [`Timer::slot`]; others of the same timer are stale.
    armed: Vec<Option<(Instant, u64)>>,
    order: u64,
}

impl Timers {
    /// Makes a timer fire at `at` at the latest.
    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        let slot = timer.slot();
        if self.armed.len() <= slot {
            self.armed.resize(slot + 1, None);
        }
        let armed = &mut self.armed[slot];
        if armed.is_some_and(|(earlier, _)| earlier <= at) {
            return;
        }
        self.order += 1;
        *armed = Some((at, self.order));
        let heap = if timer.is_prompt() { &mut self.prompt } else { &mut self.patient };
        heap.push(Reverse(Entry { at, order: self.order, timer }));
    }

    /// Makes a timer not fire. To be called when a peer or a track goes, as its index is used again.
    pub(crate) fn disarm(&mut self, timer: Timer) {
        if let Some(armed) = self.armed.get_mut(timer.slot()) {
            *armed = None;
        }
    }

    /// When the next timer may fire that is to be on time. Can be too early, never too late.
    pub(crate) fn next_prompt(&self) -> Option<Instant> {
        self.prompt.peek().map(|Reverse(entry)| entry.at)
    }

    /// The same for those that can wait.
    fn next_patient(&self) -> Option<Instant> {
        self.patient.peek().map(|Reverse(entry)| entry.at)
    }

    /// When the next timer of all may fire.
    pub(crate) fn next(&self) -> Option<Instant> {
        [self.next_prompt(), self.next_patient()].into_iter().flatten().min()
    }

    /// Takes out one timer that is due, in the order of their deadlines.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        loop {
            let heads = [self.prompt.peek(), self.patient.peek()];
            let first = heads.into_iter().flatten().map(|Reverse(entry)| *entry).min()?;
            if first.at > now {
                return None;
            }
            let heap = if first.timer.is_prompt() { &mut self.prompt } else { &mut self.patient };
            heap.pop();
            let armed = &mut self.armed[first.timer.slot()];
            if *armed == Some((first.at, first.order)) {
                *armed = None;
                return Some(first.timer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::shard::slots::Key;
    use crate::sim::clock;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn fires_in_order_once_and_at_the_earliest_arming() {
        let t = clock::epoch();
        let mut timers = Timers::default();
        timers.arm(Timer::Stats, t + ms(50));
        timers.arm(Timer::Levels, t + ms(20));
        timers.arm(Timer::Stats, t + ms(10));
        timers.arm(Timer::Stats, t + ms(90));
        assert_eq!(timers.next(), Some(t + ms(10)));
        assert_eq!(timers.pop_due(t + ms(9)), None);
        assert_eq!(timers.pop_due(t + ms(100)), Some(Timer::Stats));
        assert_eq!(timers.pop_due(t + ms(100)), Some(Timer::Levels));
        assert_eq!(timers.pop_due(t + ms(100)), None, "the later armings are stale");
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn what_can_wait_is_told_apart_and_fires_in_the_same_order() {
        let t = clock::epoch();
        let mut timers = Timers::default();
        let peer = Key::for_test(4, 1);
        timers.arm(Timer::Peer(peer), t + ms(10));
        timers.arm(Timer::Pace(peer), t + ms(20));
        timers.arm(Timer::Levels, t + ms(30));
        timers.arm(Timer::Repair(peer), t + ms(40));
        assert_eq!((timers.next_prompt(), timers.next()), (Some(t + ms(20)), Some(t + ms(10))));
        let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(t + ms(35))).collect();
        assert_eq!(due, [Timer::Peer(peer), Timer::Pace(peer), Timer::Levels]);
        timers.disarm(Timer::Repair(peer));
        assert_eq!(timers.pop_due(t + ms(50)), None);
    }

    #[test]
    fn a_peer_that_took_an_index_over_does_not_inherit_the_deadline() {
        let t = clock::epoch();
        let mut timers = Timers::default();
        let old = Timer::Peer(Key::for_test(4, 1));
        timers.arm(old, t + ms(5));
        timers.disarm(old);
        let new = Timer::Peer(Key::for_test(4, 2));
        timers.arm(new, t + ms(8));
        assert_eq!(timers.pop_due(t + ms(6)), None);
        assert_eq!(timers.pop_due(t + ms(8)), Some(new));
    }
}
