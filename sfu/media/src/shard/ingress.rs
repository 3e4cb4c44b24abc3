//! From a publisher's datagram to the packets that may be forwarded.

use std::time::Instant;

use super::Shard;
use super::peers::PeerKey;
use super::router::{Route, Routed};
use super::sending::WIRE_OVERHEAD;
use super::timers::Timer;
use super::tracks::{Stream, StreamKey, TrackKey};
use crate::command::{MediaKind, ShardEvent};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Remote, Ssrc};
use crate::inbound::{InboundConfig, InboundStream, KeyFrameSize, LayerRates};
use crate::relay::Message;
use crate::rtp::{ExtensionValues, RtpHeader};
use crate::tx::TxQueue;

impl Shard {
    pub(super) fn rtp(
        &mut self,
        from: Remote,
        datagram: &mut [u8],
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let key = self.peers.at(from).ok_or(DropReason::UnknownSource)?;
        let peer = self.peers.get_mut(key).ok_or(DropReason::UnknownSource)?;
        let header = RtpHeader::parse(datagram)?;
        let opened = peer.transport.open_rtp(datagram, &header)?;

        // Authentic from here on.
        peer.heard = true;
        peer.transport.heard(from, now);
        let extensions = ExtensionValues::read(&header, datagram, peer.router.extensions(header.ssrc));
        if let Some(number) = extensions.transport_cc {
            peer.arrivals.record(number, now);
            peer.some_ssrc = header.ssrc;
            if let Some(at) = peer.arrivals.poll_timeout() {
                self.timers.arm(Timer::Peer(key), at);
            }
        }
        let Routed { route, replaced } = peer.router.route(header.ssrc, header.pt, &extensions, now)?;
        let section = peer.router.section(route.section).ok_or(DropReason::UnknownSsrc)?;
        let track_key = section.track.ok_or(DropReason::NotPublished)?;
        let track = self.tracks.get(track_key).ok_or(DropReason::NotPublished)?;
        let stream_key = match track.stream(route.layer).filter(|_| route.rtx || !replaced) {
            Some(stream_key) => stream_key,
            // There is nothing yet to repair.
            None if route.rtx => return Err(DropReason::RtxUseless),
            None => {
                self.forward_held(tx, now);
                self.open_stream(key, track_key, route, header.ssrc, now)?
            }
        };
        if self.held.is_some_and(|held| held != stream_key) {
            self.forward_held(tx, now);
        }
        let stream = self.tracks.streams.get_mut(stream_key).ok_or(DropReason::NotPublished)?;
        let payload = datagram.get(opened.payload).ok_or(DropReason::RtpMalformed)?;
        let mut released = std::mem::take(&mut self.released);
        let mut held = released.len();
        let inbound = &mut stream.inbound;
        let result = match route.rtx {
            false => inbound.accept(&header, opened.index, payload, &extensions, now, &mut released),
            true => inbound.accept_rtx(&header, payload, &extensions, now, &mut released),
        };
        // Of a frame whose end is still to come the rest may be among what was received with this packet.
        let unfinished = released.last().and_then(|last| inbound.store().get(*last));
        let unfinished = unfinished.is_some_and(|(meta, _)| !meta.info.frame_end);
        if let Some(rtt) = inbound.take_round_trip()
            && let Some(peer) = self.peers.get_mut(key)
        {
            peer.rtt.record(rtt, now);
        }
        match (route.rtx, result) {
            (false, Ok(())) => self.stats.rtp_in += 1,
            (true, Ok(())) => self.stats.rtx_in += 1,
            // Padding carries nothing, but its number was used.
            (false, Err(DropReason::Padding)) => {
                // What came before it goes first.
                if held > 0 {
                    self.fan_out(track_key, stream_key, released.get(..held).unwrap_or_default(), tx, now);
                    released.drain(..std::mem::take(&mut held));
                }
                self.skip(track_key, route.layer, opened.index, now);
            }
            (_, Err(DropReason::NotEncrypted)) => self.note_plaintext(track_key),
            _ => {}
        }
        let came_alive = self.after_accept(stream_key, released.get(held..).unwrap_or_default(), now);
        self.released = released;
        self.held = (!self.released.is_empty()).then_some(stream_key);
        if !unfinished || came_alive {
            self.forward_held(tx, now);
        }
        if came_alive {
            self.reallocate_track(track_key, tx, now);
        }
        self.serve_stream(stream_key, tx, now);
        result
    }

    /// Forwards what waits for the rest of its frame.
    pub(super) fn forward_held(&mut self, tx: &mut TxQueue, now: Instant) {
        let Some(key) = self.held.take() else { return };
        let mut released = std::mem::take(&mut self.released);
        if let Some(track) = self.tracks.streams.get(key).map(|stream| stream.track) {
            self.fan_out(track, key, &released, tx, now);
        }
        released.clear();
        self.released = released;
    }

