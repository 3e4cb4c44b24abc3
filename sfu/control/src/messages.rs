//! What travels on a control stream between `signaling` and `sfu`: protobuf messages, each behind a four-byte
//! big-endian length.
//!
//! `signaling` opens one bidirectional QUIC stream per participant session, per administrative call, and one for the
//! event feed. The first message says which of the three it is.

use std::fmt;

/// Longest frame on a control stream, in bytes. A signal message of a client is at most 256 KiB.
pub const MAX_FRAME: usize = 1 << 20;

/// First message on every stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// What the stream is for.
    #[prost(oneof = "Purpose", tags = "1, 2, 3")]
    pub purpose: Option<Purpose>,
}

/// What a stream is for.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Purpose {
    /// A participant's session; [`ToSfu`] and [`ToSignaling`] follow.
    #[prost(message, tag = "1")]
    Session(SessionOpen),
    /// One RoomService call; one [`AdminReply`] follows.
    #[prost(message, tag = "2")]
    Admin(AdminCall),
    /// The event feed; [`RoomEvent`]s follow until either side closes.
    #[prost(message, tag = "3")]
    Events(EventsOpen),
}

/// Opens a participant's session. The relay verifies the token itself.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct SessionOpen {
    /// The participant's access token, as the client sent it.
    #[prost(string, tag = "1")]
    pub token: String,
    /// The client speaks `/rtc/v1`: one PeerConnection, the client offers.
    #[prost(bool, tag = "2")]
    pub single_peer_connection: bool,
    /// The client resumes: keep its participant and transports.
    #[prost(bool, tag = "3")]
    pub reconnect: bool,
    /// Session id of the participant that resumes (`PA_...`).
    #[prost(string, tag = "4")]
    pub participant_sid: String,
    /// Subscribe to every track without being asked.
    #[prost(bool, tag = "5")]
    pub auto_subscribe: bool,
    /// The page lowers its own layers as elements shrink or hide.
    #[prost(bool, tag = "6")]
    pub adaptive_stream: bool,
    /// LiveKit protocol version of the client.
    #[prost(uint32, tag = "7")]
    pub protocol: u32,
    /// `livekit.ClientInfo`, encoded.
    #[prost(bytes = "bytes", tag = "8")]
    pub client_info: prost::bytes::Bytes,
    /// `livekit.JoinRequest` of `/rtc/v1`, encoded: tracks and an offer that come with the join. Empty in v0.
    #[prost(bytes = "bytes", tag = "9")]
    pub join_request: prost::bytes::Bytes,
    /// Why the client reconnects: a `livekit.ReconnectReason`.
    #[prost(int32, tag = "10")]
    pub reconnect_reason: i32,
}

impl fmt::Debug for SessionOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionOpen").field("reconnect", &self.reconnect).finish_non_exhaustive()
    }
}

/// After [`SessionOpen`], from `signaling` to `sfu`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToSfu {
    /// The message.
    #[prost(oneof = "ToSfuKind", tags = "1")]
    pub kind: Option<ToSfuKind>,
}

/// Kinds of [`ToSfu`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ToSfuKind {
    /// An encoded `livekit.SignalRequest`, as the client sent it.
    #[prost(bytes = "bytes", tag = "1")]
    Signal(prost::bytes::Bytes),
}

/// After [`SessionOpen`], from `sfu` to `signaling`. The end of the stream means: close the client's WebSocket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ToSignaling {
    /// The message.
    #[prost(oneof = "ToSignalingKind", tags = "1, 2, 3")]
    pub kind: Option<ToSignalingKind>,
}

/// Kinds of [`ToSignaling`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ToSignalingKind {
    /// First message of an accepted session: the WebSocket upgrade may be answered.
    #[prost(message, tag = "1")]
    Accepted(SessionAccepted),
    /// First and last message of a refused one.
    #[prost(message, tag = "2")]
    Refused(Refusal),
    /// An encoded `livekit.SignalResponse` for the client.
    #[prost(bytes = "bytes", tag = "3")]
    Signal(prost::bytes::Bytes),
}

/// An accepted session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionAccepted {
    /// `PA_...` of the participant.
    #[prost(string, tag = "1")]
    pub participant_sid: String,
    /// `RM_...` of the room.
    #[prost(string, tag = "2")]
    pub room_sid: String,
}

