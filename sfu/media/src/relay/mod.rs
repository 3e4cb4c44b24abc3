//! Rooms that are larger than a shard: what shards of one node hand each other.
//!
//! A participant lives on one shard. A track whose subscribers live on several is published on its own shard, the *home*,
//! which hands each of the others its packets as they are released: decrypted from the publisher's transport (the frames
//! inside stay encrypted end to end), checked, numbered and described. There the track looks like any other, but that its
//! packets come out of a [`RelayBatch`]: it has a store of its own, from which it answers NACKs, and subscriptions with
//! their own layers, pacers and estimates. What its subscribers need of the publisher, key frames, goes back to the home
//! by the same way and is merged there with what others asked for.
//!
//! - [`Spread`] turns the commands of a room into those of its shards.
//! - [`Shard`](crate::shard::Shard) fills batches and takes them in; it never waits for another.
//! - [`link`] carries batches between threads: a ring of full ones each way, and one that brings the empty ones back.

pub mod link;
mod spread;

pub use spread::Spread;

use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, ShardId, TrackId};
use crate::inbound::{PacketMeta, SenderReport};

/// Packets that may wait for a shard that does not take them. It is hopelessly late then.
const MAX_WAITING: usize = 2048;
/// Other messages that may wait. There are few, and each is repeated if it mattered, or ends with its track.
const MAX_MESSAGES: usize = 8192;

/// What one shard hands another at once. Its memory is used again and again: the receiver gives it back.
#[derive(Debug, Default)]
pub struct RelayBatch {
    pub(crate) messages: Vec<Message>,
    /// Payloads of the packets, one after another.
    pub(crate) bytes: Vec<u8>,
    packets: usize,
}

/// One thing that a shard tells another about a track.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are packets, and a box would be an allocation for each"
)]
pub(crate) enum Message {
    /// A released packet; its payload is the next `len` bytes of the batch.
    Packet { track: TrackId, layer: u8, meta: PacketMeta, len: usize },
    /// A packet of padding only: its number carries nothing.
    Skip { track: TrackId, layer: u8, index: ExtSeq },
    /// The publisher's sender report for a stream.
    Report { track: TrackId, layer: u8, report: SenderReport },
    /// Another SSRC takes the place of a stream, or its section changed: what comes next begins anew.
    Restart { track: TrackId, layer: u8 },
    /// What comes next follows on without a gap, however its numbers look: packets were left out on purpose.
    Pause { track: TrackId },
    /// To the home of a track: a subscriber of the other shard needs a key frame.
    KeyFrame { track: TrackId, layer: u8 },
}

impl RelayBatch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Empties it, and keeps its memory.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.bytes.clear();
        self.packets = 0;
    }

    fn push(&mut self, message: Message) -> Result<(), DropReason> {
        if self.messages.len() >= MAX_MESSAGES {
            return Err(DropReason::RelayFull);
        }
        self.messages.push(message);
        Ok(())
    }

    fn push_packet(
        &mut self,
        track: TrackId,
        layer: u8,
        meta: &PacketMeta,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        if self.packets >= MAX_WAITING {
            return Err(DropReason::RelayFull);
        }
        self.push(Message::Packet { track, layer, meta: meta.clone(), len: payload.len() })?;
        self.packets += 1;
        self.bytes.extend_from_slice(payload);
        Ok(())
    }
}

/// What a shard has for others.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    batches: Vec<(ShardId, RelayBatch)>,
    /// Empty ones that came back.
    spare: Vec<RelayBatch>,
}

impl Outgoing {
    /// Adds a message for a shard.
    pub(crate) fn push(&mut self, to: ShardId, message: Message) -> Result<(), DropReason> {
        self.batch(to).push(message)
    }

    /// Adds a packet for a shard.
    pub(crate) fn push_packet(
        &mut self,
        to: ShardId,
        track: TrackId,
        layer: u8,
        meta: &PacketMeta,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        self.batch(to).push_packet(track, layer, meta, payload)
    }

    fn batch(&mut self, to: ShardId) -> &mut RelayBatch {
        let at = match self.batches.iter().position(|(have, _)| *have == to) {
            Some(at) => at,
            None => {
                self.batches.push((to, RelayBatch::default()));
                self.batches.len() - 1
            }
        };
        &mut self.batches[at].1
    }

    /// Takes out what there is for a shard that has room for a batch.
    pub(crate) fn take(&mut self, has_room: impl Fn(ShardId) -> bool) -> Option<(ShardId, RelayBatch)> {
        let (to, batch) = self.batches.iter_mut().find(|(to, batch)| !batch.is_empty() && has_room(*to))?;
        Some((*to, std::mem::replace(batch, self.spare.pop().unwrap_or_default())))
    }

    /// A batch came back.
    pub(crate) fn give_back(&mut self, mut batch: RelayBatch) {
        batch.clear();
        self.spare.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);

    fn key_frame(track: u64) -> Message {
        Message::KeyFrame { track: TrackId(track), layer: 0 }
    }

    #[test]
    fn batches_wait_for_room_and_their_memory_comes_back() {
        let mut out = Outgoing::default();
        out.push(A, key_frame(1)).unwrap();
        out.push(B, key_frame(2)).unwrap();
        out.push(A, key_frame(3)).unwrap();
        assert!(out.take(|_| false).is_none());
        let (to, batch) = out.take(|to| to == B).unwrap();
        assert_eq!((to, batch.messages.len()), (B, 1));
        let (to, batch) = out.take(|_| true).unwrap();
        assert_eq!((to, batch.messages.len()), (A, 2));
        assert!(out.take(|_| true).is_none());
        let memory = batch.messages.as_ptr();
        out.give_back(batch);
        out.push(B, key_frame(4)).unwrap();
        drop(out.take(|_| true));
        out.push(B, key_frame(5)).unwrap();
        let (_, batch) = out.take(|_| true).unwrap();
        assert_eq!(batch.messages.as_ptr(), memory, "used again");
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let mut out = Outgoing::default();
        let pushed = (0..MAX_MESSAGES as u64 + 5).filter(|n| out.push(A, key_frame(*n)).is_ok()).count();
        assert_eq!(pushed, MAX_MESSAGES);
        assert_eq!(out.push(A, key_frame(0)), Err(DropReason::RelayFull));
        let meta = crate::inbound::test_meta(1, crate::sim::clock::epoch());
        let mut batch = RelayBatch::default();
        let packets =
            (0..MAX_WAITING + 5).filter(|_| batch.push_packet(TrackId(1), 0, &meta, b"x").is_ok()).count();
        assert_eq!((packets, batch.bytes.len()), (MAX_WAITING, MAX_WAITING));
        batch.push(key_frame(1)).expect("the rest of the room is for what is not media");
    }
}
