//! Counts the instructions of forwarding with callgrind and compares them with a baseline: unlike times, they are the same
//! on a busy machine.
//!
//! ```text
//! bench-check BASELINE [--write]      counts every case and compares, or writes the baseline anew
//! bench-check --case NAME             one case, to be run under callgrind; prints the packets
//! ```
//!
//! What is counted is the relay's turn from `recvmmsg` to `sendmmsg` without the kernel: opening, forwarding to ten
//! subscribers, sealing. Callgrind shows a processor without AVX-512, so the cipher's share is larger than in life; it is
//! the same from run to run. Hash maps draw their seeds, which moves the count by some tenths of a percent.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use benches::call::Call;

/// Subscribers.
const RECEIVERS: usize = 10;
const WARM_UP: usize = 150;
const FRAMES: usize = 100;
/// A count that is larger by this is a regression; one that is smaller by as much wants a new baseline.
const TOLERANCE: f64 = 0.02;

/// Name, packets of a frame, bytes of payload, audio.
const CASES: [(&str, usize, usize, bool); 3] =
    [("video_8x1100", 8, 1100, false), ("video_1x1100", 1, 1100, false), ("audio_1x120", 1, 120, true)];

fn run(name: &str) -> Result<()> {
    let (_, frame, payload, audio) =
        CASES.into_iter().find(|case| case.0 == name).with_context(|| format!("no case {name}"))?;
    let mut call = Call::new(RECEIVERS)?;
    call.check_and_close()?;
    call.warm_up(WARM_UP, frame, payload, audio)?;
    call.set_counted();
    let mut packets = 0;
    for _ in 0..FRAMES {
        packets += call.turn_of(frame, payload, false, audio)?;
    }
    println!("{packets}");
    Ok(())
}

/// Instructions per forwarded packet.
fn count(name: &str) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*counted_batch*"])
        .arg(std::env::current_exe()?)
        .args(["--case", name])
        .output()
        .context("valgrind")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed:\n{errors}");
    let collected = errors.lines().find_map(|line| line.split_once("Collected :")).context("a count")?;
    let instructions: f64 = collected.1.trim().parse()?;
    let packets: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    ensure!(packets == (FRAMES * RECEIVERS * frame(name)) as f64, "{name}: {packets} packets were forwarded");
    Ok((instructions / packets).round())
}

fn frame(name: &str) -> usize {
    CASES.iter().find(|case| case.0 == name).map_or(0, |case| case.1)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--case", name] => run(name),
        [baseline] => compare(baseline),
        [baseline, "--write"] => {
            let mut counts = BTreeMap::new();
            for (name, ..) in CASES {
                counts.insert(name, count(name)?);
            }
            std::fs::write(baseline, serde_json::to_string_pretty(&counts)? + "\n")?;
            Ok(())
        }
        _ => bail!("usage: bench-check BASELINE [--write]"),
    }
}

fn compare(baseline: &str) -> Result<()> {
    let text = std::fs::read_to_string(baseline).with_context(|| baseline.to_owned())?;
    let known: BTreeMap<String, f64> = serde_json::from_str(&text)?;
    let mut worse = Vec::new();
    println!("{:<14} {:>10} {:>10} {:>8}", "case", "baseline", "now", "change");
    for (name, ..) in CASES {
        let before = known.get(name).copied().with_context(|| format!("no baseline of {name}"))?;
        let now = count(name)?;
        let change = now / before - 1.0;
        println!("{name:<14} {before:>10.0} {now:>10.0} {:>7.1}%", 100.0 * change);
        if change > TOLERANCE {
            worse.push(name);
        } else if change < -TOLERANCE {
            println!("{name} got better: `make bench-baseline` keeps it so");
        }
    }
    ensure!(worse.is_empty(), "more instructions per forwarded packet than before: {}", worse.join(", "));
    Ok(())
}
