//! Connection quality: a score per participant from loss, delay and jitter, told when its grade changes.
//!
//! As in LiveKit's `connectionquality`, the score falls fast and climbs slowly, so that a connection that comes and goes is
//! not called good in between; a picture that the path does not carry makes it poor, and silence makes it lost.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use proto::ConnectionQuality;
use proto::signal_response::Message;
use sfu_media::command::PeerQuality;

use super::participant::Key;
use super::{Room, Step};

/// How often grades are told.
const INTERVAL: Duration = Duration::from_secs(5);

/// Share of a worse score in the smoothed one, and of a better one.
const FALL: f32 = 0.8;
const CLIMB: f32 = 0.4;
/// The best score while something that it should get is paused.
const PAUSED: f32 = 30.0;
/// Rounds without a sign of life, while its transport is thought to be up, after which a participant is lost. A client
/// that can reach the relay checks that several times a round.
const SILENT_ROUNDS: u32 = 2;
/// Losses among fewer packets than this count as among so many: one of three is no sign of a bad path.
const FEW_PACKETS: u64 = 50;

/// Figures of one participant since the last round.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    up_expected: u64,
    up_lost: u64,
    down_sent: u64,
    down_lost: u64,
    rtt: Option<Duration>,
    jitter: Duration,
    heard: bool,
}

/// One participant over the rounds.
#[derive(Debug, Clone, Copy)]
struct Course {
    /// 0 to 100.
    score: f32,
    /// Rounds since something came from it.
    silent: u32,
}

/// The grades of a room.
#[derive(Debug)]
pub(super) struct Quality {
    figures: BTreeMap<Key, Figures>,
    courses: BTreeMap<Key, Course>,
    told: BTreeMap<Key, ConnectionQuality>,
    /// Participants who have not heard the others' grades yet.
    new: BTreeSet<Key>,
    next: Instant,
}

impl Quality {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            figures: BTreeMap::new(),
            courses: BTreeMap::new(),
            told: BTreeMap::new(),
            new: BTreeSet::new(),
            next: now + INTERVAL,
        }
    }

    pub(super) fn joined(&mut self, key: Key) {
        self.new.insert(key);
    }

    pub(super) fn left(&mut self, key: Key) {
        self.figures.remove(&key);
        self.courses.remove(&key);
        self.told.remove(&key);
        self.new.remove(&key);
    }
}

impl Figures {
    fn add(&mut self, report: &PeerQuality) {
        self.up_expected += u64::from(report.up_expected);
        self.up_lost += u64::from(report.up_lost);
        self.down_sent += u64::from(report.down_sent);
        self.down_lost += u64::from(report.down_lost);
        self.rtt = self.rtt.max(report.rtt);
        self.jitter = self.jitter.max(report.jitter);
        self.heard |= report.heard;
    }

    /// 0 to 100.
    fn score(&self) -> f32 {
        let percent = |lost: u64, of: u64| 100.0 * lost.min(of) as f32 / of.max(FEW_PACKETS) as f32;
        let loss = percent(self.up_lost, self.up_expected).max(percent(self.down_lost, self.down_sent));
        let delay = self.rtt.unwrap_or_default() / 2 + self.jitter * 2;
        let delay_ms = delay.as_secs_f32() * 1000.0;
        // After the E-model (ITU-T G.107): up to 160 ms one way are hardly noticed, beyond it the cost grows fast; a per
        // cent of loss costs four points.
        let delay_cost = if delay_ms <= 160.0 { delay_ms / 40.0 } else { (delay_ms - 120.0) / 10.0 };
        (100.0 - delay_cost - 4.0 * loss).clamp(0.0, 100.0)
    }
}

impl Course {
    /// A round is over.
    fn follow(&mut self, figures: Option<&Figures>, paused: bool) {
        self.silent = if figures.is_some_and(|f| f.heard) { 0 } else { self.silent + 1 };
        let new = match figures {
            Some(figures) if figures.heard => figures.score(),
            // Nothing shows what gets through.
            _ => 0.0,
        };
        let new = if paused { new.min(PAUSED) } else { new };
        let share = if new < self.score { FALL } else { CLIMB };
        self.score += (new - self.score) * share;
    }

    fn grade(&self) -> ConnectionQuality {
        if self.silent >= SILENT_ROUNDS { ConnectionQuality::Lost } else { grade(self.score) }
    }
}

fn grade(score: f32) -> ConnectionQuality {
    if score >= 80.0 {
        ConnectionQuality::Excellent
    } else if score >= 40.0 {
        ConnectionQuality::Good
    } else {
        ConnectionQuality::Poor
    }
}

impl Room {
    pub(super) fn peer_quality(&mut self, reports: &[PeerQuality]) {
        for report in reports {
            if let Some(key) = self.peers.get(&report.peer) {
                self.quality.figures.entry(*key).or_default().add(report);
            }
        }
    }

    /// When the next round is due.
    pub(super) fn quality_deadline(&self) -> Option<Instant> {
        (!self.participants.is_empty()).then_some(self.quality.next)
    }

