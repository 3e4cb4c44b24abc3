//! Calls over clean and rough networks: every receiver gets every frame, byte for byte.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_complete_video, assert_full_call, full_call, millis, secs};
use sfu_media::command::ShardEvent;
use sfu_media::drop_reason::DropReason;
use sfu_media::sim::net::Link;
use sfu_media::sim::world::{Publish, World};

#[test]
fn two_peers_on_a_clean_network() {
    let mut world = World::new(1);
    let tracks = full_call(&mut world, 2);
    world.run(secs(5));
    assert_full_call(&world, &tracks, 0.98, 4);
    assert_eq!(world.events_like(|e| matches!(e, ShardEvent::PeerConnected { .. })), 2);
    assert_eq!(world.events_like(|e| matches!(e, ShardEvent::LayerLive { .. })), 4);
    let stats = world.stats();
    assert_eq!((stats.nack_in, stats.nack_out, stats.rtx_in, stats.rtx_out), (0, 0, 0, 0));
    assert_eq!(stats.drops.iter().sum::<u64>(), 0, "{stats:?}");
    assert_eq!(stats.rtp_in, stats.rtp_out, "one receiver for each");
}

#[test]
fn three_peers_on_a_clean_network() {
    let mut world = World::new(2);
    let tracks = full_call(&mut world, 3);
    world.run(secs(4));
    assert_full_call(&world, &tracks, 0.98, 4);
    assert_eq!(world.stats().rtp_out, 2 * world.stats().rtp_in);
    assert_eq!(world.stats().drops.iter().sum::<u64>(), 0);
}

#[test]
fn ten_peers_on_a_clean_network() {
    let mut world = World::new(3);
    let tracks = full_call(&mut world, 10);
    world.run(secs(2));
    assert_full_call(&world, &tracks, 0.95, 4);
    let (sent, due) = (world.stats().rtp_out, 9 * world.stats().rtp_in);
    assert!(sent <= due && due - sent < 200, "but for what waits its turn: {sent} of {due}");
    assert_eq!(world.stats().drops.iter().sum::<u64>(), 0);
}

#[test]
fn three_peers_on_a_rough_network() {
    for seed in [4, 5, 6] {
        let mut world = World::new(seed);
        let tracks = full_call(&mut world, 3);
        for bot in 0..3 {
            world.set_links(bot, Link::rough(), Link::rough());
        }
        world.run(secs(10));
        // What is under way may still need repair.
        assert_full_call(&world, &tracks, 0.85, 30);
        let stats = world.stats();
        assert!(stats.nack_out > 100 && stats.rtx_in > 100, "{stats:?}");
        assert!(stats.nack_in > 100 && stats.rtx_out > 100, "{stats:?}");
        assert!(stats.dropped(DropReason::SrtpReplay) > 10, "the network repeated some: {stats:?}");
    }
}

#[test]
fn loss_on_one_receiver_does_not_touch_the_others() {
    let mut world = World::new(7);
    let tracks = full_call(&mut world, 3);
    let rough = Link { loss: 0.1, ..Link::rough() };
    world.set_links(2, Link::clean(), rough);
    world.run(secs(6));
    for (track, subs) in &tracks {
        for sub in subs.iter().filter(|sub| sub.bot != 2) {
            let sink = common::sink(&world, sub);
            assert_eq!((sink.nacked, sink.repaired, sink.broken), (0, 0, 0), "{track:?}");
        }
    }
    assert!(world.bots[2].sinks().any(|sink| sink.repaired > 20));
    assert_eq!(world.stats().nack_out, 0, "the publishers lost nothing");
}

#[test]
fn a_call_crosses_the_wrap_of_sequence_numbers() {
    let mut world = World::new(8);
    world.connect(2);
    // 65,530 at the publisher, and 45 s at 90 packets a second from any start below 2^15 ... the receiver's own wrap is
    // reached by a fast source: 5,000 frames of 16 packets.
    let publish = Publish { first_seq: 65_530, layers: &[17_000], interval: millis(10), ..Publish::video() };
    let track = world.announce(0, publish);
    let sub = world.subscribe(&track, 1);
    world.start_track(&track);
    world.set_links(0, Link { loss: 0.01, ..Link::clean() }, Link::clean());
    world.set_links(1, Link::clean(), Link { loss: 0.01, ..Link::clean() });
    world.run(secs(45));
    let sink = common::sink(&world, &sub);
    let (first, last) = (u64::from(sink.first_seq.unwrap()), sink.frames.last().unwrap().last_seq);
    assert!(first < 0x8000, "starts below 2^15");
    assert!(last - 0x10_0000 > 0x1_0000, "the outgoing numbers wrapped: {first} to {last:#x}");
    assert_complete_video(&world, &track, &sub, 0, 60);
}

#[test]
fn packets_of_a_frame_leave_in_one_run() {
    // Encrypted frames are held until they end; others go together as far as they are received together.
    for encrypted in [true, false] {
        let mut world = World::new(9);
        world.connect(3);
        // Eight packets to a frame.
        let layers = &[8 * 1100];
        let publish = Publish { layers, encrypted, require_encryption: encrypted, ..Publish::video() };
        let track = world.announce(0, publish);
        let subs = [world.subscribe(&track, 1), world.subscribe(&track, 2)];
        world.start_track(&track);
        world.run(secs(1));
        world.runs = (0, 0);
        world.run(secs(2));
        for sub in &subs {
            assert_complete_video(&world, &track, sub, 0, 4);
        }
        let (runs, datagrams) = world.runs;
        assert!(datagrams > 900, "{datagrams}");
        assert!(datagrams >= 4 * runs, "{datagrams} datagrams in {runs} runs, encrypted: {encrypted}");
    }
}
