//! What a run means: sums, objectives, and whether the run may be believed.

mod chart;
mod compare;
mod html;
mod junit;
mod objectives;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::chart::{Chart, Mark};
pub use self::compare::compare;
pub use self::html::html;
pub use self::junit::junit;
pub use self::objectives::{Objective, Objectives};
pub use self::text::{human_rate, summary};
use crate::measure::{Dist, JoinOutcome, Kind, KindTotals, Quantiles, StreamResult, Tester};
use crate::run::{Outcome, RelaySample, RelayUse, relay_use};
use crate::scenario::Scenario;

/// Version of the report's JSON. A number is added when a field changes its meaning or goes.
pub const FORMAT: u32 = 1;
/// A tester's thread that uses more of its core than this may have been what was measured.
pub(crate) const MAX_TESTER_CPU: f64 = 0.85;
/// The same for timers later than this, in milliseconds, at p99.
const MAX_LOOP_DELAY_MS: f64 = 10.0;
/// The same where it stood still once for longer than a freeze, in milliseconds, and for more than this share of the window: half
/// of what the objectives allow to be frozen or late.
const MAX_STANDSTILL_MS: f64 = 200.0;
const MAX_STANDSTILL: f64 = 0.005;
/// The same for this share of frames made late or dropped at the tester's own sockets.
const MAX_OWN_LOSS: f64 = 0.0005;

/// Phases of joining, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Joins {
    /// Joins that went well, and that did not.
    pub joined: u64,
    /// See `joined`.
    pub failed: u64,
    /// Why they failed, with how often.
    pub reasons: BTreeMap<String, u64>,
    /// From the start until all connections are up.
    pub total_ms: Quantiles,
    /// TCP, TLS, WebSocket.
    pub connect_ms: Quantiles,
    /// From there to the join response.
    pub admit_ms: Quantiles,
    /// From there until ICE and DTLS are done on all connections.
    pub transport_ms: Quantiles,
    /// From the start to the first frame of others.
    pub first_media_ms: Quantiles,
}

/// What happened in one second of the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// Participants in their rooms.
    pub present: u64,
    /// RTP packets received and sent by the testers.
    pub packets: u64,
    /// See `packets`.
    pub sent_packets: u64,
    /// Packets given up.
    pub lost: u64,
    /// Bits received, and bits of frames shown against expected.
    pub bits: f64,
    /// See `bits`.
    pub shown_bits: f64,
    /// See `bits`.
    pub expected_bits: f64,
    /// Gaps over 200 ms that ended.
    pub freezes: u64,
    /// Delay of all frames in milliseconds.
    pub delay_p50_ms: f64,
    /// See `delay_p50_ms`.
    pub delay_p99_ms: f64,
}

/// The tester's own state over the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TesterUse {
    /// Threads.
    pub threads: u64,
    /// Share of its core that the busiest thread used.
    pub busiest_cpu: f64,
    /// Cores used by all threads.
    pub cores: f64,
    /// How late timers fired, in milliseconds.
    pub loop_delay_ms: Quantiles,
    /// Frames made more than 100 ms late.
    pub late_frames: u64,
    /// Datagrams that its sockets did not take, outward.
    pub unsent: u64,
    /// Datagrams that its sockets dropped, inward.
    pub dropped: u64,
}

/// A run's report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// See [`FORMAT`].
    pub format: u32,
    /// Version of the tool.
    pub tool: String,
    /// Name of the scenario.
    pub scenario: String,
    /// Seconds since 1970.
    pub started_unix: u64,
    /// Length of the window in seconds.
    pub window_s: f64,
    /// Rooms and participants planned.
    pub rooms: u64,
    /// See `rooms`.
    pub participants: u64,
    /// Joining.
    pub joins: Joins,
    /// Sound.
    pub audio: KindTotals,
    /// Pictures.
    pub video: KindTotals,
    /// Sound and pictures.
    pub all: KindTotals,
    /// RTP packets a second received by all.
    pub packets_per_s: f64,
    /// RTP packets a second sent by all.
    pub sent_packets_per_s: f64,
    /// Bits a second of RTP payload received by all.
    pub bits_per_s: f64,
    /// From when video could flow to the first picture, in milliseconds.
    pub key_wait_ms: Quantiles,
    /// From asking for another layer to its first picture, in milliseconds.
    pub layer_wait_ms: Quantiles,
    /// Lengths of gaps over 200 ms, in milliseconds.
    pub freeze_ms: Quantiles,
    /// Key frames that the relay asked of publishers.
    pub key_frames_wanted: u64,
    /// Disconnects that nobody asked for, by reason.
    pub disconnects: BTreeMap<String, u64>,
    /// The relay's own figures.
    pub relay: Option<RelayUse>,
    /// The tester's own.
    pub tester: TesterUse,
    /// The objectives, and whether they hold.
    pub objectives: Vec<Objective>,
    /// Why the figures say nothing about the relay; empty for a valid run.
    pub invalid: Vec<String>,
    /// All of that may be over by the next run: that the machine stood still, say. Too few cores stay too few.
    #[serde(skip)]
    pub passing: bool,
    /// The window, second by second.
    pub seconds: Vec<Point>,
    /// The relay's counters, second by second.
    pub relay_samples: Vec<RelaySample>,
    /// Distribution of the delay of sound: microseconds and frames.
    pub audio_delay: Dist,
    /// The same of pictures.
    pub video_delay: Dist,
    /// Each received stream.
    pub streams: Vec<StreamResult>,
}

