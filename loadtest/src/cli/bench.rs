//! `loadtest bench`: what a whole relay process takes for each packet that it forwards, and for each join.
//!
//! Each shape has a `curtain-dev` of its own, so that memory and counters are of that shape alone, and the bots of this
//! process as its clients. CPU is the server's process from the scheduler's own counts, packets are those that it says it
//! sent, wake-ups are voluntary context switches of its threads. A packet's delay runs from the moment the bot hands it to
//! the socket to the moment the kernel queues it for the receiving bot (`SO_TIMESTAMPNS`): when the bot gets round to it
//! does not matter.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loadtest::measure::{Dist, Second};
use loadtest::report::{Objectives, Report};
use loadtest::run::{RelaySource, Share, Target, run as run_share};
use loadtest::scenario::{Resolution, Role, Rooms, Scenario, Span, Steady};
use loadtest::token::{ApiKey, Entry};
use serde::{Deserialize, Serialize};

use super::HOLDS;
use super::run::stop_signal;

/// How long the server may take to start.
const START: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server to start: the development host.
    #[arg(long, default_value = "target/release/curtain-dev")]
    host: PathBuf,
    /// Shards of the server.
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Only these shapes.
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<String>,
    /// How long each is measured.
    #[arg(long, default_value = "20s")]
    seconds: Span,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Wait so long after each measurement with the call still on (for a profiler), and say the server's process id.
    #[arg(long, hide = true)]
    hold: Option<Span>,
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Figures {
    shape: String,
    /// Server CPU for each RTP packet that it sent, in the window.
    cpu_us_per_packet: Option<f64>,
    /// Sound: one packet, from the sender's socket to the receiver's.
    p50_us: f64,
    p99_us: f64,
    /// Pictures: from a frame's first packet to its last.
    frame_p50_us: f64,
    frame_p99_us: f64,
    rss_mib: Option<f64>,
    loss_pct: f64,
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
    doubts: Vec<String>,
}

/// What is measured, with what it shows.
fn shapes() -> Vec<(&'static str, Scenario)> {
    // 260 packets of a picture and 50 of sound: 1140 bytes of payload are 1180 with header, extensions and tag.
    let steady = Some(Steady { packets: 260, payload: 1140 });
    let publisher =
        |count| Role { steady, muted: 0.0, ..Role::speaking(count, Some(Resolution::P720), true) };
    let camera = |count, bitrate| Role {
        simulcast: false,
        bitrate: Some(bitrate),
        muted: 0.0,
        ..Role::speaking(count, Some(Resolution::P720), true)
    };
    let watchers = |count| Role::speaking(count, None, false);
    let scenario = |count, roles| Scenario {
        ramp: Span::ms(4_000),
        settle: Span::ms(8_000),
        rooms: vec![Rooms { count, roles }],
        ..Scenario::simple(1, Vec::new())
    };
    let storm = |joining: u32| Scenario {
        // The storm breaks when the call has run for a while: its bots are the last of the ramp.
        ramp: Span::ms(0),
        settle: Span::ms(0),
        measure_joining: true,
        rooms: vec![
            Rooms { count: 1, roles: vec![publisher(1), watchers(10)] },
            Rooms { count: joining / 50, roles: vec![Role { join_after: Span::ms(10_000), ..watchers(50) }] },
        ],
        ..Scenario::simple(1, Vec::new())
    };
    vec![
        ("1:10", scenario(1, vec![publisher(1), watchers(10)])),
        ("1:25", scenario(1, vec![publisher(1), watchers(25)])),
        ("1:50", scenario(1, vec![publisher(1), watchers(50)])),
        ("4x4", scenario(4, vec![publisher(4)])),
        ("a: 2.5 Mbit/s + Opus to 50", scenario(1, vec![camera(1, 2_500_000), watchers(50)])),
        ("b: 25 rooms of 4", Scenario { ramp: Span::ms(10_000), ..scenario(25, vec![camera(4, 450_000)]) }),
        (
            "room of 1000",
            Scenario {
                ramp: Span::ms(25_000),
                ..scenario(1, vec![Role { steady: None, video: None, ..publisher(1) }, watchers(999)])
            },
        ),
        ("storm of 1000 beside 1:10", storm(1000)),
    ]
}

