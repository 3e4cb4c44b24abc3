//! Answers to the client's offers.

use std::collections::HashMap;

use sfu_media::command::{
    Codec, CodecParams, Extension, ExtensionMap, MediaKind, ReceiveSection, SendSection,
};
use sfu_media::ids::{Mid, SubId};

use super::codecs::{self, PayloadType};
use super::extensions::Extensions;
use super::sections::{MediaSlot, Slot};
use super::streams::{self, Streams};
use super::text::{Description, Direction, Media, SectionKind};
use super::transport::{self, SdpType};
use super::{Negotiated, Negotiation, PublishHint, RemoteTrack, Role, SdpError};

/// Longest data-channel message that the relay takes, in bytes.
pub(super) const MAX_MESSAGE_SIZE: usize = 65_536;

/// One section of an offer, understood.
struct Offered<'d, 'a> {
    media: &'d Media<'a>,
    content: Content,
}

enum Content {
    /// The client or the relay rejects it.
    Rejected,
    Data(Mid),
    Media(Box<MediaContent>),
}

struct MediaContent {
    mid: Mid,
    kind: MediaKind,
    client: Direction,
    /// All that the relay knows of what is offered.
    codecs: Vec<PayloadType>,
    /// What the client may send.
    receive: Vec<PayloadType>,
    hint: PublishHint,
    extensions: Extensions,
    streams: Streams,
}

impl Negotiation {
    /// Answers the client's offer. After an error nothing has changed: the last exchange stands.
    ///
    /// Tracks that were added get the sections that the client is willing to receive on; all that is left over is
    /// `inactive`. Where sections are missing, [`Self::unassigned`] says how many.
    pub fn answer(&mut self, offer: &str) -> Result<Negotiated, SdpError> {
        if self.role != Role::ClientOffers {
            return Err(SdpError::Unexpected);
        }
        let description = Description::parse(offer)?;
        let mids = transport::bundled_mids(&description)?;
        let remote = transport::remote(&description, SdpType::Offer)?;
        self.check_continues(&description, &mids)?;
        let offered = self.read(&description, &mids)?;

        let unsupported = self.place_tracks(&offered);
        let ice_restarted = self.remember_remote(&remote);
        let sdp = self.write_answer(&description, &offered);

        let mut negotiated = Negotiated {
            sdp,
            remote,
            receive: Vec::new(),
            remote_tracks: Vec::new(),
            send: Vec::new(),
            unsupported,
            mid_to_track_id: HashMap::new(),
            ice_restarted,
        };
        for (section, slot) in offered.iter().zip(&mut self.sections.slots) {
            let (Content::Media(content), Slot::Media(slot)) = (&section.content, slot) else { continue };
            slot.described = slot.track.as_ref().map(|t| t.sub);
            slot.settled = slot.described;
            content.report(slot, &mut negotiated);
        }
        negotiated.mid_to_track_id = self.mid_to_track_id();
        // Sections that this answer freed are for the tracks that still wait, from the next offer on.
        self.sections.assign();
        Ok(negotiated)
    }

    /// A later offer has the sections of the earlier one in the same places; only rejected ones may come back as another.
    fn check_continues(&self, description: &Description<'_>, mids: &[Option<Mid>]) -> Result<(), SdpError> {
        for (section, slot) in self.sections.slots.iter().enumerate() {
            let error = SdpError::SectionChanged { section };
            let (Some(media), Some(mid)) = (description.media.get(section), mids.get(section)) else {
                return Err(error);
            };
            let fits = match (slot, mid) {
                (_, None) | (Slot::Rejected { .. }, _) => true,
                (Slot::Data { mid: old }, Some(mid)) => old == mid && media.kind() == SectionKind::Data,
                (Slot::Media(old), Some(mid)) => {
                    old.mid == *mid && media.kind() == SectionKind::Media(old.kind)
                }
            };
            if !fits {
                return Err(error);
            }
        }
        Ok(())
    }

