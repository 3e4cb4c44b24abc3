//! A subscription that begins shortly after a key frame begins with that one, out of the store.

use std::time::Instant;

use super::Shard;
use super::sending::{Kind, WIRE_OVERHEAD, Work};
use super::subscriptions::SubKey;
use super::timers::Timer;
use crate::drop_reason::DropReason;
use crate::ids::ExtSeq;
use crate::outbound::MAX_STREAMS;
use crate::tx::TxQueue;

impl Shard {
    /// Gives a subscription that gets nothing yet the packets since the last key frame of the layer that it wants, or
    /// else of the best one below, if that is so young that nobody should be asked for another. It follows the track from
    /// there: what is released from now on comes next.
    pub(super) fn replay(&mut self, key: SubKey, layer: u8, tx: &mut TxQueue, now: Instant) {
        if self.key_frame_waits(key, layer) {
            return;
        }
        let Self { tracks, subs, peers, stats, timers, .. } = self;
        let Some(sub) = subs.get_mut(key).filter(|sub| sub.forwarder.current_stream().is_none()) else {
            return;
        };
        let Some(track) = tracks.get(sub.track).filter(|track| !track.policy.muted) else { return };
        let Some(peer) = peers.get_mut(sub.peer) else { return };
        let wanted = (0..=layer.min(MAX_STREAMS as u8 - 1)).rev();
        let found = wanted.filter_map(|layer| track.stream(layer)).find_map(|stream_key| {
            let stream = tracks.streams.get(stream_key)?;
            let (first, last) = stream.inbound.since_key_frame(now)?;
            Some((stream_key, stream, first, last))
        });
        let Some((stream_key, stream, first, last)) = found else { return };
        let store = stream.inbound.store();
        // What waits already is of other key frames, or of none.
        peer.sending.pacer.retain(|work| work.sub() != key);
        for index in (first.0..=last.0).map(ExtSeq) {
            let Some(packet) = store.get(index) else { continue };
            if peer.sending.pacer.must_wait(now) {
                let work = Work::Packet { sub: key, stream: stream_key, layer: stream.layer, index };
                if !peer.sending.pacer.push(work, packet.1.len() + WIRE_OVERHEAD, now) {
                    stats.drop(DropReason::Congested);
                }
                continue;
            }
            let Some(mut way) = peer.way(tx) else { return };
            way.forward(&mut sub.forwarder, Kind::Video, &[packet], stats, now);
        }
        if let Some(at) = peer.sending.pacer.poll_timeout(now) {
            timers.arm(Timer::Pace(sub.peer), at.max(now + super::connect::MIN_REST));
        }
    }
}
