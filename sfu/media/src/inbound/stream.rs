//! One primary SSRC of a publisher: one simulcast layer, or a track's only stream.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::PacketMeta;
use super::frame_gate::FrameGate;
use super::key_frame_requests::KeyFrameRequests;
use super::nack_register::NackRegister;
use super::reports::{ReceptionStats, SenderReport};
use super::store::PacketStore;
use crate::command::{CodecParams, MediaKind, TrackPolicy};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Pt, RtpTime, SeqNo, Ssrc};
use crate::rtcp::ReportBlock;
use crate::rtp::{DdError, DdReader, ExtensionValues, RtpHeader, inspect, payload_without_padding, rtx};

/// A stream counts as live while its last packet is younger than this.
const LIVE_TIME: Duration = Duration::from_secs(2);
/// A subscriber that comes so soon after a key frame starts there. It gets what was sent since all at once, and shows it
/// late by as much until it has caught up: so not longer than a new key frame may take to come.
const REPLAY: Duration = Duration::from_millis(300);
/// Packets that a replay may have: what 300 ms of 10 Mbit/s are.
const MAX_REPLAY: u64 = 384;

/// What an [`InboundStream`] is made for.
#[derive(Debug, Clone)]
pub struct InboundConfig {
    /// The stream's own SSRC.
    pub ssrc: Ssrc,
    /// Audio or video.
    pub kind: MediaKind,
    /// Payload types of its media section.
    pub codecs: Vec<CodecParams>,
    /// `Some(n)`: simulcast layer n of the track, 0 the lowest. `None`: the track's only stream.
    pub simulcast: Option<u8>,
    /// The track's policy.
    pub policy: TrackPolicy,
    /// Ask for lost packets by NACK. Sensible where the section has RTX, or where its `a=rtcp-fb` says `nack`.
    pub nack: bool,
}

/// Counters of one stream, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InboundStats {
    /// Packets received, retransmissions and padding included.
    pub packets: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Packets that a retransmission brought.
    pub recovered: u64,
    /// Packets asked for by NACK, each time counted.
    pub nacks: u64,
    /// Key-frame requests that [`InboundStream::poll_key_frame`] let through.
    pub key_frame_requests: u64,
    /// Starts of key frames received.
    pub key_frames: u64,
}

/// Receives one RTP stream: stores its packets, watches for gaps, keeps the receiver report's figures, throttles key
/// frame requests. See the [module](super) for the order of calls.
#[derive(Debug)]
pub struct InboundStream {
    config: InboundConfig,
    store: PacketStore,
    gate: FrameGate,
    nacks: NackRegister,
    reception: ReceptionStats,
    key_frames: KeyFrameRequests,
    dd: DdReader,
    highest: Option<ExtSeq>,
    /// First packet of the last key frame, and the highest one that was released.
    key_start: Option<ExtSeq>,
    released: Option<ExtSeq>,
    last_packet: Option<Instant>,
    stats: InboundStats,
}

impl InboundStream {
    /// A stream that has received nothing.
    pub fn new(config: InboundConfig, now: Instant) -> Self {
        Self {
            store: PacketStore::new(config.kind),
            gate: FrameGate::new(config.ssrc, config.kind, config.policy.require_encryption),
            nacks: NackRegister::new(),
            reception: ReceptionStats::new(now),
            key_frames: KeyFrameRequests::default(),
            dd: DdReader::new(),
            highest: None,
            key_start: None,
            released: None,
            last_packet: None,
            stats: InboundStats::default(),
            config,
        }
    }

