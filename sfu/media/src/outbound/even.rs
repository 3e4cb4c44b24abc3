//! Packets of a frame made equally long.
//!
//! Segmentation offload takes datagrams of one size in one call, the last of which may be shorter. Encoders split a frame into
//! packets that differ by a byte (libwebrtc's `RtpPacketizer::SplitAboutEqually` makes the last ones longer), which would
//! make two calls of each frame for each receiver. Padding ([RFC 3550 section
//! 5.1](https://www.rfc-editor.org/rfc/rfc3550#section-5.1)) evens them out: receivers take it off before they look at the
//! payload.

use super::Packet;

/// Bytes that a packet is padded by at most.
pub(super) const MOST: usize = 8;

/// Padding of so many bytes, as it stands behind a payload.
static PADDING: [&[u8]; MOST + 1] = [
    &[],
    &[1],
    &[0, 2],
    &[0, 0, 3],
    &[0, 0, 0, 4],
    &[0, 0, 0, 0, 5],
    &[0, 0, 0, 0, 0, 6],
    &[0, 0, 0, 0, 0, 0, 7],
    &[0, 0, 0, 0, 0, 0, 0, 8],
];

/// The length that the payloads of a run get by padding, all but the last one's; `None` where there is nothing to even out,
/// or too much.
pub(super) fn even(run: &[Packet<'_>]) -> Option<usize> {
    let [(_, first), others @ .., (_, last)] = run else { return None };
    let (mut shortest, mut longest) = (first.len(), first.len());
    for (_, payload) in others {
        (shortest, longest) = (shortest.min(payload.len()), longest.max(payload.len()));
    }
    let len = [longest.max(last.len()), longest].into_iter().find(|len| len - shortest <= MOST)?;
    (len > shortest).then_some(len)
}

/// What a payload lacks of a length, [`MOST`] at most.
pub(super) fn padding(payload: &[u8], len: usize) -> &'static [u8] {
    PADDING[len.saturating_sub(payload.len()).min(MOST)]
}

#[cfg(test)]
mod tests {
    use super::super::test_kit::*;
    use super::*;
    use crate::ids::Remote;
    use crate::outbound::runs;
    use crate::rtp::{RtpHeader, payload_without_padding};
    use proptest::prelude::*;

    /// A frame of payloads with these lengths after the descriptor.
    fn frame(at: u32, bodies: &[usize]) -> Vec<(crate::inbound::PacketMeta, Vec<u8>)> {
        let first = u64::from(at) * 100 + 1;
        let packet = |(n, len): (usize, &usize)| {
            let mut meta = video(0, first + n as u64, at * 3000, u64::from(at) * 33);
            let (start, end) = (n == 0, n + 1 == bodies.len());
            (meta.info.frame_start, meta.info.frame_end, meta.marker) = (start, end, end);
            meta.info.key_frame = at == 0;
            let payload = vp8_payload(&mut meta, 500 + at as u16, at as u8, &vec![n as u8; *len]);
            (meta, payload)
        };
        bodies.iter().enumerate().map(packet).collect()
    }

    /// Forwards a frame; what the receiver finds in each packet, how long the packets are on the wire, and in how many messages
    /// they leave.
    fn forward(
        sub: &mut Subscriber,
        frame: &[(crate::inbound::PacketMeta, Vec<u8>)],
    ) -> (Vec<Vec<u8>>, Vec<usize>, usize) {
        let packets: Vec<Packet<'_>> = frame.iter().map(|(meta, payload)| (meta, &payload[..])).collect();
        let to = Remote::from(std::net::SocketAddr::from(([127, 0, 0, 1], 9)));
        for run in runs(&packets) {
            let Subscriber { forwarder, seal, twcc, tx, .. } = &mut *sub;
            forwarder.forward(run, seal, to, twcc, tx, run[0].0.received).unwrap();
        }
        let messages = sub.tx.runs().len();
        let sealed: Vec<Vec<u8>> = sub.tx.datagrams().map(|(_, bytes)| bytes.to_vec()).collect();
        sub.tx.clear();
        let lens = sealed.iter().map(Vec::len).collect();
        let payloads = sealed.into_iter().map(|mut packet| {
            let header = RtpHeader::parse(&packet).unwrap();
            let opened = sub.open.open_rtp(&mut packet, &header).unwrap();
            payload_without_padding(&header, &packet[opened.payload]).unwrap().to_vec()
        });
        (payloads.collect(), lens, messages)
    }

    #[test]
    fn a_frame_whose_packets_differ_by_a_byte_leaves_in_one_message() {
        let mut sub = Subscriber::vp8(7);
        for (at, (bodies, messages)) in [
            // As libwebrtc splits, as others do, and as none does.
            (vec![1000, 1000, 1000, 1001, 1001], 1),
            (vec![1001, 1001, 1000, 1000], 1),
            (vec![1000, 1008, 1003, 20], 1),
            // The last one is much longer.
            (vec![1000, 1001, 1000, 1100], 2),
            // Too much padding would be needed.
            (vec![1000, 1009, 1000], 2),
            (vec![1000], 1),
        ]
        .into_iter()
        .enumerate()
        {
            let frame = frame(at as u32, &bodies);
            let (payloads, lens, sent) = forward(&mut sub, &frame);
            assert_eq!(payloads, frame.iter().map(|(_, payload)| payload.clone()).collect::<Vec<_>>());
            assert_eq!(sent, messages, "{bodies:?}: {lens:?}");
        }
        // Octets of sender reports are those of payloads (RFC 3550 section 6.4.1).
        assert_eq!(
            sub.forwarder.stats().octets,
            [5002, 4002, 3031, 4101, 3009, 1000].iter().map(|n| n + 7).sum::<u64>() + 7 * (4 + 3 + 3 + 3 + 2)
        );
    }

    proptest! {
        #[test]
        fn receivers_get_what_was_sent_whatever_its_lengths(frames in prop::collection::vec(prop::collection::vec(0usize..40, 1..12), 1..6), cm: bool) {
            let mut sub = Subscriber::vp8(9);
            if cm {
                sub.speak_cm();
            }
            for (at, bodies) in frames.iter().enumerate() {
                let frame = frame(at as u32, bodies);
                let (payloads, lens, _) = forward(&mut sub, &frame);
                let plain: Vec<_> = frame.iter().map(|(_, payload)| payload.clone()).collect();
                let longest = plain.iter().map(Vec::len).max().unwrap();
                // None is longer than the longest would be.
                let overhead = lens.iter().zip(&plain).map(|(len, payload)| len - payload.len()).min().unwrap();
                prop_assert!(lens.iter().all(|len| *len <= longest + overhead));
                prop_assert_eq!(payloads, plain);
            }
        }
    }
}
