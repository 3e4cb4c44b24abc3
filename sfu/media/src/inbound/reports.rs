//! Reception statistics of one inbound stream
//! ([RFC 3550 appendix A.3](https://www.rfc-editor.org/rfc/rfc3550#appendix-A.3) and
//! [A.8](https://www.rfc-editor.org/rfc/rfc3550#appendix-A.8)).

use std::time::{Duration, Instant};

use crate::ids::{ExtSeq, RtpTime, Ssrc};
use crate::rtcp::ReportBlock;

/// A sender report as received from a publisher: the same instant on its wall clock and on the stream's RTP clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// NTP time, 32.32 fixed point, on the publisher's clock.
    pub ntp: u64,
    /// RTP time of the same instant.
    pub rtp: RtpTime,
    /// When the report arrived.
    pub arrival: Instant,
}

/// Counts what a receiver report tells the sender. Retransmissions on their own SSRC are not counted.
#[derive(Debug)]
pub struct ReceptionStats {
    epoch: Instant,
    first: Option<u64>,
    highest: u64,
    received: u64,
    /// `expected` and `received` at the last report.
    reported: (u64, u64),
    /// The same at the last [`Self::take_quality`].
    rated: (u64, u64),
    /// Interarrival jitter in timestamp units, times 16.
    jitter: u32,
    transit: Option<u32>,
    clock_rate: u32,
    sender_report: Option<SenderReport>,
}

impl ReceptionStats {
    /// Nothing received yet.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            first: None,
            highest: 0,
            received: 0,
            reported: (0, 0),
            rated: (0, 0),
            jitter: 0,
            transit: None,
            clock_rate: 0,
            sender_report: None,
        }
    }

    /// A packet arrived on the stream's own SSRC, not a duplicate.
    pub fn on_packet(&mut self, index: ExtSeq, timestamp: RtpTime, clock_rate: u32, now: Instant) {
        // What is older than the first packet was never expected.
        if self.first.is_some_and(|first| index.0 < first) {
            return;
        }
        self.first.get_or_insert(index.0);
        self.highest = self.highest.max(index.0);
        self.received += 1;
        if self.clock_rate != clock_rate {
            self.clock_rate = clock_rate;
            self.transit = None;
            self.jitter = 0;
        }
        let arrival = ticks(now.saturating_duration_since(self.epoch), clock_rate) as u32;
        let transit = arrival.wrapping_sub(timestamp.0);
        if let Some(before) = self.transit.replace(transit) {
            let d = (transit.wrapping_sub(before) as i32).unsigned_abs();
            // A jump of a minute and more is a new timeline, not jitter.
            if u64::from(d) < u64::from(clock_rate) * 60 {
                // A.8: J += |D| - (J + 8) >> 4
                self.jitter = self.jitter.saturating_add(d) - ((self.jitter.saturating_add(8)) >> 4);
            }
        }
    }

    /// A sender report for the stream arrived.
    pub fn on_sender_report(&mut self, ntp: u64, rtp: RtpTime, now: Instant) {
        self.sender_report = Some(SenderReport { ntp, rtp, arrival: now });
    }

    /// The last sender report.
    pub fn sender_report(&self) -> Option<SenderReport> {
        self.sender_report
    }

    /// The report block of a receiver report; `None` before the first packet. Starts a new interval for the fraction
    /// lost.
    pub fn report_block(&mut self, ssrc: Ssrc, now: Instant) -> Option<ReportBlock> {
        self.first?;
        let expected = self.expected();
        let expected_since = expected - self.reported.0;
        let received_since = self.received - self.reported.1;
        self.reported = (expected, self.received);
        let lost_since = expected_since.saturating_sub(received_since);
        let (last_sr, delay_since_last_sr) = match self.sender_report {
            Some(sr) => (
                (sr.ntp >> 16) as u32,
                ticks(now.saturating_duration_since(sr.arrival), 65_536).min(u64::from(u32::MAX)) as u32,
            ),
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc,
            fraction_lost: ReportBlock::fraction(lost_since, expected_since),
            lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_seq: self.highest as u32,
            jitter: self.jitter >> 4,
            last_sr,
            delay_since_last_sr,
        })
    }

    /// Packets expected and lost since the last call.
    pub fn take_quality(&mut self) -> (u32, u32) {
        let expected = self.expected();
        let expected_since = expected - self.rated.0;
        let received_since = self.received - self.rated.1;
        self.rated = (expected, self.received);
        (expected_since as u32, expected_since.saturating_sub(received_since) as u32)
    }

    /// Interarrival jitter.
    pub fn jitter(&self) -> Duration {
        match self.clock_rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(f64::from(self.jitter >> 4) / f64::from(rate)),
        }
    }

    fn expected(&self) -> u64 {
        self.first.map_or(0, |first| self.highest - first + 1)
    }
}

/// A duration in units of a clock, rounded down.
fn ticks(duration: Duration, rate: u32) -> u64 {
    (duration.as_nanos() * u128::from(rate) / 1_000_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn loss_per_interval_and_in_all() {
        let t = crate::sim::clock::epoch();
        let mut stats = ReceptionStats::new(t);
        assert!(stats.report_block(Ssrc(7), t).is_none());
        // Across the wrap: 65,530 to 65,549, every fourth lost but the last.
        for i in (65_530u64..65_550).filter(|i| i % 4 != 0 || *i == 65_549) {
            stats.on_packet(ExtSeq(i), RtpTime(0), 90_000, t);
        }
        let block = stats.report_block(Ssrc(7), t).unwrap();
        assert_eq!((block.lost, block.fraction_lost), (5, 64));
        assert_eq!(block.highest_seq, 65_549);
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0, 0));
        // Nothing came since; then one that was late.
        assert_eq!(stats.report_block(Ssrc(7), t).unwrap().fraction_lost, 0);
        stats.on_packet(ExtSeq(65_532), RtpTime(0), 90_000, t);
        let block = stats.report_block(Ssrc(7), t).unwrap();
        assert_eq!((block.lost, block.fraction_lost), (4, 0));
        assert_eq!(stats.take_quality(), (20, 4));
        assert_eq!(stats.take_quality(), (0, 0));
    }

    #[test]
    fn sender_report_times() {
        let t = crate::sim::clock::epoch();
        let mut stats = ReceptionStats::new(t);
        stats.on_packet(ExtSeq(1), RtpTime(0), 48_000, t);
        stats.on_sender_report(0x1122_3344_5566_7788, RtpTime(5), t + ms(100));
        let block = stats.report_block(Ssrc(7), t + ms(600)).unwrap();
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0x3344_5566, 32_768));
    }

    #[test]
    fn jitter_follows_the_appendix() {
        let t = crate::sim::clock::epoch();
        let mut stats = ReceptionStats::new(t);
        // Even spacing across the timestamp wrap gives none.
        for i in 0..50u32 {
            let timestamp = RtpTime(0xffff_0000u32.wrapping_add(i * 960));
            stats.on_packet(ExtSeq(u64::from(i)), timestamp, 48_000, t + ms(20 * u64::from(i)));
        }
        assert_eq!(stats.jitter(), Duration::ZERO);
        // One packet 16 ms late: |D| = 768, J = 768 / 16.
        stats.on_packet(ExtSeq(50), RtpTime(0xffff_0000u32.wrapping_add(50 * 960)), 48_000, t + ms(1016));
        assert_eq!(stats.report_block(Ssrc(1), t).unwrap().jitter, 48);
        assert_eq!(stats.jitter(), ms(1));
    }
}
