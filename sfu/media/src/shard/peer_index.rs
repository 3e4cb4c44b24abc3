//! From what a datagram shows - its source address or a STUN user name - to the peer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::peers::PeerKey;
use crate::ids::Remote;

/// How long after its owner's last valid check an address may not be taken over by another peer.
///
/// A participant can forge the source of a check that its own password signs. Without this it would divert its
/// victim's media with one datagram. Clients repeat checks at least every 5 s, give or take 20 %
/// ([RFC 7675 section 5.1](https://www.rfc-editor.org/rfc/rfc7675#section-5.1)).
const OWNED_FOR: Duration = Duration::from_secs(7);

#[derive(Debug, Clone, Copy)]
struct Owner {
    peer: PeerKey,
    checked: Instant,
}

/// Addresses that passed a check, and local user name fragments.
#[derive(Debug, Default)]
pub(crate) struct PeerIndex {
    by_addr: HashMap<Remote, Owner>,
    by_ufrag: HashMap<String, PeerKey>,
}

impl PeerIndex {
    /// The peer whose check from this address was valid.
    pub(crate) fn by_addr(&self, from: Remote) -> Option<PeerKey> {
        self.by_addr.get(&from).map(|owner| owner.peer)
    }

    /// The peer that announced this user name fragment.
    pub(crate) fn by_ufrag(&self, ufrag: &str) -> Option<PeerKey> {
        self.by_ufrag.get(ufrag).copied()
    }

    /// Whether a check of `peer` from this address may be answered: nobody else uses the address now.
    pub(crate) fn may_claim(&self, from: Remote, peer: PeerKey, now: Instant) -> bool {
        self.by_addr.get(&from).is_none_or(|owner| {
            owner.peer == peer || now.saturating_duration_since(owner.checked) > OWNED_FOR
        })
    }

    /// A check of `peer` from this address was valid. Returns the peer that the address was taken from.
    pub(crate) fn claim(&mut self, from: Remote, peer: PeerKey, now: Instant) -> Option<PeerKey> {
        let before = self.by_addr.insert(from, Owner { peer, checked: now });
        before.map(|owner| owner.peer).filter(|owner| *owner != peer)
    }

    /// Forgets an address, if it is this peer's.
    pub(crate) fn release(&mut self, from: Remote, peer: PeerKey) {
        if self.by_addr(from) == Some(peer) {
            self.by_addr.remove(&from);
        }
    }

    /// Routes checks that name this fragment. False when another peer has it.
    pub(crate) fn add_ufrag(&mut self, ufrag: &str, peer: PeerKey) -> bool {
        match self.by_ufrag.get(ufrag) {
            Some(have) => *have == peer,
            None => {
                self.by_ufrag.insert(ufrag.to_owned(), peer);
                true
            }
        }
    }

    /// Forgets a fragment, if it is this peer's.
    pub(crate) fn remove_ufrag(&mut self, ufrag: &str, peer: PeerKey) {
        if self.by_ufrag(ufrag) == Some(peer) {
            self.by_ufrag.remove(ufrag);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::shard::slots::Key;
    use crate::sim::clock;

    #[test]
    fn an_address_in_use_is_not_taken_over() {
        let t = clock::epoch();
        let addr = Remote::from(SocketAddr::from(([192, 0, 2, 1], 5000)));
        let (victim, thief): (PeerKey, PeerKey) = (Key::for_test(0, 1), Key::for_test(1, 2));
        let mut index = PeerIndex::default();
        assert!(index.may_claim(addr, victim, t));
        assert_eq!(index.claim(addr, victim, t), None);
        assert!(!index.may_claim(addr, thief, t + OWNED_FOR));
        assert!(index.may_claim(addr, victim, t + OWNED_FOR));
        let late = t + OWNED_FOR + Duration::from_millis(1);
        assert!(index.may_claim(addr, thief, late), "the owner went quiet");
        assert_eq!(index.claim(addr, thief, late), Some(victim));
        index.release(addr, victim);
        assert_eq!(index.by_addr(addr), Some(thief));
        index.release(addr, thief);
        assert_eq!(index.by_addr(addr), None);
    }

    #[test]
    fn a_fragment_belongs_to_one_peer() {
        let (a, b): (PeerKey, PeerKey) = (Key::for_test(0, 1), Key::for_test(1, 2));
        let mut index = PeerIndex::default();
        assert!(index.add_ufrag("abcd", a));
        assert!(index.add_ufrag("abcd", a));
        assert!(!index.add_ufrag("abcd", b));
        index.remove_ufrag("abcd", b);
        assert_eq!(index.by_ufrag("abcd"), Some(a));
        index.remove_ufrag("abcd", a);
        assert_eq!(index.by_ufrag("abcd"), None);
    }
}
