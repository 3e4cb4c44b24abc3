//! The transports of a shard and what each of them owns.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use arrayvec::ArrayVec;

use super::peer_index::PeerIndex;
use super::round_trip::RttFilter;
use super::router::Router;
use super::sending::{Sending, Way};
use super::slots::{Key, Slots};
use super::subscriptions::SubKey;
use super::tracks::TrackKey;
use crate::ids::{Mid, PeerId, Remote, Ssrc};
use crate::inbound::TwccRecorder;
use crate::outbound::TwccSeqCounter;
use crate::transport::Transport;
use crate::tx::TxQueue;

/// Names a [`Peer`] in its shard.
pub(crate) type PeerKey = Key<Peer>;

/// Addresses that one peer may hold in the index. A transport keeps 8 at a time; more are stale ones of it.
const MAX_ADDRS: usize = 16;

/// One transport.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) transport: Transport,
    /// Addresses that the index leads here from.
    addrs: ArrayVec<Remote, MAX_ADDRS>,
    /// User name fragments that the index leads here from.
    ufrags: Vec<String>,
    /// What it may send, and the SSRCs that it sends on.
    pub(crate) router: Router,
    /// Its tracks by section; a section may not be negotiated yet, or not any more.
    pub(crate) published: Vec<(Mid, TrackKey)>,
    /// What it gets, in the order of subscribing.
    pub(crate) subs: Vec<SubKey>,
    /// The same by SSRC: what its RTCP is about.
    pub(crate) egress: HashMap<Ssrc, SubKey>,
    /// Every SSRC ever sent on. One that came again would repeat nonces of the same key.
    used_ssrcs: BTreeSet<Ssrc>,
    /// Arrivals of its packets.
    pub(crate) arrivals: TwccRecorder,
    /// Numbers of the packets sent to it.
    pub(crate) twcc: TwccSeqCounter,
    /// What its path carries, and what waits for it.
    pub(crate) sending: Sending,
    /// Round trip of the path, the least of late.
    pub(crate) rtt: RttFilter,
    /// An SSRC that it sends on, which transport-wide feedback must name though it is about all.
    pub(crate) some_ssrc: Ssrc,
    /// Something authentic came from it since the last report to room logic.
    pub(crate) heard: bool,
    /// When reports are due; none before it is connected.
    pub(crate) next_report: Option<Instant>,
}

impl Peer {
    /// A peer without media.
    pub(crate) fn new(id: PeerId, transport: Transport, now: Instant) -> Self {
        Self {
            id,
            transport,
            addrs: ArrayVec::new(),
            ufrags: Vec::new(),
            router: Router::default(),
            published: Vec::new(),
            subs: Vec::new(),
            egress: HashMap::new(),
            used_ssrcs: BTreeSet::new(),
            arrivals: TwccRecorder::new(now),
            twcc: TwccSeqCounter::new(now),
            sending: Sending::default(),
            rtt: RttFilter::default(),
            some_ssrc: Ssrc(0),
            heard: false,
            next_report: None,
        }
    }

    /// The track of a section.
    pub(crate) fn track_on(&self, mid: Mid) -> Option<TrackKey> {
        self.published.iter().find(|(have, _)| *have == mid).map(|(_, track)| *track)
    }

    /// The way of packets to it; `None` before there are keys and a path.
    pub(super) fn way<'a>(&'a mut self, tx: &'a mut TxQueue) -> Option<Way<'a>> {
        let (seal, dst) = self.transport.seal_and_addr()?;
        Some(Way { seal, dst, twcc: &mut self.twcc, sending: &mut self.sending, tx })
    }

    /// Reads a bit of all that a packet to it needs, see [`Forwarder::touch`](crate::outbound::Forwarder).
    pub(super) fn touch(&self) -> u64 {
        self.sending.touch() + self.twcc.count() + self.transport.touch()
    }

