//! Loudness of audio tracks, from the level that senders put into a header extension
//! ([RFC 6464](https://www.rfc-editor.org/rfc/rfc6464)). The relay cannot listen.

use std::time::Duration;

use crate::command::AudioLevel;
use crate::ids::{RtpTime, TrackId};

/// How often levels are reported.
pub(crate) const PERIOD: Duration = Duration::from_millis(250);

/// Levels of at most this many -dBov count as speech.
const SPEECH: u8 = 35;

/// How much sound one packet may stand for: a sender in discontinuous transmission leaves gaps that are not sound.
const LONGEST_PACKET: Duration = Duration::from_millis(60);
/// What a packet stands for when nothing came before it: Opus's usual frame.
const USUAL_PACKET: Duration = Duration::from_millis(20);

/// What one track's packets said since the last report.
#[derive(Debug, Default)]
pub(crate) struct LevelMeter {
    loudest: Option<u8>,
    active: Duration,
    last: Option<RtpTime>,
}

impl LevelMeter {
    /// Takes the level of one packet, 0 (loudest) to 127 (silence).
    pub(crate) fn record(&mut self, level: u8, timestamp: RtpTime, clock_rate: u32) {
        let length = match self.last {
            Some(last) => {
                let ticks = timestamp.since(last);
                if ticks <= 0 {
                    // Late or repeated: its time is counted already.
                    return;
                }
                Duration::from_secs_f64(f64::from(ticks) / f64::from(clock_rate.max(1))).min(LONGEST_PACKET)
            }
            None => USUAL_PACKET,
        };
        self.last = Some(timestamp);
        self.loudest = Some(self.loudest.map_or(level, |loudest| loudest.min(level)));
        if level <= SPEECH {
            self.active += length;
        }
    }

    /// The report of the period that ends, unless the track was silent.
    pub(crate) fn take(&mut self, track: TrackId) -> Option<AudioLevel> {
        let loudest = self.loudest.take();
        let active = std::mem::take(&mut self.active);
        let percent = (active.as_secs_f64() * 100.0 / PERIOD.as_secs_f64()).round().min(100.0);
        loudest.filter(|level| *level < 127).map(|level| AudioLevel {
            track,
            level,
            active_percent: percent as u8,
        })
    }

    /// Forgets what was heard, at a mute.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACK: TrackId = TrackId(7);

    #[test]
    fn reports_the_loudest_level_and_the_share_of_speech() {
        let mut meter = LevelMeter::default();
        // 12 packets of 20 ms, every second one is speech.
        for i in 0..12u32 {
            meter.record(if i % 2 == 0 { 30 } else { 60 }, RtpTime(u32::MAX.wrapping_add(i * 960)), 48_000);
        }
        assert_eq!(meter.take(TRACK), Some(AudioLevel { track: TRACK, level: 30, active_percent: 48 }));
        assert_eq!(meter.take(TRACK), None, "a period without packets");
    }

    #[test]
    fn silence_gaps_and_repeats_are_no_speech() {
        let mut meter = LevelMeter::default();
        meter.record(127, RtpTime(0), 48_000);
        assert_eq!(meter.take(TRACK), None);
        meter.record(20, RtpTime(480_000), 48_000);
        meter.record(20, RtpTime(480_000), 48_000);
        meter.record(20, RtpTime(479_040), 48_000);
        // Ten seconds of pause count as one longest packet: 60 of 250 ms.
        assert_eq!(meter.take(TRACK).map(|l| l.active_percent), Some(24));
    }
}
