//! Session descriptions: the relay's end of the offer/answer exchange of one `RTCPeerConnection`.
//!
//! A [`Negotiation`] reads what libwebrtc (Chromium, the native LiveKit SDKs), Firefox and str0m write, and writes the
//! relay's answers ([`Role::ClientOffers`]) and offers ([`Role::RelayOffers`]) by JSEP
//! ([RFC 9429](https://www.rfc-editor.org/rfc/rfc9429)). The relay is ICE-lite, always the DTLS server, and wants
//! everything on one transport: BUNDLE ([RFC 9143](https://www.rfc-editor.org/rfc/rfc9143)) and rtcp-mux
//! ([RFC 5761](https://www.rfc-editor.org/rfc/rfc5761)) are required. No I/O, no clock, no randomness.
//!
//! The order of calls for a client that offers (`/rtc/v1`, and the publisher connection of `/rtc`):
//!
//! ```text
//! add_track, remove_track                       any time; needs_negotiation() and unassigned() say what to ask of the client
//! restarts_ice(offer)? -> set_local_ice(new)    an answer to an ICE restart needs new credentials
//! answer(offer) -> Negotiated                   send .sdp and .mid_to_track_id, apply the rest to the shard
//! ```
//!
//! and where the relay offers (the subscriber connection of `/rtc`):
//!
//! ```text
//! add_track, remove_track, set_local_ice        any time; then needs_negotiation() is true
//! offer() -> SDP, mid_to_track_id()             send both
//! accept_answer(answer) -> Negotiated           apply to the shard; needs_negotiation() tells whether to offer again
//! ```

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use sfu_media::command::{
    Codec, CodecParams, Fingerprint, IceCredentials, MediaKind, ReceiveSection, RemoteTransport, SendSection,
};
use sfu_media::ids::{Mid, Ssrc, SubId};

mod error;

pub use error::SdpError;

/// What the relay's descriptions say of its own transport.
#[derive(Debug, Clone)]
pub struct LocalTransport {
    /// The relay's ICE credentials.
    pub ice: IceCredentials,
    /// Digest of the relay's DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Host candidates, UDP, the preferred one first.
    pub candidates: Vec<SocketAddr>,
}

/// Who writes the offers of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The client offers; the relay answers.
    ClientOffers,
    /// The relay offers; the client answers.
    RelayOffers {
        /// The offers have a data-channel section.
        data_channels: bool,
    },
}

/// The codecs that a room lets its participants use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecPolicy {
    enabled: Vec<Codec>,
}

impl CodecPolicy {
    /// Only these codecs.
    pub fn new(enabled: impl IntoIterator<Item = Codec>) -> Self {
        Self { enabled: enabled.into_iter().collect() }
    }

    /// Whether a codec may be negotiated.
    pub fn allows(&self, codec: Codec) -> bool {
        self.enabled.contains(&codec)
    }
}

impl Default for CodecPolicy {
    fn default() -> Self {
        Self::new([Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264])
    }
}

/// A track to be sent to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendTrack {
    /// The subscription's id.
    pub sub: SubId,
    /// Audio or video.
    pub kind: MediaKind,
    /// First part of `a=msid`. LiveKit clients read `PARTICIPANT_SID|STREAM` from it. Characters that an SDP token may
    /// not have are written as `_`.
    pub stream_id: String,
    /// Second part of `a=msid`: the track's sid. The same rule for characters.
    pub track_id: String,
    /// SSRC of the outgoing stream, never used before on this connection.
    pub ssrc: Ssrc,
    /// SSRC of its retransmissions.
    pub rtx_ssrc: Option<Ssrc>,
    /// RTCP canonical name.
    pub cname: Arc<str>,
    /// What the publisher may send, preferred first. Payload types are the publisher's and mean nothing here.
    pub codecs: Vec<CodecParams>,
}

/// How a client should send a track that it announced; the answer says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishHint {
    /// The codec to use. For video the answer has no other; for audio it comes first. Ignored when not offered.
    pub codec: Option<Codec>,
    /// Opus: ask for discontinuous transmission.
    pub dtx: bool,
    /// Opus: ask for stereo.
    pub stereo: bool,
}

/// Tracks that still lack a media section, where the client offers: what to ask for by `MediaSectionsRequirement`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unassigned {
    /// Audio tracks.
    pub audios: usize,
    /// Video tracks.
    pub videos: usize,
}

