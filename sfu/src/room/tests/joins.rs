use std::time::Duration;

use livekit_protocol as proto;
use prost::Message as _;
use proto::leave_request::Action;
use proto::participant_info::State;
use proto::signal_request::Message as Asked;
use proto::signal_response::Message;
use sfu_control::messages::ErrorCode;
use sfu_control::token::{Claims, Secret, VideoGrants};
use sfu_media::command::{CloseReason, MediaKind, ShardEvent};

use super::world::{World, claims, grants};
use crate::room::{AdminRequest, RoomConfig, RoomInput, TurnConfig};

#[test]
fn a_token_must_let_its_holder_into_this_room() {
    for (video, identity) in [
        (VideoGrants { room_join: false, ..grants() }, "a"),
        (VideoGrants { room: "other".into(), ..grants() }, "a"),
        (VideoGrants { room: String::new(), ..grants() }, "a"),
        (grants(), ""),
    ] {
        let mut w = World::new(RoomConfig::default());
        w.join_as(claims(identity, video), World::open(false));
        assert_eq!(w.refused[0].1.code, ErrorCode::PermissionDenied as i32);
        assert!(w.room.participants().is_empty() && w.said.is_empty() && w.events.is_empty());
    }
}

#[test]
fn oversized_claims_and_unreadable_join_requests_are_refused() {
    let mut long = claims("a", grants());
    long.metadata = "x".repeat(70_000);
    let mut garbled = World::open(true);
    garbled.join_request = vec![0xff; 40].into();
    for (claims, open) in [(long, World::open(false)), (claims("a", grants()), garbled)] {
        let mut w = World::new(RoomConfig::default());
        w.join_as(claims, open);
        assert_eq!(w.refused.len(), 1);
        assert_eq!(w.refused[0].1.code, ErrorCode::InvalidArgument as i32);
    }
}

