//! Joins and resumes.

use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message;
use sfu_control::messages::{ErrorCode, Refusal, SessionOpen};
use sfu_control::token::Claims;
use sfu_media::ids::ShardId;

use super::api::{Effect, SessionId};
use super::lifecycle::Goodbye;
use super::participant::{Key, Participant};
use super::sdp::{CodecPolicy, Role};
use super::transports::{Connection, Transports, token};
use super::updates::in_portions;
use super::{Room, Step, refusal, turn};

/// Version of LiveKit's protocol that the relay speaks.
const PROTOCOL: i32 = 16;

impl Room {
    pub(super) fn join(
        &mut self,
        session: SessionId,
        shard: ShardId,
        claims: &Claims,
        open: &SessionOpen,
        step: &mut Step<'_>,
    ) {
        let admitted = self.admit(claims, open);
        let request = match admitted {
            Ok(request) => request,
            Err(refusal) => {
                step.effects.push(Effect::Refuse { session, refusal });
                // The room came to be for this join alone: it is not left behind.
                if !self.started {
                    self.finish(proto::DisconnectReason::RoomClosed, step);
                }
                return;
            }
        };
        if open.reconnect || request.reconnect {
            return self.resume(session, claims, open, &request, step);
        }
        self.enter(session, shard, claims, open, request, step);
    }

    /// Everything that may speak against letting the holder of a token in.
    fn admit(&self, claims: &Claims, open: &SessionOpen) -> Result<proto::JoinRequest, Refusal> {
        match claims.join_room() {
            Ok(room) if room == self.name => {}
            Ok(_) => {
                return Err(refusal(ErrorCode::PermissionDenied, "the token is for another room"));
            }
            Err(error) => return Err(refusal(ErrorCode::PermissionDenied, &error.to_string())),
        }
        let request = proto::JoinRequest::decode(open.join_request.clone())
            .map_err(|_| refusal(ErrorCode::InvalidArgument, "the join request cannot be read"))?;
        let config = &self.config;
        let attribute_bytes = |map: &std::collections::HashMap<String, String>| -> usize {
            map.iter().map(|(k, v)| k.len() + v.len()).sum()
        };
        let metadata = claims.metadata.len().max(request.metadata.len());
        let attributes =
            attribute_bytes(&claims.attributes) + attribute_bytes(&request.participant_attributes);
        for (have, limit, message) in [
            (claims.name.len(), config.max_name_bytes, "the name exceeds the size limit"),
            (claims.identity.len(), config.max_name_bytes, "the identity exceeds the size limit"),
            (metadata, config.max_metadata_bytes, "the metadata exceeds the size limit"),
            (attributes, config.max_attributes_bytes, "the attributes exceed the size limit"),
        ] {
            if have > limit {
                return Err(refusal(ErrorCode::InvalidArgument, message));
            }
        }
        let replaced = usize::from(self.identities.contains_key(&claims.identity));
        let others = self.participants.len() - replaced;
        let resumes = open.reconnect || request.reconnect;
        let limit = usize::try_from(self.max_participants).unwrap_or(usize::MAX);
        if !resumes && limit > 0 && others >= limit {
            return Err(refusal(ErrorCode::ResourceExhausted, "room has exceeded its max participants"));
        }
        Ok(request)
    }

