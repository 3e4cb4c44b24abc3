//! Published tracks and their streams.

use std::collections::HashMap;
use std::time::Instant;

use smallvec::SmallVec;

use super::peers::PeerKey;
use super::slots::{Key, Slots};
use super::speaker::LevelMeter;
use super::subscriptions::SubKey;
use crate::command::{MediaKind, TrackPolicy};
use crate::ids::{Mid, ShardId, SpeakerGroup, TrackId};
use crate::inbound::{InboundStream, KeyFrameSize, LayerRates};
use crate::outbound::MAX_STREAMS;

/// Layers are measured over so many tenths of a second. An encoder spends the bits of seconds on one frame and then pauses: libvpx
/// sends nothing of a small layer for up to two seconds after key frames.
const TENTHS: usize = 30;
/// .. and over so many, which holds key frames and the pauses after them.
const MANY_TENTHS: usize = 80;

/// Names a [`Track`] in its shard.
pub(crate) type TrackKey = Key<Track>;
/// Names a [`Stream`] in its shard.
pub(crate) type StreamKey = Key<Stream>;

/// Where a track's packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// From a section of a peer.
    Peer {
        /// Which peer.
        key: PeerKey,
        /// Which section.
        mid: Mid,
    },
    /// From the shard that the publisher lives on.
    Shard {
        /// Which shard.
        home: ShardId,
        /// Audio or video.
        kind: MediaKind,
    },
}

/// One published track.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) id: TrackId,
    /// Where its packets come from.
    pub(crate) source: Source,
    pub(crate) policy: TrackPolicy,
    /// Its streams by simulcast layer.
    pub(crate) streams: [Option<StreamKey>; MAX_STREAMS],
    /// Who gets it, in the order of subscribing.
    pub(crate) subs: Vec<SubKey>,
    /// Loudness, of audio.
    pub(crate) meter: LevelMeter,
    /// Of which only the loudest are forwarded, when it is audio.
    pub(crate) group: Option<SpeakerGroup>,
    /// Its last packet was not forwarded, as others were louder.
    pub(crate) withheld: bool,
    /// Other shards that are handed its packets.
    pub(crate) relayed_to: SmallVec<[ShardId; 2]>,
    /// Its last packet was not handed to them, as others of this shard were louder.
    pub(crate) unrelayed: bool,
    /// Frames without the cryptor's trailer come, and room logic knows.
    pub(crate) plaintext: bool,
}

impl Track {
    /// A track without streams or subscriptions.
    pub(crate) fn new(id: TrackId, source: Source, policy: TrackPolicy) -> Self {
        Self {
            id,
            source,
            policy,
            streams: [None; MAX_STREAMS],
            subs: Vec::new(),
            meter: LevelMeter::default(),
            group: None,
            withheld: false,
            relayed_to: SmallVec::new(),
            unrelayed: false,
            plaintext: false,
        }
    }

    /// Its publisher lives on another shard.
    pub(crate) fn is_relayed(&self) -> bool {
        self.home().is_some()
    }

    /// That shard.
    pub(crate) fn home(&self) -> Option<ShardId> {
        match self.source {
            Source::Peer { .. } => None,
            Source::Shard { home, .. } => Some(home),
        }
    }

    /// The stream of a layer.
    pub(crate) fn stream(&self, layer: u8) -> Option<StreamKey> {
        self.streams.get(usize::from(layer)).copied().flatten()
    }

    /// The stream to ask for a key frame when `layer` is wanted: that, else the highest below it, else the lowest.
    pub(crate) fn stream_to_ask(&self, layer: u8) -> Option<StreamKey> {
        let top = usize::from(layer).min(MAX_STREAMS - 1);
        let below = self.streams[..=top].iter().rev().flatten().next();
        below.or_else(|| self.streams.iter().flatten().next()).copied()
    }
}

/// One primary SSRC of a track.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) track: TrackKey,
    /// The track's.
    pub(crate) source: Source,
    pub(crate) kind: MediaKind,
    /// Its simulcast layer, 0 without simulcast.
    pub(crate) layer: u8,
    pub(crate) inbound: InboundStream,
    /// What its layers take, as sent on to a subscriber.
    pub(crate) rates: LayerRates<TENTHS>,
    /// The same over a longer time.
    pub(crate) long_rates: LayerRates<MANY_TENTHS>,
    /// What its key frames take, as sent on to a subscriber.
    pub(crate) key_frame: KeyFrameSize,
    /// Room logic knows that it is live.
    pub(crate) announced: bool,
}

