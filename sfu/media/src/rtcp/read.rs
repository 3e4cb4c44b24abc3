//! Reading compound packets.

use super::twcc::TwccFeedback;
use super::{ReportBlock, fmt, pt};
use crate::drop_reason::DropReason;
use crate::ids::{RtpTime, SeqNo, Ssrc};

const MALFORMED: DropReason = DropReason::RtcpMalformed;
/// Bytes of a report block.
pub(super) const BLOCK_LEN: usize = 24;

/// One packet of a compound.
#[derive(Debug, Clone)]
pub enum Rtcp<'a> {
    /// Sender report.
    SenderReport {
        /// Its sender.
        ssrc: Ssrc,
        /// NTP time, 32.32 seconds since 1900.
        ntp: u64,
        /// The same instant in the sender's RTP clock.
        rtp: RtpTime,
        /// Packets sent.
        packets: u32,
        /// Payload bytes sent.
        octets: u32,
        /// What the sender receives itself.
        reports: ReportBlocks<'a>,
    },
    /// Receiver report.
    ReceiverReport {
        /// Its sender.
        ssrc: Ssrc,
        /// What the sender receives.
        reports: ReportBlocks<'a>,
    },
    /// Source description.
    Sdes {
        /// One chunk for each source.
        chunks: SdesChunks<'a>,
    },
    /// Sources that end.
    Bye {
        /// Which.
        ssrcs: SsrcIter<'a>,
    },
    /// Packets missing ([RFC 4585 section 6.2.1](https://www.rfc-editor.org/rfc/rfc4585#section-6.2.1)).
    Nack {
        /// Who asks.
        sender: Ssrc,
        /// Of which stream.
        media: Ssrc,
        /// Which packets.
        lost: NackIter<'a>,
    },
    /// A key frame is needed ([RFC 4585 section 6.3.1](https://www.rfc-editor.org/rfc/rfc4585#section-6.3.1)).
    Pli {
        /// Who asks.
        sender: Ssrc,
        /// Of which stream.
        media: Ssrc,
    },
    /// A key frame is demanded ([RFC 5104 section 4.3.1](https://www.rfc-editor.org/rfc/rfc5104#section-4.3.1)).
    Fir {
        /// Who asks.
        sender: Ssrc,
        /// Of which streams, each with the request's number.
        entries: FirEntries<'a>,
    },
    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03).
    Remb {
        /// Who says so.
        sender: Ssrc,
        /// Bits per second; saturates.
        bitrate: u64,
        /// The streams that share it.
        ssrcs: SsrcIter<'a>,
    },
    /// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc(TwccFeedback<'a>),
    /// Well formed and of no interest: extended reports, application-defined packets, other feedback.
    Unknown {
        /// Packet type.
        packet_type: u8,
        /// Count or feedback message type.
        count: u8,
    },
}

/// Walks the packets of a decrypted compound.
///
/// A malformed packet gives [`DropReason::RtcpMalformed`] once and ends the walk; what came before it was good.
pub fn parse(compound: &[u8]) -> Compound<'_> {
    Compound { rest: Some(compound), first: true }
}

/// The packets of one compound, in order. See [`parse`].
#[derive(Debug, Clone)]
pub struct Compound<'a> {
    rest: Option<&'a [u8]>,
    first: bool,
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Rtcp<'a>, DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        if rest.is_empty() && !self.first {
            return None;
        }
        self.first = false;
        let Some((packet, rest)) = RawPacket::split(rest) else { return Some(Err(MALFORMED)) };
        let parsed = Rtcp::read(packet);
        if parsed.is_some() {
            self.rest = Some(rest);
        }
        Some(parsed.ok_or(MALFORMED))
    }
}

/// One packet of a compound, cut by its length field.
///
/// ```text
/// |V=2|P|  count  |  packet type  |  length in words - 1  |  body ..
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawPacket<'a> {
    /// Reports, chunks or sources, or the feedback message type; 5 bits.
    pub count: u8,
    /// What it is.
    pub packet_type: u8,
    /// What follows the header, without padding.
    pub body: &'a [u8],
}

