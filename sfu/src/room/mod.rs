//! Room logic without I/O: participants, tracks, permissions, subscriptions and LiveKit's signal semantics.
//!
//! [`Room::handle`] takes one [`RoomInput`] and appends [`Effect`]s; nothing here reads a clock, opens a socket or starts
//! a thread. A change of the roster, the commands that enforce it, the messages that tell clients, and the event for the
//! audit trail come from one step. The order of a step:
//!
//! 1. the input changes the room's state and emits the commands that enforce the change, at once;
//! 2. `updates` tells every client what changed in the roster, coalesced (in a large room over several steps);
//! 3. `dynacast` tells publishers which layers somebody takes;
//! 4. `negotiation` starts the description exchanges that the change needs, one per connection at a time.

mod admin;
mod api;
mod config;
mod data;
mod deadlines;
mod dynacast;
mod join;
mod lifecycle;
mod negotiation;
mod participant;
mod permissions;
mod priority;
mod publish;
mod quality;
pub mod sdp;
mod session;
mod speakers;
mod subscriptions;
#[cfg(test)]
mod tests;
mod tracks;
mod transports;
mod turn;
mod updates;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sfu_control::messages::{ErrorCode, Refusal, RoomEvent};
use sfu_media::command::{ShardCommand, ShardEvent};
use sfu_media::ids::{PeerId, ShardId, SpeakerGroup, TrackId};

pub use api::{AdminRequest, CallId, Effect, IdSource, MediaHost, Now, RoomInput, SessionId};
pub use config::{E2eePolicy, RoomConfig};
pub use data::DataCounters;
pub use turn::TurnConfig;

use participant::{Key, Participant};
use tracks::Track;

/// One room.
pub struct Room {
    name: String,
    sid: String,
    config: RoomConfig,
    hosts: Arc<[MediaHost]>,
    ids: Arc<IdSource>,
    rng: StdRng,
    metadata: String,
    max_participants: u32,
    empty_timeout: Duration,
    departure_timeout: Duration,
    created_unix_ms: u64,
    /// `room_started` was reported.
    started: bool,
    finished: bool,
    /// Somebody was in it.
    joined_once: bool,
    /// Since when nobody is in it; meaningless while somebody is.
    idle_since: Instant,
    next_key: u64,
    participants: BTreeMap<Key, Participant>,
    identities: HashMap<String, Key>,
    sessions: HashMap<SessionId, Key>,
    peers: HashMap<PeerId, Key>,
    tracks: BTreeMap<TrackId, Track>,
    track_sids: HashMap<String, TrackId>,
    /// Who left last, and when (Unix time, milliseconds): for clients that were away and resume.
    departed: VecDeque<(u64, proto::ParticipantInfo)>,
    /// When participants are due to be removed.
    deadlines: deadlines::Deadlines,
    /// What clients were not told yet.
    changes: updates::Changes,
    /// Participants whose receiving connection may need another exchange.
    renegotiate: BTreeSet<Key>,
    speakers: speakers::Speakers,
    quality: quality::Quality,
    dynacast: dynacast::Dynacast,
    lead: priority::Lead,
    speaker_group: SpeakerGroup,
    data: DataCounters,
}

/// One call of [`Room::handle`]: its time, and where its effects go.
struct Step<'a> {
    now: Now,
    effects: &'a mut Vec<Effect>,
}

impl Step<'_> {
    fn shard(&mut self, command: ShardCommand) {
        self.effects.push(Effect::Shard(command));
    }

    /// To a participant's connection, when it has one.
    fn signal(&mut self, session: Option<SessionId>, message: Message) {
        if let Some(session) = session {
            let response = Box::new(proto::SignalResponse { message: Some(message) });
            self.effects.push(Effect::Signal { session, response });
        }
    }

    /// The same to many.
    fn broadcast(&mut self, sessions: &[SessionId], message: Message) {
        if !sessions.is_empty() {
            let response = Box::new(proto::SignalResponse { message: Some(message) });
            self.effects.push(Effect::Broadcast { sessions: sessions.into(), response });
        }
    }
}

