//! Key-frame requests to one publisher stream.

use std::time::{Duration, Instant};

/// Time between two requests at least. A key frame costs the publisher many times a delta frame.
const WINDOW: Duration = Duration::from_millis(500);

/// Passes at most one key-frame request in 500 ms. One that comes within the window is remembered, and sent when the
/// window ends unless a key frame came first.
#[derive(Debug, Default)]
pub struct KeyFrameRequests {
    wanted: bool,
    last_sent: Option<Instant>,
}

impl KeyFrameRequests {
    /// Someone needs a key frame.
    pub fn request(&mut self) {
        self.wanted = true;
    }

    /// A key frame starts: whoever asked before is served.
    pub fn key_frame_arrived(&mut self) {
        self.wanted = false;
    }

    /// Whether to send a request now. True once for each.
    pub fn poll(&mut self, now: Instant) -> bool {
        let due = self.deadline(now).is_some_and(|at| at <= now);
        if due {
            self.wanted = false;
            self.last_sent = Some(now);
        }
        due
    }

    /// When a remembered request is due; `None` without one.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.wanted.then(|| self.last_sent.map_or(now, |at| at + WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_a_window() {
        let start = crate::sim::clock::epoch();
        let at = |ms| start + Duration::from_millis(ms);
        let mut requests = KeyFrameRequests::default();
        assert!(!requests.poll(start));
        requests.request();
        assert!(requests.poll(start));
        assert!(!requests.poll(start));
        requests.request();
        requests.request();
        assert!(!requests.poll(at(499)));
        assert_eq!(requests.deadline(at(499)), Some(at(500)));
        assert!(requests.poll(at(500)));
        assert!(!requests.poll(at(2000)));
        requests.request();
        requests.key_frame_arrived();
        assert!(!requests.poll(at(3000)));
        assert_eq!(requests.deadline(at(3000)), None);
    }
}
