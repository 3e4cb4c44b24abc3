use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message;
use sfu_control::messages::ErrorCode;
use sfu_media::command::{DataLabel, MediaKind};

use super::world::{World, grants};
use crate::room::{AdminRequest, RoomConfig};

fn who(identity: &str) -> proto::RoomParticipantIdentity {
    proto::RoomParticipantIdentity { identity: identity.into(), ..Default::default() }
}

#[test]
fn create_room_sets_limits_and_metadata() {
    let mut w = World::new(RoomConfig::default());
    let request = proto::CreateRoomRequest {
        metadata: "m".into(),
        max_participants: 2,
        empty_timeout: 7,
        departure_timeout: 3,
        ..Default::default()
    };
    let reply = w.admin(AdminRequest::CreateRoom(request)).unwrap();
    let room = proto::Room::decode(reply).unwrap();
    assert!(room.sid.starts_with("RM_") && room.name == "visit" && room.metadata == "m");
    assert_eq!((room.max_participants, room.empty_timeout, room.departure_timeout), (2, 7, 3));
    w.wait(std::time::Duration::from_secs(7));
    assert!(w.finished);
    assert_eq!(w.events, ["room_started", "room_finished"]);
}

#[test]
fn delete_room_sends_everybody_away() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    w.admin(AdminRequest::DeleteRoom(Default::default())).unwrap();
    assert_eq!(w.leaves(a)[0].reason, proto::DisconnectReason::RoomDeleted as i32);
    assert!(w.finished && w.shard.open.is_empty());
    let error = w.room_is_over();
    assert_eq!(error.code, ErrorCode::Unavailable as i32);
}

#[test]
fn participants_are_listed_found_and_removed() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    w.join("b", false);
    let list = w.admin(AdminRequest::ListParticipants(Default::default())).unwrap();
    assert_eq!(proto::ListParticipantsResponse::decode(list).unwrap().participants.len(), 2);
    let one = w.admin(AdminRequest::GetParticipant(who("a"))).unwrap();
    assert_eq!(proto::ParticipantInfo::decode(one).unwrap().sid, w.sid(a));
    for request in [
        AdminRequest::GetParticipant(who("x")),
        AdminRequest::RemoveParticipant(who("x")),
        AdminRequest::UpdateParticipant(proto::UpdateParticipantRequest {
            identity: "x".into(),
            ..Default::default()
        }),
        AdminRequest::MutePublishedTrack(proto::MuteRoomTrackRequest {
            identity: "a".into(),
            ..Default::default()
        }),
        AdminRequest::UpdateSubscriptions(proto::UpdateSubscriptionsRequest {
            identity: "a".into(),
            track_sids: vec!["TR_x".into()],
            ..Default::default()
        }),
    ] {
        assert_eq!(w.admin(request).unwrap_err().code, ErrorCode::NotFound as i32);
    }
    w.admin(AdminRequest::RemoveParticipant(who("a"))).unwrap();
    assert_eq!(w.leaves(a)[0].reason, proto::DisconnectReason::ParticipantRemoved as i32);
    assert_eq!(w.room.participants().len(), 1);
}

#[test]
fn administrators_mute_and_do_not_unmute() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let sid = w.publish(a, MediaKind::Audio, "mic").unwrap();
    let mute = |muted| {
        AdminRequest::MutePublishedTrack(proto::MuteRoomTrackRequest {
            identity: "a".into(),
            track_sid: sid.clone(),
            muted,
            ..Default::default()
        })
    };
    let reply = w.admin(mute(true)).unwrap();
    assert!(proto::MuteRoomTrackResponse::decode(reply).unwrap().track.unwrap().muted);
    assert!(w.shard.tracks.values().all(|(_, policy)| policy.muted));
    assert_eq!(w.heard(a, |m| matches!(m, Message::Mute(r) if r.muted).then_some(())).len(), 1);
    assert_eq!(w.admin(mute(false)).unwrap_err().code, ErrorCode::FailedPrecondition as i32);
}

#[test]
fn permissions_change_at_run_time() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", true);
    w.publish(a, MediaKind::Audio, "mic").unwrap();
    w.publish(a, MediaKind::Video, "cam").unwrap();
    w.publish(b, MediaKind::Audio, "mic").unwrap();
    w.hush();
    let set = |w: &mut World, change: &dyn Fn(&mut proto::ParticipantPermission)| {
        let mut permission = grants().to_permission();
        change(&mut permission);
        let request = proto::UpdateParticipantRequest {
            identity: "a".into(),
            permission: Some(permission),
            ..Default::default()
        };
        w.admin(AdminRequest::UpdateParticipant(request)).unwrap();
    };
    set(&mut w, &|p| p.can_publish_sources = vec![proto::TrackSource::Microphone as i32]);
    assert_eq!(w.receives(b).len(), 1, "the camera ends in the same step");
    assert_eq!(w.heard(a, |m| matches!(m, Message::TrackUnpublished(_)).then_some(())).len(), 1);
    assert!(w.updates(a).iter().any(|p| p.permission.as_ref().unwrap().can_publish_sources.len() == 1));
    set(&mut w, &|p| p.can_subscribe = false);
    assert!(w.receives(a).is_empty());
    w.settle();
    set(&mut w, &|_| {});
    w.settle();
    assert_eq!(w.receives(a), ["b"]);
    w.hush();
    set(&mut w, &|p| p.hidden = true);
    assert!(w.receives(b).is_empty());
    let told = w.updates(b);
    assert_eq!(told.last().unwrap().state, proto::participant_info::State::Disconnected as i32);
    assert_eq!(w.room.info().num_participants, 1);
    w.hush();
    set(&mut w, &|_| {});
    assert_eq!(w.updates(b)[0].identity, "a");
}

#[test]
fn subscriptions_data_and_metadata() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    let b = w.join("b", true);
    let sid = w.publish(a, MediaKind::Audio, "mic").unwrap();
    w.hush();
    w.admin(AdminRequest::UpdateSubscriptions(proto::UpdateSubscriptionsRequest {
        identity: "b".into(),
        track_sids: vec![sid],
        subscribe: false,
        ..Default::default()
    }))
    .unwrap();
    assert!(w.receives(b).is_empty());
    w.admin(AdminRequest::SendData(proto::SendDataRequest {
        data: b"hi".to_vec(),
        topic: Some("t".into()),
        destination_identities: vec!["b".into()],
        ..Default::default()
    }))
    .unwrap();
    let sent = w.sent_to();
    assert_eq!(sent.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(w.shard.sent[0].1, DataLabel::Reliable);
    let room = w
        .admin(AdminRequest::UpdateRoomMetadata(proto::UpdateRoomMetadataRequest {
            metadata: "new".into(),
            ..Default::default()
        }))
        .unwrap();
    assert_eq!(proto::Room::decode(room).unwrap().metadata, "new");
    let told = w.heard(a, |m| match m {
        Message::RoomUpdate(u) => Some(u.room.as_ref()?.metadata.clone()),
        _ => None,
    });
    assert_eq!(told, ["new"]);
    let long = proto::UpdateRoomMetadataRequest { metadata: "x".repeat(70_000), ..Default::default() };
    let error = w.admin(AdminRequest::UpdateRoomMetadata(long)).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument as i32);
}
