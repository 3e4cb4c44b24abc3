use livekit_protocol as proto;
use proto::request_response::Reason;
use proto::signal_request::Message as Asked;
use proto::signal_response::Message;
use sfu_control::token::VideoGrants;
use sfu_media::command::{AudioLevel, Codec, MediaKind, PeerQuality, ShardEvent};
use sfu_media::ids::Ssrc;
use std::time::Duration;

use super::world::{World, grants};
use crate::room::{E2eePolicy, RoomConfig, RoomInput};

#[test]
fn a_published_track_reaches_everybody_in_both_protocols() {
    for single in [false, true] {
        let mut w = World::new(RoomConfig::default());
        let a = w.join("a", single);
        let b = w.join("b", !single);
        w.hush();
        let audio = w.publish(a, MediaKind::Audio, "mic").unwrap();
        let video = w.publish(a, MediaKind::Video, "cam").unwrap();
        assert_eq!(w.receives(b), ["a", "a"]);
        let last = w.updates(b).pop().unwrap();
        let shown: Vec<_> = last.tracks.iter().map(|t| (t.sid.clone(), t.mime_type.as_str())).collect();
        assert_eq!(shown, [(audio, "audio/opus"), (video.clone(), "video/VP8")]);
        assert!(last.tracks.iter().all(|t| !t.mid.is_empty() && !t.codecs[0].mime_type.is_empty()));
        let late = w.join("late", single);
        assert_eq!(w.receives(late), ["a", "a"]);
        let first = w.heard(a, |m| match m {
            Message::TrackSubscribed(t) => Some(t.track_sid.clone()),
            _ => None,
        });
        assert_eq!(first.len(), 2, "told once a track, not once a subscriber");
        let quality = w.heard(a, |m| match m {
            Message::SubscribedQualityUpdate(q) => Some(q.clone()),
            _ => None,
        });
        assert_eq!(
            (quality[0].track_sid.as_str(), quality[0].subscribed_codecs[0].codec.as_str()),
            (&*video, "vp8")
        );
        assert!(quality[0].subscribed_codecs[0].qualities.iter().all(|q| q.enabled));
        assert!(w.events.iter().filter(|e| *e == "track_published").count() == 2);
    }
}

#[test]
fn the_roster_is_told_before_the_offer() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    w.hush();
    w.publish(a, MediaKind::Audio, "mic");
    let update = w.said.iter().position(|(to, m)| *to == b && matches!(m, Message::Update(_)));
    let offer = w.said.iter().position(|(to, m)| *to == b && matches!(m, Message::Offer(_)));
    assert!(update.unwrap() < offer.unwrap());
}

#[test]
fn one_offer_at_a_time_and_later_changes_go_into_the_next() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    let b = w.join("b", false);
    w.hush();
    for cid in ["1", "2", "3"] {
        w.signal(a, Asked::AddTrack(World::request(MediaKind::Audio, cid, true)));
        w.clients.get_mut(&a).unwrap().send(MediaKind::Audio, cid);
        w.offer(a);
    }
    let offers = |w: &World| w.heard(b, |m| matches!(m, Message::Offer(_)).then_some(())).len();
    assert_eq!(offers(&w), 1);
    assert!(w.receives(b).is_empty(), "nothing is sent before the answer");
    w.settle();
    assert_eq!(offers(&w), 2);
    assert_eq!(w.receives(b).len(), 3);
}

#[test]
fn a_v1_client_is_asked_once_for_the_sections_that_lack() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", true);
    w.hush();
    for cid in ["1", "2", "3"] {
        w.signal(a, Asked::AddTrack(World::request(MediaKind::Video, cid, true)));
        w.clients.get_mut(&a).unwrap().send(MediaKind::Video, cid);
        w.offer(a);
    }
    let asked = w.heard(b, |m| match m {
        Message::MediaSectionsRequirement(r) => Some(r.num_videos),
        _ => None,
    });
    // It has one free section; the first request is only for an offer.
    assert_eq!(asked.iter().sum::<u32>(), 2, "{asked:?}");
    w.settle();
    assert_eq!(w.receives(b).len(), 3);
}

