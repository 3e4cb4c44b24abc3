//! Shares what a subscriber's path carries among the video tracks that it gets.
//!
//! The lowest layer of each track comes first, in the order of priority; then each track gets its next layer in turn,
//! again by priority, round after round, until nothing more fits. What is given out is taken back at once when the
//! estimate falls, and grows only with some room to spare, and pictures only some time after it last shrank: one that comes
//! and goes costs a key frame each time.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

/// Layers of one track at most: four spatial ones with four temporal ones each.
pub const MAX_STEPS: usize = 16;
/// Spatial layers of one track at most.
pub const MAX_PICTURES: usize = 4;
/// More is given out only when this share of the budget stays free, in percent. Measured rates vary by as much.
const MARGIN_PERCENT: u64 = 12;
/// .. and this for frames of pictures that are shown already: these are left again at no cost.
const MARGIN_FRAMES_PERCENT: u64 = 5;
/// A key frame shows in the rate of its layer for a second and some. For so long what was given is kept even if it does not
/// seem to fit, ..
const SETTLES: Duration = Duration::from_millis(1300);
/// .. unless the budget falls below this many percent of what it was when it did.
const SETTLES_PERCENT: u64 = 85;
/// After less had to be given out, for so long no more is ..
const HOLD: Duration = Duration::from_secs(3);
/// .. and twice as long each time that a picture had to be taken back this soon, up to a limit: its key frame may be what
/// was too much, and one key frame after the other is worse than a small picture, ..
const TAKEN_BACK: Duration = Duration::from_secs(5);
const MAX_HOLD: Duration = Duration::from_secs(12);
/// .. but frames of the pictures that are shown for so long only, as they cost no key frame ..
const HOLD_FRAMES: Duration = Duration::from_secs(1);
/// .. unless the budget reaches this many percent of what was given before. Who has no picture gets one again when it reaches
/// as much of what it was then.
const RECOVERED_PERCENT: u64 = 150;

/// On a path that was full not long ago and loses packets whatever is sent, a larger picture is given only where its key frame
/// passes in this time: its repairs come in addition, one or two round trips later. Else it is given up half way, for another key frame
/// of a smaller one, and everyone else who watches gets both.
const LOSSY_KEY_FRAME_TIME: Duration = Duration::from_millis(300);

/// A layer of a track: everything up to this spatial and temporal layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer {
    /// Spatial layer, 0 the lowest.
    pub spatial: u8,
    /// Temporal layer, 0 the lowest.
    pub temporal: u8,
}

/// One thing that a subscriber can be given of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub layer: Layer,
    /// What it takes, on the wire.
    pub bps: u64,
}

/// What can be given of one track, in ascending order of layers and of bitrates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps(ArrayVec<Step, MAX_STEPS>);

impl Steps {
    /// Adds a layer above those so far. Lower ones that take as much or more are no use any more; beyond
    /// [`MAX_STEPS`] nothing is added.
    pub fn push(&mut self, layer: Layer, bps: u64) {
        debug_assert!(self.0.last().is_none_or(|last| last.layer < layer));
        while self.0.last().is_some_and(|last| last.bps >= bps) {
            self.0.pop();
        }
        // What does not fit is the best of many: the path is told to carry one below it.
        let _ = self.0.try_push(Step { layer, bps });
    }

    /// The steps.
    pub fn as_slice(&self) -> &[Step] {
        &self.0
    }

    /// The lowest spatial layer with all of its temporal ones.
    fn lowest_picture(&self) -> Option<&Step> {
        let lowest = self.0.first()?.layer.spatial;
        self.0.iter().rfind(|step| step.layer.spatial == lowest)
    }

    /// The highest step at or below a layer, the lowest one if all are above.
    fn at(&self, layer: Layer) -> usize {
        self.0.iter().rposition(|step| step.layer <= layer).unwrap_or(0)
    }
}

/// How much video may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Bits per second.
    pub bps: u64,
    /// The path is not known: everyone gets at least the lowest spatial layer whole, whatever the budget.
    pub starting: bool,
    /// Packets wait in the path. What it is held to carry may be too much, so nobody gets more.
    pub drains: bool,
    /// The path was full not long ago, and may be no wider than it was then.
    pub contested: bool,
    /// The path loses packets whatever is sent.
    pub lossy: bool,
}

