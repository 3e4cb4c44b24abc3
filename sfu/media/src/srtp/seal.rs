//! Encrypting what goes to a peer.

use std::fmt;

use super::{Cipher, MAX_INDEX, MAX_RTCP_INDEX, Profile, RTCP_CLEAR, SrtpError, cm, gcm};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Ssrc};

/// The sending direction of one peer.
pub struct SrtpSeal {
    cipher: Cipher,
    /// Index of the next SRTCP packet. One counter for all SSRCs keeps every pair of SSRC and index unique.
    next_rtcp: u32,
}

impl SrtpSeal {
    /// From our master key and salt.
    ///
    /// # Errors
    /// When they have not the lengths that the profile demands.
    pub fn new(profile: Profile, master_key: &[u8], master_salt: &[u8]) -> Result<Self, SrtpError> {
        Ok(Self::with_cipher(Cipher::new(profile, master_key, master_salt)?))
    }

    pub(super) fn with_cipher(cipher: Cipher) -> Self {
        Self { cipher, next_rtcp: 0 }
    }

    #[cfg(test)]
    pub(super) fn set_next_rtcp(&mut self, index: u32) {
        self.next_rtcp = index;
    }

    /// Reads a bit of what each packet needs. The key itself is the library's.
    pub(crate) fn touch(&self) -> u64 {
        match &self.cipher {
            Cipher::Gcm(gcm) => gcm.touch(),
            Cipher::Cm(_) => 0,
        }
    }

    /// Completes an SRTP packet: the header stands in `slot[..header_len]` already, its payload becomes the three parts of
    /// `text`, one behind the other: what is put before a payload, the payload, and padding. Returns the datagram's length.
    ///
    /// `ssrc` and the low 16 bits of `index` are those of the header. **A pair of SSRC and index must never be sealed
    /// twice with different contents**: in GCM that gives away the keys. The rollover counter of the first packet of an
    /// SSRC must be 0, as the receiver assumes.
    ///
    /// # Errors
    /// [`DropReason::TooLarge`] when the slot has no room for payload and tag, or when `index` exceeds 48 bits and the
    /// key is used up.
    pub fn seal_rtp(
        &mut self,
        slot: &mut [u8],
        header_len: usize,
        ssrc: Ssrc,
        index: ExtSeq,
        text: [&[u8]; 3],
    ) -> Result<usize, DropReason> {
        let tag_len = match self.cipher {
            Cipher::Gcm(_) => gcm::TAG_LEN,
            Cipher::Cm(_) => cm::TAG_LEN,
        };
        let text_end = header_len + text.iter().map(|part| part.len()).sum::<usize>();
        let end = text_end + tag_len;
        if index.0 > MAX_INDEX || slot.len() < end {
            return Err(DropReason::TooLarge);
        }
        let packet = &mut slot[..end];
        debug_assert_eq!(packet.get(2..4), Some(&index.seq().0.to_be_bytes()[..]), "sequence number");
        debug_assert_eq!(packet.get(8..12), Some(&ssrc.0.to_be_bytes()[..]), "SSRC");
        match &self.cipher {
            Cipher::Gcm(gcm) => {
                let (header, out) = packet.split_at_mut(header_len);
                gcm.seal_rtp(ssrc, index, header, text, out)?;
            }
            Cipher::Cm(cm) => {
                super::join(text, &mut packet[header_len..text_end]);
                cm.seal_rtp(ssrc, index, header_len, packet)?;
            }
        }
        Ok(end)
    }

    /// Writes the SRTCP packet of a compound to the start of `out` and returns its length, at most
    /// [`MAX_OVERHEAD`](super::MAX_OVERHEAD) more.
    ///
    /// # Errors
    /// [`DropReason::RtcpMalformed`] for less than a header with its SSRC, [`DropReason::TooLarge`] when `out` has no
    /// room or 2^31 packets were sealed.
    pub fn seal_rtcp(&mut self, compound: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        let head: &[u8; RTCP_CLEAR] = compound.first_chunk().ok_or(DropReason::RtcpMalformed)?;
        let ssrc = Ssrc(u32::from_be_bytes([head[4], head[5], head[6], head[7]]));
        let tail = match self.cipher {
            Cipher::Gcm(_) => gcm::RTCP_TAIL,
            Cipher::Cm(_) => cm::RTCP_TAIL,
        };
        let end = compound.len() + tail;
        let index = self.next_rtcp;
        if index > MAX_RTCP_INDEX {
            return Err(DropReason::TooLarge);
        }
        let out = out.get_mut(..end).ok_or(DropReason::TooLarge)?;
        match &self.cipher {
            Cipher::Gcm(gcm) => gcm.seal_rtcp(ssrc, index, compound, out)?,
            Cipher::Cm(cm) => cm.seal_rtcp(ssrc, index, compound, out)?,
        }
        self.next_rtcp += 1;
        Ok(end)
    }
}

impl fmt::Debug for SrtpSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SrtpSeal(..)")
    }
}
