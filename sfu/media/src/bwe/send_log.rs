//! What was sent when, until feedback speaks of it.

use std::collections::VecDeque;

use super::ProbeId;
use crate::rtcp::TwccFeedback;

/// Age at which a packet that no feedback spoke of is forgotten, in µs.
const MAX_AGE: i64 = 5_000_000;
/// Age up to which a packet reported lost may still turn up in a later report, in µs.
const MAX_LATE: i64 = 1_000_000;
/// Packets remembered at most: 5 s of about 40 Mbit/s.
const MAX_PACKETS: usize = 16_384;
/// Unused numbers bridged at most; a longer gap empties the log.
const MAX_GAP: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A number that no packet got.
    Unused,
    InFlight,
    Lost,
    Arrived,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    sent_at: i64,
    size: u32,
    probe: Option<ProbeId>,
    state: State,
    /// All bytes sent up to this packet, itself included.
    upto: u64,
}

/// What one feedback says of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PacketResult {
    /// Its transport-wide number in full.
    pub(super) number: u64,
    /// µs since the estimator began.
    pub(super) sent_at: i64,
    /// µs of the receiver's clock; `None`: lost.
    pub(super) arrived_at: Option<i64>,
    pub(super) size: u32,
    pub(super) probe: Option<ProbeId>,
    /// An earlier feedback called it lost.
    pub(super) was_lost: bool,
}

/// Packets sent, by transport-wide number.
#[derive(Debug, Default)]
pub(super) struct SendLog {
    /// Number of the first of `sent`.
    first: u64,
    sent: VecDeque<Sent>,
    /// All bytes sent, and those up to the last packet that a feedback spoke of, or that is forgotten.
    sent_bytes: u64,
    known_bytes: u64,
    /// The last reference time, and what it is in µs since the first, unwrapped.
    reference: Option<(u32, i64)>,
}

impl SendLog {
    /// Packets of these sizes left at `now` µs, the first one with this number. A number given before is ignored. Returns the
    /// bytes of all.
    pub(super) fn on_sent(
        &mut self,
        first: u64,
        sizes: impl Iterator<Item = u32>,
        probe: Option<ProbeId>,
        now: i64,
    ) -> u64 {
        let mut bytes = 0;
        for (number, size) in (first..).zip(sizes) {
            bytes += u64::from(size);
            self.push(number, size, probe, now);
        }
        self.forget(now);
        bytes
    }

    fn push(&mut self, number: u64, size: u32, probe: Option<ProbeId>, now: i64) {
        let next = self.next();
        if self.sent.is_empty() || number.saturating_sub(next) > MAX_GAP {
            self.clear();
            self.first = number;
        } else if number < next {
            let slot = number.checked_sub(self.first).and_then(|at| self.sent.get_mut(at as usize));
            if let Some(slot) = slot.filter(|slot| slot.state == State::Unused) {
                *slot = Sent { sent_at: now, size, probe, state: State::InFlight, upto: slot.upto };
            }
            return;
        } else if number > next {
            let unused =
                Sent { sent_at: now, size: 0, probe: None, state: State::Unused, upto: self.sent_bytes };
            self.sent.extend((next..number).map(|_| unused));
        }
        self.sent_bytes += u64::from(size);
        self.sent.push_back(Sent {
            sent_at: now,
            size,
            probe,
            state: State::InFlight,
            upto: self.sent_bytes,
        });
    }

    /// Reads where the next packet comes to lie next to.
    pub(super) fn touch(&self) -> u64 {
        self.sent.back().map_or(0, |sent| sent.upto) + self.sent.front().map_or(0, |sent| sent.upto)
    }

    /// Appends what `feedback` says that was not known before, in the order of numbers. Numbers that are not in the log
    /// say nothing.
    pub(super) fn on_feedback(&mut self, feedback: &TwccFeedback<'_>, now: i64, out: &mut Vec<PacketResult>) {
        let Some(last) = self.next().checked_sub(1).filter(|_| !self.sent.is_empty()) else { return };
        let mut arrived_at = self.reference_micros(feedback.reference_time);
        for (seq, delta) in feedback.statuses() {
            if let Some(delta) = delta {
                arrived_at = arrived_at.saturating_add(i64::from(delta) * 250);
            }
            let behind = u64::from((last as u16).wrapping_sub(seq));
            let Some(number) = last.checked_sub(behind) else { continue };
            let slot = number.checked_sub(self.first).and_then(|at| self.sent.get_mut(at as usize));
            let Some(slot) = slot else { continue };
            let was_lost = slot.state == State::Lost;
            match (slot.state, delta) {
                (State::InFlight | State::Lost, Some(_)) => slot.state = State::Arrived,
                (State::InFlight, None) => slot.state = State::Lost,
                _ => continue,
            }
            self.known_bytes = self.known_bytes.max(slot.upto);
            out.push(PacketResult {
                number,
                sent_at: slot.sent_at,
                arrived_at: delta.map(|_| arrived_at),
                size: slot.size,
                probe: slot.probe,
                was_lost,
            });
        }
        self.forget(now);
    }

