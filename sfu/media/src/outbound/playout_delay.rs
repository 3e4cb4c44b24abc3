//! How long a receiver of video is asked to wait before it shows a frame, so that repairs come in time.
//!
//! Chromium waits for nine tenths of a round trip where packets are sent again. A repair takes a whole one, after the gap was
//! seen at the next frame: on a path that loses packets whatever is sent, nearly every repaired frame would be a little too
//! late, and be dropped or shown as a freeze. The extension
//! [playout-delay](http://www.webrtc.org/experiments/rtp-hdrext/playout-delay) tells the receiver to wait longer, and it delays the
//! voice with it.

use std::time::{Duration, Instant};

/// Share of packets from which on waiting is worth it: with a tenth of that not one frame in twenty is repaired.
const LOSS: f32 = 0.02;
/// .. for this long: losses of a moment have another cause.
const LASTS: Duration = Duration::from_secs(1);
/// From this share on repairs are often lost as well.
const HEAVY_LOSS: f32 = 0.12;
/// Round trips that repairs take. With one in twenty packets lost, both copies of a repair are lost some twice a minute, and are asked
/// for again after another one. A frame that comes later than the receiver waits is not the only one lost: those that refer to it,
/// up to the next of the lowest temporal layer, are as well.
const TRIPS: u32 = 2;
/// .. and where much is lost.
const HEAVY_TRIPS: u32 = 3;
/// Time that a repair takes beyond them: the rest of the frame, and the next one at 15 a second, whose first packet shows the gap.
const NOTICED_AFTER: Duration = Duration::from_millis(100);
/// Delays are multiples of this: each change is seen as a jump.
const STEP: Duration = Duration::from_millis(50);
/// Nobody talks well with more.
const MOST: Duration = Duration::from_millis(400);
/// A delay is asked for until it was not needed for so long.
const KEPT_FOR: Duration = Duration::from_secs(20);

/// Decides on one receiver's delay.
#[derive(Debug, Default)]
pub struct PlayoutDelay {
    /// What the receiver was told. `None`: nothing yet, it decides for itself.
    told: Option<Duration>,
    lossy_since: Option<Instant>,
    /// When as much as was told was needed last.
    needed_at: Option<Instant>,
}

impl PlayoutDelay {
    /// What the receiver is to be told, the least time from arrival to display; `None` for nothing.
    pub fn told(&self) -> Option<Duration> {
        self.told
    }

    /// Whether the path loses packets whatever is sent, or did not long ago.
    pub fn is_needed(&self) -> bool {
        self.told.is_some_and(|told| !told.is_zero())
    }

    /// The path loses this share of packets, 0 to 1, whatever is sent. True when the receiver is to be told another delay.
    pub fn update(&mut self, loss: f32, rtt: Duration, now: Instant) -> bool {
        if loss < LOSS {
            self.lossy_since = None;
        } else {
            self.lossy_since.get_or_insert(now);
        }
        let lasting = self.lossy_since.is_some_and(|at| now.saturating_duration_since(at) >= LASTS);
        let needed = if lasting { needed(loss, rtt) } else { Duration::ZERO };
        let told = self.told.unwrap_or_default();
        if needed >= told && !needed.is_zero() {
            self.needed_at = Some(now);
        }
        let over = self.needed_at.is_some_and(|at| now.saturating_duration_since(at) >= KEPT_FOR);
        if needed > told || needed < told && over {
            self.told = Some(needed);
            self.needed_at = Some(now);
            return true;
        }
        false
    }
}

fn needed(loss: f32, rtt: Duration) -> Duration {
    let trips = if loss < HEAVY_LOSS { TRIPS } else { HEAVY_TRIPS };
    let needed = (trips * rtt + NOTICED_AFTER).min(MOST);
    STEP * needed.as_millis().div_ceil(STEP.as_millis()) as u32
}

/// The extension's value: twelve bits each for the least and the largest delay, in 10 ms. The largest is left open.
pub(super) fn extension(least: Duration) -> [u8; 3] {
    let least = (least.as_millis() / 10).min(0xfff) as u16;
    [(least >> 4) as u8, (least << 4) as u8 | 0xf, 0xff]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn asks_for_time_while_repairs_need_it() {
        let t = crate::sim::clock::epoch();
        let mut delay = PlayoutDelay::default();
        assert!(!delay.update(0.0, ms(100), t) && !delay.update(0.05, ms(100), t + ms(100)));
        assert_eq!(delay.told(), None, "a moment says nothing");
        assert!(!delay.is_needed());
        assert!(delay.update(0.05, ms(100), t + ms(1100)));
        assert_eq!(delay.told(), Some(ms(300)));
        assert!(!delay.update(0.05, ms(90), t + ms(1200)), "steps are coarse");
        assert!(delay.update(0.05, ms(120), t + ms(1300)));
        assert_eq!(delay.told(), Some(ms(350)));
        assert!(delay.update(0.2, ms(500), t + ms(2000)));
        assert_eq!(delay.told(), Some(MOST));
        // It goes as late as it came soon.
        assert!(!delay.update(0.05, ms(100), t + ms(21_900)));
        assert!(delay.update(0.05, ms(100), t + ms(22_000)));
        assert_eq!(delay.told(), Some(ms(300)));
        assert!(!delay.update(0.0, ms(100), t + ms(30_000)));
        assert!(delay.is_needed());
        assert!(delay.update(0.0, ms(100), t + ms(42_000)));
        assert_eq!(delay.told(), Some(ms(0)), "told that it may decide again");
        assert!(!delay.is_needed());
        assert!(!delay.update(0.0, ms(100), t + ms(80_000)));
    }

    #[test]
    fn is_written_in_tens_of_milliseconds() {
        assert_eq!(extension(ms(0)), [0, 0x0f, 0xff]);
        assert_eq!(extension(ms(200)), [1, 0x4f, 0xff]);
        assert_eq!(extension(ms(100_000)), [0xff, 0xff, 0xff]);
    }
}
