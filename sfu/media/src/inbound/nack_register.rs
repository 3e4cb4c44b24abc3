//! Which packets of one inbound stream are missing, and when to ask for them.

use std::time::{Duration, Instant};

use crate::ids::{ExtSeq, SeqNo};

/// Packets tracked at most. A longer gap is an outage: the newest of it are asked for, the rest is lost.
const MAX_MISSING: usize = 256;
/// A packet counts as lost, not reordered, this long after the gap showed ..
const REORDER_TIME: Duration = Duration::from_millis(10);
/// .. or when this many packets came behind it.
const REORDER_PACKETS: u64 = 8;
/// Asked for this often at most.
const MAX_TRIES: u8 = 10;
/// Not asked for any more this long after the gap showed: receivers have given the frame up by then.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Time from one request to the next at least, on top of the round trip that the answer takes.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// Until a round-trip time is known.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
/// Bounds of the round-trip time believed.
const MAX_RTT: Duration = Duration::from_millis(400);

/// The gaps in one stream's indices.
#[derive(Debug)]
pub struct NackRegister {
    highest: Option<u64>,
    /// Ascending by index.
    missing: Vec<Missing>,
    due: Vec<SeqNo>,
    given_up: u64,
    /// From the only request for a packet to its retransmission.
    round_trip: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    index: u64,
    since: Instant,
    next: Instant,
    tries: u8,
    /// When it was asked for last.
    asked: Option<Instant>,
}

impl Default for NackRegister {
    fn default() -> Self {
        Self {
            highest: None,
            missing: Vec::with_capacity(MAX_MISSING),
            due: Vec::with_capacity(MAX_MISSING),
            given_up: 0,
            round_trip: None,
        }
    }
}

impl NackRegister {
    /// An empty register.
    pub fn new() -> Self {
        Self::default()
    }

    /// A packet arrived, first sent or retransmitted. Indices below the first one ever are not missing.
    pub fn on_packet(&mut self, index: ExtSeq, now: Instant) {
        let index = index.0;
        let Some(highest) = self.highest else {
            self.highest = Some(index);
            return;
        };
        if index <= highest {
            if let Ok(at) = self.missing.binary_search_by_key(&index, |m| m.index) {
                self.missing.remove(at);
            }
            return;
        }
        let gap_start = (highest + 1).max(index.saturating_sub(MAX_MISSING as u64));
        self.given_up += gap_start - (highest + 1);
        let room = MAX_MISSING - (index - gap_start) as usize;
        if self.missing.len() > room {
            let excess = self.missing.len() - room;
            self.missing.drain(..excess);
            self.given_up += excess as u64;
        }
        self.missing.extend((gap_start..index).map(|index| Missing {
            index,
            since: now,
            next: now + REORDER_TIME,
            tries: 0,
            asked: None,
        }));
        for m in &mut self.missing {
            if m.tries == 0 && m.index + REORDER_PACKETS <= index {
                m.next = m.next.min(now);
            }
        }
        self.highest = Some(index);
    }

    /// A retransmission arrived; [`Self::on_packet`] is to be told as well. Of a packet that was asked for once it tells the
    /// round trip; of others it is not known which request it answers.
    pub fn on_retransmission(&mut self, index: ExtSeq, now: Instant) {
        if let Ok(at) = self.missing.binary_search_by_key(&index.0, |m| m.index)
            && let Missing { tries: 1, asked: Some(asked), .. } = self.missing[at]
        {
            self.round_trip = Some(now.saturating_duration_since(asked));
        }
    }

    /// The round trip that the last retransmission told, once.
    pub fn take_round_trip(&mut self) -> Option<Duration> {
        self.round_trip.take()
    }

    /// The packets to ask for now, given the publisher's round-trip time if known. Each is due again one round trip
    /// later, until it comes or is given up.
    pub fn poll_nacks(&mut self, now: Instant, rtt: Option<Duration>) -> &[SeqNo] {
        self.due.clear();
        if self.missing.is_empty() {
            return &self.due;
        }
        let interval = rtt.unwrap_or(DEFAULT_RTT).min(MAX_RTT) + MIN_INTERVAL;
        let before = self.missing.len();
        let due = &mut self.due;
        self.missing.retain_mut(|m| {
            if m.next > now {
                return true;
            }
            if m.tries >= MAX_TRIES || now.saturating_duration_since(m.since) >= MAX_AGE {
                return false;
            }
            m.tries += 1;
            m.asked = Some(now);
            m.next = now + interval;
            due.push(ExtSeq(m.index).seq());
            true
        });
        self.given_up += (before - self.missing.len()) as u64;
        &self.due
    }

