use super::*;
use crate::command::TrackPolicy;
use crate::ids::RtpTime;
use crate::inbound::{InboundConfig, InboundStream};
use crate::outbound::test_kit::{
    RTX_SSRC, SSRC, Subscriber, inner, key, ms, params, start, temporal, video, vp8_payload,
};
use crate::rtp::RtpHeader;
use proptest::prelude::*;

fn audio(index: u64, codec: Codec, opaque: bool) -> PacketMeta {
    let mut meta = key(video(0, index, index as u32 * 960, index * 20));
    (meta.codec, meta.clock_rate, meta.opaque) = (codec, 48_000, opaque);
    meta.marker = false;
    meta
}

#[test]
fn first_numbers_leave_room_for_the_rollover_counter() {
    for seed in 0..200 {
        let mut s = Subscriber::vp8(seed);
        let got = s.forward(&key(video(0, 9, 0, 0)), &[0x10, 0, 1]).unwrap();
        assert!((2..0x8000).contains(&got.index), "{}", got.index);
        assert_eq!((got.ssrc, got.pt), (SSRC, 96));
    }
}

#[test]
fn the_rollover_counter_goes_on_at_both_ends() {
    let mut s = Subscriber::vp8(1);
    let mut store = PacketStore::new(MediaKind::Video);
    let mut first = None;
    for i in 0..70_000u64 {
        let mut meta = video(0, 65_000 + i, i as u32 * 3000, i);
        meta.info.key_frame = i == 0;
        let payload = [&[0x10, 1][..], &i.to_be_bytes()].concat();
        store.insert(&meta, &payload).unwrap();
        let got = s.forward(&meta, &payload).unwrap();
        let first = *first.get_or_insert(got.index);
        assert_eq!((got.index, &got.payload[..]), (first + i, &payload[..]));
        if i % 1000 == 7 {
            let lost = ExtSeq(first + i - 5).seq();
            let again = s.retransmit(lost, &[&store], meta.received).unwrap();
            assert_eq!((again.ssrc, again.pt), (RTX_SSRC, 97));
            assert_eq!(again.payload[..2], lost.0.to_be_bytes());
            assert_eq!(again.payload[4..], (i - 5).to_be_bytes());
        }
    }
    // Every packet has the next transport-wide number.
    assert!(s.transport_cc.windows(2).all(|w| w[1] == w[0].wrapping_add(1)));
    assert_eq!(s.forwarder.stats().retransmitted, 70);
}

#[test]
fn retransmissions_are_throttled_and_bounded() {
    let t = start();
    let mut s = Subscriber::vp8(2);
    let mut store = PacketStore::new(MediaKind::Video);
    assert_eq!(s.retransmit(SeqNo(5), &[&store], t), Err(DropReason::RtxUseless));
    let meta = key(video(0, 1, 0, 0));
    store.insert(&meta, &[0x10, 0, 9]).unwrap();
    let out = SeqNo(s.forward(&meta, &[0x10, 0, 9]).unwrap().index as u16);
    assert!(s.retransmit(out, &[&store], t).is_ok());
    assert_eq!(s.retransmit(out, &[&store], t + ms(49)), Err(DropReason::RtxUseless));
    assert!(s.retransmit(out, &[&store], t + ms(50)).is_ok());
    assert_eq!(s.retransmit(out, &[], t + ms(200)), Err(DropReason::TooOld));
    assert_eq!(s.retransmit(out, &[&store], t + ms(3001)), Err(DropReason::TooOld));
    assert_eq!(s.retransmit(SeqNo(out.0 + 1), &[&store], t + ms(200)), Err(DropReason::RtxUseless));
    assert_eq!(s.retransmit(SeqNo(out.0 - 1), &[&store], t + ms(200)), Err(DropReason::RtxUseless));
    // Another stream under the same place: its packets are not this one's.
    s.forwarder.replace_stream(0);
    assert_eq!(s.retransmit(out, &[&store], t + ms(300)), Err(DropReason::RtxUseless));
    // Once 1024 newer ones went out.
    for i in 2..1026u64 {
        s.forward(&key(video(0, i, i as u32 * 3000, 400)), &[0x10, 0, 9]).unwrap();
    }
    assert_eq!(s.retransmit(out, &[&store], t + ms(400)), Err(DropReason::TooOld));
}

