//! The layers inside a stream with a Dependency Descriptor: one of its decode targets is what the subscriber gets.
//!
//! What makes it safe is the record of what was sent:
//!
//! - A frame goes out if the target has it, and none of the frames that it refers to was left out.
//! - Down to another target at the next picture, where all of its frames were among those of the target before. In L3T3
//!   every lower target is such a one; in L3T3_KEY only those of the same spatial layer, since a subscriber to layer 2
//!   gets nothing of layers 0 and 1 but their key frames. Until a key frame comes for the others, the temporal layers go.
//! - Up at a frame that is a Switch for the target above, if all that it refers to was sent, and the frame before it in
//!   the target's chain. So temporal layers come back at the next base frame, spatial ones mostly at key frames.
//! - A frame of the target's chain that never came, after it could have been repaired, or that was left out: nothing of
//!   the target is decodable any more, so a key frame is asked for.
//!
//! A receiver shows a picture when its last layer is there, which is marked on the highest one of the target. So a target
//! is left between pictures only, and none is entered in a picture whose end was marked.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::frame_log::{Fate, FrameLog};
use super::plain_layers::UP_PATIENCE;
use super::{Limits, Verdict};
use crate::ids::RtpTime;
use crate::inbound::PacketMeta;
use crate::rtp::{DdInfo, DecodeTarget, Indication, MAX_CHAINS, MAX_TARGETS, attached_targets};

/// A frame that was not repaired for so long never will be.
const REPAIR_TIME: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct DdLayers {
    /// Which structure the targets are of.
    generation: u32,
    targets: ArrayVec<DecodeTarget, MAX_TARGETS>,
    /// Targets that the publisher still sends, one bit each.
    active: u32,
    log: FrameLog,
    /// Chains of which every frame was sent since the key frame, one bit each.
    intact: u8,
    /// What is being forwarded, and which targets come along with it.
    current: u8,
    along: u32,
    /// Frames below this number were of that target.
    before: Option<(u64, u8)>,
    /// What should be forwarded, and what that was found from.
    wanted: u8,
    wanted_for: (Limits, u32),
    picture: RtpTime,
    /// Its end was marked: nothing more may come of it.
    ended: bool,
    /// The receiver was told of fewer targets than the structure has.
    reduced: bool,
    /// A frame of the chain that did not come yet, and since when.
    missing: Option<(u64, Instant)>,
    broken: bool,
    /// Since when more temporal layers are wanted.
    short_since: Option<Instant>,
    stuck: bool,
    /// Key picture at which the stream was not entered because the wanted layer begins later in it.
    passed: Option<RtpTime>,
}

impl DdLayers {
    pub(super) fn new() -> Self {
        Self {
            generation: 0,
            targets: ArrayVec::new(),
            active: u32::MAX,
            log: FrameLog::new(0),
            intact: 0,
            current: 0,
            along: 0,
            before: None,
            wanted: 0,
            wanted_for: (Limits { spatial: 0, temporal: 0 }, 0),
            picture: RtpTime(0),
            ended: false,
            reduced: false,
            missing: None,
            broken: false,
            short_since: None,
            stuck: false,
            passed: None,
        }
    }

    /// Goes on with a stream at the first packet of a key frame, in order. `None` where the wanted layer begins later in
    /// this picture, as in modes whose layers do not depend on each other.
    pub(super) fn enter(&mut self, meta: &PacketMeta, frame: &DdInfo, limits: Limits) -> Option<Verdict> {
        let targets = attached_targets(&meta.dd)?;
        let active = frame.active_decode_targets.unwrap_or(u32::MAX);
        let wanted = best(&targets, active, limits);
        let mut current = wanted;
        if frame.indications.get(wanted) == Indication::NotPresent {
            if begins_later(&targets, wanted, frame) && self.passed.is_none_or(|p| p == meta.timestamp) {
                self.passed = Some(meta.timestamp);
                return None;
            }
            // It did not come the last time: better this layer than none.
            current = highest(&targets, |t, _| frame.indications.get(t) != Indication::NotPresent)?;
        }
        *self = Self {
            generation: frame.generation,
            targets,
            active,
            log: FrameLog::new(frame.frame_number),
            wanted,
            wanted_for: (limits, active),
            picture: meta.timestamp,
            ..Self::new()
        };
        self.go_to(current, frame.frame_number);
        self.before = None;
        self.log.set(frame.frame_number, Fate::Forwarded);
        self.follow_chains(frame);
        Some(self.forward(meta, frame))
    }

