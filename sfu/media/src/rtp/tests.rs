// Bits are grouped by field, and cases are tuples as wide as their table.
#![allow(clippy::unusual_byte_groupings, clippy::type_complexity)]

use arrayvec::ArrayVec;
use proptest::prelude::*;

use super::dd_writer::BitWriter;
use super::*;
use crate::command::{Codec, Extension, ExtensionMap};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Mid, Pt, Rid, RtpTime, SeqNo, Ssrc};

fn map(ids: &[(Extension, u8)], allow_mixed: bool) -> ExtensionMap {
    let mut map = ExtensionMap::default();
    map.allow_mixed = allow_mixed;
    for (extension, id) in ids {
        map.set(*extension, *id);
    }
    map
}

fn header_out() -> RtpHeaderOut {
    RtpHeaderOut {
        marker: true,
        pt: Pt(111),
        seq: SeqNo(0xfffe),
        timestamp: RtpTime(0x8000_0001),
        ssrc: Ssrc(0xdead_beef),
    }
}

#[test]
fn a_header_with_csrcs_and_extensions_is_cut_where_it_ends() {
    let packet = [
        0xb2, 0xe0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8, // V=2 P X CC=2, M, PT 96
        0, 0, 0, 1, 0, 0, 0, 2, // CSRCs
        0xbe, 0xde, 0, 2, 0x10, 0xaa, 0x00, 0x21, 0xbb, 0xcc, 0x00,
        0x00, // ids 1 and 2 with padding between
        9, 9, 9, 2,
    ];
    let header = RtpHeader::parse(&packet).unwrap();
    assert_eq!((header.marker, header.pt, header.seq), (true, Pt(96), SeqNo(0x1234)));
    assert_eq!((header.timestamp, header.ssrc), (RtpTime(0x0102_0304), Ssrc(0x0506_0708)));
    assert_eq!(header.header_len, 32);
    let extensions: Vec<_> = header.extensions(&packet).collect();
    assert_eq!(extensions, [(1, &[0xaa][..]), (2, &[0xbb, 0xcc][..])]);
    assert_eq!(payload_without_padding(&header, &packet[32..]), Some(&[9, 9][..]));
    for cut in 0..32 {
        assert_eq!(RtpHeader::parse(&packet[..cut]), Err(DropReason::RtpMalformed), "{cut}");
    }
    for version in [0x00, 0x40, 0xc0] {
        let mut other = packet;
        other[0] = other[0] & 0x3f | version;
        assert_eq!(RtpHeader::parse(&other), Err(DropReason::RtpMalformed));
    }
}

#[test]
fn padding_is_checked() {
    let mut packet = [0; 16];
    packet[0] = 0xa0;
    let header = RtpHeader::parse(&packet).unwrap();
    for (last, want) in [(0, None), (1, Some(3)), (4, Some(0)), (5, None), (255, None)] {
        assert_eq!(payload_without_padding(&header, &[7, 7, 7, last]).map(<[u8]>::len), want, "{last}");
    }
    assert_eq!(payload_without_padding(&header, &[]), None);
    packet[0] = 0x80;
    let header = RtpHeader::parse(&packet).unwrap();
    assert_eq!(payload_without_padding(&header, &[7, 0]), Some(&[7, 0][..]));
}

