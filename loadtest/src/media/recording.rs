//! Recorded VP8 and Opus frames in IVF files, played in a loop.

use super::trace::TraceFrame;
use crate::scenario::Layer;

/// What [`Recording::video`] shows.
pub(crate) static LAYERS: &[Layer] = &[Layer { width: 320, height: 180, bitrate: 160_000, fps: 15 }];

/// A recorded stream.
#[derive(Debug)]
pub(crate) struct Recording {
    frames: Vec<&'static [u8]>,
    next: usize,
}

static VIDEO: &[u8] = include_bytes!("../../media/pattern.vp8.ivf");
static AUDIO: &[u8] = include_bytes!("../../media/tone.opus.ivf");

impl Recording {
    /// 320x180 test pattern, 15 frames a second, one key frame in four seconds.
    pub(crate) fn video() -> Self {
        Self { frames: ivf_frames(VIDEO), next: 0 }
    }

    /// A 440 Hz tone in packets of 20 ms.
    pub(crate) fn audio() -> Self {
        Self { frames: ivf_frames(AUDIO), next: 0 }
    }

    /// The next frame; after the last comes the first, which is a key frame.
    pub(crate) fn next_frame(&mut self) -> &'static [u8] {
        let frame = self.frames[self.next];
        self.next = (self.next + 1) % self.frames.len();
        frame
    }

    /// The same, with what a sender of VP8 has to say about it.
    pub(crate) fn next_picture(&mut self) -> (TraceFrame, &'static [u8]) {
        let bytes = self.next_frame();
        // RFC 6386 section 9.1: the lowest bit of the frame tag is 0 in key frames.
        let key = bytes.first().is_some_and(|tag| tag & 1 == 0);
        (TraceFrame { key, temporal: 0, depends: u16::from(!key), size: bytes.len() }, bytes)
    }

    /// Goes on with the key frame at the start: what a key-frame request asks for.
    pub(crate) fn restart(&mut self) {
        self.next = 0;
    }
}

/// IVF: a header of 32 bytes, then per frame a length (u32 LE), a timestamp (u64 LE) and the bytes.
fn ivf_frames(file: &'static [u8]) -> Vec<&'static [u8]> {
    let mut frames = Vec::new();
    let mut rest = &file[32..];
    while let Some((header, body)) = rest.split_at_checked(12) {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let (frame, after) = body.split_at(length);
        frames.push(frame);
        rest = after;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_are_whole() {
        let video = Recording::video();
        assert_eq!(video.frames.len(), 60);
        assert_eq!(video.frames[0][0] & 1, 0, "the first frame is a key frame");
        assert!(video.frames[1..].iter().all(|f| f[0] & 1 == 1));
        assert_eq!(Recording::audio().frames.len(), 101);
    }
}
