//! One track of a publisher, from its announcement on, and how clients see it.

use std::time::Instant;

use livekit_protocol as proto;
use proto::video_layer::Mode;
use sfu_media::command::{Codec, CodecParams, MediaKind, SubscriptionTarget, TrackPolicy};
use sfu_media::ids::{Mid, TrackId};

use super::participant::Key;
use super::priority::priority;
use super::sdp::PublishHint;

/// Video layers of one track that are believed.
const MAX_LAYERS: usize = 8;
/// Longest client-chosen text of a track (its name, its stream, its client id), in bytes.
pub(super) const MAX_TRACK_TEXT: usize = 256;

/// A track. It is announced first ([`proto::AddTrackRequest`]) and published once the client's description has a
/// section for it.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) id: TrackId,
    pub(super) publisher: Key,
    pub(super) kind: MediaKind,
    /// What its offers call it.
    pub(super) cids: Vec<String>,
    pub(super) info: proto::TrackInfo,
    /// Its media section; `None` while it is only announced.
    pub(super) binding: Option<Binding>,
    /// The publisher was told that somebody subscribed.
    pub(super) subscribed: bool,
    /// Its codec was seen in its media.
    pub(super) codec_seen: bool,
    /// When it was last reported that its media is not encrypted.
    pub(super) plain_reported: Option<Instant>,
}

/// Where a published track's media comes from.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub(super) mid: Mid,
    /// What the publisher may send, preferred first.
    pub(super) codecs: Vec<CodecParams>,
}

impl Track {
    /// A track as its publisher announced it. The request's type must be audio or video.
    #[allow(deprecated)] // old SDKs still read `simulcast`, `layers`, `stereo`, `disable_dtx`
    pub(super) fn announced(
        id: TrackId,
        sid: String,
        publisher: Key,
        kind: MediaKind,
        request: &proto::AddTrackRequest,
        unix_micros: i64,
    ) -> Self {
        let mut cids = vec![request.cid.clone()];
        cids.extend(request.simulcast_codecs.iter().take(2).map(|c| c.cid.clone()));
        cids.retain(|cid| !cid.is_empty() && cid.len() <= MAX_TRACK_TEXT);
        cids.dedup();
        let mut layers: Vec<_> = request.layers.iter().take(MAX_LAYERS).cloned().collect();
        if layers.is_empty() && kind == MediaKind::Video {
            layers = request
                .simulcast_codecs
                .first()
                .map(|c| c.layers.iter().take(MAX_LAYERS).cloned().collect())
                .unwrap_or_default();
        }
        if layers.is_empty() && kind == MediaKind::Video {
            layers.push(proto::VideoLayer {
                quality: proto::VideoQuality::High as i32,
                width: request.width,
                height: request.height,
                ..Default::default()
            });
        }
        tidy(&mut layers);
        let codec = announced_codec(kind, request);
        let mime = codec.map(mime_type).unwrap_or_default().to_owned();
        let mode = match codec {
            Some(Codec::Vp9 | Codec::Av1) => Mode::MultipleSpatialLayersPerStream,
            _ if kind == MediaKind::Video => Mode::OneSpatialLayerPerStream,
            _ => Mode::Unused,
        };
        let mut features = request.audio_features.clone();
        for (set, feature) in [
            (request.stereo, proto::AudioTrackFeature::TfStereo),
            (request.disable_dtx, proto::AudioTrackFeature::TfNoDtx),
        ] {
            if kind == MediaKind::Audio && set && !features.contains(&(feature as i32)) {
                features.push(feature as i32);
            }
        }
        features.truncate(16);
        let codecs = vec![proto::SimulcastCodecInfo {
            mime_type: mime.clone(),
            cid: request.cid.clone(),
            layers: layers.clone(),
            video_layer_mode: mode as i32,
            ..Default::default()
        }];
        let info = proto::TrackInfo {
            sid,
            r#type: request.r#type,
            name: request.name.clone(),
            muted: request.muted,
            width: request.width,
            height: request.height,
            simulcast: layers.len() > 1,
            disable_dtx: request.disable_dtx,
            source: request.source,
            layers,
            mime_type: mime,
            codecs,
            stereo: request.stereo,
            disable_red: request.disable_red,
            encryption: request.encryption,
            stream: if request.stream.is_empty() {
                default_stream(request.source)
            } else {
                request.stream.clone()
            },
            version: Some(proto::TimedVersion { unix_micro: unix_micros, ticks: 0 }),
            audio_features: features,
            backup_codec_policy: request.backup_codec_policy,
            packet_trailer_features: request.packet_trailer_features.iter().take(16).copied().collect(),
            ..Default::default()
        };
        Self {
            id,
            publisher,
            kind,
            cids,
            info,
            binding: None,
            subscribed: false,
            codec_seen: false,
            plain_reported: None,
        }
    }

