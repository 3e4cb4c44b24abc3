//! What publishers are asked to send, and in which order subscribers' tracks get bandwidth.

use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_request::Message as Asked;
use proto::signal_response::Message;
use sfu_media::command::{AudioLevel, Codec, MediaKind, ShardEvent};
use sfu_media::ids::{Ssrc, TrackId};

use super::world::{World, claims, grants};
use crate::room::{RoomConfig, RoomInput, SessionId};

const ALL: [bool; 3] = [true, true, true];
const LOW: [bool; 3] = [true, false, false];
const NONE: [bool; 3] = [false, false, false];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A camera in three layers.
fn camera(w: &mut World, session: SessionId, source: proto::TrackSource) -> (String, TrackId) {
    let cid = format!("{source:?}");
    let mut request = World::request(MediaKind::Video, &cid, true);
    request.source = source as i32;
    request.layers = [(320, 180), (640, 360), (1280, 720)]
        .iter()
        .zip(0..)
        .map(|((width, height), quality)| proto::VideoLayer {
            quality,
            width: *width,
            height: *height,
            ..Default::default()
        })
        .collect();
    let before: Vec<_> = w.room.track_sids.keys().cloned().collect();
    w.signal(session, Asked::AddTrack(request));
    w.clients.get_mut(&session).unwrap().send(MediaKind::Video, &cid);
    w.offer(session);
    w.settle();
    let sid = w.room.track_sids.keys().find(|sid| !before.contains(sid)).unwrap().clone();
    let id = w.room.track_sids[&sid];
    (sid, id)
}

fn settings(sid: &str, width: u32, height: u32) -> proto::UpdateTrackSettings {
    proto::UpdateTrackSettings { track_sids: vec![sid.to_owned()], width, height, ..Default::default() }
}

fn want(w: &mut World, session: SessionId, sid: &str, width: u32, height: u32) {
    w.signal(session, Asked::TrackSetting(settings(sid, width, height)));
}

/// The qualities of each update that a client got since the last look, both forms of which must agree.
#[allow(deprecated)]
fn asked(w: &mut World, session: SessionId) -> Vec<[bool; 3]> {
    let told = w.heard(session, |m| match m {
        Message::SubscribedQualityUpdate(update) => {
            let [codec] = &update.subscribed_codecs[..] else { panic!("one codec: {update:?}") };
            assert_eq!(codec.qualities, update.subscribed_qualities);
            let on: Vec<_> = codec.qualities.iter().map(|q| (q.quality, q.enabled)).collect();
            Some(match on[..] {
                [(0, low), (1, medium), (2, high)] => [low, medium, high],
                _ => panic!("low, medium, high: {on:?}"),
            })
        }
        _ => None,
    });
    w.hush();
    told
}

#[test]
fn publishers_stop_what_nobody_takes_after_a_while_and_start_again_at_once() {
    for single in [false, true] {
        let mut w = World::new(RoomConfig::default());
        let a = w.join("a", single);
        let b = w.join("b", single);
        w.hush();
        let (sid, _) = camera(&mut w, a, proto::TrackSource::Camera);
        assert_eq!(asked(&mut w, a), [ALL], "publishers begin with all");
        want(&mut w, b, &sid, 300, 150);
        w.wait(ms(4900));
        assert_eq!(asked(&mut w, a), [NONE; 0], "not at once");
        w.wait(ms(200));
        assert_eq!(asked(&mut w, a), [LOW]);
        want(&mut w, b, &sid, 640, 360);
        assert_eq!(asked(&mut w, a), [[true, true, false]], "more at once");
        // Somebody joins who has asked for nothing yet: the best, before its description is settled.
        let c = w.join_as(claims("c", grants()), World::open(single));
        assert_eq!(asked(&mut w, a), [ALL]);
        w.offer(c);
        w.settle();
        // All look away, and one looks back in time: nothing is told.
        for session in [b, c] {
            let hidden = proto::UpdateTrackSettings { disabled: true, ..settings(&sid, 0, 0) };
            w.signal(session, Asked::TrackSetting(hidden));
        }
        w.wait(ms(4000));
        want(&mut w, c, &sid, 1280, 720);
        w.wait(ms(60_000));
        assert_eq!(asked(&mut w, a), [NONE; 0]);
        // The last one who takes it leaves.
        w.signal(c, Asked::Leave(proto::LeaveRequest::default()));
        w.wait(ms(6000));
        assert_eq!(asked(&mut w, a), [NONE]);
        want(&mut w, b, &sid, 100, 100);
        assert_eq!(asked(&mut w, a), [LOW]);
    }
}

#[test]
fn alone_a_publisher_stops_and_the_first_subscriber_gets_all() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    w.hush();
    camera(&mut w, a, proto::TrackSource::Camera);
    w.publish(a, MediaKind::Audio, "mic").unwrap();
    w.wait(ms(6000));
    assert_eq!(asked(&mut w, a), [ALL, NONE], "of video only");
    w.join("b", false);
    assert_eq!(asked(&mut w, a), [ALL]);
}

#[test]
fn a_resumed_publisher_hears_it_again() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    camera(&mut w, a, proto::TrackSource::Camera);
    let sid = w.sid(a);
    w.input(RoomInput::SessionClosed { session: a });
    w.wait(ms(10_000));
    w.hush();
    let mut open = World::open(true);
    open.reconnect = true;
    open.participant_sid = sid;
    let again = w.join_as(claims("a", grants()), open);
    assert_eq!(asked(&mut w, again), [NONE], "what was told while it was away");
}

