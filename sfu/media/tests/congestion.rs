//! What a subscriber gets follows what its path carries, and nobody else's does.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{assert_continuous, millis, secs, sink};
use sfu_media::command::{ShardCommand, ShardEvent, SubscriptionTarget, TrackPolicy};
use sfu_media::ids::Ssrc;
use sfu_media::rtcp;
use sfu_media::sim::bot::Encoding;
use sfu_media::sim::net::Link;
use sfu_media::sim::world::{Publish, RELAY, Sub, Track, World};

/// Some 115, 285 and 1,050 kbit/s on the wire.
fn camera() -> Publish {
    Publish { layers: &[400, 1100, 4000], ..Publish::video() }
}

fn narrow(bps: u64) -> Link {
    Link { rate: Some(bps), ..Link::clean() }
}

fn important(priority: u32) -> SubscriptionTarget {
    SubscriptionTarget { priority, ..SubscriptionTarget::default() }
}

/// A publisher, bot 0, and a subscriber for each link to it; all are connected and watched.
fn world(seed: u64, links: &[Link]) -> World {
    let mut world = World::new(seed);
    world.connect(links.len() + 1);
    for (i, link) in links.iter().enumerate() {
        set_down(&mut world, i + 1, *link);
        let addr = world.bots[i + 1].addr();
        world.net.watch(RELAY, addr);
    }
    world
}

fn set_down(world: &mut World, bot: usize, down: Link) {
    world.set_links(bot, Link::clean(), down);
}

/// Frames of each layer that a subscription got since an instant.
fn layers_since(world: &World, sub: &Sub, since: Instant) -> [usize; 3] {
    let mut counts = [0; 3];
    for frame in sink(world, sub).frames.iter().filter(|frame| frame.at >= since) {
        counts[usize::from(frame.id.layer)] += 1;
    }
    counts
}

/// The layer of the last frame.
fn layer(world: &World, sub: &Sub) -> Option<u8> {
    sink(world, sub).frames.last().map(|frame| frame.id.layer)
}

/// Longest time without a frame since an instant.
fn longest_freeze(world: &World, sub: &Sub, since: Instant) -> Duration {
    let frames = sink(world, sub).frames.iter().map(|frame| frame.at).filter(|at| *at >= since);
    let times: Vec<_> = frames.chain([world.now()]).collect();
    times.windows(2).map(|w| w[1] - w[0]).max().unwrap()
}

/// What the 95th percentile of waiting may come to.
const LONG: Duration = Duration::from_millis(150);

fn waited(world: &World, bot: usize, from: Instant) -> Duration {
    world.net.trace(RELAY, world.bots[bot].addr()).waited(0.95, from, world.now())
}

fn sent_bps(world: &World, bot: usize, from: Instant) -> f64 {
    world.net.trace(RELAY, world.bots[bot].addr()).bps(from, world.now())
}

/// The sum of the shard's estimates, second by second.
fn estimates(world: &World) -> Vec<u64> {
    let of = |event: &ShardEvent| match event {
        ShardEvent::Stats(stats) => Some(stats.estimate_bps),
        _ => None,
    };
    world.reports.iter().filter_map(|(_, event)| of(event)).collect()
}

fn pauses(world: &World, sub: &Sub) -> Vec<bool> {
    let of = |event: &ShardEvent| match event {
        ShardEvent::StreamPaused { sub: id, paused, .. } if *id == sub.id => Some(*paused),
        _ => None,
    };
    world.events.iter().filter_map(|(_, event)| of(event)).collect()
}

#[test]
fn a_good_link_gets_the_highest_layer_at_once() {
    let mut world = world(1, &[Link::clean()]);
    let track = world.publish(0, camera());
    world.run(secs(1));
    let start = world.now();
    let sub = world.subscribe(&track, 1);
    world.run(secs(3));
    let first = sink(&world, &sub).frames.first().unwrap().at - start;
    assert!(first < millis(300), "{first:?}");
    let high = sink(&world, &sub).frames.iter().find(|frame| frame.id.layer == 2).unwrap().at - start;
    assert!(high < millis(1500), "{high:?}");
    assert_eq!(layers_since(&world, &sub, start + secs(2))[..2], [0, 0]);
    assert_continuous(sink(&world, &sub));
    assert!(world.stats().probes > 0 && world.stats().padding_bytes > 0);
    assert!(pauses(&world, &sub).is_empty());
}

