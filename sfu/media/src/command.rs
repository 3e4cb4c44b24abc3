//! What crosses the boundary of a shard: commands from the room logic, events to it.
//!
//! Room logic knows peers, tracks and subscriptions by ids that it chose; a shard knows nothing of participants, names
//! or permissions. A command that names an id which is already gone is ignored: the two sides run concurrently.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::ids::{Mid, PeerId, Pt, Rid, ShardId, SpeakerGroup, Ssrc, SubId, TrackId};
use crate::stats::ShardStats;

/// ICE user name fragment and password ([RFC 8839 section 5.4](https://www.rfc-editor.org/rfc/rfc8839#section-5.4)).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// 4 to 256 characters.
    pub ufrag: String,
    /// 22 to 256 characters; secret.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IceCredentials(..)")
    }
}

/// SHA-256 of a DTLS certificate, `a=fingerprint:sha-256` ([RFC 8122](https://www.rfc-editor.org/rfc/rfc8122)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// What the client's description says of its transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTransport {
    /// The client's ICE credentials.
    pub ice: IceCredentials,
    /// Digest of the certificate that its DTLS endpoint must show.
    pub fingerprint: Fingerprint,
}

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Opus, plain or in RED.
    Audio,
    /// Any video codec.
    Video,
}

/// The codecs that the relay forwards. It never decodes any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// Redundant audio, RFC 2198, with Opus inside.
    Red,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// AV1 RTP specification.
    Av1,
    /// RFC 6184.
    H264,
}

/// One negotiated payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecParams {
    /// Payload type of the codec.
    pub pt: Pt,
    /// The codec.
    pub codec: Codec,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// Payload type of its retransmissions ([RFC 4588](https://www.rfc-editor.org/rfc/rfc4588)), when negotiated.
    pub rtx: Option<Pt>,
    /// Tells apart payload types of one codec that do not interoperate: for H264 `profile_idc << 8 | packetization-mode`,
    /// for VP9 and AV1 the profile, else 0. A subscriber's payload type fits a publisher's when codec and variant agree.
    pub variant: u32,
}