impl<'a> RawPacket<'a> {
    /// Splits the first packet from the rest of the compound; `None` when it is malformed.
    pub fn split(compound: &'a [u8]) -> Option<(RawPacket<'a>, &'a [u8])> {
        let &[b0, packet_type, l0, l1] = compound.first_chunk()?;
        if b0 >> 6 != 2 {
            return None;
        }
        let words = usize::from(u16::from_be_bytes([l0, l1])) + 1;
        let (packet, rest) = compound.split_at_checked(words * 4)?;
        let mut body = packet.get(4..)?;
        if b0 & 0x20 != 0 {
            // RFC 3550 section 6.4.1 wants whole words, and only in the last packet. libwebrtc fills its transport-wide
            // feedback up to a word, by one to three bytes, wherever that stands.
            let padding = usize::from(*body.last()?);
            if padding == 0 {
                return None;
            }
            body = body.get(..body.len().checked_sub(padding)?)?;
        }
        Some((RawPacket { count: b0 & 0x1f, packet_type, body }, rest))
    }
}

impl<'a> Rtcp<'a> {
    fn read(packet: RawPacket<'a>) -> Option<Rtcp<'a>> {
        let RawPacket { count, packet_type, body } = packet;
        match (packet_type, count) {
            (pt::SR, _) => {
                let (info, rest) = body.split_first_chunk::<24>()?;
                Some(Rtcp::SenderReport {
                    ssrc: Ssrc(be32(info, 0)?),
                    ntp: u64::from(be32(info, 4)?) << 32 | u64::from(be32(info, 8)?),
                    rtp: RtpTime(be32(info, 12)?),
                    packets: be32(info, 16)?,
                    octets: be32(info, 20)?,
                    reports: ReportBlocks::split(rest, count)?,
                })
            }
            (pt::RR, _) => Some(Rtcp::ReceiverReport {
                ssrc: Ssrc(be32(body, 0)?),
                reports: ReportBlocks::split(body.get(4..)?, count)?,
            }),
            (pt::SDES, _) => {
                let chunks = SdesChunks { rest: body, left: count };
                // Each chunk must be whole.
                (chunks.clone().count() == usize::from(count)).then_some(Rtcp::Sdes { chunks })
            }
            (pt::BYE, _) => {
                Some(Rtcp::Bye { ssrcs: SsrcIter { bytes: body.get(..usize::from(count) * 4)? } })
            }
            (pt::RTPFB, fmt::NACK) => {
                let (sender, media, fci) = feedback(body)?;
                whole(fci, 4)?;
                Some(Rtcp::Nack { sender, media, lost: NackIter { rest: fci, base: SeqNo(0), mask: 0 } })
            }
            (pt::RTPFB, fmt::TWCC) => {
                let (sender, media, fci) = feedback(body)?;
                TwccFeedback::read(sender, media, fci).map(Rtcp::TransportCc)
            }
            (pt::PSFB, fmt::PLI) => {
                let (sender, media, _) = feedback(body)?;
                Some(Rtcp::Pli { sender, media })
            }
            (pt::PSFB, fmt::FIR) => {
                let (sender, _, fci) = feedback(body)?;
                whole(fci, 8)?;
                Some(Rtcp::Fir { sender, entries: FirEntries { rest: fci } })
            }
            (pt::PSFB, fmt::APPLICATION) => match feedback(body)? {
                // "REMB", number of SSRCs, 6 bits of exponent, 18 of mantissa.
                (sender, _, [b'R', b'E', b'M', b'B', n, m2, m1, m0, rest @ ..]) => {
                    let mantissa = u32::from_be_bytes([0, m2 & 0x03, *m1, *m0]);
                    let exponent = u32::from(m2 >> 2);
                    let bitrate = u64::try_from(u128::from(mantissa) << exponent).unwrap_or(u64::MAX);
                    let bytes = rest.get(..usize::from(*n) * 4)?;
                    Some(Rtcp::Remb { sender, bitrate, ssrcs: SsrcIter { bytes } })
                }
                _ => Some(Rtcp::Unknown { packet_type, count }),
            },
            _ => Some(Rtcp::Unknown { packet_type, count }),
        }
    }
}

/// Sender, media source and feedback control information of a feedback message.
fn feedback(body: &[u8]) -> Option<(Ssrc, Ssrc, &[u8])> {
    let (head, fci) = body.split_first_chunk::<8>()?;
    Some((Ssrc(be32(head, 0)?), Ssrc(be32(head, 4)?), fci))
}

/// At least one entry of `len` bytes, and no part of one.
fn whole(fci: &[u8], len: usize) -> Option<()> {
    (!fci.is_empty() && fci.len().is_multiple_of(len)).then_some(())
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// The report blocks of a sender or receiver report.
#[derive(Debug, Clone)]
pub struct ReportBlocks<'a> {
    bytes: &'a [u8],
}

impl<'a> ReportBlocks<'a> {
    /// Profile-specific extensions may follow the blocks.
    fn split(bytes: &'a [u8], count: u8) -> Option<Self> {
        Some(Self { bytes: bytes.get(..usize::from(count) * BLOCK_LEN)? })
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.bytes.split_first_chunk::<BLOCK_LEN>()?;
        self.bytes = rest;
        let loss = be32(block, 4)?;
        Some(ReportBlock {
            ssrc: Ssrc(be32(block, 0)?),
            fraction_lost: (loss >> 24) as u8,
            // Sign-extends the lower 24 bits.
            lost: (loss << 8) as i32 >> 8,
            highest_seq: be32(block, 8)?,
            jitter: be32(block, 12)?,
            last_sr: be32(block, 16)?,
            delay_since_last_sr: be32(block, 20)?,
        })
    }
}

/// Sources, as lists of SSRCs.
#[derive(Debug, Clone)]
pub struct SsrcIter<'a> {
    bytes: &'a [u8],
}