    fn read<'d, 'a>(
        &self,
        description: &'d Description<'a>,
        mids: &[Option<Mid>],
    ) -> Result<Vec<Offered<'d, 'a>>, SdpError> {
        let mut ids = ExtensionMap::default();
        let mut offered = Vec::with_capacity(description.media.len());
        for (media, mid) in description.media.iter().zip(mids) {
            let content = match (mid, media.kind()) {
                (Some(mid), SectionKind::Data) => Content::Data(*mid),
                (Some(mid), SectionKind::Media(kind)) => {
                    self.read_media(description, media, *mid, kind, &mut ids)?
                }
                _ => Content::Rejected,
            };
            offered.push(Offered { media, content });
        }
        Ok(offered)
    }

    fn read_media(
        &self,
        description: &Description<'_>,
        media: &Media<'_>,
        mid: Mid,
        kind: MediaKind,
        ids: &mut ExtensionMap,
    ) -> Result<Content, SdpError> {
        let codecs = codecs::offered(media, kind, &self.codecs);
        if codecs.is_empty() {
            return Ok(Content::Rejected);
        }
        let client = Direction::of(media, description);
        let extensions = Extensions::offered(description, media, kind, ids)?;
        let (mut receive, mut streams, mut hint) = Default::default();
        if client.send {
            streams = Streams::of(media, extensions.client_sends().id(Extension::Rid).is_some());
            hint = self.hint(&streams.track_id);
            receive = codecs::for_receiving(codecs.clone(), hint);
        }
        Ok(Content::Media(Box::new(MediaContent {
            mid,
            kind,
            client,
            codecs,
            receive,
            hint,
            extensions,
            streams,
        })))
    }

    /// Brings the slots in line with the offer and assigns tracks. Returns those that no codec fits.
    fn place_tracks(&mut self, offered: &[Offered<'_, '_>]) -> Vec<SubId> {
        for (index, section) in offered.iter().enumerate() {
            match &section.content {
                Content::Rejected => self.sections.reject(index),
                Content::Data(mid) => self.sections.replace(index, Slot::Data { mid: *mid }),
                Content::Media(content) => {
                    if !matches!(self.sections.slots.get(index), Some(Slot::Media(_))) {
                        let slot = Slot::Media(MediaSlot::new(content.mid, content.kind));
                        self.sections.replace(index, slot);
                    }
                    if let Some(Slot::Media(slot)) = self.sections.slots.get_mut(index) {
                        slot.willing = content.client.recv;
                        slot.client_sends = content.client.send;
                    }
                    if !content.client.recv {
                        self.sections.release(index);
                    }
                }
            }
        }
        let mut unsupported = Vec::new();
        loop {
            self.sections.assign();
            let before = unsupported.len();
            for (section, slot) in offered.iter().zip(&mut self.sections.slots) {
                let (Content::Media(content), Slot::Media(slot)) = (&section.content, slot) else { continue };
                if let Some(track) = &slot.track
                    && codecs::for_sending(&content.codecs, &track.codecs).is_empty()
                {
                    unsupported.push(track.sub);
                    slot.track = None;
                }
            }
            if unsupported.len() == before {
                return unsupported;
            }
        }
    }

    fn write_answer(&mut self, description: &Description<'_>, offered: &[Offered<'_, '_>]) -> String {
        let mids = offered.iter().filter_map(|s| match &s.content {
            Content::Rejected => None,
            Content::Data(mid) => Some(*mid),
            Content::Media(content) => Some(content.mid),
        });
        let allow_mixed = description.session_first("extmap-allow-mixed").is_some();
        let mut out = self.write_session(mids, allow_mixed);
        let mut with_candidates = true;
        for (section, slot) in offered.iter().zip(&self.sections.slots) {
            match (&section.content, slot) {
                (Content::Data(mid), _) => {
                    write_data(&mut out, *mid);
                    transport::write(&mut out, &self.local, "passive", with_candidates);
                    with_candidates = false;
                }
                (Content::Media(content), Slot::Media(slot)) => {
                    let lines = |out: &mut String| {
                        transport::write(out, &self.local, "passive", with_candidates);
                    };
                    content.write(&mut out, section.media, slot, lines);
                    with_candidates = false;
                }
                _ => {
                    let Media { media, proto, formats, .. } = section.media;
                    let format = formats.first().copied().unwrap_or("0");
                    line!(out, "m={media} 0 {proto} {format}");
                    line!(out, "c=IN IP4 0.0.0.0");
                    if let Some(mid) = section.media.first("mid").and_then(Mid::new) {
                        line!(out, "a=mid:{mid}");
                    }
                    line!(out, "a=inactive");
                }
            }
        }
        out
    }
}