impl Report {
    /// Works the report out.
    pub fn new(scenario: &Scenario, outcome: Outcome, objectives: &Objectives) -> Self {
        let Outcome { tally, relay, window_s, started_unix } = outcome;
        let (mut audio_delay, mut video_delay) = (Dist::default(), Dist::default());
        for second in &tally.seconds {
            audio_delay.merge(&second.audio);
            video_delay.merge(&second.video);
        }
        let mut all_delay = audio_delay.clone();
        all_delay.merge(&video_delay);
        let of = |kind, delay: &Dist| KindTotals::of(tally.streams.iter().filter(|s| s.kind == kind), delay);
        let sum = |of: fn(&crate::measure::Second) -> u64| tally.seconds.iter().map(of).sum::<u64>() as f64;
        let mut report = Self {
            format: FORMAT,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: scenario.name.clone(),
            started_unix,
            window_s,
            rooms: scenario.room_count(),
            participants: tally.participants,
            joins: joins(&tally.joins),
            audio: of(Kind::Audio, &audio_delay),
            video: of(Kind::Video, &video_delay),
            all: KindTotals::of(tally.streams.iter(), &all_delay),
            packets_per_s: sum(|s| s.packets) / window_s,
            sent_packets_per_s: sum(|s| s.sent_packets) / window_s,
            bits_per_s: sum(|s| s.bytes) * 8.0 / window_s,
            key_wait_ms: (&tally.key_wait).into(),
            layer_wait_ms: (&tally.layer_wait).into(),
            freeze_ms: (&tally.freeze).into(),
            key_frames_wanted: tally.key_frames_wanted,
            disconnects: tally.disconnects,
            relay: relay_use(&relay),
            tester: tester_use(&tally.testers),
            objectives: Vec::new(),
            invalid: tally.doubts,
            passing: false,
            seconds: tally.seconds.iter().map(Point::from).collect(),
            relay_samples: relay,
            audio_delay,
            video_delay,
            streams: tally.streams,
        };
        report.doubt();
        report.objectives = objectives.or(&scenario.objectives).judge(&report);
        report
    }

    /// Whether the figures say something about the relay.
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }

    /// Whether all objectives hold.
    pub fn holds(&self) -> bool {
        self.objectives.iter().all(|o| o.holds)
    }

    /// Finds what makes the figures doubtful.
    fn doubt(&mut self) {
        let t = &self.tester;
        let future: u64 = self.streams.iter().map(|s| s.from_the_future).sum();
        self.passing = self.invalid.is_empty() && t.busiest_cpu <= MAX_TESTER_CPU && future == 0;
        let mut say = |doubt: String| self.invalid.push(doubt);
        if t.busiest_cpu > MAX_TESTER_CPU {
            say(format!(
                "the tester itself was the bottleneck: a thread used {:.0} % of its core. Use more threads (--threads), \
                 more machines (`loadtest agent`), or fewer participants",
                t.busiest_cpu * 100.0
            ));
        }
        if t.loop_delay_ms.p99 > MAX_LOOP_DELAY_MS {
            say(format!(
                "the tester itself was late: its timers fired {:.1} ms late at p99. Delays measured hold that too. Give it \
                 cores of its own",
                t.loop_delay_ms.p99
            ));
        }
        if t.loop_delay_ms.max > MAX_STANDSTILL_MS.max(self.window_s * 1000.0 * MAX_STANDSTILL) {
            say(format!(
                "the tester stood still for {:.0} ms: something else had its cores, or the machine was suspended. Gaps and delays \
                 of that length may be its own. Give it cores of its own, and run it again",
                t.loop_delay_ms.max
            ));
        }
        let made = (self.sent_packets_per_s * self.window_s).max(1.0);
        if t.late_frames as f64 / made > MAX_OWN_LOSS || t.unsent as f64 / made > MAX_OWN_LOSS {
            say(format!(
                "the tester could not send in time: {} frames late, {} datagrams not taken by its own sockets. Give it \
                 cores of its own, or fewer participants",
                t.late_frames, t.unsent
            ));
        }
        if t.dropped as f64 / (self.packets_per_s * self.window_s).max(1.0) > MAX_OWN_LOSS {
            say(format!(
                "the tester dropped {} datagrams at its own sockets: raise net.core.rmem_max, or use more threads",
                t.dropped
            ));
        }
        if future > 0 {
            say(format!(
                "{future} frames arrived before they were sent: the testers' clocks do not agree. Let NTP set them before the \
                 run, and nothing step them during it"
            ));
        }
    }
}

