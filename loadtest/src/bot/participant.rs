//! A participant that joins, publishes recorded media, and opens every frame that it receives.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use livekit_protocol as proto;
use serde::Serialize;
use str0m::Event;
use str0m::format::Codec;
use str0m::media::{Frequency, MediaData, MediaKind, MediaTime, Mid};

use super::cryptor::{CryptorError, FrameCryptor, FrameKind};
use super::peer::Peer;
use super::signal::{Request, Response, SignalClient};
use super::source::Source;

/// How a participant joins.
#[derive(Debug, Clone)]
pub struct ParticipantConfig {
    /// `ws://` or `wss://` address of the signalling service.
    pub url: String,
    /// Access token.
    pub token: String,
    /// Passphrase of the end-to-end encryption. `None` sends frames in clear.
    pub passphrase: Option<String>,
    /// Publish the recorded video.
    pub video: bool,
    /// Publish the recorded audio.
    pub audio: bool,
    /// Local address of the media sockets.
    pub local: Ipv4Addr,
}

/// What a participant saw so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The publishing PeerConnection is up.
    pub publisher_connected: bool,
    /// The receiving PeerConnection is up.
    pub subscriber_connected: bool,
    /// Frames sent.
    pub frames_sent: u64,
    /// Key frames that were asked for.
    pub key_frame_requests: u64,
    /// Received streams by track id.
    pub streams: BTreeMap<String, StreamReport>,
    /// Requests that the service refused, in its words.
    pub refusals: Vec<String>,
    /// Identities of the others in the room.
    pub others: Vec<String>,
}

/// One received stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// `audio` or `video`.
    pub kind: &'static str,
    /// Whole frames received.
    pub frames: u64,
    /// Frames of these that authenticated.
    pub opened: u64,
    /// Frames that have the trailer but did not authenticate.
    pub failed: u64,
    /// Frames without the trailer.
    pub clear: u64,
    /// Frames of a codec that the participant cannot open.
    pub unknown: u64,
}

struct Published {
    mid: Mid,
    kind: MediaKind,
    source: Source,
    next: Instant,
    period: Duration,
    ticks: u64,
    ticks_per_frame: u64,
    sent: u64,
}

/// A participant in a room.
pub struct Participant {
    config: ParticipantConfig,
    cryptor: Option<FrameCryptor>,
    signal: SignalClient,
    publisher: Peer,
    subscriber: Peer,
    published: Vec<Published>,
    /// Tracks still to be offered, one at a time.
    to_offer: Vec<(MediaKind, String)>,
    offering: bool,
    received: BTreeMap<String, (Mid, StreamReport)>,
    tracks_by_mid: BTreeMap<String, String>,
    report: Report,
}