/// One video track that a subscriber is to get.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Those with a higher number come first.
    pub priority: u32,
    /// What there is of it and the page wants; at least one step, or nothing is given.
    pub steps: Steps,
    /// Bits of a key frame of each spatial layer that is entered by its own, 0 where that is not known.
    pub key_frames: [u64; MAX_PICTURES],
    /// What was given before; `None` while paused.
    pub current: Option<Layer>,
    /// What is given now, an output; `None` to pause.
    pub given: Option<Layer>,
}

/// What a round of sharing came to, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shared {
    /// What the layers given out take.
    pub allocated: u64,
    /// What they would take if everything wanted were given.
    pub wanted: u64,
}

/// When less was given out than before, how much that had been, and the budget then.
#[derive(Debug, Clone, Copy)]
struct Lowered {
    at: Instant,
    given: u64,
    budget: u64,
}

/// When pictures were given that had to be taken back soon, how much that was in all, and for how long it is not tried again.
#[derive(Debug, Clone, Copy)]
struct Failed {
    at: Instant,
    given: u64,
    hold: Duration,
    /// One of them was the smallest.
    paused: bool,
}

/// Remembers when less had to be given out.
#[derive(Debug, Default)]
pub struct Allocator {
    lowered: Option<Lowered>,
    /// The last raise, where it had to be taken back soon.
    failed: Option<Failed>,
    /// When what was given fitted last, and the budget then.
    fitted: Option<(Instant, u64)>,
    /// When a picture was given last that was not before.
    raised: Option<Instant>,
}

impl Allocator {
    /// Sets [`Claim::given`] of each claim, so that what is given fits the budget.
    pub fn share(&mut self, budget: Budget, claims: &mut [Claim], now: Instant) -> Shared {
        let Budget { bps: budget, starting, drains, contested, lossy } = budget;
        let wanted = claims.iter().filter_map(|claim| claim.steps.as_slice().last()).map(|s| s.bps).sum();
        let before: u64 = claims
            .iter()
            .filter_map(|claim| claim.steps.as_slice().get(claim.steps.at(claim.current?)))
            .map(|step| step.bps)
            .sum();
        if before <= budget {
            self.fitted = Some((now, budget));
        }
        let settles = self.fitted.is_some_and(|(at, then)| {
            now.saturating_duration_since(at) < SETTLES
                && budget.saturating_mul(100) >= then.saturating_mul(SETTLES_PERCENT)
        });
        if before > budget && settles && !starting {
            for claim in claims.iter_mut() {
                // Its own key frame may make a layer seem to cost more than the one above: that is none to go to.
                let step = claim.current.and_then(|layer| claim.steps.as_slice().get(claim.steps.at(layer)));
                claim.given = step.map(|step| step.layer).min(claim.current);
            }
            return Shared { allocated: given_bps(claims), wanted };
        }
        if before > budget && !starting {
            self.lowered = Some(Lowered { at: now, given: before, budget });
        }
        let held = |hold: Duration, then: fn(Lowered) -> u64| {
            self.lowered.is_some_and(|lowered| {
                now.saturating_duration_since(lowered.at) < hold
                    && budget.saturating_mul(100) < then(lowered).saturating_mul(RECOVERED_PERCENT)
            })
        };
        // What is given may always be given to others; more in all only with the margin.
        let keep = before.min(budget);
        let limit = |held, margin| if held { keep } else { keep.max(budget / (100 + margin) * 100) };
        let failed = self.failed.filter(|failed| {
            now.saturating_duration_since(failed.at) < failed.hold
                && budget.saturating_mul(100) < failed.given.saturating_mul(RECOVERED_PERCENT)
        });
        let held_pictures = drains || failed.is_some() || held(HOLD, |then| then.given);
        let held_lowest =
            drains || failed.is_some_and(|failed| failed.paused) || held(HOLD, |then| then.budget);
        let limits = Limits {
            lowest: limit(held_lowest, MARGIN_PERCENT),
            pictures: limit(held_pictures, MARGIN_PERCENT),
            frames: limit(drains || held(HOLD_FRAMES, |then| then.given), MARGIN_FRAMES_PERCENT),
            key_frame: match contested && lossy && !starting {
                true => budget.saturating_mul(LOSSY_KEY_FRAME_TIME.as_millis() as u64) / 1000,
                false => u64::MAX,
            },
        };
        fill(limits, held_pictures, starting, claims);
        let spatial = |layer: Option<Layer>| layer.map(|layer| layer.spatial);
        if claims.iter().any(|claim| spatial(claim.given) < spatial(claim.current)) {
            // What follows the first step down is of the same fall.
            if let Some(at) = self.raised.take() {
                let soon = now.saturating_duration_since(at) < TAKEN_BACK;
                let hold = self.failed.map_or(HOLD, |failed| failed.hold);
                let lowest = |claim: &Claim| claim.steps.as_slice().first().map(|step| step.layer);
                let paused = claims.iter().any(|claim| {
                    claim.given.is_none()
                        && claim.current.is_some()
                        && spatial(claim.current) <= spatial(lowest(claim))
                });
                self.failed =
                    soon.then(|| Failed { at: now, given: before, hold: (hold * 2).min(MAX_HOLD), paused });
            }
        } else if claims.iter().any(|claim| spatial(claim.given) > spatial(claim.current)) {
            self.raised = Some(now);
        }
        Shared { allocated: given_bps(claims), wanted }
    }
}

