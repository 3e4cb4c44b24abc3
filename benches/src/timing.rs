//! CPU time of this thread.

use std::time::Duration;

use sfu_udp::thread_cpu_time;

/// Adds up the CPU time of what is run in it, without what reading the clock takes.
#[derive(Debug)]
pub struct CpuClock {
    overhead: Duration,
    spent: Duration,
}

impl Default for CpuClock {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuClock {
    /// Finds out what reading the clock takes.
    pub fn new() -> Self {
        let mut reads: Vec<_> = (0..1001)
            .map(|_| {
                let start = thread_cpu_time();
                thread_cpu_time() - start
            })
            .collect();
        reads.sort_unstable();
        Self { overhead: reads[reads.len() / 2], spent: Duration::ZERO }
    }

    /// Runs and counts.
    pub fn measure<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let start = thread_cpu_time();
        let result = run();
        self.stop(start);
        result
    }

    /// Counts what ran since `start`, a [`thread_cpu_time`].
    pub fn stop(&mut self, start: Duration) {
        self.spent += (thread_cpu_time() - start).saturating_sub(self.overhead);
    }

    /// What was counted since the last call.
    pub fn take(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }
}

/// One of the smallest: what others on the machine disturbed least.
pub fn best_tenth(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 10).copied().unwrap_or(f64::NAN)
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
