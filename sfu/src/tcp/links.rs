//! The shard's end of its TCP connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu_media::ids::{Remote, TcpId};
use sfu_media::shard::Shard;
use sfu_media::tx::TxQueue;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::frame::framed;
use super::table::Standing;

/// From its being accepted until a connection must have shown a valid check.
pub(crate) const PROOF_TIME: Duration = Duration::from_secs(10);
/// How often connections that nobody needs any more are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What a connection's task hands to the shard.
#[derive(Debug)]
pub(crate) enum TcpInput {
    Opened {
        remote: Remote,
        accepted: Instant,
        out: mpsc::Sender<Outgoing>,
        standing: Arc<Standing>,
    },
    Datagram {
        remote: Remote,
        datagram: Vec<u8>,
        /// Lets the task read on when the shard is done with it.
        permit: OwnedSemaphorePermit,
    },
    Closed {
        remote: Remote,
    },
}

/// A datagram for a client, with its length before it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) queued: Instant,
    pub(crate) frame: Box<[u8]>,
}

#[derive(Debug)]
struct Link {
    remote: Remote,
    accepted: Instant,
    /// Dropping it ends the connection.
    out: mpsc::Sender<Outgoing>,
    standing: Arc<Standing>,
}

/// The connections of one shard.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: HashMap<TcpId, Link>,
    swept: Option<Instant>,
}

impl Links {
    /// Takes what a connection has for the shard.
    pub(crate) fn handle(&mut self, input: TcpInput, shard: &mut Shard, tx: &mut TxQueue, now: Instant) {
        match input {
            TcpInput::Opened { remote, accepted, out, standing } => {
                if let Some(id) = remote.tcp {
                    self.links.insert(id, Link { remote, accepted, out, standing });
                }
            }
            TcpInput::Datagram { remote, mut datagram, permit } => {
                let Some(link) = remote.tcp.and_then(|id| self.links.get(&id)) else { return };
                shard.handle_datagram(remote, &mut datagram, tx, now);
                if !link.standing.is_proven() && shard.accepts(remote) {
                    link.standing.prove();
                }
                drop(permit);
            }
            TcpInput::Closed { remote } => {
                if remote.tcp.and_then(|id| self.links.remove(&id)).is_some() {
                    shard.handle_closed(remote);
                }
            }
        }
    }

    /// Hands the queue's datagrams for TCP to their connections. What a connection has no room for is dropped, as a
    /// network would. Returns how many.
    pub(crate) fn send(&mut self, tx: &TxQueue) -> u64 {
        let mut dropped = 0;
        let mut now = None;
        for (id, datagram) in tx.frames() {
            let queued = *now.get_or_insert_with(Instant::now);
            let frame = self.links.get(&id).zip(framed(datagram));
            let sent =
                frame.is_some_and(|(link, frame)| link.out.try_send(Outgoing { queued, frame }).is_ok());
            dropped += u64::from(!sent);
        }
        dropped
    }

    /// Ends connections that proved nothing in time, and those of participants that are gone. Cheap before it is due.
    pub(crate) fn sweep(&mut self, shard: &Shard, now: Instant) {
        if self.links.is_empty() || self.swept.is_some_and(|at| now < at + SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.links.retain(|_, link| match link.standing.is_proven() {
            true => shard.accepts(link.remote),
            false => now < link.accepted + PROOF_TIME,
        });
    }
}
