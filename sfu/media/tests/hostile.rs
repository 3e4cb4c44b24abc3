//! Bad input beside a running call: each datagram is dropped and counted, and the call goes on unharmed.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;

use common::{assert_full_call, full_call, millis, secs};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sfu_media::command::{CloseReason, ShardCommand, ShardEvent};
use sfu_media::drop_reason::DropReason;
use sfu_media::sim::bot::Bot;
use sfu_media::sim::net::Link;
use sfu_media::sim::world::World;
use sfu_media::transport::TransportTimeouts;

fn stranger() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 66], 6666))
}

#[test]
fn replayed_media_is_dropped() {
    let mut world = World::new(1);
    let tracks = full_call(&mut world, 2);
    world.run(secs(2));
    let before = world.stats().clone();
    let addr = world.bots[0].addr();
    let log: Vec<_> = world.bots[0].sent_log.iter().rev().take(100).cloned().collect();
    // Those of the last 20 ms are still under way and not replays yet.
    world.run(millis(40));
    let out = world.stats().rtp_out;
    for packet in &log {
        world.inject(addr, packet);
    }
    assert_eq!(world.stats().rtp_out, out);
    assert_eq!(world.stats().dropped(DropReason::SrtpReplay) - before.dropped(DropReason::SrtpReplay), 100);
    world.run(secs(2));
    assert_full_call(&world, &tracks, 0.98, 4);
}

