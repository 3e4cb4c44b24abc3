//! Large rooms: the loudest few are forwarded, silence is not.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::{assert_audio, millis, secs, sink};
use sfu_media::command::ShardCommand;
use sfu_media::drop_reason::DropReason;
use sfu_media::ids::SpeakerGroup;
use sfu_media::sim::world::{Publish, Sub, Track, World};

const SILENT: Option<u8> = Some(127);

/// A room of `speakers`, all silent, and one who listens to them.
fn room(seed: u64, speakers: usize, max: u16) -> (World, Vec<(Track, Sub)>) {
    let mut world = World::new(seed);
    world.connect(speakers + 1);
    let tracks = (0..speakers)
        .map(|bot| {
            let track = world.announce(bot, Publish { audio_level: SILENT, ..Publish::audio() });
            world.command(ShardCommand::LimitSpeakers { track: track.id, group: SpeakerGroup(1), max });
            let sub = world.subscribe(&track, speakers);
            world.start_track(&track);
            (track, sub)
        })
        .collect();
    (world, tracks)
}

fn say(world: &mut World, track: &Track, level: Option<u8>) {
    world.bots[track.bot].set_audio_level(track.source, level);
}

/// Packets of each track that arrived since an instant.
fn arrived(world: &World, tracks: &[(Track, Sub)], since: Instant) -> Vec<usize> {
    let of = |sub| sink(world, sub).frames.iter().filter(|frame| frame.at > since).count();
    tracks.iter().map(|(_, sub)| of(sub)).collect()
}

/// What arrived is whole, has no gap in its numbers, and its timestamps are the publisher's.
fn assert_seamless(world: &World, tracks: &[(Track, Sub)]) {
    for (_, sub) in tracks {
        let sink = sink(world, sub);
        assert_eq!((sink.broken, sink.abandoned, sink.nacked), (0, 0, 0));
        for pair in sink.frames.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            assert_eq!(b.last_seq, a.last_seq + 1, "no gap in the numbers");
            // 20 ms at 48 kHz for each packet that was sent, forwarded or not.
            assert_eq!(
                b.timestamp.wrapping_sub(a.timestamp),
                (b.id.number - a.id.number) * 960,
                "{a:?} {b:?}"
            );
        }
    }
}

#[test]
fn of_thirty_the_three_loudest_are_forwarded() {
    let (mut world, tracks) = room(1, 30, 3);
    world.run(secs(1));
    assert_eq!(arrived(&world, &tracks, world.now() - millis(500)), vec![0; 30], "silence costs nothing");

    // Five speak, at 20, 30, 40, 50 and 55 -dBov, the quietest first: the louder take their places.
    for (track, level) in [(4, 55), (3, 50), (2, 40), (1, 30), (0, 20)] {
        say(&mut world, &tracks[track].0, Some(level));
        world.run(millis(300));
    }
    let since = world.now();
    let octets = |world: &World| tracks.iter().map(|(_, sub)| sink(world, sub).octets).sum::<u64>();
    let before = octets(&world);
    let dropped = world.stats().dropped(DropReason::NotLoudest);
    world.run(secs(5));
    let got = arrived(&world, &tracks, since);
    assert!(got[..3].iter().all(|n| (249..=251).contains(n)), "{got:?}");
    assert!(got[3..].iter().all(|n| *n == 0), "{got:?}");
    let dropped = world.stats().dropped(DropReason::NotLoudest) - dropped;
    assert!((27 * 249..=27 * 251).contains(&(dropped as usize)), "{dropped}");
    // All thirty would be 30 * 50 packets a second of 120 bytes: 1440 kbit/s.
    let rate = (octets(&world) - before) as f64 * 8.0 / 5.0 / 1000.0;
    println!("three of thirty speakers to one listener: {rate:.0} kbit/s of audio instead of 1440");
    assert!((143.0..146.0).contains(&rate), "{rate} kbit/s");

    // All fall silent: after the hold nothing is forwarded.
    for (track, _) in &tracks[..5] {
        say(&mut world, track, SILENT);
    }
    world.run(millis(550));
    let since = world.now();
    world.run(secs(2));
    assert_eq!(arrived(&world, &tracks, since), vec![0; 30]);
    assert_seamless(&world, &tracks);
}

