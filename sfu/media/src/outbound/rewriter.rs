//! The numbers of one outgoing stream: continuous wherever its packets come from.
//!
//! A gap in the input that was lost on the way stays a gap, so that the subscriber asks for it and a late packet fits in.
//! A gap that the relay makes by leaving packets out is closed.
//!
//! Frame numbers of the Dependency Descriptor are an exception: frames that are left out leave gaps there. References are
//! written as distances in these numbers, so closing a gap would mean to rewrite the distances in every frame and every
//! template; and nothing asks for it. A receiver takes the numbers as names: libwebrtc extends them to 64 bits, puts a
//! frame into its buffer under that number with those of its references, and decodes it once they are decoded, whatever
//! numbers lie between. (Encoders leave gaps as well, by dropping frames.) What it does not bear is a number that is not
//! above those of before: a frame numbered below the last decoded one is dropped, and so is a structure older than the
//! one it has. So at each switch, also the one back to the same stream after a pause, in which the sixteen bits may have
//! gone half around, the new stream's numbers begin above all that were sent.

use std::time::{Duration, Instant};

use super::MAX_STREAMS;
use super::range_map::{Offsets, RangeMap};
use crate::command::Codec;
use crate::ids::{ExtSeq, RtpTime};
use crate::inbound::{PacketMeta, SenderReport};

/// A timestamp computed from sender reports counts when it is so near to the one by the time that went by. Reports are
/// exact to some milliseconds; what is further off belongs to another timeline.
const MAX_SKEW: Duration = Duration::from_secs(2);
/// Frame numbers may go so far ahead in one step, well under half of their sixteen bits.
const MAX_FRAME_STEP: u64 = 1 << 14;
/// Picture ids have 15 bits.
const PICTURE_MASK: u16 = 0x7fff;

/// What a packet goes out under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) out: ExtSeq,
    pub(super) timestamp: RtpTime,
    pub(super) picture_id: Option<u16>,
    pub(super) tl0_pic_idx: Option<u8>,
    /// Frame number of the Dependency Descriptor.
    pub(super) frame: Option<u16>,
}

#[derive(Debug)]
pub(super) struct Rewriter {
    map: RangeMap,
    current: Option<Current>,
    /// The number after the highest given out or left as a gap.
    next: u64,
    last: Option<Last>,
    reports: [Option<SenderReport>; MAX_STREAMS],
}

#[derive(Debug, Clone, Copy)]
struct Current {
    stream: u8,
    /// Highest index dealt with.
    highest: u64,
    offsets: Offsets,
    /// Picture id of the last packet as it came in, forwarded or left out.
    picture: Option<u16>,
}

/// The last packet in order that went out.
#[derive(Debug, Clone, Copy)]
struct Last {
    stream: u8,
    timestamp: RtpTime,
    /// Timestamp offset it had.
    offset: u32,
    received: Instant,
    picture: Option<u16>,
    tl0: Option<u8>,
    /// Highest frame number that went out, extended.
    frame: Option<u64>,
}

impl Rewriter {
    /// The first packet gets the number `first`.
    pub(super) fn new(first: u16) -> Self {
        Self {
            map: RangeMap::new(),
            current: None,
            next: u64::from(first),
            last: None,
            reports: [None; MAX_STREAMS],
        }
    }

    /// Reads what each packet needs.
    pub(super) fn touch(&self) -> u64 {
        self.next + self.current.map_or(0, |c| c.highest) + self.last.map_or(0, |l| u64::from(l.timestamp.0))
    }

    pub(super) fn set_report(&mut self, stream: u8, report: SenderReport) {
        if let Some(slot) = self.reports.get_mut(usize::from(stream)) {
            *slot = Some(report);
        }
    }

    pub(super) fn report(&self, stream: u8) -> Option<SenderReport> {
        self.reports.get(usize::from(stream)).copied().flatten()
    }

    /// What is added to timestamps of the stream being forwarded.
    pub(super) fn timestamp_offset(&self) -> Option<(u8, u32)> {
        self.current.map(|c| (c.stream, c.offsets.timestamp))
    }

    /// Timestamp of the last packet that went out in order, and when it had arrived.
    pub(super) fn last_timestamp(&self) -> Option<(RtpTime, Instant)> {
        self.last.map(|l| (l.timestamp, l.received))
    }

