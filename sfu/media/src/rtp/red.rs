//! Redundant audio ([RFC 2198](https://www.rfc-editor.org/rfc/rfc2198)): headers of all blocks, then their data, oldest
//! first, the primary last.
//!
//! ```text
//! redundant block:  |1|   block PT  |  timestamp offset (14)    |   length (10)     |
//! primary block:    |0|   block PT  |
//! ```

use crate::drop_reason::DropReason;
use crate::ids::Pt;

/// More redundancy than any sender uses.
const MAX_BLOCKS: usize = 32;

/// One block of a RED payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedBlock<'a> {
    /// Payload type of the block's codec.
    pub pt: Pt,
    /// How much earlier than the packet's timestamp the block was sampled, in clock units; 0 for the primary.
    pub timestamp_offset: u16,
    /// The codec's payload.
    pub payload: &'a [u8],
}

/// The blocks of a payload, the primary last.
///
/// # Errors
/// [`DropReason::RtpMalformed`] when the headers have no end or announce more than the payload holds.
pub fn blocks(payload: &[u8]) -> Result<RedBlocks<'_>, DropReason> {
    let mut heads = 0;
    let mut redundant = 0;
    loop {
        match payload.get(heads..) {
            Some(&[b0, _, b2, b3, ..]) if b0 & 0x80 != 0 && heads < 4 * MAX_BLOCKS => {
                redundant += usize::from(u16::from_be_bytes([b2, b3]) & 0x03ff);
                heads += 4;
            }
            Some(&[b0, ..]) if b0 & 0x80 == 0 => break,
            _ => return Err(DropReason::RtpMalformed),
        }
    }
    let (heads, data) = payload.split_at(heads + 1);
    if data.len() < redundant {
        return Err(DropReason::RtpMalformed);
    }
    Ok(RedBlocks { heads, data })
}

/// The primary block of a payload.
///
/// # Errors
/// As [`blocks`].
pub fn primary(payload: &[u8]) -> Result<RedBlock<'_>, DropReason> {
    blocks(payload)?.last().ok_or(DropReason::RtpMalformed)
}

/// The blocks of one payload, checked.
#[derive(Debug, Clone)]
pub struct RedBlocks<'a> {
    heads: &'a [u8],
    data: &'a [u8],
}

impl<'a> Iterator for RedBlocks<'a> {
    type Item = RedBlock<'a>;

    fn next(&mut self) -> Option<RedBlock<'a>> {
        match *self.heads {
            [b0, b1, b2, b3, ref heads @ ..] => {
                let (payload, data) =
                    self.data.split_at_checked(usize::from(u16::from_be_bytes([b2, b3]) & 0x03ff))?;
                (self.heads, self.data) = (heads, data);
                let timestamp_offset = u16::from_be_bytes([b1, b2]) >> 2;
                Some(RedBlock { pt: Pt(b0 & 0x7f), timestamp_offset, payload })
            }
            [b0] => {
                self.heads = &[];
                Some(RedBlock {
                    pt: Pt(b0 & 0x7f),
                    timestamp_offset: 0,
                    payload: std::mem::take(&mut self.data),
                })
            }
            _ => None,
        }
    }
}
