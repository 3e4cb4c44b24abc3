//! Sender reports of one outgoing stream, and what its receiver reports back.

use std::time::{Duration, Instant};

use crate::ids::RtpTime;
use crate::inbound::SenderReport;
use crate::rtcp::ReportBlock;

/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_UNIX: u64 = 2_208_988_800;
/// Sender reports remembered for round-trip times.
const REMEMBERED: usize = 8;
/// Losses are told over so long at least. Browsers report with each request for lost packets too: what such a report says of the few
/// packets before is that some were lost.
const RATED: Duration = Duration::from_millis(900);
/// Round trips beyond are errors of somebody's clock.
const MAX_RTT: Duration = Duration::from_secs(10);

/// The relay's wall clock in NTP format, for streams whose publisher sends no reports.
#[derive(Debug, Clone, Copy)]
pub struct NtpClock {
    anchor: Instant,
    unix: Duration,
}

impl NtpClock {
    /// At `anchor` it was `unix` since 1970.
    pub fn new(anchor: Instant, unix: Duration) -> Self {
        Self { anchor, unix }
    }

    /// NTP time in 32.32 seconds.
    pub fn ntp(&self, now: Instant) -> u64 {
        let since = self.unix + now.saturating_duration_since(self.anchor);
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        (since.as_secs().wrapping_add(NTP_UNIX) << 32) | fraction
    }
}

/// The same instant on the publisher's wall clock and on the outgoing RTP clock.
#[derive(Debug, Clone, Copy)]
struct Reference {
    ntp: u64,
    rtp: RtpTime,
    at: Instant,
}

/// Maps time for sender reports. The wall clock stays the publisher's, so that receivers play all of its tracks in sync.
#[derive(Debug, Default)]
pub(super) struct ReportState {
    reference: Option<Reference>,
    sent: [Option<(u32, Instant)>; REMEMBERED],
    next: usize,
    view: ReceiverView,
    /// When losses were told last, and `highest_seq` and `lost` then.
    rated: Option<(Instant, u32, i32)>,
    /// `lost` at the last [`Self::take_lost`].
    taken_lost: i32,
}

/// What the subscriber's receiver reports say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverView {
    /// Round-trip time.
    pub rtt: Option<Duration>,
    /// Fraction of packets lost in the last second or so, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all.
    pub lost: i32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Highest sequence number that it received, with wraps in the upper half.
    pub highest_seq: u32,
}

impl ReportState {
    /// The publisher's sender report, of the stream that is being forwarded with this timestamp offset.
    pub(super) fn set_reference(&mut self, report: SenderReport, offset: u32) {
        let rtp = RtpTime(report.rtp.0.wrapping_add(offset));
        self.reference = Some(Reference { ntp: report.ntp, rtp, at: report.arrival });
    }

    /// Makes up a reference from the relay's clock and the last packet sent.
    pub(super) fn set_own_reference(&mut self, ntp: u64, rtp: RtpTime, at: Instant) {
        self.reference = Some(Reference { ntp, rtp, at });
    }

    pub(super) fn has_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// NTP and RTP time of `now`, to be sent in a report.
    pub(super) fn report(&mut self, clock_rate: u32, now: Instant) -> Option<(u64, RtpTime)> {
        let reference = self.reference?;
        let elapsed = now.saturating_duration_since(reference.at).as_nanos();
        let ntp = reference.ntp.wrapping_add(((elapsed << 32) / 1_000_000_000) as u64);
        let ticks = (elapsed * u128::from(clock_rate) / 1_000_000_000) as u32;
        self.sent[self.next] = Some(((ntp >> 16) as u32, now));
        self.next = (self.next + 1) % REMEMBERED;
        Some((ntp, RtpTime(reference.rtp.0.wrapping_add(ticks))))
    }

    /// Returns whether losses are known anew.
    pub(super) fn handle_report_block(&mut self, block: &ReportBlock, now: Instant) -> bool {
        let sent = self.sent.iter().flatten().find(|(ntp, _)| *ntp == block.last_sr);
        if let (Some((_, at)), true) = (sent, block.last_sr != 0) {
            let delay = Duration::from_nanos((u64::from(block.delay_since_last_sr) * 1_000_000_000) >> 16);
            // The receiver rounds its delay; on a short path that may exceed the whole.
            let rtt = now.saturating_duration_since(*at).saturating_sub(delay);
            if rtt < MAX_RTT {
                self.view.rtt = Some(rtt);
            }
        }
        self.view.lost = block.lost;
        self.view.jitter = block.jitter;
        self.view.highest_seq = block.highest_seq;
        let fraction = match self.rated {
            // Since the stream began.
            None => block.fraction_lost,
            Some((at, _, _)) if now.saturating_duration_since(at) < RATED => return false,
            // Over all reports since; packets that came twice may make it negative.
            Some((_, highest, lost)) => {
                let expected = block.highest_seq.wrapping_sub(highest);
                let lost = block.lost.saturating_sub(lost).max(0) as u64;
                ReportBlock::fraction(lost, u64::from(expected))
            }
        };
        self.rated = Some((now, block.highest_seq, block.lost));
        self.view.fraction_lost = fraction;
        true
    }