/// Why something was refused, in terms that a client can act on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refusal {
    /// Twirp error code, which also fixes the HTTP status.
    #[prost(enumeration = "ErrorCode", tag = "1")]
    pub code: i32,
    /// For people. Never carries a token, a name or an address.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Twirp error codes in use ([specification](https://twitchtv.github.io/twirp/docs/spec_v7.html#error-codes)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ErrorCode {
    /// 500.
    Internal = 0,
    /// 400.
    InvalidArgument = 1,
    /// 401.
    Unauthenticated = 2,
    /// 403.
    PermissionDenied = 3,
    /// 404.
    NotFound = 4,
    /// 409.
    AlreadyExists = 5,
    /// 412.
    FailedPrecondition = 6,
    /// 429.
    ResourceExhausted = 7,
    /// 503.
    Unavailable = 8,
    /// 501.
    Unimplemented = 9,
}

impl ErrorCode {
    /// The code as Twirp writes it.
    pub const fn twirp(self) -> &'static str {
        match self {
            ErrorCode::Internal => "internal",
            ErrorCode::InvalidArgument => "invalid_argument",
            ErrorCode::Unauthenticated => "unauthenticated",
            ErrorCode::PermissionDenied => "permission_denied",
            ErrorCode::NotFound => "not_found",
            ErrorCode::AlreadyExists => "already_exists",
            ErrorCode::FailedPrecondition => "failed_precondition",
            ErrorCode::ResourceExhausted => "resource_exhausted",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::Unimplemented => "unimplemented",
        }
    }

    /// The HTTP status that goes with it.
    pub const fn http_status(self) -> u16 {
        match self {
            ErrorCode::Internal => 500,
            ErrorCode::InvalidArgument => 400,
            ErrorCode::Unauthenticated => 401,
            ErrorCode::PermissionDenied => 403,
            ErrorCode::NotFound => 404,
            ErrorCode::AlreadyExists => 409,
            ErrorCode::FailedPrecondition => 412,
            ErrorCode::ResourceExhausted => 429,
            ErrorCode::Unavailable => 503,
            ErrorCode::Unimplemented => 501,
        }
    }
}

/// One RoomService call. The relay verifies the token itself.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct AdminCall {
    /// Bearer token of the caller.
    #[prost(string, tag = "1")]
    pub token: String,
    /// Method of `livekit.RoomService`, such as `ListRooms`.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The encoded request message.
    #[prost(bytes = "bytes", tag = "3")]
    pub request: prost::bytes::Bytes,
}

impl fmt::Debug for AdminCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminCall").field("method", &self.method).finish_non_exhaustive()
    }
}

/// The answer to an [`AdminCall`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct AdminReply {
    /// The outcome.
    #[prost(oneof = "AdminOutcome", tags = "1, 2")]
    pub outcome: Option<AdminOutcome>,
}

/// Outcomes of an [`AdminCall`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum AdminOutcome {
    /// The encoded response message.
    #[prost(bytes = "bytes", tag = "1")]
    Response(prost::bytes::Bytes),
    /// Refused.
    #[prost(message, tag = "2")]
    Error(Refusal),
}

/// Opens the event feed.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct EventsOpen {}

/// Something that the audit trail and the platform want to know.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct RoomEvent {
    /// LiveKit's webhook names: `room_started`, `room_finished`, `participant_joined`, `participant_left`,
    /// `track_published`, `track_unpublished`; and `media_not_encrypted`.
    #[prost(string, tag = "1")]
    pub event: String,
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, tag = "2")]
    pub unix_ms: u64,
    /// Encoded `livekit.Room`.
    #[prost(bytes = "bytes", tag = "3")]
    pub room: prost::bytes::Bytes,
    /// Encoded `livekit.ParticipantInfo`; empty for events of the room itself.
    #[prost(bytes = "bytes", tag = "4")]
    pub participant: prost::bytes::Bytes,
    /// Encoded `livekit.TrackInfo`; empty but for events of a track.
    #[prost(bytes = "bytes", tag = "5")]
    pub track: prost::bytes::Bytes,
}

impl fmt::Debug for RoomEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomEvent").field("event", &self.event).finish_non_exhaustive()
    }
}
