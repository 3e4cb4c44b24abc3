//! What a participant and a subscription take of the relay's memory, and that a running call takes no more of it.
#![allow(clippy::unwrap_used)]

mod common;

use std::cell::Cell;

use common::{assert_full_call, full_call, secs};
use sfu_media::sim::world::{Publish, World};

/// Bytes of one history record, and records of a subscription to video and to audio.
const RECORD: i64 = 32;
const RECORDS: [i64; 2] = [1024, 256];

thread_local! {
    static KEPT: Cell<i64> = const { Cell::new(0) };
}

/// Adds up what the shard allocates and does not free again.
fn count(_: &[u8], handle: &mut dyn FnMut()) {
    let info = allocation_counter::measure(&mut *handle);
    KEPT.set(KEPT.get() + info.bytes_current);
}

#[test]
fn a_subscription_and_a_participant_stay_within_their_bounds() {
    const BOTS: usize = 8;
    let mut world = World::new(1);
    world.around = Some(count);
    world.discard_events = true;
    world.connect(BOTS);
    let connected = KEPT.take();
    let mut tracks = Vec::new();
    for bot in 0..BOTS {
        for publish in [Publish::video(), Publish::audio()] {
            let track = world.announce(bot, publish);
            world.start_track(&track);
            tracks.push(track);
        }
    }
    world.run(secs(15));
    let published = KEPT.take();
    let mut subs = 0;
    let mut records = 0;
    for track in &tracks {
        for bot in (0..BOTS).filter(|bot| *bot != track.bot) {
            world.subscribe(track, bot);
            subs += 1;
            records += RECORD * RECORDS[usize::from(track.publish.audio_level.is_some())];
        }
    }
    let subscribed = KEPT.take();
    world.run(secs(10));
    let warm = KEPT.take();

    let per_sub = (subscribed - records) / subs;
    let per_bot = (connected + warm) / BOTS as i64;
    let per_track = published / tracks.len() as i64;
    println!("bytes per subscription beyond its history: {per_sub}; history: {}", records / subs);
    println!(
        "bytes per participant, DTLS included: {per_bot}, {} of them before media",
        connected / BOTS as i64
    );
    println!("bytes per published track, packets included: {per_track}");
    assert!(per_sub <= 4 << 10, "{per_sub} bytes per subscription");
    assert!(per_bot <= 150 << 10, "{per_bot} bytes per participant");
}

#[test]
fn a_running_call_takes_no_more_memory() {
    let mut world = World::new(2);
    let tracks = full_call(&mut world, 3);
    world.run(secs(30));
    world.around = Some(count);
    world.discard_events = true;
    for minute in 0..4 {
        KEPT.set(0);
        world.run(secs(60));
        let kept = KEPT.get();
        // A queue may double once more as chance has it; what grows with time would do so every minute.
        let bound = if minute < 2 { 64 << 10 } else { 0 };
        assert!(kept <= bound, "{kept} bytes in minute {minute}");
    }
    world.around = None;
    assert_full_call(&world, &tracks, 0.98, 4);
}