#[test]
fn media_from_an_address_that_never_passed_a_check_is_dropped() {
    let mut world = World::new(2);
    let tracks = full_call(&mut world, 2);
    world.run(secs(1));
    let before = world.stats().clone();
    // Good packets of a participant, never seen by the relay, from elsewhere.
    let addr = world.bots[0].addr();
    world.set_links(0, Link::cut(), Link::clean());
    world.run(millis(500));
    let log: Vec<_> = world.bots[0].sent_log.iter().rev().take(20).cloned().collect();
    for packet in &log {
        world.inject(stranger(), packet);
    }
    world.inject(stranger(), &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    world.inject(stranger(), &[0x80, 200, 0, 6, 0, 0, 0, 1, 9, 9, 9, 9]);
    let stats = world.stats();
    assert_eq!(stats.dropped(DropReason::UnknownSource) - before.dropped(DropReason::UnknownSource), 22);
    assert!(!world.rtp_out.keys().any(|(to, _)| *to == stranger()));
    // From the right address the same packets are good.
    let accepted = stats.rtp_in;
    for packet in log.iter().rev() {
        world.inject(addr, packet);
    }
    assert!(world.stats().rtp_in > accepted + 10);
    drop(tracks);
}

#[test]
fn garbage_of_every_protocol_does_not_disturb_a_call() {
    let mut world = World::new(3);
    let tracks = full_call(&mut world, 3);
    world.run(secs(1));
    let before = world.stats().clone();
    let mut rng = SmallRng::seed_from_u64(3);
    let mut injected = 0;
    for round in 0..100 {
        for first in
            [0u8, 1, 3, 16, 20, 22, 23, 25, 63, 64, 79, 100, 127, 128, 129, 144, 160, 176, 191, 192, 255]
        {
            let mut datagram = vec![0u8; rng.random_range(1..1500)];
            rng.fill(&mut datagram[..]);
            datagram[0] = first;
            let from = if round % 2 == 0 { stranger() } else { world.bots[round % 3].addr() };
            world.inject(from, &datagram);
            injected += 1;
        }
        world.inject(stranger(), &[]);
        injected += 1;
        world.run(millis(20));
    }
    world.run(secs(1));
    assert_full_call(&world, &tracks, 0.98, 4);
    assert_eq!(world.events_like(|e| matches!(e, ShardEvent::PeerClosed { .. })), 0);
    let dropped: u64 = world.stats().drops.iter().zip(&before.drops).map(|(a, b)| a - b).sum();
    assert_eq!(dropped, injected, "each is counted");
}

#[test]
fn authentic_garbage_of_a_participant_does_not_disturb_the_others() {
    let mut world = World::new(4);
    let tracks = full_call(&mut world, 3);
    // The third is the hostile one: what it sends authenticates.
    world.run(secs(1));
    let mut rng = SmallRng::seed_from_u64(4);
    for _ in 0..200 {
        let mut rtp = vec![0u8; rng.random_range(12..1200)];
        rng.fill(&mut rtp[..]);
        rtp[0] = [0x80, 0x90, 0xa0, 0xb0, 0x8f, 0x9f][rng.random_range(0..6)];
        rtp[1] = [96, 97, 111, 96 | 0x80, 3][rng.random_range(0..5)];
        let mut rtcp = vec![0u8; rng.random_range(2..60) * 4];
        rng.fill(&mut rtcp[..]);
        rtcp[0] = 0x80 | rng.random_range(0..32u8);
        rtcp[1] = rng.random_range(192..=223);
        let mut sctp = vec![0u8; rng.random_range(1..600)];
        rng.fill(&mut sctp[..]);
        let now = world.now();
        world.bots[2].send_rtp(&rtp);
        world.bots[2].send_rtcp(&rtcp);
        world.bots[2].send_sctp(&sctp, now);
        world.run(millis(10));
    }
    world.run(secs(2));
    // What the first two exchange is whole; the third's own tracks are none of the relay's care.
    let others: Vec<_> = tracks
        .into_iter()
        .filter(|(track, _)| track.bot != 2)
        .map(|(track, subs)| (track, subs.into_iter().filter(|sub| sub.bot != 2).collect()))
        .collect();
    assert_full_call(&world, &others, 0.98, 4);
    let stats = world.stats();
    for reason in [DropReason::UnknownSsrc, DropReason::RtcpMalformed, DropReason::SctpMalformed] {
        assert!(stats.dropped(reason) > 20, "{reason:?}: {stats:?}");
    }
}

#[test]
fn a_participant_cannot_take_anothers_address() {
    let mut world = World::new(5);
    let tracks = full_call(&mut world, 2);
    world.run(secs(1));
    // Its own password, its victim's address.
    let victim = world.bots[0].addr();
    let now = world.now();
    let mut forger = Bot::new(victim, 99, false, now);
    let peer = sfu_media::ids::PeerId(99);
    let ice = sfu_media::command::IceCredentials { ufrag: "forger00".into(), pwd: "p".repeat(24) };
    world.command(ShardCommand::OpenPeer { peer, ice: ice.clone(), data_channels: Vec::new() });
    world.command(ShardCommand::SetRemote { peer, remote: forger.description() });
    forger.connect(ice, world.certificate().fingerprint(), now);
    for _ in 0..50 {
        let now = world.now();
        forger.handle_timeout(now);
        for datagram in forger.take_datagrams() {
            world.inject(victim, &datagram);
        }
        world.run(millis(100));
    }
    assert_full_call(&world, &tracks, 0.98, 4);
    assert!(world.stats().dropped(DropReason::StunUnknownUser) > 10);
}

#[test]
fn a_silent_participants_address_is_not_taken_while_its_consent_lasts() {
    let mut world = World::new(11);
    let tracks = full_call(&mut world, 2);
    world.run(secs(1));
    let victim = world.bots[0].addr();
    let mut forger = Bot::new(victim, 99, false, world.now());
    let peer = sfu_media::ids::PeerId(99);
    let ice = sfu_media::command::IceCredentials { ufrag: "forger00".into(), pwd: "p".repeat(24) };
    world.command(ShardCommand::OpenPeer { peer, ice: ice.clone(), data_channels: Vec::new() });
    world.command(ShardCommand::SetRemote { peer, remote: forger.description() });
    forger.connect(ice, world.certificate().fingerprint(), world.now());
    // A tunnel: nothing of the victim gets through, and nothing to it.
    world.set_links(0, Link::cut(), Link::cut());
    for _ in 0..200 {
        let now = world.now();
        forger.handle_timeout(now);
        for datagram in forger.take_datagrams() {
            world.inject(victim, &datagram);
        }
        world.run(millis(100));
    }
    assert!(world.stats().dropped(DropReason::StunUnknownUser) > 100, "no check of the forger was answered");
    world.set_links(0, Link::clean(), Link::clean());
    let frames = |world: &World| -> Vec<_> {
        tracks.iter().flat_map(|(_, subs)| subs).map(|sub| common::sink(world, sub).packets).collect()
    };
    world.run(millis(500));
    let before = frames(&world);
    world.run(secs(2));
    assert!(frames(&world).iter().zip(&before).all(|(after, before)| after > before), "the call goes on");
}

#[test]
fn peers_that_vanish_are_closed_by_consent() {
    let mut world = World::new(6);
    let tracks = full_call(&mut world, 3);
    world.run(secs(1));
    world.bots[2].vanish();
    let gone = world.now();
    world.run(secs(29));
    let closed = |world: &World| -> Vec<_> {
        let close = |(at, e): &(_, ShardEvent)| match e {
            ShardEvent::PeerClosed { peer, reason } => Some((*at, *peer, *reason)),
            _ => None,
        };
        world.events.iter().filter_map(close).collect()
    };
    // The last check may have been 2.5 s before.
    world.run(secs(3));
    let events = closed(&world);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].1, events[0].2), (world.peer(2), CloseReason::ConsentExpired));
    assert!(events[0].0 >= gone + secs(27) && events[0].0 <= gone + secs(31));
    // No packet for it, and the others go on.
    let subs: Vec<_> = tracks.iter().flat_map(|(_, subs)| subs).filter(|sub| sub.bot == 2).copied().collect();
    let sent: Vec<_> = subs.iter().map(|sub| world.sent_on(sub)).collect();
    world.run(secs(1));
    assert_eq!(subs.iter().map(|sub| world.sent_on(sub)).collect::<Vec<_>>(), sent);
    let others: Vec<_> = tracks
        .into_iter()
        .filter(|(track, _)| track.bot != 2)
        .map(|(track, subs)| (track, subs.into_iter().filter(|sub| sub.bot != 2).collect()))
        .collect();
    assert_full_call(&world, &others, 0.98, 4);
}

