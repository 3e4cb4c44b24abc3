//! What is read of every packet before and after decryption: nanoseconds per packet.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use benches::packets::{Stream, ext};
use criterion::{Criterion, criterion_group, criterion_main};
use sfu_media::command::{Codec, Extension, ExtensionMap};
use sfu_media::ids::Ssrc;
use sfu_media::rtcp::{self, TwccArrival, write_twcc};
use sfu_media::rtp::{ExtensionValues, RtpHeader, inspect};
use sfu_media::transport::demux;

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let packet = Stream::new(1, false).frame(1, 1100, true, &mut 1).remove(0);
    let mut map = ExtensionMap::default();
    map.set(Extension::AudioLevel, ext::AUDIO_LEVEL);
    map.set(Extension::TransportCc, ext::TRANSPORT_CC);
    map.set(Extension::Mid, ext::MID);
    group.bench_function("demux", |b| b.iter(|| demux::classify(black_box(&packet))));
    group.bench_function("rtp_header", |b| b.iter(|| RtpHeader::parse(black_box(&packet)).unwrap()));
    let header = RtpHeader::parse(&packet).unwrap();
    group.bench_function("extensions", |b| {
        b.iter(|| ExtensionValues::read(black_box(&header), black_box(&packet), &map));
    });
    let payload = &packet[header.header_len..];
    group.bench_function("vp8_descriptor", |b| {
        b.iter(|| inspect(Codec::Vp8, black_box(payload), true, None).unwrap());
    });
    let arrivals: Vec<_> = (0..100).map(|n| TwccArrival { seq: n, ticks: u64::from(n) * 8 }).collect();
    let mut feedback = Vec::new();
    write_twcc(&mut feedback, Ssrc(1), Ssrc(2), 0, 0, &arrivals);
    group.bench_function("twcc_feedback_100", |b| {
        b.iter(|| {
            let mut arrived = 0;
            for packet in rtcp::parse(black_box(&feedback)) {
                if let Ok(rtcp::Rtcp::TransportCc(feedback)) = packet {
                    arrived += feedback.statuses().filter(|(_, delta)| delta.is_some()).count();
                }
            }
            assert_eq!(arrived, 100);
        });
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
