//! RTCP from peers: reports, key-frame requests, retransmission requests.

use std::time::{Duration, Instant};

use super::Shard;
use super::peers::PeerKey;
use crate::drop_reason::DropReason;
use crate::ids::{Remote, RtpTime, Ssrc};
use crate::relay::Message;
use crate::rtcp::{self, ReportBlock, Rtcp};
use crate::tx::TxQueue;

impl Shard {
    pub(super) fn rtcp(
        &mut self,
        from: Remote,
        datagram: &mut [u8],
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let key = self.peers.at(from).ok_or(DropReason::UnknownSource)?;
        let peer = self.peers.get_mut(key).ok_or(DropReason::UnknownSource)?;
        let len = peer.transport.open_rtcp(datagram)?;
        peer.heard = true;
        peer.transport.heard(from, now);
        let compound = datagram.get(..len).ok_or(DropReason::RtcpMalformed)?;
        // Compound and reduced-size (RFC 5506) alike; what follows a malformed packet cannot be found.
        let mut estimate = false;
        for packet in rtcp::parse(compound) {
            match packet? {
                Rtcp::SenderReport { ssrc, ntp, rtp, reports, .. } => {
                    self.sender_report(key, ssrc, ntp, rtp, now);
                    self.report_blocks(key, reports, now);
                }
                Rtcp::ReceiverReport { reports, .. } => self.report_blocks(key, reports, now),
                Rtcp::Nack { media, lost, .. } => {
                    let sub = self.peers.get(key).and_then(|peer| peer.egress.get(&media).copied());
                    if let Some(sub) = sub {
                        self.retransmit(sub, lost, tx, now);
                    }
                }
                Rtcp::Pli { media, .. } => self.key_frame_wanted(key, media, tx, now),
                Rtcp::Fir { entries, .. } => {
                    for (media, _) in entries.take(MAX_FIRS) {
                        self.key_frame_wanted(key, media, tx, now);
                    }
                }
                Rtcp::TransportCc(feedback) => {
                    if let Some(peer) = self.peers.get_mut(key) {
                        peer.sending.handle_feedback(&feedback, now);
                        if let Some(rtt) = peer.sending.rtt() {
                            peer.rtt.record(rtt, now);
                        }
                    }
                    estimate = true;
                }
                Rtcp::Remb { bitrate, .. } => {
                    if let Some(peer) = self.peers.get_mut(key) {
                        peer.sending.handle_remb(bitrate, now);
                    }
                    estimate = true;
                }
                // Who leaves says so by signalling, DTLS or silence.
                Rtcp::Sdes { .. } | Rtcp::Bye { .. } | Rtcp::Unknown { .. } => {}
            }
        }
        if estimate {
            self.estimate_changed(key, tx, now);
        }
        Ok(())
    }

    fn sender_report(&mut self, key: PeerKey, ssrc: Ssrc, ntp: u64, rtp: RtpTime, now: Instant) {
        let Some(router) = self.peers.get(key).map(|peer| &peer.router) else { return };
        let Some(route) = router.bound(ssrc).filter(|route| !route.rtx) else { return };
        let track = router.section(route.section).and_then(|section| section.track);
        let Some(track) = track.and_then(|key| self.tracks.get(key)) else { return };
        let Some(stream_key) = track.stream(route.layer) else { return };
        let Some(stream) = self.tracks.streams.get_mut(stream_key) else { return };
        stream.inbound.handle_sender_report(ntp, rtp, now);
        let Some(report) = stream.inbound.last_sender_report() else { return };
        let track_key = stream.track;
        let Some(track) = self.tracks.get(track_key) else { return };
        for sub in &track.subs {
            if let Some(sub) = self.subs.get_mut(*sub) {
                sub.forwarder.handle_sender_report(route.layer, report);
            }
        }
        self.relay_message(track_key, |track| Message::Report { track, layer: route.layer, report });
    }

    fn report_blocks(&mut self, key: PeerKey, blocks: impl Iterator<Item = ReportBlock>, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let mut worst: Option<(u8, Option<Duration>)> = None;
        for block in blocks {
            if let Some(sub) = peer.egress.get(&block.ssrc).and_then(|sub| self.subs.get_mut(*sub)) {
                let rated = sub.forwarder.handle_report_block(&block, now);
                let view = sub.forwarder.receiver_view();
                if let Some(rtt) = view.rtt {
                    peer.rtt.record(rtt, now);
                }
                if rated {
                    let (lost, rtt) = worst.unwrap_or_default();
                    worst = Some((lost.max(view.fraction_lost), rtt.or(view.rtt)));
                }
            }
        }
        if let Some((lost, rtt)) = worst {
            peer.sending.handle_report(lost, rtt, now);
        }
    }

    fn key_frame_wanted(&mut self, key: PeerKey, media: Ssrc, tx: &mut TxQueue, now: Instant) {
        let key = self.peers.get(key).and_then(|peer| peer.egress.get(&media)).copied();
        let Some((key, sub)) = key.and_then(|key| Some((key, self.subs.get(key)?))) else { return };
        self.stats.pli_in += 1;
        if let Some(layer) = sub.forwarder.handle_key_frame_request() {
            self.ask_for_key_frame(key, layer, tx, now);
        }
    }
}

/// Entries that one FIR message may have; a receiver has few streams that all broke at once.
const MAX_FIRS: usize = 32;
