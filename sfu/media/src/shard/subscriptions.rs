//! Subscriptions: which track goes to which peer, and how.

use std::collections::HashMap;
use std::time::Instant;

use super::peers::PeerKey;
use super::slots::{Key, Slots};
use super::tracks::TrackKey;
use crate::bwe::allocator::Layer;
use crate::command::{MediaKind, SubscriptionTarget};
use crate::ids::SubId;
use crate::outbound::Forwarder;

/// Names a [`Subscription`] in its shard.
pub(crate) type SubKey = Key<Subscription>;

/// One track as sent to one peer.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: SubId,
    /// What it gets.
    pub(crate) track: TrackKey,
    /// Who gets it.
    pub(crate) peer: PeerKey,
    pub(crate) forwarder: Forwarder,
    /// What its page wants.
    pub(crate) wanted: SubscriptionTarget,
    /// What it was given of the peer's budget; `None` while paused.
    pub(crate) current: Option<Layer>,
    /// Since when not even its lowest layer fits, or, while it is paused, something does.
    pub(crate) turns_since: Option<Instant>,
    /// Room logic knows that it is paused.
    pub(crate) paused: bool,
    /// What the forwarder follows: the page's wish within what was given.
    aim: SubscriptionTarget,
}

impl Subscription {
    /// One that gets all it wants, until the shard knows better.
    pub(crate) fn new(
        id: SubId,
        track: TrackKey,
        peer: PeerKey,
        mut forwarder: Forwarder,
        wanted: SubscriptionTarget,
    ) -> Self {
        forwarder.set_target(wanted);
        Self {
            id,
            track,
            peer,
            forwarder,
            wanted,
            current: None,
            turns_since: None,
            paused: false,
            aim: wanted,
        }
    }

    /// Makes the forwarder follow a target.
    pub(crate) fn aim(&mut self, target: SubscriptionTarget) {
        if self.aim != target {
            self.aim = target;
            self.forwarder.set_target(target);
        }
    }

    /// Whether what the subscriber misses may be sent again. A picture that is paused, or was interrupted, goes on with a key
    /// frame: what came before is of no use any more, and would be in its way.
    pub(crate) fn is_repaired(&self) -> bool {
        let video = self.forwarder.section().kind == MediaKind::Video;
        let waits = video && self.forwarder.current_stream().is_none();
        !self.paused && !waits
    }

    /// Whether packets of a stream are, or are about to be, forwarded: not all that is offered to it takes bandwidth.
    pub(crate) fn takes(&self, stream: u8) -> bool {
        self.aim.enabled
            && (self.forwarder.current_stream() == Some(stream) || stream == self.aim.max_spatial)
    }
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    slots: Slots<Subscription>,
    by_id: HashMap<SubId, SubKey>,
}

impl Subscriptions {
    /// Whether an id is taken.
    pub(crate) fn contains(&self, id: SubId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Adds a subscription whose id is free.
    pub(crate) fn insert(&mut self, subscription: Subscription) -> SubKey {
        let id = subscription.id;
        let key = self.slots.insert(subscription);
        self.by_id.insert(id, key);
        key
    }

    /// Takes a subscription out.
    pub(crate) fn remove(&mut self, key: SubKey) -> Option<Subscription> {
        let subscription = self.slots.remove(key)?;
        self.by_id.remove(&subscription.id);
        Some(subscription)
    }

    /// The key of an id.
    pub(crate) fn key(&self, id: SubId) -> Option<SubKey> {
        self.by_id.get(&id).copied()
    }

    /// The subscription of a key.
    pub(crate) fn get(&self, key: SubKey) -> Option<&Subscription> {
        self.slots.get(key)
    }

    /// The same for change.
    pub(crate) fn get_mut(&mut self, key: SubKey) -> Option<&mut Subscription> {
        self.slots.get_mut(key)
    }
}
