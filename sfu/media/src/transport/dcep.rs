//! Data Channel Establishment Protocol ([RFC 8832](https://www.rfc-editor.org/rfc/rfc8832)).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  Message Type |  Channel Type |            Priority           |
//! |                    Reliability Parameter                      |
//! |         Label Length          |       Protocol Length         |
//! |                       Label, then Protocol                    |
//! ```

use sctp_proto::ReliabilityType;

const OPEN: u8 = 0x03;
const ACK: u8 = 0x02;
const OPEN_HEADER: usize = 12;
/// Top bit of the channel type.
const UNORDERED: u8 = 0x80;

/// How a channel delivers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reliability {
    pub(super) unordered: bool,
    pub(super) kind: ReliabilityType,
    /// Retransmissions, or milliseconds, by `kind`.
    pub(super) value: u32,
}

/// A message on the DCEP payload protocol. The sub-protocol of a channel means nothing here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Dcep<'a> {
    Open { reliability: Reliability, label: &'a str },
    Ack,
}

impl<'a> Dcep<'a> {
    /// `None` for what is not a well-formed message.
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        match *message.first()? {
            ACK => Some(Dcep::Ack),
            OPEN => {
                let header: &[u8; OPEN_HEADER] = message.first_chunk()?;
                let kind = match header[1] & !UNORDERED {
                    0 => ReliabilityType::Reliable,
                    1 => ReliabilityType::Rexmit,
                    2 => ReliabilityType::Timed,
                    _ => return None,
                };
                let value = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let label_len = usize::from(u16::from_be_bytes([header[8], header[9]]));
                let protocol_len = usize::from(u16::from_be_bytes([header[10], header[11]]));
                let label = message.get(OPEN_HEADER..OPEN_HEADER + label_len)?;
                if message.len() != OPEN_HEADER + label_len + protocol_len {
                    return None;
                }
                let reliability = Reliability { unordered: header[1] & UNORDERED != 0, kind, value };
                Some(Dcep::Open { reliability, label: std::str::from_utf8(label).ok()? })
            }
            _ => None,
        }
    }

    pub(super) fn write(&self) -> Vec<u8> {
        match self {
            Dcep::Ack => vec![ACK],
            Dcep::Open { reliability, label } => {
                let mut out = Vec::with_capacity(OPEN_HEADER + label.len());
                let kind = match reliability.kind {
                    ReliabilityType::Reliable => 0,
                    ReliabilityType::Rexmit => 1,
                    ReliabilityType::Timed => 2,
                };
                out.extend([OPEN, kind | if reliability.unordered { UNORDERED } else { 0 }]);
                // Priority "normal" (RFC 8832 section 8.2.2 leaves it to the application; browsers send 0 or 256).
                out.extend(256u16.to_be_bytes());
                out.extend(reliability.value.to_be_bytes());
                out.extend((label.len() as u16).to_be_bytes());
                out.extend([0, 0]);
                out.extend(label.as_bytes());
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_as_chromium_sends_it_for_lossy() {
        // Unordered, partially reliable by count 0, label "_lossy", no protocol.
        let message = b"\x03\x81\x01\x00\x00\x00\x00\x00\x00\x06\x00\x00_lossy";
        let reliability = Reliability { unordered: true, kind: ReliabilityType::Rexmit, value: 0 };
        let open = Dcep::Open { reliability, label: "_lossy" };
        assert_eq!(Dcep::parse(message), Some(open));
        assert_eq!(open.write(), message);
    }

    #[test]
    fn malformed_messages_are_nothing() {
        let good = b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01abp";
        assert!(Dcep::parse(good).is_some());
        for len in 0..good.len() {
            assert_eq!(Dcep::parse(&good[..len]), None, "{len}");
        }
        let mut longer = good.to_vec();
        longer.push(0);
        assert_eq!(Dcep::parse(&longer), None);
        let mut unknown_type = *good;
        unknown_type[1] = 3;
        assert_eq!(Dcep::parse(&unknown_type), None);
        let mut not_utf8 = *good;
        not_utf8[12] = 0xff;
        assert_eq!(Dcep::parse(&not_utf8), None);
        assert_eq!(Dcep::parse(&[0x07]), None);
        assert_eq!(Dcep::parse(&[ACK]), Some(Dcep::Ack));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = Dcep::parse(&bytes);
            let mut open = bytes;
            open.insert(0, OPEN);
            let _ = Dcep::parse(&open);
        }
    }
}
