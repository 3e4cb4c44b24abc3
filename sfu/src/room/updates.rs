//! What changed, told to every client: at the end of the step, or, where many would have to be told, a little later and
//! together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use prost::Message as _;
use proto::participant_info::State;
use proto::signal_response::Message;

use super::participant::{Key, Participant};
use super::{Room, Step};

/// Departures that are remembered for clients that resume.
const MAX_DEPARTED: usize = 128;

/// Bytes of participants that go into one message: half of what a frame of the control link holds, since one participant
/// with its metadata and attributes may come on top of it.
const PORTION: usize = sfu_control::messages::MAX_FRAME / 2;

/// Splits participants into messages that the control link carries. None come in no message.
pub(super) fn in_portions(participants: Vec<proto::ParticipantInfo>) -> Vec<Vec<proto::ParticipantInfo>> {
    let mut portions: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for participant in participants {
        let length = participant.encoded_len();
        match portions.last_mut().filter(|_| bytes + length <= PORTION) {
            Some(portion) => portion.push(participant),
            None => {
                bytes = 0;
                portions.push(vec![participant]);
            }
        }
        bytes += length;
    }
    portions
}

/// Clients up to which everybody is told of every change in the step that made it.
const SMALL_ROOM: usize = 50;

/// What one client adds to the time between two tellings in a larger room. Everybody who comes is news to everybody who is
/// there: told one by one that would be a million messages while a room of a thousand fills. LiveKit waits three seconds,
/// whatever the room's size.
const PER_CLIENT: Duration = Duration::from_millis(1);

/// What clients were not told yet.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Participants whose information changed in this step, and whether they are told themselves.
    changed: BTreeMap<Key, bool>,
    /// Participants whose information changed in earlier steps. They themselves know.
    waiting: BTreeSet<Key>,
    /// Participants who left or became invisible, as they were.
    gone: Vec<proto::ParticipantInfo>,
    /// The room's information changed.
    room: bool,
    /// Something changed that does not wait.
    urgent: bool,
    /// Before this a large room tells only what is urgent.
    not_before: Option<Instant>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.waiting.is_empty() && self.gone.is_empty() && !self.room
    }

    /// When what waits is told.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.is_empty())
    }
}

impl Room {
    /// A participant's information changed; its version grows once a step.
    pub(super) fn changed(&mut self, key: Key, tell_itself: bool) {
        let told = self.changes.changed.entry(key).or_insert_with(|| {
            if let Some(p) = self.participants.get_mut(&key) {
                p.version = p.version.saturating_add(1);
            }
            false
        });
        *told |= tell_itself;
    }

    /// A participant is no longer to be seen.
    pub(super) fn gone(&mut self, p: &Participant, reason: proto::DisconnectReason, step: &Step<'_>) {
        if p.permissions.hidden {
            return;
        }
        let mut info = self.participant_info(p);
        info.version = info.version.saturating_add(1);
        info.state = State::Disconnected as i32;
        info.disconnect_reason = reason as i32;
        info.tracks.clear();
        info.is_publisher = false;
        if self.departed.len() >= MAX_DEPARTED {
            self.departed.pop_front();
        }
        // Who it was is all that a client needs to let it go.
        let departed = proto::ParticipantInfo {
            metadata: String::new(),
            attributes: Default::default(),
            ..info.clone()
        };
        self.departed.push_back((step.now.unix_ms(), departed));
        self.changes.gone.push(info);
        self.changes.room = true;
    }

    /// How many participants there are, or the like.
    pub(super) fn room_changed(&mut self) {
        self.changes.room = true;
    }

    /// What changed in this step is told in it, however large the room is.
    pub(super) fn tell_at_once(&mut self) {
        self.changes.urgent = true;
    }

    /// Whether telling everybody of every change would be too much.
    pub(super) fn is_large(&self) -> bool {
        self.sessions.len() > SMALL_ROOM
    }

    /// Everybody else that this participant may see.
    pub(super) fn others_of(&self, key: Key) -> Vec<proto::ParticipantInfo> {
        let visible = |(k, p): &(&Key, &Participant)| **k != key && !p.permissions.hidden;
        self.participants.iter().filter(visible).map(|(_, p)| self.participant_info(p)).collect()
    }

