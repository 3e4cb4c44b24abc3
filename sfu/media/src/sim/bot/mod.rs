//! A client: one `RTCPeerConnection` against the relay, media and data included.

mod data;
mod encoder;
mod feedback;
mod frames;
pub mod playout;
mod rtp;
mod secure;
mod sink;
mod source;
mod stun;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use encoder::Encoding;
pub use frames::{Coding, FrameId};
pub use rtp::ReportBlock;
pub use sink::{FrameReceived, Sink, SinkConfig};
pub use source::{LayerConfig, Source, SourceConfig};

use crate::command::{Fingerprint, IceCredentials, RemoteTransport};
use data::Data;
use feedback::Arrivals;
use secure::{Secure, SecureOutput};

/// Time between checks until one succeeds.
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// Time between checks afterwards, as Chromium does.
const CONSENT_EVERY: Duration = Duration::from_millis(2500);
/// Time between looks at what is missing.
const TICK: Duration = Duration::from_millis(20);
/// Time between reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Round-trip time as long as none is known, libwebrtc's.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
/// SSRC that the client's reports come from.
const OWN_SSRC: u32 = 0xbeef;

/// What a client counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BotStats {
    /// Media packets sent, retransmissions included.
    pub sent: u64,
    /// Packets that did not authenticate.
    pub bad: u64,
    /// Packets of streams that nobody announced.
    pub unexpected: u64,
    /// Transport-wide feedback messages.
    pub twcc: u64,
    /// RTP packets with a transport-wide sequence number.
    pub twcc_numbered: u64,
    /// Checks answered.
    pub checks: u64,
}

/// A client on the simulated network.
pub struct Bot {
    addr: SocketAddr,
    ice: IceCredentials,
    relay: Option<(IceCredentials, Fingerprint)>,
    secure: Secure,
    fingerprint: Fingerprint,
    data: Option<Data>,
    opens_channels: bool,
    rng: SmallRng,
    transaction: [u8; 12],
    next_check: Instant,
    checked: bool,
    next_tick: Instant,
    next_report: Instant,
    start: Instant,
    twcc: u16,
    arrivals: Arrivals,
    /// An SSRC that came, which feedback must name.
    some_ssrc: u32,
    answers_twcc: bool,
    rtt: Duration,
    vanished: bool,
    sources: BTreeMap<u32, Source>,
    sinks: BTreeMap<u32, Sink>,
    stats: BotStats,
    /// The last protected media packets, for tests that send them again.
    pub sent_log: std::collections::VecDeque<Vec<u8>>,
    out: Vec<Vec<u8>>,
}

impl Bot {
    /// A client at an address. `opens_channels` as the side of LiveKit that publishes data.
    pub fn new(addr: SocketAddr, seed: u64, opens_channels: bool, now: Instant) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut word = |len: usize| -> String {
            (0..len).map(|_| char::from(b'a' + rng.random_range(0..26u8))).collect()
        };
        let ice = IceCredentials { ufrag: word(8), pwd: word(24) };
        let (secure, fingerprint) = Secure::new(now);
        Self {
            addr,
            ice,
            relay: None,
            secure,
            fingerprint,
            data: None,
            opens_channels,
            transaction: rng.random(),
            rng,
            next_check: now,
            checked: false,
            next_tick: now,
            next_report: now,
            start: now,
            twcc: 65_500,
            arrivals: Arrivals::default(),
            some_ssrc: 0,
            answers_twcc: true,
            rtt: DEFAULT_RTT,
            vanished: false,
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            stats: BotStats::default(),
            sent_log: std::collections::VecDeque::new(),
            out: Vec::new(),
        }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Moves to another address and checks it at once, as a client that changes its network.
    pub fn set_addr(&mut self, addr: SocketAddr, now: Instant) {
        self.addr = addr;
        self.next_check = now;
        self.checked = false;
    }

    /// Has another address without knowing it: a NAT forgot the old one.
    pub fn rebind(&mut self, addr: SocketAddr) {
        self.addr = addr;
    }

    /// What its description says.
    pub fn description(&self) -> RemoteTransport {
        RemoteTransport { ice: self.ice.clone(), fingerprint: self.fingerprint }
    }

    /// The relay's description arrived: checks begin.
    pub fn connect(&mut self, ice: IceCredentials, fingerprint: Fingerprint, now: Instant) {
        self.relay = Some((ice, fingerprint));
        self.next_check = now;
        self.checked = false;
    }

    /// Takes new local credentials, for an ICE restart; the caller tells the relay.
    pub fn restart_ice(&mut self) -> RemoteTransport {
        let mut word = |len: usize| -> String {
            (0..len).map(|_| char::from(b'a' + self.rng.random_range(0..26u8))).collect()
        };
        self.ice = IceCredentials { ufrag: word(8), pwd: word(24) };
        self.description()
    }

