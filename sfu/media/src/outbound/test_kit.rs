//! Packets, and a subscriber that opens what is forwarded to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::{Forwarder, Packet, TwccSeqCounter, runs};
use crate::command::{
    Codec, CodecParams, Extension, ExtensionMap, MediaKind, SendSection, SubscriptionTarget,
};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Mid, Pt, RtpTime, SeqNo, Ssrc};
use crate::inbound::{PacketMeta, PacketStore};
use crate::rtp::{ExtensionValues, PayloadInfo, RtpHeader};
use crate::srtp::{Profile, SrtpOpen, SrtpSeal};
use crate::tx::TxQueue;

pub(super) const SSRC: Ssrc = Ssrc(0xaaaa_0001);
pub(super) const RTX_SSRC: Ssrc = Ssrc(0xaaaa_0002);

pub(super) fn start() -> Instant {
    crate::sim::clock::epoch()
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn params(pt: u8, codec: Codec, variant: u32) -> CodecParams {
    let clock_rate = if matches!(codec, Codec::Opus | Codec::Red) { 48_000 } else { 90_000 };
    let rtx = (clock_rate == 90_000).then_some(Pt(pt + 1));
    CodecParams { pt: Pt(pt), codec, clock_rate, rtx, variant }
}

/// A packet of video that arrived at `at_ms`; a frame of its own, not a key frame.
pub(super) fn video(stream: u8, index: u64, timestamp: u32, at_ms: u64) -> PacketMeta {
    PacketMeta {
        index: ExtSeq(index),
        timestamp: RtpTime(timestamp),
        marker: true,
        codec: Codec::Vp8,
        clock_rate: 90_000,
        variant: 0,
        stream,
        spatial: stream,
        info: PayloadInfo {
            frame_start: true,
            frame_end: true,
            key_frame: false,
            spatial: 0,
            temporal: 0,
            switch_up: false,
            inter_layer: false,
            picture_id: None,
            tl0_pic_idx: None,
        },
        opaque: true,
        audio_level: None,
        orientation: None,
        playout_delay: None,
        dd: ArrayVec::new(),
        frame: None,
        received: start() + ms(at_ms),
    }
}

pub(super) fn key(mut meta: PacketMeta) -> PacketMeta {
    meta.info.key_frame = true;
    meta
}

pub(super) fn temporal(mut meta: PacketMeta, layer: u8) -> PacketMeta {
    meta.info.temporal = layer;
    meta
}

/// A packet of a layer inside its stream.
pub(super) fn inner(mut meta: PacketMeta, layer: u8, marker: bool) -> PacketMeta {
    meta.codec = Codec::Vp9;
    meta.info.spatial = layer;
    meta.spatial = layer;
    meta.marker = marker;
    meta
}

/// A VP8 payload with picture id and TL0PICIDX as in `meta`.
pub(super) fn vp8_payload(meta: &mut PacketMeta, picture: u16, tl0: u8, body: &[u8]) -> Vec<u8> {
    meta.info.picture_id = Some(picture);
    meta.info.tl0_pic_idx = Some(tl0);
    let [hi, lo] = (picture | 0x8000).to_be_bytes();
    [&[0x90, 0xe0, hi, lo, tl0, meta.info.temporal << 6, 1], body].concat()
}

/// What the subscriber got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) ssrc: Ssrc,
    pub(super) index: u64,
    pub(super) pt: u8,
    pub(super) marker: bool,
    pub(super) timestamp: u32,
    pub(super) payload: Vec<u8>,
    /// Dependency Descriptor; empty for none.
    pub(super) dd: Vec<u8>,
}

pub(super) struct Subscriber {
    pub(super) forwarder: Forwarder,
    pub(super) seal: SrtpSeal,
    pub(super) open: SrtpOpen,
    pub(super) twcc: TwccSeqCounter,
    pub(super) tx: TxQueue,
    pub(super) map: ExtensionMap,
    /// Transport-wide numbers received.
    pub(super) transport_cc: Vec<u16>,
}