#[test]
fn unencrypted_tracks_are_refused_with_a_reason() {
    for (e2ee, refused) in [(E2eePolicy::Required, true), (E2eePolicy::Optional, false)] {
        let mut w = World::new(RoomConfig { e2ee, ..Default::default() });
        let a = w.join("a", true);
        let b = w.join("b", false);
        w.hush();
        w.signal(a, Asked::AddTrack(World::request(MediaKind::Video, "cam", false)));
        w.clients.get_mut(&a).unwrap().send(MediaKind::Video, "cam");
        w.offer(a);
        w.settle();
        assert_eq!(w.receives(b).is_empty(), refused);
        assert_eq!(w.shard.tracks.is_empty(), refused);
        if refused {
            let refusal = &w.refusals(a)[0];
            assert_eq!(refusal.reason, Reason::NotAllowed as i32);
            assert!(refusal.message.contains("end-to-end encryption"));
            // Its section stays without a track, whatever is announced later.
            let sid = w.publish(a, MediaKind::Video, "cam2").unwrap();
            let mid =
                w.room.participants().into_iter().find(|p| p.identity == "a").unwrap().tracks[0].mid.clone();
            assert_eq!(mid, "3", "{sid}: not the section of the refused track");
        }
    }
}

#[test]
fn grants_limit_what_is_published() {
    let only_mic = VideoGrants { can_publish_sources: vec![proto::TrackSource::Microphone], ..grants() };
    let nothing = VideoGrants { can_publish: Some(false), ..grants() };
    for (video, audio_ok) in [(only_mic, true), (nothing, false)] {
        let mut w = World::new(RoomConfig::default());
        let a = w.join_with("a", video, false);
        let b = w.join("b", false);
        w.hush();
        assert_eq!(w.publish(a, MediaKind::Audio, "mic").is_some(), audio_ok);
        assert!(w.publish(a, MediaKind::Video, "cam").is_none());
        assert_eq!(w.receives(b).len(), usize::from(audio_ok));
        assert_eq!(w.refusals(a).last().unwrap().reason, Reason::NotAllowed as i32);
    }
}

#[test]
fn without_the_grant_nothing_is_received() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let sid = w.publish(a, MediaKind::Audio, "mic").unwrap();
    for single in [false, true] {
        let b = w.join_with("b", VideoGrants { can_subscribe: Some(false), ..grants() }, single);
        w.signal(
            b,
            Asked::Subscription(proto::UpdateSubscription {
                track_sids: vec![sid.clone()],
                subscribe: true,
                participant_tracks: vec![],
            }),
        );
        w.settle();
        assert!(w.receives(b).is_empty());
    }
}

#[test]
fn bad_track_requests_get_a_reason() {
    let mut w = World::new(RoomConfig { max_tracks_per_participant: 1, ..Default::default() });
    let a = w.join("a", false);
    w.hush();
    let good = World::request(MediaKind::Audio, "mic", true);
    let data = proto::AddTrackRequest { r#type: proto::TrackType::Data as i32, ..good.clone() };
    let bogus = proto::AddTrackRequest { r#type: 99, ..good.clone() };
    let backup = proto::AddTrackRequest { sid: "TR_x".into(), ..good.clone() };
    let nameless = proto::AddTrackRequest { cid: String::new(), ..good.clone() };
    let odd = proto::AddTrackRequest { encryption: 99, ..good.clone() };
    let second = proto::AddTrackRequest { cid: "mic2".into(), ..good.clone() };
    for request in [data, bogus, backup, nameless, odd, good.clone(), good, second] {
        w.signal(a, Asked::AddTrack(request));
    }
    let reasons: Vec<_> = w.refusals(a).iter().map(|r| r.reason).collect();
    let want = [
        Reason::UnsupportedType,
        Reason::UnsupportedType,
        Reason::UnsupportedType,
        Reason::InvalidRequest,
        Reason::NotAllowed,
        Reason::LimitExceeded,
    ];
    assert_eq!(reasons, want.map(|r| r as i32));
    let sids = w.heard(a, |m| match m {
        Message::TrackPublished(t) => Some(t.track.as_ref()?.sid.clone()),
        _ => None,
    });
    assert_eq!(sids.len(), 2);
    assert_eq!(sids[0], sids[1], "announced twice is one track");
}

#[test]
fn firefox_names_its_tracks_otherwise() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    w.signal(a, Asked::AddTrack(World::request(MediaKind::Audio, "mic", true)));
    w.signal(a, Asked::AddTrack(World::request(MediaKind::Video, "cam", true)));
    let client = w.clients.get_mut(&a).unwrap();
    client.send(MediaKind::Video, "{uuid-1}");
    client.send(MediaKind::Audio, "{uuid-2}");
    w.offer(a);
    w.settle();
    assert_eq!(w.receives(b).len(), 2);
    let kinds: Vec<_> = w.room.tracks.values().map(|t| (t.info.source, t.info.mid.as_str())).collect();
    assert_eq!(
        kinds,
        [(proto::TrackSource::Microphone as i32, "1"), (proto::TrackSource::Camera as i32, "0")]
    );
}

#[test]
fn an_offer_may_come_before_its_track() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    w.clients.get_mut(&a).unwrap().send(MediaKind::Video, "cam");
    w.offer(a);
    assert!(w.shard.tracks.is_empty());
    w.signal(a, Asked::AddTrack(World::request(MediaKind::Video, "cam", true)));
    w.settle();
    assert_eq!(w.receives(b), ["a"]);
}