#[test]
fn updates_name_the_codec_in_use() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    w.join("b", false);
    let (_, track) = camera(&mut w, a, proto::TrackSource::Camera);
    w.hush();
    let live = ShardEvent::LayerLive { track, spatial: 0, ssrc: Ssrc(1), codec: Codec::H264 };
    w.input(RoomInput::Shard(live));
    let codecs = w.heard(a, |m| match m {
        Message::SubscribedQualityUpdate(update) => Some(update.subscribed_codecs[0].codec.clone()),
        _ => None,
    });
    assert_eq!(codecs, ["h264"]);
    assert_eq!(asked(&mut w, a), [ALL]);
}

#[test]
fn two_layers_are_low_and_all() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    let (sid, _) = camera(&mut w, a, proto::TrackSource::Camera);
    let layer = |quality, width, height| proto::VideoLayer { quality, width, height, ..Default::default() };
    #[allow(deprecated)]
    w.signal(
        a,
        Asked::UpdateLayers(proto::UpdateVideoLayers {
            track_sid: sid.clone(),
            layers: vec![layer(0, 320, 180), layer(1, 640, 360)],
        }),
    );
    w.hush();
    want(&mut w, b, &sid, 300, 150);
    w.wait(ms(5100));
    assert_eq!(asked(&mut w, a), [LOW]);
    want(&mut w, b, &sid, 600, 300);
    assert_eq!(asked(&mut w, a), [ALL]);
}

/// What b's subscriptions have, by track.
fn priority(w: &World, session: SessionId, track: TrackId) -> u32 {
    let peers = w.peers(session);
    let of = |(id, peer, _): &&(TrackId, _, _)| *id == track && peers.contains(peer);
    w.shard.subs.values().find(of).unwrap().2.priority
}

fn speak(w: &mut World, track: TrackId, time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        w.wait(ms(250));
        left = left.saturating_sub(ms(250));
        let level = AudioLevel { track, level: 15, active_percent: 100 };
        w.input(RoomInput::Shard(ShardEvent::AudioLevels(vec![level])));
    }
}

#[test]
fn shared_screens_and_who_speaks_go_first() {
    let mut w = World::new(RoomConfig::default());
    let (a, b, c) = (w.join("a", false), w.join("b", false), w.join("c", true));
    let (a_sid, a_camera) = camera(&mut w, a, proto::TrackSource::Camera);
    let (b_sid, b_camera) = camera(&mut w, b, proto::TrackSource::Camera);
    let (_, screen) = camera(&mut w, a, proto::TrackSource::ScreenShare);
    let mic = w.publish(b, MediaKind::Audio, "mic").unwrap();
    let mic = w.room.track_sids[&mic];
    let order = |w: &World| {
        let mut tracks = [a_camera, b_camera, screen, mic];
        tracks.sort_by_key(|track| std::cmp::Reverse(priority(w, c, *track)));
        tracks
    };
    want(&mut w, c, &a_sid, 1280, 720);
    want(&mut w, c, &b_sid, 320, 180);
    assert_eq!(order(&w), [mic, screen, a_camera, b_camera]);
    speak(&mut w, mic, ms(250));
    assert_eq!(order(&w), [mic, screen, a_camera, b_camera], "a cough");
    speak(&mut w, mic, ms(1000));
    assert_eq!(order(&w), [mic, screen, b_camera, a_camera]);
    w.wait(ms(60_000));
    assert_eq!(order(&w), [mic, screen, b_camera, a_camera], "who spoke last goes on to be looked at");
    // The client's own order counts among equals only.
    let own = proto::UpdateTrackSettings { priority: 200, ..settings(&a_sid, 100, 100) };
    w.signal(c, Asked::TrackSetting(own));
    assert_eq!(order(&w), [mic, screen, b_camera, a_camera]);
}

#[test]
fn targets_change_only_when_they_are_others() {
    let mut w = World::new(RoomConfig::default());
    let (a, b) = (w.join("a", false), w.join("b", false));
    let (sid, _) = camera(&mut w, a, proto::TrackSource::Camera);
    let mic = w.publish(a, MediaKind::Audio, "mic").unwrap();
    let mic = w.room.track_sids[&mic];
    want(&mut w, b, &sid, 640, 360);
    let before = w.shard.targets_set;
    want(&mut w, b, &sid, 640, 360);
    assert_eq!(w.shard.targets_set, before);
    speak(&mut w, mic, ms(30_000));
    assert_eq!(w.shard.targets_set, before + 1, "once, for the camera of who speaks");
}

#[test]
fn microphones_are_limited_and_music_is_not() {
    for (max, limited) in [(3, 1), (0, 0)] {
        let mut w = World::new(RoomConfig { max_forwarded_speakers: max, ..Default::default() });
        let a = w.join("a", true);
        w.publish(a, MediaKind::Audio, "mic").unwrap();
        let shared = proto::TrackSource::ScreenShareAudio as i32;
        let sound =
            proto::AddTrackRequest { source: shared, ..World::request(MediaKind::Audio, "sound", true) };
        let music = proto::AddTrackRequest {
            audio_features: vec![proto::AudioTrackFeature::TfStereo as i32],
            ..World::request(MediaKind::Audio, "music", true)
        };
        for request in [sound, music] {
            w.clients.get_mut(&a).unwrap().send(MediaKind::Audio, &request.cid);
            w.signal(a, Asked::AddTrack(request));
            w.offer(a);
            w.settle();
        }
        assert_eq!(w.shard.tracks.len(), 3);
        assert_eq!(w.shard.limited.values().filter(|have| **have == max).count(), limited);
        assert_eq!(w.shard.limited.len(), limited);
    }
}
