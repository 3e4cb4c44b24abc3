//! A room on several shards: which of them gets which of its commands.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::command::{MediaKind, ShardCommand, TrackPolicy};
use crate::ids::{Mid, PeerId, ShardId, SpeakerGroup, SubId, TrackId};

/// What a room has on which shard. Its room logic gives commands as if there were one shard; they come out as those of
/// each, with what the shards need to hand each other tracks. A track is handed to another shard while that has a
/// subscription to it.
#[derive(Debug, Default)]
pub struct Spread {
    peers: HashMap<PeerId, Peer>,
    tracks: HashMap<TrackId, Track>,
    /// Subscriptions to tracks of other shards.
    foreign: HashMap<SubId, Foreign>,
    /// Shards that have peers of the room, and how many.
    shards: BTreeMap<ShardId, usize>,
}

#[derive(Debug)]
struct Peer {
    shard: ShardId,
    tracks: Vec<TrackId>,
    foreign: BTreeSet<SubId>,
}

#[derive(Debug)]
struct Track {
    home: ShardId,
    publisher: PeerId,
    mid: Mid,
    policy: TrackPolicy,
    group: Option<(SpeakerGroup, u16)>,
    /// The other shards that it is handed to, and their subscriptions.
    relayed: BTreeMap<ShardId, BTreeSet<SubId>>,
}

#[derive(Debug, Clone, Copy)]
struct Foreign {
    track: TrackId,
    subscriber: PeerId,
    shard: ShardId,
}

impl Spread {
    /// Takes a command of the room, and gives those of shards, in this order. `place` says where a peer that opens is to
    /// live; a peer that it does not know does not open.
    pub fn route(
        &mut self,
        command: ShardCommand,
        place: impl FnOnce(PeerId) -> Option<ShardId>,
        mut give: impl FnMut(ShardId, ShardCommand),
    ) {
        match &command {
            ShardCommand::OpenPeer { peer, .. } => {
                let Some(shard) = place(*peer) else { return };
                if self.peers.contains_key(peer) {
                    return;
                }
                self.peers.insert(*peer, Peer { shard, tracks: Vec::new(), foreign: BTreeSet::new() });
                *self.shards.entry(shard).or_default() += 1;
                give(shard, command);
            }
            ShardCommand::SetRemote { peer, .. }
            | ShardCommand::RestartIce { peer, .. }
            | ShardCommand::SetReceive { peer, .. }
            | ShardCommand::SendData { peer, .. } => {
                if let Some(shard) = self.shard_of(*peer) {
                    give(shard, command);
                }
            }
            ShardCommand::ClosePeer { peer } => {
                let peer = *peer;
                if let Some(shard) = self.shard_of(peer) {
                    give(shard, command);
                    self.peer_closed(peer, give);
                }
            }
            ShardCommand::Publish { .. } => self.publish(command, give),
            ShardCommand::SetTrackPolicy { track, policy } => {
                let Some(track) = self.tracks.get_mut(track) else { return };
                track.policy = *policy;
                track.shards().for_each(|shard| give(shard, command.clone()));
            }
            ShardCommand::LimitSpeakers { track, group, max } => {
                let Some(track) = self.tracks.get_mut(track) else { return };
                track.group = Some((*group, *max));
                track.shards().for_each(|shard| give(shard, command.clone()));
            }
            ShardCommand::Unpublish { track } => {
                let Some(gone) = self.forget_track(*track) else { return };
                gone.shards().for_each(|shard| give(shard, command.clone()));
                if let Some(publisher) = self.peers.get_mut(&gone.publisher) {
                    publisher.tracks.retain(|have| have != track);
                }
            }
            ShardCommand::Subscribe { .. } => self.subscribe(command, give),
            ShardCommand::SetTarget { sub, .. } => match self.foreign.get(sub) {
                Some(foreign) => give(foreign.shard, command),
                None => self.give_all(&command, give),
            },
            ShardCommand::Unsubscribe { sub } => match self.foreign.get(sub).copied() {
                Some(foreign) => {
                    give(foreign.shard, command.clone());
                    self.release(*sub, foreign, give);
                }
                None => self.give_all(&command, give),
            },
            // What only this gives.
            ShardCommand::StartRelay { .. }
            | ShardCommand::StopRelay { .. }
            | ShardCommand::PublishRelayed { .. } => {}
        }
    }

