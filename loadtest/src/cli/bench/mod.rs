//! `loadtest bench`: what a whole relay process takes for each packet that it forwards, and for each join.
//!
//! Each shape has a `curtain-dev` of its own, so that memory and counters are of that shape alone, and the bots of this
//! process as its clients. CPU is the server's process from the scheduler's own counts, packets are those that it says it
//! sent, wake-ups are voluntary context switches of its threads. A packet's delay runs from the moment the bot hands it to
//! the socket to the moment the kernel queues it for the receiving bot (`SO_TIMESTAMPNS`): when the bot gets round to it
//! does not matter.

mod figures;
mod host;
mod shapes;
mod versus;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use loadtest::report::{Objectives, Report};
use loadtest::run::{Share, run as run_share};
use loadtest::scenario::{Scenario, Span};
use tokio::sync::watch;

use self::figures::Figures;
use self::host::Host;
use self::shapes::shapes;
use super::HOLDS;
use super::run::stop_signal;

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
    /// Another build of the server: both run at the same time with bots of their own, and it is said what a packet costs with
    /// --host as a share of what it costs with this one. What else happens on the machine happens to both.
    #[arg(long, conflicts_with = "hold")]
    against: Option<PathBuf>,
    /// How often each shape is measured with both.
    #[arg(long, default_value_t = 5, requires = "against", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Wait so long after each measurement with the call still on (for a profiler), and say the server's process id.
    #[arg(long, hide = true)]
    hold: Option<Span>,
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
    let stop = stop_signal();
    if !args.json {
        match args.against {
            None => Figures::print_head(),
            Some(_) => versus::print_head(),
        }
    }
    for (name, mut scenario) in shapes.into_iter().filter(|(name, _)| wanted(name)) {
        scenario.name = name.to_owned();
        scenario.duration =
            args.seconds.max(if scenario.measure_joining { Span::ms(40_000) } else { Span::ms(0) });
        if let Some(hold) = args.hold {
            scenario.duration = Span::ms((scenario.duration.get() + hold.get()).as_millis() as u64);
        }
        if let Some(against) = &args.against {
            versus::run(&args, against, &scenario, &stop).await?;
        } else {
            let figures = measure(&args, &args.host, &scenario, &stop).await?;
            match args.json {
                true => println!("{}", serde_json::to_string(&figures)?),
                false => figures.print(),
            }
        }
        if *stop.borrow() {
            bail!("stopped");
        }
    }
    Ok(ExitCode::from(HOLDS))
}

/// Measures a shape with a server of its own.
async fn measure(
    args: &Args,
    program: &Path,
    scenario: &Scenario,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<Figures> {
    let host = Host::start(program, args.shards).await?;
    if let Some(id) = host.id().filter(|_| args.hold.is_some()) {
        eprintln!("{}: process {id}", scenario.name);
    }
    let target = host.target(scenario)?;
    let outcome = run_share(&target, scenario, Share::whole(), 0, stop.clone(), |_| {}).await?;
    let seconds = outcome.tally.seconds.clone();
    let report = Report::new(scenario, outcome, &Objectives::default());
    let mut figures = Figures::of(scenario, &report);
    figures.find_storm(scenario, &seconds);
    Ok(figures)
}
