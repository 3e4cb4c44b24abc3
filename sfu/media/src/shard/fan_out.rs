//! From a track's stream to its subscribers.

use std::time::Instant;

use arrayvec::ArrayVec;

use super::Shard;
use super::sending::{Kind, REPAIR, WIRE_OVERHEAD, Work};
use super::subscriptions::SubKey;
use super::timers::Timer;
use super::tracks::{Source, StreamKey, TrackKey};
use crate::command::MediaKind;
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, SeqNo};
use crate::outbound::{Packet, runs};
use crate::relay::Message;
use crate::rtcp::write;
use crate::tx::TxQueue;

/// The relay's own SSRC on every transport: sender of what it reports. Outgoing streams have others.
pub(super) const OWN_SSRC: crate::ids::Ssrc = crate::ids::Ssrc(1);

/// Packets that are given to all subscribers before the next ones are: more are seldom released at once.
const MAX_LOOKED_UP: usize = 64;
/// Subscribers whose memory is asked for together, and packets of each at most.
const MAX_TOUCHED: usize = 4;
const MAX_TOUCHED_PACKETS: usize = 8;

/// How many packets of a run may leave until `room` bytes did.
fn passing(run: &[Packet<'_>], room: u64, size: impl Fn(&Packet<'_>) -> usize) -> usize {
    let mut sent = 0;
    let passes = |packet: &&Packet<'_>| {
        let passes = sent < room;
        sent += size(packet) as u64;
        passes
    };
    if room == u64::MAX { run.len() } else { run.iter().take_while(passes).count() }
}

impl Shard {
    /// Gives released packets to each subscription in turn, so that a frame's packets to one receiver lie side by side in
    /// the send queue and go out in one call.
    pub(super) fn fan_out(
        &mut self,
        track_key: TrackKey,
        stream_key: StreamKey,
        released: &[ExtSeq],
        tx: &mut TxQueue,
        now: Instant,
    ) {
        let heard = self.hear(track_key, stream_key, released, now);
        if heard.relayed {
            self.relay_packets(track_key, stream_key, released);
        }
        if !heard.forwarded {
            return;
        }
        let Some(track) = self.tracks.get_mut(track_key) else { return };
        if track.policy.require_encryption {
            // What is released was found encrypted: a spell of plaintext ends.
            track.plaintext = false;
        }
        let mut wanted = 0;
        for released in released.chunks(MAX_LOOKED_UP) {
            wanted |= self.fan_out_some(track_key, stream_key, released, tx, now);
        }
        for layer in (0..8).filter(|layer| wanted >> layer & 1 == 1) {
            self.request_key_frame(track_key, layer, tx, now);
        }
    }