/// What the host prints when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    ws: String,
    api_key: String,
    api_secret: String,
    metrics: String,
}

/// A server that ends with this.
struct Host {
    child: Child,
    folder: PathBuf,
    ready: Ready,
}

impl Host {
    async fn start(program: &Path, shards: usize) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("curtain-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join("ready.json");
        let child = Command::new(program)
            .args([
                "--json",
                "--http-port",
                "0",
                "--sfu-http-port",
                "0",
                "--udp-port",
                "0",
                "--control-port",
                "0",
            ])
            .args(["--page", "no-page", "--shards", &shards.to_string()])
            .arg("--data-dir")
            .arg(&folder)
            .stdout(std::fs::File::create(&file)?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let until = Instant::now() + START;
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Ok(ready) = serde_json::from_str(&text) {
                return Ok(Self { child, folder, ready });
            }
            if Instant::now() > until {
                let mut child = child;
                let _ = child.kill();
                bail!("{} does not start", program.display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn target(&self) -> anyhow::Result<Target> {
        Ok(Target {
            url: self.ready.ws.clone(),
            trust: None,
            entry: Entry::Key(ApiKey {
                name: self.ready.api_key.clone(),
                secret: self.ready.api_secret.clone(),
            }),
            local: loadtest::run::local_towards(&self.ready.ws)?,
            threads: 0,
            relay: RelaySource { metrics: Some(self.ready.metrics.clone()), pid: Some(self.child.id()) },
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shapes = shapes();
    let known: Vec<&str> = shapes.iter().map(|(name, _)| *name).collect();
    let wanted = |name: &str| {
        args.shapes.is_empty() || args.shapes.iter().any(|shape| name.starts_with(shape.as_str()))
    };
    if let Some(unknown) =
        args.shapes.iter().find(|shape| !known.iter().any(|name| name.starts_with(shape.as_str())))
    {
        bail!("{unknown} is none of the shapes ({})", known.join(", "));
    }
    if !args.json {
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
    for (name, mut scenario) in shapes.into_iter().filter(|(name, _)| wanted(name)) {
        scenario.name = name.to_owned();
        scenario.duration =
            args.seconds.max(if scenario.measure_joining { Span::ms(40_000) } else { Span::ms(0) });
        let host = Host::start(&args.host, args.shards).await?;
        if let Some(hold) = args.hold {
            eprintln!("{name}: process {}", host.child.id());
            scenario.duration = Span::ms((scenario.duration.get() + hold.get()).as_millis() as u64);
        }
        let outcome = run_share(&host.target()?, &scenario, Share::whole(), 0, stop_signal(), |_| {}).await?;
        let seconds = outcome.tally.seconds.clone();
        let report = Report::new(&scenario, outcome, &Objectives::default());
        let mut figures = Figures::of(name, &scenario, &report);
        figures.find_storm(&scenario, &seconds);
        match args.json {
            true => println!("{}", serde_json::to_string(&figures)?),
            false => figures.print(),
        }
    }
    Ok(ExitCode::from(HOLDS))
}

/// When many join at once; zero where nobody does.
fn storm_at(scenario: &Scenario) -> Duration {
    let roles = scenario.rooms.iter().flat_map(|rooms| &rooms.roles);
    roles.map(|role| role.join_after.get()).max().unwrap_or_default()
}

impl Figures {
    fn of(name: &str, scenario: &Scenario, r: &Report) -> Self {
        let used = r.relay.clone().unwrap_or_default();
        let per_packet = |of: Option<f64>| Some(of? / used.packets_out.filter(|packets| *packets > 0.0)?);
        let mut figures = Self {
            shape: name.to_owned(),
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
    fn find_storm(&mut self, scenario: &Scenario, seconds: &[Second]) {
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

    fn print(&self) {
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
