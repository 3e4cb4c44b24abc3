//! The sizes and temporal layers that an encoder gives to the frames of one layer.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::frames::FrameId;

/// Part of its size that a delta frame gives up while the bits of a key frame are paid back.
const PAY_BACK: f64 = 0.3;

/// How frames differ from each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoding {
    /// Temporal layers, 1 to 3. Two halve the rate of frames, three quarter it.
    pub temporal: u8,
    /// Size of a key frame, in delta frames.
    pub key_ratio: f64,
    /// How much the size of a delta frame deviates from the average at most, as a share of it. With any, the encoder has a
    /// rate control as well: after a key frame it makes smaller ones until the average is kept.
    pub variation: f64,
    /// A request for a key frame of one layer makes one of each: libvpx encodes all layers of VP8 simulcast together.
    pub keys_together: bool,
}

impl Encoding {
    /// Delta frames of equal size, key frames of three times as much, one temporal layer.
    pub const PLAIN: Self = Self { temporal: 1, key_ratio: 3.0, variation: 0.0, keys_together: false };

    /// As a camera's: three temporal layers, sizes that vary by a quarter, key frames of six delta frames.
    pub const CAMERA: Self = Self { temporal: 3, key_ratio: 6.0, variation: 0.25, keys_together: false };
}

/// What a frame is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) len: usize,
    pub(super) temporal: u8,
    /// Depends on the base layer only (RFC 7741, bit Y).
    pub(super) sync: bool,
}

/// State of one layer's encoder.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    since_key: u32,
    owed: f64,
}

impl Encoder {
    /// The next frame, of `average` bytes if it were like all others.
    pub(super) fn next(&mut self, encoding: Encoding, id: FrameId, key: bool, average: f64) -> Shape {
        self.since_key = if key { 0 } else { self.since_key + 1 };
        let (temporal, share, sync) = match (encoding.temporal, self.since_key % 4) {
            (3, 0) => (0, 1.6, true),
            (3, 1) => (2, 0.8, true),
            (3, 2) => (1, 0.8, true),
            (3, _) => (2, 0.8, false),
            (2, 0 | 2) => (0, 1.2, true),
            (2, _) => (1, 0.8, true),
            _ => (0, 1.0, true),
        };
        let mut len = average * share;
        if encoding.variation > 0.0 {
            let seed = u64::from(id.source) << 40 ^ u64::from(id.layer) << 32 ^ u64::from(id.number) ^ 0x5eed;
            len *= 1.0 + encoding.variation * SmallRng::seed_from_u64(seed).random_range(-1.0..1.0);
        }
        if key {
            let extra = average * encoding.key_ratio - len;
            self.owed += if encoding.variation > 0.0 { extra.max(0.0) } else { 0.0 };
            len = average * encoding.key_ratio;
        } else {
            let paid = (len * PAY_BACK).min(self.owed);
            self.owed -= paid;
            len -= paid;
        }
        Shape { len: len as usize, temporal, sync }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(encoding: Encoding, count: u32) -> Vec<Shape> {
        let mut encoder = Encoder::default();
        let id = |number| FrameId { source: 1, layer: 0, number };
        (0..count).map(|n| encoder.next(encoding, id(n), n % 300 == 0, 1000.0)).collect()
    }

    #[test]
    fn keeps_the_average_over_key_frames_and_layers() {
        for temporal in 1..=3 {
            let shapes = shapes(Encoding { temporal, ..Encoding::CAMERA }, 3000);
            let mean = shapes.iter().map(|s| s.len).sum::<usize>() as f64 / 3000.0;
            assert!((980.0..1020.0).contains(&mean), "{temporal}: {mean}");
            assert_eq!(shapes[0].len, 6000);
        }
    }

    #[test]
    fn temporal_layers_follow_their_pattern() {
        let ids = |temporal| -> Vec<u8> {
            let encoding = Encoding { temporal, ..Encoding::PLAIN };
            shapes(encoding, 9).iter().map(|s| s.temporal).collect()
        };
        assert_eq!(ids(1), [0; 9]);
        assert_eq!(ids(2), [0, 1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(ids(3), [0, 2, 1, 2, 0, 2, 1, 2, 0]);
    }

    #[test]
    fn plain_frames_are_equal() {
        let shapes = shapes(Encoding::PLAIN, 50);
        assert_eq!(shapes[0].len, 3000);
        assert!(shapes[1..].iter().all(|s| s.len == 1000));
    }
}
