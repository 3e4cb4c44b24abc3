//! Tracks that cross shards: handing packets on, and taking those of other shards in. See [`crate::relay`].

use std::time::Instant;

use super::timers::Timer;
use super::tracks::{Source, Stream, StreamKey, Track, TrackKey};
use super::{Shard, connect};
use crate::command::{MediaKind, TrackPolicy};
use crate::ids::{ExtSeq, ShardId, Ssrc, TrackId};
use crate::inbound::{InboundConfig, InboundStream, KeyFrameSize, LayerRates, PacketMeta, SenderReport};
use crate::outbound::MAX_STREAMS;
use crate::relay::{Message, RelayBatch};
use crate::tx::TxQueue;

impl Shard {
    /// What there is for another shard that `has_room` for a batch. To be asked until there is nothing, after any input.
    pub fn poll_relay(&mut self, has_room: impl Fn(ShardId) -> bool) -> Option<(ShardId, RelayBatch)> {
        self.outgoing.take(has_room)
    }

    /// A batch of [`Shard::poll_relay`] is not needed any more.
    pub fn give_back(&mut self, batch: RelayBatch) {
        self.outgoing.give_back(batch);
    }

    /// Takes what another shard handed over, and leaves the batch empty.
    pub fn handle_relay(&mut self, from: ShardId, batch: &mut RelayBatch, tx: &mut TxQueue, now: Instant) {
        let mark = Self::mark(tx);
        let RelayBatch { messages, bytes, .. } = batch;
        let mut payloads = bytes.as_slice();
        for message in messages.drain(..) {
            match message {
                Message::Packet { track, layer, meta, len } => {
                    let Some((payload, rest)) = payloads.split_at_checked(len) else { break };
                    payloads = rest;
                    self.relayed_packet(from, track, layer, &meta, payload, tx, now);
                }
                Message::KeyFrame { track, layer } => {
                    self.forward_held(tx, now);
                    let key = self.tracks.key(track);
                    let own =
                        key.filter(|key| self.tracks.get(*key).is_some_and(|track| !track.is_relayed()));
                    if let Some(key) = own {
                        self.request_key_frame(key, layer, tx, now);
                    }
                }
                other => {
                    self.forward_held(tx, now);
                    self.relayed_message(from, &other, now);
                }
            }
        }
        self.forward_held(tx, now);
        batch.clear();
        self.count_sent(mark, tx);
    }

    /// Another shard gets a track's packets from now on.
    pub(super) fn start_relay(&mut self, track: TrackId, to: ShardId) {
        let Self { tracks, outgoing, stats, .. } = self;
        let Some(key) = tracks.key(track) else { return };
        let Some(have) = tracks.get_mut(key).filter(|track| !track.is_relayed()) else { return };
        if have.relayed_to.contains(&to) {
            return;
        }
        have.relayed_to.push(to);
        let streams = have.streams;
        for stream in streams.into_iter().flatten().filter_map(|key| tracks.streams.get(key)) {
            if let Some(report) = stream.inbound.last_sender_report()
                && let Err(reason) = outgoing.push(to, Message::Report { track, layer: stream.layer, report })
            {
                stats.drop(reason);
            }
        }
    }

    pub(super) fn stop_relay(&mut self, track: TrackId, to: ShardId) {
        if let Some(track) = self.tracks.key(track).and_then(|key| self.tracks.get_mut(key)) {
            track.relayed_to.retain(|have| *have != to);
        }
    }

    /// A track of another shard comes to be here. Its streams begin with their first packets.
    pub(super) fn publish_relayed(
        &mut self,
        track: TrackId,
        from: ShardId,
        kind: MediaKind,
        policy: TrackPolicy,
    ) {
        self.tracks.insert(Track::new(track, Source::Shard { home: from, kind }, policy));
    }

    /// Hands released packets to the other shards that have subscribers.
    pub(super) fn relay_packets(&mut self, key: TrackKey, stream: StreamKey, released: &[ExtSeq]) {
        let Self { tracks, outgoing, stats, .. } = self;
        let Some(track) = tracks.get(key).filter(|track| !track.relayed_to.is_empty()) else { return };
        let Some(stream) = tracks.streams.get(stream) else { return };
        let store = stream.inbound.store();
        for to in &track.relayed_to {
            for (meta, payload) in released.iter().filter_map(|index| store.get(*index)) {
                match outgoing.push_packet(*to, track.id, stream.layer, meta, payload) {
                    Ok(()) => stats.relayed_out += 1,
                    Err(reason) => stats.drop(reason),
                }
            }
        }
    }

    /// Tells the other shards that have subscribers to a track of this one.
    pub(super) fn relay_message(&mut self, key: TrackKey, message: impl Fn(TrackId) -> Message) {
        let Self { tracks, outgoing, stats, .. } = self;
        let Some(track) = tracks.get(key) else { return };
        for to in &track.relayed_to {
            if let Err(reason) = outgoing.push(*to, message(track.id)) {
                stats.drop(reason);
            }
        }
    }