fn refusal(code: ErrorCode, message: &str) -> Refusal {
    Refusal { code: code as i32, message: message.to_owned() }
}

impl Room {
    /// A room that nobody is in yet. `hosts` are the shards that participants may be placed on. `seed` feeds its
    /// identifiers and ICE credentials: it must be unpredictable.
    pub fn new(
        name: &str,
        config: RoomConfig,
        hosts: Arc<[MediaHost]>,
        ids: Arc<IdSource>,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let speaker_group = ids.speaker_group();
        Self {
            name: name.to_owned(),
            sid: format!("RM_{}", transports::token(&mut rng, 12)),
            hosts,
            ids,
            rng,
            metadata: String::new(),
            max_participants: config.max_participants,
            empty_timeout: config.empty_timeout,
            departure_timeout: config.departure_timeout,
            config,
            created_unix_ms: now.unix_ms(),
            started: false,
            finished: false,
            joined_once: false,
            idle_since: now.instant,
            next_key: 0,
            participants: BTreeMap::new(),
            identities: HashMap::new(),
            sessions: HashMap::new(),
            peers: HashMap::new(),
            tracks: BTreeMap::new(),
            track_sids: HashMap::new(),
            departed: VecDeque::new(),
            deadlines: deadlines::Deadlines::default(),
            changes: updates::Changes::default(),
            renegotiate: BTreeSet::new(),
            speakers: speakers::Speakers::default(),
            quality: quality::Quality::new(now.instant),
            dynacast: dynacast::Dynacast::default(),
            lead: priority::Lead::default(),
            speaker_group,
            data: DataCounters::default(),
        }
    }

    /// Takes one input and appends what is to be done. After [`Effect::Finished`] joins and calls are refused and
    /// everything else is ignored.
    pub fn handle(&mut self, input: RoomInput, now: Now, effects: &mut Vec<Effect>) {
        let step = &mut Step { now, effects };
        if self.finished {
            let over = || refusal(ErrorCode::Unavailable, "the room is over");
            match input {
                RoomInput::Join { session, .. } => {
                    step.effects.push(Effect::Refuse { session, refusal: over() })
                }
                RoomInput::Admin { call, .. } => {
                    step.effects.push(Effect::AdminReply { call, result: Err(over()) });
                }
                _ => {}
            }
            return;
        }
        let mut reply = None;
        match input {
            RoomInput::Join { session, shard, token, open } => {
                self.join(session, shard, &token, &open, step);
            }
            RoomInput::Signal { session, request } => self.signal(session, request, step),
            RoomInput::SessionClosed { session } => self.session_closed(session, step),
            RoomInput::Shard(event) => self.shard_event(event, step),
            RoomInput::Admin { call, request } => {
                let result = self.admin(request, step);
                reply = Some(Effect::AdminReply { call, result });
            }
            RoomInput::Timeout => {}
        }
        self.expire(step);
        self.flush_updates(step);
        self.flush_dynacast(step);
        self.flush_negotiation(step);
        step.effects.extend(reply);
        if self.finished {
            step.effects.push(Effect::Finished);
        }
    }

