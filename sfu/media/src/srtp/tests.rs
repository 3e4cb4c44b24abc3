use arrayvec::ArrayVec;
use proptest::prelude::*;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;
use zeroize::Zeroizing;

use super::kdf::{Derivation, Label, apply_keystream, ctr_key};
use super::*;
use crate::command::{Codec, Extension, ExtensionMap};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Mid, Pt, RtpTime, SeqNo, Ssrc};
use crate::rtp::{ExtensionValues, MAX_HEADER, RtpHeader, RtpHeaderOut, inspect, rewrite_descriptor};

const PROFILES: [Profile; 3] = [Profile::AeadAes256Gcm, Profile::AeadAes128Gcm, Profile::AesCm128HmacSha1_80];
const SSRC: Ssrc = Ssrc(0x1234_5678);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn master(profile: Profile) -> (Vec<u8>, Vec<u8>) {
    let key = (0..profile.key_len()).map(|i| (i * 7 + 1) as u8).collect();
    let salt = (0..profile.salt_len()).map(|i| (i * 11 + 3) as u8).collect();
    (key, salt)
}

fn pair(profile: Profile) -> (SrtpSeal, SrtpOpen) {
    let (key, salt) = master(profile);
    (SrtpSeal::new(profile, &key, &salt).unwrap(), SrtpOpen::new(profile, &key, &salt).unwrap())
}

