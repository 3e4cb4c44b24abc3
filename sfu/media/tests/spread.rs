//! A room on two shards behaves as on one. Bots 0, 2, 4.. live on the first shard, the others on the second.
#![allow(clippy::unwrap_used)]

mod common;

use std::cell::Cell;

use common::{
    assert_audio, assert_complete_video, assert_continuous, assert_full_call, full_call, millis, secs, sink,
};
use sfu_media::command::{AudioLevel, DataLabel, ShardCommand, ShardEvent, SubscriptionTarget, TrackPolicy};
use sfu_media::drop_reason::DropReason;
use sfu_media::ids::SpeakerGroup;
use sfu_media::sim::net::Link;
use sfu_media::sim::world::{Publish, RELAYED, Sub, Track, World};
use sfu_media::stats::ShardStats;

const LOUD: TrackPolicy = TrackPolicy { require_encryption: true, muted: false };
const MUTED: TrackPolicy = TrackPolicy { require_encryption: true, muted: true };

fn world(seed: u64) -> World {
    World::with_shards(seed, 2)
}

fn stats(world: &World, shard: usize) -> &ShardStats {
    world.shards[shard].stats()
}

/// One publisher on the first shard; a subscriber there (bot 2) and two on the second (1 and 3).
fn running(seed: u64, publish: Publish) -> (World, Track, [Sub; 3]) {
    let mut world = world(seed);
    world.connect(4);
    let track = world.announce(0, publish);
    let subs = [2, 1, 3].map(|bot| world.subscribe(&track, bot));
    world.start_track(&track);
    world.run(secs(2));
    for sub in &subs {
        assert!(sink(&world, sub).frames.len() > 40);
    }
    (world, track, subs)
}

fn assert_silent(world: &mut World, subs: &[Sub]) {
    let before: Vec<_> = subs.iter().map(|sub| world.sent_on(sub)).collect();
    assert!(before.iter().all(|sent| *sent > 0));
    world.run(secs(2));
    assert_eq!(before, subs.iter().map(|sub| world.sent_on(sub)).collect::<Vec<_>>());
}

#[test]
fn everyone_sees_and_hears_everyone_and_each_packet_crosses_once() {
    let mut world = world(1);
    let tracks = full_call(&mut world, 6);
    world.run(secs(5));
    assert_full_call(&world, &tracks, 0.97, 4);
    let (a, b) = (stats(&world, 0), stats(&world, 1));
    // Three publishers on each shard, all of whose tracks the other one wants.
    assert_eq!((a.relayed_out, b.relayed_out), (a.rtp_in, b.rtp_in), "once each, not for each subscriber");
    assert_eq!((a.relayed_in, b.relayed_in), (b.relayed_out, a.relayed_out));
    for shard in [a, b] {
        assert_eq!(shard.dropped(DropReason::RelayFull), 0);
        assert_eq!(shard.nack_in + shard.nack_out, 0, "clean links");
    }
    // Each layer of each track is told of once.
    assert_eq!(world.events_like(|e| matches!(e, ShardEvent::LayerLive { .. })), tracks.len());
}

#[test]
fn losses_towards_a_subscriber_are_repaired_by_its_own_shard() {
    let mut world = world(2);
    world.connect(4);
    let track = world.announce(0, Publish::video());
    let subs = [2, 1, 3].map(|bot| world.subscribe(&track, bot));
    world.start_track(&track);
    world.set_links(1, Link::clean(), Link { loss: 0.05, ..Link::clean() });
    world.run(secs(5));
    for sub in &subs {
        assert_complete_video(&world, &track, sub, 0, 8);
    }
    assert!(stats(&world, 1).rtx_out > 20);
    assert_eq!((stats(&world, 0).rtx_out, stats(&world, 0).nack_out), (0, 0));
}

#[test]
fn losses_of_the_publisher_are_repaired_for_both_shards() {
    let mut world = world(3);
    world.connect(4);
    world.set_links(0, Link { loss: 0.05, ..Link::clean() }, Link::clean());
    let track = world.announce(0, Publish::video());
    let subs = [2, 1, 3].map(|bot| world.subscribe(&track, bot));
    world.start_track(&track);
    world.run(secs(5));
    for sub in &subs {
        let sink = sink(&world, sub);
        let sent = world.bots[0].source(track.source).frames_sent(0) as usize;
        assert_eq!(sink.broken, 0);
        assert!(sink.frames.len() + 10 >= sent, "{} of {sent}", sink.frames.len());
    }
    assert!(stats(&world, 0).rtx_in > 20 && stats(&world, 1).nack_out == 0);
}

