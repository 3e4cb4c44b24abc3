//! Between the threads of shards: rings with one writer and one reader each, so that neither waits for the other.

use rtrb::{Consumer, Producer, RingBuffer};

use super::RelayBatch;
use crate::ids::ShardId;

/// Batches that may be under way from one shard to another.
const BATCHES: usize = 32;

/// One shard's ends of the links to all others.
#[derive(Debug)]
pub struct Links {
    me: ShardId,
    others: Vec<Link>,
    /// Whose turn it is to be read.
    next: usize,
}

#[derive(Debug)]
struct Link {
    with: ShardId,
    full_out: Producer<RelayBatch>,
    empty_in: Consumer<RelayBatch>,
    full_in: Consumer<RelayBatch>,
    empty_out: Producer<RelayBatch>,
}

/// Links between as many shards, each with each.
pub fn connect(shards: usize) -> Vec<Links> {
    let id = |index: usize| ShardId(u16::try_from(index).unwrap_or(u16::MAX));
    let mut all: Vec<Links> =
        (0..shards).map(|index| Links { me: id(index), others: Vec::new(), next: 0 }).collect();
    for a in 0..shards {
        for b in a + 1..shards {
            let (to_b, from_a) = RingBuffer::new(BATCHES);
            let (to_a, from_b) = RingBuffer::new(BATCHES);
            // What was full comes back empty, and may wait for long.
            let (back_to_a, empty_of_a) = RingBuffer::new(BATCHES * 2);
            let (back_to_b, empty_of_b) = RingBuffer::new(BATCHES * 2);
            all[a].others.push(Link {
                with: id(b),
                full_out: to_b,
                empty_in: empty_of_a,
                full_in: from_b,
                empty_out: back_to_b,
            });
            all[b].others.push(Link {
                with: id(a),
                full_out: to_a,
                empty_in: empty_of_b,
                full_in: from_a,
                empty_out: back_to_a,
            });
        }
    }
    all
}

impl Links {
    /// Whose ends these are.
    pub fn shard(&self) -> ShardId {
        self.me
    }

    /// Whether a batch for a shard could be sent now.
    pub fn has_room(&self, to: ShardId) -> bool {
        self.others.iter().any(|link| link.with == to && !link.full_out.is_full())
    }

    /// Sends a batch. It is gone when there is no room, or no such shard.
    pub fn send(&mut self, to: ShardId, batch: RelayBatch) {
        if let Some(link) = self.others.iter_mut().find(|link| link.with == to) {
            // Whoever asks `has_room` first loses nothing.
            let _ = link.full_out.push(batch);
        }
    }

    /// The next batch that another shard sent, each of them in turn. To be given back to it when done with.
    pub fn receive(&mut self) -> Option<(ShardId, RelayBatch)> {
        let count = self.others.len();
        for _ in 0..count {
            self.next = (self.next + 1) % count;
            let link = &mut self.others[self.next];
            if let Ok(batch) = link.full_in.pop() {
                return Some((link.with, batch));
            }
        }
        None
    }

    /// Gives a batch back to the shard that sent it.
    pub fn give_back(&mut self, to: ShardId, batch: RelayBatch) {
        if let Some(link) = self.others.iter_mut().find(|link| link.with == to) {
            // Too many of them are freed.
            let _ = link.empty_out.push(batch);
        }
    }

    /// An empty batch that came back.
    pub fn returned(&mut self) -> Option<RelayBatch> {
        self.others.iter_mut().find_map(|link| link.empty_in.pop().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TrackId;
    use crate::relay::Message;

    fn batch(track: u64) -> RelayBatch {
        let mut batch = RelayBatch::default();
        batch.push(Message::KeyFrame { track: TrackId(track), layer: 0 }).unwrap();
        batch
    }

    fn track(batch: &RelayBatch) -> u64 {
        match batch.messages.first() {
            Some(Message::KeyFrame { track, .. }) => track.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_shard_reaches_each_other_one_in_order_and_batches_come_back() {
        let mut links = connect(3);
        let [a, b, c] = &mut links[..] else { unreachable!() };
        for n in 1..=3 {
            a.send(ShardId(2), batch(n));
        }
        b.send(ShardId(2), batch(10));
        c.send(ShardId(0), batch(20));
        assert!(b.receive().is_none());
        let mut got = Vec::new();
        while let Some((from, batch)) = c.receive() {
            got.push((from.0, track(&batch)));
            c.give_back(from, batch);
        }
        assert_eq!(got.len(), 4);
        let from_a: Vec<_> = got.iter().filter(|(from, _)| *from == 0).map(|(_, n)| *n).collect();
        assert_eq!(from_a, [1, 2, 3]);
        assert_eq!((got.contains(&(1, 10)), a.receive().map(|(from, _)| from)), (true, Some(ShardId(2))));
        assert_eq!(std::iter::from_fn(|| a.returned()).count(), 3);
        assert_eq!(std::iter::from_fn(|| b.returned()).count(), 1);
    }

    #[test]
    fn a_full_ring_says_so() {
        let mut links = connect(2);
        for n in 0..BATCHES as u64 {
            assert!(links[0].has_room(ShardId(1)));
            links[0].send(ShardId(1), batch(n));
        }
        assert!(!links[0].has_room(ShardId(1)) && links[1].has_room(ShardId(0)));
        assert!(!links[0].has_room(ShardId(0)) && !links[0].has_room(ShardId(7)), "nobody there");
        assert_eq!(links[1].receive().map(|(_, batch)| track(&batch)), Some(0));
        assert!(links[0].has_room(ShardId(1)));
    }

    #[test]
    fn one_shard_has_nobody_to_talk_to() {
        let mut links = connect(1);
        assert!(links[0].receive().is_none() && links[0].returned().is_none());
    }
}
