//! Prints what criterion measured, after `cargo bench`: one line a case, or with `--json` one object.
//!
//! Reads `$CRITERION_HOME/GROUP/CASE[/PARAMETER]/new/estimates.json`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Every case below a folder, with its name and nanoseconds.
fn cases(folder: &Path, name: &[String], out: &mut Vec<(Vec<String>, f64)>) -> Result<()> {
    let estimates = folder.join("new/estimates.json");
    if estimates.is_file() {
        let text = std::fs::read_to_string(&estimates)?;
        let estimates: serde_json::Value = serde_json::from_str(&text)?;
        let ns = estimates["median"]["point_estimate"].as_f64().context("a median in the estimates")?;
        out.push((name.to_vec(), ns));
        return Ok(());
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    for inner in folders {
        let last = inner.file_name().unwrap_or_default().to_string_lossy().into_owned();
        cases(&inner, &[name, &[last]].concat(), out)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let json = std::env::args().any(|arg| arg == "--json");
    let home = std::env::var_os("CRITERION_HOME").context("CRITERION_HOME says where the results are")?;
    let mut all = Vec::new();
    cases(Path::new(&home), &[], &mut all)?;
    if !json {
        println!("\n{:<12} {:<34} {:>9} ns", "bench", "case", "median");
    }
    for (name, ns) in all {
        let (bench, case) = name.split_first().context("a case has a group")?;
        let case = case.join("/");
        if json {
            println!(
                "{}",
                serde_json::json!({ "bench": bench, "case": case, "ns": (ns * 10.0).round() / 10.0 })
            );
        } else {
            println!("{bench:<12} {case:<34} {ns:>9.1}");
        }
    }
    Ok(())
}
