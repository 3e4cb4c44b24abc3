//! Sealing and opening one packet: the relay's own code beside bare `ring` and `webrtc-srtp`, nanoseconds per packet.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sfu_media::ids::{ExtSeq, Ssrc};
use sfu_media::rtp::RtpHeader;
use sfu_media::srtp::{Profile, SrtpOpen, SrtpSeal};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

const HEADER: usize = 20;
const SSRC: u32 = 0x1234_5678;
const KEY: [u8; 32] = [7; 32];
const SALT: [u8; 14] = [9; 14];

/// A packet in clear.
fn packet(seq: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x90, 96];
    packet.extend(seq.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(SSRC.to_be_bytes());
    packet.extend([0xbe, 0xde, 0, 1, 0x31, 0, 1, 0]);
    packet.extend((0..payload).map(|at| at as u8));
    packet
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp_seal");
    for payload in [1100, 120] {
        let profiles = [
            ("ours_aes128_gcm", Profile::AeadAes128Gcm),
            ("ours_aes256_gcm", Profile::AeadAes256Gcm),
            ("ours_aes128_cm_sha1", Profile::AesCm128HmacSha1_80),
        ];
        for (name, profile) in profiles {
            let mut seal =
                SrtpSeal::new(profile, &KEY[..profile.key_len()], &SALT[..profile.salt_len()]).unwrap();
            let clear = packet(0, payload);
            let mut out = [0; 1500];
            let mut index = 0u64;
            group.bench_function(BenchmarkId::new(name, payload), |b| {
                b.iter(|| {
                    index += 1;
                    out[..HEADER].copy_from_slice(&clear[..HEADER]);
                    out[2..4].copy_from_slice(&(index as u16).to_be_bytes());
                    let body = black_box(&clear[HEADER..]);
                    seal.seal_rtp(&mut out, HEADER, Ssrc(SSRC), ExtSeq(index), [&[], body, &[]]).unwrap()
                });
            });
        }
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEY[..16]).unwrap());
        let clear = packet(0, payload);
        let mut out = [0; 1500];
        group.bench_function(BenchmarkId::new("ring_aes128_gcm", payload), |b| {
            b.iter(|| {
                out[..clear.len()].copy_from_slice(black_box(&clear));
                let (header, text) = out[..clear.len()].split_at_mut(HEADER);
                let nonce = Nonce::assume_unique_for_key([1; 12]);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), text).unwrap();
                out[clear.len()..][..16].copy_from_slice(tag.as_ref());
            });
        });
        let mut context =
            Context::new(&KEY[..16], &SALT[..12], ProtectionProfile::AeadAes128Gcm, None, None).unwrap();
        let mut clear = packet(0, payload);
        let mut seq = 0u16;
        group.bench_function(BenchmarkId::new("webrtc_srtp_aes128_gcm", payload), |b| {
            b.iter(|| {
                seq = seq.wrapping_add(1);
                clear[2..4].copy_from_slice(&seq.to_be_bytes());
                context.encrypt_rtp(black_box(&clear)).unwrap()
            });
        });
    }
    group.finish();
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp_open");
    for payload in [1100, 120] {
        for (name, profile) in
            [("ours_aes128_gcm", Profile::AeadAes128Gcm), ("ours_aes256_gcm", Profile::AeadAes256Gcm)]
        {
            let (key, salt) = (&KEY[..profile.key_len()], &SALT[..profile.salt_len()]);
            let mut seal = SrtpSeal::new(profile, key, salt).unwrap();
            let mut index = 0u64;
            let mut next = || {
                index += 1;
                let clear = packet(index as u16, payload);
                let mut out = clear.clone();
                out.resize(clear.len() + 16, 0);
                let body = &clear[HEADER..];
                seal.seal_rtp(&mut out, HEADER, Ssrc(SSRC), ExtSeq(index), [&[], body, &[]]).unwrap();
                out
            };
            let mut open = SrtpOpen::new(profile, key, salt).unwrap();
            group.bench_function(BenchmarkId::new(name, payload), |b| {
                b.iter_batched_ref(
                    &mut next,
                    |packet| {
                        let header = RtpHeader::parse(packet).unwrap();
                        open.open_rtp(packet, &header).unwrap()
                    },
                    criterion::BatchSize::SmallInput,
                );
            });
        }
        let mut seal =
            Context::new(&KEY[..16], &SALT[..12], ProtectionProfile::AeadAes128Gcm, None, None).unwrap();
        let mut open =
            Context::new(&KEY[..16], &SALT[..12], ProtectionProfile::AeadAes128Gcm, None, None).unwrap();
        let mut seq = 0u16;
        group.bench_function(BenchmarkId::new("webrtc_srtp_aes128_gcm", payload), |b| {
            b.iter_batched_ref(
                || {
                    seq = seq.wrapping_add(1);
                    seal.encrypt_rtp(&packet(seq, payload)).unwrap()
                },
                |packet| open.decrypt_rtp(packet).unwrap(),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
