use proptest::prelude::*;

use super::*;
use crate::drop_reason::DropReason;
use crate::ids::{RtpTime, SeqNo};

const SENDER: Ssrc = Ssrc(0x0102_0304);
const MEDIA: Ssrc = Ssrc(0xa1a2_a3a4);

fn one(compound: &[u8]) -> Rtcp<'_> {
    let mut packets = parse(compound);
    let packet = packets.next().unwrap().unwrap();
    assert!(packets.next().is_none());
    packet
}

fn block(n: u32) -> ReportBlock {
    ReportBlock {
        ssrc: Ssrc(n),
        fraction_lost: 7,
        lost: -3,
        highest_seq: 0x0001_fffe,
        jitter: 99,
        last_sr: 0x1234_5678,
        delay_since_last_sr: 65_536,
    }
}

#[test]
fn reports_survive_writing_and_reading() {
    let info = write::SenderInfo { ntp: 0x0123_4567_89ab_cdef, rtp: RtpTime(77), packets: 5, octets: 6 };
    let mut out = Vec::new();
    write::sr(&mut out, SENDER, &info, &[block(1), block(2)]);
    let Rtcp::SenderReport { ssrc, ntp, rtp, packets, octets, reports } = one(&out) else { panic!() };
    assert_eq!((ssrc, ntp, rtp, packets, octets), (SENDER, info.ntp, info.rtp, 5, 6));
    assert_eq!(reports.collect::<Vec<_>>(), [block(1), block(2)]);

    out.clear();
    write::rr(&mut out, SENDER, &[]);
    let Rtcp::ReceiverReport { ssrc, reports } = one(&out) else { panic!() };
    assert_eq!((ssrc, reports.count()), (SENDER, 0));
}

#[test]
fn more_blocks_than_a_packet_holds_go_into_further_reports() {
    let blocks: Vec<_> = (0..70).map(block).collect();
    let mut out = Vec::new();
    let info = write::SenderInfo { ntp: 1, rtp: RtpTime(0), packets: 0, octets: 0 };
    write::sr(&mut out, SENDER, &info, &blocks);
    let mut counts = Vec::new();
    let mut read = Vec::new();
    for packet in parse(&out) {
        let (Rtcp::SenderReport { reports, .. } | Rtcp::ReceiverReport { reports, .. }) = packet.unwrap()
        else {
            panic!()
        };
        counts.push(reports.clone().count());
        read.extend(reports);
    }
    assert_eq!(counts, [31, 31, 8]);
    assert_eq!(read, blocks);
}

#[test]
fn lost_is_signed_24_bits() {
    for lost in [0, 1, -1, 0x7f_ffff, -0x80_0000] {
        let mut out = Vec::new();
        write::rr(&mut out, SENDER, &[ReportBlock { lost, ..block(1) }]);
        let Rtcp::ReceiverReport { mut reports, .. } = one(&out) else { panic!() };
        assert_eq!(reports.next().unwrap().lost, lost);
    }
    let mut out = Vec::new();
    write::rr(&mut out, SENDER, &[ReportBlock { lost: i32::MAX, ..block(1) }]);
    let Rtcp::ReceiverReport { mut reports, .. } = one(&out) else { panic!() };
    assert_eq!(reports.next().unwrap().lost, 0x7f_ffff);
}

