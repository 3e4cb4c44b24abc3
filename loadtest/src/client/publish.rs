//! A bot's own tracks: when frames are due, what is in them, and how they get into packets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::Event;
use str0m::format::Codec;
use str0m::media::{MediaKind, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::rtp::{ExtensionValues, RtpWrite};

use super::transport::Transport;
use crate::measure::{Board, Window};
use crate::media::recording::Recording;
use crate::media::speech::{self, Dice, Speaker, Voice};
use crate::media::stamp::{MAX_LAYERS, Stamp, StampClock};
use crate::media::trace::{TraceFrame, TracePlayer, period};
use crate::media::vp8::{Descriptor, MAX_PAYLOAD, packetize};
use crate::media::{FrameCryptor, FrameKind};
use crate::scenario::{Layer, Steady};

/// Track ids of the bot's own choosing.
pub(crate) const AUDIO: &str = "bot-audio";
pub(crate) const VIDEO: &str = "bot-video";
/// Names of the layers in SDKs and servers, lowest first.
const RIDS: [&str; MAX_LAYERS] = ["q", "h", "f"];
/// Bits a second of speech, as SDKs set it for microphones with 20 ms packets.
const SPEECH_BITRATE: u32 = 32_000;
/// A page says that its microphone is off so long after the last packet, and on so long before the first: what comes from
/// a microphone that is off the service may drop.
const MUTE_MARGIN: Duration = Duration::from_millis(100);
/// Nobody is off for less.
const SHORTEST_MUTE: Duration = Duration::from_millis(500);
/// A frame that is later than this is not made up for.
const LATE: Duration = Duration::from_millis(100);

struct Audio {
    mid: Option<Mid>,
    sid: Option<String>,
    speaker: Speaker,
    recording: Option<Recording>,
    dice: Dice,
    due: Instant,
    voice: Voice,
    /// Mute changes to be told.
    changes: VecDeque<(Instant, bool)>,
    number: u32,
    spoken: u32,
    sent: u64,
    seq: u64,
    rtp_base: u32,
}

/// Where a layer's frames come from.
enum Camera {
    /// Only the sizes are real; what is inside is made up.
    Trace(TracePlayer),
    /// Frames that a decoder shows.
    Recording(Recording),
}

impl Camera {
    fn next_frame(&mut self) -> (TraceFrame, Option<&'static [u8]>) {
        match self {
            Camera::Trace(player) => (player.next_frame(), None),
            Camera::Recording(recording) => {
                let (frame, bytes) = recording.next_picture();
                (frame, Some(bytes))
            }
        }
    }

    fn want_key(&mut self) {
        match self {
            Camera::Trace(player) => player.want_key(),
            Camera::Recording(recording) => recording.restart(),
        }
    }
}

struct VideoLayer {
    rid: Option<Rid>,
    spec: Layer,
    camera: Camera,
    on: bool,
    due: Instant,
    number: u32,
    sent: u64,
    seq: u64,
    rtp_base: u32,
    tl0: u8,
}

struct Video {
    mid: Option<Mid>,
    sid: Option<String>,
    layers: Vec<VideoLayer>,
}

/// The publishing PeerConnection and its tracks.
pub(crate) struct Publisher {
    pub(crate) transport: Transport,
    audio: Option<Audio>,
    video: Option<Video>,
    cryptor: Option<Arc<FrameCryptor>>,
    iv: u128,
    clock: StampClock,
    window: Window,
    /// Start of the room's schedule, and of RTP time.
    epoch: Instant,
    filling: Arc<[u8]>,
    /// Largest payload of a packet of the picture.
    payload: usize,
    offered: bool,
    flows: bool,
    /// Frames sent, on all layers.
    pub(crate) frames: u64,
}

/// What a publisher is made of.
pub(crate) struct PublisherSpec {
    pub(crate) speaker: Option<Speaker>,
    pub(crate) layers: Option<Vec<Layer>>,
    /// Plays recordings instead of frames that are stamped to be measured.
    pub(crate) recorded: bool,
    /// Streams that do not vary.
    pub(crate) steady: Option<Steady>,
    pub(crate) cryptor: Option<Arc<FrameCryptor>>,
    pub(crate) clock: StampClock,
    pub(crate) window: Window,
    pub(crate) epoch: Instant,
    pub(crate) filling: Arc<[u8]>,
    pub(crate) seed: u64,
}

impl Publisher {
    pub(crate) fn new(transport: Transport, spec: PublisherSpec, now: Instant) -> Self {
        let mut dice = Dice::new(spec.seed);
        // A new stream starts in the lower half (RFC 3711 section 3.3.1), and neither at 0.
        let first_seq = |dice: &mut Dice| 2 + dice.roll() % 0x7ff0;
        let audio = spec.speaker.map(|speaker| Audio {
            mid: None,
            sid: None,
            speaker,
            recording: spec.recorded.then(Recording::audio),
            due: now,
            voice: Voice::Silence,
            changes: VecDeque::new(),
            number: 0,
            spoken: 0,
            sent: 0,
            seq: first_seq(&mut dice),
            rtp_base: dice.roll() as u32,
            dice: Dice::new(spec.seed ^ 1),
        });
        let recorded = spec.recorded;
        let steady = spec.steady;
        let video = spec.layers.map(|layers| {
            let start = dice.roll() as usize;
            let single = layers.len() == 1;
            let layer = |(index, spec): (usize, &Layer)| VideoLayer {
                rid: RIDS.get(index).filter(|_| !single).map(|rid| Rid::from(*rid)),
                spec: *spec,
                camera: match (recorded, steady) {
                    (true, _) => Camera::Recording(Recording::video()),
                    (_, Some(steady)) => Camera::Trace(TracePlayer::steady(steady, spec.fps)),
                    _ => Camera::Trace(TracePlayer::new(spec.bitrate, spec.fps, start % 10_000)),
                },
                on: true,
                due: now,
                number: 0,
                sent: 0,
                seq: first_seq(&mut dice),
                rtp_base: dice.roll() as u32,
                tl0: 0,
            };
            Video { mid: None, sid: None, layers: layers.iter().enumerate().map(layer).collect() }
        });
        let iv = spec.cryptor.as_ref().map_or(0, |cryptor| cryptor.random_iv());
        Self {
            transport,
            audio,
            video,
            cryptor: spec.cryptor,
            iv,
            clock: spec.clock,
            window: spec.window,
            epoch: spec.epoch,
            filling: spec.filling,
            payload: steady.map_or(MAX_PAYLOAD, |steady| steady.payload.into()),
            offered: false,
            flows: false,
            frames: 0,
        }
    }

    /// The layers' sizes and qualities, for the announcement.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        self.video.iter().flat_map(|video| video.layers.iter().map(|layer| layer.spec)).collect()
    }

    /// The service has announced a track of ours. Returns the offer when it was the last.
    pub(crate) fn on_published(&mut self, cid: &str, sid: &str) -> Option<String> {
        match (cid, &mut self.audio, &mut self.video) {
            (AUDIO, Some(audio), _) => audio.sid = Some(sid.to_owned()),
            (VIDEO, _, Some(video)) => video.sid = Some(sid.to_owned()),
            _ => return None,
        }
        let audio_waits = self.audio.as_ref().is_some_and(|audio| audio.sid.is_none());
        let video_waits = self.video.as_ref().is_some_and(|video| video.sid.is_none());
        if self.offered || audio_waits || video_waits {
            return None;
        }
        self.offered = true;
        let mut tracks = Vec::new();
        if self.audio.is_some() {
            tracks.push((MediaKind::Audio, AUDIO.to_owned(), None));
        }
        if let Some(video) = &self.video {
            let simulcast = (video.layers.len() > 1).then(|| {
                let send = RIDS.iter().take(video.layers.len()).map(|rid| SimulcastLayer::new(rid)).collect();
                Simulcast { send, recv: Vec::new() }
            });
            tracks.push((MediaKind::Video, VIDEO.to_owned(), simulcast));
        }
        let (mids, offer) = self.transport.offer(&tracks)?;
        let mut mids = mids.into_iter();
        if let Some(audio) = &mut self.audio {
            audio.mid = mids.next();
        }
        if let Some(video) = &mut self.video {
            video.mid = mids.next();
        }
        Some(offer)
    }

    /// A key frame is wanted.
    pub(crate) fn on_event(&mut self, event: &Event, board: &mut Board) {
        let (Event::KeyframeRequest(request), Some(video)) = (event, &mut self.video) else { return };
        board.key_frames_wanted += 1;
        for layer in &mut video.layers {
            if request.rid.is_none() || layer.rid == request.rid {
                layer.camera.want_key();
            }
        }
    }

    /// The service says which layers anybody takes, lowest first.
    pub(crate) fn on_wanted(&mut self, sid: &str, wanted: [bool; MAX_LAYERS], now: Instant) {
        let Some(video) = self.video.as_mut().filter(|video| video.sid.as_deref() == Some(sid)) else {
            return;
        };
        // Without simulcast the one layer has whatever quality the service gives it.
        let (single, any) = (video.layers.len() == 1, wanted.contains(&true));
        for (layer, wanted) in video.layers.iter_mut().zip(wanted) {
            let on = wanted || (single && any);
            if on && !layer.on {
                layer.camera.want_key();
                layer.due = now;
            }
            layer.on = on;
        }
    }

    /// Sends what is due; returns when the next frame is, and pushes mute changes to `mutes`.
    pub(crate) fn send_due(
        &mut self,
        now: Instant,
        board: &mut Board,
        mutes: &mut Vec<(String, bool)>,
    ) -> Option<Instant> {
        if !self.transport.rtc.is_connected() {
            return None;
        }
        if !std::mem::replace(&mut self.flows, true) {
            // Media starts with the connection: what fell due before is not late.
            self.start_media(now);
        }
        self.send_audio(now, board, mutes);
        self.send_video(now, board);
        let audio = self
            .audio
            .as_ref()
            .filter(|audio| audio.mid.is_some())
            .map(|audio| audio.changes.front().map_or(audio.due, |(at, _)| audio.due.min(*at)));
        let video = self.video.iter().filter(|video| video.mid.is_some());
        let layers = video.flat_map(|video| video.layers.iter().filter(|l| l.on).map(|l| l.due));
        layers.chain(audio).min()
    }

    fn start_media(&mut self, now: Instant) {
        if let Some(audio) = &mut self.audio {
            let mut at = now.saturating_duration_since(self.epoch);
            loop {
                let (voice, until) = audio.speaker.at(at);
                audio.voice = voice;
                if voice != Voice::Muted {
                    break;
                }
                at = until;
            }
            audio.due = self.epoch + at;
        }
        for layer in self.video.iter_mut().flat_map(|video| &mut video.layers) {
            layer.due = now;
        }
    }

    fn send_audio(&mut self, now: Instant, board: &mut Board, mutes: &mut Vec<(String, bool)>) {
        let Some(audio) = &mut self.audio else { return };
        let (Some(mid), Some(pt)) = (audio.mid, payload_type(&self.transport, Codec::Opus)) else { return };
        let sid = audio.sid.clone().unwrap_or_default();
        while let Some((_, muted)) = audio.changes.front().filter(|(at, _)| *at <= now) {
            mutes.push((sid.clone(), *muted));
            audio.changes.pop_front();
        }
        while audio.due <= now {
            if now > audio.due + LATE {
                board.tester.late_frames += u64::from(self.window.holds(now));
                audio.due = now;
            }
            let (due, voice) = (audio.due, audio.voice);
            let at = due.saturating_duration_since(self.epoch);
            let (next, next_voice, muted) = next_packet(&mut audio.speaker, at);
            if muted && next > at + SHORTEST_MUTE {
                audio.changes.push_back((now + MUTE_MARGIN, true));
                audio.changes.push_back((self.epoch + next - MUTE_MARGIN, false));
            }
            audio.due = self.epoch + next;
            audio.voice = next_voice;
            let speaks = voice == Voice::Speech;
            let size = if speaks { speech::speech_bytes(&mut audio.dice, SPEECH_BITRATE) } else { 0 };
            audio.number = audio.number.wrapping_add(1);
            audio.spoken = audio.spoken.wrapping_add(u32::from(speaks));
            let stamp = Stamp {
                clock_ns: self.clock.at(now),
                number: audio.number,
                depends: 0,
                next: audio.due.saturating_duration_since(now),
                spoken: audio.spoken,
                more: next_voice == Voice::Speech,
                layer: 0,
                layers: 1,
                sent: [0; MAX_LAYERS],
            };
            let frame = match &mut audio.recording {
                Some(recording) => recording.next_frame().to_vec(),
                // Opus in one 20 ms frame, full band.
                None => fill(stamp, &[0x78], size, &mut audio.sent, &self.filling),
            };
            let frame = seal(&self.cryptor, &mut self.iv, FrameKind::Opus, frame);
            let ext = ExtensionValues {
                audio_level: Some(if speaks { -25 } else { -127 }),
                voice_activity: Some(speaks),
                ..ExtensionValues::default()
            };
            audio.seq += 1;
            self.frames += 1;
            let rtp = audio.rtp_base.wrapping_add((at.as_micros() * 48 / 1000) as u32);
            let (second, counts) = (board.now(), self.window.holds(now));
            second.sent_packets += u64::from(counts);
            second.sent_bytes += frame.len() as u64 * u64::from(counts);
            let packet = RtpWrite::new(pt, audio.seq.into(), rtp, now, frame).ext_vals(ext).nackable(true);
            if let Some(stream) = self.transport.rtc.direct_api().stream_tx_by_mid(mid, None) {
                stream.write_rtp(packet);
            }
        }
    }

    fn send_video(&mut self, now: Instant, board: &mut Board) {
        let Some(video) = &mut self.video else { return };
        let (Some(mid), Some(pt)) = (video.mid, payload_type(&self.transport, Codec::Vp8)) else { return };
        let layers = video.layers.len();
        for index in 0..layers {
            let Some(layer) = video.layers.get_mut(index).filter(|l| l.on && l.due <= now) else { continue };
            let due = layer.due;
            if now > due + LATE {
                board.tester.late_frames += u64::from(self.window.holds(now));
            }
            let step = period(layer.spec.fps);
            layer.due = if now > due + LATE { now + step } else { due + step };
            let (frame, recorded) = layer.camera.next_frame();
            layer.number = layer.number.wrapping_add(1);
            if frame.temporal == 0 {
                layer.tl0 = layer.tl0.wrapping_add(1);
            }
            let clear = clear_header(frame.key, layer.spec);
            let clear = if frame.key { &clear[..] } else { &clear[..3] };
            let header = clear.len() + Stamp::len(layers);
            layer.sent += frame.size.max(header) as u64;
            let (number, next) = (layer.number, layer.due.saturating_duration_since(now));
            let mut sent = [0; MAX_LAYERS];
            for (sent, layer) in sent.iter_mut().zip(&video.layers) {
                *sent = layer.sent;
            }
            let stamp = Stamp {
                clock_ns: self.clock.at(now),
                number,
                depends: frame.depends,
                next,
                spoken: 0,
                more: true,
                layer: index as u8,
                layers: layers as u8,
                sent,
            };
            let bytes = match recorded {
                Some(bytes) => bytes.to_vec(),
                None => {
                    let mut bytes = Vec::with_capacity(frame.size.max(header) + 64);
                    bytes.extend_from_slice(clear);
                    stamp.write(&mut bytes);
                    pad(&mut bytes, frame.size, number, &self.filling);
                    bytes
                }
            };
            self.frames += 1;
            let bytes = seal(&self.cryptor, &mut self.iv, FrameKind::Vp8, bytes);
            let Some(layer) = video.layers.get_mut(index) else { continue };
            let since = due.saturating_duration_since(self.epoch);
            let rtp = layer.rtp_base.wrapping_add((since.as_micros() * 90 / 1000) as u32);
            let mut api = self.transport.rtc.direct_api();
            let Some(stream) = api.stream_tx_by_mid(mid, layer.rid) else { continue };
            let (second, counts) = (board.now(), u64::from(self.window.holds(now)));
            let descriptor = Descriptor {
                picture: number as u16,
                tl0: layer.tl0,
                temporal: frame.temporal,
                discardable: frame.temporal == 2,
            };
            packetize(&bytes, descriptor, self.payload, |payload, last| {
                layer.seq += 1;
                second.sent_packets += counts;
                second.sent_bytes += payload.len() as u64 * counts;
                let packet = RtpWrite::new(pt, layer.seq.into(), rtp, now, payload);
                stream.write_rtp(packet.marker(last).nackable(true));
            });
        }
    }
}

