//! One received stream: what arrived of it, when, and whether it could be shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assembler::Assembler;
use super::dist::Dist;
use super::tally::{Board, Kind, StreamResult};
use crate::media::speech::PACKET;
use crate::media::stamp::{Stamp, StampClock};
use crate::media::{CryptorError, FrameCryptor, FrameKind};

/// A packet that has not come, resent or not, this long after it was missed, is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(1);
/// A gap that a viewer notices, and one that disturbs.
const FREEZE: Duration = Duration::from_millis(200);
const LONG_FREEZE: Duration = Duration::from_millis(500);
/// Frames are never due further apart than this while a sender sends; a longer pause is meant.
const USUAL: Duration = Duration::from_millis(50);
/// A viewer asks for a key frame when nothing could be shown for this long while frames came, and again after as long.
const PLI_AFTER: Duration = Duration::from_millis(300);
/// Clocks of several testers are known to less than this where they are near each other.
const CLOCK_SLACK_NS: u64 = 1_000_000;
/// Frames that wait for one they need, at most.
const MAX_WAITING: usize = 64;

/// When figures count.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// First moment.
    pub start: Instant,
    /// Last moment.
    pub end: Instant,
}

impl Window {
    /// Whether something at `at` counts.
    pub fn holds(&self, at: Instant) -> bool {
        at >= self.start && at <= self.end
    }

    /// The part of a stretch that counts.
    fn part(&self, from: Instant, to: Instant) -> Duration {
        to.min(self.end).saturating_duration_since(from.max(self.start))
    }
}

#[derive(Debug, Clone, Copy)]
struct Shown {
    at: Instant,
    stamp: Stamp,
}

/// One received stream.
#[derive(Debug)]
pub struct Meter {
    window: Window,
    clock: StampClock,
    assembler: Assembler,
    result: StreamResult,
    /// Highest sequence number and its arrival and RTP time in seconds.
    newest: Option<(u64, Instant, f64)>,
    jitter: f64,
    jitter_sum: f64,
    /// The last frame that could be shown.
    shown: Option<Shown>,
    /// Whether frames with this number could be shown, by layer: the last 64 numbers as bits below the highest.
    decoded: [(u32, u64); crate::media::stamp::MAX_LAYERS],
    waiting: Vec<(Stamp, usize)>,
    /// Layer asked for; `None` while the page shows nothing of it. Audio has layer 0.
    asked: Option<u8>,
    /// Since when the first picture, and the first of the layer asked for, are awaited.
    await_picture: Option<Instant>,
    await_layer: Option<Instant>,
    /// Since when the stream counts as watched.
    watched_from: Option<Instant>,
    least_delay_ns: u64,
    trouble_since: Option<Instant>,
    last_pli: Option<Instant>,
    /// Frames that end with this are the server's own; empty where it makes none.
    made_up: Arc<[u8]>,
}

impl Meter {
    /// A stream that the viewer wants from now on.
    pub fn new(kind: Kind, window: Window, clock: StampClock, now: Instant) -> Self {
        Self {
            window,
            clock,
            assembler: Assembler::new(kind == Kind::Video),
            result: StreamResult { kind, delay: Dist::coarse(), ..StreamResult::default() },
            newest: None,
            jitter: 0.0,
            jitter_sum: 0.0,
            shown: None,
            decoded: Default::default(),
            waiting: Vec::new(),
            asked: Some(0),
            await_picture: Some(now),
            await_layer: None,
            watched_from: Some(now),
            least_delay_ns: u64::MAX,
            trouble_since: None,
            last_pli: None,
            made_up: Arc::default(),
        }
    }

    /// Does not count frames that end with this: servers that make frames up, for a microphone that goes off say, mark them
    /// so (`JoinResponse.sif_trailer`).
    pub fn without(mut self, made_up: Arc<[u8]>) -> Self {
        self.made_up = made_up;
        self
    }

    /// The transport is up from now on: waiting for media counts from here.
    pub fn can_flow(&mut self, now: Instant) {
        if self.shown.is_none() {
            self.await_picture = self.await_picture.map(|_| now);
            self.watched_from = self.watched_from.map(|_| now);
        }
    }

    /// The viewer asks for another layer, or for nothing.
    pub fn ask(&mut self, layer: Option<u8>, now: Instant) {
        if layer == self.asked {
            return;
        }
        match (self.asked, layer) {
            (_, None) => self.stop_watching(now),
            (None, Some(_)) => {
                self.shown = None;
                self.await_picture = Some(now);
                self.watched_from = Some(now);
            }
            (Some(_), Some(_)) if self.shown.is_some() => self.await_layer = Some(now),
            _ => {}
        }
        self.asked = layer;
    }

    /// Whether anything could be shown so far.
    pub fn has_shown(&self) -> bool {
        self.result.came
    }

    /// What arrived so far.
    pub fn so_far(&self) -> &StreamResult {
        &self.result
    }

    fn stop_watching(&mut self, now: Instant) {
        if let Some(from) = self.watched_from.take() {
            self.result.watched += self.window.part(from, now);
        }
        self.shown = None;
        self.waiting.clear();
        (self.await_picture, self.await_layer, self.trouble_since) = (None, None, None);
    }

