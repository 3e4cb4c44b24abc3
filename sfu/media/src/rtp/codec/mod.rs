//! What RTP payloads show without being decrypted.
//!
//! Frames are encrypted end to end before packetisation. So only the RTP payload descriptors can be read, and the few
//! bytes of a frame that the cryptor leaves clear: the first of a VP8 frame, the NAL headers of H264.

mod av1;
mod bits;
mod dd;
mod h264;
mod vp8;
mod vp9;

use arrayvec::ArrayVec;

use crate::command::Codec;
use crate::drop_reason::DropReason;

#[cfg(test)]
pub(crate) use dd::test_writer as dd_writer;
pub use dd::{
    DdError, DdInfo, DdReader, DecodeTarget, Indication, Indications, MAX_CHAINS, MAX_REFERENCES,
    MAX_REWRITTEN, MAX_TARGETS, attached_targets, rewrite_dd,
};

/// What one packet shows about its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadInfo {
    /// First packet of a frame; with spatial layers, of a layer's frame. Always true for audio.
    pub frame_start: bool,
    /// Last packet of a frame; with spatial layers, of a layer's frame. Always true for audio.
    pub frame_end: bool,
    /// The packet shows that it belongs to a key frame: surely seen on its first packet, not always on the others.
    /// Together with `frame_start` a receiver may be switched here. Always true for audio.
    ///
    /// H264 without a Dependency Descriptor: the frame starts where its SPS comes.
    pub key_frame: bool,
    /// Spatial layer inside this RTP stream (SVC).
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// More temporal layers may be added here. VP8 (Y bit): the frame refers to none but the temporal base. VP9 (U bit):
    /// later pictures of higher temporal layers refer to none of those layers from before this picture.
    pub switch_up: bool,
    /// VP9: the frame refers to the spatial layer below in its picture.
    pub inter_layer: bool,
    /// VP8 and VP9: the picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// VP8 and VP9: index of the current temporal base picture.
    pub tl0_pic_idx: Option<u8>,
}

impl PayloadInfo {
    /// Every audio packet is a frame that needs no other.
    const AUDIO: PayloadInfo = PayloadInfo {
        frame_start: true,
        frame_end: true,
        key_frame: true,
        spatial: 0,
        temporal: 0,
        switch_up: false,
        inter_layer: false,
        picture_id: None,
        tl0_pic_idx: None,
    };
}

/// Looks at a payload (without padding) of a packet with this marker bit and, when it had the extension and
/// [`DdReader`] could read it, this Dependency Descriptor.
///
/// Where there is a Dependency Descriptor it decides: it is not part of the frame, so that no cryptor touches it. VP9
/// says the same in its own descriptor, which decides there.
///
/// # Errors
/// [`DropReason::Padding`] for an empty payload, [`DropReason::RtpMalformed`] for a descriptor that the payload does not
/// hold or that the specification excludes.
pub fn inspect(
    codec: Codec,
    payload: &[u8],
    marker: bool,
    dd: Option<&DdInfo>,
) -> Result<PayloadInfo, DropReason> {
    if payload.is_empty() {
        return Err(DropReason::Padding);
    }
    match codec {
        Codec::Opus | Codec::Red => Ok(PayloadInfo::AUDIO),
        Codec::Vp8 => vp8::inspect(payload, marker, dd),
        Codec::Vp9 => vp9::inspect(payload, marker),
        Codec::Av1 => av1::inspect(payload, marker, dd),
        Codec::H264 => h264::inspect(payload, marker, dd),
    }
}

/// Writes a payload descriptor's start with other numbers in it to `out`, and returns how many bytes of the payload
/// `out` stands for. So the new payload is `out` and `payload[returned..]`.
///
/// A number is replaced where the descriptor has one and the argument is given; a picture id is then written in 15 bits
/// whatever it had, since a rewriter's range does not follow one publisher's choice. For other codecs than VP8 and VP9,
/// and for malformed descriptors, `out` is empty and 0 is returned.
pub fn rewrite_descriptor(
    codec: Codec,
    payload: &[u8],
    picture_id: Option<u16>,
    tl0_pic_idx: Option<u8>,
    out: &mut ArrayVec<u8, 16>,
) -> usize {
    out.clear();
    let replaced = match codec {
        Codec::Vp8 => vp8::rewrite(payload, picture_id, tl0_pic_idx, out),
        Codec::Vp9 => vp9::rewrite(payload, picture_id, tl0_pic_idx, out),
        Codec::Opus | Codec::Red | Codec::Av1 | Codec::H264 => None,
    };
    replaced.unwrap_or_else(|| {
        out.clear();
        0
    })
}

/// A picture id as found in a VP8 or VP9 descriptor: 7 bits in one byte, or 15 bits in two when the M bit is set.
fn read_picture_id(bytes: &[u8]) -> Option<(u16, usize)> {
    match *bytes {
        [hi, lo, ..] if hi & 0x80 != 0 => Some((u16::from_be_bytes([hi & 0x7f, lo]), 2)),
        [id, ..] if id & 0x80 == 0 => Some((u16::from(id), 1)),
        _ => None,
    }
}

/// Appends `new` in 15 bits, or the old one as it was, and returns the length of the old one.
fn rewrite_picture_id(old: &[u8], new: Option<u16>, out: &mut ArrayVec<u8, 16>) -> Option<usize> {
    let (_, len) = read_picture_id(old)?;
    match new {
        Some(id) => out.try_extend_from_slice(&(id | 0x8000).to_be_bytes()).ok()?,
        None => out.try_extend_from_slice(old.get(..len)?).ok()?,
    }
    Some(len)
}