#[test]
fn mute_unpublish_and_leaving_act_at_once_on_both_shards() {
    let (mut world, track, subs) = running(4, Publish::video());
    // The publisher does not stop: it is the relay that must.
    world.command(ShardCommand::SetTrackPolicy { track: track.id, policy: MUTED });
    assert_silent(&mut world, &subs);
    // Asking does not help either.
    let highest = sink(&world, &subs[1]).frames.last().unwrap().last_seq as u16;
    let before = world.sent_on(&subs[1]);
    world.bots[1].send_nack(subs[1].ssrc, &[highest, highest.wrapping_sub(1)]);
    world.bots[1].send_pli(subs[1].ssrc);
    world.run(millis(300));
    assert_eq!(world.sent_on(&subs[1]), before);
    assert!(stats(&world, 1).dropped(DropReason::Muted) >= 2);

    let asked = stats(&world, 0).pli_out;
    world.command(ShardCommand::SetTrackPolicy { track: track.id, policy: LOUD });
    world.run(secs(2));
    for sub in &subs {
        let sink = sink(&world, sub);
        assert_eq!((sink.broken, sink.abandoned), (0, 0));
        let holes: Vec<_> = sink.frames.windows(2).filter(|w| w[1].id.number > w[0].id.number + 1).collect();
        assert_eq!(holes.len(), 1, "where it was muted");
        assert!(holes[0][1].key, "behind it a key frame");
        assert_continuous(sink);
    }
    assert_eq!(stats(&world, 0).pli_out - asked, 1, "all three needed one");

    world.command(ShardCommand::Unsubscribe { sub: subs[1].id });
    assert_silent(&mut world, &subs[1..2]);
    world.command(ShardCommand::ClosePeer { peer: world.peer(3) });
    let handed = stats(&world, 0).relayed_out;
    assert_silent(&mut world, &subs[2..]);
    assert_eq!(stats(&world, 0).relayed_out, handed, "nobody there wants it any more");
    let before = world.sent_on(&subs[0]);
    world.run(secs(1));
    assert!(world.sent_on(&subs[0]) > before, "the shard of the publisher goes on");
}

#[test]
fn a_publisher_that_leaves_is_gone_everywhere() {
    for end in [0, 1] {
        let (mut world, track, subs) = running(5, Publish::audio());
        world.command(match end {
            0 => ShardCommand::Unpublish { track: track.id },
            _ => ShardCommand::ClosePeer { peer: world.peer(0) },
        });
        assert_silent(&mut world, &subs);
    }
}

#[test]
fn key_frames_are_asked_for_once_whichever_shard_needs_them() {
    let (mut world, track, subs) = running(6, Publish::video());
    let asked = stats(&world, 0).pli_out;
    for sub in &subs {
        for _ in 0..5 {
            world.bots[sub.bot].send_pli(sub.ssrc);
        }
    }
    world.run(millis(400));
    assert_eq!(stats(&world, 0).pli_out - asked, 1);
    assert_eq!(stats(&world, 1).pli_out, 0, "it has no publisher");
    // One alone on the second shard is heard as well.
    world.run(secs(1));
    let keys = |world: &World| sink(world, &subs[0]).frames.iter().filter(|frame| frame.key).count();
    let before = keys(&world);
    world.bots[1].send_pli(subs[1].ssrc);
    world.run(millis(400));
    assert_eq!((stats(&world, 0).pli_out - asked, keys(&world) - before), (2, 1));

    // Who comes later needs one, too, and gets all from there.
    let late = world.subscribe(&track, 3);
    world.run(secs(2));
    let first = sink(&world, &late).frames[0];
    assert!(first.key && sink(&world, &late).broken == 0);
}

#[test]
fn a_subscriber_that_returns_to_a_shard_goes_on() {
    let (mut world, track, subs) = running(7, Publish::video());
    for sub in &subs[1..] {
        world.command(ShardCommand::Unsubscribe { sub: sub.id });
    }
    world.run(secs(1));
    let again = world.subscribe(&track, 1);
    let since = world.now();
    world.run(secs(2));
    assert_complete_video(&world, &track, &again, 0, 4);
    let first = sink(&world, &again).frames[0].at - since;
    println!("first picture after {} ms", first.as_millis());
    assert!(first < millis(300), "the key frame was asked for at once: {first:?}");
    assert_complete_video(&world, &track, &subs[0], 0, 4);
}

