//! Media to publish: recorded VP8 and Opus frames in IVF files, played in a loop.

/// A recorded stream.
#[derive(Debug)]
pub(crate) struct Source {
    frames: Vec<&'static [u8]>,
    next: usize,
}

static VIDEO: &[u8] = include_bytes!("../../media/pattern.vp8.ivf");
static AUDIO: &[u8] = include_bytes!("../../media/tone.opus.ivf");

impl Source {
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
        let video = Source::video();
        assert_eq!(video.frames.len(), 60);
        assert_eq!(video.frames[0][0] & 1, 0, "the first frame is a key frame");
        assert!(video.frames[1..].iter().all(|f| f[0] & 1 == 1));
        assert_eq!(Source::audio().frames.len(), 101);
    }
}