#[test]
fn a_hang_up_closes_at_once() {
    let mut world = World::new(7);
    full_call(&mut world, 2);
    world.run(secs(1));
    let now = world.now();
    world.bots[1].hang_up(now);
    world.run(millis(100));
    let (peer, reason) = (world.peer(1), CloseReason::RemoteClosed);
    let want = ShardEvent::PeerClosed { peer, reason };
    assert_eq!(world.events_like(|e| *e == want), 1);
}

#[test]
fn a_peer_that_never_comes_is_closed() {
    let connect = secs(5);
    let mut world = World::with_timeouts(8, TransportTimeouts { connect, ..TransportTimeouts::default() });
    world.add_bot(Link::cut(), Link::cut());
    world.run(secs(6));
    let (peer, reason) = (world.peer(0), CloseReason::NeverConnected);
    assert_eq!(world.events_like(|e| *e == ShardEvent::PeerClosed { peer, reason }), 1);
}

#[test]
fn a_peer_that_moves_to_another_address_goes_on() {
    let mut world = World::new(9);
    let tracks = full_call(&mut world, 2);
    world.run(secs(1));
    let now = world.now();
    let moved = SocketAddr::from(([203, 0, 113, 200], 4000));
    world.bots[1].set_addr(moved, now);
    world.run(secs(4));
    assert_full_call(&world, &tracks, 0.9, 4);
    assert!(world.rtp_out.keys().any(|(to, _)| *to == moved));
}

#[test]
fn an_ice_restart_does_not_interrupt() {
    let mut world = World::new(10);
    let tracks = full_call(&mut world, 2);
    world.run(secs(1));
    world.restart_ice(0);
    world.run(secs(5));
    assert_full_call(&world, &tracks, 0.98, 4);
    let checks = world.bots[0].stats().checks;
    world.run(secs(6));
    assert!(world.bots[0].stats().checks > checks, "checks with the new credentials are answered");
}
