//! Which protocol a datagram belongs to: all of them share one port.

/// The protocols that share a transport's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// ICE connectivity checks.
    Stun,
    /// DTLS records: the handshake, and SCTP inside.
    Dtls,
    /// SRTP.
    Rtp,
    /// SRTCP.
    Rtcp,
}

/// Classifies a datagram by its first two bytes; `None` for protocols that are not multiplexed here.
///
/// The first byte tells STUN, DTLS and RTP apart ([RFC 7983 section 7](https://www.rfc-editor.org/rfc/rfc7983#section-7)).
/// RTCP's packet types lie in 192 to 223, which are RTP payload types 64 to 95 with the marker bit set and never
/// assigned ([RFC 5761 section 4](https://www.rfc-editor.org/rfc/rfc5761#section-4)). Nothing is checked beyond that.
pub fn classify(datagram: &[u8]) -> Option<Protocol> {
    match *datagram.first()? {
        0..=3 => Some(Protocol::Stun),
        20..=63 => Some(Protocol::Dtls),
        128..=191 => match *datagram.get(1)? {
            192..=223 => Some(Protocol::Rtcp),
            _ => Some(Protocol::Rtp),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_its_protocol() {
        for first in 0..=255u8 {
            let want = match first {
                0..=3 => Some(Protocol::Stun),
                // 16..=19 is ZRTP, 64..=79 TURN channel data.
                20..=63 => Some(Protocol::Dtls),
                128..=191 => Some(Protocol::Rtp),
                _ => None,
            };
            assert_eq!(classify(&[first, 96, 0, 0]), want, "{first}");
        }
    }

    #[test]
    fn rtcp_packet_types_are_told_from_payload_types() {
        for (second, want) in [
            (0, Protocol::Rtp),
            (111, Protocol::Rtp),
            // Payload type 63 with the marker.
            (191, Protocol::Rtp),
            // FIR (RFC 2032) .. SR, RR, SDES, BYE, APP, RTPFB, PSFB, XR .. the end of the range.
            (192, Protocol::Rtcp),
            (200, Protocol::Rtcp),
            (207, Protocol::Rtcp),
            (223, Protocol::Rtcp),
            // Payload type 96 with the marker.
            (224, Protocol::Rtp),
            (255, Protocol::Rtp),
        ] {
            assert_eq!(classify(&[0x80, second]), Some(want), "{second}");
        }
    }

    #[test]
    fn too_short_is_nothing() {
        assert_eq!(classify(&[]), None);
        assert_eq!(classify(&[0x80]), None);
    }
}