#[test]
fn mute_unpublish_and_leave_take_effect_in_the_same_step() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", true);
    let sid = w.publish(a, MediaKind::Audio, "mic").unwrap();
    w.publish(a, MediaKind::Video, "cam").unwrap();
    w.hush();
    w.signal(a, Asked::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted: true }));
    let muted = |w: &World| w.shard.tracks.values().filter(|(_, p)| p.muted).count();
    assert_eq!(muted(&w), 1);
    assert!(w.updates(b)[0].tracks.iter().any(|t| t.sid == sid && t.muted));
    w.signal(b, Asked::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted: false }));
    assert_eq!(muted(&w), 1, "nobody unmutes another's track");
    w.signal(a, Asked::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted: false }));
    assert_eq!(muted(&w), 0);
    w.hush();
    w.clients.get_mut(&a).unwrap().stop("mic");
    w.offer(a);
    assert_eq!((w.shard.tracks.len(), w.shard.subs.len()), (1, 1));
    assert!(w.updates(b)[0].tracks.iter().all(|t| t.sid != sid));
    assert_eq!(w.events, ["track_unpublished"]);
    w.settle();
    w.signal(a, Asked::Leave(proto::LeaveRequest::default()));
    assert!(w.shard.tracks.is_empty() && w.shard.subs.is_empty());
}

#[test]
fn a_track_published_again_uses_the_free_section() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", true);
    for round in 0..4 {
        let cid = format!("cam{round}");
        w.publish(a, MediaKind::Video, &cid).unwrap();
        assert_eq!(w.receives(b), ["a"], "round {round}");
        w.clients.get_mut(&a).unwrap().stop(&cid);
        w.offer(a);
        w.settle();
        assert!(w.receives(b).is_empty());
    }
    assert!(w.clients[&b].sections.len() <= 4, "sections do not pile up: {}", w.clients[&b].sections.len());
}

#[test]
fn clients_choose_their_tracks() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let sid = w.publish(a, MediaKind::Video, "cam").unwrap();
    let b = w.join("b", false);
    w.hush();
    let choose = |sids: &[&str], subscribe| {
        Asked::Subscription(proto::UpdateSubscription {
            track_sids: sids.iter().map(|s| (*s).to_owned()).collect(),
            subscribe,
            participant_tracks: vec![],
        })
    };
    w.signal(b, choose(&[&sid], false));
    assert!(w.shard.subs.is_empty());
    w.settle();
    w.signal(b, choose(&[&sid, "TR_none"], true));
    w.settle();
    assert_eq!(w.receives(b), ["a"]);
    let errors = w.heard(b, |m| match m {
        Message::SubscriptionResponse(r) => Some((r.track_sid.clone(), r.err)),
        _ => None,
    });
    assert_eq!(errors, [("TR_none".to_owned(), proto::SubscriptionError::SeTrackNotfound as i32)]);
}

