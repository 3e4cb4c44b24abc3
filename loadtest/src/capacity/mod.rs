//! How much a relay carries: raises the load until an objective breaks, then halves the gap between what held and what
//! did not.

mod search;

use serde::{Deserialize, Serialize};

pub use self::search::Search;
use crate::report::{Chart, MAX_TESTER_CPU, Mark, Report};
use crate::run::NobodyJoined;
use crate::scenario::{Scenario, Span};

/// Joins a second while the load builds up: a storm of joins is a test of its own.
const JOINS_PER_SECOND: u64 = 20;
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
        let ramp = scenario.participants().saturating_mul(1000) / JOINS_PER_SECOND;
        scenario.ramp = base.ramp.max(Span::ms(ramp));
        scenario
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
    /// Cores used by all threads of all testers.
    pub tester_cores: f64,
    /// All objectives hold.
    pub holds: bool,
    /// Objectives that broke.
    pub broken: Vec<String>,
    /// Why the step says nothing about the relay.
    pub invalid: Vec<String>,
    /// What makes it invalid may be over by the next try.
    #[serde(skip)]
    pub passing: bool,
    /// Why the size was run again, in place of this; empty where this counts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub repeated: String,
}

/// How one size went, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All objectives hold.
    Holds,
    /// One is broken.
    Broken,
    /// It says nothing about the relay.
    Invalid,
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
            tester_cores: report.tester.cores,
            holds: report.holds(),
            broken: broken
                .map(|o| format!("{}: {:.2} {}", o.name, o.value, o.unit).trim_end().to_owned())
                .collect(),
            invalid: report.invalid.clone(),
            passing: report.passing,
            repeated: String::new(),
        }
    }

    /// Of a run that could not be made.
    pub fn failed(size: u32, scenario: &Scenario, why: &anyhow::Error) -> Self {
        let step = Self { size, participants: scenario.participants(), ..Self::default() };
        let said = vec![format!("{why:#}")];
        // At a smaller size somebody could: that is the relay's doing, or that of what stands before it.
        match why.downcast_ref::<NobodyJoined>() {
            Some(_) => Self { broken: said, ..step },
            None => Self { invalid: said, ..step },
        }
    }

    /// How it went.
    pub fn verdict(&self) -> Verdict {
        match (self.invalid.is_empty(), self.holds) {
            (false, _) => Verdict::Invalid,
            (true, true) => Verdict::Holds,
            (true, false) => Verdict::Broken,
        }
    }

    /// What broke, or what makes it invalid.
    pub fn why(&self) -> String {
        if self.invalid.is_empty() { self.broken.join("; ") } else { self.invalid.join("; ") }
    }

    /// The size was not run again.
    pub fn counts(&self) -> bool {
        self.repeated.is_empty()
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
    /// Sizes tried, in that order; some of them more than once.
    pub steps: Vec<Step>,
}

impl Capacity {
    /// The largest size at which all objectives held in a valid run.
    pub fn carries(&self) -> Option<&Step> {
        self.counted().filter(|s| s.verdict() == Verdict::Holds).max_by_key(|s| s.size)
    }

    /// The smallest size that did not hold, or said nothing.
    pub fn limit(&self) -> Option<&Step> {
        self.counted().filter(|s| s.verdict() != Verdict::Holds).min_by_key(|s| s.size)
    }

