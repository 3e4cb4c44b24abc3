//! Who speaks when: turns that the participants of a room take, talk spurts within a turn, muted spells.
//!
//! Every bot of a room works the same schedule out from the room's number, so that one speaks at a time without the bots
//! talking to each other.

use std::time::Duration;

/// Mean length of a talk spurt and of the pause after it (ITU-T P.59: 1.004 s and 1.587 s; within a turn the pauses in
/// which the other side speaks do not occur, so that the short ones remain).
const SPURT: f64 = 1.004;
const PAUSE: f64 = 0.4;
/// Mean length of a turn.
const TURN: f64 = 6.0;
/// Mean length of a muted spell.
const MUTED: f64 = 12.0;
/// Opus packets carry 20 ms.
pub const PACKET: Duration = Duration::from_millis(20);
/// In silence Opus (DTX) sends a packet every 400 ms.
pub const SILENCE: Duration = Duration::from_millis(400);

/// A small generator whose numbers depend on the seed alone (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least 0, below 1.
    pub fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponentially distributed, at least `least`, at most ten times the mean.
    pub fn spell(&mut self, mean: f64, least: f64) -> Duration {
        let length = -mean * (1.0 - self.unit()).ln();
        Duration::from_secs_f64(length.clamp(least, mean * 10.0))
    }
}

/// What a microphone does for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// It hears speech: a packet every 20 ms.
    Speech,
    /// It hears nothing: a packet every 400 ms.
    Silence,
    /// It is off: no packets.
    Muted,
}

/// One participant's part of a room's schedule.
#[derive(Debug, Clone)]
pub struct Speaker {
    room: Dice,
    own: Dice,
    member: u64,
    members: u64,
    /// Share of the time outside of its turns for which it is muted.
    muted_share: f64,
    /// Turn that is on, and when it ends, from the start of the room's schedule.
    mine: bool,
    turn_end: Duration,
    now: Voice,
    until: Duration,
}

impl Speaker {
    /// Member number `member` of the `members` that speak in a room.
    pub fn new(room_seed: u64, member: u64, members: u64, muted_share: f64) -> Self {
        let mut speaker = Self {
            room: Dice::new(room_seed),
            own: Dice::new(room_seed ^ (member + 1).wrapping_mul(0x5851_f42d_4c95_7f2d)),
            member,
            members: members.max(1),
            muted_share: muted_share.clamp(0.0, 1.0),
            mine: false,
            turn_end: Duration::ZERO,
            now: Voice::Silence,
            until: Duration::ZERO,
        };
        speaker.advance();
        speaker
    }

    /// Somebody who never stops.
    pub fn steady() -> Self {
        Self { now: Voice::Speech, until: Duration::MAX, ..Self::new(0, 0, 1, 0.0) }
    }

    /// What the microphone does at `at` of the schedule, and until when. `at` must not go back.
    pub fn at(&mut self, at: Duration) -> (Voice, Duration) {
        while at >= self.until {
            self.advance();
        }
        (self.now, self.until)
    }

    fn advance(&mut self) {
        let from = self.until;
        if from >= self.turn_end {
            self.mine = self.room.roll() % self.members == self.member;
            self.turn_end = from + self.room.spell(TURN, 1.0);
            self.now = Voice::Silence;
        }
        let wanted;
        (self.now, wanted) = match (self.mine, self.now) {
            (true, Voice::Speech) => (Voice::Silence, self.own.spell(PAUSE, 0.2)),
            (true, _) => (Voice::Speech, self.own.spell(SPURT, 0.2)),
            (false, Voice::Muted) => (Voice::Silence, self.own.spell(MUTED, 1.0)),
            (false, _) if self.own.unit() < self.muted_share => (Voice::Muted, self.own.spell(MUTED, 1.0)),
            (false, _) => (Voice::Silence, self.own.spell(MUTED, 1.0)),
        };
        self.until = (from + wanted).min(self.turn_end);
    }
}

/// Size of an Opus packet of speech: constant-quality Opus varies by about a third around its mean.
pub fn speech_bytes(dice: &mut Dice, bitrate: u32) -> usize {
    let mean = f64::from(bitrate) / 8.0 * PACKET.as_secs_f64();
    (mean * (0.7 + 0.6 * dice.unit())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_speaks_at_a_time_and_everybody_gets_a_turn() {
        let members = 4;
        let mut speakers: Vec<_> = (0..members).map(|m| Speaker::new(42, m, members, 0.3)).collect();
        let mut spoke = [0u32; 4];
        let mut muted = 0u32;
        for ms in (0..600_000u64).step_by(20) {
            let voices: Vec<_> = speakers.iter_mut().map(|s| s.at(Duration::from_millis(ms)).0).collect();
            assert!(voices.iter().filter(|v| **v == Voice::Speech).count() <= 1);
            for (count, voice) in spoke.iter_mut().zip(&voices) {
                *count += u32::from(*voice == Voice::Speech);
            }
            muted += voices.iter().filter(|v| **v == Voice::Muted).count() as u32;
        }
        assert!(spoke.iter().all(|s| *s > 1_000), "{spoke:?}");
        // Of thirty thousand slots some two thirds are speech.
        let all: u32 = spoke.iter().sum();
        assert!((15_000..27_000).contains(&all), "{all}");
        assert!(muted > 5_000, "{muted}");
    }
}
