//! How participants and the room end, and what the shard reports of transports.

use std::time::Instant;

use livekit_protocol as proto;
use proto::leave_request::Action;
use proto::participant_info::State;
use proto::signal_response::Message;
use sfu_media::command::{CloseReason, ShardCommand, ShardEvent};
use sfu_media::ids::PeerId;

use super::api::{Effect, SessionId};
use super::participant::Key;
use super::transports::Stage;
use super::{Room, Step};

/// What a client is told when its participant ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// Nothing: it asked for it.
    Silent,
    /// To go.
    Disconnect,
    /// To join anew.
    Reconnect,
}

impl Goodbye {
    pub(super) fn request(self, reason: proto::DisconnectReason) -> proto::LeaveRequest {
        let again = self == Goodbye::Reconnect;
        proto::LeaveRequest {
            can_reconnect: again,
            reason: reason as i32,
            action: if again { Action::Reconnect } else { Action::Disconnect } as i32,
            regions: None,
        }
    }
}

impl Room {
    /// Takes a participant out of the room, with its tracks, subscriptions and transports.
    pub(super) fn remove(
        &mut self,
        key: Key,
        reason: proto::DisconnectReason,
        goodbye: Goodbye,
        step: &mut Step<'_>,
    ) {
        let Some(p) = self.participants.get(&key) else { return };
        let (published, tracks) = (self.is_publisher(p), p.tracks.clone());
        if published {
            self.tell_at_once();
        }
        for id in tracks {
            self.unpublish(id, false, step);
        }
        let Some(mut p) = self.participants.remove(&key) else { return };
        self.identities.remove(&p.identity);
        self.quality.left(key);
        self.lead.left(key);
        for track in p.subs.keys() {
            self.dynacast.touch(*track);
        }
        self.renegotiate.remove(&key);
        for connection in p.transports.all() {
            if connection.is_open() {
                step.shard(ShardCommand::ClosePeer { peer: connection.peer });
            }
            self.peers.remove(&connection.peer);
        }
        if let Some(session) = p.session.take() {
            self.sessions.remove(&session);
            if goodbye != Goodbye::Silent {
                step.signal(Some(session), Message::Leave(goodbye.request(reason)));
            }
            step.effects.push(Effect::CloseSession { session });
        }
        self.gone(&p, reason, step);
        p.state = State::Disconnected;
        let mut info = p.info(Vec::new());
        info.disconnect_reason = reason as i32;
        if self.participants.is_empty() {
            self.idle_since = step.now.instant;
        }
        self.event("participant_left", Some(&info), None, step);
    }

    /// Ends the room at once.
    pub(super) fn finish(&mut self, reason: proto::DisconnectReason, step: &mut Step<'_>) {
        for key in self.keys() {
            self.remove(key, reason, Goodbye::Disconnect, step);
        }
        if self.started {
            self.event("room_finished", None, None, step);
        }
        self.finished = true;
    }

    pub(super) fn session_closed(&mut self, session: SessionId, step: &mut Step<'_>) {
        let Some(key) = self.sessions.remove(&session) else { return };
        let Some(p) = self.participants.get_mut(&key) else { return };
        p.session = None;
        // An offer that is on its way may never arrive; a resume makes a new one.
        if !p.transports.any_connected() {
            let at = step.now.instant + self.config.resume_timeout;
            self.deadlines.arm(key, p.deadline.insert(earlier(p.deadline, (at, "signalling lost"))).0);
        }
    }

