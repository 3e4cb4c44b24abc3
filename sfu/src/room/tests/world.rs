//! A room, its clients, and a model of the shard that checks every command.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Asked;
use proto::signal_response::Message;
use sfu_control::messages::{Refusal, SessionOpen};
use sfu_control::token::{Claims, VideoGrants};
use sfu_media::command::{
    CloseReason, DataLabel, Fingerprint, MediaKind, ShardCommand, ShardEvent, SubscriptionTarget, TrackPolicy,
};
use sfu_media::ids::{PeerId, ShardId, SubId, TrackId};

use super::client::Client;
use crate::room::{
    AdminRequest, CallId, Effect, IdSource, MediaHost, Now, Room, RoomConfig, RoomInput, SessionId,
};

/// What the shard would hold.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) open: HashSet<PeerId>,
    pub(super) ever: HashSet<PeerId>,
    pub(super) tracks: BTreeMap<TrackId, (PeerId, TrackPolicy)>,
    pub(super) subs: BTreeMap<SubId, (TrackId, PeerId, SubscriptionTarget)>,
    ever_subs: HashSet<SubId>,
    ssrcs: HashSet<(PeerId, u32)>,
    /// How many targets were changed.
    pub(super) targets_set: usize,
    /// Tracks of which only the loudest are forwarded, and how many.
    pub(super) limited: BTreeMap<TrackId, u16>,
    pub(super) sent: Vec<(PeerId, DataLabel, proto::DataPacket)>,
}

impl Shard {
    fn check_open(&self, peer: PeerId, what: &ShardCommand) {
        assert!(self.open.contains(&peer), "a command for a peer that is not open: {what:?}");
    }

    fn end_track(&mut self, track: TrackId) {
        self.tracks.remove(&track);
        self.limited.remove(&track);
        self.subs.retain(|_, (of, ..)| *of != track);
    }

    pub(super) fn end_peer(&mut self, peer: PeerId) {
        self.open.remove(&peer);
        let ended: Vec<_> = self.tracks.iter().filter(|(_, (p, _))| *p == peer).map(|(t, _)| *t).collect();
        for track in ended {
            self.end_track(track);
        }
        self.subs.retain(|_, (_, to, _)| *to != peer);
    }

    fn apply(&mut self, command: ShardCommand) {
        match &command {
            ShardCommand::OpenPeer { peer, .. } => {
                assert!(self.ever.insert(*peer), "a peer's id is used again");
                self.open.insert(*peer);
            }
            ShardCommand::SetRemote { peer, .. }
            | ShardCommand::RestartIce { peer, .. }
            | ShardCommand::SetReceive { peer, .. } => self.check_open(*peer, &command),
            ShardCommand::Publish { peer, track, policy, .. } => {
                self.check_open(*peer, &command);
                assert!(self.tracks.insert(*track, (*peer, *policy)).is_none(), "published twice");
            }
            ShardCommand::SetTrackPolicy { track, policy } => {
                self.tracks.get_mut(track).expect("a policy of a track that is not published").1 = *policy;
            }
            ShardCommand::LimitSpeakers { track, max, .. } => {
                assert!(self.tracks.contains_key(track), "a limit of a track that is not published");
                self.limited.insert(*track, *max);
            }
            ShardCommand::Unpublish { track } => {
                assert!(self.tracks.contains_key(track), "unpublished twice");
                self.end_track(*track);
            }
            ShardCommand::Subscribe { sub, track, peer, section, target } => {
                self.check_open(*peer, &command);
                let (publisher, _) = self.tracks.get(track).expect("a subscription to no track");
                assert_ne!(publisher, peer, "its own track");
                assert!(self.ever_subs.insert(*sub), "a subscription's id is used again");
                for ssrc in [Some(section.ssrc), section.rtx_ssrc].into_iter().flatten() {
                    assert!(self.ssrcs.insert((*peer, ssrc.0)), "an SSRC is used again");
                }
                assert!(!section.codecs.is_empty(), "nothing to send");
                self.subs.insert(*sub, (*track, *peer, *target));
            }
            ShardCommand::SetTarget { sub, target } => {
                let have = &mut self.subs.get_mut(sub).expect("a target of no subscription").2;
                assert_ne!(have, target, "a target that it has already");
                *have = *target;
                self.targets_set += 1;
            }
            // Ends with its track when the publisher goes in the same step.
            ShardCommand::Unsubscribe { sub } => {
                assert!(self.ever_subs.contains(sub));
                self.subs.remove(sub);
            }
            ShardCommand::SendData { peer, label, payload } => {
                self.check_open(*peer, &command);
                let packet = proto::DataPacket::decode(payload.clone()).expect("a data packet");
                self.sent.push((*peer, *label, packet));
            }
            ShardCommand::ClosePeer { peer } => {
                self.check_open(*peer, &command);
                self.end_peer(*peer);
            }
            ShardCommand::StartRelay { .. }
            | ShardCommand::StopRelay { .. }
            | ShardCommand::PublishRelayed { .. } => panic!("a room knows nothing of relaying: {command:?}"),
        }
    }
}