impl From<&crate::measure::Second> for Point {
    fn from(s: &crate::measure::Second) -> Self {
        let mut delay = s.audio.clone();
        delay.merge(&s.video);
        Self {
            present: s.present,
            packets: s.packets,
            sent_packets: s.sent_packets,
            lost: s.lost,
            bits: s.bytes as f64 * 8.0,
            shown_bits: s.shown_bytes as f64 * 8.0,
            expected_bits: s.expected_bytes as f64 * 8.0,
            freezes: s.freezes,
            delay_p50_ms: delay.ms(0.5),
            delay_p99_ms: delay.ms(0.99),
        }
    }
}

fn joins(all: &[crate::measure::Join]) -> Joins {
    let mut joins = Joins::default();
    let mut dists: [Dist; 5] = Default::default();
    for join in all {
        match &join.outcome {
            JoinOutcome::Joined => {
                joins.joined += 1;
                let [total, connect, admit, transport, media] = &mut dists;
                total.record(join.total_us());
                connect.record(join.connect_us);
                admit.record(join.admit_us);
                transport.record(join.transport_us);
                if let Some(first) = join.first_media_us {
                    media.record(first);
                }
            }
            JoinOutcome::Failed(reason) => {
                joins.failed += 1;
                *joins.reasons.entry(reason.clone()).or_default() += 1;
            }
        }
    }
    let [total, connect, admit, transport, media] = &dists;
    joins.total_ms = total.into();
    joins.connect_ms = connect.into();
    joins.admit_ms = admit.into();
    joins.transport_ms = transport.into();
    joins.first_media_ms = media.into();
    joins
}

fn tester_use(testers: &[Tester]) -> TesterUse {
    let mut delay = Dist::default();
    testers.iter().for_each(|t| delay.merge(&t.loop_delay));
    TesterUse {
        threads: testers.len() as u64,
        busiest_cpu: testers.iter().map(|t| t.cpu).fold(0.0, f64::max),
        cores: testers.iter().map(|t| t.cpu).sum(),
        loop_delay_ms: (&delay).into(),
        late_frames: testers.iter().map(|t| t.late_frames).sum(),
        unsent: testers.iter().map(|t| t.unsent).sum(),
        dropped: testers.iter().map(|t| t.dropped).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Report);

    #[test]
    fn a_run_in_which_the_tester_was_the_bottleneck_is_not_valid_and_says_what_to_do() {
        let good =
            Report { window_s: 10.0, packets_per_s: 1000.0, sent_packets_per_s: 1000.0, ..Report::default() };
        let doubts = |change: Change| {
            let mut report = good.clone();
            change(&mut report);
            report.doubt();
            report.invalid
        };
        assert!(doubts(|r| r.tester.busiest_cpu = 0.8).is_empty());
        assert!(doubts(|r| r.tester.loop_delay_ms.max = 150.0).is_empty());
        assert!(doubts(|r| (r.window_s, r.tester.loop_delay_ms.max) = (60.0, 290.0)).is_empty());
        let cases: [(Change, &str, &str); 7] = [
            (|r| r.tester.busiest_cpu = 0.9, "a thread used 90 % of its core", "--threads"),
            (|r| r.tester.loop_delay_ms.p99 = 12.0, "timers fired 12.0 ms late", "cores of its own"),
            (|r| r.tester.loop_delay_ms.max = 210.0, "stood still for 210 ms", "cores of its own"),
            (|r| r.tester.late_frames = 6, "6 frames late", "fewer participants"),
            (|r| r.tester.unsent = 6, "6 datagrams not taken by its own sockets", "fewer participants"),
            (|r| r.tester.dropped = 6, "dropped 6 datagrams at its own sockets", "rmem_max"),
            (
                |r| r.streams.push(StreamResult { from_the_future: 3, ..StreamResult::default() }),
                "3 frames arrived before they were sent",
                "NTP",
            ),
        ];
        for (change, cause, remedy) in cases {
            let said = doubts(change);
            let mut report = good.clone();
            change(&mut report);
            report.doubt();
            assert_eq!(report.passing, !["--threads", "NTP"].contains(&remedy), "{cause}");
            assert!(
                said.len() == 1 && said[0].contains(cause) && said[0].contains(remedy),
                "{cause}: {said:?}"
            );
        }
    }
}
