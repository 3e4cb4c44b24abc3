//! Arrival times of one transport's packets, for transport-wide congestion control
//! ([draft-holmer-rmcat-transport-wide-cc-extensions-01](https://datatracker.ietf.org/doc/html/draft-holmer-rmcat-transport-wide-cc-extensions-01)).

use std::time::{Duration, Instant};

use crate::ids::{ExtSeq, SeqNo, Ssrc};
use crate::rtcp::{TwccArrival, write_twcc};

/// Time between two reports.
const INTERVAL: Duration = Duration::from_millis(50);
/// A report goes out before the interval ends when this many packets arrived.
const MAX_ARRIVALS: usize = 100;
/// Numbers that one report bridges at most. A longer gap is not reported as lost packets but left out.
const MAX_GAP: u64 = 1000;
/// A packet this far behind what was reported is not worth a report.
const MAX_LATE: u64 = 250;
/// The draft's unit of arrival times.
const TICK_MICROS: u64 = 250;

/// Records arrivals, and writes a report of them every 50 ms or 100 packets.
#[derive(Debug)]
pub struct TwccRecorder {
    epoch: Instant,
    /// Ascending by extended number, none twice; not reported yet.
    arrivals: Vec<(ExtSeq, u64)>,
    highest: Option<ExtSeq>,
    /// First number that no report spoke of.
    next: Option<ExtSeq>,
    /// When the oldest of `arrivals` came.
    waiting_since: Option<Instant>,
    count: u8,
    scratch: Vec<TwccArrival>,
}

