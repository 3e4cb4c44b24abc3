//! A shard.
pub(crate) mod peer_index;
pub(crate) mod slots;
pub(crate) mod speaker;
pub(crate) mod timers;
pub(crate) mod peers {
    pub(crate) struct Peer;
    pub(crate) type PeerKey = super::slots::Key<Peer>;
}
