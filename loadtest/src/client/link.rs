//! A bad access network between a bot and everybody else: loss, delay, jitter and outages, in both directions.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::media::speech::Dice;
use crate::scenario::Span;

/// What a bot's access network does, each way.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSpec {
    /// Share of the datagrams that are lost, 0 to 1.
    pub loss: f64,
    /// Delay of each datagram.
    pub delay: Span,
    /// Up to so much more, at random; the order stays.
    pub jitter: Span,
    /// Mean time between outages; 0 for none.
    pub outage_every: Span,
    /// Length of an outage.
    pub outage: Span,
}

/// One direction of it.
#[derive(Debug)]
pub(crate) struct Link<T> {
    spec: LinkSpec,
    dice: Dice,
    queue: VecDeque<(Instant, T)>,
    last: Option<Instant>,
    outage_from: Option<Instant>,
}

impl<T> Link<T> {
    pub(crate) fn new(spec: LinkSpec, seed: u64) -> Self {
        Self { spec, dice: Dice::new(seed), queue: VecDeque::new(), last: None, outage_from: None }
    }

    /// Takes a datagram, or loses it.
    pub(crate) fn push(&mut self, datagram: T, now: Instant) {
        if self.is_out(now) || self.dice.unit() < self.spec.loss {
            return;
        }
        let jitter = self.spec.jitter.get().mul_f64(self.dice.unit());
        let due = now + self.spec.delay.get() + jitter;
        let due = self.last.map_or(due, |last| due.max(last));
        self.last = Some(due);
        self.queue.push_back((due, datagram));
    }

    fn is_out(&mut self, now: Instant) -> bool {
        let every = self.spec.outage_every.get();
        if every.is_zero() {
            return false;
        }
        let mean = every.as_secs_f64();
        let from = *self.outage_from.get_or_insert_with(|| now + self.dice.spell(mean, 0.0));
        if now >= from + self.spec.outage.get() {
            self.outage_from = Some(now + self.dice.spell(mean, 0.0));
        }
        now >= from && now < from + self.spec.outage.get()
    }

    /// The next datagram that has come through.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        self.queue.front().filter(|(due, _)| *due <= now)?;
        self.queue.pop_front().map(|(_, datagram)| datagram)
    }

    /// When the next one comes through.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }
}

/// A deadline far away.
pub(crate) const FAR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_loses_delays_and_keeps_the_order() {
        let spec = LinkSpec { loss: 0.1, delay: Span::ms(40), jitter: Span::ms(10), ..LinkSpec::default() };
        let mut link = Link::new(spec, 7);
        let start = Instant::now();
        let mut through = Vec::new();
        for ms in 0..10_000u64 {
            let now = start + Duration::from_millis(ms);
            link.push(ms, now);
            while let Some(sent) = link.pop(now) {
                assert!((40..=51).contains(&(ms - sent)), "{sent} at {ms}");
                through.push(sent);
            }
        }
        assert!(through.is_sorted());
        assert!((8_800..9_200).contains(&through.len()), "{}", through.len());
    }

    #[test]
    fn outages_last_as_long_as_asked_for() {
        let spec = LinkSpec { outage_every: Span::ms(2_000), outage: Span::ms(300), ..LinkSpec::default() };
        let mut link = Link::new(spec, 3);
        let start = Instant::now();
        let (mut gaps, mut last) = (Vec::new(), 0);
        for ms in 0..60_000u64 {
            let now = start + Duration::from_millis(ms);
            link.push(ms, now);
            while let Some(sent) = link.pop(now) {
                if sent > last + 1 {
                    gaps.push(sent - last - 1);
                }
                last = sent;
            }
        }
        assert!(gaps.len() > 10, "{gaps:?}");
        assert!(gaps.iter().all(|gap| (299..=301).contains(gap)), "{gaps:?}");
    }
}
