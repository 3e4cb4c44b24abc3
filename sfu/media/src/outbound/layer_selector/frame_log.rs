//! What became of a stream's last frames.

/// Frames remembered: nearly six seconds of 30 pictures a second in three layers, longer than any frame is waited for.
const FRAMES: u64 = 512;
/// Two bits for each.
const PER_WORD: u64 = 32;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing of it came, or it is forgotten.
    Unknown,
    Forwarded,
    Dropped,
}

/// The fates of frames by number. Those from before the log began were not sent, so they count as dropped.
#[derive(Debug, Clone)]
pub(super) struct FrameLog {
    first: u64,
    newest: u64,
    words: [u64; (FRAMES / PER_WORD) as usize],
}

impl FrameLog {
    /// A log that begins with this frame.
    pub(super) fn new(first: u64) -> Self {
        Self { first, newest: first, words: [0; (FRAMES / PER_WORD) as usize] }
    }

    /// The newest frame that has a fate, or the first one.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn get(&self, frame: u64) -> Fate {
        if frame < self.first {
            return Fate::Dropped;
        }
        if frame > self.newest || self.newest - frame >= FRAMES {
            return Fate::Unknown;
        }
        let (word, shift) = place(frame);
        match self.words[word] >> shift & 3 {
            1 => Fate::Forwarded,
            2 => Fate::Dropped,
            _ => Fate::Unknown,
        }
    }

    pub(super) fn set(&mut self, frame: u64, fate: Fate) {
        if frame < self.first || frame + FRAMES <= self.newest {
            return;
        }
        // The places of those between belong to older frames so far.
        let oldest_new = (self.newest + 1).max(frame.saturating_sub(FRAMES - 1));
        for between in oldest_new..frame {
            self.put(between, 0);
        }
        self.newest = self.newest.max(frame);
        self.put(frame, fate as u64);
    }

    fn put(&mut self, frame: u64, bits: u64) {
        let (word, shift) = place(frame);
        self.words[word] = self.words[word] & !(3 << shift) | bits << shift;
    }
}

fn place(frame: u64) -> (usize, u64) {
    let place = frame % FRAMES;
    ((place / PER_WORD) as usize, place % PER_WORD * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_frames() {
        let mut log = FrameLog::new(1000);
        assert_eq!(
            (log.get(999), log.get(1000), log.get(1001)),
            (Fate::Dropped, Fate::Unknown, Fate::Unknown)
        );
        log.set(1000, Fate::Forwarded);
        log.set(1003, Fate::Dropped);
        log.set(1002, Fate::Forwarded);
        let fates: Vec<_> = (1000..1005).map(|n| log.get(n)).collect();
        let want = [Fate::Forwarded, Fate::Unknown, Fate::Forwarded, Fate::Dropped, Fate::Unknown];
        assert_eq!(fates, want);
        // Its place is another frame's now.
        log.set(1511, Fate::Forwarded);
        assert_eq!(log.get(1000), Fate::Forwarded);
        log.set(1512, Fate::Dropped);
        assert_eq!(
            (log.get(1000), log.get(1511), log.get(1512)),
            (Fate::Unknown, Fate::Forwarded, Fate::Dropped)
        );
        log.set(1000, Fate::Forwarded);
        assert_eq!((log.get(1512), log.newest()), (Fate::Dropped, 1512));
        // A jump forgets everything between.
        log.set(9_000, Fate::Forwarded);
        assert!((8_000..9_000).all(|n| log.get(n) == Fate::Unknown));
    }
}