#[test]
fn a_receiver_that_claims_no_round_trip_gets_no_flood() {
    let t = start();
    let mut s = Subscriber::vp8(2);
    let mut store = PacketStore::new(MediaKind::Video);
    let meta = key(video(0, 1, 0, 0));
    store.insert(&meta, &[0x10, 0, 9]).unwrap();
    let out = SeqNo(s.forward(&meta, &[0x10, 0, 9]).unwrap().index as u16);
    let report = SenderReport { ntp: 7 << 32, rtp: RtpTime(0), arrival: t };
    s.forwarder.handle_sender_report(0, report);
    let info = s.forwarder.sender_report(t, &NtpClock::new(t, Duration::ZERO)).unwrap();
    // A delay longer than all the time that went by.
    let block = ReportBlock {
        ssrc: s.forwarder.ssrc(),
        fraction_lost: 0,
        lost: 0,
        highest_seq: 0,
        jitter: 0,
        last_sr: (info.ntp >> 16) as u32,
        delay_since_last_sr: u32::MAX,
    };
    s.forwarder.handle_report_block(&block, t + ms(1));
    assert_eq!(s.forwarder.receiver_view().rtt, Some(Duration::ZERO));
    let asked_at_once = (0..100).filter(|_| s.retransmit(out, &[&store], t + ms(2)).is_ok()).count();
    assert_eq!(asked_at_once, 1);
    let asked_on = (3..3000).filter(|at| s.retransmit(out, &[&store], t + ms(*at)).is_ok()).count();
    assert_eq!(asked_on, 9);
}

#[test]
fn the_payload_type_is_the_subscribers() {
    const BASELINE: u32 = 0x42 << 8;
    const HIGH: u32 = 0x64 << 8;
    let all = vec![
        params(96, Codec::Vp8, 0),
        params(98, Codec::Vp9, 0),
        params(102, Codec::H264, BASELINE | 1),
        params(104, Codec::H264, BASELINE),
        params(106, Codec::H264, HIGH | 1),
    ];
    let only_high = vec![params(106, Codec::H264, HIGH | 1)];
    for (codecs, codec, variant, want) in [
        (&all, Codec::Vp8, 0, Some(96)),
        (&all, Codec::Vp9, 0, Some(98)),
        (&all, Codec::Vp9, 2, None),
        (&all, Codec::Av1, 0, None),
        (&all, Codec::H264, BASELINE | 1, Some(102)),
        (&all, Codec::H264, BASELINE, Some(104)),
        (&all, Codec::H264, HIGH, None),
        (&all, Codec::H264, 0x4d << 8 | 1, Some(106)),
        (&only_high, Codec::H264, BASELINE | 1, Some(106)),
        (&only_high, Codec::H264, BASELINE, None),
    ] {
        let mut s = Subscriber::new(MediaKind::Video, codecs.clone(), 3);
        let mut meta = key(video(0, 1, 0, 0));
        (meta.codec, meta.variant) = (codec, variant);
        let got = s.forward(&meta, &[0x65, 0x88, 0x80, 1]).map(|g| g.pt);
        assert_eq!(got, want.ok_or(DropReason::CodecNotNegotiated), "{codec:?} {variant:#x}");
    }
}

#[test]
fn red_is_taken_apart_only_where_it_is_not_encrypted() {
    let red = [0x80 | 111, 0x0f, 0, 3, 111, b'o', b'l', b'd', b'n', b'e', b'w'];
    let opus = vec![params(111, Codec::Opus, 0)];
    let both = vec![params(111, Codec::Opus, 0), params(63, Codec::Red, 0)];
    for (codecs, opaque, want) in [
        (&both, true, Ok((63, red.to_vec()))),
        (&both, false, Ok((63, red.to_vec()))),
        (&opus, false, Ok((111, b"new".to_vec()))),
        (&opus, true, Err(DropReason::CodecNotNegotiated)),
    ] {
        let mut s = Subscriber::new(MediaKind::Audio, codecs.clone(), 4);
        let got = s.forward(&audio(1, Codec::Red, opaque), &red);
        assert_eq!(got.map(|g| (g.pt, g.payload)), want);
    }
    let mut s = Subscriber::new(MediaKind::Audio, opus, 4);
    let broken = &red[..6];
    assert_eq!(s.forward(&audio(1, Codec::Red, false), broken), Err(DropReason::RtpMalformed));
}

