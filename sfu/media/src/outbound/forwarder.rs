//! One track as sent to one subscriber.

mod padding;

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Packet;
use super::even::{self, even};
use super::header_template::HeaderTemplate;
use super::history::{History, MAX_AGE, Sent};
use super::layer_selector::{Decision, LayerSelector, Look};
use super::reports::{NtpClock, ReceiverView, ReportState};
use super::rewriter::{Ids, Rewriter};
use super::rtx::{LATE, LITTLE_LOSS, MAX_RESENDS, RtxCounter, too_soon};
use super::twcc_seq::TwccSeqCounter;
use crate::command::{Codec, CodecParams, Extension, MediaKind, SendSection, SubscriptionTarget};
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, Pt, Remote, SeqNo, Ssrc};
use crate::inbound::{PacketMeta, PacketStore, SenderReport};
use crate::rtcp::ReportBlock;
use crate::rtcp::write::SenderInfo;
use crate::rtp::{
    ExtensionValues, MAX_HEADER, MAX_REWRITTEN, RtpHeaderOut, red, rewrite_dd, rewrite_descriptor, rtx,
    set_padding,
};
use crate::srtp::{MAX_OVERHEAD, SrtpSeal};
use crate::tx::TxQueue;

/// Bytes that a rewritten payload descriptor may be longer than the old one, with room to spare.
const DESCRIPTOR_GROWTH: usize = 16;
/// How long to wait for the publisher's sender report before the relay's clock serves instead.
const OWN_CLOCK_AFTER: Duration = Duration::from_secs(3);

/// Counters of one subscription, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboundStats {
    /// Packets forwarded, retransmissions not counted.
    pub packets: u64,
    /// Bytes of their payloads.
    pub octets: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Bytes of their payloads.
    pub retransmitted_octets: u64,
    /// Times that another stream took over, the first one included.
    pub switches: u64,
}

/// Forwards one track to one subscriber under its own SSRC: selects the layer, rewrites the numbers, seals. See the
/// [module](super) for the order of calls.
#[derive(Debug)]
pub struct Forwarder {
    section: SendSection,
    /// The format of the last packet, by what decides it: looking it up goes through the section's list of codecs.
    last_format: Option<(Codec, u32, bool, Format)>,
    template: Option<HeaderTemplate>,
    /// What the receiver is told to wait, as on the wire.
    playout_delay: Option<[u8; 3]>,
    selector: LayerSelector,
    rewriter: Rewriter,
    history: History,
    rtx: RtxCounter,
    reports: ReportState,
    clock_rate: u32,
    first_sent: Option<Instant>,
    rated_packets: u64,
    stats: OutboundStats,
}

/// How a payload goes out to this subscriber.
#[derive(Debug, Clone, Copy)]
struct Format {
    pt: Pt,
    rtx: Option<Pt>,
    red_primary: bool,
}

