//! Rooms in which telling everybody of everything would be too much.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livekit_protocol as proto;
use proto::participant_info::State;
use proto::signal_request::Message as Asked;
use proto::signal_response::Message;
use sfu_media::command::MediaKind;

use super::world::{World, grants};
use crate::room::{RoomConfig, SessionId};

/// What each client knows of the others: sid and state by identity.
#[derive(Default)]
struct Knowledge {
    of: BTreeMap<SessionId, BTreeMap<String, (String, i32)>>,
    rooms: BTreeMap<SessionId, u32>,
    /// Messages about the roster to clients that were there already.
    messages: usize,
}

impl Knowledge {
    /// Takes in what was said, and drops it.
    fn learn(&mut self, w: &mut World) {
        for (to, message) in &w.said {
            let known = self.of.entry(*to).or_default();
            let news = match message {
                Message::Join(join) => &join.other_participants,
                Message::Update(update) => {
                    self.messages += 1;
                    &update.participants
                }
                Message::RoomUpdate(update) => {
                    self.messages += 1;
                    let count = update.room.as_ref().map_or(0, |room| room.num_participants);
                    self.rooms.insert(*to, count);
                    continue;
                }
                _ => continue,
            };
            for p in news {
                if p.state == State::Disconnected as i32 {
                    // A client that is told that it left itself would stop.
                    assert_ne!(
                        w.clients.get(to).map(|client| client.identity.as_str()),
                        Some(p.identity.as_str())
                    );
                    known.remove(&p.identity);
                } else {
                    known.insert(p.identity.clone(), (p.sid.clone(), p.state));
                }
            }
        }
        w.hush();
    }

    /// Everybody knows everybody else as they are.
    fn is_whole(&self, w: &World) -> bool {
        let all: BTreeMap<_, _> =
            w.room.participants().into_iter().map(|p| (p.identity, (p.sid, p.state))).collect();
        let others = |known: &BTreeMap<String, (String, i32)>, itself: &str| {
            known.iter().filter(|(id, _)| *id != itself).map(|(id, p)| (id.clone(), p.clone())).collect()
        };
        w.clients.iter().all(|(session, client)| {
            let have: BTreeMap<_, _> = others(&self.of[session], &client.identity);
            let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
            have == others(&all, &client.identity) && self.rooms.get(session) == Some(&count)
        })
    }
}

fn fill(w: &mut World, knowledge: &mut Knowledge, people: usize, apart: Duration) -> Vec<SessionId> {
    let mut sessions = Vec::new();
    for n in 0..people {
        sessions.push(w.join(&format!("p{n}"), n % 2 == 0));
        knowledge.learn(w);
        w.wait(apart);
        knowledge.learn(w);
    }
    sessions
}

#[test]
fn a_large_room_fills_with_bounded_work() {
    let mut w = World::new(RoomConfig::default());
    let mut knowledge = Knowledge::default();
    fill(&mut w, &mut knowledge, 50, Duration::from_millis(20));
    assert!(knowledge.is_whole(&w), "a small room is told at once");
    let before = knowledge.messages;
    // Five seconds, each join and each connection made news for all.
    for n in 50..300 {
        w.join(&format!("p{n}"), n % 2 == 0);
        knowledge.learn(&mut w);
        w.wait(Duration::from_millis(20));
        knowledge.learn(&mut w);
    }
    let messages = knowledge.messages - before;
    // An update and the room's count for each client a telling, a millisecond a client between tellings; and each client
    // hears of its own state.
    assert!(messages < 2 * 5000 + 2 * 300 + 250, "{messages} messages; one by one it would be 130,000");
    w.wait(Duration::from_millis(301));
    knowledge.learn(&mut w);
    assert!(knowledge.is_whole(&w), "what waited was told");
    assert!(w.room.poll_timeout().is_some());
}

#[test]
fn a_large_room_empties_with_bounded_work() {
    let mut w = World::new(RoomConfig::default());
    let mut knowledge = Knowledge::default();
    let sessions = fill(&mut w, &mut knowledge, 120, Duration::ZERO);
    w.wait(Duration::from_secs(1));
    knowledge.learn(&mut w);
    let before = knowledge.messages;
    for (n, session) in sessions.iter().enumerate().take(60) {
        w.signal(*session, Asked::Leave(proto::LeaveRequest::default()));
        knowledge.learn(&mut w);
        if n % 10 == 0 {
            w.join(&format!("p{}", n + 1), true); // takes an identity over
            knowledge.learn(&mut w);
        }
    }
    assert!(knowledge.messages - before < 120 * 2 * 2 + 66, "{}", knowledge.messages - before);
    w.wait(Duration::from_secs(1));
    knowledge.learn(&mut w);
    assert!(knowledge.is_whole(&w));
}

#[test]
fn tracks_and_ones_own_state_do_not_wait() {
    let mut w = World::new(RoomConfig::default());
    let mut knowledge = Knowledge::default();
    let sessions = fill(&mut w, &mut knowledge, 80, Duration::ZERO);
    let late = w.join("late", true);
    let own: Vec<_> = w.updates(late).iter().filter(|p| p.identity == "late").map(|p| p.state).collect();
    assert_eq!(own.last(), Some(&(State::Active as i32)), "it waits for this");
    assert!(w.updates(sessions[0]).is_empty(), "the others do not");
    w.hush();
    let mut order = Vec::new();
    w.signal(late, Asked::AddTrack(World::request(MediaKind::Audio, "mic", true)));
    w.clients.get_mut(&late).unwrap().send(MediaKind::Audio, "mic");
    w.offer(late);
    for (to, message) in &w.said {
        match message {
            Message::Update(update) if update.participants.iter().any(|p| !p.tracks.is_empty()) => {
                order.push((*to, "track"));
            }
            Message::Offer(_) | Message::MediaSectionsRequirement(_) => order.push((*to, "offer")),
            _ => {}
        }
    }
    for session in &sessions {
        let order: Vec<_> = order.iter().filter(|(to, _)| to == session).map(|(_, what)| *what).collect();
        assert_eq!(order, ["track", "offer"], "a client knows a track before it is offered");
    }
    w.hush();
    w.signal(late, Asked::Leave(proto::LeaveRequest::default()));
    let told: BTreeSet<_> = w
        .said
        .iter()
        .filter(
            |(_, m)| matches!(m, Message::Update(u) if u.participants.iter().any(|p| p.identity == "late")),
        )
        .map(|(to, _)| *to)
        .collect();
    assert_eq!(told.len(), 80, "nor does the end of somebody who was seen");
}

#[test]
fn who_is_hidden_stays_so_in_a_large_room() {
    let mut w = World::new(RoomConfig::default());
    let mut knowledge = Knowledge::default();
    fill(&mut w, &mut knowledge, 60, Duration::ZERO);
    w.wait(Duration::from_secs(1));
    w.hush();
    let hidden = sfu_control::token::VideoGrants { hidden: true, ..grants() };
    let h = w.join_with("h", hidden, true);
    w.wait(Duration::from_secs(1));
    let about = |to: SessionId| w.updates(to).iter().filter(|p| p.identity == "h").count();
    for session in w.clients.keys().filter(|session| **session != h) {
        assert_eq!(about(*session), 0);
    }
    assert!(about(h) > 0, "it hears of its own state");
}