fn payload_type(transport: &Transport, codec: Codec) -> Option<Pt> {
    transport.rtc.codec_config().params().iter().find(|p| p.spec().codec == codec).map(|p| p.pt())
}

/// After a packet at `at`: when the next is due, what it will carry, and whether the microphone is off between them.
fn next_packet(speaker: &mut Speaker, at: Duration) -> (Duration, Voice, bool) {
    let mut muted = false;
    let mut next = at + speech::PACKET;
    let silent = at + speech::SILENCE;
    loop {
        let (voice, until) = speaker.at(next);
        match voice {
            Voice::Speech => return (next, voice, muted),
            Voice::Silence if muted || next >= silent => return (next, voice, muted),
            Voice::Silence if until > silent => next = silent,
            Voice::Muted => {
                muted = true;
                next = until;
            }
            Voice::Silence => next = until,
        }
    }
}

/// RFC 6386 section 9.1: the frame tag, and in key frames the start code and the size.
fn clear_header(key: bool, layer: Layer) -> [u8; 10] {
    let [w0, w1, ..] = layer.width.to_le_bytes();
    let [h0, h1, ..] = layer.height.to_le_bytes();
    [if key { 0x10 } else { 0x11 }, 2, 0, 0x9d, 0x01, 0x2a, w0, w1, h0, h1]
}