    pub(super) fn sid(&self) -> &str {
        &self.info.sid
    }

    /// The track has a section; `order` is how the answer orders the codecs.
    pub(super) fn bind(&mut self, mid: Mid, codecs: Vec<CodecParams>, order: &[Codec]) {
        let no_red = self.info.disable_red;
        let first = order.iter().copied().find(|c| !(no_red && *c == Codec::Red));
        if let Some(codec) = first {
            self.set_codec(codec);
        }
        self.info.mid = mid.as_str().to_owned();
        for codec in &mut self.info.codecs {
            codec.mid = mid.as_str().to_owned();
        }
        self.binding = Some(Binding { mid, codecs });
    }

    /// Notes the codec in use; true when clients were told another.
    pub(super) fn set_codec(&mut self, codec: Codec) -> bool {
        let mime = mime_type(codec);
        let changed = self.info.mime_type != mime;
        self.info.mime_type = mime.to_owned();
        if let Some(first) = self.info.codecs.first_mut() {
            first.mime_type = mime.to_owned();
        }
        changed
    }

    /// New dimensions of the whole picture; the layers keep their ratios.
    #[allow(deprecated)]
    pub(super) fn set_dimensions(&mut self, width: u32, height: u32) {
        let (old_width, old_height) = (self.info.width, self.info.height);
        let scale = |value: u32, new: u32, old: u32| match u64::from(value) * u64::from(new) {
            scaled if old > 0 => u32::try_from(scaled / u64::from(old)).unwrap_or(u32::MAX),
            _ => value,
        };
        for layer in &mut self.info.layers {
            layer.width = scale(layer.width, width, old_width);
            layer.height = scale(layer.height, height, old_height);
        }
        self.info.width = width;
        self.info.height = height;
        let layers = self.info.layers.clone();
        self.set_layers(layers);
    }

    /// New layers.
    #[allow(deprecated)]
    pub(super) fn set_layers(&mut self, mut layers: Vec<proto::VideoLayer>) {
        tidy(&mut layers);
        if let Some(first) = self.info.codecs.first_mut() {
            first.layers.clone_from(&layers);
        }
        self.info.layers = layers;
    }

    /// How the answer should ask for it.
    pub(super) fn hint(&self, codec: Option<Codec>) -> PublishHint {
        let has = |feature: proto::AudioTrackFeature| self.info.audio_features.contains(&(feature as i32));
        PublishHint {
            codec,
            dtx: self.kind == MediaKind::Audio && !has(proto::AudioTrackFeature::TfNoDtx),
            stereo: self.kind == MediaKind::Audio && has(proto::AudioTrackFeature::TfStereo),
        }
    }

    /// What the shard must hold its media to.
    pub(super) fn policy(&self, require_encryption: bool) -> TrackPolicy {
        TrackPolicy { require_encryption, muted: self.info.muted }
    }

    /// Somebody speaks on it, as far as one can tell: the sound of a shared screen goes on through every silence, and
    /// stereo is for music.
    #[allow(deprecated)] // old SDKs say `stereo` only
    pub(super) fn is_voice(&self) -> bool {
        let shared = self.info.source == proto::TrackSource::ScreenShareAudio as i32;
        let stereo = self.info.audio_features.contains(&(proto::AudioTrackFeature::TfStereo as i32));
        self.kind == MediaKind::Audio && !shared && !stereo && !self.info.stereo
    }

    /// What a subscriber's settings mean for this track. `speaks`: its publisher has the lead.
    #[allow(deprecated)] // `layers` is what all SDKs fill in
    pub(super) fn target(
        &self,
        settings: Option<&proto::UpdateTrackSettings>,
        speaks: bool,
    ) -> SubscriptionTarget {
        let target = self.layers_wanted(settings);
        let asked = settings.map_or(0, |s| s.priority);
        let area = |width: u32, height: u32| u64::from(width) * u64::from(height);
        let pixels = match settings.map_or(0, |s| area(s.width, s.height)) {
            // A quality stands for the size of its layer.
            0 => {
                let layers = &self.info.layers;
                let layer = layers.get(usize::from(target.max_spatial)).or(layers.last());
                layer.map_or(0, |l| area(l.width, l.height))
            }
            pixels => pixels,
        };
        let priority = priority(self.kind, self.info.source, speaks, asked, pixels);
        SubscriptionTarget { priority, ..target }
    }

