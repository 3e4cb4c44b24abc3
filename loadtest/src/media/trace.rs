//! The shape of recorded video: how large each frame is against the mean, and which frame needs which.

use std::sync::LazyLock;
use std::time::Duration;

use super::SEAL_BYTES;
use super::vp8::HEADER;
use crate::scenario::Steady;

static TALKING_HEAD: &str = include_str!("../../media/talking-head.trace");

/// Sizes in thousandths of the mean: the key frame, then the others.
static SIZES: LazyLock<(u32, Vec<u32>)> = LazyLock::new(|| {
    let mut sizes = TALKING_HEAD
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|size| size.parse::<u32>().expect("the built-in trace holds numbers"));
    let key = sizes.next().expect("the built-in trace has a key frame");
    (key, sizes.collect())
});

/// One frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceFrame {
    /// It needs no other.
    pub key: bool,
    /// Temporal layer, 0 to 2.
    pub temporal: u8,
    /// How many frames back the one is that it needs; 0 for a key frame.
    pub depends: u16,
    /// Bytes.
    pub size: usize,
}

/// A position in the trace, at a bitrate and a frame rate.
#[derive(Debug, Clone)]
pub struct TracePlayer {
    mean: f64,
    /// Frame of the trace that comes next.
    at: usize,
    /// Frames since the key frame.
    since_key: usize,
    key_wanted: bool,
    /// Frames of whole packets in place of the trace's.
    steady: Option<(Steady, u32)>,
}

/// Pattern of temporal layers (L1T3): each picture of layer 1 needs the layer-0 picture two before it, those of layer 2 the
/// picture just before, those of layer 0 the one four before.
const PATTERN: [(u8, u16); 4] = [(0, 4), (2, 1), (1, 2), (2, 1)];

impl TracePlayer {
    /// Plays at `bitrate` bits a second with `fps` frames a second, from `start` (any number) in the trace on.
    pub fn new(bitrate: u32, fps: u32, start: usize) -> Self {
        let mean = f64::from(bitrate) / 8.0 / f64::from(fps.max(1));
        Self { mean, at: start % (SIZES.1.len() / 4) * 4, since_key: 0, key_wanted: true, steady: None }
    }

    /// Plays frames that fill whole packets, spread evenly over `fps` frames a second.
    pub fn steady(steady: Steady, fps: u32) -> Self {
        Self { steady: Some((steady, fps.max(1))), at: 0, ..Self::new(0, fps, 0) }
    }

    fn next_size(&mut self, size: u32) -> usize {
        let Some((Steady { packets, payload }, fps)) = self.steady else {
            return (self.mean * f64::from(size) / 1000.0) as usize;
        };
        let until = |frame: usize| frame as u64 * u64::from(packets) / u64::from(fps);
        let count = (until(self.at + 1) - until(self.at)) as usize;
        self.at += 1;
        count * (usize::from(payload) - HEADER) - SEAL_BYTES
    }

    /// The next frame will be a key frame.
    pub fn want_key(&mut self) {
        self.key_wanted = true;
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> TraceFrame {
        let (key_size, sizes) = &*SIZES;
        if std::mem::take(&mut self.key_wanted) {
            self.since_key = 0;
            // The pattern starts anew after a key frame, and the trace keeps step with it.
            if self.steady.is_none() {
                self.at = self.at.next_multiple_of(4) % sizes.len();
            }
            return TraceFrame { key: true, temporal: 0, depends: 0, size: self.next_size(*key_size) };
        }
        self.since_key += 1;
        let (temporal, depends) = PATTERN[self.since_key % 4];
        if self.steady.is_some() {
            return TraceFrame { key: false, temporal, depends, size: self.next_size(0) };
        }
        let size = self.next_size(sizes[self.at]);
        self.at = (self.at + 1) % sizes.len();
        TraceFrame { key: false, temporal, depends, size }
    }
}

/// Time between two frames.
pub fn period(fps: u32) -> Duration {
    Duration::from_nanos(1_000_000_000 / u64::from(fps.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_plays_at_the_bitrate_asked_for() {
        assert_eq!(SIZES.1.len() % 4, 0);
        for start in [0, 5, 1000] {
            let mut player = TracePlayer::new(1_700_000, 30, start);
            assert!(player.next_frame().key);
            let frames = SIZES.1.len();
            let bytes: usize = (0..frames).map(|_| player.next_frame().size).sum();
            let bitrate = bytes as f64 * 8.0 * 30.0 / frames as f64;
            assert!((bitrate / 1_700_000.0 - 1.0).abs() < 0.02, "{bitrate}");
        }
    }

    #[test]
    fn steady_frames_fill_their_packets() {
        use crate::media::vp8::{Descriptor, packetize};
        use crate::media::{FrameCryptor, FrameKind};
        let mut player = TracePlayer::steady(Steady { packets: 260, payload: 1140 }, 30);
        let cryptor = FrameCryptor::from_passphrase("test");
        let d = Descriptor { picture: 1, tl0: 0, temporal: 0, discardable: false };
        let mut sizes = Vec::new();
        for number in 0..60 {
            if number == 31 {
                player.want_key();
            }
            let frame = player.next_frame();
            assert_eq!(frame.key, number == 0 || number == 31);
            let sealed = cryptor.seal(FrameKind::Vp8, &vec![0; frame.size]);
            packetize(&sealed, d, 1140, |payload, _| sizes.push(payload.len()));
        }
        assert_eq!(sizes.len(), 520);
        assert!(sizes.iter().all(|size| (1135..=1140).contains(size)), "{sizes:?}");
    }

    #[test]
    fn every_frame_needs_one_of_a_lower_layer_and_a_key_frame_none() {
        let mut player = TracePlayer::new(160_000, 20, 3);
        let mut layers: Vec<u8> = Vec::new();
        for i in 0..40 {
            if i == 22 {
                player.want_key();
            }
            let frame = player.next_frame();
            assert_eq!(frame.key, i == 0 || i == 22);
            assert_eq!(frame.key, frame.depends == 0);
            if !frame.key {
                let needed = layers[layers.len() - usize::from(frame.depends)];
                assert!(needed < frame.temporal || (needed == 0 && frame.temporal == 0));
            }
            layers.push(frame.temporal);
        }
    }
}
