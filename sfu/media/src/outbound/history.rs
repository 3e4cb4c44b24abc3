//! What was sent under which number: all that is kept per subscriber to answer a NACK. The payloads are in the
//! publisher's [`PacketStore`](crate::inbound::PacketStore).

use std::time::{Duration, Instant};

use crate::command::MediaKind;
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Pt, RtpTime};

/// Packets remembered: as many as the stores keep.
const AUDIO_PACKETS: usize = 256;
const VIDEO_PACKETS: usize = 1024;
/// Packets sent longer ago are not sent again: no receiver waits for them.
pub(super) const MAX_AGE: Duration = Duration::from_secs(3);

/// One packet that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) out: ExtSeq,
    pub(super) stream: u8,
    pub(super) index: ExtSeq,
    pub(super) timestamp: RtpTime,
    pub(super) marker: bool,
    /// Payload type for its retransmission.
    pub(super) rtx_pt: Option<Pt>,
    pub(super) picture_id: Option<u16>,
    pub(super) tl0_pic_idx: Option<u8>,
    /// Frame number and active decode targets in its Dependency Descriptor.
    pub(super) frame: Option<u16>,
    pub(super) active: Option<u32>,
    /// Only the primary block of a RED payload was sent.
    pub(super) red_primary: bool,
    pub(super) at: Instant,
    /// When it was sent again last.
    pub(super) resent: Option<Instant>,
    /// How often it was sent again.
    pub(super) resends: u8,
}

/// Unit of the times in a [`Record`]: 2^32 of them are five days, 2^16 of them more than [`MAX_AGE`].
const TICK_MICROS: u64 = 100;

const PRESENT: u8 = 1;
const HAS_RTX: u8 = 1 << 1;
const HAS_ACTIVE: u8 = 1 << 2;
const RED_PRIMARY: u8 = 1 << 3;
const HAS_PICTURE: u8 = 1 << 4;
const HAS_TL0: u8 = 1 << 5;
const HAS_FRAME: u8 = 1 << 6;
const MARKER: u8 = 1 << 7;

/// A [`Sent`] in 32 bytes: two of them are one cache line, and a forwarded packet touches one. All zero is none.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// Low half of the outgoing index: within a ring it names one packet.
    out: u32,
    /// 48 bits of the stream's index.
    index_low: u32,
    index_high: u16,
    picture_id: u16,
    timestamp: u32,
    active: u32,
    /// Ticks since the history began.
    at: u32,
    frame: u16,
    /// Ticks from `at` until it was sent again last, and one; 0 for never.
    resent: u16,
    tl0_pic_idx: u8,
    rtx_pt: u8,
    flags: u8,
    /// Stream in the low half, times sent again in the high one.
    stream_resends: u8,
}

impl Record {
    fn pack(sent: &Sent, at: u32) -> Self {
        let mut flags = PRESENT;
        let mut flag = |bit: u8, is: bool| flags |= if is { bit } else { 0 };
        flag(HAS_RTX, sent.rtx_pt.is_some());
        flag(HAS_ACTIVE, sent.active.is_some());
        flag(RED_PRIMARY, sent.red_primary);
        flag(HAS_PICTURE, sent.picture_id.is_some());
        flag(HAS_TL0, sent.tl0_pic_idx.is_some());
        flag(HAS_FRAME, sent.frame.is_some());
        flag(MARKER, sent.marker);
        let mut record = Self {
            picture_id: sent.picture_id.unwrap_or_default(),
            timestamp: sent.timestamp.0,
            active: sent.active.unwrap_or_default(),
            at,
            frame: sent.frame.unwrap_or_default(),
            resent: 0,
            tl0_pic_idx: sent.tl0_pic_idx.unwrap_or_default(),
            rtx_pt: sent.rtx_pt.map_or(0, |pt| pt.0),
            flags,
            stream_resends: sent.stream & 0x0f,
            ..Self::default()
        };
        record.set_numbers(sent.out, sent.index);
        record
    }