    /// Takes a packet of the stream's own SSRC, authenticated and decrypted: `index` and `payload` as
    /// [`Opened`](crate::srtp::Opened) says, padding still at its end. Stores it, and pushes to `released` the indices
    /// that may be forwarded now, in order. `released` is to be forwarded even when this packet is refused.
    ///
    /// # Errors
    /// [`DropReason::UnknownPayloadType`], [`DropReason::Padding`] for a packet of padding only (received, but nothing to
    /// forward), [`DropReason::RtpMalformed`], [`DropReason::Muted`], [`DropReason::TooLarge`],
    /// [`DropReason::Duplicate`], [`DropReason::TooOld`], [`DropReason::NotEncrypted`],
    /// [`DropReason::FrameUnfinished`].
    pub fn accept(
        &mut self,
        header: &RtpHeader,
        index: ExtSeq,
        payload: &[u8],
        ext: &ExtensionValues<'_>,
        now: Instant,
        released: &mut Vec<ExtSeq>,
    ) -> Result<(), DropReason> {
        let codec = self.codec(header.pt).ok_or(DropReason::UnknownPayloadType)?;
        let payload = payload_without_padding(header, payload).ok_or(DropReason::RtpMalformed)?;
        self.count(payload, now);
        // A packet that comes again on its own SSRC after its retransmission was not lost, just late.
        self.reception.on_packet(index, header.timestamp, codec.clock_rate, now);
        self.note_index(index, now);
        self.take(codec, index, header, payload, ext, now, released)
    }

    /// Takes a retransmission of this stream ([RFC 4588](https://www.rfc-editor.org/rfc/rfc4588)), on its RTX SSRC:
    /// `payload` as decrypted, with the original sequence number in front and padding still at its end.
    ///
    /// # Errors
    /// As [`Self::accept`]; [`DropReason::RtxUseless`] for a packet that was there already or that no index fits,
    /// [`DropReason::Padding`] for a bandwidth probe.
    pub fn accept_rtx(
        &mut self,
        header: &RtpHeader,
        payload: &[u8],
        ext: &ExtensionValues<'_>,
        now: Instant,
        released: &mut Vec<ExtSeq>,
    ) -> Result<(), DropReason> {
        let codec = self.rtx_codec(header.pt).ok_or(DropReason::UnknownPayloadType)?;
        let payload = payload_without_padding(header, payload).ok_or(DropReason::RtpMalformed)?;
        if payload.is_empty() {
            return Err(DropReason::Padding);
        }
        let (osn, payload) = rtx::split(payload).ok_or(DropReason::RtpMalformed)?;
        let highest = self.highest.ok_or(DropReason::RtxUseless)?;
        let index = ExtSeq::nearest(highest, osn);
        if self.store.contains(index) {
            return Err(DropReason::RtxUseless);
        }
        if self.store.is_too_old(index) {
            return Err(DropReason::TooOld);
        }
        self.count(payload, now);
        self.nacks.on_retransmission(index, now);
        self.note_index(index, now);
        self.take(codec, index, header, payload, ext, now, released)?;
        self.stats.recovered += 1;
        Ok(())
    }

    /// Takes a packet that the stream of the same track and layer on another shard released. It went through all checks
    /// there, but under the policy that held there then.
    ///
    /// # Errors
    /// [`DropReason::Muted`], [`DropReason::NotEncrypted`], [`DropReason::TooLarge`], [`DropReason::Duplicate`],
    /// [`DropReason::TooOld`].
    pub fn accept_relayed(
        &mut self,
        meta: &PacketMeta,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        self.count(payload, now);
        let TrackPolicy { require_encryption, muted } = self.config.policy;
        if muted {
            return Err(DropReason::Muted);
        }
        if require_encryption && !meta.opaque {
            return Err(DropReason::NotEncrypted);
        }
        self.store.insert(meta, payload)?;
        self.highest = self.highest.max(Some(meta.index));
        self.released = self.released.max(Some(meta.index));
        self.note_key_frame(meta);
        Ok(())
    }

    /// A sender report that came to another shard.
    pub fn set_sender_report(&mut self, report: SenderReport) {
        self.reception.on_sender_report(report.ntp, report.rtp, report.arrival);
    }

