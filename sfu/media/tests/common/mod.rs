//! What several tests need.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::time::Duration;

use sfu_media::sim::bot::{Coding, Sink};
use sfu_media::sim::world::{Sub, Track, World};

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn sink<'a>(world: &'a World, sub: &Sub) -> &'a Sink {
    world.bots[sub.bot].sink(sub.ssrc)
}

/// Asserts that a video sink has every frame of one source and layer, from the first to the latest, each byte right,
/// with identifiers that go on without a gap. At most `in_flight` of the latest may not be there yet.
pub fn assert_complete_video(world: &World, track: &Track, sub: &Sub, layer: u8, in_flight: u32) {
    let sink = sink(world, sub);
    assert_eq!((sink.broken, sink.abandoned), (0, 0), "sub {sub:?}");
    let frames = &sink.frames;
    let first = frames.first().expect("frames arrived");
    assert!(first.key, "begins with a key frame");
    for (i, frame) in frames.iter().enumerate() {
        let want = (track.source, layer, first.id.number + i as u32);
        assert_eq!((frame.id.source, frame.id.layer, frame.id.number), want, "frame {i}");
    }
    let sent = world.bots[track.bot].source(track.source).frames_sent(usize::from(layer));
    let last = frames.last().unwrap().id.number;
    assert!(last + 1 + in_flight >= sent, "{last} of {sent} arrived");
    assert_continuous(sink);
}

/// Asserts that picture ids, TL0PICIDX and timestamps of a sink go on as one stream's must.
pub fn assert_continuous(sink: &Sink) {
    for pair in sink.frames.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        assert!((b.timestamp.wrapping_sub(a.timestamp) as i32) > 0, "{a:?} {b:?}");
        if sink.config().coding == Coding::Vp8 {
            assert_eq!(b.picture_id.unwrap(), (a.picture_id.unwrap() + 1) & 0x7fff, "{a:?} {b:?}");
            assert_eq!(b.tl0.unwrap(), a.tl0.unwrap().wrapping_add(1), "{a:?} {b:?}");
        }
    }
}

/// Asserts that an audio sink got at least this share of its packets, each whole and in order.
pub fn assert_audio(world: &World, track: &Track, sub: &Sub, share: f64) {
    let sink = sink(world, sub);
    assert_eq!(sink.broken, 0);
    assert!(sink.frames.windows(2).all(|w| w[0].id.number < w[1].id.number));
    assert!(sink.frames.iter().all(|frame| frame.id.source == track.source));
    let sent = world.bots[track.bot].source(track.source).frames_sent(0);
    let want = (f64::from(sent) * share) as usize;
    assert!(sink.frames.len() >= want, "{} of {sent}", sink.frames.len());
}

/// Each of `count` connected bots publishes video and audio, and each gets those of all others.
pub fn full_call(world: &mut World, count: usize) -> Vec<(Track, Vec<Sub>)> {
    use sfu_media::sim::world::Publish;
    world.connect(count);
    let mut tracks = Vec::new();
    for bot in 0..count {
        for publish in [Publish::video(), Publish::audio()] {
            tracks.push(world.announce(bot, publish));
        }
    }
    let tracks: Vec<_> = tracks
        .into_iter()
        .map(|track| {
            let others = (0..count).filter(|bot| *bot != track.bot);
            let subs = others.map(|bot| world.subscribe(&track, bot)).collect::<Vec<_>>();
            (track, subs)
        })
        .collect();
    for (track, _) in &tracks {
        world.start_track(track);
    }
    tracks
}

/// Checks all of a [`full_call`]; audio gets through by this share.
pub fn assert_full_call(world: &World, tracks: &[(Track, Vec<Sub>)], audio: f64, in_flight: u32) {
    for (track, subs) in tracks {
        for sub in subs {
            match track.publish.coding {
                Coding::Vp8 => assert_complete_video(world, track, sub, 0, in_flight),
                Coding::Opus => assert_audio(world, track, sub, audio),
            }
        }
    }
    for bot in &world.bots {
        assert_eq!((bot.stats().bad, bot.stats().unexpected), (0, 0));
    }
}
