//! Sends what waits in the pacers, and the padding of probes.

use std::time::{Duration, Instant};

use super::peers::PeerKey;
use super::sending::{Kind, Work};
use super::subscriptions::{SubKey, Subscriptions};
use super::timers::Timer;
use super::tracks::Tracks;
use super::{Shard, connect};
use crate::drop_reason::DropReason;
use crate::tx::TxQueue;

/// For so long after the start of a probe its packets are to leave on time.
const PROBE_TIME: Duration = Duration::from_millis(40);

impl Shard {
    /// The estimate towards a peer may have moved: shares it anew where it did, probes where that is asked for.
    pub(super) fn estimate_changed(&mut self, key: PeerKey, tx: &mut TxQueue, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.sending.set_pace(now);
        let turned = peer.sending.look_at_queue(now);
        if peer.sending.look_at_repairs(now) {
            let delay = peer.sending.playout_delay();
            for sub in &peer.subs {
                if let Some(sub) = self.subs.get_mut(*sub) {
                    sub.forwarder.set_playout_delay(delay);
                }
            }
        }
        if turned || peer.sending.has_moved(now) {
            self.allocate(key, tx, now);
        }
        self.probe(key, now);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.sending.rest(now);
        }
        self.pace(key, tx, now);
        let Some(peer) = self.peers.get(key) else { return };
        if let Some(at) = peer.sending.poll_timeout() {
            self.timers.arm(Timer::Peer(key), at.max(now + connect::MIN_REST));
        }
    }

    /// What is due of the estimator, and the allocation by the clock.
    pub(super) fn sending_timeout(&mut self, key: PeerKey, tx: &mut TxQueue, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.sending.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        peer.sending.handle_timeout(now);
        if peer.sending.next_look.is_some_and(|at| at <= now) {
            self.allocate(key, tx, now);
        }
        self.estimate_changed(key, tx, now);
    }

    /// Begins a probe if the estimator wants one and there is a subscription to pad.
    fn probe(&mut self, key: PeerKey, now: Instant) {
        let Self { peers, subs, tracks, stats, exact_until, .. } = self;
        let Some(peer) = peers.get_mut(key) else { return };
        if peer.sending.is_probing() || !peer.subs.iter().any(|sub| can_pad(subs, tracks, *sub)) {
            return;
        }
        if peer.sending.start_probe(now) {
            stats.probes += 1;
            *exact_until = Some(now + PROBE_TIME);
            peer.sending.set_pace(now);
        }
    }

    /// Does what waited for its turn.
    fn send_work(&mut self, key: PeerKey, work: Work, tx: &mut TxQueue, now: Instant) {
        let Self { tracks, subs, peers, stats, .. } = self;
        let Some(peer) = peers.get_mut(key) else { return };
        let Some(sub) = subs.get_mut(work.sub()) else { return };
        let Some(track) = tracks.get(sub.track) else { return };
        let Some(mut way) = peer.way(tx) else { return };
        match work {
            Work::Packet { stream, index, .. } => {
                let Some(stream) = tracks.streams.get(stream) else { return };
                let Some(packet) = stream.inbound.store().get(index) else { return };
                way.forward(&mut sub.forwarder, Kind::Video, &[packet], stats, now);
            }
            Work::Skip { stream, index, .. } => {
                if let Some(stream) = tracks.streams.get(stream) {
                    sub.forwarder.skip(stream.layer, index);
                }
            }
            Work::Resend { .. } if track.policy.muted => stats.drop(DropReason::Muted),
            Work::Resend { .. } if !sub.is_repaired() => stats.drop(DropReason::Congested),
            Work::Resend { lost, .. } => {
                let store = |layer| Some(tracks.streams.get(track.stream(layer)?)?.inbound.store());
                match way.resend(&mut sub.forwarder, lost, store, now) {
                    Ok(packets) => stats.rtx_out += packets,
                    Err(reason) => stats.drop(reason),
                }
            }
        }
    }

    /// Sends at once what waits of a subscription: what comes behind it has nothing to do with it, and half a frame is of
    /// no use.
    pub(super) fn flush_subscription(&mut self, key: SubKey, tx: &mut TxQueue, now: Instant) {
        let Some(peer_key) = self.subs.get(key).map(|sub| sub.peer) else { return };
        let Some(peer) = self.peers.get_mut(peer_key).filter(|peer| peer.sending.pacer.has_waiting()) else {
            return;
        };
        let mut waiting = Vec::new();
        peer.sending.pacer.retain(|work| {
            let others = work.sub() != key;
            if !others {
                waiting.push(*work);
            }
            others
        });
        for work in waiting {
            self.send_work(peer_key, work, tx, now);
        }
    }

    /// Sends what a peer's pacer lets go now and what its probe lacks, and comes back for the rest.
    pub(super) fn pace(&mut self, key: PeerKey, tx: &mut TxQueue, now: Instant) {
        while let Some(peer) = self.peers.get_mut(key)
            && let Some((work, waited)) = peer.sending.pacer.pop(now)
        {
            self.stats.paced_packets += 1;
            self.stats.paced_micros += waited.as_micros() as u64;
            self.send_work(key, work, tx, now);
        }
        let Self { tracks, subs, peers, stats, timers, .. } = self;
        let Some(peer) = peers.get_mut(key) else { return };
        while let Some(size) = peer.sending.padding_due(now) {
            let padded = peer.subs.iter().copied().find(|sub| can_pad(subs, tracks, *sub));
            let sub = padded.and_then(|sub| subs.get_mut(sub));
            let (Some(sub), Some(mut way)) = (sub, peer.way(tx)) else { break };
            let Some(track) = tracks.get(sub.track) else { break };
            let store = |layer| Some(tracks.streams.get(track.stream(layer)?)?.inbound.store());
            match way.pad(&mut sub.forwarder, size, store, now) {
                Ok(bytes) => {
                    stats.padding_packets += 1;
                    stats.padding_bytes += bytes as u64;
                }
                Err(reason) => {
                    stats.drop(reason);
                    break;
                }
            }
        }
        if !peer.sending.is_probing() {
            // A probe that ended takes its speed with it.
            peer.sending.set_pace(now);
        }
        let next = [peer.sending.pacer.poll_timeout(now), peer.sending.next_padding()];
        if let Some(at) = next.into_iter().flatten().min() {
            timers.arm(Timer::Pace(key), at.max(now + connect::MIN_REST));
        }
    }
}

/// Whether probes may be padded on a subscription: what is muted or not wanted is not sent again either.
fn can_pad(subs: &Subscriptions, tracks: &Tracks, key: SubKey) -> bool {
    let Some(sub) = subs.get(key) else { return false };
    let open = tracks.get(sub.track).is_some_and(|track| !track.policy.muted);
    open && sub.wanted.enabled && sub.forwarder.can_pad()
}