#[test]
fn a_compound_is_walked_packet_by_packet() {
    let mut out = Vec::new();
    write::rr(&mut out, SENDER, &[]);
    write::sdes_cname(&mut out, SENDER, "relay");
    write::pli(&mut out, SENDER, MEDIA);
    write::fir(&mut out, SENDER, MEDIA, 9);
    write::bye(&mut out, &[SENDER, MEDIA]);
    out.extend([0x80, 207, 0, 0]); // extended report without blocks
    let packets: Vec<_> = parse(&out).map(Result::unwrap).collect();
    let [
        Rtcp::ReceiverReport { .. },
        Rtcp::Sdes { chunks },
        Rtcp::Pli { sender, media },
        Rtcp::Fir { entries, .. },
        Rtcp::Bye { ssrcs },
        Rtcp::Unknown { packet_type: 207, count: 0 },
    ] = &packets[..]
    else {
        panic!("{packets:?}")
    };
    assert_eq!(chunks.clone().collect::<Vec<_>>(), [SdesChunk { ssrc: SENDER, cname: Some(b"relay") }]);
    assert_eq!((*sender, *media), (SENDER, MEDIA));
    assert_eq!(entries.clone().collect::<Vec<_>>(), [(MEDIA, 9)]);
    assert_eq!(ssrcs.clone().collect::<Vec<_>>(), [SENDER, MEDIA]);
}

