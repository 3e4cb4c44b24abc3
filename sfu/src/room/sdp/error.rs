//! Why a description was refused.

/// Why a description was refused. Texts never quote the description: it holds names, addresses and secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// More than [`MAX_SDP_BYTES`](super::MAX_SDP_BYTES).
    #[error("the description is larger than {} bytes", super::MAX_SDP_BYTES)]
    TooLarge,
    /// More than [`MAX_SECTIONS`](super::MAX_SECTIONS).
    #[error("the description has more than {} media sections", super::MAX_SECTIONS)]
    TooManySections,
    /// A line is not `x=value`, or the description does not start with `v=0`.
    #[error("line {line} of the description is malformed")]
    Malformed {
        /// Counted from 1.
        line: usize,
    },
    /// The description has no media section that is not rejected.
    #[error("the description has no usable media section")]
    NoSections,
    /// A section has no `a=mid`, or one that is not a token of at most 16 characters.
    #[error("media section {section} has no usable a=mid")]
    Mid {
        /// Index of the media section, from 0.
        section: usize,
    },
    /// Two sections have the same `a=mid`.
    #[error("media section {section} repeats the a=mid of another")]
    DuplicateMid {
        /// Index of the media section, from 0.
        section: usize,
    },
    /// No `a=group:BUNDLE` that names the media sections ([RFC 9143](https://www.rfc-editor.org/rfc/rfc9143)).
    #[error("BUNDLE is required for all media sections")]
    NoBundle,
    /// A section without `a=rtcp-mux` ([RFC 5761](https://www.rfc-editor.org/rfc/rfc5761)).
    #[error("rtcp-mux is required; media section {section} lacks it")]
    NoRtcpMux {
        /// Index of the media section, from 0.
        section: usize,
    },
    /// No `a=ice-ufrag` and `a=ice-pwd` of the lengths that RFC 8839 allows.
    #[error("the description has no valid ICE credentials")]
    IceCredentials,
    /// No `a=fingerprint:sha-256`.
    #[error("the description has no valid sha-256 certificate fingerprint")]
    Fingerprint,
    /// The client insists on being the DTLS server, which the relay is.
    #[error("the client must be able to take the active DTLS role")]
    DtlsRole,
    /// A later description has fewer sections than an earlier one, or they do not fit its sections.
    #[error("media section {section} does not continue the previous description")]
    SectionChanged {
        /// Index of the media section, from 0.
        section: usize,
    },
    /// One payload type or extension id means different things in one description.
    #[error("media section {section} gives a number two meanings")]
    Conflict {
        /// Index of the media section, from 0.
        section: usize,
    },
    /// An offer came where the relay offers, or an answer came without an offer before it.
    #[error("the description does not fit the state of the negotiation")]
    Unexpected,
}
