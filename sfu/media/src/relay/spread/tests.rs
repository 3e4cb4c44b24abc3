use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::command::{ExtensionMap, IceCredentials, SendSection, SubscriptionTarget};
use crate::ids::{Mid, Ssrc};

const A: ShardId = ShardId(0);
const B: ShardId = ShardId(1);
const POLICY: TrackPolicy = TrackPolicy { require_encryption: true, muted: false };

fn open(peer: u64) -> ShardCommand {
    let ice = IceCredentials { ufrag: format!("u{peer}"), pwd: "p".into() };
    ShardCommand::OpenPeer { peer: PeerId(peer), ice, data_channels: Vec::new() }
}

fn publish(peer: u64, track: u64) -> ShardCommand {
    let mid = Mid::new(&track.to_string()).unwrap();
    ShardCommand::Publish { peer: PeerId(peer), mid, track: TrackId(track), policy: POLICY }
}

fn subscribe(sub: u64, track: u64, peer: u64) -> ShardCommand {
    let section = SendSection {
        mid: Mid::new("s").unwrap(),
        kind: MediaKind::Audio,
        ssrc: Ssrc(sub as u32),
        rtx_ssrc: None,
        codecs: Vec::new(),
        extensions: ExtensionMap::default(),
        cname: Arc::from("c"),
    };
    let target = SubscriptionTarget::default();
    ShardCommand::Subscribe { sub: SubId(sub), track: TrackId(track), peer: PeerId(peer), section, target }
}

/// Odd peers live on A, even ones on B.
fn place(peer: PeerId) -> Option<ShardId> {
    Some(if peer.0.is_multiple_of(2) { B } else { A })
}

fn route(spread: &mut Spread, command: ShardCommand) -> Vec<(ShardId, ShardCommand)> {
    let mut given = Vec::new();
    spread.route(command, place, |shard, command| given.push((shard, command)));
    given
}

fn introduce(track: u64) -> ShardCommand {
    let kind = MediaKind::Audio;
    ShardCommand::PublishRelayed { track: TrackId(track), from: A, kind, policy: POLICY }
}

/// Peers 1 and 3 on A, 2 and 4 on B; 1 publishes track 10.
fn call() -> Spread {
    let mut spread = Spread::default();
    for peer in 1..=4 {
        let home = place(PeerId(peer)).unwrap();
        assert_eq!(route(&mut spread, open(peer)), [(home, open(peer))]);
    }
    assert_eq!(route(&mut spread, publish(1, 10)), [(A, publish(1, 10))]);
    spread
}

#[test]
fn a_track_is_handed_over_from_the_first_subscription_of_a_shard_to_its_last() {
    let mut spread = call();
    let track = TrackId(10);
    assert_eq!(route(&mut spread, subscribe(20, 10, 3)), [(A, subscribe(20, 10, 3))], "one shard");
    assert_eq!(
        route(&mut spread, subscribe(21, 10, 2)),
        [(B, introduce(10)), (B, subscribe(21, 10, 2)), (A, ShardCommand::StartRelay { track, to: B }),]
    );
    assert_eq!(route(&mut spread, subscribe(22, 10, 4)), [(B, subscribe(22, 10, 4))]);
    assert!(route(&mut spread, subscribe(22, 10, 4)).is_empty(), "the id is taken");

    let end = |sub| ShardCommand::Unsubscribe { sub: SubId(sub) };
    assert_eq!(route(&mut spread, end(21)), [(B, end(21))]);
    assert_eq!(
        route(&mut spread, end(22)),
        [(B, end(22)), (A, ShardCommand::StopRelay { track, to: B }), (B, ShardCommand::Unpublish { track }),]
    );
    // Whoever comes again finds it introduced again.
    assert_eq!(route(&mut spread, subscribe(23, 10, 4)).len(), 3);
}

