//! A full ICE agent's checks, as far as a client facing one ICE-lite server needs them
//! ([RFC 8445 section 7](https://www.rfc-editor.org/rfc/rfc8445#section-7)).
//!
//! Written apart from the relay's own STUN code, so that the two check each other.

use aws_lc_rs::hmac;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 0x0006;
const INTEGRITY: u16 = 0x0008;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const CONTROLLING: u16 = 0x802a;

/// A binding request of a controlling agent that nominates aggressively.
pub(super) fn request(username: &str, password: &str, transaction: [u8; 12], tie_breaker: u64) -> Vec<u8> {
    let mut m = vec![0x00, 0x01, 0, 0];
    m.extend(COOKIE);
    m.extend(transaction);
    attribute(&mut m, USERNAME, username.as_bytes());
    attribute(&mut m, PRIORITY, &0x6eff_ffff_u32.to_be_bytes());
    attribute(&mut m, CONTROLLING, &tie_breaker.to_be_bytes());
    attribute(&mut m, USE_CANDIDATE, &[]);
    // The length in the header covers each of the last two attributes when it is computed.
    set_len(&mut m, 24);
    let tag = sign(&m, password);
    attribute(&mut m, INTEGRITY, tag.as_ref());
    set_len(&mut m, 8);
    let crc = crc32(&m) ^ 0x5354_554e;
    attribute(&mut m, FINGERPRINT, &crc.to_be_bytes());
    m
}

/// Whether a message is a success response to `transaction`, signed with `password`.
pub(super) fn is_success(message: &[u8], password: &str, transaction: [u8; 12]) -> bool {
    if message.len() < 20 || message[..2] != [0x01, 0x01] || message[8..20] != transaction {
        return false;
    }
    let mut at = 20;
    while at + 4 <= message.len() {
        let kind = u16::from_be_bytes([message[at], message[at + 1]]);
        let len = usize::from(u16::from_be_bytes([message[at + 2], message[at + 3]]));
        let Some(value) = message.get(at + 4..at + 4 + len) else { return false };
        if kind == INTEGRITY {
            let mut signed = message[..at].to_vec();
            set_len(&mut signed, 24);
            return sign(&signed, password).as_ref() == value;
        }
        at += 4 + len.next_multiple_of(4);
    }
    false
}

fn attribute(m: &mut Vec<u8>, kind: u16, value: &[u8]) {
    m.extend(kind.to_be_bytes());
    m.extend((value.len() as u16).to_be_bytes());
    m.extend(value);
    m.resize(m.len().next_multiple_of(4), 0);
    set_len(m, 0);
}

/// Writes the length of the body so far and `more` bytes to come.
fn set_len(m: &mut [u8], more: usize) {
    let len = (m.len() - 20 + more) as u16;
    m[2..4].copy_from_slice(&len.to_be_bytes());
}

fn sign(m: &[u8], password: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()), m)
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