#[test]
fn a_word_is_heard_from_its_first_packet() {
    let (mut world, tracks) = room(2, 10, 3);
    world.run(secs(2));
    // Two talk; then a third, who was silent, into the free place.
    say(&mut world, &tracks[0].0, Some(25));
    say(&mut world, &tracks[1].0, Some(25));
    world.run(secs(1));
    let (track, sub) = &tracks[7];
    let first = world.bots[track.bot].source(track.source).frames_sent(0);
    let spoke = world.now();
    say(&mut world, track, Some(35));
    world.run(millis(200));
    let frame = sink(&world, sub).frames[0];
    assert_eq!(frame.id.number, first, "the onset is not cut");
    println!("onset into a free place: {} ms to the listener", (frame.at - spoke).as_millis());
    assert!(frame.at - spoke < millis(70), "one packet's time and the way: {:?}", frame.at - spoke);

    // A fourth, louder than one of the three has been: as fast.
    let (track, sub) = &tracks[8];
    world.run(millis(300));
    let first = world.bots[track.bot].source(track.source).frames_sent(0);
    say(&mut world, track, Some(20));
    world.run(millis(200));
    assert_eq!(sink(&world, sub).frames[0].id.number, first);
    assert_seamless(&world, &tracks);
}

#[test]
fn pauses_keep_the_place_and_one_as_loud_does_not_take_it() {
    let (mut world, tracks) = room(3, 6, 2);
    world.run(millis(500));
    say(&mut world, &tracks[0].0, Some(30));
    say(&mut world, &tracks[1].0, Some(30));
    world.run(secs(1));
    let since = world.now();
    // As loud as those who speak: waits.
    say(&mut world, &tracks[2].0, Some(30));
    world.run(secs(2));
    let got = arrived(&world, &tracks, since);
    assert!(got[0] >= 99 && got[1] >= 99 && got[2] == 0, "{got:?}");
    // One makes a pause of 300 ms in a sentence while nobody else speaks.
    say(&mut world, &tracks[2].0, SILENT);
    world.run(millis(100));
    let since = world.now();
    say(&mut world, &tracks[0].0, SILENT);
    world.run(millis(300));
    say(&mut world, &tracks[0].0, Some(30));
    world.run(millis(700));
    let got = arrived(&world, &tracks, since);
    assert!((49..=51).contains(&got[0]), "nothing was left out: {got:?}");
    assert_seamless(&world, &tracks);
}

#[test]
fn tracks_without_levels_and_small_rooms_are_forwarded_whole() {
    let (mut world, tracks) = room(4, 6, 2);
    say(&mut world, &tracks[5].0, None);
    world.run(secs(2));
    let got = arrived(&world, &tracks, world.now() - secs(1));
    assert!(got[5] >= 49 && got[..5].iter().all(|n| *n == 0), "{got:?}");
    assert_audio(&world, &tracks[5].0, &tracks[5].1, 0.95);

    let (mut world, tracks) = room(5, 2, 2);
    world.run(secs(2));
    for (track, sub) in &tracks {
        assert_audio(&world, track, sub, 0.95);
    }
}

#[test]
fn who_leaves_gives_the_place_up() {
    let (mut world, tracks) = room(6, 4, 1);
    say(&mut world, &tracks[0].0, Some(20));
    say(&mut world, &tracks[1].0, Some(30));
    world.run(secs(1));
    let since = world.now();
    world.command(ShardCommand::Unpublish { track: tracks[0].0.id });
    world.run(millis(200));
    assert!(arrived(&world, &tracks, since)[1] >= 7);
    // Two more go: the room is small, and even silence passes.
    world.command(ShardCommand::Unpublish { track: tracks[1].0.id });
    world.command(ShardCommand::Unpublish { track: tracks[2].0.id });
    let since = world.now();
    world.run(secs(1));
    assert!(arrived(&world, &tracks, since)[3] >= 48);
}