    /// A peer is gone from its shard, with its tracks and subscriptions: the other shards have to know.
    pub fn peer_closed(&mut self, peer: PeerId, mut give: impl FnMut(ShardId, ShardCommand)) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        if let Some(peers) = self.shards.get_mut(&gone.shard) {
            *peers -= 1;
            if *peers == 0 {
                self.shards.remove(&gone.shard);
            }
        }
        for id in gone.tracks {
            let Some(track) = self.forget_track(id) else { continue };
            for shard in track.relayed.keys() {
                give(*shard, ShardCommand::Unpublish { track: id });
            }
        }
        for sub in gone.foreign {
            if let Some(foreign) = self.foreign.get(&sub).copied() {
                self.release(sub, foreign, &mut give);
            }
        }
    }

    /// Where a peer lives.
    pub fn shard_of(&self, peer: PeerId) -> Option<ShardId> {
        self.peers.get(&peer).map(|peer| peer.shard)
    }

    fn publish(&mut self, command: ShardCommand, mut give: impl FnMut(ShardId, ShardCommand)) {
        let ShardCommand::Publish { peer, mid, track: id, policy } = &command else { return };
        let (id, mid) = (*id, *mid);
        let Some(publisher) = self.peers.get_mut(peer) else { return };
        let home = publisher.shard;
        if let Some(track) = self.tracks.get_mut(&id) {
            // Its policy again.
            track.policy = *policy;
            return give(home, command);
        }
        let tracks = &self.tracks;
        let on_section = |track: &TrackId| tracks.get(track).is_some_and(|track| track.mid == mid);
        let before = publisher.tracks.iter().copied().find(on_section);
        publisher.tracks.retain(|track| Some(*track) != before);
        publisher.tracks.push(id);
        let track =
            Track { home, publisher: *peer, mid, policy: *policy, group: None, relayed: BTreeMap::new() };
        give(home, command);
        // Its shard ends by itself what was on the section before.
        let before = before.and_then(|before| Some((before, self.forget_track(before)?)));
        if let Some((before, track)) = before {
            track.relayed.keys().for_each(|shard| give(*shard, ShardCommand::Unpublish { track: before }));
        }
        self.tracks.insert(id, track);
    }

    fn subscribe(&mut self, command: ShardCommand, mut give: impl FnMut(ShardId, ShardCommand)) {
        let ShardCommand::Subscribe { sub, track: id, peer, section, .. } = &command else { return };
        let (sub, id, kind) = (*sub, *id, section.kind);
        let Some(subscriber) = self.peers.get_mut(peer) else { return };
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let (shard, home) = (subscriber.shard, track.home);
        if home == shard {
            return give(shard, command);
        }
        if self.foreign.contains_key(&sub) {
            return;
        }
        self.foreign.insert(sub, Foreign { track: id, subscriber: *peer, shard });
        subscriber.foreign.insert(sub);
        let subs = track.relayed.entry(shard).or_default();
        let first = subs.is_empty();
        subs.insert(sub);
        if first {
            track.introduce(id, shard, kind, &mut give);
        }
        give(shard, command);
        if first {
            // Last, so that the other shard knows the track when its packets come.
            give(home, ShardCommand::StartRelay { track: id, to: shard });
        }
    }

    /// About a subscription whose shard is its track's, which the command does not name; others do not know the id.
    fn give_all(&self, command: &ShardCommand, mut give: impl FnMut(ShardId, ShardCommand)) {
        self.shards.keys().for_each(|shard| give(*shard, command.clone()));
    }

    /// A track and all that is known of its subscriptions.
    fn forget_track(&mut self, id: TrackId) -> Option<Track> {
        let track = self.tracks.remove(&id)?;
        for sub in track.relayed.values().flatten() {
            let Some(foreign) = self.foreign.remove(sub) else { continue };
            if let Some(subscriber) = self.peers.get_mut(&foreign.subscriber) {
                subscriber.foreign.remove(sub);
            }
        }
        Some(track)
    }

    /// One subscription less to a track of another shard.
    fn release(&mut self, id: SubId, sub: Foreign, mut give: impl FnMut(ShardId, ShardCommand)) {
        self.foreign.remove(&id);
        if let Some(subscriber) = self.peers.get_mut(&sub.subscriber) {
            subscriber.foreign.remove(&id);
        }
        let Some(track) = self.tracks.get_mut(&sub.track) else { return };
        let Some(subs) = track.relayed.get_mut(&sub.shard) else { return };
        subs.remove(&id);
        if subs.is_empty() {
            track.relayed.remove(&sub.shard);
            give(track.home, ShardCommand::StopRelay { track: sub.track, to: sub.shard });
            give(sub.shard, ShardCommand::Unpublish { track: sub.track });
        }
    }
}

impl Track {
    /// The home first: what a mute stops there does not come to the others any more.
    fn shards(&self) -> impl Iterator<Item = ShardId> {
        std::iter::once(self.home).chain(self.relayed.keys().copied())
    }

    /// Makes the track known to another shard.
    fn introduce(
        &self,
        id: TrackId,
        shard: ShardId,
        kind: MediaKind,
        give: &mut impl FnMut(ShardId, ShardCommand),
    ) {
        let (from, policy) = (self.home, self.policy);
        give(shard, ShardCommand::PublishRelayed { track: id, from, kind, policy });
        if let Some((group, max)) = self.group {
            give(shard, ShardCommand::LimitSpeakers { track: id, group, max });
        }
    }
}

#[cfg(test)]
mod tests;