impl Participant {
    /// Joins the room that the token names.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn join(config: ParticipantConfig) -> anyhow::Result<Self> {
        let mut signal = SignalClient::connect(&config.url, &config.token).await?;
        let Response::Join(join) = signal.next().await? else {
            bail!("the first message is not a join response")
        };
        let others = join.other_participants.into_iter().map(|p| p.identity).collect();
        let report = Report { others, ..Report::default() };
        let mut participant = Self {
            cryptor: config.passphrase.as_deref().map(FrameCryptor::from_passphrase),
            publisher: Peer::new(config.local).await?,
            subscriber: Peer::new(config.local).await?,
            signal,
            published: Vec::new(),
            to_offer: Vec::new(),
            offering: false,
            received: BTreeMap::new(),
            tracks_by_mid: BTreeMap::new(),
            report,
            config,
        };
        participant.add_tracks().await?;
        Ok(participant)
    }

    async fn add_tracks(&mut self) -> anyhow::Result<()> {
        let encryption = match self.cryptor {
            Some(_) => proto::encryption::Type::Gcm,
            None => proto::encryption::Type::None,
        };
        let mut wanted = Vec::new();
        if self.config.audio {
            wanted.push((MediaKind::Audio, "bot-audio"));
        }
        if self.config.video {
            wanted.push((MediaKind::Video, "bot-video"));
        }
        for (kind, cid) in wanted {
            let audio = kind == MediaKind::Audio;
            let request = proto::AddTrackRequest {
                cid: cid.into(),
                name: cid.into(),
                r#type: if audio { proto::TrackType::Audio } else { proto::TrackType::Video }.into(),
                source: if audio { proto::TrackSource::Microphone } else { proto::TrackSource::Camera }
                    .into(),
                width: if audio { 0 } else { 320 },
                height: if audio { 0 } else { 180 },
                encryption: encryption.into(),
                disable_red: true,
                ..Default::default()
            };
            self.signal.send(Request::AddTrack(request)).await?;
        }
        Ok(())
    }

    /// Takes part until `end`.
    ///
    /// # Errors
    /// When signalling breaks, the service ends the session, or media cannot be handled.
    pub async fn run_until(&mut self, end: Instant) -> anyhow::Result<()> {
        let mut events = Vec::new();
        while Instant::now() < end {
            self.publisher.drain(&mut events).await.context("publishing")?;
            for event in events.drain(..) {
                self.on_publisher(event);
            }
            self.subscriber.drain(&mut events).await.context("receiving")?;
            for event in events.drain(..) {
                self.on_subscriber(event);
            }
            self.offer_next().await?;
            let wake = self.send_due()?.min(end);
            // The peers' own deadlines come with what `drain` found; sending may have moved them.
            self.publisher.drain(&mut events).await.context("publishing")?;
            for event in events.drain(..) {
                self.on_publisher(event);
            }
            tokio::select! {
                response = self.signal.next() => {
                    let response = response?;
                    self.on_response(response).await?;
                }
                waited = self.publisher.wait() => waited.context("publishing")?,
                waited = self.subscriber.wait() => waited.context("receiving")?,
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        Ok(())
    }

    /// What it saw so far.
    pub fn report(&self) -> Report {
        let mut report = self.report.clone();
        report.streams = self.received.iter().map(|(id, (_, stream))| (id.clone(), stream.clone())).collect();
        report
    }

    /// Leaves the room.
    ///
    /// # Errors
    /// When the goodbye cannot be sent.
    pub async fn leave(mut self) -> anyhow::Result<Report> {
        self.signal.leave().await?;
        Ok(self.report())
    }

    async fn on_response(&mut self, response: Response) -> anyhow::Result<()> {
        match response {
            Response::Offer(offer) => {
                self.tracks_by_mid = tracks_by_mid(&offer.sdp);
                let sdp = self.subscriber.answer(&offer.sdp).context("answering the relay's offer")?;
                let answer = proto::SessionDescription {
                    r#type: "answer".into(),
                    sdp,
                    id: offer.id,
                    ..Default::default()
                };
                self.signal.send(Request::Answer(answer)).await?;
            }
            Response::Answer(answer) => {
                self.publisher.accept_answer(&answer.sdp).context("the relay's answer")?;
                self.offering = false;
            }
            Response::TrackPublished(published) => {
                let kind = match published.cid.as_str() {
                    "bot-audio" => MediaKind::Audio,
                    "bot-video" => MediaKind::Video,
                    _ => return Ok(()),
                };
                self.to_offer.push((kind, published.cid));
            }
            Response::RequestResponse(response) if response.reason != 0 => {
                self.report.refusals.push(response.message);
            }
            Response::Update(update) => {
                for participant in update.participants {
                    self.report.others.retain(|have| *have != participant.identity);
                    if participant.state != proto::participant_info::State::Disconnected as i32 {
                        self.report.others.push(participant.identity);
                    }
                }
            }
            Response::Leave(leave) => bail!("the service ended the session ({:?})", leave.reason()),
            _ => {}
        }
        Ok(())
    }

    async fn offer_next(&mut self) -> anyhow::Result<()> {
        if self.offering || self.to_offer.is_empty() {
            return Ok(());
        }
        let (kind, cid) = self.to_offer.remove(0);
        let Some((mid, sdp)) = self.publisher.offer_track(kind, &cid) else { return Ok(()) };
        self.offering = true;
        let audio = kind == MediaKind::Audio;
        self.published.push(Published {
            mid,
            kind,
            source: if audio { Source::audio() } else { Source::video() },
            next: Instant::now(),
            period: if audio { Duration::from_millis(20) } else { Duration::from_nanos(66_666_667) },
            ticks: 0,
            ticks_per_frame: if audio { 960 } else { 6000 },
            sent: 0,
        });
        let offer = proto::SessionDescription { r#type: "offer".into(), sdp, id: 1, ..Default::default() };
        Ok(self.signal.send(Request::Offer(offer)).await?)
    }

    /// Sends the frames that are due; returns when the next one is.
    fn send_due(&mut self) -> anyhow::Result<Instant> {
        let now = Instant::now();
        let mut wake = now + Duration::from_secs(1);
        if !self.publisher.rtc.is_connected() {
            return Ok(now + Duration::from_millis(20));
        }
        for track in &mut self.published {
            if track.next > now {
                wake = wake.min(track.next);
                continue;
            }
            // After a pause the stream goes on from now; it does not catch up.
            track.next = (track.next + track.period).max(now);
            wake = wake.min(track.next);
            track.ticks += track.ticks_per_frame;
            let (kind, codec, clock) = match track.kind {
                MediaKind::Audio => (FrameKind::Opus, Codec::Opus, Frequency::FORTY_EIGHT_KHZ),
                _ => (FrameKind::Vp8, Codec::Vp8, Frequency::NINETY_KHZ),
            };
            let Some(writer) = self.publisher.rtc.writer(track.mid) else { continue };
            let Some(pt) = writer.payload_params().find(|p| p.spec().codec == codec).map(|p| p.pt()) else {
                continue;
            };
            let frame = track.source.next_frame();
            let frame = self.cryptor.as_ref().map_or_else(|| frame.to_vec(), |c| c.seal(kind, frame));
            let writer = if track.kind == MediaKind::Audio { writer.audio_level(-30, true) } else { writer };
            writer.write(pt, now, MediaTime::new(track.ticks, clock), frame)?;
            track.sent += 1;
            self.report.frames_sent += 1;
        }
        Ok(wake)
    }

    fn on_publisher(&mut self, event: Event) {
        match event {
            Event::Connected => self.report.publisher_connected = true,
            Event::KeyframeRequest(request) => {
                self.report.key_frame_requests += 1;
                for track in self.published.iter_mut().filter(|t| t.mid == request.mid) {
                    track.source.restart();
                }
            }
            _ => {}
        }
    }

    fn on_subscriber(&mut self, event: Event) {
        match event {
            Event::Connected => self.report.subscriber_connected = true,
            Event::MediaData(data) => self.on_frame(&data),
            _ => {}
        }
    }

    fn on_frame(&mut self, data: &MediaData) {
        let mid = data.mid.to_string();
        let track = self.tracks_by_mid.get(&mid).cloned().unwrap_or(mid);
        let (_, stream) = self.received.entry(track).or_insert_with(|| (data.mid, StreamReport::default()));
        let kind = match data.params.spec().codec {
            Codec::Opus => Some(FrameKind::Opus),
            Codec::Vp8 => Some(FrameKind::Vp8),
            Codec::Vp9 => Some(FrameKind::Vp9),
            _ => None,
        };
        stream.kind = if kind == Some(FrameKind::Opus) { "audio" } else { "video" };
        stream.frames += 1;
        let Some(kind) = kind else {
            stream.unknown += 1;
            return;
        };
        let opened = match &self.cryptor {
            Some(cryptor) => cryptor.open(kind, &data.data).map(|_| ()),
            None => Err(CryptorError::NoTrailer),
        };
        match opened {
            Ok(()) => stream.opened += 1,
            Err(CryptorError::Authentication) => stream.failed += 1,
            Err(CryptorError::NoTrailer) => stream.clear += 1,
        }
    }
}

/// The track id of each section, from `a=msid:STREAM TRACK`.
pub(crate) fn tracks_by_mid(sdp: &str) -> BTreeMap<String, String> {
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
