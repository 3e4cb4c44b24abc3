//! Which of a track's packets one subscriber gets.
//!
//! A stream is entered at the first packet of a key frame only, and only if the packet comes in order. Which layers inside
//! it are forwarded is decided by the Dependency Descriptor where there is one, else by the payload descriptor. A stream
//! above the target goes on until the lower one has a key frame, but without its temporal layers.

mod dd_layers;
mod frame_log;
mod plain_layers;

use std::time::{Duration, Instant};

use super::MAX_STREAMS;
use crate::command::{MediaKind, SubscriptionTarget};
use crate::drop_reason::DropReason;
use crate::ids::ExtSeq;
use crate::inbound::PacketMeta;
use dd_layers::DdLayers;
use plain_layers::PlainLayers;

/// A stream, or a spatial layer inside one, is dead when others went on for so long without it. (A publisher that sends
/// nothing at all is idle.)
const DEAD_AFTER: Duration = Duration::from_millis(1500);
/// A stream above the target takes the place of those that were to be had only after so long: encoders leave small layers out for
/// some seconds after key frames, which one more key frame would prolong.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// Spatial layers inside a stream (AV1 RTP section A.8.3; VP9 browsers send as many).
const MAX_INNER: usize = 4;

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Forward it.
    Forward(Look),
    /// It is the first one of its stream: switch there, then forward it.
    Switch(Look),
    /// Of a stream that was left: forward it only if it fills a gap.
    Late,
    /// Of the current stream, but not wanted: close its gap.
    LeaveOut(DropReason),
    /// Of another stream.
    Ignore(DropReason),
}

/// What of a forwarded packet depends on the layers that the subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Marker bit.
    pub(super) marker: bool,
    /// Decode targets to tell of, when it has a Dependency Descriptor that must say so.
    pub(super) active: Option<u32>,
}

/// What the layers inside a stream make of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Forward { marker: bool, active: Option<u32> },
    LeaveOut,
}

/// Highest layers inside a stream that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    spatial: u8,
    temporal: u8,
}

#[derive(Debug)]
pub(super) struct LayerSelector {
    kind: MediaKind,
    target: SubscriptionTarget,
    streams: [Option<Seen>; MAX_STREAMS],
    /// No stream but the first was seen: to look at the others takes as many cache lines.
    only_first: bool,
    current: Option<Current>,
    /// Layers inside the current stream, one or the other as it says.
    plain: PlainLayers,
    dd: DdLayers,
}

/// What was seen of one stream.
#[derive(Debug, Clone, Copy)]
struct Seen {
    last: Instant,
    highest: ExtSeq,
    max_inner: u8,
    max_temporal: u8,
    /// When each spatial layer inside it was last seen.
    inner: [Instant; MAX_INNER],
}

impl Seen {
    fn new(meta: &PacketMeta) -> Self {
        let at = meta.received;
        Self { last: at, highest: meta.index, max_inner: 0, max_temporal: 0, inner: [at; MAX_INNER] }
    }

    fn note(&mut self, meta: &PacketMeta) {
        let inner = inner(meta);
        self.highest = self.highest.max(meta.index);
        self.last = self.last.max(meta.received);
        self.max_inner = self.max_inner.max(inner);
        self.max_temporal = self.max_temporal.max(meta.info.temporal);
        if let Some(at) = self.inner.get_mut(usize::from(inner)) {
            *at = self.last;
        }
    }

    /// The highest spatial layer inside that is not dead; one that never came is dead after the same time.
    fn top(&self) -> u8 {
        let live = |at: &Instant| *at == self.last || self.last.saturating_duration_since(*at) < DEAD_AFTER;
        let (seen, never) = self.inner.split_at(self.inner.len().min(usize::from(self.max_inner) + 1));
        // Those that never came die together.
        match never.first() {
            Some(at) if live(at) => MAX_INNER as u8 - 1,
            _ => seen.iter().rposition(live).unwrap_or(0) as u8,
        }
    }
}

/// What is being forwarded.
#[derive(Debug, Clone, Copy)]
struct Current {
    stream: u8,
    /// By the Dependency Descriptor.
    dd: bool,
}

impl LayerSelector {
    pub(super) fn new(kind: MediaKind) -> Self {
        Self {
            kind,
            target: SubscriptionTarget::default(),
            streams: [None; MAX_STREAMS],
            only_first: false,
            current: None,
            plain: PlainLayers::new(),
            dd: DdLayers::new(),
        }
    }

    pub(super) fn set_target(&mut self, target: SubscriptionTarget) {
        self.target = target;
        if !target.enabled {
            self.current = None;
        }
        if let Some(current) = self.current.filter(|c| c.dd) {
            self.dd.aim(self.limits(current.stream));
        }
    }