impl Stream {
    /// What everything up to this layer takes, in bits per second; `None` before it is known. After a pause it seems to take less
    /// than it will.
    pub(crate) fn bps_up_to(&mut self, inner: u8, temporal: u8, now: Instant) -> Option<u64> {
        self.rates.up_to(inner, temporal, now).max(self.long_rates.up_to(inner, temporal, now))
    }
}

/// All tracks and streams.
#[derive(Debug, Default)]
pub(crate) struct Tracks {
    slots: Slots<Track>,
    by_id: HashMap<TrackId, TrackKey>,
    pub(crate) streams: Slots<Stream>,
}

impl Tracks {
    /// Adds a track. None when the id is taken.
    pub(crate) fn insert(&mut self, track: Track) -> Option<TrackKey> {
        if self.by_id.contains_key(&track.id) {
            return None;
        }
        let id = track.id;
        let key = self.slots.insert(track);
        self.by_id.insert(id, key);
        Some(key)
    }

    /// Takes a track and its streams out.
    pub(crate) fn remove(&mut self, key: TrackKey) -> Option<Track> {
        let track = self.slots.remove(key)?;
        self.by_id.remove(&track.id);
        for stream in track.streams.iter().flatten() {
            self.streams.remove(*stream);
        }
        Some(track)
    }

    /// The key of an id.
    pub(crate) fn key(&self, id: TrackId) -> Option<TrackKey> {
        self.by_id.get(&id).copied()
    }

    /// The track of a key.
    pub(crate) fn get(&self, key: TrackKey) -> Option<&Track> {
        self.slots.get(key)
    }

    /// The same for change.
    pub(crate) fn get_mut(&mut self, key: TrackKey) -> Option<&mut Track> {
        self.slots.get_mut(key)
    }

    /// All tracks, always in the same order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (TrackKey, &mut Track)> {
        self.slots.iter_mut()
    }

    /// Puts a stream in its place. The one that was there is gone.
    pub(crate) fn set_stream(&mut self, stream: Stream) -> Option<StreamKey> {
        let (track, layer) = (self.slots.get_mut(stream.track)?, usize::from(stream.layer));
        let place = track.streams.get_mut(layer)?;
        if let Some(before) = place.take() {
            self.streams.remove(before);
        }
        let key = self.streams.insert(stream);
        *place = Some(key);
        Some(key)
    }

    /// Takes all streams of a track out, and returns which layers had one.
    pub(crate) fn clear_streams(&mut self, key: TrackKey) -> [Option<StreamKey>; MAX_STREAMS] {
        let Some(track) = self.slots.get_mut(key) else { return [None; MAX_STREAMS] };
        let streams = std::mem::take(&mut track.streams);
        for stream in streams.iter().flatten() {
            self.streams.remove(*stream);
        }
        streams
    }

    /// Takes one stream of a track out. Whether there was one.
    pub(crate) fn clear_stream(&mut self, key: TrackKey, layer: u8) -> bool {
        let place = self.slots.get_mut(key).and_then(|track| track.streams.get_mut(usize::from(layer)));
        let stream = place.and_then(Option::take);
        stream.and_then(|stream| self.streams.remove(stream)).is_some()
    }

    /// Changes a track's policy. False when it was so before, or the track is gone.
    pub(crate) fn set_policy(&mut self, key: TrackKey, policy: TrackPolicy) -> bool {
        let Some(track) = self.slots.get_mut(key) else { return false };
        if track.policy == policy {
            return false;
        }
        track.policy = policy;
        track.meter.reset();
        for stream in track.streams.iter().flatten() {
            if let Some(stream) = self.streams.get_mut(*stream) {
                stream.inbound.set_policy(policy);
            }
        }
        true
    }

    /// Earliest deadline of a track's streams.
    pub(crate) fn deadline(&self, key: TrackKey, now: Instant) -> Option<Instant> {
        let streams = self.slots.get(key)?.streams.iter().flatten();
        streams.filter_map(|stream| self.streams.get(*stream)?.inbound.poll_timeout(now)).min()
    }
}
