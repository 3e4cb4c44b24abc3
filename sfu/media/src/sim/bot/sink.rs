//! What a client receives: one track, repaired by NACK and RTX, put together to frames, every byte checked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::frames::{self, Coding, FrameId};
use super::rtp::{Parsed, ReportBlock};
use crate::sim::net::OVERHEAD;

/// Requests for one packet before it is given up, as with libwebrtc; they are a round trip apart.
const MAX_TRIES: u32 = 10;
/// Time between two requests for a key frame.
const ASK_KEY_EVERY: Duration = Duration::from_millis(200);
/// A gap is not given up before this, and after at most [`MAX_WAIT`]: libwebrtc then asks for a key frame.
const MIN_WAIT: Duration = Duration::from_millis(1500);
/// Longest wait for the next frame that can be decoded.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// How a track arrives.
#[derive(Debug, Clone, Copy)]
pub struct SinkConfig {
    /// SSRC of the stream.
    pub ssrc: u32,
    /// SSRC of its retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// Payload type of retransmissions.
    pub rtx_pt: Option<u8>,
    /// Form of its frames.
    pub coding: Coding,
}

/// A frame that arrived whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameReceived {
    /// Which one it is.
    pub id: FrameId,
    /// When its last packet arrived.
    pub at: Instant,
    /// Whether it is a key frame.
    pub key: bool,
    /// Whether all that it depends on was there: false from a gap that was given up to the next key frame.
    pub decodable: bool,
    /// VP8 temporal layer.
    pub temporal: u8,
    /// RTP timestamp.
    pub timestamp: u32,
    /// VP8 picture id.
    pub picture_id: Option<u16>,
    /// VP8 TL0PICIDX.
    pub tl0: Option<u8>,
    /// Extended sequence number of its last packet.
    pub last_seq: u64,
}

#[derive(Debug)]
struct Packet {
    marker: bool,
    timestamp: u32,
    payload: Vec<u8>,
}

#[derive(Debug)]
struct Gap {
    since: Instant,
    asked: Option<Instant>,
}

/// A receiving stream.
#[derive(Debug)]
pub struct Sink {
    config: SinkConfig,
    /// Whole frames in the order of the stream.
    pub frames: Vec<FrameReceived>,
    /// Frames whose bytes are not what a source sent.
    pub broken: u32,
    /// Packets on the stream itself.
    pub packets: u64,
    /// Packets on the RTX stream that filled a gap.
    pub repaired: u64,
    /// Packets that were there already.
    pub duplicates: u64,
    /// Gaps given up.
    pub abandoned: u32,
    /// Packets asked for again.
    pub nacked: u64,
    /// Sequence number of the first packet.
    pub first_seq: Option<u16>,
    /// Payload bytes of the stream itself.
    pub octets: u64,
    /// Bytes of the datagrams of the stream itself, with the headers of IP and UDP.
    pub wire_bytes: u64,
    /// Sender reports: NTP time and RTP timestamp of the last, and when it came.
    pub last_sr: Option<(u64, u32, Instant)>,
    /// The playout delay that was told last, as on the wire.
    pub playout_delay: Option<[u8; 3]>,
    /// Packets that the last sender report claims.
    pub sr_packets: u32,
    /// The stream began without a key frame, or a gap in it was given up: one is to be asked for.
    lacks_key: bool,
    asked_key: Option<Instant>,
    waiting: BTreeMap<u64, Packet>,
    gaps: BTreeMap<u64, Gap>,
    next: u64,
    highest: Option<u64>,
    base: u64,
    reported: (u64, u64),
}

impl Sink {
    pub(super) fn new(config: SinkConfig) -> Self {
        Self {
            config,
            frames: Vec::new(),
            broken: 0,
            packets: 0,
            repaired: 0,
            duplicates: 0,
            abandoned: 0,
            nacked: 0,
            first_seq: None,
            octets: 0,
            wire_bytes: 0,
            last_sr: None,
            playout_delay: None,
            sr_packets: 0,
            lacks_key: false,
            asked_key: None,
            waiting: BTreeMap::new(),
            gaps: BTreeMap::new(),
            next: 0,
            highest: None,
            base: 0,
            reported: (0, 0),
        }
    }

    /// How it was made.
    pub fn config(&self) -> &SinkConfig {
        &self.config
    }

