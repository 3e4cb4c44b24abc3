//! Arbitrary sequences of what clients, administrators and the shard may do: nothing panics, and the model of the shard
//! and the checks of [`World`] hold after every step.

use std::time::Duration;

use livekit_protocol as proto;
use proptest::prelude::*;
use proto::data_packet::Value;
use proto::signal_request::Message as Asked;
use sfu_control::token::VideoGrants;
use sfu_media::command::{AudioLevel, CloseReason, Codec, DataLabel, MediaKind, ShardEvent};
use sfu_media::ids::Ssrc;

use super::world::{World, claims, grants};
use crate::room::{AdminRequest, RoomConfig, RoomInput, SessionId};

#[derive(Debug, Clone)]
enum Act {
    Join { who: u8, single: bool, grant: u8, resume: bool },
    Offer(u8),
    Settle,
    Hush,
    Connect(u8),
    Publish { who: u8, video: bool, encrypted: bool, cid: u8, source: i32 },
    Stop { who: u8, cid: u8 },
    Restart(u8),
    Leave(u8),
    Lost(u8),
    PeerLost { who: u8, which: u8 },
    Mute { who: u8, track: u8, muted: bool },
    Choose { who: u8, track: u8, subscribe: bool },
    Settings { who: u8, track: u8, width: u32, quality: i32, disabled: bool },
    Allow { who: u8, to: u8, all: bool },
    Permission { who: u8, bits: u8 },
    AdminMute { who: u8, track: u8 },
    Remove(u8),
    Delete,
    Data { who: u8, label: u8, value: u8, to: u8, sequence: u32 },
    Levels { track: u8, level: u8 },
    Live { track: u8, vp9: bool },
    Plain(u8),
    Junk { who: u8, text: String, answer: bool },
    Sync { who: u8, track: u8 },
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0u8..5;
    let track = 0u8..6;
    prop_oneof![
        6 => (who.clone(), any::<bool>(), 0u8..8, proptest::bool::weighted(0.2))
            .prop_map(|(who, single, grant, resume)| Act::Join { who, single, grant, resume }),
        6 => who.clone().prop_map(Act::Offer),
        8 => Just(Act::Settle),
        1 => Just(Act::Hush),
        4 => who.clone().prop_map(Act::Connect),
        8 => (who.clone(), any::<bool>(), proptest::bool::weighted(0.9), 0u8..6, 0i32..6)
            .prop_map(|(who, video, encrypted, cid, source)| Act::Publish { who, video, encrypted, cid, source }),
        3 => (who.clone(), 0u8..6).prop_map(|(who, cid)| Act::Stop { who, cid }),
        1 => who.clone().prop_map(Act::Restart),
        1 => who.clone().prop_map(Act::Leave),
        2 => who.clone().prop_map(Act::Lost),
        1 => (who.clone(), 0u8..2).prop_map(|(who, which)| Act::PeerLost { who, which }),
        2 => (who.clone(), track.clone(), any::<bool>()).prop_map(|(who, track, muted)| Act::Mute { who, track, muted }),
        3 => (who.clone(), track.clone(), any::<bool>())
            .prop_map(|(who, track, subscribe)| Act::Choose { who, track, subscribe }),
        2 => (who.clone(), track.clone(), 0u32..3000, 0i32..5, any::<bool>())
            .prop_map(|(who, track, width, quality, disabled)| Act::Settings { who, track, width, quality, disabled }),
        2 => (who.clone(), who.clone(), any::<bool>()).prop_map(|(who, to, all)| Act::Allow { who, to, all }),
        2 => (who.clone(), any::<u8>()).prop_map(|(who, bits)| Act::Permission { who, bits }),
        1 => (who.clone(), track.clone()).prop_map(|(who, track)| Act::AdminMute { who, track }),
        1 => who.clone().prop_map(Act::Remove),
        1 => proptest::bool::weighted(0.05).prop_map(|d| if d { Act::Delete } else { Act::Settle }),
        2 => (who.clone(), 0u8..3, 0u8..5, 0u8..6, 0u32..4)
            .prop_map(|(who, label, value, to, sequence)| Act::Data { who, label, value, to, sequence }),
        1 => (track.clone(), 0u8..128).prop_map(|(track, level)| Act::Levels { track, level }),
        1 => (track.clone(), any::<bool>()).prop_map(|(track, vp9)| Act::Live { track, vp9 }),
        1 => track.clone().prop_map(Act::Plain),
        1 => (who.clone(), ".{0,40}", any::<bool>()).prop_map(|(who, text, answer)| Act::Junk { who, text, answer }),
        1 => (who, track).prop_map(|(who, track)| Act::Sync { who, track }),
        2 => any::<u16>().prop_map(Act::Wait),
    ]
}