/// A whole frame of one layer: clear header, stamp, filling.
fn fill(mut stamp: Stamp, clear: &[u8], size: usize, sent: &mut u64, filling: &[u8]) -> Vec<u8> {
    let size = size.max(clear.len() + Stamp::len(usize::from(stamp.layers)));
    *sent += size as u64;
    if let Some(slot) = stamp.sent.first_mut() {
        *slot = *sent;
    }
    let mut bytes = Vec::with_capacity(size + 64);
    bytes.extend_from_slice(clear);
    stamp.write(&mut bytes);
    pad(&mut bytes, size, stamp.number, filling);
    bytes
}

/// Fills up with bytes that differ from frame to frame.
fn pad(bytes: &mut Vec<u8>, size: usize, number: u32, filling: &[u8]) {
    while bytes.len() < size && !filling.is_empty() {
        let from = number as usize * 61 % filling.len();
        let part = filling[from..].iter().take(size - bytes.len());
        bytes.extend(part);
    }
}

fn seal(cryptor: &Option<Arc<FrameCryptor>>, iv: &mut u128, kind: FrameKind, mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(cryptor) = cryptor {
        *iv = iv.wrapping_add(1);
        cryptor.seal_in_place(kind, *iv, &mut frame);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_follow_the_voice() {
        let mut speaker = Speaker::new(9, 0, 2, 0.5);
        let mut check = speaker.clone();
        let (mut at, mut voice) = (Duration::ZERO, speaker.at(Duration::ZERO).0);
        let (mut spoken, mut muted_spells) = (0, 0);
        while at < Duration::from_secs(300) {
            assert_eq!(check.at(at).0, voice, "{at:?}");
            assert_ne!(voice, Voice::Muted, "nothing is sent while muted");
            let (next, next_voice, muted) = next_packet(&mut speaker, at);
            assert!(next > at);
            if voice == Voice::Speech && next_voice == Voice::Speech && !muted {
                spoken += 1;
            }
            if !muted {
                assert!(next - at <= speech::SILENCE, "{:?}", next - at);
            }
            muted_spells += u32::from(muted);
            (at, voice) = (next, next_voice);
        }
        assert!(spoken > 3_000, "{spoken}");
        assert!(muted_spells > 3, "{muted_spells}");
    }
}
