//! Which size is tried next, and which is tried again before it counts.

use super::{Step, Verdict};

/// A size at which the tester itself was in doubt is run so often again before that counts as an end of the search: of what
/// passes, such as a machine that stood still for a moment, two more tries show that it has not passed.
const MORE_TRIES: u32 = 2;

/// Which size to try next.
#[derive(Debug, Clone)]
pub struct Search {
    next: u32,
    max: u32,
    good: u32,
    bad: Option<u32>,
    /// Stop when what held and what did not are as near as this share.
    tolerance: f64,
    /// The size to try again, what for, and how often it was so far.
    again: Option<Again>,
}

#[derive(Debug, Clone, Copy)]
struct Again {
    size: u32,
    /// It broke an objective once.
    broke: bool,
    /// Tries that said nothing of the relay.
    void: u32,
}

impl Search {
    /// Starts at `start` and goes no higher than `max`.
    pub fn new(start: u32, max: u32, tolerance: f64) -> Self {
        let max = max.max(1);
        Self { next: start.clamp(1, max), max, good: 0, bad: None, tolerance, again: None }
    }

    /// The size to try; `None` when the answer is near enough.
    pub fn next(&self) -> Option<u32> {
        if let Some(again) = self.again {
            return Some(again.size);
        }
        match self.bad {
            None if self.good >= self.max => None,
            None => Some(self.next),
            Some(bad) => {
                let gap = bad.saturating_sub(self.good);
                let near = (self.tolerance * f64::from(bad)).max(1.0);
                (f64::from(gap) > near).then_some(self.good + gap / 2)
            }
        }
    }

    /// Takes how a size went. Where that is not enough to go by, the step is marked with why, and [`Search::next`] gives the
    /// same size again: one hiccup, of the machine or of anything else, must not end a search.
    pub fn record(&mut self, step: &mut Step) {
        let Step { size, .. } = *step;
        let before = self.again.take().filter(|again| again.size == size);
        let Again { broke, void, .. } = before.unwrap_or(Again { size, broke: false, void: 0 });
        match step.verdict() {
            Verdict::Holds => {
                self.good = self.good.max(size);
                self.next = size.saturating_mul(2).min(self.max);
            }
            Verdict::Broken if !broke => {
                self.again = Some(Again { size, broke: true, void });
                step.repeated = format!("broke once: {}", step.why());
            }
            Verdict::Invalid if step.passing && void < MORE_TRIES => {
                self.again = Some(Again { size, broke, void: void + 1 });
                step.repeated = format!("not the relay's doing: {}", step.why());
            }
            Verdict::Broken | Verdict::Invalid => {
                self.bad = Some(self.bad.map_or(size, |bad| bad.min(size)));
            }
        }
    }