fn grant(bits: u8) -> VideoGrants {
    VideoGrants {
        can_publish: (bits == 1).then_some(false),
        can_subscribe: (bits == 2).then_some(false),
        can_publish_data: (bits == 3).then_some(false),
        hidden: bits == 4,
        can_update_own_metadata: (bits == 5).then_some(true),
        room: if bits == 6 { "elsewhere".into() } else { "visit".into() },
        ..grants()
    }
}

fn name(who: u8) -> String {
    format!("p{who}")
}

fn session(w: &World, who: u8) -> SessionId {
    let named = |c: &&super::client::Client| c.identity == name(who);
    w.clients.values().rfind(named).map_or(SessionId(u64::MAX), |c| c.session)
}

fn track(w: &World, index: u8) -> String {
    let mut sids: Vec<_> = w.room.track_sids.keys().cloned().collect();
    sids.sort();
    sids.get(usize::from(index)).cloned().unwrap_or_else(|| "TR_none".into())
}

fn run(w: &mut World, act: Act) {
    match act {
        Act::Join { who, single, grant: bits, resume } => {
            let old = w.clients.values().rfind(|c| c.identity == name(who)).cloned();
            let mut open = World::open(single);
            if resume && let Some(old) = &old {
                open.reconnect = true;
                open.single_peer_connection = old.single;
                open.participant_sid.clone_from(&old.sid);
            }
            let new = w.join_as(claims(&name(who), grant(bits)), open);
            if resume && let (Some(old), Some(client)) = (old, w.clients.get_mut(&new)) {
                client.sections = old.sections;
                client.ice = old.ice + 1;
            }
        }
        Act::Offer(who) => w.offer(session(w, who)),
        Act::Settle => w.settle(),
        Act::Hush => w.hush(),
        Act::Connect(who) => w.connect(session(w, who)),
        Act::Publish { who, video, encrypted, cid, source } => {
            let kind = if video { MediaKind::Video } else { MediaKind::Audio };
            let (session, cid) = (session(w, who), format!("t{cid}"));
            let mut request = World::request(kind, &cid, encrypted);
            request.source = source;
            w.signal(session, Asked::AddTrack(request));
            if let Some(client) = w.clients.get_mut(&session) {
                client.send(kind, &cid);
            }
            w.offer(session);
        }
        Act::Stop { who, cid } => {
            let session = session(w, who);
            if let Some(client) = w.clients.get_mut(&session) {
                client.stop(&format!("t{cid}"));
            }
            w.offer(session);
        }
        Act::Restart(who) => {
            let session = session(w, who);
            if let Some(client) = w.clients.get_mut(&session) {
                client.ice += 1;
            }
            w.offer(session);
        }
        Act::Leave(who) => w.signal(session(w, who), Asked::Leave(Default::default())),
        Act::Lost(who) => w.input(RoomInput::SessionClosed { session: session(w, who) }),
        Act::PeerLost { who, which } => {
            // Also of participants whose signalling is lost.
            let key = w.room.identities.get(&name(who)).copied();
            let peers: Vec<_> = key
                .map(|k| w.room.participants[&k].transports.all().map(|c| c.peer).collect())
                .unwrap_or_default();
            if let Some(peer) = peers.get(usize::from(which)).filter(|p| w.shard.open.contains(p)) {
                w.lose_peer(*peer, CloseReason::ConsentExpired);
            }
        }
        Act::Mute { who, track: index, muted } => {
            let sid = track(w, index);
            w.signal(session(w, who), Asked::Mute(proto::MuteTrackRequest { sid, muted }));
        }
        Act::Choose { who, track: index, subscribe } => {
            let track_sids = vec![track(w, index)];
            let choice = proto::UpdateSubscription { track_sids, subscribe, participant_tracks: vec![] };
            w.signal(session(w, who), Asked::Subscription(choice));
        }
        Act::Settings { who, track: index, width, quality, disabled } => {
            let settings = proto::UpdateTrackSettings {
                track_sids: vec![track(w, index)],
                width,
                height: width / 2,
                quality,
                disabled,
                ..Default::default()
            };
            w.signal(session(w, who), Asked::TrackSetting(settings));
        }
        Act::Allow { who, to, all } => {
            let rule = proto::TrackPermission {
                participant_identity: name(to),
                all_tracks: true,
                ..Default::default()
            };
            let permission =
                proto::SubscriptionPermission { all_participants: all, track_permissions: vec![rule] };
            w.signal(session(w, who), Asked::SubscriptionPermission(permission));
        }
        Act::Permission { who, bits } => {
            let permission = proto::ParticipantPermission {
                can_subscribe: bits & 1 == 0,
                can_publish: bits & 2 == 0,
                can_publish_data: bits & 4 == 0,
                hidden: bits & 24 == 24,
                ..Default::default()
            };
            let request = proto::UpdateParticipantRequest {
                identity: name(who),
                permission: Some(permission),
                ..Default::default()
            };
            let _ = w.admin(AdminRequest::UpdateParticipant(request));
        }
        Act::AdminMute { who, track: index } => {
            let request = proto::MuteRoomTrackRequest {
                identity: name(who),
                track_sid: track(w, index),
                muted: true,
                ..Default::default()
            };
            let _ = w.admin(AdminRequest::MutePublishedTrack(request));
        }
        Act::Remove(who) => {
            let request = proto::RoomParticipantIdentity { identity: name(who), ..Default::default() };
            let _ = w.admin(AdminRequest::RemoveParticipant(request));
        }
        Act::Delete => {
            let _ = w.admin(AdminRequest::DeleteRoom(Default::default()));
        }
        Act::Data { who, label, value, to, sequence } => {
            let value = match value {
                0 => Value::User(Default::default()),
                1 => Value::Metrics(Default::default()),
                2 => Value::StreamChunk(Default::default()),
                _ => Value::EncryptedPacket(proto::EncryptedPacket {
                    iv: vec![0; 12],
                    encrypted_value: vec![1],
                    ..Default::default()
                }),
            };
            let label = [DataLabel::Reliable, DataLabel::Lossy, DataLabel::DataTrack][usize::from(label)];
            let packet = proto::DataPacket {
                value: Some(value),
                destination_identities: if to == 5 { vec![] } else { vec![name(to)] },
                sequence,
                ..Default::default()
            };
            w.data(session(w, who), label, &packet);
        }
        Act::Levels { track: index, level } => {
            if let Some(track) = w.room.track_sids.get(&track(w, index)).copied() {
                let levels = vec![AudioLevel { track, level, active_percent: 80 }];
                w.input(RoomInput::Shard(ShardEvent::AudioLevels(levels)));
            }
        }
        Act::Live { track: index, vp9 } => {
            if let Some(track) = w.room.track_sids.get(&track(w, index)).copied() {
                let codec = if vp9 { Codec::Vp9 } else { Codec::Vp8 };
                w.input(RoomInput::Shard(ShardEvent::LayerLive { track, spatial: 0, ssrc: Ssrc(1), codec }));
            }
        }
        Act::Plain(index) => {
            if let Some(track) = w.room.track_sids.get(&track(w, index)).copied() {
                w.input(RoomInput::Shard(ShardEvent::NotEncrypted { track }));
            }
        }
        Act::Junk { who, text, answer } => {
            let description = proto::SessionDescription { sdp: text, ..Default::default() };
            let message = if answer { Asked::Answer(description) } else { Asked::Offer(description) };
            w.signal(session(w, who), message);
        }
        Act::Sync { who, track: index } => {
            let sid = track(w, index);
            let track = Some(proto::TrackInfo { sid, ..Default::default() });
            let publish_tracks = vec![proto::TrackPublishedResponse { cid: String::new(), track }];
            w.signal(
                session(w, who),
                Asked::SyncState(proto::SyncState { publish_tracks, ..Default::default() }),
            );
        }
        Act::Wait(ms) => w.wait(Duration::from_millis(u64::from(ms))),
    }
}

proptest! {
    #[test]
    fn arbitrary_sequences_keep_every_promise(acts in proptest::collection::vec(act(), 1..80)) {
        let mut w = World::new(RoomConfig { max_tracks_per_participant: 4, ..Default::default() });
        for act in acts {
            if w.finished {
                break;
            }
            run(&mut w, act);
        }
    }
}
