//! Appending RTCP packets to a compound.
//!
//! A compound begins with a report and holds a CNAME ([RFC 3550 section
//! 6.1](https://www.rfc-editor.org/rfc/rfc3550#section-6.1)); feedback alone may go without where reduced size was
//! negotiated.

use super::{ReportBlock, fmt, pt};
use crate::ids::{RtpTime, SeqNo, Ssrc};

/// Report blocks in one packet: the count has five bits.
const MAX_BLOCKS: usize = 31;

/// The sender's part of a sender report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// NTP time, 32.32 seconds since 1900.
    pub ntp: u64,
    /// The same instant in the stream's RTP clock.
    pub rtp: RtpTime,
    /// Packets sent; wraps.
    pub packets: u32,
    /// Payload bytes sent; wraps.
    pub octets: u32,
}

/// Appends a sender report. Blocks beyond 31 follow in receiver reports of the same sender.
pub fn sr(out: &mut Vec<u8>, ssrc: Ssrc, info: &SenderInfo, reports: &[ReportBlock]) {
    let (now, later) = reports.split_at(reports.len().min(MAX_BLOCKS));
    packet(out, now.len() as u8, pt::SR, |out| {
        out.extend(ssrc.0.to_be_bytes());
        out.extend(info.ntp.to_be_bytes());
        out.extend(info.rtp.0.to_be_bytes());
        out.extend(info.packets.to_be_bytes());
        out.extend(info.octets.to_be_bytes());
        now.iter().for_each(|block| report_block(out, block));
    });
    if !later.is_empty() {
        rr(out, ssrc, later);
    }
}

/// Appends a receiver report, empty without blocks; several packets for more than 31.
pub fn rr(out: &mut Vec<u8>, ssrc: Ssrc, reports: &[ReportBlock]) {
    let mut rest = reports;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_BLOCKS));
        packet(out, now.len() as u8, pt::RR, |out| {
            out.extend(ssrc.0.to_be_bytes());
            now.iter().for_each(|block| report_block(out, block));
        });
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

/// Appends a source description with a canonical name, of which 255 bytes count.
pub fn sdes_cname(out: &mut Vec<u8>, ssrc: Ssrc, cname: &str) {
    let cname = &cname.as_bytes()[..cname.len().min(255)];
    packet(out, 1, pt::SDES, |out| {
        out.extend(ssrc.0.to_be_bytes());
        out.extend([1, cname.len() as u8]);
        out.extend(cname);
        // At least one zero ends the items.
        let items = 2 + cname.len();
        out.resize(out.len() + (items + 1).next_multiple_of(4) - items, 0);
    });
}

/// Appends the end of sources, of which 31 count.
pub fn bye(out: &mut Vec<u8>, ssrcs: &[Ssrc]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(MAX_BLOCKS)];
    packet(out, ssrcs.len() as u8, pt::BYE, |out| {
        ssrcs.iter().for_each(|ssrc| out.extend(ssrc.0.to_be_bytes()));
    });
}

/// Appends a request for lost packets, given in rising order; nothing without any.
pub fn nack(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, lost: &[SeqNo]) {
    let mut lost = lost.iter().copied().peekable();
    if lost.peek().is_none() {
        return;
    }
    feedback(out, fmt::NACK, pt::RTPFB, sender, media, |out| {
        while let Some(base) = lost.next() {
            let mut mask = 0u16;
            while let Some(next) = lost.peek() {
                match next.0.wrapping_sub(base.0) {
                    0 => {}
                    ahead @ 1..=16 => mask |= 1 << (ahead - 1),
                    _ => break,
                }
                lost.next();
            }
            out.extend(base.0.to_be_bytes());
            out.extend(mask.to_be_bytes());
        }
    });
}

/// Appends a request for a key frame.
pub fn pli(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc) {
    feedback(out, fmt::PLI, pt::PSFB, sender, media, |_| {});
}

/// Appends a demand for a key frame; `number` rises with each new demand and repeats in repetitions.
pub fn fir(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, number: u8) {
    feedback(out, fmt::FIR, pt::PSFB, sender, Ssrc(0), |out| {
        out.extend(media.0.to_be_bytes());
        out.extend([number, 0, 0, 0]);
    });
}

/// Appends a receiver estimated maximum bitrate in bits per second, rounded down to 18 significant bits, for up to 255
/// streams.
pub fn remb(out: &mut Vec<u8>, sender: Ssrc, bitrate: u64, ssrcs: &[Ssrc]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(255)];
    let exponent = (64 - bitrate.leading_zeros()).saturating_sub(18);
    let [.., m2, m1, m0] = ((bitrate >> exponent) as u32).to_be_bytes();
    feedback(out, fmt::APPLICATION, pt::PSFB, sender, Ssrc(0), |out| {
        out.extend(b"REMB");
        out.extend([ssrcs.len() as u8, (exponent as u8) << 2 | m2, m1, m0]);
        ssrcs.iter().for_each(|ssrc| out.extend(ssrc.0.to_be_bytes()));
    });
}

pub(super) fn feedback(
    out: &mut Vec<u8>,
    message: u8,
    packet_type: u8,
    sender: Ssrc,
    media: Ssrc,
    fci: impl FnOnce(&mut Vec<u8>),
) {
    packet(out, message, packet_type, |out| {
        out.extend(sender.0.to_be_bytes());
        out.extend(media.0.to_be_bytes());
        fci(out);
    });
}

/// Header, then body, then the length into the header. Bodies come in whole words.
fn packet(out: &mut Vec<u8>, count: u8, packet_type: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([2 << 6 | count, packet_type, 0, 0]);
    body(out);
    debug_assert_eq!((out.len() - start) % 4, 0);
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

fn report_block(out: &mut Vec<u8>, block: &ReportBlock) {
    let lost = block.lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
    out.extend(block.ssrc.0.to_be_bytes());
    out.extend((u32::from(block.fraction_lost) << 24 | lost).to_be_bytes());
    out.extend(block.highest_seq.to_be_bytes());
    out.extend(block.jitter.to_be_bytes());
    out.extend(block.last_sr.to_be_bytes());
    out.extend(block.delay_since_last_sr.to_be_bytes());
}
