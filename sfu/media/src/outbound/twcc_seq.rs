//! What all packets of one transport share in their header extensions.

use std::time::Instant;

/// Numbers the packets of one transport for transport-wide congestion control, and gives them their time of sending.
#[derive(Debug)]
pub struct TwccSeqCounter {
    epoch: Instant,
    next: u64,
}

impl TwccSeqCounter {
    /// Starts at 1. `now` is what times of sending count from.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, next: 1 }
    }

    /// The number that the next packet gets.
    pub fn peek(&self) -> u16 {
        self.next as u16
    }

    /// The packet with that number was sent.
    pub fn advance(&mut self) {
        self.next += 1;
    }

    /// Packets numbered.
    pub fn count(&self) -> u64 {
        self.next - 1
    }

    /// `now` for the abs-send-time extension: seconds in 6.18 fixed point, 24 bits.
    pub fn abs_send_time(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.epoch);
        let fraction = (u64::from(since.subsec_nanos()) << 18) / 1_000_000_000;
        ((since.as_secs() << 18 | fraction) & 0x00ff_ffff) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn counts_and_wraps() {
        let t = crate::sim::clock::epoch();
        let mut twcc = TwccSeqCounter::new(t);
        for want in (1..=0xffffu16).chain([0, 1]) {
            assert_eq!(twcc.peek(), want);
            twcc.advance();
        }
        assert_eq!(twcc.count(), 65_537);
        assert_eq!(twcc.abs_send_time(t), 0);
        assert_eq!(twcc.abs_send_time(t + Duration::from_millis(1500)), 3 << 17);
        assert_eq!(twcc.abs_send_time(t + Duration::from_millis(64_500)), 1 << 17);
    }
}
