//! What the operator sets for rooms.

use std::time::Duration;

use sfu_media::command::Codec;

use super::TurnConfig;

/// Whether media and messages must be end-to-end encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum E2eePolicy {
    /// Tracks that are declared unencrypted are refused, frames without the cryptor's trailer are dropped, and so are
    /// messages of participants in clear text.
    #[default]
    Required,
    /// Each participant decides.
    Optional,
}

/// Settings of a room. Zero means "no limit" only where it says so.
#[derive(Debug, Clone)]
pub struct RoomConfig {
    /// End-to-end encryption.
    pub e2ee: E2eePolicy,
    /// Participants at a time; 0 is no limit. Recorders and agents count as well.
    pub max_participants: u32,
    /// Published tracks of one participant at a time, pending ones included.
    pub max_tracks_per_participant: usize,
    /// Subscriptions of one participant at a time.
    pub max_subscriptions: usize,
    /// Bytes of metadata, of a participant and of the room.
    pub max_metadata_bytes: usize,
    /// Bytes of all attribute names and values of a participant.
    pub max_attributes_bytes: usize,
    /// Bytes of an identity or a display name.
    pub max_name_bytes: usize,
    /// Bytes of one data packet as it comes off a data channel.
    pub max_data_bytes: usize,
    /// How long a room lasts that nobody has joined yet.
    pub empty_timeout: Duration,
    /// How long a room lasts after the last participant left.
    pub departure_timeout: Duration,
    /// How long a participant may take from its join to a connected transport.
    pub join_timeout: Duration,
    /// How long a participant stays that has neither a signalling connection nor a connected transport.
    pub resume_timeout: Duration,
    /// How often clients ping.
    pub ping_interval: Duration,
    /// After what silence clients give their signalling connection up.
    pub ping_timeout: Duration,
    /// Once a room has more microphones than this, only so many of them are forwarded at a time, the loudest, and silence
    /// is not; 0 forwards all. More than eight at once nobody understands, and visits rarely have so many, so that there
    /// the choice costs nothing and hides nothing.
    pub max_forwarded_speakers: u16,
    /// Codecs that may be published, in order of preference.
    pub codecs: Vec<Codec>,
    /// TURN servers that clients are told of.
    pub turn: Option<TurnConfig>,
    /// Shown to clients as `ServerInfo.region`.
    pub region: String,
    /// Shown to clients as `ServerInfo.node_id`.
    pub node_id: String,
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self {
            e2ee: E2eePolicy::Required,
            max_participants: 0,
            max_tracks_per_participant: 32,
            max_subscriptions: 512,
            max_metadata_bytes: 64 * 1024,
            max_attributes_bytes: 64 * 1024,
            max_name_bytes: 256,
            max_data_bytes: 64 * 1024,
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            join_timeout: Duration::from_secs(60),
            resume_timeout: Duration::from_secs(20),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(15),
            max_forwarded_speakers: 8,
            codecs: vec![Codec::Red, Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264],
            turn: None,
            region: String::new(),
            node_id: String::new(),
        }
    }
}
