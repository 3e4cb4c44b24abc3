//! The relay's offers and the client's answers to them.

use sfu_media::command::{ExtensionMap, MediaKind, SendSection};
use sfu_media::ids::Mid;

use super::answer::{params, write_data};
use super::codecs::{self, PayloadType};
use super::extensions::Extensions;
use super::sections::{MediaSlot, Slot};
use super::streams;
use super::text::{Description, Direction, SectionKind};
use super::transport::{self, SdpType};
use super::{MAX_SECTIONS, Negotiated, Negotiation, PublishHint, Role, SdpError};

impl Negotiation {
    /// The relay's next offer; empty where the client offers. Tracks that were added get sections: inactive ones are used
    /// again, then new ones made. An offer that is not answered may be followed by another.
    pub fn offer(&mut self) -> String {
        let Role::RelayOffers { .. } = self.role else { return String::new() };
        self.place_new_tracks();
        let mids: Vec<Mid> = self
            .sections
            .slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Rejected { .. } => None,
                Slot::Data { mid } => Some(*mid),
                Slot::Media(slot) => Some(slot.mid),
            })
            .collect();
        let mut out = self.write_session(mids.into_iter(), true);
        let mut with_candidates = true;
        for slot in &mut self.sections.slots {
            match slot {
                Slot::Rejected { was } => {
                    write_rejected(&mut out, *was);
                    continue;
                }
                Slot::Data { mid } => {
                    write_data(&mut out, *mid);
                    transport::write(&mut out, &self.local, "actpass", with_candidates);
                }
                Slot::Media(slot) => {
                    slot.offered = offered_codecs(slot, &codecs::own(slot.kind, &self.codecs));
                    slot.described = slot.track.as_ref().map(|t| t.sub);
                    let lines =
                        |out: &mut String| transport::write(out, &self.local, "actpass", with_candidates);
                    write_media(&mut out, slot, lines);
                }
            }
            with_candidates = false;
        }
        self.offered_ice = Some(self.local.ice.clone());
        out
    }

    /// Takes the client's answer to the last offer. After an error nothing has changed: the offer waits for its answer
    /// still, or is followed by another.
    pub fn accept_answer(&mut self, answer: &str) -> Result<Negotiated, SdpError> {
        if self.offered_ice.is_none() {
            return Err(SdpError::Unexpected);
        }
        let description = Description::parse(answer)?;
        let mids = transport::bundled_mids(&description)?;
        let remote = transport::remote(&description, SdpType::Answer)?;
        let answered = self.read_answer(&description, &mids)?;

        let ice_restarted = self.remember_remote(&remote);
        self.settled_ice = self.offered_ice.take();
        let mut unsupported = std::mem::take(&mut self.unsupported);
        let mut send = Vec::new();
        for (index, section) in answered.into_iter().enumerate() {
            let Some(Slot::Media(slot)) = self.sections.slots.get_mut(index) else {
                if matches!(section, Answered::Rejected) {
                    self.sections.reject(index);
                }
                continue;
            };
            match section {
                Answered::Rejected => {
                    // The track of another offer waits for another section; this one's cannot be received.
                    if let Some(refused) = slot.track.take_if(|t| Some(t.sub) == slot.described) {
                        unsupported.push(refused.sub);
                    }
                    self.sections.reject(index);
                }
                Answered::Kept => slot.settled = slot.described,
                Answered::Receives { codecs, extensions } => {
                    slot.settled = slot.described;
                    let Some(track) = slot.track_with(slot.described) else { continue };
                    let codecs = params(&codecs);
                    let section = SendSection {
                        mid: slot.mid,
                        kind: slot.kind,
                        ssrc: track.ssrc,
                        rtx_ssrc: track.rtx_ssrc.filter(|_| codecs.iter().any(|c| c.rtx.is_some())),
                        codecs,
                        extensions,
                        cname: track.cname.clone(),
                    };
                    send.push((track.sub, section));
                }
            }
        }
        Ok(Negotiated {
            sdp: String::new(),
            remote,
            receive: Vec::new(),
            remote_tracks: Vec::new(),
            send,
            unsupported,
            mid_to_track_id: self.mid_to_track_id(),
            ice_restarted,
        })
    }

    fn place_new_tracks(&mut self) {
        let waiting = std::mem::take(&mut self.sections.waiting);
        for track in waiting {
            if codecs::for_sending(&codecs::own(track.kind, &self.codecs), &track.codecs).is_empty() {
                self.unsupported.push(track.sub);
                continue;
            }
            let kind = track.kind;
            self.sections.add(track);
            self.sections.assign();
            if self.sections.waiting.iter().any(|t| t.kind == kind) && self.make_section(kind) {
                self.sections.assign();
            }
        }
    }

    /// Adds a section in the place of a rejected one, else at the end. False when there are too many.
    fn make_section(&mut self, kind: MediaKind) -> bool {
        let rejected = self.sections.slots.iter().position(|s| matches!(s, Slot::Rejected { .. }));
        let index = rejected.unwrap_or(self.sections.slots.len());
        if index >= MAX_SECTIONS {
            return false;
        }
        let slot = MediaSlot::new(self.next_mid(), kind);
        self.sections.replace(index, Slot::Media(slot));
        true
    }

    fn read_answer(
        &self,
        description: &Description<'_>,
        mids: &[Option<Mid>],
    ) -> Result<Vec<Answered>, SdpError> {
        let count = self.sections.slots.len();
        if description.media.len() != count {
            return Err(SdpError::SectionChanged { section: description.media.len().min(count) });
        }
        let mut ids = ExtensionMap::default();
        let mut answered = Vec::with_capacity(count);
        for ((slot, media), mid) in self.sections.slots.iter().zip(&description.media).zip(mids) {
            let Some(mid) = mid else {
                answered.push(Answered::Rejected);
                continue;
            };
            answered.push(match slot {
                Slot::Data { mid: ours } if ours == mid && media.kind() == SectionKind::Data => {
                    Answered::Kept
                }
                Slot::Media(slot) if slot.mid == *mid && media.kind() == SectionKind::Media(slot.kind) => {
                    let taken = codecs::offered(media, slot.kind, &self.codecs);
                    let codecs = agreed(&slot.offered, &taken);
                    let own = Extensions::own(slot.kind);
                    let extensions =
                        Extensions::offered(description, media, slot.kind, &mut ids)?.also_in(&own);
                    if !Direction::of(media, description).recv {
                        Answered::Kept
                    } else if codecs.is_empty() {
                        Answered::Rejected
                    } else {
                        Answered::Receives { codecs, extensions: extensions.client_takes() }
                    }
                }
                _ => return Err(SdpError::SectionChanged { section: media.index }),
            });
        }
        Ok(answered)
    }
}

