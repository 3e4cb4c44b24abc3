//! What a client publishes: one track, in one or more simulcast layers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::encoder::{Encoder, Encoding};
use super::frames::{self, Coding, FrameId};
use super::rtp::{self, Extras, Head};
use crate::command::ExtensionMap;
use crate::ids::{Mid, Rid};

/// Payload bytes of one packet.
const MAX_PAYLOAD: usize = 1100;
/// Packets kept for retransmission.
const HISTORY: usize = 3000;

/// One simulcast layer of a source.
#[derive(Debug, Clone, Copy)]
pub struct LayerConfig {
    /// SSRC of the layer.
    pub ssrc: u32,
    /// SSRC of its retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// Its rid, when simulcast is announced by rids.
    pub rid: Option<Rid>,
    /// Bytes of a delta frame on the average.
    pub frame_len: usize,
}

/// What a source sends and how.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Goes into every frame.
    pub source: u32,
    /// Form of the frames.
    pub coding: Coding,
    /// Media section.
    pub mid: Mid,
    /// Payload type.
    pub pt: u8,
    /// Payload type of retransmissions.
    pub rtx_pt: Option<u8>,
    /// Lowest first.
    pub layers: Vec<LayerConfig>,
    /// Ids of header extensions.
    pub extensions: ExtensionMap,
    /// How the frames of VP8 differ.
    pub encoding: Encoding,
    /// Time between frames.
    pub interval: Duration,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// Sequence number of the first packet of each layer.
    pub first_seq: u16,
    /// Whether frames carry the cryptor's trailer.
    pub encrypted: bool,
    /// Audio level of each packet, in -dBov.
    pub audio_level: Option<u8>,
    /// Put MID and RID only on the first packets of a layer, as browsers do.
    pub names_packets: u32,
}

#[derive(Debug)]
struct Layer {
    config: LayerConfig,
    encoder: Encoder,
    /// Share of its average size that the encoder is allowed.
    scale: f64,
    seq: u16,
    rtx_seq: u16,
    timestamp: u32,
    frames: u32,
    picture_id: u16,
    tl0: u8,
    key_wanted: bool,
    enabled: bool,
    packets: u32,
    octets: u32,
    history: BTreeMap<u64, (Head, Vec<u8>)>,
    sent: u64,
}

/// A running source.
#[derive(Debug)]
pub struct Source {
    config: SourceConfig,
    layers: Vec<Layer>,
    next: Instant,
    /// Sends while true.
    pub enabled: bool,
    /// Key frames sent because they were asked for.
    pub key_frames_asked: u32,
    /// When PLIs arrived.
    pub plis: Vec<Instant>,
    /// Packets asked for again.
    pub nacked: u64,
    /// Last receiver report's view of the first layer.
    pub last_report: Option<rtp::ReportBlock>,
}

impl Source {
    pub(super) fn new(config: SourceConfig, now: Instant) -> Self {
        let layers = config
            .layers
            .iter()
            .map(|layer| Layer {
                config: *layer,
                encoder: Encoder::default(),
                scale: 1.0,
                seq: config.first_seq,
                rtx_seq: 1000,
                // Close to the wrap, so that every run crosses it.
                timestamp: 0u32.wrapping_sub(20 * config.clock_rate / 10).wrapping_add(layer.ssrc),
                frames: 0,
                picture_id: 0x7ff0,
                tl0: 250,
                key_wanted: true,
                enabled: true,
                packets: 0,
                octets: 0,
                history: BTreeMap::new(),
                sent: 0,
            })
            .collect();
        Self {
            config,
            layers,
            next: now,
            enabled: true,
            key_frames_asked: 0,
            plis: Vec::new(),
            nacked: 0,
            last_report: None,
        }
    }

    /// Frames sent so far on a layer.
    pub fn frames_sent(&self, layer: usize) -> u32 {
        self.layers[layer].frames
    }

    /// Speaks at another level from now on.
    pub(super) fn set_audio_level(&mut self, level: Option<u8>) {
        self.config.audio_level = level;
    }

    /// What it was made of.
    pub fn config(&self) -> &SourceConfig {
        &self.config
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.enabled.then_some(self.next)
    }

    pub(super) fn mute(&mut self, muted: bool, now: Instant) {
        self.enabled = !muted;
        self.next = self.next.max(now);
        for layer in &mut self.layers {
            layer.key_wanted |= !muted;
        }
    }

    pub(super) fn set_layer(&mut self, layer: usize, enabled: bool) {
        let layer = &mut self.layers[layer];
        layer.enabled = enabled;
        layer.key_wanted |= enabled;
    }

    /// Sends the frames that are due: each packet in clear.
    pub(super) fn send(&mut self, twcc: &mut u16, out: &mut Vec<Vec<u8>>, now: Instant) {
        while self.enabled && self.next <= now {
            let ticks =
                (self.config.interval.as_secs_f64() * f64::from(self.config.clock_rate)).round() as u32;
            for index in 0..self.layers.len() {
                if self.layers[index].enabled {
                    self.send_frame(index, twcc, out);
                }
                let layer = &mut self.layers[index];
                layer.timestamp = layer.timestamp.wrapping_add(ticks);
            }
            self.next += self.config.interval;
        }
    }

