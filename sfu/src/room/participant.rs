//! One participant: who it is, what it may do, and what belongs to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use livekit_protocol as proto;
use proto::participant_info::State;
use sfu_control::token::Claims;
use sfu_media::ids::TrackId;

use super::api::{Now, SessionId};
use super::permissions::{Allowed, Permissions};
use super::subscriptions::Subscription;
use super::transports::Transports;

/// Names a participant inside its room; grows with each join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u64);

/// One participant.
pub(super) struct Participant {
    pub(super) sid: String,
    pub(super) identity: String,
    pub(super) name: String,
    pub(super) metadata: String,
    pub(super) attributes: BTreeMap<String, String>,
    kind: i32,
    kind_details: Vec<i32>,
    pub(super) permissions: Permissions,
    pub(super) state: State,
    pub(super) joined_unix_ms: u64,
    pub(super) version: u32,
    pub(super) client: proto::ClientInfo,
    pub(super) protocol: u32,
    /// Its signalling connection, while there is one.
    pub(super) session: Option<SessionId>,
    pub(super) auto_subscribe: bool,
    pub(super) transports: Transports,
    /// Its tracks in the order of their announcement, announced ones as well.
    pub(super) tracks: Vec<TrackId>,
    /// Whom it lets subscribe to them.
    pub(super) allowed: Allowed,
    /// What it receives or is about to.
    pub(super) subs: BTreeMap<TrackId, Subscription>,
    /// What it asked for, track by track; else `auto_subscribe` decides.
    pub(super) wants: BTreeMap<TrackId, bool>,
    /// Tracks whose publisher does not let it subscribe, as it was told.
    pub(super) denied: BTreeSet<TrackId>,
    /// Its settings for tracks, kept over subscriptions.
    pub(super) settings: BTreeMap<TrackId, proto::UpdateTrackSettings>,
    /// Sequence number of its last reliable data packet that was taken.
    pub(super) last_reliable_seq: u32,
    /// It was told that its clear-text data is refused.
    pub(super) warned_plain_data: bool,
    /// When it is removed unless something changes, and why.
    pub(super) deadline: Option<(Instant, &'static str)>,
}

impl Participant {
    /// As its token describes it.
    pub(super) fn new(
        sid: String,
        claims: &Claims,
        client: proto::ClientInfo,
        transports: Transports,
        now: Now,
    ) -> Self {
        Self {
            sid,
            identity: claims.identity.clone(),
            name: claims.name.clone(),
            metadata: claims.metadata.clone(),
            attributes: claims.attributes.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            kind: claims.kind as i32,
            kind_details: claims.kind_details.iter().map(|d| *d as i32).collect(),
            permissions: Permissions::granted(&claims.video),
            state: State::Joined,
            joined_unix_ms: now.unix_ms(),
            version: 0,
            client,
            protocol: 0,
            session: None,
            auto_subscribe: true,
            transports,
            tracks: Vec::new(),
            allowed: Allowed::default(),
            subs: BTreeMap::new(),
            wants: BTreeMap::new(),
            denied: BTreeSet::new(),
            settings: BTreeMap::new(),
            last_reliable_seq: 0,
            warned_plain_data: false,
            deadline: None,
        }
    }

    /// As clients see it, with these published tracks.
    pub(super) fn info(&self, tracks: Vec<proto::TrackInfo>) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            sid: self.sid.clone(),
            identity: self.identity.clone(),
            name: self.name.clone(),
            state: self.state as i32,
            is_publisher: !tracks.is_empty(),
            tracks,
            metadata: self.metadata.clone(),
            joined_at: (self.joined_unix_ms / 1000).cast_signed(),
            joined_at_ms: self.joined_unix_ms.cast_signed(),
            version: self.version,
            permission: Some(self.permissions.to_proto()),
            kind: self.kind,
            kind_details: self.kind_details.clone(),
            attributes: self.attributes.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            client_protocol: self.client.client_protocol,
            capabilities: self.client.capabilities.clone(),
            ..Default::default()
        }
    }

    /// Merges attributes; an empty value deletes.
    pub(super) fn set_attributes(&mut self, changes: &HashMap<String, String>) {
        for (name, value) in changes {
            if value.is_empty() {
                self.attributes.remove(name);
            } else {
                self.attributes.insert(name.clone(), value.clone());
            }
        }
    }

    /// Bytes of all attributes after a change.
    pub(super) fn attribute_bytes(&self, changes: &HashMap<String, String>) -> usize {
        let kept = self.attributes.iter().filter(|(k, _)| !changes.contains_key(*k));
        let new = changes.iter().filter(|(_, v)| !v.is_empty());
        kept.chain(new).map(|(k, v)| k.len() + v.len()).sum()
    }

    /// Firefox shows the tracks of one stream only by ids of its own making, so each track has a stream of its own there.
    pub(super) fn syncs_streams(&self) -> bool {
        self.protocol >= 10 && !self.client.browser.to_ascii_lowercase().contains("firefox")
    }
}
