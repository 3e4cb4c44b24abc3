//! The relay's own net against plaintext media, behind the endpoints' encryption.
//!
//! A cryptor works on whole frames before packetisation and leaves its mark at a frame's end, so only the frame's last
//! packet shows whether it ran:
//!
//! ```text
//! | clear bytes | ciphertext | tag (16) | IV (12) | 12 | key index |                 LiveKit's format
//! | ........................................................... | TLVs | len ^ 0xff | "LKTS" |   with frame metadata
//! ```
//!
//! H264 frames are escaped against start codes after encryption. That leaves the last two bytes as they are: 12 needs no
//! escape, and a byte after it neither. Browsers and native SDKs start the IV with the stream's SSRC.
//!
//! So a frame's packets wait in the store until its last packet passes, and are refused together if it does not.
//! Frames that have packets waiting leave in order; a gap in which nothing is known to wait delays nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::PacketMeta;
use super::store::{PacketStore, State};
use crate::command::{Codec, MediaKind};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, RtpTime, Ssrc};

/// Frames that wait at most.
const MAX_FRAMES: usize = 32;
/// Packets that wait at most.
const MAX_PACKETS: usize = 512;
/// A frame waits this long for its last packet.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Frames whose verdict is remembered for late packets: about two seconds.
const REMEMBERED: usize = 64;

/// Length byte of the trailer: the IV of AES-GCM.
const IV_LEN: u8 = 12;
/// Key indices are below the size of the SDKs' key ring.
const KEY_RING: u8 = 16;
/// Bytes that encryption adds to a frame: tag, IV, IV length and key index.
const OVERHEAD: usize = 16 + IV_LEN as usize + 2;
/// Two bytes of plaintext look like a trailer once in 4096 frames. So after a frame without one, this many in a row must
/// have one before any passes again, unless the IV names the SSRC.
const PROBATION: u8 = 8;
/// End of LiveKit's frame metadata, which stands behind the trailer.
const METADATA_MAGIC: &[u8; 4] = b"LKTS";

/// Holds a stream's frames until their last packet shows the cryptor's trailer.
#[derive(Debug)]
pub struct FrameGate {
    ssrc: Ssrc,
    kind: MediaKind,
    required: bool,
    /// Frames with packets that wait, by their first packet.
    waiting: VecDeque<Frame>,
    /// Verdicts on the frames that left last, newest at the back.
    left: VecDeque<Frame>,
    /// No frame that left ends behind this. Mostly packets are of newer ones, and all that is remembered need not be read.
    left_end: u64,
    packets: usize,
    probation: u8,
    dropped: [u64; 2],
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    timestamp: RtpTime,
    spatial: u8,
    /// Lowest index seen of it.
    first: u64,
    /// Highest index seen of it; once there is a verdict, its last packet.
    last: u64,
    packets: usize,
    since: Instant,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Open,
    Passed,
    Refused(DropReason),
}

enum Trailer {
    /// Shows our SSRC in its IV.
    Sure,
    /// Has the right two bytes.
    Likely,
    Missing,
    /// It goes back into a packet that is not here.
    Unknown,
}

impl Frame {
    fn is_of(&self, meta: &PacketMeta) -> bool {
        self.timestamp == meta.timestamp && self.spatial == meta.info.spatial
    }
}

impl FrameGate {
    /// A gate for one stream. Unless `required`, it stands open.
    pub fn new(ssrc: Ssrc, kind: MediaKind, required: bool) -> Self {
        Self {
            ssrc,
            kind,
            required,
            waiting: VecDeque::with_capacity(MAX_FRAMES + 1),
            left: VecDeque::with_capacity(REMEMBERED + 1),
            left_end: 0,
            packets: 0,
            probation: 0,
            dropped: [0; 2],
        }
    }

    /// Whether encryption is required.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Forgets everything, for a stream whose store was cleared; from now on `required` holds.
    pub fn reset(&mut self, required: bool) {
        self.required = required;
        self.waiting.clear();
        self.left.clear();
        self.left_end = 0;
        self.packets = 0;
        self.probation = 0;
    }

