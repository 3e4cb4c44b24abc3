//! The second net against plaintext: in a room that demands encryption it never leaves the relay.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_complete_video, secs, sink};
use sfu_media::command::ShardEvent;
use sfu_media::drop_reason::DropReason;
use sfu_media::sim::world::{Publish, World};

fn not_encrypted(world: &World) -> usize {
    world.events_like(|e| matches!(e, ShardEvent::NotEncrypted { .. }))
}

#[test]
fn plaintext_is_never_forwarded_where_encryption_is_demanded() {
    for publish in [Publish::video(), Publish::audio()] {
        let mut world = World::new(1);
        world.connect(2);
        let track = world.announce(0, Publish { encrypted: false, ..publish });
        let sub = world.subscribe(&track, 1);
        world.start_track(&track);
        world.run(secs(3));
        assert!(world.bots[0].source(track.source).frames_sent(0) > 80);
        assert_eq!(world.sent_on(&sub), 0);
        assert!(sink(&world, &sub).frames.is_empty());
        let stats = world.stats();
        let dropped = stats.dropped(DropReason::NotEncrypted) + stats.dropped(DropReason::FrameUnfinished);
        assert!(dropped + 20 > world.bots[0].stats().sent, "every packet is counted: {stats:?}");
        assert_eq!(stats.rtp_out + stats.rtx_out, 0);
        assert_eq!(not_encrypted(&world), 1, "told once");
        assert_eq!(world.events_like(|e| matches!(e, ShardEvent::LayerLive { .. })), 0);
    }
}

#[test]
fn plaintext_passes_where_the_room_allows_it() {
    let mut world = World::new(2);
    world.connect(2);
    let publish = Publish { encrypted: false, require_encryption: false, ..Publish::video() };
    let track = world.announce(0, publish);
    let sub = world.subscribe(&track, 1);
    world.start_track(&track);
    world.run(secs(2));
    assert_complete_video(&world, &track, &sub, 0, 4);
    assert_eq!(not_encrypted(&world), 0);
}

#[test]
fn each_spell_of_plaintext_is_told_once_and_the_rest_flows() {
    let mut world = World::new(3);
    world.connect(2);
    let track = world.announce(0, Publish::audio());
    let sub = world.subscribe(&track, 1);
    let config = sfu_media::sim::world::source_config(&track);
    for spell in 0..3u32 {
        for encrypted in [true, false] {
            let now = world.now();
            // One source after the other on the same SSRC: numbers go on where the last one ended.
            let first_seq = 100 + (spell * 2 + u32::from(!encrypted)) as u16 * 200;
            let source = sfu_media::sim::bot::SourceConfig { encrypted, first_seq, ..config.clone() };
            world.bots[0].publish(source, now);
            world.run(secs(1));
        }
    }
    assert_eq!(not_encrypted(&world), 3);
    let sink = sink(&world, &sub);
    assert_eq!(sink.broken, 0);
    // Three seconds of six. After a plaintext spell the gate wants to see eight good frames before it trusts two bytes of
    // trailer, as these frames' IVs do not name their SSRC.
    let dropped = world.stats().dropped(DropReason::NotEncrypted);
    assert!((130..=153).contains(&sink.frames.len()), "{}", sink.frames.len());
    assert!((140..=153 + 16).contains(&dropped), "{dropped}");
}
