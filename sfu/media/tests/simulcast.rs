//! Simulcast: each subscriber gets the layer that its page asks for, switched at key frames.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_continuous, millis, secs, sink};
use sfu_media::command::{ShardCommand, ShardEvent, SubscriptionTarget};
use sfu_media::ids::Ssrc;
use sfu_media::sim::net::Link;
use sfu_media::sim::world::{Publish, Sub, Track, World};

fn up_to(max_spatial: u8) -> SubscriptionTarget {
    SubscriptionTarget { max_spatial, ..SubscriptionTarget::default() }
}

/// The runs of layers that a subscription got, with the number of frames of each; each but the first begins with a key
/// frame, and inside of each no frame is missing.
fn runs(world: &World, sub: &Sub) -> Vec<(u8, usize)> {
    let mut runs: Vec<(u8, usize)> = Vec::new();
    let mut before: Option<(u8, u32)> = None;
    for frame in &sink(world, sub).frames {
        let id = frame.id;
        match (runs.last_mut(), before) {
            (Some((layer, count)), Some((_, number))) if *layer == id.layer => {
                *count += 1;
                assert_eq!(id.number, number + 1, "{id:?}");
            }
            _ => {
                assert!(frame.key, "a switch at a key frame: {id:?}");
                runs.push((id.layer, 1));
            }
        }
        before = Some((id.layer, id.number));
    }
    runs
}

fn start(seed: u64, targets: &[SubscriptionTarget]) -> (World, Track, Vec<Sub>) {
    let mut world = World::new(seed);
    world.connect(targets.len() + 1);
    let track = world.announce(0, Publish::simulcast());
    let subs =
        targets.iter().enumerate().map(|(i, target)| world.subscribe_with(&track, i + 1, *target)).collect();
    world.start_track(&track);
    (world, track, subs)
}

#[test]
fn each_gets_the_layer_it_asks_for() {
    let (mut world, track, subs) = start(1, &[up_to(0), up_to(1), up_to(2), up_to(u8::MAX)]);
    world.run(secs(4));
    for (sub, want) in subs.iter().zip([0, 1, 2, 2]) {
        let runs = runs(&world, sub);
        let (layer, count) = *runs.last().unwrap();
        assert_eq!(layer, want, "{runs:?}");
        assert!(count > 90, "{runs:?}");
        let sink = sink(&world, sub);
        assert_eq!((sink.broken, sink.nacked, sink.abandoned), (0, 0, 0));
        assert_continuous(sink);
    }
    let mut live: Vec<_> = world
        .events
        .iter()
        .filter_map(|(_, e)| match e {
            ShardEvent::LayerLive { track: id, spatial, ssrc, .. } if *id == track.id => {
                Some((*spatial, *ssrc))
            }
            _ => None,
        })
        .collect();
    live.sort();
    let ssrc = |layer: u32| Ssrc(0x1000_0000 + track.source * 16 + layer * 2);
    assert_eq!(live, [(0, ssrc(0)), (1, ssrc(1)), (2, ssrc(2))]);
}

#[test]
fn a_changed_target_switches_at_a_key_frame() {
    let (mut world, _, subs) = start(2, &[up_to(2)]);
    let sub = subs[0];
    world.run(secs(2));
    for (target, want) in [(0, 0), (2, 2), (1, 1), (0, 0), (1, 1)] {
        world.command(ShardCommand::SetTarget { sub: sub.id, target: up_to(target) });
        world.run(secs(2));
        let runs = runs(&world, &sub);
        assert_eq!(runs.last().unwrap().0, want, "{runs:?}");
        assert!(runs.last().unwrap().1 > 40, "within half a second: {runs:?}");
    }
    let sink = sink(&world, &sub);
    assert_eq!((sink.broken, sink.nacked, sink.abandoned), (0, 0, 0), "no gap from the dropped layers");
    assert_continuous(sink);
}

#[test]
fn layers_switch_cleanly_on_a_rough_network() {
    for seed in [3, 4, 5] {
        let (mut world, _, subs) = start(seed, &[up_to(2), up_to(0)]);
        world.run(secs(1));
        for bot in 0..3 {
            world.set_links(bot, Link::rough(), Link::rough());
        }
        for target in [0, 1, 2, 0, 2] {
            world.command(ShardCommand::SetTarget { sub: subs[0].id, target: up_to(target) });
            world.run(secs(3));
            let runs = runs(&world, &subs[0]);
            assert_eq!(runs.last().unwrap().0, target, "{runs:?}");
        }
        for sub in &subs {
            let sink = sink(&world, sub);
            assert_eq!((sink.broken, sink.abandoned), (0, 0));
            assert_continuous(sink);
        }
        assert!(sink(&world, &subs[0]).repaired > 20);
        // The publisher's own repairs come on streams that only their repaired rids name.
        assert!(world.stats().rtx_in > 20);
    }
}

#[test]
fn a_layer_that_stops_is_replaced_by_one_below() {
    let (mut world, track, subs) = start(6, &[up_to(2)]);
    world.run(secs(2));
    assert_eq!(runs(&world, &subs[0]).last().unwrap().0, 2);
    // As when the encoder runs out of bandwidth.
    world.bots[0].set_layer(track.source, 2, false);
    world.run(secs(4));
    let after = runs(&world, &subs[0]);
    assert_eq!(after.last().unwrap().0, 1, "{after:?}");
    world.bots[0].set_layer(track.source, 2, true);
    world.run(secs(3));
    let after = runs(&world, &subs[0]);
    assert_eq!(after.last().unwrap().0, 2, "{after:?}");
    assert_continuous(sink(&world, &subs[0]));
}

#[test]
fn key_frame_requests_are_throttled_per_stream() {
    let (mut world, track, subs) = start(7, &[up_to(2), up_to(2), up_to(2), up_to(2)]);
    world.run(secs(2));
    let before = world.bots[0].source(track.source).plis.len();
    let (pli_in, pli_out) = (world.stats().pli_in, world.stats().pli_out);
    // Every subscriber asks every 20 ms for two seconds: 400 requests.
    for _ in 0..100 {
        for (i, sub) in subs.iter().enumerate() {
            world.bots[i + 1].send_pli(sub.ssrc);
        }
        world.run(millis(20));
    }
    world.run(millis(100));
    let plis = &world.bots[0].source(track.source).plis[before..];
    assert_eq!(world.stats().pli_in - pli_in, 400);
    assert!((4..=6).contains(&plis.len()), "{}", plis.len());
    assert_eq!(world.stats().pli_out - pli_out, plis.len() as u64);
    assert!(plis.windows(2).all(|w| w[1] - w[0] >= millis(499)));
}
