//! RTCP ([RFC 3550 section 6](https://www.rfc-editor.org/rfc/rfc3550#section-6),
//! [RFC 4585](https://www.rfc-editor.org/rfc/rfc4585), [RFC 5104](https://www.rfc-editor.org/rfc/rfc5104)): reading a
//! compound packet without copying, and writing one into a caller's buffer.
//!
//! Packets of reduced size ([RFC 5506](https://www.rfc-editor.org/rfc/rfc5506)) are read as well: a compound may begin
//! with any packet type.

mod read;
mod twcc;
pub mod write;

pub use read::{
    Compound, FirEntries, NackIter, RawPacket, ReportBlocks, Rtcp, SdesChunk, SdesChunks, SsrcIter, parse,
};
pub use twcc::{TwccArrival, TwccFeedback, TwccStatuses, write_twcc};

use crate::ids::Ssrc;

/// Reception statistics of one source ([RFC 3550 section
/// 6.4.1](https://www.rfc-editor.org/rfc/rfc3550#section-6.4.1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source reported on.
    pub ssrc: Ssrc,
    /// Fraction lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; duplicates may make it negative. 24 bits.
    pub lost: i32,
    /// Highest sequence number received, extended by the number of wraps in the upper 16 bits.
    pub highest_seq: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0 without one.
    pub last_sr: u32,
    /// Time since that report in 1/65536 s; 0 without one.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    /// The fraction lost of so many packets expected, in 1/256; 0 where none were
    /// ([RFC 3550 appendix A.3](https://www.rfc-editor.org/rfc/rfc3550#appendix-A.3)).
    pub(crate) fn fraction(lost: u64, expected: u64) -> u8 {
        (lost * 256).checked_div(expected).unwrap_or(0).min(255) as u8
    }
}

/// Packet types.
mod pt {
    pub(super) const SR: u8 = 200;
    pub(super) const RR: u8 = 201;
    pub(super) const SDES: u8 = 202;
    pub(super) const BYE: u8 = 203;
    /// Transport-layer feedback (RFC 4585).
    pub(super) const RTPFB: u8 = 205;
    /// Payload-specific feedback (RFC 4585).
    pub(super) const PSFB: u8 = 206;
}

/// Feedback message types: of [`pt::RTPFB`] `NACK` and `TWCC`, of [`pt::PSFB`] the others.
mod fmt {
    pub(super) const NACK: u8 = 1;
    pub(super) const TWCC: u8 = 15;
    pub(super) const PLI: u8 = 1;
    pub(super) const FIR: u8 = 4;
    pub(super) const APPLICATION: u8 = 15;
}

#[cfg(test)]
mod tests;
