//! Commands act at once: after mute, unpublish, unsubscribe and close not one more media packet leaves.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_complete_video, assert_continuous, millis, secs, sink};
use sfu_media::command::{ShardCommand, ShardEvent, SubscriptionTarget, TrackPolicy};
use sfu_media::drop_reason::DropReason;
use sfu_media::sim::net::Link;
use sfu_media::sim::world::{Publish, Sub, Track, World};

const MUTED: TrackPolicy = TrackPolicy { require_encryption: true, muted: true };
const LOUD: TrackPolicy = TrackPolicy { require_encryption: true, muted: false };

/// One publisher of video and audio, two receivers of both, running for two seconds.
fn running(seed: u64) -> (World, [(Track, [Sub; 2]); 2]) {
    let mut world = World::new(seed);
    world.connect(3);
    let tracks = [Publish::video(), Publish::audio()].map(|publish| {
        let track = world.announce(0, publish);
        let subs = [world.subscribe(&track, 1), world.subscribe(&track, 2)];
        world.start_track(&track);
        (track, subs)
    });
    // Loss, so that retransmissions are asked for when the command comes.
    world.set_links(1, Link::clean(), Link { loss: 0.1, ..Link::clean() });
    world.run(secs(2));
    for (_, subs) in &tracks {
        for sub in subs {
            assert!(sink(&world, sub).frames.len() > 40);
        }
    }
    (world, tracks)
}

/// Runs on and asserts that nothing more is sent on these subscriptions.
fn assert_silent(world: &mut World, subs: &[Sub]) {
    let before: Vec<_> = subs.iter().map(|sub| world.sent_on(sub)).collect();
    assert!(before.iter().all(|sent| *sent > 0));
    world.run(secs(2));
    let after: Vec<_> = subs.iter().map(|sub| world.sent_on(sub)).collect();
    assert_eq!(before, after);
}

/// Runs on and asserts that these subscriptions get more.
fn assert_flowing(world: &mut World, subs: &[Sub]) {
    let before: Vec<_> = subs.iter().map(|sub| sink(world, sub).frames.len()).collect();
    world.run(secs(1));
    for (sub, before) in subs.iter().zip(before) {
        assert!(sink(world, sub).frames.len() > before + 20, "{sub:?}");
    }
}

#[test]
fn mute_stops_at_once_and_unmute_goes_on_with_a_key_frame() {
    let (mut world, [(video, video_subs), (_, audio_subs)]) = running(1);
    let frames = sink(&world, &video_subs[1]).frames.len();
    // The publisher does not stop: it is the relay that must.
    world.command(ShardCommand::SetTrackPolicy { track: video.id, policy: MUTED });
    assert_silent(&mut world, &video_subs);
    assert_flowing(&mut world, &audio_subs);
    assert!(world.stats().dropped(DropReason::Muted) > 50);

    // Asking does not help either.
    let before = world.sent_on(&video_subs[1]);
    let highest = sink(&world, &video_subs[1]).frames.last().unwrap().last_seq as u16;
    world.bots[2].send_nack(video_subs[1].ssrc, &[highest, highest.wrapping_sub(1)]);
    world.bots[2].send_pli(video_subs[1].ssrc);
    world.run(millis(300));
    assert_eq!(world.sent_on(&video_subs[1]), before);

    world.command(ShardCommand::SetTrackPolicy { track: video.id, policy: LOUD });
    world.run(secs(2));
    for sub in &video_subs {
        let sink = sink(&world, sub);
        assert_eq!(sink.broken, 0);
        let holes: Vec<_> = sink.frames.windows(2).filter(|w| w[1].id.number > w[0].id.number + 1).collect();
        let (muted, before) = holes.split_last().expect("a hole where it was muted");
        assert!(muted[1].key, "behind it a key frame");
        // What was lost on the way when the mute came is not sent again either.
        let late = muted[0].id.number.saturating_sub(5);
        assert!(before.iter().all(|hole| sub.bot == 1 && hole[0].id.number >= late), "{before:?}");
    }
    let undisturbed = sink(&world, &video_subs[1]);
    assert!(undisturbed.frames.len() > frames + 30);
    assert_continuous(undisturbed);
    assert_eq!(undisturbed.nacked, 0, "no gap in the numbers");
}

#[test]
fn unpublish_stops_at_once() {
    let (mut world, [(video, video_subs), (_, audio_subs)]) = running(2);
    world.command(ShardCommand::Unpublish { track: video.id });
    assert_silent(&mut world, &video_subs);
    assert_flowing(&mut world, &audio_subs);
    assert!(world.stats().dropped(DropReason::NotPublished) > 50, "the publisher goes on");
}

#[test]
fn unsubscribe_stops_one_receiver_at_once() {
    let (mut world, [(_, video_subs), (_, audio_subs)]) = running(3);
    world.command(ShardCommand::Unsubscribe { sub: video_subs[0].id });
    assert_silent(&mut world, &video_subs[..1]);
    assert_flowing(&mut world, &[video_subs[1], audio_subs[0], audio_subs[1]]);
}

#[test]
fn a_disabled_target_stops_and_enabling_goes_on_with_a_key_frame() {
    let (mut world, [(_, subs), _]) = running(4);
    let off = SubscriptionTarget { enabled: false, ..SubscriptionTarget::default() };
    world.command(ShardCommand::SetTarget { sub: subs[1].id, target: off });
    assert_silent(&mut world, &subs[1..]);
    assert_flowing(&mut world, &subs[..1]);
    let frames = sink(&world, &subs[1]).frames.len();
    world.command(ShardCommand::SetTarget { sub: subs[1].id, target: SubscriptionTarget::default() });
    world.run(secs(2));
    let sink = sink(&world, &subs[1]);
    assert!(sink.frames[frames].key);
    assert!(sink.frames.len() > frames + 30);
    assert_continuous(sink);
}

