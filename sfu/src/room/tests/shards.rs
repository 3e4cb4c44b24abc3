//! A room whose participants are placed on several shards.

use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_request::Message as Asked;
use proto::signal_response::Message;
use sfu_media::command::{AudioLevel, MediaKind, ShardEvent};
use sfu_media::ids::{ShardId, TrackId};

use super::world::World;
use crate::room::{RoomConfig, RoomInput, SessionId};

/// The first shard has `a` and `b`, the second one `c`.
fn room() -> (World, [SessionId; 3]) {
    let mut w = World::new(RoomConfig::default());
    let a = w.join("a", false);
    let b = w.join("b", false);
    w.place = ShardId(1);
    let c = w.join("c", false);
    (w, [a, b, c])
}

fn level(w: &mut World, track: TrackId, level: u8) {
    w.input(RoomInput::Shard(ShardEvent::AudioLevels(vec![AudioLevel { track, level, active_percent: 90 }])));
}

/// Who is said to speak, in the order of the messages.
fn told(w: &World, by: SessionId) -> Vec<(String, bool)> {
    let speakers = w.heard(by, |m| match m {
        Message::SpeakersChanged(s) => Some(s.speakers.clone()),
        _ => None,
    });
    speakers.into_iter().flatten().map(|s| (s.sid, s.active)).collect()
}

#[test]
fn each_participant_is_sent_to_the_shard_that_it_was_placed_on() {
    let (mut w, [a, _, c]) = room();
    assert_eq!(w.room.population(), [2, 1]);
    for (session, shard) in [(a, 0), (c, 1)] {
        for peer in w.peers(session) {
            assert_eq!(w.room.shard_of(peer), Some(ShardId(shard)));
        }
        w.hush();
        w.offer(session);
        let answers = w.heard(session, |m| match m {
            Message::Answer(answer) => Some(answer.sdp.clone()),
            _ => None,
        });
        let answer = answers.last().expect("an answer");
        let port = format!(" 127.0.0.1 {} typ host", 4000 + shard);
        assert!(answer.contains(&port) && answer.contains(&format!("a=ice-ufrag:{shard}/")), "{answer}");
    }
    w.signal(c, Asked::Leave(proto::LeaveRequest::default()));
    assert_eq!(w.room.population(), [2, 0]);
}

#[test]
fn a_shard_tells_nothing_of_the_speakers_of_another() {
    let (mut w, [a, b, c]) = room();
    let track = |w: &mut World, of, name| {
        let sid = w.publish(of, MediaKind::Audio, name).unwrap();
        w.room.track_sids[&sid]
    };
    let (mic_a, mic_c) = (track(&mut w, a, "mic-a"), track(&mut w, c, "mic-c"));
    w.hush();
    // Each shard reports its own, in turns.
    for _ in 0..12 {
        w.elapsed += Duration::from_millis(125);
        level(&mut w, mic_a, 10);
        w.elapsed += Duration::from_millis(125);
        level(&mut w, mic_c, 10);
    }
    assert_eq!(told(&w, b).iter().filter(|(_, active)| !active).count(), 0, "neither fell silent");
    assert!([a, c].iter().all(|who| told(&w, b).contains(&(w.sid(*who), true))));
    // The second shard has nothing more to report; the first one goes on.
    w.hush();
    for _ in 0..6 {
        w.elapsed += Duration::from_millis(250);
        level(&mut w, mic_a, 10);
    }
    assert_eq!(told(&w, b), [(w.sid(c), false)]);
    w.hush();
    w.wait(Duration::from_secs(1));
    assert_eq!(told(&w, b), [(w.sid(a), false)]);
}
