//! Calls on bad networks, simulated under a virtual clock: figures with the bounds that they have to keep.
//!
//! As a test it runs the cases that take no long time. `--all` runs every case, `--json` prints one object a line, and any
//! other word runs the cases whose names contain it. Ends with failure when a bound does not hold.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod capacity;
mod figures;
mod loss;
mod others;
mod scene;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use figures::Figures;

/// A case by name, whether it is one of the quick ones, and what runs it.
type Case = (String, bool, Box<dyn Fn() -> Figures + Send + Sync>);

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: String, quick: bool, run: Box<dyn Fn() -> Figures + Send + Sync>| {
        cases.push((name, quick, run));
    };
    add("capacity step".into(), false, Box::new(capacity::step));
    add("one camera step".into(), false, Box::new(capacity::step_camera));
    for rate in [500_000, 1_000_000, 2_500_000] {
        add(format!("steady {rate}"), false, Box::new(move || capacity::steady(rate)));
    }
    for rate in [1_000_000, 3_000_000] {
        add(format!("two share {rate}"), false, Box::new(move || capacity::two_share(rate)));
    }
    add("one camera, pause".into(), false, Box::new(capacity::pause_camera));
    add("one camera, two share".into(), false, Box::new(capacity::two_share_camera));
    add("bufferbloat".into(), false, Box::new(capacity::bufferbloat));
    for percent in [1, 5, 10, 20] {
        for rtt in [20, 100, 400] {
            add(format!("loss {percent} {rtt}"), false, Box::new(move || loss::random(percent, rtt)));
        }
    }
    add("bursts".into(), false, Box::new(loss::bursts));
    add("jitter".into(), true, Box::new(loss::jitter));
    add("reordering".into(), true, Box::new(loss::reordering));
    add("isolation".into(), false, Box::new(others::isolation));
    add("one camera, isolation".into(), false, Box::new(others::isolation_camera));
    add("late joiner".into(), true, Box::new(others::late_joiner));
    cases
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        // What a runner of tests asks for: this is one test.
        println!("networks: test");
        return ExitCode::SUCCESS;
    }
    let words: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let cases: Vec<_> = cases()
        .into_iter()
        .filter(|(name, quick, _)| match words.is_empty() {
            true => *quick || has("--all"),
            false => words.iter().any(|word| name.contains(*word)),
        })
        .collect();

    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Figures>>> = Mutex::new(cases.iter().map(|_| None).collect());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((_, _, run)) = cases.get(next.fetch_add(1, Ordering::Relaxed).min(cases.len()))
                {
                    let figures = run();
                    let index = cases.iter().position(|(_, _, other)| std::ptr::eq(run, other)).unwrap();
                    results.lock().unwrap()[index] = Some(figures);
                }
            });
        }
    });

    let mut failed = 0;
    for figure in results.into_inner().unwrap().into_iter().flatten().flat_map(|figures| figures.all) {
        failed += usize::from(!figure.holds());
        match has("--json") {
            true => println!("{}", figure.json()),
            false => println!(
                "{} {:<38} {:<48} {:>10} {}",
                if figure.holds() { "ok  " } else { "FAIL" },
                figure.case,
                figure.figure,
                figure.value,
                figure.bound
            ),
        }
    }
    match failed {
        0 => ExitCode::SUCCESS,
        _ => {
            eprintln!("{failed} bounds do not hold");
            ExitCode::FAILURE
        }
    }
}
