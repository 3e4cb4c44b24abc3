//! `loadtest compare a.json b.json`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use loadtest::report::{FORMAT, Report, compare};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Report of the first run.
    first: PathBuf,
    /// Report of the second run.
    second: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (first, second) = (load(&args.first)?, load(&args.second)?);
    let names = [&args.first, &args.second].map(|p| p.file_name().unwrap_or_default().to_string_lossy());
    print!("{}", compare([&names[0], &names[1]], [&first, &second]));
    Ok(ExitCode::SUCCESS)
}

fn load(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report: Report = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no report of `loadtest run --json`", path.display()))?;
    // Neither a search's report nor anything else in JSON has it.
    ensure!(report.format > 0, "{} is no report of `loadtest run --json`", path.display());
    ensure!(
        report.format == FORMAT,
        "{} has format {}, and this loadtest reads {FORMAT}: run it again with this one",
        path.display(),
        report.format
    );
    Ok(report)
}
