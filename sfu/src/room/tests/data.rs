use livekit_protocol as proto;
use proto::data_packet::Value;
use sfu_control::token::VideoGrants;
use sfu_media::command::DataLabel;

use super::world::{World, claims, grants};
use crate::room::{E2eePolicy, RoomConfig};

fn encrypted() -> Value {
    Value::EncryptedPacket(proto::EncryptedPacket {
        encryption_type: proto::encryption::Type::Gcm as i32,
        iv: vec![1; 12],
        key_index: 0,
        encrypted_value: vec![2; 30],
    })
}

fn chat() -> Value {
    Value::ChatMessage(proto::ChatMessage { message: "hello".into(), ..Default::default() })
}

fn packet(value: Value) -> proto::DataPacket {
    proto::DataPacket { value: Some(value), ..Default::default() }
}

#[test]
fn packets_reach_everybody_else_with_the_senders_name() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    w.offer(a);
    w.connect(a);
    w.join("b", false);
    w.join("c", true);
    let mut forged = packet(encrypted());
    forged.participant_identity = "c".into();
    forged.participant_sid = "PA_forged".into();
    forged.sequence = 5;
    w.data(a, DataLabel::Lossy, &forged);
    let sent = w.sent_to();
    assert_eq!(sent.len(), 2);
    for to in ["b", "c"] {
        let got = &sent[to][0];
        assert_eq!((got.participant_identity.as_str(), got.participant_sid.as_str()), ("a", &*w.sid(a)));
        assert_eq!(got.value, Some(encrypted()));
        assert_eq!(got.sequence, 5);
    }
    assert!(w.shard.sent.iter().all(|(_, label, _)| *label == DataLabel::Lossy));
}

#[test]
fn destinations_are_honoured_and_not_passed_on() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    w.join("b", true);
    w.join("c", true);
    let mut to_b = packet(encrypted());
    to_b.destination_identities = vec!["b".into(), "a".into()];
    w.data(a, DataLabel::Reliable, &to_b);
    let sent = w.sent_to();
    assert_eq!(sent.keys().collect::<Vec<_>>(), ["b"]);
    assert!(sent["b"][0].destination_identities.is_empty());
}

#[test]
fn grants_of_sender_and_receiver_count() {
    let mut w = World::new(RoomConfig::default());
    let mute = w.join_with("mute", VideoGrants { can_publish_data: Some(false), ..grants() }, true);
    let a = w.join("a", true);
    w.join_with("deaf", VideoGrants { can_subscribe: Some(false), ..grants() }, true);
    w.data(mute, DataLabel::Reliable, &packet(encrypted()));
    assert!(w.shard.sent.is_empty());
    assert_eq!(w.room.data_counters().not_permitted, 1);
    w.data(a, DataLabel::Reliable, &packet(encrypted()));
    assert_eq!(w.sent_to().keys().collect::<Vec<_>>(), ["mute"]);
}

#[test]
fn a_hidden_sender_has_no_name() {
    let mut w = World::new(RoomConfig::default());
    let h = w.join_with("h", VideoGrants { hidden: true, ..grants() }, true);
    w.join("b", true);
    let mut p = packet(encrypted());
    p.sequence = 9;
    w.data(h, DataLabel::Reliable, &p);
    let sent = w.sent_to();
    let got = &sent["b"][0];
    assert!(got.participant_identity.is_empty() && got.participant_sid.is_empty() && got.sequence == 0);
}

#[test]
fn clear_text_passes_only_where_encryption_is_optional() {
    let user = Value::User(proto::UserPacket { payload: b"x".to_vec(), ..Default::default() });
    let header = Value::StreamHeader(proto::data_stream::Header::default());
    let said = Value::Transcription(proto::Transcription::default());
    let bare = Value::EncryptedPacket(proto::EncryptedPacket::default());
    for (e2ee, passes) in [(E2eePolicy::Required, false), (E2eePolicy::Optional, true)] {
        let mut w = World::new(RoomConfig { e2ee, ..Default::default() });
        let a = w.join("a", true);
        w.join("b", true);
        w.hush();
        for value in [user.clone(), chat(), header.clone(), said.clone(), bare.clone()] {
            w.data(a, DataLabel::Reliable, &packet(value));
        }
        assert_eq!(w.shard.sent.len(), if passes { 5 } else { 0 });
        assert_eq!(w.room.data_counters().not_encrypted, if passes { 0 } else { 5 });
        assert_eq!(w.refusals(a).len(), usize::from(!passes), "told once");
        assert_eq!(w.events.len(), usize::from(!passes));
    }
}

#[test]
fn metrics_go_to_those_who_may_see_them() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    w.join("b", true);
    w.join_with("m", VideoGrants { can_subscribe_metrics: Some(true), ..grants() }, true);
    w.data(a, DataLabel::Reliable, &packet(Value::Metrics(proto::MetricsBatch::default())));
    assert_eq!(w.sent_to().keys().collect::<Vec<_>>(), ["m"]);
}

#[test]
fn reliable_packets_are_taken_once_and_a_resume_tells_the_last() {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", true);
    w.join("b", true);
    for sequence in [1, 2, 2, 1, 3] {
        let p = proto::DataPacket { sequence, ..packet(encrypted()) };
        w.data(a, DataLabel::Reliable, &p);
    }
    assert_eq!(w.shard.sent.len(), 3);
    assert_eq!(w.room.data_counters().duplicate, 2);
    let mut open = World::open(true);
    open.reconnect = true;
    open.participant_sid = w.sid(a);
    let again = w.join_as(claims("a", grants()), open);
    let last = w.heard(again, |m| match m {
        proto::signal_response::Message::Reconnect(r) => Some(r.last_message_seq),
        _ => None,
    });
    assert_eq!(last, [3]);
}

#[test]
fn junk_and_giants_are_counted() {
    let mut w = World::new(RoomConfig { max_data_bytes: 1000, ..Default::default() });
    let a = w.join("a", true);
    w.join("b", true);
    let mut big = packet(encrypted());
    if let Some(Value::EncryptedPacket(p)) = &mut big.value {
        p.encrypted_value = vec![0; 2000];
    }
    w.data(a, DataLabel::Reliable, &big);
    w.data(a, DataLabel::Reliable, &proto::DataPacket::default());
    w.data(a, DataLabel::DataTrack, &packet(encrypted()));
    #[allow(deprecated)]
    let speaker = Value::Speaker(proto::ActiveSpeakerUpdate::default());
    w.data(a, DataLabel::Reliable, &packet(speaker));
    let peer = w.peers(a)[0];
    let junk = bytes::Bytes::from_static(&[0xff; 50]);
    w.input(crate::room::RoomInput::Shard(sfu_media::command::ShardEvent::Data {
        peer,
        label: DataLabel::Lossy,
        payload: junk,
    }));
    assert!(w.shard.sent.is_empty());
    let counters = w.room.data_counters();
    assert_eq!((counters.too_large, counters.malformed), (1, 4));
}