#[test]
fn the_join_response_has_what_sdks_need() {
    for single in [false, true] {
        let mut w = World::new(RoomConfig::default());
        w.join("a", false);
        let b = w.join("b", single);
        let join = w.heard(b, |m| match m {
            Message::Join(j) => Some(j.clone()),
            _ => None,
        });
        let join = &join[0];
        assert_eq!(join.participant.as_ref().unwrap().identity, "b");
        assert_eq!(join.other_participants.iter().map(|p| p.identity.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(join.subscriber_primary, !single);
        assert!(join.fast_publish && join.ping_interval > 0 && join.ping_timeout > join.ping_interval);
        assert!(!join.server_info.as_ref().unwrap().version.is_empty());
        assert!(join.enabled_publish_codecs.iter().any(|c| c.mime == "video/VP8"));
        assert!(join.sif_trailer.is_empty() && join.ice_servers.is_empty());
        let first = w.said.iter().find(|(to, _)| *to == b).map(|(_, m)| matches!(m, Message::Join(_)));
        assert_eq!(first, Some(true), "the join response comes first");
    }
}

#[test]
fn joins_and_resumes_get_turn_credentials() {
    let turn = TurnConfig {
        urls: vec!["turns:turn.example.org:443?transport=tcp".into()],
        secret: Secret::new("a-secret-of-the-turn-server"),
        life: Duration::from_secs(7200),
    };
    let mut w = World::new(RoomConfig { turn: Some(turn), ..Default::default() });
    let a = w.join("a", true);
    let servers = |m: &Message| match m {
        Message::Join(j) => Some(j.ice_servers.clone()),
        Message::Reconnect(r) => Some(r.ice_servers.clone()),
        _ => None,
    };
    let joined = w.heard(a, servers);
    let mut open = World::open(true);
    open.reconnect = true;
    open.participant_sid = w.sid(a);
    let again = w.join_as(claims("a", grants()), open);
    let resumed = w.heard(again, servers);
    for servers in [&joined[0], &resumed[0]] {
        assert_eq!(servers.len(), 1);
        assert!(!servers[0].credential.is_empty() && servers[0].username.starts_with("18000"));
        assert!(!servers[0].username.contains("visit"), "nothing of the room");
    }
    assert_ne!(joined[0][0].username, resumed[0][0].username);
}

#[test]
fn others_hear_of_joins_activity_and_leaves() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    w.hush();
    let b = w.join("b", true);
    let states: Vec<_> = w.updates(a).iter().filter(|p| p.identity == "b").map(|p| p.state).collect();
    assert_eq!(states, [State::Joined as i32, State::Active as i32]);
    let versions: Vec<_> = w.updates(a).iter().map(|p| p.version).collect();
    assert!(versions.is_sorted_by(|x, y| x < y), "{versions:?}");
    w.hush();
    w.signal(b, Asked::Leave(proto::LeaveRequest::default()));
    let update = w.updates(a);
    assert_eq!((update[0].identity.as_str(), update[0].state), ("b", State::Disconnected as i32));
    assert_eq!(w.events, ["participant_left"]);
    assert!(w.closed.contains(&b) && w.leaves(b).is_empty());
}

#[test]
fn a_second_join_of_one_identity_ends_the_first() {
    let mut w = World::new(RoomConfig::default());
    let old = w.join("a", false);
    let watcher = w.join("w", false);
    let old_peers = w.peers(old);
    w.hush();
    let new = w.join("a", true);
    let leave = &w.leaves(old)[0];
    assert_eq!(leave.reason, proto::DisconnectReason::DuplicateIdentity as i32);
    assert_eq!(leave.action, Action::Disconnect as i32);
    assert!(old_peers.iter().all(|peer| !w.shard.open.contains(peer)));
    assert_eq!(w.room.participants().len(), 2);
    let told = w.updates(watcher);
    assert_eq!(told[0].state, State::Disconnected as i32);
    assert_eq!(told[1].sid, w.sid(new), "first the old one goes, then the new one comes");
    assert!(w.updates(new).iter().all(|p| p.state != State::Disconnected as i32));
}

#[test]
fn hidden_participants_are_not_shown() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    w.publish(a, MediaKind::Audio, "mic");
    w.hush();
    let h = w.join_with("h", VideoGrants { hidden: true, ..grants() }, false);
    assert!(w.updates(a).is_empty());
    assert_eq!(w.receives(h), ["a"], "it may watch");
    w.signal(h, Asked::AddTrack(World::request(MediaKind::Video, "cam", true)));
    assert_eq!(w.refusals(h)[0].reason, proto::request_response::Reason::NotAllowed as i32);
    let b = w.join("b", false);
    let join = w.heard(b, |m| match m {
        Message::Join(j) => Some(j.other_participants.len()),
        _ => None,
    });
    assert_eq!(join, [1]);
    assert_eq!(w.room.info().num_participants, 2);
    assert_eq!(w.room.participants().len(), 3, "administrators see it");
    w.hush();
    w.signal(h, Asked::Leave(proto::LeaveRequest::default()));
    assert!(w.updates(a).is_empty() && w.updates(b).is_empty());
}

#[test]
fn a_full_room_refuses_but_takes_an_identity_back() {
    let mut w = World::new(RoomConfig { max_participants: 1, ..Default::default() });
    w.join("a", false);
    let b = w.join_as(claims("b", grants()), World::open(false));
    assert_eq!(w.refused[0].0, b);
    assert_eq!(w.refused[0].1.code, ErrorCode::ResourceExhausted as i32);
    w.join("a", false);
    assert_eq!(w.refused.len(), 1);
}