#[test]
fn a_narrow_link_gets_the_layer_that_fits() {
    let mut world = world(2, &[narrow(500_000)]);
    let track = world.publish(0, camera());
    world.run(secs(1));
    let start = world.now();
    let sub = world.subscribe(&track, 1);
    world.run(secs(2));
    assert_eq!(layer(&world, &sub), Some(1));
    world.run(secs(8));
    let counts = layers_since(&world, &sub, start + secs(2));
    assert!(counts[2] == 0 && counts[1] > 200, "{counts:?}");
    let (waited, freeze) = (waited(&world, 1, start), longest_freeze(&world, &sub, start + secs(2)));
    // Probes of a link that is not filled are long, see there.
    assert!(waited < LONG, "{waited:?}");
    assert!(freeze < millis(400), "{freeze:?}");
    assert!(pauses(&world, &sub).is_empty());
}

#[test]
fn a_link_that_shrinks_and_grows_is_followed() {
    let mut world = world(3, &[narrow(3_000_000)]);
    let track = world.publish(0, camera());
    let sub = world.subscribe(&track, 1);
    world.run(secs(5));
    assert_eq!(layer(&world, &sub), Some(2));
    set_down(&mut world, 1, narrow(500_000));
    let shrunk = world.now();
    world.run(secs(2));
    let settled = world.now();
    world.run(secs(13));
    assert_eq!(layer(&world, &sub), Some(1));
    assert!(waited(&world, 1, settled) < LONG, "{:?}", waited(&world, 1, settled));
    let rate = sent_bps(&world, 1, settled);
    assert!(rate < 450_000.0, "{rate}");
    assert_eq!(layers_since(&world, &sub, shrunk + secs(4))[2], 0);
    set_down(&mut world, 1, narrow(3_000_000));
    world.run(secs(10));
    assert_eq!(layer(&world, &sub), Some(2), "{:?}", estimates(&world));
    assert!(pauses(&world, &sub).is_empty());
}

#[test]
fn a_key_frame_that_waits_for_its_turn_is_not_asked_for_again() {
    let mut world = world(4, &[narrow(3_000_000)]);
    // A key frame of the middle layer takes half a second of the narrow link.
    let encoding = Encoding { key_ratio: 30.0, ..Encoding::PLAIN };
    let track = world.publish(0, Publish { encoding, ..camera() });
    let sub = world.subscribe(&track, 1);
    world.run(secs(8));
    let asked = |world: &World| world.bots[0].source(track.source).key_frames_asked;
    let before = asked(&world);
    set_down(&mut world, 1, narrow(600_000));
    world.run(secs(8));
    assert_eq!(layer(&world, &sub), Some(0));
    // One for each layer that it went down.
    assert_eq!(asked(&world) - before, 2);
}

#[test]
fn the_smallest_picture_goes_on_without_a_key_frame_after_a_queue() {
    let mut world = world(4, &[narrow(300_000)]);
    let smallest = SubscriptionTarget { max_spatial: 0, ..SubscriptionTarget::default() };
    let tracks: Vec<Track> =
        (0..2).map(|_| world.publish(0, Publish { encoding: Encoding::CAMERA, ..camera() })).collect();
    let subs: Vec<Sub> = tracks.iter().map(|track| world.subscribe_with(track, 1, smallest)).collect();
    world.run(secs(10));
    let asked = |world: &World| {
        let asked = tracks.iter().map(|track| world.bots[0].source(track.source).key_frames_asked);
        asked.sum::<u32>()
    };
    let (before, since) = (asked(&world), world.now());
    // A queue of half a second; what goes on of the pictures takes less.
    set_down(&mut world, 1, Link { queue: secs(1), ..narrow(150_000) });
    world.run(millis(1200));
    set_down(&mut world, 1, narrow(300_000));
    world.run(secs(8));
    let longest = world.net.trace(RELAY, world.bots[1].addr()).waited(1.0, since, world.now());
    assert!(longest > millis(260), "video is held back from there on: {longest:?}");
    assert_eq!(asked(&world), before);
    for sub in &subs {
        assert!(sink(&world, sub).frames.iter().all(|frame| frame.decodable));
        assert!(longest_freeze(&world, sub, since) < secs(1));
    }
}

