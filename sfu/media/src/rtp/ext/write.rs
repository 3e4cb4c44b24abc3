//! Writing an RTP header with extensions.

use crate::command::ExtensionMap;
use crate::ids::{Pt, RtpTime, SeqNo, Ssrc};
use crate::rtp::ext::{ExtensionValues, ONE_BYTE, TWO_BYTE};
use crate::rtp::header::FIXED_LEN;

/// The longest header that [`RtpHeaderOut::write`] writes: every extension in the two-byte form at its longest (three
/// labels, a Dependency Descriptor of 255 bytes, the others at their fixed lengths), padded to a word.
pub const MAX_HEADER: usize = {
    let elements: usize = 3 * (2 + 16) + (2 + 1) + (2 + 3) + (2 + 2) + (2 + 255) + (2 + 1) + (2 + 3);
    FIXED_LEN + 4 + elements.div_ceil(4) * 4
};

/// The fixed fields of a header to be written. CSRCs and padding are never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeaderOut {
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub pt: Pt,
    /// Sequence number.
    pub seq: SeqNo,
    /// Timestamp in units of the payload type's clock.
    pub timestamp: RtpTime,
    /// Synchronisation source.
    pub ssrc: Ssrc,
}

impl RtpHeaderOut {
    /// Writes the header to the start of `out` and returns its length, at most [`MAX_HEADER`].
    ///
    /// Of the extensions those are written that have a value and an id in `map`: in the one-byte form where all of them
    /// fit it, else in the two-byte form if the receiver allows it, else without those that do not fit. `out` should
    /// have [`MAX_HEADER`] bytes; extensions that it has no room for are left out, and without room for the fixed
    /// header nothing is written and 0 returned.
    pub fn write(&self, out: &mut [u8], extensions: &ExtensionValues<'_>, map: &ExtensionMap) -> usize {
        let Some(fixed) = out.first_chunk_mut::<FIXED_LEN>() else { return 0 };
        fixed[0] = 2 << 6;
        fixed[1] = u8::from(self.marker) << 7 | self.pt.0 & 0x7f;
        fixed[2..4].copy_from_slice(&self.seq.0.to_be_bytes());
        fixed[4..8].copy_from_slice(&self.timestamp.0.to_be_bytes());
        fixed[8..12].copy_from_slice(&self.ssrc.0.to_be_bytes());

        let mut two_byte = false;
        if map.allow_mixed {
            extensions.for_each(|extension, value| {
                two_byte |= map.id(extension).is_some_and(|id| !fits_one_byte(id, value));
            });
        }
        let block = FIXED_LEN + 4;
        let mut end = block;
        extensions.for_each(|extension, value| {
            let Some(id) = map.id(extension) else { return };
            // The last element's padding must fit as well.
            let fits = |head: usize| (end + head + value.len()).next_multiple_of(4) <= out.len();
            if two_byte {
                let Ok(len) = u8::try_from(value.len()) else { return };
                if fits(2) {
                    out[end..end + 2].copy_from_slice(&[id, len]);
                    out[end + 2..end + 2 + value.len()].copy_from_slice(value);
                    end += 2 + value.len();
                }
            } else if fits_one_byte(id, value) && fits(1) {
                out[end] = id << 4 | (value.len() - 1) as u8;
                out[end + 1..end + 1 + value.len()].copy_from_slice(value);
                end += 1 + value.len();
            }
        });
        if end == block {
            return FIXED_LEN;
        }
        let padded = end.next_multiple_of(4);
        out[end..padded].fill(0);
        let profile = if two_byte { TWO_BYTE } else { ONE_BYTE };
        let words = ((padded - block) / 4) as u16;
        out[0] |= 0x10;
        out[FIXED_LEN..FIXED_LEN + 2].copy_from_slice(&profile.to_be_bytes());
        out[FIXED_LEN + 2..block].copy_from_slice(&words.to_be_bytes());
        padded
    }
}

fn fits_one_byte(id: u8, value: &[u8]) -> bool {
    (1..=14).contains(&id) && (1..=16).contains(&value.len())
}