#[test]
fn cnames_of_every_length_mod_four_and_several_chunks() {
    for len in 0..=9 {
        let cname = &"abcdefghi"[..len];
        let mut out = Vec::new();
        write::sdes_cname(&mut out, SENDER, cname);
        let Rtcp::Sdes { mut chunks } = one(&out) else { panic!() };
        assert_eq!(chunks.next(), Some(SdesChunk { ssrc: SENDER, cname: Some(cname.as_bytes()) }));
    }
    let mut out = Vec::new();
    write::sdes_cname(&mut out, SENDER, &"x".repeat(300));
    let Rtcp::Sdes { mut chunks } = one(&out) else { panic!() };
    assert_eq!(chunks.next().unwrap().cname.unwrap().len(), 255);
    // Two chunks; the first with another item before its name, the second with none.
    let two =
        [0x82, 202, 0, 6, 0, 0, 0, 1, 2, 1, b'n', 1, 2, b'a', b'b', 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    let Rtcp::Sdes { chunks } = one(&two) else { panic!() };
    let got: Vec<_> = chunks.map(|c| (c.ssrc.0, c.cname)).collect();
    assert_eq!(got, [(1, Some(&b"ab"[..])), (2, None)]);
}

#[test]
fn nacks_group_and_wrap() {
    let lost: Vec<_> = [65_530u16, 65_531, 65_535, 0, 10, 11, 27, 28, 500].map(SeqNo).into();
    let mut out = Vec::new();
    write::nack(&mut out, SENDER, MEDIA, &lost);
    // 65530 with 16 after it reaches 10; 11 reaches 27; then 28 and 500.
    assert_eq!(out.len(), 12 + 4 * 4);
    let Rtcp::Nack { sender, media, lost: read } = one(&out) else { panic!() };
    assert_eq!((sender, media), (SENDER, MEDIA));
    assert_eq!(read.collect::<Vec<_>>(), lost);
    out.clear();
    write::nack(&mut out, SENDER, MEDIA, &[]);
    assert!(out.is_empty());
    write::nack(&mut out, SENDER, MEDIA, &[SeqNo(4), SeqNo(4), SeqNo(5)]);
    let Rtcp::Nack { lost, .. } = one(&out) else { panic!() };
    assert_eq!(lost.collect::<Vec<_>>(), [SeqNo(4), SeqNo(5)]);
}

#[test]
fn remb_rounds_down_to_its_mantissa() {
    for (bitrate, want) in [(0, 0), (262_143, 262_143), (262_145, 262_144), (2_500_001, 2_500_000)] {
        let mut out = Vec::new();
        write::remb(&mut out, SENDER, bitrate, &[MEDIA]);
        let Rtcp::Remb { sender, bitrate, ssrcs } = one(&out) else { panic!() };
        assert_eq!((sender, bitrate), (SENDER, want));
        assert_eq!(ssrcs.collect::<Vec<_>>(), [MEDIA]);
    }
    // The largest exponent leaves 64 bits.
    let mut out = Vec::new();
    write::remb(&mut out, SENDER, 1, &[]);
    out[17..20].fill(0xff);
    let Rtcp::Remb { bitrate: u64::MAX, .. } = one(&out) else { panic!() };
    // Another application's message is none of ours.
    out[12..16].copy_from_slice(b"OTHR");
    assert!(matches!(one(&out), Rtcp::Unknown { packet_type: 206, count: 15 }));
}

#[test]
fn malformed_packets_end_the_walk() {
    let good = {
        let mut out = Vec::new();
        write::rr(&mut out, SENDER, &[block(1)]);
        out
    };
    let cases: [(&str, Vec<u8>); 12] = [
        ("empty", vec![]),
        ("version", vec![0x40, 201, 0, 1, 0, 0, 0, 1]),
        ("length beyond the datagram", vec![0x80, 201, 0, 2, 0, 0, 0, 1]),
        ("a report's block missing", vec![0x81, 201, 0, 1, 0, 0, 0, 1]),
        ("a report without its sender", vec![0x80, 200, 0, 0]),
        ("a NACK without entries", [&[0x81, 205, 0, 2][..], &[0; 8]].concat()),
        ("a PLI without media", vec![0x81, 206, 0, 1, 0, 0, 0, 1]),
        ("half a FIR entry", [&[0x84, 206, 0, 3][..], &[0; 12]].concat()),
        ("a BYE that lists more than it has", vec![0x82, 203, 0, 1, 0, 0, 0, 1]),
        ("an SDES item that overruns", vec![0x81, 202, 0, 2, 0, 0, 0, 1, 1, 9, b'a', 0]),
        ("padding of zero", vec![0xa0, 201, 0, 1, 0, 0, 0, 0]),
        ("padding of more than there is", vec![0xa0, 201, 0, 1, 0, 0, 0, 9]),
    ];
    for (name, bytes) in cases {
        let mut packets = parse(&bytes);
        assert_eq!(packets.next().unwrap().err(), Some(DropReason::RtcpMalformed), "{name}");
        assert!(packets.next().is_none(), "{name}");
        let after = [&good[..], &bytes].concat();
        if name != "empty" {
            let mut packets = parse(&after);
            assert!(packets.next().unwrap().is_ok(), "{name}: what came before is good");
            assert!(packets.next().unwrap().is_err(), "{name}");
        }
    }
    let padded = [&good[..], &[0xa0, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4]].concat();
    assert_eq!(parse(&padded).filter(Result::is_ok).count(), 2);
}

/// libwebrtc writes one small delta a packet and fills the message up to a word, with the P bit set: one to three bytes of
/// padding, which RFC 3550 does not know.
#[test]
fn feedback_as_libwebrtc_pads_it() {
    for count in 1..=4u8 {
        let padding = (4 - (2 + count) % 4) % 4;
        let words = 3 + (8 + 2 + count + padding) / 4 - 1;
        let mut bytes = vec![0x8f | if padding > 0 { 0x20 } else { 0 }, 205, 0, words];
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        bytes.extend([0, 7, 0, count, 0, 0, 1, 9, 0x20, count]);
        bytes.extend((0..count).map(|_| 4));
        bytes.extend((0..padding).map(|at| if at + 1 == padding { padding } else { 0 }));
        let want: Vec<_> = (0..u16::from(count)).map(|at| (7 + at, 256 + 4 * (u32::from(at) + 1))).collect();
        assert_eq!(told(&feedback(&bytes)), want, "{count} packets");
        // And it need not be the last packet.
        let compound = [&bytes[..], &bytes].concat();
        assert_eq!(parse(&compound).filter(Result::is_ok).count(), 2);
    }
}

fn arrivals(list: &[(u16, u64)]) -> Vec<TwccArrival> {
    list.iter().map(|&(seq, ticks)| TwccArrival { seq, ticks }).collect()
}

fn feedback(compound: &[u8]) -> TwccFeedback<'_> {
    let Rtcp::TransportCc(feedback) = one(compound) else { panic!() };
    feedback
}