#[test]
fn each_gets_the_layer_that_it_asks_for() {
    let mut world = world(8);
    world.connect(5);
    let track = world.announce(0, Publish::simulcast());
    let up_to = |max_spatial| SubscriptionTarget { max_spatial, ..SubscriptionTarget::default() };
    let wanted = [(1, 0), (2, 2), (3, 1)];
    let subs = wanted.map(|(bot, layer)| world.subscribe_with(&track, bot, up_to(layer)));
    world.start_track(&track);
    world.run(secs(4));
    for (sub, (_, layer)) in subs.iter().zip(wanted) {
        let sink = sink(&world, sub);
        assert_eq!((sink.frames.last().unwrap().id.layer, sink.broken, sink.nacked), (layer, 0, 0));
        assert_continuous(sink);
    }
    // Up and down again on the other shard.
    for layer in [2, 0] {
        world.command(ShardCommand::SetTarget { sub: subs[0].id, target: up_to(layer) });
        world.run(secs(2));
        assert_eq!(sink(&world, &subs[0]).frames.last().unwrap().id.layer, layer);
    }
    assert_continuous(sink(&world, &subs[0]));
    // A slow path gets what fits, though the publisher's shard knows nothing of it.
    world.set_links(3, Link::clean(), Link { rate: Some(200_000), ..Link::clean() });
    world.command(ShardCommand::SetTarget { sub: subs[2].id, target: up_to(2) });
    world.run(secs(10));
    assert_eq!(sink(&world, &subs[2]).frames.last().unwrap().id.layer, 0);
    assert_eq!(sink(&world, &subs[1]).frames.last().unwrap().id.layer, 2);
}

#[test]
fn levels_are_told_by_the_publishers_shard_alone() {
    let (world, track, _) = running(9, Publish::audio());
    let told = |(_, event): &(_, ShardEvent)| match event {
        ShardEvent::AudioLevels(levels) => levels.clone(),
        _ => Vec::new(),
    };
    let levels: Vec<AudioLevel> = world.reports.iter().flat_map(told).collect();
    assert!((6..=9).contains(&levels.len()), "four a second: {levels:?}");
    assert!(levels.iter().all(|level| level.track == track.id && level.level == 25));
}

#[test]
fn of_all_speakers_the_loudest_are_heard_on_both_shards() {
    const SILENT: Option<u8> = Some(127);
    let mut world = world(10);
    // Ten speakers on each shard, and a listener on each.
    world.connect(22);
    let tracks: Vec<(Track, [Sub; 2])> = (0..20)
        .map(|bot| {
            let track = world.announce(bot, Publish { audio_level: SILENT, ..Publish::audio() });
            let group = SpeakerGroup(1);
            world.command(ShardCommand::LimitSpeakers { track: track.id, group, max: 3 });
            let subs = [20, 21].map(|listener| world.subscribe(&track, listener));
            world.start_track(&track);
            (track, subs)
        })
        .collect();
    world.run(secs(1));
    let relayed = stats(&world, 0).relayed_out + stats(&world, 1).relayed_out;
    world.run(secs(1));
    let silence = stats(&world, 0).relayed_out + stats(&world, 1).relayed_out - relayed;
    assert_eq!(silence, 0, "silence does not cross");

    // Two loud ones on the first shard, three on the second; the three loudest are 1, 0 and 3.
    for (bot, level) in [(5, 50), (2, 45), (3, 35), (0, 30), (1, 20)] {
        world.bots[bot].set_audio_level(tracks[bot].0.source, Some(level));
        world.run(millis(300));
    }
    let since = world.now();
    world.run(secs(4));
    for listener in [0, 1] {
        let got: Vec<usize> = tracks
            .iter()
            .map(|(_, subs)| sink(&world, &subs[listener]).frames.iter().filter(|f| f.at > since).count())
            .collect();
        let heard = |bot: usize| [0, 1, 3].contains(&bot);
        for (bot, got) in got.iter().enumerate() {
            let want = if heard(bot) { 198..=202 } else { 0..=0 };
            assert!(want.contains(got), "listener {listener}, bot {bot}: {got}");
        }
        for (_, subs) in &tracks {
            let sink = sink(&world, &subs[listener]);
            assert_eq!((sink.broken, sink.abandoned, sink.nacked), (0, 0, 0));
            assert!(sink.frames.windows(2).all(|w| w[1].last_seq == w[0].last_seq + 1), "no gaps");
        }
    }
}