    /// Those who left since this participant came and are not here again: a client that was away missed it.
    pub(super) fn departed_since_join(&self, key: Key) -> Vec<proto::ParticipantInfo> {
        let Some(p) = self.participants.get(&key) else { return Vec::new() };
        let visible = |identity: &str| {
            let other = self.identities.get(identity).and_then(|key| self.participants.get(key));
            other.is_some_and(|p| !p.permissions.hidden)
        };
        self.departed
            .iter()
            .filter(|(at, info)| {
                *at >= p.joined_unix_ms && info.identity != p.identity && !visible(&info.identity)
            })
            .map(|(_, info)| info.clone())
            .collect()
    }

    /// Tells what changed: in a small room at once, in a large one so that the work for each client is bounded. What
    /// concerns tracks does not wait: clients must know a track before its media comes.
    pub(super) fn flush_updates(&mut self, step: &mut Step<'_>) {
        if self.changes.is_empty() {
            return;
        }
        if !self.is_large() {
            return self.tell_each(step);
        }
        let publishes = |key| self.participants.get(key).is_some_and(|p| self.is_publisher(p));
        let now = step.now.instant;
        let urgent = self.changes.urgent || self.changes.changed.keys().any(publishes);
        if urgent || self.changes.not_before.is_none_or(|at| at <= now) {
            self.tell_all(step);
            let clients = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
            self.changes.not_before = Some(now + PER_CLIENT * clients);
            return;
        }
        for (key, told) in std::mem::take(&mut self.changes.changed) {
            if told {
                self.tell_itself(key, step);
            }
            self.changes.waiting.insert(key);
        }
    }

    fn tell_itself(&self, key: Key, step: &mut Step<'_>) {
        if let Some(p) = self.participants.get(&key) {
            let participants = vec![self.participant_info(p)];
            step.signal(p.session, Message::Update(proto::ParticipantUpdate { participants }));
        }
    }

    /// Every client its own messages: nobody is told what it knows.
    fn tell_each(&mut self, step: &mut Step<'_>) {
        let mut changes = std::mem::take(&mut self.changes);
        for key in changes.waiting {
            changes.changed.entry(key).or_insert(false);
        }
        let changed: Vec<_> = changes
            .changed
            .iter()
            .filter_map(|(key, told)| {
                let p = self.participants.get(key)?;
                Some((*key, *told, p.permissions.hidden, self.participant_info(p)))
            })
            .collect();
        let room = self.info();
        for (key, p) in &self.participants {
            if p.session.is_none() {
                continue;
            }
            // Who takes over an identity is not told that it left.
            let gone = changes.gone.iter().filter(|info| info.identity != p.identity);
            let seen = changed
                .iter()
                .filter(|(k, told, hidden, _)| if k == key { *told } else { !hidden })
                .map(|(.., info)| info);
            let participants: Vec<_> = gone.chain(seen).cloned().collect();
            for participants in in_portions(participants) {
                step.signal(p.session, Message::Update(proto::ParticipantUpdate { participants }));
            }
            if changes.room {
                step.signal(p.session, Message::RoomUpdate(proto::RoomUpdate { room: Some(room.clone()) }));
            }
        }
    }

    /// All clients the same messages, which are made once. A client finds itself in them as well, as it is.
    fn tell_all(&mut self, step: &mut Step<'_>) {
        let changes = std::mem::take(&mut self.changes);
        let mut seen = Vec::new();
        let now: BTreeSet<Key> = changes.changed.keys().copied().collect();
        for key in changes.waiting.union(&now) {
            let Some(p) = self.participants.get(key) else { continue };
            if !p.permissions.hidden {
                seen.push(self.participant_info(p));
            } else if changes.changed.get(key).copied().unwrap_or(false) {
                self.tell_itself(*key, step);
            }
        }
        // Who takes over an identity is not told that it left.
        let left: HashSet<&str> = changes.gone.iter().map(|info| info.identity.as_str()).collect();
        let (mut everybody, mut others) = (Vec::new(), Vec::new());
        for p in self.participants.values() {
            let Some(session) = p.session else { continue };
            everybody.push(session);
            if !left.contains(p.identity.as_str()) {
                others.push(session);
                continue;
            }
            let gone = changes.gone.iter().filter(|info| info.identity != p.identity).cloned().collect();
            for participants in in_portions(gone) {
                step.signal(p.session, Message::Update(proto::ParticipantUpdate { participants }));
            }
        }
        for participants in in_portions(changes.gone.clone()) {
            step.broadcast(&others, Message::Update(proto::ParticipantUpdate { participants }));
        }
        for participants in in_portions(seen) {
            step.broadcast(&everybody, Message::Update(proto::ParticipantUpdate { participants }));
        }
        if changes.room {
            let room = Some(self.info());
            step.broadcast(&everybody, Message::RoomUpdate(proto::RoomUpdate { room }));
        }
    }
}