/// A context of the independent implementation, for one direction.
fn oracle(profile: Profile) -> Context {
    let (key, salt) = master(profile);
    let profile = match profile {
        Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    Context::new(&key, &salt, profile, None, None).unwrap()
}

/// Headers of all kinds, by `kind`: plain, with one-byte and two-byte extensions, with CSRCs and both.
fn header(kind: usize, seq: SeqNo, ssrc: Ssrc) -> Vec<u8> {
    let mut map = ExtensionMap::default();
    map.set(Extension::Mid, 3);
    map.set(Extension::TransportCc, 5);
    map.set(Extension::DependencyDescriptor, 8);
    map.allow_mixed = true;
    let dd = [9; 21];
    let extensions = match kind % 4 {
        0 => ExtensionValues::default(),
        1 | 3 => ExtensionValues { mid: Mid::new("12"), transport_cc: Some(seq.0), ..Default::default() },
        _ => ExtensionValues { dependency_descriptor: Some(&dd), ..Default::default() },
    };
    let out = RtpHeaderOut { marker: kind.is_multiple_of(2), pt: Pt(96), seq, timestamp: RtpTime(77), ssrc };
    let mut bytes = [0; MAX_HEADER];
    let len = out.write(&mut bytes, &extensions, &map);
    let mut header = bytes[..len].to_vec();
    if kind % 4 == 3 {
        header[0] |= 2;
        header.splice(12..12, [0, 0, 0, 1, 0, 0, 0, 2]);
    }
    header
}

fn seal(seal: &mut SrtpSeal, header: &[u8], index: ExtSeq, prefix: &[u8], body: &[u8]) -> Vec<u8> {
    let parsed = RtpHeader::parse(header).unwrap();
    let mut slot = vec![0xee; header.len() + prefix.len() + body.len() + MAX_OVERHEAD];
    slot[..header.len()].copy_from_slice(header);
    // Which part a byte belongs to makes no difference.
    let (body, behind) = body.split_at(body.len() - body.len() % 7);
    let len = seal.seal_rtp(&mut slot, header.len(), parsed.ssrc, index, [prefix, body, behind]).unwrap();
    slot.truncate(len);
    slot
}

fn open(open: &mut SrtpOpen, packet: &[u8]) -> Result<(ExtSeq, Vec<u8>), DropReason> {
    let mut packet = packet.to_vec();
    let header = RtpHeader::parse(&packet)?;
    let opened = open.open_rtp(&mut packet, &header)?;
    Ok((opened.index, packet[opened.payload].to_vec()))
}

fn open_rtcp(open: &mut SrtpOpen, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut packet = packet.to_vec();
    let len = open.open_rtcp(&mut packet)?;
    packet.truncate(len);
    Ok(packet)
}

fn report(ssrc: u32, words: usize) -> Vec<u8> {
    let mut report = vec![0x80, 201, 0, (1 + words) as u8];
    report.extend(ssrc.to_be_bytes());
    report.extend((0..words * 4).map(|i| i as u8));
    report
}

/// RFC 3711 appendix B.2.
#[test]
fn aes_cm_key_stream() {
    let key = ctr_key(&hex("2B7E151628AED2A6ABF7158809CF4F3C")).unwrap();
    let salt: [u8; 14] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    let mut stream = vec![0; 0xff02 * 16];
    apply_keystream(&key, cm::counter(&salt, Ssrc(0), 0), &mut stream).unwrap();
    for (block, want) in [
        (0, "E03EAD0935C95E80E166B16DD92B4EB4"),
        (1, "D23513162B02D0F72A43A2FE4A5F97AB"),
        (2, "41E95B3BB0A2E8DD477901E4FCA894C0"),
        (0xfeff, "EC8CDF7398607CB0F2D21675EA9EA1E4"),
        (0xff00, "362B7C3C6773516318A077D7FC5073AE"),
        (0xff01, "6A2CC3787889374FBEB4C81B17BA6C44"),
    ] {
        assert_eq!(stream[block * 16..][..16], hex(want), "{block:x}");
    }
}

/// RFC 3711 appendix B.3.
#[test]
fn key_derivation_128() {
    let derivation =
        Derivation::new(&hex("E1F97A0D3E018BE0D64FA32C06DE4139"), &hex("0EC675AD498AFEEBB6960B3AABE6"))
            .unwrap();
    let key = derivation.derive::<16>(Label::RtpKey).unwrap();
    assert_eq!(key[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
    let salt = derivation.derive::<14>(Label::RtpSalt).unwrap();
    assert_eq!(salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
    let auth = derivation.derive::<94>(Label::RtpAuth).unwrap();
    let want = "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE
        E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25
        6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2";
    assert_eq!(auth[..], hex(want));
}

/// RFC 6188 section 7.2.
#[test]
fn key_derivation_256() {
    let key = hex("F0F04914B513F2763A1B1FA130F10E29 98F6F6E43E4309D1E622A0E332B9F1B6");
    let derivation = Derivation::new(&key, &hex("3B04803DE51EE7C96423AB5B78D2")).unwrap();
    let key = derivation.derive::<32>(Label::RtpKey).unwrap();
    assert_eq!(key[..], hex("5BA1064E30EC51613CAD926C5A28EF73 1EC7FB397F70A960653CAF06554CD8C4"));
    let salt = derivation.derive::<14>(Label::RtpSalt).unwrap();
    assert_eq!(salt[..], hex("FA31791685CA444A9E07C6C64E93"));
    let auth = derivation.derive::<20>(Label::RtpAuth).unwrap();
    assert_eq!(auth[..], hex("FD9C32D39ED5FBB5A9DC96B30818454D1313DC05"));
}

const RFC7714_RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
    69736120 696e2070 61727465 73207472 6573";
const RFC7714_RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
    deadbeef deadbeef deadbeef deadbeef deadbeef";

/// Sections 16.1.1 and 17.1 for 128 bits, 16.2.1 and 17.3 for 256 bits: the vectors give session keys.
const RFC7714: [(usize, &str, &str, &str); 2] = [
    (
        16,
        "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a
         51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda
         4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        "841dd968 3dd78ec9 2ae58790 125f62b3 000005d4",
    ),
    (
        32,
        "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02
         76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be
         8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
        "91db4afb feee5a97 8fab4393 ed2615fe 000005d4",
    ),
];

fn rfc7714_cipher(key_len: usize) -> Cipher {
    let key: Vec<u8> = (0..key_len as u8).collect();
    let salt: [u8; 12] = *b"Quid pro quo";
    Cipher::Gcm(Gcm::from_session(&key, Zeroizing::new(salt), &key, Zeroizing::new(salt)).unwrap())
}

#[test]
fn rfc7714_srtp() {
    for (key_len, protected, _, _) in RFC7714 {
        let plain = hex(RFC7714_RTP);
        let (head, body) = plain.split_at(12);
        let mut sealing = SrtpSeal::with_cipher(rfc7714_cipher(key_len));
        let index = ExtSeq(0xf17b);
        assert_eq!(seal(&mut sealing, head, index, &[], body), hex(protected));
        assert_eq!(seal(&mut sealing, head, index, &body[..5], &body[5..]), hex(protected), "with a prefix");
        let mut opening = SrtpOpen::with_cipher(rfc7714_cipher(key_len));
        assert_eq!(open(&mut opening, &hex(protected)), Ok((index, body.to_vec())));
    }
}

#[test]
fn rfc7714_srtcp() {
    for (key_len, _, protected, tag_only) in RFC7714 {
        let plain = hex(RFC7714_RTCP);
        let mut sealing = SrtpSeal::with_cipher(rfc7714_cipher(key_len));
        sealing.set_next_rtcp(0x5d4);
        let mut out = vec![0; plain.len() + MAX_OVERHEAD];
        let len = sealing.seal_rtcp(&plain, &mut out).unwrap();
        assert_eq!(out[..len], hex(protected));
        let mut opening = SrtpOpen::with_cipher(rfc7714_cipher(key_len));
        assert_eq!(open_rtcp(&mut opening, &hex(protected)), Ok(plain.clone()));
        // Sections 17.2 and 17.4, authenticated but not encrypted: refused although the tag is right.
        let clear = [plain, hex(tag_only)].concat();
        let mut opening = SrtpOpen::with_cipher(rfc7714_cipher(key_len));
        assert_eq!(open_rtcp(&mut opening, &clear), Err(DropReason::SrtpAuth));
    }
}

/// Indices across four rollovers, some packets late.
fn indices() -> Vec<u64> {
    let mut indices: Vec<u64> = (0..700).map(|n| 20_000 + n * 397).collect();
    for at in (10..690).step_by(7) {
        indices.swap(at, at + 1);
    }
    indices
}

#[test]
fn the_oracle_opens_what_we_seal() {
    for profile in PROFILES {
        let (mut ours, _) = pair(profile);
        let mut theirs = oracle(profile);
        for (kind, index) in indices().into_iter().map(ExtSeq).enumerate() {
            let body: Vec<u8> = (0..kind % 50).map(|i| (i + kind) as u8).collect();
            let prefix = &b"descriptor"[..kind % 10];
            let header = header(kind, index.seq(), SSRC);
            let packet = seal(&mut ours, &header, index, prefix, &body);
            let plain = theirs.decrypt_rtp(&packet).unwrap();
            assert_eq!(plain[..], [&header[..], prefix, &body].concat(), "{profile:?} {kind}");
        }
    }
}

#[test]
fn we_open_what_the_oracle_seals() {
    for profile in PROFILES {
        let (_, mut ours) = pair(profile);
        let mut theirs = oracle(profile);
        for (kind, index) in indices().into_iter().map(ExtSeq).enumerate() {
            let body: Vec<u8> = (0..kind % 50).map(|i| (i + kind) as u8).collect();
            let packet = [&header(kind, index.seq(), SSRC)[..], &body].concat();
            let sealed = theirs.encrypt_rtp(&packet).unwrap();
            assert_eq!(open(&mut ours, &sealed), Ok((index, body)), "{profile:?} {kind}");
        }
    }
}

#[test]
fn srtcp_agrees_with_the_oracle() {
    for profile in PROFILES {
        let (mut sealing, mut opening) = pair(profile);
        let mut theirs_open = oracle(profile);
        let mut theirs_seal = oracle(profile);
        for n in 0..40 {
            let report = report(n as u32 % 3, n);
            let mut out = vec![0; report.len() + MAX_OVERHEAD];
            let len = sealing.seal_rtcp(&report, &mut out).unwrap();
            assert_eq!(theirs_open.decrypt_rtcp(&out[..len]).unwrap()[..], report, "{profile:?} {n}");
            let sealed = theirs_seal.encrypt_rtcp(&report).unwrap();
            assert_eq!(open_rtcp(&mut opening, &sealed), Ok(report), "{profile:?} {n}");
        }
    }
}

#[test]
fn replays_are_refused() {
    for profile in PROFILES {
        let (mut sealing, mut opening) = pair(profile);
        let packets: Vec<_> = (65_530..65_545)
            .map(|n| seal(&mut sealing, &header(1, ExtSeq(n).seq(), SSRC), ExtSeq(n), &[], b"frame"))
            .collect();
        for packet in &packets {
            open(&mut opening, packet).unwrap();
        }
        let state = opening.state();
        for packet in &packets {
            assert_eq!(open(&mut opening, packet), Err(DropReason::SrtpReplay));
        }
        let mut out = [0; 64];
        let len = sealing.seal_rtcp(&report(1, 0), &mut out).unwrap();
        assert_eq!(opening.state(), state);
        open_rtcp(&mut opening, &out[..len]).unwrap();
        assert_eq!(open_rtcp(&mut opening, &out[..len]), Err(DropReason::SrtpReplay));
    }
}

#[test]
fn tampering_is_refused_and_leaves_no_trace() {
    for profile in PROFILES {
        let (mut sealing, mut opening) = pair(profile);
        let mut protect =
            |n: u64| seal(&mut sealing, &header(3, ExtSeq(n).seq(), SSRC), ExtSeq(n), b"pre", b"frame");
        open(&mut opening, &protect(100)).unwrap();
        let fresh = protect(101);
        let state = opening.state();
        for at in 0..fresh.len() {
            for bit in [0x01, 0x80] {
                let mut bad = fresh.clone();
                bad[at] ^= bit;
                assert!(open(&mut opening, &bad).is_err(), "{profile:?}: byte {at} is not authenticated");
                assert_eq!(opening.state(), state, "{profile:?}: byte {at}");
            }
        }
        for len in 0..fresh.len() {
            assert!(open(&mut opening, &fresh[..len]).is_err(), "{profile:?}: {len} bytes");
        }
        assert_eq!(opening.state(), state);
        assert_eq!(open(&mut opening, &fresh), Ok((ExtSeq(101), b"preframe".to_vec())));
    }
}

#[test]
fn tampered_rtcp_is_refused_and_leaves_no_trace() {
    for profile in PROFILES {
        let (mut sealing, mut opening) = pair(profile);
        let mut out = [0; 128];
        let len = sealing.seal_rtcp(&report(7, 3), &mut out).unwrap();
        let fresh = &out[..len];
        let state = opening.state();
        for at in 0..len {
            let mut bad = fresh.to_vec();
            bad[at] ^= 0x80;
            assert!(open_rtcp(&mut opening, &bad).is_err(), "{profile:?}: byte {at} is not authenticated");
            assert!(open_rtcp(&mut opening, &fresh[..at]).is_err(), "{profile:?}: {at} bytes");
        }
        assert_eq!(opening.state(), state);
        assert_eq!(open_rtcp(&mut opening, fresh), Ok(report(7, 3)));
    }
}

#[test]
fn indices_across_wraps() {
    // In order of arrival; each within reach of the highest so far, and new.
    let arrivals: [&[u64]; 5] = [
        &[0, 1, 65_535, 65_536, 65_534, 65_537],
        &[65_535, 65_536, 65_533],
        &[3, 30_000, 60_000, 90_000, 120_000, 131_071, 131_072, 131_070, 131_073],
        &[65_000, 97_536, 97_535, 130_072, 129_972],
        &[10, 32_777, 65_500, 98_000],
    ];
    for list in arrivals {
        let (mut sealing, mut opening) = pair(Profile::AeadAes128Gcm);
        let mut highest = list[0];
        for index in list.iter().copied().map(ExtSeq) {
            let packet = seal(&mut sealing, &header(0, index.seq(), SSRC), index, &[], b"x");
            let got = open(&mut opening, &packet);
            // 65 535 after 1 is a step back by two, and below zero there is nothing: it is taken as a step ahead.
            let reachable = index.0 > highest || highest - index.0 < replay::WINDOW;
            assert_eq!(got.is_ok(), reachable, "{index:?} in {list:?}: {got:?}");
            if let Ok((got, _)) = got {
                assert_eq!(got, index);
                highest = highest.max(index.0);
            }
        }
    }
}

#[test]
fn the_last_index_ends_the_key() {
    let (mut sealing, _) = pair(Profile::AeadAes128Gcm);
    let mut slot = [0; 64];
    let index = ExtSeq(MAX_INDEX);
    slot[..12].copy_from_slice(&header(0, index.seq(), SSRC));
    assert_eq!(sealing.seal_rtp(&mut slot, 12, SSRC, index, [b"", b"x", b""]), Ok(12 + 1 + 16));
    let index = ExtSeq(MAX_INDEX + 1);
    assert_eq!(sealing.seal_rtp(&mut slot, 12, SSRC, index, [b"", b"x", b""]), Err(DropReason::TooLarge));
    sealing.set_next_rtcp(MAX_RTCP_INDEX);
    assert!(sealing.seal_rtcp(&report(1, 0), &mut slot).is_ok());
    assert_eq!(sealing.seal_rtcp(&report(1, 0), &mut slot), Err(DropReason::TooLarge));
}

#[test]
fn slots_without_room_are_refused() {
    for profile in PROFILES {
        let (mut sealing, _) = pair(profile);
        let whole = seal(&mut sealing, &header(0, SeqNo(5), SSRC), ExtSeq(5), b"ab", b"cd").len();
        for len in 12..whole {
            let mut slot = vec![0; len];
            slot[..12].copy_from_slice(&header(0, SeqNo(5), SSRC));
            let got = sealing.seal_rtp(&mut slot, 12, SSRC, ExtSeq(5), [b"ab", b"cd", b""]);
            assert_eq!(got, Err(DropReason::TooLarge), "{len}");
        }
        let mut out = [0; 64];
        let whole = sealing.seal_rtcp(&report(1, 0), &mut out).unwrap();
        assert_eq!(sealing.seal_rtcp(&report(1, 0), &mut out[..whole - 1]), Err(DropReason::TooLarge));
        assert_eq!(sealing.seal_rtcp(&[0x80; 7], &mut out), Err(DropReason::RtcpMalformed));
    }
}

#[test]
fn sources_are_apart() {
    let (mut sealing, mut opening) = pair(Profile::AeadAes256Gcm);
    for ssrc in (1..200).rev().map(Ssrc) {
        for n in [9, 10] {
            let packet = seal(&mut sealing, &header(0, SeqNo(n), ssrc), ExtSeq(n.into()), &[], b"x");
            assert_eq!(open(&mut opening, &packet).unwrap().0, ExtSeq(n.into()));
            assert_eq!(open(&mut opening, &packet), Err(DropReason::SrtpReplay));
        }
    }
}

#[test]
fn dtls_keys_go_to_the_right_directions() {
    for profile in PROFILES {
        let exported: Vec<u8> = (0..profile.export_len()).map(|i| i as u8).collect();
        let (k, s) = (profile.key_len(), profile.salt_len());
        let mut client_seal = SrtpSeal::new(profile, &exported[..k], &exported[2 * k..2 * k + s]).unwrap();
        let mut client_open = SrtpOpen::new(profile, &exported[k..2 * k], &exported[2 * k + s..]).unwrap();
        let (mut relay_open, mut relay_seal) = from_dtls(profile, &exported).unwrap();
        let header = header(1, SeqNo(9), SSRC);
        let up = seal(&mut client_seal, &header, ExtSeq(9), &[], b"up");
        assert_eq!(open(&mut relay_open, &up), Ok((ExtSeq(9), b"up".to_vec())));
        let down = seal(&mut relay_seal, &header, ExtSeq(9), &[], b"down");
        assert_eq!(open(&mut client_open, &down), Ok((ExtSeq(9), b"down".to_vec())));
        assert_eq!(open(&mut relay_open, &down), Err(DropReason::SrtpReplay));
        let (mut relay_open, _) = from_dtls(profile, &exported).unwrap();
        assert_eq!(open(&mut relay_open, &down), Err(DropReason::SrtpAuth), "the directions differ");

        let short = &exported[1..];
        assert_eq!(from_dtls(profile, short).err(), Some(SrtpError::ExportLength(short.len())));
        assert_eq!(SrtpSeal::new(profile, &[0; 5], &[0; 12]).err(), Some(SrtpError::KeyLength(5)));
        assert_eq!(SrtpOpen::new(profile, &exported[..k], &[0; 13]).err(), Some(SrtpError::SaltLength(13)));
    }
}

/// The path of each packet, from the datagram that comes in to the one that goes out.
#[test]
fn nothing_is_allocated_per_packet() {
    let mut map = ExtensionMap::default();
    map.set(Extension::Mid, 3);
    map.set(Extension::TransportCc, 5);
    for profile in PROFILES {
        let (mut sealing, mut opening) = pair(profile);
        let packets: Vec<_> = (1..50u16)
            .map(|n| seal(&mut sealing, &header(1, SeqNo(n), SSRC), ExtSeq(n.into()), b"\x10", &[0x50; 900]))
            .collect();
        open(&mut opening, &packets[0]).unwrap();
        let mut buffers: Vec<_> = packets[1..].to_vec();
        let mut slot = [0; 1400];
        let counted = allocation_counter::measure(|| {
            for packet in &mut buffers {
                let header = RtpHeader::parse(packet).unwrap();
                let opened = opening.open_rtp(packet, &header).unwrap();
                let values = ExtensionValues::read(&header, packet, &map);
                let payload = &packet[opened.payload];
                let info = inspect(Codec::Vp8, payload, header.marker, None).unwrap();
                assert!(info.frame_start && values.mid.is_some());
                let mut prefix = ArrayVec::new();
                let replaced = rewrite_descriptor(Codec::Vp8, payload, Some(1), Some(2), &mut prefix);
                let RtpHeader { marker, pt, seq, timestamp, ssrc, .. } = header;
                let out = RtpHeaderOut { marker, pt, seq, timestamp, ssrc };
                let len = out.write(&mut slot, &values, &map);
                sealing
                    .seal_rtp(&mut slot, len, ssrc, opened.index, [&prefix, &payload[replaced..], &[]])
                    .unwrap();
            }
        });
        // The HMAC contexts of AES-CM live on the heap.
        let gcm = profile != Profile::AesCm128HmacSha1_80;
        assert!(!gcm || counted.count_total == 0, "{profile:?}: {} allocations", counted.count_total);
    }
}

#[test]
fn debug_output_shows_no_keys() {
    let (sealing, opening) = pair(Profile::AeadAes128Gcm);
    assert_eq!(format!("{sealing:?} {opening:?}"), "SrtpSeal(..) SrtpOpen(..)");
}

proptest! {
    #[test]
    fn arbitrary_packets_are_refused_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        profile in prop::sample::select(PROFILES.to_vec()),
    ) {
        let (_, mut opening) = pair(profile);
        let state = opening.state();
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = *first & 0x3f | 0x80;
        }
        prop_assert!(open(&mut opening, &bytes).is_err());
        prop_assert!(open_rtcp(&mut opening, &bytes).is_err());
        prop_assert_eq!(opening.state(), state);
    }

    #[test]
    fn packets_survive_sealing_and_opening(
        profile in prop::sample::select(PROFILES.to_vec()),
        kind in 0usize..4,
        seq in any::<u16>(),
        prefix in prop::collection::vec(any::<u8>(), 0..16),
        body in prop::collection::vec(any::<u8>(), 0..1300),
    ) {
        let (mut sealing, mut opening) = pair(profile);
        let index = ExtSeq(seq.into());
        let packet = seal(&mut sealing, &header(kind, SeqNo(seq), SSRC), index, &prefix, &body);
        prop_assert_eq!(open(&mut opening, &packet), Ok((index, [prefix, body].concat())));
    }

    #[test]
    fn compounds_survive_sealing_and_opening(
        profile in prop::sample::select(PROFILES.to_vec()),
        words in 0usize..60,
    ) {
        let (mut sealing, mut opening) = pair(profile);
        let mut out = [0; 400];
        let len = sealing.seal_rtcp(&report(9, words), &mut out).unwrap();
        prop_assert_eq!(open_rtcp(&mut opening, &out[..len]), Ok(report(9, words)));
    }
}
