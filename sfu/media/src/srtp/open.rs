//! Authenticating and decrypting what a peer sends.

use std::fmt;
use std::ops::Range;

use super::replay::{Slot, Windows};
use super::{Cipher, E_BIT, MAX_INDEX, Profile, RTCP_CLEAR, SrtpError, cm, gcm};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Ssrc};
use crate::rtp::RtpHeader;

/// SSRCs that one peer may use over its life. A published camera with simulcast takes six, and new ones when it is
/// published again; their windows must stay, or old packets could be replayed.
const MAX_SSRCS: usize = 4096;

/// The receiving direction of one peer.
pub struct SrtpOpen {
    cipher: Cipher,
    rtp: Windows,
    rtcp: Windows,
}

/// A packet that was authenticated and decrypted in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The packet's index: its sequence number extended by the rollover counter.
    pub index: ExtSeq,
    /// Where the payload is, with its padding still at the end.
    pub payload: Range<usize>,
}

impl SrtpOpen {
    /// From the sender's master key and salt.
    ///
    /// # Errors
    /// When they have not the lengths that the profile demands.
    pub fn new(profile: Profile, master_key: &[u8], master_salt: &[u8]) -> Result<Self, SrtpError> {
        Ok(Self::with_cipher(Cipher::new(profile, master_key, master_salt)?))
    }

    pub(super) fn with_cipher(cipher: Cipher) -> Self {
        Self { cipher, rtp: Windows::new(MAX_SSRCS), rtcp: Windows::new(MAX_SSRCS) }
    }

    /// Authenticates an SRTP packet and decrypts its payload in place. `header` was parsed from `packet`.
    ///
    /// The rollover counter of an SSRC starts at 0 and follows its sequence numbers (RFC 3711 section 3.3.1). It, and
    /// the replay window of 512 packets, move only after authentication. After an error the payload's bytes are
    /// undefined.
    ///
    /// # Errors
    /// [`DropReason::RtpMalformed`] for a packet too short, [`DropReason::SrtpReplay`], [`DropReason::SrtpAuth`],
    /// [`DropReason::PeerLimit`] for a new SSRC beyond the 4096th.
    pub fn open_rtp(&mut self, packet: &mut [u8], header: &RtpHeader) -> Result<Opened, DropReason> {
        let slot = self.rtp.find(header.ssrc)?;
        let index = match self.rtp.get(slot) {
            Some(window) => {
                let index = ExtSeq::nearest(ExtSeq(window.highest()), header.seq);
                if index.0 > MAX_INDEX {
                    return Err(DropReason::SrtpReplay);
                }
                window.check(index.0)?;
                index
            }
            None => ExtSeq(u64::from(header.seq.0)),
        };
        let start = header.header_len;
        if packet.len() < start {
            return Err(DropReason::RtpMalformed);
        }
        let len = match &self.cipher {
            Cipher::Gcm(gcm) => {
                let (head, body) = packet.split_at_mut(start);
                gcm.open_rtp(header.ssrc, index, head, body)?
            }
            Cipher::Cm(cm) => cm.open_rtp(header.ssrc, index, start, packet)?,
        };
        self.rtp.accept(slot, header.ssrc, index.0);
        Ok(Opened { index, payload: start..start + len })
    }

    /// Authenticates an SRTCP packet and decrypts it in place: the compound is `packet[..returned]`.
    ///
    /// # Errors
    /// As [`Self::open_rtp`], with [`DropReason::RtcpMalformed`]. A packet that its sender did not encrypt is refused
    /// as [`DropReason::SrtpAuth`]: no profile here allows it.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, DropReason> {
        let (tail, word_at) = match self.cipher {
            Cipher::Gcm(_) => (gcm::RTCP_TAIL, gcm::TAG_LEN),
            Cipher::Cm(_) => (cm::RTCP_TAIL, 0),
        };
        let end = packet
            .len()
            .checked_sub(tail)
            .filter(|end| *end >= RTCP_CLEAR)
            .ok_or(DropReason::RtcpMalformed)?;
        let ssrc = Ssrc(be32(packet, 4).ok_or(DropReason::RtcpMalformed)?);
        let word = be32(packet, end + word_at).ok_or(DropReason::RtcpMalformed)?;
        if packet[0] >> 6 != 2 {
            return Err(DropReason::RtcpMalformed);
        }
        if word & E_BIT == 0 {
            return Err(DropReason::SrtpAuth);
        }
        let index = word & !E_BIT;
        let slot: Slot = self.rtcp.find(ssrc)?;
        if let Some(window) = self.rtcp.get(slot) {
            window.check(index.into())?;
        }
        let len = match &self.cipher {
            Cipher::Gcm(gcm) => gcm.open_rtcp(ssrc, index, packet)?,
            Cipher::Cm(cm) => cm.open_rtcp(ssrc, index, packet)?,
        };
        self.rtcp.accept(slot, ssrc, index.into());
        Ok(len)
    }

    /// What a refused packet must leave as it was.
    #[cfg(test)]
    pub(super) fn state(&self) -> (Windows, Windows) {
        (self.rtp.clone(), self.rtcp.clone())
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

impl fmt::Debug for SrtpOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SrtpOpen(..)")
    }
}
