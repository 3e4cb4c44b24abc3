//! What a shard says by the clock: RTCP to peers, figures to room logic.

use std::time::{Duration, Instant};

use super::fan_out::OWN_SSRC;
use super::peers::{Peer, PeerKey};
use super::timers::Timer;
use super::{Shard, connect, speaker};
use crate::command::{PeerQuality, ShardEvent};
use crate::rtcp::write;
use crate::tx::TxQueue;

/// Time between two reports of a transport with few streams.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// With more streams than this, reports become rarer in proportion: they are to take a small share of the bandwidth
/// ([RFC 3550 section 6.2](https://www.rfc-editor.org/rfc/rfc3550#section-6.2) has 5 %).
const STREAMS_PER_SECOND: usize = 50;
/// Bytes of RTCP after which a new datagram is begun.
const FULL: usize = 1000;

const QUALITY_EVERY: Duration = Duration::from_secs(2);
const STATS_EVERY: Duration = Duration::from_secs(1);

impl Shard {
    /// Arms what comes round again and again.
    pub(super) fn arm_periodic(&mut self, now: Instant) {
        self.timers.arm(Timer::Levels, now + speaker::PERIOD);
        self.timers.arm(Timer::Quality, now + QUALITY_EVERY);
        self.timers.arm(Timer::Stats, now + STATS_EVERY);
    }

