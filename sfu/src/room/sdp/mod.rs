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

/// Appends a line to a description.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        // Writing to a String does not fail.
        let _ = write!($out, $($arg)*);
        $out.push_str("\r\n");
    }};
}

mod answer;
mod codecs;
mod error;
mod extensions;
mod offer;
mod sections;
mod streams;
#[cfg(test)]
mod tests;
mod text;
mod transport;

pub use error::SdpError;
use sections::{Sections, Slot};

/// What the relay's descriptions say of its own transport.
#[derive(Debug, Clone)]
pub struct LocalTransport {
    /// The relay's ICE credentials.
    pub ice: IceCredentials,
    /// Digest of the relay's DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Host candidates, UDP, the preferred one first.
    pub candidates: Vec<SocketAddr>,
    /// The same for TCP, where the relay waits for connections.
    pub tcp_candidates: Vec<SocketAddr>,
    /// ICE restarts so far.
    pub restarts: u16,
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
    /// First part of `a=msid`, for LiveKit clients `PARTICIPANT_SID|TRACK_SID`: in a section that is used again a browser
    /// keeps the first track's id, so the clients of `/rtc` (two connections) know the track by its stream only.
    /// Characters that an SDP token may not have are written as `_`.
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
/// Publish hints kept for tracks that no offer has shown yet; beyond it the oldest is forgotten.
const MAX_HINTS: usize = 256;

/// The relay's end of one connection's descriptions.
pub struct Negotiation {
    local: LocalTransport,
    codecs: CodecPolicy,
    role: Role,
    /// `o=` line: the session's id, and the version that grows with each description.
    session_id: u64,
    version: u64,
    sections: Sections,
    hints: Vec<(String, PublishHint)>,
    /// The client's credentials in its last description.
    remote_ice: Option<IceCredentials>,
    /// Where the relay offers: its own credentials in the last finished exchange and in an offer that waits for its
    /// answer, the number of mids given out, and the tracks that no codec of the policy fits.
    settled_ice: Option<IceCredentials>,
    offered_ice: Option<IceCredentials>,
    mids_made: u32,
    unsupported: Vec<SubId>,
}

impl Negotiation {
    /// Before the first description.
    pub fn new(local: LocalTransport, codecs: CodecPolicy, role: Role) -> Self {
        let session_id = session_id(&local);
        let mut negotiation = Self {
            local,
            codecs,
            role,
            session_id,
            version: 0,
            sections: Sections::default(),
            hints: Vec::new(),
            remote_ice: None,
            settled_ice: None,
            offered_ice: None,
            mids_made: 0,
            unsupported: Vec::new(),
        };
        if role == (Role::RelayOffers { data_channels: true }) {
            let mid = negotiation.next_mid();
            negotiation.sections.slots.push(Slot::Data { mid });
        }
        negotiation
    }

    /// Credentials for the relay's next description. New ones restart ICE
    /// ([RFC 8839 section 4.4.3](https://www.rfc-editor.org/rfc/rfc8839#section-4.4.3)); where the client offers they may
    /// only come when [`Self::restarts_ice`] says so.
    pub fn set_local_ice(&mut self, ice: IceCredentials) {
        if self.local.ice != ice {
            self.local.restarts = self.local.restarts.saturating_add(1);
        }
        self.local.ice = ice;
    }

    /// A track is to be sent to the client. A subscription that is there already is left as it is.
    pub fn add_track(&mut self, mut track: SendTrack) {
        track.stream_id = text::token(&track.stream_id);
        track.track_id = text::token(&track.track_id);
        let cname = text::token(&track.cname);
        if *cname != *track.cname {
            track.cname = cname.into();
        }
        self.sections.add(track);
        if self.role == Role::ClientOffers {
            self.sections.assign();
        }
    }

    /// A track is to be sent no more. Its section is used again once an exchange has made it inactive.
    pub fn remove_track(&mut self, sub: SubId) {
        self.sections.remove(sub);
    }

    /// How the client should send the track that its offer calls `track_id` (second part of `a=msid`). Takes effect with
    /// the next answer.
    pub fn set_publish_hint(&mut self, track_id: &str, hint: PublishHint) {
        self.hints.retain(|(id, _)| id != track_id);
        if self.hints.len() >= MAX_HINTS {
            self.hints.remove(0);
        }
        self.hints.push((track_id.to_owned(), hint));
    }

    /// Whether this offer restarts ICE: then call [`Self::set_local_ice`] before [`Self::answer`].
    pub fn restarts_ice(&self, offer: &str) -> bool {
        let Some(old) = &self.remote_ice else { return false };
        text::Description::parse(offer)
            .ok()
            .and_then(|description| transport::ice_credentials(&description))
            .is_some_and(|new| new != *old)
    }

    /// For each section that the relay sends on by its last description, `a=mid` and [`SendTrack::track_id`].
    pub fn mid_to_track_id(&self) -> HashMap<String, String> {
        self.sections
            .media()
            .filter_map(|m| Some((m.mid.as_str().to_owned(), m.track_with(m.described)?.track_id.clone())))
            .collect()
    }

    /// Whether the tracks and credentials as they stand differ from what the last exchange settled. True as well while an
    /// exchange that will settle them is under way.
    pub fn needs_negotiation(&self) -> bool {
        let by_relay = self.role != Role::ClientOffers && self.settled_ice.as_ref() != Some(&self.local.ice);
        by_relay || self.sections.are_unsettled()
    }

    /// Tracks that lack a section which the client is willing to receive on. What was asked for by
    /// `MediaSectionsRequirement` counts until the client's offer brings it.
    pub fn unassigned(&self) -> Unassigned {
        self.sections.unassigned()
    }

    fn hint(&self, track_id: &str) -> PublishHint {
        self.hints.iter().find(|(id, _)| id == track_id).map(|(_, hint)| *hint).unwrap_or_default()
    }

    /// Keeps the client's credentials; true when they replace others.
    fn remember_remote(&mut self, remote: &RemoteTransport) -> bool {
        let old = self.remote_ice.replace(remote.ice.clone());
        old.is_some_and(|old| old != remote.ice)
    }

    fn next_mid(&mut self) -> Mid {
        let number = self.mids_made;
        self.mids_made = self.mids_made.wrapping_add(1);
        Mid::new(&number.to_string()).expect("ten digits at most fit a mid")
    }

    /// The lines before the first section.
    fn write_session(&mut self, mids: impl Iterator<Item = Mid>, allow_mixed: bool) -> String {
        self.version += 1;
        let mut out = String::with_capacity(4096);
        line!(out, "v=0");
        line!(out, "o=- {} {} IN IP4 127.0.0.1", self.session_id, self.version);
        line!(out, "s=-");
        line!(out, "t=0 0");
        line!(out, "a=ice-lite");
        if allow_mixed {
            line!(out, "a=extmap-allow-mixed");
        }
        line!(out, "a=msid-semantic: WMS *");
        out.push_str("a=group:BUNDLE");
        for mid in mids {
            out.push(' ');
            out.push_str(mid.as_str());
        }
        out.push_str("\r\n");
        out
    }
}

/// A number for the `o=` line that tells this session from others: from what is public and random about it (FNV-1a). Its
/// top bit is zero, as [RFC 9429 section 5.2.1](https://www.rfc-editor.org/rfc/rfc9429#section-5.2.1) asks.
fn session_id(local: &LocalTransport) -> u64 {
    let bytes = local.ice.ufrag.bytes().chain(local.fingerprint.0);
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    hash >> 1
}