    /// Takes a packet of the stream or of its RTX stream.
    /// `len` is the size of its datagram.
    pub(super) fn packet(&mut self, packet: &Parsed<'_>, len: usize, now: Instant) {
        let head = packet.head;
        let is_rtx = Some(head.ssrc) == self.config.rtx_ssrc;
        if !is_rtx {
            self.wire_bytes += (len + OVERHEAD) as u64;
        }
        let (seq, payload) = match (is_rtx, packet.payload) {
            (true, [hi, lo, payload @ ..]) => (u16::from_be_bytes([*hi, *lo]), payload),
            // Padding for probes.
            (true, _) => return,
            (false, payload) => (head.seq, payload),
        };
        let Some(highest) = self.highest else {
            if !is_rtx {
                // Room below for packets that were overtaken.
                let first = 0x10_0000 + u64::from(seq);
                self.first_seq = Some(seq);
                self.highest = Some(first);
                (self.next, self.base) = (first, first);
                self.accept(first, head.marker, head.timestamp, payload, now);
                self.packets += 1;
                self.octets += payload.len() as u64;
            }
            return;
        };
        let index = highest.wrapping_add_signed(i64::from(seq.wrapping_sub(highest as u16) as i16));
        let fresh = self.accept(index, head.marker, head.timestamp, payload, now);
        if !fresh {
            self.duplicates += 1;
        } else if is_rtx {
            self.repaired += 1;
        } else {
            self.packets += 1;
            self.octets += payload.len() as u64;
        }
    }

    fn accept(&mut self, index: u64, marker: bool, timestamp: u32, payload: &[u8], now: Instant) -> bool {
        // One that was overtaken by the very first moves the start back, while nothing was taken from there.
        if index < self.next && self.frames.is_empty() && self.next - index < 50 && self.next == self.base {
            for gap in index + 1..self.next {
                self.gaps.entry(gap).or_insert(Gap { since: now, asked: None });
            }
            (self.next, self.base) = (index, index);
        }
        if index < self.next || self.waiting.contains_key(&index) {
            return false;
        }
        let highest = self.highest.unwrap_or(index);
        for gap in highest + 1..index {
            self.gaps.insert(gap, Gap { since: now, asked: None });
        }
        self.highest = Some(highest.max(index));
        self.gaps.remove(&index);
        self.waiting.insert(index, Packet { marker, timestamp, payload: payload.to_vec() });
        self.assemble(now);
        true
    }

    /// Takes out whole frames at the front.
    fn assemble(&mut self, now: Instant) {
        loop {
            let mut frame = Vec::new();
            let mut end = None;
            let mut info = (None, None, 0);
            for (expected, (index, packet)) in (self.next..).zip(self.waiting.range(self.next..)) {
                if expected != *index {
                    break;
                }
                let (descriptor, start) = match self.config.coding {
                    Coding::Opus => (Descriptor::default(), true),
                    Coding::Vp8 => match Descriptor::read(&packet.payload) {
                        Some(descriptor) => (descriptor, descriptor.start),
                        None => (Descriptor::default(), false),
                    },
                };

                if start != (expected == self.next) {
                    // The frame's beginning is missing, or its end. Before the first frame the stream's first packet may
                    // be lost, and nothing shows that there was one.
                    if self.frames.is_empty() {
                        self.lacks_key = true;
                    } else {
                        self.broken += 1;
                    }
                    end = Some((*index, packet.timestamp));
                    frame.clear();
                    break;
                }
                if start {
                    info = (descriptor.picture, descriptor.tl0, descriptor.temporal);
                }
                frame.extend(&packet.payload[descriptor.len..]);
                if packet.marker || self.config.coding == Coding::Opus {
                    end = Some((*index, packet.timestamp));
                    break;
                }
            }
            let Some((last, timestamp)) = end else { return };
            let is_key = self.config.coding == Coding::Opus || frame.first().is_some_and(|b| b & 1 == 0);
            match frames::verify(self.config.coding, &frame) {
                // Not to be decoded.
                Some(_) if self.frames.is_empty() && !is_key => self.lacks_key = true,
                Some(id) => {
                    self.lacks_key &= !is_key;
                    self.frames.push(FrameReceived {
                        id,
                        at: now,
                        key: is_key,
                        decodable: !self.lacks_key,
                        temporal: info.2,
                        timestamp,
                        picture_id: info.0,
                        tl0: info.1,
                        last_seq: last,
                    });
                }
                None if !frame.is_empty() => self.broken += 1,
                None => {}
            }
            self.next = last + 1;
            self.waiting = self.waiting.split_off(&self.next);
        }
    }