#[test]
fn track_settings_become_targets() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let mut request = World::request(MediaKind::Video, "cam", true);
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
    w.signal(a, Asked::AddTrack(request));
    w.clients.get_mut(&a).unwrap().send(MediaKind::Video, "cam");
    w.offer(a);
    let b = w.join("b", false);
    let sid = w.room.track_sids.keys().next().unwrap().clone();
    let set = |width, height, disabled| {
        Asked::TrackSetting(proto::UpdateTrackSettings {
            track_sids: vec![sid.clone()],
            width,
            height,
            disabled,
            ..Default::default()
        })
    };
    let target = |w: &World| w.shard.subs.values().next().unwrap().2;
    w.signal(b, set(600, 300, false));
    assert_eq!(target(&w).max_spatial, 1);
    w.signal(b, set(600, 300, true));
    assert!(!target(&w).enabled);
    w.signal(
        a,
        Asked::UpdateVideoTrack(proto::UpdateLocalVideoTrack {
            track_sid: sid.clone(),
            width: 320,
            height: 180,
        }),
    );
    w.signal(b, set(300, 150, false));
    assert_eq!(target(&w).max_spatial, 2, "the picture is smaller now");
}

#[test]
fn publishers_choose_their_subscribers() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    let c = w.join("c", true);
    w.publish(a, MediaKind::Video, "cam").unwrap();
    w.hush();
    let only_b = proto::SubscriptionPermission {
        all_participants: false,
        track_permissions: vec![proto::TrackPermission {
            participant_identity: "b".into(),
            all_tracks: true,
            ..Default::default()
        }],
    };
    w.signal(a, Asked::SubscriptionPermission(only_b));
    assert_eq!((w.receives(b).len(), w.receives(c).len()), (1, 0), "in the same step");
    let told = |w: &World, s| {
        w.heard(s, |m| match m {
            Message::SubscriptionPermissionUpdate(u) => Some(u.allowed),
            _ => None,
        })
    };
    assert_eq!((told(&w, b), told(&w, c)), (vec![], vec![false]));
    w.settle();
    let all = proto::SubscriptionPermission { all_participants: true, track_permissions: vec![] };
    w.signal(a, Asked::SubscriptionPermission(all));
    w.settle();
    assert_eq!(told(&w, c), [false, true]);
    assert_eq!(w.receives(c), ["a"]);
}

#[test]
fn media_without_the_trailer_is_reported() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let sid = w.publish(a, MediaKind::Video, "cam").unwrap();
    w.hush();
    let track = w.room.track_sids[&sid];
    w.input(RoomInput::Shard(ShardEvent::NotEncrypted { track }));
    assert_eq!(w.events, ["media_not_encrypted"]);
    assert!(w.refusals(a)[0].message.contains(&sid));
}

#[test]
fn the_codec_of_the_media_corrects_the_roster() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    let sid = w.publish(a, MediaKind::Video, "cam").unwrap();
    w.hush();
    let track = w.room.track_sids[&sid];
    let live = |codec| ShardEvent::LayerLive { track, spatial: 0, ssrc: Ssrc(1), codec };
    w.input(RoomInput::Shard(live(Codec::H264)));
    assert_eq!(w.updates(b)[0].tracks[0].mime_type, "video/H264");
    w.hush();
    w.input(RoomInput::Shard(live(Codec::H264)));
    assert!(w.said.is_empty());
}