    /// Reads what each packet needs.
    pub(super) fn touch(&self) -> u64 {
        let seen = self.streams[0].map_or(0, |seen| seen.highest.0);
        seen + u64::from(self.current.is_some()) + u64::from(self.target.enabled) + self.plain.touch()
    }

    /// Forwards nothing until a key frame.
    pub(super) fn interrupt(&mut self) {
        self.current = None;
    }

    /// Another stream takes the place of this one.
    pub(super) fn forget(&mut self, stream: u8) {
        if let Some(seen) = self.streams.get_mut(usize::from(stream)) {
            *seen = None;
        }
        self.only_first = self.has_only_first();
        if self.current.is_some_and(|c| c.stream == stream) {
            self.current = None;
        }
    }

    /// The stream being forwarded.
    pub(super) fn stream(&self) -> Option<u8> {
        self.current.map(|c| c.stream)
    }

    /// The stream of which a key frame is needed.
    pub(super) fn wants_key_frame(&self) -> Option<u8> {
        if self.kind == MediaKind::Audio || !self.target.enabled {
            return None;
        }
        let target = self.target_stream();
        let Some(current) = self.current else {
            return Some(target.unwrap_or(self.target.max_spatial.min(MAX_STREAMS as u8 - 1)));
        };
        if let Some(target) = target
            && target != current.stream
        {
            return Some(target);
        }
        let seen = self.streams.get(usize::from(current.stream)).copied().flatten()?;
        let wanted = match current.dd {
            true => self.dd.wants_key_frame(),
            // With one spatial layer no other can be short of anything.
            false if seen.max_inner == 0 => self.plain.is_stuck(),
            false => self.plain.wants_key_frame(self.limits(current.stream), seen.max_inner.min(seen.top())),
        };
        wanted.then_some(current.stream)
    }

    /// Whether a packet is newer than all that were seen of its stream.
    pub(super) fn is_ahead(&self, meta: &PacketMeta) -> bool {
        let seen = self.streams.get(usize::from(meta.stream)).copied().flatten();
        seen.is_none_or(|seen| meta.index > seen.highest)
    }

    /// The packet decided on last was the first of a [run](super::runs) that ends with this one: the decision is that of all.
    pub(super) fn extend(&mut self, last: &PacketMeta) {
        if let Some(Some(seen)) = self.streams.get_mut(usize::from(last.stream)) {
            seen.note(last);
        }
        if let (Some(current), Some(frame)) = (self.current, &last.frame)
            && current.dd
            && current.stream == last.stream
        {
            self.dd.extend(last, frame);
        }
    }

    /// The marker of a further packet of a run that is forwarded.
    pub(super) fn marker(&self, meta: &PacketMeta) -> bool {
        match self.kind {
            MediaKind::Audio => meta.marker,
            MediaKind::Video => match (self.current, &meta.frame) {
                (Some(current), Some(frame)) if current.dd => self.dd.marker(meta, frame),
                _ => self.plain.marker(meta),
            },
        }
    }

    pub(super) fn decide(&mut self, meta: &PacketMeta) -> Decision {
        let Some(in_order) = self.see(meta) else { return Decision::Ignore(DropReason::LayerNotSelected) };
        if !self.target.enabled {
            return Decision::Ignore(DropReason::LayerNotSelected);
        }
        if self.kind == MediaKind::Audio {
            return self.decide_audio(meta);
        }
        match self.current {
            Some(current) if current.stream == meta.stream => self.inside(current, meta, in_order),
            Some(_) if !in_order => Decision::Late,
            Some(_) if self.target_stream() != Some(meta.stream) => {
                Decision::Ignore(DropReason::LayerNotSelected)
            }
            Some(_) => self.enter(meta, in_order).unwrap_or(Decision::Ignore(DropReason::LayerNotSelected)),
            // Whatever starts first is shown first; it is changed for the target when that has a key frame.
            None if self.is_wanted(meta.stream) => {
                self.enter(meta, in_order).unwrap_or(Decision::Ignore(DropReason::WaitingForKeyFrame))
            }
            None => Decision::Ignore(DropReason::WaitingForKeyFrame),
        }
    }

    /// Goes on with this packet's stream, if it can.
    fn enter(&mut self, meta: &PacketMeta, in_order: bool) -> Option<Decision> {
        if !in_order || !meta.info.frame_start {
            return None;
        }
        let limits = self.limits(meta.stream);
        let verdict = match &meta.frame {
            Some(frame) if frame.key_frame => self.dd.enter(meta, frame, limits)?,
            // Without its structure a receiver could not read what follows.
            Some(_) => return None,
            None if meta.info.key_frame && inner(meta) == 0 => self.plain.enter(meta, limits),
            None => return None,
        };
        self.current = Some(Current { stream: meta.stream, dd: meta.frame.is_some() });
        match verdict {
            Verdict::Forward { marker, active } => Some(Decision::Switch(Look { marker, active })),
            Verdict::LeaveOut => None,
        }
    }

