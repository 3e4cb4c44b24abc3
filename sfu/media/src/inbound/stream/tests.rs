//! What the stream does with packets, and the packets that other tests of this folder use.

use super::*;
use crate::command::{Codec, Extension, ExtensionMap};
use crate::inbound::MAX_DD;
use crate::rtp::{PayloadInfo, RtpHeaderOut};
use proptest::prelude::*;

const SSRC: Ssrc = Ssrc(0x0102_0304);
const RTX_SSRC: Ssrc = Ssrc(0x0506_0708);

/// A packet of audio that was received.
pub(crate) fn meta(index: u64, received: Instant) -> PacketMeta {
    PacketMeta {
        index: ExtSeq(index),
        timestamp: RtpTime(index as u32 * 960),
        marker: false,
        codec: Codec::Opus,
        clock_rate: 48_000,
        variant: 0,
        stream: 0,
        spatial: 0,
        info: PayloadInfo {
            frame_start: true,
            frame_end: true,
            key_frame: true,
            spatial: 0,
            temporal: 0,
            switch_up: false,
            inter_layer: false,
            picture_id: None,
            tl0_pic_idx: None,
        },
        opaque: false,
        audio_level: None,
        orientation: None,
        playout_delay: None,
        dd: ArrayVec::<u8, MAX_DD>::new(),
        frame: None,
        received,
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn vp8() -> CodecParams {
    CodecParams { pt: Pt(96), codec: Codec::Vp8, clock_rate: 90_000, rtx: Some(Pt(97)), variant: 0 }
}

fn opus() -> CodecParams {
    CodecParams { pt: Pt(111), codec: Codec::Opus, clock_rate: 48_000, rtx: None, variant: 0 }
}

fn stream(kind: MediaKind, require_encryption: bool, now: Instant) -> InboundStream {
    let policy = TrackPolicy { require_encryption, muted: false };
    let config =
        InboundConfig { ssrc: SSRC, kind, codecs: vec![vp8(), opus()], simulcast: None, policy, nack: true };
    InboundStream::new(config, now)
}

/// Feeds one packet; `osn` makes it a retransmission.
struct Feed<'a> {
    stream: &'a mut InboundStream,
    released: Vec<u64>,
}

impl Feed<'_> {
    fn packet(
        &mut self,
        index: u64,
        pt: u8,
        marker: bool,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        self.send(index, pt, SSRC, marker, 0, payload, now)
    }

    fn rtx(&mut self, index: u64, marker: bool, payload: &[u8], now: Instant) -> Result<(), DropReason> {
        let body = [&rtx::osn(ExtSeq(index).seq())[..], payload].concat();
        self.send(index, 97, RTX_SSRC, marker, 0, &body, now)
    }

    #[expect(clippy::too_many_arguments, reason = "one packet in its parts")]
    fn send(
        &mut self,
        index: u64,
        pt: u8,
        ssrc: Ssrc,
        marker: bool,
        padding: u8,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let mut map = ExtensionMap::default();
        map.set(Extension::AudioLevel, 1);
        let timestamp = RtpTime((index / 3) as u32 * 3000);
        let out = RtpHeaderOut { marker, pt: Pt(pt), seq: ExtSeq(index).seq(), timestamp, ssrc };
        let mut packet = vec![0; 600];
        let len = out.write(&mut packet, &ExtensionValues::default(), &map);
        packet.truncate(len);
        if padding > 0 {
            packet[0] |= 0x20;
        }
        packet.extend_from_slice(payload);
        packet.extend(std::iter::repeat_n(padding, usize::from(padding)));
        let header = RtpHeader::parse(&packet).unwrap();
        let ext = ExtensionValues::read(&header, &packet, &map);
        let mut released = Vec::new();
        let payload = &packet[header.header_len..];
        let result = if ssrc == SSRC {
            self.stream.accept(&header, ExtSeq(index), payload, &ext, now, &mut released)
        } else {
            self.stream.accept_rtx(&header, payload, &ext, now, &mut released)
        };
        self.released.extend(released.iter().map(|i| i.0));
        result
    }
}

/// VP8 descriptor with a 15-bit picture id, then frame bytes.
fn vp8_payload(start: bool, key: bool, picture: u16, rest: &[u8]) -> Vec<u8> {
    let [hi, lo] = (picture | 0x8000).to_be_bytes();
    let mut p = vec![0x80 | u8::from(start) << 4, 0x80, hi, lo, u8::from(!key)];
    p.extend_from_slice(rest);
    p
}

fn trailer(key: u8) -> Vec<u8> {
    let mut t = vec![0xaa; 32];
    t.extend(SSRC.0.to_be_bytes());
    t.extend([1; 8]);
    t.extend([12, key]);
    t
}