#[test]
fn extension_blocks_of_both_forms() {
    let cases: [(u16, &[u8], &[(u8, &[u8])]); 8] = [
        (0xbede, &[0xe2, 1, 2, 3], &[(14, &[1, 2, 3])]),
        // 15 ends the block, and so does 0 with a length.
        (0xbede, &[0x10, 1, 0xf0, 2, 0x20, 3, 0, 0], &[(1, &[1])]),
        (0xbede, &[0x10, 1, 0x01, 2, 0x20, 3, 0, 0], &[(1, &[1])]),
        // An element that overruns the block.
        (0xbede, &[0x10, 1, 0x23, 3], &[(1, &[1])]),
        (0x1000, &[15, 0, 0, 200, 2, 7, 8, 0], &[(15, &[]), (200, &[7, 8])]),
        (0x100f, &[1, 1, 9, 0], &[(1, &[9])]),
        (0x1000, &[1, 1, 9, 2], &[(1, &[9])]),
        (0x4242, &[0x10, 1, 0, 0], &[]),
    ];
    for (profile, block, want) in cases {
        let mut packet = vec![0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend(profile.to_be_bytes());
        packet.extend(((block.len() / 4) as u16).to_be_bytes());
        packet.extend(block);
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!(header.extensions(&packet).collect::<Vec<_>>(), want, "{profile:x} {block:x?}");
    }
}

#[test]
fn values_of_the_wrong_length_are_skipped() {
    let map = map(&[(Extension::Mid, 1), (Extension::TransportCc, 2), (Extension::AudioLevel, 3)], false);
    let packet = [
        0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xde, 0, 2, //
        0x10, b' ', 0x20, 1, 0x30, 0xff, 0x40, 5,
    ];
    let header = RtpHeader::parse(&packet).unwrap();
    let values = ExtensionValues::read(&header, &packet, &map);
    let audio_level = Some(AudioLevelExt { level: 127, voice: true });
    assert_eq!(values, ExtensionValues { audio_level, ..Default::default() });
}

#[test]
fn the_form_follows_what_has_to_be_carried() {
    let long = [7; 40];
    let values = ExtensionValues {
        mid: Mid::new("0"),
        transport_cc: Some(7),
        dependency_descriptor: Some(&long),
        ..Default::default()
    };
    let ids = [(Extension::Mid, 3), (Extension::DependencyDescriptor, 4)];
    let mut out = [0xff; MAX_HEADER];
    let read = |out: &[u8], len, map: &ExtensionMap| {
        let header = RtpHeader::parse(&out[..len]).unwrap();
        assert_eq!(header.header_len, len);
        let values = ExtensionValues::read(&header, &out[..len], map);
        (values.mid.is_some(), values.transport_cc, values.dependency_descriptor.map(<[u8]>::len))
    };

    let mixed = map(&ids, true);
    let len = header_out().write(&mut out, &values, &mixed);
    assert_eq!(out[12..14], [0x10, 0x00]);
    assert_eq!(read(&out, len, &mixed), (true, None, Some(40)), "TransportCc has no id");

    let one_byte = map(&ids, false);
    let len = header_out().write(&mut out, &values, &one_byte);
    assert_eq!(out[12..14], [0xbe, 0xde]);
    assert_eq!(read(&out, len, &one_byte), (true, None, None), "40 bytes do not fit the one-byte form");

    let short = ExtensionValues { dependency_descriptor: Some(&long[..16]), ..values };
    let len = header_out().write(&mut out, &short, &mixed);
    assert_eq!(out[12..14], [0xbe, 0xde], "one-byte form where it suffices");
    assert_eq!(read(&out, len, &mixed), (true, None, Some(16)));

    let high = map(&[(Extension::Mid, 16)], true);
    let len = header_out().write(&mut out, &values, &high);
    assert_eq!(out[12..14], [0x10, 0x00], "ids above 14 need the two-byte form");
    assert_eq!(read(&out, len, &high), (true, None, None));

    let none = ExtensionMap::default();
    assert_eq!(header_out().write(&mut out, &values, &none), 12);
    assert_eq!(out[0], 0x80);
}

#[test]
fn the_longest_header_fits_max_header() {
    let dd = [1; 255];
    let values = ExtensionValues {
        mid: Mid::new("0123456789abcdef"),
        rid: Rid::new("0123456789abcdef"),
        repaired_rid: Rid::new("0123456789abcdef"),
        audio_level: Some(AudioLevelExt { level: 1, voice: false }),
        abs_send_time: Some(0xff_ffff),
        transport_cc: Some(1),
        dependency_descriptor: Some(&dd),
        video_orientation: Some(3),
        playout_delay: Some([1, 2, 3]),
    };
    let ids: Vec<_> = Extension::ALL.into_iter().zip(20..).collect();
    let map = map(&ids, true);
    let mut out = [0; MAX_HEADER];
    let len = header_out().write(&mut out, &values, &map);
    assert!(len <= MAX_HEADER && len > MAX_HEADER - 4, "{len}");
    let header = RtpHeader::parse(&out[..len]).unwrap();
    assert_eq!(ExtensionValues::read(&header, &out[..len], &map), values);
}

#[test]
fn rtx_and_red() {
    assert_eq!(rtx::split(&[0x12, 0x34, 9]), Some((SeqNo(0x1234), &[9][..])));
    assert_eq!(rtx::split(&[0x12]), None);
    assert_eq!(rtx::osn(SeqNo(0x1234)), [0x12, 0x34]);

    // Two redundant blocks of 2 and 1 bytes, offsets 1920 and 960, then the primary.
    let payload = [0xef, 0x1e, 0x00, 0x02, 0xef, 0x0f, 0x00, 0x01, 0x6f, 1, 2, 3, 4, 5, 6];
    let blocks: Vec<_> = red::blocks(&payload).unwrap().collect();
    let got: Vec<_> = blocks.iter().map(|b| (b.pt.0, b.timestamp_offset, b.payload)).collect();
    assert_eq!(got, [(111, 1920, &[1, 2][..]), (111, 960, &[3][..]), (111, 0, &[4, 5, 6][..])]);
    assert_eq!(red::primary(&payload).unwrap().payload, [4, 5, 6]);
    for bad in [&[][..], &[0xef], &[0xef, 0x1e, 0x00, 0x02], &payload[..11], &[0x80; 400]] {
        assert_eq!(red::primary(bad), Err(DropReason::RtpMalformed), "{bad:x?}");
    }
}

fn look(codec: Codec, payload: &[u8], marker: bool) -> Result<PayloadInfo, DropReason> {
    inspect(codec, payload, marker, None)
}

/// frame start, frame end, key frame, spatial, temporal
fn flags(info: PayloadInfo) -> (bool, bool, bool, u8, u8) {
    (info.frame_start, info.frame_end, info.key_frame, info.spatial, info.temporal)
}

#[test]
fn vp8_descriptors() {
    // Key frame: S, PID 0, no extension; first frame byte with bit 0 clear.
    let info = look(Codec::Vp8, &[0x10, 0x50], false).unwrap();
    assert_eq!(flags(info), (true, false, true, 0, 0));
    // X with I (15 bits), L, T|K: picture 0x1234, TL0 9, TID 2; a delta frame's last packet.
    let payload = [0x90, 0xf0, 0x92, 0x34, 0x09, 0x80, 0x51];
    let info = look(Codec::Vp8, &payload, true).unwrap();
    assert_eq!(flags(info), (true, true, false, 0, 2));
    assert_eq!((info.picture_id, info.tl0_pic_idx), (Some(0x1234), Some(9)));
    // Not the first packet: ciphertext, whatever its lowest bit.
    let info = look(Codec::Vp8, &[0x80, 0x80, 0x05, 0x00], true).unwrap();
    assert_eq!(flags(info), (false, true, false, 0, 0));
    assert_eq!(info.picture_id, Some(5));
    // A start of a later partition is not the start of the frame.
    assert!(!look(Codec::Vp8, &[0x11, 0x00], false).unwrap().frame_start);
    for cut in 1..payload.len() {
        assert_eq!(look(Codec::Vp8, &payload[..cut], false), Err(DropReason::RtpMalformed), "{cut}");
    }
}

#[test]
fn vp9_descriptors() {
    // I L B E V: picture 0x1234, TID 0 SID 1 with D, TL0 8, structure of 2 layers with sizes and a group of 1.
    let key = [
        0xae, 0x92, 0x34, 0x03, 0x08, //
        0x38, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0x04, 1, 0xff,
    ];
    let info = look(Codec::Vp9, &key, false).unwrap();
    assert_eq!(flags(info), (true, true, true, 1, 0));
    assert_eq!((info.picture_id, info.tl0_pic_idx), (Some(0x1234), Some(8)));
    // Flexible mode, predicted, three references, TID 2.
    let delta = [0xf0, 0x05, 0x40, 0x03, 0x05, 0x06, 0xff];
    let info = look(Codec::Vp9, &delta, true).unwrap();
    assert_eq!(flags(info), (false, true, false, 0, 2));
    assert_eq!((info.picture_id, info.tl0_pic_idx), (Some(5), None));
    // A fourth reference does not exist.
    let four = [0xf0, 0x05, 0x40, 0x03, 0x05, 0x07, 0x02, 0xff];
    assert_eq!(look(Codec::Vp9, &four, true), Err(DropReason::RtpMalformed));
    for payload in [&key[..], &delta] {
        for cut in 1..payload.len() {
            let cut = &payload[..cut];
            assert_eq!(look(Codec::Vp9, cut, false), Err(DropReason::RtpMalformed), "{cut:x?}");
        }
    }
}

#[test]
fn h264_units() {
    let cases: [(&[u8], (bool, bool)); 9] = [
        // STAP-A of SPS and PPS starts a key frame.
        (&[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce], (true, true)),
        (&[0x67, 0x42], (true, true)),
        // IDR fragments belong to one, and start nothing.
        (&[0x7c, 0x85, 0x88], (false, true)),
        (&[0x7c, 0x05, 0x88], (false, true)),
        // First and second slice of a delta picture, whole and as fragments.
        (&[0x61, 0x9a], (true, false)),
        (&[0x61, 0x4a], (false, false)),
        (&[0x7c, 0x81, 0x9a], (true, false)),
        (&[0x7c, 0x01, 0x9a], (false, false)),
        (&[0x09, 0x10], (true, false)),
    ];
    for (payload, want) in cases {
        let info = look(Codec::H264, payload, true).unwrap();
        assert_eq!((info.frame_start, info.key_frame), want, "{payload:x?}");
        assert!(info.frame_end);
    }
    for bad in [&[0x78][..], &[0x78, 0, 3, 0x67], &[0x78, 0, 0, 0, 0], &[0x7c], &[0x00, 1], &[0x79, 0]] {
        assert_eq!(look(Codec::H264, bad, true), Err(DropReason::RtpMalformed), "{bad:x?}");
    }
}

#[test]
fn av1_and_audio() {
    assert_eq!(flags(look(Codec::Av1, &[0x18, 1], false).unwrap()), (true, false, true, 0, 0));
    assert_eq!(flags(look(Codec::Av1, &[0x10, 1], true).unwrap()), (false, true, false, 0, 0));
    assert_eq!(look(Codec::Av1, &[0x88, 1], true), Err(DropReason::RtpMalformed));
    for codec in [Codec::Opus, Codec::Red] {
        assert_eq!(flags(look(codec, &[0x78], false).unwrap()), (true, true, true, 0, 0));
    }
    for codec in [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264] {
        assert_eq!(look(codec, &[], false), Err(DropReason::Padding));
    }
    let mut reader = DdReader::new();
    reader.read(&structure(0, 0), ExtSeq(1)).unwrap();
    // End of a frame of layer (1, 1).
    let dd = reader.read(&[0x40 | 3, 0, 101], ExtSeq(2)).unwrap();
    let info = inspect(Codec::Av1, &[0x10, 1], false, Some(&dd)).unwrap();
    assert_eq!(flags(info), (false, true, false, 1, 1));
    // The descriptor is no ciphertext: a VP8 first byte that says "key frame" does not count against it.
    assert!(!inspect(Codec::Vp8, &[0x10, 0x50], false, Some(&dd)).unwrap().key_frame);
}

#[test]
fn descriptors_are_rewritten() {
    let cases: [(Codec, &[u8], Option<u16>, Option<u8>, &[u8], usize); 8] = [
        (Codec::Vp8, &[0x10, 0x50], Some(1), Some(1), &[0x10], 1),
        // 7 bits become 15.
        (Codec::Vp8, &[0x80, 0x80, 5, 1], Some(0x1234), None, &[0x80, 0x80, 0x92, 0x34], 3),
        (Codec::Vp8, &[0x90, 0xf0, 0x92, 0x34, 9, 0x80, 1], Some(7), Some(3), &[0x90, 0xf0, 0x80, 7, 3], 5),
        (Codec::Vp8, &[0x90, 0xf0, 0x92, 0x34, 9, 0x80, 1], None, None, &[0x90, 0xf0, 0x92, 0x34, 9], 5),
        (Codec::Vp9, &[0xa8, 5, 0x40, 8, 1], Some(0x7fff), Some(1), &[0xa8, 0xff, 0xff, 0x40, 1], 4),
        // Flexible mode has no TL0PICIDX.
        (Codec::Vp9, &[0xb8, 5, 0x40, 8, 1], Some(1), Some(1), &[0xb8, 0x80, 1, 0x40], 3),
        (Codec::Vp9, &[0xa8, 0x80], Some(1), Some(1), &[], 0),
        (Codec::H264, &[0x61, 0x9a], Some(1), Some(1), &[], 0),
    ];
    let mut out = ArrayVec::new();
    for (codec, payload, picture_id, tl0, want, replaced) in cases {
        let got = rewrite_descriptor(codec, payload, picture_id, tl0, &mut out);
        assert_eq!((&out[..], got), (want, replaced), "{codec:?} {payload:x?}");
    }
}

/// L2T2 with two decode targets, one chain and resolutions, as a key frame's first packet carries it.
fn structure(template: u32, offset: u32) -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.put(1, 1).put(0, 1).put(template, 6).put(100, 16);
    bits.put(1, 1).put(1, 1).put(0, 3); // structure, active targets
    bits.put(offset, 6).put(1, 5);
    bits.put(1, 2).put(2, 2).put(1, 2).put(3, 2); // templates (0,0) (0,1) (1,0) (1,1)
    bits.put(0xffff, 16); // 4 templates of 2 dtis
    bits.put(0, 1).put(0b1_0011_0, 6).put(0, 1).put(0b1_0001_1_0010_0, 11); // fdiffs: none, one, none, two
    bits.put(0b10, 2); // chains: ns(3) of 1 in 2 bits
    bits.put(0x1234, 16); // protected-by: ns(1) takes no bits; 4 templates of 4 bits
    bits.put(1, 1).put(639, 16).put(359, 16).put(1279, 16).put(719, 16);
    bits.put(0b01, 2); // active targets
    bits.bytes.clone()
}

