//! Which packet indices were seen already, per SSRC
//! ([RFC 3711 section 3.3.2](https://www.rfc-editor.org/rfc/rfc3711#section-3.3.2)).

use crate::drop_reason::DropReason;
use crate::ids::Ssrc;

/// Indices behind the highest that are told apart; older ones are refused. RFC 3711 asks for 64 at least; at video
/// rates a late packet may be hundreds behind.
pub(super) const WINDOW: u64 = 512;
const WORDS: usize = WINDOW as usize / 64;

/// A sliding window over the indices of one SSRC, with the highest among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ReplayWindow {
    highest: u64,
    /// Bit `index % WINDOW` for every index in the window that was seen.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// A window in which `index` alone was seen.
    pub(super) fn starting_at(index: u64) -> Self {
        let mut window = Self { highest: index, seen: [0; WORDS] };
        window.mark(index);
        window
    }

    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether a packet with this index may be new. Changes nothing: the packet is not authenticated yet.
    pub(super) fn check(&self, index: u64) -> Result<(), DropReason> {
        if index > self.highest {
            return Ok(());
        }
        let (word, bit) = place(index);
        if self.highest - index >= WINDOW || self.seen[word] & bit != 0 {
            return Err(DropReason::SrtpReplay);
        }
        Ok(())
    }

    /// Records an index that passed [`Self::check`] and whose packet was authenticated.
    pub(super) fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.highest + 1..index {
                    let (word, bit) = place(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = index;
        }
        self.mark(index);
    }

    fn mark(&mut self, index: u64) {
        let (word, bit) = place(index);
        self.seen[word] |= bit;
    }
}

/// Word below [`WORDS`] and bit in it.
fn place(index: u64) -> (usize, u64) {
    let at = index % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

/// The windows of one peer's SSRCs, sorted by SSRC: few, looked up for each packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Windows {
    by_ssrc: Vec<(u32, ReplayWindow)>,
    limit: usize,
}

/// Where an SSRC is, or would be.
#[derive(Clone, Copy)]
pub(super) enum Slot {
    Known(usize),
    New(usize),
}

impl Windows {
    /// Room for `limit` SSRCs at most.
    pub(super) fn new(limit: usize) -> Self {
        Self { by_ssrc: Vec::with_capacity(limit.min(32)), limit }
    }

    /// Where the SSRC is.
    ///
    /// # Errors
    /// [`DropReason::PeerLimit`] if it is new and there is no room.
    pub(super) fn find(&self, ssrc: Ssrc) -> Result<Slot, DropReason> {
        match self.by_ssrc.binary_search_by_key(&ssrc.0, |(s, _)| *s) {
            Ok(at) => Ok(Slot::Known(at)),
            Err(_) if self.by_ssrc.len() >= self.limit => Err(DropReason::PeerLimit),
            Err(at) => Ok(Slot::New(at)),
        }
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&ReplayWindow> {
        match slot {
            Slot::Known(at) => self.by_ssrc.get(at).map(|(_, window)| window),
            Slot::New(_) => None,
        }
    }

    /// Records an index after authentication. `slot` comes from [`Self::find`] with nothing recorded since.
    pub(super) fn accept(&mut self, slot: Slot, ssrc: Ssrc, index: u64) {
        match slot {
            Slot::Known(at) => self.by_ssrc[at].1.accept(index),
            Slot::New(at) => self.by_ssrc.insert(at, (ssrc.0, ReplayWindow::starting_at(index))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn window_edges() {
        let mut w = ReplayWindow::starting_at(1000);
        assert_eq!(w.check(1000), Err(DropReason::SrtpReplay));
        assert_eq!(w.check(1000 - WINDOW + 1), Ok(()));
        assert_eq!(w.check(1000 - WINDOW), Err(DropReason::SrtpReplay));
        // The bit of an old index must not stand for a new one that shares its place.
        w.accept(1000 + WINDOW - 1);
        assert_eq!(w.check(1000), Err(DropReason::SrtpReplay));
        for index in 1001..1000 + WINDOW - 1 {
            assert_eq!(w.check(index), Ok(()), "{index}");
        }
        w.accept(1000 + WINDOW);
        assert_eq!(w.check(1000), Err(DropReason::SrtpReplay), "fell out of the window");
        w.accept(1_000_000);
        assert_eq!(w.check(999_999), Ok(()));
        assert_eq!(w.check(1_000_000), Err(DropReason::SrtpReplay));
    }

    #[test]
    fn new_sources_are_refused_beyond_the_limit() {
        let mut windows = Windows::new(2);
        for ssrc in [9, 3] {
            let slot = windows.find(Ssrc(ssrc)).unwrap();
            windows.accept(slot, Ssrc(ssrc), 1);
        }
        assert_eq!(windows.find(Ssrc(5)).err(), Some(DropReason::PeerLimit));
        assert!(matches!(windows.find(Ssrc(3)), Ok(Slot::Known(0))));
        assert!(matches!(windows.find(Ssrc(9)), Ok(Slot::Known(1))));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(start in 0u64..5000, steps in prop::collection::vec(-700i64..900, 1..200)) {
            let mut window = ReplayWindow::starting_at(start);
            let mut seen = HashSet::from([start]);
            let mut highest = start;
            for step in steps {
                let index = highest.saturating_add_signed(step);
                let fresh = highest.saturating_sub(index) < WINDOW && !seen.contains(&index);
                prop_assert_eq!(window.check(index).is_ok(), fresh, "{} at {}", index, highest);
                if fresh {
                    window.accept(index);
                    seen.insert(index);
                    highest = highest.max(index);
                }
            }
        }
    }
}
