//! Room logic without I/O.

mod api;
mod config;
pub mod sdp;

use std::sync::Arc;
use std::time::Instant;

use livekit_protocol as proto;
use sfu_control::messages::{ErrorCode, Refusal};
use sfu_media::command::ShardEvent;

pub use api::{AdminRequest, CallId, Effect, IdSource, MediaHost, Now, RoomInput, SessionId};
pub use config::{E2eePolicy, RoomConfig};

/// One room.
pub struct Room {
    info: proto::Room,
    config: RoomConfig,
    created: Instant,
    finished: bool,
}

impl Room {
    /// A room that nobody is in yet. `seed` feeds its identifiers and ICE credentials: it must be unpredictable.
    pub fn new(
        name: &str,
        config: RoomConfig,
        host: MediaHost,
        ids: Arc<IdSource>,
        seed: u64,
        now: Now,
    ) -> Self {
        let _ = (host, ids, seed);
        let info = proto::Room {
            name: name.to_owned(),
            creation_time: now.unix.as_secs().cast_signed(),
            creation_time_ms: now.unix_ms().cast_signed(),
            max_participants: config.max_participants,
            ..Default::default()
        };
        Self { info, config, created: now.instant, finished: false }
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, input: RoomInput, now: Now, effects: &mut Vec<Effect>) {
        let refusal = || Refusal {
            code: ErrorCode::Unavailable as i32,
            message: "rooms take nobody in yet".to_owned(),
        };
        match input {
            RoomInput::Join { session, .. } => effects.push(Effect::Refuse { session, refusal: refusal() }),
            RoomInput::Admin { call, .. } => {
                effects.push(Effect::AdminReply { call, result: Err(refusal()) })
            }
            RoomInput::Timeout
                if now.instant >= self.created + self.config.empty_timeout && !self.finished =>
            {
                self.finished = true;
                effects.push(Effect::Finished);
            }
            _ => {}
        }
    }

    /// When [`RoomInput::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.finished).then(|| self.created + self.config.empty_timeout)
    }

    /// What the room is, as clients and administrators see it.
    pub fn info(&self) -> proto::Room {
        self.info.clone()
    }

    /// Everybody in the room, hidden participants as well: for administrators.
    pub fn participants(&self) -> Vec<proto::ParticipantInfo> {
        Vec::new()
    }

    /// The room is over and takes no further input.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether an event of a shard concerns this room. Events of many peers concern every room.
    pub fn owns(&self, event: &ShardEvent) -> bool {
        matches!(event, ShardEvent::AudioLevels(_) | ShardEvent::Quality(_))
    }
}