#[test]
fn dependency_descriptors_need_their_structure() {
    let mut reader = DdReader::new();
    assert_eq!(reader.read(&[0xc0, 0, 1], ExtSeq(1)), Err(DdError::NoStructure));
    let info = reader.read(&structure(62, 62), ExtSeq(1)).unwrap();
    assert_eq!((info.start_of_frame, info.end_of_frame, info.frame_number), (true, false, 0x1_0000 + 100));
    assert_eq!((info.spatial, info.temporal, info.key_frame), (0, 0, true));
    assert_eq!(info.active_decode_targets, Some(1));
    assert!(reader.has_structure());
    // Templates are numbered from 62 on and wrap at 64.
    for (template, layer) in [(62, (0, 0)), (63, (0, 1)), (0, (1, 0)), (1, (1, 1))] {
        let info = reader.read(&[0x40 | template, 0, 101], ExtSeq(1)).unwrap();
        assert_eq!((info.spatial, info.temporal), layer);
        assert_eq!((info.start_of_frame, info.end_of_frame, info.key_frame), (false, true, false));
    }
    assert_eq!(reader.read(&[2, 0, 101], ExtSeq(1)), Err(DdError::NoStructure));
    // Custom dtis (2 targets), fdiffs (one of 8 bits) and chains (one of 8 bits).
    let mut bits = BitWriter::default();
    bits.put(0, 8).put(7, 16).put(0b00111, 5).put(0b0101, 4).put(2, 2).put(9, 8).put(0, 2).put(77, 8);
    let custom = bits.bytes.clone();
    assert_eq!(reader.read(&custom, ExtSeq(1)).unwrap().spatial, 1);
    assert_eq!(reader.read(&custom[..custom.len() - 1], ExtSeq(1)), Err(DdError::Malformed));
}

