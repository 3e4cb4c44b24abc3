//! Retransmission payloads ([RFC 4588 section 4](https://www.rfc-editor.org/rfc/rfc4588#section-4)): the original
//! sequence number (OSN) in two bytes, then the original payload.

use crate::ids::SeqNo;

/// Bytes that stand before the original payload.
pub const OSN_LEN: usize = 2;

/// Splits a retransmission's payload, without padding, into the original sequence number and payload.
///
/// `None` for a payload too short: bandwidth probes on the RTX stream have none at all.
pub fn split(payload: &[u8]) -> Option<(SeqNo, &[u8])> {
    let (osn, rest) = payload.split_first_chunk::<OSN_LEN>()?;
    Some((SeqNo(u16::from_be_bytes(*osn)), rest))
}

/// What stands before the original payload.
pub fn osn(seq: SeqNo) -> [u8; OSN_LEN] {
    seq.0.to_be_bytes()
}