impl Forwarder {
    /// Wants every layer, until [`Self::set_target`]. First numbers are drawn from `seed`, which should differ for every
    /// forwarder.
    pub fn new(section: SendSection, seed: u64, now: Instant) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        // Below 2^15, so that a receiver that misses the first packets guesses the rollover counter right; not 0 or 1,
        // so that one late packet does not fall below zero.
        let mut first = || rng.random_range(2..0x8000u16);
        Self {
            last_format: None,
            template: None,
            playout_delay: None,
            selector: LayerSelector::new(section.kind),
            rewriter: Rewriter::new(first()),
            history: History::new(section.kind, now),
            rtx: RtxCounter::new(first()),
            reports: ReportState::default(),
            clock_rate: 0,
            first_sent: None,
            rated_packets: 0,
            stats: OutboundStats::default(),
            section,
        }
    }

    /// How the track is sent.
    pub fn section(&self) -> &SendSection {
        &self.section
    }

    /// The least time that the receiver should wait before it shows a frame; `None`: as the publisher says, if it does.
    pub fn set_playout_delay(&mut self, least: Option<Duration>) {
        self.playout_delay = least.map(super::playout_delay::extension);
        self.template = None;
    }

    /// SSRC of the outgoing stream.
    pub fn ssrc(&self) -> Ssrc {
        self.section.ssrc
    }

    /// SSRC of its retransmissions.
    pub fn rtx_ssrc(&self) -> Option<Ssrc> {
        self.section.rtx_ssrc
    }

    /// What is wanted from now on: what the page asked for, as far as the path carries it.
    ///
    /// Less of one stream comes at the next picture, nothing at all at once. A lower stream is switched to at its next key
    /// frame, and until then the temporal layers of the present one are left out. More of one stream comes where its
    /// frames allow it, a higher stream at its next key frame, and so does video that was disabled.
    pub fn set_target(&mut self, target: SubscriptionTarget) {
        self.selector.set_target(target);
    }

    /// The publisher's packets were interrupted: video goes on at a key frame, audio with the next packet. The numbers
    /// show no gap, the timestamps do.
    pub fn require_key_frame(&mut self) {
        self.selector.interrupt();
    }

    /// Another [`InboundStream`](crate::inbound::InboundStream) takes this place among the track's streams: its indices
    /// and timestamps have nothing to do with those before.
    pub fn replace_stream(&mut self, stream: u8) {
        self.selector.forget(stream);
        self.rewriter.forget(stream);
        self.history.forget(stream);
    }

    /// The stream whose key frame is needed before anything, or more, can be forwarded. Ask for it as long as this says
    /// so; the request is throttled where it is sent.
    pub fn wants_key_frame(&self) -> Option<u8> {
        self.selector.wants_key_frame()
    }

    /// The subscriber asks for a key frame: the stream to pass the request to. `None` for audio, and while disabled.
    pub fn handle_key_frame_request(&self) -> Option<u8> {
        self.selector
            .wants_key_frame()
            .or_else(|| self.selector.stream().filter(|_| self.section.kind == MediaKind::Video))
    }

    /// The stream being forwarded; `None` while waiting or disabled.
    pub fn current_stream(&self) -> Option<u8> {
        self.selector.stream()
    }

    /// The publisher's sender report for one of the track's streams.
    pub fn handle_sender_report(&mut self, stream: u8, report: SenderReport) {
        self.rewriter.set_report(stream, report);
        self.refer_to(stream);
    }

    /// So many packets of a run [`Self::forward`] takes at a time: all that are ahead of what came before; late ones may
    /// each meet another fate.
    pub fn step(&self, run: &[Packet<'_>]) -> usize {
        let ahead = |(meta, _): &Packet<'_>| self.selector.is_ahead(meta) && self.rewriter.is_ahead(meta);
        if run.first().is_some_and(ahead) { run.len() } else { 1 }
    }

    /// Takes a run of packets of any of the track's streams, see [`runs`](super::runs), and queues them for `dst` if this
    /// subscriber gets them.
    ///
    /// # Errors
    /// All of them are dropped: [`DropReason::CodecNotNegotiated`]; [`DropReason::LayerNotSelected`],
    /// [`DropReason::WaitingForKeyFrame`]; [`DropReason::TooOld`] for a late packet whose number is forgotten;
    /// [`DropReason::Duplicate`]; [`DropReason::RtpMalformed`] for RED that cannot be taken apart. Those of
    /// [`SrtpSeal::seal_rtp`], after which the rest is dropped.
    pub fn forward(
        &mut self,
        run: &[Packet<'_>],
        seal: &mut SrtpSeal,
        dst: Remote,
        twcc: &mut TwccSeqCounter,
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let [(meta, payload), others @ ..] = run else { return Ok(()) };
        let format = match self.last_format {
            Some((codec, variant, opaque, format))
                if (codec, variant, opaque) == (meta.codec, meta.variant, meta.opaque) =>
            {
                format
            }
            _ => {
                let format = self.format(meta).ok_or(DropReason::CodecNotNegotiated)?;
                self.last_format = Some((meta.codec, meta.variant, meta.opaque, format));
                format
            }
        };
        if format.red_primary {
            red::primary(payload)?;
        }
        let decision = self.selector.decide(meta);
        let last = others.last().map(|(last, _)| *last);
        if let Some(last) = last {
            self.selector.extend(last);
        }
        let (ids, look) = match decision {
            Decision::Forward(look) if self.rewriter.timestamp_offset().is_some() => {
                (self.rewriter.forward(meta), look)
            }
            Decision::Forward(look) | Decision::Switch(look) => {
                let ids = self.rewriter.switch(meta);
                self.clock_rate = meta.clock_rate;
                self.stats.switches += 1;
                self.refer_to(meta.stream);
                (Some(ids), look)
            }
            // Its decode targets are not those that the receiver has now: nothing is said of them.
            Decision::Late => (self.rewriter.forward(meta), Look { marker: meta.marker, active: None }),
            Decision::LeaveOut(reason) => {
                run.iter().for_each(|(meta, _)| self.rewriter.leave_out(meta));
                return Err(reason);
            }
            Decision::Ignore(reason) => return Err(reason),
        };
        let ids = ids.ok_or(DropReason::TooOld)?;
        if let Some(last) = last {
            self.rewriter.extend(meta, last);
        }
        let Look { marker, active } = look;
        // One number is sealed once: a second packet under it would give away the key (RFC 7714 section 9.1).
        self.history.check_free(ids.out, run.len())?;
        let first = Sent {
            out: ids.out,
            stream: meta.stream,
            index: meta.index,
            timestamp: ids.timestamp,
            marker,
            rtx_pt: format.rtx.filter(|_| self.section.rtx_ssrc.is_some()),
            picture_id: ids.picture_id,
            tl0_pic_idx: ids.tl0_pic_idx,
            frame: ids.frame,
            active,
            red_primary: format.red_primary,
            at: now,
            resent: None,
            resends: 0,
        };
        self.history.push(&first, others.iter().map(|(meta, _)| self.selector.marker(meta)));
        self.first_sent.get_or_insert(now);
        let header = RtpHeaderOut {
            marker,
            pt: format.pt,
            seq: ids.out.seq(),
            timestamp: ids.timestamp,
            ssrc: self.section.ssrc,
        };
        let red_primary = format.red_primary;
        let outgoing = Outgoing { header, index: ids.out, osn: None, ids, active, red_primary, run };
        let octets = self.send(outgoing, seal, dst, twcc, tx, now)?;
        self.stats.packets += run.len() as u64;
        self.stats.octets += octets as u64;
        Ok(())
    }

    /// Reads a bit of all that so many packets need. What is read together comes into the cache together; one after the other,
    /// as forwarding gets to it, each would be waited for.
    pub(crate) fn touch(&self, packets: usize) -> u64 {
        let template = self.template.as_ref().map_or(0, |template| template.touch());
        let section = u64::from(self.section.ssrc.0) + u64::from(self.last_format.is_some());
        self.history.touch(packets)
            + self.rewriter.touch()
            + self.selector.touch()
            + self.stats.packets
            + section
            + template
    }

    /// A packet of one of the track's streams that carries nothing to forward, padding only: closes the gap that it
    /// would leave if that stream is the one being forwarded.
    pub fn skip(&mut self, stream: u8, index: ExtSeq) {
        self.rewriter.skip(stream, index);
    }

    /// Sends a packet again that the subscriber misses, on the RTX SSRC. `stores` gives the store of each of the track's
    /// streams. `true`: a second copy is worth its bytes, see [`Self::repeat`].
    ///
    /// # Errors
    /// [`DropReason::RtxUseless`] for a number that was never sent, that was sent again less than half a round trip ago
    /// or ten times already, or when RTX was not negotiated; [`DropReason::TooOld`] when the packet is no longer there; those of
    /// [`SrtpSeal::seal_rtp`].
    #[expect(clippy::too_many_arguments, reason = "the request, the transport's parts, the time")]
    pub fn retransmit<'a>(
        &mut self,
        lost: SeqNo,
        stores: impl Fn(u8) -> Option<&'a PacketStore>,
        seal: &mut SrtpSeal,
        dst: Remote,
        twcc: &mut TwccSeqCounter,
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<bool, DropReason> {
        let highest = self.history.highest().ok_or(DropReason::RtxUseless)?;
        let out = ExtSeq::nearest(highest, lost);
        if self.history.is_too_old(out) {
            return Err(DropReason::TooOld);
        }
        let view = self.reports.view();
        let rtt = view.rtt;
        let sent = self.history.get(out).ok_or(DropReason::RtxUseless)?;
        if now.saturating_duration_since(sent.at) > MAX_AGE {
            return Err(DropReason::TooOld);
        }
        if sent.rtx_pt.is_none() || sent.resends >= MAX_RESENDS || too_soon(sent.resent, rtt, now) {
            return Err(DropReason::RtxUseless);
        }
        if stores(sent.stream).and_then(|s| s.get(sent.index)).is_none() {
            return Err(DropReason::TooOld);
        }
        let late = rtt.is_some_and(|rtt| rtt >= LATE) && view.fraction_lost <= LITTLE_LOSS;
        let twice = sent.resends > 0 || late;
        self.history.note_resent(out, now);
        self.resend(out, stores, seal, dst, twcc, tx, now)?;
        Ok(twice)
    }

    /// Sends a second copy of what [`Self::retransmit`] has just sent. A receiver whose repair is lost asks again only after
    /// a round trip; by then its picture stands, which costs it more than these bytes.
    ///
    /// # Errors
    /// As [`Self::retransmit`].
    #[expect(clippy::too_many_arguments, reason = "the request, the transport's parts, the time")]
    pub fn repeat<'a>(
        &mut self,
        lost: SeqNo,
        stores: impl Fn(u8) -> Option<&'a PacketStore>,
        seal: &mut SrtpSeal,
        dst: Remote,
        twcc: &mut TwccSeqCounter,
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let highest = self.history.highest().ok_or(DropReason::RtxUseless)?;
        self.resend(ExtSeq::nearest(highest, lost), stores, seal, dst, twcc, tx, now)
    }

    /// Sends a packet of the history on the RTX SSRC.
    #[expect(clippy::too_many_arguments, reason = "the packet, the transport's parts, the time")]
    fn resend<'a>(
        &mut self,
        out: ExtSeq,
        stores: impl Fn(u8) -> Option<&'a PacketStore>,
        seal: &mut SrtpSeal,
        dst: Remote,
        twcc: &mut TwccSeqCounter,
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let ssrc = self.section.rtx_ssrc.ok_or(DropReason::RtxUseless)?;
        let sent = self.history.get(out).ok_or(DropReason::RtxUseless)?;
        let pt = sent.rtx_pt.ok_or(DropReason::RtxUseless)?;
        let packet = stores(sent.stream).and_then(|s| s.get(sent.index)).ok_or(DropReason::TooOld)?;
        let ids = Ids {
            out,
            timestamp: sent.timestamp,
            picture_id: sent.picture_id,
            tl0_pic_idx: sent.tl0_pic_idx,
            frame: sent.frame,
        };
        let active = sent.active;
        let index = self.rtx.take();
        let header =
            RtpHeaderOut { marker: sent.marker, pt, seq: index.seq(), timestamp: ids.timestamp, ssrc };
        let (osn, red_primary) = (Some(rtx::osn(out.seq())), sent.red_primary);
        let outgoing = Outgoing { header, index, osn, ids, active, red_primary, run: &[packet] };
        let octets = self.send(outgoing, seal, dst, twcc, tx, now)?;
        self.stats.retransmitted += 1;
        self.stats.retransmitted_octets += octets as u64;
        Ok(())
    }

    /// A report block for [`Self::ssrc`] out of the subscriber's receiver report. Returns whether losses are known anew: they
    /// are told over a second.
    pub fn handle_report_block(&mut self, block: &ReportBlock, now: Instant) -> bool {
        self.reports.handle_report_block(block, now)
    }

    /// What the subscriber reported.
    pub fn receiver_view(&self) -> ReceiverView {
        self.reports.view()
    }

    /// The sender report to send now. `None` before anything was sent, and for the first three seconds if the publisher
    /// has not sent one: its wall clock is what keeps its tracks in sync.
    pub fn sender_report(&mut self, now: Instant, clock: &NtpClock) -> Option<SenderInfo> {
        let first = self.first_sent?;
        if !self.reports.has_reference() {
            if now.saturating_duration_since(first) < OWN_CLOCK_AFTER {
                return None;
            }
            let (timestamp, at) = self.rewriter.last_timestamp()?;
            self.reports.set_own_reference(clock.ntp(at), timestamp, at);
        }
        let (ntp, rtp) = self.reports.report(self.clock_rate, now)?;
        Some(SenderInfo { ntp, rtp, packets: self.stats.packets as u32, octets: self.stats.octets as u32 })
    }

    /// Packets sent, and packets that the subscriber reported lost, since the last call.
    pub fn take_quality(&mut self) -> (u32, u32) {
        let sent = self.stats.packets - self.rated_packets;
        self.rated_packets = self.stats.packets;
        (sent as u32, self.reports.take_lost())
    }

    /// Counters.
    pub fn stats(&self) -> OutboundStats {
        self.stats
    }

    /// The highest sequence number sent.
    pub fn highest_sent(&self) -> Option<ExtSeq> {
        self.history.highest()
    }

    /// Takes the wall clock of the stream being forwarded, if it is this one and its report is known.
    fn refer_to(&mut self, stream: u8) {
        if let (Some((current, offset)), Some(report)) =
            (self.rewriter.timestamp_offset(), self.rewriter.report(stream))
            && current == stream
        {
            self.reports.set_reference(report, offset);
        }
    }

    fn format(&self, meta: &PacketMeta) -> Option<Format> {
        let codecs = &self.section.codecs;
        let of = |codec: Codec| codecs.iter().filter(move |c| c.codec == codec);
        let plain = |c: &CodecParams| Format { pt: c.pt, rtx: c.rtx, red_primary: false };
        let same = of(meta.codec).find(|c| c.variant == meta.variant).map(plain);
        same.or_else(|| match meta.codec {
            // A decoder takes the profiles below its own; the packetization mode has no such order.
            Codec::H264 => of(Codec::H264)
                .filter(|c| c.variant & 0xff == meta.variant & 0xff && c.variant > meta.variant)
                .min_by_key(|c| c.variant)
                .map(plain),
            // What was encrypted after redundancy was added cannot be taken apart.
            Codec::Red if !meta.opaque => {
                of(Codec::Opus).next().map(|c| Format { red_primary: true, ..plain(c) })
            }
            _ => None,
        })
    }

    /// Writes, seals and queues packets; returns the length of their payloads.
    fn send(
        &mut self,
        outgoing: Outgoing<'_>,
        seal: &mut SrtpSeal,
        dst: Remote,
        twcc: &mut TwccSeqCounter,
        tx: &mut TxQueue,
        now: Instant,
    ) -> Result<usize, DropReason> {
        let Outgoing { mut header, index, osn, ids, active, red_primary, run } = outgoing;
        let Some((first, _)) = run.first() else { return Ok(0) };
        let map = &self.section.extensions;
        let numbered = map.id(Extension::TransportCc).is_some();
        let time = map.id(Extension::AbsSendTime).map_or(0, |_| twcc.abs_send_time(now));
        let level = first.audio_level.is_some();
        if self.template.as_ref().is_none_or(|template| template.is_with_level() != level) {
            self.template = HeaderTemplate::new(map, self.section.mid, level, self.playout_delay);
        }
        // A structure needs the two-byte form. Who cannot take that would be told of templates without them, and drop
        // every packet; without the extension it goes by the payload descriptor.
        let map = &self.section.extensions;
        let described = map.allow_mixed && map.id(Extension::DependencyDescriptor).is_some();
        let described = ids.frame.filter(|_| described);
        let template = self.template.as_ref().filter(|_| described.is_none());
        let same = same_numbers(first, ids);
        // TCP takes each by itself anyway.
        let even = even(run).filter(|_| dst.tcp.is_none());
        let mut octets = 0;
        for (index, (at, (meta, payload))) in (index.0..).map(ExtSeq).zip(run.iter().enumerate()) {
            if at > 0 {
                header.marker = self.selector.marker(meta);
                header.seq = index.seq();
            }
            let payload = if red_primary { red::primary(payload)?.payload } else { payload };
            let mut prefix = ArrayVec::<u8, { 16 + rtx::OSN_LEN }>::new();
            if let Some(osn) = osn {
                prefix.extend(osn);
            }
            // Mostly the numbers are those of the publisher: then the payload is sealed as it lies in the store, without a
            // copy.
            let mut body = payload;
            if !same {
                let mut descriptor = ArrayVec::<u8, 16>::new();
                let replaced =
                    rewrite_descriptor(meta.codec, payload, ids.picture_id, ids.tl0_pic_idx, &mut descriptor);
                prefix.extend(descriptor);
                body = payload.get(replaced..).unwrap_or_default();
            }
            let room =
                MAX_HEADER + rtx::OSN_LEN + DESCRIPTOR_GROWTH + payload.len() + even::MOST + MAX_OVERHEAD;
            let mut slot = tx.reserve(room);
            let bytes = slot.bytes();
            let number = twcc.peek();
            let header_len = match template {
                Some(template) if template.fits(meta) => template.write(bytes, &header, meta, number, time),
                _ => self.write_header(bytes, &header, meta, described.map(|n| (n, active)), number, time),
            };
            let padding = match even {
                Some(len) if at + 1 < run.len() => even::padding(payload, len),
                _ => &[],
            };
            if !padding.is_empty() {
                set_padding(bytes);
            }
            let text = [&prefix[..], body, padding];
            let len = seal.seal_rtp(bytes, header_len, header.ssrc, index, text)?;
            slot.commit(dst, len);
            if numbered {
                twcc.advance();
            }
            octets += prefix.len() + body.len();
        }
        Ok(octets)
    }

    /// Writes a header with all that the packet has. `described`: frame number and active targets of its Dependency
    /// Descriptor.
    fn write_header(
        &self,
        out: &mut [u8],
        header: &RtpHeaderOut,
        meta: &PacketMeta,
        described: Option<(u16, Option<u32>)>,
        number: u16,
        time: u32,
    ) -> usize {
        let mut dd = ArrayVec::<u8, MAX_REWRITTEN>::new();
        if let (Some(frame), Some((number, active))) = (&meta.frame, described) {
            rewrite_dd(&meta.dd, frame, number, active, &mut dd);
        }
        let extensions = ExtensionValues {
            mid: Some(self.section.mid),
            audio_level: meta.audio_level,
            abs_send_time: Some(time),
            transport_cc: Some(number),
            dependency_descriptor: (!dd.is_empty()).then_some(&dd[..]),
            video_orientation: meta.orientation,
            playout_delay: self.playout_delay.or(meta.playout_delay),
            ..ExtensionValues::default()
        };
        header.write(out, &extensions, &self.section.extensions)
    }
}

/// Whether the payload descriptor goes out as it came in. A picture id of seven bits always goes out in fifteen.
fn same_numbers(meta: &PacketMeta, ids: Ids) -> bool {
    ids.picture_id == meta.info.picture_id
        && ids.tl0_pic_idx == meta.info.tl0_pic_idx
        && ids.picture_id.is_none_or(|id| id > 0x7f)
}

/// Packets about to be sent.
struct Outgoing<'a> {
    /// Of the first one.
    header: RtpHeaderOut,
    /// Index of `header.seq` in its stream, for SRTP.
    index: ExtSeq,
    /// Original sequence number, of a retransmission.
    osn: Option<[u8; rtx::OSN_LEN]>,
    ids: Ids,
    /// Decode targets to be told of.
    active: Option<u32>,
    /// Only the primary block of a RED payload is sent.
    red_primary: bool,
    run: &'a [Packet<'a>],
}

#[cfg(test)]
mod layer_tests;
#[cfg(test)]
mod tests;