    /// Whether it reports the arrivals of transport-wide numbers; it does from the start.
    pub fn set_feedback(&mut self, answers: bool) {
        self.answers_twcc = answers;
    }

    /// Says nothing more, as when the power fails.
    pub fn vanish(&mut self) {
        self.vanished = true;
    }

    /// Says goodbye by `close_notify`.
    pub fn hang_up(&mut self, now: Instant) {
        let mut out = Vec::new();
        self.secure.close(&mut out, now);
        self.outputs(out, now);
        self.sources.clear();
    }

    /// Whether media can flow, and the relay's certificate was the announced one.
    pub fn is_connected(&self) -> bool {
        self.secure.is_ready()
            && self.relay.as_ref().is_some_and(|(_, want)| self.secure.server == Some(*want))
    }

    /// Whether DTLS ended.
    pub fn is_closed(&self) -> bool {
        self.secure.closed
    }

    /// What it counted.
    pub fn stats(&self) -> BotStats {
        self.stats
    }

    /// Starts to send a track as soon as keys are there.
    pub fn publish(&mut self, config: SourceConfig, now: Instant) {
        self.sources.insert(config.source, Source::new(config, now));
    }

    /// Stops for good.
    pub fn unpublish(&mut self, source: u32) {
        self.sources.remove(&source);
    }

