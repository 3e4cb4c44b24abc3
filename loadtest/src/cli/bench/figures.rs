//! What a measurement brings.

use std::time::Duration;

use loadtest::measure::{Dist, Second};
use loadtest::report::Report;
use loadtest::scenario::Scenario;
use serde::Serialize;

/// One line of the result.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) shape: String,
    /// Server CPU for each RTP packet that it sent, in the window.
    pub(super) cpu_us_per_packet: Option<f64>,
    /// Sound: one packet, from the sender's socket to the receiver's.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Pictures: from a frame's first packet to its last.
    frame_p50_us: f64,
    frame_p99_us: f64,
    rss_mib: Option<f64>,
    pub(super) loss_pct: f64,
    packets_per_s: Option<f64>,
    wakeups_per_s: Option<f64>,
    wakeups_per_packet: Option<f64>,
    cores: Option<f64>,
    shard_cores: Option<f64>,
    joins: u64,
    failed_joins: u64,
    join_p50_ms: f64,
    join_p99_ms: f64,
    /// For shapes that are about joins: server CPU for each, beyond what the call takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms_per_join: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joins_per_s_per_core: Option<f64>,
    /// .. and the p99 of the delay of the call's sound beside them: in the seconds in which they joined, and in the quiet ones
    /// before.
    #[serde(skip_serializing_if = "Option::is_none")]
    storm_p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quiet_p99_us: Option<f64>,
    /// .. The sender's own part of it while they joined, and how many packets of sound came then in each second.
    #[serde(skip_serializing_if = "Option::is_none")]
    storm_sender_p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storm_sounds_per_s: Option<f64>,
    /// How busy the busiest thread of the bots was.
    tester_cpu: f64,
    pub(super) doubts: Vec<String>,
}

/// When many join at once; zero where nobody does.
fn storm_at(scenario: &Scenario) -> Duration {
    let roles = scenario.rooms.iter().flat_map(|rooms| &rooms.roles);
    roles.map(|role| role.join_after.get()).max().unwrap_or_default()
}

impl Figures {
    pub(super) fn of(scenario: &Scenario, r: &Report) -> Self {
        let used = r.relay.clone().unwrap_or_default();
        let per_packet = |of: Option<f64>| Some(of? / used.packets_out.filter(|packets| *packets > 0.0)?);
        let mut figures = Self {
            shape: scenario.name.clone(),
            cpu_us_per_packet: per_packet(used.cpu_cores).map(|s| s * 1e6),
            p50_us: r.audio.delay_ms.p50 * 1e3,
            p99_us: r.audio.delay_ms.p99 * 1e3,
            frame_p50_us: r.video.delay_ms.p50 * 1e3,
            frame_p99_us: r.video.delay_ms.p99 * 1e3,
            rss_mib: used.memory.map(|bytes| bytes / 1_048_576.0),
            loss_pct: r.all.loss_percent,
            packets_per_s: used.packets_out,
            wakeups_per_s: used.wakes,
            wakeups_per_packet: per_packet(used.wakes),
            cores: used.cpu_cores,
            shard_cores: used.shard_cpu,
            joins: r.joins.joined,
            failed_joins: r.joins.failed,
            join_p50_ms: r.joins.total_ms.p50,
            join_p99_ms: r.joins.total_ms.p99,
            cpu_ms_per_join: None,
            joins_per_s_per_core: None,
            storm_p99_us: None,
            quiet_p99_us: None,
            storm_sender_p99_us: None,
            storm_sounds_per_s: None,
            tester_cpu: r.tester.busiest_cpu,
            doubts: r.invalid.clone(),
        };
        if scenario.measure_joining {
            figures.count_joins(scenario, r);
        }
        figures
    }