#[test]
fn a_track_that_takes_the_place_of_another_ends_it_everywhere() {
    let mut spread = call();
    route(&mut spread, subscribe(21, 10, 2));
    let command = |track| ShardCommand::Publish {
        peer: PeerId(1),
        mid: Mid::new("10").unwrap(),
        track: TrackId(track),
        policy: POLICY,
    };
    assert_eq!(route(&mut spread, command(10)), [(A, command(10))], "the same again");
    let end = ShardCommand::Unpublish { track: TrackId(10) };
    assert_eq!(route(&mut spread, command(12)), [(A, command(12)), (B, end)]);
    assert!(spread.foreign.is_empty());
}

#[test]
fn what_changes_a_track_reaches_all_shards_that_have_it() {
    let mut spread = call();
    let track = TrackId(10);
    let limit = |max| ShardCommand::LimitSpeakers { track, group: SpeakerGroup(7), max };
    assert_eq!(route(&mut spread, limit(3)), [(A, limit(3))]);
    let given = route(&mut spread, subscribe(21, 10, 2));
    assert_eq!(given[..2], [(B, introduce(10)), (B, limit(3))], "what it missed");
    let mute = ShardCommand::SetTrackPolicy { track, policy: TrackPolicy { muted: true, ..POLICY } };
    for command in [mute, limit(8), ShardCommand::Unpublish { track }] {
        assert_eq!(route(&mut spread, command.clone()), [(A, command.clone()), (B, command)]);
    }
    assert!(route(&mut spread, ShardCommand::Unpublish { track }).is_empty(), "it is gone");
    assert!(route(&mut spread, subscribe(30, 10, 2)).is_empty());
}

#[test]
fn whoever_leaves_takes_tracks_and_subscriptions_along() {
    let mut spread = call();
    route(&mut spread, publish(2, 11));
    route(&mut spread, subscribe(21, 10, 2));
    route(&mut spread, subscribe(22, 11, 1));
    let close = ShardCommand::ClosePeer { peer: PeerId(2) };
    assert_eq!(
        route(&mut spread, close.clone()),
        [
            (B, close),
            (A, ShardCommand::Unpublish { track: TrackId(11) }),
            (A, ShardCommand::StopRelay { track: TrackId(10), to: B }),
            (B, ShardCommand::Unpublish { track: TrackId(10) }),
        ]
    );
    // The same when a transport ends by itself; its own shard knows.
    route(&mut spread, subscribe(23, 10, 4));
    let mut given = Vec::new();
    spread.peer_closed(PeerId(1), |shard, command| given.push((shard, command)));
    assert_eq!(given, [(B, ShardCommand::Unpublish { track: TrackId(10) })]);
    assert_eq!(spread.shard_of(PeerId(4)), Some(B));
    for peer in [3, 4] {
        route(&mut spread, ShardCommand::ClosePeer { peer: PeerId(peer) });
    }
    assert!(spread.peers.is_empty() && spread.tracks.is_empty());
    assert!(spread.foreign.is_empty() && spread.shards.is_empty());
}

#[test]
fn a_room_that_went_on_without_a_place_opens_nothing() {
    let mut spread = Spread::default();
    let mut given = 0;
    spread.route(open(1), |_| None, |_, _| given += 1);
    assert_eq!(given + route(&mut spread, publish(1, 10)).len(), 0);
}

/// What a shard would have after these commands.
#[derive(Debug, Default)]
struct Model {
    peers: BTreeSet<u64>,
    /// Tracks by publisher, or those of other shards.
    tracks: BTreeMap<u64, Option<u64>>,
    relayed: BTreeSet<(u64, ShardId)>,
    subs: BTreeMap<u64, (u64, u64)>,
}

