//! The sizes and temporal layers that an encoder gives to the frames of one layer.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::frames::FrameId;

/// Part of its size that a delta frame gives up while the bits of a key frame are paid back.
const PAY_BACK: f64 = 0.3;
/// libvpx in WebRTC begins with 600 ms of bits in hand, and drops frames when 180 are left of them.
const IN_HAND: Duration = Duration::from_millis(420);

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
    /// As libvpx encodes VP8 simulcast: a request for a key frame of one layer makes one of each, those of small layers are
    /// larger beside their delta frames, they vary by more, and frames are dropped while key frames cost more than is in hand.
    pub libvpx: bool,
}

impl Encoding {
    /// Delta frames of equal size, key frames of three times as much, one temporal layer.
    pub const PLAIN: Self = Self { temporal: 1, key_ratio: 3.0, variation: 0.0, libvpx: false };

    /// As a camera's: three temporal layers, sizes that vary by a quarter, key frames of six delta frames.
    pub const CAMERA: Self = Self { temporal: 3, key_ratio: 6.0, variation: 0.25, libvpx: false };
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
    /// The next frame, of `average` bytes if it were like all others, `top` on the largest layer; `None` when it is dropped.
    pub(super) fn next(
        &mut self,
        encoding: Encoding,
        id: FrameId,
        key: bool,
        average: f64,
        top: f64,
        interval: Duration,
    ) -> Option<Shape> {
        if encoding.libvpx && !key && self.owed > average * IN_HAND.div_duration_f64(interval) {
            self.owed -= average;
            return None;
        }
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
        let mut deviation = 0.0;
        if encoding.variation > 0.0 {
            let seed = u64::from(id.source) << 40 ^ u64::from(id.layer) << 32 ^ u64::from(id.number) ^ 0x5eed;
            deviation = encoding.variation * SmallRng::seed_from_u64(seed).random_range(-1.0..1.0);
        }
        len *= 1.0 + deviation;
        if key {
            let libvpx = if encoding.libvpx { (top / average).cbrt() * (1.0 + 2.0 * deviation) } else { 1.0 };
            let key = average * encoding.key_ratio * libvpx;
            self.owed += if encoding.variation > 0.0 { (key - len).max(0.0) } else { 0.0 };
            len = key;
        } else {
            let paid = (len * PAY_BACK).min(self.owed);
            self.owed -= paid;
            len -= paid;
        }
        Some(Shape { len: len as usize, temporal, sync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames 30 times a second of a layer with 1000 bytes each, a key frame whenever `key` says so.
    fn frames(encoding: Encoding, count: u32, top: f64, key: fn(u32) -> bool) -> Vec<Option<Shape>> {
        let mut encoder = Encoder::default();
        let id = |number| FrameId { source: 1, layer: 0, number };
        let interval = Duration::from_micros(33_333);
        (0..count).map(|n| encoder.next(encoding, id(n), key(n), 1000.0, top, interval)).collect()
    }

    fn shapes(encoding: Encoding, count: u32) -> Vec<Shape> {
        frames(encoding, count, 1000.0, |n| n % 300 == 0).into_iter().map(Option::unwrap).collect()
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
    fn libvpx_drops_frames_of_a_small_layer_when_key_frames_come_soon_after_each_other() {
        let encoding = Encoding { libvpx: true, ..Encoding::CAMERA };
        // An eighth of the largest layer: key frames of 12 delta frames or half more or less, with some 12.6 of them in hand.
        let one = frames(encoding, 300, 8000.0, |n| n == 0);
        assert!(one[0].is_some_and(|key| (6000..18_000).contains(&key.len)), "{:?}", one[0]);
        assert!(one.iter().filter(|frame| frame.is_none()).count() < 5);
        let three = frames(encoding, 300, 8000.0, |n| n % 10 == 0 && n < 30);
        let dropped = three.iter().filter(|frame| frame.is_none()).count();
        assert!((15..25).contains(&dropped), "{dropped}");
        let mean = three.iter().flatten().map(|shape| shape.len).sum::<usize>() / 300;
        assert!((950..1050).contains(&mean), "{mean}");
    }

    #[test]
    fn plain_frames_are_equal() {
        let shapes = shapes(Encoding::PLAIN, 50);
        assert_eq!(shapes[0].len, 3000);
        assert!(shapes[1..].iter().all(|s| s.len == 1000));
    }
}
