//! Prints what a bare forwarder takes for the shapes of `loadtest bench`, see [`benches::live`], and what the relay takes for
//! them at the same time.
//!
//! ```text
//! bench-live-floor [--shapes 1:10,4x4] [--seconds 10] [--rounds 3] [--host curtain-dev] [--json]
//! ```
//!
//! The relay is measured by `loadtest bench`, which is looked for beside this program, as is the relay. Both forward for bots of their
//! own; what else happens on the machine happens to both. `--host none` measures the forwarder alone.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use benches::live::{LiveFloor, LiveShape, clients, run};

/// How long `loadtest bench` takes before it measures: bots join, and their paths become known.
const BEFORE: Duration = Duration::from_secs(13);

/// What is asked for on the command line.
#[derive(Debug)]
struct Args {
    shapes: Vec<String>,
    seconds: u64,
    rounds: usize,
    host: Option<PathBuf>,
    json: bool,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let beside = |name| Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name(name));
        let mut args = Self {
            shapes: Vec::new(),
            seconds: 10,
            rounds: 3,
            host: Some(beside("curtain-dev")?),
            json: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} wants a value"));
            match word.as_str() {
                "--shapes" => args.shapes = value()?.split(',').map(str::to_owned).collect(),
                "--seconds" => args.seconds = value()?.trim_end_matches('s').parse().context("--seconds")?,
                "--rounds" => args.rounds = value()?.parse().context("--rounds")?,
                "--host" => args.host = Some(value()?).filter(|host| host != "none").map(PathBuf::from),
                "--json" => args.json = true,
                _ => bail!("{word} is not known (--shapes, --seconds, --rounds, --host, --json)"),
            }
        }
        ensure!(args.seconds > 0 && args.rounds > 0, "--seconds and --rounds are above zero");
        Ok(args)
    }

    /// How long the forwarder runs.
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds) + if self.host.is_some() { BEFORE } else { Duration::ZERO }
    }

    /// Begins to measure the relay.
    fn relay(&self, shape: &str) -> Result<Option<Child>> {
        let Some(host) = &self.host else { return Ok(None) };
        let loadtest = std::env::current_exe()?.with_file_name("loadtest");
        let seconds = format!("{}s", self.seconds);
        let child = Command::new(&loadtest)
            .args(["bench", "--json", "--shapes", shape, "--seconds", &seconds, "--host"])
            .arg(host)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", loadtest.display()))?;
        Ok(Some(child))
    }
}

/// Microseconds a packet, of what `loadtest bench` prints.
fn relay_figure(relay: Child) -> Result<f64> {
    let output = relay.wait_with_output()?;
    ensure!(output.status.success(), "loadtest bench failed");
    let figures: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("the figures of loadtest bench")?;
    figures["cpu_us_per_packet"].as_f64().context("no CPU a packet in the figures of loadtest bench")
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if(|first| first == "--clients").is_some() {
        return clients(&words.collect::<Vec<_>>());
    }
    let args = Args::parse(words)?;
    let shape = |rooms, publishers, watchers| LiveShape { rooms, publishers, watchers };
    let shapes = [
        ("1:10", shape(1, 1, 10)),
        ("1:25", shape(1, 1, 25)),
        ("1:50", shape(1, 1, 50)),
        ("4x4", shape(4, 4, 0)),
    ];
    if let Some(unknown) = args.shapes.iter().find(|wanted| shapes.iter().all(|(name, _)| name != wanted)) {
        bail!("{unknown} is none of the shapes ({})", shapes.map(|(name, _)| name).join(", "));
    }
    if !args.json {
        println!(
            "{:<8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>7}",
            "shape", "floor us", "packets/s", "messages/s", "wakes/s", "relay us", "ratio"
        );
    }
    let wanted = |name: &str| args.shapes.is_empty() || args.shapes.iter().any(|shape| shape == name);
    for (name, shape) in shapes.into_iter().filter(|(name, _)| wanted(name)) {
        let mut ratios = Vec::new();
        for _ in 0..args.rounds {
            let mut relay = args.relay(name)?;
            let floor = run(shape, args.time());
            if let (Some(relay), true) = (&mut relay, floor.is_err()) {
                let _ = relay.kill();
            }
            let floor = floor?;
            let relay = relay.map(relay_figure).transpose()?;
            let ratio = relay.map(|relay| relay / floor.micros_per_packet);
            ratios.extend(ratio);
            print(&args, name, &floor, relay, ratio);
        }
        ratios.sort_by(f64::total_cmp);
        if let (Some(median), false) = (ratios.get(ratios.len() / 2), args.json) {
            println!("{name:<8} median ratio of {}: {median:.2}", ratios.len());
        }
    }
    Ok(())
}

fn print(args: &Args, name: &str, floor: &LiveFloor, relay: Option<f64>, ratio: Option<f64>) {
    let LiveFloor { micros_per_packet, packets_per_s, messages_per_s, wakes_per_s } = floor;
    if args.json {
        let line = serde_json::json!({
            "shape": name, "floor_us_per_packet": micros_per_packet, "packets_per_s": packets_per_s,
            "messages_per_s": messages_per_s, "wakeups_per_s": wakes_per_s, "cpu_us_per_packet": relay, "ratio": ratio,
        });
        return println!("{line}");
    }
    let some = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    println!(
        "{name:<8} {micros_per_packet:>10.2} {packets_per_s:>10.0} {messages_per_s:>10.0} {wakes_per_s:>10.0} {:>10} {:>7}",
        some(relay),
        some(ratio)
    );
}
