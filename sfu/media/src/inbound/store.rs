//! The payloads of one inbound stream, kept once for all subscribers and their retransmissions.

use std::time::{Duration, Instant};

use super::PacketMeta;
use crate::command::MediaKind;
use crate::drop_reason::DropReason;
use crate::ids::ExtSeq;

/// Packets kept of an audio stream: 5 s of 20 ms frames.
const AUDIO_SLOTS: usize = 256;
/// Packets kept of a video stream: 3 s at 3 Mbit/s.
const VIDEO_SLOTS: usize = 1024;
/// Bytes that a slot reserves when it is first used, so that a warm store allocates no more.
const AUDIO_RESERVE: usize = 320;
/// The same for video: what browsers put into a packet.
const VIDEO_RESERVE: usize = 1232;
/// Longer payloads do not fit an Ethernet frame, and neither would what they are forwarded in.
const MAX_PAYLOAD: usize = 1500;
/// Packets older than this, by the arrival of the newest, are not given out.
const MAX_AGE: Duration = Duration::from_secs(3);

/// A ring of packets by index. Bounded by count and age; each slot's memory is allocated once.
#[derive(Debug)]
pub struct PacketStore {
    slots: Vec<Slot>,
    reserve: usize,
    highest: Option<u64>,
    latest: Option<Instant>,
}

#[derive(Debug, Default)]
struct Slot {
    state: State,
    meta: Option<PacketMeta>,
    payload: Vec<u8>,
}

/// What may be done with a stored packet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for its frame's verdict: not to be given out.
    #[default]
    Held,
    /// May be forwarded and retransmitted.
    Released,
    /// Must not be given out; remembered so that a retransmission of it is known as one.
    Refused,
}

impl PacketStore {
    /// An empty store.
    pub fn new(kind: MediaKind) -> Self {
        let (slots, reserve) = match kind {
            MediaKind::Audio => (AUDIO_SLOTS, AUDIO_RESERVE),
            MediaKind::Video => (VIDEO_SLOTS, VIDEO_RESERVE),
        };
        const { assert!(AUDIO_SLOTS.is_power_of_two() && VIDEO_SLOTS.is_power_of_two()) };
        Self { slots: (0..slots).map(|_| Slot::default()).collect(), reserve, highest: None, latest: None }
    }

    /// Stores a packet that may be forwarded.
    ///
    /// # Errors
    /// [`DropReason::Duplicate`] when it is there, [`DropReason::TooOld`] when newer ones took its place,
    /// [`DropReason::TooLarge`] for a payload over 1500 bytes.
    pub fn insert(&mut self, meta: &PacketMeta, payload: &[u8]) -> Result<(), DropReason> {
        self.insert_as(State::Released, meta, payload)
    }

    /// The packet with this index, if it may be forwarded and is not too old.
    pub fn get(&self, index: ExtSeq) -> Option<(&PacketMeta, &[u8])> {
        let (state, meta, payload) = self.peek(index)?;
        let latest = self.latest?;
        (state == State::Released && latest.saturating_duration_since(meta.received) <= MAX_AGE)
            .then_some((meta, payload))
    }

    /// Whether a packet with this index was stored and its place not taken since.
    pub fn contains(&self, index: ExtSeq) -> bool {
        self.peek(index).is_some()
    }

    /// Whether the place of this index belongs to newer packets.
    pub fn is_too_old(&self, index: ExtSeq) -> bool {
        self.highest.is_some_and(|highest| index.0 + self.slots.len() as u64 <= highest)
    }

    /// Packets that fit.
    pub(super) fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(super) fn insert_as(
        &mut self,
        state: State,
        meta: &PacketMeta,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        if payload.len() > MAX_PAYLOAD {
            return Err(DropReason::TooLarge);
        }
        if self.is_too_old(meta.index) {
            return Err(DropReason::TooOld);
        }
        if self.contains(meta.index) {
            return Err(DropReason::Duplicate);
        }
        self.highest = Some(self.highest.unwrap_or(0).max(meta.index.0));
        self.latest = Some(self.latest.map_or(meta.received, |latest| latest.max(meta.received)));
        let reserve = self.reserve;
        let slot = self.slot_mut(meta.index);
        slot.state = state;
        match &mut slot.meta {
            Some(old) => old.become_like(meta),
            None => slot.meta = Some(meta.clone()),
        }
        slot.payload.clear();
        slot.payload.reserve(payload.len().max(reserve));
        slot.payload.extend_from_slice(payload);
        Ok(())
    }

