//! Publishers stop the layers that nobody takes: what each is told with `SubscribedQualityUpdate`.
//!
//! As in LiveKit, more is asked for at once, and less only after a while, so that a picture that is resized or scrolled
//! past does not start and stop encoders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use proto::VideoQuality;
use proto::signal_response::Message;
use sfu_media::command::MediaKind;
use sfu_media::ids::TrackId;

use super::participant::Key;
use super::tracks::Track;
use super::{Room, Step};

/// How long fewer layers must do before the publisher is told.
const DOWN_AFTER: Duration = Duration::from_secs(5);

/// The published video tracks, and what their publishers know.
#[derive(Debug, Default)]
pub(super) struct Dynacast {
    tracks: BTreeMap<TrackId, Told>,
    /// Tracks whose subscriptions changed in this step.
    dirty: BTreeSet<TrackId>,
}

#[derive(Debug, Clone)]
struct Told {
    /// Highest quality that is on; `None` for none.
    top: Option<VideoQuality>,
    /// As its update named it.
    codec: String,
    /// When less is told, unless more is wanted again.
    down_at: Option<Instant>,
}

impl Dynacast {
    /// Who takes the track, or what of it, may have changed.
    pub(super) fn touch(&mut self, track: TrackId) {
        self.dirty.insert(track);
    }

    pub(super) fn forget(&mut self, track: TrackId) {
        self.tracks.remove(&track);
        self.dirty.remove(&track);
    }

    /// When something is to be told.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tracks.values().filter_map(|told| told.down_at).min()
    }
}

impl Track {
    /// The quality that a subscriber takes when it takes layers up to `max_spatial`. Where it takes the highest, all are
    /// on, whatever the publisher's names for its layers are.
    #[allow(deprecated)] // `layers` is what all SDKs fill in
    fn quality_of(&self, max_spatial: u8) -> VideoQuality {
        let layers = &self.info.layers;
        let spatial = usize::from(max_spatial);
        match layers.get(spatial).filter(|_| spatial + 1 < layers.len()) {
            Some(layer) => match VideoQuality::try_from(layer.quality) {
                Ok(quality @ (VideoQuality::Low | VideoQuality::Medium)) => quality,
                _ => VideoQuality::High,
            },
            None => VideoQuality::High,
        }
    }

    /// The update that asks for all qualities up to this one.
    #[allow(deprecated)] // old SDKs read `subscribed_qualities`
    fn quality_update(&self, top: Option<VideoQuality>, codec: &str) -> proto::SubscribedQualityUpdate {
        let on = |quality| top.is_some_and(|top| quality as i32 <= top as i32);
        let qualities: Vec<_> = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High]
            .map(|quality| proto::SubscribedQuality { quality: quality as i32, enabled: on(quality) })
            .into();
        proto::SubscribedQualityUpdate {
            track_sid: self.info.sid.clone(),
            subscribed_qualities: qualities.clone(),
            subscribed_codecs: vec![proto::SubscribedCodec { codec: codec.to_owned(), qualities }],
        }
    }

    /// Its codec as SDKs compare it: `vp8`.
    fn codec_name(&self) -> String {
        self.info.mime_type.rsplit('/').next().unwrap_or_default().to_ascii_lowercase()
    }
}

impl Room {
    /// The highest quality that any subscriber wants, those included whose description is still on its way: the layer
    /// should be there when they are.
    fn wanted_quality(&self, track: &Track) -> Option<VideoQuality> {
        let subs = self.participants.values().filter_map(|p| p.subs.get(&track.id));
        let top = subs.filter(|sub| sub.target.enabled).map(|sub| sub.target.max_spatial).max()?;
        Some(track.quality_of(top))
    }

    /// A video track is published: publishers begin with all layers.
    pub(super) fn begin_dynacast(&mut self, id: TrackId, step: &mut Step<'_>) {
        let Some(track) = self.tracks.get(&id).filter(|t| t.kind == MediaKind::Video) else { return };
        let told = Told { top: Some(VideoQuality::High), codec: track.codec_name(), down_at: None };
        let update = track.quality_update(told.top, &told.codec);
        step.signal(self.session_of(track.publisher), Message::SubscribedQualityUpdate(update));
        self.dynacast.tracks.insert(id, told);
        self.dynacast.touch(id);
    }

    /// Tells a publisher that came back what it may have missed.
    pub(super) fn repeat_dynacast(&self, key: Key, step: &mut Step<'_>) {
        let Some(p) = self.participants.get(&key) else { return };
        for (id, told) in p.tracks.iter().filter_map(|id| Some((id, self.dynacast.tracks.get(id)?))) {
            if let Some(track) = self.tracks.get(id) {
                let update = track.quality_update(told.top, &told.codec);
                step.signal(p.session, Message::SubscribedQualityUpdate(update));
            }
        }
    }

    /// Looks at the tracks whose subscriptions changed, and at those that are due.
    pub(super) fn flush_dynacast(&mut self, step: &mut Step<'_>) {
        let now = step.now.instant;
        let mut look = std::mem::take(&mut self.dynacast.dirty);
        let due = |told: &Told| told.down_at.is_some_and(|at| at <= now);
        look.extend(self.dynacast.tracks.iter().filter(|(_, told)| due(told)).map(|(id, _)| *id));
        for id in look {
            let Some(track) = self.tracks.get(&id) else { continue };
            let (top, codec) = (self.wanted_quality(track), track.codec_name());
            let session = self.session_of(track.publisher);
            let Some(told) = self.dynacast.tracks.get_mut(&id) else { continue };
            let (renamed, less) = (told.codec != codec, rank(top) < rank(told.top));
            if told.top == top && !renamed {
                told.down_at = None;
                continue;
            }
            if less && told.down_at.is_none_or(|at| at > now) {
                told.down_at.get_or_insert(now + DOWN_AFTER);
                if !renamed {
                    continue;
                }
                // The codec is told at once, with the layers that are on.
                told.codec = codec;
            } else {
                *told = Told { top, codec, down_at: None };
            }
            let update = track.quality_update(told.top, &told.codec);
            step.signal(session, Message::SubscribedQualityUpdate(update));
        }
    }
}

/// Off is the lowest.
fn rank(quality: Option<VideoQuality>) -> i32 {
    quality.map_or(-1, |quality| quality as i32)
}