#[test]
fn a_broken_structure_does_not_replace_the_good_one() {
    let mut reader = DdReader::new();
    reader.read(&structure(0, 0), ExtSeq(1)).unwrap();
    let whole = structure(8, 8);
    for cut in 4..whole.len() {
        assert_eq!(reader.read(&whole[..cut], ExtSeq(1)), Err(DdError::Malformed), "{cut}");
    }
    assert_eq!(reader.read(&[3, 0, 1], ExtSeq(1)).unwrap().temporal, 1, "still the first structure");
    reader.read(&whole, ExtSeq(1)).unwrap();
    assert_eq!(reader.read(&[3, 0, 1], ExtSeq(1)), Err(DdError::NoStructure));
}

#[test]
fn structures_out_of_bounds_are_refused() {
    // 65 templates; a fifth spatial layer; a ninth temporal layer.
    for (step, times) in [(0, 64), (2, 4), (1, 8)] {
        let mut bits = BitWriter::default();
        bits.put(0x8000_00, 24).put(0b10000, 5).put(0, 6).put(0, 5);
        for _ in 0..times {
            bits.put(step, 2);
        }
        bits.put(3, 2);
        for _ in 0..500 {
            bits.put(0, 8);
        }
        assert_eq!(DdReader::new().read(&bits.bytes, ExtSeq(1)), Err(DdError::Malformed), "{step}");
    }
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(vec![Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264])
}

