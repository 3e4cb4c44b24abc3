//! Which input packets got which offsets, for packets that come late.

use std::collections::VecDeque;

/// Ranges kept. A stream of which every second frame is dropped needs one per frame, thus has seconds of memory.
const MAX_RANGES: usize = 256;

/// Ranges that there is room for from the start. One is enough while all layers are forwarded; room for more comes when
/// it is needed, and stays.
const FIRST_RANGES: usize = 4;

/// What is added to a packet's numbers, each modulo its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offsets {
    /// To the extended sequence number, wrapping.
    pub(super) seq: u64,
    /// To the timestamp.
    pub(super) timestamp: u32,
    /// To the picture id, 15 bits.
    pub(super) picture: u16,
    /// To TL0PICIDX.
    pub(super) tl0: u8,
    /// To the extended frame number of the Dependency Descriptor, wrapping.
    pub(super) frame: u64,
}

/// Consecutive packets of one stream that have the same offsets.
#[derive(Debug, Clone, Copy)]
struct Range {
    stream: u8,
    first: u64,
    /// First index behind it; `u64::MAX` while it is the last one.
    end: u64,
    offsets: Offsets,
}

/// Ranges of input indices with their offsets, in the order in which they were opened. What lies between two ranges was
/// dropped.
#[derive(Debug)]
pub(super) struct RangeMap {
    ranges: VecDeque<Range>,
}

impl RangeMap {
    pub(super) fn new() -> Self {
        Self { ranges: VecDeque::with_capacity(FIRST_RANGES) }
    }

    /// From `first` on, packets of `stream` get `offsets`. The range before must have been closed, if there was one.
    pub(super) fn open(&mut self, stream: u8, first: u64, offsets: Offsets) {
        match self.ranges.back_mut() {
            // Nothing came between two drops.
            Some(last) if last.stream == stream && last.first >= last.end => {
                *last = Range { stream, first, end: u64::MAX, offsets };
            }
            _ => {
                if self.ranges.len() == MAX_RANGES {
                    self.ranges.pop_front();
                }
                self.ranges.push_back(Range { stream, first, end: u64::MAX, offsets });
            }
        }
    }

    /// The last range ends before `end`.
    pub(super) fn close(&mut self, end: u64) {
        if let Some(last) = self.ranges.back_mut() {
            last.end = last.end.min(end);
        }
    }

    /// The offsets of a packet; `None` for what was dropped, never selected, or is forgotten.
    pub(super) fn find(&self, stream: u8, index: u64) -> Option<Offsets> {
        let mut ranges = self.ranges.iter().rev().filter(|r| r.stream == stream);
        ranges.find(|r| r.first <= index).filter(|r| index < r.end).map(|r| r.offsets)
    }

    /// Forgets a stream's ranges: its indices mean other packets now.
    pub(super) fn forget(&mut self, stream: u8) {
        self.ranges.retain(|r| r.stream != stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(seq: u64) -> Offsets {
        Offsets { seq, ..Offsets::default() }
    }

    #[test]
    fn finds_late_packets_and_not_dropped_ones() {
        let mut map = RangeMap::new();
        map.open(0, 10, seq(1));
        map.close(15);
        map.open(0, 16, seq(2));
        // 16 was dropped too: the empty range gives way.
        map.close(16);
        map.open(0, 17, seq(3));
        map.close(20);
        map.open(1, 5, seq(4));
        for (stream, index, want) in [
            (0, 9, None),
            (0, 10, Some(1)),
            (0, 14, Some(1)),
            (0, 15, None),
            (0, 16, None),
            (0, 17, Some(3)),
            (0, 20, None),
            (1, 4, None),
            (1, 1 << 40, Some(4)),
            (2, 5, None),
        ] {
            assert_eq!(map.find(stream, index).map(|o| o.seq), want, "{stream} {index}");
        }
        map.forget(0);
        assert_eq!(map.find(0, 17), None);
        assert_eq!(map.ranges.len(), 1);
    }

    #[test]
    fn is_bounded() {
        let mut map = RangeMap::new();
        for i in 0..10_000u64 {
            map.open(0, i * 2, seq(i));
            map.close(i * 2 + 1);
        }
        assert_eq!(map.ranges.len(), MAX_RANGES);
        assert_eq!(map.find(0, 9_999 * 2), Some(seq(9_999)));
        assert_eq!(map.find(0, 2), None);
    }
}