/// RTP header extensions that the relay understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Extension {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`
    Mid,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`
    Rid,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`
    RepairedRid,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464)
    AudioLevel,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`
    AbsSendTime,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`
    TransportCc,
    /// `https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension`
    DependencyDescriptor,
    /// `urn:3gpp:video-orientation`
    VideoOrientation,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`
    PlayoutDelay,
}

impl Extension {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Extension; 9] = [
        Extension::Mid,
        Extension::Rid,
        Extension::RepairedRid,
        Extension::AudioLevel,
        Extension::AbsSendTime,
        Extension::TransportCc,
        Extension::DependencyDescriptor,
        Extension::VideoOrientation,
        Extension::PlayoutDelay,
    ];

    /// The URI of `a=extmap`.
    pub const fn uri(self) -> &'static str {
        match self {
            Extension::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Extension::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Extension::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Extension::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Extension::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Extension::TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Extension::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Extension::VideoOrientation => "urn:3gpp:video-orientation",
            Extension::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        }
    }
}

/// Which extension has which id in one media section. Ids are 1 to 255; 15 is never used
/// ([RFC 8285](https://www.rfc-editor.org/rfc/rfc8285)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionMap {
    ids: [u8; Extension::ALL.len()],
    /// `a=extmap-allow-mixed` was negotiated: the sender may use the two-byte form.
    pub allow_mixed: bool,
}

impl ExtensionMap {
    /// Sets the id of an extension. Ids 0 and 15 are ignored.
    pub fn set(&mut self, extension: Extension, id: u8) {
        if id != 0 && id != 15 {
            self.ids[extension as usize] = id;
        }
    }

    /// The id of an extension, when negotiated.
    pub fn id(&self, extension: Extension) -> Option<u8> {
        Some(self.ids[extension as usize]).filter(|id| *id != 0)
    }

    /// The extension with an id.
    pub fn extension(&self, id: u8) -> Option<Extension> {
        if id == 0 {
            return None;
        }
        self.ids.iter().position(|have| *have == id).map(|i| Extension::ALL[i])
    }
}

/// A media stream and its retransmission stream as the publisher announced them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SsrcPair {
    /// The stream itself.
    pub primary: Ssrc,
    /// Its RTX stream (`a=ssrc-group:FID`).
    pub rtx: Option<Ssrc>,
}

/// One media section that a client may send on, as negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveSection {
    /// `a=mid`.
    pub mid: Mid,
    /// Audio or video.
    pub kind: MediaKind,
    /// Accepted payload types.
    pub codecs: Vec<CodecParams>,
    /// Accepted header extensions.
    pub extensions: ExtensionMap,
    /// Streams announced by `a=ssrc`; with `a=ssrc-group:SIM` in its order, lowest layer first. Often empty with rids.
    pub ssrcs: Vec<SsrcPair>,
    /// Simulcast streams (`a=simulcast`), lowest layer first. Empty without simulcast.
    pub rids: Vec<Rid>,
}

/// What a track's media must satisfy to be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackPolicy {
    /// Drop frames without the cryptor's trailer.
    pub require_encryption: bool,
    /// Drop everything for now.
    pub muted: bool,
}

/// How a track is sent to one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendSection {
    /// `a=mid` of the section on the subscriber's transport.
    pub mid: Mid,
    /// Audio or video.
    pub kind: MediaKind,
    /// SSRC of the outgoing stream, unique on its transport, never used before on it.
    pub ssrc: Ssrc,
    /// SSRC of its retransmissions, when any payload type has RTX.
    pub rtx_ssrc: Option<Ssrc>,
    /// Payload types that the subscriber accepts.
    pub codecs: Vec<CodecParams>,
    /// Header extensions that the subscriber accepts.
    pub extensions: ExtensionMap,
    /// RTCP canonical name: the same for all tracks of one publisher, so that they are played in sync.
    pub cname: Arc<str>,
}

/// What a subscriber's page wants of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionTarget {
    /// Send nothing while false.
    pub enabled: bool,
    /// Highest spatial layer wanted; 0 is the lowest. Layers that do not exist mean the best one below.
    pub max_spatial: u8,
    /// Highest temporal layer wanted.
    pub max_temporal: u8,
    /// Of the tracks of one peer, those with a higher number get bandwidth first where it does not suffice for all.
    pub priority: u32,
}

impl Default for SubscriptionTarget {
    fn default() -> Self {
        Self { enabled: true, max_spatial: u8::MAX, max_temporal: u8::MAX, priority: 0 }
    }
}

/// Room logic to shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardCommand {
    /// A transport comes to be. The relay is ICE-lite and the DTLS server.
    OpenPeer {
        /// Its id.
        peer: PeerId,
        /// Credentials that the relay's description announces.
        ice: IceCredentials,
        /// Labels of data channels that the relay opens itself once SCTP is up (in-band by DCEP). Empty where the
        /// client opens them.
        data_channels: Vec<DataChannelSpec>,
    },
    /// The client's description arrived, or changed by an ICE restart. Checks are answered only after it; DTLS
    /// completes only with the fingerprint given here.
    SetRemote {
        /// Which transport.
        peer: PeerId,
        /// What the description says.
        remote: RemoteTransport,
    },
    /// New local credentials. The old ones stay valid until a check with the new ones arrives.
    RestartIce {
        /// Which transport.
        peer: PeerId,
        /// The new local credentials.
        ice: IceCredentials,
    },
    /// Replaces the whole set of sections that the client may send on. Published tracks are kept by mid.
    SetReceive {
        /// Which transport.
        peer: PeerId,
        /// All sections with direction towards the relay.
        sections: Vec<ReceiveSection>,
    },
    /// The media of a section is a track, to be forwarded to its subscriptions.
    Publish {
        /// Which transport.
        peer: PeerId,
        /// Which of its sections.
        mid: Mid,
        /// The track's id.
        track: TrackId,
        /// Its policy.
        policy: TrackPolicy,
    },
    /// Changes a track's policy (mute, unmute).
    SetTrackPolicy {
        /// Which track.
        track: TrackId,
        /// The policy from now on.
        policy: TrackPolicy,
    },
    /// An audio track is forwarded only while it is one of the loudest of its group, once the group has more tracks than
    /// are forwarded. Sent after `Publish`; holds until the track ends. Tracks whose packets do not tell their level
    /// ([`Extension::AudioLevel`]) are always forwarded.
    LimitSpeakers {
        /// Which track.
        track: TrackId,
        /// Its group. A track never changes it.
        group: SpeakerGroup,
        /// How many tracks of the group are forwarded at a time, from now on; 0 is all of them.
        max: u16,
    },
    /// The track ends; so do its subscriptions. Media of its section is dropped until another `Publish`.
    Unpublish {
        /// Which track.
        track: TrackId,
    },
    /// Another shard has subscriptions to a track of this one: it is handed the track's packets from now on. See
    /// [`crate::relay`].
    StartRelay {
        /// Which track.
        track: TrackId,
        /// To which shard.
        to: ShardId,
    },
    /// It has none any more.
    StopRelay {
        /// Which track.
        track: TrackId,
        /// To which shard.
        to: ShardId,
    },
    /// A track that a peer of another shard publishes is to be subscribed to here. Ends with `Unpublish`.
    PublishRelayed {
        /// The track's id.
        track: TrackId,
        /// From which shard its packets come.
        from: ShardId,
        /// Audio or video.
        kind: MediaKind,
        /// Its policy, which both shards enforce.
        policy: TrackPolicy,
    },
    /// A track is to be sent to a peer. Key frames are asked for as needed.
    Subscribe {
        /// The subscription's id.
        sub: SubId,
        /// Which track.
        track: TrackId,
        /// To which transport.
        peer: PeerId,
        /// How.
        section: SendSection,
        /// What the page wants.
        target: SubscriptionTarget,
    },
    /// What the page wants changed.
    SetTarget {
        /// Which subscription.
        sub: SubId,
        /// What it wants now.
        target: SubscriptionTarget,
    },
    /// The subscription ends at once.
    Unsubscribe {
        /// Which subscription.
        sub: SubId,
    },
    /// A data-channel message to one peer. Dropped and counted when no such channel is open.
    SendData {
        /// To which transport.
        peer: PeerId,
        /// On which channel.
        label: DataLabel,
        /// The message.
        payload: Bytes,
    },
    /// The transport ends, with its tracks and subscriptions; a DTLS `close_notify` is sent.
    ClosePeer {
        /// Which transport.
        peer: PeerId,
    },
}

/// The data channels of the LiveKit protocol, by label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataLabel {
    /// `_reliable`: ordered and reliable.
    Reliable,
    /// `_lossy`: unordered, no retransmission.
    Lossy,
    /// `_data_track`: unordered, no retransmission, frames of data tracks.
    DataTrack,
}

impl DataLabel {
    /// The label in the DCEP OPEN message ([RFC 8832](https://www.rfc-editor.org/rfc/rfc8832)).
    pub const fn as_str(self) -> &'static str {
        match self {
            DataLabel::Reliable => "_reliable",
            DataLabel::Lossy => "_lossy",
            DataLabel::DataTrack => "_data_track",
        }
    }

    /// From the label of a channel that the client opened.
    pub fn parse(label: &str) -> Option<DataLabel> {
        [DataLabel::Reliable, DataLabel::Lossy, DataLabel::DataTrack]
            .into_iter()
            .find(|l| l.as_str() == label)
    }
}

/// A data channel that the relay opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataChannelSpec {
    /// Its label.
    pub label: DataLabel,
    /// Messages arrive in order.
    pub ordered: bool,
    /// `Some(0)` for no retransmission; `None` for reliable.
    pub max_retransmits: Option<u16>,
}

/// Why a transport ended without a `ClosePeer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// No ICE check or DTLS handshake succeeded in time.
    NeverConnected,
    /// No ICE check for the consent time ([RFC 7675](https://www.rfc-editor.org/rfc/rfc7675)).
    ConsentExpired,
    /// The client's certificate did not match its fingerprint.
    FingerprintMismatch,
    /// The DTLS handshake failed.
    HandshakeFailed,
    /// The client sent `close_notify`.
    RemoteClosed,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [CloseReason; 5] = [
        CloseReason::NeverConnected,
        CloseReason::ConsentExpired,
        CloseReason::FingerprintMismatch,
        CloseReason::HandshakeFailed,
        CloseReason::RemoteClosed,
    ];

    /// Value of a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            CloseReason::NeverConnected => "never_connected",
            CloseReason::ConsentExpired => "consent_expired",
            CloseReason::FingerprintMismatch => "fingerprint_mismatch",
            CloseReason::HandshakeFailed => "handshake_failed",
            CloseReason::RemoteClosed => "remote_closed",
        }
    }
}

