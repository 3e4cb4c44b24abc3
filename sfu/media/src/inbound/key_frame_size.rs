//! How large a stream's key frames are.

/// Measures key frames, so that it is known what a path would have to carry before one is asked for.
#[derive(Debug, Default)]
pub struct KeyFrameSize {
    /// Of the last ones in bits, the later ones counting more; 0 before the first.
    usual: u64,
    last: u64,
    /// Bits so far of the one that comes.
    coming: Option<u64>,
}

impl KeyFrameSize {
    /// Notes a packet of so many bytes, in order; `starts` is given with the first of a frame, and says whether it is a key frame.
    pub fn record(&mut self, starts: Option<bool>, bytes: usize) {
        if let Some(key) = starts {
            if let Some(bits) = self.coming.take() {
                self.usual = if self.usual == 0 { bits } else { (3 * self.usual + bits) / 4 };
                self.last = bits;
            }
            self.coming = key.then_some(0);
        }
        if let Some(bits) = &mut self.coming {
            *bits += bytes as u64 * 8;
        }
    }

    /// Bits that one may well take; 0 before the first is complete.
    pub fn likely(&self) -> u64 {
        self.usual.max(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_is_as_large_as_usual_or_as_the_last_one() {
        let mut size = KeyFrameSize::default();
        let mut key_frame = |packets: usize| {
            for packet in 0..packets {
                size.record((packet == 0).then_some(true), 1000);
            }
            let before = size.likely();
            size.record(Some(false), 700);
            size.record(None, 700);
            (before, size.likely())
        };
        assert_eq!(key_frame(4), (0, 32_000), "it counts when it is over");
        assert_eq!(key_frame(2), (32_000, 28_000), "the last one may have been small by chance");
        assert_eq!(key_frame(10), (28_000, 80_000), "or larger than they were");
    }
}