prop_compose! {
    fn any_values()(
        labels in prop::array::uniform3(prop::option::of("[a-zA-Z0-9]{1,16}")),
        level in prop::option::of((0u8..128, any::<bool>())),
        time in prop::option::of(0u32..1 << 24),
        twcc in any::<Option<u16>>(),
        orientation in any::<Option<u8>>(),
        delay in any::<Option<[u8; 3]>>(),
    ) -> ExtensionValues<'static> {
        let [mid, rid, repaired] = labels;
        ExtensionValues {
            mid: mid.and_then(|s| Mid::new(&s)),
            rid: rid.and_then(|s| Rid::new(&s)),
            repaired_rid: repaired.and_then(|s| Rid::new(&s)),
            audio_level: level.map(|(level, voice)| AudioLevelExt { level, voice }),
            abs_send_time: time,
            transport_cc: twcc,
            dependency_descriptor: None,
            video_orientation: orientation,
            playout_delay: delay,
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(packet in prop::collection::vec(any::<u8>(), 0..300), fix in any::<bool>()) {
        let mut packet = packet;
        if fix && let Some(first) = packet.first_mut() {
            *first = *first & 0x3f | 0x80;
        }
        let ids: Vec<_> = Extension::ALL.into_iter().zip(1..).collect();
        if let Ok(header) = RtpHeader::parse(&packet) {
            prop_assert!(header.header_len >= 12 && header.header_len <= packet.len());
            let _ = ExtensionValues::read(&header, &packet, &map(&ids, true));
            let _ = payload_without_padding(&header, &packet[header.header_len..]);
        }
    }

    #[test]
    fn arbitrary_extension_blocks_never_panic(
        profile in prop::sample::select(vec![0xbedeu16, 0x1000, 0x1007, 0]),
        words in prop::collection::vec(any::<[u8; 4]>(), 0..70),
    ) {
        let mut packet = vec![0x90, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend(profile.to_be_bytes());
        packet.extend((words.len() as u16).to_be_bytes());
        packet.extend(words.concat());
        let header = RtpHeader::parse(&packet).unwrap();
        let total: usize = header.extensions(&packet).map(|(id, value)| {
            assert_ne!(id, 0);
            value.len() + 1
        }).sum();
        prop_assert!(total <= words.len() * 4);
    }

    #[test]
    fn arbitrary_payloads_never_panic(
        codec in any_codec(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        marker in any::<bool>(),
        picture_id in any::<Option<u16>>(),
        tl0 in any::<Option<u8>>(),
    ) {
        let before = inspect(codec, &payload, marker, None);
        let mut out = ArrayVec::new();
        let replaced = rewrite_descriptor(codec, &payload, picture_id, tl0, &mut out);
        prop_assert!(replaced <= payload.len());
        let rewritten = [&out[..], &payload[replaced..]].concat();
        // A rewritten packet says the same but for the numbers.
        if let Ok(before) = before {
            let after = inspect(codec, &rewritten, marker, None).unwrap();
            let video = matches!(codec, Codec::Vp8 | Codec::Vp9);
            let want = PayloadInfo {
                picture_id: before.picture_id.map(|id| picture_id.filter(|_| video).map_or(id, |new| new & 0x7fff)),
                tl0_pic_idx: before.tl0_pic_idx.map(|id| tl0.unwrap_or(id)),
                ..before
            };
            prop_assert_eq!(after, want);
        }
        let _ = red::primary(&payload);
        let _ = rtx::split(&payload);
    }

    #[test]
    fn arbitrary_dependency_descriptors_never_panic(
        first in prop::collection::vec(any::<u8>(), 0..80),
        second in prop::collection::vec(any::<u8>(), 0..20),
        good in any::<bool>(),
    ) {
        let mut reader = DdReader::new();
        if good {
            reader.read(&structure(0, 0), ExtSeq(1)).unwrap();
        }
        let _ = reader.read(&first, ExtSeq(2));
        let _ = reader.read(&second, ExtSeq(3));
    }

    #[test]
    fn headers_survive_writing_and_reading(
        values in any_values(),
        dd in prop::option::of(prop::collection::vec(any::<u8>(), 3..=255)),
        base_id in 1u8..200,
        allow_mixed in any::<bool>(),
        room in 12usize..=MAX_HEADER,
    ) {
        let values = ExtensionValues { dependency_descriptor: dd.as_deref(), ..values };
        let ids: Vec<_> = Extension::ALL.into_iter().zip(base_id..).collect();
        let map = map(&ids, allow_mixed);
        let mut out = [0; MAX_HEADER];
        let len = header_out().write(&mut out, &values, &map);
        let header = RtpHeader::parse(&out[..len]).unwrap();
        prop_assert_eq!(header.header_len, len);
        let RtpHeaderOut { marker, pt, seq, timestamp, ssrc } = header_out();
        prop_assert_eq!(
            (header.marker, header.pt, header.seq, header.timestamp, header.ssrc),
            (marker, pt, seq, timestamp, ssrc)
        );
        let read = ExtensionValues::read(&header, &out[..len], &map);
        let all_have_ids = !(base_id..base_id + 9).contains(&15);
        if all_have_ids && (allow_mixed || base_id + 8 < 15 && dd.as_ref().is_none_or(|dd| dd.len() <= 16)) {
            prop_assert_eq!(read, values);
        }
        // With less room, less is written, and never out of bounds.
        let len = header_out().write(&mut out[..room], &values, &map);
        prop_assert!(len >= 12 && len <= room);
        prop_assert!(RtpHeader::parse(&out[..len]).is_ok());
    }
}