    /// When a peer has something to do next.
    pub(super) fn peer_deadline(&self, peer: &Peer, now: Instant) -> Option<Instant> {
        let streams = peer.published.iter().filter_map(|(_, track)| self.tracks.deadline(*track, now)).min();
        let sending = peer.sending.poll_timeout();
        [peer.transport.poll_timeout(), peer.arrivals.poll_timeout(), peer.next_report, streams, sending]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is due for a peer's media: frames given up, NACK, PLI, feedback, reports.
    pub(super) fn media_timeout(&mut self, key: PeerKey, tx: &mut TxQueue, now: Instant) {
        let tracks = self.peers.get(key).map_or(0, |peer| peer.published.len());
        for at in 0..tracks {
            let track = self.peers.get(key).and_then(|peer| peer.published.get(at));
            let Some(track) = track.and_then(|(_, track)| self.tracks.get(*track)) else { continue };
            for stream_key in track.streams.into_iter().flatten() {
                let stream = self.tracks.streams.get(stream_key);
                match stream.and_then(|stream| stream.inbound.poll_timeout(now)) {
                    Some(at) if at > now => self.timers.arm(Timer::Repair(key), at),
                    Some(_) => self.stream_timeout(stream_key, tx, now),
                    None => {}
                }
            }
        }

        self.sending_timeout(key, tx, now);
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.arrivals.poll_timeout().is_some_and(|at| at <= now) {
            self.rtcp.clear();
            peer.arrivals.poll_feedback(&mut self.rtcp, OWN_SSRC, peer.some_ssrc, now);
            self.send_rtcp(key, tx);
        }
        if self.peers.get(key).and_then(|peer| peer.next_report).is_some_and(|at| at <= now) {
            self.send_reports(key, tx, now);
        }
    }

    /// Sender reports of what a peer gets, and one receiver report of what it sends.
    fn send_reports(&mut self, key: PeerKey, tx: &mut TxQueue, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let streams = peer.subs.len() + peer.published.len();
        let rarer = 1 + streams.saturating_sub(1) / STREAMS_PER_SECOND;
        peer.next_report = Some(now + REPORT_EVERY * rarer as u32);
        let subs = peer.subs.len();

        self.rtcp.clear();
        for at in 0..subs {
            let sub = self.peers.get(key).and_then(|peer| peer.subs.get(at)).copied();
            let Some(sub) = sub.and_then(|sub| self.subs.get_mut(sub)) else { continue };
            let Some(info) = sub.forwarder.sender_report(now, &self.clock) else { continue };
            let ssrc = sub.forwarder.ssrc();
            write::sr(&mut self.rtcp, ssrc, &info, &[]);
            write::sdes_cname(&mut self.rtcp, ssrc, &sub.forwarder.section().cname);
            if self.rtcp.len() >= FULL {
                self.send_rtcp(key, tx);
            }
        }
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.clear();
        if let Some(peer) = self.peers.get(key) {
            for (_, track) in &peer.published {
                let Some(track) = self.tracks.get(*track) else { continue };
                for stream in track.streams.into_iter().flatten() {
                    let stream = self.tracks.streams.get_mut(stream);
                    blocks.extend(stream.and_then(|stream| stream.inbound.report_block(now)));
                }
            }
        }
        for blocks in blocks.chunks(31) {
            if self.rtcp.len() + blocks.len() * 24 >= FULL {
                self.send_rtcp(key, tx);
            }
            write::rr(&mut self.rtcp, OWN_SSRC, blocks);
            write::sdes_cname(&mut self.rtcp, OWN_SSRC, "curtain");
        }
        self.blocks = blocks;
        self.send_rtcp(key, tx);
    }

    /// A transport is up: reports begin, and what it waits for is asked for.
    pub(super) fn peer_connected(&mut self, key: PeerKey, tx: &mut TxQueue, now: Instant) {
        use rand::Rng;

        let Some(peer) = self.peers.get_mut(key) else { return };
        // Spread over the second, so that not all peers of a call report at once.
        peer.next_report = Some(now + REPORT_EVERY.mul_f64(self.rng.random_range(0.5..1.0)));
        for at in 0..peer.subs.len() {
            let sub = self.peers.get(key).and_then(|peer| peer.subs.get(at)).copied();
            if let Some(sub) = sub {
                self.serve_subscription(sub, tx, now);
            }
        }
        self.allocate(key, tx, now);
    }

    pub(super) fn report_levels(&mut self, now: Instant) {
        self.timers.arm(Timer::Levels, now + speaker::PERIOD);
        let levels: Vec<_> =
            self.tracks.iter_mut().filter_map(|(_, track)| track.meter.take(track.id)).collect();
        // One empty report says that all fell silent.
        let heard = !levels.is_empty();
        if heard || self.heard {
            self.events.push_back(ShardEvent::AudioLevels(levels));
        }
        self.heard = heard;
    }

    pub(super) fn report_quality(&mut self, now: Instant) {
        self.timers.arm(Timer::Quality, now + QUALITY_EVERY);
        let mut all = Vec::new();
        let Self { peers, tracks, subs, .. } = self;
        for (_, peer) in peers.iter_mut().filter(|(_, peer)| peer.transport.is_connected()) {
            let mut quality = PeerQuality {
                peer: peer.id,
                heard: std::mem::take(&mut peer.heard),
                up_expected: 0,
                up_lost: 0,
                down_sent: 0,
                down_lost: 0,
                rtt: None,
                jitter: Duration::ZERO,
            };
            for (_, track) in &peer.published {
                let Some(track) = tracks.get(*track) else { continue };
                for stream in track.streams.into_iter().flatten() {
                    let Some(stream) = tracks.streams.get_mut(stream) else { continue };
                    let (expected, lost) = stream.inbound.take_quality();
                    quality.up_expected = quality.up_expected.saturating_add(expected);
                    quality.up_lost = quality.up_lost.saturating_add(lost);
                    quality.jitter = quality.jitter.max(stream.inbound.jitter());
                }
            }
            for sub in &peer.subs {
                let Some(sub) = subs.get_mut(*sub) else { continue };
                let (sent, lost) = sub.forwarder.take_quality();
                quality.down_sent = quality.down_sent.saturating_add(sent);
                quality.down_lost = quality.down_lost.saturating_add(lost);
                let rtt = sub.forwarder.receiver_view().rtt;
                // All are of one path; the smallest has the least of the receiver's own delay in it.
                quality.rtt = [quality.rtt, rtt].into_iter().flatten().min();
            }
            quality.rtt = peer.rtt.get().or(quality.rtt);
            all.push(quality);
        }
        if !all.is_empty() {
            self.events.push_back(ShardEvent::Quality(all));
        }
    }

    pub(super) fn report_stats(&mut self, now: Instant) {
        self.timers.arm(Timer::Stats, now + STATS_EVERY);
        (self.stats.estimated_peers, self.stats.estimate_bps) = (0, 0);
        for (_, peer) in self.peers.iter_mut() {
            if let Some(bps) = peer.sending.estimate() {
                self.stats.estimated_peers += 1;
                self.stats.estimate_bps += bps;
            }
        }
        self.events.push_back(ShardEvent::Stats(Box::new(self.stats.clone())));
    }

    /// Arms a peer's timer by what it has to do next.
    pub(super) fn arm_peer(&mut self, key: PeerKey, now: Instant) {
        if let Some(peer) = self.peers.get_mut(key)
            && let Some((_, path)) = peer.transport.seal_and_addr()
        {
            peer.sending.follow(path, now);
        }
        if let Some(at) = self.peers.get(key).and_then(|peer| self.peer_deadline(peer, now)) {
            self.timers.arm(Timer::Peer(key), at.max(now + connect::MIN_REST));
        }
    }
}
