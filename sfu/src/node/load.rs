//! How busy each shard is, and which one takes what is new.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Share of a new measurement in the smoothed one; there is about one a second.
const SMOOTHING: f64 = 0.5;
/// Until so long after a join the measured figure does not show all of what it costs: descriptions, handshakes, estimates
/// that have to grow.
const SETTLE: Duration = Duration::from_secs(5);
/// What a newcomer is taken for at least, as a share of a core.
const LEAST: f64 = 0.002;
/// Shares of a core that differ by less than this are the same: then the number of participants decides.
const STEP: f64 = 0.02;

/// A shard that is over its budget keeps a room to itself unless another one has this much more to spare: spanning costs
/// both of them something.
const GAIN: f64 = 0.1;

/// How much one shard takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Share of a core beyond which others take the further participants of its rooms.
    pub(crate) busy: f64,
    /// Participants of one room beyond which others take the further ones.
    pub(crate) participants: usize,
}

/// What the node knows of the load of its shards.
#[derive(Debug)]
pub(super) struct Loads {
    shards: Mutex<Vec<ShardLoad>>,
    budget: Budget,
}

#[derive(Debug, Default)]
struct ShardLoad {
    /// CPU time that its thread had used, and when.
    sample: Option<(Duration, Instant)>,
    /// Share of a core that it takes, smoothed.
    busy: f64,
    participants: usize,
    /// When the latest of them came.
    newcomers: VecDeque<Instant>,
}

impl ShardLoad {
    /// Share of a core that it takes, or will take once those who just came send and receive as the others do.
    fn expected(&self, now: Instant) -> f64 {
        let since = |at: &Instant| now.saturating_duration_since(*at);
        let new = self.newcomers.iter().filter(|at| since(at) < SETTLE).count();
        let settled = self.participants.saturating_sub(new).max(1);
        self.busy + new as f64 * (self.busy / settled as f64).max(LEAST)
    }

    /// By what shards are compared: the smaller one takes more.
    fn rank(&self, now: Instant) -> (u64, usize) {
        ((self.expected(now) / STEP) as u64, self.participants)
    }
}

impl Loads {
    pub(super) fn new(shards: usize, budget: Budget) -> Self {
        Self { shards: Mutex::new((0..shards).map(|_| ShardLoad::default()).collect()), budget }
    }

    /// The CPU time that a shard's thread has used until now.
    pub(super) fn measured(&self, shard: usize, cpu: Duration, now: Instant) {
        self.with(shard, |load| {
            let before = load.sample.replace((cpu, now));
            let Some((before, at)) = before else { return };
            let time = now.saturating_duration_since(at).as_secs_f64();
            // Reports that were held up and come together say nothing each.
            if time < 0.1 {
                load.sample = Some((before, at));
                return;
            }
            let busy = cpu.saturating_sub(before).as_secs_f64() / time;
            load.busy += (busy - load.busy) * SMOOTHING;
        });
    }

    /// A room's participants on a shard are so many now.
    pub(super) fn changed(&self, shard: usize, before: usize, after: usize, now: Instant) {
        self.with(shard, |load| {
            load.participants = (load.participants + after).saturating_sub(before);
            while load.newcomers.front().is_some_and(|at| now.saturating_duration_since(*at) >= SETTLE) {
                load.newcomers.pop_front();
            }
            load.newcomers.extend(std::iter::repeat_n(now, after.saturating_sub(before)));
            while load.newcomers.len() > load.participants {
                load.newcomers.pop_front();
            }
        });
    }

    /// Where a participant of a room goes that has so many on each shard: to the others, while a shard has room for them
    /// all; else to the one that has most to spare.
    pub(super) fn place(&self, room: &[usize], now: Instant) -> usize {
        let loads = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let there = |shard: usize| room.get(shard).copied().unwrap_or(0);
        let takes_more = |shard: &usize| there(*shard) < self.budget.participants;
        let has_time = |shard: &usize| loads[*shard].expected(now) < self.budget.busy;
        let of_room = (0..loads.len()).filter(|shard| there(*shard) > 0);
        let of_room = of_room.max_by_key(|shard| (takes_more(shard), has_time(shard), there(*shard)));
        if let Some(shard) = of_room.filter(|shard| takes_more(shard) && has_time(shard)) {
            return shard;
        }
        let rank = |shard: &usize| (!takes_more(shard), loads[*shard].rank(now));
        let best = (0..loads.len()).min_by_key(rank).unwrap_or(0);
        match of_room {
            Some(shard)
                if takes_more(&shard) && loads[best].expected(now) + GAIN > loads[shard].expected(now) =>
            {
                shard
            }
            _ => best,
        }
    }

