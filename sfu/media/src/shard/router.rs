//! Which stream of which media section a publisher's packet belongs to.
//!
//! An SSRC is known from the description, or else is bound by the first packet that names its section: MID, with RID or
//! repaired RID under simulcast ([RFC 9143 section 9.2](https://www.rfc-editor.org/rfc/rfc9143#section-9.2),
//! [RFC 8852](https://www.rfc-editor.org/rfc/rfc8852)). Browsers name only the first packets, so a binding stays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::tracks::TrackKey;
use crate::command::{CodecParams, Extension, ExtensionMap, ReceiveSection};
use crate::drop_reason::DropReason;
use crate::ids::{Mid, Pt, Ssrc};
use crate::outbound::MAX_STREAMS;
use crate::rtp::ExtensionValues;

/// SSRCs that one peer may have bound at a time.
const MAX_ROUTES: usize = 256;

/// How long a stream must have been silent before another SSRC may take its place without a new description. Else two
/// SSRCs that name the same stream would displace each other with every packet.
const SILENT: Duration = Duration::from_millis(200);

/// Where the packets of an SSRC belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// Index of the section.
    pub(crate) section: usize,
    /// Simulcast layer, 0 without simulcast.
    pub(crate) layer: u8,
    /// The SSRC is of retransmissions.
    pub(crate) rtx: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    route: Route,
    /// When its last packet came.
    last: Instant,
}

/// A media section that the client may send on.
#[derive(Debug)]
pub(crate) struct Section {
    /// As negotiated.
    pub(crate) negotiated: ReceiveSection,
    /// The track that its media is.
    pub(crate) track: Option<TrackKey>,
}

/// What became of a packet's routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routed {
    /// Where the packet belongs.
    pub(crate) route: Route,
    /// Its SSRC took this place from another one: the stream starts afresh.
    pub(crate) replaced: bool,
}

/// A section that is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SectionChange {
    /// Its mid.
    pub(crate) mid: Mid,
}

/// The sections of one peer and the SSRCs bound to them.
#[derive(Debug, Default)]
pub(crate) struct Router {
    sections: Vec<Section>,
    bound: BTreeMap<Ssrc, Bound>,
    /// The extensions of all sections: within a bundle an id means the same everywhere
    /// ([RFC 8843 section 9.1](https://www.rfc-editor.org/rfc/rfc8843)).
    extensions: ExtensionMap,
}

impl Router {
    /// Replaces all sections. SSRCs stay bound where the section names its streams as before. Returns the sections whose
    /// streams are to start afresh, or are gone.
    pub(crate) fn set_sections(
        &mut self,
        sections: Vec<ReceiveSection>,
        track_of: impl Fn(Mid) -> Option<TrackKey>,
        now: Instant,
    ) -> Vec<SectionChange> {
        let old = std::mem::take(&mut self.sections);
        self.extensions = union(&sections);
        self.sections = sections
            .into_iter()
            .map(|negotiated| Section { track: track_of(negotiated.mid), negotiated })
            .collect();

        let mut changes = Vec::new();
        // By old index: the new one, if its bindings hold.
        let mut moved = Vec::with_capacity(old.len());
        for before in old.iter().map(|section| &section.negotiated) {
            let index = self.sections.iter().position(|section| section.negotiated.mid == before.mid);
            let after = index.map(|index| &self.sections[index].negotiated);
            let same_names = after.is_some_and(|s| s.ssrcs == before.ssrcs && s.rids == before.rids);
            let same_form = after.is_some_and(|s| s.kind == before.kind && s.codecs == before.codecs);
            moved.push(index.filter(|_| same_names));
            if !(same_names && same_form) {
                changes.push(SectionChange { mid: before.mid });
            }
        }
        self.bound.retain(|_, bound| match moved.get(bound.route.section).copied().flatten() {
            Some(index) => {
                bound.route.section = index;
                true
            }
            None => false,
        });
        for index in 0..self.sections.len() {
            self.bind_announced(index, now);
        }
        changes
    }

    fn bind_announced(&mut self, section: usize, now: Instant) {
        let pairs = &self.sections[section].negotiated.ssrcs;
        for (layer, pair) in pairs.iter().take(MAX_STREAMS).enumerate() {
            let layer = layer as u8;
            for (ssrc, rtx) in [(Some(pair.primary), false), (pair.rtx, true)] {
                let Some(ssrc) = ssrc else { continue };
                if self.bound.len() < MAX_ROUTES || self.bound.contains_key(&ssrc) {
                    let route = Route { section, layer, rtx };
                    self.bound.entry(ssrc).or_insert(Bound { route, last: now }).route = route;
                }
            }
        }
    }

    /// The extension ids to read a packet of this SSRC by.
    pub(crate) fn extensions(&self, ssrc: Ssrc) -> &ExtensionMap {
        match self.bound.get(&ssrc).and_then(|bound| self.sections.get(bound.route.section)) {
            Some(section) => &section.negotiated.extensions,
            None => &self.extensions,
        }
    }

