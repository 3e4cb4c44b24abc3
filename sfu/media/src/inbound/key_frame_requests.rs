//! Key-frame requests to one publisher stream.

use std::time::{Duration, Instant};

/// Time between two requests at least. A key frame costs the publisher many times a delta frame.
const WINDOW: Duration = Duration::from_millis(500);
/// Times that a request is sent again by itself while nothing comes of it. A request may be lost; a publisher that stays
/// silent after so many has nothing to send, and begins with a key frame when it has.
const MAX_REPEATS: u32 = 3;

/// Passes at most one key-frame request in 500 ms. One that comes within the window is remembered, and sent when the
/// window ends unless a key frame came first. One that no key frame answers is repeated after 0.5, 1 and 2 s: who needed
/// it may have no way to ask again, since what is asked again is what packets remind of.
#[derive(Debug, Default)]
pub struct KeyFrameRequests {
    wanted: bool,
    last_sent: Option<Instant>,
    /// Requests sent again since someone asked; `None` when the last one was answered.
    repeats: Option<u32>,
}

impl KeyFrameRequests {
    /// Someone needs a key frame.
    pub fn request(&mut self) {
        self.wanted = true;
    }

    /// A key frame starts: whoever asked before is served.
    pub fn key_frame_arrived(&mut self) {
        self.wanted = false;
        self.repeats = None;
    }

    /// Whether to send a request now. True once for each.
    pub fn poll(&mut self, now: Instant) -> bool {
        let due = self.deadline(now).is_some_and(|at| at <= now);
        if due {
            // Asked for again, it counts from the start.
            let repeats = self.repeats.filter(|_| !self.wanted).map_or(0, |repeats| repeats + 1);
            self.repeats = Some(repeats);
            self.wanted = false;
            self.last_sent = Some(now);
        }
        due
    }

    /// When a remembered request is due, or the repetition of one; `None` without one.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.wanted {
            return Some(self.last_sent.map_or(now, |at| at + WINDOW));
        }
        let repeats = self.repeats.filter(|repeats| *repeats < MAX_REPEATS)?;
        Some(self.last_sent? + WINDOW * 2u32.pow(repeats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        crate::sim::clock::epoch() + Duration::from_millis(ms)
    }

    #[test]
    fn one_request_a_window() {
        let mut requests = KeyFrameRequests::default();
        assert!(!requests.poll(at(0)));
        requests.request();
        assert!(requests.poll(at(0)));
        assert!(!requests.poll(at(0)));
        requests.request();
        requests.request();
        assert!(!requests.poll(at(499)));
        assert_eq!(requests.deadline(at(499)), Some(at(500)));
        assert!(requests.poll(at(500)));
        requests.key_frame_arrived();
        assert!(!requests.poll(at(2000)));
        requests.request();
        requests.key_frame_arrived();
        assert!(!requests.poll(at(3000)));
        assert_eq!(requests.deadline(at(3000)), None);
    }

    #[test]
    fn an_unanswered_request_is_repeated_a_few_times() {
        let mut requests = KeyFrameRequests::default();
        requests.request();
        let mut sent: Vec<u64> = (0..20_000).filter(|ms| requests.poll(at(*ms))).collect();
        assert_eq!(sent, [0, 500, 1500, 3500]);
        assert_eq!(requests.deadline(at(20_000)), None);
        // Until someone asks again.
        requests.request();
        sent = (20_000..21_000).filter(|ms| requests.poll(at(*ms))).collect();
        assert_eq!(sent, [20_000, 20_500]);
        requests.key_frame_arrived();
        assert_eq!(requests.deadline(at(21_000)), None);
    }
}