    /// Another stream takes the place of this one.
    pub(super) fn forget(&mut self, stream: u8) {
        self.map.forget(stream);
        if let Some(slot) = self.reports.get_mut(usize::from(stream)) {
            *slot = None;
        }
        if self.current.is_some_and(|c| c.stream == stream) {
            self.current = None;
        }
        if let Some(last) = self.last.as_mut().filter(|l| l.stream == stream) {
            // Its offset says nothing about the new stream.
            last.stream = u8::MAX;
        }
    }

    /// Goes on with the stream of this packet, which gets the next number.
    pub(super) fn switch(&mut self, meta: &PacketMeta) -> Ids {
        if let Some(current) = self.current {
            self.map.close(current.highest + 1);
        }
        let timestamp = self.align(meta);
        let after = |last: Option<u16>, new: Option<u16>| match (last, new) {
            (Some(last), Some(new)) => last.wrapping_add(1).wrapping_sub(new),
            _ => 0,
        };
        let tl0 = self.last.and_then(|l| l.tl0);
        let offsets = Offsets {
            seq: self.next.wrapping_sub(meta.index.0),
            timestamp: timestamp.0.wrapping_sub(meta.timestamp.0),
            picture: after(self.last.and_then(|l| l.picture), meta.info.picture_id) & PICTURE_MASK,
            tl0: after(tl0.map(u16::from), meta.info.tl0_pic_idx.map(u16::from)) as u8,
            frame: match (self.last.and_then(|l| l.frame), &meta.frame) {
                (Some(last), Some(new)) => (last + 1).wrapping_sub(new.frame_number),
                _ => 0,
            },
        };
        self.map.open(meta.stream, meta.index.0, offsets);
        self.current = Some(Current {
            stream: meta.stream,
            highest: meta.index.0,
            offsets,
            picture: meta.info.picture_id,
        });
        let ids = ids(meta, offsets);
        self.went_out(meta, offsets, ids);
        ids
    }

    /// The numbers of a packet of the current stream, or of a late one of any; `None` when they are not known.
    pub(super) fn forward(&mut self, meta: &PacketMeta) -> Option<Ids> {
        let ahead = |c: &&mut Current| c.stream == meta.stream && meta.index.0 > c.highest;
        let Some(current) = self.current.as_mut().filter(ahead) else {
            return self.map.find(meta.stream, meta.index.0).map(|offsets| ids(meta, offsets));
        };
        if let (Some(before), Some(picture)) = (current.picture, meta.info.picture_id) {
            // Picture ids of seven bits start over at 128, where fifteen bits go on.
            if before <= 0x7f && picture < before {
                self.map.close(meta.index.0);
                current.offsets.picture = current.offsets.picture.wrapping_add(0x80) & PICTURE_MASK;
                self.map.open(meta.stream, meta.index.0, current.offsets);
            }
        }
        if let (Some(frame), Some(last)) = (&meta.frame, self.last.and_then(|l| l.frame)) {
            let number = frame.frame_number.wrapping_add(current.offsets.frame);
            // An encoder that was restarted, or a long pause of it: sixteen bits would show it as the past.
            if frame.key_frame && number.wrapping_sub(last) > MAX_FRAME_STEP {
                self.map.close(meta.index.0);
                current.offsets.frame = (last + 1).wrapping_sub(frame.frame_number);
                self.map.open(meta.stream, meta.index.0, current.offsets);
            }
        }
        current.picture = meta.info.picture_id.or(current.picture);
        current.highest = meta.index.0;
        let offsets = current.offsets;
        let ids = ids(meta, offsets);
        self.went_out(meta, offsets, ids);
        Some(ids)
    }

    /// Whether a packet goes before none of its stream that was dealt with.
    pub(super) fn is_ahead(&self, meta: &PacketMeta) -> bool {
        self.current.is_none_or(|current| current.stream != meta.stream || meta.index.0 > current.highest)
    }

    /// `first`, which got its numbers last, begins a [run](super::runs) that ends with `last`: the others' numbers follow.
    pub(super) fn extend(&mut self, first: &PacketMeta, last: &PacketMeta) {
        if let (Some(current), Some(sent)) = (self.current.as_mut(), self.last.as_mut())
            && (current.stream, current.highest) == (first.stream, first.index.0)
        {
            current.highest = last.index.0;
            self.next = last.index.0.wrapping_add(current.offsets.seq) + 1;
            sent.received = last.received;
        }
    }