    /// Where a packet belongs. Binds its SSRC if that is new and the packet names its section.
    ///
    /// # Errors
    /// [`DropReason::UnknownSsrc`], [`DropReason::UnknownPayloadType`], [`DropReason::PeerLimit`].
    pub(crate) fn route(
        &mut self,
        ssrc: Ssrc,
        pt: Pt,
        extensions: &ExtensionValues<'_>,
        now: Instant,
    ) -> Result<Routed, DropReason> {
        if let Some(bound) = self.bound.get_mut(&ssrc) {
            bound.last = now;
            let route = bound.route;
            self.check_pt(route, pt)?;
            return Ok(Routed { route, replaced: false });
        }
        let route = self.named(pt, extensions)?;
        let before = self.bound.iter().find(|(_, bound)| bound.route == route).map(|(s, b)| (*s, b.last));
        if let Some((before, last)) = before {
            if now.saturating_duration_since(last) < SILENT {
                return Err(DropReason::UnknownSsrc);
            }
            self.bound.remove(&before);
        } else if self.bound.len() >= MAX_ROUTES {
            return Err(DropReason::PeerLimit);
        }
        self.bound.insert(ssrc, Bound { route, last: now });
        Ok(Routed { route, replaced: before.is_some() })
    }

    /// The place that a packet itself names.
    fn named(&self, pt: Pt, extensions: &ExtensionValues<'_>) -> Result<Route, DropReason> {
        let mid = extensions.mid.ok_or(DropReason::UnknownSsrc)?;
        let section = self.section_index(mid).ok_or(DropReason::UnknownSsrc)?;
        let negotiated = &self.sections[section].negotiated;
        let rtx = match find_pt(&negotiated.codecs, pt).ok_or(DropReason::UnknownPayloadType)? {
            PtUse::Codec => false,
            PtUse::Rtx => true,
        };
        let layer = if negotiated.rids.is_empty() {
            // Two announced streams and a third that is neither: simulcast by SSRC has no other names.
            if negotiated.ssrcs.len() > 1 {
                return Err(DropReason::UnknownSsrc);
            }
            0
        } else {
            let rid = if rtx { extensions.repaired_rid } else { extensions.rid };
            let rid = rid.ok_or(DropReason::UnknownSsrc)?;
            negotiated.rids.iter().position(|have| *have == rid).ok_or(DropReason::UnknownSsrc)?
        };
        if layer >= MAX_STREAMS {
            return Err(DropReason::PeerLimit);
        }
        Ok(Route { section, layer: layer as u8, rtx })
    }

    fn check_pt(&self, route: Route, pt: Pt) -> Result<(), DropReason> {
        let section = self.sections.get(route.section).ok_or(DropReason::UnknownSsrc)?;
        match (find_pt(&section.negotiated.codecs, pt), route.rtx) {
            (Some(PtUse::Codec), false) | (Some(PtUse::Rtx), true) => Ok(()),
            _ => Err(DropReason::UnknownPayloadType),
        }
    }

    /// The SSRC bound to a place.
    #[cfg(test)]
    fn ssrc_at(&self, route: Route) -> Option<Ssrc> {
        self.bound.iter().find(|(_, bound)| bound.route == route).map(|(ssrc, _)| *ssrc)
    }

    /// Where an SSRC is bound to.
    pub(crate) fn bound(&self, ssrc: Ssrc) -> Option<Route> {
        self.bound.get(&ssrc).map(|bound| bound.route)
    }

    /// A section by its index in a [`Route`].
    pub(crate) fn section(&self, index: usize) -> Option<&Section> {
        self.sections.get(index)
    }

    /// Says which track a section's media is.
    pub(crate) fn set_track(&mut self, mid: Mid, track: Option<TrackKey>) {
        if let Some(index) = self.section_index(mid) {
            self.sections[index].track = track;
        }
    }

    fn section_index(&self, mid: Mid) -> Option<usize> {
        self.sections.iter().position(|section| section.negotiated.mid == mid)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PtUse {
    Codec,
    Rtx,
}

fn find_pt(codecs: &[CodecParams], pt: Pt) -> Option<PtUse> {
    codecs.iter().find_map(|codec| match codec {
        CodecParams { pt: have, .. } if *have == pt => Some(PtUse::Codec),
        CodecParams { rtx, .. } if *rtx == Some(pt) => Some(PtUse::Rtx),
        _ => None,
    })
}

fn union(sections: &[ReceiveSection]) -> ExtensionMap {
    let mut all = ExtensionMap::default();
    for section in sections {
        for extension in Extension::ALL {
            if let (None, Some(id)) = (all.id(extension), section.extensions.id(extension)) {
                all.set(extension, id);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests;