    /// Changes the track's policy. When encryption comes to be required, or the mute state changes, what was stored
    /// before is not given out any more: it passed under other rules.
    pub fn set_policy(&mut self, policy: TrackPolicy) {
        if policy == self.config.policy {
            return;
        }
        self.config.policy = policy;
        self.gate.reset(policy.require_encryption);
        self.store.clear();
        self.key_start = None;
        self.released = None;
        self.nacks.forget_missing();
    }

    /// Gives up frames that waited too long for their last packet, and releases what they held up. Call at
    /// [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant, released: &mut Vec<ExtSeq>) {
        let before = released.len();
        self.gate.handle_timeout(&mut self.store, now, released);
        self.note_released(released, before);
    }

    /// When [`Self::handle_timeout`], [`Self::poll_nacks`] or [`Self::poll_key_frame`] has something to do next.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let nacks = if self.config.nack { self.nacks.deadline() } else { None };
        [self.gate.deadline(), nacks, self.key_frames.deadline(now)].into_iter().flatten().min()
    }

    /// Packets that were refused after they had waited, since the last call: call until `None`.
    pub fn take_drops(&mut self) -> Option<(DropReason, u64)> {
        self.gate.take_drops()
    }

    /// The sequence numbers to ask the publisher for now, given its round-trip time if known.
    pub fn poll_nacks(&mut self, now: Instant, rtt: Option<Duration>) -> &[SeqNo] {
        if !self.config.nack || self.config.policy.muted {
            return &[];
        }
        let due = self.nacks.poll_nacks(now, rtt);
        self.stats.nacks += due.len() as u64;
        due
    }

    /// The publisher's round trip as the last retransmission told it, once.
    pub fn take_round_trip(&mut self) -> Option<Duration> {
        self.nacks.take_round_trip()
    }

    /// Someone needs a key frame of this stream.
    pub fn request_key_frame(&mut self) {
        self.key_frames.request();
    }

    /// Whether to send the publisher a PLI now, true once for each: see [`KeyFrameRequests`].
    pub fn poll_key_frame(&mut self, now: Instant) -> bool {
        let due = self.key_frames.poll(now);
        self.stats.key_frame_requests += u64::from(due);
        due
    }

    /// What a subscriber that starts now is to be given first, all of it in the store: the packets since a key frame that
    /// came in the last 300 ms, the first one and the last. `None` when it must wait for the next key frame.
    ///
    /// They are what every subscriber got lately, so nothing is given out that was refused, or sent while the track was
    /// muted or before its policy changed.
    pub fn since_key_frame(&self, now: Instant) -> Option<(ExtSeq, ExtSeq)> {
        let (first, last) = (self.key_start?, self.released?);
        if self.config.kind == MediaKind::Audio || last.0.checked_sub(first.0)? >= MAX_REPLAY {
            return None;
        }
        let (meta, _) = self.store.get(first)?;
        if now.saturating_duration_since(meta.received) > REPLAY {
            return None;
        }
        // A gap would have to be repaired first.
        let whole = (first.0..=last.0).all(|index| self.store.get(ExtSeq(index)).is_some());
        whole.then_some((first, last))
    }

    /// A sender report for this stream.
    pub fn handle_sender_report(&mut self, ntp: u64, rtp: RtpTime, now: Instant) {
        self.reception.on_sender_report(ntp, rtp, now);
    }

    /// The last sender report; to be given to forwarders when it comes, and to new ones.
    pub fn last_sender_report(&self) -> Option<SenderReport> {
        self.reception.sender_report()
    }

    /// The report block for the publisher; `None` before the first packet. Starts a new interval.
    pub fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        self.reception.report_block(self.config.ssrc, now)
    }

    /// Packets expected and lost (before repair) since the last call.
    pub fn take_quality(&mut self) -> (u32, u32) {
        self.reception.take_quality()
    }

    /// Interarrival jitter.
    pub fn jitter(&self) -> Duration {
        self.reception.jitter()
    }

    /// What was released, for forwarding and for retransmission.
    pub fn store(&self) -> &PacketStore {
        &self.store
    }

    /// The stream's SSRC.
    pub fn ssrc(&self) -> Ssrc {
        self.config.ssrc
    }

    /// Its place among the track's streams: the simulcast layer, or 0.
    pub fn stream(&self) -> u8 {
        self.config.simulcast.unwrap_or(0)
    }

    /// Whether packets came within the last two seconds.
    pub fn is_live(&self, now: Instant) -> bool {
        self.last_packet.is_some_and(|at| now.saturating_duration_since(at) < LIVE_TIME)
    }

    /// Counters.
    pub fn stats(&self) -> InboundStats {
        self.stats
    }

    fn codec(&self, pt: Pt) -> Option<CodecParams> {
        self.config.codecs.iter().find(|c| c.pt == pt).copied()
    }

    fn rtx_codec(&self, pt: Pt) -> Option<CodecParams> {
        self.config.codecs.iter().find(|c| c.rtx == Some(pt)).copied()
    }

    fn count(&mut self, payload: &[u8], now: Instant) {
        self.stats.packets += 1;
        self.stats.bytes += payload.len() as u64;
        self.last_packet = Some(now);
    }

    fn note_index(&mut self, index: ExtSeq, now: Instant) {
        self.nacks.on_packet(index, now);
        if self.config.policy.muted {
            // Nothing is asked for, so nothing may wait for being asked for: its deadline would pass and never move.
            self.nacks.forget_missing();
        }
        self.highest = Some(self.highest.map_or(index, |h| h.max(index)));
    }

    #[expect(clippy::too_many_arguments, reason = "one packet in its parts")]
    fn take(
        &mut self,
        codec: CodecParams,
        index: ExtSeq,
        header: &RtpHeader,
        payload: &[u8],
        ext: &ExtensionValues<'_>,
        now: Instant,
        released: &mut Vec<ExtSeq>,
    ) -> Result<(), DropReason> {
        let TrackPolicy { require_encryption, muted } = self.config.policy;
        if muted {
            return Err(DropReason::Muted);
        }
        let mut dd = ArrayVec::new();
        // An unreadable descriptor would mislead a receiver; without it, the payload's own stands.
        let mut frame = None;
        if let Some(bytes) = ext.dependency_descriptor {
            match self.dd.read(bytes, index) {
                Ok(info) => {
                    dd.try_extend_from_slice(bytes).map_err(|_| DropReason::TooLarge)?;
                    frame = Some(info);
                }
                Err(DdError::NoStructure) => self.key_frames.request(),
                Err(DdError::Malformed) => {}
            }
        }
        let info = inspect(codec.codec, payload, header.marker, frame.as_ref())?;
        let meta = PacketMeta {
            index,
            timestamp: header.timestamp,
            marker: header.marker,
            codec: codec.codec,
            clock_rate: codec.clock_rate,
            variant: codec.variant,
            stream: self.stream(),
            spatial: self.config.simulcast.unwrap_or(info.spatial),
            info,
            opaque: require_encryption,
            audio_level: ext.audio_level,
            orientation: ext.video_orientation,
            playout_delay: ext.playout_delay,
            dd,
            frame,
            received: now,
        };
        let before = released.len();
        let admitted = self.gate.admit(&mut self.store, &meta, payload, released);
        self.note_released(released, before);
        admitted?;
        self.note_key_frame(&meta);
        Ok(())
    }

    /// A packet came that may begin a key frame.
    fn note_key_frame(&mut self, meta: &PacketMeta) {
        let info = &meta.info;
        if self.config.kind == MediaKind::Video && info.frame_start && info.key_frame {
            self.stats.key_frames += 1;
            self.key_frames.key_frame_arrived();
            if info.spatial == 0 && self.key_start.is_none_or(|start| start < meta.index) {
                self.key_start = Some(meta.index);
            }
        }
    }

    fn note_released(&mut self, released: &[ExtSeq], before: usize) {
        let newest = released.get(before..).and_then(|new| new.iter().max());
        self.released = self.released.max(newest.copied());
    }
}

#[cfg(test)]
pub(super) mod tests;
