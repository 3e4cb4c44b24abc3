//! What room logic asks of a shard.

use std::sync::Arc;
use std::time::Instant;

use rand::Rng;

use super::Shard;
use super::fan_out::OWN_SSRC;
use super::peers::{Peer, PeerKey};
use super::subscriptions::{SubKey, Subscription};
use super::timers::Timer;
use super::tracks::{Source, Track, TrackKey};
use crate::command::{
    Extension, MediaKind, ReceiveSection, SendSection, ShardCommand, SubscriptionTarget, TrackPolicy,
};
use crate::ids::{Mid, PeerId, SubId, TrackId};
use crate::outbound::Forwarder;
use crate::transport::{Transport, TransportConfig};
use crate::tx::TxQueue;

impl Shard {
    pub(super) fn command(&mut self, command: ShardCommand, tx: &mut TxQueue, now: Instant) {
        match command {
            ShardCommand::OpenPeer { peer, ice, data_channels } => {
                let config = TransportConfig {
                    ice,
                    certificate: Arc::clone(&self.config.certificate),
                    data_channels,
                    timeouts: self.config.timeouts,
                };
                if let Some(key) = self.peers.insert(Peer::new(peer, Transport::new(config, now), now)) {
                    self.arm_peer(key, now);
                }
            }
            ShardCommand::SetRemote { peer, remote } => {
                let Some(key) = self.peers.key(peer) else { return };
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.transport.set_remote(remote, now);
                    if let Err(reason) = peer.transport.take_up_early(tx, now) {
                        self.stats.drop(reason);
                    }
                }
                self.transport_changed(key, tx, now);
            }
            ShardCommand::RestartIce { peer, ice } => {
                let Some(key) = self.peers.key(peer) else { return };
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.transport.restart_ice(ice);
                }
                self.peers.index_ufrags(key);
            }
            ShardCommand::SendData { peer, label, payload } => {
                let Some(key) = self.peers.key(peer) else { return };
                let Some(peer) = self.peers.get_mut(key) else { return };
                match peer.transport.send_data(label, &payload, tx, now) {
                    Ok(()) => self.stats.data_out += 1,
                    Err(reason) => self.stats.drop(reason),
                }
                self.transport_changed(key, tx, now);
            }
            ShardCommand::ClosePeer { peer } => {
                let Some(key) = self.peers.key(peer) else { return };
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.transport.close(tx, now);
                }
                self.remove_peer(key);
            }
            ShardCommand::SetReceive { peer, sections } => self.set_receive(peer, sections, now),
            ShardCommand::Publish { peer, mid, track, policy } => {
                self.publish(peer, mid, track, policy, tx, now)
            }
            ShardCommand::SetTrackPolicy { track, policy } => self.set_policy(track, policy, tx, now),
            ShardCommand::LimitSpeakers { track, group, max } => self.limit_speakers(track, group, max),
            ShardCommand::Unpublish { track } => {
                if let Some(key) = self.tracks.key(track) {
                    self.remove_track(key);
                }
            }
            ShardCommand::StartRelay { track, to } => self.start_relay(track, to),
            ShardCommand::StopRelay { track, to } => self.stop_relay(track, to),
            ShardCommand::PublishRelayed { track, from, kind, policy } => {
                self.publish_relayed(track, from, kind, policy);
            }
            ShardCommand::Subscribe { sub, track, peer, section, target } => {
                self.subscribe(sub, track, peer, section, target, tx, now);
            }
            ShardCommand::SetTarget { sub, target } => {
                let Some(key) = self.subs.key(sub) else { return };
                let Some(sub) = self.subs.get_mut(key) else { return };
                sub.wanted = target;
                let peer = sub.peer;
                // Audio is sent whatever the path carries, and what is wanted no more ends at once.
                if sub.forwarder.section().kind == MediaKind::Audio || !target.enabled {
                    sub.aim(target);
                }
                self.allocate(peer, tx, now);
            }
            ShardCommand::Unsubscribe { sub } => {
                if let Some(key) = self.subs.key(sub) {
                    self.remove_subscription(key);
                }
            }
        }
    }

    fn set_receive(&mut self, peer: PeerId, sections: Vec<ReceiveSection>, now: Instant) {
        let Some(peer) = self.peers.key(peer).and_then(|key| self.peers.get_mut(key)) else { return };
        let published = &peer.published;
        let track_of = |mid| published.iter().find(|(have, _)| *have == mid).map(|(_, track)| *track);
        let changes = peer.router.set_sections(sections, track_of, now);
        let changed: Vec<TrackKey> = changes.iter().filter_map(|change| peer.track_on(change.mid)).collect();
        for track in changed {
            self.restart_track(track);
        }
    }

    /// A track's streams start afresh: its section changed.
    fn restart_track(&mut self, key: TrackKey) {
        for (layer, stream) in self.tracks.clear_streams(key).iter().enumerate() {
            if stream.is_some() {
                self.stream_replaced(key, layer as u8);
            }
        }
    }

    fn publish(
        &mut self,
        peer: PeerId,
        mid: Mid,
        id: TrackId,
        policy: TrackPolicy,
        tx: &mut TxQueue,
        now: Instant,
    ) {
        let Some(peer_key) = self.peers.key(peer) else { return };
        let before = self.peers.get(peer_key).and_then(|peer| peer.track_on(mid));
        if let Some(before) = before {
            if self.tracks.get(before).is_some_and(|track| track.id == id) {
                return self.set_policy(id, policy, tx, now);
            }
            self.remove_track(before);
        }
        let Some(key) = self.tracks.insert(Track::new(id, Source::Peer { key: peer_key, mid }, policy))
        else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(peer_key) {
            peer.published.push((mid, key));
            peer.router.set_track(mid, Some(key));
        }
    }

    fn set_policy(&mut self, track: TrackId, policy: TrackPolicy, tx: &mut TxQueue, now: Instant) {
        let Some(key) = self.tracks.key(track) else { return };
        let subs = self.tracks.get(key).map_or(0, |track| track.subs.len());
        for at in 0..subs {
            let sub = self.tracks.get(key).and_then(|track| track.subs.get(at)).copied();
            if let Some(sub) = sub {
                self.flush_subscription(sub, tx, now);
            }
        }
        if !self.tracks.set_policy(key, policy) {
            return;
        }
        let subs = self.tracks.get(key).map_or(0, |track| track.subs.len());
        for at in 0..subs {
            let sub = self.tracks.get(key).and_then(|track| track.subs.get(at)).copied();
            let Some(sub_key) = sub else { continue };
            if let Some(sub) = self.subs.get_mut(sub_key) {
                sub.forwarder.require_key_frame();
            }
            self.serve_subscription(sub_key, tx, now);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command")]
    fn subscribe(
        &mut self,
        id: SubId,
        track: TrackId,
        peer: PeerId,
        section: SendSection,
        target: SubscriptionTarget,
        tx: &mut TxQueue,
        now: Instant,
    ) {
        let (Some(track_key), Some(peer_key)) = (self.tracks.key(track), self.peers.key(peer)) else {
            return;
        };
        if self.subs.contains(id) {
            return;
        }
        let (ssrc, rtx_ssrc) = (section.ssrc, section.rtx_ssrc);
        let Some(peer) = self.peers.get_mut(peer_key) else { return };
        if [Some(ssrc), rtx_ssrc].contains(&Some(OWN_SSRC)) || !peer.take_ssrcs(ssrc, rtx_ssrc) {
            tracing::error!(%id, %ssrc, "an outgoing SSRC came twice on one transport; the subscription is refused");
            return;
        }
        if section.extensions.id(Extension::TransportCc).is_some() {
            peer.sending.expect_feedback(now);
        }
        let bound = section.kind == MediaKind::Video && peer.sending.budget(now).is_some();
        let mut forwarder = Forwarder::new(section, self.rng.random(), now);
        forwarder.set_playout_delay(peer.sending.playout_delay());
        if let Some(track) = self.tracks.get(track_key) {
            for stream in track.streams.iter().flatten().filter_map(|key| self.tracks.streams.get(*key)) {
                if let Some(report) = stream.inbound.last_sender_report() {
                    forwarder.handle_sender_report(stream.layer, report);
                }
            }
        }
        let mut sub = Subscription::new(id, track_key, peer_key, forwarder, target);
        Self::first_target(&mut sub, bound);
        let key = self.subs.insert(sub);
        peer.subs.push(key);
        peer.egress.insert(ssrc, key);
        if let Some(track) = self.tracks.get_mut(track_key) {
            track.subs.push(key);
        }
        if self.peers.get(peer_key).is_some_and(|peer| peer.transport.is_connected()) {
            self.allocate(peer_key, tx, now);
        }
    }

    fn remove_subscription(&mut self, key: SubKey) {
        let Some(sub) = self.subs.remove(key) else { return };
        if let Some(track) = self.tracks.get_mut(sub.track) {
            track.subs.retain(|have| *have != key);
        }
        if let Some(peer) = self.peers.get_mut(sub.peer) {
            peer.subs.retain(|have| *have != key);
            peer.egress.remove(&sub.forwarder.ssrc());
        }
    }

    fn remove_track(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.remove(key) else { return };
        if let Some(group) = track.group {
            self.loudest.leave(group, key, track.is_relayed());
        }
        for sub in track.subs {
            self.remove_subscription(sub);
        }
        match track.source {
            Source::Peer { key: peer, mid } => {
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.published.retain(|(_, have)| *have != key);
                    peer.router.set_track(mid, None);
                }
            }
            Source::Shard { .. } => self.timers.disarm(Timer::Relayed(key)),
        }
    }

    /// Forgets a peer and all that hangs on it.
    pub(super) fn remove_peer(&mut self, key: PeerKey) {
        let Some(mut peer) = self.peers.remove(key) else { return };
        self.timers.disarm(Timer::Peer(key));
        self.timers.disarm(Timer::Pace(key));
        self.timers.disarm(Timer::Repair(key));
        for (_, track) in std::mem::take(&mut peer.published) {
            self.remove_track(track);
        }
        for sub in std::mem::take(&mut peer.subs) {
            self.remove_subscription(sub);
        }
    }
}