    /// Stores a packet, and pushes to `released` what may be forwarded now, in order.
    ///
    /// # Errors
    /// Those of [`PacketStore::insert`]; [`DropReason::NotEncrypted`] or [`DropReason::FrameUnfinished`] when this packet
    /// belongs to a frame that was refused. Packets refused after they had waited are in [`Self::take_drops`].
    pub fn admit(
        &mut self,
        store: &mut PacketStore,
        meta: &PacketMeta,
        payload: &[u8],
        released: &mut Vec<ExtSeq>,
    ) -> Result<(), DropReason> {
        if !self.required {
            store.insert(meta, payload)?;
            released.push(meta.index);
            return Ok(());
        }
        if self.kind == MediaKind::Audio {
            // Each packet is a frame, whatever else it might say.
            let verdict = self.judge(self.trailer(store, meta, payload));
            return self.settle(store, meta, payload, verdict, released);
        }
        // Packets behind a frame's end are not of it, whatever their timestamp.
        if meta.index.0 <= self.left_end
            && let Some(frame) = self.left.iter().rev().find(|f| f.is_of(meta) && meta.index.0 <= f.last)
        {
            let verdict = frame.verdict;
            return self.settle(store, meta, payload, verdict, released);
        }
        store.insert_as(State::Held, meta, payload)?;
        let at = self.note(meta);
        self.try_verdict(store, at, meta, payload);
        let refused = match self.waiting.get(at).map(|f| f.verdict) {
            Some(Verdict::Refused(reason)) => {
                // Counted by the error returned.
                self.dropped[slot(reason)] -= 1;
                Some(reason)
            }
            _ => None,
        };
        self.drain(store, meta.received, released);
        refused.map_or(Ok(()), Err)
    }

