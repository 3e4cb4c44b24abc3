//! VP8 in RTP ([RFC 7741](https://www.rfc-editor.org/rfc/rfc7741)): cutting frames into packets and finding frames in them.

use std::sync::Arc;

/// Largest payload of a packet: what is left of a 1200-byte datagram after RTP, its extensions and the tag.
pub const MAX_PAYLOAD: usize = 1120;
/// Bytes of the payload descriptor that every packet begins with.
pub const HEADER: usize = 6;

/// What the payload descriptor says of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// 15-bit picture number.
    pub picture: u16,
    /// Running number of temporal layer 0.
    pub tl0: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// No frame needs it.
    pub discardable: bool,
}

/// Cuts a frame into payloads of nearly equal size of at most `largest` bytes, as libwebrtc does, and hands out each with whether it is the last.
pub fn packetize(frame: &[u8], d: Descriptor, largest: usize, mut each: impl FnMut(Arc<[u8]>, bool)) {
    let count = frame.len().div_ceil(largest - HEADER).max(1);
    let mut buffer = Vec::with_capacity(largest);
    let mut rest = frame;
    for index in 0..count {
        let (part, after) = rest.split_at(rest.len().div_ceil(count - index));
        rest = after;
        let start = u8::from(index == 0) << 4;
        let picture = (d.picture | 0x8000).to_be_bytes();
        buffer.clear();
        // X, N, S, PID = 0; then I, L, T; the picture number in 15 bits; TL0PICIDX; TID and, in layers above, Y.
        buffer.extend_from_slice(&[
            0x80 | u8::from(d.discardable) << 5 | start,
            0xe0,
            picture[0],
            picture[1],
            d.tl0,
            d.temporal << 6 | u8::from(d.temporal == 1) << 5,
        ]);
        buffer.extend_from_slice(part);
        each(Arc::from(&buffer[..]), index + 1 == count);
    }
}

/// Splits a payload: whether a frame starts here, and the frame's bytes. `None` for what is no VP8 payload.
pub fn depacketize(payload: &[u8]) -> Option<(bool, &[u8])> {
    let (&first, mut rest) = payload.split_first()?;
    let starts = first & 0x1f == 0x10;
    if first & 0x80 != 0 {
        let (&more, after) = rest.split_first()?;
        rest = after;
        if more & 0x80 != 0 {
            let long = rest.first()? & 0x80 != 0;
            rest = rest.get(if long { 2 } else { 1 }..)?;
        }
        if more & 0x40 != 0 {
            rest = rest.get(1..)?;
        }
        if more & 0x30 != 0 {
            rest = rest.get(1..)?;
        }
    }
    (!rest.is_empty()).then_some((starts, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_from_its_packets() {
        for len in [1, 5, 1114, 1115, 5000, 40_000] {
            let frame: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let d = Descriptor { picture: 0x7abc, tl0: 3, temporal: 1, discardable: false };
            let mut back = Vec::new();
            let mut packets = Vec::new();
            packetize(&frame, d, MAX_PAYLOAD, |payload, last| packets.push((payload, last)));
            for (i, (payload, last)) in packets.iter().enumerate() {
                assert!(payload.len() <= MAX_PAYLOAD);
                assert_eq!(*last, i + 1 == packets.len());
                let (starts, bytes) = depacketize(payload).unwrap();
                assert_eq!(starts, i == 0);
                back.extend_from_slice(bytes);
            }
            assert_eq!(back, frame);
        }
    }

    #[test]
    fn cut_descriptors_are_refused() {
        for bad in [&[][..], &[0x90], &[0x90, 0x80], &[0x90, 0x80, 0x80, 0], &[0x90, 0xf0, 1, 2], &[0x10]] {
            assert_eq!(depacketize(bad), None, "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_payload_is_split_or_refused(payload in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            if let Some((_, body)) = depacketize(&payload) {
                proptest::prop_assert!(!body.is_empty() && payload.ends_with(body));
            }
        }
    }
}