impl TwccRecorder {
    /// Nothing recorded.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            arrivals: Vec::with_capacity(2 * MAX_ARRIVALS),
            highest: None,
            next: None,
            waiting_since: None,
            count: 0,
            scratch: Vec::with_capacity(2 * MAX_ARRIVALS),
        }
    }

    /// A packet with the transport-wide sequence number `seq` arrived, of whatever stream. Duplicates and very late
    /// packets are ignored, and so is what comes while 200 wait to be reported.
    pub fn record(&mut self, seq: u16, now: Instant) {
        // One wrap ahead, so that packets before the first do not fall below zero.
        let index = match self.highest {
            Some(highest) => ExtSeq::nearest(highest, SeqNo(seq)),
            None => ExtSeq(0x1_0000 + u64::from(seq)),
        };
        if self.arrivals.len() >= 2 * MAX_ARRIVALS
            || self.next.is_some_and(|next| index.0 + MAX_LATE < next.0)
        {
            return;
        }
        let ticks = now.saturating_duration_since(self.epoch).as_micros() as u64 / TICK_MICROS;
        if self.arrivals.last().is_none_or(|(last, _)| *last < index) {
            self.arrivals.push((index, ticks));
        } else {
            let Err(at) = self.arrivals.binary_search_by_key(&index, |(index, _)| *index) else { return };
            self.arrivals.insert(at, (index, ticks));
        }
        self.highest = Some(self.highest.map_or(index, |h| h.max(index)));
        self.waiting_since.get_or_insert(now);
    }

    /// When [`Self::poll_feedback`] has something to report; `None` while nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting_since
            .map(|since| if self.arrivals.len() >= MAX_ARRIVALS { since } else { since + INTERVAL })
    }

    /// Appends feedback packets to `out` if it is time, and returns how many. `sender` is the relay's SSRC on the
    /// transport, `media` any of the publisher's.
    pub fn poll_feedback(&mut self, out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, now: Instant) -> usize {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return 0;
        }
        self.waiting_since = None;
        let mut packets = 0;
        let mut at = 0;
        while let Some(&(first, _)) = self.arrivals.get(at) {
            let gap = |(before, after): (ExtSeq, ExtSeq)| after.0.saturating_sub(before.0) > MAX_GAP;
            let run = self.arrivals[at..].windows(2).position(|w| gap((w[0].0, w[1].0)));
            let end = run.map_or(self.arrivals.len(), |n| at + n + 1);
            // From where the last report ended, so that losses in between show. A packet from before that comes with
            // a report of its own, which repeats some of the old one's numbers: the sender knows those.
            let base = match self.next {
                Some(next) if next <= first && !gap((next, first)) => next,
                _ => first,
            };
            self.scratch.clear();
            self.scratch.extend(
                self.arrivals[at..end].iter().map(|(i, ticks)| TwccArrival { seq: i.seq().0, ticks: *ticks }),
            );
            let covered = write_twcc(out, sender, media, base.seq().0, self.count, &self.scratch).max(1);
            self.count = self.count.wrapping_add(1);
            packets += 1;
            at += covered;
            let after = self.arrivals.get(at - 1).map_or(first.0, |(last, _)| last.0) + 1;
            self.next = Some(self.next.map_or(ExtSeq(after), |next| next.max(ExtSeq(after))));
        }
        self.arrivals.clear();
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{Rtcp, parse};
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Base, feedback count and the numbers received, for each packet written.
    fn read(out: &[u8]) -> Vec<(u16, u8, Vec<u16>)> {
        parse(out)
            .map(|packet| match packet.unwrap() {
                Rtcp::TransportCc(fb) => {
                    let got = fb.statuses().filter(|(_, delta)| delta.is_some()).map(|(seq, _)| seq);
                    (fb.base_seq, fb.feedback_count, got.collect())
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn poll(r: &mut TwccRecorder, now: Instant) -> Vec<(u16, u8, Vec<u16>)> {
        let mut out = Vec::new();
        let n = r.poll_feedback(&mut out, Ssrc(1), Ssrc(2), now);
        let packets = if n > 0 { read(&out) } else { vec![] };
        assert_eq!(packets.len(), n);
        packets
    }

    #[test]
    fn every_50_ms_or_100_packets() {
        let t = crate::sim::clock::epoch();
        let mut r = TwccRecorder::new(t);
        assert_eq!(r.poll_timeout(), None);
        r.record(5, t);
        assert_eq!(r.poll_timeout(), Some(t + ms(50)));
        assert!(poll(&mut r, t + ms(49)).is_empty());
        assert_eq!(poll(&mut r, t + ms(50)), [(5, 0, vec![5])]);
        assert_eq!(r.poll_timeout(), None);
        for i in 0..100 {
            assert!(poll(&mut r, t + ms(60)).is_empty());
            r.record(6 + i, t + ms(60));
        }
        assert_eq!(poll(&mut r, t + ms(60)), [(6, 1, (6..106).collect())]);
    }

    #[test]
    fn loss_wrap_duplicates_and_reordering() {
        let t = crate::sim::clock::epoch();
        let mut r = TwccRecorder::new(t);
        for seq in [65_533, 65_535, 65_535, 1, 0, 65_533] {
            r.record(seq, t);
        }
        assert_eq!(poll(&mut r, t + ms(50)), [(65_533, 0, vec![65_533, 65_535, 0, 1])]);
        // 2 and 3 lost between the reports; 65,534 comes after all.
        r.record(4, t + ms(60));
        assert_eq!(poll(&mut r, t + ms(110)), [(2, 1, vec![4])]);
        r.record(65_534, t + ms(120));
        r.record(5, t + ms(121));
        assert_eq!(poll(&mut r, t + ms(170)), [(65_534, 2, vec![65_534, 5])]);
        r.record(6, t + ms(200));
        assert_eq!(poll(&mut r, t + ms(250)), [(6, 3, vec![6])]);
        // Much too late.
        r.record(65_000, t + ms(260));
        assert_eq!(r.poll_timeout(), None);
    }

    #[test]
    fn a_long_gap_is_left_out() {
        let t = crate::sim::clock::epoch();
        let mut r = TwccRecorder::new(t);
        for seq in [1, 2, 5000, 5001] {
            r.record(seq, t);
        }
        assert_eq!(poll(&mut r, t + ms(50)), [(1, 0, vec![1, 2]), (5000, 1, vec![5000, 5001])]);
    }

    proptest! {
        #[test]
        fn any_numbers_stay_bounded_and_are_reported_once(seqs in prop::collection::vec(any::<u16>(), 0..600)) {
            let t = crate::sim::clock::epoch();
            let mut r = TwccRecorder::new(t);
            for (i, seq) in seqs.iter().enumerate() {
                r.record(*seq, t + ms(i as u64));
                for (_, _, got) in poll(&mut r, t + ms(i as u64)) {
                    prop_assert!(got.iter().all(|seq| seqs[..=i].contains(seq)));
                }
                prop_assert!(r.arrivals.len() <= 2 * MAX_ARRIVALS);
            }
        }
    }
}