impl Subscriber {
    pub(super) fn new(kind: MediaKind, codecs: Vec<CodecParams>, seed: u64) -> Self {
        let mut map = ExtensionMap::default();
        map.allow_mixed = true;
        for (i, extension) in Extension::ALL.into_iter().enumerate() {
            map.set(extension, i as u8 + 1);
        }
        let section = SendSection {
            mid: Mid::new("7").unwrap(),
            kind,
            ssrc: SSRC,
            rtx_ssrc: Some(RTX_SSRC),
            codecs,
            extensions: map,
            cname: "publisher".into(),
        };
        let (profile, key, salt) = (Profile::AeadAes128Gcm, [7; 16], [8; 12]);
        Self {
            forwarder: Forwarder::new(section, seed, start()),
            seal: SrtpSeal::new(profile, &key, &salt).unwrap(),
            open: SrtpOpen::new(profile, &key, &salt).unwrap(),
            twcc: TwccSeqCounter::new(start()),
            tx: TxQueue::new(),
            map,
            transport_cc: vec![],
        }
    }

    pub(super) fn vp8(seed: u64) -> Self {
        Self::new(MediaKind::Video, vec![params(96, Codec::Vp8, 0)], seed)
    }

    /// In place of AES-GCM.
    pub(super) fn speak_cm(&mut self) {
        let (profile, key, salt) = (Profile::AesCm128HmacSha1_80, [7; 16], [8; 14]);
        self.seal = SrtpSeal::new(profile, &key, &salt).unwrap();
        self.open = SrtpOpen::new(profile, &key, &salt).unwrap();
    }

    pub(super) fn target(&mut self, max_spatial: u8, max_temporal: u8) {
        self.forwarder.set_target(SubscriptionTarget { max_spatial, max_temporal, ..Default::default() });
    }

    pub(super) fn forward(&mut self, meta: &PacketMeta, payload: &[u8]) -> Result<Got, DropReason> {
        let to = SocketAddr::from(([127, 0, 0, 1], 9)).into();
        let Self { forwarder, seal, twcc, tx, .. } = self;
        forwarder.forward(&[(meta, payload)], seal, to, twcc, tx, meta.received)?;
        Ok(self.receive())
    }

    /// Forwards what was released at a time, in runs or packet by packet; what is sent, and why what is not.
    pub(super) fn forward_all(
        &mut self,
        packets: &[Packet<'_>],
        whole: bool,
        now: Instant,
    ) -> (Vec<Vec<u8>>, Vec<(ExtSeq, DropReason)>) {
        let to = SocketAddr::from(([127, 0, 0, 1], 9)).into();
        let mut refused = Vec::new();
        for run in runs(packets) {
            for part in run.chunks(if whole { self.forwarder.step(run) } else { 1 }) {
                let Self { forwarder, seal, twcc, tx, .. } = self;
                if let Err(reason) = forwarder.forward(part, seal, to, twcc, tx, now) {
                    refused.extend(part.iter().map(|(meta, _)| (meta.index, reason)));
                }
            }
        }
        let sent = self.tx.datagrams().map(|(_, bytes)| bytes.to_vec()).collect();
        self.tx.clear();
        (sent, refused)
    }

    pub(super) fn retransmit(
        &mut self,
        lost: SeqNo,
        stores: &[&PacketStore],
        now: Instant,
    ) -> Result<Got, DropReason> {
        let to = SocketAddr::from(([127, 0, 0, 1], 9)).into();
        let Self { forwarder, seal, twcc, tx, .. } = self;
        let stores = |stream: u8| stores.get(usize::from(stream)).copied();
        forwarder.retransmit(lost, stores, seal, to, twcc, tx, now)?;
        Ok(self.receive())
    }

    /// Opens the one packet that was queued. Every SSRC and number must be new to it.
    fn receive(&mut self) -> Got {
        let datagrams: Vec<Vec<u8>> = self.tx.datagrams().map(|(_, d)| d.to_vec()).collect();
        self.tx.clear();
        let [packet] = <[Vec<u8>; 1]>::try_from(datagrams).unwrap();
        self.open(packet)
    }

    /// Opens a packet, see [`Self::receive`].
    pub(super) fn open(&mut self, mut packet: Vec<u8>) -> Got {
        let header = RtpHeader::parse(&packet).unwrap();
        let opened = self.open.open_rtp(&mut packet, &header).unwrap();
        let ext = ExtensionValues::read(&header, &packet, &self.map);
        assert_eq!(ext.mid, Mid::new("7"));
        self.transport_cc.push(ext.transport_cc.unwrap());
        assert!(ext.abs_send_time.is_some());
        Got {
            ssrc: header.ssrc,
            index: opened.index.0,
            pt: header.pt.0,
            marker: header.marker,
            timestamp: header.timestamp.0,
            payload: packet[opened.payload].to_vec(),
            dd: ext.dependency_descriptor.unwrap_or_default().to_vec(),
        }
    }
}