    fn set_numbers(&mut self, out: ExtSeq, index: ExtSeq) {
        self.out = out.0 as u32;
        self.index_low = index.0 as u32;
        self.index_high = (index.0 >> 32) as u16;
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn is(&self, out: ExtSeq) -> bool {
        self.has(PRESENT) && self.out == out.0 as u32
    }

    fn stream(&self) -> u8 {
        self.stream_resends & 0x0f
    }
}

/// A ring of what was sent, by outgoing index.
#[derive(Debug)]
pub(super) struct History {
    ring: Box<[Record]>,
    highest: Option<ExtSeq>,
    epoch: Instant,
    /// The last time of sending, and what it is in ticks: many packets leave at the same one.
    last: (Instant, u32),
}

impl History {
    pub(super) fn new(kind: MediaKind, now: Instant) -> Self {
        let len = match kind {
            MediaKind::Audio => AUDIO_PACKETS,
            MediaKind::Video => VIDEO_PACKETS,
        };
        const { assert!(AUDIO_PACKETS.is_power_of_two() && VIDEO_PACKETS.is_power_of_two()) };
        Self { ring: vec![Record::default(); len].into(), highest: None, epoch: now, last: (now, 0) }
    }

    /// Notes packets that differ in numbers and marker only: the first, whose numbers those of the others follow, and one for
    /// each further marker.
    pub(super) fn push(&mut self, first: &Sent, markers: impl Iterator<Item = bool>) {
        if self.last.0 != first.at {
            self.last = (first.at, self.ticks(first.at));
        }
        let mut record = Record::pack(first, self.last.1);
        let (mut out, mut index) = (first.out, first.index);
        let place = self.place(out);
        self.ring[place] = record;
        for marker in markers {
            (out, index) = (ExtSeq(out.0 + 1), ExtSeq(index.0 + 1));
            record.set_numbers(out, index);
            record.flags = record.flags & !MARKER | if marker { MARKER } else { 0 };
            let place = self.place(out);
            self.ring[place] = record;
        }
        self.highest = Some(self.highest.map_or(out, |h| h.max(out)));
    }

    /// Whether the next so many packets from `out` on may be sent under their numbers.
    ///
    /// # Errors
    /// [`DropReason::Duplicate`] when one of them was used, [`DropReason::TooOld`] when that is not known any more.
    pub(super) fn check_free(&self, out: ExtSeq, packets: usize) -> Result<(), DropReason> {
        if self.highest.is_none_or(|highest| out > highest) {
            return Ok(());
        }
        for out in (out.0..).take(packets).map(ExtSeq) {
            if self.contains(out) {
                return Err(DropReason::Duplicate);
            }
            if self.is_too_old(out) {
                return Err(DropReason::TooOld);
            }
        }
        Ok(())
    }

    /// Reads where the next packets' records come.
    pub(super) fn touch(&self, packets: usize) -> u64 {
        let next = self.highest.unwrap_or(ExtSeq(0)).0 + 1;
        // Two lie in one cache line.
        let records = (0..packets as u64).step_by(2).map(|ahead| self.place(ExtSeq(next + ahead)));
        records.map(|place| u64::from(self.ring[place].flags)).sum()
    }

    /// Highest index sent.
    pub(super) fn highest(&self) -> Option<ExtSeq> {
        self.highest
    }

    pub(super) fn get(&self, out: ExtSeq) -> Option<Sent> {
        let record = self.ring[self.place(out)];
        let time = |ticks: u64| self.epoch + Duration::from_micros(ticks * TICK_MICROS);
        let at = u64::from(record.at);
        record.is(out).then(|| Sent {
            out,
            stream: record.stream(),
            index: ExtSeq(u64::from(record.index_high) << 32 | u64::from(record.index_low)),
            timestamp: RtpTime(record.timestamp),
            marker: record.has(MARKER),
            rtx_pt: record.has(HAS_RTX).then_some(Pt(record.rtx_pt)),
            picture_id: record.has(HAS_PICTURE).then_some(record.picture_id),
            tl0_pic_idx: record.has(HAS_TL0).then_some(record.tl0_pic_idx),
            frame: record.has(HAS_FRAME).then_some(record.frame),
            active: record.has(HAS_ACTIVE).then_some(record.active),
            red_primary: record.has(RED_PRIMARY),
            at: time(at),
            resent: record.resent.checked_sub(1).map(|after| time(at + u64::from(after))),
            resends: record.stream_resends >> 4,
        })
    }

