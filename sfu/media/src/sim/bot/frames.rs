//! Synthetic encoded frames: each says which one it is, so that a receiver can check every byte.
//!
//! They look as LiveKit's cryptor leaves frames: some clear bytes, opaque ones, then IV, IV length and key index.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// What a source sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// One packet per frame.
    Opus,
    /// Frames of several packets with the descriptor of RFC 7741.
    Vp8,
}

/// Names one frame of one layer of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId {
    /// Its source.
    pub source: u32,
    /// Its simulcast layer.
    pub layer: u8,
    /// Counts from 0.
    pub number: u32,
}

const ID_LEN: usize = 13;
/// IV, its length, key index.
const TRAILER_LEN: usize = 14;

/// Clear bytes at the start of a frame: what LiveKit's cryptor leaves.
fn clear_len(coding: Coding, key: bool) -> usize {
    match (coding, key) {
        (Coding::Opus, _) => 1,
        (Coding::Vp8, true) => 10,
        (Coding::Vp8, false) => 3,
    }
}

/// The bytes of a frame, `len` or as few more as it needs.
pub(super) fn build(coding: Coding, id: FrameId, key: bool, len: usize, encrypted: bool) -> Vec<u8> {
    let mut frame = match (coding, key) {
        (Coding::Opus, _) => vec![0x78],
        // Frame tag with the inverse key-frame bit, start code, 640x360 (RFC 6386 section 9.1).
        (Coding::Vp8, true) => vec![0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01],
        (Coding::Vp8, false) => vec![0x11, 0x02, 0x00],
    };
    let trailer = if encrypted { TRAILER_LEN } else { 0 };
    let len = len.max(frame.len() + ID_LEN + trailer);
    frame.extend(id.source.to_be_bytes());
    frame.push(id.layer);
    frame.extend(id.number.to_be_bytes());
    frame.extend((len as u32).to_be_bytes());
    let mut rng = SmallRng::seed_from_u64(
        u64::from(id.source) << 40 ^ u64::from(id.layer) << 32 ^ u64::from(id.number),
    );
    let opaque = frame.len();
    frame.resize(len, 0);
    rng.fill(&mut frame[opaque..]);
    if encrypted {
        frame[len - 2..].copy_from_slice(&[12, 0]);
    } else {
        // Whatever chance drew, it is no trailer.
        frame[len - 2..].copy_from_slice(&[0xff, 0xff]);
    }
    frame
}

/// Which frame this is, if every byte is as it was sent.
pub(super) fn verify(coding: Coding, frame: &[u8]) -> Option<FrameId> {
    let key = coding == Coding::Vp8 && frame.first()? & 1 == 0;
    let clear = clear_len(coding, key);
    let at = |i: usize| Some(u32::from_be_bytes(frame.get(i..i + 4)?.try_into().ok()?));
    let id = FrameId { source: at(clear)?, layer: *frame.get(clear + 4)?, number: at(clear + 5)? };
    let len = at(clear + 9)? as usize;
    let encrypted = frame.ends_with(&[12, 0]);
    (len == frame.len() && build(coding, id, key, len, encrypted) == frame).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_names_itself_and_any_changed_byte_shows() {
        for (coding, key) in [(Coding::Opus, true), (Coding::Vp8, true), (Coding::Vp8, false)] {
            for encrypted in [true, false] {
                let id = FrameId { source: 3, layer: 2, number: 77 };
                let frame = build(coding, id, key, 300, encrypted);
                assert_eq!(frame.len(), 300);
                assert_eq!(verify(coding, &frame), Some(id));
                for i in 0..frame.len() {
                    let mut bad = frame.clone();
                    bad[i] ^= 0x40;
                    assert_ne!(verify(coding, &bad), Some(id), "byte {i}");
                }
                assert_ne!(verify(coding, &frame[..299]), Some(id));
            }
        }
    }
}
