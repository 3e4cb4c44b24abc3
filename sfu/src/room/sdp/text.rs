//! The lines of a description ([RFC 8866](https://www.rfc-editor.org/rfc/rfc8866)), split but not yet understood.

use sfu_media::command::MediaKind;

use super::{MAX_SDP_BYTES, MAX_SECTIONS, SdpError};

/// One `a=` line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'a> {
    /// Before the first colon.
    pub(super) name: &'a str,
    /// After it; empty for a property attribute.
    pub(super) value: &'a str,
}

/// What a media section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionKind {
    /// Audio or video over DTLS-SRTP with feedback.
    Media(MediaKind),
    /// Data channels over SCTP over DTLS over UDP ([RFC 8841](https://www.rfc-editor.org/rfc/rfc8841)).
    Data,
    /// Anything else; it is rejected.
    Other,
}

/// One media section.
#[derive(Debug)]
pub(super) struct Media<'a> {
    /// Index in the description.
    pub(super) index: usize,
    /// First word of the `m=` line.
    pub(super) media: &'a str,
    /// Zero in a rejected section, and in a bundle-only one.
    pub(super) port: u16,
    /// Transport protocol.
    pub(super) proto: &'a str,
    /// Formats: payload types, for RTP.
    pub(super) formats: Vec<&'a str>,
    attributes: Vec<Attribute<'a>>,
}

impl<'a> Media<'a> {
    /// All `a=` lines of a name, in order.
    pub(super) fn all(&self, name: &'a str) -> impl Iterator<Item = &'a str> + '_ {
        self.attributes.iter().filter(move |a| a.name == name).map(|a| a.value)
    }

    /// The first `a=` line of a name.
    pub(super) fn first(&self, name: &str) -> Option<&'a str> {
        self.attributes.iter().find(|a| a.name == name).map(|a| a.value)
    }

    /// Whether there is an `a=` line of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// All `a=` lines.
    pub(super) fn attributes(&self) -> &[Attribute<'a>] {
        &self.attributes
    }

    /// Port zero rejects a section, unless it is offered for use within a bundle only
    /// ([RFC 9143 section 6](https://www.rfc-editor.org/rfc/rfc9143#section-6)).
    pub(super) fn is_rejected(&self) -> bool {
        self.port == 0 && !self.has("bundle-only")
    }

    /// What the section is for.
    pub(super) fn kind(&self) -> SectionKind {
        match (self.media, self.proto) {
            ("audio", "UDP/TLS/RTP/SAVPF") => SectionKind::Media(MediaKind::Audio),
            ("video", "UDP/TLS/RTP/SAVPF") => SectionKind::Media(MediaKind::Video),
            ("application", "UDP/DTLS/SCTP") if self.formats == ["webrtc-datachannel"] => SectionKind::Data,
            _ => SectionKind::Other,
        }
    }
}

/// A whole description.
#[derive(Debug)]
pub(super) struct Description<'a> {
    session: Vec<Attribute<'a>>,
    /// Its media sections.
    pub(super) media: Vec<Media<'a>>,
}

impl<'a> Description<'a> {
    /// Splits a description. Lines end with CRLF or LF.
    pub(super) fn parse(text: &'a str) -> Result<Self, SdpError> {
        if text.len() > MAX_SDP_BYTES {
            return Err(SdpError::TooLarge);
        }
        let mut session = Vec::new();
        let mut media: Vec<Media<'a>> = Vec::new();
        let mut first = true;
        for (i, line) in text.lines().enumerate() {
            let malformed = SdpError::Malformed { line: i + 1 };
            if line.is_empty() && !first {
                continue;
            }
            let (kind, value) = line.split_once('=').ok_or(malformed)?;
            if kind.len() != 1 || (first && (kind, value) != ("v", "0")) {
                return Err(malformed);
            }
            first = false;
            match kind {
                "m" => {
                    if media.len() == MAX_SECTIONS {
                        return Err(SdpError::TooManySections);
                    }
                    media.push(media_line(value, media.len()).ok_or(malformed)?);
                }
                "a" => {
                    let (name, value) = value.split_once(':').unwrap_or((value, ""));
                    let attribute = Attribute { name, value: value.trim() };
                    match media.last_mut() {
                        Some(media) => media.attributes.push(attribute),
                        None => session.push(attribute),
                    }
                }
                _ => {}
            }
        }
        if first { Err(SdpError::Malformed { line: 1 }) } else { Ok(Self { session, media }) }
    }

    /// The first session-level `a=` line of a name.
    pub(super) fn session_first(&self, name: &str) -> Option<&'a str> {
        self.session.iter().find(|a| a.name == name).map(|a| a.value)
    }

    /// All session-level `a=` lines of a name.
    pub(super) fn session_all(&self, name: &'a str) -> impl Iterator<Item = &'a str> + '_ {
        self.session.iter().filter(move |a| a.name == name).map(|a| a.value)
    }

    /// The mids of the first BUNDLE group.
    pub(super) fn bundle(&self) -> Vec<&'a str> {
        self.session_all("group")
            .find_map(|v| {
                let mut words = v.split_ascii_whitespace();
                (words.next() == Some("BUNDLE")).then(|| words.collect())
            })
            .unwrap_or_default()
    }
}