/// The arrivals that a feedback packet tells, in ticks modulo 2^32.
fn told(feedback: &TwccFeedback<'_>) -> Vec<(u16, u32)> {
    let mut at = feedback.reference_time.wrapping_mul(256);
    let mut list = Vec::new();
    for (seq, delta) in feedback {
        if let Some(delta) = delta {
            at = at.wrapping_add_signed(delta.into());
            list.push((seq, at));
        }
    }
    list
}

#[test]
fn transport_feedback_byte_for_byte() {
    // 7 in a row, one lost, one late by 300 ticks.
    let list =
        [(10, 1000), (11, 1004), (12, 1004), (13, 1010), (14, 1011), (15, 1012), (16, 1012), (18, 1312)];
    let mut out = Vec::new();
    assert_eq!(write_twcc(&mut out, SENDER, MEDIA, 10, 3, &arrivals(&list)), 8);
    let want = [
        0x8f, 205, 0, 8, 1, 2, 3, 4, 0xa1, 0xa2, 0xa3, 0xa4, //
        0, 10, 0, 9, 0, 0, 3, 3, // base 10, 9 statuses, reference 3 * 64 ms, packet 3
        0xd5, 0x55, 0xc8, 0x00, // two-bit vectors: 7 times small; lost, large
        232, 4, 0, 6, 1, 1, 0, 0x01, 0x2c, 0, 0, 0,
    ];
    assert_eq!(out, want);
    assert_eq!(told(&feedback(&out)), list.map(|(seq, ticks)| (seq, ticks as u32)));
}

#[test]
fn transport_feedback_splits_where_it_must() {
    let mut out = Vec::new();
    // A pause longer than a delta.
    let list = arrivals(&[(1, 0), (2, 40_000), (3, 40_001)]);
    assert_eq!(write_twcc(&mut out, SENDER, MEDIA, 1, 0, &list), 1);
    // Disorder.
    out.clear();
    assert_eq!(write_twcc(&mut out, SENDER, MEDIA, 5, 0, &arrivals(&[(5, 0), (4, 1)])), 1);
    // Nothing to say.
    out.clear();
    assert_eq!(write_twcc(&mut out, SENDER, MEDIA, 5, 0, &[]), 0);
    assert!(out.is_empty());
    // An arrival before the base moves it.
    assert_eq!(write_twcc(&mut out, SENDER, MEDIA, 5, 0, &arrivals(&[(4, 9)])), 1);
    assert_eq!(feedback(&out).base_seq, 4);
    // Many: no packet outgrows a datagram, and together they tell everything.
    let many: Vec<_> = (0..5000u64).map(|n| ((n * 2) as u16, n * 300)).collect();
    let mut rest = &arrivals(&many)[..];
    let mut base = 0;
    let mut got = Vec::new();
    while !rest.is_empty() {
        out.clear();
        let n = write_twcc(&mut out, SENDER, MEDIA, base, 0, rest);
        assert!(n > 0 && out.len() <= 1200, "{n} in {}", out.len());
        let feedback = feedback(&out);
        got.extend(told(&feedback));
        base = feedback.base_seq.wrapping_add(feedback.status_count);
        rest = &rest[n..];
    }
    assert_eq!(got, many.iter().map(|&(seq, ticks)| (seq, ticks as u32)).collect::<Vec<_>>());
}

#[test]
fn transport_feedback_that_lies_is_refused() {
    let packet = |chunks: &[u8], count: u16| {
        let mut bytes = vec![0x8f, 205, 0, 4 + (chunks.len() / 4) as u8];
        bytes.extend([0; 8]);
        bytes.extend([0, 1]);
        bytes.extend(count.to_be_bytes());
        bytes.extend([0, 0, 0, 0]);
        bytes.extend(chunks);
        bytes
    };
    let cases: [(&str, &[u8], u16); 6] = [
        ("a chunk missing", &[], 1),
        ("the reserved symbol in a run", &[0x60, 1, 0, 0], 1),
        ("the reserved symbol in a vector", &[0xf0, 0, 0, 0], 1),
        ("a delta missing", &[0x20, 3, 1, 1], 3),
        ("half a delta", &[0x20, 1, 0x40, 1, 9, 9, 9, 0], 5000),
        ("a run of nothing", &[0, 0, 0x20, 1, 9, 9, 9, 9], 1),
    ];
    for (name, chunks, count) in cases {
        assert!(parse(&packet(chunks, count)).next().unwrap().is_err(), "{name}");
    }
    // A run that goes on behind the status count is cut there.
    assert_eq!(
        feedback(&packet(&[0x20, 200, 7, 8], 2)).statuses().collect::<Vec<_>>(),
        [(1, Some(7)), (2, Some(8))]
    );
}

