//! Tables whose keys go stale: an entry removed is never mistaken for the one that took its place.

use std::fmt;
use std::marker::PhantomData;

use slab::Slab;

/// Index of an entry in a [`Slots`] with the generation it was made in. Never leaves its shard.
pub(crate) struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The bare slab index, for tables that run beside a [`Slots`].
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    /// A key of no table, for tests that only compare keys.
    #[cfg(test)]
    pub(crate) fn for_test(index: u32, generation: u32) -> Self {
        Self { index, generation, of: PhantomData }
    }
}

// Derives would ask the same of `T`.
impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}
impl<T> Eq for Key<T> {}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}v{}", self.index, self.generation)
    }
}

/// A slab whose keys carry a generation.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: Slab::new(), generation: 0 }
    }
}

impl<T> Slots<T> {
    /// Adds an entry.
    pub(crate) fn insert(&mut self, value: T) -> Key<T> {
        // One counter for the whole table: a key repeats only after 2^32 insertions that end in the same place.
        self.generation = self.generation.wrapping_add(1);
        let index = self.entries.insert((self.generation, value));
        let index = u32::try_from(index).expect("a shard holds far fewer than 2^32 entries");
        Key { index, generation: self.generation, of: PhantomData }
    }

    /// The entry of a key, unless it is gone.
    pub(crate) fn get(&self, key: Key<T>) -> Option<&T> {
        self.entries.get(key.index()).filter(|(g, _)| *g == key.generation).map(|(_, v)| v)
    }

    /// The same for change.
    pub(crate) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        self.entries.get_mut(key.index()).filter(|(g, _)| *g == key.generation).map(|(_, v)| v)
    }

    /// Takes the entry of a key out.
    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        self.get(key)?;
        Some(self.entries.remove(key.index()).1)
    }

    /// All entries in the order of their indices.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key<T>, &mut T)> {
        self.entries.iter_mut().map(|(index, (generation, value))| {
            (Key { index: index as u32, generation: *generation, of: PhantomData }, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_removed_entry_finds_nothing() {
        let mut slots = Slots::default();
        let a = slots.insert("a");
        assert_eq!(slots.remove(a), Some("a"));
        let b = slots.insert("b");
        assert_eq!(a.index(), b.index(), "the place is used again");
        assert_eq!(slots.get(a), None);
        assert_eq!(slots.get_mut(a), None);
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.get(b), Some(&"b"));
        assert_eq!(slots.iter_mut().map(|(k, v)| (k, *v)).collect::<Vec<_>>(), [(b, "b")]);
    }
}