    /// A packet of the stream being forwarded.
    fn inside(&mut self, current: Current, meta: &PacketMeta, in_order: bool) -> Decision {
        let starts = in_order && meta.info.frame_start;
        if !starts && !current.dd && meta.frame.is_none() {
            // Limits and layers are looked at where a frame begins.
            return match self.plain.continues(meta) {
                Verdict::Forward { marker, active } => Decision::Forward(Look { marker, active }),
                Verdict::LeaveOut => LEFT_OUT,
            };
        }
        let limits = self.limits(meta.stream);
        let key = starts && meta.info.key_frame && inner(meta) == 0;
        let verdict = match &meta.frame {
            Some(frame) if current.dd => self.dd.decide(meta, frame, limits, in_order),
            // The publisher began to send descriptors, or ceased to.
            Some(frame) if key && frame.key_frame => {
                return self.enter(meta, in_order).unwrap_or(LEFT_OUT);
            }
            None if key => {
                self.current = Some(Current { dd: false, ..current });
                self.plain.enter(meta, limits)
            }
            None if current.dd => {
                if in_order {
                    self.dd.unreadable();
                }
                return Decision::LeaveOut(DropReason::WaitingForKeyFrame);
            }
            _ => {
                let top = self.streams.get(usize::from(meta.stream)).copied().flatten();
                self.plain.decide(meta, limits, in_order, top.map_or(0, |seen| seen.max_temporal))
            }
        };
        match verdict {
            Verdict::Forward { marker, active } => Decision::Forward(Look { marker, active }),
            Verdict::LeaveOut => LEFT_OUT,
        }
    }

    /// What is wanted of the layers inside a stream.
    fn limits(&self, stream: u8) -> Limits {
        let SubscriptionTarget { max_spatial, max_temporal, .. } = self.target;
        let seen = self.streams.get(usize::from(stream)).copied().flatten();
        // On the way down to another stream, whose key frame takes a round trip, less is wanted at once.
        let leaving = self.current.is_some_and(|c| c.stream == stream)
            && self.target_stream().is_some_and(|target| target < stream);
        Limits {
            spatial: max_spatial.saturating_sub(stream).min(seen.map_or(u8::MAX, |seen| seen.top())),
            temporal: if leaving { 0 } else { max_temporal },
        }
    }

    fn decide_audio(&mut self, meta: &PacketMeta) -> Decision {
        // A marker that the publisher set starts a talk spurt; it goes through.
        let look = Look { marker: meta.marker, active: None };
        if self.current.is_some_and(|c| c.stream == meta.stream) {
            return Decision::Forward(look);
        }
        self.current = Some(Current { stream: meta.stream, dd: false });
        Decision::Switch(look)
    }

    /// Notes a packet; returns whether it is in order, `None` for a stream beyond the limit.
    fn see(&mut self, meta: &PacketMeta) -> Option<bool> {
        let slot = self.streams.get_mut(usize::from(meta.stream))?;
        if let Some(seen) = slot {
            let in_order = meta.index > seen.highest;
            seen.note(meta);
            return Some(in_order);
        }
        let mut seen = Seen::new(meta);
        seen.note(meta);
        *slot = Some(seen);
        self.only_first = self.has_only_first();
        Some(true)
    }

    fn has_only_first(&self) -> bool {
        matches!(self.streams, [Some(_), None, None, None])
    }

    /// The best live stream at or below the target, else one of those that was live not long ago, else the lowest live one.
    fn target_stream(&self) -> Option<u8> {
        if self.only_first {
            return Some(0);
        }
        let newest = self.streams.iter().flatten().map(|s| s.last).max()?;
        let (mut lowest, mut best, mut awaited) = (None, None, None);
        for (stream, seen) in (0u8..).zip(&self.streams) {
            let Some(silent) = seen.map(|seen| newest.saturating_duration_since(seen.last)) else { continue };
            let within = stream <= self.target.max_spatial;
            if silent < DEAD_AFTER {
                lowest = lowest.or(Some(stream));
                best = if within { Some(stream) } else { best };
            } else if within && silent < GONE_AFTER && awaited.is_none_or(|_| self.stream() == Some(stream)) {
                awaited = Some(stream);
            }
        }
        best.or(awaited).or(lowest)
    }

    fn is_wanted(&self, stream: u8) -> bool {
        stream <= self.target.max_spatial || self.target_stream() == Some(stream)
    }
}

const LEFT_OUT: Decision = Decision::LeaveOut(DropReason::LayerNotSelected);

/// Spatial layer of a packet inside its stream.
fn inner(meta: &PacketMeta) -> u8 {
    meta.spatial.saturating_sub(meta.stream)
}

#[cfg(test)]
mod tests;
