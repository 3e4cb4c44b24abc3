//! MESSAGE-INTEGRITY and FINGERPRINT.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};

use super::FINGERPRINT_XOR;

/// Bytes of HMAC-SHA1.
pub(super) const TAG_LEN: usize = 20;
/// Bytes of the whole MESSAGE-INTEGRITY attribute.
const ATTRIBUTE_LEN: usize = 4 + TAG_LEN;
const HEADER_LEN: usize = super::HEADER_LEN;

/// The key of short-term credentials: the password
/// ([RFC 8489 section 9.1.1](https://www.rfc-editor.org/rfc/rfc8489#section-9.1.1)).
pub struct IntegrityKey(hmac::Key);

impl IntegrityKey {
    /// From an ICE password, which is ASCII, so that OpaqueString preparation leaves it as it is.
    pub fn new(password: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()))
    }

    /// The tag of a message whose attributes so far are `before`, header included. The length that is authenticated
    /// ends behind MESSAGE-INTEGRITY, whatever the header says
    /// ([RFC 8489 section 14.5](https://www.rfc-editor.org/rfc/rfc8489#section-14.5)).
    pub(super) fn tag(&self, before: &[u8]) -> [u8; TAG_LEN] {
        debug_assert!(before.len() >= HEADER_LEN);
        let length = (before.len() - HEADER_LEN + ATTRIBUTE_LEN) as u16;
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&before[..2]);
        context.update(&length.to_be_bytes());
        context.update(&before[4..]);
        context.sign().as_ref().try_into().expect("HMAC-SHA1 has 20 bytes")
    }

    pub(super) fn verify(&self, before: &[u8], tag: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.tag(before), tag).is_ok()
    }
}

impl fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKey(..)")
    }
}

/// FINGERPRINT of a message whose attributes so far are `before`, header included, and whose length field is `length`.
pub(super) fn fingerprint(before: &[u8], length: u16) -> u32 {
    debug_assert!(before.len() >= HEADER_LEN);
    let crc = crc32(!0, &before[..2]);
    let crc = crc32(crc, &length.to_be_bytes());
    !crc32(crc, &before[4..]) ^ FINGERPRINT_XOR
}

/// CRC-32 of ITU-T V.42 (reflected 0x04C11DB7), without the final complement.
fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| (crc >> 8) ^ CRC_TABLE[usize::from(crc as u8 ^ byte)])
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_check_value() {
        assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
    }
}