    /// When [`Self::poll_nacks`] should be called again.
    pub fn deadline(&self) -> Option<Instant> {
        self.missing.iter().map(|m| m.next).min()
    }

    /// Whether this index is missing and still asked for.
    pub fn is_missing(&self, index: ExtSeq) -> bool {
        self.missing.binary_search_by_key(&index.0, |m| m.index).is_ok()
    }

    /// Packets that never came although asked for, or for which there was no room.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Stops asking for what is missing now.
    pub fn forget_missing(&mut self) {
        self.missing.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn asks_after_the_reorder_time_and_then_every_round_trip() {
        let t = crate::sim::clock::epoch();
        let mut nacks = NackRegister::new();
        for i in [65_534u64, 65_535, 65_538] {
            nacks.on_packet(ExtSeq(i), t);
        }
        assert!(nacks.poll_nacks(t, None).is_empty());
        assert_eq!(nacks.deadline(), Some(t + ms(10)));
        assert_eq!(nacks.poll_nacks(t + ms(10), Some(ms(50))), [SeqNo(0), SeqNo(1)]);
        assert!(nacks.poll_nacks(t + ms(79), Some(ms(50))).is_empty());
        nacks.on_packet(ExtSeq(65_536), t + ms(79));
        assert_eq!(nacks.poll_nacks(t + ms(80), Some(ms(50))), [SeqNo(1)]);
        nacks.on_packet(ExtSeq(65_537), t + ms(81));
        assert_eq!(nacks.deadline(), None);
        assert_eq!(nacks.given_up(), 0);
    }

    #[test]
    fn a_retransmission_tells_the_round_trip_if_only_one_request_can_be_meant() {
        let t = crate::sim::clock::epoch();
        let mut nacks = NackRegister::new();
        nacks.on_packet(ExtSeq(1), t);
        nacks.on_packet(ExtSeq(4), t);
        assert_eq!(nacks.poll_nacks(t + ms(10), None).len(), 2);
        nacks.on_retransmission(ExtSeq(2), t + ms(75));
        nacks.on_packet(ExtSeq(2), t + ms(75));
        assert_eq!([nacks.take_round_trip(), nacks.take_round_trip()], [Some(ms(65)), None]);
        assert_eq!(nacks.poll_nacks(t + ms(200), None), [SeqNo(3)]);
        nacks.on_retransmission(ExtSeq(3), t + ms(220));
        nacks.on_retransmission(ExtSeq(2), t + ms(220));
        assert_eq!(nacks.take_round_trip(), None, "the first answer may have been late");
    }

    #[test]
    fn reordering_within_the_tolerance_asks_for_nothing() {
        let t = crate::sim::clock::epoch();
        let mut nacks = NackRegister::new();
        for (i, at) in [(1u64, 0), (3, 1), (2, 2), (5, 3), (4, 9)] {
            nacks.on_packet(ExtSeq(i), t + ms(at));
            assert!(nacks.poll_nacks(t + ms(at), None).is_empty());
        }
        // Eight packets behind a gap are enough evidence.
        nacks.on_packet(ExtSeq(7), t + ms(10));
        nacks.on_packet(ExtSeq(14), t + ms(10));
        assert_eq!(nacks.poll_nacks(t + ms(10), None), [SeqNo(6)]);
    }

    #[test]
    fn gives_up_by_tries_and_by_age() {
        for (rtt, tries) in [(ms(10), 10), (ms(200), 5)] {
            let t = crate::sim::clock::epoch();
            let mut nacks = NackRegister::new();
            nacks.on_packet(ExtSeq(1), t);
            nacks.on_packet(ExtSeq(3), t);
            let asked = (0..3000).filter(|at| !nacks.poll_nacks(t + ms(*at), Some(rtt)).is_empty()).count();
            assert_eq!(asked, tries, "{rtt:?}");
            assert_eq!(nacks.given_up(), 1);
            assert_eq!(nacks.deadline(), None);
        }
    }

    #[test]
    fn an_outage_stays_bounded() {
        let t = crate::sim::clock::epoch();
        let mut nacks = NackRegister::new();
        nacks.on_packet(ExtSeq(0), t);
        nacks.on_packet(ExtSeq(100), t);
        nacks.on_packet(ExtSeq(1_000_000), t);
        let due = nacks.poll_nacks(t + ms(10), None);
        assert_eq!(due.len(), MAX_MISSING);
        assert_eq!(due.last(), Some(&ExtSeq(999_999).seq()));
        nacks.forget_missing();
        assert!(nacks.poll_nacks(t + ms(500), None).is_empty());
    }
}