    pub(super) fn shard_event(&mut self, event: ShardEvent, step: &mut Step<'_>) {
        match event {
            ShardEvent::PeerConnected { peer } => self.peer_connected(peer),
            ShardEvent::PeerClosed { peer, reason } => self.peer_closed(peer, reason, step),
            ShardEvent::Data { peer, label, payload } => self.data_received(peer, label, &payload, step),
            ShardEvent::LayerLive { track, codec, .. } => self.layer_live(track, codec),
            ShardEvent::NotEncrypted { track } => self.not_encrypted(track, step),
            ShardEvent::StreamPaused { track, sub, paused } => self.stream_paused(track, sub, paused, step),
            ShardEvent::AudioLevels(levels) => self.audio_levels(&levels, step),
            ShardEvent::Quality(peers) => self.peer_quality(&peers),
            ShardEvent::Stats(_) => {}
        }
    }

    fn peer_connected(&mut self, peer: PeerId) {
        let Some(key) = self.peers.get(&peer).copied() else { return };
        let Some(p) = self.participants.get_mut(&key) else { return };
        let Some(connection) = p.transports.by_peer(peer) else { return };
        if connection.stage == Stage::Opened {
            connection.stage = Stage::Connected;
        }
        p.deadline = None;
        let primary =
            if p.is_subscriber_primary() { p.transports.receiving_ref() } else { &p.transports.publisher };
        if primary.is_connected() && p.state != State::Active {
            p.state = State::Active;
            self.changed(key, true);
        }
    }

    fn peer_closed(&mut self, peer: PeerId, reason: CloseReason, step: &mut Step<'_>) {
        let Some(key) = self.peers.remove(&peer) else { return };
        let Some(p) = self.participants.get_mut(&key) else { return };
        let Some(connection) = p.transports.by_peer(peer) else { return };
        connection.stage = Stage::Closed;
        tracing::debug!(reason = reason.label(), "transport closed");
        if p.session.is_some() {
            // Its transport cannot come back: the client must join anew, and is told so.
            let why = match reason {
                CloseReason::RemoteClosed => proto::DisconnectReason::ClientInitiated,
                _ => proto::DisconnectReason::ConnectionTimeout,
            };
            return self.remove(key, why, Goodbye::Reconnect, step);
        }
        let connected = p.transports.any_connected();
        if !connected {
            let at = step.now.instant + self.config.resume_timeout;
            self.deadlines.arm(key, p.deadline.insert(earlier(p.deadline, (at, "transport lost"))).0);
        }
        // The shard dropped its tracks and subscriptions with it.
        let publishes = p.transports.publisher.peer == peer;
        let receives = p.transports.receiving_ref().peer == peer;
        let tracks = p.tracks.clone();
        let subs: Vec<_> = p.subs.keys().copied().collect();
        if publishes {
            for id in tracks {
                self.unpublish(id, false, step);
            }
        }
        if receives {
            for id in subs {
                self.drop_sub(key, id, step);
            }
        }
    }

    /// When the room ends because nobody is in it.
    pub(super) fn idle_deadline(&self) -> Option<Instant> {
        let wait = if self.joined_once { self.departure_timeout } else { self.empty_timeout };
        self.participants.is_empty().then(|| self.idle_since + wait)
    }

    /// Does what is due.
    pub(super) fn expire(&mut self, step: &mut Step<'_>) {
        if self.finished {
            return;
        }
        let now = step.now.instant;
        while let Some(key) = self.deadlines.pop_due(now) {
            // It may have moved since, or be gone.
            let deadline = self.participants.get(&key).and_then(|p| p.deadline);
            let Some((_, why)) = deadline.filter(|(at, _)| *at <= now) else { continue };
            tracing::debug!(why, "participant removed");
            self.remove(key, proto::DisconnectReason::ConnectionTimeout, Goodbye::Reconnect, step);
        }
        self.expire_speakers(step);
        self.expire_quality(step);
        if self.idle_deadline().is_some_and(|at| at <= now) {
            self.finish(proto::DisconnectReason::RoomClosed, step);
        }
    }
}

fn earlier(have: Option<(Instant, &'static str)>, new: (Instant, &'static str)) -> (Instant, &'static str) {
    have.filter(|(at, _)| *at <= new.0).unwrap_or(new)
}