    /// Which layers they mean.
    #[allow(deprecated)] // `layers` is what all SDKs fill in
    fn layers_wanted(&self, settings: Option<&proto::UpdateTrackSettings>) -> SubscriptionTarget {
        let Some(settings) = settings else { return SubscriptionTarget::default() };
        let mut target = SubscriptionTarget { enabled: !settings.disabled, ..Default::default() };
        if self.kind == MediaKind::Audio {
            return target;
        }
        let layers = &self.info.layers;
        if settings.width > 0 && settings.height > 0 {
            let sides = |w: u32, h: u32| (w.max(h), w.min(h));
            let (long, short) = sides(settings.width, settings.height);
            // A picture that fills either side of its element is sharp enough: the rest is black bars.
            let enough = |l: &proto::VideoLayer| {
                let (have_long, have_short) = sides(l.width, l.height);
                have_long >= long || have_short >= short
            };
            if let Some(index) = layers.iter().position(enough) {
                target.max_spatial = u8::try_from(index).unwrap_or(u8::MAX);
            }
        } else {
            // With fewer than three layers the publisher says which of them each is.
            let named = |quality: i32, otherwise: u8| {
                let index = layers.iter().position(|layer| layer.quality == quality);
                index.and_then(|index| u8::try_from(index).ok()).unwrap_or(otherwise)
            };
            target.max_spatial = match proto::VideoQuality::try_from(settings.quality) {
                Ok(proto::VideoQuality::Low) => named(settings.quality, 0),
                Ok(proto::VideoQuality::Medium) => named(settings.quality, 1),
                Ok(proto::VideoQuality::Off) => {
                    target.enabled = false;
                    0
                }
                Ok(proto::VideoQuality::High) | Err(_) => u8::MAX,
            };
        }
        // Browsers encode three temporal layers that halve the rate, and cameras give about 30 frames a second.
        target.max_temporal = match settings.fps {
            1..=8 => 0,
            9..=15 => 1,
            _ => u8::MAX,
        };
        target
    }
}

/// The codec that a request names for its track, when it names one.
pub(super) fn announced_codec(kind: MediaKind, request: &proto::AddTrackRequest) -> Option<Codec> {
    if kind == MediaKind::Audio {
        return Some(if request.disable_red { Codec::Opus } else { Codec::Red });
    }
    let name = request.simulcast_codecs.first()?.codec.to_ascii_lowercase();
    match name.strip_prefix("video/").unwrap_or(&name) {
        "vp8" => Some(Codec::Vp8),
        "vp9" => Some(Codec::Vp9),
        "av1" => Some(Codec::Av1),
        "h264" => Some(Codec::H264),
        _ => None,
    }
}

/// The codec as LiveKit clients write it.
pub(super) fn mime_type(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "audio/opus",
        Codec::Red => "audio/red",
        Codec::Vp8 => "video/VP8",
        Codec::Vp9 => "video/VP9",
        Codec::Av1 => "video/AV1",
        Codec::H264 => "video/H264",
    }
}

/// Layers as they are shown to others: few, small, lowest first.
fn tidy(layers: &mut Vec<proto::VideoLayer>) {
    layers.truncate(MAX_LAYERS);
    layers.sort_by_key(|l| l.quality);
    for layer in layers {
        if layer.rid.len() > 16 {
            layer.rid.clear();
        }
    }
}