#[test]
fn a_simulcast_switch_is_seamless() {
    let mut s = Subscriber::vp8(5);
    s.target(1, 9);
    let report =
        |ntp_ms: u64, rtp| SenderReport { ntp: (ntp_ms << 32) / 1000, rtp: RtpTime(rtp), arrival: start() };
    s.forwarder.handle_sender_report(0, report(1000, 0));
    s.forwarder.handle_sender_report(1, report(1000, 7_000_000));
    let mut got = vec![];
    for i in 0..30u64 {
        for stream in [0u8, 1] {
            // Layer 1 has its key frames at 4 and 20; the first comes before layer 0's, so it is left for nothing.
            let index = 1000 * (u64::from(stream) + 1) + i;
            let base = [0u32, 7_000_000][usize::from(stream)];
            let mut meta = video(stream, index, base + i as u32 * 3000, i * 33 + u64::from(stream));
            meta.info.key_frame = (stream == 0 && i == 2) || (stream == 1 && i == 10);
            let picture = [300u16, 9_000][usize::from(stream)] + i as u16;
            let payload = vp8_payload(&mut meta, picture, i as u8, &[stream, i as u8]);
            match s.forward(&meta, &payload) {
                Ok(g) => got.push(g),
                Err(reason) => assert!(
                    matches!(reason, DropReason::LayerNotSelected | DropReason::WaitingForKeyFrame),
                    "{reason:?}"
                ),
            }
        }
        assert_eq!(s.forwarder.wants_key_frame(), (i < 10).then_some(1), "{i}");
    }
    let tags: Vec<_> = got.iter().map(|g| (g.payload[7], g.payload[8])).collect();
    let mut want: Vec<_> = (2..=10u8).map(|i| (0, i)).collect();
    want.extend((10..30u8).map(|i| (1, i)));
    assert_eq!(tags, want);
    for (i, w) in got.windows(2).enumerate() {
        assert_eq!(w[1].index, w[0].index + 1);
        // Both streams have the frame of the switch: it may not have the same timestamp twice.
        let step = if i == 8 { 1 } else { 3000 };
        assert_eq!(w[1].timestamp.wrapping_sub(w[0].timestamp), step, "{i}");
        let picture =
            |g: &crate::outbound::test_kit::Got| u16::from_be_bytes([g.payload[2], g.payload[3]]) & 0x7fff;
        assert_eq!(picture(&w[1]), picture(&w[0]) + 1);
        assert_eq!(w[1].payload[4], w[0].payload[4].wrapping_add(1));
    }
    assert_eq!(s.forwarder.stats().switches, 2);
}

#[test]
fn h264_streams_follow_each_other_at_parameter_sets() {
    // SPS and PPS in one packet, then fragments of an IDR picture; slices of one packet else.
    const SETS: &[u8] = &[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce];
    const FRAGMENT: &[u8] = &[0x7c, 0x85, 0x88];
    const SLICE: &[u8] = &[0x61, 0x9a, 0x01];
    let mut s = Subscriber::new(MediaKind::Video, vec![params(102, Codec::H264, 0x4200 | 1)], 5);
    s.target(1, 9);
    let mut index = [100, 900];
    let mut got = vec![];
    for picture in 0..12u64 {
        for stream in [0u8, 1] {
            let is_key = (stream == 0 && picture == 2) || (stream == 1 && picture == 6);
            let payloads = if is_key { &[SETS, FRAGMENT][..] } else { &[SLICE] };
            for (i, payload) in payloads.iter().enumerate() {
                let at = &mut index[usize::from(stream)];
                *at += 1;
                let mut meta = video(stream, *at, picture as u32 * 3000, picture * 33 + u64::from(stream));
                (meta.codec, meta.variant, meta.marker) = (Codec::H264, 0x4200 | 1, i + 1 == payloads.len());
                meta.info = crate::rtp::inspect(Codec::H264, payload, meta.marker, None).unwrap();
                if let Ok(g) = s.forward(&meta, payload) {
                    got.push((g.index, stream, picture, g.marker));
                }
            }
        }
        // Where the sets are missing it has no way in.
        assert_eq!(s.forwarder.wants_key_frame().is_some(), picture < 6, "{picture}");
    }
    let layers: Vec<_> = got.iter().map(|g| (g.1, g.2)).collect();
    let mut want: Vec<_> = [2, 2, 3, 4, 5, 6].map(|p| (0, p)).to_vec();
    want.extend([6, 6, 7, 8, 9, 10, 11].map(|p| (1, p)));
    assert_eq!(layers, want);
    assert!(got.windows(2).all(|w| w[1].0 == w[0].0 + 1));
    assert_eq!(got.iter().filter(|g| !g.3).count(), 2, "but the parameter sets every packet ends a picture");
}

