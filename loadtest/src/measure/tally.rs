//! What one tester saw; tallies of several testers add up.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dist::Dist;

/// Sound or picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Opus.
    #[default]
    Audio,
    /// VP8.
    Video,
}

/// One received stream, over the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamResult {
    /// Sound or picture.
    pub kind: Kind,
    /// Who received it.
    pub viewer: String,
    /// The server's id of the track.
    pub track: String,
    /// RTP packets received, each once.
    pub packets: u64,
    /// Bytes of RTP payload.
    pub bytes: u64,
    /// Packets that did not come, resent or not.
    pub lost: u64,
    /// Whole frames.
    pub frames: u64,
    /// Frames that could be shown: authenticated, and everything that they need was there.
    pub shown: u64,
    /// Of these, frames of the layer that the viewer asked for.
    pub on_layer: u64,
    /// Bytes of frames shown, and of all frames that the sender made meanwhile on the layer asked for.
    pub shown_bytes: u64,
    /// See `shown_bytes`.
    pub expected_bytes: u64,
    /// Frames that did not authenticate.
    pub failed: u64,
    /// Frames that were not encrypted.
    pub clear: u64,
    /// Frames without a stamp: another sender's.
    pub foreign: u64,
    /// Frames that arrived before they were sent, by the stamps.
    pub from_the_future: u64,
    /// From the sender's stack to where it could be shown.
    pub delay: Dist,
    /// RFC 3550's jitter, mean over the packets and highest, in microseconds.
    pub jitter_mean_us: u64,
    /// See `jitter_mean_us`.
    pub jitter_max_us: u64,
    /// Packets behind these.
    pub jitter_samples: u64,
    /// Gaps over 200 ms, their sum and the longest.
    pub freezes: u64,
    /// See `freezes`.
    #[serde(with = "secs")]
    pub frozen: Duration,
    /// See `freezes`.
    #[serde(with = "secs")]
    pub longest_freeze: Duration,
    /// Gaps over 500 ms, and their sum.
    pub long_freezes: u64,
    /// See `long_freezes`.
    #[serde(with = "secs")]
    pub long_frozen: Duration,
    /// How long the viewer watched it within the window.
    #[serde(with = "secs")]
    pub watched: Duration,
    /// Key frames that the viewer asked for.
    pub key_frames_asked: u64,
    /// Something could be shown at some time.
    pub came: bool,
    /// Nothing could be shown, for seconds, to the end.
    pub missing: bool,
}

/// How joining went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinOutcome {
    /// All connections are up.
    Joined,
    /// Why not.
    Failed(String),
}

/// One join, with its phases in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// How it went.
    pub outcome: JoinOutcome,
    /// TCP, TLS and WebSocket.
    pub connect_us: u64,
    /// From there to the join response.
    pub admit_us: u64,
    /// From there until ICE and DTLS are done on all connections.
    pub transport_us: u64,
    /// From the start until the first frame of others could be shown; `None` where none came.
    pub first_media_us: Option<u64>,
}

impl Join {
    /// From the start until all connections are up, in microseconds.
    pub fn total_us(&self) -> u64 {
        self.connect_us + self.admit_us + self.transport_us
    }
}

/// Why a participant was disconnected, and when.
pub type Disconnect = String;

/// What happened within a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// RTP packets received.
    pub packets: u64,
    /// Bytes of RTP payload received.
    pub bytes: u64,
    /// Whole frames.
    pub frames: u64,
    /// Packets given up.
    pub lost: u64,
    /// Frames that did not authenticate or were not encrypted.
    pub failed: u64,
    /// Gaps over 200 ms that ended.
    pub freezes: u64,
    /// See [`StreamResult::expected_bytes`].
    pub expected_bytes: u64,
    /// See [`StreamResult::shown_bytes`].
    pub shown_bytes: u64,
    /// RTP packets sent.
    pub sent_packets: u64,
    /// Bytes of RTP payload sent.
    pub sent_bytes: u64,
    /// Participants in their rooms at the end of the second.
    pub present: u64,
    /// Delay of sound.
    pub audio: Dist,
    /// Delay of pictures.
    pub video: Dist,
    /// The sender's own part of these: from the stamp of a frame, or of several at once, until its packets were handed over.
    pub sending: Dist,
}

impl Second {
    /// Adds what came after the second had ended.
    pub fn merge_late(&mut self, other: &Second) {
        let present = self.present;
        self.merge(other);
        self.present = present;
    }