    fn counted(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|s| s.counts())
    }

    /// Which steps were run again, and why.
    pub fn repeated(&self) -> Vec<String> {
        let again = self.steps.iter().filter(|s| !s.counts());
        again.map(|s| format!("size {} was run again: {}", s.size, s.repeated)).collect()
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
            return format!("not the relay's at size {}: {}", limit.size, limit.invalid.join("; "));
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

    /// What was found, as a class of the page and in words.
    pub fn answer(&self) -> (&'static str, String) {
        match (self.carries(), self.limit()) {
            (Some(s), _) => {
                let (class, least) = if self.is_answer() { ("good", "") } else { ("void", "at least ") };
                let text = format!(
                    "carries {least}{} participants, {} streams, {:.0} packets/s",
                    s.participants, s.streams, s.packets_per_s
                );
                (class, text)
            }
            (None, Some(limit)) if limit.invalid.is_empty() => {
                ("bad", "not even the smallest size held".to_owned())
            }
            (None, _) => ("void", "no size was tried in a valid run: nothing can be said".to_owned()),
        }
    }

    /// What to do where the testers gave out before the relay.
    pub fn advice(&self) -> Vec<String> {
        let gave_out = |s: &Step| s.invalid.iter().any(|doubt| doubt.starts_with("the tester"));
        if !self.limit().is_some_and(gave_out) {
            return Vec::new();
        }
        let mut advice = vec![
            "The testers gave out before the relay. Keep them off the relay's machine: start `loadtest agent` on others, and \
             name each here with --agent HOST:PORT"
                .to_owned(),
        ];
        if let Some(s) = self.carries()
            && let Some(shard) = s.relay_shard.filter(|shard| *shard > 0.02)
        {
            advice.push(format!(
                "At {} participants the relay's busiest media thread used {:.0} % of its core, and the testers {:.1} cores: by \
                 proportion {:.0} cores of testers would fill that thread",
                s.participants,
                shard * 100.0,
                s.tester_cores,
                (s.tester_cores / shard / MAX_TESTER_CPU).ceil()
            ));
        }
        advice
    }

    /// For people.
    pub fn summary(&self) -> String {
        let mut out = format!(
            "\n{:>6} {:>13} {:>8} {:>11} {:>8} {:>10} {:>9} {:>8} {:>8}\n",
            "size",
            "participants",
            "streams",
            "packets/s",
            "loss %",
            "delay p99",
            "join p95",
            "relay",
            "tester"
        );
        for s in &self.steps {
            let relay =
                s.relay_shard.or(s.relay_cores).map_or("-".to_owned(), |c| format!("{:.0} %", c * 100.0));
            out += &format!(
                "{:>6} {:>13} {:>8} {:>11.0} {:>8.3} {:>10.1} {:>9.0} {:>8} {:>8} {}\n",
                s.size,
                s.participants,
                s.streams,
                s.packets_per_s,
                s.loss_percent,
                s.delay_p99_ms,
                s.join_p95_ms,
                relay,
                format!("{:.0} %", s.tester_cpu * 100.0),
                match (s.counts(), s.verdict()) {
                    (false, _) => "run again",
                    (true, Verdict::Holds) => "holds",
                    (true, Verdict::Broken) => "BROKEN",
                    (true, Verdict::Invalid) => "INVALID",
                }
            );
        }
        out += &format!("\n{}\nlimit   {}\n", self.answer().1, self.reason());
        for repeated in self.repeated() {
            out += &format!("again   {repeated}\n");
        }
        for advice in self.advice() {
            out += &format!("advice  {advice}\n");
        }
        out
    }

    /// Delay and loss against participants, with their limits, and CPU against load.
    pub fn charts(&self, max_delay: Option<f64>, max_loss: Option<f64>) -> Vec<Chart> {
        // Not those that could not be made, nor those that do not count.
        let run = || self.counted().filter(|s| s.streams > 0);
        let line = |of: &dyn Fn(&Step) -> Option<(f64, f64)>| -> Vec<(f64, f64)> {
            let mut line: Vec<_> = run().filter_map(of).collect();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            line
        };
        let curve = |title: &str, unit: &str, name: &str, of: fn(&Step) -> f64| {
            let mark = |s: &Step| match s.verdict() {
                Verdict::Holds => Mark::Good,
                Verdict::Broken => Mark::Bad,
                Verdict::Invalid => Mark::Void,
            };
            Chart {
                marks: run().map(|s| (s.participants as f64, of(s), mark(s))).collect(),
                ..Chart::of(
                    title,
                    "participants",
                    unit,
                    vec![(name, line(&|s| Some((s.participants as f64, of(s)))))],
                )
            }
        };
        let percent = |of: Option<f64>, s: &Step| of.map(|v| (s.packets_per_s, v * 100.0));
        vec![
            Chart {
                limit: max_delay,
                logarithmic: true,
                ..curve("Capacity: delay p99", "ms", "delay p99", |s| s.delay_p99_ms)
            },
            Chart {
                limit: max_loss,
                ..curve("Capacity: loss after recovery", "% of packets", "lost", |s| s.loss_percent)
            },
            Chart::of(
                "CPU against load",
                "packets/s received",
                "% of a core",
                vec![
                    ("relay's busiest media thread", line(&|s| percent(s.relay_shard, s))),
                    ("relay's process", line(&|s| percent(s.relay_cores, s))),
                    ("tester's busiest thread", line(&|s| percent(Some(s.tester_cpu), s))),
                ],
            ),
            curve("Join time", "ms at p95", "join p95", |s| s.join_p95_ms),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::ready;

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
        assert_eq!((found.answer().0, found.advice()), ("good", vec![]));
        let small = Capacity { steps: vec![step(4, false, &[], None)], ..Capacity::default() };
        assert_eq!(small.answer(), ("bad", "not even the smallest size held".to_owned()));

        let late = "the tester itself was late: its timers fired 40.0 ms late at p99";
        let mut good = step(4, true, &[], Some(0.25));
        good.tester_cores = 0.5;
        let steps = vec![good, step(8, false, &[late], Some(0.5))];
        let late = Capacity { steps, ..Capacity::default() };
        assert!(!late.is_answer() && late.reason().starts_with("not the relay's at size 8: the tester"));
        assert_eq!(late.answer().0, "void");
        let said = late.summary();
        assert!(
            said.contains("carries at least 0 participants") && said.contains("`loadtest agent`"),
            "{said}"
        );
        // Half a core of testers for a quarter of the thread, each used to 85 %: 2.4 cores.
        assert!(said.contains("by proportion 3 cores of testers"), "{said}");
        let stopped = Capacity {
            steps: vec![step(4, true, &["the run was interrupted"], None)],
            ..Capacity::default()
        };
        assert!(stopped.advice().is_empty() && stopped.answer().1.contains("nothing can be said"));
    }
}