    fn send_frame(&mut self, index: usize, twcc: &mut u16, out: &mut Vec<Vec<u8>>) {
        let config = &self.config;
        let average = |layer: &Layer| layer.config.frame_len as f64 * layer.scale;
        let top = self.layers.last().map_or(0.0, average);
        let layer = &mut self.layers[index];
        let key = std::mem::take(&mut layer.key_wanted);
        let id = FrameId { source: config.source, layer: index as u8, number: layer.frames };
        let encoding = match config.coding {
            Coding::Vp8 => config.encoding,
            Coding::Opus => Encoding { key_ratio: 1.0, ..Encoding::PLAIN },
        };
        let average = average(layer);
        let Some(shape) = layer.encoder.next(encoding, id, key, average, top, config.interval) else {
            return;
        };
        let frame = frames::build(config.coding, id, key, shape.len, config.encrypted);
        layer.frames += 1;
        // Into equal parts, as libwebrtc does.
        let chunks = frame.chunks(frame.len().div_ceil(frame.len().div_ceil(MAX_PAYLOAD)));
        let last = chunks.len() - 1;
        layer.tl0 = layer.tl0.wrapping_add(u8::from(shape.temporal == 0));
        for (i, chunk) in chunks.enumerate() {
            let mut payload = Vec::new();
            if config.coding == Coding::Vp8 {
                let id = layer.picture_id | 0x8000;
                let start = if i == 0 { 0x10 } else { 0 };
                let tid = shape.temporal << 6 | u8::from(shape.sync) << 5;
                payload.extend([0x80 | start, 0xe0, (id >> 8) as u8, id as u8, layer.tl0, tid]);
            }
            payload.extend(chunk);
            let head = Head {
                marker: i == last && config.coding == Coding::Vp8,
                pt: config.pt,
                seq: layer.seq,
                timestamp: layer.timestamp,
                ssrc: layer.config.ssrc,
            };
            let named = layer.packets < config.names_packets;
            let extras = Extras {
                mid: named.then_some(config.mid),
                rid: layer.config.rid.filter(|_| named),
                audio_level: config.audio_level,
                transport_cc: Some(*twcc),
                ..Extras::default()
            };
            *twcc = twcc.wrapping_add(1);
            out.push(rtp::packet(head, &extras, &config.extensions, &payload));
            layer.packets += 1;
            layer.octets = layer.octets.wrapping_add(payload.len() as u32);
            layer.history.insert(layer.sent, (head, payload));
            layer.sent += 1;
            if layer.history.len() > HISTORY {
                layer.history.pop_first();
            }
            layer.seq = layer.seq.wrapping_add(1);
        }
        layer.picture_id = (layer.picture_id + 1) & 0x7fff;
    }

    fn layer_of(&mut self, ssrc: u32) -> Option<usize> {
        self.layers.iter().position(|layer| layer.config.ssrc == ssrc)
    }

    /// Answers a NACK on the RTX stream. False when the SSRC is not of this source.
    pub(super) fn nack(&mut self, ssrc: u32, lost: u16, twcc: &mut u16, out: &mut Vec<Vec<u8>>) -> bool {
        let Some(index) = self.layer_of(ssrc) else { return false };
        self.nacked += 1;
        let config = &self.config;
        let layer = &mut self.layers[index];
        let (Some(rtx_pt), Some(rtx_ssrc)) = (config.rtx_pt, layer.config.rtx_ssrc) else { return true };
        let Some((head, payload)) = layer.history.values().rev().find(|(head, _)| head.seq == lost) else {
            return true;
        };
        let mut rtx_payload = lost.to_be_bytes().to_vec();
        rtx_payload.extend(payload);
        let head = Head { pt: rtx_pt, seq: layer.rtx_seq, ssrc: rtx_ssrc, ..*head };
        layer.rtx_seq = layer.rtx_seq.wrapping_add(1);
        let extras = Extras {
            mid: Some(config.mid),
            repaired_rid: layer.config.rid,
            transport_cc: Some(*twcc),
            ..Extras::default()
        };
        *twcc = twcc.wrapping_add(1);
        out.push(rtp::packet(head, &extras, &config.extensions, &rtx_payload));
        true
    }

    /// Takes a key-frame request.
    pub(super) fn pli(&mut self, ssrc: u32, now: Instant) {
        if let Some(index) = self.layer_of(ssrc) {
            self.layers[index].key_wanted = true;
            if self.config.encoding.libvpx {
                self.layers.iter_mut().for_each(|layer| layer.key_wanted = true);
            }
            self.key_frames_asked += 1;
            self.plis.push(now);
        }
    }

    /// Takes a block of a receiver report.
    pub(super) fn report(&mut self, block: rtp::ReportBlock) {
        if self.layers.first().is_some_and(|layer| layer.config.ssrc == block.ssrc) {
            self.last_report = Some(block);
        }
    }

    /// Sender reports of all layers.
    pub(super) fn reports(&self, ntp: u64, now: Instant, out: &mut Vec<Vec<u8>>) {
        for layer in &self.layers {
            if layer.packets > 0 {
                let ahead = self.next.saturating_duration_since(now).as_secs_f64();
                let back = (ahead * f64::from(self.config.clock_rate)) as u32;
                let timestamp = layer.timestamp.wrapping_sub(back);
                out.push(rtp::sender_report(layer.config.ssrc, ntp, timestamp, layer.packets, layer.octets));
            }
        }
    }
}