    /// Adds another tester's, or another thread's.
    pub fn merge(&mut self, other: &Second) {
        for (mine, theirs) in [
            (&mut self.packets, other.packets),
            (&mut self.bytes, other.bytes),
            (&mut self.frames, other.frames),
            (&mut self.lost, other.lost),
            (&mut self.failed, other.failed),
            (&mut self.freezes, other.freezes),
            (&mut self.expected_bytes, other.expected_bytes),
            (&mut self.shown_bytes, other.shown_bytes),
            (&mut self.sent_packets, other.sent_packets),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.present, other.present),
        ] {
            *mine += theirs;
        }
        self.audio.merge(&other.audio);
        self.video.merge(&other.video);
        self.sending.merge(&other.sending);
    }
}

/// One thread of a tester.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tester {
    /// Share of one core that it used within the window.
    pub cpu: f64,
    /// How late its timers fired.
    pub loop_delay: Dist,
    /// Datagrams that its own sockets did not take, outward.
    pub unsent: u64,
    /// Datagrams that its own sockets dropped, inward.
    pub dropped: u64,
    /// Frames that it made more than 100 ms late.
    pub late_frames: u64,
}

/// What one tester, or several together, saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Participants planned.
    pub participants: u64,
    /// The window second by second.
    pub seconds: Vec<Second>,
    /// Joins.
    pub joins: Vec<Join>,
    /// Received streams.
    pub streams: Vec<StreamResult>,
    /// Reasons of disconnects that nobody asked for, with how often each occurred.
    pub disconnects: BTreeMap<Disconnect, u64>,
    /// From when video could flow to the first picture.
    pub key_wait: Dist,
    /// From asking for another layer to its first picture.
    pub layer_wait: Dist,
    /// Lengths of gaps over 200 ms.
    pub freeze: Dist,
    /// Key frames asked of the publishers by the relay.
    pub key_frames_wanted: u64,
    /// The testers' threads.
    pub testers: Vec<Tester>,
    /// What makes the figures doubtful.
    pub doubts: Vec<String>,
}

impl Tally {
    /// Adds another tester's.
    pub fn merge(&mut self, other: Tally) {
        self.participants += other.participants;
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize_with(other.seconds.len(), Second::default);
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.merge(theirs);
        }
        self.joins.extend(other.joins);
        self.streams.extend(other.streams);
        for (reason, count) in other.disconnects {
            *self.disconnects.entry(reason).or_default() += count;
        }
        self.key_wait.merge(&other.key_wait);
        self.layer_wait.merge(&other.layer_wait);
        self.freeze.merge(&other.freeze);
        self.key_frames_wanted += other.key_frames_wanted;
        self.testers.extend(other.testers);
        self.doubts.extend(other.doubts);
    }
}

/// Where the bots of a thread put what they see, and where the run reads it each second.
#[derive(Debug, Default)]
pub struct Board {
    second: Second,
    /// See [`Tally::key_wait`].
    pub key_wait: Dist,
    /// See [`Tally::layer_wait`].
    pub layer_wait: Dist,
    /// See [`Tally::freeze`].
    pub freeze: Dist,
    /// Participants in their rooms now.
    pub present: u64,
    /// Joins that ended, well or not.
    pub joins: Vec<Join>,
    /// Streams that ended.
    pub streams: Vec<StreamResult>,
    /// See [`Tally::disconnects`].
    pub disconnects: BTreeMap<Disconnect, u64>,
    /// See [`Tally::key_frames_wanted`].
    pub key_frames_wanted: u64,
    /// See [`Tester`]: this thread's.
    pub tester: Tester,
    /// Ports of the sockets in use.
    pub ports: std::collections::BTreeSet<u16>,
}

impl Board {
    /// The second that is on.
    pub fn now(&mut self) -> &mut Second {
        &mut self.second
    }

    /// Where delays go.
    pub fn delay(&mut self, kind: Kind) -> &mut Dist {
        match kind {
            Kind::Audio => &mut self.second.audio,
            Kind::Video => &mut self.second.video,
        }
    }

    /// Ends the second.
    pub fn take_second(&mut self) -> Second {
        self.second.present = self.present;
        std::mem::take(&mut self.second)
    }