/// Camera and microphone play in sync, and so do a shared screen and its sound.
fn default_stream(source: i32) -> String {
    match proto::TrackSource::try_from(source) {
        Ok(proto::TrackSource::Camera | proto::TrackSource::Microphone) => "camera".to_owned(),
        Ok(proto::TrackSource::ScreenShare | proto::TrackSource::ScreenShareAudio) => {
            "screen_share".to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(quality: proto::VideoQuality, width: u32, height: u32) -> proto::VideoLayer {
        proto::VideoLayer { quality: quality as i32, width, height, ..Default::default() }
    }

    fn camera() -> Track {
        let request = proto::AddTrackRequest {
            cid: "cid".into(),
            r#type: proto::TrackType::Video as i32,
            width: 1280,
            height: 720,
            layers: vec![
                layer(proto::VideoQuality::High, 1280, 720),
                layer(proto::VideoQuality::Low, 320, 180),
                layer(proto::VideoQuality::Medium, 640, 360),
            ],
            ..Default::default()
        };
        Track::announced(TrackId(1), "TR_1".into(), Key(1), MediaKind::Video, &request, 0)
    }

    fn size(width: u32, height: u32) -> proto::UpdateTrackSettings {
        proto::UpdateTrackSettings { width, height, ..Default::default() }
    }

    #[test]
    fn a_page_gets_the_smallest_layer_that_fills_its_element() {
        let track = camera();
        for (w, h, want) in [
            (100, 100, 0),
            (320, 180, 0),
            (321, 400, 1),
            (180, 320, 0),
            (640, 480, 1),
            (1280, 720, 2),
            (4000, 3000, u8::MAX),
        ] {
            assert_eq!(track.layers_wanted(Some(&size(w, h))).max_spatial, want, "{w}x{h}");
        }
    }

    #[test]
    fn quality_fps_and_pause() {
        let track = camera();
        let of = |quality: proto::VideoQuality, fps, disabled| {
            track.layers_wanted(Some(&proto::UpdateTrackSettings {
                quality: quality as i32,
                fps,
                disabled,
                ..Default::default()
            }))
        };
        assert_eq!(of(proto::VideoQuality::Low, 0, false).max_spatial, 0);
        assert_eq!(of(proto::VideoQuality::Medium, 0, false).max_spatial, 1);
        assert_eq!(of(proto::VideoQuality::High, 0, false), SubscriptionTarget::default());
        assert!(!of(proto::VideoQuality::Off, 0, false).enabled);
        assert!(!of(proto::VideoQuality::High, 0, true).enabled);
        assert_eq!(of(proto::VideoQuality::High, 7, false).max_temporal, 0);
        assert_eq!(of(proto::VideoQuality::High, 15, false).max_temporal, 1);
        assert_eq!(of(proto::VideoQuality::High, 30, false).max_temporal, u8::MAX);
        assert_eq!(track.layers_wanted(None), SubscriptionTarget::default());
    }

    #[test]
    #[allow(deprecated)] // `layers` is what all SDKs fill in
    fn a_quality_is_the_layer_that_has_its_name() {
        use proto::VideoQuality::{High, Low, Medium};
        for (layers, want) in [
            (vec![Low, Medium], [0, 1, u8::MAX]),
            (vec![Low, High], [0, 1, u8::MAX]),
            (vec![Medium, High], [0, 0, u8::MAX]),
            (vec![High], [0, 1, u8::MAX]),
        ] {
            let mut track = camera();
            track.info.layers = layers.iter().map(|quality| layer(*quality, 640, 360)).collect();
            let of = |quality: proto::VideoQuality| {
                let settings = proto::UpdateTrackSettings { quality: quality as i32, ..Default::default() };
                track.layers_wanted(Some(&settings)).max_spatial
            };
            assert_eq!([of(Low), of(Medium), of(High)], want, "{layers:?}");
        }
    }

    #[test]
    fn larger_pictures_go_first() {
        let track = camera();
        let priority = |settings: Option<proto::UpdateTrackSettings>, speaks| {
            track.target(settings.as_ref(), speaks).priority
        };
        let quality = |quality: proto::VideoQuality| {
            Some(proto::UpdateTrackSettings { quality: quality as i32, ..Default::default() })
        };
        let order = [
            priority(Some(size(100, 100)), true),
            priority(Some(proto::UpdateTrackSettings { priority: 1, ..size(100, 100) }), false),
            priority(Some(size(1920, 1080)), false),
            priority(None, false),
            priority(quality(proto::VideoQuality::Medium), false),
            priority(quality(proto::VideoQuality::Low), false),
            priority(Some(size(100, 100)), false),
        ];
        assert!(order.windows(2).all(|w| w[0] > w[1]), "{order:x?}");
        assert_eq!(priority(None, false), priority(quality(proto::VideoQuality::High), false));
    }

    #[test]
    fn new_dimensions_scale_the_layers() {
        let mut track = camera();
        track.set_dimensions(640, 360);
        assert_eq!(track.layers_wanted(Some(&size(640, 360))).max_spatial, 2);
        assert_eq!(track.info.codecs[0].layers[0].width, 160);
        track.set_dimensions(0, 0);
        track.set_dimensions(u32::MAX, u32::MAX);
    }

    #[test]
    fn encrypted_audio_is_plain_opus() {
        let request = proto::AddTrackRequest { cid: "a".into(), disable_red: true, ..Default::default() };
        let mut track = Track::announced(TrackId(1), "TR_1".into(), Key(1), MediaKind::Audio, &request, 0);
        assert_eq!(track.info.mime_type, "audio/opus");
        track.bind(Mid::new("0").expect("a mid"), Vec::new(), &[Codec::Red, Codec::Opus]);
        assert_eq!(track.info.codecs[0].mime_type, "audio/opus");
    }
}