/// A track that the client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTrack {
    /// Section that carries it.
    pub mid: Mid,
    /// Audio or video.
    pub kind: MediaKind,
    /// First part of `a=msid`, empty when there is none.
    pub stream_id: String,
    /// Second part of `a=msid`, empty when there is none: what a LiveKit client calls `cid`.
    pub track_id: String,
    /// Accepted codecs, preferred first.
    pub codecs: Vec<Codec>,
    /// Number of simulcast layers; 1 without simulcast.
    pub layers: usize,
}

/// The outcome of one offer/answer exchange. All lists are whole, not changes: what is missing has ended.
#[derive(Clone, PartialEq)]
pub struct Negotiated {
    /// The answer to send; empty from [`Negotiation::accept_answer`].
    pub sdp: String,
    /// The client's transport.
    pub remote: RemoteTransport,
    /// All sections that the client may send on.
    pub receive: Vec<ReceiveSection>,
    /// The tracks on these sections, in the order of `receive`.
    pub remote_tracks: Vec<RemoteTrack>,
    /// All tracks that the client receives from now on.
    pub send: Vec<(SubId, SendSection)>,
    /// Tracks that this client cannot receive in any codec of theirs. They are forgotten: no section is kept for them.
    pub unsupported: Vec<SubId>,
    /// For each section that the relay sends on, its `a=mid` and [`SendTrack::track_id`].
    pub mid_to_track_id: HashMap<String, String>,
    /// The client's ICE credentials differ from those of its last description.
    pub ice_restarted: bool,
}

impl fmt::Debug for Negotiated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Negotiated")
            .field("receive", &self.receive.len())
            .field("send", &self.send.len())
            .field("ice_restarted", &self.ice_restarted)
            .finish_non_exhaustive()
    }
}

/// Descriptions longer than this are refused.
pub const MAX_SDP_BYTES: usize = 128 * 1024;
/// Descriptions with more media sections than this are refused.
pub const MAX_SECTIONS: usize = 200;

/// The relay's end of one connection's descriptions.
pub struct Negotiation {
    local: LocalTransport,
    codecs: CodecPolicy,
    role: Role,
}

impl Negotiation {
    /// Before the first description.
    pub fn new(local: LocalTransport, codecs: CodecPolicy, role: Role) -> Self {
        Self { local, codecs, role }
    }

    /// Credentials for the relay's next description. New ones restart ICE
    /// ([RFC 8839 section 4.4.3](https://www.rfc-editor.org/rfc/rfc8839#section-4.4.3)).
    pub fn set_local_ice(&mut self, ice: IceCredentials) {
        self.local.ice = ice;
    }

    /// A track is to be sent to the client.
    pub fn add_track(&mut self, track: SendTrack) {
        let _ = (track, &self.codecs, self.role);
    }

    /// A track is to be sent no more.
    pub fn remove_track(&mut self, sub: SubId) {
        let _ = sub;
    }

    /// How the client should send the track that its offer calls `track_id` (second part of `a=msid`).
    pub fn set_publish_hint(&mut self, track_id: &str, hint: PublishHint) {
        let _ = (track_id, hint);
    }

    /// Whether this offer restarts ICE: then call [`Self::set_local_ice`] before [`Self::answer`].
    pub fn restarts_ice(&self, offer: &str) -> bool {
        let _ = offer;
        false
    }

    /// Answers the client's offer.
    pub fn answer(&mut self, offer: &str) -> Result<Negotiated, SdpError> {
        let _ = offer;
        Err(SdpError::NoSections)
    }

    /// The relay's next offer.
    pub fn offer(&mut self) -> String {
        String::new()
    }

    /// Takes the client's answer to the last offer.
    pub fn accept_answer(&mut self, answer: &str) -> Result<Negotiated, SdpError> {
        let _ = answer;
        Err(SdpError::Unexpected)
    }

    /// For each section that the relay sends on by its last description, `a=mid` and [`SendTrack::track_id`].
    pub fn mid_to_track_id(&self) -> HashMap<String, String> {
        HashMap::new()
    }

    /// Whether the tracks and credentials as they stand differ from what the last exchange settled.
    pub fn needs_negotiation(&self) -> bool {
        false
    }

    /// Tracks that lack a section which the client is willing to receive on.
    pub fn unassigned(&self) -> Unassigned {
        Unassigned::default()
    }
}
