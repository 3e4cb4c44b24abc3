//! The fixed header, CSRC list and extension block of an RTP packet
//! ([RFC 3550 section 5.1](https://www.rfc-editor.org/rfc/rfc3550#section-5.1)).
//!
//! ```text
//!  0                   1                   2                   3
//! |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//! |                           timestamp                           |
//! |           synchronization source (SSRC) identifier            |
//! |            contributing source (CSRC) identifiers ..          |
//! |      defined by profile       |   length in 32-bit words      |
//! |                      header extension ..                      |
//! ```

use crate::drop_reason::DropReason;
use crate::ids::{Pt, RtpTime, SeqNo, Ssrc};
use crate::rtp::ext::ExtensionIter;

/// Bytes of the header without CSRCs and extensions.
pub(super) const FIXED_LEN: usize = 12;

/// The header of one packet, checked against the packet's length.
///
/// Everything in it can be read before SRTP authentication, but only SSRC and sequence number should be acted on before
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// Codec-specific; the last packet of a video picture.
    pub marker: bool,
    /// Payload type.
    pub pt: Pt,
    /// Sequence number.
    pub seq: SeqNo,
    /// Timestamp in units of the payload type's clock.
    pub timestamp: RtpTime,
    /// Synchronisation source.
    pub ssrc: Ssrc,
    /// The payload ends in padding; see [`payload_without_padding`].
    pub padding: bool,
    /// Bytes of the fixed part, the CSRCs and the extension block: the payload starts here.
    pub header_len: usize,
    /// The extension block's "defined by profile" field; 0 without a block.
    ext_profile: u16,
    /// Where the extension block's data starts; it ends at `header_len`.
    ext_start: usize,
}

impl RtpHeader {
    /// Reads the header of an RTP or SRTP packet.
    ///
    /// # Errors
    /// [`DropReason::RtpMalformed`] unless the version is 2 and the packet holds all that the header announces.
    pub fn parse(packet: &[u8]) -> Result<RtpHeader, DropReason> {
        let fixed: &[u8; FIXED_LEN] = packet.first_chunk().ok_or(DropReason::RtpMalformed)?;
        let [b0, b1, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *fixed;
        if b0 >> 6 != 2 {
            return Err(DropReason::RtpMalformed);
        }
        let csrcs_end = FIXED_LEN + usize::from(b0 & 0x0f) * 4;
        let mut ext_profile = 0;
        let mut ext_start = csrcs_end;
        let mut header_len = csrcs_end;
        if b0 & 0x10 != 0 {
            let block: &[u8; 4] =
                packet.get(csrcs_end..).and_then(|b| b.first_chunk()).ok_or(DropReason::RtpMalformed)?;
            ext_profile = u16::from_be_bytes([block[0], block[1]]);
            ext_start = csrcs_end + 4;
            header_len = ext_start + usize::from(u16::from_be_bytes([block[2], block[3]])) * 4;
        }
        if packet.len() < header_len {
            return Err(DropReason::RtpMalformed);
        }
        Ok(RtpHeader {
            marker: b1 & 0x80 != 0,
            pt: Pt(b1 & 0x7f),
            seq: SeqNo(u16::from_be_bytes([s0, s1])),
            timestamp: RtpTime(u32::from_be_bytes([t0, t1, t2, t3])),
            ssrc: Ssrc(u32::from_be_bytes([i0, i1, i2, i3])),
            padding: b0 & 0x20 != 0,
            header_len,
            ext_profile,
            ext_start,
        })
    }

    /// The header extensions as `(id, value)`, one-byte and two-byte form alike; none for any other form of block.
    ///
    /// `packet` is the packet that was parsed. An element that overruns the block ends the iteration.
    pub fn extensions<'a>(&self, packet: &'a [u8]) -> ExtensionIter<'a> {
        ExtensionIter::new(self.ext_profile, packet.get(self.ext_start..self.header_len).unwrap_or_default())
    }
}

/// Says in a header that its payload ends in padding, whose last byte is its length
/// ([RFC 3550 section 5.1](https://www.rfc-editor.org/rfc/rfc3550#section-5.1)).
pub fn set_padding(packet: &mut [u8]) {
    if let Some(first) = packet.first_mut() {
        *first |= 0x20;
    }
}

/// The payload without its padding, after decryption; `None` when the padding count is 0 or exceeds the payload.
///
/// A payload of padding only gives an empty slice.
pub fn payload_without_padding<'a>(header: &RtpHeader, payload: &'a [u8]) -> Option<&'a [u8]> {
    if !header.padding {
        return Some(payload);
    }
    match usize::from(*payload.last()?) {
        0 => None,
        padding => payload.get(..payload.len().checked_sub(padding)?),
    }
}
