//! What changed in a step, told to every client at its end.

use std::collections::BTreeMap;

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

/// Changes of one step.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Participants whose information changed, and whether they are told themselves.
    changed: BTreeMap<Key, bool>,
    /// Participants who left or became invisible, as they were.
    gone: Vec<proto::ParticipantInfo>,
    /// The room's information changed.
    room: bool,
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
    pub(super) fn gone(&mut self, p: &Participant, reason: proto::DisconnectReason) {
        if p.permissions.hidden {
            return;
        }
        let mut info = self.participant_info(p);
        info.version = info.version.saturating_add(1);
        info.state = State::Disconnected as i32;
        info.disconnect_reason = reason as i32;
        info.tracks.clear();
        info.is_publisher = false;
        self.changes.gone.push(info);
        self.changes.room = true;
    }

    pub(super) fn room_changed(&mut self) {
        self.changes.room = true;
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

    pub(super) fn flush_updates(&mut self, step: &mut Step<'_>) {
        let changes = std::mem::take(&mut self.changes);
        let changed: Vec<_> = changes
            .changed
            .iter()
            .filter_map(|(key, told)| {
                let p = self.participants.get(key)?;
                Some((*key, *told, p.permissions.hidden, self.participant_info(p)))
            })
            .collect();
        if changed.is_empty() && changes.gone.is_empty() && !changes.room {
            return;
        }
        for info in &changes.gone {
            if self.departed.len() >= MAX_DEPARTED {
                self.departed.pop_front();
            }
            // Who it was is all that a client needs to let it go.
            let info = proto::ParticipantInfo {
                metadata: String::new(),
                attributes: Default::default(),
                ..info.clone()
            };
            self.departed.push_back((step.now.unix_ms(), info));
        }
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
}