/// Everything together.
pub(super) struct World {
    pub(super) room: Room,
    pub(super) shard: Shard,
    pub(super) clients: BTreeMap<SessionId, Client>,
    /// Messages to clients since the last look.
    pub(super) said: Vec<(SessionId, Message)>,
    /// How many of them clients have reacted to.
    settled: usize,
    pub(super) events: Vec<String>,
    pub(super) closed: Vec<SessionId>,
    pub(super) refused: Vec<(SessionId, Refusal)>,
    pub(super) finished: bool,
    reply: Option<Result<Bytes, Refusal>>,
    pub(super) elapsed: Duration,
    start: Instant,
    next: u64,
    /// Where whoever joins next is placed.
    pub(super) place: ShardId,
}

pub(super) fn grants() -> VideoGrants {
    VideoGrants { room_join: true, room: "visit".into(), ..Default::default() }
}

pub(super) fn claims(identity: &str, video: VideoGrants) -> Claims {
    Claims { identity: identity.into(), name: format!("{identity} name"), video, ..Default::default() }
}

impl World {
    pub(super) fn new(config: RoomConfig) -> Self {
        let start = Instant::now();
        let host = MediaHost {
            fingerprint: Fingerprint([7; 32]),
            candidates: vec!["127.0.0.1:4000".parse().expect("an address")],
            tcp_candidates: vec![],
            ufrag_prefix: "0/".into(),
        };
        let now = Now { instant: start, unix: Duration::from_secs(1_800_000_000) };
        let other = MediaHost {
            candidates: vec!["127.0.0.1:4001".parse().expect("an address")],
            ufrag_prefix: "1/".into(),
            ..host.clone()
        };
        let room = Room::new("visit", config, [host, other].into(), Arc::new(IdSource::new()), [42; 32], now);
        Self {
            room,
            shard: Shard::default(),
            clients: BTreeMap::new(),
            said: Vec::new(),
            settled: 0,
            events: Vec::new(),
            closed: Vec::new(),
            refused: Vec::new(),
            finished: false,
            reply: None,
            elapsed: Duration::ZERO,
            start,
            next: 1,
            place: ShardId(0),
        }
    }

    pub(super) fn input(&mut self, input: RoomInput) {
        let now = Now {
            instant: self.start + self.elapsed,
            unix: Duration::from_secs(1_800_000_000) + self.elapsed,
        };
        let mut effects = Vec::new();
        self.room.handle(input, now, &mut effects);
        for effect in effects {
            assert!(!self.finished, "an effect after the end");
            match effect {
                Effect::Shard(command) => self.shard.apply(command),
                Effect::Accept { session, participant_sid, .. } => {
                    if let Some(client) = self.clients.get_mut(&session) {
                        client.sid = participant_sid;
                    }
                }
                Effect::Refuse { session, refusal } => {
                    self.clients.remove(&session);
                    self.refused.push((session, refusal));
                }
                Effect::Signal { session, response } => {
                    assert!(!self.closed.contains(&session), "a message after the close");
                    self.said.push((session, response.message.expect("a message")));
                }
                Effect::Broadcast { sessions, response } => {
                    for session in sessions {
                        assert!(!self.closed.contains(&session), "a message after the close");
                        self.said.push((session, response.message.clone().expect("a message")));
                    }
                }
                Effect::CloseSession { session } => {
                    self.clients.remove(&session);
                    self.closed.push(session);
                }
                Effect::AdminReply { result, .. } => self.reply = Some(result),
                Effect::Event(event) => {
                    proto::Room::decode(event.room).expect("a room");
                    proto::ParticipantInfo::decode(event.participant).expect("a participant");
                    proto::TrackInfo::decode(event.track).expect("a track");
                    self.events.push(event.event);
                }
                Effect::Finished => self.finished = true,
            }
        }
        assert_eq!(self.finished, self.room.is_finished());
        self.check();
    }