    /// When [`RoomInput::Timeout`] is due. `None` once the room is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.finished {
            return None;
        }
        self.deadlines
            .next()
            .into_iter()
            .chain(self.changes.deadline())
            .chain(self.idle_deadline())
            .chain(self.speakers.deadline())
            .chain(self.quality_deadline())
            .chain(self.dynacast.deadline())
            .min()
    }

    /// What the room is, as clients and administrators see it.
    pub fn info(&self) -> proto::Room {
        let visible = || self.participants.values().filter(|p| !p.permissions.hidden);
        let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
        proto::Room {
            sid: self.sid.clone(),
            name: self.name.clone(),
            empty_timeout: seconds(self.empty_timeout),
            departure_timeout: seconds(self.departure_timeout),
            max_participants: self.max_participants,
            creation_time: (self.created_unix_ms / 1000).cast_signed(),
            creation_time_ms: self.created_unix_ms.cast_signed(),
            enabled_codecs: self.enabled_codecs(),
            metadata: self.metadata.clone(),
            num_participants: u32::try_from(visible().count()).unwrap_or(u32::MAX),
            num_publishers: u32::try_from(visible().filter(|p| self.is_publisher(p)).count())
                .unwrap_or(u32::MAX),
            active_recording: self.participants.values().any(|p| p.permissions.is_recorder()),
            ..Default::default()
        }
    }

    /// Everybody in the room, hidden participants as well: for administrators.
    pub fn participants(&self) -> Vec<proto::ParticipantInfo> {
        self.participants.values().map(|p| self.participant_info(p)).collect()
    }

    /// How many are in the room on each of its shards, hidden participants as well.
    pub fn population(&self) -> Vec<usize> {
        let mut counts = vec![0; self.hosts.len()];
        for p in self.participants.values() {
            if let Some(count) = counts.get_mut(usize::from(p.transports.shard.0)) {
                *count += 1;
            }
        }
        counts
    }

    /// The shard that a transport is placed on.
    pub fn shard_of(&self, peer: PeerId) -> Option<ShardId> {
        let p = self.participants.get(self.peers.get(&peer)?)?;
        Some(p.transports.shard)
    }

    /// The room is over and takes no further input.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether an event of a shard concerns this room. Events that list peers or tracks concern every room.
    pub fn owns(&self, event: &ShardEvent) -> bool {
        match event {
            ShardEvent::PeerConnected { peer }
            | ShardEvent::PeerClosed { peer, .. }
            | ShardEvent::Data { peer, .. } => self.peers.contains_key(peer),
            ShardEvent::LayerLive { track, .. }
            | ShardEvent::NotEncrypted { track }
            | ShardEvent::StreamPaused { track, .. } => self.tracks.contains_key(track),
            ShardEvent::AudioLevels(_) | ShardEvent::Quality(_) => true,
            ShardEvent::Stats(_) => false,
        }
    }

    /// Data packets since the room began.
    pub fn data_counters(&self) -> &DataCounters {
        &self.data
    }

    fn enabled_codecs(&self) -> Vec<proto::Codec> {
        let mime = |c: &_| proto::Codec { mime: tracks::mime_type(*c).to_owned(), ..Default::default() };
        self.config.codecs.iter().map(mime).collect()
    }

    fn is_publisher(&self, p: &Participant) -> bool {
        p.tracks.iter().any(|id| self.tracks.get(id).is_some_and(|t| t.binding.is_some()))
    }

    /// As clients see it: announced tracks are not shown before they are published.
    fn participant_info(&self, p: &Participant) -> proto::ParticipantInfo {
        let published = p.tracks.iter().filter_map(|id| self.tracks.get(id)).filter(|t| t.binding.is_some());
        p.info(published.map(|t| t.info.clone()).collect())
    }

    fn requires_encryption(&self) -> bool {
        self.config.e2ee == E2eePolicy::Required
    }

    /// For the event feed.
    fn event(
        &self,
        event: &str,
        participant: Option<&proto::ParticipantInfo>,
        track: Option<&proto::TrackInfo>,
        step: &mut Step<'_>,
    ) {
        step.effects.push(Effect::Event(RoomEvent {
            event: event.to_owned(),
            unix_ms: step.now.unix_ms(),
            room: Bytes::from(self.info().encode_to_vec()),
            participant: Bytes::from(participant.map(|p| p.encode_to_vec()).unwrap_or_default()),
            track: Bytes::from(track.map(|t| t.encode_to_vec()).unwrap_or_default()),
        }));
    }

    fn start(&mut self, step: &mut Step<'_>) {
        if !self.started {
            self.started = true;
            self.event("room_started", None, None, step);
        }
    }

    fn session_of(&self, key: Key) -> Option<SessionId> {
        self.participants.get(&key).and_then(|p| p.session)
    }
}