    /// The relay sends it under another SSRC from now on: its numbers start anew.
    pub fn restart_numbers(&mut self) {
        self.assembler = Assembler::new(self.result.kind == Kind::Video);
        self.newest = None;
    }

    /// Takes a packet. `rtp_s` is its RTP time in seconds.
    #[allow(clippy::too_many_arguments)] // a packet has that many sides
    pub fn on_packet(
        &mut self,
        seq: u64,
        rtp_s: f64,
        marker: bool,
        payload: &Arc<[u8]>,
        cryptor: Option<&FrameCryptor>,
        board: &mut Board,
        now: Instant,
    ) {
        let counts = self.window.holds(now);
        if counts {
            self.result.packets += 1;
            self.result.bytes += payload.len() as u64;
            board.now().packets += 1;
            board.now().bytes += payload.len() as u64;
        }
        self.measure_jitter(seq, rtp_s, counts, now);
        let Some(mut frame) = self.assembler.push(seq, marker, payload, now) else { return };
        if !self.made_up.is_empty() && frame.bytes.ends_with(&self.made_up) {
            return;
        }
        if counts {
            self.result.frames += 1;
            board.now().frames += 1;
        }
        let kind = if self.result.kind == Kind::Video { FrameKind::Vp8 } else { FrameKind::Opus };
        let stamp = match cryptor {
            Some(cryptor) => match cryptor.open_in_place(kind, &mut frame.bytes) {
                Ok((clear, body)) => Stamp::read(body).map(|stamp| (stamp, clear + body.len())),
                Err(error) => {
                    if counts {
                        let failed = match error {
                            CryptorError::Authentication => &mut self.result.failed,
                            CryptorError::NoTrailer => &mut self.result.clear,
                        };
                        *failed += 1;
                        board.now().failed += 1;
                    }
                    return;
                }
            },
            None => {
                let body = frame.bytes.get(kind.clear_bytes(&frame.bytes)..).unwrap_or_default();
                Stamp::read(body).map(|stamp| (stamp, frame.bytes.len()))
            }
        };
        match stamp {
            Some((stamp, size)) => self.on_frame(stamp, size, board, now),
            None if counts => self.result.foreign += 1,
            None => {}
        }
    }

    /// Interarrival jitter ([RFC 3550 section 6.4.1](https://www.rfc-editor.org/rfc/rfc3550#section-6.4.1)) of the
    /// packets that come in order.
    fn measure_jitter(&mut self, seq: u64, rtp_s: f64, counts: bool, now: Instant) {
        if let Some((newest, at, rtp)) = self.newest {
            if seq <= newest {
                return;
            }
            if seq == newest + 1 {
                let d = now.saturating_duration_since(at).as_secs_f64() - (rtp_s - rtp);
                self.jitter += (d.abs() - self.jitter) / 16.0;
                if counts {
                    self.jitter_sum += self.jitter;
                    self.result.jitter_samples += 1;
                    self.result.jitter_max_us = self.result.jitter_max_us.max((self.jitter * 1e6) as u64);
                }
            }
        }
        self.newest = Some((seq, now, rtp_s));
    }

    fn on_frame(&mut self, stamp: Stamp, size: usize, board: &mut Board, now: Instant) {
        if self.asked.is_none() || usize::from(stamp.layer) >= self.decoded.len() {
            return; // on its way when the viewer turned it off
        }
        self.waiting.push((stamp, size));
        if self.waiting.len() > MAX_WAITING {
            self.waiting.remove(0);
        }
        // One that came late may be what others wait for.
        while let Some(index) = self.waiting.iter().position(|(stamp, _)| self.can_decode(stamp)) {
            let (stamp, size) = self.waiting.remove(index);
            self.on_decodable(stamp, size, board, now);
        }
        match self.waiting.is_empty() {
            true => self.trouble_since = None,
            false => self.trouble_since = self.trouble_since.or(Some(now)),
        }
    }

    fn delay_ns(&self, stamp: &Stamp, now: Instant) -> u64 {
        self.clock.at(now).saturating_sub(stamp.clock_ns)
    }

    fn can_decode(&self, stamp: &Stamp) -> bool {
        let (highest, bits) = self.decoded[usize::from(stamp.layer)];
        let back = u32::from(stamp.depends);
        let Some(needed) = stamp.number.checked_sub(back) else { return false };
        let behind = highest.checked_sub(needed);
        back == 0 || behind.is_some_and(|behind| behind < 64 && bits >> behind & 1 == 1)
    }