/// The first lines of a data-channel section ([RFC 8841](https://www.rfc-editor.org/rfc/rfc8841)).
pub(super) fn write_data(out: &mut String, mid: Mid) {
    line!(out, "m=application 9 UDP/DTLS/SCTP webrtc-datachannel");
    line!(out, "c=IN IP4 0.0.0.0");
    line!(out, "a=mid:{mid}");
    line!(out, "a=sctp-port:5000");
    line!(out, "a=max-message-size:{MAX_MESSAGE_SIZE}");
}

impl MediaContent {
    /// What the relay sends on the section.
    fn sent(&self, slot: &MediaSlot) -> Vec<PayloadType> {
        let Some(track) = &slot.track else { return Vec::new() };
        let mut sent = codecs::for_sending(&self.codecs, &track.codecs);
        if track.rtx_ssrc.is_none() {
            for p in &mut sent {
                p.params.rtx = None;
            }
        }
        sent
    }

    fn write(
        &self,
        out: &mut String,
        media: &Media<'_>,
        slot: &MediaSlot,
        transport: impl FnOnce(&mut String),
    ) {
        let sent = self.sent(slot);
        let relay = Direction { send: !sent.is_empty(), recv: self.client.send };
        // One list for both directions. A section that is not in use keeps all, since it needs at least one.
        let mut listed = self.receive.clone();
        listed.extend(sent.iter().filter(|s| !self.receive.iter().any(|r| r.params.pt == s.params.pt)));
        if listed.is_empty() {
            listed.clone_from(&self.codecs);
        }
        line!(out, "m={} 9 {}{}", media.media, media.proto, codecs::format_list(&listed));
        line!(out, "c=IN IP4 0.0.0.0");
        transport(out);
        line!(out, "a=mid:{}", self.mid);
        self.extensions.write(out);
        if media.has("extmap-allow-mixed") {
            line!(out, "a=extmap-allow-mixed");
        }
        line!(out, "a={}", relay.as_str());
        line!(out, "a=rtcp-mux");
        if media.has("rtcp-rsize") {
            line!(out, "a=rtcp-rsize");
        }
        codecs::write(out, &listed, self.hint);
        if let Some(track) = slot.track.as_ref().filter(|_| relay.send) {
            streams::write_track(out, track, sent.iter().any(|p| p.params.rtx.is_some()));
        }
        self.streams.write_answer(out);
    }

    fn report(&self, slot: &MediaSlot, negotiated: &mut Negotiated) {
        if self.client.send {
            negotiated.receive.push(ReceiveSection {
                mid: self.mid,
                kind: self.kind,
                codecs: params(&self.receive),
                extensions: self.extensions.client_sends(),
                ssrcs: self.streams.ssrcs.clone(),
                rids: self.streams.rids.clone(),
            });
            negotiated.remote_tracks.push(RemoteTrack {
                mid: self.mid,
                kind: self.kind,
                stream_id: self.streams.stream_id.clone(),
                track_id: self.streams.track_id.clone(),
                codecs: distinct(&self.receive),
                layers: self.streams.layers,
            });
        }
        if let Some(track) = &slot.track {
            let codecs = params(&self.sent(slot));
            let section = SendSection {
                mid: self.mid,
                kind: self.kind,
                ssrc: track.ssrc,
                rtx_ssrc: track.rtx_ssrc.filter(|_| codecs.iter().any(|c| c.rtx.is_some())),
                codecs,
                extensions: self.extensions.client_takes(),
                cname: track.cname.clone(),
            };
            negotiated.send.push((track.sub, section));
        }
    }
}

pub(super) fn params(payload_types: &[PayloadType]) -> Vec<CodecParams> {
    payload_types.iter().map(|p| p.params).collect()
}

fn distinct(payload_types: &[PayloadType]) -> Vec<Codec> {
    let mut codecs = Vec::new();
    for p in payload_types {
        if !codecs.contains(&p.params.codec) {
            codecs.push(p.params.codec);
        }
    }
    codecs
}
