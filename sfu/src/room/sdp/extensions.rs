//! RTP header extensions ([RFC 8285](https://www.rfc-editor.org/rfc/rfc8285)).

use sfu_media::command::{Extension, ExtensionMap, MediaKind};

use super::SdpError;
use super::text::{Description, Direction, Media};

/// One `a=extmap` that the relay takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapped {
    extension: Extension,
    id: u8,
    /// Which way the client offers it, the client's view.
    client: Direction,
}

/// The accepted extensions of one section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Extensions {
    mapped: Vec<Mapped>,
    allow_mixed: bool,
}

const BOTH: Direction = Direction { send: true, recv: true };

impl Extensions {
    /// What the relay takes of a section's extensions. `ids` collects the ids of the whole description: one extension has
    /// one id in a bundle ([RFC 9143 section 9](https://www.rfc-editor.org/rfc/rfc9143#section-9)), which the media core
    /// needs to find a packet's MID before it knows the section.
    pub(super) fn offered(
        description: &Description<'_>,
        media: &Media<'_>,
        kind: MediaKind,
        ids: &mut ExtensionMap,
    ) -> Result<Self, SdpError> {
        let conflict = SdpError::Conflict { section: media.index };
        let allow_mixed =
            media.has("extmap-allow-mixed") || description.session_first("extmap-allow-mixed").is_some();
        let mut mapped: Vec<Mapped> = Vec::new();
        for value in description.session_all("extmap").chain(media.all("extmap")) {
            let Some(found) = parse(value).filter(|m| allow_mixed || m.id < 15) else { continue };
            if mapped.iter().any(|m| m.extension == found.extension) || !wanted(found.extension, kind) {
                continue;
            }
            let have = (ids.id(found.extension), ids.extension(found.id));
            if !matches!(have, (None, None)) && have != (Some(found.id), Some(found.extension)) {
                return Err(conflict);
            }
            ids.set(found.extension, found.id);
            mapped.push(found);
        }
        // Absolute send time serves the receiver's bandwidth estimate, which transport-wide feedback replaces.
        if mapped.iter().any(|m| m.extension == Extension::TransportCc) {
            mapped.retain(|m| m.extension != Extension::AbsSendTime);
        }
        Ok(Self { mapped, allow_mixed })
    }

    /// The relay's own ids, for its offers.
    pub(super) fn own(kind: MediaKind) -> Self {
        let mapped = [
            (Extension::AudioLevel, 1),
            (Extension::TransportCc, 3),
            (Extension::Mid, 4),
            (Extension::PlayoutDelay, 5),
            (Extension::DependencyDescriptor, 12),
        ]
        .into_iter()
        .filter(|(extension, _)| wanted(*extension, kind))
        .map(|(extension, id)| Mapped { extension, id, client: BOTH })
        .collect();
        Self { mapped, allow_mixed: true }
    }

    /// Only what is in `own` with the same id, for an answer must not add any.
    pub(super) fn also_in(mut self, own: &Extensions) -> Self {
        self.mapped.retain(|m| own.mapped.iter().any(|o| (o.extension, o.id) == (m.extension, m.id)));
        self
    }

    /// What the client may put into what it sends.
    pub(super) fn client_sends(&self) -> ExtensionMap {
        self.map(|m| m.client.send)
    }

    /// What the client understands in what it receives.
    pub(super) fn client_takes(&self) -> ExtensionMap {
        // The relay forwards single streams: the receiver knows them by SSRC, RIDs would only confuse it.
        self.map(|m| m.client.recv && !matches!(m.extension, Extension::Rid | Extension::RepairedRid))
    }

    fn map(&self, keep: impl Fn(&Mapped) -> bool) -> ExtensionMap {
        let mut map = ExtensionMap::default();
        map.allow_mixed = self.allow_mixed;
        for m in self.mapped.iter().filter(|m| keep(m)) {
            map.set(m.extension, m.id);
        }
        map
    }

    /// `a=extmap` lines. A direction that the client wrote is turned round.
    pub(super) fn write(&self, out: &mut String) {
        for m in &self.mapped {
            let turned = Direction { send: m.client.recv, recv: m.client.send };
            let direction = if turned == BOTH { "" } else { turned.as_str() };
            let slash = if direction.is_empty() { "" } else { "/" };
            line!(out, "a=extmap:{}{slash}{direction} {}", m.id, m.extension.uri());
        }
    }
}

/// `<id>[/<direction>] <uri> [<attributes>]`
fn parse(value: &str) -> Option<Mapped> {
    let mut words = value.split_ascii_whitespace();
    let id = words.next()?;
    let uri = words.next()?;
    let (id, direction) = id.split_once('/').unwrap_or((id, "sendrecv"));
    let client = match direction {
        "sendrecv" => BOTH,
        "sendonly" => Direction { send: true, recv: false },
        "recvonly" => Direction { send: false, recv: true },
        _ => return None,
    };
    let id = id.parse().ok().filter(|id| *id != 0 && *id != 15)?;
    let extension = Extension::ALL.into_iter().find(|e| e.uri() == uri)?;
    Some(Mapped { extension, id, client })
}

fn wanted(extension: Extension, kind: MediaKind) -> bool {
    match extension {
        Extension::Mid | Extension::AbsSendTime | Extension::TransportCc => true,
        Extension::AudioLevel => kind == MediaKind::Audio,
        Extension::Rid
        | Extension::RepairedRid
        | Extension::DependencyDescriptor
        | Extension::PlayoutDelay => kind == MediaKind::Video,
        // Without it a phone turns the picture before it encodes it. With it every receiver would have to turn it, and
        // Firefox does not know the extension.
        Extension::VideoOrientation => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Result<Extensions, SdpError> {
        let text = format!("v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\n{lines}");
        let d = Description::parse(&text).unwrap();
        Extensions::offered(&d, &d.media[0], MediaKind::Video, &mut ExtensionMap::default())
    }

    #[test]
    fn directions_are_turned_round() {
        let e = read(&format!(
            "a=extmap:4 {}\na=extmap:9/sendonly {}\na=extmap:6/recvonly {}\na=extmap:7 urn:other\na=extmap:15 {}\n\
             a=extmap:16 {}\n",
            Extension::Mid.uri(),
            Extension::DependencyDescriptor.uri(),
            Extension::PlayoutDelay.uri(),
            Extension::TransportCc.uri(),
            Extension::AbsSendTime.uri(),
        ))
        .unwrap();
        let mut out = String::new();
        e.write(&mut out);
        let ids: Vec<&str> = out.lines().filter_map(|l| l.split(' ').next()).collect();
        assert_eq!(ids, ["a=extmap:4", "a=extmap:9/recvonly", "a=extmap:6/sendonly"]);
        assert_eq!(e.client_sends().id(Extension::DependencyDescriptor), Some(9));
        assert_eq!(e.client_sends().id(Extension::PlayoutDelay), None);
        assert_eq!(e.client_takes().id(Extension::DependencyDescriptor), None);
        assert_eq!(e.client_takes().id(Extension::PlayoutDelay), Some(6));
    }

    #[test]
    fn one_meaning_for_each_id() {
        let two = format!("a=extmap:4 {}\na=extmap:4 {}\n", Extension::Mid.uri(), Extension::Rid.uri());
        assert_eq!(read(&two), Err(SdpError::Conflict { section: 0 }));
        let mixed = format!("a=extmap-allow-mixed\na=extmap:200 {}\n", Extension::Mid.uri());
        assert_eq!(read(&mixed).unwrap().client_sends().id(Extension::Mid), Some(200));
    }
}
