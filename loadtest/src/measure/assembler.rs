//! Frames from packets that come in any order, and what of them never comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::media::vp8;

/// More numbers than this are never open; a jump beyond it starts anew.
const MAX_OPEN: u64 = 4096;

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, as they came out of the packets.
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
enum Slot {
    /// Not here. Since when that is known.
    Missing(Instant),
    Here {
        payload: Arc<[u8]>,
        at: Instant,
        starts: bool,
        ends: bool,
    },
    /// Here and used.
    Done,
}

/// The packets of one stream, by their extended sequence number.
#[derive(Debug)]
pub struct Assembler {
    /// VP8; else each packet is a frame.
    video: bool,
    first: u64,
    slots: VecDeque<Slot>,
}

impl Assembler {
    /// For VP8, or for Opus.
    pub fn new(video: bool) -> Self {
        Self { video, first: 0, slots: VecDeque::new() }
    }

    /// Takes a packet; returns the frame that it completes. `fresh` says whether no later packet was here before.
    pub fn push(&mut self, seq: u64, marker: bool, payload: &Arc<[u8]>, now: Instant) -> Option<Frame> {
        let starts = !self.video || vp8::depacketize(payload).is_some_and(|(starts, _)| starts);
        let here = Slot::Here { payload: payload.clone(), at: now, starts, ends: !self.video || marker };
        if self.slots.is_empty() && self.first == 0 {
            self.first = seq;
        }
        let end = self.first + self.slots.len() as u64;
        if seq < self.first {
            return None; // given up already
        }
        if seq >= self.first + MAX_OPEN {
            self.slots.clear();
            self.first = seq;
            self.slots.push_back(here);
        } else if seq >= end {
            self.slots.extend((end..seq).map(|_| Slot::Missing(now)));
            self.slots.push_back(here);
        } else {
            let slot = &mut self.slots[(seq - self.first) as usize];
            if !matches!(slot, Slot::Missing(_)) {
                return None;
            }
            *slot = here;
        }
        let frame = self.complete((seq - self.first) as usize);
        while let Some(Slot::Done) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        frame
    }

    /// The frame around a packet, if all of it is here.
    fn complete(&mut self, at: usize) -> Option<Frame> {
        let part = |slot: &Slot| match slot {
            Slot::Here { starts, ends, .. } => Some((*starts, *ends)),
            _ => None,
        };
        let mut last = at;
        while !part(self.slots.get(last)?)?.1 {
            last += 1;
        }
        let mut first = at;
        while !part(self.slots.get(first)?)?.0 {
            first = first.checked_sub(1)?;
        }
        let mut bytes = Vec::new();
        for slot in self.slots.range_mut(first..=last) {
            if let Slot::Here { payload, .. } = std::mem::replace(slot, Slot::Done) {
                let body = if self.video { vp8::depacketize(&payload)?.1 } else { &payload[..] };
                bytes.extend_from_slice(body);
            }
        }
        Some(Frame { bytes })
    }

    /// Gives up what was missed before `before`; tells of each packet given up when it was missed.
    pub fn give_up(&mut self, before: Instant, mut lost: impl FnMut(Instant)) {
        while let Some(front) = self.slots.front() {
            match front {
                Slot::Missing(at) if *at < before => lost(*at),
                // Part of a frame that never became whole.
                Slot::Here { at, .. } if *at < before => {}
                Slot::Done => {}
                _ => return,
            }
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// Whether a packet has been missing for this long.
    pub fn misses(&self, now: Instant, longer_than: Duration) -> bool {
        self.slots
            .iter()
            .any(|slot| matches!(slot, Slot::Missing(at) if now.saturating_duration_since(*at) > longer_than))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::vp8::{Descriptor, MAX_PAYLOAD, packetize};

    fn packets(frame: u8, len: usize) -> Vec<(Arc<[u8]>, bool)> {
        let d = Descriptor { picture: u16::from(frame), tl0: 0, temporal: 0, discardable: false };
        let mut packets = Vec::new();
        packetize(&vec![frame; len], d, MAX_PAYLOAD, |payload, last| packets.push((payload, last)));
        packets
    }

    #[test]
    fn frames_come_out_whole_in_any_order() {
        let now = Instant::now();
        let mut all: Vec<_> =
            [(1, 3000), (2, 10), (3, 2000)].iter().flat_map(|(f, l)| packets(*f, *l)).collect();
        let total = all.len();
        let mut numbered: Vec<_> = all.drain(..).enumerate().collect();
        // The third packet of the first frame comes last.
        let late = numbered.remove(2);
        numbered.push(late);
        let mut assembler = Assembler::new(true);
        let mut frames = Vec::new();
        for (i, (payload, marker)) in &numbered {
            frames.extend(assembler.push(65_530 + *i as u64, *marker, payload, now));
        }
        let firsts: Vec<_> = frames.iter().map(|f| (f.bytes[0], f.bytes.len())).collect();
        assert_eq!(firsts, [(2, 10), (3, 2000), (1, 3000)]);
        assert!(assembler.slots.is_empty());
        assert_eq!(assembler.first, 65_530 + total as u64);
    }

    #[test]
    fn what_never_comes_is_counted_once_and_what_comes_twice_or_late_is_not_taken() {
        let start = Instant::now();
        let mut assembler = Assembler::new(false);
        let payload: Arc<[u8]> = Arc::from(&[1u8, 2, 3][..]);
        for seq in [100, 101, 104, 103, 105] {
            assert!(assembler.push(seq, false, &payload, start).is_some());
        }
        assert!(assembler.push(103, false, &payload, start).is_none());
        let mut lost = 0;
        assembler.give_up(start, |_| lost += 1);
        assert_eq!(lost, 0);
        assert!(assembler.misses(start + Duration::from_millis(300), Duration::from_millis(200)));
        assembler.give_up(start + Duration::from_secs(1), |_| lost += 1);
        assert_eq!(lost, 1);
        assert!(assembler.push(102, false, &payload, start).is_none());
        assert!(assembler.push(106, false, &payload, start).is_some());
        // A jump that no loss explains.
        assert!(assembler.push(1_000_000, false, &payload, start).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_packets_in_any_order_are_taken(
            packets in proptest::collection::vec((0u64..200_000, proptest::bool::ANY, proptest::num::u8::ANY), 0..300)
        ) {
            let now = Instant::now();
            let mut assembler = Assembler::new(true);
            let mut lost = 0u64;
            for (seq, marker, first) in packets {
                // Mostly near each other, at times far away.
                let seq = if seq % 50 == 0 { seq } else { 70_000 + seq % 100 };
                let _ = assembler.push(seq, marker, &Arc::from(&[first, 1, 2, 3][..]), now);
                proptest::prop_assert!(assembler.slots.len() as u64 <= MAX_OPEN);
            }
            assembler.give_up(now + Duration::from_secs(1), |_| lost += 1);
            proptest::prop_assert!(assembler.slots.is_empty() && lost <= MAX_OPEN);
        }
    }
}
