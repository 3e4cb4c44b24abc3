//! The encrypted frame format of LiveKit's SDKs.
//!
//! ```text
//! | clear header | AES-128-GCM ciphertext | tag 16 | IV 12 | IV length = 12 | key index |
//! ```
//!
//! The clear header is authenticated. Its length depends on the codec: VP8 10 bytes of a key frame and 3 of others, VP9
//! none, Opus 1.

use std::num::NonZeroU32;

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};

const SALT: &[u8] = b"LKFrameEncryptionKey";
const ITERATIONS: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");
const TRAILER: usize = NONCE_LEN + 2;
/// Bytes by which a sealed frame is longer.
pub const SEAL_BYTES: usize = 16 + TRAILER;

/// What a frame is, as far as its clear header goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Opus.
    Opus,
    /// VP8; whether it is a key frame shows in the frame itself.
    Vp8,
    /// VP9.
    Vp9,
}

impl FrameKind {
    pub(crate) fn clear_bytes(self, frame: &[u8]) -> usize {
        let wanted = match self {
            FrameKind::Opus => 1,
            FrameKind::Vp9 => 0,
            // RFC 6386 section 9.1: the lowest bit of the frame tag is 0 in key frames.
            FrameKind::Vp8 if frame.first().is_some_and(|b| b & 1 == 0) => 10,
            FrameKind::Vp8 => 3,
        };
        wanted.min(frame.len())
    }
}

/// Why a frame was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptorError {
    /// It does not end with a trailer: it is not encrypted in this format.
    #[error("the frame has no trailer")]
    NoTrailer,
    /// Authentication failed: another key, or a damaged frame.
    #[error("the frame does not authenticate")]
    Authentication,
}

/// Seals and opens frames with the key that a passphrase stands for.
pub struct FrameCryptor {
    key: LessSafeKey,
    random: SystemRandom,
}

impl std::fmt::Debug for FrameCryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameCryptor(..)")
    }
}

impl FrameCryptor {
    /// Derives the key as the SDKs do from a shared passphrase: PBKDF2 with SHA-256.
    pub fn from_passphrase(passphrase: &str) -> Self {
        let mut key = [0; 16];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, SALT, passphrase.as_bytes(), &mut key);
        let key = UnboundKey::new(&AES_128_GCM, &key).expect("the key has 16 bytes");
        Self { key: LessSafeKey::new(key), random: SystemRandom::new() }
    }

    /// A 96-bit number to count initialisation vectors from: each sender under the key starts somewhere else.
    pub fn random_iv(&self) -> u128 {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes[4..]).expect("the system has randomness");
        u128::from_be_bytes(bytes)
    }

    /// Encrypts a frame under key index 0.
    pub fn seal(&self, kind: FrameKind, frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(frame.len() + 16 + TRAILER);
        out.extend_from_slice(frame);
        self.seal_in_place(kind, self.random_iv(), &mut out);
        out
    }

    /// Encrypts a frame where it is, under key index 0. `iv` (its low 96 bits) must never repeat under a key.
    pub fn seal_in_place(&self, kind: FrameKind, iv: u128, frame: &mut Vec<u8>) {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&iv.to_be_bytes()[16 - NONCE_LEN..]);
        let clear = kind.clear_bytes(frame);
        let (header, body) = frame.split_at_mut(clear);
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&*header), body)
            .expect("a frame is shorter than GCM's limit");
        frame.extend_from_slice(tag.as_ref());
        frame.extend_from_slice(&nonce);
        frame.extend_from_slice(&[NONCE_LEN as u8, 0]);
    }

    /// Decrypts a frame.
    ///
    /// # Errors
    /// See [`CryptorError`].
    pub fn open(&self, kind: FrameKind, frame: &[u8]) -> Result<Vec<u8>, CryptorError> {
        let mut out = frame.to_vec();
        let (clear, body) = self.open_in_place(kind, &mut out)?;
        let plain = clear + body.len();
        out.truncate(plain);
        Ok(out)
    }

    /// Decrypts a frame where it is; returns the length of the clear header and the body that was encrypted.
    ///
    /// # Errors
    /// See [`CryptorError`]. The buffer holds nothing of use then.
    pub fn open_in_place<'a>(
        &self,
        kind: FrameKind,
        frame: &'a mut [u8],
    ) -> Result<(usize, &'a mut [u8]), CryptorError> {
        let (rest, trailer) = frame
            .len()
            .checked_sub(TRAILER)
            .and_then(|at| frame.split_at_mut_checked(at))
            .filter(|(_, t)| t[NONCE_LEN] == NONCE_LEN as u8)
            .ok_or(CryptorError::NoTrailer)?;
        let nonce =
            Nonce::try_assume_unique_for_key(&trailer[..NONCE_LEN]).map_err(|_| CryptorError::NoTrailer)?;
        let clear = kind.clear_bytes(rest);
        let (header, sealed) = rest.split_at_mut(clear);
        let body = self
            .key
            .open_in_place(nonce, Aad::from(&*header), sealed)
            .map_err(|_| CryptorError::Authentication)?;
        Ok((clear, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_open_only_with_their_key_and_unchanged() {
        let cryptor = FrameCryptor::from_passphrase("one");
        let other = FrameCryptor::from_passphrase("two");
        for kind in [FrameKind::Opus, FrameKind::Vp8, FrameKind::Vp9] {
            // The format is undefined for a VP8 frame that is shorter than its clear header; no encoder makes one.
            let shortest = if kind == FrameKind::Vp8 { 10 } else { 1 };
            for len in [shortest, 11, 500] {
                for first in [0x10u8, 0x11] {
                    let frame: Vec<u8> = std::iter::once(first).chain((1..len).map(|i| i as u8)).collect();
                    let sealed = cryptor.seal(kind, &frame);
                    assert_eq!(cryptor.open(kind, &sealed).as_deref(), Ok(&frame[..]));
                    assert_eq!(other.open(kind, &sealed), Err(CryptorError::Authentication));
                    let mut damaged = sealed.clone();
                    damaged[len / 2] ^= 0x80;
                    assert!(cryptor.open(kind, &damaged).is_err());
                    assert_eq!(cryptor.open(kind, &frame), Err(CryptorError::NoTrailer));
                }
            }
        }
    }
}
