//! The commands.

mod agent;
mod bench;
mod capacity;
mod compare;
mod join;
mod progress;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Joins a relay with participants that talk and watch as in visits, and says what they got and what it carries.
#[derive(Debug, Parser)]
#[command(version, after_help = "Begin with: loadtest run --list-scenarios")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario and holds what participants got against objectives.
    #[command(after_help = run::EXAMPLES)]
    Run(run::Args),
    /// Raises the load until an objective breaks, and says how much the relay carries and why not more.
    #[command(after_help = capacity::EXAMPLES)]
    Capacity(capacity::Args),
    /// Waits for a coordinator (`--agent` of `run` and `capacity`) and runs its share of the participants on this machine.
    Agent(agent::Args),
    /// Sets two runs (`--json` of each) side by side.
    Compare(compare::Args),
    /// Measures what a relay of its own takes for forwarding, in fixed shapes.
    Bench(bench::Args),
    /// Joins a room as one participant and prints a line of JSON a second about what it receives.
    Join(join::Args),
}

/// All objectives hold.
const HOLDS: u8 = 0;
/// An objective is broken.
const BROKEN: u8 = 1;
/// The run says nothing about the relay.
const INVALID: u8 = 3;

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => in_runtime(run::run(args)),
            Command::Capacity(args) => in_runtime(capacity::run(args)),
            Command::Agent(args) => in_runtime(agent::run(args)),
            Command::Compare(args) => compare::run(&args),
            Command::Bench(args) => in_runtime(bench::run(args)),
            Command::Join(args) => in_runtime(join::run(args)),
        }
    }
}

fn in_runtime(task: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}
