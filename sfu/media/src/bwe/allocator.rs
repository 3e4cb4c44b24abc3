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

/// One video track that a subscriber is to get.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Those with a higher number come first.
    pub priority: u32,
    /// What there is of it and the page wants; at least one step, or nothing is given.
    pub steps: Steps,
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
    /// Sets [`Claim::given`] of each claim, so that what is given fits `budget`, in bits per second.
    ///
    /// While `starting`, the path is not known: everyone gets at least the lowest spatial layer whole, whatever the budget.
    pub fn share(&mut self, budget: u64, starting: bool, claims: &mut [Claim], now: Instant) -> Shared {
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
                let step = claim.current.and_then(|layer| claim.steps.as_slice().get(claim.steps.at(layer)));
                claim.given = step.map(|step| step.layer);
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
        let held_pictures = held(HOLD, |then| then.given)
            || self.failed.is_some_and(|failed| {
                now.saturating_duration_since(failed.at) < failed.hold
                    && budget.saturating_mul(100) < failed.given.saturating_mul(RECOVERED_PERCENT)
            });
        let limits = Limits {
            lowest: limit(held(HOLD, |then| then.budget), MARGIN_PERCENT),
            pictures: limit(held_pictures, MARGIN_PERCENT),
            frames: limit(held(HOLD_FRAMES, |then| then.given), MARGIN_FRAMES_PERCENT),
        };
        fill(limits, held_pictures, starting, claims);
        let spatial = |layer: Option<Layer>| layer.map(|layer| layer.spatial);
        if claims.iter().any(|claim| spatial(claim.given) < spatial(claim.current)) {
            // What follows the first step down is of the same fall.
            if let Some(at) = self.raised.take() {
                let soon = now.saturating_duration_since(at) < TAKEN_BACK;
                let hold = self.failed.map_or(HOLD, |failed| failed.hold);
                self.failed = soon.then(|| Failed { at: now, given: before, hold: (hold * 2).min(MAX_HOLD) });
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
    grow(&mut left, claims, |claim, next| !held || shown(claim, next));
    left += limits.frames - limits.pictures;
    grow(&mut left, claims, shown);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer(spatial: u8, temporal: u8) -> Layer {
        Layer { spatial, temporal }
    }

    fn claim(priority: u32, bps: &[u64]) -> Claim {
        let mut steps = Steps::default();
        for (spatial, bps) in (0..).zip(bps) {
            steps.push(layer(spatial, 0), *bps);
        }
        Claim { priority, steps, current: None, given: None }
    }

    fn spatials(claims: &[Claim]) -> Vec<Option<u8>> {
        claims.iter().map(|claim| claim.given.map(|given| given.spatial)).collect()
    }

    /// What was given is what is had from now on.
    fn take_over(claims: &mut [Claim]) {
        for claim in claims {
            claim.current = claim.given;
        }
    }

    const VIDEO: [u64; 3] = [100, 400, 1500];

    #[test]
    fn base_layers_first_then_by_priority() {
        let now = crate::sim::clock::epoch();
        let give = |budget: u64| {
            let mut claims = [claim(1, &VIDEO), claim(7, &VIDEO), claim(3, &VIDEO)];
            Allocator::default().share(budget * 112 / 100 + 1, false, &mut claims, now);
            spatials(&claims)
        };
        assert_eq!(give(99), [None, None, None]);
        assert_eq!(give(200), [None, Some(0), Some(0)]);
        assert_eq!(give(300), [Some(0), Some(0), Some(0)]);
        assert_eq!(give(600), [Some(0), Some(1), Some(0)]);
        assert_eq!(give(1200), [Some(1), Some(1), Some(1)]);
        assert_eq!(give(2300), [Some(1), Some(2), Some(1)]);
        assert_eq!(give(4500), [Some(2), Some(2), Some(2)]);
    }

    #[test]
    fn down_at_once_up_with_margin_and_patience() {
        let t = crate::sim::clock::epoch();
        let ms = Duration::from_millis;
        let mut allocator = Allocator::default();
        let mut claims = [claim(0, &VIDEO)];
        let mut at = |budget, after| {
            allocator.share(budget, false, &mut claims, t + ms(after));
            take_over(&mut claims);
            claims[0].given.map(|given| given.spatial)
        };
        assert_eq!(at(440, 0), Some(0), "fits, but without the margin");
        assert_eq!(at(450, 1), Some(1));
        assert_eq!(at(400, 2), Some(1), "what is given stays while it fits");
        assert_eq!(at(399, 3), Some(1), "a key frame shows in its rate for a while");
        assert_eq!(at(399, 1302), Some(0));
        assert_eq!(at(500, 2300), Some(0), "too soon");
        assert_eq!(at(500, 4303), Some(0), "too soon again, as it was taken back so soon");
        assert_eq!(at(600, 4304), Some(1), "unless so much more fits");
        assert_eq!(at(330, 4305), Some(0), "at once, where the budget fell");
        assert_eq!(at(500, 10_306), Some(0), "longer still");
        assert_eq!(at(500, 16_306), Some(1));
        assert_eq!(at(400, 30_000), Some(1));
        assert_eq!(at(300, 30_001), Some(0));
        assert_eq!(at(500, 33_002), Some(1), "it had lasted");
        assert_eq!(at(90, 34_000), None);
        assert_eq!(at(134, 34_100), None, "not soon enough");
        assert_eq!(at(140, 34_200), Some(0), "any picture comes back sooner");
    }

    #[test]
    fn who_comes_to_matter_more_takes_from_the_others_without_a_margin() {
        let now = crate::sim::clock::epoch();
        let mut allocator = Allocator::default();
        let mut claims = [claim(2, &VIDEO), claim(1, &VIDEO)];
        allocator.share(580, false, &mut claims, now);
        assert_eq!(spatials(&claims), [Some(1), Some(0)]);
        take_over(&mut claims);
        claims[1].priority = 3;
        allocator.share(510, false, &mut claims, now);
        assert_eq!(spatials(&claims), [Some(0), Some(1)]);
    }

    #[test]
    fn a_start_gives_everyone_the_lowest_picture_whole() {
        let now = crate::sim::clock::epoch();
        let mut steps = Steps::default();
        for (spatial, temporal, bps) in [(0, 0, 50), (0, 1, 80), (1, 0, 200)] {
            steps.push(layer(spatial, temporal), bps);
        }
        let mut claims = [claim(0, &VIDEO), Claim { steps, ..claim(0, &[]) }];
        let shared = Allocator::default().share(0, true, &mut claims, now);
        assert_eq!([claims[0].given, claims[1].given], [Some(layer(0, 0)), Some(layer(0, 1))]);
        assert_eq!(shared, Shared { allocated: 180, wanted: 1700 });
        Allocator::default().share(680, true, &mut claims, now);
        assert_eq!([claims[0].given, claims[1].given], [Some(layer(1, 0)), Some(layer(1, 0))]);
    }

    #[test]
    fn a_step_that_costs_no_less_than_a_better_one_is_left_out() {
        let mut steps = Steps::default();
        for (temporal, bps) in [(0, 50), (1, 90)] {
            steps.push(layer(0, temporal), bps);
        }
        steps.push(layer(1, 0), 80);
        assert_eq!(
            steps.as_slice(),
            [Step { layer: layer(0, 0), bps: 50 }, Step { layer: layer(1, 0), bps: 80 }]
        );
    }

    fn any_claim() -> impl Strategy<Value = Claim> {
        let steps = proptest::collection::vec(1..2000u64, 1..6);
        (0..4u32, steps, proptest::option::of(0..6u8)).prop_map(|(priority, mut bps, current)| {
            bps.sort_unstable();
            Claim { current: current.map(|spatial| layer(spatial, 0)), ..claim(priority, &bps) }
        })
    }

    proptest! {
        #[test]
        fn never_more_than_the_budget(budget in 0..8000u64, claims in proptest::collection::vec(any_claim(), 0..8)) {
            let mut claims = claims;
            let shared = Allocator::default().share(budget, false, &mut claims, crate::sim::clock::epoch());
            prop_assert!(shared.allocated <= budget);
            prop_assert!(shared.allocated <= shared.wanted);
        }

        /// Where more budget changes who gets what, the first in turn to get something else gets more.
        #[test]
        fn more_budget_goes_to_the_first_in_turn(
            budget in 0..8000u64,
            more in 0..4000u64,
            claims in proptest::collection::vec(any_claim(), 0..8),
        ) {
            let now = crate::sim::clock::epoch();
            let turns = |budget| {
                let mut claims = claims.clone();
                claims.iter_mut().for_each(|claim| claim.current = None);
                Allocator::default().share(budget, false, &mut claims, now);
                claims.sort_by_key(|claim| Reverse(claim.priority));
                let has = |round, claim: &Claim| claim.given.is_some_and(|layer| claim.steps.at(layer) >= round);
                (0..MAX_STEPS).flat_map(|round| claims.iter().map(move |claim| has(round, claim)).collect::<Vec<_>>()).collect::<Vec<_>>()
            };
            prop_assert!(turns(budget) <= turns(budget + more));
        }

        /// Who is paused would not fit beside the lowest layers of those that matter at least as much.
        #[test]
        fn nobody_is_paused_for_one_that_matters_less(
            budget in 0..8000u64,
            claims in proptest::collection::vec(any_claim(), 0..8),
        ) {
            let mut claims = claims;
            for claim in &mut claims {
                claim.current = None;
            }
            let now = crate::sim::clock::epoch();
            Allocator::default().share(budget, false, &mut claims, now);
            let usable = budget / (100 + MARGIN_PERCENT) * 100;
            for paused in claims.iter().filter(|claim| claim.given.is_none()) {
                let base = |claim: &Claim| claim.steps.as_slice()[0].bps;
                let above: u64 = claims
                    .iter()
                    .filter(|other| other.given.is_some() && other.priority >= paused.priority)
                    .map(base)
                    .sum();
                prop_assert!(above + base(paused) > usable);
            }
        }

        /// With the budget and the rates as they are, it comes to rest.
        #[test]
        fn what_was_shared_stays(budget in 0..8000u64, claims in proptest::collection::vec(any_claim(), 0..8)) {
            let now = crate::sim::clock::epoch();
            let mut claims = claims;
            let mut allocator = Allocator::default();
            allocator.share(budget, false, &mut claims, now);
            // What the smaller margin of frames let in counts as given from then on, so one look may not be the last.
            for _ in 0..8 {
                take_over(&mut claims);
                allocator.share(budget, false, &mut claims, now);
            }
            take_over(&mut claims);
            let first = spatials(&claims);
            allocator.share(budget, false, &mut claims, now);
            prop_assert_eq!(first, spatials(&claims));
        }
    }
}
