//! What a bot says to the service, and what it does about what the service says.

use std::collections::BTreeMap;
use std::time::Instant;

use livekit_protocol as proto;
use proto::VideoQuality;
use str0m::Candidate;
use str0m::net::Protocol;

use super::{Session, media, reason};
use crate::client::Play;
use crate::client::publish::{AUDIO, VIDEO};
use crate::client::signal::{Request, Response};
use crate::client::trouble::SignalError;
use crate::media::stamp::MAX_LAYERS;

impl Session<'_> {
    /// Says which tracks will be published.
    pub(super) async fn announce(&mut self) -> Result<(), SignalError> {
        let Some(publisher) = &self.publisher else { return Ok(()) };
        let encryption = match self.context.cryptor {
            Some(_) => proto::encryption::Type::Gcm,
            None => proto::encryption::Type::None,
        };
        let layers = publisher.layers();
        if self.plan.role.audio {
            let request = proto::AddTrackRequest {
                cid: AUDIO.into(),
                name: AUDIO.into(),
                r#type: proto::TrackType::Audio.into(),
                source: proto::TrackSource::Microphone.into(),
                encryption: encryption.into(),
                disable_red: true,
                ..Default::default()
            };
            self.signal.send(Request::AddTrack(request)).await?;
        }
        if let Some(top) = layers.last() {
            let single = layers.len() == 1;
            let qualities = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];
            let layer = |(layer, quality): (&crate::scenario::Layer, VideoQuality)| proto::VideoLayer {
                quality: if single { VideoQuality::High } else { quality }.into(),
                width: layer.width,
                height: layer.height,
                bitrate: layer.bitrate,
                ..Default::default()
            };
            let request = proto::AddTrackRequest {
                cid: VIDEO.into(),
                name: VIDEO.into(),
                r#type: proto::TrackType::Video.into(),
                source: proto::TrackSource::Camera.into(),
                width: top.width,
                height: top.height,
                layers: layers.iter().zip(qualities).map(layer).collect(),
                encryption: encryption.into(),
                ..Default::default()
            };
            self.signal.send(Request::AddTrack(request)).await?;
        }
        Ok(())
    }

    pub(super) async fn on_response(&mut self, response: Response) -> Result<(), String> {
        let now = Instant::now();
        match response {
            Response::Offer(offer) => {
                self.tracks_by_mid = tracks_by_mid(&offer.sdp);
                let sdp =
                    self.subscriber.answer(&offer.sdp).map_err(|e| format!("the server's offer: {e}"))?;
                self.forget_moved();
                self.count_ports();
                let answer = proto::SessionDescription {
                    r#type: "answer".into(),
                    sdp,
                    id: offer.id,
                    ..Default::default()
                };
                self.signal.send(Request::Answer(answer)).await.map_err(|e| reason(&e))?;
                // The answer may have made datagrams due.
                let mut events = Vec::new();
                self.subscriber.advance(now, &mut events).map_err(|e| media(&e))?;
                self.on_subscriber_events(&mut events, now)?;
            }
            Response::Answer(answer) => {
                if let Some(publisher) = &mut self.publisher {
                    let accepted = publisher.transport.accept_answer(&answer.sdp);
                    accepted.map_err(|e| format!("the server's answer: {e}"))?;
                }
                self.count_ports();
            }
            Response::TrackPublished(published) => {
                let sid = published.track.map(|track| track.sid).unwrap_or_default();
                let offer = self.publisher.as_mut().and_then(|p| p.on_published(&published.cid, &sid));
                if let Some(sdp) = offer {
                    let offer = proto::SessionDescription {
                        r#type: "offer".into(),
                        sdp,
                        id: 1,
                        ..Default::default()
                    };
                    self.signal.send(Request::Offer(offer)).await.map_err(|e| reason(&e))?;
                }
            }
            Response::Trickle(trickle) => self.on_trickle(&trickle)?,
            Response::SubscribedQualityUpdate(update) => self.on_quality_update(&update, now),
            Response::Update(update) => {
                self.on_participants(update.participants, now);
                self.send_wishes(now).await.map_err(|e| reason(&e))?;
            }
            Response::SpeakersChanged(changed) => {
                let loudest = changed
                    .speakers
                    .iter()
                    .filter(|s| s.active && s.sid != self.own_sid)
                    .max_by(|a, b| a.level.total_cmp(&b.level));
                if let Some(speaker) = loudest {
                    self.speaker = Some(speaker.sid.clone());
                    self.send_wishes(now).await.map_err(|e| reason(&e))?;
                }
            }
            Response::Leave(leave) => {
                return Err(format!("the server ended the session: {:?}", leave.reason()));
            }
            Response::RequestResponse(response) if response.reason != 0 => {
                if self.context.play == Play::Stamped {
                    return Err(format!("the server refused a request: {}", response.message));
                }
                self.refusals.push(response.message);
            }
            _ => {}
        }
        Ok(())
    }

    /// What the kernel drops at these ports counts against the tester; there may be more of them than before.
    fn count_ports(&self) {
        self.context.board().ports.extend(self.ports());
    }

    /// Servers that do not have their candidates in the description send them one by one.
    fn on_trickle(&mut self, trickle: &proto::TrickleRequest) -> Result<(), String> {
        let to = match trickle.target() {
            proto::SignalTarget::Publisher => self.publisher.as_mut().map(|p| &mut p.transport),
            proto::SignalTarget::Subscriber => Some(&mut self.subscriber),
        };
        if let (Some(transport), Some(candidate)) = (to, candidate_of(&trickle.candidate_init)) {
            transport.add_candidate(candidate).map_err(|e| format!("a socket of the tester: {e}"))?;
            self.count_ports();
        }
        Ok(())
    }

    #[allow(deprecated)] // servers fill in `subscribed_qualities` too, and some nothing else
    pub(super) fn on_quality_update(&mut self, update: &proto::SubscribedQualityUpdate, now: Instant) {
        let Some(publisher) = &mut self.publisher else { return };
        let of_codec = update.subscribed_codecs.iter().find(|codec| codec.codec.contains("vp8"));
        let qualities = of_codec.map_or(&update.subscribed_qualities, |codec| &codec.qualities);
        let mut wanted = [false; MAX_LAYERS];
        for quality in qualities {
            let index = usize::try_from(quality.quality).unwrap_or(MAX_LAYERS);
            if let Some(wanted) = wanted.get_mut(index) {
                *wanted = quality.enabled;
            }
        }
        publisher.on_wanted(&update.track_sid, wanted, now);
    }
}

