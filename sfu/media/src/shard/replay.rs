//! A subscription that begins shortly after a key frame begins with that one, out of the store.

use std::time::Instant;

use super::Shard;
use super::subscriptions::SubKey;
use crate::ids::ExtSeq;
use crate::outbound::MAX_STREAMS;
use crate::tx::TxQueue;

impl Shard {
    /// Gives a subscription that gets nothing yet the packets since the last key frame of the layer that it wants, or
    /// else of the best one below, if that is so young that nobody should be asked for another. It follows the track from
    /// there: what is released from now on comes next.
    pub(super) fn replay(&mut self, key: SubKey, layer: u8, tx: &mut TxQueue, now: Instant) {
        let Self { tracks, subs, peers, stats, .. } = self;
        let Some(sub) = subs.get_mut(key).filter(|sub| sub.forwarder.current_stream().is_none()) else {
            return;
        };
        let Some(track) = tracks.get(sub.track).filter(|track| !track.policy.muted) else { return };
        let Some(peer) = peers.get_mut(sub.peer) else { return };
        let Some((seal, dst)) = peer.transport.seal_and_addr() else { return };
        let wanted = (0..=layer.min(MAX_STREAMS as u8 - 1)).rev();
        let found = wanted.filter_map(|layer| tracks.streams.get(track.stream(layer)?)).find_map(|stream| {
            let (first, last) = stream.inbound.since_key_frame(now)?;
            Some((stream.inbound.store(), first, last))
        });
        let Some((store, first, last)) = found else { return };
        for (meta, payload) in (first.0..=last.0).filter_map(|index| store.get(ExtSeq(index))) {
            match sub.forwarder.forward(meta, payload, seal, dst, &mut peer.twcc, tx, now) {
                Ok(()) => stats.rtp_out += 1,
                Err(reason) => stats.drop(reason),
            }
        }
    }
}
