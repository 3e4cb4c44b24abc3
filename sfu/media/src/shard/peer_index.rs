//! From what a datagram shows - its source address or a STUN user name - to the peer.

use std::cell::Cell;
use std::collections::HashMap;

use super::peers::PeerKey;
use crate::ids::Remote;

/// Addresses that passed a check, and local user name fragments.
#[derive(Debug, Default)]
pub(crate) struct PeerIndex {
    by_addr: HashMap<Remote, PeerKey>,
    by_ufrag: HashMap<String, PeerKey>,
    /// What was found last: a frame's packets come one after the other.
    last: Cell<Option<(Remote, PeerKey)>>,
}

impl PeerIndex {
    /// The peer whose check from this address was valid last.
    pub(crate) fn by_addr(&self, from: Remote) -> Option<PeerKey> {
        if let Some((last, key)) = self.last.get()
            && last == from
        {
            return Some(key);
        }
        let found = self.by_addr.get(&from).copied()?;
        self.last.set(Some((from, found)));
        Some(found)
    }

    /// The peer that announced this user name fragment.
    pub(crate) fn by_ufrag(&self, ufrag: &str) -> Option<PeerKey> {
        self.by_ufrag.get(ufrag).copied()
    }

    /// A check of `peer` from this address was valid. Returns the peer that the address was taken from.
    pub(crate) fn claim(&mut self, from: Remote, peer: PeerKey) -> Option<PeerKey> {
        self.last.set(None);
        self.by_addr.insert(from, peer).filter(|owner| *owner != peer)
    }

    /// Forgets an address, if it is this peer's.
    pub(crate) fn release(&mut self, from: Remote, peer: PeerKey) {
        if self.by_addr(from) == Some(peer) {
            self.last.set(None);
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

    #[test]
    fn an_address_is_released_by_its_owner_only() {
        let addr = Remote::from(SocketAddr::from(([192, 0, 2, 1], 5000)));
        let (a, b): (PeerKey, PeerKey) = (Key::for_test(0, 1), Key::for_test(1, 2));
        let mut index = PeerIndex::default();
        assert_eq!(index.claim(addr, a), None);
        assert_eq!(index.claim(addr, a), None);
        // What was looked up last is remembered, and not for longer than it holds.
        assert_eq!(index.by_addr(addr), Some(a));
        let other = Remote::from(SocketAddr::from(([192, 0, 2, 1], 5001)));
        assert_eq!((index.by_addr(other), index.by_addr(addr)), (None, Some(a)));
        assert_eq!(index.claim(addr, b), Some(a));
        assert_eq!(index.by_addr(addr), Some(b));
        index.release(addr, a);
        assert_eq!(index.by_addr(addr), Some(b));
        index.release(addr, b);
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