    /// Numbers to ask for now. Gives up what was missing too long.
    pub(super) fn tick(&mut self, rtt: Duration, now: Instant) -> Vec<u16> {
        let mut ask = Vec::new();
        let mut given_up = None;
        let repairable = self.config.rtx_ssrc.is_some();
        for (index, gap) in &mut self.gaps {
            let wait = match repairable {
                true => (rtt * MAX_TRIES).clamp(MIN_WAIT, MAX_WAIT),
                false => Duration::from_millis(100),
            };
            if now.duration_since(gap.since) > wait {
                given_up = Some(*index);
            } else if repairable && gap.asked.is_none_or(|asked| now.duration_since(asked) >= rtt) {
                gap.asked = Some(now);
                self.nacked += 1;
                ask.push(*index as u16);
            }
        }
        if let Some(index) = given_up {
            self.abandoned += 1;
            self.lacks_key |= self.config.coding == Coding::Vp8;
            let restart = self.waiting.range(index + 1..).find(|(_, packet)| {
                self.config.coding == Coding::Opus
                    || Descriptor::read(&packet.payload).is_some_and(|descriptor| descriptor.start)
            });
            self.next = restart.map_or(index + 1, |(index, _)| *index).max(self.next);
            // What is missing before that is of no use any more.
            self.gaps = self.gaps.split_off(&self.next);
            self.waiting = self.waiting.split_off(&self.next);
            self.assemble(now);
        }
        ask
    }

    /// Whether to ask for a key frame now.
    pub(super) fn needs_key(&mut self, now: Instant) -> bool {
        let due =
            self.lacks_key && self.asked_key.is_none_or(|asked| now.duration_since(asked) >= ASK_KEY_EVERY);
        if due {
            self.asked_key = Some(now);
        }
        due
    }

    /// The block for a receiver report.
    pub(super) fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let highest = self.highest?;
        let expected = highest - self.base + 1;
        let (last_expected, last_received) = std::mem::replace(&mut self.reported, (expected, self.packets));
        let (span, got) = (expected - last_expected, self.packets - last_received);
        let lost = span.saturating_sub(got);
        let fraction = (lost * 256).checked_div(span).unwrap_or(0).min(255) as u8;
        let (last_sr, delay) = match self.last_sr {
            Some((ntp, _, at)) => {
                ((ntp >> 16) as u32, (now.duration_since(at).as_secs_f64() * 65536.0) as u32)
            }
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc: self.config.ssrc,
            fraction_lost: fraction,
            lost: expected.saturating_sub(self.packets) as u32,
            highest: highest as u32,
            last_sr,
            delay,
        })
    }
}

/// A VP8 payload descriptor (RFC 7741 section 4.2).
#[derive(Debug, Clone, Copy, Default)]
struct Descriptor {
    start: bool,
    picture: Option<u16>,
    tl0: Option<u8>,
    temporal: u8,
    len: usize,
}

impl Descriptor {
    fn read(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut descriptor =
            Self { start: first & 0x10 != 0 && first & 0x07 == 0, len: 1, ..Self::default() };
        if first & 0x80 == 0 {
            return Some(descriptor);
        }
        let flags = *payload.get(1)?;
        let mut at = 2;
        if flags & 0x80 != 0 {
            let b = *payload.get(at)?;
            if b & 0x80 != 0 {
                descriptor.picture = Some(u16::from_be_bytes([b & 0x7f, *payload.get(at + 1)?]));
                at += 2;
            } else {
                descriptor.picture = Some(u16::from(b));
                at += 1;
            }
        }
        if flags & 0x40 != 0 {
            descriptor.tl0 = Some(*payload.get(at)?);
            at += 1;
        }
        if flags & 0x30 != 0 {
            descriptor.temporal = *payload.get(at)? >> 6;
            at += 1;
        }
        descriptor.len = at;
        (at < payload.len()).then_some(descriptor)
    }
}