    fn enter(
        &mut self,
        session: SessionId,
        shard: ShardId,
        claims: &Claims,
        open: &SessionOpen,
        request: proto::JoinRequest,
        step: &mut Step<'_>,
    ) {
        if let Some(old) = self.identities.get(&claims.identity).copied() {
            self.remove(old, proto::DisconnectReason::DuplicateIdentity, Goodbye::Disconnect, step);
        }
        let client = client_info(open, &request);
        let transports = self.connections(shard, open.single_peer_connection);
        let sid = format!("PA_{}", token(&mut self.rng, 12));
        let mut p = Participant::new(sid, claims, client, transports, step.now);
        if p.permissions.can_update_metadata {
            if !request.metadata.is_empty() {
                p.metadata.clone_from(&request.metadata);
            }
            for (name, value) in &request.participant_attributes {
                p.attributes.insert(name.clone(), value.clone());
            }
        }
        p.session = Some(session);
        p.auto_subscribe = open.auto_subscribe;
        p.protocol = open.protocol.max(u32::try_from(p.client.protocol).unwrap_or(0));
        let key = Key(self.next_key);
        let until = step.now.instant + self.config.join_timeout;
        p.deadline = Some((until, "join timeout"));
        self.deadlines.arm(key, until);
        self.next_key += 1;
        self.identities.insert(p.identity.clone(), key);
        self.sessions.insert(session, key);
        step.effects.push(Effect::Accept {
            session,
            participant_sid: p.sid.clone(),
            room_sid: self.sid.clone(),
        });
        self.participants.insert(key, p);
        self.joined_once = true;
        self.start(step);
        self.changed(key, false);
        // A recorder nobody sees changes what the room shows; other hidden participants do not.
        if self.participants.get(&key).is_some_and(|p| !p.permissions.hidden || p.permissions.is_recorder()) {
            self.room_changed();
        }
        self.quality.joined(key);
        // What does not fit into one message follows, as if it had come a moment later.
        let mut others = in_portions(self.others_of(key)).into_iter();
        let mut joined = self.join_response(key, others.next().unwrap_or_default());
        joined.ice_servers = self.ice_servers(claims, step);
        let info = joined.participant.clone();
        step.signal(Some(session), Message::Join(joined));
        for participants in others {
            step.signal(Some(session), Message::Update(proto::ParticipantUpdate { participants }));
        }
        self.event("participant_joined", info.as_ref(), None, step);
        self.consider_participant(key, step);
        self.renegotiate.insert(key);
        for track in request.add_track_requests {
            self.add_track(key, track, step);
        }
        if let Some(offer) = request.publisher_offer.filter(|o| !o.sdp.is_empty()) {
            self.offer(key, &offer, step);
        }
    }

    /// The relay's ends of the client's PeerConnections.
    fn connections(&mut self, shard: ShardId, single: bool) -> Transports {
        let codecs = CodecPolicy::new(self.config.codecs.iter().copied());
        // A room has a host at least, and the node gives no other shards.
        let at = usize::from(shard.0).min(self.hosts.len() - 1);
        let host = &self.hosts[at];
        let mut connection =
            |role| Connection::new(self.ids.peer(), host, codecs.clone(), role, &mut self.rng);
        Transports {
            shard: ShardId(at as u16),
            publisher: connection(Role::ClientOffers),
            subscriber: (!single).then(|| connection(Role::RelayOffers { data_channels: true })),
        }
    }

    fn join_response(&self, key: Key, others: Vec<proto::ParticipantInfo>) -> proto::JoinResponse {
        let p = self.participants.get(&key);
        let info = self.server_info();
        proto::JoinResponse {
            room: Some(self.info()),
            participant: p.map(|p| self.participant_info(p)),
            other_participants: others,
            server_version: info.version.clone(),
            server_region: info.region.clone(),
            server_info: Some(info),
            subscriber_primary: p.is_some_and(Participant::is_subscriber_primary),
            ping_timeout: seconds(self.config.ping_timeout),
            ping_interval: seconds(self.config.ping_interval),
            enabled_publish_codecs: self.enabled_codecs(),
            fast_publish: p.is_some_and(|p| p.permissions.can_publish && !p.permissions.hidden),
            // The relay never makes frames up, so there is no trailer by which clients may pass unencrypted ones.
            sif_trailer: Vec::new(),
            ..Default::default()
        }
    }

    /// TURN servers with credentials of their own for this client.
    fn ice_servers(&mut self, claims: &Claims, step: &Step<'_>) -> Vec<proto::IceServer> {
        turn::ice_servers(self.config.turn.as_ref(), claims.expires_at, step.now.unix, &mut self.rng)
    }

    fn server_info(&self) -> proto::ServerInfo {
        proto::ServerInfo {
            edition: proto::server_info::Edition::Standard as i32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            region: self.config.region.clone(),
            node_id: self.config.node_id.clone(),
            ..Default::default()
        }
    }