proptest! {
    #[test]
    fn arbitrary_compounds_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for packet in parse(&bytes) {
            exhaust(packet);
        }
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        count in 0u8..64,
        packet_type in 199u8..208,
        words in prop::collection::vec(any::<[u8; 4]>(), 0..40),
    ) {
        let mut bytes = vec![0x80 | count, packet_type, 0, words.len() as u8];
        bytes.extend(words.concat());
        for packet in parse(&bytes) {
            exhaust(packet);
        }
    }

    #[test]
    fn nacks_survive(lost in prop::collection::btree_set(any::<u16>(), 1..100)) {
        let lost: Vec<_> = lost.into_iter().map(SeqNo).collect();
        let mut out = Vec::new();
        write::nack(&mut out, SENDER, MEDIA, &lost);
        let Rtcp::Nack { lost: read, .. } = one(&out) else { panic!() };
        prop_assert_eq!(read.collect::<Vec<_>>(), lost);
    }

    #[test]
    fn feedback_tells_exactly_what_arrived(
        base in any::<u16>(),
        start in 0u64..1 << 31,
        steps in prop::collection::vec(
            (
                prop_oneof![8 => Just(1u16), 3 => 2u16..20, 1 => 20u16..9000],
                prop_oneof![6 => 0i64..256, 2 => 256i64..32_767, 1 => -2000i64..0, 1 => 32_000i64..40_000],
            ),
            1..300,
        ),
    ) {
        let (mut seq, mut ticks) = (base.wrapping_sub(1), start + 1_000_000);
        let mut list = Vec::new();
        for (ahead, time) in steps {
            seq = seq.wrapping_add(ahead);
            ticks = ticks.saturating_add_signed(time);
            list.push(TwccArrival { seq, ticks });
        }
        let (mut rest, mut next, mut got) = (&list[..], base, Vec::new());
        while !rest.is_empty() {
            let mut out = Vec::new();
            let n = write_twcc(&mut out, SENDER, MEDIA, next, 1, rest);
            prop_assert!(n > 0 && out.len() <= 1200);
            let feedback = feedback(&out);
            prop_assert_eq!(feedback.base_seq, next);
            got.extend(told(&feedback));
            next = feedback.base_seq.wrapping_add(feedback.status_count);
            rest = &rest[n..];
        }
        let want: Vec<_> = list.iter().map(|a| (a.seq, a.ticks as u32)).collect();
        prop_assert_eq!(got, want);
    }
}

fn exhaust(packet: Result<Rtcp<'_>, DropReason>) {
    let items = match packet {
        Ok(Rtcp::SenderReport { reports, .. } | Rtcp::ReceiverReport { reports, .. }) => reports.count(),
        Ok(Rtcp::Sdes { chunks }) => chunks.count(),
        Ok(Rtcp::Bye { ssrcs } | Rtcp::Remb { ssrcs, .. }) => ssrcs.count(),
        Ok(Rtcp::Nack { lost, .. }) => lost.count(),
        Ok(Rtcp::Fir { entries, .. }) => entries.count(),
        Ok(Rtcp::TransportCc(feedback)) => {
            let n = feedback.statuses().count();
            assert_eq!(n, usize::from(feedback.status_count));
            n
        }
        Ok(Rtcp::Pli { .. } | Rtcp::Unknown { .. }) | Err(_) => 0,
    };
    assert!(items <= 65_535);
}