    fn on_decodable(&mut self, stamp: Stamp, size: usize, board: &mut Board, now: Instant) {
        let (highest, bits) = &mut self.decoded[usize::from(stamp.layer)];
        if stamp.depends == 0 {
            // What came before a key frame is not needed again; frames that wait for it never show.
            (*highest, *bits) = (stamp.number, 1);
            let key = (stamp.layer, stamp.number);
            self.waiting.retain(|(s, _)| s.layer != key.0 || s.number > key.1);
        } else if stamp.number > *highest {
            *bits = bits.checked_shl(stamp.number - *highest).unwrap_or(0) | 1;
            *highest = stamp.number;
        } else if highest.wrapping_sub(stamp.number) < 64 {
            *bits |= 1 << (*highest - stamp.number);
        }
        let counts = self.window.holds(now);
        self.least_delay_ns = self.least_delay_ns.min(self.delay_ns(&stamp, now));
        if counts {
            let arrived = self.clock.at(now);
            if stamp.clock_ns > arrived + CLOCK_SLACK_NS {
                self.result.from_the_future += 1;
            } else {
                let micros = arrived.saturating_sub(stamp.clock_ns) / 1000;
                self.result.delay.record(micros);
                board.delay(self.result.kind).record(micros);
            }
            self.result.shown += 1;
        }
        let video = self.result.kind == Kind::Video;
        if let Some(since) = self.await_picture.take() {
            self.result.came = true;
            if video {
                board.key_wait.record(now.saturating_duration_since(since).as_micros() as u64);
            }
        }
        let asked = self.asked.unwrap_or(0).min(stamp.layers.saturating_sub(1));
        if stamp.layer == asked {
            self.result.on_layer += u64::from(counts);
            if let Some(since) = self.await_layer.take()
                && counts
            {
                board.layer_wait.record(now.saturating_duration_since(since).as_micros() as u64);
            }
        }
        if let Some(shown) = self.shown {
            // One that comes after its successors was not shown in its place; it ends no gap.
            if stamp.clock_ns < shown.stamp.clock_ns {
                return;
            }
            if counts {
                let sent = |s: &Stamp| s.sent[usize::from(asked)];
                let due = sent(&stamp).saturating_sub(sent(&shown.stamp));
                self.result.expected_bytes += due;
                self.result.shown_bytes += size as u64;
                board.now().expected_bytes += due;
                board.now().shown_bytes += size as u64;
            }
            self.count_gap(shown, Some(&stamp), now, board);
        }
        self.shown = Some(Shown { at: now, stamp });
    }

    /// A gap is what is longer than the sender meant it to be. Of sound, only speech can be missed: servers need not forward
    /// silence. `next` is the frame that ended the gap.
    fn count_gap(&mut self, shown: Shown, next: Option<&Stamp>, now: Instant, board: &mut Board) {
        let meant = shown.stamp.next.saturating_sub(USUAL);
        let from = shown.at + meant;
        let mut gap = self.window.part(from, now);
        if self.result.kind == Kind::Audio {
            let heard = match next {
                Some(next) => {
                    let late = self.delay_ns(next, now).saturating_sub(self.least_delay_ns);
                    let missed = next.spoken.saturating_sub(shown.stamp.spoken).saturating_sub(1);
                    Duration::from_nanos(late) + PACKET * missed
                }
                None if shown.stamp.more => gap,
                None => Duration::ZERO,
            };
            gap = gap.min(heard);
        }
        if gap <= FREEZE || !self.window.holds(now) {
            return;
        }
        self.result.freezes += 1;
        self.result.frozen += gap;
        board.now().freezes += 1;
        if gap > LONG_FREEZE {
            self.result.long_freezes += 1;
            self.result.long_frozen += gap;
        }
        self.result.longest_freeze = self.result.longest_freeze.max(gap);
        board.freeze.record(gap.as_micros() as u64);
    }

    /// Every now and then: gives up lost packets; says whether a key frame is to be asked for.
    pub fn tick(&mut self, board: &mut Board, now: Instant) -> bool {
        let window = self.window;
        let lost = &mut self.result.lost;
        let before = now.checked_sub(LOST_AFTER).unwrap_or(now);
        self.assembler.give_up(before, |at| {
            if window.holds(at) {
                *lost += 1;
                board.now().lost += 1;
            }
        });
        let stuck = self.trouble_since.is_some_and(|since| now > since + PLI_AFTER);
        let rested = self.last_pli.is_none_or(|last| now > last + PLI_AFTER);
        let wants = stuck && rested && self.asked.is_some() && self.result.kind == Kind::Video;
        if wants {
            self.last_pli = Some(now);
            self.result.key_frames_asked += u64::from(window.holds(now));
        }
        wants
    }

    /// Ends the measurement. A stream whose publisher left (`gone`) is not missed.
    pub fn finish(mut self, gone: bool, board: &mut Board, now: Instant) -> StreamResult {
        let now = now.min(self.window.end);
        if !gone && self.asked.is_some() {
            if let Some(shown) = self.shown {
                self.count_gap(shown, None, now, board);
            }
            let waited = self.await_picture.map_or(Duration::ZERO, |s| self.window.part(s, now));
            // Silence is no failure of the relay: the first packet of a microphone that is off may come at any time.
            self.result.missing = self.result.kind == Kind::Video && waited > Duration::from_secs(2);
        }
        self.stop_watching(now);
        let samples = self.result.jitter_samples.max(1) as f64;
        self.result.jitter_mean_us = (self.jitter_sum / samples * 1e6) as u64;
        self.result
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
