//! Who subscribes to a video that runs gets a picture soon, whenever that is, and costs the publisher few key frames.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_continuous, millis, secs, sink};
use sfu_media::sim::net::Link;
use sfu_media::sim::world::{Publish, World};

/// Half a round trip of 50 ms.
fn link() -> Link {
    Link { delay: millis(25), ..Link::clean() }
}

#[test]
fn a_picture_comes_within_300_ms_of_subscribing() {
    // At any time after another one's key frame, in steps that no frame interval divides.
    for after in (0..1200).step_by(47) {
        for publish in [Publish::video(), Publish::simulcast()] {
            let mut world = World::new(after);
            world.connect(4);
            for bot in 0..4 {
                world.set_links(bot, link(), link());
            }
            let track = world.announce(0, publish);
            let first = world.subscribe(&track, 1);
            world.start_track(&track);
            world.run(secs(3));
            // The second asks for a key frame, which the first one gets as well.
            let second = world.subscribe(&track, 2);
            world.run(millis(after));
            let (asked, plis) = (world.now(), world.bots[0].source(track.source).plis.len());
            let third = world.subscribe(&track, 3);
            world.run(millis(600));
            let frames = &sink(&world, &third).frames;
            let start = frames.first().expect("a picture");
            assert!(start.key);
            let waited = start.at - asked;
            assert!(waited <= millis(300), "{after}: {waited:?}");
            for sub in [&first, &second, &third] {
                let sink = sink(&world, sub);
                assert_eq!((sink.broken, sink.nacked, sink.abandoned), (0, 0, 0), "{after}");
                assert_continuous(sink);
            }
            // From then on it is at the same frame as the others, and nothing is missing. On which layer is a matter of
            // its path, which is not known at once.
            let latest = |sub| sink(&world, sub).frames.last().unwrap().id.number;
            assert_eq!(latest(&third), latest(&second), "{after}");
            assert!(
                frames
                    .windows(2)
                    .all(|w| w[1].id.layer != w[0].id.layer || w[1].id.number == w[0].id.number + 1)
            );
            // A key frame that came lately serves: its frames are as old as that, so the picture comes at once.
            if publish.layers.len() == 1 && (150..330).contains(&after) {
                assert!(waited < millis(40), "{after}: {waited:?}");
                assert_eq!(world.bots[0].source(track.source).plis.len(), plis, "{after}");
            }
        }
    }
}

#[test]
fn what_was_sent_before_a_mute_is_not_given_out() {
    let mut world = World::new(5);
    world.connect(3);
    let track = world.announce(0, Publish::video());
    world.subscribe(&track, 1);
    world.start_track(&track);
    world.run(millis(200));
    let policy = |muted| sfu_media::command::TrackPolicy { require_encryption: true, muted };
    world.command(sfu_media::command::ShardCommand::SetTrackPolicy { track: track.id, policy: policy(true) });
    let late = world.subscribe(&track, 2);
    world.run(millis(60));
    assert!(sink(&world, &late).frames.is_empty());
    let sent = world.bots[0].source(track.source).frames_sent(0);
    world
        .command(sfu_media::command::ShardCommand::SetTrackPolicy { track: track.id, policy: policy(false) });
    world.run(secs(1));
    let first = sink(&world, &late).frames.first().unwrap();
    assert!(first.key && first.id.number >= sent, "{first:?}");
}