/// What the layers given out take, in bits per second.
pub fn given_bps(claims: &[Claim]) -> u64 {
    let step = |claim: &Claim| claim.steps.as_slice().get(claim.steps.at(claim.given?)).copied();
    claims.iter().filter_map(step).map(|step| step.bps).sum()
}

/// How much may be given out in all.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Of the lowest picture of each; not less than `pictures`.
    lowest: u64,
    /// With larger pictures.
    pictures: u64,
    /// With more frames of the pictures that are given already; not less than `pictures`.
    frames: u64,
    /// Bits of the key frame of a larger picture than the smallest that is not shown yet.
    key_frame: u64,
}

/// Gives out at most what the limits allow, and while `held` no larger pictures, but while `starting` the lowest in any case.
fn fill(limits: Limits, held: bool, starting: bool, claims: &mut [Claim]) {
    let mut left = limits.lowest;
    // Few claims: a search for the next is cheaper than memory for an order.
    let mut turn = None;
    while let Some(at) = next_in_turn(claims, turn) {
        turn = Some(at);
        let claim = &mut claims[at];
        let base = if starting { claim.steps.lowest_picture() } else { claim.steps.as_slice().first() };
        let base = base.filter(|step| starting || step.bps <= left).copied();
        claim.given = base.map(|step| step.layer);
        left = left.saturating_sub(base.map_or(0, |step| step.bps));
    }
    left = left.saturating_sub(limits.lowest - limits.pictures);
    // Measured rates vary: that a larger picture seems to fit into what is held is no reason to show it.
    let shown = |claim: &Claim, next: Layer| claim.current.is_some_and(|layer| next.spatial <= layer.spatial);
    let entered = |claim: &Claim, next: Layer| {
        let is = |layer: Option<Layer>| layer.is_some_and(|layer| layer.spatial == next.spatial);
        let lowest = claim.steps.as_slice().first().map(|step| step.layer);
        let bits = claim.key_frames.get(usize::from(next.spatial)).copied().unwrap_or(0);
        is(claim.current) || is(lowest) || bits <= limits.key_frame
    };
    grow(&mut left, claims, |claim, next| (!held || shown(claim, next)) && entered(claim, next));
    left += limits.frames - limits.pictures;
    grow(&mut left, claims, |claim, next| shown(claim, next) && entered(claim, next));
}

/// Gives each claim its next layer in turn while something fits.
fn grow(left: &mut u64, claims: &mut [Claim], may: impl Fn(&Claim, Layer) -> bool) {
    let mut grown = true;
    while grown {
        grown = false;
        let mut turn = None;
        while let Some(at) = next_in_turn(claims, turn) {
            turn = Some(at);
            let claim = &mut claims[at];
            let Some(given) = claim.given else { continue };
            let steps = claim.steps.as_slice();
            let index = claim.steps.at(given);
            let (Some(here), Some(next)) = (steps.get(index), steps.get(index + 1)) else { continue };
            let more = next.bps - here.bps;
            if more <= *left && may(claim, next.layer) {
                *left -= more;
                claim.given = Some(next.layer);
                grown = true;
            }
        }
    }
}

/// The claim whose turn comes after `before`'s: by priority, then in their order.
fn next_in_turn(claims: &[Claim], before: Option<usize>) -> Option<usize> {
    let rank = |at: usize| claims.get(at).map(|claim| (Reverse(claim.priority), at));
    let before = before.and_then(rank);
    (0..claims.len()).filter_map(rank).filter(|rank| before.is_none_or(|b| *rank > b)).min().map(|(_, at)| at)
}

#[cfg(test)]
mod tests;