    /// Begins a stream of a track with its first packet. The one that was in its place is gone.
    fn open_stream(
        &mut self,
        peer_key: PeerKey,
        track_key: TrackKey,
        route: Route,
        ssrc: Ssrc,
        now: Instant,
    ) -> Result<StreamKey, DropReason> {
        let peer = self.peers.get(peer_key).ok_or(DropReason::UnknownSource)?;
        let negotiated = &peer.router.section(route.section).ok_or(DropReason::UnknownSsrc)?.negotiated;
        let track = self.tracks.get(track_key).ok_or(DropReason::NotPublished)?;
        let replaces = track.stream(route.layer).is_some();
        let simulcast = negotiated.rids.len() > 1 || negotiated.ssrcs.len() > 1;
        let config = InboundConfig {
            ssrc,
            kind: negotiated.kind,
            codecs: negotiated.codecs.clone(),
            simulcast: simulcast.then_some(route.layer),
            policy: track.policy,
            // A sender without RTX would repeat packets on the SSRC itself, which few do.
            nack: negotiated.codecs.iter().any(|codec| codec.rtx.is_some()),
        };
        let stream = Stream {
            track: track_key,
            source: track.source,
            kind: negotiated.kind,
            layer: route.layer,
            inbound: InboundStream::new(config, now),
            rates: LayerRates::default(),
            long_rates: LayerRates::default(),
            key_frame: KeyFrameSize::default(),
            announced: false,
        };
        let key = self.tracks.set_stream(stream).ok_or(DropReason::PeerLimit)?;
        if replaces {
            self.stream_replaced(track_key, route.layer);
        }
        Ok(key)
    }

    /// Notes what a stream released. Returns whether nothing had come of it of late.
    pub(super) fn after_accept(&mut self, key: StreamKey, released: &[ExtSeq], now: Instant) -> bool {
        let Some(stream) = self.tracks.streams.get_mut(key) else { return false };
        let track_key = stream.track;
        let mut plaintext = false;
        while let Some((reason, count)) = stream.inbound.take_drops() {
            self.stats.drops[reason as usize] += count;
            plaintext |= reason == DropReason::NotEncrypted;
        }
        let first = released.first().and_then(|index| stream.inbound.store().get(*index));
        if let Some((meta, _)) = first
            && !stream.announced
        {
            let (ssrc, codec) = (stream.inbound.ssrc(), meta.codec);
            stream.announced = true;
            let spatial = stream.layer;
            if let Some(track) = self.tracks.get(track_key) {
                self.events.push_back(ShardEvent::LayerLive { track: track.id, spatial, ssrc, codec });
            }
        }
        if plaintext {
            self.note_plaintext(track_key);
        }
        self.measure_layers(key, released, now)
    }

    /// Does what is due of a stream: frames given up, NACK, PLI.
    pub(super) fn stream_timeout(&mut self, key: StreamKey, tx: &mut TxQueue, now: Instant) {
        let Some(stream) = self.tracks.streams.get_mut(key) else { return };
        let track_key = stream.track;
        let mut released = std::mem::take(&mut self.released);
        stream.inbound.handle_timeout(now, &mut released);
        let came_alive = self.after_accept(key, &released, now);
        self.held = (!released.is_empty()).then_some(key);
        self.released = released;
        self.forward_held(tx, now);
        if came_alive {
            self.reallocate_track(track_key, tx, now);
        }
        self.serve_stream(key, tx, now);
    }

    /// Counts what a stream's layers take. Returns whether there were none of late.
    fn measure_layers(&mut self, key: StreamKey, released: &[ExtSeq], now: Instant) -> bool {
        let Some(stream) = self.tracks.streams.get_mut(key) else { return false };
        if stream.kind == MediaKind::Audio || released.is_empty() {
            return false;
        }
        let silent = stream.rates.is_silent(now);
        for index in released {
            let Some((meta, payload)) = stream.inbound.store().get(*index) else { continue };
            let inner = meta.spatial.saturating_sub(meta.stream);
            let bytes = payload.len() + WIRE_OVERHEAD;
            stream.rates.record(inner, meta.info.temporal, bytes, now);
            stream.long_rates.record(inner, meta.info.temporal, bytes, now);
            stream
                .key_frame
                .record((meta.info.frame_start && inner == 0).then_some(meta.info.key_frame), bytes);
        }
        silent
    }

    /// A frame came without the trailer. Room logic hears of it once until an encrypted one comes.
    fn note_plaintext(&mut self, key: TrackKey) {
        if let Some(track) = self.tracks.get_mut(key)
            && !std::mem::replace(&mut track.plaintext, true)
        {
            self.events.push_back(ShardEvent::NotEncrypted { track: track.id });
        }
    }

    /// Another SSRC took the place of a stream, or its section changed.
    pub(super) fn stream_replaced(&mut self, key: TrackKey, layer: u8) {
        let Some(track) = self.tracks.get(key) else { return };
        for sub in &track.subs {
            if let Some(sub) = self.subs.get_mut(*sub) {
                sub.forwarder.replace_stream(layer);
            }
        }
        self.relay_message(key, |track| Message::Restart { track, layer });
    }
}
