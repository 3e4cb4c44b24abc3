//! Who holds a TCP connection, and who may open another.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sfu_media::ids::TcpId;
use tokio::sync::Notify;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpLimits {
    /// In all.
    pub total: usize,
    /// From one IPv4 address or one /64 of IPv6, which is what one subscriber line has.
    pub per_address: usize,
}

/// What is known of one connection by both its ends in the relay: the task that reads it and the shard.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    proven: AtomicBool,
    end: Notify,
}

impl Standing {
    /// A check from it was valid: it belongs to a participant.
    pub(crate) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Completes when the connection has to make room.
    pub(crate) async fn ended(&self) {
        self.end.notified().await;
    }
}

/// All open connections.
///
/// A full table makes room by ending the oldest connection that has proved nothing: a client proves itself within a
/// round trip, so a flood of strangers ends strangers.
#[derive(Debug)]
pub(super) struct Table {
    limits: TcpLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Ids rise with time, so the first is the oldest.
    open: BTreeMap<TcpId, (IpAddr, Arc<Standing>)>,
    by_network: HashMap<IpAddr, usize>,
}

impl Table {
    pub(super) fn new(limits: TcpLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// A place for a new connection, held until the ticket is dropped. `None` when there is no room.
    pub(super) fn admit(self: &Arc<Self>, id: TcpId, from: IpAddr) -> Option<Ticket> {
        let network = network(from);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.by_network.get(&network).copied().unwrap_or(0) >= self.limits.per_address
            && !state.make_room(Some(network))
        {
            return None;
        }
        if state.open.len() >= self.limits.total && !state.make_room(None) {
            return None;
        }
        let standing = Arc::new(Standing::default());
        state.open.insert(id, (network, Arc::clone(&standing)));
        *state.by_network.entry(network).or_default() += 1;
        Some(Ticket { id, table: Arc::clone(self), standing })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.state.lock().unwrap().open.len()
    }
}

impl State {
    /// Ends the oldest unproven connection, of one network or of all.
    fn make_room(&mut self, of: Option<IpAddr>) -> bool {
        let stranger = self
            .open
            .iter()
            .find(|(_, (network, standing))| !standing.is_proven() && of.is_none_or(|of| of == *network));
        let Some((id, (_, standing))) = stranger else { return false };
        standing.end.notify_one();
        let id = *id;
        self.remove(id);
        true
    }

    fn remove(&mut self, id: TcpId) {
        let Some((network, _)) = self.open.remove(&id) else { return };
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

/// A connection's place in the [`Table`].
#[derive(Debug)]
pub(super) struct Ticket {
    id: TcpId,
    table: Arc<Table>,
    pub(super) standing: Arc<Standing>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.table.state.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
    }
}

/// What counts as one address.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_stranger_makes_room_and_a_participant_does_not() {
        let table = Table::new(TcpLimits { total: 3, per_address: 3 });
        let tickets: Vec<_> =
            (0..3).map(|n| table.admit(TcpId(n), ip(&format!("192.0.2.{n}"))).unwrap()).collect();
        tickets[0].standing.prove();
        let late = table.admit(TcpId(3), ip("192.0.2.9")).unwrap();
        assert_eq!(table.len(), 3);
        // The oldest that proved nothing was told.
        let told = |ticket: &Ticket| {
            let mut ended = Box::pin(ticket.standing.ended());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            ended.as_mut().poll(&mut context).is_ready()
        };
        assert_eq!(tickets.iter().map(told).collect::<Vec<_>>(), [false, true, false]);
        late.standing.prove();
        tickets[2].standing.prove();
        assert!(table.admit(TcpId(4), ip("192.0.2.10")).is_none(), "all are participants");
        drop(late);
        assert!(table.admit(TcpId(5), ip("192.0.2.10")).is_some());
    }

    #[test]
    fn one_address_has_its_share_only() {
        let table = Table::new(TcpLimits { total: 100, per_address: 2 });
        let first = table.admit(TcpId(0), ip("2001:db8::1")).unwrap();
        let second = table.admit(TcpId(1), ip("2001:db8::2")).unwrap();
        first.standing.prove();
        second.standing.prove();
        assert!(table.admit(TcpId(2), ip("2001:db8::3")).is_none(), "the same /64");
        let _other = table.admit(TcpId(3), ip("2001:db8:0:1::1")).unwrap();
        drop(first);
        let again = table.admit(TcpId(4), ip("2001:db8::1")).unwrap();
        assert!(table.admit(TcpId(5), ip("2001:db8::1")).is_some(), "one that proved nothing makes room");
        drop(again);
        assert!(table.admit(TcpId(6), ip("::ffff:192.0.2.1")).is_some());
    }

    #[test]
    fn nothing_is_left_of_connections_that_ended() {
        let table = Table::new(TcpLimits { total: 2, per_address: 2 });
        for n in 0..10 {
            let _ticket = table.admit(TcpId(n), ip("192.0.2.1"));
        }
        let state = table.state.lock().unwrap();
        assert!(state.open.is_empty() && state.by_network.is_empty());
    }
}
