//! Writes binding messages.

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::integrity::{self, IntegrityKey};
use super::{Class, HEADER_LEN, MAGIC_COOKIE, address_mask, attr};

/// Bytes of the largest message that [`MessageWriter`] writes. A USERNAME has up to 513 bytes.
pub const MAX_LEN: usize = 700;

/// Writes one binding message, attribute by attribute.
///
/// Attributes that no longer fit in [`MAX_LEN`] with MESSAGE-INTEGRITY and FINGERPRINT are left out.
#[derive(Debug)]
pub struct MessageWriter {
    buf: ArrayVec<u8, MAX_LEN>,
}

/// MESSAGE-INTEGRITY and FINGERPRINT.
const TRAILER_LEN: usize = 4 + integrity::TAG_LEN + 8;

impl MessageWriter {
    /// A message without attributes.
    pub fn new(class: Class, transaction_id: &[u8; 12]) -> Self {
        let mut buf = ArrayVec::new();
        buf.extend(class.message_type().to_be_bytes());
        buf.extend([0, 0]);
        buf.extend(MAGIC_COOKIE);
        buf.extend(*transaction_id);
        Self { buf }
    }

    /// The address that a request came from. An IPv4-mapped IPv6 address, as a dual-stack socket reports it, is written
    /// as the IPv4 address that the client knows.
    pub fn xor_mapped_address(self, address: SocketAddr) -> Self {
        let transaction_id = self.buf[8..HEADER_LEN].try_into().expect("the header is there from the start");
        let mask = address_mask(transaction_id);
        let port = address.port() ^ u16::from_be_bytes([mask[0], mask[1]]);
        let mut value = ArrayVec::<u8, 20>::new();
        value.push(0);
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                value.push(1);
                value.extend(port.to_be_bytes());
                value.extend(ip.octets().into_iter().zip(mask).map(|(a, m)| a ^ m));
            }
            IpAddr::V6(ip) => {
                value.push(2);
                value.extend(port.to_be_bytes());
                value.extend(ip.octets().into_iter().zip(mask).map(|(a, m)| a ^ m));
            }
        }
        self.attribute(attr::XOR_MAPPED_ADDRESS, &value)
    }

    /// ERROR-CODE ([RFC 8489 section 14.8](https://www.rfc-editor.org/rfc/rfc8489#section-14.8)). `code` is 300 to 699.
    pub fn error_code(self, code: u16, reason: &str) -> Self {
        let mut value = ArrayVec::<u8, 64>::new();
        value.extend([0, 0, (code / 100) as u8, (code % 100) as u8]);
        value.extend(reason.bytes().take(60));
        self.attribute(attr::ERROR_CODE, &value)
    }

    /// UNKNOWN-ATTRIBUTES: what a 420 response refuses.
    pub fn unknown_attributes(self, unknown: &[u16]) -> Self {
        let value: ArrayVec<u8, { 2 * super::MAX_UNKNOWN }> =
            unknown.iter().take(super::MAX_UNKNOWN).flat_map(|u| u.to_be_bytes()).collect();
        self.attribute(attr::UNKNOWN_ATTRIBUTES, &value)
    }

    /// USERNAME.
    pub fn username(self, username: &str) -> Self {
        self.attribute(attr::USERNAME, username.as_bytes())
    }

    /// PRIORITY.
    pub fn priority(self, priority: u32) -> Self {
        self.attribute(attr::PRIORITY, &priority.to_be_bytes())
    }

    /// USE-CANDIDATE.
    pub fn use_candidate(self) -> Self {
        self.attribute(attr::USE_CANDIDATE, &[])
    }

    /// ICE-CONTROLLING or ICE-CONTROLLED.
    pub fn role(self, role: super::Role) -> Self {
        match role {
            super::Role::Controlling(tie) => self.attribute(attr::ICE_CONTROLLING, &tie.to_be_bytes()),
            super::Role::Controlled(tie) => self.attribute(attr::ICE_CONTROLLED, &tie.to_be_bytes()),
        }
    }

    /// Any attribute, padded with zeros.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let padded = value.len().next_multiple_of(4);
        if self.buf.len() + 4 + padded + TRAILER_LEN > MAX_LEN {
            return self;
        }
        self.buf.extend(kind.to_be_bytes());
        self.buf.extend((value.len() as u16).to_be_bytes());
        self.buf.extend(value.iter().copied());
        self.buf.extend(std::iter::repeat_n(0, padded - value.len()));
        self
    }

    /// Adds MESSAGE-INTEGRITY and FINGERPRINT.
    pub fn finish(mut self, key: &IntegrityKey) -> ArrayVec<u8, MAX_LEN> {
        let tag = key.tag(&self.buf);
        self.buf.extend(attr::MESSAGE_INTEGRITY.to_be_bytes());
        self.buf.extend((tag.len() as u16).to_be_bytes());
        self.buf.extend(tag);
        self.finish_without_integrity()
    }

    /// Adds FINGERPRINT only: a message that proves nothing.
    pub fn finish_without_integrity(mut self) -> ArrayVec<u8, MAX_LEN> {
        let length = (self.buf.len() - HEADER_LEN + 8) as u16;
        let fingerprint = integrity::fingerprint(&self.buf, length);
        self.buf.extend(attr::FINGERPRINT.to_be_bytes());
        self.buf.extend([0, 4]);
        self.buf.extend(fingerprint.to_be_bytes());
        self.buf[2..4].copy_from_slice(&length.to_be_bytes());
        self.buf
    }
}