    /// What must hold after every step.
    fn check(&self) {
        let mut roster: Vec<TrackId> = Vec::new();
        for p in self.room.participants() {
            for track in &p.tracks {
                let id = *self.room.track_sids.get(&track.sid).expect("a track by its sid");
                roster.push(id);
                let (_, policy) = self.shard.tracks.get(&id).expect("a track of the roster is published");
                assert_eq!(policy.muted, track.muted);
                assert_eq!(policy.require_encryption, self.room.requires_encryption());
            }
        }
        roster.sort();
        let published: Vec<_> = self.shard.tracks.keys().copied().collect();
        assert_eq!(roster, published, "what is published is what the roster shows");
        for (track_id, peer, _) in self.shard.subs.values() {
            let key = self.room.peers.get(peer).expect("a subscriber");
            let p = &self.room.participants[key];
            let track = &self.room.tracks[track_id];
            let publisher = &self.room.participants[&track.publisher];
            assert!(p.permissions.can_subscribe, "a subscription without permission");
            assert!(
                publisher.allowed.permits(track.sid(), &p.sid, &p.identity),
                "not allowed by the publisher"
            );
            assert!(publisher.permissions.may_publish(track.info.source), "published without permission");
        }
        for p in self.room.participants.values() {
            assert!(self.room.identities.contains_key(&p.identity));
            if let Some(session) = p.session {
                assert!(self.room.sessions.contains_key(&session));
            }
        }
        assert_eq!(self.room.participants.len(), self.room.identities.len());
        for session in self.room.sessions.keys() {
            assert!(!self.closed.contains(session));
        }
    }

    pub(super) fn signal(&mut self, session: SessionId, message: Asked) {
        self.input(RoomInput::Signal { session, request: proto::SignalRequest { message: Some(message) } });
    }

    pub(super) fn admin(&mut self, request: AdminRequest) -> Result<Bytes, Refusal> {
        self.input(RoomInput::Admin { call: CallId(1), request });
        self.reply.take().expect("every call is answered")
    }

    pub(super) fn open(single: bool) -> SessionOpen {
        SessionOpen {
            single_peer_connection: single,
            auto_subscribe: true,
            protocol: 16,
            ..Default::default()
        }
    }

    pub(super) fn join_as(&mut self, claims: Claims, open: SessionOpen) -> SessionId {
        let session = SessionId(self.next);
        self.next += 1;
        let client = Client::new(&claims.identity, session, open.single_peer_connection);
        self.clients.insert(session, client);
        let shard = self.place;
        self.input(RoomInput::Join { session, shard, token: claims, open });
        session
    }

    /// Joins, exchanges descriptions and connects.
    pub(super) fn join_with(&mut self, identity: &str, video: VideoGrants, single: bool) -> SessionId {
        let session = self.join_as(claims(identity, video), Self::open(single));
        self.offer(session);
        self.settle();
        self.connect(session);
        session
    }

    pub(super) fn join(&mut self, identity: &str, single: bool) -> SessionId {
        self.join_with(identity, grants(), single)
    }