    pub(super) fn expire_quality(&mut self, step: &mut Step<'_>) {
        if self.quality.next > step.now.instant {
            return;
        }
        self.quality.next = step.now.instant + INTERVAL;
        let figures = std::mem::take(&mut self.quality.figures);
        let mut all = Vec::new();
        let mut changed = BTreeSet::new();
        for (key, p) in &self.participants {
            let figures = figures.get(key);
            let (quality, score) = if p.transports.any_closed() {
                (ConnectionQuality::Lost, 0.0)
            } else if !p.transports.any_connected() {
                continue; // not yet
            } else {
                let paused = p.subs.values().any(|sub| sub.told_paused);
                // One that has just connected has nothing to answer for yet.
                let fresh = Course { score: 100.0, silent: 0 };
                match self.quality.courses.entry(*key) {
                    Entry::Vacant(_) if figures.is_none() => continue,
                    entry => {
                        let course = entry.or_insert(fresh);
                        course.follow(figures, paused);
                        (course.grade(), course.score)
                    }
                }
            };
            if self.quality.told.insert(*key, quality) != Some(quality) {
                changed.insert(*key);
            }
            let info = proto::ConnectionQualityInfo {
                participant_sid: p.sid.clone(),
                quality: quality as i32,
                // From 1 to 5, like a mean opinion score.
                score: 1.0 + 4.0 * score / 100.0,
            };
            all.push((*key, p.permissions.hidden, info));
        }
        let new = std::mem::take(&mut self.quality.new);
        if self.is_large() {
            return self.tell_watched(&all, &changed, &new, step);
        }
        for (key, p) in self.participants.iter().filter(|(_, p)| p.session.is_some()) {
            let updates: Vec<_> = all
                .iter()
                .filter(|(of, hidden, _)| of == key || !hidden)
                .filter(|(of, ..)| new.contains(key) || changed.contains(of))
                .map(|(.., info)| info.clone())
                .collect();
            if !updates.is_empty() {
                step.signal(
                    p.session,
                    Message::ConnectionQuality(proto::ConnectionQualityUpdate { updates }),
                );
            }
        }
    }
}

impl Room {
    /// In a large room a client hears of itself and of those whose tracks it takes, as LiveKit has it in every room.
    fn tell_watched(
        &self,
        all: &[(Key, bool, proto::ConnectionQualityInfo)],
        changed: &BTreeSet<Key>,
        new: &BTreeSet<Key>,
        step: &mut Step<'_>,
    ) {
        let grades: BTreeMap<Key, _> =
            all.iter().map(|(key, hidden, info)| (*key, (*hidden, info))).collect();
        for (key, p) in self.participants.iter().filter(|(_, p)| p.session.is_some()) {
            let watched = p.subs.keys().filter_map(|id| self.tracks.get(id)).map(|track| track.publisher);
            let watched: BTreeSet<Key> = watched.chain([*key]).collect();
            let updates: Vec<_> = watched
                .iter()
                .filter(|of| new.contains(key) || changed.contains(of))
                .filter_map(|of| grades.get(of).filter(|(hidden, _)| of == key || !hidden))
                .map(|(_, info)| (*info).clone())
                .collect();
            if !updates.is_empty() {
                let update = proto::ConnectionQualityUpdate { updates };
                step.signal(p.session, Message::ConnectionQuality(update));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(loss_percent: u64, rtt_ms: u64) -> Figures {
        Figures {
            up_expected: 100,
            up_lost: loss_percent,
            rtt: Some(Duration::from_millis(rtt_ms)),
            heard: true,
            ..Default::default()
        }
    }

    #[test]
    fn grades_follow_loss_and_delay() {
        for (loss, rtt, want) in [
            (0, 20, ConnectionQuality::Excellent),
            (2, 100, ConnectionQuality::Excellent),
            (8, 100, ConnectionQuality::Good),
            (30, 100, ConnectionQuality::Poor),
            (0, 900, ConnectionQuality::Good),
            (0, 3000, ConnectionQuality::Poor),
        ] {
            assert_eq!(grade(figures(loss, rtt).score()), want, "{loss} % {rtt} ms");
        }
    }

    #[test]
    fn scores_fall_fast_and_climb_slowly() {
        let mut course = Course { score: 100.0, silent: 0 };
        course.follow(Some(&figures(25, 50)), false);
        assert_eq!(course.grade(), ConnectionQuality::Poor, "one bad round");
        let mut rounds = Vec::new();
        for _ in 0..5 {
            course.follow(Some(&figures(0, 50)), false);
            rounds.push(course.grade());
        }
        use ConnectionQuality::{Excellent, Good};
        assert_eq!(rounds, [Good, Good, Excellent, Excellent, Excellent]);
    }

    #[test]
    fn pauses_are_poor_and_silence_is_lost() {
        let mut course = Course { score: 100.0, silent: 0 };
        course.follow(Some(&figures(0, 20)), true);
        course.follow(Some(&figures(0, 20)), true);
        assert_eq!(course.grade(), ConnectionQuality::Poor);
        for round in 0..4 {
            course.follow(Some(&Figures { heard: false, ..figures(0, 20) }), false);
            let lost = course.grade() == ConnectionQuality::Lost;
            assert_eq!(lost, round >= 1, "round {round}");
        }
        course.follow(Some(&figures(0, 20)), false);
        assert_eq!(course.grade(), ConnectionQuality::Poor, "back, but not all at once");
        course.follow(Some(&figures(0, 20)), false);
        assert_eq!(course.grade(), ConnectionQuality::Good);
    }

    #[test]
    fn few_packets_prove_little() {
        let few = Figures { up_expected: 3, up_lost: 1, heard: true, ..Default::default() };
        assert_eq!(grade(few.score()), ConnectionQuality::Excellent);
        let jitter = Figures { jitter: Duration::from_millis(150), heard: true, ..Default::default() };
        assert_eq!(grade(jitter.score()), ConnectionQuality::Excellent);
        let jitter = Figures { jitter: Duration::from_millis(300), ..jitter };
        assert_eq!(grade(jitter.score()), ConnectionQuality::Good);
    }
}
