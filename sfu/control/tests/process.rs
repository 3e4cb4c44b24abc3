//! The figures of a process, in one that does nothing else: the tests beside would open and close files and give memory back.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use sfu_control::process::ProcessMetrics;

fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().parse().unwrap_or(f64::NAN)
}

#[test]
fn work_memory_and_files_show() {
    let process = ProcessMetrics::new();
    let before = process.render();
    let file = std::fs::File::open("/proc/self/stat").unwrap();
    let memory = vec![1u8; 64 << 20];
    let start = std::time::Instant::now();
    let mut sum = 0u64;
    while start.elapsed() < Duration::from_millis(150) {
        sum = std::hint::black_box(sum + u64::from(memory[sum as usize % memory.len()]));
    }
    let after = process.render();
    let grown = |name: &str| value(&after, name) - value(&before, name);
    let cpu = grown("process_cpu_seconds_total ");
    assert!(cpu > 0.0, "{cpu}");
    assert!(grown("process_resident_memory_bytes ") > 50e6, "{before}\n{after}");
    assert!(grown("process_open_fds ") >= 1.0, "{before}\n{after}");
    assert!(value(&after, "process_max_fds ") >= value(&after, "process_open_fds "), "{after}");
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((unix - value(&after, "process_start_time_seconds ")).abs() < 10.0, "{after}");
    drop(file);
}
