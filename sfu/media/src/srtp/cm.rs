//! AES_CM_128_HMAC_SHA1_80 ([RFC 3711 section 4](https://www.rfc-editor.org/rfc/rfc3711#section-4)): encrypt in counter
//! mode, then authenticate with HMAC-SHA1 cut to 80 bits. For endpoints that do not know GCM.

use aws_lc_rs::cipher::EncryptingKey;
use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::kdf::{Derivation, Label, apply_keystream, ctr_key};
use super::{E_BIT, RTCP_CLEAR, SrtpError};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Ssrc};

/// Bytes of an authentication tag.
pub(super) const TAG_LEN: usize = 10;
/// What follows the text of an SRTCP packet: index word, then tag.
pub(super) const RTCP_TAIL: usize = 4 + TAG_LEN;

pub(super) type Salt = Zeroizing<[u8; 14]>;

/// Session keys and salts of one direction.
pub(super) struct Cm {
    rtp: EncryptingKey,
    rtp_auth: hmac::Key,
    rtp_salt: Salt,
    rtcp: EncryptingKey,
    rtcp_auth: hmac::Key,
    rtcp_salt: Salt,
}

impl Cm {
    pub(super) fn derive(derivation: &Derivation) -> Result<Self, SrtpError> {
        Ok(Self {
            rtp: ctr_key(&*derivation.derive::<16>(Label::RtpKey)?)?,
            rtp_auth: hmac_key(&*derivation.derive(Label::RtpAuth)?),
            rtp_salt: derivation.derive(Label::RtpSalt)?,
            rtcp: ctr_key(&*derivation.derive::<16>(Label::RtcpKey)?)?,
            rtcp_auth: hmac_key(&*derivation.derive(Label::RtcpAuth)?),
            rtcp_salt: derivation.derive(Label::RtcpSalt)?,
        })
    }

    /// Decrypts the part of `packet` between header and tag in place; returns the plaintext's length.
    pub(super) fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: ExtSeq,
        header_len: usize,
        packet: &mut [u8],
    ) -> Result<usize, DropReason> {
        let end = packet.len().checked_sub(TAG_LEN).ok_or(DropReason::RtpMalformed)?;
        let len = end.checked_sub(header_len).ok_or(DropReason::RtpMalformed)?;
        let (signed, tag) = packet.split_at_mut(end);
        let want = tag_of(&self.rtp_auth, &[signed, &index.roc().to_be_bytes()]);
        if !bool::from(want.ct_eq(tag)) {
            return Err(DropReason::SrtpAuth);
        }
        apply_keystream(&self.rtp, counter(&self.rtp_salt, ssrc, index.0), &mut signed[header_len..])
            .map_err(|_| DropReason::SrtpAuth)?;
        Ok(len)
    }

    /// Encrypts the part of `packet` between header and tag, and writes the tag to its last bytes.
    pub(super) fn seal_rtp(
        &self,
        ssrc: Ssrc,
        index: ExtSeq,
        header_len: usize,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        let end = packet.len().checked_sub(TAG_LEN + header_len).ok_or(DropReason::TooLarge)? + header_len;
        let (signed, tag) = packet.split_at_mut(end);
        apply_keystream(&self.rtp, counter(&self.rtp_salt, ssrc, index.0), &mut signed[header_len..])
            .map_err(|_| DropReason::TooLarge)?;
        tag.copy_from_slice(&tag_of(&self.rtp_auth, &[signed, &index.roc().to_be_bytes()]));
        Ok(())
    }

    /// Decrypts `8 clear bytes | text | index word | tag` in place; returns the length of the plain compound.
    pub(super) fn open_rtcp(&self, ssrc: Ssrc, index: u32, packet: &mut [u8]) -> Result<usize, DropReason> {
        let end = packet.len().checked_sub(TAG_LEN).ok_or(DropReason::RtcpMalformed)?;
        let len = packet.len().checked_sub(RTCP_TAIL).ok_or(DropReason::RtcpMalformed)?;
        let (signed, tag) = packet.split_at_mut(end);
        if !bool::from(tag_of(&self.rtcp_auth, &[signed]).ct_eq(tag)) {
            return Err(DropReason::SrtpAuth);
        }
        let text = signed.get_mut(RTCP_CLEAR..len).ok_or(DropReason::RtcpMalformed)?;
        apply_keystream(&self.rtcp, counter(&self.rtcp_salt, ssrc, index.into()), text)
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
        let (text, tail) = out.split_at_mut(compound.len());
        text.copy_from_slice(compound);
        let hidden = text.get_mut(RTCP_CLEAR..).ok_or(DropReason::RtcpMalformed)?;
        apply_keystream(&self.rtcp, counter(&self.rtcp_salt, ssrc, index.into()), hidden)
            .map_err(|_| DropReason::TooLarge)?;
        let (word, tag) = tail.split_at_mut(4);
        word.copy_from_slice(&(index | E_BIT).to_be_bytes());
        tag.copy_from_slice(&tag_of(&self.rtcp_auth, &[text, word]));
        Ok(())
    }
}

/// `(salt * 2^16) XOR (SSRC * 2^64) XOR (index * 2^16)` (section 4.1.1).
pub(super) fn counter(salt: &[u8; 14], ssrc: Ssrc, index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[4..8].copy_from_slice(&ssrc.0.to_be_bytes());
    iv[8..14].copy_from_slice(&index.to_be_bytes()[2..]);
    for (a, b) in iv.iter_mut().zip(salt) {
        *a ^= b;
    }
    iv
}

fn hmac_key(key: &[u8; 20]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key)
}

fn tag_of(key: &hmac::Key, parts: &[&[u8]]) -> [u8; TAG_LEN] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut tag = [0; TAG_LEN];
    // SHA-1 gives 20 bytes.
    tag.copy_from_slice(&context.sign().as_ref()[..TAG_LEN]);
    tag
}
