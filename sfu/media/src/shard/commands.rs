//! What room logic asks of a shard.

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::peers::Peer;
use crate::command::ShardCommand;
use crate::transport::{Transport, TransportConfig};
use crate::tx::TxQueue;

impl Shard {
    pub(super) fn command(&mut self, command: ShardCommand, tx: &mut TxQueue, now: Instant) {
        match command {
            ShardCommand::OpenPeer { peer, ice, data_channels } => {
                let config = TransportConfig {
                    ice,
                    certificate: Arc::clone(&self.config.certificate),
                    data_channels,
                    timeouts: self.config.timeouts,
                };
                if let Some(key) = self.peers.insert(Peer::new(peer, Transport::new(config, now))) {
                    self.arm_peer(key, now);
                }
            }
            ShardCommand::SetRemote { peer, remote } => {
                let Some(key) = self.peers.key(peer) else { return };
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.transport.set_remote(remote, now);
                }
                self.transport_changed(key, tx, now);
            }
            ShardCommand::RestartIce { peer, ice } => {
                let Some(key) = self.peers.key(peer) else { return };
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.transport.restart_ice(ice);
                }
                self.peers.index_ufrags(key);
            }
            ShardCommand::SendData { peer, label, payload } => {
                let Some(key) = self.peers.key(peer) else { return };
                let Some(peer) = self.peers.get_mut(key) else { return };
                match peer.transport.send_data(label, &payload, tx, now) {
                    Ok(()) => self.stats.data_out += 1,
                    Err(reason) => self.stats.drop(reason),
                }
                self.transport_changed(key, tx, now);
            }
            ShardCommand::ClosePeer { peer } => {
                let Some(key) = self.peers.key(peer) else { return };
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.transport.close(tx, now);
                }
                self.remove_peer(key);
            }
            _ => {}
        }
    }
}
