//! What crosses the boundary of a room: inputs from the node, effects for the node to carry out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use livekit_protocol as proto;
use sfu_control::messages::{Refusal, RoomEvent, SessionOpen};
use sfu_control::token::Claims;
use sfu_media::command::{Fingerprint, ShardCommand, ShardEvent};
use sfu_media::ids::{PeerId, ShardId, SpeakerGroup, SubId, TrackId};

/// The time of an input, read once by the node.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For intervals and deadlines.
    pub instant: Instant,
    /// Since the Unix epoch, for what clients and events show.
    pub unix: Duration,
}

impl Now {
    /// Milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        u64::try_from(self.unix.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A shard, as descriptions announce it to the clients that are placed on it.
#[derive(Debug, Clone)]
pub struct MediaHost {
    /// Of the shard's DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Where the shard can be reached by UDP.
    pub candidates: Vec<SocketAddr>,
    /// Where it can be reached by TCP.
    pub tcp_candidates: Vec<SocketAddr>,
    /// What the user name fragments of its transports begin with, in the characters of
    /// [RFC 8839 section 5.4](https://www.rfc-editor.org/rfc/rfc8839#section-5.4).
    pub ufrag_prefix: Arc<str>,
}

/// One signalling connection of a participant. Chosen by the node, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// One administrative call. Chosen by the node, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Gives out the ids that shards know: unique in the node, never reused. Rooms share one.
#[derive(Debug)]
pub struct IdSource {
    peer: AtomicU64,
    track: AtomicU64,
    sub: AtomicU64,
    speaker_group: AtomicU64,
}

impl IdSource {
    /// All ids start at 1.
    pub fn new() -> Self {
        Self {
            peer: AtomicU64::new(1),
            track: AtomicU64::new(1),
            sub: AtomicU64::new(1),
            speaker_group: AtomicU64::new(1),
        }
    }

    /// The next transport's id.
    pub fn peer(&self) -> PeerId {
        PeerId(self.peer.fetch_add(1, Ordering::Relaxed))
    }

    /// The next track's id.
    pub fn track(&self) -> TrackId {
        TrackId(self.track.fetch_add(1, Ordering::Relaxed))
    }

    /// The next room's group of speakers.
    pub fn speaker_group(&self) -> SpeakerGroup {
        SpeakerGroup(self.speaker_group.fetch_add(1, Ordering::Relaxed))
    }

    /// The next subscription's id.
    pub fn sub(&self) -> SubId {
        SubId(self.sub.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for IdSource {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that happened, or is asked for.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // moved once, from the node into the room
pub enum RoomInput {
    /// A client opened a signalling connection. The token's signature and validity period are verified already; what
    /// it grants is for the room to judge. Answered by [`Effect::Accept`] or [`Effect::Refuse`] in the same step.
    Join {
        /// The new connection.
        session: SessionId,
        /// Where the participant's media is to run, unless it resumes: then it stays where it is.
        shard: ShardId,
        /// What the token says.
        token: Claims,
        /// How the client wants to join.
        open: SessionOpen,
    },
    /// A message of a client.
    Signal {
        /// From which connection. A connection that the room does not know is ignored.
        session: SessionId,
        /// The message.
        request: proto::SignalRequest,
    },
    /// A connection ended.
    SessionClosed {
        /// Which one.
        session: SessionId,
    },
    /// The shard reports. Events that name a peer or a track of another room are ignored; lists may hold entries of
    /// other rooms.
    Shard(ShardEvent),
    /// A call of the RoomService whose caller is authorised already. Answered by [`Effect::AdminReply`] in the same
    /// step.
    Admin {
        /// Names the reply.
        call: CallId,
        /// The request.
        request: AdminRequest,
    },
    /// The time that [`Room::poll_timeout`](super::Room::poll_timeout) named has come. Early or late does no harm.
    Timeout,
}

/// The calls of `livekit.RoomService` that concern one room. The field that names the room is not looked at.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // moved once, from the node into the room
pub enum AdminRequest {
    /// Applies the settings to the room that the node has just made, or that exists; replies with `Room`.
    CreateRoom(proto::CreateRoomRequest),
    /// Ends the room; replies with `DeleteRoomResponse`.
    DeleteRoom(proto::DeleteRoomRequest),
    /// Replies with `ListParticipantsResponse`.
    ListParticipants(proto::ListParticipantsRequest),
    /// Replies with `ParticipantInfo`.
    GetParticipant(proto::RoomParticipantIdentity),
    /// Replies with `RemoveParticipantResponse`.
    RemoveParticipant(proto::RoomParticipantIdentity),
    /// Replies with `MuteRoomTrackResponse`.
    MutePublishedTrack(proto::MuteRoomTrackRequest),
    /// Replies with `ParticipantInfo`.
    UpdateParticipant(proto::UpdateParticipantRequest),
    /// Replies with `UpdateSubscriptionsResponse`.
    UpdateSubscriptions(proto::UpdateSubscriptionsRequest),
    /// Replies with `SendDataResponse`.
    SendData(proto::SendDataRequest),
    /// Replies with `Room`.
    UpdateRoomMetadata(proto::UpdateRoomMetadataRequest),
}

/// What the node is to do, in this order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// For the room's shards, which [`Room::shard_of`](super::Room::shard_of) places its peers on.
    Shard(ShardCommand),
    /// The connection is accepted; signal messages for it follow.
    Accept {
        /// Which one.
        session: SessionId,
        /// `PA_...`
        participant_sid: String,
        /// `RM_...`
        room_sid: String,
    },
    /// The connection is refused and ends.
    Refuse {
        /// Which one.
        session: SessionId,
        /// Why.
        refusal: Refusal,
    },
    /// A message for a client.
    Signal {
        /// To which connection.
        session: SessionId,
        /// The message.
        response: Box<proto::SignalResponse>,
    },
    /// The same message for many clients.
    Broadcast {
        /// To which connections.
        sessions: Box<[SessionId]>,
        /// The message.
        response: Box<proto::SignalResponse>,
    },
    /// The connection is to be closed, after the messages before this. No `SessionClosed` is needed for it.
    CloseSession {
        /// Which one.
        session: SessionId,
    },
    /// The answer to an administrative call.
    AdminReply {
        /// Which one.
        call: CallId,
        /// The encoded response message, or why there is none.
        result: Result<Bytes, Refusal>,
    },
    /// For the event feed.
    Event(RoomEvent),
    /// The room is over: nobody is in it, and it takes no further input. Always the last effect.
    Finished,
}
