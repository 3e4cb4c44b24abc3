//! Which room owns a peer or a track, so that what shards report finds its room.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dashmap::DashMap;
use sfu_media::command::ShardCommand;
use sfu_media::ids::{PeerId, TrackId};

use super::actor::RoomHandle;

/// Rooms by peer and by track.
#[derive(Debug, Default)]
pub(super) struct Directory {
    peers: DashMap<PeerId, RoomHandle>,
    tracks: DashMap<TrackId, RoomHandle>,
}

impl Directory {
    pub(super) fn of_peer(&self, peer: PeerId) -> Option<RoomHandle> {
        self.peers.get(&peer).map(|room| room.value().clone())
    }

    pub(super) fn of_track(&self, track: TrackId) -> Option<RoomHandle> {
        self.tracks.get(&track).map(|room| room.value().clone())
    }
}

/// One room's entries; it alone adds and removes them.
#[derive(Debug)]
pub(super) struct Owned {
    directory: Arc<Directory>,
    room: RoomHandle,
    peers: HashSet<PeerId>,
    /// Tracks with the peer that publishes them.
    tracks: HashMap<TrackId, PeerId>,
}

impl Owned {
    pub(super) fn new(directory: Arc<Directory>, room: RoomHandle) -> Self {
        Self { directory, room, peers: HashSet::new(), tracks: HashMap::new() }
    }

    /// Keeps the entries in step with a command that the room gives.
    pub(super) fn note(&mut self, command: &ShardCommand) {
        match command {
            ShardCommand::OpenPeer { peer, .. } => {
                self.peers.insert(*peer);
                self.directory.peers.insert(*peer, self.room.clone());
            }
            ShardCommand::ClosePeer { peer } => {
                self.peers.remove(peer);
                self.directory.peers.remove(peer);
            }
            ShardCommand::Publish { peer, track, .. } => {
                self.tracks.insert(*track, *peer);
                self.directory.tracks.insert(*track, self.room.clone());
            }
            ShardCommand::Unpublish { track } => {
                self.tracks.remove(track);
                self.directory.tracks.remove(track);
            }
            _ => {}
        }
    }

    /// A transport ended by itself: the room gives no command for it and its tracks any more.
    pub(super) fn peer_closed(&mut self, peer: PeerId) {
        if self.peers.remove(&peer) {
            self.directory.peers.remove(&peer);
        }
        for (track, _) in self.tracks.extract_if(|_, publisher| *publisher == peer) {
            self.directory.tracks.remove(&track);
        }
    }

    /// Takes all entries out.
    pub(super) fn release(&mut self) {
        for peer in self.peers.drain() {
            self.directory.peers.remove(&peer);
        }
        for (track, _) in self.tracks.drain() {
            self.directory.tracks.remove(&track);
        }
    }
}

#[cfg(test)]
mod tests {
    use sfu_media::command::{IceCredentials, TrackPolicy};
    use sfu_media::ids::Mid;

    use super::*;

    #[test]
    fn a_transport_that_ended_by_itself_leaves_nothing() {
        let directory = Arc::new(Directory::default());
        let mut owned = Owned::new(Arc::clone(&directory), RoomHandle::detached());
        let ice = IceCredentials { ufrag: "u".into(), pwd: "p".into() };
        for peer in [PeerId(1), PeerId(2)] {
            owned.note(&ShardCommand::OpenPeer { peer, ice: ice.clone(), data_channels: Vec::new() });
            owned.note(&ShardCommand::Publish {
                peer,
                mid: Mid::new("0").unwrap(),
                track: TrackId(peer.0),
                policy: TrackPolicy { require_encryption: true, muted: false },
            });
        }
        owned.peer_closed(PeerId(1));
        assert!(directory.of_peer(PeerId(1)).is_none() && directory.of_track(TrackId(1)).is_none());
        assert!(directory.of_peer(PeerId(2)).is_some() && directory.of_track(TrackId(2)).is_some());
        owned.note(&ShardCommand::Unpublish { track: TrackId(2) });
        owned.note(&ShardCommand::ClosePeer { peer: PeerId(2) });
        assert!(directory.peers.is_empty() && directory.tracks.is_empty());
        assert!(owned.peers.is_empty() && owned.tracks.is_empty());
    }
}