    /// The same for a few packets. Returns the layers of which key frames are wanted, one bit each.
    fn fan_out_some(
        &mut self,
        track_key: TrackKey,
        stream_key: StreamKey,
        released: &[ExtSeq],
        tx: &mut TxQueue,
        now: Instant,
    ) -> u8 {
        let mut wanted = 0u8;
        let Self { tracks, subs, peers, stats, timers, .. } = self;
        let Some(track) = tracks.get(track_key) else { return 0 };
        let Some(stream) = tracks.streams.get(stream_key) else { return 0 };
        let store = stream.inbound.store();
        let layer = stream.layer;
        let kind = match stream.kind {
            MediaKind::Audio => Kind::Audio,
            MediaKind::Video => Kind::Video,
        };
        // Looked up once, not for each subscriber.
        let packets: ArrayVec<Packet<'_>, MAX_LOOKED_UP> =
            released.iter().filter_map(|index| store.get(*index)).collect();
        let runs: ArrayVec<&[Packet<'_>], MAX_LOOKED_UP> = runs(&packets).collect();
        for (at, sub_key) in track.subs.iter().enumerate() {
            tx.relieve();
            if at % MAX_TOUCHED == 0 {
                // The memory of the next ones comes from afar all at once, not when each part of it is needed.
                let next = track.subs.iter().skip(at).take(MAX_TOUCHED).filter_map(|next| subs.get(*next));
                let touched = next.map(|next| {
                    let peer = peers.get(next.peer).map_or(0, |peer| peer.touch());
                    next.forwarder.touch(packets.len().min(MAX_TOUCHED_PACKETS)).wrapping_add(peer)
                });
                std::hint::black_box(touched.fold(0, u64::wrapping_add));
            }
            let Some(sub) = subs.get_mut(*sub_key) else { continue };
            let Some(peer) = peers.get_mut(sub.peer) else { continue };
            let mut waits = false;
            if let Some(mut way) = peer.way(tx) {
                for run in &runs {
                    let taken = sub.takes(layer);
                    let size =
                        |(_, payload): &Packet<'_>| if taken { payload.len() + WIRE_OVERHEAD } else { 0 };
                    let passing = match kind {
                        Kind::Video => passing(run, way.sending.pacer.room(now), size),
                        _ => run.len(),
                    };
                    let (go, wait) = run.split_at(passing);
                    way.forward(&mut sub.forwarder, kind, go, stats, now);
                    for packet in wait {
                        waits = true;
                        let index = packet.0.index;
                        let work = Work::Packet { sub: *sub_key, stream: stream_key, layer, index };
                        if !way.sending.pacer.push(work, size(packet), now) {
                            stats.drop(DropReason::Congested);
                            sub.forwarder.require_key_frame();
                        }
                    }
                }
            }
            if waits {
                if let Some(at) = peer.sending.pacer.poll_timeout(now) {
                    timers.arm(Timer::Pace(sub.peer), at.max(now + super::connect::MIN_REST));
                }
            } else if let Some(layer) = sub.forwarder.wants_key_frame() {
                wanted |= 1 << (layer & 7);
            }
        }
        wanted
    }

    /// A packet of padding only: its subscribers must not see a gap.
    pub(super) fn skip(&mut self, track_key: TrackKey, layer: u8, index: ExtSeq, now: Instant) {
        let Some(track) = self.tracks.get(track_key) else { return };
        let Some(stream) = track.stream(layer) else { return };
        for sub_key in &track.subs {
            let Some(sub) = self.subs.get_mut(*sub_key) else { continue };
            let Some(peer) = self.peers.get_mut(sub.peer) else { continue };
            // What came before it may still wait.
            let work = Work::Skip { sub: *sub_key, stream, index };
            if !peer.sending.pacer.has_waiting() || !peer.sending.pacer.push(work, 0, now) {
                sub.forwarder.skip(layer, index);
            }
        }
        self.relay_message(track_key, |track| Message::Skip { track, layer, index });
    }

    /// Gives a subscription what is there of what it waits for, and asks for the rest.
    pub(super) fn serve_subscription(&mut self, key: SubKey, tx: &mut TxQueue, now: Instant) {
        let wanted = |shard: &Self| shard.subs.get(key).and_then(|sub| sub.forwarder.wants_key_frame());
        if let Some(layer) = wanted(self) {
            self.replay(key, layer, tx, now);
        }
        if let Some(layer) = wanted(self) {
            self.ask_for_key_frame(key, layer, tx, now);
        }
    }

    /// A subscription needs a key frame of a layer, or of what there is instead of it.
    pub(super) fn ask_for_key_frame(&mut self, key: SubKey, layer: u8, tx: &mut TxQueue, now: Instant) {
        let track = self.subs.get(key).map(|sub| sub.track);
        if let Some(track) = track.filter(|_| !self.key_frame_waits(key, layer)) {
            self.request_key_frame(track, layer, tx, now);
        }
    }

    /// Whether a key frame of this layer, or of what there is instead of it, waits for its turn to be sent to a subscription.
    /// On a narrow path that may take half a second.
    pub(super) fn key_frame_waits(&self, key: SubKey, layer: u8) -> bool {
        let Some(sub) = self.subs.get(key) else { return false };
        let stream_key = self.tracks.get(sub.track).and_then(|track| track.stream_to_ask(layer));
        let (Some(peer), Some(stream_key)) = (self.peers.get(sub.peer), stream_key) else { return false };
        let Some(stream) = self.tracks.streams.get(stream_key) else { return false };
        peer.sending.pacer.iter().any(|work| match *work {
            Work::Packet { sub, stream: of, index, .. } if sub == key && of == stream_key => {
                stream.inbound.store().get(index).is_some_and(|(meta, _)| meta.info.key_frame)
            }
            _ => false,
        })
    }

    /// Someone needs a key frame of a layer, or of what there is instead of it.
    pub(super) fn request_key_frame(&mut self, key: TrackKey, layer: u8, tx: &mut TxQueue, now: Instant) {
        let Some(track) = self.tracks.get(key).filter(|track| !track.policy.muted) else { return };
        let Some(stream_key) = track.stream_to_ask(layer) else {
            // Nothing came of it yet: it may have begun long before it was handed over.
            return self.ask_home(key, layer);
        };
        if let Some(stream) = self.tracks.streams.get_mut(stream_key) {
            stream.inbound.request_key_frame();
            self.serve_stream(stream_key, tx, now);
        }
    }

    /// Sends a publisher the NACK and PLI that are due for one of its streams.
    pub(super) fn serve_stream(&mut self, key: StreamKey, tx: &mut TxQueue, now: Instant) {
        let Some(stream) = self.tracks.streams.get_mut(key) else { return };
        let Source::Peer { key: peer_key, .. } = stream.source else {
            return self.serve_relayed_stream(key, now);
        };
        match stream.inbound.poll_timeout(now) {
            None => return,
            Some(at) if at > now => return self.timers.arm(Timer::Repair(peer_key), at),
            Some(_) => {}
        }
        let ssrc = stream.inbound.ssrc();
        self.rtcp.clear();
        let rtt = self.peers.get(peer_key).and_then(|peer| peer.rtt.get());
        let lost = stream.inbound.poll_nacks(now, rtt);
        if !lost.is_empty() {
            self.stats.nack_out += lost.len() as u64;
            write::nack(&mut self.rtcp, OWN_SSRC, ssrc, lost);
        }
        if stream.inbound.poll_key_frame(now) {
            self.stats.pli_out += 1;
            write::pli(&mut self.rtcp, OWN_SSRC, ssrc);
        }
        if let Some(at) = stream.inbound.poll_timeout(now) {
            self.timers.arm(Timer::Repair(peer_key), at.max(now + super::connect::MIN_REST));
        }
        self.send_rtcp(peer_key, tx);
    }

    /// Sends what is in the RTCP buffer, if anything, and empties it.
    pub(super) fn send_rtcp(&mut self, key: super::peers::PeerKey, tx: &mut TxQueue) {
        if self.rtcp.is_empty() {
            return;
        }
        if let Some((seal, dst)) = self.peers.get_mut(key).and_then(|peer| peer.transport.seal_and_addr()) {
            let mut slot = tx.reserve(self.rtcp.len() + crate::srtp::MAX_OVERHEAD);
            match seal.seal_rtcp(&self.rtcp, slot.bytes()) {
                Ok(len) => slot.commit(dst, len),
                Err(reason) => self.stats.drop(reason),
            }
        }
        self.rtcp.clear();
    }

    /// Sends again what a subscriber says it misses.
    pub(super) fn retransmit(
        &mut self,
        key: SubKey,
        lost: impl Iterator<Item = SeqNo>,
        tx: &mut TxQueue,
        now: Instant,
    ) {
        let Self { tracks, subs, peers, stats, timers, .. } = self;
        let Some(sub) = subs.get_mut(key) else { return };
        let Some(track) = tracks.get(sub.track) else { return };
        let Some(peer) = peers.get_mut(sub.peer) else { return };
        for lost in lost.take(MAX_NACKED) {
            stats.nack_in += 1;
            if track.policy.muted {
                stats.drop(DropReason::Muted);
                continue;
            }
            if !sub.is_repaired() || peer.sending.repairs_enough(now) {
                stats.drop(DropReason::Congested);
                continue;
            }
            if peer.sending.pacer.must_wait_urgent(now) {
                if !peer.sending.pacer.push_urgent(Work::Resend { sub: key, lost }, REPAIR, now) {
                    stats.drop(DropReason::Congested);
                }
                continue;
            }
            let Some(mut way) = peer.way(tx) else { return };
            let store = |layer| Some(tracks.streams.get(track.stream(layer)?)?.inbound.store());
            match way.resend(&mut sub.forwarder, lost, store, now) {
                Ok(packets) => stats.rtx_out += packets,
                Err(reason) => stats.drop(reason),
            }
        }
        if let Some(at) = peer.sending.pacer.poll_timeout(now) {
            timers.arm(Timer::Pace(sub.peer), at.max(now + super::connect::MIN_REST));
        }
    }
}

/// Packets that one NACK message may ask for: more than a burst loses, few enough that a message cannot flood.
const MAX_NACKED: usize = 512;