    /// Reserves the SSRCs of a new subscription for good. False when one of them was used before.
    pub(crate) fn take_ssrcs(&mut self, ssrc: Ssrc, rtx: Option<Ssrc>) -> bool {
        if rtx == Some(ssrc) || [Some(ssrc), rtx].into_iter().flatten().any(|s| self.used_ssrcs.contains(&s))
        {
            return false;
        }
        self.used_ssrcs.insert(ssrc);
        self.used_ssrcs.extend(rtx);
        true
    }
}

/// All peers, and every way to find one.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    slots: Slots<Peer>,
    by_id: HashMap<PeerId, PeerKey>,
    index: PeerIndex,
}

impl Peers {
    /// Adds a peer. None when the id is taken.
    pub(crate) fn insert(&mut self, peer: Peer) -> Option<PeerKey> {
        if self.by_id.contains_key(&peer.id) {
            return None;
        }
        let id = peer.id;
        let key = self.slots.insert(peer);
        self.by_id.insert(id, key);
        self.index_ufrags(key);
        Some(key)
    }

    /// Takes a peer out of all tables.
    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<Peer> {
        let peer = self.slots.remove(key)?;
        self.by_id.remove(&peer.id);
        for addr in &peer.addrs {
            self.index.release(*addr, key);
        }
        for ufrag in &peer.ufrags {
            self.index.remove_ufrag(ufrag, key);
        }
        Some(peer)
    }

    /// The key of an id.
    pub(crate) fn key(&self, id: PeerId) -> Option<PeerKey> {
        self.by_id.get(&id).copied()
    }

    /// The peer of a key.
    pub(crate) fn get(&self, key: PeerKey) -> Option<&Peer> {
        self.slots.get(key)
    }

    /// The same for change.
    pub(crate) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.slots.get_mut(key)
    }

    /// All peers, always in the same order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerKey, &mut Peer)> {
        self.slots.iter_mut()
    }

    /// The peer that a datagram other than STUN is from: its address passed a check and is still valid.
    pub(crate) fn at(&self, from: Remote) -> Option<PeerKey> {
        let key = self.index.by_addr(from)?;
        self.get(key)?.transport.accepts(from).then_some(key)
    }

    /// The peer that a check names, if it may use the address that the check came from.
    ///
    /// An address is its owner's while the owner's consent lasts, however silent the owner is: a participant can forge
    /// the source of a check that its own password signs, and would divert its victim's media with one datagram.
    pub(crate) fn named(&self, ufrag: &str, from: Remote) -> Option<PeerKey> {
        self.index.by_ufrag(ufrag).filter(|key| self.at(from).is_none_or(|owner| owner == *key))
    }

    /// A check from this address was valid: datagrams from there are this peer's from now on.
    pub(crate) fn learn_addr(&mut self, key: PeerKey, from: Remote) {
        if let Some(before) = self.index.claim(from, key)
            && let Some(peer) = self.slots.get_mut(before)
        {
            peer.addrs.retain(|addr| *addr != from);
        }
        let Some(peer) = self.slots.get_mut(key) else { return };
        if peer.addrs.contains(&from) {
            return;
        }
        if peer.addrs.is_full() {
            // The transport accepts fewer than are held, so one of them is stale.
            let stale = peer.addrs.iter().position(|addr| !peer.transport.accepts(*addr)).unwrap_or(0);
            let stale = peer.addrs.remove(stale);
            self.index.release(stale, key);
        }
        peer.addrs.push(from);
    }

    /// Brings the index to the fragments that the transport answers to. To be called after each change of them.
    pub(crate) fn index_ufrags(&mut self, key: PeerKey) {
        let Some(peer) = self.slots.get_mut(key) else { return };
        peer.ufrags.retain(|ufrag| {
            let used = peer.transport.local_ufrags().any(|local| local == ufrag);
            if !used {
                self.index.remove_ufrag(ufrag, key);
            }
            used
        });
        for local in peer.transport.local_ufrags() {
            if !peer.ufrags.iter().any(|ufrag| ufrag == local) && self.index.add_ufrag(local, key) {
                peer.ufrags.push(local.to_owned());
            }
        }
    }
}