    /// Moves what is left into a tally.
    pub fn into_tally(self) -> Tally {
        Tally {
            joins: self.joins,
            streams: self.streams,
            disconnects: self.disconnects,
            key_wait: self.key_wait,
            layer_wait: self.layer_wait,
            freeze: self.freeze,
            key_frames_wanted: self.key_frames_wanted,
            testers: vec![self.tester],
            ..Tally::default()
        }
    }
}

/// Sums over all streams of a kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KindTotals {
    /// Streams received.
    pub streams: u64,
    /// Streams of which nothing came though somebody wanted it.
    pub missing: u64,
    /// Packets received.
    pub packets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// `lost` of all, in percent.
    pub loss_percent: f64,
    /// Frames shown.
    pub frames: u64,
    /// Frames that did not authenticate.
    pub failed: u64,
    /// Frames that were not encrypted.
    pub clear: u64,
    /// One-way delay in milliseconds.
    pub delay_ms: Quantiles,
    /// Mean jitter in milliseconds over all packets, and the highest of any stream.
    pub jitter_mean_ms: f64,
    /// See `jitter_mean_ms`.
    pub jitter_max_ms: f64,
    /// Gaps over 200 ms, and their share of the time watched in percent.
    pub freezes: u64,
    /// See `freezes`.
    pub freeze_percent: f64,
    /// Gaps over 500 ms, and their share of the time watched in percent.
    pub long_freezes: u64,
    /// See `long_freezes`.
    pub long_freeze_percent: f64,
    /// Longest gap in milliseconds.
    pub longest_freeze_ms: f64,
    /// Bits a second and stream that could be shown, and that the sender made on the layer asked for.
    pub bitrate_bps: f64,
    /// See `bitrate_bps`.
    pub expected_bps: f64,
    /// Share of the frames shown that were of the layer asked for, in percent.
    pub on_layer_percent: f64,
    /// Hours, minutes and seconds watched, over all streams, in seconds.
    pub watched_s: f64,
}

/// A distribution in five figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantiles {
    /// Number of values.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 95 % are not above.
    pub p95: f64,
    /// 99 % are not above.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl From<&Dist> for Quantiles {
    /// In milliseconds.
    fn from(dist: &Dist) -> Self {
        Self {
            count: dist.count(),
            p50: dist.ms(0.5),
            p95: dist.ms(0.95),
            p99: dist.ms(0.99),
            max: dist.max_ms(),
        }
    }
}

impl KindTotals {
    /// Adds up the streams of a kind. `delay` is that of all its frames.
    pub fn of<'a>(streams: impl Iterator<Item = &'a StreamResult>, delay: &Dist) -> Self {
        let mut t = Self { delay_ms: delay.into(), ..Self::default() };
        let (mut frozen, mut long_frozen, mut jitter, mut samples) = (0.0, 0.0, 0.0, 0);
        let (mut shown_bytes, mut expected, mut on_layer) = (0, 0, 0);
        for s in streams {
            t.streams += 1;
            t.missing += u64::from(s.missing);
            t.packets += s.packets;
            t.lost += s.lost;
            t.frames += s.shown;
            t.failed += s.failed;
            t.clear += s.clear;
            t.freezes += s.freezes;
            t.long_freezes += s.long_freezes;
            t.watched_s += s.watched.as_secs_f64();
            t.jitter_max_ms = t.jitter_max_ms.max(s.jitter_max_us as f64 / 1e3);
            t.longest_freeze_ms = t.longest_freeze_ms.max(s.longest_freeze.as_secs_f64() * 1e3);
            frozen += s.frozen.as_secs_f64();
            long_frozen += s.long_frozen.as_secs_f64();
            jitter += s.jitter_mean_us as f64 * s.jitter_samples as f64;
            samples += s.jitter_samples;
            shown_bytes += s.shown_bytes;
            expected += s.expected_bytes;
            on_layer += s.on_layer;
        }
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        t.loss_percent = 100.0 * share(t.lost as f64, (t.packets + t.lost) as f64);
        t.freeze_percent = 100.0 * share(frozen, t.watched_s);
        t.long_freeze_percent = 100.0 * share(long_frozen, t.watched_s);
        t.jitter_mean_ms = share(jitter, samples as f64) / 1e3;
        t.bitrate_bps = share(shown_bytes as f64 * 8.0, t.watched_s);
        t.expected_bps = share(expected as f64 * 8.0, t.watched_s);
        t.on_layer_percent = 100.0 * share(on_layer as f64, t.frames as f64);
        t
    }
}

/// Durations as seconds.
mod secs {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