    /// Closes the gap that a packet of the current stream leaves. One that is late has its gap already.
    pub(super) fn leave_out(&mut self, meta: &PacketMeta) {
        if !self.skip(meta.stream, meta.index) || meta.codec != Codec::Vp8 {
            return;
        }
        // VP8 receivers take a gap in the picture ids for lost frames. In VP9 the ids are what references are made by.
        let Some(current) = self.current.as_mut() else { return };
        if let Some(picture) = meta.info.picture_id
            && current.picture != Some(picture)
        {
            current.offsets.picture = current.offsets.picture.wrapping_sub(1) & PICTURE_MASK;
            if current.picture.is_some_and(|before| before <= 0x7f && picture < before) {
                current.offsets.picture = current.offsets.picture.wrapping_add(0x80) & PICTURE_MASK;
            }
            current.picture = Some(picture);
            let (stream, first, offsets) = (current.stream, current.highest + 1, current.offsets);
            self.map.close(first);
            self.map.open(stream, first, offsets);
        }
    }

    /// Closes the gap of a packet that carries no frame. Returns whether there was one to close.
    pub(super) fn skip(&mut self, stream: u8, index: ExtSeq) -> bool {
        let Some(current) = self.current.as_mut() else { return false };
        if current.stream != stream || index.0 <= current.highest {
            return false;
        }
        // What was lost before this packet keeps its numbers.
        self.map.close(index.0);
        self.next = index.0.wrapping_add(current.offsets.seq);
        current.highest = index.0;
        current.offsets.seq = current.offsets.seq.wrapping_sub(1);
        let offsets = current.offsets;
        self.map.open(stream, index.0 + 1, offsets);
        true
    }

    fn went_out(&mut self, meta: &PacketMeta, offsets: Offsets, ids: Ids) {
        self.next = ids.out.0 + 1;
        let before = self.last;
        let frame = meta.frame.map(|frame| frame.frame_number.wrapping_add(offsets.frame));
        self.last = Some(Last {
            stream: meta.stream,
            timestamp: ids.timestamp,
            offset: offsets.timestamp,
            received: meta.received,
            picture: ids.picture_id.or(before.and_then(|l| l.picture)),
            tl0: ids.tl0_pic_idx.or(before.and_then(|l| l.tl0)),
            frame: frame.max(before.and_then(|l| l.frame)),
        });
    }

    /// The timestamp for the first packet of a stream that takes over: where it lies on the timeline of what went out
    /// before, and after all of that.
    fn align(&self, meta: &PacketMeta) -> RtpTime {
        let Some(last) = self.last else { return meta.timestamp };
        let rate = u64::from(meta.clock_rate);
        let ticks = |d: Duration| (d.as_nanos() * u128::from(rate) / 1_000_000_000) as u32;
        let by_time =
            last.timestamp.0.wrapping_add(ticks(meta.received.saturating_duration_since(last.received)));
        let exact = if last.stream == meta.stream {
            Some(meta.timestamp.0.wrapping_add(last.offset))
        } else {
            self.by_reports(meta, last)
        };
        let near = |t: &u32| (t.wrapping_sub(by_time) as i32).unsigned_abs() <= ticks(MAX_SKEW);
        let timestamp = RtpTime(exact.filter(near).unwrap_or(by_time));
        if timestamp.since(last.timestamp) > 0 {
            timestamp
        } else {
            RtpTime(last.timestamp.0.wrapping_add(1))
        }
    }

    /// Both streams' sender reports tie their timestamps to one wall clock.
    fn by_reports(&self, meta: &PacketMeta, last: Last) -> Option<u32> {
        let (old, new) = (self.report(last.stream)?, self.report(meta.stream)?);
        let rate = i128::from(meta.clock_rate);
        // From the old report to this packet, in ticks: across the reports, then along the new stream.
        let across = i128::from(new.ntp.wrapping_sub(old.ntp) as i64) * rate;
        let ticks = (across + (1 << 31)) >> 32;
        let along = i128::from(meta.timestamp.since(new.rtp));
        Some(old.rtp.0.wrapping_add((ticks + along) as u32).wrapping_add(last.offset))
    }
}

fn ids(meta: &PacketMeta, offsets: Offsets) -> Ids {
    Ids {
        out: ExtSeq(meta.index.0.wrapping_add(offsets.seq)),
        timestamp: RtpTime(meta.timestamp.0.wrapping_add(offsets.timestamp)),
        picture_id: meta.info.picture_id.map(|id| id.wrapping_add(offsets.picture) & PICTURE_MASK),
        tl0_pic_idx: meta.info.tl0_pic_idx.map(|idx| idx.wrapping_add(offsets.tl0)),
        frame: meta.frame.map(|frame| frame.frame_number.wrapping_add(offsets.frame) as u16),
    }
}

#[cfg(test)]
mod tests;
