//! How much a relay carries: raises the load until an objective breaks, then halves the gap between what held and what
//! did not.

use serde::{Deserialize, Serialize};

use crate::report::{Chart, Report};
use crate::scenario::{Scenario, Span};

/// Joins a second while the load builds up: a storm of joins is a test of its own.
const JOINS_PER_SECOND: u32 = 20;
/// A media thread that uses this share of its core, or more, is full.
const FULL: f64 = 0.9;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grow {
    /// The number of rooms of each kind.
    #[default]
    Rooms,
    /// Participants of the last role in each room.
    Participants,
}

impl Grow {
    /// The scenario at a size.
    pub fn scale(self, base: &Scenario, size: u32) -> Scenario {
        let mut scenario = base.clone();
        for rooms in &mut scenario.rooms {
            match self {
                Grow::Rooms => rooms.count = size,
                Grow::Participants => {
                    if let Some(role) = rooms.roles.last_mut() {
                        role.count = size;
                    }
                }
            }
        }
        let ramp = u64::from(scenario.participants()) * 1000 / u64::from(JOINS_PER_SECOND);
        scenario.ramp = base.ramp.max(Span::ms(ramp));
        scenario
    }
}

/// Which size to try next.
#[derive(Debug, Clone)]
pub struct Search {
    next: u32,
    max: u32,
    good: u32,
    bad: Option<u32>,
    /// Stop when what held and what did not are as near as this share.
    tolerance: f64,
}

impl Search {
    /// Starts at `start` and goes no higher than `max`.
    pub fn new(start: u32, max: u32, tolerance: f64) -> Self {
        Self { next: start.clamp(1, max.max(1)), max: max.max(1), good: 0, bad: None, tolerance }
    }

    /// The size to try; `None` when the answer is near enough.
    pub fn next(&self) -> Option<u32> {
        match self.bad {
            None if self.good >= self.max => None,
            None => Some(self.next),
            Some(bad) => {
                let gap = bad - self.good;
                let near = (self.tolerance * f64::from(bad)).max(1.0);
                (f64::from(gap) > near).then_some(self.good + gap / 2)
            }
        }
    }

    /// Says how a size went.
    pub fn record(&mut self, size: u32, holds: bool) {
        match holds {
            true => {
                self.good = self.good.max(size);
                self.next = size.saturating_mul(2).min(self.max);
            }
            false => self.bad = Some(self.bad.map_or(size, |bad| bad.min(size))),
        }
    }
}

/// How one size went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Rooms, or participants of the last role.
    pub size: u32,
    /// Participants in all rooms.
    pub participants: u64,
    /// Streams received.
    pub streams: u64,
    /// RTP packets a second that the testers received.
    pub packets_per_s: f64,
    /// Loss after recovery in percent.
    pub loss_percent: f64,
    /// Delay at p99 in milliseconds, the worse of sound and pictures.
    pub delay_p99_ms: f64,
    /// Join time at p95 in milliseconds.
    pub join_p95_ms: f64,
    /// Cores used by the relay's process.
    pub relay_cores: Option<f64>,
    /// Share of a core used by its busiest media thread.
    pub relay_shard: Option<f64>,
    /// Share of its core used by the tester's busiest thread.
    pub tester_cpu: f64,
    /// All objectives hold.
    pub holds: bool,
    /// Objectives that broke.
    pub broken: Vec<String>,
    /// Why the step says nothing about the relay.
    pub invalid: Vec<String>,
}

