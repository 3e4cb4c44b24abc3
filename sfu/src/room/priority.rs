//! Which of a subscriber's tracks get bandwidth first, and who is taken for the one that speaks.

use std::time::{Duration, Instant};

use livekit_protocol as proto;
use sfu_media::command::MediaKind;

use super::participant::Key;
use super::tracks::Track;
use super::{Room, Step};

/// Class, in the highest bits: sound before all pictures, then a shared screen, then who speaks, then the others.
const AUDIO: u32 = 4;
const SCREEN: u32 = 3;
const SPEAKER: u32 = 2;
const OTHER: u32 = 1;
/// Below the class, eight bits of the client's own `UpdateTrackSettings.priority`, then twenty of the picture's size.
const CLASS_SHIFT: u32 = 28;
const ASKED_SHIFT: u32 = 20;
const MAX_ASKED: u32 = 0xff;
const MAX_SIZE: u32 = (1 << ASKED_SHIFT) - 1;
/// Pixels of one step of size, so that twenty bits hold sixteen megapixels.
const PIXELS_PER_STEP: u64 = 16;

/// The priority of one subscription, `class << 28 | asked << 20 | size`: a higher number goes first. A client's own
/// priority orders tracks inside their class only, and size orders those that it does not tell apart.
pub(super) fn priority(kind: MediaKind, source: i32, speaks: bool, asked: u32, pixels: u64) -> u32 {
    let class = match (kind, proto::TrackSource::try_from(source)) {
        (MediaKind::Audio, _) => AUDIO,
        (MediaKind::Video, Ok(proto::TrackSource::ScreenShare)) => SCREEN,
        (MediaKind::Video, _) if speaks => SPEAKER,
        (MediaKind::Video, _) => OTHER,
    };
    let size = u32::try_from(pixels / PIXELS_PER_STEP).unwrap_or(MAX_SIZE).min(MAX_SIZE);
    class << CLASS_SHIFT | asked.min(MAX_ASKED) << ASKED_SHIFT | size
}

/// How long somebody must be the loudest to take the lead while who has it still speaks.
const TAKE_OVER: Duration = Duration::from_secs(2);
/// The same when who has it is silent. A cough is shorter.
const STEP_IN: Duration = Duration::from_millis(500);

/// The one participant whose picture goes before those of the others. It changes rarely: each change re-ranks the
/// subscriptions of everybody.
#[derive(Debug, Default)]
pub(super) struct Lead {
    who: Option<Key>,
    /// Who is the loudest instead, and since when.
    rival: Option<(Key, Instant)>,
}

impl Lead {
    pub(super) fn is(&self, key: Key) -> bool {
        self.who == Some(key)
    }

    /// Takes who speaks now, loudest first; returns who lost the lead and who got it when it changes.
    fn hear(&mut self, speaking: &[Key], now: Instant) -> Option<[Option<Key>; 2]> {
        let loudest = speaking.first().copied().filter(|key| !self.is(*key));
        let Some(loudest) = loudest else {
            self.rival = None;
            return None;
        };
        let since = self.rival.filter(|(who, _)| *who == loudest).map_or(now, |(_, since)| since);
        let holds_on = self.who.is_some_and(|who| speaking.contains(&who));
        if now.saturating_duration_since(since) < if holds_on { TAKE_OVER } else { STEP_IN } {
            self.rival = Some((loudest, since));
            return None;
        }
        self.rival = None;
        let before = self.who.replace(loudest);
        Some([before, Some(loudest)])
    }

    /// A participant is gone.
    pub(super) fn left(&mut self, key: Key) {
        self.who = self.who.filter(|who| *who != key);
        self.rival = self.rival.filter(|(who, _)| *who != key);
    }
}

impl Room {
    /// The speakers of this moment, loudest first.
    pub(super) fn follow_speakers(&mut self, speaking: &[Key], step: &mut Step<'_>) {
        let Some(changed) = self.lead.hear(speaking, step.now.instant) else { return };
        for key in changed.into_iter().flatten() {
            let tracks = self.participants.get(&key).map(|p| p.tracks.clone()).unwrap_or_default();
            for id in tracks {
                if self.tracks.get(&id).is_some_and(|t| t.kind == MediaKind::Video) {
                    self.retarget(id, step);
                }
            }
        }
    }

    /// The track belongs to who has the lead.
    pub(super) fn speaks(&self, track: &Track) -> bool {
        self.lead.is(track.publisher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::TrackSource::{Camera, Microphone, ScreenShare};

    fn video(source: proto::TrackSource, speaks: bool, asked: u32, pixels: u64) -> u32 {
        priority(MediaKind::Video, source as i32, speaks, asked, pixels)
    }

    #[test]
    fn classes_then_the_clients_wish_then_size() {
        let order = [
            priority(MediaKind::Audio, Microphone as i32, false, 0, 0),
            video(ScreenShare, false, 0, 100),
            video(Camera, true, 9, 100),
            video(Camera, true, 0, u64::MAX),
            video(Camera, false, 255, 0),
            video(Camera, false, 1, 1280 * 720),
            video(Camera, false, 0, 1280 * 720),
            video(Camera, false, 0, 320 * 180),
            video(Camera, false, 0, 0),
        ];
        assert!(order.windows(2).all(|w| w[0] > w[1]), "{order:x?}");
        assert_eq!(video(Camera, false, u32::MAX, 0), video(Camera, false, 255, 0));
    }

    #[test]
    fn the_lead_changes_slowly() {
        let t = Instant::now();
        let at = |ms| t + Duration::from_millis(ms);
        let (a, b) = (Key(1), Key(2));
        let mut lead = Lead::default();
        assert_eq!(lead.hear(&[a], at(0)), None);
        assert_eq!(lead.hear(&[a], at(250)), None);
        assert_eq!(lead.hear(&[a], at(500)), Some([None, Some(a)]));
        assert_eq!(lead.hear(&[], at(5000)), None, "silence changes nothing");
        // A cough, and somebody louder for less than two seconds.
        assert_eq!(lead.hear(&[b], at(5250)), None);
        assert_eq!(lead.hear(&[a], at(5500)), None);
        assert_eq!(lead.hear(&[b, a], at(6000)), None);
        assert_eq!(lead.hear(&[b, a], at(7900)), None);
        assert_eq!(lead.hear(&[a, b], at(7950)), None);
        assert_eq!(lead.hear(&[b, a], at(8000)), None);
        assert_eq!(lead.hear(&[b, a], at(10_000)), Some([Some(a), Some(b)]));
        lead.left(b);
        assert!(!lead.is(b));
    }
}
