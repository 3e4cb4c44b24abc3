//! From the relay's event feed into the trail.

use livekit_protocol::{ParticipantInfo, Room, TrackInfo};
use prost::Message as _;
use sfu_control::link::{Link, LinkState};
use sfu_control::messages::RoomEvent;

use super::Audit;
use super::chain::Entry;

/// Longest text of an event that is stored, in bytes; the relay's names are shorter.
const MAX_TEXT: usize = 64;

/// Follows the feed for as long as there is a link, and notes when it was away: what happened meanwhile is missing.
pub(crate) async fn follow(link: Link, audit: Audit) {
    let mut state = link.watch();
    loop {
        if state.wait_for(|state| *state == LinkState::Up).await.is_err() {
            return;
        }
        if let Ok(mut feed) = link.events().await {
            audit.note("feed_opened", String::new());
            while let Ok(Some(event)) = feed.next().await {
                audit.event(&event);
            }
            audit.note("feed_lost", String::new());
        }
        // A relay that ends the feed but keeps the link is asked again, not at once.
        tokio::time::sleep(super::RETRY).await;
    }
}

impl Audit {
    /// Records an event of the feed.
    pub(super) fn event(&self, event: &RoomEvent) {
        // The relay is ours; a message that does not decode is recorded without what it would have said.
        let room = Room::decode(event.room.clone()).unwrap_or_default();
        let participant = ParticipantInfo::decode(event.participant.clone()).unwrap_or_default();
        let track = if event.track.is_empty() { None } else { TrackInfo::decode(event.track.clone()).ok() };
        let detail = match &track {
            Some(track) => format!(
                "{} {} {}",
                track.r#type().as_str_name(),
                track.source().as_str_name(),
                track.encryption().as_str_name()
            ),
            None if event.event == "participant_left" => {
                participant.disconnect_reason().as_str_name().to_owned()
            }
            None => String::new(),
        };
        self.put(Entry {
            unix_ms: event.unix_ms,
            event: short(&event.event),
            room: short(&room.sid),
            room_name: self.pseudonym("room", &room.name),
            participant: short(&participant.sid),
            person: self.pseudonym("person", &participant.identity),
            track: track.map(|track| short(&track.sid)).unwrap_or_default(),
            detail,
        });
    }
}

fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