#[test]
fn v1_takes_tracks_and_offer_with_the_join() {
    let mut w = World::new(RoomConfig::default());
    let watcher = w.join("w", true);
    let mut client = super::client::Client::new("a", crate::room::SessionId(99), true);
    client.send(MediaKind::Video, "cam");
    let request = proto::JoinRequest {
        add_track_requests: vec![World::request(MediaKind::Video, "cam", true)],
        publisher_offer: Some(proto::SessionDescription {
            r#type: "offer".into(),
            sdp: client.offer(),
            id: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut open = World::open(true);
    open.join_request = request.encode_to_vec().into();
    let a = w.join_as(claims("a", grants()), open);
    w.settle();
    let answers = w.heard(a, |m| match m {
        Message::Answer(answer) => Some(answer.id),
        _ => None,
    });
    assert_eq!(answers, [1]);
    assert_eq!(w.receives(watcher), ["a"]);
}

#[test]
fn a_resume_keeps_participant_and_media() {
    for single in [false, true] {
        let mut w = World::new(RoomConfig::default());
        let a = w.join("a", single);
        let b = w.join("b", single);
        w.publish(b, MediaKind::Video, "cam").unwrap();
        assert_eq!(w.receives(a), ["b"]);
        let sid = w.sid(a);
        let peers = w.peers(a);
        w.input(RoomInput::SessionClosed { session: a });
        w.wait(Duration::from_secs(3600));
        assert_eq!(w.room.participants().len(), 2, "while its transport lives the participant stays");
        w.hush();
        let mut open = World::open(single);
        open.reconnect = true;
        open.participant_sid.clone_from(&sid);
        let again = w.join_as(claims("a", grants()), open);
        assert!(matches!(w.said.iter().find(|(to, _)| *to == again), Some((_, Message::Reconnect(_)))));
        let told = w.updates(again);
        assert!(told.iter().any(|p| p.identity == "b" && p.tracks.len() == 1));
        w.settle();
        assert_eq!(w.peers(again), peers);
        assert_eq!(w.receives(again), ["b"]);
        assert!(w.updates(b).is_empty(), "others do not notice");
    }
}

#[test]
fn an_ice_restart_gives_new_credentials_both_ways() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    let key = w.room.sessions[&a];
    let before = w.room.participants[&key].transports.publisher.ice.clone();
    w.clients.get_mut(&a).unwrap().ice += 1;
    w.hush();
    w.offer(a);
    let after = w.room.participants[&key].transports.publisher.ice.clone();
    assert_ne!(before, after);
    let answer = w.heard(a, |m| match m {
        Message::Answer(answer) => Some(answer.sdp.clone()),
        _ => None,
    });
    assert!(answer[0].contains(&after.ufrag) && !answer[0].contains(&before.ufrag));
}

#[test]
fn an_unknown_resume_is_sent_to_join_anew() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    for (identity, sid, single) in
        [("a", "PA_other".to_owned(), false), ("x", w.sid(a), false), ("a", w.sid(a), true)]
    {
        let mut open = World::open(single);
        open.reconnect = true;
        open.participant_sid = sid;
        let again = w.join_as(claims(identity, grants()), open);
        let leave = &w.leaves(again)[0];
        assert_eq!(leave.action, Action::Reconnect as i32);
        assert_eq!(leave.reason, proto::DisconnectReason::StateMismatch as i32);
        assert!(w.closed.contains(&again) && w.refused.is_empty());
    }
    assert_eq!(w.room.participants().len(), 1, "the participant itself is not touched");
    assert!(w.leaves(a).is_empty());
}

#[test]
fn sync_state_with_unknown_tracks_means_a_new_join() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let sid = w.publish(a, MediaKind::Audio, "mic").unwrap();
    let publish = |sid: &str| proto::TrackPublishedResponse {
        cid: "mic".into(),
        track: Some(proto::TrackInfo { sid: sid.into(), ..Default::default() }),
    };
    let state = proto::SyncState { publish_tracks: vec![publish(&sid)], ..Default::default() };
    w.signal(a, Asked::SyncState(state));
    assert!(w.leaves(a).is_empty());
    let state = proto::SyncState { publish_tracks: vec![publish("TR_gone")], ..Default::default() };
    w.signal(a, Asked::SyncState(state));
    assert_eq!(w.leaves(a)[0].action, Action::Reconnect as i32);
    assert!(w.room.participants().is_empty());
}

#[test]
fn a_lost_transport_sends_the_client_to_join_anew() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let peer = w.peers(a)[0];
    w.lose_peer(peer, CloseReason::ConsentExpired);
    assert_eq!(w.leaves(a)[0].action, Action::Reconnect as i32);
    assert!(w.shard.open.is_empty(), "its other connection ends as well");
}

#[test]
fn without_signalling_and_transport_a_participant_goes_after_a_while() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    let b = w.join("b", true);
    w.publish(a, MediaKind::Audio, "mic");
    let peer = w.peers(a)[0];
    w.input(RoomInput::SessionClosed { session: a });
    w.lose_peer(peer, CloseReason::ConsentExpired);
    assert!(w.receives(b).is_empty());
    w.wait(Duration::from_secs(19));
    assert_eq!(w.room.participants().len(), 2);
    w.wait(Duration::from_secs(2));
    assert_eq!(w.room.participants().len(), 1);
}

