//! RTP and RTCP as a client writes and reads them, apart from the relay's own code.

use crate::command::{Extension, ExtensionMap};
use crate::ids::{Mid, Rid};

/// What goes into a packet's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) marker: bool,
    pub(super) pt: u8,
    pub(super) seq: u16,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
}

/// Values of header extensions to send.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extras {
    pub(super) mid: Option<Mid>,
    pub(super) rid: Option<Rid>,
    pub(super) repaired_rid: Option<Rid>,
    pub(super) audio_level: Option<u8>,
    pub(super) transport_cc: Option<u16>,
}

/// One packet in clear, extensions in one-byte form.
pub(super) fn packet(head: Head, extras: &Extras, map: &ExtensionMap, payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut element = |extension: Extension, value: Option<&[u8]>| {
        if let (Some(id), Some(value)) = (map.id(extension), value) {
            block.push(id << 4 | (value.len() - 1) as u8);
            block.extend(value);
        }
    };
    let transport_cc = extras.transport_cc.map(u16::to_be_bytes);
    let audio_level = extras.audio_level.map(|level| [0x80 | level]);
    element(Extension::Mid, extras.mid.as_ref().map(|m| m.as_str().as_bytes()));
    element(Extension::Rid, extras.rid.as_ref().map(|r| r.as_str().as_bytes()));
    element(Extension::RepairedRid, extras.repaired_rid.as_ref().map(|r| r.as_str().as_bytes()));
    element(Extension::AudioLevel, audio_level.as_ref().map(|b| &b[..]));
    element(Extension::TransportCc, transport_cc.as_ref().map(|b| &b[..]));
    block.resize(block.len().next_multiple_of(4), 0);

    let mut out = vec![if block.is_empty() { 0x80 } else { 0x90 }, u8::from(head.marker) << 7 | head.pt];
    out.extend(head.seq.to_be_bytes());
    out.extend(head.timestamp.to_be_bytes());
    out.extend(head.ssrc.to_be_bytes());
    if !block.is_empty() {
        out.extend([0xbe, 0xde]);
        out.extend((block.len() as u16 / 4).to_be_bytes());
        out.extend(&block);
    }
    out.extend(payload);
    out
}

/// A packet in clear, taken apart: header, extension elements in one-byte form, payload without padding.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    pub(super) head: Head,
    pub(super) extensions: Vec<(u8, &'a [u8])>,
    pub(super) payload: &'a [u8],
}

/// Takes a packet apart.
pub(super) fn parse(packet: &[u8]) -> Option<Parsed<'_>> {
    let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let first = *packet.first()?;
    let second = *packet.get(1)?;
    let head = Head {
        marker: second & 0x80 != 0,
        pt: second & 0x7f,
        seq: word(0)? as u16,
        timestamp: word(4)?,
        ssrc: word(8)?,
    };
    let mut at = 12 + usize::from(first & 0x0f) * 4;
    let mut extensions = Vec::new();
    if first & 0x10 != 0 {
        let block = word(at)?;
        let end = at + 4 + (block & 0xffff) as usize * 4;
        at += 4;
        let two_byte = block >> 16 != 0xbede;
        while at < end {
            let b = *packet.get(at)?;
            if b == 0 {
                at += 1;
                continue;
            }
            let (id, len, skip) = match two_byte {
                true => (b, usize::from(*packet.get(at + 1)?), 2),
                false => (b >> 4, usize::from(b & 0x0f) + 1, 1),
            };
            extensions.push((id, packet.get(at + skip..at + skip + len)?));
            at += skip + len;
        }
        at = end;
    }
    let padding = if first & 0x20 != 0 { usize::from(*packet.last()?) } else { 0 };
    let payload = packet.get(at..packet.len().checked_sub(padding)?)?;
    Some(Parsed { head, extensions, payload })
}

/// One RTCP packet of a compound: its count or format field, type and body after the first word.
pub(super) fn rtcp_packets(mut compound: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    std::iter::from_fn(move || {
        let head = compound.first_chunk::<4>()?;
        let len = (usize::from(u16::from_be_bytes([head[2], head[3]])) + 1) * 4;
        let (packet, rest) = compound.split_at_checked(len)?;
        compound = rest;
        Some((head[0] & 0x1f, head[1], &packet[4..]))
    })
}

fn rtcp(count: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | count, kind];
    out.extend((body.len() as u16 / 4).to_be_bytes());
    out.extend(body);
    out
}

/// What a receiver report says of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: u32,
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost in total.
    pub lost: u32,
    /// Highest sequence number with its cycles.
    pub highest: u32,
    /// Middle 32 bits of the last sender report's NTP time.
    pub last_sr: u32,
    /// Time since then in 1/65536 s.
    pub delay: u32,
}

/// A sender report without blocks.
pub(super) fn sender_report(ssrc: u32, ntp: u64, timestamp: u32, packets: u32, octets: u32) -> Vec<u8> {
    let mut body = ssrc.to_be_bytes().to_vec();
    body.extend(ntp.to_be_bytes());
    body.extend(timestamp.to_be_bytes());
    body.extend(packets.to_be_bytes());
    body.extend(octets.to_be_bytes());
    rtcp(0, 200, &body)
}

/// A receiver report.
pub(super) fn receiver_report(ssrc: u32, blocks: &[ReportBlock]) -> Vec<u8> {
    let mut body = ssrc.to_be_bytes().to_vec();
    for block in blocks {
        body.extend(block.ssrc.to_be_bytes());
        body.extend((u32::from(block.fraction_lost) << 24 | block.lost & 0x00ff_ffff).to_be_bytes());
        body.extend(block.highest.to_be_bytes());
        body.extend(0u32.to_be_bytes());
        body.extend(block.last_sr.to_be_bytes());
        body.extend(block.delay.to_be_bytes());
    }
    rtcp(blocks.len() as u8, 201, &body)
}

/// Reads the blocks of a report after its sender's part.
pub(super) fn report_blocks(body: &[u8]) -> impl Iterator<Item = ReportBlock> {
    body.chunks_exact(24).map(|b| {
        let word = |i: usize| u32::from_be_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        ReportBlock {
            ssrc: word(0),
            fraction_lost: b[4],
            lost: word(4) & 0x00ff_ffff,
            highest: word(8),
            last_sr: word(16),
            delay: word(20),
        }
    })
}

/// A generic NACK (RFC 4585 section 6.2.1), one entry per number.
pub(super) fn nack(sender: u32, media: u32, lost: &[u16]) -> Vec<u8> {
    let mut body = sender.to_be_bytes().to_vec();
    body.extend(media.to_be_bytes());
    for seq in lost {
        body.extend(seq.to_be_bytes());
        body.extend([0, 0]);
    }
    rtcp(1, 205, &body)
}

/// The numbers that a NACK's body after the SSRCs names.
pub(super) fn nacked(entries: &[u8]) -> impl Iterator<Item = u16> {
    entries.chunks_exact(4).flat_map(|e| {
        let base = u16::from_be_bytes([e[0], e[1]]);
        let mask = u16::from_be_bytes([e[2], e[3]]);
        std::iter::once(base)
            .chain((0..16).filter(move |i| mask >> i & 1 == 1).map(move |i| base.wrapping_add(i + 1)))
    })
}

/// A picture loss indication (RFC 4585 section 6.3.1).
pub(super) fn pli(sender: u32, media: u32) -> Vec<u8> {
    let mut body = sender.to_be_bytes().to_vec();
    body.extend(media.to_be_bytes());
    rtcp(1, 206, &body)
}