#[test]
fn plaintext_does_not_cross() {
    let mut world = world(11);
    world.connect(2);
    let track = world.announce(0, Publish { encrypted: false, ..Publish::video() });
    let sub = world.subscribe(&track, 1);
    world.start_track(&track);
    world.run(secs(2));
    assert_eq!((world.sent_on(&sub), stats(&world, 0).relayed_out), (0, 0));
    assert_eq!(world.events_like(|e| matches!(e, ShardEvent::NotEncrypted { .. })), 1, "told once");
}

#[test]
fn what_crossed_before_encryption_was_demanded_is_not_forwarded_after() {
    let mut world = world(12);
    world.connect(2);
    let publish = Publish { encrypted: false, require_encryption: false, ..Publish::audio() };
    let track = world.announce(0, publish);
    let sub = world.subscribe(&track, 1);
    world.start_track(&track);
    world.run(secs(2));
    assert_audio(&world, &track, &sub, 0.97);
    // The second shard hears of it first: what the first one hands over meanwhile is refused.
    let command = ShardCommand::SetTrackPolicy { track: track.id, policy: LOUD };
    let mut tx = sfu_media::tx::TxQueue::new();
    let now = world.now();
    world.shards[1].handle_command(command, &mut tx, now);
    let before = world.sent_on(&sub);
    world.run(secs(1));
    assert_eq!(world.sent_on(&sub), before);
    assert!(stats(&world, 1).dropped(DropReason::NotEncrypted) >= 48);
}

#[test]
fn data_messages_cross() {
    let mut world = world(13);
    world.relay_data = true;
    world.connect(4);
    world.run(secs(2));
    let now = world.now();
    assert!(world.bots[0].send_data("_reliable", b"to all", now));
    world.run(secs(1));
    for bot in 1..4 {
        let received = world.bots[bot].received_data();
        assert!(
            received
                .iter()
                .any(|(label, data)| label == DataLabel::Reliable.as_str() && &data[..] == b"to all")
        );
    }
}

#[test]
fn a_stream_that_begins_anew_is_followed() {
    let (mut world, track, subs) = running(14, Publish::video());
    // Another SSRC takes its place: numbers and timestamps start elsewhere.
    world.bots[0].unpublish(track.source);
    world.run(secs(1));
    let mut config = sfu_media::sim::world::source_config(&track);
    config.first_seq = 40_000;
    for layer in &mut config.layers {
        layer.ssrc += 0x100;
        layer.rtx_ssrc = layer.rtx_ssrc.map(|ssrc| ssrc + 0x100);
    }
    let now = world.now();
    world.bots[0].publish(config, now);
    let before: Vec<_> = subs.iter().map(|sub| sink(&world, sub).frames.len()).collect();
    world.run(secs(3));
    for (sub, before) in subs.iter().zip(before) {
        let sink = sink(&world, sub);
        assert!(sink.frames.len() > before + 60, "bot {}: {} {before}", sub.bot, sink.frames.len());
        assert_eq!(sink.broken, 0);
    }
}

thread_local! {
    static BATCHES: Cell<u64> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of what crosses, and of the packets that are handed over.
fn count(datagram: &[u8], handle: &mut dyn FnMut()) {
    let is_rtp = matches!(datagram, [128..=191, kind, ..] if !(64..=95).contains(&(kind & 0x7f)));
    let info = allocation_counter::measure(&mut *handle);
    if is_rtp || datagram == RELAYED {
        BATCHES.set(BATCHES.get() + 1);
        ALLOCATIONS.set(ALLOCATIONS.get() + info.count_total);
    }
}

#[test]
fn crossing_allocates_nothing() {
    let mut world = world(15);
    let tracks = full_call(&mut world, 4);
    // Every place in the stores is taken once.
    world.run(secs(15));
    let before = stats(&world, 1).relayed_in;
    world.around = Some(count);
    while stats(&world, 1).relayed_in - before < 6_000 {
        world.run(secs(1));
    }
    world.around = None;
    assert_full_call(&world, &tracks, 0.98, 4);
    assert!(BATCHES.get() > 6_000);
    assert_eq!(ALLOCATIONS.get(), 0, "in {} batches and packets", BATCHES.get());
}