#[test]
fn inner_layers_are_cut_off_without_a_gap() {
    let mut s = Subscriber::new(MediaKind::Video, vec![params(98, Codec::Vp9, 0)], 6);
    s.target(0, 9);
    let mut last: Option<u64> = None;
    for picture in 0..10u64 {
        for layer in 0..3u8 {
            let index = picture * 3 + u64::from(layer);
            let mut meta = inner(video(0, index, picture as u32 * 3000, picture * 33), layer, layer == 2);
            meta.info.key_frame = picture == 0;
            match s.forward(&meta, &[0x0c, layer, picture as u8]) {
                Ok(got) => {
                    assert_eq!((layer, got.marker), (0, true));
                    assert!(last.is_none_or(|last| got.index == last + 1));
                    last = Some(got.index);
                }
                Err(reason) => assert_eq!((reason, layer > 0), (DropReason::LayerNotSelected, true)),
            }
        }
    }
}

#[test]
fn padding_is_skipped_and_temporal_layers_are_closed() {
    let mut s = Subscriber::vp8(7);
    s.target(0, 0);
    let first = s.forward(&key(video(0, 10, 0, 0)), &[0x10, 0, 1]).unwrap().index;
    s.forwarder.skip(0, ExtSeq(11));
    let upper = temporal(video(0, 12, 3000, 33), 1);
    assert_eq!(s.forward(&upper, &[0x10, 1, 1]), Err(DropReason::LayerNotSelected));
    assert_eq!(s.forward(&video(0, 13, 6000, 66), &[0x10, 1, 1]).unwrap().index, first + 1);
}

#[test]
fn a_packet_is_not_sealed_twice_under_one_number() {
    let mut s = Subscriber::vp8(8);
    let meta = key(video(0, 10, 0, 0));
    s.forward(&meta, &[0x10, 0, 1]).unwrap();
    s.forward(&video(0, 12, 0, 0), &[0x10, 1, 2]).unwrap();
    s.forward(&video(0, 11, 0, 0), &[0x10, 1, 1]).unwrap();
    assert_eq!(s.forward(&video(0, 11, 0, 0), &[0x10, 1, 1]), Err(DropReason::Duplicate));
    assert_eq!(s.forward(&video(0, 9, 0, 0), &[0x10, 1, 1]), Err(DropReason::TooOld));
    for i in 13..1100u64 {
        s.forward(&video(0, i, 0, 0), &[0x10, 1, 1]).unwrap();
    }
    assert_eq!(s.forward(&video(0, 11, 0, 0), &[0x10, 1, 1]), Err(DropReason::TooOld));
}

#[test]
fn sender_reports_carry_the_publishers_wall_clock() {
    let t = start();
    let clock = NtpClock::new(t, Duration::from_secs(1000));
    let mut s = Subscriber::vp8(9);
    assert_eq!(s.forwarder.sender_report(t, &clock), None);
    s.forward(&key(video(0, 1, 90_000, 0)), &[0x10, 0, 1, 2]).unwrap();
    assert_eq!(s.forwarder.sender_report(t + ms(2999), &clock), None);
    let report = SenderReport { ntp: 55 << 32, rtp: RtpTime(180_000), arrival: t + ms(1000) };
    s.forwarder.handle_sender_report(0, report);
    let info = s.forwarder.sender_report(t + ms(1500), &clock).unwrap();
    assert_eq!((info.ntp, info.rtp), (55 << 32 | 1 << 31, RtpTime(225_000)));
    assert_eq!((info.packets, info.octets), (1, 4));
    // A publisher that sends none gets the relay's clock in the end.
    let mut s = Subscriber::vp8(9);
    s.forward(&key(video(0, 1, 90_000, 500)), &[0x10, 0, 1, 2]).unwrap();
    let info = s.forwarder.sender_report(t + ms(3500), &clock).unwrap();
    assert_eq!((info.ntp, info.rtp), (clock.ntp(t + ms(3500)), RtpTime(360_000)));
}

