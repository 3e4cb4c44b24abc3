//! AEAD_AES_128_GCM and AEAD_AES_256_GCM ([RFC 7714](https://www.rfc-editor.org/rfc/rfc7714)).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::kdf::{Derivation, Label};
use super::{E_BIT, MAX_INDEX, RTCP_CLEAR, SrtpError};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Ssrc};

/// Bytes of an authentication tag.
pub(super) const TAG_LEN: usize = 16;
/// What follows the plaintext of an SRTCP packet: tag, then index word.
pub(super) const RTCP_TAIL: usize = TAG_LEN + 4;

pub(super) type Salt = Zeroizing<[u8; 12]>;

/// Session keys and salts of one direction.
pub(super) struct Gcm {
    rtp: LessSafeKey,
    rtp_salt: Salt,
    rtcp: LessSafeKey,
    rtcp_salt: Salt,
}

impl Gcm {
    pub(super) fn derive(derivation: &Derivation, key_len: usize) -> Result<Self, SrtpError> {
        let rtp = derivation.derive::<32>(Label::RtpKey)?;
        let rtcp = derivation.derive::<32>(Label::RtcpKey)?;
        // A shorter key is the start of the same key stream.
        Self::from_session(
            rtp.get(..key_len).ok_or(SrtpError::KeyLength(key_len))?,
            derivation.derive(Label::RtpSalt)?,
            rtcp.get(..key_len).ok_or(SrtpError::KeyLength(key_len))?,
            derivation.derive(Label::RtcpSalt)?,
        )
    }

    pub(super) fn from_session(
        rtp_key: &[u8],
        rtp_salt: Salt,
        rtcp_key: &[u8],
        rtcp_salt: Salt,
    ) -> Result<Self, SrtpError> {
        Ok(Self { rtp: aead(rtp_key)?, rtp_salt, rtcp: aead(rtcp_key)?, rtcp_salt })
    }

