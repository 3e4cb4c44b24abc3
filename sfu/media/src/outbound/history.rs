//! What was sent under which number: all that is kept per subscriber to answer a NACK. The payloads are in the
//! publisher's [`PacketStore`](crate::inbound::PacketStore).

use std::time::{Duration, Instant};

use crate::command::MediaKind;
use crate::ids::{ExtSeq, Pt, RtpTime};

/// Packets remembered: as many as the stores keep.
const AUDIO_PACKETS: usize = 256;
const VIDEO_PACKETS: usize = 1024;
/// Packets sent longer ago are not sent again: no receiver waits for them.
pub(super) const MAX_AGE: Duration = Duration::from_secs(3);

/// One packet that was sent.
#[derive(Debug, Clone, Copy)]
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

/// A ring of what was sent, by outgoing index.
#[derive(Debug)]
pub(super) struct History {
    ring: Vec<Option<Sent>>,
    highest: Option<ExtSeq>,
}

impl History {
    pub(super) fn new(kind: MediaKind) -> Self {
        let len = match kind {
            MediaKind::Audio => AUDIO_PACKETS,
            MediaKind::Video => VIDEO_PACKETS,
        };
        Self { ring: vec![None; len], highest: None }
    }

    pub(super) fn push(&mut self, sent: Sent) {
        let place = self.place(sent.out);
        self.ring[place] = Some(sent);
        self.highest = Some(self.highest.map_or(sent.out, |h| h.max(sent.out)));
    }

    /// Highest index sent.
    pub(super) fn highest(&self) -> Option<ExtSeq> {
        self.highest
    }

    pub(super) fn get(&self, out: ExtSeq) -> Option<&Sent> {
        self.ring[self.place(out)].as_ref().filter(|sent| sent.out == out)
    }

    pub(super) fn get_mut(&mut self, out: ExtSeq) -> Option<&mut Sent> {
        let place = self.place(out);
        self.ring[place].as_mut().filter(|sent| sent.out == out)
    }

    pub(super) fn contains(&self, out: ExtSeq) -> bool {
        self.ring[self.place(out)].is_some_and(|sent| sent.out == out)
    }

    /// Whether the place of this index was given to newer packets.
    pub(super) fn is_too_old(&self, out: ExtSeq) -> bool {
        self.highest.is_some_and(|highest| out.0 + self.ring.len() as u64 <= highest.0)
    }

    /// Packets of this stream cannot be sent again: its indices mean other packets now. That they were sent stays known.
    pub(super) fn forget(&mut self, stream: u8) {
        for sent in self.ring.iter_mut().flatten().filter(|sent| sent.stream == stream) {
            sent.rtx_pt = None;
        }
    }

    fn place(&self, out: ExtSeq) -> usize {
        (out.0 % self.ring.len() as u64) as usize
    }
}
