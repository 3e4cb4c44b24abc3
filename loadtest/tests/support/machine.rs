//! What the machine itself adds to what is measured: how long threads wait for a core.
//!
//! The errors that the tests state rest on it. On a quiet machine it is next to nothing; beside other work it is what that work
//! does to every packet, whichever server and tester are measured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::proxy::Proxy;

/// A thread that has nothing to do sleeps so long at a time.
pub const NAP: Duration = Duration::from_micros(500);
/// What a nap takes longer on an idle machine: no sign of anything.
const SLACK: Duration = Duration::from_micros(300);

/// The times for which a thread was away from its work, however it came to that.
#[derive(Debug, Clone, Default)]
pub struct Away {
    /// In milliseconds.
    gaps: Vec<f64>,
    /// Of them all.
    since: f64,
}

impl Away {
    /// A round of the thread's loop is over, so long after the one before.
    pub fn round(&mut self, took: Duration) {
        self.since += took.as_secs_f64() * 1e3;
        let gap = took.saturating_sub(NAP + SLACK);
        if !gap.is_zero() {
            self.gaps.push(gap.as_secs_f64() * 1e3);
        }
    }

    /// How long, in milliseconds, all but this share of what comes to the thread at any time has to wait at most. What comes while
    /// the thread is away for `gap` waits for anything up to that: more than `wait` for `gap - wait` of the time.
    pub fn wait_ms(&self, share: f64) -> f64 {
        let late = |wait: f64| self.gaps.iter().map(|gap| (gap - wait).max(0.0)).sum::<f64>();
        let (mut low, mut high) = (0.0, self.most_ms());
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            if late(middle) > share * self.since { low = middle } else { high = middle }
        }
        high
    }

    /// The same if all of it was in a window of this length: nobody says when it was.
    pub fn within(self, seconds: f64) -> Self {
        Self { since: seconds * 1e3, ..self }
    }

    /// What a packet waits on average.
    pub fn mean_ms(&self) -> f64 {
        self.gaps.iter().map(|gap| gap * gap / 2.0).sum::<f64>() / self.since.max(1.0)
    }

    /// Share of the time that it was away.
    pub fn share(&self) -> f64 {
        self.gaps.iter().sum::<f64>() / self.since.max(1.0)
    }

    /// The longest time.
    pub fn most_ms(&self) -> f64 {
        self.gaps.iter().copied().fold(0.0, f64::max)
    }
}

/// A thread that wakes, looks at the clock, and sleeps again: it waits for a core as those of the relay and of the tester do.
pub struct Machine {
    away: Arc<Mutex<Away>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    pub fn watch() -> Self {
        let (away, stop) = (Arc::<Mutex<Away>>::default(), Arc::<AtomicBool>::default());
        let (shared, stopped) = (away.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut before = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(NAP);
                let now = Instant::now();
                shared.lock().unwrap().round(now - before);
                before = now;
            }
        });
        Self { away, stop, thread: Some(thread) }
    }

    pub fn away(&self) -> Away {
        self.away.lock().unwrap().clone()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What waiting for cores adds to a packet's way through the proxy: at the tester that sends it, at the proxy, at the relay, and at
/// the proxy again.
pub struct Way([Away; 4]);

impl Way {
    /// In a window of so many seconds.
    pub fn of(machine: &Machine, proxy: &Proxy, seconds: f64) -> Self {
        let (machine, proxy) = (machine.away().within(seconds), proxy.away().within(seconds));
        Self([machine.clone(), proxy.clone(), machine, proxy])
    }

    /// What all but this share of the packets may be later by, in milliseconds.
    pub fn all_but(&self, share: f64) -> f64 {
        waits_ms(&self.0.each_ref(), share)
    }

    /// On average.
    pub fn mean(&self) -> f64 {
        self.0.iter().map(Away::mean_ms).sum()
    }

    /// At most.
    pub fn most(&self) -> f64 {
        self.0.iter().map(Away::most_ms).sum()
    }
}

/// What all but this share of the packets may be later by for want of a core, in milliseconds: each of the threads on their way
/// takes a part of the share, and then the waits add up.
pub fn waits_ms(threads: &[&Away], share: f64) -> f64 {
    threads.iter().map(|away| away.wait_ms(share / threads.len() as f64)).sum()
}