    /// Reads the salt.
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.rtp_salt[0])
    }

    /// Decrypts `body`, which ends in the tag, in place; returns the plaintext's length.
    ///
    /// After an error `body` is neither.
    pub(super) fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: ExtSeq,
        header: &[u8],
        body: &mut [u8],
    ) -> Result<usize, DropReason> {
        let len = body.len().checked_sub(TAG_LEN).ok_or(DropReason::RtpMalformed)?;
        let (text, tag) = body.split_at_mut(len);
        self.rtp
            .open_in_place_separate_tag(self.rtp_nonce(ssrc, index), Aad::from(header), tag, text)
            .map_err(|_| DropReason::SrtpAuth)?;
        Ok(len)
    }

    /// Encrypts the parts of a text to the start of `out` and the tag behind it; `out` has exactly that length.
    pub(super) fn seal_rtp(
        &self,
        ssrc: Ssrc,
        index: ExtSeq,
        header: &[u8],
        parts: [&[u8]; 3],
        out: &mut [u8],
    ) -> Result<(), DropReason> {
        let nonce = self.rtp_nonce(ssrc, index);
        let aad = Aad::from(header);
        let [prefix, body, padding] = parts;
        let sealed = if prefix.is_empty() {
            let (text, rest) = out.split_at_mut(body.len());
            self.rtp.seal_out_of_place_scatter(nonce, aad, body, text, padding, rest)
        } else {
            let (text, tag) = out.split_at_mut(prefix.len() + body.len() + padding.len());
            super::join(parts, text);
            self.rtp.seal_in_place_scatter(nonce, aad, text, &[], tag)
        };
        // It fails for a text beyond 64 GiB or a tag of another length only.
        sealed.map_err(|_| DropReason::TooLarge)
    }

    /// Decrypts `8 clear bytes | text | tag | index word` in place; returns the length of the plain compound.
    pub(super) fn open_rtcp(&self, ssrc: Ssrc, index: u32, packet: &mut [u8]) -> Result<usize, DropReason> {
        let len = packet.len().checked_sub(RTCP_TAIL).ok_or(DropReason::RtcpMalformed)?;
        let (clear, rest) = packet.split_first_chunk_mut::<RTCP_CLEAR>().ok_or(DropReason::RtcpMalformed)?;
        let text_len = len.checked_sub(RTCP_CLEAR).ok_or(DropReason::RtcpMalformed)?;
        let (text, tail) = rest.split_at_mut(text_len);
        let tag = tail.get(..TAG_LEN).ok_or(DropReason::RtcpMalformed)?;
        let aad = rtcp_aad(clear, index);
        self.rtcp
            .open_in_place_separate_tag(self.rtcp_nonce(ssrc, index), Aad::from(aad), tag, text)
            .map_err(|_| DropReason::SrtpAuth)?;
        Ok(len)
    }

    /// The inverse: `out` has exactly the compound's length and [`RTCP_TAIL`].
    pub(super) fn seal_rtcp(
        &self,
        ssrc: Ssrc,
        index: u32,
        compound: &[u8],
        out: &mut [u8],
    ) -> Result<(), DropReason> {
        let (clear, text) = compound.split_first_chunk::<RTCP_CLEAR>().ok_or(DropReason::RtcpMalformed)?;
        let (out_clear, rest) = out.split_first_chunk_mut::<RTCP_CLEAR>().ok_or(DropReason::RtcpMalformed)?;
        *out_clear = *clear;
        let (out_text, tail) = rest.split_at_mut(text.len());
        let (tag, word) = tail.split_at_mut(TAG_LEN);
        let aad = Aad::from(rtcp_aad(clear, index));
        self.rtcp
            .seal_out_of_place_scatter(self.rtcp_nonce(ssrc, index), aad, text, out_text, &[], tag)
            .map_err(|_| DropReason::TooLarge)?;
        word.copy_from_slice(&(index | E_BIT).to_be_bytes());
        Ok(())
    }

    /// `(00 00 | SSRC | ROC | SEQ) XOR salt` (section 8.1).
    fn rtp_nonce(&self, ssrc: Ssrc, index: ExtSeq) -> Nonce {
        // In two words: byte by byte it would be read before it is written.
        let [a, b, c, d, rest @ ..] = &*self.rtp_salt;
        let first = u32::from_be_bytes([*a, *b, *c, *d]) ^ ssrc.0 >> 16;
        let rest = u64::from_be_bytes(*rest) ^ (u64::from(ssrc.0) << 48 | index.0 & MAX_INDEX);
        let mut iv = [0; 12];
        iv[..4].copy_from_slice(&first.to_be_bytes());
        iv[4..].copy_from_slice(&rest.to_be_bytes());
        Nonce::assume_unique_for_key(iv)
    }

    /// `(00 00 | SSRC | 00 00 | index) XOR salt` (section 9.1).
    fn rtcp_nonce(&self, ssrc: Ssrc, index: u32) -> Nonce {
        let mut iv = *self.rtcp_salt;
        xor(&mut iv[2..6], &ssrc.0.to_be_bytes());
        xor(&mut iv[8..12], &index.to_be_bytes());
        Nonce::assume_unique_for_key(iv)
    }
}

/// The clear bytes and the index word with the E bit (section 9.2).
fn rtcp_aad(clear: &[u8; RTCP_CLEAR], index: u32) -> [u8; RTCP_CLEAR + 4] {
    let mut aad = [0; RTCP_CLEAR + 4];
    aad[..RTCP_CLEAR].copy_from_slice(clear);
    aad[RTCP_CLEAR..].copy_from_slice(&(index | E_BIT).to_be_bytes());
    aad
}

fn aead(key: &[u8]) -> Result<LessSafeKey, SrtpError> {
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        32 => &AES_256_GCM,
        len => return Err(SrtpError::KeyLength(len)),
    };
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| SrtpError::Crypto)
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (a, b) in into.iter_mut().zip(with) {
        *a ^= b;
    }
}