impl Step {
    /// From a run's report.
    pub fn of(size: u32, report: &Report) -> Self {
        let relay = report.relay.as_ref();
        let broken = report.objectives.iter().filter(|o| !o.holds);
        Self {
            size,
            participants: report.participants,
            streams: report.all.streams,
            packets_per_s: report.packets_per_s,
            loss_percent: report.all.loss_percent,
            delay_p99_ms: report.audio.delay_ms.p99.max(report.video.delay_ms.p99),
            join_p95_ms: report.joins.total_ms.p95,
            relay_cores: relay.and_then(|r| r.cpu_cores),
            relay_shard: relay.and_then(|r| r.shard_cpu),
            tester_cpu: report.tester.busiest_cpu,
            holds: report.holds(),
            broken: broken
                .map(|o| format!("{}: {:.2} {}", o.name, o.value, o.unit).trim_end().to_owned())
                .collect(),
            invalid: report.invalid.clone(),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// Name of the scenario.
    pub scenario: String,
    /// What grew.
    pub grow: Grow,
    /// Sizes tried, in that order.
    pub steps: Vec<Step>,
}

impl Capacity {
    /// The largest size at which all objectives held in a valid run.
    pub fn carries(&self) -> Option<&Step> {
        self.steps.iter().filter(|s| s.holds && s.invalid.is_empty()).max_by_key(|s| s.size)
    }

    /// The smallest size that did not hold, or said nothing.
    pub fn limit(&self) -> Option<&Step> {
        self.steps.iter().filter(|s| !s.holds || !s.invalid.is_empty()).min_by_key(|s| s.size)
    }

    /// Whether the limit found is the relay's.
    pub fn is_answer(&self) -> bool {
        self.carries().is_some() && self.limit().is_some_and(|s| s.invalid.is_empty())
    }

    /// Why it goes no further.
    pub fn reason(&self) -> String {
        let Some(limit) = self.limit() else {
            return "no limit up to the largest size tried: raise --max".to_owned();
        };
        if !limit.invalid.is_empty() {
            return format!("the tester's limit, not the relay's: {}", limit.invalid.join("; "));
        }
        let mut reason = limit.broken.join("; ");
        match limit.relay_shard {
            Some(shard) if shard >= FULL => {
                reason +=
                    &format!(". The relay's busiest media thread used {:.0} % of its core", shard * 100.0);
            }
            Some(shard) => {
                reason += &format!(
                    ". The relay's busiest media thread used {:.0} % of its core: look at the machine around it (other load, \
                     network, buffers)",
                    shard * 100.0
                );
            }
            None => {}
        }
        reason
    }

    /// For people.
    pub fn summary(&self) -> String {
        let mut out = format!(
            "\n{:>6} {:>13} {:>8} {:>11} {:>8} {:>10} {:>9} {:>8}\n",
            "size", "participants", "streams", "packets/s", "loss %", "delay p99", "join p95", "relay"
        );
        for s in &self.steps {
            let relay =
                s.relay_shard.or(s.relay_cores).map_or("-".to_owned(), |c| format!("{:.0} %", c * 100.0));
            let word = match (s.invalid.is_empty(), s.holds) {
                (false, _) => "INVALID",
                (true, true) => "holds",
                (true, false) => "BROKEN",
            };
            out += &format!(
                "{:>6} {:>13} {:>8} {:>11.0} {:>8.3} {:>10.1} {:>9.0} {:>8} {word}\n",
                s.size,
                s.participants,
                s.streams,
                s.packets_per_s,
                s.loss_percent,
                s.delay_p99_ms,
                s.join_p95_ms,
                relay
            );
        }
        match self.carries() {
            Some(s) => {
                out += &format!(
                    "\ncarries {} participants, {} streams, {:.0} packets/s\n",
                    s.participants, s.streams, s.packets_per_s
                );
            }
            None => out += "\nnot even the smallest size held\n",
        }
        out + &format!("limit   {}\n", self.reason())
    }

    /// Delay and CPU against the load.
    pub fn charts(&self) -> Vec<Chart> {
        let steps = &self.steps;
        let line = |of: &dyn Fn(&Step) -> Option<(f64, f64)>| -> Vec<(f64, f64)> {
            let mut line: Vec<_> = steps.iter().filter_map(of).collect();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            line
        };
        let chart = |title: &str, x: &str, y: &str, lines: Vec<(&str, Vec<(f64, f64)>)>| Chart {
            title: title.into(),
            x: x.into(),
            y: y.into(),
            lines: lines
                .into_iter()
                .filter(|(_, line)| !line.is_empty())
                .map(|(name, line)| (name.to_owned(), line))
                .collect(),
        };
        let percent = |of: Option<f64>, s: &Step| of.map(|v| (s.packets_per_s, v * 100.0));
        vec![
            chart(
                "Capacity: delay against participants",
                "participants",
                "ms",
                vec![("delay p99", line(&|s| Some((s.participants as f64, s.delay_p99_ms))))],
            ),
            chart(
                "CPU against load",
                "packets/s",
                "% of a core",
                vec![
                    ("relay's busiest thread", line(&|s| percent(s.relay_shard, s))),
                    ("relay's process", line(&|s| percent(s.relay_cores, s))),
                    ("tester's busiest thread", line(&|s| percent(Some(s.tester_cpu), s))),
                ],
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::ready;

    fn find(limit: u32, start: u32, max: u32, tolerance: f64) -> (u32, Vec<u32>) {
        let mut search = Search::new(start, max, tolerance);
        let mut tried = Vec::new();
        while let Some(size) = search.next() {
            assert!(!tried.contains(&size), "{size} twice: {tried:?}");
            tried.push(size);
            search.record(size, size <= limit);
        }
        (search.good, tried)
    }

    #[test]
    fn the_search_finds_the_limit() {
        assert_eq!(find(37, 1, 1000, 0.0).0, 37);
        assert_eq!(find(1, 4, 1000, 0.0).0, 1);
        assert_eq!(find(0, 4, 1000, 0.0).0, 0);
        assert_eq!(find(5000, 1, 100, 0.0), (100, vec![1, 2, 4, 8, 16, 32, 64, 100]));
        let (good, tried) = find(777, 10, 10_000, 0.05);
        assert!((700..=777).contains(&good) && tried.len() < 14, "{good} {tried:?}");
    }

    #[test]
    fn scenarios_grow_by_rooms_or_by_participants() {
        let webinar = ready("webinar").unwrap();
        assert_eq!(Grow::Participants.scale(&webinar, 40).participants(), 41);
        let visits = Grow::Rooms.scale(&ready("one-to-one").unwrap(), 100);
        assert_eq!((visits.participants(), visits.ramp), (200, Span::ms(10_000)));
    }

    #[test]
    fn the_reason_tells_the_relays_limit_from_the_testers() {
        let step = |size, holds, invalid: &[&str], shard| Step {
            size,
            holds,
            broken: if holds { vec![] } else { vec!["delay p99: 80.00 ms".into()] },
            invalid: invalid.iter().map(|i| (*i).to_owned()).collect(),
            relay_shard: shard,
            ..Step::default()
        };
        let found = Capacity {
            steps: vec![step(4, true, &[], None), step(8, false, &[], Some(0.97))],
            ..Capacity::default()
        };
        assert_eq!(found.carries().unwrap().size, 4);
        assert!(found.is_answer() && found.reason().contains("97 %"), "{}", found.reason());
        assert!(found.summary().contains("limit   delay p99: 80.00 ms"), "{}", found.summary());
        let late = Capacity { steps: vec![step(4, true, &["late"], None)], ..Capacity::default() };
        assert!(!late.is_answer() && late.reason().contains("tester's limit"));
    }
}
