//! Why a packet went no further. Every reason has a counter of its own.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a packet went no further.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// All reasons, in the order of their discriminants.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)*];

            /// The value of the metric label `reason`.
            pub const fn label(self) -> &'static str {
                match self { $(DropReason::$name => $label,)* }
            }
        }
    };
}

drop_reasons! {
    /// The first byte belongs to no protocol that is multiplexed here (RFC 7983).
    UnknownProtocol = "unknown_protocol",
    /// Media, DTLS or STUN from an address that never passed an ICE check.
    UnknownSource = "unknown_source",
    /// Not a well-formed STUN message.
    StunMalformed = "stun_malformed",
    /// A STUN request for a user name that no peer has.
    StunUnknownUser = "stun_unknown_user",
    /// MESSAGE-INTEGRITY missing or wrong.
    StunIntegrity = "stun_integrity",
    /// A DTLS record that the handshake or the connection did not accept.
    DtlsMalformed = "dtls_malformed",
    /// The peer's certificate is not the one that its SDP announced.
    DtlsFingerprint = "dtls_fingerprint",
    /// SRTP or SRTCP before keys exist.
    SrtpNotReady = "srtp_not_ready",
    /// Authentication tag wrong.
    SrtpAuth = "srtp_auth",
    /// Index already seen or too old for the window.
    SrtpReplay = "srtp_replay",
    /// Not a well-formed RTP packet.
    RtpMalformed = "rtp_malformed",
    /// Not a well-formed RTCP compound packet.
    RtcpMalformed = "rtcp_malformed",
    /// Not a well-formed SCTP packet.
    SctpMalformed = "sctp_malformed",
    /// No negotiated media section takes this SSRC, MID or RID.
    UnknownSsrc = "unknown_ssrc",
    /// The payload type was not negotiated for its section.
    UnknownPayloadType = "unknown_payload_type",
    /// The section's track is not published (not announced, refused, or gone).
    NotPublished = "not_published",
    /// The subscriber's path is too slow for what is sent to it.
    Congested = "congested",
    /// The track is muted.
    Muted = "muted",
    /// The room demands end-to-end encryption and the frame has no cryptor trailer.
    NotEncrypted = "not_encrypted",
    /// The frame's end did not arrive in time, so that its encryption could not be checked.
    FrameUnfinished = "frame_unfinished",
    /// A retransmission that repeats what was there already, or of an unknown packet.
    RtxUseless = "rtx_useless",
    /// The packet is a duplicate by sequence number.
    Duplicate = "duplicate",
    /// Too old for the packet store.
    TooOld = "too_old",
    /// Padding only: nothing to forward.
    Padding = "padding",
    /// Silence, or the voice of one who is not among the loudest, in a room with many speakers.
    NotLoudest = "not_loudest",
    /// A layer that this subscriber does not get.
    LayerNotSelected = "layer_not_selected",
    /// The subscriber waits for a key frame.
    WaitingForKeyFrame = "waiting_for_key_frame",
    /// The subscriber negotiated no payload type for the publisher's codec.
    CodecNotNegotiated = "codec_not_negotiated",
    /// Longer than the relay forwards.
    TooLarge = "too_large",
    /// A data-channel message on a label that is not served, or larger than allowed.
    DataRefused = "data_refused",
    /// The peer's send queue is full.
    QueueFull = "queue_full",
    /// A limit on the state that one peer may create was reached.
    PeerLimit = "peer_limit",
    /// Another shard of the room does not keep up with what it is handed.
    RelayFull = "relay_full",
}