#[test]
fn padding_is_received_but_not_forwarded() {
    let t = crate::sim::clock::epoch();
    let mut s = stream(MediaKind::Video, true, t);
    let mut feed = Feed { stream: &mut s, released: vec![] };
    let whole = vp8_payload(true, true, 1, &trailer(0));
    assert_eq!(feed.packet(30, 96, true, &whole, t), Ok(()));
    assert_eq!(feed.send(31, 96, SSRC, false, 200, &[], t), Err(DropReason::Padding));
    assert_eq!(feed.send(32, 96, SSRC, true, 9, &whole, t), Ok(()));
    assert_eq!(feed.released, [30, 32]);
    assert_eq!(s.store().get(ExtSeq(32)).unwrap().1, whole);
    assert!(s.poll_nacks(t + ms(100), None).is_empty());
    assert_eq!(s.take_quality(), (3, 0));
    assert_eq!(s.poll_timeout(t), None);
}

#[test]
fn a_lost_packet_is_asked_for_and_comes_by_rtx_once() {
    let t = crate::sim::clock::epoch();
    let mut s = stream(MediaKind::Video, false, t);
    let mut feed = Feed { stream: &mut s, released: vec![] };
    assert_eq!(feed.rtx(65_535, false, b"early", t), Err(DropReason::RtxUseless));
    for i in [65_534u64, 65_535, 65_537] {
        let p = vp8_payload(true, false, i as u16, &i.to_be_bytes());
        feed.packet(i, 96, true, &p, t).unwrap();
    }
    assert_eq!(feed.stream.poll_nacks(t + ms(10), Some(ms(40))), [SeqNo(0)]);
    let lost = vp8_payload(true, false, 5, b"lost");
    assert_eq!(feed.rtx(65_536, true, &lost, t + ms(60)), Ok(()));
    assert_eq!(feed.rtx(65_536, true, &lost, t + ms(61)), Err(DropReason::RtxUseless));
    assert_eq!(feed.packet(65_536, 96, true, &lost, t + ms(62)), Err(DropReason::Duplicate));
    assert_eq!(feed.send(65_538, 97, RTX_SSRC, false, 220, &[], t), Err(DropReason::Padding));
    assert_eq!(feed.send(65_538, 97, RTX_SSRC, false, 0, &[1], t), Err(DropReason::RtpMalformed));
    assert_eq!(feed.released, [65_534, 65_535, 65_537, 65_536]);
    let (meta, payload) = s.store().get(ExtSeq(65_536)).unwrap();
    assert_eq!((meta.marker, meta.info.picture_id, payload), (true, Some(5), &lost[..]));
    assert_eq!(s.stats().recovered, 1);
    assert!(s.poll_nacks(t + ms(500), Some(ms(40))).is_empty());
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let t = crate::sim::clock::epoch();
    let mut s = stream(MediaKind::Video, false, t);
    let mut feed = Feed { stream: &mut s, released: vec![] };
    assert_eq!(feed.packet(9, 100, true, b"abc", t), Err(DropReason::UnknownPayloadType));
    assert_eq!(feed.packet(9, 97, true, b"abc", t), Err(DropReason::UnknownPayloadType));
    assert_eq!(feed.send(9, 96, SSRC, false, 9, b"", t), Err(DropReason::Padding));
    assert_eq!(feed.packet(10, 96, true, &[0x90, 0x80], t), Err(DropReason::RtpMalformed));
    assert!(feed.released.is_empty());
}

#[test]
fn muting_refuses_and_forgets() {
    let t = crate::sim::clock::epoch();
    let mut s = stream(MediaKind::Audio, false, t);
    let mut feed = Feed { stream: &mut s, released: vec![] };
    feed.packet(1, 111, false, b"abc", t).unwrap();
    feed.stream.set_policy(TrackPolicy { require_encryption: false, muted: true });
    assert_eq!(feed.packet(4, 111, false, b"abc", t), Err(DropReason::Muted));
    assert!(feed.stream.store().get(ExtSeq(1)).is_none());
    assert!(feed.stream.poll_nacks(t + ms(50), None).is_empty());
    feed.stream.set_policy(TrackPolicy { require_encryption: false, muted: false });
    feed.packet(5, 111, false, b"abc", t).unwrap();
    assert_eq!(feed.released, [1, 5]);
}

#[test]
fn a_gap_in_a_muted_stream_leaves_no_deadline() {
    let t = crate::sim::clock::epoch();
    let mut stream = stream(MediaKind::Video, false, t);
    stream.set_policy(TrackPolicy { require_encryption: false, muted: true });
    let mut feed = Feed { stream: &mut stream, released: vec![] };
    for index in [10, 12, 40] {
        let payload = vp8_payload(true, false, 1, b"x");
        assert_eq!(feed.packet(index, 96, true, &payload, t), Err(DropReason::Muted));
    }
    assert_eq!(stream.poll_timeout(t), None);
    assert!(stream.poll_nacks(t + ms(100), None).is_empty());
    assert_eq!(stream.poll_timeout(t + ms(100)), None);
}