#[test]
fn speakers_are_told_when_they_change() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    let sid = w.publish(a, MediaKind::Audio, "mic").unwrap();
    let track = w.room.track_sids[&sid];
    w.hush();
    let speak = |w: &mut World, level| {
        w.elapsed += Duration::from_millis(250);
        w.input(RoomInput::Shard(ShardEvent::AudioLevels(vec![AudioLevel {
            track,
            level,
            active_percent: 90,
        }])));
    };
    for _ in 0..20 {
        speak(&mut w, 10);
    }
    let told = |w: &World| {
        w.heard(b, |m| match m {
            Message::SpeakersChanged(s) => Some(s.speakers.clone()),
            _ => None,
        })
    };
    let speakers = told(&w);
    assert!(!speakers.is_empty() && speakers.len() < 5, "changes only: {}", speakers.len());
    assert!(speakers.iter().flatten().all(|s| s.active && s.sid == w.sid(a)));
    w.hush();
    w.wait(Duration::from_secs(1));
    let stopped = told(&w);
    assert_eq!(stopped.len(), 1);
    assert!(!stopped[0][0].active && stopped[0][0].level == 0.0);
    // A muted track does not speak.
    w.signal(a, Asked::Mute(proto::MuteTrackRequest { sid, muted: true }));
    w.hush();
    speak(&mut w, 10);
    assert!(told(&w).is_empty());
}

#[test]
fn grades_are_told_when_they_change() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    let b = w.join("b", true);
    w.hush();
    let peer = w.peers(a)[0];
    let report = |lost, heard| {
        RoomInput::Shard(ShardEvent::Quality(vec![PeerQuality {
            peer,
            heard,
            up_expected: 100,
            up_lost: lost,
            down_sent: 0,
            down_lost: 0,
            rtt: Some(Duration::from_millis(30)),
            jitter: Duration::ZERO,
        }]))
    };
    let mut grades = Vec::new();
    let rounds = [(0, true), (0, true), (30, true), (0, true), (0, true), (0, true), (0, true)];
    for (lost, heard) in rounds.into_iter().chain([(0, false); 3]) {
        w.input(report(lost, heard));
        w.wait(Duration::from_secs(5));
        grades.extend(w.heard(b, |m| match m {
            Message::ConnectionQuality(q) => Some(q.updates.iter().map(|u| u.quality).collect::<Vec<_>>()),
            _ => None,
        }));
        w.hush();
    }
    use proto::ConnectionQuality::{Excellent, Good, Lost, Poor};
    let want = [Excellent, Poor, Good, Excellent, Poor, Lost];
    assert_eq!(grades, want.map(|q| vec![q as i32]), "quick down, slow up, lost when silent");
}

