//! `loadtest capacity`.

use std::process::ExitCode;

use loadtest::capacity::{Capacity, Grow, Search, Step, Verdict};
use loadtest::report::{Objectives, Report, html};
use loadtest::scenario::Span;

use super::progress::View;
use super::run::{Cluster, Output, Server, What, check_writable, save, stop_signal};
use super::{BROKEN, HOLDS, INVALID};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    objectives: Objectives,
    #[command(flatten)]
    steps: Steps,
}

/// How the search goes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Search")]
struct Steps {
    /// What grows: the number of rooms, or of participants of the last role in each.
    #[arg(long, value_enum, default_value_t)]
    grow: Grow,
    /// First size.
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    start: u32,
    /// Largest size.
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    max: u32,
    /// Stop when what held and what did not are as near as this, in percent.
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    tolerance: f64,
    /// Pause between steps, for the server to forget the last one.
    #[arg(long, default_value = "2s", value_name = "TIME")]
    pause: Span,
}

pub(crate) const EXAMPLES: &str = "\
Doubles the size until an objective breaks, then halves the gap between what held and what did not. A size that breaks one is
run again, and counts when it breaks again; so is one in which the tester itself stood still.

Examples (LIVEKIT_API_KEY and LIVEKIT_API_SECRET are set):
  loadtest capacity --url wss://visit.example.org --participants 4 --max 400 --html capacity.html
  loadtest capacity --url wss://visit.example.org --scenario webinar --grow participants --start 50
  loadtest capacity --url wss://visit.example.org --agent 10.0.0.7:7990 --agent 10.0.0.8:7990

Exit status: 0 the relay's limit was found, 1 not even the first size held, 2 nothing could be run, 3 the limit found is the
testers' or --max.";

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let base = args.what.scenario_lasting(Some(Span::ms(20_000)))?;
    let target = args.server.target()?;
    check_writable(&[args.output.json.as_deref(), args.output.html.as_deref()])?;
    let mut search = Search::new(args.steps.start, args.steps.max, args.steps.tolerance / 100.0);
    let mut found = Capacity { scenario: base.name.clone(), grow: args.steps.grow, steps: Vec::new() };
    let stop = stop_signal();
    let (mut shown, mut shown_holds): (Option<Report>, bool) = (None, false);
    while let Some(size) = search.next() {
        let scenario = args.steps.grow.scale(&base, size);
        if !args.output.quiet {
            eprintln!(
                "size {size}: {} rooms, {} participants",
                scenario.room_count(),
                scenario.participants()
            );
        }
        let mut view = View::new(args.output.quiet);
        let outcome = args.cluster.run(&target, &scenario, stop.clone(), |p| view.show(p)).await;
        view.end();
        let (mut step, report) = match outcome {
            Ok(outcome) => {
                let report = Report::new(&scenario, outcome, &args.objectives);
                (Step::of(size, &report), Some(report))
            }
            // What was found until then is worth having.
            Err(error) if !found.steps.is_empty() => (Step::failed(size, &scenario, &error), None),
            Err(error) => return Err(error),
        };
        let interrupted = *stop.borrow();
        search.record(&mut step);
        let verdict = step.verdict();
        if !args.output.quiet {
            let word = match (verdict, step.counts() || interrupted) {
                (Verdict::Holds, _) => "holds".to_owned(),
                (_, true) => step.why(),
                (_, false) => format!("{}; it is run again", step.repeated),
            };
            let void = if verdict == Verdict::Invalid { " (not a valid run)" } else { "" };
            eprintln!("size {size}: {word}{void}");
        }
        if interrupted {
            step.repeated.clear();
        }
        found.steps.push(step);
        // The page shows the largest size that held; while there is none, the last one tried.
        if let Some(report) = report.filter(|_| verdict == Verdict::Holds || !shown_holds) {
            (shown, shown_holds) = (Some(report), verdict == Verdict::Holds);
        }
        if interrupted {
            break;
        }
        tokio::time::sleep(args.steps.pause.get()).await;
    }
    print!("{}", found.summary());
    save(args.output.json.as_deref(), || Ok(serde_json::to_string_pretty(&found)?))?;
    if let Some(report) = shown {
        save(args.output.html.as_deref(), || Ok(html(&report, Some(&found))))?;
    }
    Ok(ExitCode::from(match (found.is_answer(), found.answer().0) {
        (true, _) => HOLDS,
        (false, "bad") => BROKEN,
        _ => INVALID,
    }))
}
