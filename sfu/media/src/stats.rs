//! Counters of a shard, plain numbers owned by its thread and published as snapshots.

use crate::drop_reason::DropReason;

/// Counters since the shard started. All are monotonic but [`ShardStats::estimated_peers`] and
/// [`ShardStats::estimate_bps`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStats {
    /// Datagrams received, of any protocol.
    pub datagrams_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Datagrams sent, of any protocol.
    pub datagrams_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// RTP packets accepted from publishers.
    pub rtp_in: u64,
    /// RTP packets forwarded to subscribers, retransmissions not counted.
    pub rtp_out: u64,
    /// RTP packets retransmitted to subscribers.
    pub rtx_out: u64,
    /// Retransmissions received from publishers.
    pub rtx_in: u64,
    /// RTP packets taken over from other shards.
    pub relayed_in: u64,
    /// RTP packets handed to other shards.
    pub relayed_out: u64,
    /// Packets that subscribers asked for by NACK.
    pub nack_in: u64,
    /// Packets that the relay asked publishers for by NACK.
    pub nack_out: u64,
    /// Key-frame requests (PLI, FIR) from subscribers.
    pub pli_in: u64,
    /// Key-frame requests to publishers.
    pub pli_out: u64,
    /// Bandwidth probes begun.
    pub probes: u64,
    /// Packets of padding sent for them, repeated ones included.
    pub padding_packets: u64,
    /// Bytes of these datagrams.
    pub padding_bytes: u64,
    /// Packets that waited in a pacer.
    pub paced_packets: u64,
    /// How long they waited in all, in microseconds.
    pub paced_micros: u64,
    /// Subscriptions paused because nothing of them fit.
    pub pauses: u64,
    /// .. and resumed. What is paused now is the difference, but for subscriptions that ended meanwhile.
    pub resumes: u64,
    /// Peers with a bandwidth estimate, at the last report.
    pub estimated_peers: u64,
    /// The sum of these estimates in bits per second.
    pub estimate_bps: u64,
    /// DTLS handshakes completed.
    pub handshakes: u64,
    /// Data-channel messages received.
    pub data_in: u64,
    /// Data-channel messages sent.
    pub data_out: u64,
    /// Drops, indexed by [`DropReason`].
    pub drops: [u64; DropReason::ALL.len()],
}

impl Default for ShardStats {
    fn default() -> Self {
        Self {
            datagrams_in: 0,
            bytes_in: 0,
            datagrams_out: 0,
            bytes_out: 0,
            rtp_in: 0,
            rtp_out: 0,
            rtx_out: 0,
            rtx_in: 0,
            relayed_in: 0,
            relayed_out: 0,
            nack_in: 0,
            nack_out: 0,
            pli_in: 0,
            pli_out: 0,
            probes: 0,
            padding_packets: 0,
            padding_bytes: 0,
            paced_packets: 0,
            paced_micros: 0,
            pauses: 0,
            resumes: 0,
            estimated_peers: 0,
            estimate_bps: 0,
            handshakes: 0,
            data_in: 0,
            data_out: 0,
            drops: [0; DropReason::ALL.len()],
        }
    }
}

impl ShardStats {
    /// Counts one drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Drops for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}
