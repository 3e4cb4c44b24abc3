//! STUN as an ICE agent needs it: binding requests in, binding responses out
//! ([RFC 8489](https://www.rfc-editor.org/rfc/rfc8489), [RFC 8445](https://www.rfc-editor.org/rfc/rfc8445)).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |0 0|     STUN Message Type     |         Message Length        |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                         Magic Cookie                          |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                     Transaction ID (96 bits)                  |
//! ```
//!
//! [`Message::parse`] checks the form of a whole message and borrows from it; nothing in it is authentic before
//! [`Message::verify`]. A missing or wrong FINGERPRINT, where there is one, makes the message malformed.

mod integrity;
mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smallvec::SmallVec;

pub use integrity::IntegrityKey;
pub use write::{MAX_LEN, MessageWriter};

use crate::drop_reason::DropReason;

const HEADER_LEN: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// XORed with the CRC so that the check does not collide with other protocols' CRC-32 (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// USERNAME is below 509 bytes in RFC 8489 and below 513 in RFC 5389; ICE's two fragments and a colon take 513.
const MAX_USERNAME: usize = 513;

mod attr {
    pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub(super) const REALM: u16 = 0x0014;
    pub(super) const NONCE: u16 = 0x0015;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    pub(super) const PASSWORD_ALGORITHM: u16 = 0x001d;
    pub(super) const USERHASH: u16 = 0x001e;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PRIORITY: u16 = 0x0024;
    pub(super) const USE_CANDIDATE: u16 = 0x0025;
    pub(super) const FINGERPRINT: u16 = 0x8028;
    pub(super) const ICE_CONTROLLED: u16 = 0x8029;
    pub(super) const ICE_CONTROLLING: u16 = 0x802a;
}

/// What a binding message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Answers a request.
    Success,
    /// Refuses a request.
    Error,
}

impl Class {
    /// The message type of this class with method Binding
    /// ([RFC 8489 section 5](https://www.rfc-editor.org/rfc/rfc8489#section-5)).
    const fn message_type(self) -> u16 {
        match self {
            Class::Request => 0x0001,
            Class::Indication => 0x0011,
            Class::Success => 0x0101,
            Class::Error => 0x0111,
        }
    }

    fn from_message_type(message_type: u16) -> Option<Self> {
        [Class::Request, Class::Indication, Class::Success, Class::Error]
            .into_iter()
            .find(|class| class.message_type() == message_type)
    }
}

/// Which role the sender has, with its tie-breaker ([RFC 8445 section 7.1.3](https://www.rfc-editor.org/rfc/rfc8445#section-7.1.3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It nominates.
    Controlling(u64),
    /// It expects the other side to nominate.
    Controlled(u64),
}

/// A well-formed binding message, borrowed from its datagram. Unauthenticated until [`Message::verify`].
#[derive(Debug, Clone)]
pub struct Message<'a> {
    datagram: &'a [u8],
    class: Class,
    username: Option<&'a str>,
    /// Offset of the MESSAGE-INTEGRITY attribute's header.
    integrity_at: Option<usize>,
    /// Value of ERROR-CODE.
    error_code: Option<u16>,
    xor_mapped_address: Option<SocketAddr>,
    priority: Option<u32>,
    use_candidate: bool,
    role: Option<Role>,
    unknown: SmallVec<[u16; 4]>,
}

/// Unknown attributes that a 420 response lists at most.
const MAX_UNKNOWN: usize = 8;