/// Loudness of one audio track since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevel {
    /// Which track.
    pub track: TrackId,
    /// Loudest level in -dBov: 0 is the loudest, 127 is silence (RFC 6464).
    pub level: u8,
    /// Percentage of the period, 0 to 100, in which the sender's level was above the speech threshold.
    pub active_percent: u8,
}

/// How a peer's connection fared since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerQuality {
    /// Which transport.
    pub peer: PeerId,
    /// Anything authentic came from it. Media, reports and connectivity checks all count: a client that can reach the relay
    /// is never silent for more than some seconds.
    pub heard: bool,
    /// Packets that the peer should have sent us.
    pub up_expected: u32,
    /// Packets of these that were lost before repair.
    pub up_lost: u32,
    /// Packets that we sent the peer.
    pub down_sent: u32,
    /// Packets of these that its receiver reports say were lost.
    pub down_lost: u32,
    /// Round-trip time from receiver reports or ICE.
    pub rtt: Option<Duration>,
    /// Interarrival jitter (RFC 3550), the worst of the peer's streams.
    pub jitter: Duration,
}

/// Shard to room logic.
#[derive(Debug, Clone, PartialEq)]
pub enum ShardEvent {
    /// ICE and DTLS are up, keys are there.
    PeerConnected {
        /// Which transport.
        peer: PeerId,
    },
    /// The transport ended by itself; its tracks and subscriptions are gone from the shard.
    PeerClosed {
        /// Which transport.
        peer: PeerId,
        /// Why.
        reason: CloseReason,
    },
    /// A data-channel message arrived.
    Data {
        /// From which transport.
        peer: PeerId,
        /// On which channel.
        label: DataLabel,
        /// The message.
        payload: Bytes,
    },
    /// The first packet of a layer was accepted.
    LayerLive {
        /// Which track.
        track: TrackId,
        /// Spatial layer, 0 is the lowest.
        spatial: u8,
        /// Its SSRC.
        ssrc: Ssrc,
        /// Its codec.
        codec: Codec,
    },
    /// A track in a room that requires encryption sent a frame without the trailer. Sent once per spell.
    NotEncrypted {
        /// Which track.
        track: TrackId,
    },
    /// The subscriber's path cannot carry even the lowest layer of a track: nothing is sent; or it can again.
    StreamPaused {
        /// Which track.
        track: TrackId,
        /// Which subscription to it.
        sub: SubId,
        /// Whether it is paused from now on.
        paused: bool,
    },
    /// Loudness of the audio tracks that were not silent; about four times a second.
    AudioLevels(Vec<AudioLevel>),
    /// Connection figures, each peer about every two seconds.
    Quality(Vec<PeerQuality>),
    /// Counters, about once a second.
    Stats(Box<ShardStats>),
}