/// One packet of the publisher.
#[derive(Debug, Clone)]
struct Source {
    index: u64,
    frame: u64,
    first: bool,
    last: bool,
    temporal: u8,
}

impl Source {
    fn payload(&self, ssrc: Ssrc) -> Vec<u8> {
        let picture = ((self.frame as u16) & 0x7fff) | 0x8000;
        let [hi, lo] = picture.to_be_bytes();
        let mut p = vec![0x80 | u8::from(self.first) << 4, 0xa0, hi, lo, self.temporal << 6];
        p.push(u8::from(!self.frame.is_multiple_of(8)));
        p.extend(self.index.to_be_bytes());
        p.extend([0x77; 20]);
        p.extend(ssrc.0.to_be_bytes());
        p.extend([3; 8]);
        p.extend(if self.last { [12, 0] } else { [0x55, 0x55] });
        p
    }

    /// The index out of a payload, and its picture id.
    fn read(payload: &[u8]) -> (u64, u16) {
        let picture = u16::from_be_bytes([payload[2], payload[3]]) & 0x7fff;
        (u64::from_be_bytes(payload[6..14].try_into().unwrap()), picture)
    }
}

const PUBLISHER: Ssrc = Ssrc(0x1234_5678);

fn packet(source: &Source, rtx: Option<u16>) -> Vec<u8> {
    let header = RtpHeaderOut {
        marker: source.last,
        pt: Pt(if rtx.is_some() { 97 } else { 96 }),
        seq: SeqNo(rtx.unwrap_or(source.index as u16)),
        timestamp: RtpTime(0xffff_0000u32.wrapping_add(source.frame as u32 * 3000)),
        ssrc: if rtx.is_some() { Ssrc(1) } else { PUBLISHER },
    };
    let mut packet = vec![0; MAX_HEADER];
    let len = header.write(&mut packet, &ExtensionValues::default(), &Default::default());
    packet.truncate(len);
    if rtx.is_some() {
        packet.extend(rtx::osn(ExtSeq(source.index).seq()));
    }
    packet.extend(source.payload(PUBLISHER));
    packet
}

/// How the network treats a packet: lost, come twice, come late by so many places.
type Fate = (bool, bool, usize);

fn fates() -> impl Strategy<Value = Vec<(u64, Fate)>> {
    let fate = (
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.1),
        prop_oneof![4 => Just(0usize), 1 => 1usize..6],
    );
    prop::collection::vec((1u64..5, fate), 10..120)
}

