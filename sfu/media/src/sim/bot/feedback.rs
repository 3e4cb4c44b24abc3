//! Transport-wide feedback as a client writes it (draft-holmer-rmcat-transport-wide-cc-extensions-01), apart from the
//! relay's own code: statuses in vectors of two bits only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time between two reports, libwebrtc's shortest.
const INTERVAL: Duration = Duration::from_millis(50);
/// Numbers that one report bridges at most.
const MAX_STATUSES: u64 = 2000;

/// Arrivals on one transport that were not reported yet.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// By extended number, in 250 µs since the start.
    waiting: BTreeMap<u64, u64>,
    highest: Option<u64>,
    next: Option<u64>,
    due: Option<Instant>,
    count: u8,
}

impl Arrivals {
    /// A packet with this number arrived.
    pub(super) fn record(&mut self, number: u16, since_start: Duration, now: Instant) {
        let highest = self.highest.unwrap_or(0x1_0000 + u64::from(number));
        let index = highest.wrapping_add_signed(i64::from(number.wrapping_sub(highest as u16) as i16));
        self.highest = Some(highest.max(index));
        self.waiting.entry(index).or_insert((since_start.as_micros() / 250) as u64);
        self.due.get_or_insert(now + INTERVAL);
    }

    /// When the next report is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The reports that are due.
    pub(super) fn reports(&mut self, sender: u32, media: u32, now: Instant) -> Vec<Vec<u8>> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = None;
        let mut reports = Vec::new();
        while let Some((&first, &first_ticks)) = self.waiting.first_key_value() {
            let base = match self.next {
                Some(next) if next <= first && first - next < MAX_STATUSES / 2 => next,
                _ => first,
            };
            let reference = first_ticks / 256;
            let mut last_ticks = reference * 256;
            let (mut symbols, mut deltas) = (Vec::new(), Vec::new());
            for (index, ticks) in &self.waiting {
                let Ok(delta) = i16::try_from(*ticks as i64 - last_ticks as i64) else { break };
                if index - base >= MAX_STATUSES || deltas.len() > 600 {
                    break;
                }
                symbols.resize((index - base) as usize, 0u16);
                match u8::try_from(delta) {
                    Ok(small) => {
                        symbols.push(1);
                        deltas.push(small);
                    }
                    Err(_) => {
                        symbols.push(2);
                        deltas.extend(delta.to_be_bytes());
                    }
                }
                last_ticks = *ticks;
            }
            let after = base + symbols.len() as u64;
            self.waiting = self.waiting.split_off(&after);
            self.next = Some(self.next.unwrap_or(0).max(after));

            let mut report = vec![0x80 | 15, 205, 0, 0];
            report.extend(sender.to_be_bytes());
            report.extend(media.to_be_bytes());
            report.extend((base as u16).to_be_bytes());
            report.extend((symbols.len() as u16).to_be_bytes());
            report.extend(&(reference as u32).to_be_bytes()[1..]);
            report.push(self.count);
            self.count = self.count.wrapping_add(1);
            for seven in symbols.chunks(7) {
                let bits = seven.iter().enumerate().map(|(at, symbol)| symbol << (12 - 2 * at));
                report.extend((0xc000 | bits.sum::<u16>()).to_be_bytes());
            }
            report.extend(&deltas);
            report.resize(report.len().next_multiple_of(4), 0);
            let words = report.len() as u16 / 4 - 1;
            report[2..4].copy_from_slice(&words.to_be_bytes());
            reports.push(report);
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{Rtcp, parse};
    use crate::sim::clock;

    #[test]
    fn the_relay_reads_what_was_recorded() {
        let t = clock::epoch();
        let mut arrivals = Arrivals::default();
        let ms = Duration::from_millis;
        for (number, at) in [(65_534u16, 100), (65_535, 101), (1, 300), (0, 305)] {
            arrivals.record(number, ms(at), t);
        }
        assert!(arrivals.reports(1, 2, t + ms(49)).is_empty());
        let reports = arrivals.reports(1, 2, t + ms(50));
        assert_eq!((reports.len(), arrivals.poll_timeout()), (1, None));
        let Some(Ok(Rtcp::TransportCc(report))) = parse(&reports[0]).next() else { panic!("no feedback") };
        assert_eq!(report.reference_time, 1);
        let statuses: Vec<_> = report.statuses().collect();
        // In 250 µs: 400 after the start, 1.6 of 64 ms.
        assert_eq!(statuses, [(65_534, Some(144)), (65_535, Some(4)), (0, Some(816)), (1, Some(-20))]);
        // The next report begins where this one ended: 2 was lost.
        arrivals.record(3, ms(320), t + ms(60));
        let reports = arrivals.reports(1, 2, t + ms(110));
        let Some(Ok(Rtcp::TransportCc(report))) = parse(&reports[0]).next() else { panic!("no feedback") };
        assert_eq!(report.statuses().collect::<Vec<_>>(), [(2, None), (3, Some(0))]);
    }
}
