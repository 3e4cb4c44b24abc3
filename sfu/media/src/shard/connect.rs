//! The life of a peer's transport: checks, handshake, data channels, end.

use std::time::{Duration, Instant};

use super::Shard;
use super::peers::PeerKey;
use crate::command::ShardEvent;
use crate::drop_reason::DropReason;
use crate::ids::Remote;
use crate::transport::{TransportEvent, stun};
use crate::tx::TxQueue;

/// Least time between two timeouts of one peer. A deadline that its own handling does not move would else spin.
pub(super) const MIN_REST: Duration = Duration::from_millis(1);

impl Shard {
    pub(super) fn stun(
        &mut self,
        from: Remote,
        datagram: &[u8],
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let ufrag = stun::local_ufrag(datagram)?;
        let key = self.peers.named(ufrag, from).ok_or(DropReason::StunUnknownUser)?;
        let peer = self.peers.get_mut(key).ok_or(DropReason::StunUnknownUser)?;
        let fragments = peer.transport.local_ufrags().count();
        peer.transport.handle_stun(from, datagram, tx, now)?;
        peer.heard = true;
        let restarted = peer.transport.local_ufrags().count() != fragments;
        if peer.transport.accepts(from) {
            self.peers.learn_addr(key, from);
        }
        if restarted {
            self.peers.index_ufrags(key);
        }
        self.transport_changed(key, tx, now);
        Ok(())
    }

    pub(super) fn dtls(
        &mut self,
        from: Remote,
        datagram: &mut [u8],
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let key = self.peers.at(from).ok_or(DropReason::UnknownSource)?;
        let peer = self.peers.get_mut(key).ok_or(DropReason::UnknownSource)?;
        let result = peer.transport.handle_dtls(from, datagram, tx, now);
        self.transport_changed(key, tx, now);
        result
    }

    /// Takes up what a transport has to tell. To be called after anything that may have changed it.
    pub(super) fn transport_changed(&mut self, key: PeerKey, tx: &mut TxQueue, now: Instant) {
        while let Some(peer) = self.peers.get_mut(key)
            && let Some(event) = peer.transport.poll_event()
        {
            let id = peer.id;
            match event {
                TransportEvent::Connected => {
                    self.stats.handshakes += 1;
                    self.events.push_back(ShardEvent::PeerConnected { peer: id });
                    self.peer_connected(key, tx, now);
                }
                TransportEvent::Data { label, payload } => {
                    self.stats.data_in += 1;
                    self.events.push_back(ShardEvent::Data { peer: id, label, payload });
                }
                TransportEvent::Closed(reason) => {
                    self.remove_peer(key);
                    self.events.push_back(ShardEvent::PeerClosed { peer: id, reason });
                }
            }
        }
        self.arm_peer(key, now);
    }

    pub(super) fn peer_timeout(&mut self, key: PeerKey, tx: &mut TxQueue, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.transport.poll_timeout().is_some_and(|at| at <= now) {
            peer.transport.handle_timeout(now, tx);
        }
        self.media_timeout(key, tx, now);
        self.transport_changed(key, tx, now);
    }
}