fn run(
    frames: &[(u64, Fate)],
    first_index: u64,
    repair: bool,
    encrypted: bool,
    max_temporal: u8,
) -> Result<(), TestCaseError> {
    let t = start();
    let policy = TrackPolicy { require_encryption: encrypted, muted: false };
    let config = InboundConfig {
        ssrc: PUBLISHER,
        kind: MediaKind::Video,
        codecs: vec![params(96, Codec::Vp8, 0)],
        simulcast: None,
        policy,
        nack: true,
    };
    let mut inbound = InboundStream::new(config, t);
    let mut s = Subscriber::vp8(first_index);
    s.target(0, max_temporal);

    // What the publisher sends, and the order in which it arrives.
    let mut sources = vec![];
    let mut arrivals = vec![];
    for (frame, (n, fate)) in frames.iter().enumerate() {
        for i in 0..*n {
            let at = sources.len();
            sources.push(Source {
                index: first_index + at as u64,
                frame: frame as u64,
                first: i == 0,
                last: i + 1 == *n,
                temporal: (frame % 2) as u8,
            });
            // The fate falls on one packet of the frame; the very first packet arrives.
            let (lost, twice, late) = if i == n / 2 && at > 0 { *fate } else { (false, false, 0) };
            if !lost {
                arrivals.push((at + late, at));
            }
            if twice {
                arrivals.push((at + 3, at));
            }
        }
    }
    arrivals.sort_by_key(|(when, _)| *when);

    let mut got: Vec<(u64, u32, u64, u16)> = vec![];
    let mut payloads = std::collections::BTreeMap::new();
    let mut rtx_seq = 40_000u16;
    let mut released = vec![];
    for (step, (_, at)) in arrivals.iter().enumerate() {
        let now = t + ms(step as u64 * 12);
        let mut packets = vec![packet(&sources[*at], None)];
        if repair {
            for seq in inbound.poll_nacks(now, Some(ms(20))).to_vec() {
                let source = sources.iter().find(|s| s.index as u16 == seq.0);
                prop_assert!(source.is_some(), "a NACK for what was never sent");
                rtx_seq = rtx_seq.wrapping_add(1);
                packets.extend(source.map(|source| packet(source, Some(rtx_seq))));
            }
        }
        for p in packets {
            let header = RtpHeader::parse(&p).unwrap();
            let payload = &p[header.header_len..];
            let ext = ExtensionValues::default();
            let _ = if header.ssrc == PUBLISHER {
                let index = ExtSeq::nearest(ExtSeq(first_index + *at as u64), header.seq);
                inbound.accept(&header, index, payload, &ext, now, &mut released)
            } else {
                inbound.accept_rtx(&header, payload, &ext, now, &mut released)
            };
        }
        inbound.handle_timeout(now, &mut released);
        for index in released.drain(..) {
            let (meta, payload) = inbound.store().get(index).unwrap();
            if let Ok(g) = s.forward(meta, payload) {
                let (index, picture) = Source::read(&g.payload);
                got.push((g.index, g.timestamp, index, picture));
                // Nothing but the picture id was changed.
                prop_assert_eq!(&g.payload[..2], &payload[..2]);
                prop_assert_eq!(&g.payload[4..], &payload[4..]);
                payloads.insert(g.index, g.payload);
            }
        }
    }

    // The subscriber's view, by its own numbers: the publisher's packets in their order, each once, on its clock.
    got.sort_unstable();
    let of = |index: u64| &sources[(index - first_index) as usize];
    for g in &got {
        let source = of(g.2);
        prop_assert_eq!(g.1, 0xffff_0000u32.wrapping_add(source.frame as u32 * 3000));
        prop_assert!(source.temporal <= max_temporal);
    }
    for w in got.windows(2) {
        let (a, b) = (of(w[0].2), of(w[1].2));
        prop_assert!(w[0].0 < w[1].0 && a.index < b.index, "{w:?}");
        // A gap in the numbers is as long as what is missing in between, of what the subscriber wants.
        let wanted = sources.iter().filter(|s| s.index > a.index && s.index < b.index);
        let gap = w[1].0 - w[0].0 - 1;
        if max_temporal > 0 {
            prop_assert_eq!(gap, wanted.count() as u64);
            prop_assert_eq!(u64::from(w[1].3.wrapping_sub(w[0].3)), b.frame - a.frame);
        } else {
            // A lost packet shows its layer to nobody, so its number stays.
            prop_assert!(gap >= wanted.clone().filter(|s| s.temporal == 0).count() as u64);
            prop_assert!(gap <= wanted.count() as u64);
        }
        prop_assert!(w[1].3 >= w[0].3 && u64::from(w[1].3 - w[0].3) <= b.frame - a.frame);
    }
    // What was lost early enough to be asked for and brought came through.
    if repair {
        for source in &sources[..sources.len().saturating_sub(60)] {
            let wanted = source.temporal <= max_temporal;
            prop_assert!(!wanted || got.iter().any(|g| g.2 == source.index), "{source:?} is missing");
        }
    }
    // Every packet can be had again, as it was.
    let now = t + ms(arrivals.len() as u64 * 12);
    let store = inbound.store();
    for (out, timestamp, index, picture) in &got {
        match s.retransmit(ExtSeq(*out).seq(), &[store], now) {
            Ok(g) => {
                prop_assert_eq!(g.payload[..2].to_vec(), ExtSeq(*out).seq().0.to_be_bytes().to_vec());
                prop_assert_eq!(Source::read(&g.payload[2..]), (*index, *picture));
                prop_assert_eq!(Some(&g.payload[2..]), payloads.get(out).map(Vec::as_slice));
                prop_assert_eq!(g.timestamp, *timestamp);
            }
            Err(reason) => {
                prop_assert_eq!(reason, DropReason::TooOld);
                let sent = of(*index);
                prop_assert!(sent.index + 200 < first_index + sources.len() as u64, "{sent:?} is young");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn output_is_continuous_whatever_the_network_does(
        frames in fates(),
        first_index in prop_oneof![Just(65_400u64), Just(0), 0u64..200_000],
        repair in any::<bool>(),
        encrypted in any::<bool>(),
        max_temporal in 0u8..2,
    ) {
        run(&frames, first_index, repair, encrypted, max_temporal)?;
    }
}

/// A frame of a stream, and what happens before it.
#[derive(Debug, Clone)]
struct Step {
    stream: u8,
    packets: usize,
    key: bool,
    temporal: u8,
    switch_up: bool,
    /// Packets of padding before it, and packets that never come.
    skipped: u64,
    lost: u64,
    /// It comes after the next frame.
    late: bool,
    /// The release goes on with the next frame.
    joined: bool,
    target: Option<(u8, u8)>,
}

fn step() -> impl Strategy<Value = Step> {
    let order = (any::<bool>(), prop::bool::weighted(0.1), any::<bool>());
    let gaps = (prop_oneof![4 => Just(0), 1 => 1..3u64], prop_oneof![4 => Just(0), 1 => 1..3u64]);
    let target = prop::option::weighted(0.1, (0..3u8, 0..3u8));
    ((0..2u8, 1..6usize, prop::bool::weighted(0.2), 0..3u8), order, gaps, target).prop_map(
        |((stream, packets, key, temporal), (switch_up, late, joined), (skipped, lost), target)| Step {
            stream,
            packets,
            key,
            temporal: if key { 0 } else { temporal },
            switch_up,
            skipped,
            lost,
            late,
            joined,
            target,
        },
    )
}

proptest! {
    /// A run is only a shorter way to the same bytes.
    #[test]
    fn runs_go_out_as_their_packets_would_one_by_one(steps in prop::collection::vec(step(), 1..60), seed: u64) {
        let (mut whole, mut singly) = (Subscriber::vp8(seed), Subscriber::vp8(seed));
        let mut next = [1000u64, 70_000];
        let mut skips = Vec::new();
        let mut frames = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let index = &mut next[usize::from(step.stream)];
            *index += step.lost;
            let padding: Vec<_> = (0..step.skipped).map(|n| ExtSeq(*index + n)).collect();
            *index += step.skipped;
            let frame: Vec<_> = (0..step.packets).map(|n| {
                let mut meta = temporal(video(step.stream, *index + n as u64, at as u32 * 3000, at as u64 * 33), step.temporal);
                let (first, last) = (n == 0, n + 1 == step.packets);
                (meta.info.frame_start, meta.info.frame_end, meta.marker) = (first, last, last);
                meta.info.key_frame = step.key;
                meta.info.switch_up = step.switch_up;
                let payload = vp8_payload(&mut meta, 500 + at as u16, at as u8, &[n as u8; 20]);
                (meta, payload)
            }).collect();
            *index += step.packets as u64;
            skips.push(padding);
            frames.push(frame);
        }
        for at in 1..frames.len() {
            if steps[at - 1].late {
                frames.swap(at - 1, at);
            }
        }
        let mut released: Vec<(&PacketMeta, &[u8])> = Vec::new();
        for (at, frame) in frames.iter().enumerate() {
            let now = start() + ms(at as u64 * 33);
            for sub in [&mut whole, &mut singly] {
                if let Some((spatial, temporal)) = steps[at].target {
                    sub.target(spatial, temporal);
                }
                skips[at].iter().for_each(|index| sub.forwarder.skip(steps[at].stream, *index));
            }
            released.extend(frame.iter().map(|(meta, payload)| (meta, &payload[..])));
            if steps[at].joined && at + 1 < frames.len() {
                continue;
            }
            let whole_sent = whole.forward_all(&released, true, now);
            let singly_sent = singly.forward_all(&released, false, now);
            released.clear();
            prop_assert_eq!(whole_sent, singly_sent);
            let [a, b] = [&whole, &singly].map(|sub| {
                let forwarder = &sub.forwarder;
                (forwarder.stats(), forwarder.highest_sent(), forwarder.wants_key_frame(), forwarder.current_stream())
            });
            prop_assert_eq!(a, b);
        }
    }
}