#[test]
fn who_never_connects_goes_and_an_empty_room_ends() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join_as(claims("a", grants()), World::open(false));
    w.wait(Duration::from_secs(59));
    assert_eq!(w.room.participants().len(), 1);
    w.wait(Duration::from_secs(2));
    assert!(w.room.participants().is_empty() && w.closed.contains(&a));
    assert!(!w.finished);
    w.wait(Duration::from_secs(20));
    assert!(w.finished && w.room.poll_timeout().is_none());
    assert_eq!(w.events, ["room_started", "participant_joined", "participant_left", "room_finished"]);
    assert_eq!(w.room_is_over().code, ErrorCode::Unavailable as i32);
}

#[test]
fn a_room_that_nobody_joins_ends() {
    let mut w = World::new(RoomConfig::default());
    w.wait(Duration::from_secs(299));
    assert!(!w.finished);
    w.wait(Duration::from_secs(1));
    assert!(w.finished && w.events.is_empty());
}

#[test]
fn pings_are_answered_in_both_forms() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    w.hush();
    w.signal(a, Asked::Ping(5));
    w.signal(a, Asked::PingReq(proto::Ping { timestamp: 77, rtt: 3 }));
    assert!(matches!(w.said[0].1, Message::Pong(_)));
    assert!(matches!(&w.said[1].1, Message::PongResp(p) if p.last_ping_timestamp == 77));
}

#[test]
fn own_metadata_needs_the_grant_and_has_limits() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join_with("b", VideoGrants { can_update_own_metadata: Some(true), ..grants() }, false);
    let update = |metadata: &str, id| {
        Asked::UpdateMetadata(proto::UpdateParticipantMetadata {
            metadata: metadata.into(),
            name: "new".into(),
            attributes: [("k".to_owned(), "v".to_owned())].into(),
            request_id: id,
        })
    };
    w.hush();
    w.signal(a, update("m", 1));
    w.signal(b, update(&"m".repeat(70_000), 2));
    w.signal(b, update("m", 3));
    let reason = |s, i: usize| w.refusals(s)[i].reason;
    use proto::request_response::Reason;
    assert_eq!(reason(a, 0), Reason::NotAllowed as i32);
    assert_eq!((reason(b, 0), reason(b, 1)), (Reason::LimitExceeded as i32, Reason::Ok as i32));
    let told = w.updates(a);
    assert_eq!((told.len(), told[0].name.as_str(), told[0].metadata.as_str()), (1, "new", "m"));
    assert_eq!(told[0].attributes["k"], "v");
}

#[test]
fn malformed_descriptions_are_refused_and_the_call_goes_on() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    w.publish(a, MediaKind::Audio, "mic");
    w.hush();
    for sdp in ["", "v=0", "\r\n\r\n", "m=audio"] {
        let sd = proto::SessionDescription { sdp: sdp.into(), ..Default::default() };
        w.signal(a, Asked::Offer(sd.clone()));
        w.signal(b, Asked::Answer(sd));
    }
    assert_eq!(w.refusals(a).len(), 4);
    assert_eq!(w.receives(b), ["a"]);
}

#[test]
fn messages_of_unknown_sessions_and_events_of_unknown_peers_do_nothing() {
    let mut w = World::new(RoomConfig::default());
    w.join("a", false);
    w.hush();
    let session = crate::room::SessionId(4711);
    w.signal(session, Asked::Leave(proto::LeaveRequest::default()));
    w.input(RoomInput::SessionClosed { session });
    let peer = sfu_media::ids::PeerId(4711);
    w.input(RoomInput::Shard(ShardEvent::PeerConnected { peer }));
    w.input(RoomInput::Shard(ShardEvent::PeerClosed { peer, reason: CloseReason::RemoteClosed }));
    assert!(w.said.is_empty() && w.room.participants().len() == 1);
}

