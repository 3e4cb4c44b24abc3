//! Which room owns a peer or a track, so that what shards report finds its room.

use std::collections::HashSet;
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
    tracks: HashSet<TrackId>,
}

impl Owned {
    pub(super) fn new(directory: Arc<Directory>, room: RoomHandle) -> Self {
        Self { directory, room, peers: HashSet::new(), tracks: HashSet::new() }
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
            ShardCommand::Publish { track, .. } => {
                self.tracks.insert(*track);
                self.directory.tracks.insert(*track, self.room.clone());
            }
            ShardCommand::Unpublish { track } => {
                self.tracks.remove(track);
                self.directory.tracks.remove(track);
            }
            _ => {}
        }
    }

    /// Takes all entries out.
    pub(super) fn release(&mut self) {
        for peer in self.peers.drain() {
            self.directory.peers.remove(&peer);
        }
        for track in self.tracks.drain() {
            self.directory.tracks.remove(&track);
        }
    }
}