impl Model {
    fn take(&mut self, command: &ShardCommand) {
        match command {
            ShardCommand::OpenPeer { peer, .. } => {
                self.peers.insert(peer.0);
            }
            ShardCommand::ClosePeer { peer } => {
                self.peers.remove(&peer.0);
                let gone: Vec<_> = self.tracks.extract_if(.., |_, by| *by == Some(peer.0)).collect();
                gone.iter().for_each(|(track, _)| self.end(*track));
                self.subs.retain(|_, (_, to)| *to != peer.0);
            }
            ShardCommand::Publish { peer, track, .. } => {
                self.tracks.insert(track.0, Some(peer.0));
            }
            ShardCommand::PublishRelayed { track, .. } => {
                assert!(self.tracks.insert(track.0, None).is_none(), "once");
            }
            ShardCommand::Unpublish { track } => {
                self.tracks.remove(&track.0);
                self.end(track.0);
            }
            ShardCommand::StartRelay { track, to } => {
                assert!(self.relayed.insert((track.0, *to)), "once");
            }
            ShardCommand::StopRelay { track, to } => {
                assert!(self.relayed.remove(&(track.0, *to)), "what was begun");
            }
            ShardCommand::Subscribe { sub, track, peer, .. } => {
                assert!(self.tracks.contains_key(&track.0) && self.peers.contains(&peer.0));
                self.subs.insert(sub.0, (track.0, peer.0));
            }
            ShardCommand::Unsubscribe { sub } => {
                self.subs.remove(&sub.0);
            }
            _ => {}
        }
    }

    fn end(&mut self, track: u64) {
        self.subs.retain(|_, (of, _)| *of != track);
        self.relayed.retain(|(of, _)| *of != track);
    }
}

proptest! {
    /// Whatever a room does, shards have the same subscriptions as one shard would, and hand each other just the tracks
    /// that these need.
    #[test]
    fn shards_have_together_what_one_would(steps in prop::collection::vec((0u8..6, 1u64..6, 1u64..6, 1u64..20), 1..120)) {
        let place = |peer: PeerId| Some(ShardId((peer.0 % 3) as u16));
        let mut spread = Spread::default();
        let (mut shards, mut one) = ([Model::default(), Model::default(), Model::default()], Model::default());
        let mut published = BTreeSet::new();
        for (kind, peer, other, id) in steps {
            let is_there = one.peers.contains(&peer);
            // Ids are never used again: a track is named after its publisher and a number, a subscription after both ends.
            let track = other * 100 + id;
            let command = match kind {
                0 if !is_there && !published.iter().any(|track| track / 100 == peer) => open(peer),
                1 if is_there && published.insert(peer * 100 + id) => publish(peer, peer * 100 + id),
                2 if is_there && one.tracks.contains_key(&track) => subscribe(track * 10 + peer, track, peer),
                3 => ShardCommand::Unsubscribe { sub: SubId(track * 10 + peer) },
                4 => ShardCommand::Unpublish { track: TrackId(track) },
                5 if id < 4 => ShardCommand::ClosePeer { peer: PeerId(peer) },
                _ => continue,
            };
            one.take(&command);
            spread.route(command, place, |shard, command| shards[usize::from(shard.0)].take(&command));

            let all: BTreeMap<_, _> = shards.iter().flat_map(|shard| shard.subs.clone()).collect();
            prop_assert_eq!(&all, &one.subs);
            for (at, shard) in shards.iter().enumerate() {
                let at = ShardId(at as u16);
                let relayed: BTreeSet<u64> = shard.tracks.iter().filter(|(_, by)| by.is_none()).map(|(t, _)| *t).collect();
                let needed = shard.subs.values().map(|(track, _)| *track);
                let needed: BTreeSet<u64> = needed.filter(|t| place(PeerId(t / 100)) != Some(at)).collect();
                prop_assert_eq!(&relayed, &needed);
                let handed = shards.iter().flat_map(|home| &home.relayed).filter(|(_, to)| *to == at);
                prop_assert_eq!(handed.map(|(t, _)| *t).collect::<BTreeSet<u64>>(), needed);
            }
        }
    }
}
