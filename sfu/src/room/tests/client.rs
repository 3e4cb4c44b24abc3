//! Clients that speak just enough of a browser's SDP to exercise a room.

use std::fmt::Write as _;

use sfu_media::command::MediaKind;

use crate::room::SessionId;

/// A media section of a client.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) kind: MediaKind,
    /// What it sends; `None` receives only.
    pub(super) track: Option<String>,
    pub(super) active: bool,
}

/// One client.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) identity: String,
    pub(super) session: SessionId,
    pub(super) sid: String,
    pub(super) single: bool,
    pub(super) sections: Vec<Section>,
    pub(super) ice: u32,
    offers: u32,
}

impl Client {
    pub(super) fn new(identity: &str, session: SessionId, single: bool) -> Self {
        let sections =
            if single { vec![receiving(MediaKind::Audio), receiving(MediaKind::Video)] } else { vec![] };
        Self {
            identity: identity.to_owned(),
            session,
            sid: String::new(),
            single,
            sections,
            ice: 0,
            offers: 0,
        }
    }

    pub(super) fn send(&mut self, kind: MediaKind, track: &str) {
        self.sections.push(Section { kind, track: Some(track.to_owned()), active: true });
    }

    pub(super) fn stop(&mut self, track: &str) {
        for section in self.sections.iter_mut().filter(|s| s.track.as_deref() == Some(track)) {
            section.active = false;
        }
    }

    pub(super) fn receive(&mut self, kind: MediaKind, count: u32) {
        self.sections.extend((0..count).map(|_| receiving(kind)));
    }

    /// An offer as Chromium would write it, data channels last mid "d".
    pub(super) fn offer(&mut self) -> String {
        self.offers += 1;
        let mids: Vec<String> = (0..self.sections.len()).map(|i| i.to_string()).collect();
        let mut out = head(self.offers, &format!("{} d", mids.join(" ")));
        // The data section comes first: the list of media sections grows.
        data_section(&mut out, "d", &self.transport("actpass"));
        for (section, mid) in self.sections.iter().zip(&mids) {
            let direction = match (&section.track, section.active) {
                (Some(_), true) => "sendonly",
                (Some(_), false) => "inactive",
                (None, _) => "recvonly",
            };
            media_section(&mut out, section.kind, mid, direction, &self.transport("actpass"));
            if let (Some(track), true) = (&section.track, section.active) {
                let _ = writeln!(out, "a=msid:stream-{track} {track}\r");
            }
        }
        out
    }

    /// Answers an offer of the relay, receiving everything.
    pub(super) fn answer(&self, offer: &str) -> String {
        let mids = offer.lines().find_map(|l| l.strip_prefix("a=group:BUNDLE ")).unwrap_or_default().trim();
        let mut out = head(1, mids);
        for section in offer.split("m=").skip(1) {
            let mid = section.lines().find_map(|l| l.strip_prefix("a=mid:")).unwrap_or_default().trim();
            if section.starts_with("application") {
                data_section(&mut out, mid, &self.transport("active"));
                continue;
            }
            let kind = if section.starts_with("audio") { MediaKind::Audio } else { MediaKind::Video };
            let sends = section.lines().any(|l| l.trim() == "a=sendonly");
            let direction = if sends { "recvonly" } else { "inactive" };
            media_section(&mut out, kind, mid, direction, &self.transport("active"));
        }
        out
    }

    fn transport(&self, setup: &str) -> String {
        let fingerprint = vec!["AB"; 32].join(":");
        format!(
            "c=IN IP4 0.0.0.0\r\na=ice-ufrag:cl{:04}\r\na=ice-pwd:{:0>24}\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\n",
            self.ice, self.ice
        )
    }
}

fn receiving(kind: MediaKind) -> Section {
    Section { kind, track: None, active: true }
}

fn head(version: u32, mids: &str) -> String {
    let mids = match mids.split_once(" d") {
        Some((media, "")) => format!("d {media}"),
        _ => mids.to_owned(),
    };
    format!(
        "v=0\r\no=- 4611 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=msid-semantic: WMS\r\n",
        mids.trim()
    )
}

fn data_section(out: &mut String, mid: &str, transport: &str) {
    let _ = write!(
        out,
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=mid:{mid}\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n"
    );
}

fn media_section(out: &mut String, kind: MediaKind, mid: &str, direction: &str, transport: &str) {
    let (line, codecs) = match kind {
        MediaKind::Audio => (
            "audio 9 UDP/TLS/RTP/SAVPF 111",
            "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n",
        ),
        MediaKind::Video => (
            "video 9 UDP/TLS/RTP/SAVPF 96 97",
            "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
        ),
    };
    let _ = write!(
        out,
        "m={line}\r\n{transport}a=mid:{mid}\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na={direction}\r\na=rtcp-mux\r\n{codecs}"
    );
}