/// The candidate in a browser's `RTCIceCandidateInit`; `None` for what is none, for the empty one at the end of all, and for
/// TCP, which bots do not speak.
fn candidate_of(init: &str) -> Option<Candidate> {
    let init: serde_json::Value = serde_json::from_str(init).ok()?;
    let candidate = Candidate::from_sdp_string(init.get("candidate")?.as_str()?).ok()?;
    (candidate.proto() == Protocol::Udp).then_some(candidate)
}

/// The track id of each section, from `a=msid:STREAM TRACK`.
fn tracks_by_mid(sdp: &str) -> BTreeMap<String, String> {
    let mut tracks = BTreeMap::new();
    let (mut mid, mut track) = (None, None);
    for line in sdp.lines().chain(["m="]) {
        if line.starts_with("m=") {
            if let (Some(mid), Some(track)) = (mid.take(), track.take()) {
                tracks.insert(mid, track);
            }
        } else if let Some(value) = line.strip_prefix("a=mid:") {
            mid = Some(value.to_owned());
        } else if let Some(value) = line.strip_prefix("a=msid:") {
            track = value.split_whitespace().nth(1).map(str::to_owned);
        }
    }
    tracks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read_as_servers_send_them() {
        let init = |candidate: &str| {
            format!(
                "{{\"candidate\":\"{candidate}\",\"sdpMid\":\"\",\"sdpMLineIndex\":0,\"usernameFragment\":null}}"
            )
        };
        let udp = "candidate:4234997325 1 udp 2130706431 127.0.0.1 7882 typ host";
        assert_eq!(candidate_of(&init(udp)).unwrap().addr().port(), 7882);
        let tcp = "candidate:1019216552 1 tcp 1671430143 127.0.0.1 7881 typ host tcptype passive";
        for none in [init(tcp), init(""), init("candidate:"), "{}".to_owned(), "no JSON".to_owned()] {
            assert!(candidate_of(&none).is_none(), "{none}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_candidate_is_taken(text in "(candidate:|[a-z0-9. :\\-]){0,60}", whole in ".*") {
            let _ = candidate_of(&format!("{{\"candidate\":\"{text}\"}}"));
            let _ = candidate_of(&whole);
        }
    }
}
