//! What the operating system knows of this process, in Prometheus' text format under the names that its client libraries
//! give every process.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// Ticks a second of the times in `/proc/PID/stat`: `USER_HZ`, 100 on every platform of Linux that Rust knows but Alpha.
const TICKS_PER_SECOND: u64 = 100;

/// The figures of this process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessMetrics {
    started: SystemTime,
}

impl ProcessMetrics {
    /// For a process that starts now. `/proc` has the start as time since boot only, and a sandbox may hide when that was.
    pub fn new() -> Self {
        Self { started: SystemTime::now() }
    }

    /// The figures as they are now. One that the system does not tell is left out.
    ///
    /// Reads a few files of `/proc/self`; with thousands of open files that takes a millisecond or so.
    pub fn render(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let open = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: Option<f64>| {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
            }
        };
        add(
            "process_cpu_seconds_total",
            "counter",
            "CPU time of the whole process, user and system.",
            cpu(&read("stat")).map(|cpu| cpu.as_secs_f64()),
        );
        add(
            "process_resident_memory_bytes",
            "gauge",
            "Memory of the process that is in RAM.",
            resident_bytes(&read("status")).map(|bytes| bytes as f64),
        );
        // Looking takes one.
        add("process_open_fds", "gauge", "Open file descriptors.", open.map(|n| n.saturating_sub(1) as f64));
        add(
            "process_max_fds",
            "gauge",
            "Most file descriptors that the process may have.",
            most_files(&read("limits")),
        );
        add(
            "process_start_time_seconds",
            "gauge",
            "Start of the process, in seconds since 1970.",
            Some(started.as_secs_f64()),
        );
        text
    }
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// proc_pid_stat(5): fields 14 and 15. The name in field 2 may hold anything, and ends with the last parenthesis.
fn cpu(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let sum = ticks()?.checked_add(ticks()?)?;
    Some(Duration::from_millis(sum.checked_mul(1000)? / TICKS_PER_SECOND))
}

/// proc_pid_status(5).
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// proc_pid_limits(5): the soft limit.
fn most_files(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read() {
        let stat = "4242 (a name) with) 1 2) S 1 4242 4242 0 -1 4194560 900 0 7 0 1234 66 0 0 20 0 8 0 5000 1000 200";
        assert_eq!(cpu(stat), Some(Duration::from_millis(13_000)));
        assert_eq!(cpu("4242 (cut) S 1"), None);
        assert_eq!(resident_bytes("Name:\tsfu\nVmRSS:\t   20480 kB\n"), Some(20 << 20));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            16384                524288               files     \n";
        assert_eq!(most_files(limits), Some(16384.0));
        assert_eq!(most_files(&limits.replace("16384", "unlimited")), Some(f64::INFINITY));
        assert_eq!((cpu(""), resident_bytes(""), most_files("")), (None, None, None));
    }
}
