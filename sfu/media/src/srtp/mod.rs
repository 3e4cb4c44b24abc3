//! SRTP and SRTCP ([RFC 3711](https://www.rfc-editor.org/rfc/rfc3711), [RFC 7714](https://www.rfc-editor.org/rfc/rfc7714))
//! with keys from DTLS ([RFC 5764](https://www.rfc-editor.org/rfc/rfc5764)).
//!
//! [`SrtpOpen`] authenticates and decrypts what a peer sends, [`SrtpSeal`] encrypts what goes to it. All profiles run on
//! `aws-lc-rs` with keys that are expanded once; nothing is allocated per packet. The crate `webrtc-srtp` is the oracle
//! that tests check both against, in both directions. It does not serve here itself: its rollover counter cannot be set
//! from our packet index, it creates state for an SSRC before its first packet is authenticated, and it accepts
//! unencrypted, unauthenticated SRTCP in the AES-CM profile.

mod cm;
mod gcm;
mod kdf;
mod open;
mod replay;
mod seal;

pub use open::{Opened, SrtpOpen};
pub use seal::SrtpSeal;

use cm::Cm;
use gcm::Gcm;

/// Bytes that sealing adds at most: an AEAD tag, and for SRTCP the index word.
pub const MAX_OVERHEAD: usize = 16 + 4;

/// Packets secured under one SSRC at most: 48 bits of index (RFC 3711 section 9.2).
const MAX_INDEX: u64 = (1 << 48) - 1;
/// SRTCP packets at most: 31 bits of index.
const MAX_RTCP_INDEX: u32 = (1 << 31) - 1;
/// E bit of the SRTCP index word: the packet is encrypted.
const E_BIT: u32 = 1 << 31;
/// The first bytes of an SRTCP packet stay clear: the first header and its SSRC.
const RTCP_CLEAR: usize = 8;

/// A DTLS-SRTP protection profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// `SRTP_AEAD_AES_256_GCM`, 0x0008 (RFC 7714).
    AeadAes256Gcm,
    /// `SRTP_AEAD_AES_128_GCM`, 0x0007 (RFC 7714).
    AeadAes128Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`, 0x0001 (RFC 5764).
    AesCm128HmacSha1_80,
}

impl Profile {
    /// Bytes of a master key.
    pub const fn key_len(self) -> usize {
        match self {
            Profile::AeadAes256Gcm => 32,
            Profile::AeadAes128Gcm | Profile::AesCm128HmacSha1_80 => 16,
        }
    }

    /// Bytes of a master salt.
    pub const fn salt_len(self) -> usize {
        match self {
            Profile::AeadAes256Gcm | Profile::AeadAes128Gcm => 12,
            Profile::AesCm128HmacSha1_80 => 14,
        }
    }

    /// Bytes that the DTLS exporter must give: two keys and two salts.
    pub const fn export_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Why keys could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// The master key has the wrong length for the profile.
    #[error("SRTP master key of {0} bytes")]
    KeyLength(usize),
    /// The master salt has the wrong length for the profile.
    #[error("SRTP master salt of {0} bytes")]
    SaltLength(usize),
    /// The exported keying material has the wrong length for the profile.
    #[error("SRTP keying material of {0} bytes")]
    ExportLength(usize),
    /// The cryptographic library refused.
    #[error("the cryptographic library refused an SRTP key")]
    Crypto,
}

/// Both directions from what DTLS exported under the label `EXTRACTOR-dtls_srtp`, the relay being the DTLS server: it
/// opens with the client's write keys and seals with the server's.
///
/// ```text
/// client key | server key | client salt | server salt      (RFC 5764 section 4.2)
/// ```
///
/// # Errors
/// [`SrtpError::ExportLength`] unless `exported` has [`Profile::export_len`] bytes.
pub fn from_dtls(profile: Profile, exported: &[u8]) -> Result<(SrtpOpen, SrtpSeal), SrtpError> {
    if exported.len() != profile.export_len() {
        return Err(SrtpError::ExportLength(exported.len()));
    }
    let (keys, salts) = exported.split_at(2 * profile.key_len());
    let (client_key, server_key) = keys.split_at(profile.key_len());
    let (client_salt, server_salt) = salts.split_at(profile.salt_len());
    Ok((SrtpOpen::new(profile, client_key, client_salt)?, SrtpSeal::new(profile, server_key, server_salt)?))
}

/// The transform of one direction, keyed.
enum Cipher {
    Gcm(Gcm),
    Cm(Box<Cm>),
}

impl Cipher {
    fn new(profile: Profile, master_key: &[u8], master_salt: &[u8]) -> Result<Self, SrtpError> {
        if master_key.len() != profile.key_len() {
            return Err(SrtpError::KeyLength(master_key.len()));
        }
        if master_salt.len() != profile.salt_len() {
            return Err(SrtpError::SaltLength(master_salt.len()));
        }
        let derivation = kdf::Derivation::new(master_key, master_salt)?;
        Ok(match profile {
            Profile::AeadAes256Gcm | Profile::AeadAes128Gcm => {
                Cipher::Gcm(Gcm::derive(&derivation, profile.key_len())?)
            }
            Profile::AesCm128HmacSha1_80 => Cipher::Cm(Box::new(Cm::derive(&derivation)?)),
        })
    }
}

/// Copies the parts of a text behind each other to `out`, which has their length.
fn join(parts: [&[u8]; 3], mut out: &mut [u8]) {
    for part in parts {
        let (head, rest) = std::mem::take(&mut out).split_at_mut(part.len());
        head.copy_from_slice(part);
        out = rest;
    }
}

#[cfg(test)]
mod tests;