    pub(super) fn view(&self) -> ReceiverView {
        self.view
    }

    /// Packets reported lost since the last call.
    pub(super) fn take_lost(&mut self) -> u32 {
        let lost = self.view.lost.saturating_sub(self.taken_lost).max(0) as u32;
        self.taken_lost = self.view.lost;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ssrc;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn block(last_sr: u32, delay_since_last_sr: u32, lost: i32) -> ReportBlock {
        ReportBlock {
            ssrc: Ssrc(1),
            fraction_lost: 3,
            lost,
            highest_seq: 9,
            jitter: 4,
            last_sr,
            delay_since_last_sr,
        }
    }

    #[test]
    fn ntp_counts_from_1900() {
        let t = crate::sim::clock::epoch();
        let clock = NtpClock::new(t, Duration::from_secs(10));
        assert_eq!(clock.ntp(t + ms(2500)), (NTP_UNIX + 12) << 32 | 1 << 31);
    }

    #[test]
    fn keeps_the_publishers_wall_clock() {
        let t = crate::sim::clock::epoch();
        let mut state = ReportState::default();
        assert!(state.report(90_000, t).is_none());
        let report = SenderReport { ntp: 5 << 32, rtp: RtpTime(u32::MAX), arrival: t };
        state.set_reference(report, 1001);
        assert_eq!(state.report(90_000, t + ms(500)), Some((5 << 32 | 1 << 31, RtpTime(46_000))));
    }

    #[test]
    fn losses_are_told_over_a_second_however_often_reports_come() {
        let t = crate::sim::clock::epoch();
        let mut state = ReportState::default();
        let report = |highest_seq, lost, fraction_lost| ReportBlock {
            highest_seq,
            fraction_lost,
            ..block(0, 0, lost)
        };
        assert!(state.handle_report_block(&report(100, 5, 13), t));
        assert_eq!(state.view().fraction_lost, 13);
        // Every third of ten packets, and none of the hundred between: 3 %.
        for n in 1..=8 {
            let at = t + ms(100 * u64::from(n));
            assert!(!state.handle_report_block(&report(100 + 100 * n - 10, 5 + 3 * n as i32 - 3, 0), at));
            assert!(!state.handle_report_block(&report(100 + 100 * n, 5 + 3 * n as i32, 77), at));
            assert_eq!((state.view().fraction_lost, state.view().highest_seq), (13, 100 + 100 * n));
        }
        assert!(state.handle_report_block(&report(1000, 32, 77), t + ms(900)));
        assert_eq!(state.view().fraction_lost, (27 * 256 / 900) as u8);
        // More came than were missing, then nothing came at all.
        assert!(state.handle_report_block(&report(1100, 30, 0), t + ms(2000)));
        assert_eq!(state.view().fraction_lost, 0);
        assert!(state.handle_report_block(&report(1100, 30, 0), t + ms(3000)));
        assert!(state.handle_report_block(&report(1101, i32::MAX, 255), t + ms(4000)));
        assert_eq!(state.view().fraction_lost, 255);
    }

    #[test]
    fn round_trip_time_and_loss() {
        let t = crate::sim::clock::epoch();
        let mut state = ReportState::default();
        state.set_reference(SenderReport { ntp: 7 << 32, rtp: RtpTime(0), arrival: t }, 0);
        let (ntp, _) = state.report(90_000, t).unwrap();
        state.report(90_000, t + ms(1000)).unwrap();
        state.handle_report_block(&block((ntp >> 16) as u32, 65_536, 12), t + ms(1080));
        assert_eq!(state.view().rtt, Some(ms(80)));
        assert_eq!(state.take_lost(), 12);
        // An unknown report tells no round trip; a total that went down is no loss.
        state.handle_report_block(&block(1, 0, 10), t + ms(2000));
        assert_eq!((state.view().rtt, state.take_lost()), (Some(ms(80)), 0));
        state.handle_report_block(&block(0, 0, 15), t + ms(2000));
        assert_eq!((state.view().rtt, state.take_lost()), (Some(ms(80)), 5));
    }
}
