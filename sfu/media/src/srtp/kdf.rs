//! Session keys from master keys: the AES-CM pseudo-random function with a key derivation rate of zero
//! ([RFC 3711 section 4.3](https://www.rfc-editor.org/rfc/rfc3711#section-4.3); with 256-bit keys
//! [RFC 6188](https://www.rfc-editor.org/rfc/rfc6188), for GCM [RFC 7714 section
//! 11](https://www.rfc-editor.org/rfc/rfc7714#section-11)).

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use super::SrtpError;

/// What a session key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Label {
    RtpKey = 0,
    RtpAuth = 1,
    RtpSalt = 2,
    RtcpKey = 3,
    RtcpAuth = 4,
    RtcpSalt = 5,
}

/// A master key and salt, ready to derive from.
pub(super) struct Derivation {
    prf: EncryptingKey,
    /// `master_salt * 2^16`; a GCM salt of 96 bits is padded to 112 with zeros on the right (RFC 7714 section 11).
    salt: Zeroizing<[u8; 16]>,
}

impl Derivation {
    pub(super) fn new(master_key: &[u8], master_salt: &[u8]) -> Result<Self, SrtpError> {
        let mut salt = Zeroizing::new([0; 16]);
        salt.get_mut(..master_salt.len().min(14))
            .filter(|s| s.len() == master_salt.len())
            .ok_or(SrtpError::SaltLength(master_salt.len()))?
            .copy_from_slice(master_salt);
        Ok(Self { prf: ctr_key(master_key)?, salt })
    }

    /// `N` bytes for a purpose: AES in counter mode from `(label * 2^48 XOR salt) * 2^16`.
    pub(super) fn derive<const N: usize>(&self, label: Label) -> Result<Zeroizing<[u8; N]>, SrtpError> {
        let mut iv = Zeroizing::new(*self.salt);
        iv[7] ^= label as u8;
        let mut out = Zeroizing::new([0; N]);
        apply_keystream(&self.prf, *iv, &mut *out)?;
        Ok(out)
    }
}

/// An AES key of 16 or 32 bytes, expanded for counter mode.
pub(super) fn ctr_key(key: &[u8]) -> Result<EncryptingKey, SrtpError> {
    let algorithm = match key.len() {
        16 => &AES_128,
        32 => &AES_256,
        len => return Err(SrtpError::KeyLength(len)),
    };
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| SrtpError::Crypto)?;
    EncryptingKey::ctr(key).map_err(|_| SrtpError::Crypto)
}

/// Exclusive-ors the key stream from counter block `iv` into `data`.
pub(super) fn apply_keystream(key: &EncryptingKey, iv: [u8; 16], data: &mut [u8]) -> Result<(), SrtpError> {
    key.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(iv)))
        .map(drop)
        .map_err(|_| SrtpError::Crypto)
}