#[test]
fn closing_a_peer_stops_all_it_sends_and_gets() {
    let (mut world, [(_, video_subs), (_, audio_subs)]) = running(5);
    let peer = world.peer(1);
    // An alert is sent once and may be lost (RFC 6347 section 4.1.2.7): not here.
    world.set_links(1, Link::clean(), Link::clean());
    world.command(ShardCommand::ClosePeer { peer });
    assert_silent(&mut world, &[video_subs[0], audio_subs[0]]);
    assert!(world.bots[1].is_closed(), "close_notify arrived");
    assert_flowing(&mut world, &[video_subs[1], audio_subs[1]]);

    let publisher = world.peer(0);
    world.command(ShardCommand::ClosePeer { peer: publisher });
    assert_silent(&mut world, &[video_subs[1], audio_subs[1]]);
    assert_eq!(world.events_like(|e| matches!(e, ShardEvent::PeerClosed { .. })), 0, "room logic knows");
}

#[test]
fn a_section_published_again_starts_afresh() {
    let (mut world, [(video, subs), _]) = running(6);
    let old = world.sent_on(&subs[1]);
    world.command(ShardCommand::Unpublish { track: video.id });
    // The same section and SSRC, another track; it is never named by MID again.
    let again = Track { id: sfu_media::ids::TrackId(999_999), ..video.clone() };
    let peer = world.peer(0);
    world.command(ShardCommand::Publish { peer, mid: again.mid, track: again.id, policy: LOUD });
    let sub = world.subscribe(&again, 2);
    world.run(secs(2));
    assert_eq!(world.sent_on(&subs[1]), old);
    assert!(sink(&world, &sub).frames.len() > 40);
    assert_complete_video(&world, &again, &sub, 0, 4);
    assert_eq!(
        world.events_like(|e| matches!(e, ShardEvent::LayerLive { track, .. } if *track == again.id)),
        1
    );
}

#[test]
fn another_track_on_the_section_ends_the_one_before() {
    let (mut world, [(video, subs), _]) = running(7);
    let peer = world.peer(0);
    let track = sfu_media::ids::TrackId(999_999);
    world.command(ShardCommand::Publish { peer, mid: video.mid, track, policy: LOUD });
    assert_silent(&mut world, &subs);
}

#[test]
fn a_description_that_changes_nothing_disturbs_nothing() {
    let (mut world, [(video, subs), _]) = running(8);
    let live = world.events_like(|e| matches!(e, ShardEvent::LayerLive { .. }));
    for _ in 0..10 {
        world.negotiate(0);
        world.run(millis(100));
    }
    world.announce(0, Publish::video());
    world.run(secs(1));
    assert_complete_video(&world, &video, &subs[1], 0, 4);
    assert_eq!(world.events_like(|e| matches!(e, ShardEvent::LayerLive { .. })), live);
    // A section that goes takes its media along.
    world.remove_section(&video);
    assert_silent(&mut world, &subs);
    assert!(world.stats().dropped(DropReason::UnknownSsrc) > 50);
}

#[test]
fn an_outgoing_ssrc_is_used_once() {
    let (mut world, [(video, subs), _]) = running(9);
    let config = *sink(&world, &subs[1]).config();
    world.command(ShardCommand::Unsubscribe { sub: subs[1].id });
    let sent = world.sent_on(&subs[1]);
    // Room logic that numbers wrongly would have nonces repeat: the shard refuses.
    let peer = world.peer(2);
    let section = sfu_media::command::SendSection {
        mid: video.mid,
        kind: sfu_media::command::MediaKind::Video,
        ssrc: sfu_media::ids::Ssrc(config.ssrc),
        rtx_ssrc: None,
        codecs: video.section.codecs.clone(),
        extensions: video.section.extensions,
        cname: "again".into(),
    };
    let (sub, target) = (sfu_media::ids::SubId(77), SubscriptionTarget::default());
    world.command(ShardCommand::Subscribe { sub, track: video.id, peer, section, target });
    world.run(secs(1));
    assert_eq!(world.sent_on(&subs[1]), sent);
}

#[test]
fn a_late_subscriber_begins_with_a_key_frame_that_was_asked_for() {
    let (mut world, [(video, subs), _]) = running(10);
    let asked = world.bots[0].source(video.source).key_frames_asked;
    world.command(ShardCommand::Unsubscribe { sub: subs[1].id });
    let sub = world.subscribe(&video, 2);
    world.run(secs(2));
    assert!(world.bots[0].source(video.source).key_frames_asked > asked);
    assert_complete_video(&world, &video, &sub, 0, 4);
    let first = sink(&world, &sub).frames[0];
    assert!(first.at < world.now() - millis(1700), "within 300 ms");
}

#[test]
fn commands_for_what_is_gone_do_nothing() {
    let (mut world, [(video, subs), _]) = running(11);
    let peer = world.peer(0);
    world.command(ShardCommand::ClosePeer { peer });
    let stats = world.stats().clone();
    for command in [
        ShardCommand::ClosePeer { peer },
        ShardCommand::Unpublish { track: video.id },
        ShardCommand::Unsubscribe { sub: subs[0].id },
        ShardCommand::SetTarget { sub: subs[0].id, target: SubscriptionTarget::default() },
        ShardCommand::SetTrackPolicy { track: video.id, policy: MUTED },
        ShardCommand::SetReceive { peer, sections: vec![video.section.clone()] },
        ShardCommand::Publish { peer, mid: video.mid, track: video.id, policy: LOUD },
    ] {
        world.command(command);
    }
    assert_eq!(*world.stats(), stats);
}
