//! Connection quality: a score per participant from loss, delay and jitter, told when its grade changes.

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

/// Figures of one participant since the last round.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    up_expected: u64,
    up_lost: u64,
    down_sent: u64,
    down_lost: u64,
    rtt: Option<Duration>,
    jitter: Duration,
}

/// The grades of a room.
#[derive(Debug)]
pub(super) struct Quality {
    figures: BTreeMap<Key, Figures>,
    told: BTreeMap<Key, ConnectionQuality>,
    /// Participants who have not heard the others' grades yet.
    new: BTreeSet<Key>,
    next: Instant,
}

impl Quality {
    pub(super) fn new(now: Instant) -> Self {
        Self { figures: BTreeMap::new(), told: BTreeMap::new(), new: BTreeSet::new(), next: now + INTERVAL }
    }

    pub(super) fn joined(&mut self, key: Key) {
        self.new.insert(key);
    }

    pub(super) fn left(&mut self, key: Key) {
        self.figures.remove(&key);
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
    }

    /// 0 to 100.
    fn score(&self) -> f32 {
        let percent =
            |lost: u64, of: u64| if of == 0 { 0.0 } else { 100.0 * lost.min(of) as f32 / of as f32 };
        let loss = percent(self.up_lost, self.up_expected).max(percent(self.down_lost, self.down_sent));
        let delay = self.rtt.unwrap_or_default() / 2 + self.jitter * 2;
        let delay_ms = delay.as_secs_f32() * 1000.0;
        // After the E-model (ITU-T G.107): up to 160 ms one way are hardly noticed, beyond it the cost grows fast; a per
        // cent of loss costs four points.
        let delay_cost = if delay_ms <= 160.0 { delay_ms / 40.0 } else { (delay_ms - 120.0) / 10.0 };
        (100.0 - delay_cost - 4.0 * loss).clamp(0.0, 100.0)
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
            let score = figures.get(key).map(Figures::score);
            let quality = match score {
                Some(score) => grade(score),
                // It had a connection, and now there is none.
                None if p.transports.any_closed() => ConnectionQuality::Lost,
                None => continue,
            };
            if self.quality.told.insert(*key, quality) != Some(quality) {
                changed.insert(*key);
            }
            let info = proto::ConnectionQualityInfo {
                participant_sid: p.sid.clone(),
                quality: quality as i32,
                score: 1.0 + 4.0 * score.unwrap_or(0.0) / 100.0,
            };
            all.push((*key, p.permissions.hidden, info));
        }
        let new = std::mem::take(&mut self.quality.new);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(loss_percent: u64, rtt_ms: u64) -> Figures {
        Figures {
            up_expected: 100,
            up_lost: loss_percent,
            rtt: Some(Duration::from_millis(rtt_ms)),
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
}