    fn with(&self, shard: usize, change: impl FnOnce(&mut ShardLoad)) {
        if let Some(load) = self.shards.lock().unwrap_or_else(PoisonError::into_inner).get_mut(shard) {
            change(load);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(shards: usize) -> Loads {
        Loads::new(shards, Budget { busy: 0.7, participants: usize::MAX })
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Reports once a second of threads that take these shares of a core, in per cent.
    fn measure(loads: &Loads, percent: &[u64], from: Instant, seconds: u64) -> Instant {
        for second in 0..=seconds {
            for (shard, percent) in percent.iter().enumerate() {
                loads.measured(shard, ms(second * percent * 10), from + ms(second * 1000));
            }
        }
        from + ms(seconds * 1000)
    }

    #[test]
    fn what_is_new_goes_to_the_shard_that_works_least_however_many_rooms_it_has() {
        let loads = loads(3);
        let t = Instant::now();
        // One lecture, and many who wait.
        loads.changed(0, 0, 5, t);
        loads.changed(1, 0, 90, t);
        loads.changed(2, 0, 3, t);
        let now = measure(&loads, &[60, 12, 30], t, 10);
        assert_eq!(loads.place(&[], now), 1);
        measure(&loads, &[60, 95, 30], now, 10);
        assert_eq!(loads.place(&[], now + ms(10_000)), 2);
    }

    #[test]
    fn those_who_just_came_count_before_they_are_measured() {
        let loads = loads(2);
        let t = Instant::now();
        loads.changed(0, 0, 10, t);
        let now = measure(&loads, &[20, 30], t, 10);
        // Two per cent each: six of them make more than the difference.
        loads.changed(0, 10, 14, now);
        assert_eq!(loads.place(&[], now), 0);
        loads.changed(0, 14, 16, now);
        assert_eq!(loads.place(&[], now), 1);
        assert_eq!(loads.place(&[], now + SETTLE), 0, "the measured figure has it all by then");
    }

    #[test]
    fn shards_that_are_equally_busy_share_participants_evenly() {
        let loads = loads(2);
        let t = Instant::now();
        let mut counts = [0; 2];
        for step in 0..100 {
            let now = t + ms(step * 10_000);
            let shard = loads.place(&[], now);
            loads.changed(shard, counts[shard], counts[shard] + 1, now);
            counts[shard] += 1;
        }
        assert_eq!(counts, [50, 50]);
        loads.changed(0, 50, 0, t);
        assert_eq!(loads.place(&[], t + ms(2_000_000)), 0);
    }

    #[test]
    fn reports_that_come_together_do_not_look_like_load() {
        let loads = loads(2);
        let t = Instant::now();
        let now = measure(&loads, &[10, 20], t, 10);
        loads.measured(0, ms(1_100), now + ms(1_000));
        loads.measured(0, ms(1_200), now + ms(1_001));
        loads.measured(0, ms(1_300), now + ms(3_000));
        assert_eq!(loads.place(&[], now + ms(3_000)), 0);
    }

    #[test]
    fn a_room_stays_together_until_its_shard_is_at_the_end_of_its_budget() {
        let loads = loads(3);
        let t = Instant::now();
        let now = measure(&loads, &[60, 5, 10], t, 10);
        assert_eq!(loads.place(&[4, 0, 0], now), 0, "others have more to spare, but it fits");
        let now = measure(&loads, &[75, 5, 10], now, 10);
        assert_eq!(loads.place(&[4, 0, 0], now), 1);
        assert_eq!(loads.place(&[4, 0, 1], now), 2, "it is there already");
        let now = measure(&loads, &[95, 92, 90], now, 10);
        assert_eq!(loads.place(&[4, 0, 0], now), 0, "nobody has time: spanning would make it worse");
        let now = measure(&loads, &[99, 92, 75], now, 10);
        assert_eq!(loads.place(&[4, 0, 0], now), 2);
    }

    #[test]
    fn a_room_with_too_many_for_one_shard_fills_the_next() {
        let loads = Loads::new(3, Budget { busy: 0.7, participants: 2 });
        let mut room = [0; 3];
        let now = Instant::now();
        let mut order = Vec::new();
        for _ in 0..8 {
            let shard = loads.place(&room, now);
            loads.changed(shard, room[shard], room[shard] + 1, now);
            room[shard] += 1;
            order.push(shard);
        }
        assert_eq!(order[..6], [0, 0, 1, 1, 2, 2]);
        assert!(room.iter().all(|n| *n >= 2), "what fits nowhere is spread: {room:?}");
        room = [2, 1, 0];
        assert_eq!(loads.place(&room, now), 1, "a place that was given up is filled first");
    }
}