#[test]
fn priority_decides_whose_layer_is_lowered() {
    let mut world = world(4, &[narrow(1_800_000)]);
    let tracks: Vec<Track> = (0..2).map(|_| world.publish(0, camera())).collect();
    let subs = [
        world.subscribe_with(&tracks[0], 1, important(1)),
        world.subscribe_with(&tracks[1], 1, important(2)),
    ];
    world.run(secs(8));
    assert_eq!([layer(&world, &subs[0]), layer(&world, &subs[1])], [Some(1), Some(2)]);
    // The other one speaks now.
    world.command(ShardCommand::SetTarget { sub: subs[0].id, target: important(3) });
    world.run(secs(2));
    assert_eq!([layer(&world, &subs[0]), layer(&world, &subs[1])], [Some(2), Some(1)]);
    let since = world.now();
    world.run(secs(6));
    for sub in &subs {
        let counts = layers_since(&world, sub, since);
        assert_eq!(counts.iter().filter(|count| **count > 0).count(), 1, "no to and fro: {counts:?}");
    }
}

#[test]
fn what_does_not_fit_at_all_is_paused_and_resumed() {
    let mut world = world(5, &[narrow(250_000)]);
    let whole = Publish { layers: &[1300], ..Publish::video() };
    let camera = world.publish(0, whole);
    let voice = world.publish(0, Publish::audio());
    let muted = world.publish(0, whole);
    world.command(ShardCommand::SetTrackPolicy {
        track: muted.id,
        policy: TrackPolicy { require_encryption: true, muted: true },
    });
    let (video, audio) = (world.subscribe(&camera, 1), world.subscribe(&voice, 1));
    let silent = world.subscribe(&muted, 1);
    world.run(secs(10));
    assert_eq!(pauses(&world, &video), [true]);
    let since = world.now();
    world.run(secs(5));
    let heard = sink(&world, &audio).frames.iter().filter(|frame| frame.at >= since).count();
    assert!(heard > 240, "audio goes on: {heard}");
    set_down(&mut world, 1, narrow(2_000_000));
    world.run(secs(10));
    assert_eq!(pauses(&world, &video), [true, false]);
    let since = world.now();
    world.run(secs(2));
    assert!(layers_since(&world, &video, since)[0] > 55);
    assert!(pauses(&world, &silent).is_empty(), "who sends nothing is not paused");
}

#[test]
fn a_bad_link_changes_nothing_for_another_subscriber() {
    let run = |with_bad: bool| {
        let bad = Link { loss: 0.05, ..narrow(300_000) };
        let mut world = world(6, &[Link::clean(), bad]);
        let track = world.publish(0, camera());
        let good = world.subscribe(&track, 1);
        if with_bad {
            world.subscribe(&track, 2);
        }
        world.run(secs(5));
        let since = world.now();
        world.run(secs(20));
        let trace = world.net.trace(RELAY, world.bots[1].addr());
        assert_eq!(layers_since(&world, &good, since)[..2], [0, 0]);
        (sent_bps(&world, 1, since), trace.delay(0.95, since, world.now()))
    };
    let (alone, beside) = (run(false), run(true));
    let rate = beside.0 / alone.0;
    assert!((0.98..1.02).contains(&rate), "{alone:?} {beside:?}");
    let delay = beside.1.as_secs_f64() / alone.1.as_secs_f64();
    assert!((0.98..1.02).contains(&delay), "{alone:?} {beside:?}");
}