    /// Decides on a packet of the stream that was entered.
    pub(super) fn decide(
        &mut self,
        meta: &PacketMeta,
        frame: &DdInfo,
        limits: Limits,
        in_order: bool,
    ) -> Verdict {
        let number = frame.frame_number;
        let newer = in_order && number > self.log.newest();
        if newer && frame.key_frame && !self.take_structure(meta, frame) {
            return Verdict::LeaveOut;
        }
        if frame.generation != self.generation {
            // Its key frame did not come, or comes late: then the newer one serves.
            self.broken |= in_order;
            return Verdict::LeaveOut;
        }
        match self.log.get(number) {
            Fate::Forwarded => return self.forward(meta, frame),
            Fate::Dropped => return Verdict::LeaveOut,
            Fate::Unknown => {}
        }
        if newer {
            if let Some(active) = frame.active_decode_targets {
                self.active = active;
            }
            self.aim(limits);
            self.follow_chains(frame);
            if meta.timestamp != self.picture {
                self.picture = meta.timestamp;
                self.ended = false;
                self.step_down(limits, number);
                self.watch_time(meta.received);
            }
            if frame.start_of_frame && self.current != self.wanted && !self.ended {
                self.step_up(frame, limits);
            }
            self.watch_chain(frame, meta.received);
        }
        let target = self.target_of(number);
        let sent = |n| self.log.get(n) != Fate::Dropped;
        if frame.indications.get(target) == Indication::NotPresent || !frame.references().all(sent) {
            self.log.set(number, Fate::Dropped);
            return Verdict::LeaveOut;
        }
        self.log.set(number, Fate::Forwarded);
        self.forward(meta, frame)
    }

    /// What should be forwarded within these limits from now on.
    pub(super) fn aim(&mut self, limits: Limits) {
        if self.wanted_for != (limits, self.active) {
            self.wanted = best(&self.targets, self.active, limits);
            self.wanted_for = (limits, self.active);
        }
    }

    /// Whether only a key frame brings what is wanted.
    pub(super) fn wants_key_frame(&self) -> bool {
        let spatial = |target| self.target(target).map(|t| t.spatial);
        self.broken || self.stuck || spatial(self.current) != spatial(self.wanted)
    }

    /// A packet in order that cannot be read: what it belongs to is lost.
    pub(super) fn unreadable(&mut self) {
        self.broken = true;
    }

    /// Takes over the structure of a key frame of the stream. Returns false for one that cannot be read.
    fn take_structure(&mut self, meta: &PacketMeta, frame: &DdInfo) -> bool {
        // Without a mask all targets are active again (AV1 RTP section A.8.2).
        self.active = frame.active_decode_targets.unwrap_or(u32::MAX);
        self.broken = false;
        self.missing = None;
        self.reduced = false;
        if frame.generation == self.generation {
            return true;
        }
        let Some(targets) = attached_targets(&meta.dd) else { return false };
        let old = self.target(self.current).copied();
        // The layers stay; where they are gone, those below.
        let current = old
            .and_then(|old| highest(&targets, |_, t| t.spatial <= old.spatial && t.temporal <= old.temporal));
        (self.generation, self.targets) = (frame.generation, targets);
        self.wanted = best(&self.targets, self.active, self.wanted_for.0);
        self.wanted_for.1 = self.active;
        self.go_to(current.unwrap_or(0), frame.frame_number);
        // Frames from before are not of this structure.
        self.before = None;
        true
    }

    /// Leaves what is above the limits, as far as the receiver has what is below.
    fn step_down(&mut self, limits: Limits, number: u64) {
        let active = self.active;
        let Some(&current) = self.target(self.current) else { return };
        if allows(self.current, &current, active, limits) {
            return;
        }
        let within = |n, t: &DecodeTarget| t.is_within(&current) && allows(n, t, active, limits);
        let next = highest(&self.targets, within).or_else(|| {
            let same = |_, t: &DecodeTarget| t.spatial == current.spatial && t.is_within(&current);
            lowest(&self.targets, same)
        });
        if let Some(next) = next {
            self.go_to(next, number);
        }
    }

    /// Goes as far up as this frame allows, or down to what it begins anew.
    fn step_up(&mut self, frame: &DdInfo, limits: Limits) {
        let Some(current) = self.target(self.current) else { return };
        let allowed = allows(self.current, current, self.active, limits);
        let rank = (current.spatial, current.temporal);
        if frame.key_frame && begins_later(&self.targets, self.wanted, frame) {
            return self.go_to(self.wanted, frame.frame_number);
        }
        // A higher layer of this picture goes on from what was sent of it.
        if let Some(wanted) = self.target(self.wanted)
            && wanted.spatial > frame.spatial
            && frame.temporal == 0
            && wanted.chain.is_some_and(|chain| {
                self.intact >> chain & 1 == 1 && frame.previous_in_chain(chain).is_some()
            })
        {
            return self.go_to(self.wanted, frame.frame_number);
        }
        if !frame.references().all(|n| self.log.get(n) == Fate::Forwarded) {
            return;
        }
        let whole = |chain: Option<u8>| {
            let before = chain.and_then(|chain| frame.previous_in_chain(chain));
            before.is_none_or(|n| self.log.get(n) == Fate::Forwarded)
        };
        let next = highest(&self.targets, |n, t| {
            (!allowed || (t.spatial, t.temporal) > rank)
                && allows(n, t, self.active, limits)
                && frame.indications.get(n) == Indication::Switch
                && whole(t.chain)
        });
        if let Some(next) = next {
            self.go_to(next, frame.frame_number);
            self.broken = false;
        }
    }

