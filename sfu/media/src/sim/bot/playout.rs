//! When a browser would show the frames that arrived, and what its statistics would say of it: a model of libwebrtc's jitter
//! buffer and of `freezeCount` ([webrtc-stats](https://www.w3.org/TR/webrtc-stats/#dom-rtcinboundrtpstreamstats-freezecount)).
//!
//! The buffer waits as long as the mean lateness of frames plus 2.33 deviations, plus one round trip while packets are asked
//! for again, plus 10 ms for rendering; it changes by 100 ms a second at most. So does libwebrtc's, but for its Kalman filter,
//! which tells lateness of large frames from that of a queue.

use std::time::{Duration, Instant};

use super::sink::FrameReceived;

/// Weight of one frame in mean and deviation.
const WEIGHT: f64 = 1.0 / 200.0;
/// The deviations that the buffer covers.
const DEVIATIONS: f64 = 2.33;
/// Rendering, in seconds.
const RENDER: f64 = 0.010;
/// How fast the buffer's delay may change, in seconds per second.
const SLEW: f64 = 0.1;
/// The average of freeze detection is over this many intervals, and none is told before five are known.
const WINDOW: usize = 30;
const MIN_WINDOW: usize = 5;

/// What the statistics of a receiver would say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Playout {
    /// `framesDecoded`.
    pub decoded: usize,
    /// `freezeCount`: intervals between two shown frames above three times the average, and above it by 150 ms.
    pub freezes: usize,
    /// `totalFreezesDuration`.
    pub frozen: Duration,
    /// The longest interval between two shown frames.
    pub longest: Duration,
    /// Mean delay of the jitter buffer.
    pub buffered: Duration,
}

/// Plays frames in the order of the stream and counts what is shown from `from` to `to`. `rtt` is the round-trip time while
/// packets get lost, else zero. `clock_rate` in Hz.
pub fn play(frames: &[FrameReceived], clock_rate: u32, rtt: Duration, from: Instant, to: Instant) -> Playout {
    let mut playout = Playout::default();
    let Some(first) = frames.iter().find(|frame| frame.decodable) else { return playout };
    let (origin, origin_ts) = (first.at, first.timestamp);
    let (mut base, mut mean, mut variance, mut delay) = (f64::MAX, 0.0, 0.0f64, RENDER);
    let mut shown: Vec<f64> = Vec::new();
    let mut buffered = 0.0;
    let since = |at: Instant| at.saturating_duration_since(origin).as_secs_f64();
    for frame in frames.iter().filter(|frame| frame.decodable) {
        let media = f64::from(frame.timestamp.wrapping_sub(origin_ts)) / f64::from(clock_rate);
        let arrived = since(frame.at);
        // The shortest way so far; creeps up, as clocks drift and routes change.
        base = (base + 0.0002).min(arrived - media);
        let late = arrived - media - base;
        let deviation = late - mean;
        mean += WEIGHT * deviation;
        variance = (1.0 - WEIGHT) * (variance + WEIGHT * deviation * deviation);
        let wanted = mean + DEVIATIONS * variance.sqrt() + rtt.as_secs_f64() + RENDER;
        let last = shown.last().copied();
        let step = SLEW * last.map_or(1.0, |last| (arrived - last).clamp(0.0, 1.0));
        delay += (wanted - delay).clamp(-step, step);
        let at = (media + base + delay).max(arrived).max(last.unwrap_or(0.0));
        buffered += delay;
        shown.push(at);
    }
    playout.buffered = Duration::from_secs_f64(buffered / shown.len() as f64);
    let intervals: Vec<f64> = shown.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (begin, end) = (since(from), since(to));
    let inside = |at: f64| (begin..end).contains(&at);
    playout.decoded = shown.iter().filter(|at| inside(**at)).count();
    for (i, interval) in intervals.iter().enumerate().filter(|(i, _)| inside(shown[i + 1])) {
        playout.longest = playout.longest.max(Duration::from_secs_f64(*interval));
        let known = &intervals[i.saturating_sub(WINDOW)..i];
        let average = known.iter().sum::<f64>() / known.len().max(1) as f64;
        if known.len() >= MIN_WINDOW && *interval > (3.0 * average).max(average + 0.150) {
            playout.freezes += 1;
            playout.frozen += Duration::from_secs_f64(*interval);
        }
    }
    // A picture that never moves again is no interval between two frames, but frozen all the same.
    if let Some(last) = shown.last().filter(|last| **last < end - 1.0) {
        playout.freezes += 1;
        playout.frozen += Duration::from_secs_f64(end - last.max(begin));
        playout.longest = playout.longest.max(Duration::from_secs_f64(end - last.max(begin)));
    }
    playout
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::bot::FrameId;
    use crate::sim::clock;

    /// Frames at 30 a second for 20 s that arrive after 20 ms and as much later as `late` says.
    fn frames(late: impl Fn(u64) -> u64) -> Vec<FrameReceived> {
        let mut last = clock::epoch();
        (0..600u64)
            .map(|n| {
                last = last.max(clock::epoch() + Duration::from_micros(n * 33_333 + 20_000 + late(n) * 1000));
                FrameReceived {
                    id: FrameId { source: 1, layer: 0, number: n as u32 },
                    at: last,
                    key: n == 0,
                    decodable: true,
                    temporal: 0,
                    timestamp: (n * 3000) as u32,
                    picture_id: None,
                    tl0: None,
                    last_seq: n,
                }
            })
            .collect()
    }

    fn shown(frames: &[FrameReceived], rtt: u64) -> Playout {
        let t = clock::epoch();
        play(frames, 90_000, Duration::from_millis(rtt), t, t + Duration::from_secs(20))
    }

    #[test]
    fn an_even_stream_does_not_freeze() {
        let even = shown(&frames(|_| 0), 0);
        assert_eq!((even.freezes, even.frozen), (0, Duration::ZERO));
        assert!(even.decoded >= 598, "{even:?}");
        assert!(even.buffered < Duration::from_millis(15), "{even:?}");
    }

    #[test]
    fn a_stall_of_half_a_second_is_one_freeze() {
        let stall = shown(&frames(|n| if n == 300 { 500 } else { 0 }), 0);
        assert_eq!(stall.freezes, 1, "{stall:?}");
        assert!(
            (Duration::from_millis(450)..Duration::from_millis(560)).contains(&stall.frozen),
            "{stall:?}"
        );
        let late = shown(&frames(|n| if n == 300 { 100 } else { 0 }), 0);
        assert_eq!(late.freezes, 0, "within 150 ms of the average: {late:?}");
    }

    #[test]
    fn a_buffer_that_expects_repair_hides_it() {
        let repaired = |n: u64| if n % 7 == 3 { 120 } else { 0 };
        let hidden = shown(&frames(repaired), 100);
        assert_eq!(hidden.freezes, 0, "{hidden:?}");
        assert!(hidden.longest < Duration::from_millis(160), "{hidden:?}");
    }

    #[test]
    fn the_end_of_the_stream_counts() {
        let mut cut = frames(|_| 0);
        cut.truncate(300);
        let cut = shown(&cut, 0);
        assert_eq!(cut.freezes, 1);
        assert!(cut.frozen > Duration::from_secs(9), "{cut:?}");
    }
}