#[test]
fn a_client_that_says_nothing_of_its_path_gets_what_it_wants() {
    let mut world = world(7, &[Link::clean()]);
    world.bots[1].set_feedback(false);
    let track = world.publish(0, camera());
    let sub = world.subscribe(&track, 1);
    world.run(secs(6));
    assert_eq!(layer(&world, &sub), Some(2));
    assert_eq!(world.stats().probes, 0);
}

/// Runs so many half seconds, with the receiver's own estimate (REMB) in each.
fn run_with_remb(world: &mut World, half_seconds: usize, bps: u64) {
    for _ in 0..half_seconds {
        let mut remb = Vec::new();
        rtcp::write::remb(&mut remb, Ssrc(1), bps, &[]);
        world.bots[1].send_rtcp(&remb);
        world.run(millis(500));
    }
}

#[test]
fn a_client_that_only_estimates_itself_gets_what_it_says() {
    let mut world = world(8, &[Link::clean()]);
    world.bots[1].set_feedback(false);
    let track = world.publish(0, camera());
    run_with_remb(&mut world, 2, 450_000);
    let sub = world.subscribe(&track, 1);
    let start = world.now();
    run_with_remb(&mut world, 16, 450_000);
    let counts = layers_since(&world, &sub, start);
    assert!(counts[2] == 0 && counts[1] > 150, "{counts:?}");
    run_with_remb(&mut world, 30, 5_000_000);
    assert_eq!(layer(&world, &sub), Some(2));
    // It falls at once.
    run_with_remb(&mut world, 6, 200_000);
    assert_eq!(layer(&world, &sub), Some(0));
    assert!(pauses(&world, &sub).is_empty());
    run_with_remb(&mut world, 6, 50_000);
    assert_eq!(pauses(&world, &sub), [true]);
    run_with_remb(&mut world, 20, 1_000_000);
    assert_eq!(pauses(&world, &sub), [true, false]);
    assert!(world.stats().probes > 0, "by which such a client finds what it has not seen");
}

#[test]
fn a_run_repeats_whatever_the_handshake_draws() {
    let run = || {
        let link = Link { loss: 0.05, jitter: millis(5), delay: millis(50), ..narrow(1_000_000) };
        let mut world = world(8, &[link]);
        let track = world.publish(0, camera());
        world.subscribe(&track, 1);
        world.run(secs(5));
        world.net.trace(RELAY, world.bots[1].addr()).passed.clone()
    };
    let first = run();
    assert!(first.len() > 200, "{} datagrams", first.len());
    // Certificates and SCTP's timers differ each time.
    for _ in 0..4 {
        let again = run();
        let differs = first.iter().zip(&again).position(|(a, b)| a != b);
        assert_eq!((again.len(), differs), (first.len(), None));
    }
}

#[test]
fn a_receiver_whose_packets_are_lost_is_told_to_wait_for_repairs() {
    let path = |loss| Link { loss, delay: millis(50), ..Link::clean() };
    let mut world = world(9, &[path(0.0), path(0.05)]);
    let track = world.publish(0, camera());
    let subs: Vec<_> = [1, 2].map(|bot| world.subscribe(&track, bot)).into();
    world.run(secs(10));
    assert_eq!(sink(&world, &subs[0]).playout_delay, None, "nothing is lost on its path");
    let told = sink(&world, &subs[1]).playout_delay.unwrap();
    // Twelve bits, in tens of milliseconds: more than a round trip of 50 ms.
    let least = u32::from(told[0]) << 4 | u32::from(told[1] >> 4);
    assert!((15..=30).contains(&least), "{least}");
    set_down(&mut world, 2, path(0.0));
    world.run(secs(60));
    assert_eq!(sink(&world, &subs[1]).playout_delay, Some([0, 0x0f, 0xff]));
}