    /// Stops or goes on.
    pub fn set_muted(&mut self, source: u32, muted: bool, now: Instant) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.mute(muted, now);
        }
    }

    /// The level that packets of an audio track tell, in -dBov.
    pub fn set_audio_level(&mut self, source: u32, level: Option<u8>) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.set_audio_level(level);
        }
    }

    /// Stops one layer of a track, or lets it go on.
    pub fn set_layer(&mut self, source: u32, layer: usize, enabled: bool) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.set_layer(layer, enabled);
        }
    }

    /// A track that it sends.
    ///
    /// # Panics
    /// When there is no such track.
    pub fn source(&self, source: u32) -> &Source {
        &self.sources[&source]
    }

    /// Expects a track.
    pub fn receive(&mut self, config: SinkConfig) {
        self.sinks.insert(config.ssrc, Sink::new(config));
    }

    /// The round-trip time that it knows of: how long it waits for a packet that it asked for. Until then 100 ms, as with
    /// libwebrtc while it receives only.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// A track that it receives.
    ///
    /// # Panics
    /// When it does not expect that SSRC.
    pub fn sink(&self, ssrc: u32) -> &Sink {
        &self.sinks[&ssrc]
    }

    /// All tracks that it receives.
    pub fn sinks(&self) -> impl Iterator<Item = &Sink> {
        self.sinks.values()
    }

    /// Asks for a key frame of a received track.
    pub fn send_pli(&mut self, ssrc: u32) {
        let pli = rtp::pli(OWN_SSRC, ssrc);
        self.send_rtcp(&pli);
    }

    /// Asks for packets of a received track again.
    pub fn send_nack(&mut self, ssrc: u32, lost: &[u16]) {
        let nack = rtp::nack(OWN_SSRC, ssrc, lost);
        self.send_rtcp(&nack);
    }

    /// Sends any compound of RTCP, protected.
    pub fn send_rtcp(&mut self, compound: &[u8]) {
        let sealed = self.secure.seal_rtcp(compound);
        self.out.extend(sealed);
    }

    /// Sends any RTP packet, protected.
    pub fn send_rtp(&mut self, packet: &[u8]) {
        let sealed = self.secure.seal_rtp(packet);
        self.out.extend(sealed);
    }

    /// Sends any datagram as it is.
    pub fn send_raw(&mut self, datagram: &[u8]) {
        self.out.push(datagram.to_vec());
    }

    /// Sends any bytes as one SCTP packet.
    pub fn send_sctp(&mut self, packet: &[u8], now: Instant) {
        let mut out = Vec::new();
        self.secure.send(packet, &mut out, now);
        self.outputs(out, now);
    }

    /// Whether a data channel is open.
    pub fn has_channel(&self, label: &str) -> bool {
        self.data.as_ref().is_some_and(|data| data.is_open(label))
    }

    /// Sends a message on a data channel. False without such a channel.
    pub fn send_data(&mut self, label: &str, payload: &[u8], now: Instant) -> bool {
        let Some(data) = self.data.as_mut() else { return false };
        let sent = data.send(label, payload);
        self.flush_data(now);
        sent
    }

    /// Messages that arrived on data channels, with their labels.
    pub fn received_data(&self) -> &[(String, Bytes)] {
        self.data.as_ref().map_or(&[], |data| &data.received)
    }

    /// Datagrams to send.
    pub fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        if self.vanished {
            self.out.clear();
        }
        std::mem::take(&mut self.out)
    }

    /// When [`Bot::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.vanished || self.relay.is_none() || self.secure.closed {
            return None;
        }
        let ready = self.is_connected();
        [
            Some(self.next_check),
            self.secure.poll_timeout(),
            self.data.as_ref().and_then(|data| data.poll_timeout()),
            ready.then_some(self.next_tick),
            ready.then_some(self.next_report),
            self.arrivals.poll_timeout().filter(|_| ready),
        ]
        .into_iter()
        .chain(self.sources.values().filter(|_| ready).map(Source::next))
        .flatten()
        .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.vanished || self.secure.closed {
            return;
        }
        if self.next_check <= now {
            self.send_check();
            self.next_check = now + if self.checked { CONSENT_EVERY } else { CHECK_EVERY };
        }
        if self.checked && self.secure.poll_timeout().is_none_or(|at| at <= now) {
            let mut out = Vec::new();
            self.secure.handle_timeout(&mut out, now);
            self.outputs(out, now);
        }
        if let Some(data) = self.data.as_mut()
            && data.poll_timeout().is_some_and(|at| at <= now)
        {
            data.handle_timeout(now);
            self.flush_data(now);
        }
        if !self.is_connected() {
            return;
        }
        let mut packets = Vec::new();
        for source in self.sources.values_mut() {
            source.send(&mut self.twcc, &mut packets, now);
        }
        self.send_media(packets);
        for report in self.arrivals.reports(OWN_SSRC, self.some_ssrc, now) {
            self.send_rtcp(&report);
        }
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            let rtt = self.rtt;
            let lost: Vec<_> =
                self.sinks.values_mut().map(|sink| (sink.config().ssrc, sink.tick(rtt, now))).collect();
            for (ssrc, lost) in lost.into_iter().filter(|(_, lost)| !lost.is_empty()) {
                // As Chromium: what it has to say comes with a report, so that reports are of a few packets.
                let block = self.sinks.get_mut(&ssrc).and_then(|sink| sink.report(now));
                let mut compound = rtp::receiver_report(OWN_SSRC, block.as_slice());
                compound.extend(rtp::nack(OWN_SSRC, ssrc, &lost));
                self.send_rtcp(&compound);
            }
            let keyless: Vec<_> = self
                .sinks
                .values_mut()
                .filter_map(|sink| sink.needs_key(now).then_some(sink.config().ssrc))
                .collect();
            for ssrc in keyless {
                self.send_pli(ssrc);
            }
        }
        if self.next_report <= now {
            self.next_report = now + REPORT_EVERY;
            self.send_reports(now);
        }
    }

    /// Takes a datagram from the relay.
    pub fn handle(&mut self, datagram: &[u8], now: Instant) {
        if self.vanished {
            return;
        }
        match datagram.first() {
            Some(0..=3) => {
                let Some((relay, _)) = &self.relay else { return };
                if stun::is_success(datagram, &relay.pwd, self.transaction) {
                    self.stats.checks += 1;
                    if !std::mem::replace(&mut self.checked, true) {
                        self.next_check = now + CONSENT_EVERY;
                        let mut out = Vec::new();
                        self.secure.handle_timeout(&mut out, now);
                        self.outputs(out, now);
                    }
                    self.transaction = self.rng.random();
                }
            }
            Some(20..=63) => {
                let mut out = Vec::new();
                self.secure.handle(datagram, &mut out, now);
                self.outputs(out, now);
                if self.is_connected() && self.data.is_none() {
                    self.data = Some(Data::new(self.opens_channels));
                    self.flush_data(now);
                }
            }
            Some(128..=191) => match datagram.get(1).map(|kind| kind & 0x7f) {
                Some(64..=95) => self.rtcp(datagram, now),
                _ => self.rtp(datagram, now),
            },
            _ => {}
        }
    }

    fn rtp(&mut self, datagram: &[u8], now: Instant) {
        let Some(packet) = self.secure.open_rtp(datagram) else {
            self.stats.bad += 1;
            return;
        };
        let Some(parsed) = rtp::parse(&packet) else {
            self.stats.bad += 1;
            return;
        };
        let ssrc = parsed.head.ssrc;
        if let Some((_, number)) = parsed.extensions.iter().find(|(id, _)| *id == TWCC_ID) {
            self.stats.twcc_numbered += 1;
            if let ([hi, lo], true) = (number, self.answers_twcc) {
                let since_start = now.duration_since(self.start);
                self.arrivals.record(u16::from_be_bytes([*hi, *lo]), since_start, now);
                self.some_ssrc = ssrc;
            }
        }
        let sink =
            self.sinks.values_mut().find(|s| s.config().ssrc == ssrc || s.config().rtx_ssrc == Some(ssrc));
        match sink {
            Some(sink) => {
                let told = parsed.extensions.iter().find(|(id, _)| *id == PLAYOUT_DELAY_ID);
                if let Some((_, [a, b, c])) = told {
                    sink.playout_delay = Some([*a, *b, *c]);
                }
                sink.packet(&parsed, datagram.len(), now);
            }
            None => self.stats.unexpected += 1,
        }
    }

    fn rtcp(&mut self, datagram: &[u8], now: Instant) {
        let Some(compound) = self.secure.open_rtcp(datagram) else {
            self.stats.bad += 1;
            return;
        };
        let mut packets = Vec::new();
        for (count, kind, body) in rtp::rtcp_packets(&compound) {
            let word = |i: usize| {
                body.get(i..i + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).unwrap_or_default()
            };
            match (kind, count) {
                (200, _) => {
                    if let Some(sink) = self.sinks.get_mut(&word(0)) {
                        let ntp = u64::from(word(4)) << 32 | u64::from(word(8));
                        sink.last_sr = Some((ntp, word(12), now));
                        sink.sr_packets = word(16);
                    }
                    self.report_blocks(body.get(24..).unwrap_or_default());
                }
                (201, _) => self.report_blocks(body.get(4..).unwrap_or_default()),
                (205, 1) => {
                    for lost in rtp::nacked(body.get(8..).unwrap_or_default()) {
                        for source in self.sources.values_mut() {
                            if source.nack(word(4), lost, &mut self.twcc, &mut packets) {
                                break;
                            }
                        }
                    }
                }
                (205, 15) => self.stats.twcc += 1,
                (206, 1) => {
                    for source in self.sources.values_mut() {
                        source.pli(word(4), now);
                    }
                }
                _ => {}
            }
        }
        self.send_media(packets);
    }

    fn report_blocks(&mut self, blocks: &[u8]) {
        for block in rtp::report_blocks(blocks) {
            for source in self.sources.values_mut() {
                source.report(block);
            }
        }
    }

    fn send_check(&mut self) {
        let Some((relay, _)) = &self.relay else { return };
        let username = format!("{}:{}", relay.ufrag, self.ice.ufrag);
        self.out.push(stun::request(&username, &relay.pwd, self.transaction, 7));
    }

    fn send_media(&mut self, packets: Vec<Vec<u8>>) {
        for packet in packets {
            if let Some(sealed) = self.secure.seal_rtp(&packet) {
                self.stats.sent += 1;
                self.sent_log.push_back(sealed.clone());
                if self.sent_log.len() > 200 {
                    self.sent_log.pop_front();
                }
                self.out.push(sealed);
            }
        }
    }

    fn send_reports(&mut self, now: Instant) {
        // Any fixed origin will do: 2024 in NTP's era 0.
        let elapsed = now.duration_since(self.start).as_secs_f64();
        let ntp = 3_913_056_000u64 << 32;
        let ntp = ntp + (elapsed * 4_294_967_296.0) as u64;
        let mut compounds = Vec::new();
        for source in self.sources.values() {
            source.reports(ntp, now, &mut compounds);
        }
        let blocks: Vec<_> = self.sinks.values_mut().filter_map(|sink| sink.report(now)).collect();
        for blocks in blocks.chunks(31) {
            compounds.push(rtp::receiver_report(OWN_SSRC, blocks));
        }
        for compound in compounds {
            self.send_rtcp(&compound);
        }
    }

    fn outputs(&mut self, outputs: Vec<SecureOutput>, now: Instant) {
        let mut has_data = false;
        for output in outputs {
            match output {
                SecureOutput::Datagram(datagram) => self.out.push(datagram),
                SecureOutput::Data(packet) => {
                    let data = self.data.get_or_insert_with(|| Data::new(self.opens_channels));
                    data.handle(&packet, now);
                    has_data = true;
                }
            }
        }
        if has_data {
            self.flush_data(now);
        }
    }

    fn flush_data(&mut self, now: Instant) {
        let Some(data) = self.data.as_mut() else { return };
        let packets = data.transmits(now);
        let mut out = Vec::new();
        for packet in packets {
            self.secure.send(&packet, &mut out, now);
        }
        self.outputs(out, now);
    }
}

/// Id of the transport-wide sequence number in the sections that [`super::world`] negotiates.
pub(super) const TWCC_ID: u8 = 5;
/// .. and of the playout delay.
pub(super) const PLAYOUT_DELAY_ID: u8 = 6;
