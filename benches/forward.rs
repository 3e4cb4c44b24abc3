//! One subscription's part of forwarding, without sockets: select, rewrite, remember, write the header, seal. Nanoseconds
//! per packet.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::packets::{Stream, VP8, ext};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sfu_media::command::{
    Codec, CodecParams, Extension, ExtensionMap, MediaKind, SendSection, SubscriptionTarget, TrackPolicy,
};
use sfu_media::ids::{ExtSeq, Mid, Pt, Ssrc};
use sfu_media::inbound::{InboundConfig, InboundStream};
use sfu_media::outbound::{Forwarder, TwccSeqCounter, runs};
use sfu_media::rtp::{ExtensionValues, RtpHeader};
use sfu_media::srtp::{Profile, SrtpSeal};
use sfu_media::tx::TxQueue;

fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward");
    group.throughput(Throughput::Elements(1));
    for payload in [1100, 120] {
        let now = Instant::now();
        let mut map = ExtensionMap::default();
        map.set(Extension::TransportCc, ext::TRANSPORT_CC);
        map.set(Extension::Mid, ext::MID);
        let codecs = vec![CodecParams {
            pt: Pt(VP8),
            codec: Codec::Vp8,
            clock_rate: 90_000,
            rtx: Some(Pt(97)),
            variant: 0,
        }];
        let mut inbound = InboundStream::new(
            InboundConfig {
                ssrc: Ssrc(1),
                kind: MediaKind::Video,
                codecs: codecs.clone(),
                simulcast: None,
                policy: TrackPolicy { require_encryption: true, muted: false },
                nack: true,
            },
            now,
        );
        let section = SendSection {
            mid: Mid::new("7").unwrap(),
            kind: MediaKind::Video,
            ssrc: Ssrc(0x5000_0000),
            rtx_ssrc: Some(Ssrc(0x5000_0001)),
            codecs,
            extensions: map,
            cname: Arc::from("publisher"),
        };
        let mut forwarder = Forwarder::new(section, 1, now);
        forwarder.set_target(SubscriptionTarget::default());
        let mut seal = SrtpSeal::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12]).unwrap();
        let (mut twcc, mut tx) = (TwccSeqCounter::new(now), TxQueue::new());
        let dst = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut stream = Stream::new(1, false);
        let (mut numbers, mut index, mut frames) = (1, 65_000u64, 0u32);
        group.bench_function(BenchmarkId::new("packet", payload), |b| {
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let mut done = 0;
                while done < iterations {
                    let now = now + Duration::from_millis(10) * frames;
                    let mut released: Vec<ExtSeq> = Vec::new();
                    for packet in stream.frame(8, payload, frames == 0, &mut numbers) {
                        let header = RtpHeader::parse(&packet).unwrap();
                        let values = ExtensionValues::read(&header, &packet, &map);
                        let body = &packet[header.header_len..];
                        inbound.accept(&header, ExtSeq(index), body, &values, now, &mut released).unwrap();
                        index += 1;
                    }
                    frames += 1;
                    tx.clear();
                    let start = Instant::now();
                    let packets: Vec<_> =
                        released.iter().map(|index| inbound.store().get(*index).unwrap()).collect();
                    for run in runs(&packets) {
                        forwarder.forward(run, &mut seal, dst.into(), &mut twcc, &mut tx, now).unwrap();
                    }
                    spent += start.elapsed();
                    done += released.len() as u64;
                }
                spent.mul_f64(iterations as f64 / done as f64)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
