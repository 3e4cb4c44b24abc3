//! The retransmission stream of one subscription ([RFC 4588](https://www.rfc-editor.org/rfc/rfc4588)): its own SSRC, its
//! own numbers. A packet is never sent twice under one number of the primary SSRC.

use std::time::{Duration, Instant};

use crate::ids::ExtSeq;

/// A round trip until one is known.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
/// Least time between two retransmissions of one packet, whatever round trip the receiver claims: its reports decide
/// that figure, and no receiver asks again sooner.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Times that one packet is sent again at most: libwebrtc asks ten times. Bounds what a receiver can make the relay send
/// to a multiple of the media itself.
pub(super) const MAX_RESENDS: u8 = 10;

/// From this round trip on a repair that is lost itself comes too late ..
pub(super) const LATE: Duration = Duration::from_millis(75);
/// .. and is sent twice while no more than this is lost, in 1/256 (10 %): above, the copies would be what congests the path.
pub(super) const LITTLE_LOSS: u8 = 26;

/// Counts retransmissions.
#[derive(Debug)]
pub(super) struct RtxCounter {
    next: u64,
}

impl RtxCounter {
    pub(super) fn new(first: u16) -> Self {
        Self { next: u64::from(first) }
    }

    /// The index of the next retransmission. Taken once it is sealed, so that no two packets share it.
    pub(super) fn take(&mut self) -> ExtSeq {
        self.next += 1;
        ExtSeq(self.next - 1)
    }
}

/// Whether a packet was sent again so lately that the receiver could not have missed it yet.
pub(super) fn too_soon(resent: Option<Instant>, rtt: Option<Duration>, now: Instant) -> bool {
    let interval = (rtt.unwrap_or(DEFAULT_RTT) / 2).max(MIN_INTERVAL);
    resent.is_some_and(|at| now.saturating_duration_since(at) < interval)
}