    /// Gives up frames that waited too long, and releases what they held up.
    pub fn handle_timeout(&mut self, store: &mut PacketStore, now: Instant, released: &mut Vec<ExtSeq>) {
        self.drain(store, now, released);
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|f| f.since + MAX_WAIT)
    }

    /// Packets that were refused after they had waited, since the last call: reason and number, until `None`.
    pub fn take_drops(&mut self) -> Option<(DropReason, u64)> {
        [DropReason::NotEncrypted, DropReason::FrameUnfinished].into_iter().find_map(|reason| {
            let n = std::mem::take(&mut self.dropped[slot(reason)]);
            (n > 0).then_some((reason, n))
        })
    }

    /// A packet whose frame's verdict is known.
    fn settle(
        &mut self,
        store: &mut PacketStore,
        meta: &PacketMeta,
        payload: &[u8],
        verdict: Verdict,
        released: &mut Vec<ExtSeq>,
    ) -> Result<(), DropReason> {
        match verdict {
            Verdict::Passed => {
                store.insert(meta, payload)?;
                released.push(meta.index);
                Ok(())
            }
            Verdict::Refused(reason) => {
                store.insert_as(State::Refused, meta, &[])?;
                Err(reason)
            }
            Verdict::Open => Ok(()),
        }
    }

    /// Enters a held packet into its frame; returns the frame's place.
    fn note(&mut self, meta: &PacketMeta) -> usize {
        let index = meta.index.0;
        self.packets += 1;
        let same = |f: &Frame| f.is_of(meta) && (f.verdict == Verdict::Open || index <= f.last);
        if let Some(at) = self.waiting.iter().position(same) {
            let frame = &mut self.waiting[at];
            frame.packets += 1;
            frame.last = frame.last.max(index);
            frame.first = frame.first.min(index);
            // An earlier first packet may move it before another frame only if frames overlap, which they do not.
            return at;
        }
        let at = self.waiting.partition_point(|f| f.first < index);
        self.waiting.insert(
            at,
            Frame {
                timestamp: meta.timestamp,
                spatial: meta.info.spatial,
                first: index,
                last: index,
                packets: 1,
                since: meta.received,
                verdict: Verdict::Open,
            },
        );
        at
    }

    /// Decides on a frame when its last packet is there.
    fn try_verdict(&mut self, store: &PacketStore, at: usize, meta: &PacketMeta, payload: &[u8]) {
        let Some(frame) = self.waiting.get(at).copied() else { return };
        if frame.verdict != Verdict::Open {
            if let Verdict::Refused(reason) = frame.verdict {
                self.dropped[slot(reason)] += 1;
            }
            return;
        }
        let trailer = if meta.info.frame_end {
            self.trailer(store, meta, payload)
        } else {
            // The packet before a last one that was too short to tell.
            match store.peek(ExtSeq(meta.index.0 + 1)) {
                Some((_, end, bytes)) if end.info.frame_end && frame.is_of(end) => {
                    self.trailer(store, end, bytes)
                }
                _ => return,
            }
        };
        if matches!(trailer, Trailer::Unknown) {
            return;
        }
        let verdict = self.judge(trailer);
        let end = if meta.info.frame_end { meta.index.0 } else { meta.index.0 + 1 };
        let mut refused = 0;
        if let Some(frame) = self.waiting.get_mut(at) {
            frame.verdict = verdict;
            // What came behind the end under the same timestamp is refused with the frame, or left to time out.
            frame.last = if verdict == Verdict::Passed { end } else { frame.last.max(end) };
            refused = frame.packets as u64;
        }
        if let Verdict::Refused(reason) = verdict {
            self.dropped[slot(reason)] += refused;
        }
    }

    /// The trailer as this frame's last packet shows it.
    fn trailer(&self, store: &PacketStore, meta: &PacketMeta, payload: &[u8]) -> Trailer {
        let payload = without_metadata(payload);
        let whole = self.kind == MediaKind::Audio || meta.info.frame_start;
        if whole && payload.len() < OVERHEAD {
            return Trailer::Missing;
        }
        // AV1 packets are filled one by one, so the last may have a single byte behind its aggregation header. Other
        // codecs' frames are cut into equal parts.
        if meta.codec == Codec::Av1
            && let [_, key] = *payload
        {
            let before = meta.index.0.checked_sub(1).and_then(|i| store.peek(ExtSeq(i)));
            return match before {
                Some((_, before, bytes))
                    if before.timestamp == meta.timestamp && before.info.spatial == meta.info.spatial =>
                {
                    if bytes.last() == Some(&IV_LEN) && key < KEY_RING {
                        Trailer::Likely
                    } else {
                        Trailer::Missing
                    }
                }
                Some(_) => Trailer::Missing,
                None => Trailer::Unknown,
            };
        }
        let Some(&[len, key]) = payload.last_chunk::<2>() else { return Trailer::Missing };
        if len != IV_LEN || key >= KEY_RING {
            return Trailer::Missing;
        }
        let iv = payload.len().checked_sub(2 + usize::from(IV_LEN)).and_then(|at| payload.get(at..at + 4));
        if iv == Some(&self.ssrc.0.to_be_bytes()[..]) { Trailer::Sure } else { Trailer::Likely }
    }

    fn judge(&mut self, trailer: Trailer) -> Verdict {
        match trailer {
            Trailer::Sure => {
                self.probation = 0;
                Verdict::Passed
            }
            Trailer::Likely if self.probation == 0 => Verdict::Passed,
            Trailer::Likely | Trailer::Unknown => {
                self.probation = self.probation.saturating_sub(1);
                Verdict::Refused(DropReason::NotEncrypted)
            }
            Trailer::Missing => {
                self.probation = PROBATION;
                Verdict::Refused(DropReason::NotEncrypted)
            }
        }
    }

    /// Lets the frames in front go as far as their verdicts are known, within the bounds on waiting.
    fn drain(&mut self, store: &mut PacketStore, now: Instant, released: &mut Vec<ExtSeq>) {
        loop {
            let fits = self.packets <= MAX_PACKETS && self.waiting.len() <= MAX_FRAMES;
            let Some(front) = self.waiting.front_mut() else { return };
            if front.verdict == Verdict::Open {
                let patience = now.saturating_duration_since(front.since) < MAX_WAIT;
                if patience && fits {
                    return;
                }
                front.verdict = Verdict::Refused(DropReason::FrameUnfinished);
                self.dropped[slot(DropReason::FrameUnfinished)] += front.packets as u64;
            }
            let Some(frame) = self.waiting.pop_front() else { return };
            self.packets = self.packets.saturating_sub(frame.packets);
            // Older ones have lost their places, however far back a sender says its frame goes.
            let first = frame.first.max(frame.last.saturating_sub(store.capacity()));
            for index in (first..=frame.last).map(ExtSeq) {
                let held =
                    store.peek(index).is_some_and(|(s, meta, _)| s == State::Held && frame.is_of(meta));
                if !held {
                    continue;
                }
                if frame.verdict == Verdict::Passed {
                    store.set_state(index, State::Released);
                    released.push(index);
                } else {
                    store.set_state(index, State::Refused);
                }
            }
            if self.left.len() == REMEMBERED {
                self.left.pop_front();
            }
            self.left_end = self.left_end.max(frame.last);
            self.left.push_back(frame);
        }
    }
}

fn slot(reason: DropReason) -> usize {
    usize::from(reason == DropReason::FrameUnfinished)
}

/// Cuts off LiveKit's frame metadata if there is any.
fn without_metadata(payload: &[u8]) -> &[u8] {
    let Some((rest, magic)) = payload.split_last_chunk::<4>() else { return payload };
    let Some(len) = rest.last().map(|b| usize::from(b ^ 0xff)) else { return payload };
    if magic != METADATA_MAGIC || len < 5 {
        return payload;
    }
    payload.len().checked_sub(len).and_then(|end| payload.get(..end)).unwrap_or(payload)
}

#[cfg(test)]
mod tests;