    /// It is sent again now.
    pub(super) fn note_resent(&mut self, out: ExtSeq, now: Instant) {
        let (place, now) = (self.place(out), self.ticks(now));
        let record = &mut self.ring[place];
        if record.is(out) {
            record.resent =
                u16::try_from(now.saturating_sub(record.at)).unwrap_or(u16::MAX).saturating_add(1);
            let resends = (record.stream_resends >> 4).saturating_add(1).min(0x0f);
            record.stream_resends = resends << 4 | record.stream();
        }
    }

    fn contains(&self, out: ExtSeq) -> bool {
        self.ring[self.place(out)].is(out)
    }

    /// Whether the place of this index was given to newer packets.
    pub(super) fn is_too_old(&self, out: ExtSeq) -> bool {
        self.highest.is_some_and(|highest| out.0 + self.ring.len() as u64 <= highest.0)
    }

    /// Packets of this stream cannot be sent again: its indices mean other packets now. That they were sent stays known.
    pub(super) fn forget(&mut self, stream: u8) {
        for record in self.ring.iter_mut().filter(|record| record.stream() == stream) {
            record.flags &= !HAS_RTX;
        }
    }

    fn place(&self, out: ExtSeq) -> usize {
        // The length is a power of two.
        out.0 as usize & (self.ring.len() - 1)
    }

    fn ticks(&self, at: Instant) -> u32 {
        (at.saturating_duration_since(self.epoch).as_micros() as u64 / TICK_MICROS) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small_and_gives_back_what_was_put_in() {
        assert_eq!(std::mem::size_of::<Record>(), 32);
        let t = crate::sim::clock::epoch();
        let at = t + Duration::from_millis(1500);
        let full = Sent {
            out: ExtSeq(70_000),
            stream: 3,
            index: ExtSeq((1 << 47) + 5),
            timestamp: RtpTime(u32::MAX),
            marker: true,
            rtx_pt: Some(Pt(97)),
            picture_id: Some(0x7fff),
            tl0_pic_idx: Some(255),
            frame: Some(65_535),
            active: Some(u32::MAX),
            red_primary: true,
            at,
            resent: None,
            resends: 0,
        };
        let bare = Sent {
            out: ExtSeq(2),
            stream: 0,
            index: ExtSeq(0),
            timestamp: RtpTime(0),
            marker: false,
            rtx_pt: None,
            picture_id: None,
            tl0_pic_idx: None,
            frame: None,
            active: None,
            red_primary: false,
            ..full
        };
        let mut history = History::new(MediaKind::Video, t);
        assert_eq!((history.get(ExtSeq(0)), history.contains(ExtSeq(0))), (None, false), "empty");
        for sent in [bare, full] {
            history.push(&sent, std::iter::empty());
            assert_eq!(history.get(sent.out), Some(sent));
        }
        assert!(!history.contains(ExtSeq(70_000 - 1024)) && history.is_too_old(ExtSeq(2)));
        for resends in 1..=3u8 {
            // The first one at once.
            let now = at + Duration::from_millis(200) * u32::from(resends - 1);
            history.note_resent(full.out, now);
            assert_eq!(history.get(full.out), Some(Sent { resent: Some(now), resends, ..full }));
        }
        let (next, last) = (ExtSeq(full.out.0 + 1), ExtSeq(full.out.0 + 2));
        assert_eq!(history.check_free(full.out, 1), Err(DropReason::Duplicate));
        assert_eq!(history.check_free(next, 2), Ok(()));
        let after = Sent { out: next, index: ExtSeq(full.index.0 + 1), marker: false, ..full };
        history.push(&after, [true].into_iter());
        assert_eq!(history.get(next), Some(after));
        assert_eq!(
            history.get(last),
            Some(Sent { out: last, index: ExtSeq(after.index.0 + 1), marker: true, ..after })
        );
        assert_eq!(history.check_free(ExtSeq(full.out.0 - 1), 2), Err(DropReason::Duplicate));
        assert_eq!(history.check_free(ExtSeq(3), 1), Err(DropReason::TooOld));
        history.forget(3);
        assert_eq!(history.get(full.out).map(|sent| sent.rtx_pt), Some(None));
        assert!(history.contains(full.out));
    }
}