impl Iterator for SsrcIter<'_> {
    type Item = Ssrc;

    fn next(&mut self) -> Option<Ssrc> {
        let (ssrc, rest) = self.bytes.split_first_chunk::<4>()?;
        self.bytes = rest;
        Some(Ssrc(u32::from_be_bytes(*ssrc)))
    }
}

/// What a source says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdesChunk<'a> {
    /// Which source.
    pub ssrc: Ssrc,
    /// Its canonical name, when there.
    pub cname: Option<&'a [u8]>,
}

/// The chunks of a source description ([RFC 3550 section
/// 6.5](https://www.rfc-editor.org/rfc/rfc3550#section-6.5)).
#[derive(Debug, Clone)]
pub struct SdesChunks<'a> {
    rest: &'a [u8],
    left: u8,
}

impl<'a> SdesChunks<'a> {
    fn chunk(&mut self) -> Option<SdesChunk<'a>> {
        let ssrc = Ssrc(be32(self.rest, 0)?);
        let items = self.rest.get(4..)?;
        let mut cname = None;
        let mut at = 0;
        // Items are |type|length|text|; a zero byte ends them, and the chunk is padded with zeros to a word. Some senders
        // leave the last zeros out.
        while let Some(&kind) = items.get(at).filter(|kind| **kind != 0) {
            let text_at = at + 2;
            let text = items.get(text_at..text_at + usize::from(*items.get(at + 1)?))?;
            if kind == 1 {
                cname = Some(text);
            }
            at = text_at + text.len();
        }
        self.rest = items.get((at + 1).next_multiple_of(4)..).unwrap_or_default();
        Some(SdesChunk { ssrc, cname })
    }
}

impl<'a> Iterator for SdesChunks<'a> {
    type Item = SdesChunk<'a>;

    fn next(&mut self) -> Option<SdesChunk<'a>> {
        self.left = self.left.checked_sub(1)?;
        let chunk = self.chunk();
        if chunk.is_none() {
            self.left = 0;
        }
        chunk
    }
}

/// The sequence numbers of a NACK, as listed.
#[derive(Debug, Clone)]
pub struct NackIter<'a> {
    rest: &'a [u8],
    base: SeqNo,
    /// Bit `i`: `base + 1 + i` is missing as well and was not given yet.
    mask: u16,
}

impl Iterator for NackIter<'_> {
    type Item = SeqNo;

    fn next(&mut self) -> Option<SeqNo> {
        if self.mask != 0 {
            let bit = self.mask.trailing_zeros() as u16;
            self.mask &= self.mask - 1;
            return Some(SeqNo(self.base.0.wrapping_add(1 + bit)));
        }
        let (&[p0, p1, m0, m1], rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        self.base = SeqNo(u16::from_be_bytes([p0, p1]));
        self.mask = u16::from_be_bytes([m0, m1]);
        Some(self.base)
    }
}

/// The entries of a full intra request: the stream and the number of the request, which repeats in repetitions.
#[derive(Debug, Clone)]
pub struct FirEntries<'a> {
    rest: &'a [u8],
}

impl Iterator for FirEntries<'_> {
    type Item = (Ssrc, u8);

    fn next(&mut self) -> Option<(Ssrc, u8)> {
        let (entry, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some((Ssrc(be32(entry, 0)?), entry[4]))
    }
}
