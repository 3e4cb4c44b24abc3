//! Tables whose keys go stale: an entry removed is never mistaken for the one that took its place.

use std::fmt;
use std::marker::PhantomData;

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

/// Entries that lie side by side. A table that grows moves none of them: to copy some megabytes of peers, with fresh pages for
/// them, would take as long as a thousand packets.
const CHUNK: usize = 16;

/// A slab whose keys carry a generation.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    chunks: Vec<Vec<Option<(u32, T)>>>,
    /// Places of entries that were removed.
    free: Vec<u32>,
    generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), generation: 0 }
    }
}

impl<T> Slots<T> {
    /// Adds an entry.
    pub(crate) fn insert(&mut self, value: T) -> Key<T> {
        // One counter for the whole table: a key repeats only after 2^32 insertions that end in the same place.
        self.generation = self.generation.wrapping_add(1);
        let entry = Some((self.generation, value));
        let index = match self.free.pop() {
            Some(index) => {
                let (chunk, place) = at(index as usize);
                self.chunks[chunk][place] = entry;
                index
            }
            None => {
                if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                let chunk = self.chunks.len() - 1;
                let place = self.chunks[chunk].len();
                self.chunks[chunk].push(entry);
                u32::try_from(chunk * CHUNK + place).expect("a shard holds far fewer than 2^32 entries")
            }
        };
        Key { index, generation: self.generation, of: PhantomData }
    }

    /// The entry of a key, unless it is gone.
    pub(crate) fn get(&self, key: Key<T>) -> Option<&T> {
        let (chunk, place) = at(key.index());
        let entry = self.chunks.get(chunk)?.get(place)?.as_ref();
        entry.filter(|(generation, _)| *generation == key.generation).map(|(_, value)| value)
    }

    /// The same for change.
    pub(crate) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let (chunk, place) = at(key.index());
        let entry = self.chunks.get_mut(chunk)?.get_mut(place)?.as_mut();
        entry.filter(|(generation, _)| *generation == key.generation).map(|(_, value)| value)
    }

    /// Takes the entry of a key out.
    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        self.get(key)?;
        let (chunk, place) = at(key.index());
        let (_, value) = self.chunks.get_mut(chunk)?.get_mut(place)?.take()?;
        self.free.push(key.index);
        Some(value)
    }

    /// All entries in the order of their indices.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key<T>, &mut T)> {
        self.chunks.iter_mut().flatten().enumerate().filter_map(|(index, entry)| {
            let (generation, value) = entry.as_mut()?;
            Some((Key { index: index as u32, generation: *generation, of: PhantomData }, value))
        })
    }
}

/// Chunk of an entry, and place in it.
fn at(index: usize) -> (usize, usize) {
    (index / CHUNK, index % CHUNK)
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

    #[test]
    fn entries_stay_where_they_are_when_the_table_grows_and_places_are_used_again() {
        let mut slots = Slots::default();
        let first = slots.insert(0);
        let place = std::ptr::from_ref(slots.get(first).unwrap());
        let keys: Vec<_> = (1..100).map(|value| slots.insert(value)).collect();
        assert_eq!(std::ptr::from_ref(slots.get(first).unwrap()), place);
        assert_eq!(
            keys.iter().map(|key| slots.get(*key).copied()).collect::<Vec<_>>(),
            (1..100).map(Some).collect::<Vec<_>>()
        );
        for key in keys.iter().step_by(2) {
            assert!(slots.remove(*key).is_some());
        }
        assert_eq!(
            slots.iter_mut().map(|(_, value)| *value).collect::<Vec<_>>(),
            (0..100).step_by(2).collect::<Vec<_>>()
        );
        let indices: Vec<_> = (0..50).map(|value| slots.insert(value).index()).collect();
        assert!(indices.iter().all(|index| *index < 100), "{indices:?}");
        assert_eq!(slots.insert(7).index(), 100);
    }
}
