//! What is sent a second, over the last half second.

const SLOT: i64 = 50_000;
const SLOTS: usize = 10;

/// Bytes sent in the last ten slots of 50 ms.
#[derive(Debug, Default)]
pub(super) struct SentRate {
    slots: [u64; SLOTS],
    sum: u64,
    /// The running slot, counted since the estimator began.
    slot: i64,
}

impl SentRate {
    pub(super) fn on_sent(&mut self, bytes: u64, now: i64) {
        self.advance(now);
        self.slots[self.slot.rem_euclid(SLOTS as i64) as usize] += bytes;
        self.sum += bytes;
    }

    /// Bits per second.
    pub(super) fn bps(&mut self, now: i64) -> f64 {
        self.advance(now);
        // The running slot is not over yet.
        8e6 * self.sum as f64 / (SLOT * (SLOTS as i64 - 1) + now.rem_euclid(SLOT).max(SLOT / 10)) as f64
    }

    fn advance(&mut self, now: i64) {
        let slot = now / SLOT;
        let passed = (slot - self.slot).clamp(0, SLOTS as i64);
        for n in 1..=passed {
            let old = &mut self.slots[(self.slot + n).rem_euclid(SLOTS as i64) as usize];
            self.sum -= std::mem::take(old);
        }
        self.slot = self.slot.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_half_a_second() {
        let mut rate = SentRate::default();
        for n in 0..1000 {
            rate.on_sent(125, n * 1000);
        }
        assert!((rate.bps(999_000) - 1e6).abs() < 2e4, "{}", rate.bps(999_000));
        assert!((rate.bps(1_249_000) - 5e5).abs() < 2e4, "{}", rate.bps(1_249_000));
        assert_eq!(rate.bps(9_000_000), 0.0);
    }
}