    pub(super) fn offer(&mut self, session: SessionId) {
        let Some(client) = self.clients.get_mut(&session) else { return };
        let sdp = client.offer();
        let offer = proto::SessionDescription { r#type: "offer".into(), sdp, id: 7, ..Default::default() };
        self.signal(session, Asked::Offer(offer));
    }

    /// Lets clients answer what the relay offers or asks for, until it asks no more.
    pub(super) fn settle(&mut self) {
        for _ in 0..500 {
            let Some((session, message)) = self.said.get(self.settled).cloned() else { return };
            self.settled += 1;
            let Some(client) = self.clients.get_mut(&session) else { continue };
            match message {
                Message::Offer(offer) => {
                    let sdp = client.answer(&offer.sdp);
                    let answer =
                        proto::SessionDescription { r#type: "answer".into(), sdp, ..Default::default() };
                    self.signal(session, Asked::Answer(answer));
                }
                Message::MediaSectionsRequirement(need) => {
                    client.receive(MediaKind::Audio, need.num_audios);
                    client.receive(MediaKind::Video, need.num_videos);
                    self.offer(session);
                }
                _ => {}
            }
        }
        panic!("the relay asks for ever");
    }

    /// Drops what was said before, so that `settle` and `heard` see only what follows.
    pub(super) fn hush(&mut self) {
        self.said.clear();
        self.settled = 0;
        self.events.clear();
        self.shard.sent.clear();
    }

    pub(super) fn peers(&self, session: SessionId) -> Vec<PeerId> {
        let Some(key) = self.room.sessions.get(&session) else { return Vec::new() };
        let transports = &self.room.participants[key].transports;
        transports.all().filter(|c| self.shard.open.contains(&c.peer)).map(|c| c.peer).collect()
    }

    pub(super) fn connect(&mut self, session: SessionId) {
        for peer in self.peers(session) {
            self.input(RoomInput::Shard(ShardEvent::PeerConnected { peer }));
        }
    }

    pub(super) fn lose_peer(&mut self, peer: PeerId, reason: CloseReason) {
        self.shard.end_peer(peer);
        self.input(RoomInput::Shard(ShardEvent::PeerClosed { peer, reason }));
    }

    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.elapsed + time;
        while let Some(at) = self.room.poll_timeout() {
            let at = at.saturating_duration_since(self.start);
            if at > end {
                break;
            }
            self.elapsed = self.elapsed.max(at);
            self.input(RoomInput::Timeout);
        }
        self.elapsed = end;
    }

    pub(super) fn request(kind: MediaKind, cid: &str, encrypted: bool) -> proto::AddTrackRequest {
        let (track_type, source) = match kind {
            MediaKind::Audio => (proto::TrackType::Audio, proto::TrackSource::Microphone),
            MediaKind::Video => (proto::TrackType::Video, proto::TrackSource::Camera),
        };
        let encryption = if encrypted { proto::encryption::Type::Gcm } else { proto::encryption::Type::None };
        proto::AddTrackRequest {
            cid: cid.into(),
            r#type: track_type as i32,
            source: source as i32,
            encryption: encryption as i32,
            disable_red: true,
            width: 1280,
            height: 720,
            ..Default::default()
        }
    }

    /// Announces, offers, settles; the track's sid when it was published.
    pub(super) fn publish(&mut self, session: SessionId, kind: MediaKind, cid: &str) -> Option<String> {
        let from = self.said.len();
        self.signal(session, Asked::AddTrack(Self::request(kind, cid, true)));
        self.clients.get_mut(&session)?.send(kind, cid);
        self.offer(session);
        self.settle();
        self.said.iter().skip(from).find_map(|(to, message)| match message {
            Message::TrackPublished(t) if *to == session => Some(t.track.as_ref()?.sid.clone()),
            _ => None,
        })
    }

    pub(super) fn heard<T>(&self, session: SessionId, pick: impl Fn(&Message) -> Option<T>) -> Vec<T> {
        self.said.iter().filter(|(to, _)| *to == session).filter_map(|(_, m)| pick(m)).collect()
    }

    /// The participants that a client was told of, in order.
    pub(super) fn updates(&self, session: SessionId) -> Vec<proto::ParticipantInfo> {
        let pick = |m: &Message| match m {
            Message::Update(u) => Some(u.participants.clone()),
            _ => None,
        };
        self.heard(session, pick).into_iter().flatten().collect()
    }

    pub(super) fn leaves(&self, session: SessionId) -> Vec<proto::LeaveRequest> {
        self.heard(session, |m| match m {
            Message::Leave(l) => Some(l.clone()),
            _ => None,
        })
    }

    pub(super) fn refusals(&self, session: SessionId) -> Vec<proto::RequestResponse> {
        self.heard(session, |m| match m {
            Message::RequestResponse(r) => Some(r.clone()),
            _ => None,
        })
    }

    /// Identities whose tracks the shard sends to this client.
    pub(super) fn receives(&self, session: SessionId) -> Vec<String> {
        let peers = self.peers(session);
        let to_it = self.shard.subs.values().filter(|(_, peer, _)| peers.contains(peer));
        let mut from: Vec<_> = to_it
            .map(|(track, ..)| self.room.participants[&self.room.tracks[track].publisher].identity.clone())
            .collect();
        from.sort();
        from
    }

    pub(super) fn sid(&self, session: SessionId) -> String {
        self.clients[&session].sid.clone()
    }

    pub(super) fn identity_of(&self, peer: PeerId) -> String {
        self.room.participants[&self.room.peers[&peer]].identity.clone()
    }

    /// A data packet from a client's publishing connection.
    pub(super) fn data(&mut self, session: SessionId, label: DataLabel, packet: &proto::DataPacket) {
        let Some(key) = self.room.sessions.get(&session) else { return };
        let peer = self.room.participants[key].transports.publisher.peer;
        let payload = Bytes::from(packet.encode_to_vec());
        self.input(RoomInput::Shard(ShardEvent::Data { peer, label, payload }));
    }

    pub(super) fn sent_to(&self) -> HashMap<String, Vec<proto::DataPacket>> {
        let mut map: HashMap<_, Vec<_>> = HashMap::new();
        for (peer, _, packet) in &self.shard.sent {
            map.entry(self.identity_of(*peer)).or_default().push(packet.clone());
        }
        map
    }
}

impl World {
    /// What a call gets once the room is over.
    pub(super) fn room_is_over(&mut self) -> Refusal {
        self.finished = false;
        let error = {
            let now = Now { instant: self.start + self.elapsed, unix: Duration::ZERO };
            let mut effects = Vec::new();
            let request = AdminRequest::ListParticipants(Default::default());
            self.room.handle(RoomInput::Admin { call: CallId(9), request }, now, &mut effects);
            match effects.pop() {
                Some(Effect::AdminReply { result: Err(error), .. }) => error,
                other => panic!("{other:?}"),
            }
        };
        self.finished = true;
        error
    }
}