    fn go_to(&mut self, target: u8, first: u64) {
        if target != self.current {
            self.before = Some((first, self.current));
            self.current = target;
            self.missing = None;
        }
        self.short_since = None;
        self.stuck = false;
        self.along = 0;
        let Some(current) = self.targets.get(usize::from(target)) else { return };
        for (n, _) in (0u8..).zip(&self.targets).filter(|(_, t)| t.is_within(current)) {
            self.along |= 1 << n;
        }
    }

    fn watch_time(&mut self, now: Instant) {
        if self.current == self.wanted {
            return;
        }
        let since = *self.short_since.get_or_insert(now);
        self.stuck = now.saturating_duration_since(since) > UP_PATIENCE;
    }

    fn follow_chains(&mut self, frame: &DdInfo) {
        for chain in 0..MAX_CHAINS as u8 {
            match frame.previous_in_chain(chain) {
                None => self.intact |= 1 << chain,
                Some(before) if self.log.get(before) == Fate::Forwarded => {}
                Some(_) => self.intact &= !(1 << chain),
            }
        }
    }

    fn watch_chain(&mut self, frame: &DdInfo, now: Instant) {
        if let Some((number, since)) = self.missing {
            if self.log.get(number) == Fate::Forwarded {
                self.missing = None;
            } else if now.saturating_duration_since(since) > REPAIR_TIME {
                self.missing = None;
                self.broken = true;
            }
        }
        let chain = self.target(self.current).and_then(|t| t.chain);
        let Some(before) = chain.and_then(|chain| frame.previous_in_chain(chain)) else { return };
        match self.log.get(before) {
            Fate::Forwarded => {}
            Fate::Dropped => self.broken = true,
            Fate::Unknown => {
                self.missing.get_or_insert((before, now));
            }
        }
    }

    fn forward(&mut self, meta: &PacketMeta, frame: &DdInfo) -> Verdict {
        let all = u32::MAX >> (32 - u32::from(frame.targets.max(1)));
        let active = self.along & self.active & all;
        // Told once, the receiver believes it until it is told otherwise or a structure comes: and that packet may be
        // lost, so every one says it.
        self.reduced |= active != all;
        let marker = self.marker(meta, frame);
        self.ended |= marker && meta.timestamp == self.picture;
        Verdict::Forward { marker, active: self.reduced.then_some(active) }
    }

    /// The marker of a packet that is forwarded.
    pub(super) fn marker(&self, meta: &PacketMeta, frame: &DdInfo) -> bool {
        let target = self.target(self.target_of(frame.frame_number));
        let ends = frame.end_of_frame && target.is_some_and(|t| frame.spatial >= t.spatial);
        meta.marker || ends
    }

    /// The packets of the frame that was decided on last end with this one.
    pub(super) fn extend(&mut self, last: &PacketMeta, frame: &DdInfo) {
        let forwarded = self.log.get(frame.frame_number) == Fate::Forwarded;
        self.ended |= forwarded && last.timestamp == self.picture && self.marker(last, frame);
    }

    fn target_of(&self, number: u64) -> u8 {
        match self.before {
            Some((first, before)) if number < first => before,
            _ => self.current,
        }
    }

    fn target(&self, number: u8) -> Option<&DecodeTarget> {
        self.targets.get(usize::from(number))
    }
}

fn allows(number: u8, target: &DecodeTarget, active: u32, limits: Limits) -> bool {
    active >> number & 1 == 1 && target.spatial <= limits.spatial && target.temporal <= limits.temporal
}

/// The highest target within the limits; else, as something is wanted, the lowest active one.
fn best(targets: &[DecodeTarget], active: u32, limits: Limits) -> u8 {
    let within = highest(targets, |n, t| allows(n, t, active, limits));
    within.or_else(|| lowest(targets, |n, _| active >> n & 1 == 1)).unwrap_or(0)
}

fn highest(targets: &[DecodeTarget], mut fits: impl FnMut(u8, &DecodeTarget) -> bool) -> Option<u8> {
    let fitting = (0u8..).zip(targets).filter(|(n, t)| fits(*n, t));
    fitting.max_by_key(|(_, t)| (t.spatial, t.temporal)).map(|(n, _)| n)
}

fn lowest(targets: &[DecodeTarget], mut fits: impl FnMut(u8, &DecodeTarget) -> bool) -> Option<u8> {
    let fitting = (0u8..).zip(targets).filter(|(n, t)| fits(*n, t));
    fitting.min_by_key(|(_, t)| (t.spatial, t.temporal)).map(|(n, _)| n)
}

/// Whether a target's first frame since the key frame comes later in this frame's picture: it is of a higher layer, and
/// its chain has not begun.
fn begins_later(targets: &[DecodeTarget], target: u8, frame: &DdInfo) -> bool {
    targets.get(usize::from(target)).is_some_and(|t| {
        t.spatial > frame.spatial
            && frame.indications.get(target) == Indication::NotPresent
            && t.chain.is_some_and(|chain| frame.previous_in_chain(chain).is_none())
    })
}