    /// Asks for a key frame where the publisher lives.
    pub(super) fn ask_home(&mut self, key: TrackKey, layer: u8) {
        let Self { tracks, outgoing, stats, .. } = self;
        let Some(track) = tracks.get(key) else { return };
        let Some(home) = track.home() else { return };
        if let Err(reason) = outgoing.push(home, Message::KeyFrame { track: track.id, layer }) {
            stats.drop(reason);
        }
    }

    /// Sends the home of a stream the key-frame request that is due.
    pub(super) fn serve_relayed_stream(&mut self, key: StreamKey, now: Instant) {
        let Some(stream) = self.tracks.streams.get_mut(key) else { return };
        let (track, layer) = (stream.track, stream.layer);
        let due = stream.inbound.poll_key_frame(now);
        if let Some(at) = stream.inbound.poll_timeout(now) {
            self.timers.arm(Timer::Relayed(track), at.max(now + connect::MIN_REST));
        }
        if due {
            self.ask_home(track, layer);
        }
    }

    /// What is due of a track of another shard.
    pub(super) fn relayed_timeout(&mut self, key: TrackKey, tx: &mut TxQueue, now: Instant) {
        let Some(track) = self.tracks.get(key) else { return };
        for stream in track.streams.into_iter().flatten() {
            self.serve_stream(stream, tx, now);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one packet in its parts")]
    fn relayed_packet(
        &mut self,
        from: ShardId,
        track: TrackId,
        layer: u8,
        meta: &PacketMeta,
        payload: &[u8],
        tx: &mut TxQueue,
        now: Instant,
    ) {
        // The track may be gone, or not be there yet.
        let Some(track_key) = self.tracks.key(track) else { return };
        let Some(stream_key) = self.relayed_stream(from, track_key, layer, now) else { return };
        if self.held.is_some_and(|held| held != stream_key) {
            self.forward_held(tx, now);
        }
        let Some(stream) = self.tracks.streams.get_mut(stream_key) else { return };
        match stream.inbound.accept_relayed(meta, payload, now) {
            Ok(()) => self.stats.relayed_in += 1,
            Err(reason) => return self.stats.drop(reason),
        }
        let came_alive = self.after_accept(stream_key, &[meta.index], now);
        self.released.push(meta.index);
        self.held = Some(stream_key);
        if came_alive {
            self.forward_held(tx, now);
            self.reallocate_track(track_key, tx, now);
        }
    }

    /// The stream of a track of another shard; it begins now if there is none.
    fn relayed_stream(&mut self, from: ShardId, key: TrackKey, layer: u8, now: Instant) -> Option<StreamKey> {
        let track = self.tracks.get(key)?;
        let kind = match track.source {
            Source::Shard { home, kind } if home == from => kind,
            _ => return None,
        };
        if let Some(stream) = track.stream(layer) {
            return Some(stream);
        }
        if usize::from(layer) >= MAX_STREAMS {
            return None;
        }
        let config = InboundConfig {
            // The home has it.
            ssrc: Ssrc(0),
            kind,
            codecs: Vec::new(),
            simulcast: Some(layer),
            policy: track.policy,
            nack: false,
        };
        let stream = Stream {
            track: key,
            source: track.source,
            kind,
            layer,
            inbound: InboundStream::new(config, now),
            rates: LayerRates::default(),
            long_rates: LayerRates::default(),
            key_frame: KeyFrameSize::default(),
            // The home tells the room.
            announced: true,
        };
        self.tracks.set_stream(stream)
    }

    fn relayed_message(&mut self, from: ShardId, message: &Message, now: Instant) {
        let (Message::Skip { track, .. }
        | Message::Report { track, .. }
        | Message::Restart { track, .. }
        | Message::Pause { track }) = message
        else {
            return;
        };
        let Some(key) = self.tracks.key(*track) else { return };
        let Some(track) = self.tracks.get(key).filter(|track| track.home() == Some(from)) else { return };
        match *message {
            Message::Skip { layer, index, .. } => self.skip(key, layer, index, now),
            Message::Report { layer, report, .. } => self.relayed_report(from, key, layer, report, now),
            Message::Restart { layer, .. } => {
                if self.tracks.clear_stream(key, layer) {
                    self.stream_replaced(key, layer);
                }
            }
            Message::Pause { .. } => {
                for sub in &track.subs {
                    if let Some(sub) = self.subs.get_mut(*sub) {
                        sub.forwarder.require_key_frame();
                    }
                }
            }
            Message::Packet { .. } | Message::KeyFrame { .. } => {}
        }
    }

    fn relayed_report(
        &mut self,
        from: ShardId,
        key: TrackKey,
        layer: u8,
        report: SenderReport,
        now: Instant,
    ) {
        let Some(stream) = self.relayed_stream(from, key, layer, now) else { return };
        let Self { tracks, subs, .. } = self;
        if let Some(stream) = tracks.streams.get_mut(stream) {
            stream.inbound.set_sender_report(report);
        }
        let Some(track) = tracks.get(key) else { return };
        for sub in &track.subs {
            if let Some(sub) = subs.get_mut(*sub) {
                sub.forwarder.handle_sender_report(layer, report);
            }
        }
    }
}