    /// A client that lost its signalling connection comes back to its participant and its transports.
    fn resume(
        &mut self,
        session: SessionId,
        claims: &Claims,
        open: &SessionOpen,
        request: &proto::JoinRequest,
        step: &mut Step<'_>,
    ) {
        let sid =
            if open.participant_sid.is_empty() { &request.participant_sid } else { &open.participant_sid };
        step.effects.push(Effect::Accept {
            session,
            participant_sid: sid.clone(),
            room_sid: self.sid.clone(),
        });
        let key = self.identities.get(&claims.identity).copied();
        let known = key.filter(|k| {
            self.participants.get(k).is_some_and(|p| {
                p.sid == *sid
                    && !p.transports.any_closed()
                    && p.transports.is_single() == open.single_peer_connection
            })
        });
        let Some(key) = known else {
            // Told on the new connection, where the client listens; a participant whose transport is lost goes when the
            // client joins anew.
            step.signal(
                Some(session),
                Message::Leave(Goodbye::Reconnect.request(proto::DisconnectReason::StateMismatch)),
            );
            return step.effects.push(Effect::CloseSession { session });
        };
        let Some(p) = self.participants.get_mut(&key) else { return };
        if let Some(old) = p.session.replace(session) {
            self.sessions.remove(&old);
            step.effects.push(Effect::CloseSession { session: old });
        }
        // It has the time of a join to get its transports up, if they are not.
        let wait = (step.now.instant + self.config.join_timeout, "resume timeout");
        p.deadline = (!p.transports.any_connected()).then_some(wait);
        if p.deadline.is_some() {
            self.deadlines.arm(key, wait.0);
        }
        let last_message_seq = p.last_reliable_seq;
        self.sessions.insert(session, key);
        let response = proto::ReconnectResponse {
            ice_servers: self.ice_servers(claims, step),
            server_info: Some(self.server_info()),
            last_message_seq,
            ..Default::default()
        };
        step.signal(Some(session), Message::Reconnect(response));
        let mut participants = self.departed_since_join(key);
        participants.extend(self.others_of(key));
        participants.extend(self.participants.get(&key).map(|p| self.participant_info(p)));
        for participants in in_portions(participants) {
            step.signal(Some(session), Message::Update(proto::ParticipantUpdate { participants }));
        }
        step.signal(Some(session), Message::RoomUpdate(proto::RoomUpdate { room: Some(self.info()) }));
        if let Some(speakers) = self.speakers.active() {
            step.signal(Some(session), Message::SpeakersChanged(speakers));
        }
        self.repeat_dynacast(key, step);
        self.repeat_pauses(key, step);
        self.quality.joined(key);
        self.restart_subscriber(key, step);
        if let Some(state) = &request.sync_state {
            self.sync_state(key, state, step);
        }
        if let Some(offer) = request.publisher_offer.as_ref().filter(|o| !o.sdp.is_empty()) {
            self.offer(key, offer, step);
        }
    }
}

impl Participant {
    /// The client waits for the connection that the relay offers.
    pub(super) fn is_subscriber_primary(&self) -> bool {
        !self.transports.is_single() && self.permissions.can_subscribe
    }
}

/// Longest text of a client's self-description that is kept, in bytes.
const MAX_CLIENT_TEXT: usize = 64;

fn client_info(open: &SessionOpen, request: &proto::JoinRequest) -> proto::ClientInfo {
    let mut info = proto::ClientInfo::decode(open.client_info.clone()).unwrap_or_default();
    if info == proto::ClientInfo::default() {
        info = request.client_info.clone().unwrap_or_default();
    }
    if info.browser.len() > MAX_CLIENT_TEXT {
        info.browser.clear();
    }
    info.capabilities.truncate(16);
    // Only what the room uses is kept.
    proto::ClientInfo {
        sdk: info.sdk,
        protocol: info.protocol,
        browser: info.browser,
        client_protocol: info.client_protocol,
        capabilities: info.capabilities,
        ..Default::default()
    }
}

fn seconds(duration: std::time::Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