#[test]
fn a_resumed_client_learns_who_left_meanwhile_and_of_nobody_before_it_came() {
    let mut w = World::new(RoomConfig::default());
    let early = w.join("early", true);
    w.input(RoomInput::Admin {
        call: crate::room::CallId(1),
        request: crate::room::AdminRequest::RemoveParticipant(proto::RoomParticipantIdentity {
            identity: "early".into(),
            ..Default::default()
        }),
    });
    assert!(w.closed.contains(&early));
    w.wait(Duration::from_secs(1));
    let a = w.join("a", true);
    let leaver = w.join("leaver", true);
    let back = w.join("back", true);
    let sid = w.sid(a);
    w.input(RoomInput::SessionClosed { session: a });
    let leave = || Asked::Leave(proto::LeaveRequest::default());
    w.signal(leaver, leave());
    w.signal(back, leave());
    w.join("back", true);
    let open =
        sfu_control::messages::SessionOpen { reconnect: true, participant_sid: sid, ..World::open(true) };
    let again = w.join_as(claims("a", grants()), open);
    let told = w.updates(again);
    let states = |identity: &str| -> Vec<_> {
        told.iter().filter(|p| p.identity == identity).map(|p| p.state()).collect()
    };
    assert_eq!(states("leaver"), [State::Disconnected]);
    assert_eq!(states("back"), [State::Active], "who is here is not said to be gone");
    assert!(states("early").is_empty());
}

#[test]
fn a_refused_join_leaves_no_room_behind() {
    let mut w = World::new(RoomConfig::default());
    let other = VideoGrants { room: "another".into(), ..grants() };
    w.join_as(claims("a", other.clone()), World::open(true));
    assert!(w.finished && w.refused.len() == 1);
    assert!(w.events.is_empty(), "it never began");
    // One that an administrator made stays, and so does one that somebody was in.
    let mut w = World::new(RoomConfig::default());
    w.admin(AdminRequest::CreateRoom(proto::CreateRoomRequest::default())).unwrap();
    w.join_as(claims("a", other.clone()), World::open(true));
    let b = w.join("b", true);
    w.signal(b, proto::signal_request::Message::Leave(proto::LeaveRequest::default()));
    w.join_as(claims("a", other), World::open(true));
    assert!(!w.finished);
}

#[test]
fn nobody_notices_who_is_hidden() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    w.hush();
    w.join_with("ghost", VideoGrants { hidden: true, ..grants() }, true);
    assert!(w.heard(a, |m| Some(format!("{m:?}"))).is_empty());
    w.join_with("recorder", VideoGrants { hidden: true, recorder: true, ..grants() }, true);
    let recording = w.heard(a, |m| match m {
        Message::RoomUpdate(update) => update.room.as_ref().map(|room| room.active_recording),
        _ => None,
    });
    assert_eq!(recording, [true]);
}

#[test]
fn a_roster_with_much_metadata_comes_in_portions() {
    let mut w = World::new(RoomConfig::default());
    for i in 0..30 {
        let metadata = "m".repeat(60_000);
        w.join_as(Claims { metadata, ..claims(&format!("p{i}"), grants()) }, World::open(true));
    }
    w.hush();
    let late = w.join_as(claims("late", grants()), World::open(true));
    let sizes = |w: &World, to| -> (usize, usize) {
        let sizes: Vec<_> = w.heard(to, |m| {
            let response = proto::SignalResponse { message: Some(m.clone()) };
            Some(prost::Message::encoded_len(&response))
        });
        (sizes.iter().copied().max().unwrap_or(0), sizes.iter().sum())
    };
    let (largest, all) = sizes(&w, late);
    assert!(largest < sfu_control::messages::MAX_FRAME * 3 / 4 && all > 30 * 60_000, "{largest} of {all}");
    let joined = w.heard(late, |m| match m {
        Message::Join(join) => Some(join.other_participants.len()),
        _ => None,
    });
    let told = w.updates(late).iter().filter(|p| p.identity.starts_with('p')).count();
    assert!(joined[0] < 30 && joined[0] + told == 30, "{joined:?} and {told}");
    let sid = w.sid(late);
    let open =
        sfu_control::messages::SessionOpen { reconnect: true, participant_sid: sid, ..World::open(true) };
    w.hush();
    let again = w.join_as(claims("late", grants()), open);
    let (largest, all) = sizes(&w, again);
    assert!(largest < sfu_control::messages::MAX_FRAME * 3 / 4 && all > 30 * 60_000, "{largest} of {all}");
}
