//! The media sections of a connection as they live on from description to description, and which track each has.

use sfu_media::command::MediaKind;
use sfu_media::ids::{Mid, SubId};

use super::codecs::PayloadType;
use super::text::SectionKind;
use super::{SendTrack, Unassigned};

/// One media section. Its index in [`Sections::slots`] is its place in every description.
#[derive(Debug)]
pub(super) enum Slot {
    /// Port zero in the last exchange; may come back as something else with another mid
    /// ([RFC 9429 section 5.2.2](https://www.rfc-editor.org/rfc/rfc9429#section-5.2.2)).
    Rejected {
        /// What it was before, which a description repeats; none when it was never anything else.
        was: Option<(Mid, SectionKind)>,
    },
    /// Data channels.
    Data { mid: Mid },
    /// Audio or video.
    Media(MediaSlot),
}

/// An audio or video section.
#[derive(Debug)]
pub(super) struct MediaSlot {
    /// `a=mid`.
    pub(super) mid: Mid,
    /// Audio or video.
    pub(super) kind: MediaKind,
    /// The client would receive on it.
    pub(super) willing: bool,
    /// The client may send on it.
    pub(super) client_sends: bool,
    /// The track that it should have.
    pub(super) track: Option<SendTrack>,
    /// The track that the relay's last description gave it.
    pub(super) described: Option<SubId>,
    /// The track that the last finished exchange gave it.
    pub(super) settled: Option<SubId>,
    /// The payload types of the relay's last offer.
    pub(super) offered: Vec<PayloadType>,
}

impl MediaSlot {
    pub(super) fn new(mid: Mid, kind: MediaKind) -> Self {
        Self {
            mid,
            kind,
            willing: true,
            client_sends: false,
            track: None,
            described: None,
            settled: None,
            offered: Vec::new(),
        }
    }

    /// Whether another track may have it. A section that still sends must first be inactive for one exchange: a browser
    /// fires `track` when a section starts to receive, not when its track changes.
    fn is_free(&self, kind: MediaKind) -> bool {
        self.kind == kind
            && self.willing
            && self.track.is_none()
            && self.described.is_none()
            && self.settled.is_none()
    }

    /// The track that it should have, when it has one of this id.
    pub(super) fn track_with(&self, sub: Option<SubId>) -> Option<&SendTrack> {
        self.track.as_ref().filter(|t| Some(t.sub) == sub)
    }
}

/// All sections of a connection and the tracks that lack one.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) slots: Vec<Slot>,
    pub(super) waiting: Vec<SendTrack>,
}

impl Sections {
    pub(super) fn media(&self) -> impl Iterator<Item = &MediaSlot> {
        self.slots.iter().filter_map(|s| match s {
            Slot::Media(m) => Some(m),
            _ => None,
        })
    }

    pub(super) fn media_mut(&mut self) -> impl Iterator<Item = &mut MediaSlot> {
        self.slots.iter_mut().filter_map(|s| match s {
            Slot::Media(m) => Some(m),
            _ => None,
        })
    }

    /// A track without a section for now.
    pub(super) fn add(&mut self, track: SendTrack) {
        let known = |t: &SendTrack| t.sub == track.sub;
        if !self.waiting.iter().any(known) && !self.media().filter_map(|m| m.track.as_ref()).any(known) {
            self.waiting.push(track);
        }
    }

    pub(super) fn remove(&mut self, sub: SubId) {
        self.waiting.retain(|t| t.sub != sub);
        for slot in self.media_mut() {
            if slot.track.as_ref().is_some_and(|t| t.sub == sub) {
                slot.track = None;
            }
        }
    }

    /// Puts a slot in the place of another; the track that it had waits again, before all others.
    pub(super) fn replace(&mut self, index: usize, slot: Slot) {
        if let Some(old) = self.slots.get_mut(index) {
            if let Slot::Media(MediaSlot { track: Some(track), .. }) = std::mem::replace(old, slot) {
                self.waiting.insert(0, track);
            }
        } else {
            self.slots.push(slot);
        }
    }

    /// Rejects a section.
    pub(super) fn reject(&mut self, index: usize) {
        let was = self.slots.get(index).and_then(|slot| match slot {
            Slot::Rejected { was } => *was,
            Slot::Data { mid } => Some((*mid, SectionKind::Data)),
            Slot::Media(slot) => Some((slot.mid, SectionKind::Media(slot.kind))),
        });
        self.replace(index, Slot::Rejected { was });
    }

    /// Takes a track off its section; it waits again, before all others.
    pub(super) fn release(&mut self, index: usize) {
        if let Some(Slot::Media(slot)) = self.slots.get_mut(index)
            && let Some(track) = slot.track.take()
        {
            self.waiting.insert(0, track);
        }
    }

    /// Gives waiting tracks free sections, first those that the client only receives on.
    pub(super) fn assign(&mut self) {
        for track in std::mem::take(&mut self.waiting) {
            let free = |m: &&mut MediaSlot| m.is_free(track.kind);
            let best = self.media_mut().filter(free).min_by_key(|m| m.client_sends);
            match best {
                Some(slot) => slot.track = Some(track),
                None => self.waiting.push(track),
            }
        }
    }

    /// Whether a track is not where it should be.
    pub(super) fn are_unsettled(&self) -> bool {
        !self.waiting.is_empty() || self.media().any(|m| m.track.as_ref().map(|t| t.sub) != m.settled)
    }

    pub(super) fn unassigned(&self) -> Unassigned {
        let count = |kind| self.waiting.iter().filter(|t| t.kind == kind).count();
        Unassigned { audios: count(MediaKind::Audio), videos: count(MediaKind::Video) }
    }
}