#[test]
fn a_subscriber_that_takes_its_codec_back_is_sent_nothing() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", true);
    let sid = w.publish(a, MediaKind::Video, "cam").unwrap();
    assert_eq!(w.receives(b), ["a"]);
    let sdp = w.clients.get_mut(&b).unwrap().offer().replace("VP8/90000", "VP9/90000");
    w.signal(
        b,
        Asked::Offer(proto::SessionDescription { r#type: "offer".into(), sdp, ..Default::default() }),
    );
    assert!(w.receives(b).is_empty(), "nothing could end it any more");
    let errors = w.heard(b, |m| match m {
        Message::SubscriptionResponse(r) => Some((r.track_sid.clone(), r.err)),
        _ => None,
    });
    assert_eq!(errors, [(sid, proto::SubscriptionError::SeCodecUnsupported as i32)]);
}

#[test]
fn a_subscriber_that_rejects_its_section_is_sent_nothing() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    w.publish(a, MediaKind::Video, "cam").unwrap();
    assert_eq!(w.receives(b), ["a"]);
    w.hush();
    w.signal(a, Asked::AddTrack(World::request(MediaKind::Audio, "mic", true)));
    w.clients.get_mut(&a).unwrap().send(MediaKind::Audio, "mic");
    w.offer(a);
    let offers = w.heard(b, |m| match m {
        Message::Offer(offer) => Some(offer.sdp.clone()),
        _ => None,
    });
    let sdp = w.clients[&b].answer(&offers[0]);
    let sdp = sdp.replace("m=video 9", "m=video 0").replace("BUNDLE 0 1 2", "BUNDLE 0 2");
    w.signal(
        b,
        Asked::Answer(proto::SessionDescription { r#type: "answer".into(), sdp, ..Default::default() }),
    );
    let kinds: Vec<_> = w.shard.subs.values().map(|(track, ..)| w.room.tracks[track].kind).collect();
    assert_eq!(kinds, [MediaKind::Audio]);
}

#[test]
fn a_permitted_source_permits_only_its_kind() {
    use proto::TrackSource::{Camera, Microphone, ScreenShare, ScreenShareAudio};
    for (kind, source, refused) in [
        (MediaKind::Audio, Microphone, false),
        (MediaKind::Audio, ScreenShareAudio, false),
        (MediaKind::Video, Camera, false),
        (MediaKind::Video, ScreenShare, false),
        (MediaKind::Video, Microphone, true),
        (MediaKind::Video, ScreenShareAudio, true),
        (MediaKind::Audio, Camera, true),
        (MediaKind::Audio, ScreenShare, true),
    ] {
        let mut w = World::new(RoomConfig::default());
        let a = w.join_with("a", VideoGrants { can_publish_sources: vec![source], ..grants() }, true);
        let request = proto::AddTrackRequest { source: source as i32, ..World::request(kind, "track", true) };
        w.signal(a, Asked::AddTrack(request));
        assert_eq!(w.refusals(a).len(), usize::from(refused), "{kind:?} {source:?}");
    }
}

#[test]
fn frames_that_alternate_do_not_flood_the_event_feed() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    w.publish(a, MediaKind::Audio, "mic").unwrap();
    let track = *w.room.tracks.keys().next().unwrap();
    w.hush();
    for _ in 0..100 {
        w.input(RoomInput::Shard(ShardEvent::NotEncrypted { track }));
    }
    assert_eq!((w.events.len(), w.refusals(a).len()), (1, 1));
    w.wait(Duration::from_secs(11));
    w.input(RoomInput::Shard(ShardEvent::NotEncrypted { track }));
    assert_eq!(w.events.len(), 2);
}

#[test]
fn pauses_are_told_once_and_again_after_a_resume_and_end_with_a_mute() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", true);
    let sid = w.publish(a, MediaKind::Video, "cam").unwrap();
    let track = w.room.track_sids[&sid];
    let sub = *w.shard.subs.keys().next().unwrap();
    w.hush();
    let told = |w: &mut World, to| {
        let states = w.heard(to, |m| match m {
            Message::StreamStateUpdate(update) => Some(update.stream_states.clone()),
            _ => None,
        });
        w.hush();
        states.concat().into_iter().map(|s| (s.track_sid, s.state)).collect::<Vec<_>>()
    };
    let state = |state: proto::StreamState| vec![(sid.clone(), state as i32)];
    let (paused, active) = (state(proto::StreamState::Paused), state(proto::StreamState::Active));
    let say = |w: &mut World, sub, paused| {
        w.input(RoomInput::Shard(ShardEvent::StreamPaused { track, sub, paused }));
    };
    say(&mut w, sub, true);
    assert_eq!(told(&mut w, b), paused);
    say(&mut w, sub, true);
    say(&mut w, sfu_media::ids::SubId(999), true);
    assert!(told(&mut w, b).is_empty());
    // Its page shows a muted camera then.
    let mute = |muted| Asked::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted });
    w.signal(a, mute(true));
    assert_eq!(told(&mut w, b), active);
    w.signal(a, mute(false));
    assert_eq!(told(&mut w, b), paused);
    // What happened while it was away is told when it is back.
    let participant_sid = w.sid(b);
    w.input(RoomInput::SessionClosed { session: b });
    say(&mut w, sub, false);
    let open = sfu_control::messages::SessionOpen { reconnect: true, participant_sid, ..World::open(true) };
    let b = w.join_as(super::world::claims("b", grants()), open);
    assert_eq!(told(&mut w, b), active);
    say(&mut w, sub, true);
    w.hush();
    // A new subscription starts unpaused; late news of the old one are not for it.
    for subscribe in [false, true] {
        let choose =
            proto::UpdateSubscription { track_sids: vec![sid.clone()], subscribe, ..Default::default() };
        w.signal(b, Asked::Subscription(choose));
        w.settle();
    }
    say(&mut w, sub, false);
    assert_eq!(w.receives(b), ["a"]);
    assert!(told(&mut w, b).is_empty());
}