/// What the client made of one section.
enum Answered {
    /// Port zero, or nothing in it that was offered.
    Rejected,
    /// Accepted, but nothing is to be sent.
    Kept,
    /// Wants the media of it.
    Receives { codecs: Vec<PayloadType>, extensions: ExtensionMap },
}

/// The answered payload types that were offered, in the answer's order. The numbers are the client's.
fn agreed(offered: &[PayloadType], answered: &[PayloadType]) -> Vec<PayloadType> {
    answered
        .iter()
        .filter_map(|a| {
            let same =
                |o: &&PayloadType| o.params.codec == a.params.codec && o.params.variant == a.params.variant;
            let offer = offered.iter().find(same)?;
            let mut agreed = *a;
            agreed.params.rtx = a.params.rtx.filter(|_| offer.params.rtx.is_some());
            Some(agreed)
        })
        .collect()
}

/// The payload types that a section offers: those of its track; all, when it has none, since it needs at least one.
fn offered_codecs(slot: &MediaSlot, own: &[PayloadType]) -> Vec<PayloadType> {
    let Some(track) = &slot.track else { return own.to_vec() };
    let mut offered = codecs::for_sending(own, &track.codecs);
    if track.rtx_ssrc.is_none() {
        for p in &mut offered {
            p.params.rtx = None;
        }
    }
    offered
}

/// A section that the client rejected keeps its place, its mid and its kind until another comes in its place.
fn write_rejected(out: &mut String, was: Option<(Mid, SectionKind)>) {
    let line = match was.map(|(_, kind)| kind) {
        Some(SectionKind::Data) => "application 0 UDP/DTLS/SCTP webrtc-datachannel",
        Some(SectionKind::Media(MediaKind::Video)) => "video 0 UDP/TLS/RTP/SAVPF 0",
        _ => "audio 0 UDP/TLS/RTP/SAVPF 0",
    };
    line!(out, "m={line}");
    line!(out, "c=IN IP4 0.0.0.0");
    if let Some((mid, _)) = was {
        line!(out, "a=mid:{mid}");
    }
    line!(out, "a=inactive");
}

fn write_media(out: &mut String, slot: &MediaSlot, transport: impl FnOnce(&mut String)) {
    let media = match slot.kind {
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
    };
    line!(out, "m={media} 9 UDP/TLS/RTP/SAVPF{}", codecs::format_list(&slot.offered));
    line!(out, "c=IN IP4 0.0.0.0");
    transport(out);
    line!(out, "a=mid:{}", slot.mid);
    Extensions::own(slot.kind).write(out);
    line!(out, "a={}", if slot.track.is_some() { "sendonly" } else { "inactive" });
    line!(out, "a=rtcp-mux");
    line!(out, "a=rtcp-rsize");
    codecs::write(out, &slot.offered, PublishHint::default());
    if let Some(track) = &slot.track {
        streams::write_track(out, track, slot.offered.iter().any(|p| p.params.rtx.is_some()));
    }
}
