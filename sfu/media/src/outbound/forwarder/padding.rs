//! Packets that only show what a path carries, on the RTX SSRC: nothing is made up in the media's own stream, whose
//! numbers the receiver expects without a gap.
//!
//! The best padding is a packet of late sent again, as libwebrtc does: if the receiver missed it, it is repaired before it
//! asks. Where that is too large there are packets of padding only, which every receiver drops after counting them.

use std::time::Instant;

use super::Forwarder;
use crate::command::Extension;
use crate::drop_reason::DropReason;
use crate::ids::Remote;
use crate::inbound::PacketStore;
use crate::outbound::TwccSeqCounter;
use crate::rtp::{ExtensionValues, MAX_HEADER, RtpHeaderOut, set_padding};
use crate::srtp::{MAX_OVERHEAD, SrtpSeal};
use crate::tx::TxQueue;

/// The most that one packet holds of padding only: its length is a byte.
const MAX_PADDING: usize = 255;
/// What is asked for at least before a packet is sent again for it.
const WORTH_A_PACKET: usize = 400;

impl Forwarder {
    /// Whether [`Self::pad`] can send anything: video was sent, and RTX is negotiated.
    pub fn can_pad(&self) -> bool {
        let sent = self.history.highest().and_then(|highest| self.history.get(highest));
        self.section.rtx_ssrc.is_some() && sent.is_some_and(|sent| sent.rtx_pt.is_some())
    }

    /// Sends one packet of about `size` bytes that the receiver has no need of, numbered for transport-wide feedback.
    /// `stores` gives the store of each of the track's streams.
    ///
    /// # Errors
    /// [`DropReason::RtxUseless`] where [`Self::can_pad`] says no; those of [`SrtpSeal::seal_rtp`].
    #[expect(clippy::too_many_arguments, reason = "the size, the transport's parts, the time")]
    pub fn pad<'a>(
        &mut self,
        size: usize,
        stores: impl Fn(u8) -> Option<&'a PacketStore>,
        seal: &mut SrtpSeal,
        dst: Remote,
        twcc: &mut TwccSeqCounter,
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let ssrc = self.section.rtx_ssrc.ok_or(DropReason::RtxUseless)?;
        let highest = self.history.highest().ok_or(DropReason::RtxUseless)?;
        let sent = self.history.get(highest).ok_or(DropReason::RtxUseless)?;
        let pt = sent.rtx_pt.ok_or(DropReason::RtxUseless)?;
        let stored = stores(sent.stream).and_then(|store| store.get(sent.index));
        if size >= WORTH_A_PACKET && stored.is_some() {
            return self.resend(highest, stores, seal, dst, twcc, tx, now).map(|_| ());
        }
        let index = self.rtx.take();
        let header = RtpHeaderOut { marker: false, pt, seq: index.seq(), timestamp: sent.timestamp, ssrc };
        let map = &self.section.extensions;
        let numbered = map.id(Extension::TransportCc).is_some();
        let extensions = ExtensionValues {
            mid: Some(self.section.mid),
            abs_send_time: Some(twcc.abs_send_time(now)),
            transport_cc: numbered.then(|| twcc.peek()),
            ..ExtensionValues::default()
        };
        let mut padding = [0; MAX_PADDING];
        padding[MAX_PADDING - 1] = MAX_PADDING as u8;
        let mut slot = tx.reserve(MAX_HEADER + MAX_PADDING + MAX_OVERHEAD);
        let bytes = slot.bytes();
        let header_len = header.write(bytes, &extensions, map);
        set_padding(bytes);
        let len = seal.seal_rtp(bytes, header_len, ssrc, index, [&[], &[], &padding])?;
        slot.commit(dst, len);
        if numbered {
            twcc.advance();
        }
        Ok(())
    }
}