    /// Bytes sent after the last packet that a feedback spoke of. Packets that a lost feedback spoke of do not count
    /// once a later one arrived.
    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.sent_bytes - self.known_bytes
    }

    fn next(&self) -> u64 {
        self.first.saturating_add(self.sent.len() as u64)
    }

    fn clear(&mut self) {
        self.sent.clear();
        self.known_bytes = self.sent_bytes;
    }

    fn forget(&mut self, now: i64) {
        while let Some(sent) = self.sent.front() {
            let age = now - sent.sent_at;
            let done = match sent.state {
                State::Unused | State::Arrived => true,
                State::Lost => age > MAX_LATE,
                State::InFlight => age > MAX_AGE,
            };
            if !done && self.sent.len() <= MAX_PACKETS {
                break;
            }
            self.known_bytes = self.known_bytes.max(sent.upto);
            self.sent.pop_front();
            self.first = self.first.saturating_add(1);
        }
    }

    /// The reference time (24 bits of 64 ms) next to the last one, in µs since the first.
    fn reference_micros(&mut self, reference: u32) -> i64 {
        let at = match self.reference {
            // Sign-extends the difference of 24 bits.
            Some((last, at)) => {
                let step = (reference.wrapping_sub(last) << 8) as i32 >> 8;
                at.saturating_add(i64::from(step) * 64_000)
            }
            None => 0,
        };
        self.reference = Some((reference, at));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ssrc;
    use crate::rtcp::{Rtcp, TwccArrival, parse, write_twcc};

    fn feed(log: &mut SendLog, base: u16, arrivals: &[(u16, u64)], now: i64) -> Vec<PacketResult> {
        let arrivals: Vec<_> = arrivals.iter().map(|&(seq, ticks)| TwccArrival { seq, ticks }).collect();
        let mut bytes = Vec::new();
        write_twcc(&mut bytes, Ssrc(1), Ssrc(2), base, 0, &arrivals);
        let mut out = Vec::new();
        for packet in parse(&bytes) {
            if let Ok(Rtcp::TransportCc(feedback)) = packet {
                log.on_feedback(&feedback, now, &mut out);
            }
        }
        out
    }

    fn numbers(results: &[PacketResult]) -> Vec<(u64, bool, bool)> {
        results.iter().map(|r| (r.number, r.arrived_at.is_some(), r.was_lost)).collect()
    }

    #[test]
    fn matches_across_the_wrap_and_each_packet_once() {
        let mut log = SendLog::default();
        for number in 65_530..65_545 {
            log.on_sent(number, [100].into_iter(), None, number as i64);
        }
        assert_eq!(log.in_flight_bytes(), 1500);
        let first = feed(&mut log, 65_530, &[(65_530, 4), (65_531, 8), (0, 12)], 70_000);
        let lost = (65_532..65_536).map(|n| (n, false, false));
        let want: Vec<_> = [(65_530, true, false), (65_531, true, false)]
            .into_iter()
            .chain(lost)
            .chain([(65_536, true, false)])
            .collect();
        assert_eq!(numbers(&first), want);
        assert_eq!(first[1].arrived_at.unwrap() - first[0].arrived_at.unwrap(), 1000);
        assert_eq!(log.in_flight_bytes(), 800);
        // The same again says nothing; a lost one that turns up does.
        assert_eq!(
            numbers(&feed(&mut log, 65_530, &[(65_530, 4), (65_532, 9), (0, 12)], 70_100)),
            [(65_532, true, true)]
        );
        // Numbers that were never sent, or long ago.
        assert!(feed(&mut log, 20, &[(20, 4), (40, 9)], 70_200).is_empty());
        assert_eq!(log.in_flight_bytes(), 800);
    }

    #[test]
    fn forgets_by_age_and_starts_over_after_a_gap() {
        let mut log = SendLog::default();
        log.on_sent(1, [100].into_iter(), None, 0);
        log.on_sent(2, [100].into_iter(), None, MAX_AGE + 1);
        assert_eq!((log.first, log.sent.len(), log.in_flight_bytes()), (2, 1, 100));
        log.on_sent(5, [100].into_iter(), None, MAX_AGE + 2);
        log.on_sent(4, [50].into_iter(), None, MAX_AGE + 3);
        log.on_sent(4, [50].into_iter(), None, MAX_AGE + 4);
        assert_eq!(log.in_flight_bytes(), 200);
        log.on_sent(100_000, [100].into_iter(), None, MAX_AGE + 5);
        assert_eq!((log.first, log.sent.len(), log.in_flight_bytes()), (100_000, 1, 100));
        for number in 100_001..200_000 {
            log.on_sent(number, [100].into_iter(), None, MAX_AGE + 6);
        }
        assert_eq!(log.sent.len(), MAX_PACKETS);
    }

    #[test]
    fn unwraps_the_reference_time() {
        let mut log = SendLog::default();
        assert_eq!(log.reference_micros(0xff_ffff), 0);
        assert_eq!(log.reference_micros(1), 128_000);
        assert_eq!(log.reference_micros(0xff_fffe), -64_000);
    }
}