    /// A packet whatever its state.
    pub(super) fn peek(&self, index: ExtSeq) -> Option<(State, &PacketMeta, &[u8])> {
        let slot = &self.slots[self.place(index)];
        let meta = slot.meta.as_ref().filter(|meta| meta.index == index)?;
        Some((slot.state, meta, &slot.payload))
    }

    /// Changes the state of a stored packet; unknown ones are left alone.
    pub(super) fn set_state(&mut self, index: ExtSeq, state: State) {
        if self.contains(index) {
            self.slot_mut(index).state = state;
        }
    }

    /// Forgets all packets, keeps the memory.
    pub(super) fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.meta = None;
            slot.payload.clear();
        }
        self.highest = None;
        self.latest = None;
    }

    fn place(&self, index: ExtSeq) -> usize {
        // The length is a power of two.
        index.0 as usize & (self.slots.len() - 1)
    }

    fn slot_mut(&mut self, index: ExtSeq) -> &mut Slot {
        let place = self.place(index);
        &mut self.slots[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::stream::tests::meta;

    #[test]
    fn keeps_what_fits_and_gives_out_what_is_released() {
        let now = crate::sim::clock::epoch();
        let mut store = PacketStore::new(MediaKind::Audio);
        for i in 0..300u64 {
            store.insert(&meta(i, now), &i.to_be_bytes()).unwrap();
        }
        assert!(store.get(ExtSeq(43)).is_none());
        assert_eq!(store.get(ExtSeq(44)).unwrap().1, 44u64.to_be_bytes());
        assert_eq!(store.insert(&meta(43, now), b"x"), Err(DropReason::TooOld));
        assert_eq!(store.insert(&meta(44, now), b"x"), Err(DropReason::Duplicate));
        assert_eq!(store.insert(&meta(301, now), &[0; 1501]), Err(DropReason::TooLarge));
        store.insert_as(State::Held, &meta(300, now), b"held").unwrap();
        assert!(store.get(ExtSeq(300)).is_none() && store.contains(ExtSeq(300)));
        store.set_state(ExtSeq(300), State::Released);
        assert_eq!(store.get(ExtSeq(300)).unwrap().1, b"held");
    }

    #[test]
    fn a_place_taken_again_says_of_the_new_packet_what_it_says_itself() {
        use crate::rtp::codec::dd_writer::{Encoder, L1T3, Writer};

        let now = crate::sim::clock::epoch();
        let frame = Encoder::new(L1T3, 1).picture(true).remove(0);
        let bytes = Writer::new(L1T3, 60).write(&frame, true, true, None);
        let described = |index| {
            let mut meta = meta(index, now);
            meta.dd.try_extend_from_slice(&bytes).unwrap();
            meta.frame = Some(crate::rtp::DdReader::new().read(&bytes, meta.index).unwrap());
            (meta.orientation, meta.marker, meta.variant) = (Some(1), !meta.marker, 7);
            meta
        };
        let mut store = PacketStore::new(MediaKind::Audio);
        // Each place has a packet without a descriptor, with one, with one again, and without.
        let mut all = [meta(0, now), described(256), described(512), meta(768, now), described(1024)];
        all[2].dd.truncate(3);
        for packet in &all {
            store.insert(packet, b"x").unwrap();
            let kept = store.get(packet.index).unwrap().0;
            assert_eq!(format!("{kept:?}"), format!("{packet:?}"));
        }
    }

    #[test]
    fn a_packet_ages() {
        let now = crate::sim::clock::epoch();
        let mut store = PacketStore::new(MediaKind::Audio);
        store.insert(&meta(1, now), b"old").unwrap();
        store.insert(&meta(2, now + Duration::from_secs(3)), b"new").unwrap();
        assert!(store.get(ExtSeq(1)).is_some());
        store.insert(&meta(3, now + Duration::from_millis(3001)), b"newer").unwrap();
        assert!(store.get(ExtSeq(1)).is_none());
        store.clear();
        assert!(store.get(ExtSeq(3)).is_none());
        store.insert(&meta(3, now), b"again").unwrap();
    }
}
