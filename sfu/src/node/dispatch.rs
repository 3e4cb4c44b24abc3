//! Brings what shards report to the rooms and to the metrics.

use std::time::Instant;

use sfu_media::command::{AudioLevel, PeerQuality, ShardEvent};
use tokio::sync::mpsc;

use super::actor::{RoomHandle, RoomMessage};
use super::{Node, WeakNode};
use crate::metrics;
use crate::shard_thread::TaggedEvent;

/// Runs until the node or its shards are gone.
pub(super) async fn run(node: WeakNode, mut events: mpsc::Receiver<TaggedEvent>) {
    while let Some((shard, event)) = events.recv().await {
        let Some(node) = node.upgrade() else { return };
        dispatch(&node, shard, event).await;
    }
}

async fn dispatch(node: &Node, shard: usize, event: ShardEvent) {
    let room = match &event {
        ShardEvent::PeerConnected { peer } => node.directory.of_peer(*peer),
        ShardEvent::PeerClosed { peer, reason } => {
            metrics::peer_closed(reason.label());
            node.directory.of_peer(*peer)
        }
        ShardEvent::Data { peer, .. } => {
            if let Some(room) = node.directory.of_peer(*peer)
                && !room.try_send(RoomMessage::Shard(event))
            {
                metrics::data_overflow();
            }
            return;
        }
        ShardEvent::LayerLive { track, .. } => node.directory.of_track(*track),
        ShardEvent::NotEncrypted { track } | ShardEvent::StreamPaused { track, .. } => {
            node.directory.of_track(*track)
        }
        ShardEvent::AudioLevels(levels) => {
            let by_room = split(levels, |l: &AudioLevel| node.directory.of_track(l.track));
            for (room, levels) in by_room {
                room.try_send(RoomMessage::Shard(ShardEvent::AudioLevels(levels)));
            }
            return;
        }
        ShardEvent::Quality(peers) => {
            metrics::quality(peers);
            let by_room = split(peers, |p: &PeerQuality| node.directory.of_peer(p.peer));
            for (room, peers) in by_room {
                room.try_send(RoomMessage::Shard(ShardEvent::Quality(peers)));
            }
            return;
        }
        ShardEvent::Stats(stats) => {
            let thread = &node.shards[shard];
            let cpu = thread.cpu_time();
            node.loads.measured(shard, cpu, Instant::now());
            metrics::shard(shard, stats, cpu, thread.overflow());
            return;
        }
    };
    if let Some(room) = room {
        // A room that is over needs no news.
        let _ = room.send(RoomMessage::Shard(event)).await;
    }
}

/// Groups a shard's list by room.
fn split<T: Copy>(entries: &[T], room_of: impl Fn(&T) -> Option<RoomHandle>) -> Vec<(RoomHandle, Vec<T>)> {
    let mut rooms: Vec<(RoomHandle, Vec<T>)> = Vec::new();
    for entry in entries {
        let Some(room) = room_of(entry) else { continue };
        match rooms.iter_mut().find(|(have, _)| have.is_same(&room)) {
            Some((_, list)) => list.push(*entry),
            None => rooms.push((room, vec![*entry])),
        }
    }
    rooms
}
