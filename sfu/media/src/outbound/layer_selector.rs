//! Which of a track's packets one subscriber gets.
//!
//! A stream is entered at the first packet of a key frame only, and only if the packet comes in order. Inside a stream,
//! spatial layers (SVC) and temporal layers above the target are left out from a frame's start on; more of them come
//! back at a key frame, since nothing else shows for every codec that the frames they need were sent.

use std::time::{Duration, Instant};

use super::MAX_STREAMS;
use crate::command::{MediaKind, SubscriptionTarget};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, RtpTime};
use crate::inbound::PacketMeta;

/// A stream is dead when others went on for so long without it. (A publisher that sends nothing at all is idle.)
const DEAD_AFTER: Duration = Duration::from_millis(1500);

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Forward it, with this marker bit.
    Forward { marker: bool },
    /// It is the first one of its stream: switch there, then forward it.
    Switch { marker: bool },
    /// Of a stream that was left: forward it only if it fills a gap.
    Late,
    /// Of the current stream, but not wanted: close its gap.
    LeaveOut(DropReason),
    /// Of another stream.
    Ignore(DropReason),
}

#[derive(Debug)]
pub(super) struct LayerSelector {
    kind: MediaKind,
    target: SubscriptionTarget,
    streams: [Option<Seen>; MAX_STREAMS],
    current: Option<Current>,
}

/// What was seen of one stream.
#[derive(Debug, Clone, Copy)]
struct Seen {
    last: Instant,
    highest: ExtSeq,
    max_inner: u8,
    max_temporal: u8,
}

/// What is being forwarded.
#[derive(Debug, Clone, Copy)]
struct Current {
    stream: u8,
    /// Highest spatial layer inside the stream.
    inner: u8,
    temporal: u8,
    /// Timestamp of the picture for which `inner` and `temporal` were last set.
    picture: RtpTime,
}

impl LayerSelector {
    pub(super) fn new(kind: MediaKind) -> Self {
        Self { kind, target: SubscriptionTarget::default(), streams: [None; MAX_STREAMS], current: None }
    }

    pub(super) fn set_target(&mut self, target: SubscriptionTarget) {
        self.target = target;
        if !target.enabled {
            self.current = None;
        }
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
        let more_inner = current.inner < seen.max_inner.min(self.target.max_spatial);
        let more_temporal = current.temporal < seen.max_temporal.min(self.target.max_temporal);
        (more_inner || more_temporal).then_some(current.stream)
    }

    pub(super) fn decide(&mut self, meta: &PacketMeta) -> Decision {
        let Some(in_order) = self.see(meta) else { return Decision::Ignore(DropReason::LayerNotSelected) };
        if !self.target.enabled {
            return Decision::Ignore(DropReason::LayerNotSelected);
        }
        if self.kind == MediaKind::Audio {
            return self.decide_audio(meta);
        }
        let inner = meta.spatial.saturating_sub(meta.stream);
        let entry = in_order && inner == 0 && meta.info.frame_start && meta.info.key_frame;
        let SubscriptionTarget { max_spatial, max_temporal, .. } = self.target;
        match &mut self.current {
            Some(current) if current.stream == meta.stream => {
                if entry {
                    (current.inner, current.temporal) = (max_spatial, max_temporal);
                    current.picture = meta.timestamp;
                } else if in_order && meta.info.frame_start && meta.timestamp != current.picture {
                    current.inner = current.inner.min(max_spatial);
                    current.temporal = current.temporal.min(max_temporal);
                    current.picture = meta.timestamp;
                }
                if inner > current.inner || meta.info.temporal > current.temporal {
                    return Decision::LeaveOut(DropReason::LayerNotSelected);
                }
                // With the layers above left out, the picture ends here.
                let ends = meta.info.frame_end && inner == current.inner;
                Decision::Forward { marker: meta.marker || ends }
            }
            current => {
                let aim = match current {
                    // Whatever starts first is shown first; it is changed for the target when that has a key frame.
                    None => self.is_wanted(meta.stream),
                    Some(_) => self.target_stream() == Some(meta.stream),
                };
                if entry && aim {
                    self.current = Some(Current {
                        stream: meta.stream,
                        inner: max_spatial,
                        temporal: max_temporal,
                        picture: meta.timestamp,
                    });
                    let ends = meta.info.frame_end && inner == max_spatial;
                    return Decision::Switch { marker: meta.marker || ends };
                }
                match self.current {
                    None => Decision::Ignore(DropReason::WaitingForKeyFrame),
                    Some(_) if !in_order => Decision::Late,
                    Some(_) => Decision::Ignore(DropReason::LayerNotSelected),
                }
            }
        }
    }

    fn decide_audio(&mut self, meta: &PacketMeta) -> Decision {
        // A marker that the publisher set starts a talk spurt; it goes through.
        let marker = meta.marker;
        if self.current.is_some_and(|c| c.stream == meta.stream) {
            return Decision::Forward { marker };
        }
        let current = Current { stream: meta.stream, inner: 0, temporal: 0, picture: meta.timestamp };
        self.current = Some(current);
        // The first packet after a pause in sending starts a talk spurt (RFC 3551 section 4.1).
        Decision::Switch { marker: true }
    }

    /// Notes a packet; returns whether it is in order, `None` for a stream beyond the limit.
    fn see(&mut self, meta: &PacketMeta) -> Option<bool> {
        let slot = self.streams.get_mut(usize::from(meta.stream))?;
        let inner = meta.spatial.saturating_sub(meta.stream);
        let Some(seen) = slot else {
            *slot = Some(Seen {
                last: meta.received,
                highest: meta.index,
                max_inner: inner,
                max_temporal: meta.info.temporal,
            });
            return Some(true);
        };
        let in_order = meta.index > seen.highest;
        seen.highest = seen.highest.max(meta.index);
        seen.last = seen.last.max(meta.received);
        seen.max_inner = seen.max_inner.max(inner);
        seen.max_temporal = seen.max_temporal.max(meta.info.temporal);
        Some(in_order)
    }

    /// The best live stream at or below the target, else the lowest live one.
    fn target_stream(&self) -> Option<u8> {
        let newest = self.streams.iter().flatten().map(|s| s.last).max()?;
        let mut lowest = None;
        let mut best = None;
        for (stream, seen) in (0u8..).zip(&self.streams) {
            if seen.is_some_and(|s| newest.saturating_duration_since(s.last) < DEAD_AFTER) {
                lowest = lowest.or(Some(stream));
                if stream <= self.target.max_spatial {
                    best = Some(stream);
                }
            }
        }
        best.or(lowest)
    }

    fn is_wanted(&self, stream: u8) -> bool {
        stream <= self.target.max_spatial || self.target_stream() == Some(stream)
    }
}

#[cfg(test)]
mod tests;
