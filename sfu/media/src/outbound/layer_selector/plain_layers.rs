//! The layers inside a stream without a Dependency Descriptor, by the VP8 or VP9 payload descriptor.
//!
//! Layers above the limits are left out from the next picture on, and all below are forwarded: even where a higher one
//! would do without them, so that going down needs nothing. Up it goes where the descriptor shows that it can:
//!
//! - VP8, Y bit: the frame refers to none but the temporal base, which was sent. One layer at a time, since frames of a
//!   layer between may refer to what was left out.
//! - VP9, U bit: no later picture of a higher temporal layer refers to one of those from before this picture.
//! - All codecs: key frames. Spatial layers come back there only: what ends a picture is marked before a higher layer of it
//!   shows whether it could be entered.

use std::time::{Duration, Instant};

use super::{Limits, Verdict, inner};
use crate::command::Codec;
use crate::ids::RtpTime;
use crate::inbound::PacketMeta;

/// An encoder that shows no place to go up for so long is asked for a key frame.
pub(super) const UP_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct PlainLayers {
    /// Highest spatial layer inside the stream.
    inner: u8,
    temporal: u8,
    /// The picture for which these were last set.
    picture: RtpTime,
    /// It is a U picture of VP9: the next one may be of any temporal layer.
    open: bool,
    /// Since when there are more temporal layers, and wanted.
    short_since: Option<Instant>,
    stuck: bool,
}

impl PlainLayers {
    pub(super) fn new() -> Self {
        Self { inner: 0, temporal: 0, picture: RtpTime(0), open: false, short_since: None, stuck: false }
    }

    pub(super) fn touch(&self) -> u64 {
        u64::from(self.picture.0)
    }

    /// Goes on at a key frame, with all layers within the limits.
    pub(super) fn enter(&mut self, meta: &PacketMeta, limits: Limits) -> Verdict {
        (self.inner, self.temporal) = (limits.spatial, limits.temporal);
        self.picture = meta.timestamp;
        self.open = false;
        self.short_since = None;
        self.stuck = false;
        self.forward(meta)
    }

    /// Decides on a packet of the stream; `top` is the highest temporal layer that it has.
    pub(super) fn decide(&mut self, meta: &PacketMeta, limits: Limits, in_order: bool, top: u8) -> Verdict {
        if in_order && meta.info.frame_start {
            if meta.timestamp != self.picture {
                self.picture = meta.timestamp;
                self.inner = self.inner.min(limits.spatial);
                self.temporal = self.temporal.min(limits.temporal);
                if std::mem::take(&mut self.open) {
                    self.temporal = limits.temporal;
                }
                self.watch(meta, limits, top);
            }
            self.step_up(meta, limits);
        }
        self.continues(meta)
    }

    /// Decides on a packet that does not start a frame, or is late.
    pub(super) fn continues(&self, meta: &PacketMeta) -> Verdict {
        if inner(meta) > self.inner || meta.info.temporal > self.temporal {
            return Verdict::LeaveOut;
        }
        self.forward(meta)
    }

    fn step_up(&mut self, meta: &PacketMeta, limits: Limits) {
        let temporal = meta.info.temporal;
        match meta.codec {
            Codec::Vp8 if meta.info.switch_up && temporal == self.temporal.saturating_add(1) => {
                self.temporal = temporal.min(limits.temporal);
            }
            Codec::Vp9 => self.open |= meta.info.switch_up && temporal <= self.temporal,
            _ => {}
        }
    }

    fn watch(&mut self, meta: &PacketMeta, limits: Limits, top: u8) {
        if self.temporal >= limits.temporal.min(top) {
            self.short_since = None;
            self.stuck = false;
            return;
        }
        let since = *self.short_since.get_or_insert(meta.received);
        self.stuck = meta.received.saturating_duration_since(since) > UP_PATIENCE;
    }

    fn forward(&self, meta: &PacketMeta) -> Verdict {
        Verdict::Forward { marker: self.marker(meta), active: None }
    }

    /// Whether a packet that is forwarded ends the picture: with the layers above left out it may end before.
    pub(super) fn marker(&self, meta: &PacketMeta) -> bool {
        meta.marker || meta.info.frame_end && inner(meta) == self.inner
    }

    /// Whether its encoder shows no place to go up.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Whether more of the stream's `top` spatial layer can be had by a key frame only.
    pub(super) fn wants_key_frame(&self, limits: Limits, top: u8) -> bool {
        self.stuck || self.inner < limits.spatial.min(top)
    }
}