    /// The largest size that held.
    pub fn good(&self) -> u32 {
        self.good
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A relay that carries sizes up to `limit`, on a machine that does to some tries what is asked for: by size and number of
    /// the try.
    #[derive(Default)]
    struct Fake {
        limit: u32,
        hiccups: BTreeMap<(u32, u32), fn(&mut Step)>,
        tries: BTreeMap<u32, u32>,
    }

    impl Fake {
        fn new(limit: u32) -> Self {
            Self { limit, ..Self::default() }
        }

        fn hiccup(mut self, size: u32, attempt: u32, what: fn(&mut Step)) -> Self {
            self.hiccups.insert((size, attempt), what);
            self
        }

        fn run(&mut self, size: u32) -> Step {
            let attempt = self.tries.entry(size).or_default();
            *attempt += 1;
            let mut step = Step { size, ..Step::default() };
            step.holds = size <= self.limit;
            if !step.holds {
                step.broken = vec!["delay p99, sound: 80.00 ms".to_owned()];
            }
            if let Some(hiccup) = self.hiccups.get(&(size, *attempt)) {
                hiccup(&mut step);
            }
            step
        }

        /// Searches; the steps, and the largest size that held.
        fn find(mut self, start: u32, max: u32, tolerance: f64) -> (Vec<Step>, u32) {
            let mut search = Search::new(start, max, tolerance);
            let mut steps = Vec::new();
            while let Some(size) = search.next() {
                let mut step = self.run(size);
                search.record(&mut step);
                steps.push(step);
                assert!(steps.len() < 100, "it does not end");
            }
            (steps, search.good())
        }
    }

    fn breaks(step: &mut Step) {
        (step.holds, step.broken) = (false, vec!["join time p95: 9000.00 ms".to_owned()]);
    }

    fn stands_still(step: &mut Step) {
        // What is measured then is bad as well.
        breaks(step);
        (step.invalid, step.passing) = (vec!["the tester stood still for 900 ms".to_owned()], true);
    }

    fn gives_out(step: &mut Step) {
        (step.invalid, step.passing) = (vec!["the tester itself was the bottleneck".to_owned()], false);
    }

    fn sizes(steps: &[Step]) -> Vec<u32> {
        steps.iter().map(|step| step.size).collect()
    }

    #[test]
    fn the_search_finds_the_limit() {
        for (limit, start) in [(37, 1), (1, 4), (0, 4), (999, 3)] {
            assert_eq!(Fake::new(limit).find(start, 1000, 0.0).1, limit);
        }
        let (steps, good) = Fake::new(5000).find(1, 100, 0.0);
        assert_eq!((sizes(&steps), good), (vec![1, 2, 4, 8, 16, 32, 64, 100], 100));
        let (steps, good) = Fake::new(777).find(10, 10_000, 0.05);
        assert!((700..=777).contains(&good) && steps.len() < 20, "{good} {:?}", sizes(&steps));
    }

    #[test]
    fn what_breaks_is_run_again_and_counts_when_it_breaks_again() {
        let (steps, good) = Fake::new(5).find(4, 8, 0.0);
        assert_eq!((sizes(&steps), good), (vec![4, 8, 8, 6, 6, 5], 5));
        let counts: Vec<bool> = steps.iter().map(|step| step.repeated.is_empty()).collect();
        assert_eq!(counts, [true, false, true, false, true, true]);
        assert_eq!(steps[1].repeated, "broke once: delay p99, sound: 80.00 ms");
    }

    #[test]
    fn one_hiccup_does_not_end_a_search_low() {
        for hiccup in [breaks, stands_still] {
            let (steps, good) = Fake::new(20).hiccup(8, 1, hiccup).find(4, 32, 0.0);
            assert_eq!(good, 20, "{:?}", sizes(&steps));
            assert_eq!(&sizes(&steps)[..4], &[4, 8, 8, 16]);
        }
        // Twice the tester's own, once anything else: it still is not the relay.
        let fake = Fake::new(20).hiccup(8, 1, stands_still).hiccup(8, 2, breaks).hiccup(8, 3, stands_still);
        let (steps, good) = fake.find(4, 32, 0.0);
        assert_eq!((&sizes(&steps)[..6], good), (&[4, 8, 8, 8, 8, 16][..], 20));
        assert_eq!(steps[1].repeated, "not the relay's doing: the tester stood still for 900 ms");
        assert_eq!(steps[2].repeated, "broke once: join time p95: 9000.00 ms");
    }

    #[test]
    fn a_tester_that_stands_still_again_and_again_ends_the_search() {
        let fake = Fake::new(20);
        let fake = (1..=9).fold(fake, |fake, attempt| fake.hiccup(8, attempt, stands_still));
        let (steps, good) = fake.find(4, 32, 0.5);
        assert_eq!((sizes(&steps), good), (vec![4, 8, 8, 8], 4));
        assert!(steps[3].repeated.is_empty());
    }

    #[test]
    fn a_tester_that_is_too_small_is_not_tried_again() {
        let (steps, good) = Fake::new(20).hiccup(8, 1, gives_out).find(4, 32, 0.5);
        assert_eq!((sizes(&steps), good), (vec![4, 8], 4));
    }

    #[test]
    fn a_search_ends_whatever_happens() {
        let mut dice = crate::media::speech::Dice::new(3);
        for _ in 0..500 {
            let mut search = Search::new(1 + (dice.roll() % 20) as u32, 1 + (dice.roll() % 300) as u32, 0.05);
            let mut steps = 0;
            while let Some(size) = search.next() {
                let mut step = Step { size, ..Step::default() };
                match dice.roll() % 4 {
                    0 => breaks(&mut step),
                    1 => stands_still(&mut step),
                    2 => gives_out(&mut step),
                    _ => step.holds = true,
                }
                search.record(&mut step);
                steps += 1;
            }
            assert!(steps < 80, "{steps}");
        }
    }
}