    /// How late sound was in the seconds of the storm, and in those before.
    pub(super) fn find_storm(&mut self, scenario: &Scenario, seconds: &[Second]) {
        let storm = storm_at(scenario);
        if storm.is_zero() {
            return;
        }
        // From when the first of them came to when the last was there.
        let (before, during) = seconds.split_at(seconds.len().min(storm.as_secs() as usize));
        let took = 1 + during.iter().take_while(|second| second.present < self.joins).count();
        let during = during.get(..took).unwrap_or(during);
        let all = |seconds: &[Second], of: fn(&Second) -> &Dist| {
            let mut all = Dist::default();
            seconds.iter().for_each(|second| all.merge(of(second)));
            all
        };
        let p99 = |all: &Dist| all.quantile(0.99).map(|micros| micros as f64);
        let sounds = all(during, |second| &second.audio);
        self.storm_p99_us = p99(&sounds);
        self.storm_sounds_per_s = Some(sounds.count() as f64 / during.len().max(1) as f64);
        self.storm_sender_p99_us = p99(&all(during, |second| &second.sending));
        // The call itself begins in the first ones.
        self.quiet_p99_us = p99(&all(before.get(4..).unwrap_or_default(), |second| &second.audio));
    }

    /// What the storm took beyond the call that runs beside it: the samples of the quiet seconds before say what that
    /// takes.
    fn count_joins(&mut self, scenario: &Scenario, r: &Report) {
        let storm = storm_at(scenario).as_secs_f64();
        let cpu = |from: f64, to: f64| {
            let mut inside = r.relay_samples.iter().filter(|s| (from..to).contains(&s.at_s));
            let (first, last) = (inside.next()?, inside.next_back()?);
            Some((last.cpu_s? - first.cpu_s?, last.at_s - first.at_s))
        };
        let (Some((quiet, time)), Some((all, long))) = (cpu(4.0, storm - 0.5), cpu(storm - 1.5, f64::MAX))
        else {
            return;
        };
        let joining: u32 = scenario
            .rooms
            .iter()
            .flat_map(|rooms| rooms.roles.iter().map(|role| (rooms.count, role)))
            .filter(|(_, role)| !role.join_after.get().is_zero())
            .map(|(rooms, role)| rooms * role.count)
            .sum();
        let took = (all - quiet / time * long) / f64::from(joining.max(1));
        self.cpu_ms_per_join = Some(took * 1e3);
        self.joins_per_s_per_core = Some(1.0 / took);
    }

    pub(super) fn print_head() {
        println!(
            "{:<28} {:>10} {:>8} {:>8} {:>9} {:>7} {:>9} {:>8} {:>8} {:>7} {:>8}",
            "shape",
            "us/packet",
            "p50 us",
            "p99 us",
            "frame p99",
            "RSS MiB",
            "packets/s",
            "wakes/s",
            "wakes/pk",
            "loss %",
            "joins"
        );
    }

    pub(super) fn print(&self) {
        let some =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
        println!(
            "{:<28} {:>10} {:>8.0} {:>8.0} {:>9.0} {:>7} {:>9} {:>8} {:>8} {:>7.3} {:>4}/{}",
            self.shape,
            some(self.cpu_us_per_packet, 2),
            self.p50_us,
            self.p99_us,
            self.frame_p99_us,
            some(self.rss_mib, 0),
            some(self.packets_per_s, 0),
            some(self.wakeups_per_s, 0),
            some(self.wakeups_per_packet, 3),
            self.loss_pct,
            self.joins,
            self.joins + self.failed_joins,
        );
        if let (Some(cpu), Some(rate)) = (self.cpu_ms_per_join, self.joins_per_s_per_core) {
            println!(
                "  {cpu:.2} ms of CPU a join, {rate:.0} joins/s a core; joins p50 {:.0} ms, p99 {:.0} ms",
                self.join_p50_ms, self.join_p99_ms
            );
        }
        if let (Some(storm), Some(quiet)) = (self.storm_p99_us, self.quiet_p99_us) {
            println!("  the call's sound, p99: {storm:.0} us while they joined, {quiet:.0} us before");
            println!(
                "  .. of it the sender's own part {} us; {} packets of sound came in each of these seconds",
                some(self.storm_sender_p99_us, 0),
                some(self.storm_sounds_per_s, 0)
            );
        }
        for doubt in &self.doubts {
            println!("  DOUBT {doubt}");
        }
    }
}