/// The direction attribute as the writer of the description sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direction {
    /// It may send.
    pub(super) send: bool,
    /// It may receive.
    pub(super) recv: bool,
}

impl Direction {
    /// From the section, else from the session, else `sendrecv`
    /// ([RFC 8866 section 6.7](https://www.rfc-editor.org/rfc/rfc8866#section-6.7)).
    pub(super) fn of(media: &Media<'_>, description: &Description<'_>) -> Self {
        let find = |attributes: &[Attribute<'_>]| {
            attributes.iter().find_map(|a| match a.name {
                "sendrecv" => Some(Direction { send: true, recv: true }),
                "sendonly" => Some(Direction { send: true, recv: false }),
                "recvonly" => Some(Direction { send: false, recv: true }),
                "inactive" => Some(Direction { send: false, recv: false }),
                _ => None,
            })
        };
        find(&media.attributes)
            .or_else(|| find(&description.session))
            .unwrap_or(Direction { send: true, recv: true })
    }

    /// The attribute's name.
    pub(super) fn as_str(self) -> &'static str {
        match (self.send, self.recv) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        }
    }
}

/// `m=<media> <port>[/<ports>] <proto> <fmt> ..`. The words are echoed when a section is rejected, so they must be
/// visible ASCII.
fn media_line(value: &str, index: usize) -> Option<Media<'_>> {
    let mut words = value.split(' ').filter(|w| !w.is_empty());
    let media = words.next()?;
    let port = words.next()?;
    let port = port.split_once('/').map_or(port, |(port, _)| port).parse().ok()?;
    let proto = words.next()?;
    let formats: Vec<&str> = words.collect();
    let printable = |w: &&str| w.bytes().all(|b| b.is_ascii_graphic());
    if formats.is_empty() || ![media, proto].iter().chain(&formats).all(printable) {
        return None;
    }
    Some(Media { index, media, port, proto, formats, attributes: Vec::new() })
}

/// Replaces what an SDP token may not have ([RFC 8866 section 9](https://www.rfc-editor.org/rfc/rfc8866#section-9)) and
/// bounds its length, so that a name that some client chose cannot add lines to another client's description.
pub(super) fn token(text: &str) -> String {
    let allowed =
        |c: char| matches!(c, '!' | '#'..='\'' | '*'..='+' | '-'..='.' | '0'..='9' | 'A'..='Z' | '^'..='~');
    text.chars().take(256).map(|c| if allowed(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split() {
        let d = Description::parse("v=0\r\ns=-\r\na=group:LS 1\na=group:BUNDLE 0 x\r\na=ice-lite\r\nm=audio 9/2 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:0\r\na=sendonly\r\nm=foo 0 x y\n\n").unwrap();
        assert_eq!(d.bundle(), ["0", "x"]);
        assert_eq!(d.session_first("ice-lite"), Some(""));
        assert_eq!(d.media.len(), 2);
        assert_eq!(d.media[0].kind(), SectionKind::Media(MediaKind::Audio));
        assert_eq!((d.media[0].port, d.media[0].first("mid")), (9, Some("0")));
        assert_eq!(Direction::of(&d.media[0], &d), Direction { send: true, recv: false });
        assert_eq!(Direction::of(&d.media[1], &d), Direction { send: true, recv: true });
        assert_eq!(d.media[1].kind(), SectionKind::Other);
        assert!(d.media[1].is_rejected());
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, line) in [
            ("", 1),
            ("\r\nv=0", 1),
            ("v=1\r\n", 1),
            ("s=-\r\n", 1),
            ("v=0\r\nnonsense\r\n", 2),
            ("v=0\r\nab=c\r\n", 2),
            ("v=0\r\ns=-\r\nm=audio 9 RTP/AVP\r\n", 3),
            ("v=0\r\nm=audio 70000 RTP/AVP 0\r\n", 2),
            ("v=0\r\nm=aud\u{e9} 9 RTP/AVP 0\r\n", 2),
        ] {
            assert_eq!(Description::parse(text).err(), Some(SdpError::Malformed { line }), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let long = format!("v=0\r\ns={}\r\n", "x".repeat(MAX_SDP_BYTES));
        assert_eq!(Description::parse(&long).err(), Some(SdpError::TooLarge));
        let many = format!("v=0\r\n{}", "m=a 9 b c\r\n".repeat(MAX_SECTIONS + 1));
        assert_eq!(Description::parse(&many).err(), Some(SdpError::TooManySections));
        let many = format!("v=0\r\n{}", "m=a 9 b c\r\n".repeat(MAX_SECTIONS));
        assert_eq!(Description::parse(&many).unwrap().media.len(), MAX_SECTIONS);
    }

    #[test]
    fn tokens_cannot_break_out() {
        assert_eq!(token("PA_1|TR_2-x.{y}"), "PA_1|TR_2-x.{y}");
        assert_eq!(token("a b\r\na=x:y/\"\u{e9}"), "a_b__a_x_y___");
        assert_eq!(token(&"x".repeat(1000)).len(), 256);
    }
}