impl<'a> Message<'a> {
    /// Checks and reads a binding message.
    ///
    /// # Errors
    /// [`DropReason::StunMalformed`] for anything that is not exactly one well-formed binding message, and for a
    /// FINGERPRINT that does not fit.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        Self::read(datagram).ok_or(DropReason::StunMalformed)
    }

    fn read(datagram: &'a [u8]) -> Option<Self> {
        let header = datagram.get(..HEADER_LEN)?;
        let class = Class::from_message_type(u16_at(header, 0)?)?;
        let length = usize::from(u16_at(header, 2)?);
        if header.get(4..8)? != MAGIC_COOKIE
            || length % 4 != 0
            || datagram.len().checked_sub(HEADER_LEN)? != length
        {
            return None;
        }
        let mut message = Message {
            datagram,
            class,
            username: None,
            integrity_at: None,
            error_code: None,
            xor_mapped_address: None,
            priority: None,
            use_candidate: false,
            role: None,
            unknown: SmallVec::new(),
        };
        let mut at = HEADER_LEN;
        while at < datagram.len() {
            let kind = u16_at(datagram, at)?;
            let len = usize::from(u16_at(datagram, at + 2)?);
            let value = datagram.get(at + 4..at + 4 + len)?;
            let next = at + 4 + len.next_multiple_of(4);
            if next > datagram.len() {
                return None;
            }
            if kind == attr::FINGERPRINT {
                // The last attribute, whatever came before (RFC 8489 section 14.7).
                let want = integrity::fingerprint(datagram.get(..at)?, length as u16);
                if next != datagram.len() || value != want.to_be_bytes() {
                    return None;
                }
            } else if message.integrity_at.is_none() {
                message.read_attribute(kind, value, at)?;
            }
            // Else behind MESSAGE-INTEGRITY, hence not covered by it: ignored (RFC 8489 section 14.5).
            at = next;
        }
        Some(message)
    }

    /// Of an attribute that occurs twice the first counts (RFC 8489 section 14).
    fn read_attribute(&mut self, kind: u16, value: &'a [u8], at: usize) -> Option<()> {
        match kind {
            attr::USERNAME => {
                if value.len() > MAX_USERNAME {
                    return None;
                }
                let username = std::str::from_utf8(value).ok()?;
                self.username.get_or_insert(username);
            }
            attr::MESSAGE_INTEGRITY => {
                if value.len() != integrity::TAG_LEN {
                    return None;
                }
                self.integrity_at = Some(at);
            }
            attr::ERROR_CODE => {
                let code = u16::from(value.get(2)? & 7) * 100 + u16::from(*value.get(3)?);
                self.error_code.get_or_insert(code);
            }
            attr::XOR_MAPPED_ADDRESS => {
                let address = read_xor_address(value, self.transaction_id())?;
                self.xor_mapped_address.get_or_insert(address);
            }
            attr::PRIORITY => {
                let priority = u32::from_be_bytes(value.try_into().ok()?);
                self.priority.get_or_insert(priority);
            }
            attr::USE_CANDIDATE => self.use_candidate = true,
            attr::ICE_CONTROLLING => {
                let tie_breaker = u64::from_be_bytes(value.try_into().ok()?);
                self.role.get_or_insert(Role::Controlling(tie_breaker));
            }
            attr::ICE_CONTROLLED => {
                let tie_breaker = u64::from_be_bytes(value.try_into().ok()?);
                self.role.get_or_insert(Role::Controlled(tie_breaker));
            }
            attr::MAPPED_ADDRESS
            | attr::UNKNOWN_ATTRIBUTES
            | attr::REALM
            | attr::NONCE
            | attr::MESSAGE_INTEGRITY_SHA256
            | attr::PASSWORD_ALGORITHM
            | attr::USERHASH => {}
            // Below 0x8000 the receiver must understand it or refuse (RFC 8489 section 14).
            unknown if unknown < 0x8000 && self.unknown.len() < MAX_UNKNOWN => self.unknown.push(unknown),
            _ => {}
        }
        Some(())
    }

    /// Request, indication or response.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The 96 bits that tie a response to its request.
    pub fn transaction_id(&self) -> &'a [u8; 12] {
        self.datagram[8..HEADER_LEN].try_into().expect("parse took messages with a whole header only")
    }

    /// USERNAME, in ICE `receiver's fragment:sender's fragment`.
    pub fn username(&self) -> Option<&'a str> {
        self.username
    }

    /// USERNAME taken apart: the receiver's fragment, the sender's.
    pub fn ufrags(&self) -> Option<(&'a str, &'a str)> {
        self.username?.split_once(':')
    }

    /// PRIORITY that a peer-reflexive candidate would have.
    pub fn priority(&self) -> Option<u32> {
        self.priority
    }

    /// Whether the sender nominates this pair.
    pub fn use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// ICE-CONTROLLING or ICE-CONTROLLED.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// XOR-MAPPED-ADDRESS of a response.
    pub fn xor_mapped_address(&self) -> Option<SocketAddr> {
        self.xor_mapped_address
    }

    /// Code of an error response.
    pub fn error_code(&self) -> Option<u16> {
        self.error_code
    }

    /// Comprehension-required attributes that are not understood, at most eight.
    pub fn unknown_attributes(&self) -> &[u16] {
        &self.unknown
    }

    /// Checks MESSAGE-INTEGRITY in constant time.
    ///
    /// # Errors
    /// [`DropReason::StunIntegrity`] when it is missing or wrong.
    pub fn verify(&self, key: &IntegrityKey) -> Result<(), DropReason> {
        let check = || {
            let at = self.integrity_at?;
            let tag = self.datagram.get(at + 4..at + 4 + integrity::TAG_LEN)?;
            key.verify(self.datagram.get(..at)?, tag).then_some(())
        };
        check().ok_or(DropReason::StunIntegrity)
    }
}

/// The receiver's user name fragment in a binding request: whom the request is for.
///
/// # Errors
/// [`DropReason::StunMalformed`] when the datagram is no well-formed binding request with a `USERNAME` of two fragments.
pub fn local_ufrag(datagram: &[u8]) -> Result<&str, DropReason> {
    let message = Message::parse(datagram)?;
    match message.class {
        Class::Request => Ok(message.ufrags().ok_or(DropReason::StunMalformed)?.0),
        _ => Err(DropReason::StunMalformed),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The mask of XOR-MAPPED-ADDRESS: magic cookie, then transaction id (RFC 8489 section 14.2).
fn address_mask(transaction_id: &[u8; 12]) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(transaction_id);
    mask
}

fn read_xor_address(value: &[u8], transaction_id: &[u8; 12]) -> Option<SocketAddr> {
    let mask = address_mask(transaction_id);
    let port = u16_at(value, 2)? ^ u16::from_be_bytes([mask[0], mask[1]]);
    let ip = match (value.get(1)?, value.get(4..)?) {
        (1, ip) => {
            let ip: [u8; 4] = ip.try_into().ok()?;
            IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes(ip) ^ u32::from_be_bytes(MAGIC_COOKIE)))
        }
        (2, ip) => {
            let ip: [u8; 16] = ip.try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(ip) ^ u128::from_be_bytes(mask)))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests;
