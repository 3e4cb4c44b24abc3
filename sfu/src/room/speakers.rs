//! Who speaks: smoothed audio levels, told when they change.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use proto::signal_response::Message;
use sfu_media::command::AudioLevel;
use sfu_media::ids::{ShardId, TrackId};

use super::participant::Key;
use super::{Room, Step};

/// Speech is louder than this, in -dBov.
const ACTIVE_LEVEL: u8 = 35;
/// Speech fills at least this share of a report's period, in per cent.
const MIN_ACTIVE: u8 = 40;
/// Share of a new level in the smoothed one; the rest is the past.
const SMOOTHING: f32 = 0.6;
/// Levels are told in steps of 1/8, so that breath does not make messages.
const STEPS: f32 = 8.0;
/// Reports come four times a second; after this long without one everybody is silent.
const SILENCE: Duration = Duration::from_millis(700);

/// Levels of the tracks that are not silent, and what clients were told.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    levels: HashMap<TrackId, f32>,
    told: BTreeMap<Key, (String, f32)>,
    /// When each of the room's shards reported last.
    last_report: BTreeMap<ShardId, Instant>,
}

impl Speakers {
    pub(super) fn forget(&mut self, track: TrackId) {
        self.levels.remove(&track);
    }

    /// When silence is to be concluded.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let pending = !self.told.is_empty() || !self.levels.is_empty();
        self.last_report.values().min().filter(|_| pending).map(|at| *at + SILENCE)
    }

    /// Who speaks now, for a client that comes back.
    pub(super) fn active(&self) -> Option<proto::SpeakersChanged> {
        let mut speakers: Vec<_> = self.told.values().map(|(sid, level)| speaker(sid, *level)).collect();
        speakers.sort_by(|a, b| b.level.total_cmp(&a.level));
        (!speakers.is_empty()).then_some(proto::SpeakersChanged { speakers })
    }

    /// Takes a report of a shard; `is_there` tells which tracks it is about.
    fn smooth(&mut self, report: &HashMap<TrackId, f32>, is_there: impl Fn(TrackId) -> bool) {
        for track in report.keys() {
            self.levels.entry(*track).or_insert(0.0);
        }
        self.levels.retain(|track, smoothed| {
            if !is_there(*track) {
                return true;
            }
            let level = report.get(track).copied().unwrap_or(0.0);
            *smoothed += (level - *smoothed) * SMOOTHING;
            *smoothed > linear(127)
        });
    }
}

/// Linear loudness of a level in -dBov: 1 is the loudest.
fn linear(level: u8) -> f32 {
    10_f32.powf(-f32::from(level) / 20.0)
}

fn speaker(sid: &str, level: f32) -> proto::SpeakerInfo {
    proto::SpeakerInfo { sid: sid.to_owned(), level, active: level > 0.0 }
}

impl Room {
    pub(super) fn audio_levels(&mut self, levels: &[AudioLevel], step: &mut Step<'_>) {
        let heard: HashMap<TrackId, f32> = levels
            .iter()
            .filter(|l| self.tracks.get(&l.track).is_some_and(|t| !t.info.muted))
            .map(|l| {
                let speech = l.active_percent >= MIN_ACTIVE && l.level <= ACTIVE_LEVEL;
                // Short bursts count for what they fill of the period.
                let share = f32::from(l.active_percent.min(100)) / 100.0;
                (l.track, linear(l.level) * if speech { 1.0 } else { share })
            })
            .collect();
        // A report is of one shard, and names all of its tracks that are not silent.
        let Some(shard) = levels.iter().find_map(|level| self.home(level.track)) else { return };
        let mut speakers = std::mem::take(&mut self.speakers);
        speakers.smooth(&heard, |track| self.home(track) == Some(shard));
        self.speakers = speakers;
        if !self.speakers.levels.is_empty() || !self.speakers.told.is_empty() {
            self.speakers.last_report.insert(shard, step.now.instant);
        }
        self.tell_speakers(step);
    }

    /// The shard that a track's publisher is on.
    fn home(&self, track: TrackId) -> Option<ShardId> {
        let publisher = self.tracks.get(&track)?.publisher;
        Some(self.participants.get(&publisher)?.transports.shard)
    }

    /// A muted track is silent at once.
    pub(super) fn silence(&mut self, track: TrackId, step: &mut Step<'_>) {
        if self.speakers.levels.remove(&track).is_some() {
            self.tell_speakers(step);
        }
    }

    pub(super) fn expire_speakers(&mut self, step: &mut Step<'_>) {
        if self.speakers.deadline().is_none_or(|at| at > step.now.instant) {
            return;
        }
        let mut speakers = std::mem::take(&mut self.speakers);
        speakers.last_report.retain(|_, at| *at + SILENCE > step.now.instant);
        let Speakers { levels, last_report, .. } = &mut speakers;
        levels.retain(|track, _| self.home(*track).is_some_and(|shard| last_report.contains_key(&shard)));
        self.speakers = speakers;
        self.tell_speakers(step);
    }

    fn tell_speakers(&mut self, step: &mut Step<'_>) {
        let mut now: BTreeMap<Key, (String, f32)> = BTreeMap::new();
        let mut exact = Vec::new();
        for (track, level) in &self.speakers.levels {
            let Some(track) = self.tracks.get(track) else { continue };
            let Some(p) = self.participants.get(&track.publisher) else { continue };
            if *level >= linear(ACTIVE_LEVEL) && !p.permissions.hidden {
                let stepped = (level * STEPS).ceil() / STEPS;
                let entry = now.entry(track.publisher).or_insert_with(|| (p.sid.clone(), 0.0));
                entry.1 = entry.1.max(stepped);
                exact.push((*level, track.publisher));
            }
        }
        exact.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let speaking: Vec<_> = exact.into_iter().map(|(_, key)| key).collect();
        self.follow_speakers(&speaking, step);
        let told = &self.speakers.told;
        let started =
            now.iter().filter(|(key, value)| told.get(key) != Some(value)).map(|(_, v)| speaker(&v.0, v.1));
        let stopped =
            told.iter().filter(|(key, _)| !now.contains_key(key)).map(|(_, (sid, _))| speaker(sid, 0.0));
        // Loudest first, as LiveKit tells them.
        let mut speakers: Vec<_> = started.chain(stopped).collect();
        speakers.sort_by(|a, b| b.level.total_cmp(&a.level));
        if speakers.is_empty() {
            return;
        }
        let sessions: Vec<_> = self.participants.values().filter_map(|p| p.session).collect();
        step.broadcast(&sessions, Message::SpeakersChanged(proto::SpeakersChanged { speakers }));
        self.speakers.told = now;
    }
}