#[test]
fn a_key_frame_answers_the_requests_before_it() {
    let t = crate::sim::clock::epoch();
    let mut s = stream(MediaKind::Video, false, t);
    s.request_key_frame();
    assert!(s.poll_key_frame(t));
    s.request_key_frame();
    assert_eq!(s.poll_timeout(t), Some(t + ms(500)));
    let mut feed = Feed { stream: &mut s, released: vec![] };
    feed.packet(1, 96, true, &vp8_payload(true, true, 1, b"key"), t + ms(100)).unwrap();
    assert!(!s.poll_key_frame(t + ms(600)));
    assert_eq!((s.stats().key_frames, s.stats().key_frame_requests), (1, 1));
}

#[test]
fn a_late_joiner_starts_at_a_young_key_frame_that_is_whole() {
    let t = crate::sim::clock::epoch();
    let mut s = stream(MediaKind::Video, false, t);
    let mut feed = Feed { stream: &mut s, released: vec![] };
    let frame = |index: u64, key| vp8_payload(true, key, index as u16, &index.to_be_bytes());
    feed.packet(9, 96, true, &frame(9, false), t).unwrap();
    assert_eq!(feed.stream.since_key_frame(t), None, "no key frame");
    for index in [10, 11, 13] {
        feed.packet(index, 96, true, &frame(index, index == 10), t + ms(index)).unwrap();
    }
    assert_eq!(feed.stream.since_key_frame(t + ms(20)), None, "12 is missing");
    feed.rtx(12, true, &frame(12, false), t + ms(30)).unwrap();
    assert_eq!(feed.stream.since_key_frame(t + ms(310)), Some((ExtSeq(10), ExtSeq(13))));
    assert_eq!(feed.stream.since_key_frame(t + ms(311)), None, "too old");
    feed.packet(14, 96, true, &frame(14, true), t + ms(400)).unwrap();
    assert_eq!(feed.stream.since_key_frame(t + ms(400)), Some((ExtSeq(14), ExtSeq(14))));
    feed.stream.set_policy(TrackPolicy { require_encryption: true, muted: false });
    assert_eq!(feed.stream.since_key_frame(t + ms(400)), None, "it passed under other rules");
}

#[test]
fn a_descriptor_without_its_structure_asks_for_a_key_frame_and_is_not_passed_on() {
    let t = crate::sim::clock::epoch();
    let mut s = stream(MediaKind::Video, false, t);
    let payload = vp8_payload(true, false, 1, b"x");
    let header = RtpHeaderOut { marker: true, pt: Pt(96), seq: SeqNo(5), timestamp: RtpTime(0), ssrc: SSRC };
    let mut bytes = vec![0; 40];
    let len = header.write(&mut bytes, &ExtensionValues::default(), &ExtensionMap::default());
    bytes.truncate(len);
    bytes.extend(&payload);
    let header = RtpHeader::parse(&bytes).unwrap();
    let ext = ExtensionValues { dependency_descriptor: Some(&[0xc0, 0, 1]), ..Default::default() };
    let mut released = vec![];
    s.accept(&header, ExtSeq(5), &payload, &ext, t, &mut released).unwrap();
    let (meta, _) = s.store().get(released[0]).unwrap();
    assert!(meta.dd.is_empty() && meta.frame.is_none());
    assert!(s.poll_key_frame(t));
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(
        packets in prop::collection::vec(
            (any::<u16>(), 0u8..4, any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 1..200),
        required in any::<bool>(),
    ) {
        let t = crate::sim::clock::epoch();
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let mut s = stream(kind, required, t);
            let mut feed = Feed { stream: &mut s, released: vec![] };
            let mut highest = 40_000;
            for (i, (seq, pt, marker, is_rtx, payload)) in packets.iter().enumerate() {
                let index = ExtSeq::nearest(ExtSeq(highest), SeqNo(*seq)).0;
                let now = t + ms(i as u64 * 7);
                let pt = [96, 97, 111, 5][usize::from(*pt)];
                let ssrc = if *is_rtx { RTX_SSRC } else { SSRC };
                let _ = feed.send(index, pt, ssrc, *marker, 0, payload, now);
                let mut released = Vec::new();
                feed.stream.handle_timeout(now, &mut released);
                let _ = (feed.stream.poll_nacks(now, None).len(), feed.stream.poll_timeout(now), feed.stream.report_block(now));
                if !*is_rtx { highest = highest.max(index); }
                for i in feed.released.drain(..) {
                    prop_assert!(feed.stream.store().contains(ExtSeq(i)));
                }
            }
        }
    }
}
