//! When participants are to be looked at, soonest first: who has a thousand of them does not ask each at every step.

use std::collections::BTreeSet;
use std::time::Instant;

use super::participant::Key;

/// Instants at which a participant's own deadline may be over. One that moved or was lifted leaves its entry behind until
/// then: whoever takes it out asks the participant.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Instant, Key)>);

impl Deadlines {
    /// A participant has a deadline now.
    pub(super) fn arm(&mut self, key: Key, at: Instant) {
        self.0.insert((at, key));
    }

    /// When the next may be over; can be too early, never too late.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out one that may be over.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Key> {
        let (at, key) = *self.0.first()?;
        (at <= now).then(|| {
            self.0.remove(&(at, key));
            key
        })
    }
}
